"""Tiling: large values that exist only between products, such as the scores of an attention or the logits in front of a
cross entropy, are computed for a block of rows at a time, and are never in memory as a whole.

What can be computed that way is found in `tile_groups.py`; here it is decided what pays; `tile_loops.py` writes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

from ..ir.graph import Graph, Node, Value
from ..ir.op import Trait
from ..ir.ops import OPS
from .options import Options
from .regions import in_regions
from .tile_groups import Group, operands
from .tile_loops import with_loops

LEAST_BYTES = 1 << 24
"""Smaller results of products are left alone: the caches hold them, or nearly."""

BLOCK_BYTES = 1 << 22
"""A block of the large value has about this many bytes: with fewer the products lose more than the caches gain."""

SUM_SHARE = 2
"""A block has at least this many times the bytes of the sums over rows, which every iteration reads and writes."""

REPEATED_INNER = 256
"""A product is computed again in a later loop only if it sums over at most this many terms."""

BLOCK_STEP = 16
"""Rows of a block are a multiple of this where there are enough: the size of BLAS's own blocks."""


@dataclass(frozen=True)
class Tiling:
    """Computes large results of products, and what is computed of them row by row, in loops over blocks of rows.

    Sums over rows are added up block by block, so they may differ in their last bits; everything else is unchanged.
    """

    name: str = field(default="tiling", init=False)
    least_bytes: int = LEAST_BYTES
    block_bytes: int = BLOCK_BYTES

    def __call__(self, graph: Graph, options: Options) -> Graph:
        """The graph with loops, in regions too; the same object when nothing is large, or nothing pays."""
        graph = in_regions(graph, lambda region: self(region, options))
        while (tiled := self._tile_one(graph, options)) is not None:
            graph = tiled
        return graph

    def _tile_one(self, graph: Graph, options: Options) -> Graph | None:
        for group in self.groups(graph):
            if not self.reason_against(group):
                return with_loops(group, self.block(group), lambda body: self(body, options))
        return None

    def groups(self, graph: Graph) -> Iterator[Group]:
        """What surrounds large results of products, the largest first, for each of their axes, the outermost first."""
        products = [n.output for n in graph.nodes if n.op is OPS.dot_general]
        large = sorted((v for v in products if v.type.nbytes >= self.least_bytes), key=lambda v: -v.type.nbytes)
        producers = {v: node for node in graph.nodes for v in node.outputs} if large else {}
        for value in large:
            yield from (Group(graph, producers, value, d) for d, n in enumerate(value.type.sizes) if n > 1)

    def block(self, group: Group) -> int:
        """The rows of a block: by the bytes of one, and if possible so that none are left over."""
        sums = sum(v.type.nbytes for level in group.levels for v in level.outputs if group.rows[v] is None)
        wanted = max(self.block_bytes, SUM_SHARE * sums)
        most = max(1, int(wanted * group.count // group.seed.type.nbytes))
        step = BLOCK_STEP if most >= BLOCK_STEP else 1
        most -= most % step
        return next((n for n in range(most, most // 2, -step) if group.count % n == 0), most)

    def reason_against(self, group: Group) -> str:
        """Why loops for a group do not pay; empty when they do."""
        if self.block(group) >= group.count:
            return "one block would have all rows"
        return _what_stays(group) or _what_is_repeated(group)


def _what_stays(group: Group) -> str:
    """A reason when large values are in memory anyway, or as many bytes go in and out of the loops as are saved."""
    outputs = [v for level in group.levels for v in level.outputs]
    if any(map(group.is_large, outputs)):
        return "values of its size are needed as a whole"
    read = {v for level in group.levels for v, _ in operands(group, level)}
    made = [v for v in read if (node := group.producers.get(v)) and not node.op.has(Trait.CONSTANT)]
    if sum(v.type.nbytes for v in (*outputs, *made)) > group.seed.type.nbytes:
        return "what goes in and out of it is as large"
    return ""


def _what_is_repeated(group: Group) -> str:
    """A reason when a long product would have to be computed again by a later loop."""
    again = (n for level in group.levels for n in level.nodes if group.number[n.outputs[0]] < level.number)
    long = any(n.op is OPS.dot_general and _inner(n) > REPEATED_INNER for n in again)
    return "to compute it again for the backward costs more than to keep it" if long else ""


def _inner(product: Node) -> int:
    """How many terms the sums of a product have."""
    return prod(product.inputs[0].type.sizes[d] for d in product.attrs["lhs_contract"])


def left_whole(graph: Graph) -> Iterator[tuple[Value, str]]:
    """The large results of products that an optimized graph computes as a whole, with the reasons why."""
    tiling, reasons = Tiling(), dict[Value, dict[str, None]]()
    for group in tiling.groups(graph):
        reasons.setdefault(group.seed, {})[tiling.reason_against(group)] = None
    yield from ((value, ", ".join(found)) for value, found in reasons.items())
