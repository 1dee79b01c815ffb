"""Writes a planned group of stages: the row loop, the nests, and in them the stages.

Stages of one nest hand elements to each other in locals. Folds keep accumulators in locals, or along columns in
memory. The order of every sum follows from shapes alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from ..ir.access import Read, step_of
from ..ir.graph import Value
from ..ir.index import Constant, Index, IndexLike, Variable, flatten, substitute
from ..ir.loops import LANES, START, STOP, Apply, Buffer, Literal, Load, Local, Position, Role, Scalar
from ..ir.sizes import Dim, divides, is_known
from ..ir.stages import Kind, Stage
from ..ir.types import int64
from .lower_builder import apply, integer, lanes_left, splat
from .lower_depth import cleared, continued, depth_of
from .lower_folds import Accumulator, fold_step, inner_folds, new_accumulator, total_of, unit_of
from .lower_lines import emit_line
from .lower_nests import GroupPlan, Nest, Part, Piece, Task
from .lower_points import Points
from .lower_short import is_short, short_fold

BLOCK, SHORTEST_BLOCK = 1 << 13, 8 * LANES
"""Sums of more elements than BLOCK are taken in blocks, and so are runs of at least SHORTEST_BLOCK in nested loops."""


class GroupWriter:
    """Writes one group into a kernel.

    Args:
        points: writes elements; has the kernel and the places of values.
        loops: the plan.
        ranged: whether the row loop runs over the kernel's own range.
        split: the chunk size when it does so in chunks; column folds then leave partial results, one for each chunk,
            where their place has room for them.
    """

    def __init__(self, points: Points, loops: GroupPlan, ranged: bool = False, split: Dim = 0) -> None:
        self.points, self.loops, self.ranged, self.split = points, loops, ranged, split
        self.builder, self.plan = points.builder, loops.plan
        self.base = self.builder.level
        self.rows: Sequence[Index | None] = [loops.row]
        self.span: tuple[Index, Index] | None = None
        self.sums: dict[Stage, Accumulator] = {}

    def write(self) -> None:
        """The whole group."""
        self._start_columns()
        first, end = (START, STOP) if self.ranged else (Constant(0), Constant(self.loops.count))
        if self.loops.is_tiled:
            self._write_tiles(first, end)
        elif self.loops.block > 1:
            self._write_deep_products(first, end)
            self._write_row_blocks([nest for nest in self.loops.nests if not nest.deep], first, end)
        elif self.loops.row is not None:
            self._write_rows(self.loops.row, first, end, self.loops.row, self.loops.nests)
        else:
            self._write_nests(self.loops.nests)
        self._finish_columns()
        for value in self.loops.group.values():
            self.points.places[value].level = self.base

    # Rows

    def _write_rows(self, variable: Variable, start: IndexLike, stop: Index, row: Index, nests: Iterable[Nest]) -> None:
        """Rows one after another: a loop in which the row is `row`."""
        self.builder.open(variable, start, stop)
        self.rows = [row]
        self._write_nests(nests)
        self.builder.close()

    def _write_deep_products(self, first: Index, end: Index) -> None:
        """Products of long rows, which come before anything else, block by block of the contracted axis."""
        for nest in self.loops.nests:
            if nest.deep:
                (part,) = nest.parts
                size, depth = depth_of(part.stage)
                cleared(self.points, part.stage, first, end)
                start = self.builder.variable("depth", size)
                self.builder.open(start, 0, size, depth)
                self.span = start, self._least(start + depth, Constant(size), size)
                self._write_row_blocks([nest], first, end)
                self.span = None
                self.builder.close()
                self.points.places[part.stage.value].level = self.builder.level

    def _write_row_blocks(self, nests: Sequence[Nest], first: Index, end: Index) -> None:
        """Blocks of rows, and what is left over. Nests with products do all rows of a block at once."""
        builder, loops, step = self.builder, self.loops, self.loops.block
        if is_known(loops.count):
            block = builder.variable("block", loops.count // step)
            builder.open(block, first // step, end // step)
            row = block * step
        else:
            row = builder.variable("block", loops.count - step + 1)
            builder.open(row, first, end // step * step, step)
        for products, some in groupby(nests, lambda nest: bool(nest.products)):
            if products:
                self.rows = [row + r for r in range(step)]
                self._write_nests(some)
            else:
                r = builder.variable("r", step)
                self._write_rows(r, 0, Constant(step), row + r, some)
        builder.close()
        if not is_known(loops.count):
            assert loops.row is not None
            self._write_rows(loops.row, end // step * step, end, loops.row, nests)
        elif rest := loops.count % step:
            last, whole = builder.variable("last", rest), loops.count - rest
            self._write_rows(last, 0, end - whole, whole + last, nests)

    def _write_nests(self, nests: Iterable[Nest]) -> None:
        for nest in nests:
            self._write_nest(nest)

    # Column folds, which are complete after the row loop

    def _start_columns(self) -> None:
        for nest, part in self.loops.columns():
            stage = part.stage
            if part.task is Task.COLUMN_SCALAR:
                self.sums[stage] = new_accumulator(self.builder, stage, nest.lanes, self._has_singles(nest))
                continue
            buffer, offset = self._column_target(stage)
            index = self.builder.variable("j", stage.value.type.size)
            self.builder.open(index, 0, stage.value.type.size)
            self.builder.store(buffer, offset + index, unit_of(stage.join, buffer.dtype), stage.node.loc)
            self.builder.close()

    def _column_target(self, stage: Stage) -> tuple[Buffer, Index]:
        """The buffer of a column fold, and where its array for this block begins."""
        buffer, size = self.points.places[stage.value].buffer, stage.value.type.size
        assert buffer is not None
        if buffer.size == size:
            return buffer, Constant(0)
        found = self.builder.known("block")
        if found is None:
            block = self.builder.let("block", Position(START // self.split), 0)
            found = self.builder.remember("block", block, 0)
        assert isinstance(found, Local)
        return buffer, Variable(found.name, buffer.size // size) * size

    def _finish_columns(self) -> None:
        for _, part in self.loops.columns():
            if part.task is Task.COLUMN_SCALAR:
                place = self.points.places[part.stage.value]
                place.registers[0] = total_of(self.builder, part.stage, self.sums[part.stage])
                if place.buffer is not None:
                    self.builder.store(*self._column_target(part.stage), place.registers[0], part.stage.node.loc)

    # One nest

    def _has_singles(self, nest: Nest) -> bool:
        """Whether single rounds are done beside vectors."""
        return any(not p.vectors for p in nest.pieces)

    def _has_tail(self, nest: Nest, piece: Piece) -> bool:
        """Whether whole vectors leave something over."""
        cut = self.loops.flat and self.ranged and not (self.split and divides(piece.step, self.split))
        return cut or len(nest.pieces) > 1 and self.ranged or not divides(piece.step, piece.size)

    def _write_nest(self, nest: Nest) -> None:
        for part in nest.parts:
            if part.task is Task.ROW_FOLD:
                self.sums[part.stage] = new_accumulator(self.builder, part.stage, nest.lanes, self._has_singles(nest))
        if 0 not in nest.sizes:
            for loop in nest.loops[:-1]:
                self.builder.open(loop.variable, 0, loop.size)
            for piece in nest.pieces:
                self._write_piece(nest, piece)
            if not nest.pieces:
                self._write_points(nest, [[]])
            for _ in nest.loops[:-1]:
                self.builder.close()
        for part in nest.parts:
            self._finish(part)

    def _write_piece(self, nest: Nest, piece: Piece) -> None:
        """One run of the innermost loop: whole vectors and what they leave over, or single rounds."""
        start, stop = self._range(nest, piece)
        if piece.vectors:
            tail = self._has_tail(nest, piece)
            whole = self.builder.whole_steps(start, stop, piece.step) if tail else stop
            if whole != start:
                self._write_blocks(nest, piece, start, whole)
            if tail:
                self._write_rest(nest, piece, whole, stop)
            return
        if piece.size == 1 and isinstance(start, Constant):
            self._write_points(nest, [nest.indices(piece.index)])
            return
        self.builder.open(piece.variable, start, stop)
        self._write_points(nest, [nest.indices(piece.index)])
        self.builder.close()

    def _write_blocks(self, nest: Nest, piece: Piece, start: Index, stop: Index) -> None:
        """The vectors of a piece. Long sums are taken in blocks whose sums are added up, so that they stay accurate."""
        sums = [p.stage for p in nest.parts if p.accumulates and p.stage.join == "add"]
        known = is_known(piece.size)
        long = not known or piece.size > BLOCK
        if not sums or known and piece.size < SHORTEST_BLOCK or not long and len(nest.loops) == 1:
            self._write_vectors(nest, piece, start, stop)
            return
        if long:
            block = self.builder.variable("block_start", piece.size)
            self.builder.open(block, start, stop, BLOCK)
            start, stop = block, self._least(block + BLOCK, stop, piece.size)
        whole = {stage: self.sums[stage] for stage in sums}
        for stage in sums:
            inner = new_accumulator(self.builder, stage, True, False)
            self.sums[stage] = Accumulator(inner.lanes, whole[stage].total)
        self._write_vectors(nest, piece, start, stop)
        for stage, sum_ in whole.items():
            inner_lanes = self.sums[stage].lanes
            assert sum_.lanes is not None and inner_lanes is not None
            joined = apply("add", (sum_.lanes, inner_lanes), stage.value.dtype)
            self.builder.set(sum_.lanes, joined, stage.node.loc)
        self.sums.update(whole)
        if long:
            self.builder.close()

    def _write_vectors(self, nest: Nest, piece: Piece, start: Index, stop: Index) -> None:
        """A loop in steps of whole vectors."""
        variable = piece.stepping
        self.builder.open(variable, start, stop, piece.step)
        self.points.vector = variable
        self._write_points(nest, [nest.indices(piece.start + variable + k * LANES) for k in range(piece.vectors)])
        self.points.vector = None
        self.builder.close()

    def _write_rest(self, nest: Nest, piece: Piece, start: Index, stop: Index) -> None:
        """The rounds behind the whole vectors: vectors too, of which not all lanes count."""
        self.builder.open(piece.variable, start, stop, LANES)
        self.points.vector = piece.variable
        self.points.count = lanes_left(piece.variable, start, stop)
        self._write_points(nest, [nest.indices(piece.start + piece.variable)])
        self.points.vector = self.points.count = None
        self.builder.close()

    def _range(self, nest: Nest, piece: Piece) -> tuple[Index, Index]:
        """The first and the last round, in the variable of the piece."""
        if not (self.loops.flat and self.ranged):
            return Constant(0), Constant(piece.size)
        if len(nest.pieces) == 1:
            return START, STOP
        first = apply("maximum", (Position(START - piece.start), Literal(0, int64)), int64)
        last = apply("minimum", (Position(STOP - piece.start), integer(piece.size)), int64)
        return self.builder.bound("first", first, piece.size), self.builder.bound("last", last, piece.size)

    def _write_points(self, nest: Nest, points: Sequence[Sequence[Index]]) -> None:
        """All stages at some points of the nest."""
        for part in nest.parts:
            self._write_part(part, [self.loops.indices(part, p, row) for row in self.rows for p in points])

    def _write_part(self, part: Part, points: Sequence[Sequence[Index]]) -> None:
        """One stage at some points of its space."""
        stage = part.stage
        match part.task:
            case Task.LINE:
                emit_line(self.points, stage, points[0], self._store, self._settle)
            case Task.ELEMENT:
                for indices, element in zip(points, self._elements(part, points), strict=True):
                    self._settle(stage.value, [indices[d] for d in stage.kept], element)
            case Task.COLUMN_ARRAY:
                self._add_to_columns(part, points)
            case Task.ROW_FOLD | Task.COLUMN_SCALAR:
                sum_ = self.sums[stage]
                target = sum_.lanes if self.points.vector is not None else sum_.total
                assert target is not None
                for indices in points:
                    total = fold_step(self.points, stage, target, indices)
                    self.builder.set(target, self.points.joined(target, total), stage.node.loc)

    def _elements(self, part: Part, points: Sequence[Sequence[Index]]) -> list[Scalar]:
        """The elements that a stage gives at some points."""
        if part.stage.kind is Kind.MAP:
            return [self.points.computed(part.stage.value, indices) for indices in points]
        if is_short(part.stage, part.extra):
            return [short_fold(self.points, part.stage, part.extra, indices) for indices in points]
        if self.span is not None:
            return continued(self.points, part.stage, self.span, points)
        return inner_folds(self.points, self.plan, part.stage, part.extra, points)

    def _add_to_columns(self, part: Part, points: Sequence[Sequence[Index]]) -> None:
        """Joins the elements of a column fold with the array in memory."""
        stage = part.stage
        buffer, offset = self._column_target(stage)
        folded = inner_folds(self.points, self.plan, stage, part.extra, points) if part.extra else None
        for k, indices in enumerate(points):
            position = offset + stage.output_position(indices)
            present = Load(buffer, position, LANES if self.points.vector is not None else 1, self.points.count)
            if folded is None:
                value = fold_step(self.points, stage, present, indices)
            else:
                value = apply(stage.join, (present, folded[k]), stage.value.dtype)
            self.builder.store(buffer, position, value, stage.node.loc, self.points.count)

    def _settle(self, value: Value, indices: Sequence[Index], element: Scalar) -> None:
        """Makes an element known to the other stages of the nest, and stores it if anybody else needs it."""
        self.points.hold(value, indices, element)
        self._store(value, indices, element)

    def _store(self, value: Value, indices: Sequence[Index], element: Scalar) -> None:
        """Stores an element if the value has memory."""
        place = self.points.places[value]
        if place.buffer is not None:
            stored = element if self.points.vector is None else splat(element)
            position = place.offset(flatten(indices, value.type.sizes))
            self.builder.store(place.buffer, position, stored, self.plan.producers[value].loc, self.points.count)

    def _finish(self, part: Part) -> None:
        """What is left to do for a stage when its nest is closed."""
        stage = part.stage
        if part.task is Task.ROW_FOLD:
            indices = self.loops.indices(part, [Constant(0)] * len(part.nest_axes), self.rows[0])
            total = total_of(self.builder, stage, self.sums[stage])
            self._settle(stage.value, [indices[d] for d in stage.kept], total)
        if not part.is_column:
            for value in stage.outputs:
                self.points.places[value].level = self.builder.level

    # Tiles

    def _write_tiles(self, first: Index, end: Index) -> None:
        """The only nest, in tiles of LANES rows and columns, where transposed operands come by way of a turned copy;
        then what is left over of columns and of rows."""
        (nest,), builder, row = self.loops.nests, self.builder, self.loops.row
        assert row is not None
        columns = nest.loops[-1].size
        tile = builder.variable("tile", self.loops.count - LANES + 1)
        last = columns - LANES + 1  # a variable of one value would be a constant, which stands for no vector
        column = builder.variable("column", max(last, 2) if is_known(last) else last)
        whole = builder.whole_steps(first, end, LANES)
        edge = builder.whole_steps(Constant(0), Constant(columns), LANES)
        builder.open(tile, first, whole, LANES)
        builder.open(column, 0, edge, LANES)
        copies = [(r, self._turned_copy(r, nest, tile, column)) for r in self.loops.transposed(nest)]
        r = builder.variable("r", LANES)
        builder.open(r, 0, LANES)
        for read, copy in copies:
            buffer = self.points.places[read.value].buffer
            assert buffer is not None
            position = substitute(read.position, {row: tile + r, nest.loops[-1].variable: column})
            line = builder.let(buffer.name, Load(copy, LANES * self._tile_row(read, r), LANES), builder.level)
            builder.remember(("load", buffer.name, position, LANES), line, builder.level)
        self.points.vector, self.rows = column, [tile + r]
        self._write_points(nest, [nest.indices(column)])
        self.points.vector = None
        builder.close()
        builder.close()
        self._write_singles(nest, r, Constant(0), Constant(LANES), tile + r, edge)
        builder.close()
        self._write_singles(nest, row, whole, end, row, Constant(0))
        for part in nest.parts:
            self._finish(part)

    def _write_singles(
        self, nest: Nest, variable: Variable, start: Index, stop: Index, row: Index, column: Index
    ) -> None:
        """Rows, from a column on, element by element."""
        last = nest.loops[-1].variable
        if column == Constant(last.size):
            return
        self.builder.open(variable, start, stop)
        self.builder.open(last, column, last.size)
        self.rows = [row]
        self._write_points(nest, [nest.indices(last)])
        self.builder.close()
        self.builder.close()

    def _tile_row(self, read: Read, row: Index) -> Index:
        """Where row number `row` of a tile stands among its rows in the order of memory."""
        assert self.loops.row is not None
        return row if step_of(read.position, self.loops.row) == 1 else LANES - 1 - row

    def _turned_copy(self, read: Read, nest: Nest, tile: Index, column: Index) -> Buffer:
        """Copies a tile of a transposed operand to the stack, row by row: its columns, which are vectors in memory,
        change places with its rows."""
        builder, source, row = self.builder, self.points.places[read.value].buffer, self.loops.row
        assert source is not None and row is not None
        copy = builder.buffer("tile_" + source.name, source.dtype, LANES * LANES, Role.LOCAL)
        first, last = tile + self._tile_row(read, Constant(0)), nest.loops[-1].variable
        lines: list[Scalar] = []
        for k in range(LANES):
            position = substitute(read.position, {row: first, last: column + k})
            lines.append(builder.let(source.name, Load(source, position, LANES), builder.level))
        size = LANES // 2
        while size:
            for k in (k for k in range(LANES) if not k & size):
                pair = lines[k], lines[k + size], Literal(size, int64)
                for place, word in ((k, "even_blocks"), (k + size, "odd_blocks")):
                    lines[place] = builder.let(word, Apply(word, pair, source.dtype, LANES), builder.level)
            size //= 2
        for k, line in enumerate(lines):
            builder.store(copy, Constant(LANES * k), line)
        return copy

    def _least(self, index: Index, bound: Index, size: int) -> Index:
        return self.builder.bound("end", apply("minimum", (Position(index), Position(bound)), int64), size)
