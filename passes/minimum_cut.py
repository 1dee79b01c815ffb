"""Minimum cuts of a network of edges with capacities, by Dinic's algorithm."""

from __future__ import annotations

from collections.abc import Hashable, Iterator


class Network:
    """Nodes are whatever edges are put between."""

    def __init__(self) -> None:
        self._out: dict[Hashable, list[int]] = {}
        self._target: list[Hashable] = []
        self._left: list[int] = []
        """What more an edge can carry. Edge k ^ 1 is edge k the other way: it carries what k does, back."""

    def edge(self, a: Hashable, b: Hashable, capacity: int) -> None:
        """An edge from `a` to `b`."""
        for source, target, amount in ((a, b, capacity), (b, a, 0)):
            self._out.setdefault(source, []).append(len(self._target))
            self._target.append(target)
            self._left.append(amount)

    def cut(self, source: Hashable, sink: Hashable) -> set[Hashable]:
        """The nodes on the source's side of the minimum cut that is nearest to the sink. The network is used up."""
        while source in (distance := self._distances(sink)):
            following = {node: iter(edges) for node, edges in self._out.items()}
            while self._send(source, sink, distance, following):
                pass
        return self._out.keys() - distance.keys()

    def _distances(self, sink: Hashable) -> dict[Hashable, int]:
        """For all nodes that can send more to the sink: over how many edges."""
        distance, reached = {sink: 0}, [sink]
        for node in reached:
            for k in self._out.get(node, ()):
                other = self._target[k]
                if other not in distance and self._left[k ^ 1]:
                    distance[other] = distance[node] + 1
                    reached.append(other)
        return distance

    def _send(
        self,
        source: Hashable,
        sink: Hashable,
        distance: dict[Hashable, int],
        following: dict[Hashable, Iterator[int]],
    ) -> int:
        """Sends as much as one more shortest way can carry; 0 when there is none. `following` has the edges that were
        not found to lead nowhere."""
        node, way = source, list[int]()
        while node != sink:
            for k in following[node]:
                if self._left[k] and distance.get(self._target[k], -1) == distance[node] - 1:
                    way.append(k)
                    node = self._target[k]
                    break
            else:
                if not way:
                    return 0
                node = self._target[way.pop() ^ 1]
        amount = min(self._left[k] for k in way)
        for k in way:
            self._left[k] -= amount
            self._left[k ^ 1] += amount
        return amount
