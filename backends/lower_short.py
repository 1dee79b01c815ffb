"""Short folds and lines, such as the elements of a pooling window, as straight-line code: their stages give an element
at each point of a nest, and can be computed in vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product as all_indices
from math import prod

from ..ir.index import Constant, Index
from ..ir.loops import Apply, Literal, Scalar
from ..ir.sizes import is_known
from ..ir.stages import Kind, Stage
from ..ir.types import bool_, int64
from .lower_builder import apply
from .lower_folds import fold_step
from .lower_points import Points

SHORT = 9
"""Elements that are written one after another, rather than in a loop."""

EXTREMES = {"argmax": "gt", "argmin": "lt"}
"""Positions of extremes -> what a better element is."""


def is_short(stage: Stage, axes: Sequence[int]) -> bool:
    """Whether a stage goes along `axes` of its space, all that it folds beside rows, in straight-line code."""
    sizes = [stage.sizes[d] for d in axes]
    if not axes or not is_known(*sizes) or not 1 <= prod(sizes) <= SHORT:
        return False
    return stage.node.op.name in EXTREMES or stage.kind is Kind.FOLD and not stage.is_product


def places(stage: Stage, axes: Sequence[int], indices: Sequence[Index]) -> Iterator[list[Index]]:
    """The points of the space along `axes`, in order."""
    for here in all_indices(*(range(stage.sizes[d]) for d in axes)):
        at = dict(zip(axes, here, strict=True))
        yield [Constant(at[d]) if d in at else index for d, index in enumerate(indices)]


def short_fold(points: Points, stage: Stage, axes: Sequence[int], indices: Sequence[Index]) -> Scalar:
    """The fold of a few elements, or the position of the best of them."""
    if stage.kind is Kind.LINE:
        return _best_place(points, stage, list(places(stage, axes, indices)))
    total: Scalar | None = None
    for at in places(stage, axes, indices):
        total = _let(points, stage, fold_step(points, stage, total, at))
    assert total is not None
    return total


def _best_place(points: Points, stage: Stage, line: Sequence[Sequence[Index]]) -> Scalar:
    """The first best one, where NaN is better than anything."""
    (x,) = stage.node.inputs
    best, where = points.at(x, line[0]), _place(0)
    for k, at in enumerate(line[1:], 1):
        element = points.at(x, at)
        better: Scalar = apply(EXTREMES[stage.node.op.name], (element, best), bool_)
        if x.dtype.is_floating_point:
            found, already = apply("ne", (element, element), bool_), apply("eq", (best, best), bool_)
            better = apply("logical_or", (better, apply("logical_and", (found, already), bool_)), bool_)
        better = _let(points, stage, better)
        where = _let(points, stage, apply("select", (better, _place(k), where), int64))
        best = _let(points, stage, apply("select", (better, element, best), x.dtype))
    return where


def _place(k: int) -> Scalar:
    return Literal(k, int64)


def _let(points: Points, stage: Stage, value: Scalar) -> Scalar:
    """A statement for what is computed, at the outermost loop that knows it."""
    if not isinstance(value, Apply):
        return value
    return points.builder.let(stage.hint, value, points.builder.depth(value), stage.node.loc)
