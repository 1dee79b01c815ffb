"""Products of long rows in tiles, block by block of the contracted axis: the block of the right operand that all rows
of a chunk are multiplied by stays in the cache.

The sums so far stand in the memory of the result; the sum of each block is added to them, which is also more accurate
than one long sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ..ir.index import Index, unflatten
from ..ir.loops import Literal, Scalar
from ..ir.product_tiles import DEPTH, goes_in_blocks
from ..ir.sizes import Dim, typical
from ..ir.stages import Stage
from .lower_builder import apply, splat
from .lower_folds import fold_step
from .lower_points import Points

DEEP_ROWS, DEEP_CHUNKS = 128, 4
"""Chunks have at least so many rows, if there are then so many chunks."""


def is_deep(stage: Stage) -> bool:
    """Whether a tiled product should be computed in blocks of its contracted axis."""
    return goes_in_blocks(_terms(stage), stage.sizes[stage.kept[-1]], stage.value.dtype.itemsize)


def _terms(stage: Stage) -> int:
    return prod(stage.sizes[d] for d in stage.folded)


def least_rows(count: Dim) -> int:
    """How many of `count` rows a chunk should have, at least."""
    return max(1, min(DEEP_ROWS, typical(count) // DEEP_CHUNKS))


def cleared(points: Points, stage: Stage, start: Index, stop: Index) -> None:
    """Writes the zeros from which the sums of rows [start, stop) go on."""
    place, builder = points.places[stage.value], points.builder
    assert place.buffer is not None
    row = stage.sizes[stage.kept[-1]]
    index = builder.variable("j", stage.value.type.size)
    builder.open(index, start * row, stop * row)
    builder.store(place.buffer, index, Literal(0, stage.value.dtype), stage.node.loc)
    builder.close()


def continued(
    points: Points, stage: Stage, span: tuple[Index, Index], places: Sequence[Sequence[Index]]
) -> list[Scalar]:
    """The sums at several points after the terms of `span`, whose own sum is added to those in memory."""
    builder, dtype = points.builder, stage.value.dtype
    variable, nothing = builder.variable("k", _terms(stage)), Literal(0, dtype)
    axes = dict(zip(stage.folded, unflatten(variable, [stage.sizes[d] for d in stage.folded]), strict=True))
    start = nothing if points.vector is None else splat(nothing)
    sums = [builder.accumulator(stage.hint, start, stage.node.loc) for _ in places]
    builder.open(variable, *span)
    for sum_, indices in zip(sums, places, strict=True):
        inside = [axes.get(d, index) for d, index in enumerate(indices)]
        builder.set(sum_, fold_step(points, stage, sum_, inside), stage.node.loc)
    builder.close()
    before = [points.read(stage.value, tuple(indices[d] for d in stage.kept)) for indices in places]
    return [apply("add", pair, dtype) for pair in zip(before, sums, strict=True)]


def depth_of(stage: Stage) -> tuple[int, int]:
    """The size of the contracted axis, and that of its blocks, which are as even as possible."""
    size = _terms(stage)
    return size, -(-size // -(-size // DEPTH))
