"""Stages: the loop nests that compute whole values into memory, one function per kind of op.

A stage may be split: its outermost loop then runs over the kernel's own [start, stop), so that the runtime can call it in chunks.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from ..ir.graph import Node, Value
from ..ir.index import Index, IndexLike, Variable, as_index, flatten, variables
from ..ir.loops import LANES, START, STOP, Apply, Buffer, Literal, Load, Local, Position, Role, Scalar, While
from ..ir.op import Trait
from ..ir.types import DType, bool_, int64
from .lower_builder import KernelBuilder, apply
from .lower_points import Memory, Place, Points, _sizes
from .lower_spaces import Axis, axes_of, can_vectorize, contiguous_axis, indices_of, rehearse

SHORTEST_VECTOR_FOLD = 2 * LANES
"""Folds over fewer elements are not worth a vector accumulator."""


@dataclass
class Stages:
    """The stages of one kernel.

    Attributes:
        builder: the kernel being written.
        places: where values with storage are; shared with `points`.
        producers: the node of every value that the body computes.
        split: whether the (only) stage runs over the kernel's own range.
        extent: the size of the split loop, once it is known.
        cost: additions' worth of all work so far.
    """

    builder: KernelBuilder
    places: dict[Value, Place]
    producers: Mapping[Value, Node]
    split: bool = False
    extent: int = 1
    cost: int = 0
    points: Points = field(init=False)

    def __post_init__(self) -> None:
        self.points = Points(self.builder, self.places, self.producers)

    def target(self, value: Value) -> Buffer:
        """The buffer that `value` is to be computed into."""
        place = self.places[value]
        assert isinstance(place, Memory)
        return place.buffer

    def open(self, axes: Sequence[Axis], split: Axis | None = None) -> None:
        """Opens the loops of `axes`; `split` is the one that runs over the kernel's range."""
        for axis in axes:
            if axis is split:
                self.extent = axis.size
                self.builder.open(axis.variable, START, STOP)
            else:
                self.builder.open(axis.variable, 0, axis.size)

    def close(self, axes: Sequence[Axis]) -> None:
        """Closes the loops that `open` opened."""
        for _ in axes:
            self.builder.close()

    def splittable(self, axes: Sequence[Axis]) -> Axis | None:
        """The axis to split, the first of `axes`, when this kernel is to be split."""
        return axes[0] if self.split and axes else None

    def store(self, value: Value, indices: Sequence[IndexLike], scalar: Scalar, node: Node | None = None) -> None:
        """Writes one element of a value that is being computed."""
        self.builder.store(self.target(value), flatten(indices, _sizes(value)), scalar, node.loc if node else None)


# Maps --------------------------------------------------------------------------------------------------------------------------


def emit_map(stages: Stages, values: Sequence[Value]) -> None:
    """Computes values of one shape element by element, in one nest."""
    sizes = _sizes(values[0])
    probes = variables(sizes, "p")
    sources = [_without_place(stages, v) for v in values]

    def element(points: Points) -> None:
        for value in values:
            points.touched.append((flatten(probes, sizes), prod(sizes)))
            points.at(value, probes)

    seen = rehearse(_hidden(stages.places, values), stages.producers, probes, element)
    (axes,) = axes_of(stages.builder, sizes, [range(len(sizes))], seen.touched, probes)
    stages.cost += seen.cost * prod(sizes)
    stages.open(axes, stages.splittable(axes))
    indices = indices_of(axes, sizes)
    for value, place in zip(values, sources, strict=True):
        del stages.places[value]
        scalar = stages.points.at(value, indices)
        stages.places[value] = place
        stages.points.remember(value, indices, scalar)
        stages.store(value, indices, scalar, stages.producers[value])
    stages.close(axes)


def _without_place(stages: Stages, value: Value) -> Place:
    return stages.places[value]


def _hidden(places: Mapping[Value, Place], values: Sequence[Value]) -> dict[Value, Place]:
    """The places without those of `values`, which are still to be computed."""
    return {v: p for v, p in places.items() if v not in values}


# Folds -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fold:
    """A reduction over some axes of a space.

    Attributes:
        node: the op; its only output has the kept axes in the order of `kept`.
        sizes: the space.
        kept, folded: its axes.
        unit: the start value.
        step: (points, accumulator, indices of the space) -> the next accumulator.
        join: the word that joins two accumulators.
    """

    node: Node
    sizes: tuple[int, ...]
    kept: tuple[int, ...]
    folded: tuple[int, ...]
    unit: Literal
    step: Callable[[Points, Scalar, Sequence[Index]], Scalar]
    join: str


REDUCTIONS = {"sum": "add", "prod": "mul", "amax": "maximum", "amin": "minimum", "any": "logical_or", "all": "logical_and"}
"""Reduction op -> the word that joins two elements."""

_FOLD_LANES = {"add": "fold_add", "mul": "fold_mul", "maximum": "fold_maximum", "minimum": "fold_minimum", "logical_or": "fold_or",
               "logical_and": "fold_and"}


def unit_of(word: str, dtype: DType) -> Literal:
    """x word unit == x."""
    match word:
        case "add" | "logical_or":
            return Literal(False if dtype is bool_ else 0, dtype)
        case "mul" | "logical_and":
            return Literal(True if dtype is bool_ else 1, dtype)
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


def reduction_fold(node: Node) -> Fold:
    """The fold of a reduction op."""
    x, dims = node.inputs[0], node.attrs["dims"]
    word, rank = REDUCTIONS[node.op.name], x.type.rank

    def step(points: Points, accumulator: Scalar, indices: Sequence[Index]) -> Scalar:
        return apply(word, (accumulator, points.at(x, indices)), x.dtype)

    kept = tuple(d for d in range(rank) if d not in dims)
    return Fold(node, _sizes(x), kept, tuple(dims), unit_of(word, x.dtype), step, word)


def dot_fold(node: Node) -> Fold:
    """The fold of a dot_general: batch axes, free axes of the left and of the right, then the contracted ones."""
    x, y = node.inputs
    batch, rhs_batch = node.attrs["lhs_batch"], node.attrs["rhs_batch"]
    contract, rhs_contract = node.attrs["lhs_contract"], node.attrs["rhs_contract"]
    left = [d for d in range(x.type.rank) if d not in batch and d not in contract]
    right = [d for d in range(y.type.rank) if d not in rhs_batch and d not in rhs_contract]
    xs, ys = _sizes(x), _sizes(y)
    sizes = [xs[d] for d in batch] + [xs[d] for d in left] + [ys[d] for d in right] + [xs[d] for d in contract]
    kept = len(sizes) - len(contract)
    of_left = {d: k for k, d in enumerate((*batch, *left))} | {d: kept + k for k, d in enumerate(contract)}
    of_right = ({d: k for k, d in enumerate(rhs_batch)} | {d: len(batch) + len(left) + k for k, d in enumerate(right)}
                | {d: kept + k for k, d in enumerate(rhs_contract)})

    def step(points: Points, accumulator: Scalar, indices: Sequence[Index]) -> Scalar:
        a = points.at(x, [indices[of_left[d]] for d in range(x.type.rank)])
        b = points.at(y, [indices[of_right[d]] for d in range(y.type.rank)])
        if x.dtype.is_floating_point:
            return apply("fma", (a, b, accumulator), x.dtype)
        return apply("add", (accumulator, apply("mul", (a, b), x.dtype)), x.dtype)

    return Fold(node, tuple(sizes), tuple(range(kept)), tuple(range(kept, len(sizes))), unit_of("add", x.dtype), step, "add")


def emit_fold(stages: Stages, fold: Fold) -> None:
    """Computes a fold: along rows into a local, or along columns into the output, whichever walks through memory contiguously."""
    probes = variables(fold.sizes, "p")
    hidden = _hidden(stages.places, fold.node.outputs)

    def element(points: Points) -> None:
        fold.step(points, fold.unit, probes)

    seen = rehearse(hidden, stages.producers, probes, element)
    stages.cost += (seen.cost + 1) * prod(fold.sizes)
    wide = [d for d in (*fold.kept, *fold.folded) if fold.sizes[d] > 1]
    inner = contiguous_axis(seen.touched, probes, wide) if wide else -1
    if inner in fold.kept and any(fold.sizes[d] > 1 for d in fold.folded):
        _emit_columns(stages, fold, inner, seen.touched, probes)
    else:
        _emit_rows(stages, fold, inner, seen.touched, probes, hidden)


def _emit_columns(stages: Stages, fold: Fold, inner: int, touched: Sequence[tuple[Index, int]], probes: Sequence[Variable]) -> None:
    """The innermost loop runs over a kept axis; the output holds the accumulators."""
    (value,), builder = fold.node.outputs, stages.builder
    touched = (*touched, (_kept_position(fold, probes), prod(_sizes(value))))
    order = [[d for d in fold.kept if d != inner], fold.folded, [inner]]
    outer, middle, (last,) = axes_of(builder, fold.sizes, order, touched, probes)
    split = stages.splittable(outer or [last])
    buffer = stages.target(value)
    stages.open(outer, split)
    position = _kept_position(fold, indices_of([*outer, last], fold.sizes))
    stages.open([last], split)
    builder.store(buffer, position, fold.unit, fold.node.loc)
    stages.close([last])
    stages.open([*middle, last], split)
    step = fold.step(stages.points, Load(buffer, position), indices_of([*outer, *middle, last], fold.sizes))
    builder.store(buffer, position, step, fold.node.loc)
    stages.close([*outer, *middle, last])


def _kept_position(fold: Fold, indices: Sequence[IndexLike]) -> Index:
    return flatten([indices[d] for d in fold.kept], [fold.sizes[d] for d in fold.kept])


def _emit_rows(stages: Stages, fold: Fold, inner: int, touched: Sequence[tuple[Index, int]], probes: Sequence[Variable],
               hidden: dict[Value, Place]) -> None:
    """The innermost loops run over the folded axes; a local is the accumulator."""
    (value,), builder = fold.node.outputs, stages.builder
    touched = (*touched, (_kept_position(fold, probes), prod(_sizes(value))))
    folded = [d for d in fold.folded if d != inner] + [d for d in fold.folded if d == inner]
    kept, inside = axes_of(builder, fold.sizes, [fold.kept, folded], touched, probes)
    stages.open(kept, stages.splittable(kept))
    if prod(fold.sizes[d] for d in fold.folded) == 0:
        result: Scalar = fold.unit
    else:
        result = _folded(stages, fold, kept, inside, hidden)
    indices = indices_of(kept, fold.sizes)
    stages.points.remember(value, [indices[d] for d in fold.kept], result)
    stages.store(value, [indices[d] for d in fold.kept], result, fold.node)
    stages.close(kept)


def _folded(stages: Stages, fold: Fold, kept: Sequence[Axis], inside: Sequence[Axis], hidden: dict[Value, Place]) -> Scalar:
    """The accumulator after the loops over the folded axes."""
    builder, loc = stages.builder, fold.node.loc
    indices = indices_of([*kept, *inside], fold.sizes)
    hint = fold.node.output.hint or fold.node.op.name
    if inside and inside[-1].size >= SHORTEST_VECTOR_FOLD and fold.join in _FOLD_LANES:
        probe = [a.variable for a in (*kept, *inside)]
        if can_vectorize(hidden, stages.producers, probe, lambda points: fold.step(points, fold.unit, indices), inside[-1].variable):
            return _vector_folded(stages, fold, indices, inside, hint)
    total = builder.accumulator(hint, fold.unit, loc)
    stages.open(inside)
    builder.set(total, fold.step(stages.points, total, indices), loc)
    stages.close(inside)
    return total


def _vector_folded(stages: Stages, fold: Fold, indices: Sequence[Index], inside: Sequence[Axis], hint: str) -> Scalar:
    """As `_folded`, LANES elements of the innermost axis at a time, with the rest of the axis behind."""
    builder, points, loc = stages.builder, stages.points, fold.node.loc
    last, dtype = inside[-1], fold.unit.dtype
    whole = last.size // LANES * LANES
    lanes = builder.accumulator(hint + "_lanes", Literal(fold.unit.value, dtype, LANES), loc)
    total = builder.accumulator(hint, fold.unit, loc) if whole < last.size else None
    stages.open(inside[:-1])
    builder.open(last.variable, 0, whole, LANES)
    points.vector = last.variable
    builder.set(lanes, fold.step(points, lanes, indices), loc)
    points.vector = None
    builder.close()
    if total is not None:
        builder.open(last.variable, whole, last.size)
        builder.set(total, fold.step(points, total, indices), loc)
        builder.close()
    stages.close(inside[:-1])
    folded = Apply(_FOLD_LANES[fold.join], (lanes,), dtype)
    return builder.let(hint, folded if total is None else Apply(fold.join, (folded, total), dtype), builder.level, loc)


# Positions of extremes, running folds ------------------------------------------------------------------------------------------


def emit_arg_extreme(stages: Stages, node: Node) -> None:
    """argmax and argmin: the first best one, where NaN is better than anything."""
    (x,), builder, dim = node.inputs, stages.builder, node.attrs["dim"]
    sizes = _sizes(x)
    axes = _plain_axes(builder, sizes, skip=dim)
    stages.cost += 4 * prod(sizes)
    stages.open(axes, stages.splittable(axes))
    line = Axis(builder.variable("k", sizes[dim]), (dim,))
    best = builder.accumulator("best", stages.points.at(x, indices_of(axes, sizes)), node.loc)
    where = builder.accumulator("where", Literal(0, int64), node.loc)
    builder.open(line.variable, 1, sizes[dim])
    element = stages.points.at(x, indices_of([*axes, line], sizes))
    better = apply("gt" if node.op.name == "argmax" else "lt", (element, best), bool_)
    if x.dtype.is_floating_point:
        news = apply("logical_and", (apply("isnan", (element,), bool_), apply("eq", (best, best), bool_)), bool_)
        better = apply("logical_or", (better, news), bool_)
    better = builder.let("better", better, builder.level, node.loc)
    builder.set(where, apply("select", (better, Position(line.variable), where), int64), node.loc)
    builder.set(best, apply("select", (better, element, best), x.dtype), node.loc)
    builder.close()
    indices = indices_of(axes, sizes)
    stages.store(node.output, [i for d, i in enumerate(indices) if d != dim], where, node)
    stages.close(axes)


def _plain_axes(builder: KernelBuilder, sizes: Sequence[int], skip: int = -1) -> list[Axis]:
    """One loop per axis but `skip`."""
    names = iter("ijklmnpq" * 4)
    return [Axis(builder.variable(next(names), size), (d,)) for d, size in enumerate(sizes) if d != skip and size != 1]


CUMULATIVE = {"cumsum": "add", "cumprod": "mul", "cummax": "maximum", "cummin": "minimum"}
"""Running op -> the word that joins two elements."""


def emit_cumulative(stages: Stages, node: Node) -> None:
    """Running folds along one axis."""
    (x,), builder, dim = node.inputs, stages.builder, node.attrs["dim"]
    sizes, word = _sizes(x), CUMULATIVE[node.op.name]
    if prod(sizes) == 0:
        return
    axes = _plain_axes(builder, sizes, skip=dim)
    stages.cost += 2 * prod(sizes)
    stages.open(axes, stages.splittable(axes))
    line = Axis(builder.variable("k", sizes[dim]), (dim,))
    running = builder.accumulator("running", stages.points.at(x, indices_of(axes, sizes)), node.loc)
    stages.store(node.output, indices_of(axes, sizes), running, node)
    builder.open(line.variable, 1, sizes[dim])
    indices = indices_of([*axes, line], sizes)
    builder.set(running, apply(word, (running, stages.points.at(x, indices)), x.dtype), node.loc)
    stages.store(node.output, indices, running, node)
    builder.close()
    stages.close(axes)


# Updates in place --------------------------------------------------------------------------------------------------------------


def emit_update(stages: Stages, node: Node) -> None:
    """slice_update, as_strided_update, dynamic_update: the output's buffer already holds the base; only the update is written."""
    x, u = node.inputs[:2]
    sizes, builder = _sizes(u), stages.builder
    probes = variables(sizes, "p")

    def element(points: Points) -> None:
        points.touched.append((flatten(_targets(points, node, probes), _sizes(x)), prod(sizes)))
        points.at(u, probes)

    seen = rehearse(_hidden(stages.places, node.outputs), stages.producers, probes, element)
    (axes,) = axes_of(builder, sizes, [range(len(sizes))], seen.touched, probes)
    stages.cost += seen.cost * prod(sizes)
    stages.open(axes, stages.splittable(axes))
    indices = indices_of(axes, sizes)
    stages.store(node.output, _targets(stages.points, node, indices), stages.points.at(u, indices), node)
    stages.close(axes)


def _targets(points: Points, node: Node, indices: Sequence[IndexLike]) -> list[Index]:
    """Where element `indices` of the update stands in the base."""
    attrs, moved = node.attrs, [as_index(i) for i in indices]
    match node.op.name:
        case "slice_update":
            return [i * step + start for i, step, start in zip(moved, attrs["steps"], attrs["starts"], strict=True)]
        case "as_strided_update":
            position = sum((i * stride for i, stride in zip(moved, attrs["strides"], strict=True)), as_index(attrs["offset"]))
            return _unflattened(position, _sizes(node.inputs[0]))
    x, u, *starts = node.inputs
    found = []
    for index, start, size, extent in zip(moved, starts, _sizes(x), _sizes(u), strict=True):
        found.append(points.checked(node, points.at(start, ()), size - extent + 1) + index)
    return found


def _unflattened(position: Index, sizes: Sequence[int]) -> list[Index]:
    indices, rest = [], position
    for k in range(len(sizes)):
        stride = prod(sizes[k + 1:])
        indices.append(rest // stride)
        rest = rest % stride
    return indices


SCATTER_MODES = {"add": "add", "mul": "mul", "amin": "minimum", "amax": "maximum"}


def emit_scatter(stages: Stages, node: Node) -> None:
    """scatter: one row of the update after the other, in row-major order of the indices; the output's buffer holds the base."""
    x, u, *positions = node.inputs
    sizes, builder, points = _sizes(u), stages.builder, stages.points
    axes = _plain_axes(builder, sizes)
    stages.cost += 4 * prod(sizes)
    stages.open(axes)
    indices = indices_of(axes, sizes)
    rank = positions[0].type.rank
    rest, chosen = list(indices[rank:]), {}
    for dim, position in zip(node.attrs["dims"], positions, strict=True):
        chosen[dim] = points.checked(node, points.at(position, indices[:rank]), _sizes(x)[dim])
    target = [chosen[d] if d in chosen else rest.pop(0) for d in range(x.type.rank)]
    scalar, mode = points.at(u, indices), node.attrs["mode"]
    if mode != "set":
        present = Load(stages.target(node.output), flatten(target, _sizes(x)))
        scalar = apply(SCATTER_MODES[mode], (present, scalar), x.dtype)
    stages.store(node.output, target, scalar, node)
    stages.close(axes)


# Sorting -----------------------------------------------------------------------------------------------------------------------


def emit_sort(stages: Stages, node: Node) -> None:
    """Merge sort of each line along an axis, bottom up, between the outputs and two scratch lines; stable."""
    (x,), (values, order), builder, dim = node.inputs, node.outputs, stages.builder, node.attrs["dim"]
    sizes = _sizes(x)
    n = sizes[dim]
    axes = _plain_axes(builder, sizes, skip=dim)
    stages.cost += 8 * prod(sizes) * max(n.bit_length(), 1)
    spare = builder.buffer("spare", x.dtype, n, Role.SCRATCH)
    spare_order = builder.buffer("spare_order", int64, n, Role.SCRATCH)
    stages.open(axes)

    def place(index: IndexLike) -> list[Index]:
        line = list(indices_of(axes, sizes))
        line[dim] = as_index(index)
        return line

    k = builder.variable("k", n)
    builder.open(k, 0, n)
    stages.store(values, place(k), stages.points.at(x, place(k)), node)
    stages.store(order, place(k), Position(k), node)
    builder.close()
    _merge_rounds(stages, node, place, (spare, spare_order), n)
    stages.close(axes)


def _merge_rounds(stages: Stages, node: Node, place: Callable[[IndexLike], list[Index]], spare: tuple[Buffer, Buffer], n: int) -> None:
    """The rounds of a merge sort: runs of length `width` become runs of twice the length."""
    builder, (values, order), dtype = stages.builder, node.outputs, node.inputs[0].dtype
    target, target_order = stages.target(values), stages.target(order)

    def at(buffer: Buffer, local: Local | Variable) -> Load:
        index = Variable(local.name, n)
        return Load(buffer, flatten(place(index), _sizes(values)))

    width = builder.accumulator("width", Literal(1, int64))
    builder.open_branch()
    run = builder.accumulator("run", Literal(0, int64))
    builder.open_branch()
    middle = builder.accumulator("middle", _least(Apply("add", (run, width), int64), n))
    end = builder.accumulator("end", _least(Apply("add", (middle, width), int64), n))
    left, right = builder.accumulator("left", run), builder.accumulator("right", middle)
    k = builder.variable("k", n)
    builder.open(k, Variable(run.name, n), Variable(end.name, n + 1))
    left_at, right_at = builder.accumulator("left_at", _least(left, n - 1)), builder.accumulator("right_at", _least(right, n - 1))
    a, b = builder.accumulator("a", at(target, left_at)), builder.accumulator("b", at(target, right_at))
    take_right = apply("logical_and", (apply("lt", (right, end), bool_), apply("logical_or", (
        apply("ge", (left, middle), bool_), _before(b, a, node.attrs["descending"])), bool_)), bool_)
    taken = builder.accumulator("take_right", take_right)
    builder.store(spare[0], k, apply("select", (taken, b, a), dtype))
    builder.store(spare[1], k, apply("select", (taken, at(target_order, right_at), at(target_order, left_at)), int64))
    builder.set(right, apply("select", (taken, _plus_one(right), right), int64))
    builder.set(left, apply("select", (taken, left, _plus_one(left)), int64))
    builder.close()
    builder.set(run, end)
    merge = builder.close_branch()
    builder.emit(While((), apply("lt", (run, Literal(n, int64)), bool_), merge))
    k = builder.variable("k", n)
    builder.open(k, 0, n)
    builder.store(target, flatten(place(k), _sizes(values)), Load(spare[0], k))
    builder.store(target_order, flatten(place(k), _sizes(values)), Load(spare[1], k))
    builder.close()
    builder.set(width, Apply("add", (width, width), int64))
    round_ = builder.close_branch()
    builder.emit(While((), apply("lt", (width, Literal(n, int64)), bool_), round_))


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
    nan = apply("logical_and", (apply("eq", (smaller, smaller), bool_), apply("isnan", (larger,), bool_)), bool_)
    return apply("logical_or", (less, nan), bool_)


# The table ---------------------------------------------------------------------------------------------------------------------


def _emit_reduction(stages: Stages, node: Node) -> None:
    emit_fold(stages, reduction_fold(node))


def _emit_dot(stages: Stages, node: Node) -> None:
    emit_fold(stages, dot_fold(node))


STAGES: Mapping[str, Callable[[Stages, Node], None]] = {
    **dict.fromkeys(REDUCTIONS, _emit_reduction), **dict.fromkeys(CUMULATIVE, emit_cumulative),
    "dot_general": _emit_dot, "argmax": emit_arg_extreme, "argmin": emit_arg_extreme, "sort": emit_sort, "scatter": emit_scatter,
    "slice_update": emit_update, "as_strided_update": emit_update, "dynamic_update": emit_update,
}
"""Ops that have a loop nest of their own."""


def is_update(node: Node) -> bool:
    """Whether the node's stage changes a part of a buffer that already holds its first input."""
    return node.op.has(Trait.UPDATE)
