"""The order in which a region's nodes run: the given one, but for readers of memory that another node overwrites,
which come first."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..ir.graph import Graph, Node, Value

Overwrites = Iterable[tuple[Node, Value]]
"""(node, value): the node would like to write into the memory of the value."""


def readers_first(graph: Graph, find: Callable[[Value], Value], overwrites: Overwrites) -> tuple[Node, ...]:
    """The nodes in an order in which, wherever dependences allow, whoever reads a value comes before the node that
    overwrites it."""
    number = {node: k for k, node in enumerate(graph.nodes)}
    producer = {v: node for node in graph.nodes for v in node.outputs}
    before = [{number[producer[v]] for v in node.inputs if v in producer} for node in graph.nodes]
    reach = _reachable(before)
    readers: dict[Value, list[Node]] = {}
    for node in graph.nodes:
        for value in dict.fromkeys(map(find, node.inputs)):
            readers.setdefault(value, []).append(node)
    moved = False
    for writer, value in overwrites:
        w = number[writer]
        for reader in readers.get(find(value), ()):
            r = number[reader]
            if r != w and not reach[w] >> r & 1 and not reach[r] >> w & 1:
                before[w].add(r)
                _join(reach, r, w)
                moved = moved or r > w
    return _sorted(graph.nodes, before) if moved else graph.nodes


def _reachable(before: Sequence[set[int]]) -> list[int]:
    """For each node the bit set of the nodes that depend on it."""
    reach = [0] * len(before)
    for k in range(len(before) - 1, -1, -1):
        for other in before[k]:
            reach[other] |= 1 << k | reach[k]
    return reach


def _join(reach: list[int], r: int, w: int) -> None:
    """`w` depends on `r` from now on."""
    new = 1 << w | reach[w]
    for k, nodes in enumerate(reach):
        if k == r or nodes >> r & 1:
            reach[k] = nodes | new


def _sorted(nodes: Sequence[Node], before: Sequence[set[int]]) -> tuple[Node, ...]:
    """A topological order that takes the first node of the given order that is ready."""
    after: Mapping[int, list[int]] = {k: [] for k in range(len(nodes))}
    waiting = [len(others) for others in before]
    for k, others in enumerate(before):
        for other in others:
            after[other].append(k)
    ready = [k for k, n in enumerate(waiting) if n == 0]
    order: list[Node] = []
    while ready:
        k = heapq.heappop(ready)
        order.append(nodes[k])
        for other in after[k]:
            waiting[other] -= 1
            if waiting[other] == 0:
                heapq.heappush(ready, other)
    return tuple(order)
