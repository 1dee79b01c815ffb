"""Repeated loops: a loop that computes all that an earlier one does, and more, takes its place.

Such pairs come from differentiation, which emits a loop again with buffers for what its reverse needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..ir.builder import Rebuilder
from ..ir.graph import Graph, Node, Value
from ..ir.ops import OPS
from .numbering import Numbers, number_values
from .options import Options
from .regions import in_regions


@dataclass(frozen=True)
class RepeatedLoops:
    """Merges a loop with a later one that carries the same values first and computes the same from them, to the bit."""

    name: str = field(default="repeated-loops", init=False)

    def __call__(self, graph: Graph, options: Options) -> Graph:
        """The graph without repeated loops, in regions too; the same object when there are none."""
        graph = in_regions(graph, lambda region: self(region, options))
        while (merged := _merge_one(graph)) is not None:
            graph = merged
        return graph


def _merge_one(graph: Graph) -> Graph | None:
    loops = [k for k, node in enumerate(graph.nodes) if node.op is OPS.loop]
    for position, i in enumerate(loops):
        for j in loops[position + 1 :]:
            merged = _merge(graph, i, j)
            if merged is not None:
                return merged
    return None


def _merge(graph: Graph, i: int, j: int) -> Graph | None:
    """The graph with node `j` standing in for node `i` too, when it can."""
    first, second = graph.nodes[i], graph.nodes[j]
    found = _replacements(first, second)
    sources = _sources(graph, i, j)
    if found is None or sources is None:
        return None
    second, outputs = found
    b = Rebuilder(graph)
    early = {k: None for k in sources}
    for k in (*range(i), *early):
        b.copy(graph.nodes[k])
    b.copy(second)
    b.replace(first, [b.new(v) for v in outputs])
    for k in range(i + 1, len(graph.nodes)):
        if k != j and k not in early:
            b.copy(graph.nodes[k])
    return b.done()


def _sources(graph: Graph, i: int, j: int) -> list[int] | None:
    """The nodes between `i` and `j` that `j` needs, in order; None when one of them needs `i`."""
    needed, found = set(graph.nodes[j].inputs), []
    for k in range(j - 1, i - 1, -1):
        node = graph.nodes[k]
        if any(v in needed for v in node.outputs):
            if k == i:
                return None
            needed.update(node.inputs)
            found.append(k)
    return found[::-1]


def _replacements(first: Node, second: Node) -> tuple[Node, Sequence[Value]] | None:
    """(`second` with more `lasts` if needed; its outputs that stand for those of `first`), or None if they differ."""
    carried, more = first.attrs["carried"], second.attrs["carried"]
    if carried > more or any(
        a is not z for a, z in zip(first.inputs[: 2 + carried], second.inputs[: 2 + carried], strict=True)
    ):
        return None
    numbers: Numbers = {}
    a, z = _numbered(first, numbers), _numbered(second, numbers)
    (body,), (other,) = first.regions, second.regions
    if any(a[v] != z[w] for v, w in zip(body.results[:carried], other.results[:carried], strict=True)):
        return None
    by_number = {number: value for value, number in reversed(z.items())}
    results, outputs = list(other.results), list(second.outputs)
    places = []
    for value in body.results[carried:]:
        same = by_number.get(a[value])
        if same is None:
            return None
        place = next((k for k in range(more, len(results)) if results[k] is same), len(results))
        if place == len(results):
            results.append(same)
            outputs.append(Value(same.type, value.hint))
        places.append(place)
    if len(outputs) > len(second.outputs):
        region = Graph(other.name, other.params, other.nodes, tuple(results), other.notes)
        second = replace(second, outputs=tuple(outputs), regions=(region,))
    return second, [*outputs[:carried], *(outputs[k] for k in places)]


def _numbered(loop: Node, numbers: Numbers) -> dict[Value, int]:
    """Numbers for the values of the body, supposing that the values carried in are the other loop's."""
    carried = loop.attrs["carried"]
    return number_values(loop.regions[0], ("index", *range(carried), *map(id, loop.inputs[2 + carried :])), numbers)
