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
from .cse import CommonSubexpressions
from .dce import DeadCode
from .fusion import fuse
from .minimum_cut import Network
from .options import Options
from .saved import is_backward, peak_bytes, saved_bytes

LEAST_GAIN = 4
"""The peak has to fall at least by one of this many parts: what is computed again takes time."""

EARLIER, KEPT = 5, 4
"""Weights of bytes in the cut: values that the backward would not read itself have to be this much smaller than those
that it does, to be kept instead."""

UNLIMITED = 1 << 62

CHEAP = (Trait.ELEMENTWISE, Trait.VIEW, Trait.PIECEWISE)
"""What may be computed again."""


@dataclass(frozen=True)
class Recompute:
    """Computes cheap forward values again in the backward when much is kept between the two and less would do.

    Meaning unchanged to the bit. Regions are not looked into: loops that differentiate inside keep what they keep.
    """

    name: str = field(default="recompute", init=False)

    def __call__(self, graph: Graph, options: Options) -> Graph:
        """The graph with copies; the same object when little is kept or nothing is gained."""
        crossing = _read_by_backward(graph)
        if sum(v.type.nbytes for v in crossing) < options.recompute_from:
            return graph
        plain = fuse(graph)
        if saved_bytes(plain) < options.recompute_from:
            return graph
        changed = with_copies(graph, kept_values(graph, crossing))
        for clean_up in (CommonSubexpressions(), DeadCode()):
            changed = clean_up(changed, options)
        before = peak_bytes(plain)
        return changed if peak_bytes(fuse(changed)) <= before - before // LEAST_GAIN else graph


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
    network = Network()
    for value, k in number.items():
        node = made.get(value)
        weight = 0 if node is None else value.type.nbytes * (KEPT if value in crossing else EARLIER)
        network.edge((k, "in"), (k, "out"), weight)
        if value in crossing:
            network.edge((k, "out"), "sink", UNLIMITED)
        if node is None or not may_repeat(node):
            network.edge("source", (k, "in"), UNLIMITED)
        else:
            for x in dict.fromkeys(node.inputs):
                if x in number:
                    network.edge((number[x], "out"), (k, "in"), UNLIMITED)
    reached = network.cut("source", "sink")
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
