"""Products of overlapping windows as loops that read them where they stand (`ir/windows.py`).

The sums of several elements of the left operand with several vectors of the right one stay in registers, so that each
load serves many multiplications. Blocks that do not fit a whole number of times overlap: some sums are computed twice,
and no load or store needs a condition.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product as all_pairs
from math import prod

from ..ir.graph import Value
from ..ir.index import Constant, Index, IndexLike, as_index, flatten, unflatten
from ..ir.loops import LANES, START, STOP, Apply, Buffer, Literal, Load, Local, Position, Role, Scalar
from ..ir.types import bool_, int64
from ..ir.windows import WindowProduct, vectors
from .lower_builder import KernelBuilder, apply
from .lower_points import Place

REGISTERS = 24
"""Sums that are in registers at a time."""

MOST_ROWS = 8
"""Elements of the left operand that are multiplied by a vector, at most."""


class WindowWriter:
    """Writes a product into a kernel, over a range of tasks.

    Args:
        builder: the kernel.
        product: what to compute.
        places: where the operands are in memory.
        output: where the result goes.
    """

    def __init__(
        self, builder: KernelBuilder, product: WindowProduct, places: dict[Value, Place], output: Buffer
    ) -> None:
        self.builder, self.product, self.output = builder, product, output
        self.dtype, self.loc = output.dtype, product.node.loc
        left, right = places[product.left.base].buffer, places[product.right.base].buffer
        assert left is not None and right is not None
        self.left, self.right = left, right
        self.size = {d: n for d, n in enumerate(product.sizes)}
        p = product
        inside = {p.lane, p.row, p.block, p.beside} if p.folds_lanes else {p.lane, p.row, p.block}
        self.outer = [d for d in range(p.kept) if d not in inside and self.size[d] != 1]
        self.folded = [d for d in range(p.kept, len(p.sizes)) if d not in inside and self.size[d] != 1]
        self.beside = 1 if p.beside is None else _divided(self.size[p.beside], MOST_ROWS)
        most = min(MOST_ROWS, REGISTERS // self.beside)
        self.rows = 1 if p.block is None else _divided(self.size[p.block], most)
        self.indices: list[Index] = [Constant(0)] * len(p.sizes)

    @property
    def tasks(self) -> int:
        """What the kernel ranges over: the outer axes and blocks of the others."""
        return prod(self._task_sizes())

    def _task_sizes(self) -> list[int]:
        """Sums over lanes read most of the left operand: what they read of it, others read again soon after."""
        p = self.product
        block, beside = (
            1 if d is None else -(-self.size[d] // n) for d, n in ((p.block, self.rows), (p.beside, self.beside))
        )
        outer = [self.size[d] for d in self.outer]
        return [block, *outer, beside] if p.folds_lanes else [*outer, block, beside]

    def write(self) -> None:
        """The whole product."""
        task = self.builder.variable("task", self.tasks)
        self.builder.open(task, START, STOP)
        *numbers, beside = unflatten(task, self._task_sizes())
        block, *outer = numbers if self.product.folds_lanes else [numbers[-1], *numbers[:-1]]
        for axis, index in zip(self.outer, outer, strict=True):
            self.indices[axis] = as_index(index)
        p = self.product
        for d, number, width in ((p.block, block, self.rows), (p.beside, beside, self.beside)):
            if d is not None:
                self.indices[d] = self._first(as_index(number), width, self.size[d])
        if p.folds_lanes:
            self._write_sums()
        elif p.flat:
            self._write_flat()
        else:
            self._write_rows()
        self.builder.close()

    def _first(self, number: Index, width: int, size: int) -> Index:
        """Where block number `number` of `width` places begins; the last one ends with the axis."""
        if size % width == 0:
            return number * width
        last = Literal(size - width, int64)
        return self.builder.bound("first", apply("minimum", (Position(number * width), last), int64), size - width)

    def _blocks(self, hint: str, width: int, size: int) -> Index:
        """Opens a loop over blocks; where they begin."""
        variable = self.builder.variable(hint, -(-size // width))
        self.builder.open(variable, 0, variable.size)
        return self._first(variable if -(-size // width) > 1 else Constant(0), width, size)

    def _load(self, buffer: Buffer, index: Index, lanes: int) -> Local:
        return self.builder.let(buffer.name, Load(buffer, index, lanes), self.builder.level)

    def _window(self, indices: Sequence[Index]) -> Local:
        """A vector of the right operand; what lies between its elements is loaded, too."""
        step, first = self.product.spacing, self.product.right.at(indices)
        if step == 1:
            return self._load(self.right, first, LANES)
        rest = Constant(LANES + 1 - step)  # nothing behind the last element
        counts: list[Index | None] = [*[None] * (step - 1), rest]
        parts = tuple(Load(self.right, first + k * LANES, LANES, count) for k, count in enumerate(counts))
        return self.builder.let(self.right.name, Apply(f"every_{step}", parts, self.dtype, LANES), self.builder.level)

    def _moved(self, moves: dict[int | None, IndexLike]) -> list[Index]:
        """The indices, some of them moved on."""
        return [i + moves[d] if d in moves else i for d, i in enumerate(self.indices)]

    def _zero(self) -> Literal:
        return Literal(0.0, self.dtype, LANES)

    def _accumulators(self, count: int) -> list[Local]:
        return [self.builder.accumulator("sum", self._zero(), self.loc) for _ in range(count)]

    def _open_folds(self, axes: Sequence[int]) -> None:
        for d in axes:
            variable = self.builder.variable("k", self.size[d])
            self.builder.open(variable, 0, self.size[d])
            self.indices[d] = variable

    def _close(self, count: int) -> None:
        for _ in range(count):
            self.builder.close()

    # Vectors that are stored

    def _write_rows(self) -> None:
        """Blocks of rows and of vectors, straight to the result."""
        p = self.product
        columns, rows = self.size[p.lane], 1 if p.row is None else self.size[p.row]
        wide = _shared(vectors(columns), REGISTERS // self.rows)
        high = _divided(rows, max(1, REGISTERS // (self.rows * wide)))
        if p.row is not None:
            self.indices[p.row] = self._blocks("row", high, rows)
        width = min(wide * LANES, columns)
        self.indices[p.lane] = self._blocks("column", width, columns)
        starts = [min(k * LANES, width - LANES) for k in range(wide)]
        moves: list[dict[int | None, IndexLike]] = [
            {p.row: r, p.lane: c} if p.row is not None else {p.lane: c} for r in range(high) for c in starts
        ]
        sums = self._sums(moves)
        for (i, move), total in zip(all_pairs(range(self.rows), moves), sums, strict=True):
            self._store(self._moved({**move, p.block: i}), total)
        self._close(2 if p.row is not None else 1)

    def _sums(self, moves: Sequence[dict[int | None, IndexLike]]) -> list[Local]:
        """The sums for every element of the block and every place of the right operand."""
        p = self.product
        sums = self._accumulators(self.rows * len(moves))
        self._open_folds(self.folded)
        right = [self._window(self._moved(move)) for move in moves]
        for i in range(self.rows):
            left = self._load(self.left, p.left.at(self._moved({p.block: i})), 1)
            for k, vector in enumerate(right):
                total = sums[i * len(moves) + k]
                self.builder.set(total, apply("fma", (left, vector, total), self.dtype), self.loc)
        self._close(len(self.folded))
        return sums

    def _store(self, indices: Sequence[Index], value: Scalar) -> None:
        kept = range(self.product.kept)
        position = flatten([indices[d] for d in kept], [self.product.sizes[d] for d in kept])
        self.builder.store(self.output, position, value, self.loc)

    def _write_flat(self) -> None:
        """All places from the first row to the last, also those between rows; then the rows alone are stored."""
        p = self.product
        assert p.row is not None
        length = p.span
        wide = _shared(vectors(length), REGISTERS // self.rows)
        width = min(wide * LANES, length)
        buffer = self.builder.buffer("flat", self.dtype, self.rows * length + LANES, Role.LOCAL)
        self.indices[p.row] = self.indices[p.lane] = Constant(0)
        first = self._blocks("place", width, length)
        self.indices[p.lane] = first
        starts = [min(k * LANES, width - LANES) for k in range(wide)]
        sums = self._sums([{p.lane: c} for c in starts])
        for (i, start), total in zip(all_pairs(range(self.rows), starts), sums, strict=True):
            self.builder.store(buffer, first + (i * length + start), total, self.loc)
        self._close(1)
        self._store_rows(buffer, length)

    def _store_rows(self, flat: Buffer, length: int) -> None:
        """The rows of a block, one behind another. A vector that is longer than its row writes into the next ones,
        which come later; the last ones are written element by element."""
        p, builder = self.product, self.builder
        assert p.row is not None
        columns, rows = self.size[p.lane], self.size[p.row]
        follows = p.block is not None and self.outer_of_row() == p.block
        spilled = vectors(columns) * LANES - columns
        for i in range(self.rows):
            later = (self.rows - 1 - i) * rows if follows else 0
            whole = max(0, min(rows, rows - -(-spilled // columns) + later))
            for first, stop, step in ((0, whole, LANES), (whole, rows, 1)):
                if first == stop:
                    continue
                row, column = builder.variable("row", rows), builder.variable("column", columns)
                builder.open(row, first, stop)
                builder.open(column, 0, columns, step)
                lanes = LANES if step != 1 else 1
                value = self._load(flat, row * p.pitch + column + i * length, lanes)
                indices = self._moved({p.block: i})
                indices[p.row], indices[p.lane] = row, column
                self._store(indices, value)
                self._close(2)

    def outer_of_row(self) -> int | None:
        """The axis of the result in front of the rows."""
        assert self.product.row is not None
        return max((d for d in range(self.product.row) if self.size[d] != 1), default=None)

    # Vectors that are summed up

    def _write_sums(self) -> None:
        """Sums over the lanes. Each round of the outer folded loops has sums of its own, so that long ones stay
        accurate."""
        p, count = self.product, self.rows * self.beside
        outer = [d for d in self.folded if d != p.row]
        totals = self._accumulators(count)
        self._open_folds(outer)
        sums = self._accumulators(count) if outer else totals
        if p.row is not None:
            self._open_folds([p.row])
        size = self.size[p.lane]
        whole = size // LANES * LANES
        if whole > LANES:
            variable = self.builder.variable("column", whole)
            self.builder.open(variable, 0, whole, LANES)
            self._add(sums, variable, None)
            self._close(1)
        else:
            self._add(sums, Constant(0), None)
        if whole != size:
            self._add(sums, Constant(size - LANES), whole)
        self._close(p.row is not None)
        if outer:
            for total, part in zip(totals, sums, strict=True):
                self.builder.set(total, apply("add", (total, part), self.dtype), self.loc)
        self._close(len(outer))
        for (i, j), total in zip(all_pairs(range(self.rows), range(self.beside)), totals, strict=True):
            value = self.builder.let("total", Apply("fold_add", (total,), self.dtype), self.builder.level, self.loc)
            self._store(self._moved({p.block: i, p.beside: j}), value)

    def _add(self, sums: Sequence[Local], lane: Index, first: int | None) -> None:
        """Adds the products at one vector of lanes; those before `first` have been added already."""
        p = self.product
        self.indices[p.lane] = lane
        right = [self._window(self._moved({p.beside: j})) for j in range(self.beside)]
        for i in range(self.rows):
            left: Scalar = self._load(self.left, p.left.at(self._moved({p.block: i})), LANES)
            if first is not None:
                left = self._only_from(first, lane, left)
            for j, vector in enumerate(right):
                total = sums[i * self.beside + j]
                self.builder.set(total, apply("fma", (left, vector, total), self.dtype), self.loc)

    def _only_from(self, first: int, lane: Index, vector: Scalar) -> Scalar:
        """The lanes of a vector from place `first` on, zeros before."""
        inside = apply("ge", (Position(lane, LANES), Literal(first, int64)), bool_)
        chosen = apply("select", (inside, vector, self._zero()), self.dtype)
        return self.builder.let("inside", chosen, self.builder.level)


def _divided(size: int, most: int) -> int:
    """The size of blocks of an axis: the largest divisor up to `most` unless that is small; then blocks overlap."""
    if size <= most:
        return size
    best = max(n for n in range(1, most + 1) if size % n == 0)
    return best if 2 * best > most else most


def _shared(count: int, most: int) -> int:
    """At most `most` of `count` things at a time, evenly."""
    rounds = -(-count // max(most, 1))
    return -(-count // rounds)
