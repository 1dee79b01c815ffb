"""Common subexpressions: nodes that surely compute the same become one."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np

from ..ir.builder import Rebuilder
from ..ir.compare import same_graph
from ..ir.graph import Graph, Node
from ..ir.op import Trait
from ..ir.ops import OPS
from ..ir.sizes import memory_of
from ..ir.text import print_attr
from .options import Options
from .regions import with_regions


def node_key(node: Node) -> Hashable:
    """Equal for two nodes of one graph that compute the same from the same values, but for their regions."""
    inputs = sorted(map(id, node.inputs)) if node.op.has(Trait.COMMUTATIVE) else map(id, node.inputs)
    if node.op is OPS.constant:
        dtype = node.attrs["dtype"]
        value = node.attrs["value"]
        return node.op, dtype, np.array(value, dtype.numpy).tobytes(), memory_of(value)
    attrs = [node.attrs[name] for name in sorted(node.attrs)]
    return node.op, tuple(inputs), tuple(map(print_attr, attrs)), tuple(map(memory_of, attrs))


def _same_regions(a: Node, b: Node) -> bool:
    return all(map(same_graph, a.regions, b.regions))


@dataclass(frozen=True)
class CommonSubexpressions:
    """Lets the first of equal nodes stand for the others, in each region for itself. Meaning unchanged to the bit.

    What stands behind a barrier is equal to nothing else: it is meant to be computed again.
    """

    name: str = field(default="cse", init=False)

    def __call__(self, graph: Graph, options: Options) -> Graph:
        """The graph without repetitions; the same object when there is none."""
        b = Rebuilder(graph)
        known: dict[Hashable, list[Node]] = {}
        for node in graph.nodes:
            node = with_regions(node, lambda region: self(region, options))
            b.copy(node)
            copied = b.nodes[-1]
            if node.op is OPS.barrier:
                continue
            alike = known.setdefault(node_key(copied), [])
            same = next((other for other in alike if _same_regions(other, copied)), None)
            if same is None:
                alike.append(copied)
            else:
                b.nodes.pop()
                b.replace(node, same.outputs)
        return b.done()
