"""Reads of what a write leaves alone come after the write, when all do that are left: then nobody needs the array as it
was, and the write happens in place.

`u[0] = u[1]; u[-1] = u[-2]` is traced as reads of the newest array; simplification found that the second could read the
oldest, which would have to be kept for it.
"""

from __future__ import annotations

from collections.abc import Container

from ..ir.graph import Graph, Node, Value
from ..ir.ops import OPS
from .options import Options
from .regions import with_regions
from .rules_updates import disjoint, runs_of
from .sizes import known_sizes


class Newest:
    """The pass `newest`."""

    name = "newest"

    def __call__(self, graph: Graph, options: Options) -> Graph:
        """The same object when no write profits."""
        written = graph.notes.get("writes", {}).values()
        return _newest(graph, {p for k, p in enumerate(graph.params) if k not in written} | set(graph.results))


def _newest(graph: Graph, kept: Container[Value]) -> Graph:
    """`kept` are values that are needed as they are, whatever reads them."""
    nodes = [with_regions(node, lambda region: _newest(region, set(region.results))) for node in graph.nodes]
    for place, node in enumerate(nodes):
        if node.op is OPS.slice_update and node.inputs[0] not in kept:
            _read_later(nodes, place)
    changed = any(new is not old for new, old in zip(nodes, graph.nodes, strict=True))
    return Graph(graph.name, graph.params, tuple(nodes), graph.results, graph.notes) if changed else graph


def _read_later(nodes: list[Node], place: int) -> None:
    """Lets all that read the base of an update behind it read the update, if that is the same to all of them."""
    update, behind = nodes[place], range(place + 1, len(nodes))
    base = update.inputs[0]
    readers = [k for k in behind if base in nodes[k].inputs]
    if all(_spared(nodes[k], update) for k in readers):
        for k in readers:
            node = nodes[k]
            nodes[k] = Node(node.op, (update.output,), node.attrs, node.outputs, node.loc)


def _spared(node: Node, update: Node) -> bool:
    """Whether a node reads nothing that the update changes."""
    if node.op is not OPS.slice or not known_sizes(update.output):
        return False
    read, wrote = runs_of(node, node.output.type.sizes), runs_of(update, update.inputs[1].type.sizes)
    return any(disjoint(r, w) for r, w in zip(read, wrote, strict=True))
