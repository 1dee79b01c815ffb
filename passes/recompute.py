"""Recomputation: what a forward keeps for its backward is chosen by a minimum cut over bytes; the rest is computed
again there.

Every value of the forward is an edge as wide as its bytes, from what it is computed from to who reads it; the backward
is the sink, parameters and everything dear are fed by the source. The values at the narrowest cut are kept. What lies
behind it is copied into the backward, behind barriers, which keep the copies apart from the originals and late.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ..ir.builder import Rebuilder
from ..ir.graph import Graph, Node, Value
from ..ir.op import Trait
from ..ir.ops import OPS
from ..ir.stages import has_own_stage
from .fusion import fuse
from .lazy import networkx
from .options import Options
from .saved import is_backward, saved_bytes

LEAST_BYTES = 1 << 20
"""Graphs that keep less than this, and changes that save less than this, are not worth it."""

RELUCTANCE = 1.25
"""How many times smaller what is kept must be than what the backward reads itself, to be computed from again."""

CHEAP = (Trait.ELEMENTWISE, Trait.VIEW, Trait.PIECEWISE)
"""What may be computed again."""


@dataclass(frozen=True)
class Recompute:
    """Computes cheap forward values again in the backward when that lowers the bytes kept between the two by enough.

    Meaning unchanged to the bit. Regions are not looked into: loops that differentiate inside keep what they keep.
    """

    name: str = field(default="recompute", init=False)
    least_bytes: int = LEAST_BYTES

    def __call__(self, graph: Graph, options: Options) -> Graph:
        """The graph with copies; the same object when nobody asks for it or nothing is gained."""
        if not options.recompute:
            return graph
        crossing = _read_by_backward(graph)
        if sum(v.type.nbytes for v in crossing) < self.least_bytes:
            return graph
        kept = kept_values(graph, crossing)
        changed = with_copies(graph, kept)
        if changed is graph or saved_bytes(fuse(graph)) - saved_bytes(fuse(changed)) < self.least_bytes:
            return graph
        return changed


def _forward_makers(graph: Graph) -> dict[Value, Node]:
    """The values that the forward computes, constants left out."""
    made: dict[Value, Node] = {}
    params = set(graph.params)
    for node in graph.nodes:
        if not is_backward(node) and any(v in made or v in params for v in node.inputs):
            made.update(dict.fromkeys(node.outputs, node))
    return made


def _read_by_backward(graph: Graph) -> dict[Value, None]:
    """The values of the forward that the backward reads."""
    made = _forward_makers(graph)
    return {v: None for node in graph.nodes if is_backward(node) for v in node.inputs if v in made}


def may_repeat(node: Node) -> bool:
    """Whether a node may be computed again."""
    return any(map(node.op.has, CHEAP)) and node.op is not OPS.barrier and len(node.outputs) == 1


def kept_values(graph: Graph, crossing: Iterable[Value]) -> set[Value]:
    """The values of the forward to keep: those at the minimum cut; what else the backward reads can be computed
    from them, from parameters and from constants."""
    made = _forward_makers(graph)
    number = {v: k for k, v in enumerate((*graph.params, *made))}
    crossing = set(crossing)
    flow = networkx().DiGraph()
    flow.add_nodes_from(("source", "sink"))
    for value, k in number.items():
        node = made.get(value)
        bytes_kept = 0 if node is None else value.type.nbytes
        flow.add_edge((k, "in"), (k, "out"), capacity=bytes_kept if value in crossing else bytes_kept * RELUCTANCE)
        if value in crossing:
            flow.add_edge((k, "out"), "sink")  # no capacity: without limit
        if node is None or not may_repeat(node):
            flow.add_edge("source", (k, "in"))
        else:
            for x in dict.fromkeys(node.inputs):
                if x in number:
                    flow.add_edge((number[x], "out"), (k, "in"))
    _, (reached, _) = networkx().minimum_cut(flow, "source", "sink")
    return {v for v, k in number.items() if (k, "in") in reached and (k, "out") not in reached}


def with_copies(graph: Graph, kept: set[Value]) -> Graph:
    """The graph whose backward reads, of the forward, only `kept` and parameters, and copies of the rest."""
    copies = _Copies(graph, kept)
    for node in graph.nodes:
        if is_backward(node):
            copies.before(node)
        else:
            copies.b.copy(node)
            copies.note(node)
    return copies.b.done()


class _Copies:
    """One rebuilding."""

    def __init__(self, graph: Graph, kept: set[Value]) -> None:
        self.b = Rebuilder(graph)
        self.kept, self.made = kept, _forward_makers(graph)
        self.env: dict[Value, Value] = {}
        self.token: Value | None = None
        """Something that is in memory anyway, and is computed last: copies wait for it."""

    def note(self, node: Node) -> None:
        """A node was taken over."""
        if (has_own_stage(node) or node.op.has(Trait.CONTROL)) and len(node.outputs) == 1:
            self.token = self.b.new(node.output)

    def before(self, node: Node) -> None:
        """A backward node, whose inputs are copies where they are not kept."""
        inputs = tuple(self._copy(v) if v in self.made and v not in self.kept else v for v in node.inputs)
        if all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
            self.b.copy(node)
        else:
            fresh = replace(
                node,
                inputs=tuple(self.b.new(v) for v in inputs),
                outputs=tuple(Value(v.type, v.hint) for v in node.outputs),
            )
            self.b.append(fresh)
            self.b.env.update(zip(node.outputs, fresh.outputs, strict=True))
        self.note(node)

    def _copy(self, value: Value) -> Value:
        """The copy of a value of the forward."""
        if value in self.env:
            return self.env[value]
        node = self.made.get(value)
        if node is None or value in self.kept:
            self.env[value] = self._fenced(value) if self._is_known(value) else value
            return self.env[value]
        inputs = tuple(self._copy(v) for v in node.inputs)
        fresh = Value(value.type, value.hint)
        loc = node.loc and replace(node.loc, backward=True)
        self.b.append(Node(node.op, tuple(map(self.b.new, inputs)), node.attrs, (fresh,), loc))
        self.env[value] = fresh
        return fresh

    def _is_known(self, value: Value) -> bool:
        return value in self.made or value in self.b.graph.params

    def _fenced(self, value: Value) -> Value:
        """A kept value or a parameter, for copies alone."""
        if self.token is None or value.type.size == 1:
            return value
        return self.b.add_node(OPS.barrier, (self.b.new(value), self.token)).output
