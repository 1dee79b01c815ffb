"""Graphs with other sizes: axes that change from call to call made symbols, symbols renamed, symbols made numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .errors import WeftError
from .graph import Graph, Node, Value
from .op import Trait
from .ops import OPS
from .sizes import Dim, Polynomial, Symbol, Undecided, expression_of, replaced, symbols_of, value_of
from .types import TensorType

Change = Callable[[Dim], Dim]
"""The new size for a size, or for any number among the attributes."""


def opened(graph: Graph, values: Mapping[Symbol, int]) -> Graph:
    """The graph with polynomials where its sizes remember that they are symbolic (`SymbolicSize`).

    What a size remembers counts only if it is true of the symbols' `values`: it may be left from another call. If the
    graph makes sense only when symbols of equal value are one, they are.

    Raises:
        Undecided: what the graph means depends on the sizes, or a size has forgotten where it came from.
    """

    try:
        return _opened(graph, values, {})
    except WeftError as error:
        first = {value: symbol for symbol, value in reversed(list(values.items()))}
        equal = {symbol: first[value] for symbol, value in values.items() if first[value] != symbol}
        if equal:
            try:
                return _opened(graph, values, equal)
            except WeftError:
                pass  # the first reason says more
        if isinstance(error, Undecided):
            raise
        raise Undecided(f"sizes that belong together do not agree: {error}") from error


def _opened(graph: Graph, values: Mapping[Symbol, int], equal: Mapping[Symbol, Symbol]) -> Graph:
    def open_size(size: Dim) -> Dim:
        expression = expression_of(size) if isinstance(size, int) else size
        known = all(s in values for s in symbols_of(expression))
        return replaced(expression, equal) if known and value_of(expression, values) == size else size

    return _Opening(open_size).graph(graph, [_changed_type(p.type, open_size) for p in graph.params])


def resized(graph: Graph, sizes: Mapping[Any, Dim]) -> tuple[Graph, dict[Value, Value]]:
    """The graph with symbols replaced by sizes, and its values (those of regions too) by those of `graph`."""
    resizing = _Resizing(lambda n: replaced(n, sizes))
    return resizing.graph(graph), resizing.values


def resized_type(type: TensorType, sizes: Mapping[Any, Dim]) -> TensorType:
    """A type with symbols replaced by sizes."""
    return _changed_type(type, lambda n: replaced(n, sizes))


def symbols_in(node: Node) -> tuple[Symbol, ...]:
    """The symbols in a node and its regions, each once, in order."""
    return tuple(dict.fromkeys(symbol for size in _sizes(node) for symbol in symbols_of(size)))


def _sizes(node: Node) -> Iterator[Dim]:
    for value in (*node.inputs, *node.outputs):
        yield from value.shape
    for attr in node.attrs.values():
        yield from _numbers(attr)
    for region in node.regions:
        for inner in region.nodes:
            yield from _sizes(inner)


def _numbers(attr: Any) -> Iterator[Polynomial]:
    if isinstance(attr, Polynomial):
        yield attr
    elif isinstance(attr, tuple):
        for part in attr:
            yield from _numbers(part)


def _changed_type(type: TensorType, change: Change) -> TensorType:
    shape = tuple(map(change, type.shape))
    return type if all(a is b for a, b in zip(shape, type.shape, strict=True)) else type.with_shape(shape)


def _changed(value: Any, change: Change) -> Any:
    """An attribute with its numbers changed."""
    if isinstance(value, tuple):
        return tuple(_changed(v, change) for v in value)
    return change(value) if isinstance(value, (int, Polynomial)) and not isinstance(value, bool) else value


class _Resizing:
    """Copies graphs; every type and attribute changes on its own."""

    def __init__(self, change: Change) -> None:
        self.change = change
        self.values: dict[Value, Value] = {}

    def new(self, value: Value) -> Value:
        made = self.values[value] = Value(_changed_type(value.type, self.change), value.hint)
        return made

    def graph(self, graph: Graph) -> Graph:
        params = tuple(map(self.new, graph.params))
        nodes = tuple(map(self.node, graph.nodes))
        return Graph(graph.name, params, nodes, tuple(self.values[r] for r in graph.results), graph.notes)

    def node(self, node: Node) -> Node:
        attrs = {name: _changed(value, self.change) for name, value in node.attrs.items()}
        regions = tuple(map(self.graph, node.regions))
        inputs = tuple(self.values[v] for v in node.inputs)
        return Node(node.op, inputs, attrs, tuple(map(self.new, node.outputs)), node.loc, regions)


class _Opening:
    """Copies graphs; types follow from those of the params, so that sizes need not be remembered everywhere."""

    def __init__(self, change: Change) -> None:
        self.change = change
        self.values: dict[Value, Value] = {}

    def graph(self, graph: Graph, types: Sequence[TensorType]) -> Graph:
        params = tuple(Value(t, p.hint) for t, p in zip(types, graph.params, strict=True))
        self.values.update(zip(graph.params, params, strict=True))
        nodes = tuple(map(self.node, graph.nodes))
        return Graph(graph.name, params, nodes, tuple(self.values[r] for r in graph.results), graph.notes)

    def node(self, node: Node) -> Node:
        inputs = tuple(self.values[v] for v in node.inputs)
        types = [v.type for v in inputs]
        attrs = {name: _changed(value, self.change) for name, value in node.attrs.items()}
        regions = tuple(self.graph(r, _params_of(node, k, types)) for k, r in enumerate(node.regions))
        inferred = node.op.output_types(types, {**attrs, "regions": regions} if regions else attrs)
        outputs = tuple(Value(t, v.hint) for t, v in zip(inferred, node.outputs, strict=True))
        self.values.update(zip(node.outputs, outputs, strict=True))
        return Node(node.op, inputs, attrs, outputs, node.loc, regions)


def _params_of(node: Node, number: int, types: Sequence[TensorType]) -> Sequence[TensorType]:
    """The types of the params of a region, from those of the inputs of its node."""
    if node.op is OPS.loop:
        return [node.regions[0].params[0].type, *types[2:]]
    if node.op is OPS.cond:
        return types[1:]
    assert node.op.has(Trait.CONTROL)
    return types
