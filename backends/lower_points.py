"""Elements as loop IR: what scalar or vector code computes element `(i, j)` of a value; where values are while a
kernel is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..ir.access import spacing, step_of
from ..ir.graph import Node, Value
from ..ir.index import (
    Constant,
    Index,
    IndexLike,
    Predicate,
    Quotient,
    Remainder,
    Sum,
    Variable,
    as_index,
    flatten,
    variables_of,
)
from ..ir.loops import LANES, Apply, Buffer, Literal, Load, Local, Position, Scalar
from ..ir.points import Indices, Point, Walker
from ..ir.sizes import Polynomial
from ..ir.types import DType, bool_, int32, int64
from .lower_builder import KernelBuilder, apply, both, integer


@dataclass
class Place:
    """Where the elements of a value are.

    Attributes:
        buffer: the memory, row-major.
        level: loops at this level and deeper may read it.
        part: the buffer holds only the row at hand, of so many elements (0: it holds the whole value).
        registers: elements that are in locals, by their constant position.
    """

    buffer: Buffer | None = None
    level: int = 0
    part: int = 0
    registers: dict[int, Scalar] = field(default_factory=dict)

    def offset(self, position: Index) -> Index:
        """The place in the buffer of the element at a row-major `position`."""
        return position % self.part if self.part else position


class Points(Walker):
    """Writes the code of elements into a kernel; every statement lands at the outermost loop that knows what it needs.

    Attributes:
        builder: the kernel.
        places: where values with storage are.
        producers: the node of every other value.
        vector: the loop variable that stands for LANES successive values, if any.
        count: how many of these values there are, when they may be fewer.
    """

    def __init__(self, builder: KernelBuilder, places: dict[Value, Place], producers: Mapping[Value, Node]) -> None:
        self.builder = builder
        self.places = places
        self.producers = producers
        self.vector: Variable | None = None
        self.count: Index | None = None

    def is_stored(self, value: Value) -> bool:
        return value in self.places

    def known(self, point: Point) -> Scalar | None:
        return self.builder.known(self._key(point))

    def remember(self, point: Point, element: Scalar) -> None:
        self.builder.remember(self._key(point), element, self.builder.depth(element))

    def hold(self, value: Value, indices: Sequence[Index], scalar: Scalar) -> None:
        """Makes `scalar` known as that element of a stored value for as long as the innermost loop is open."""
        position = flatten(indices, value.type.sizes)
        self.builder.remember(("held", value, position, self._lanes(position)), scalar, self.builder.level)

    def _key(self, point: Point) -> tuple[Point, bool]:
        vector = self.vector is not None and any(self.vector in variables_of(i) for i in point[1])
        return point, vector

    def _lanes(self, index: Index) -> int:
        """1 or LANES: how many elements successive values of the vector variable give."""
        return 1 if self.vector is None or self.vector not in variables_of(index) else LANES

    # Leaves

    def constant(self, value: bool | int | float, dtype: DType) -> Scalar:
        if not isinstance(value, Polynomial):
            return Literal(value, dtype)
        key = ("size", value, dtype)
        number = converted(integer(value), dtype)
        return self.builder.known(key) or self.builder.remember(key, self.builder.let("size", number, 0), 0)

    def read(self, value: Value, indices: Indices) -> Scalar:
        position, place = flatten(indices, value.type.sizes), self.places[value]
        if isinstance(position, Constant) and position.value in place.registers:
            return place.registers[position.value]
        held = self.builder.known(("held", value, position, self._lanes(position)))
        if held is not None:
            return held
        assert place.buffer is not None, f"an element of {value.type} in registers is asked for at {position}"
        return self.load(place.buffer, place.offset(position), place.level, value.hint)

    def load(self, buffer: Buffer, position: Index, level: int = 0, hint: str = "") -> Scalar:
        """A load, done at the outermost loop that knows the position, not outside of `level`."""
        lanes = self._lanes(position)
        key = ("load", buffer.name, position, lanes)
        found = self.builder.known(key)
        if found is None:
            depth = max(level, self.builder.depth(position))
            element = Load(buffer, position) if lanes == 1 else self._vector(buffer, position)
            found = self.builder.remember(key, self.builder.let(hint or buffer.name, element, depth), depth)
        return found

    def joined(self, before: Scalar, after: Scalar) -> Scalar:
        """What an accumulator becomes: lanes behind `count` stay as they are."""
        if self.count is None or after.lanes == 1:
            return after
        mask = Apply("first_lanes", (Position(self.count),), bool_, LANES)
        return apply("select", (mask, after, before), after.dtype)

    def _vector(self, buffer: Buffer, position: Index) -> Scalar:
        """The elements for successive values of the vector variable. Where these are not one behind another, all that
        lie between the first and the last are loaded, and those that are wanted taken out."""
        assert self.vector is not None
        found = spacing(position, self.vector)
        assert found is not None
        step, repeats = found
        if found == (1, 1):
            return Load(buffer, position, LANES, self.count)
        if repeats > 1:
            count = Constant(LANES // repeats) if self.count is None else (self.count + (repeats - 1)) // repeats
            return Apply(f"repeat_{repeats}", (Load(buffer, position, LANES, count),), buffer.dtype, LANES)
        last = LANES - 1 if self.count is None else self.count - 1
        parts = [
            Load(buffer, position + k * LANES, LANES, self._at_least(last * step + (1 - k * LANES)))
            for k in range(step)
        ]
        return Apply(f"every_{step}", tuple(parts), buffer.dtype, LANES)

    def _at_least(self, count: IndexLike) -> Index | None:
        """A number of lanes, none when it is negative; None for all of them."""
        index = as_index(count)
        if isinstance(index, Constant):
            return None if index.value >= LANES else Constant(max(index.value, 0))
        least = apply("maximum", (Position(index), Literal(0, int64)), int64)
        return self.builder.bound("left", least, index.high)

    def number(self, index: Index) -> Scalar:
        """An index expression as an i64."""
        if isinstance(index, Constant):
            return integer(index.value)
        lanes = self._lanes(index)
        if lanes == 1 or self.vector is None or step_of(index, self.vector) == 1:
            return Position(index, lanes)
        return self._vector_number(index)

    def _vector_number(self, index: Index) -> Scalar:
        """The vector of an index expression for successive values of the vector variable, by arithmetic."""
        if index == self.vector or self.vector not in variables_of(index):
            return Position(index, self._lanes(index))
        match index:
            case Quotient(operand=operand, divisor=divisor):
                return apply("floor_divide", (self._vector_number(operand), integer(divisor)), int64)
            case Remainder(operand=operand, divisor=divisor):
                return apply("remainder", (self._vector_number(operand), integer(divisor)), int64)
        assert isinstance(index, Sum)
        total: Scalar = integer(index.offset)
        for atom, c in index.terms:
            product = apply("mul", (self._vector_number(atom), integer(c)), int64)
            total = apply("add", (total, product), int64)
        return total

    def position(self, node: Node, index: Index) -> Scalar:
        number, dtype = self.number(index), node.output.dtype
        return self.statement(node, number if dtype is int64 else Apply("convert", (number,), dtype, number.lanes))

    def table(self, node: Node, values: Sequence[Any], position: Index) -> Scalar:
        number, dtype = self.number(position), node.output.dtype
        result: Scalar = Literal(values[-1], dtype)
        for k in reversed(range(len(values) - 1)):
            result = apply("select", (compare("eq", number, k), Literal(values[k], dtype), result), dtype)
        return self.statement(node, result)

    # Nodes

    def elementwise(self, node: Node, operands: Sequence[Scalar]) -> Scalar:
        dtype = node.output.dtype
        if node.op.name == "convert":
            return self.statement(node, converted(operands[0], dtype))
        return self.statement(node, apply(node.op.name, tuple(operands), dtype))

    def random(self, node: Node, state: tuple[Scalar, Scalar], position: Index) -> Scalar:
        return self.statement(node, apply("threefry", (*state, self.number(position)), node.output.dtype))

    def statement(self, node: Node, scalar: Scalar) -> Scalar:
        """One statement for the result of `node` at a point."""
        return self.builder.let(node.output.hint or node.op.name, scalar, self.builder.depth(scalar), node.loc)

    # Points guarded by predicates

    def clamped(self, index: Index, size: int) -> Index:
        return self.builder.clamped(index, size)

    def choose(self, node: Node, predicate: Predicate, inside: Scalar, outside: Scalar) -> Scalar:
        return self.statement(node, apply("select", (self.holds(predicate), inside, outside), node.output.dtype))

    def holds(self, predicate: Predicate) -> Scalar:
        """The predicate as a bool."""
        result: Scalar | None = None
        for bound in predicate.bounds:
            number = self.number(bound.expression)
            if bound.needs_low:
                result = both(result, compare("ge", number, bound.low))
            if bound.needs_high:
                result = both(result, compare("lt", number, bound.high))
        assert result is not None, "a predicate that always holds needs no code"
        key = ("predicate", predicate, result.lanes)
        found = self.builder.known(key)
        if found is None:
            depth = self.builder.depth(result)
            found = self.builder.remember(key, self.builder.let("inside", result, depth), depth)
        return found

    # Indices that are data

    def data_index(self, node: Node, number: Scalar, size: int) -> Index:
        key = ("checked", node, number, size)
        found = self.builder.known(key)
        if found is None:
            if number.dtype is not int64:
                number = Apply("convert", (number,), int64)
            site = Literal(self.builder.site(node.op.name, size, node.loc), int64)
            value = Apply("check_index", (number, integer(size), site), int64)
            depth = self.builder.depth(number)
            found = self.builder.remember(key, self.builder.let("at", value, depth), depth)
        assert isinstance(found, Local)
        return Constant(0) if size == 1 else Variable(found.name, size)


def converted(x: Scalar, dtype: DType) -> Scalar:
    """`x` in another dtype. Floats become narrow and unsigned integers by way of a signed one, so that negative
    numbers wrap as in C."""
    if x.dtype.kind != "float" or not dtype.is_integer or dtype in (int32, int64):
        return apply("convert", (x,), dtype)
    if dtype.bits < 64:
        return apply("convert", (apply("convert", (x,), int32 if dtype.bits < 32 else int64),), dtype)
    wrapped = apply("convert", (apply("convert", (x,), int64),), dtype)
    return apply(
        "select", (apply("lt", (x, Literal(0, x.dtype)), bool_), wrapped, apply("convert", (x,), dtype)), dtype
    )


def compare(comparison: str, number: Scalar, bound: int) -> Scalar:
    """A comparison of an i64 scalar with a constant."""
    return apply(comparison, (number, integer(bound)), bool_)
