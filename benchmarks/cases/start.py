"""How soon the first result is there: the book's network as one loop, in new processes, with an empty and with a filled
cache."""
from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import Case, Work

from . import mlp

PROBE = """
import sys, time
sys.path.insert(0, {folder!r})
import numpy, {library} as library
from cases import mlp
mlp.data()
start = time.perf_counter()
work = mlp.{peer}(library)
work.run()
print(time.perf_counter() - start, work.answer())
"""
"""Prints the seconds from the imported library to the end of the first 200 steps, and the loss after 200 steps."""


class Starting:
    """A process a run, whose own clock counts."""

    def __init__(self, library: str, peer: str, variable: str, warm: bool) -> None:
        self.code = PROBE.format(folder=str(Path(__file__).parent.parent), library=library, peer=peer)
        self.variable, self.warm = variable, warm
        self.filled = tempfile.TemporaryDirectory(prefix="weft-bench-")
        self.process()

    def process(self) -> list[float]:
        """(seconds, loss) of a new process."""
        with tempfile.TemporaryDirectory(prefix="weft-bench-") as empty:
            variables = {
                self.variable: self.filled.name if self.warm else empty,
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            }
            result = subprocess.run(
                [sys.executable, "-c", self.code],
                env={**os.environ, **variables},
                capture_output=True,
                text=True,
                check=True,
            )
        return [float(word) for word in result.stdout.split()[-2:]]

    def work(self) -> Work:
        return Work(lambda: self.process()[0], 1, lambda: self.process()[1], reports=True)


def weft_empty(weft: Any) -> Work:
    return Starting("weft", "weft_loop", "WEFT_CACHE_DIR", warm=False).work()


def weft_filled(weft: Any) -> Work:
    return Starting("weft", "weft_loop", "WEFT_CACHE_DIR", warm=True).work()


def jax_empty(jax: Any) -> Work:
    return Starting("jax", "jax_loop", "JAX_COMPILATION_CACHE_DIR", warm=False).work()


def jax_filled(jax: Any) -> Work:
    return Starting("jax", "jax_loop", "JAX_COMPILATION_CACHE_DIR", warm=True).work()


CASES = (
    Case(
        "start",
        "From the imported library to the end of 200 steps of the book's network, in one loop and a new process.",
        {
            "weft, empty cache": ("weft", weft_empty),
            "weft, filled cache": ("weft", weft_filled),
            "JAX, empty cache": ("jax", jax_empty),
            "JAX, filled cache": ("jax", jax_filled),
        },
        mlp.expected,
    ),
)
