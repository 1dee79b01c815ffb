"""What a fused graph keeps: between its forward and its backward, and at most at once."""

from __future__ import annotations

from collections.abc import Iterator

from ..ir.graph import Graph, Node, Value
from ..ir.op import Trait
from ..ir.ops import OPS


def saved_values(graph: Graph) -> Iterator[tuple[Graph, Value, Node]]:
    """The values of a fused graph, loop bodies included, that forward code makes and that kernels read which compute
    nothing but derivatives: (the region, the value, the node that computes it, inside of its kernel).

    Single numbers, constants and inputs are not counted.
    """
    makers = _makers(graph)
    saved: dict[Value, None] = {}
    for node in graph.nodes:
        if node.op is not OPS.fusion:
            for region in node.regions:
                yield from saved_values(region)
        if node.op.has(Trait.VIEW) or not all(is_backward(makers[v][1]) for v in node.outputs):
            continue
        for value in node.inputs:
            root, maker = makers.get(value, (value, None))
            if maker is not None and not is_backward(maker) and not maker.op.has(Trait.CONSTANT):
                saved[root] = None
    yield from ((graph, v, makers[v][1]) for v in saved if v.type.size > 1)


def saved_bytes(graph: Graph) -> int:
    """The bytes of all that a fused graph keeps for its backward."""
    return sum(value.type.nbytes for _, value, _ in saved_values(graph))


def peak_bytes(graph: Graph) -> int:
    """About the most bytes of computed values that are needed at once, when nodes run in order."""
    makers = _makers(graph)
    last: dict[Value, int] = {}
    for k, node in enumerate(graph.nodes):
        last.update((makers.get(v, (v, node))[0], k) for v in node.inputs)
    last.update((makers[v][0], len(graph.nodes)) for v in graph.results if v in makers)
    dying: dict[int, int] = {}
    now = most = 0
    for k, node in enumerate(graph.nodes):
        for value in node.outputs:
            if makers[value][0] is value:
                now += value.type.nbytes
                dying[last.get(value, k)] = dying.get(last.get(value, k), 0) + value.type.nbytes
        inner = max((peak_bytes(region) for region in node.regions), default=0) if node.op is not OPS.fusion else 0
        most = max(most, now + inner)
        now -= dying.get(k, 0)
    return most


def is_backward(node: Node) -> bool:
    """Whether differentiation made the node."""
    return node.loc is not None and node.loc.backward


def _makers(graph: Graph) -> dict[Value, tuple[Value, Node]]:
    """For each computed value: the value whose memory it is, and the node that computes that, inside of its kernel."""
    makers: dict[Value, tuple[Value, Node]] = {}
    for node in graph.nodes:
        if node.op.has(Trait.VIEW):
            makers[node.output] = makers.get(node.inputs[0], (node.output, node))
        elif node.op is OPS.fusion:
            region = node.regions[0]
            inside = {v: n for n in region.nodes for v in n.outputs}
            for output, result in zip(node.outputs, region.results, strict=True):
                makers[output] = (output, inside.get(result, node))
        else:
            makers.update((v, (v, node)) for v in node.outputs)
    return makers
