"""Loops: which neighbouring axes of a space become one loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from math import prod

from ..ir.index import Constant, Index, Variable, affine, unflatten, variables_of
from .lower_builder import KernelBuilder

FEWEST_LANES = 6
"""A loop of fewer rounds is not worth a vector, most of whose lanes would be idle."""


@dataclass(frozen=True)
class Loop:
    """A loop over the product of some neighbouring axes of a space."""

    variable: Variable
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        """The trip count."""
        return self.variable.size  # type: ignore[return-value]


def merged_loops(
    builder: KernelBuilder,
    sizes: Sequence[int],
    expressions: Sequence[tuple[Index, int]],
    axes: Sequence[Variable],
    letters: str = "ijklmnpq",
) -> list[Loop]:
    """One loop per axis, fewer where every position of `expressions` (about `axes`) allows it; none for axes of size
    1."""
    merged: list[list[int]] = []
    for dim in (d for d, n in enumerate(sizes) if n != 1):
        if merged and _mergeable(merged[-1][-1], dim, sizes, expressions, axes):
            merged[-1].append(dim)
        else:
            merged.append([dim])
    names = cycle(letters)
    return [Loop(builder.variable(next(names), prod(sizes[d] for d in dims)), tuple(dims)) for dims in merged]


def _mergeable(
    outer: int, inner: int, sizes: Sequence[int], expressions: Sequence[tuple[Index, int]], axes: Sequence[Variable]
) -> bool:
    """Whether every position moves through `outer` as `sizes[inner]` steps of `inner`."""
    for expression, _ in expressions:
        mentioned = variables_of(expression)
        if axes[outer] not in mentioned and axes[inner] not in mentioned:
            continue
        steps = affine(expression, mentioned)
        if steps is None:
            return False
        step = dict(zip(mentioned, steps[1], strict=True))
        if step.get(axes[outer], 0) != step.get(axes[inner], 0) * sizes[inner]:
            return False
    return True


def indices_of(loops: Sequence[Loop], sizes: Sequence[int]) -> list[Index]:
    """The index of every axis of the space, from the loops' variables."""
    indices: list[Index] = [Constant(0)] * len(sizes)
    for loop in loops:
        for dim, index in zip(loop.dims, unflatten(loop.variable, [sizes[d] for d in loop.dims]), strict=True):
            indices[dim] = index
    return indices
