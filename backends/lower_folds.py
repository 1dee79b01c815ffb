"""Folds as loop IR: accumulators in locals, as numbers or as vectors of LANES partial results, and how two of them are
joined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from ..ir.access import Access
from ..ir.index import Constant, Index, Variable, unflatten
from ..ir.loops import LANES, Apply, Literal, Local, Scalar
from ..ir.sizes import divides, typical
from ..ir.stages import Stage, StagePlan
from ..ir.types import DType
from .lower_builder import KernelBuilder, apply, lanes_left
from .lower_points import Points
from .lower_spaces import FEWEST_LANES, Loop, merged_loops

FOLD_LANES = {
    "add": "fold_add",
    "mul": "fold_mul",
    "maximum": "fold_maximum",
    "minimum": "fold_minimum",
    "logical_or": "fold_or",
    "logical_and": "fold_and",
}
"""Joining word -> the word that joins the lanes of a vector."""


def unit_of(word: str, dtype: DType) -> Literal:
    """x word unit == x."""
    match word:
        case "add" | "logical_or":
            return Literal(dtype.kind != "bool" and 0, dtype)
        case "mul" | "logical_and":
            return Literal(dtype.kind == "bool" or 1, dtype)
        case "maximum" | "minimum":
            return Literal(_extreme(dtype, word == "minimum"), dtype)
    raise KeyError(word)


def _extreme(dtype: DType, largest: bool) -> bool | int | float:
    match dtype.kind:
        case "bool":
            return largest
        case "float":
            return math.inf if largest else -math.inf
        case "uint":
            return (1 << dtype.bits) - 1 if largest else 0
    return (1 << (dtype.bits - 1)) - 1 if largest else -(1 << (dtype.bits - 1))


@dataclass
class Accumulator:
    """The running result of a fold: a vector, a number, or both."""

    lanes: Local | None
    total: Local | None


def new_accumulator(builder: KernelBuilder, stage: Stage, lanes: bool, number: bool) -> Accumulator:
    """An accumulator with nothing in it; a number if there is no vector."""
    hint, unit, loc = stage.hint, unit_of(stage.join, stage.value.dtype), stage.node.loc
    vector = builder.accumulator(hint + "_lanes", Literal(unit.value, unit.dtype, LANES), loc) if lanes else None
    return Accumulator(vector, builder.accumulator(hint, unit, loc) if number or not lanes else None)


def total_of(builder: KernelBuilder, stage: Stage, sum_: Accumulator) -> Scalar:
    """The number that an accumulator comes to."""
    if sum_.lanes is None:
        assert sum_.total is not None
        return sum_.total
    result = Apply(FOLD_LANES[stage.join], (sum_.lanes,), stage.value.dtype)
    if sum_.total is not None:
        result = Apply(stage.join, (result, sum_.total), stage.value.dtype)
    return builder.let(stage.hint, result, builder.level, stage.node.loc)


def fold_step(points: Points, stage: Stage, accumulator: Scalar | None, indices: Sequence[Index]) -> Scalar:
    """The accumulator of a fold (None: nothing yet) joined with the operands at a point of the space."""
    elements, dtype = [points.at(v, i) for v, i in stage.operands(indices)], stage.value.dtype
    if not stage.is_product:
        return elements[0] if accumulator is None else apply(stage.join, (accumulator, elements[0]), dtype)
    if accumulator is None:
        return apply("mul", tuple(elements), dtype)
    if dtype.is_floating_point:
        return apply("fma", (*elements, accumulator), dtype)
    return apply("add", (accumulator, apply("mul", tuple(elements), dtype)), dtype)


def inner_folds(
    points: Points, plan: StagePlan, stage: Stage, extra: Sequence[int], places: Sequence[Sequence[Index]]
) -> list[Scalar]:
    """Folds the axes `extra` of a stage's space at several points at once: one loop, one accumulator for each point."""
    builder = points.builder
    unit = unit_of(stage.join, stage.value.dtype)
    if any(stage.sizes[d] == 0 for d in stage.folded):
        return [unit] * len(places)
    if not extra:
        return [fold_step(points, stage, None, indices) for indices in places]
    loops = _loops(builder, plan, stage, extra, places[0])
    inside = [_inside(stage, indices, loops) for indices in places]
    long = typical(prod(loop.size for loop in loops)) >= 2 * LANES and typical(loops[-1].size) >= FEWEST_LANES
    if points.vector is None and long and _can_be_vector(plan, stage, inside[0], loops[-1].variable):
        return [_vector_fold(points, stage, loops, indices) for indices in inside]
    start = Literal(unit.value, unit.dtype, LANES if points.vector is not None else 1)
    totals = [builder.accumulator(stage.hint, start, stage.node.loc) for _ in places]
    for loop in loops:
        builder.open(loop.variable, 0, loop.size)
    for total, indices in zip(totals, inside, strict=True):
        builder.set(total, fold_step(points, stage, total, indices), stage.node.loc)
    for _ in loops:
        builder.close()
    return list(totals)


def _loops(
    builder: KernelBuilder, plan: StagePlan, stage: Stage, extra: Sequence[int], indices: Sequence[Index]
) -> list[Loop]:
    """Loops over the axes `extra` of a stage's space, as few as all positions allow."""
    report, axes = Access(plan.stored, plan.producers), [stage.axes[d] for d in extra]
    stage.walk(report, [stage.axes[d] if d in extra else index for d, index in enumerate(indices)])
    merged = merged_loops(builder, [stage.sizes[d] for d in extra], report.expressions(), axes, "k")
    return [Loop(loop.variable, tuple(extra[k] for k in loop.dims)) for loop in merged]


def _inside(stage: Stage, indices: Sequence[Index], loops: Sequence[Loop]) -> list[Index]:
    inner = list(indices)
    for loop in loops:
        parts = unflatten(loop.variable, [stage.sizes[d] for d in loop.dims])
        for d, index in zip(loop.dims, parts, strict=True):
            inner[d] = index
    return inner


def _can_be_vector(plan: StagePlan, stage: Stage, indices: Sequence[Index], variable: Variable) -> bool:
    report = Access(plan.stored, plan.producers)
    stage.walk(report, indices)
    return report.can_be_vector(variable)


def _vector_fold(points: Points, stage: Stage, loops: Sequence[Loop], indices: Sequence[Index]) -> Scalar:
    """Folds along loops, LANES elements of the last one at a time."""
    builder, last = points.builder, loops[-1]
    end = Constant(last.size)
    whole = builder.whole_steps(Constant(0), end, LANES)
    sum_ = new_accumulator(builder, stage, True, False)
    assert sum_.lanes is not None
    for loop in loops[:-1]:
        builder.open(loop.variable, 0, loop.size)
    rest = [] if divides(LANES, last.size) else [(whole, end, lanes_left(last.variable, whole, end))]
    for start, stop, count in [(Constant(0), whole, None), *rest]:
        builder.open(last.variable, start, stop, LANES)
        points.vector, points.count = last.variable, count
        total = fold_step(points, stage, sum_.lanes, indices)
        builder.set(sum_.lanes, points.joined(sum_.lanes, total), stage.node.loc)
        points.vector = points.count = None
        builder.close()
    for _ in loops[:-1]:
        builder.close()
    return total_of(builder, stage, sum_)
