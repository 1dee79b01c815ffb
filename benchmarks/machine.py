"""The machine: its name, what it can do at most, and what a process uses of its memory."""
from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import Case

LONG, SIDE = 1 << 24, 1024
"""Elements of the vectors, rows of the matrices by which the limits are measured."""


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def description() -> str:
    """The machine and the versions."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    versions = []
    for name in ("numpy", "scipy", "numba", "torch", "jax"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    return f"{model}, {cores()} cores, {platform.system()}; Python {platform.python_version()}, {', '.join(versions)}"


def untuned() -> dict[str, str]:
    """The environment without variables that tune BLAS and thread libraries: every peer is measured as installed."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("OPENBLAS_", "MKL_", "OMP_", "BLIS_"))}


# Limits ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limits:
    """What the machine can do: bytes a second of a sum of two long vectors, flops of a product of large matrices."""

    bandwidth: float
    gemm: float

    def share(self, case: Case, seconds: float) -> float:
        """The part of the limit that such a step reaches; 0 where the case does not say what it needs."""
        return max(case.bytes / self.bandwidth, case.flops / self.gemm) / seconds


def limits_of_machine() -> Limits:
    """The limits, measured in a process of their own."""
    command = [sys.executable, __file__]
    result = subprocess.run(command, env=untuned(), capture_output=True, text=True, check=True)
    return Limits(**json.loads(result.stdout))


def print_limits() -> None:
    """What NumPy reaches, in this process: one thread a core adds long vectors, and BLAS multiplies large matrices."""
    threads = cores()
    a, b, c = (np.ones((threads, LONG // threads), np.float32) for _ in range(3))
    with ThreadPoolExecutor(threads) as pool:
        adding = best_of(lambda: [*pool.map(lambda k: np.add(a[k], b[k], out=c[k]), range(threads))])
    x, y = (np.ones((SIDE, SIDE), np.float32) for _ in range(2))
    multiplying = best_of(lambda: x @ y)
    print(json.dumps({"bandwidth": 12 * a.size / adding, "gemm": 2 * SIDE**3 / multiplying}))


def best_of(run: Callable[[], Any]) -> float:
    """The shortest of a few runs, in seconds."""
    times = []
    for _ in range(40):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


# Memory ---------------------------------------------------------------------------------------------------------------


def peak_memory() -> int:
    """The most bytes that this process has had in memory since the start or `forget_peak`; 0 where nobody knows."""
    return _status("VmHWM:")


def forget_peak() -> None:
    """The peak is what is in memory now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def resting_memory() -> int:
    """The bytes in memory when all that can be freed is given back to the system."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return _status("VmRSS:")


def _status(name: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    print_limits()
