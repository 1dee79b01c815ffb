"""Builds graphs node by node and rebuilds existing ones with changes: the only way passes make graphs."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .emitter import Emitter
from .errors import WeftError
from .graph import Graph, Location, Node, Value
from .op import Op
from .ops import OPS
from .types import TensorType


class Builder(Emitter):
    """Collects nodes. `loc` is given to every node that is emitted without one of its own."""

    def __init__(self, name: str = "graph") -> None:
        self.name = name
        self.params: list[Value] = []
        self.nodes: list[Node] = []
        self.loc: Location | None = None

    def param(self, type: TensorType, hint: str = "") -> Value:
        """A new parameter of the graph."""
        value = Value(type, hint)
        self.params.append(value)
        return value

    def emit(self, op: Op, inputs: Sequence[Value], attrs: Mapping[str, Any]) -> Value | tuple[Value, ...]:
        node = self.add_node(op, inputs, attrs)
        return node.outputs[0] if len(node.outputs) == 1 else node.outputs

    def control(
        self, op: Op, inputs: Sequence[Value], attrs: Mapping[str, Any], regions: Sequence[Graph]
    ) -> tuple[Value, ...]:
        return self.add_node(op, inputs, attrs, regions=regions).outputs

    def constant_value(self, x: Value) -> float | int | bool | None:
        for node in reversed(self.nodes):
            if x in node.outputs:
                return node.attrs["value"] if node.op is OPS.constant else None
        return None

    def add_node(self, op: Op, inputs: Sequence[Value], attrs: Mapping[str, Any] | None = None, *,
                 regions: Sequence[Graph] = (), loc: Location | None = None, hints: Sequence[str] = ()) -> Node:
        """Appends one node; region ops infer their outputs from `regions`, which `infer` gets as an attribute."""
        return self.append(self.make_node(op, inputs, attrs, regions=regions, loc=loc, hints=hints))

    def make_node(self, op: Op, inputs: Sequence[Value], attrs: Mapping[str, Any] | None = None, *,
                  regions: Sequence[Graph] = (), loc: Location | None = None, hints: Sequence[str] = ()) -> Node:
        """One node with inferred output types, not yet appended."""
        attrs = dict(attrs or {})
        if op.arity is not None and len(inputs) != op.arity:
            raise WeftError(f"{op.name} takes {op.arity} inputs, got {len(inputs)}")
        types = op.output_types([v.type for v in inputs], {**attrs, "regions": tuple(regions)} if regions else attrs)
        outputs = tuple(Value(t, hints[i] if i < len(hints) else "") for i, t in enumerate(types))
        return Node(op, tuple(inputs), attrs, outputs, loc or self.loc, tuple(regions))

    def append(self, node: Node) -> Node:
        """Appends a finished node."""
        self.nodes.append(node)
        return node

    def finish(self, results: Sequence[Value], notes: Mapping[str, Any] | None = None) -> Graph:
        """The graph of all that was emitted."""
        return Graph(self.name, tuple(self.params), tuple(self.nodes), tuple(results), dict(notes or {}))


class Rebuilder(Builder):
    """A builder that walks a graph: `env` maps old values to new ones, `copy` emits an old node again unchanged."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph.name)
        self.graph = graph
        self.params = list(graph.params)
        self.env: dict[Value, Value] = {p: p for p in graph.params}

    def new(self, old: Value) -> Value:
        """The value that stands for `old` now."""
        return self.env.get(old, old)

    def copy(self, node: Node) -> None:
        """Appends `node` with its inputs renewed; the very same record when no input changed."""
        inputs = tuple(self.env.get(v, v) for v in node.inputs)
        if all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
            self.append(node)
            return
        outputs = tuple(Value(v.type, v.hint) for v in node.outputs)
        fresh = Node(node.op, inputs, node.attrs, outputs, node.loc, node.regions)
        self.append(fresh)
        self.env.update(zip(node.outputs, fresh.outputs, strict=True))

    def replace(self, node: Node, outputs: Sequence[Value]) -> None:
        """Lets `outputs` stand for the outputs of `node`, which is not copied."""
        self.env.update(zip(node.outputs, outputs, strict=True))

    def done(self) -> Graph:
        """The rebuilt graph; the same object when nothing changed."""
        results = tuple(self.new(r) for r in self.graph.results)
        old = (*self.graph.nodes, *self.graph.results)
        new = (*self.nodes, *results)
        if len(new) == len(old) and all(a is b for a, b in zip(new, old, strict=True)):
            return self.graph
        return Graph(self.name, tuple(self.params), tuple(self.nodes), results, self.graph.notes)


def inline(builder: Builder, graph: Graph, arguments: Sequence[Value]) -> list[Value]:
    """Emits the nodes of `graph` into `builder` with `arguments` for its params; the values of its results there."""
    env = dict(zip(graph.params, arguments, strict=True))
    for node in graph.nodes:
        inputs = tuple(env[v] for v in node.inputs)
        outputs = tuple(Value(v.type, v.hint) for v in node.outputs)
        builder.append(Node(node.op, inputs, node.attrs, outputs, node.loc, node.regions))
        env.update(zip(node.outputs, outputs, strict=True))
    return [env[r] for r in graph.results]
