"""Fusion: cuts a graph into `fusion` nodes, each of which becomes one kernel, library nodes and control nodes.

A value is either inlined into its readers or materialised. Views, pieces and constants are always inlined; elementwise values when one
kernel alone reads them.
"""
from __future__ import annotations

from ..ir.graph import Graph, Node, Value
from ..ir.op import Trait
from ..ir.ops import OPS

FREE = (Trait.VIEW, Trait.PIECEWISE, Trait.CONSTANT)
"""Ops that only say where an element comes from."""


def fuse(graph: Graph) -> Graph:
    """The graph with everything that needs generated code in `fusion` nodes; regions inside are fused too."""
    return _Fuser(graph).run()


class _Fuser:
    """One graph on its way; `roots` are the values that are materialised."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.producer = {v: n for n in graph.nodes for v in n.outputs}
        self.readers: dict[Value, list[Node]] = {}
        for node in graph.nodes:
            for value in node.inputs:
                self.readers.setdefault(value, []).append(node)
        self.results = set(graph.results)
        self.roots: set[Value] = set()

    def run(self) -> Graph:
        """The fused graph."""
        kernels: dict[Value, int] = {}
        for node in reversed(self.graph.nodes):
            if self._is_root(node, kernels):
                self.roots.update(node.outputs)
        nodes = [self._wrapped(n) for n in self.graph.nodes if n.outputs[0] in self.roots]
        return Graph(self.graph.name, self.graph.params, tuple(nodes), self.graph.results, self.graph.notes)

    def _is_root(self, node: Node, kernels: dict[Value, int]) -> bool:
        """Whether the outputs of `node` are materialised; counts the kernels that read each value on the way."""
        value = node.outputs[0]
        readers = kernels.get(value, 0)
        root = value in self.results or not _can_inline(node) or (readers > 1 and not any(node.op.has(t) for t in FREE))
        if not root and any(_needs_buffer(r, value) for r in self.readers.get(value, ())):
            root = True
        for x in dict.fromkeys(node.inputs):
            kernels[x] = kernels.get(x, 0) + (1 if root else readers)
        return root and (value in self.results or bool(self.readers.get(value)))

    def _wrapped(self, node: Node) -> Node:
        """The node as it stands in the fused graph."""
        if node.op.has(Trait.CONTROL):
            return Node(node.op, node.inputs, node.attrs, node.outputs, node.loc, tuple(fuse(r) for r in node.regions))
        if node.op in (OPS.constant, OPS.literal) or node.op is OPS.reshape and self._stored(node.inputs[0]):
            return node
        members, params = self._group(node)
        copies = {p: Value(p.type, p.hint) for p in params}
        body = []
        for member in members:
            outputs = tuple(Value(v.type, v.hint) for v in member.outputs)
            body.append(Node(member.op, tuple(copies[v] for v in member.inputs), member.attrs, outputs, member.loc, member.regions))
            copies.update(zip(member.outputs, outputs, strict=True))
        region = Graph(node.op.name, tuple(copies[p] for p in params), tuple(body), tuple(copies[v] for v in node.outputs))
        return Node(OPS.fusion, tuple(params), {}, node.outputs, node.loc, (region,))

    def _stored(self, value: Value) -> bool:
        """Whether `value` has memory of its own."""
        return value in self.roots or value not in self.producer

    def _group(self, node: Node) -> tuple[list[Node], list[Value]]:
        """The members of the kernel that computes `node`, in order, and the values it reads."""
        members, params, pending = {node}, {}, [node]
        while pending:
            for x in pending.pop().inputs:
                producer = self.producer.get(x)
                if producer is None or x in self.roots:
                    params[x] = None
                elif producer not in members:
                    members.add(producer)
                    pending.append(producer)
        return [n for n in self.graph.nodes if n in members], list(params)


def _can_inline(node: Node) -> bool:
    """Whether elements of the node can be computed where they are read."""
    if node.op.has(Trait.UPDATE) or node.op.has(Trait.CONTROL) or node.op.has(Trait.LIBRARY):
        return False
    return node.op.has(Trait.ELEMENTWISE) or any(node.op.has(t) for t in FREE) or node.op.name in ("gather", "dynamic_slice", "random_bits")


def _needs_buffer(reader: Node, value: Value) -> bool:
    """Whether `reader` wants `value` in memory."""
    if reader.op.has(Trait.CONTROL):
        return True
    if reader.op.has(Trait.UPDATE):
        return True
    return reader.op is OPS.dot_general
