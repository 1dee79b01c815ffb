"""Small products made ready for vectors: the innermost axis of the result gets contiguous operands and whole vectors.

The factors of a product of matrices change places, the right one is copied in transposed order, or padded with zeros,
where that lets its columns be read as vectors. All of it is said in the graph; only the values in `pinned` must really
be stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.access import strides_of
from ..ir.builder import Rebuilder
from ..ir.graph import Graph, Node, Value
from ..ir.loops import LANES
from ..ir.ops import OPS
from ..ir.sizes import is_known, typical

ENOUGH_ROWS = 4
"""A factor is copied when at least so many rows of the other one are multiplied by it."""


def prepared(graph: Graph) -> tuple[Graph, frozenset[Value]]:
    """The graph with its small products of matrices rearranged, and the values that have to be stored for that."""
    producers = {v: n for n in graph.nodes for v in n.outputs}
    builder = Rebuilder(graph)
    pinned: set[Value] = set()
    for node in graph.nodes:
        matrices = _Matrices.of(node, producers)
        if matrices is None:
            builder.copy(node)
        else:
            builder.loc = node.loc
            builder.replace(node, [matrices.rewritten(builder, pinned)])
    return builder.done(), frozenset(pinned)


class _Matrices:
    """A product of two matrices that is to be rearranged: which axis of each factor is contracted, and the strides of
    the factors."""

    def __init__(self, node: Node, strides: Sequence[Sequence[int]]) -> None:
        self.node = node
        self.factors = list(node.inputs)
        self.contracted = [node.attrs["lhs_contract"][0], node.attrs["rhs_contract"][0]]
        self.strides = [list(s) for s in strides]

    @classmethod
    def of(cls, node: Node, producers: Mapping[Value, Node]) -> _Matrices | None:
        """The record of `node` if it is a product worth rearranging."""
        if (
            node.op is not OPS.dot_general
            or any(x.type.rank != 2 for x in node.inputs)
            or len(node.attrs["lhs_contract"]) != 1
        ):
            return None
        strides = [strides_of(x, producers) for x in node.inputs]
        if any(s is None for s in strides) or node.attrs["lhs_batch"] or node.output.type.size == 0:
            return None
        matrices = cls(node, strides)  # type: ignore[arg-type]
        return matrices if matrices.swaps or matrices.packs or matrices.pads else None

    def size(self, side: int) -> int:
        """The size of the axis that a factor gives to the result."""
        return self.factors[side].type.sizes[1 - self.contracted[side]]

    def runs(self, side: int) -> bool:
        """Whether that axis is contiguous in memory."""
        return self.strides[side][1 - self.contracted[side]] == 1

    @property
    def swaps(self) -> bool:
        """Whether the factors should change places: then the innermost axis of the result is long and contiguous."""
        return typical(self.size(1)) < LANES <= typical(self.size(0)) and self.runs(0)

    @property
    def packs(self) -> bool:
        """Whether the right factor should be copied in transposed order."""
        wanted = typical(self.size(1)) > 1 and not self.runs(1) and typical(self.size(0)) >= ENOUGH_ROWS
        return wanted and not self.swaps

    @property
    def pads(self) -> bool:
        """Whether the right factor should be padded to a whole vector."""
        columns = self.size(1)
        return not self.swaps and is_known(columns) and 1 < columns < LANES and typical(self.size(0)) >= ENOUGH_ROWS

    def rewritten(self, b: Rebuilder, pinned: set[Value]) -> Value:
        """Emits the rearranged product."""
        left, right = (b.new(x) for x in self.factors)
        if self.swaps:
            return b.permute(self._product(b, right, left, self.contracted[1], self.contracted[0]), dims=(1, 0))
        rows, columns, contracted = self.size(0), self.size(1), self.contracted[1]
        if self.packs and contracted == 1:
            right, contracted = b.permute(right, dims=(1, 0)), 0
        if self.pads:
            short = LANES - columns
            right = b.pad(right, low=(0, 0), high=(0, short) if contracted == 0 else (short, 0), value=0)
        pinned.add(right)
        product = self._product(b, left, right, self.contracted[0], contracted)
        if not self.pads:
            return product
        return b.slice(product, starts=(0, 0), stops=(rows, columns), steps=(1, 1))

    def _product(self, b: Rebuilder, left: Value, right: Value, of_left: int, of_right: int) -> Value:
        return b.dot_general(left, right, lhs_batch=(), rhs_batch=(), lhs_contract=(of_left,), rhs_contract=(of_right,))
