"""Loop-invariant motion: what every iteration of a `loop` would compute anew is computed once, before the loop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ..ir.builder import Rebuilder
from ..ir.graph import Graph, Node, Value
from ..ir.op import Trait
from ..ir.ops import OPS
from .options import Options
from .regions import with_regions
from .sizes import bytes_of

SMALL = 4096
"""Bytes that are always worth keeping instead of computing again."""


@dataclass(frozen=True)
class InvariantMotion:
    """Moves invariant work out of loops, inner loops first. Meaning unchanged to the bit: every op is pure.

    Constants and views stay, since they cost nothing. Nodes that can fail move only out of a loop that surely runs, and
    elementwise nodes only when their result takes no more memory than what they read: a fused kernel computes them
    faster than it loads them.
    """

    name: str = field(default="invariant", init=False)

    def __call__(self, graph: Graph, options: Options) -> Graph:
        """The graph with invariant work moved; the same object when there is none."""
        b = Rebuilder(graph)
        for node in graph.nodes:
            node = with_regions(node, lambda region: self(region, options))
            if node.op is OPS.loop:
                node = _move_out(b, node)
            b.copy(node)
        return b.done()


def _move_out(b: Rebuilder, node: Node) -> Node:
    """Emits the invariant work of a loop into `b`; the loop without it, still reading the old graph's values."""
    (body,), carried = node.regions, node.attrs["carried"]
    movable = _movable(body, body.params[1 + carried :], _surely_runs(b, node))
    worthy = _worthy(movable, body.params[1 + carried :])
    if not worthy:
        return node
    moved = {v for n in worthy for v in n.outputs}
    kept = [n for n in body.nodes if n.outputs[0] not in moved]
    read = {*body.results, *(v for n in kept for v in n.inputs)}
    passed = [v for n in worthy for v in n.outputs if v in read]
    env = {p: b.new(v) for p, v in zip(body.params[1:], node.inputs[2:], strict=True)}
    for n in _with_sources(worthy, movable):
        outputs = tuple(Value(v.type, v.hint) for v in n.outputs)
        b.append(Node(n.op, tuple(env[v] for v in n.inputs), n.attrs, outputs, n.loc, n.regions))
        env.update(zip(n.outputs, outputs, strict=True))
    region = Graph(body.name, (*body.params, *passed), tuple(kept), body.results, body.notes)
    return replace(node, inputs=(*node.inputs, *(env[v] for v in passed)), regions=(region,))


def _surely_runs(b: Rebuilder, node: Node) -> bool:
    start, stop = (b.constant_value(b.new(v)) for v in node.inputs[:2])
    return start is not None and stop is not None and stop > start


def _movable(body: Graph, invariants: Iterable[Value], surely_runs: bool) -> dict[Node, None]:
    """The nodes that depend on nothing but invariants and may run before the loop, in order."""
    known = set(invariants)
    nodes: dict[Node, None] = {}
    for node in body.nodes:
        may_fail = node.op.has(Trait.INDEXED) or node.op.has(Trait.CONTROL)
        if all(v in known for v in node.inputs) and (surely_runs or not may_fail):
            known.update(node.outputs)
            nodes[node] = None
    return nodes


def _worthy(movable: Iterable[Node], invariants: Iterable[Value]) -> list[Node]:
    """The movable nodes that cost more in every iteration than reading their results back."""
    behind = {v: {v} for v in invariants}  # value -> what is read in memory when it is computed
    worthy = []
    for node in movable:
        sources = set().union(*(behind[v] for v in node.inputs))
        if _is_worth_it(node, sources):
            worthy.append(node)
            behind.update((v, {v}) for v in node.outputs)
        else:
            behind[node.output] = sources
    return worthy


def _is_worth_it(node: Node, sources: Iterable[Value]) -> bool:
    if node.op.has(Trait.CONSTANT) or node.op.has(Trait.VIEW):
        return False
    if not node.op.has(Trait.ELEMENTWISE) or bytes_of(node.output) <= SMALL:
        return True
    return bytes_of(node.output) <= sum(bytes_of(v) for v in sources)


def _with_sources(worthy: Iterable[Node], movable: dict[Node, None]) -> list[Node]:
    """The worthy nodes and all that they need, in order."""
    needed = {v for n in worthy for v in n.outputs}
    for node in reversed(movable):
        if any(v in needed for v in node.outputs):
            needed.update(node.inputs)
    return [n for n in movable if any(v in needed for v in n.outputs)]
