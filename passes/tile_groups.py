"""What can be computed block by block: the nodes around a large value that are linked to one axis of it, its rows.

A group is cut into levels. A value that needs all rows of a level, or something outside that does, belongs to a later
one, and each level becomes a loop over blocks of rows. A large value that a later level reads is computed again there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..ir.graph import Graph, Node, Value
from ..ir.ops import OPS
from .axes import Axis, Link, Producers, links, output_link

RELATED = 4
"""A value is large if it has at least the bytes of the group's first one divided by this."""


@dataclass(frozen=True)
class Level:
    """One loop: the nodes that it computes for every block, and those of their values that others read."""

    number: int
    nodes: tuple[Node, ...]
    outputs: tuple[Value, ...]


class Group:
    """The nodes around `seed` that can be computed for a block of indices of its `axis`.

    Attributes:
        links: the letter of each node that stands for the rows.
        count: how many rows there are.
        rows: the axis of each value that has the rows, None for a sum over them.
        levels: the loops, in the order in which they run.
    """

    def __init__(self, graph: Graph, producers: Producers, seed: Value, axis: int) -> None:
        self.graph, self.producers, self.seed = graph, producers, seed
        self.count = int(seed.type.sizes[axis])  # a number even where the size is symbolic: loops are for this one
        self._large = seed.type.nbytes // RELATED
        self._readers: dict[Value, list[Node]] = {}
        for node in graph.nodes:
            for value in dict.fromkeys(node.inputs):
                self._readers.setdefault(value, []).append(node)
        self.links: dict[Node, Link] = {}
        self._grow(producers[seed], axis)
        self._leave_ends()
        self.rows: dict[Value, Axis] = {v: link.output for node, link in self.links.items() for v in node.outputs}
        self.number = self._numbers()
        """The level of each value of the group; for others, how many levels must have run before."""
        self.levels = self._levels()

    def is_large(self, value: Value) -> bool:
        """Whether a value is among those that should not be in memory as a whole."""
        return value.type.nbytes >= self._large

    def in_step(self, node: Node, k: int) -> bool:
        """Whether a node of the group reads, of its input `k`, the very rows of a value of the group."""
        axis = self.links[node].inputs[k] if node in self.links else None
        return axis is not None and self.rows.get(node.inputs[k]) == axis

    # Membership

    def _is_core(self, node: Node) -> bool:
        return any(map(self.is_large, (*node.inputs, *node.outputs)))

    def _may_join(self, node: Node) -> bool:
        """Products of small values are left alone: what is around them is another matter."""
        return self._is_core(node) or node.op is not OPS.dot_general

    def _grow(self, first: Node, axis: int) -> None:
        found: list[tuple[Node, Link | None]] = [(first, output_link(first, axis, self.producers))]
        while found:
            node, link = found.pop()
            if link is not None and node not in self.links and self._may_join(node):
                self.links[node] = link
                found += self._neighbours(node, link)

    def _neighbours(self, node: Node, link: Link) -> Iterator[tuple[Node, Link | None]]:
        if link.output is not None:
            for output in node.outputs:
                for reader in self._readers.get(output, ()):
                    yield reader, self._reading(reader, output, link.output)
        for value, axis in zip(node.inputs, link.inputs, strict=True):
            if axis is not None and value in self.producers:
                yield self.producers[value], output_link(self.producers[value], axis, self.producers)

    def _reading(self, reader: Node, value: Value, axis: int) -> Link | None:
        """The letter of a reader by which it reads these rows of `value`, wherever it reads it."""
        return next(
            (
                link
                for link in links(reader, self.producers)
                if all(a == axis for v, a in zip(reader.inputs, link.inputs, strict=True) if v is value)
            ),
            None,
        )

    def _leave_ends(self) -> None:
        """Takes small nodes out that do not stand between others: what they read or give is small."""
        before, behind = set[Node](), set[Node]()
        nodes = [n for n in self.graph.nodes if n in self.links]
        for node in nodes:
            sources = {self.producers[v] for v in node.inputs if v in self.producers} & self.links.keys()
            if self._is_core(node) or not before.isdisjoint(sources):
                before.add(node)
        for node in reversed(nodes):
            if self._is_core(node) or not behind.isdisjoint(r for v in node.outputs for r in self._readers.get(v, ())):
                behind.add(node)
        self.links = {n: self.links[n] for n in nodes if n in before and n in behind}

    # Levels

    def _numbers(self) -> dict[Value, int]:
        number = dict.fromkeys(self.graph.params, 0)
        for node in self.graph.nodes:
            own = max(
                (number[v] + (v in self.rows and not self.in_step(node, k)) for k, v in enumerate(node.inputs)),
                default=0,
            )
            number.update(dict.fromkeys(node.outputs, own))
        return number

    def _levels(self) -> tuple[Level, ...]:
        """The last level first: what it needs of earlier ones is added to their outputs."""
        stored = {v: None for node in self.graph.nodes for k, v in enumerate(node.inputs) if not self.in_step(node, k)}
        stored |= dict.fromkeys(self.graph.results)
        levels = []
        for number in reversed(range(1 + max(map(self.number.__getitem__, self.rows)))):
            outputs = [v for v in self.rows if v in stored and self.number[v] == number]
            needed, nodes = set(outputs), []
            for node in reversed(self.graph.nodes):
                if needed.isdisjoint(node.outputs):
                    continue
                nodes.append(node)
                for k, value in enumerate(node.inputs):
                    if self.in_step(node, k):
                        again = self.number[value] == number or self.is_large(value)
                        needed.add(value) if again else stored.setdefault(value)
            if outputs:
                levels.append(Level(number, tuple(reversed(nodes)), tuple(outputs)))
        return tuple(reversed(levels))


def operands(group: Group, level: Level) -> dict[tuple[Value, Axis], None]:
    """What a level reads from outside, or from earlier levels, and the axis of it that has the rows."""
    inside = {v for node in level.nodes for v in node.outputs}
    found: dict[tuple[Value, Axis], None] = {}
    for node in level.nodes:
        for k, (value, axis) in enumerate(zip(node.inputs, group.links[node].inputs, strict=True)):
            if not (value in inside and group.in_step(node, k)):
                found[value, axis] = None
    return found
