"""Programs on the disk: what one process planned, the next one runs without optimising, fusing, lowering and planning.

An entry is found by what the program was made from, the text of its traced graph, and by the text of weft. It holds
the plan, what the executor walks, and the keys of the kernels' machine code. People read plans that are made anew, so
that entries may leave out the bodies of kernels and all of nodes but the lines that they come from.
"""

from __future__ import annotations

import functools
import hashlib
import io
import pickle
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..ir.graph import Graph, Location, Node
from ..ir.loops import Kernel
from ..ir.plan import Plan
from .assemble import Program
from .cache import Code, code_cache

_PACKAGE = Path(__file__).parent.parent
_STAGES = ("ir", "passes", "backends", "runtime")


@dataclass(frozen=True)
class Place:
    """What is left of a node in a stored plan."""

    loc: Location | None


@dataclass(frozen=True)
class Stored:
    """A program as it is stored; `keys` are those of its kernels' code, in the order of `program.codes`."""

    plan: Plan
    program: Program
    keys: tuple[str, ...]


class _Pickler(pickle.Pickler):
    def reducer_override(self, thing: Any) -> Any:
        match thing:
            case Node(loc=loc):
                return Place, (loc,)
            case Kernel(name=name, sites=sites):
                return Kernel, (name, (), (), sites)
        return NotImplemented


@functools.cache
def _weft() -> str:
    """The hash of all that makes programs out of traced graphs."""
    digest = hashlib.sha256(sys.version.encode())
    for folder in _STAGES:
        for path in sorted((_PACKAGE / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _lines(graph: Graph) -> Iterator[str]:
    """The nodes' places, which the text of a graph shortens."""
    for node in graph.nodes:
        if node.loc is not None:
            yield f"{node.loc} {node.loc.backward}"
        for region in node.regions:
            yield from _lines(region)


def identity(graph: Graph, options: str) -> str:
    """By what a program is found."""
    return "\n".join((_weft(), options, str(graph), *_lines(graph)))


def find(identity: str) -> tuple[Stored, list[Code]] | None:
    """The program and the code of its kernels, when the disk has both."""
    data = code_cache().stored(identity)
    if data is None:
        return None
    stored: Stored = pickle.loads(data)
    codes = code_cache().known(stored.keys)
    return None if codes is None else (stored, codes)


def keep(identity: str, stored: Stored) -> None:
    """Stores a program."""
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(stored)
    code_cache().store(identity, buffer.getvalue())
