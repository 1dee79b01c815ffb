"""Values at index points: what scalar code computes element `(i, j)` of a value, through views, piecewise ops and elementwise chains.

Views and piecewise ops only change the point that is asked for; elementwise ops become one statement; what has storage is loaded.
The walk is a tree of generators driven by one explicit stack, so the length of a chain is not bounded by Python's recursion.
"""
from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

from ..ir.errors import CompileError
from ..ir.graph import Node, Value
from ..ir.index import ALWAYS, Constant, Index, IndexLike, Predicate, Variable, affine, as_index, flatten, variables_of, within
from ..ir.loops import LANES, Apply, Buffer, Literal, Load, Local, Position, Scalar, condition
from ..ir.op import Trait
from ..ir.types import TensorType, bool_, int64
from .lower_builder import KernelBuilder, apply, both

Indices = tuple[Index, ...]
Point = tuple[Value, Indices]
Walk = Generator[Point, Scalar, Scalar]


class NotVectorizable(Exception):
    """A point whose elements for successive values of the vector variable cannot be computed 16 at a time."""


@dataclass
class Memory:
    """A value stored row-major in a buffer, readable from loops at `level` and deeper."""

    buffer: Buffer
    level: int = 0


@dataclass
class Registers:
    """A value whose elements are locals, found by constant position."""

    elements: dict[int, Scalar]


Place = Memory | Registers


class Points:
    """Computes points into a kernel that is being built.

    Attributes:
        builder: the kernel.
        places: where values with storage are.
        producers: the node of every other value.
        vector: the loop variable that stands for LANES successive values, if any.
        touched: every index expression that the code depends on, as (expression, weight); what loop shapes are chosen by.
    """

    def __init__(self, builder: KernelBuilder, places: dict[Value, Place], producers: Mapping[Value, Node]) -> None:
        self.builder = builder
        self.places = places
        self.producers = producers
        self.vector: Variable | None = None
        self.touched: list[tuple[Index, int]] = []

    def at(self, value: Value, indices: Sequence[IndexLike]) -> Scalar:
        """The scalar of `value` at `indices`; its statements land at the outermost loops that know what they need."""
        root: Point = (value, tuple(as_index(i) for i in indices))
        done = self._known(root)
        if done is not None:
            return done
        stack: list[tuple[Point, Walk]] = [(root, self._walk(*root))]
        answer: Scalar | None = None
        while stack:
            point, walk = stack[-1]
            try:
                need = walk.send(answer) if answer is not None else next(walk)
                answer = self._known(need)
                if answer is None:
                    stack.append((need, self._walk(*need)))
            except StopIteration as finished:
                stack.pop()
                answer = finished.value
                self.builder.remember(self._key(point), answer, self.builder.depth(answer))
        assert answer is not None
        return answer

    def remember(self, value: Value, indices: Sequence[IndexLike], scalar: Scalar) -> None:
        """Makes `scalar` known as that element for as long as the innermost loop is open."""
        key = self._key((value, tuple(as_index(i) for i in indices)))
        self.builder.remember(key, scalar, self.builder.level)

    def _key(self, point: Point) -> tuple[Point, bool]:
        vector = self.vector is not None and any(self.vector in variables_of(i) for i in point[1])
        return point, vector

    def _known(self, point: Point) -> Scalar | None:
        return self.builder.known(self._key(point))

    def _walk(self, value: Value, indices: Indices) -> Walk:
        place = self.places.get(value)
        if place is not None:
            return self._read(value, place, indices)
        node = self.producers[value]
        rule = RULES.get(node.op.name)
        if rule is not None:
            return rule(self, node, indices)
        if node.op.has(Trait.VIEW):
            return self._view(node, indices)
        if node.op.has(Trait.ELEMENTWISE):
            return self._elementwise(node, indices)
        raise CompileError(f"{node.op.name} has no rule for single elements and no storage")

    # Leaves

    def _read(self, value: Value, place: Place, indices: Indices) -> Walk:
        position = flatten(indices, _sizes(value))
        if isinstance(place, Registers):
            if not isinstance(position, Constant):
                raise CompileError(f"an element of a value in registers is asked for at {position}")
            return place.elements[position.value]
        yield from ()
        return self.load(place.buffer, position, place.level, value.hint)

    def load(self, buffer: Buffer, position: Index, level: int = 0, hint: str = "") -> Scalar:
        """A load, done at the outermost loop that knows the position, not outside of `level`."""
        lanes = self._lanes(position)
        self.touched.append((position, buffer.size))
        key = ("load", buffer.name, position, lanes)
        found = self.builder.known(key)
        if found is None:
            depth = max(level, self.builder.depth(position))
            found = self.builder.remember(key, self.builder.let(hint or buffer.name, Load(buffer, position, lanes), depth), depth)
        return found

    def position(self, index: Index) -> Scalar:
        """An index expression as a number."""
        self.touched.append((index, 0))
        return Literal(index.value, int64) if isinstance(index, Constant) else Position(index, self._lanes(index))

    def _lanes(self, index: Index) -> int:
        """1 or LANES: how many elements successive values of the vector variable give."""
        if self.vector is None or self.vector not in variables_of(index):
            return 1
        steps = affine(index, variables_of(index))
        if steps is None or steps[1][variables_of(index).index(self.vector)] != 1:
            raise NotVectorizable
        return LANES

    # Elementwise, views

    def _elementwise(self, node: Node, indices: Indices) -> Walk:
        operands = []
        for x in node.inputs:
            operands.append((yield x, indices))
        return self.statement(node, apply(node.op.name, tuple(operands), node.output.dtype))

    def statement(self, node: Node, scalar: Scalar) -> Scalar:
        """One statement for the result of `node` at a point."""
        if isinstance(scalar, Literal):
            return scalar
        return self.builder.let(node.output.hint or node.op.name, scalar, self.builder.depth(scalar), node.loc)

    def _view(self, node: Node, indices: Indices) -> Walk:
        assert node.op.index is not None
        source = node.inputs[0]
        return (yield source, tuple(map(as_index, node.op.index(indices, source.type, node.attrs))))

    # Points guarded by predicates

    def holds(self, predicate: Predicate) -> Scalar | None:
        """The predicate as a bool scalar; None when it always holds."""
        result: Scalar | None = None
        for bound in predicate.bounds:
            number = self.position(bound.expression)
            if bound.low > bound.expression.low:
                result = both(result, compare("ge", number, bound.low))
            if bound.high <= bound.expression.high:
                result = both(result, compare("lt", number, bound.high))
        if result is None:
            return None
        key = ("predicate", predicate, self._lanes_of(result))
        found = self.builder.known(key)
        if found is None:
            depth = self.builder.depth(result)
            found = self.builder.remember(key, self.builder.let("inside", result, depth), depth)
        return found

    @staticmethod
    def _lanes_of(scalar: Scalar) -> int:
        return scalar.lanes

    def guarded(self, x: Value, indices: Sequence[Index]) -> tuple[Predicate, Indices]:
        """(whether `indices` lie in `x`, indices that always do)."""
        predicate, safe = ALWAYS, []
        for index, size in zip(indices, _sizes(x), strict=True):
            inside = within(index, 0, size)
            predicate = predicate & inside
            safe.append(index if inside.always or inside.never else self._clamped(index, size))
        return predicate, tuple(safe)

    def _clamped(self, index: Index, size: int) -> Index:
        if size == 1:
            return Constant(0)
        if self.vector is not None and self.vector in variables_of(index):
            raise NotVectorizable
        self.touched.append((index, 0))
        return self.builder.clamped(index, size)

    def choose(self, node: Node, predicate: Predicate, inside: Scalar, outside: Scalar) -> Scalar:
        """`inside` where the predicate holds, else `outside`."""
        holds = self.holds(predicate)
        if holds is None:
            return inside
        return self.statement(node, apply("select", (holds, inside, outside), node.output.dtype))

    # Indices that are data

    def checked(self, node: Node, number: Scalar, size: int) -> Variable:
        """A data index in [0, size), checked when the program runs."""
        if number.lanes != 1:
            raise NotVectorizable
        key = ("checked", node, number, size)
        found = self.builder.known(key)
        if found is None:
            if number.dtype is not int64:
                number = Apply("convert", (number,), int64)
            site = Literal(self.builder.site(node.op.name, size, node.loc), int64)
            value = Apply("check_index", (number, Literal(size, int64), site), int64)
            depth = self.builder.depth(number)
            found = self.builder.remember(key, self.builder.let("at", value, depth), depth)
        assert isinstance(found, Local)
        return Variable(found.name, size)


def compare(comparison: str, number: Scalar, bound: int) -> Scalar:
    """A comparison of an i64 scalar with a constant."""
    return apply(comparison, (number, Literal(bound, int64)), bool_) if number.lanes > 1 else condition(
        number, comparison, Literal(bound, int64))


def _sizes(value: Value) -> tuple[int, ...]:
    """The shape of a value, whose dims are all known."""
    assert all(isinstance(d, int) for d in value.shape), f"{value.type} has a symbolic size"
    return value.shape  # type: ignore[return-value]


# One rule per op that is neither a view nor elementwise and yet has single elements --------------------------------------------


def _constant(points: Points, node: Node, indices: Indices) -> Walk:
    yield from ()
    return Literal(node.attrs["value"], node.output.dtype)


def _literal(points: Points, node: Node, indices: Indices) -> Walk:
    yield from ()
    values = node.attrs["values"]
    position = flatten(indices, _sizes(node.output))
    if isinstance(position, Constant):
        return Literal(values[position.value], node.output.dtype)
    number = points.position(position)
    result: Scalar = Literal(values[-1], node.output.dtype)
    for k in reversed(range(len(values) - 1)):
        result = apply("select", (compare("eq", number, k), Literal(values[k], node.output.dtype), result), node.output.dtype)
    return points.statement(node, result)


def _iota(points: Points, node: Node, indices: Indices) -> Walk:
    yield from ()
    number = points.position(indices[node.attrs["dim"]])
    dtype = node.output.dtype
    if isinstance(number, Literal):
        return Literal(number.value, dtype)
    return points.statement(node, number if dtype is int64 else Apply("convert", (number,), dtype, number.lanes))


def _pad(points: Points, node: Node, indices: Indices) -> Walk:
    x, fill = node.inputs[0], Literal(node.attrs["value"], node.output.dtype)
    predicate, safe = points.guarded(x, [i - low for i, low in zip(indices, node.attrs["low"], strict=True)])
    if predicate.never:
        return fill
    return points.choose(node, predicate, (yield x, safe), fill)


def _concatenate(points: Points, node: Node, indices: Indices) -> Walk:
    dim, offset, pieces = node.attrs["dim"], 0, []
    for x in node.inputs:
        size = x.shape[dim]
        predicate, safe = points.guarded(x, [i - offset if k == dim else i for k, i in enumerate(indices)])
        if not predicate.never:
            pieces.append((predicate, x, safe))
        offset += size
    result: Scalar | None = None
    for predicate, x, safe in reversed(pieces):
        inside = yield x, safe
        result = inside if result is None else points.choose(node, predicate, inside, result)
    assert result is not None
    return result


def _slice_update(points: Points, node: Node, indices: Indices) -> Walk:
    x, u = node.inputs
    predicate, inner = ALWAYS, []
    for index, start, step, size in zip(indices, node.attrs["starts"], node.attrs["steps"], u.shape, strict=True):
        shifted = index - start
        predicate = predicate & within(shifted, 0, (size - 1) * step + 1) & within(shifted % step, 0, 1)
        inner.append(shifted // step)
    if predicate.never:
        return (yield x, indices)
    _, safe = points.guarded(u, inner)
    if predicate.always:
        return (yield u, safe)
    inside = yield u, safe
    return points.choose(node, predicate, inside, (yield x, indices))


def _dynamic_update(points: Points, node: Node, indices: Indices) -> Walk:
    x, u, *starts = node.inputs
    inner = []
    for index, start, size, extent in zip(indices, starts, _sizes(x), _sizes(u), strict=True):
        number = yield start, ()
        inner.append(index - points.checked(node, number, size - extent + 1) if extent != size else index)
    predicate, safe = points.guarded(u, inner)
    inside = yield u, safe
    return points.choose(node, predicate, inside, (yield x, indices))


def _dynamic_slice(points: Points, node: Node, indices: Indices) -> Walk:
    x, *starts = node.inputs
    moved = []
    for index, start, size, extent in zip(indices, starts, _sizes(x), node.attrs["sizes"], strict=True):
        number = yield start, ()
        moved.append(points.checked(node, number, size - extent + 1) + index)
    return (yield x, tuple(moved))


def _gather(points: Points, node: Node, indices: Indices) -> Walk:
    x, *positions = node.inputs
    rank = len(positions[0].shape)
    rest = list(indices[rank:])
    chosen = {}
    for dim, position in zip(node.attrs["dims"], positions, strict=True):
        number = yield position, indices[:rank]
        chosen[dim] = points.checked(node, number, _sizes(x)[dim])
    return (yield x, tuple(chosen[d] if d in chosen else rest.pop(0) for d in range(x.type.rank)))


def _random_bits(points: Points, node: Node, indices: Indices) -> Walk:
    state = node.inputs[0]
    first = yield state, (Constant(0),)
    second = yield state, (Constant(1),)
    element = points.position(flatten(indices, _sizes(node.output)))
    if element.lanes != 1:
        raise NotVectorizable
    return points.statement(node, Apply("threefry", (first, second, element), node.output.dtype))


Rule = Callable[[Points, Node, Indices], Walk]

RULES: Mapping[str, Rule] = {
    "constant": _constant, "literal": _literal, "iota": _iota, "pad": _pad, "concatenate": _concatenate,
    "slice_update": _slice_update, "dynamic_update": _dynamic_update, "dynamic_slice": _dynamic_slice, "gather": _gather,
    "random_bits": _random_bits,
}
"""Ops with single elements: what their element at a point is."""


def has_points(node: Node) -> bool:
    """Whether single elements of the node's output can be computed where they are read."""
    return node.op.name in RULES or node.op.has(Trait.VIEW) or node.op.has(Trait.ELEMENTWISE)


def value_type(value: Value) -> TensorType:
    """The type of a value."""
    return value.type
