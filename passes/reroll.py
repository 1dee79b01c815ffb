"""Rolls peeled iterations back: a loop that starts from what its own body gives when run once before it starts earlier.

A tracer records an iteration or two before it sees that a loop is uniform. When these turn out to be ordinary ones,
there is no reason to keep their code.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..ir.builder import Rebuilder
from ..ir.compare import same_graph
from ..ir.graph import Graph, Node, Value
from ..ir.op import Trait
from ..ir.ops import OPS
from ..ir.text import print_attr
from .options import Options
from .regions import with_regions


@dataclass(frozen=True)
class RolledLoops:
    """Lets loops take in iterations that were peeled off in front of them. Unchanged to the bit.

    Only where nothing else reads what the peeled iteration computes; its nodes are then dead and left to `dce`.
    """

    name: str = field(default="reroll", init=False)

    def __call__(self, graph: Graph, options: Options) -> Graph:
        """The graph with longer loops, in regions too; the same object when no iteration was peeled off."""
        b = Rebuilder(graph)
        for node in graph.nodes:
            node = with_regions(node, lambda region: self(region, options))
            b.copy(node)
            if node.op is OPS.loop:
                dead: set[Node] = set()
                while _roll(b, dead):
                    pass
        return b.done()


def _roll(b: Rebuilder, dead: set[Node]) -> bool:
    """Lets the loop emitted last take in the iteration before it, whose nodes are then `dead`; whether it did."""
    loop = b.nodes.pop()
    start, stop = (b.constant_value(v) for v in loop.inputs[:2])
    iteration = Iteration(b, loop, int(start)) if start is not None and (stop is None or stop >= start) else None
    if iteration is None or not iteration.found() or iteration.is_read_elsewhere(dead):
        b.nodes.append(loop)
        return False
    dead |= iteration.peeled
    b.loc = loop.loc
    last = loop.inputs[1]
    if stop is None:  # runs at least once, as the peeled iteration did
        last = b.maximum(loop.inputs[1], loop.inputs[0])
    before = iteration.before
    initial = [before[s] if s in before else b.full(s.shape, 0, s.dtype) for s in iteration.slots]
    first = b.index_scalar(iteration.start - 1)
    b.append(replace(loop, inputs=(first, last, *initial, *loop.inputs[2 + len(initial) :])))
    b.loc = None
    return True


class Iteration:
    """The attempt to find, before a loop, an iteration of its body that gives what the loop starts from."""

    def __init__(self, b: Rebuilder, loop: Node, start: int) -> None:
        self.b, self.loop, self.start = b, loop, start
        self.body: Graph = loop.regions[0]
        carried = loop.attrs["carried"]
        self.slots = self.body.params[1 : 1 + carried]
        self.outside = {v: node for node in b.nodes for v in node.outputs}
        self.before: dict[Value, Value] = {}
        """Value of the body -> what it was in the iteration before the loop."""
        self.peeled: set[Node] = set()

    def found(self) -> bool:
        """Whether all values that the loop starts from match, walking the body backwards."""
        pairs = zip(self.body.results, self.loop.inputs[2 : 2 + len(self.slots)], strict=False)
        if not self.slots or not all(self._bind(v, w) for v, w in pairs):
            return False
        for node in reversed(self.body.nodes):
            if any(v in self.before for v in node.outputs) and not self._match(node):
                return False
        index, invariants = self.body.params[0], self.body.params[1 + len(self.slots) :]
        if self.before.get(index) is not None and self._number(self.before[index]) != self.start - 1:
            return False
        given = zip(invariants, self.loop.inputs[2 + len(self.slots) :], strict=True)
        return all(self.before.get(v, w) is w for v, w in given) and not all(map(_is_free, self.peeled))

    def _bind(self, inner: Value, outer: Value) -> bool:
        """Notes that `inner` was `outer`; whether that is possible."""
        known = self.before.setdefault(inner, outer)
        if known is not outer and (self._number(known) is None or self._number(known) != self._number(outer)):
            return False
        return inner.type == outer.type

    def _number(self, value: Value) -> float | int | bool | None:
        node = self.outside.get(value)
        return node.attrs["value"] if node is not None and node.op is OPS.constant else None

    def _match(self, node: Node) -> bool:
        """Whether `node` was computed before the loop with the outputs that are bound; binds its inputs."""
        found = {self.outside.get(self.before[v]) for v in node.outputs if v in self.before}
        other = found.pop()
        if found or other is None or other.op is not node.op:
            return False
        if len(other.inputs) != len(node.inputs) or len(other.outputs) != len(node.outputs):
            return False
        if any(v in self.before and self.before[v] is not w for v, w in zip(node.outputs, other.outputs, strict=True)):
            return False
        if any(print_attr(node.attrs[name]) != print_attr(other.attrs[name]) for name in node.attrs):
            return False
        if not all(same_graph(p, q) for p, q in zip(node.regions, other.regions, strict=True)):
            return False
        self.peeled.add(other)
        return all(self._bind(v, w) for v, w in zip(node.inputs, other.inputs, strict=True))

    def is_read_elsewhere(self, dead: set[Node]) -> bool:
        """Whether what the iteration computes is read by more than the loop, itself and `dead` nodes."""
        mine = {v for node in self.peeled if not _is_free(node) for v in node.outputs}
        read = set(self.loop.inputs[2 + len(self.slots) :]) | {self.b.new(v) for v in self.b.graph.results}
        for node in self.b.graph.nodes:
            if not node.outputs:  # a loop that gives nothing
                continue
            first = self.b.new(node.outputs[0])
            producer = self.outside.get(first)
            if first is not self.loop.outputs[0] and producer not in self.peeled and producer not in dead:
                read.update(map(self.b.new, node.inputs))
        return not mine.isdisjoint(read)


def _is_free(node: Node) -> bool:
    return node.op.has(Trait.CONSTANT) or node.op.has(Trait.VIEW)
