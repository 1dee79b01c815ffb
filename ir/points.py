"""Values at index points: how one element of a value follows from elements of others, through views, pieces and
elementwise ops.

Views and piecewise ops only change the point that is asked for. The rules are here, once; `Walker` subclasses say what
an element is to them: a report of what is read (`ir/access.py`), or loop IR (`backends/lower_points.py`). The walk is
a tree of generators driven by one explicit stack, so that the length of a chain is not bounded by Python's recursion.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from .errors import CompileError
from .graph import Node, Value
from .index import ALWAYS, Constant, Index, IndexLike, Predicate, as_index, flatten, within
from .op import Trait
from .types import DType

Indices = tuple[Index, ...]
Point = tuple[Value, Indices]
Element = Any
"""What stands for one element: up to the walker."""

Walk = Generator[Point, Element, Element]


class Walker(ABC):
    """Walks from points to the points they are made of. `producers` maps values to the nodes that compute them."""

    producers: Mapping[Value, Node]

    # What subclasses say

    @abstractmethod
    def is_stored(self, value: Value) -> bool:
        """Whether elements of `value` are read from memory."""

    @abstractmethod
    def read(self, value: Value, indices: Indices) -> Element:
        """An element of a stored value."""

    @abstractmethod
    def known(self, point: Point) -> Element | None:
        """The element, if it was computed before and is still at hand."""

    @abstractmethod
    def remember(self, point: Point, element: Element) -> None:
        """Keeps an element that was computed."""

    @abstractmethod
    def constant(self, value: bool | int | float, dtype: DType) -> Element:
        """A number."""

    @abstractmethod
    def position(self, node: Node, index: Index) -> Element:
        """An index expression as a number of the dtype of `node`."""

    @abstractmethod
    def table(self, node: Node, values: Sequence[Any], position: Index) -> Element:
        """One of a few numbers."""

    @abstractmethod
    def elementwise(self, node: Node, operands: Sequence[Element]) -> Element:
        """An elementwise op applied to elements."""

    @abstractmethod
    def random(self, node: Node, state: tuple[Element, Element], position: Index) -> Element:
        """Random bits number `position`."""

    @abstractmethod
    def clamped(self, index: Index, size: int) -> Index:
        """`index` moved into [0, size)."""

    @abstractmethod
    def choose(self, node: Node, predicate: Predicate, inside: Element, outside: Element) -> Element:
        """`inside` where the predicate holds, else `outside`; the predicate neither always nor never holds."""

    @abstractmethod
    def data_index(self, node: Node, number: Element, size: int) -> Index:
        """An element as an index, checked to lie in [0, size)."""

    # The walk

    def at(self, value: Value, indices: Sequence[IndexLike]) -> Element:
        """The element of `value` at `indices`."""
        return self._run((value, tuple(map(as_index, indices))), None)

    def computed(self, value: Value, indices: Sequence[IndexLike]) -> Element:
        """The same, computed from the inputs of its node even if `value` is stored."""
        return self._run((value, tuple(map(as_index, indices))), self.producers[value])

    def _run(self, root: Point, node: Node | None) -> Element:
        answer = self.known(root)
        if answer is not None:
            return answer
        stack = [(root, self._rule(node, root[1]) if node else self._walk(root))]
        while stack:
            point, walk = stack[-1]
            try:
                need = walk.send(answer) if answer is not None else next(walk)
                answer = self.known(need)
                if answer is None:
                    stack.append((need, self._walk(need)))
            except StopIteration as finished:
                stack.pop()
                answer = finished.value
                self.remember(point, answer)
        return answer

    def _walk(self, point: Point) -> Walk:
        value, indices = point
        if self.is_stored(value):
            return self._read(value, indices)
        return self._rule(self.producers[value], indices)

    def _read(self, value: Value, indices: Indices) -> Walk:
        yield from ()
        return self.read(value, indices)

    def _rule(self, node: Node, indices: Indices) -> Walk:
        rule = RULES.get(node.op.name)
        if rule is not None:
            return rule(self, node, indices)
        if node.op.has(Trait.VIEW):
            return self._view(node, indices)
        if node.op.has(Trait.ELEMENTWISE):
            return self._elementwise(node, indices)
        raise CompileError(f"{node.op.name} has no single elements and no storage")

    def _view(self, node: Node, indices: Indices) -> Walk:
        assert node.op.index is not None
        source = node.inputs[0]
        return (yield source, tuple(map(as_index, node.op.index(indices, source.type, node.attrs))))

    def _elementwise(self, node: Node, indices: Indices) -> Walk:
        operands = []
        for x in node.inputs:
            operands.append((yield x, indices))
        return self.elementwise(node, operands)

    def guarded(self, x: Value, indices: Sequence[Index]) -> tuple[Predicate, Indices]:
        """(whether `indices` lie in `x`, indices that always do)."""
        predicate, safe = ALWAYS, []
        for index, size in zip(indices, x.type.sizes, strict=True):
            inside = within(index, 0, size)
            predicate = predicate & inside
            safe.append(
                index if inside.always or inside.never else Constant(0) if size == 1 else self.clamped(index, size)
            )
        return predicate, tuple(safe)

    def chosen(self, node: Node, predicate: Predicate, inside: Element, outside: Element) -> Element:
        """`inside` where the predicate holds, else `outside`."""
        if predicate.always:
            return inside
        return outside if predicate.never else self.choose(node, predicate, inside, outside)


# One rule per op that is neither a view nor elementwise and yet has single elements ---------------------------------


def _constant(walker: Walker, node: Node, indices: Indices) -> Walk:
    yield from ()
    return walker.constant(node.attrs["value"], node.output.dtype)


def _empty(walker: Walker, node: Node, indices: Indices) -> Walk:
    yield from ()
    return walker.constant(0 if node.output.dtype.kind != "bool" else False, node.output.dtype)


def _literal(walker: Walker, node: Node, indices: Indices) -> Walk:
    yield from ()
    values, position = node.attrs["values"], flatten(indices, node.output.type.sizes)
    if isinstance(position, Constant):
        return walker.constant(values[position.value], node.output.dtype)
    return walker.table(node, values, position)


def _iota(walker: Walker, node: Node, indices: Indices) -> Walk:
    yield from ()
    index = indices[node.attrs["dim"]]
    if isinstance(index, Constant):
        return walker.constant(index.value, node.output.dtype)
    return walker.position(node, index)


def _pad(walker: Walker, node: Node, indices: Indices) -> Walk:
    x, fill = node.inputs[0], walker.constant(node.attrs["value"], node.output.dtype)
    predicate, safe = walker.guarded(x, [i - low for i, low in zip(indices, node.attrs["low"], strict=True)])
    if predicate.never:
        return fill
    return walker.chosen(node, predicate, (yield x, safe), fill)


def _concatenate(walker: Walker, node: Node, indices: Indices) -> Walk:
    dim, offset, pieces = node.attrs["dim"], 0, []
    for x in node.inputs:
        predicate, safe = walker.guarded(x, [i - offset if k == dim else i for k, i in enumerate(indices)])
        if not predicate.never:
            pieces.append((predicate, x, safe))
        offset += x.type.sizes[dim]
    if not pieces:  # a value without elements
        return walker.constant(0, node.output.dtype)
    result = yield pieces[-1][1:]
    for predicate, x, safe in reversed(pieces[:-1]):
        result = walker.chosen(node, predicate, (yield x, safe), result)
    return result


def _slice_update(walker: Walker, node: Node, indices: Indices) -> Walk:
    x, u = node.inputs
    predicate, inner = ALWAYS, []
    for index, start, step, size in zip(indices, node.attrs["starts"], node.attrs["steps"], u.type.sizes, strict=True):
        shifted = index - start
        predicate = predicate & within(shifted, 0, (size - 1) * step + 1) & within(shifted % step, 0, 1)
        inner.append(shifted // step)
    if predicate.never:
        return (yield x, indices)
    _, safe = walker.guarded(u, inner)
    inside = yield u, safe
    return inside if predicate.always else walker.chosen(node, predicate, inside, (yield x, indices))


def _dynamic_update(walker: Walker, node: Node, indices: Indices) -> Walk:
    x, u, *starts = node.inputs
    inner = []
    for index, start, size, extent in zip(indices, starts, x.type.sizes, u.type.sizes, strict=True):
        inner.append(index - walker.data_index(node, (yield start, ()), size - extent + 1) if extent != size else index)
    predicate, safe = walker.guarded(u, inner)
    inside = yield u, safe
    return walker.chosen(node, predicate, inside, (yield x, indices))


def _dynamic_slice(walker: Walker, node: Node, indices: Indices) -> Walk:
    x, *starts = node.inputs
    moved = []
    for index, start, size, extent in zip(indices, starts, x.type.sizes, node.attrs["sizes"], strict=True):
        moved.append(walker.data_index(node, (yield start, ()), size - extent + 1) + index)
    return (yield x, tuple(moved))


def _gather(walker: Walker, node: Node, indices: Indices) -> Walk:
    x, *positions = node.inputs
    rank = positions[0].type.rank
    rest, chosen = list(indices[rank:]), {}
    for dim, position in zip(node.attrs["dims"], positions, strict=True):
        chosen[dim] = walker.data_index(node, (yield position, indices[:rank]), x.type.sizes[dim])
    return (yield x, tuple(chosen[d] if d in chosen else rest.pop(0) for d in range(x.type.rank)))


def _random_bits(walker: Walker, node: Node, indices: Indices) -> Walk:
    state = node.inputs[0]
    first = yield state, (Constant(0),)
    second = yield state, (Constant(1),)
    return walker.random(node, (first, second), flatten(indices, node.output.type.sizes))


Rule = Callable[[Walker, Node, Indices], Walk]

RULES: Mapping[str, Rule] = {
    "constant": _constant,
    "literal": _literal,
    "iota": _iota,
    "empty": _empty,
    "pad": _pad,
    "concatenate": _concatenate,
    "slice_update": _slice_update,
    "dynamic_update": _dynamic_update,
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
    "random_bits": _random_bits,
}
"""Ops with single elements: what their element at a point is."""
