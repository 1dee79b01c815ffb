"""Stages that go along one axis: running folds, positions of extremes, stable sorting."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..ir.graph import Value
from ..ir.index import Index, IndexLike, Variable, as_index, flatten
from ..ir.loops import Apply, Buffer, Literal, Load, Local, Position, Role, Scalar, While
from ..ir.stages import CUMULATIVE, Stage
from ..ir.types import bool_, int64
from .lower_builder import KernelBuilder, apply
from .lower_points import Points

Give = Callable[[Value, Sequence[Index], Scalar], None]
"""Stores one element of a value, given all its indices."""

STACK_BYTES = 1 << 15
"""A line that is sorted is merged through memory on the stack up to this size."""


def emit_line(points: Points, stage: Stage, indices: Sequence[Index], store: Give, settle: Give) -> None:
    """Writes one line of `stage`; `indices` are those of the space, of which that of the line's axis is not used.

    `store` stores an element in a local that may change; `settle` also makes a final one known to other stages.
    """
    builder, name = points.builder, stage.node.op.name
    if name in CUMULATIVE:
        _cumulative(builder, points, stage, indices, store)
    elif name == "sort":
        _sort(builder, points, stage, indices)
    else:
        _arg_extreme(builder, points, stage, indices, settle)


def _on_line(stage: Stage, indices: Sequence[Index], k: IndexLike) -> list[Index]:
    """The indices of place `k` of the line."""
    line = list(indices)
    line[stage.folded[0]] = as_index(k)
    return line


def _arg_extreme(builder: KernelBuilder, points: Points, stage: Stage, indices: Sequence[Index], give: Give) -> None:
    """The first best one, where NaN is better than anything."""
    (x,), loc, (dim,) = stage.node.inputs, stage.node.loc, stage.folded
    best = builder.accumulator("best", points.at(x, _on_line(stage, indices, 0)), loc)
    where = builder.accumulator("where", Literal(0, int64), loc)
    k = builder.variable("k", stage.sizes[dim])
    builder.open(k, 1, stage.sizes[dim])
    element = points.at(x, _on_line(stage, indices, k))
    better = apply("gt" if stage.node.op.name == "argmax" else "lt", (element, best), bool_)
    if x.dtype.is_floating_point:
        news = apply("logical_and", (apply("ne", (element, element), bool_), apply("eq", (best, best), bool_)), bool_)
        better = apply("logical_or", (better, news), bool_)
    found = builder.let("better", better, builder.level, loc)
    builder.set(where, apply("select", (found, Position(k), where), int64), loc)
    builder.set(best, apply("select", (found, element, best), x.dtype), loc)
    builder.close()
    give(stage.value, [i for d, i in enumerate(indices) if d != dim], where)


def _cumulative(builder: KernelBuilder, points: Points, stage: Stage, indices: Sequence[Index], give: Give) -> None:
    (x,), loc, (dim,) = stage.node.inputs, stage.node.loc, stage.folded
    running = builder.accumulator("running", points.at(x, _on_line(stage, indices, 0)), loc)
    give(stage.value, _on_line(stage, indices, 0), running)
    k = builder.variable("k", stage.sizes[dim])
    builder.open(k, 1, stage.sizes[dim])
    here = _on_line(stage, indices, k)
    builder.set(running, apply(CUMULATIVE[stage.node.op.name], (running, points.at(x, here)), x.dtype), loc)
    give(stage.value, here, running)
    builder.close()


# Sorting: merge sort, bottom up, between the outputs and two spare lines --------------------------------------------


def _sort(builder: KernelBuilder, points: Points, stage: Stage, indices: Sequence[Index]) -> None:
    node, n = stage.node, stage.sizes[stage.folded[0]]
    values, order = node.outputs
    role = Role.LOCAL if n * 8 <= STACK_BYTES else Role.SCRATCH
    spare = builder.buffer("spare", values.dtype, n, role), builder.buffer("spare_order", int64, n, role)

    def place(value: Value, k: IndexLike) -> tuple[Buffer, Index]:
        at = points.places[value]
        assert at.buffer is not None
        return at.buffer, at.offset(flatten(_on_line(stage, indices, k), stage.sizes))

    k = builder.variable("k", n)
    builder.open(k, 0, n)
    builder.store(*place(values, k), points.at(node.inputs[0], _on_line(stage, indices, k)), node.loc)
    builder.store(*place(order, k), Position(k), node.loc)
    builder.close()
    width = builder.accumulator("width", Literal(1, int64))
    builder.open_branch()
    run = builder.accumulator("run", Literal(0, int64))
    builder.open_branch()
    _merge_run(builder, stage, place, spare, (run, width), n)
    builder.emit(While((), apply("lt", (run, Literal(n, int64)), bool_), builder.close_branch()))
    k = builder.variable("k", n)
    builder.open(k, 0, n)
    for value, buffer in zip((values, order), spare, strict=True):
        builder.store(*place(value, k), Load(buffer, k))
    builder.close()
    builder.set(width, Apply("add", (width, width), int64))
    builder.emit(While((), apply("lt", (width, Literal(n, int64)), bool_), builder.close_branch()))


def _merge_run(
    builder: KernelBuilder,
    stage: Stage,
    place: Callable[[Value, IndexLike], tuple[Buffer, Index]],
    spare: tuple[Buffer, Buffer],
    state: tuple[Local, Local],
    n: int,
) -> None:
    """Merges two neighbouring runs of `width` places, from place `run` on, into the spare lines; moves `run` behind
    them."""
    (values, order), (run, width), dtype = stage.node.outputs, state, stage.node.inputs[0].dtype
    middle = builder.accumulator("middle", _least(Apply("add", (run, width), int64), n))
    end = builder.accumulator("end", _least(Apply("add", (middle, width), int64), n))
    left, right = builder.accumulator("left", run), builder.accumulator("right", middle)
    k = builder.variable("k", n)
    builder.open(k, Variable(run.name, n), Variable(end.name, n + 1))
    at_left, at_right = (
        builder.accumulator("at_left", _least(left, n - 1)),
        builder.accumulator("at_right", _least(right, n - 1)),
    )
    a = builder.accumulator("a", Load(*place(values, Variable(at_left.name, n))))
    b = builder.accumulator("b", Load(*place(values, Variable(at_right.name, n))))
    first = apply(
        "logical_or", (apply("ge", (left, middle), bool_), _before(b, a, stage.node.attrs["descending"])), bool_
    )
    taken = builder.accumulator("taken", apply("logical_and", (apply("lt", (right, end), bool_), first), bool_))
    builder.store(spare[0], k, apply("select", (taken, b, a), dtype))
    sources = Load(*place(order, Variable(at_right.name, n))), Load(*place(order, Variable(at_left.name, n)))
    builder.store(spare[1], k, apply("select", (taken, *sources), int64))
    builder.set(right, apply("select", (taken, _plus_one(right), right), int64))
    builder.set(left, apply("select", (taken, left, _plus_one(left)), int64))
    builder.close()
    builder.set(run, end)


def _least(scalar: Scalar, bound: int) -> Scalar:
    return Apply("minimum", (scalar, Literal(bound, int64)), int64)


def _plus_one(scalar: Scalar) -> Scalar:
    return Apply("add", (scalar, Literal(1, int64)), int64)


def _before(b: Scalar, a: Scalar, descending: bool) -> Scalar:
    """Whether `b` must come before `a`, strictly; NaN is larger than everything."""
    smaller, larger = (a, b) if descending else (b, a)
    less = apply("lt", (smaller, larger), bool_)
    if not a.dtype.is_floating_point:
        return less
    nan = apply("logical_and", (apply("eq", (smaller, smaller), bool_), apply("ne", (larger, larger), bool_)), bool_)
    return apply("logical_or", (less, nan), bool_)
