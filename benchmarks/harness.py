"""What a case is: a table of peers. A peer is the name of a library and a function that gets the imported library and
returns a `Work`. A peer whose library is not installed is left out; one whose answer differs from the case's
expectation is an error, not a figure.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Work:
    """What is timed: `run` does `steps` steps. `answer` computes, from a fresh start, numbers that every peer must
    agree on; it is the first call, too: what a peer compiles, it compiles there and not before."""

    run: Callable[[], Any]
    steps: int
    answer: Callable[[], Any]
    reports: bool = False
    """`run` returns the seconds that count (it starts a process, say)."""


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    what: str
    peers: Mapping[str, tuple[str, Callable[[Any], Work]]]
    """Peer's name -> (library, function from the library to the work)."""
    expected: Callable[[], Any]
    """The answer, by NumPy."""
    tolerance: float = 1e-4
    """Relative, of the answers."""
    scale: float = 0.0
    """What the tolerance is relative to for answers near zero."""
    busy: bool = False
    """Always timed beside a foreign process that keeps a core busy, too."""
    bytes: float = 0.0
    """The least traffic to memory of a step, for the share of the machine's limit that is reached."""
    flops: float = 0.0
    """The least number of multiplications and additions of a step's matrix products."""
