"""Memory while a plan is made: buffers with lifetimes, and their places in the arena. The planner decides who shares
a buffer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..ir.plan import Slot, Space

ALIGNMENT = 64
"""Every buffer in the arena starts on a cache line."""


@dataclass(eq=False, slots=True)
class Buffer:
    """A piece of memory that holds one value at a time. `first` and `last` are the times of its first and last use;
    `offset` is found when all of them are known (frame words at once)."""

    space: Space
    number: int
    nbytes: int
    offset: int = 0
    first: int = -1
    last: int = -1

    def slot(self, value: str) -> Any:
        """The buffer with the name of the value it holds: a `Pending`, which stands for a Slot in steps until it can
        be `placed`."""
        return Pending(self, value)


@dataclass(frozen=True, slots=True)
class Pending:
    """A slot whose buffer has no place yet."""

    buffer: Buffer
    value: str

    def placed(self) -> Slot:
        """The slot, once places are known."""
        b = self.buffer
        return Slot(b.space, b.number, b.offset, b.nbytes, self.value)

    def __str__(self) -> str:
        return str(self.placed())


def rounded(nbytes: int) -> int:
    """`nbytes` in whole cache lines."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def place_in_arena(buffers: Sequence[Buffer]) -> int:
    """Gives every arena buffer an offset so that buffers alive at one time are disjoint; the size of the arena.

    Goes through time, puts each buffer into the smallest free gap that holds it, and grows the arena when none does.
    """
    free: list[tuple[int, int]] = []  # disjoint (start, end) gaps in order
    size = 0
    starts = sorted((b for b in buffers if b.nbytes), key=lambda b: (b.first, -b.nbytes))
    ends = sorted(starts, key=lambda b: b.last)
    gone = 0
    for buffer in starts:
        while ends[gone].last < buffer.first:
            _release(free, ends[gone].offset, ends[gone].offset + rounded(ends[gone].nbytes))
            gone += 1
        need = rounded(buffer.nbytes)
        fitting = [gap for gap in free if gap[1] - gap[0] >= need]
        if fitting:
            start, end = min(fitting, key=lambda gap: (gap[1] - gap[0], gap[0]))
            free.remove((start, end))
            if end - start > need:
                _release(free, start + need, end)
        else:
            start = free.pop()[0] if free and free[-1][1] == size else size
            size = start + need
        buffer.offset = start
    return size


def _release(free: list[tuple[int, int]], start: int, end: int) -> None:
    """Adds a gap, merged with its neighbours."""
    at = next((i for i, gap in enumerate(free) if gap[0] > start), len(free))
    if at < len(free) and free[at][0] == end:
        end = free.pop(at)[1]
    if at > 0 and free[at - 1][1] == start:
        start = free.pop(at - 1)[0]
        at -= 1
    free.insert(at, (start, end))
