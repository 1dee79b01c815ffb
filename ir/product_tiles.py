"""Matrix products in tiles: how many rows, and how many vectors of columns, one loop over the contracted axis computes
at once, and which products are better so than by BLAS.

Each vector of a tile has an accumulator in a register; each step of the loop reads one number for every row and one
vector for every vector of columns, where they stand. The order in which the terms of an element are added up does not
depend on the tile.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, prod

from .graph import Node
from .loops import LANES
from .sizes import Dim, is_known, typical

REGISTERS = 32
"""Vector registers, of LANES float32. With fewer and smaller ones tiles spill, and are still about as fast as BLAS."""

MOST_VECTORS = 6
"""Vectors of columns in a tile, at most."""

TILED_WORK = 1 << 16
"""Multiplications from which a product is computed in tiles, or by BLAS."""

LARGE_WORK, ENOUGH_ROWS = 1 << 20, 16
"""Products of more multiplications are cut into panels of rows, which takes so many; BLAS also cuts columns."""

DEPTH = 256
"""Terms of long sums that are added up at a time."""

CACHED_BYTES = 1 << 19
"""A right operand of more bytes does not stay in the cache, but a block of DEPTH terms of at most so many does."""

LARGEST_RIGHT = 1 << 21
"""Bytes of a right operand, at most, that tiles read over and over without such blocks; BLAS copies it in parts."""

# Half-cycles: two vector sums start in a cycle. Measured on Zen 5.
LATENCY = 8  # from one sum of an accumulator to its next
NUMBER_COST, VECTOR_COST = 0.1, 0.25  # of reading a number or a vector: most of it hides behind the sums
LIBRARY_COST = 1.05  # of BLAS's own sums
PACKED_COST = 2  # of each element of the operands in BLAS, which copies them first
ORDERED_COST = 1.5  # of each element of a right operand that is put in order first


@dataclass(frozen=True)
class Columns:
    """The columns of a product.

    Attributes:
        count: how many there are.
        registers: the registers that a vector takes.
    """

    count: int
    registers: int

    @property
    def vectors(self) -> int:
        """The number of whole vectors."""
        return self.count // LANES

    def cost(self, rows: int, wide: int) -> float:
        """Half-cycles, for each step of the contracted axis, of all columns of `rows` rows in tiles of `wide` vectors;
        infinite when a tile does not fit the registers."""
        if (rows * wide + wide + 1) * self.registers > REGISTERS:
            return inf
        whole = self.vectors // wide * self._step(rows, wide) + self._step(rows, self.vectors % wide)
        return whole + (self._step(rows, 1) if self.count % LANES else 0)

    def _step(self, rows: int, wide: int) -> float:
        """Half-cycles of one step of a tile."""
        sums = max(rows * wide * self.registers, LATENCY)
        return sums + NUMBER_COST * rows + VECTOR_COST * wide * self.registers if wide else 0

    def widest(self, rows: int) -> int:
        """The best number of vectors in a tile of `rows` rows."""
        return min(range(1, min(MOST_VECTORS, self.vectors) + 1), key=lambda wide: self.cost(rows, wide))


def goes_in_blocks(terms: Dim, columns: Dim, itemsize: int) -> bool:
    """Whether the right operand of a product is read by blocks of DEPTH terms, each for many rows in turn."""
    if not is_known(terms, columns):
        return False
    return terms >= 2 * DEPTH and terms * columns * itemsize >= CACHED_BYTES >= DEPTH * columns * itemsize


def best_block(count: Dim, period: Dim, products: Iterable[Columns]) -> tuple[int, float]:
    """How many of `count` rows the tiles of all products have, and the half-cycles of a row for each step of the
    contracted axis. Operands may change after each `period` rows (0: never), which the tiles divide."""
    products = list(products)

    def cost(rows: int) -> float:
        whole, rest = divmod(count, rows) if isinstance(count, int) else (1, 0)
        wide = [c.widest(rows) for c in products]
        total = sum(whole * c.cost(rows, w) + rest * c.cost(1, w) for c, w in zip(products, wide, strict=True))
        return total / (whole * rows + rest)

    fitting = [r for r in range(1, REGISTERS) if period == 0 or is_known(period) and period % r == 0]
    best = min(fitting, key=cost, default=1)
    return best, cost(best)


def is_tiled(node: Node) -> bool:
    """Whether `node` is a product of matrices that is computed in tiles."""
    if node.op.name != "dot_general" or not node.output.dtype.is_floating_point or node.output.dtype.bits < 32:
        return False
    sizes, free = node.output.type.sizes, node.inputs[1].type.rank
    free -= len(node.attrs["rhs_batch"]) + len(node.attrs["rhs_contract"])
    contracted = prod(node.inputs[0].type.sizes[k] for k in node.attrs["lhs_contract"])
    work = typical(prod(sizes) * contracted)
    if not free or not is_known(sizes[-1]) or sizes[-1] < LANES or work < TILED_WORK:
        return False
    itemsize = node.output.dtype.itemsize
    if typical(contracted) * sizes[-1] * itemsize > LARGEST_RIGHT:
        if not goes_in_blocks(contracted, sizes[-1], itemsize):
            return False
    batch, rows = prod(sizes[: len(node.attrs["rhs_batch"])]), prod(sizes[:-1])
    if typical(rows) < ENOUGH_ROWS and work > LARGE_WORK:
        return False
    columns = Columns(sizes[-1], node.output.dtype.bits // 32)
    period = 0 if batch == 1 and len(sizes) == 2 else sizes[-2]
    _, tile = best_block(rows, period, [columns])
    left, right, inner = typical(rows), typical(batch) * sizes[-1], typical(contracted)
    ordered = node.inputs[1].type.rank - 1 in node.attrs["rhs_contract"]
    tiles = inner * (left * tile + right * ORDERED_COST * ordered)
    return tiles < LIBRARY_COST * work * columns.registers / LANES + inner * (left + right) * PACKED_COST
