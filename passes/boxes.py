"""Recovers boxes (a start, a step and a count on every axis) from strided windows, which say less to other passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..ir.index import row_major_strides


@dataclass(frozen=True)
class Box:
    """A window as a slice of the source with its axes permuted; both may have further axes of size one."""

    starts: tuple[int, ...]
    steps: tuple[int, ...]
    counts: tuple[int, ...]
    order: tuple[int, ...]
    """The source's axes in the order of the window's."""

    @property
    def stops(self) -> tuple[int, ...]:
        """The smallest stops that fit."""
        runs = zip(self.starts, self.steps, self.counts, strict=True)
        return tuple(start + (count - 1) * step + 1 for start, step, count in runs)


def box_of_window(source: Sequence[int], shape: Sequence[int], strides: Sequence[int], offset: int) -> Box | None:
    """The window of `shape`, `strides`, `offset` into a row-major array of sizes `source`; None when it is no box."""
    if 0 in source or 0 in shape:
        return None
    own = row_major_strides(source)
    starts = [offset // stride % size for stride, size in zip(own, source, strict=True)]
    steps, counts, order = [1] * len(source), [1] * len(source), []
    for count, stride in zip(shape, strides, strict=True):
        if count == 1:
            continue
        axis = next((a for a, s in enumerate(own) if s <= stride and stride % s == 0 and source[a] > 1), None)
        if axis is None or axis in order or starts[axis] + (count - 1) * (stride // own[axis]) >= source[axis]:
            return None
        steps[axis], counts[axis] = stride // own[axis], count
        order.append(axis)
    rest = [a for a in range(len(source)) if a not in order]
    return Box(tuple(starts), tuple(steps), tuple(counts), (*order, *rest))
