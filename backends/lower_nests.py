"""Groups of stages to loop nests: one loop over rows, and inside it nests that several stages share.

Stages of one nest hand elements to each other in locals. Folds keep accumulators in locals, as vectors of LANES partial results where
the innermost loop allows it, or along columns in memory. The order of every sum follows from shapes alone.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from ..ir.access import Access, Read, step_of
from ..ir.graph import Value
from ..ir.index import Constant, Index, Variable, flatten, substitute, unflatten, variables_of
from ..ir.loops import LANES, START, STOP, Apply, Buffer, Literal, Load, Local, Position, Role, Scalar
from ..ir.schedule import Group, Rows, best_rows
from ..ir.stages import Kind, Stage, StagePlan
from ..ir.types import int64
from .lower_builder import KernelBuilder, apply, splat
from .lower_lines import emit_line
from .lower_points import Place, Points
from .lower_spaces import Loop, merged_loops, unit_of

PART_BYTES = 1 << 15
"""A row of a value that later nests read again stands on the stack up to this size."""

SHORT_LOOP = 256
"""Loops of at most so many rounds are written in vectors: a compiler would unroll them first, and then not find the vectors again."""

MOST_CUTS = 6
"""A loop is cut at no more places than these."""

TILE_ROWS, TILE_COLUMNS = 16, 64
"""The tiles of nests that read transposed operands: a cache line of rows."""

FOLD_LANES = {"add": "fold_add", "mul": "fold_mul", "maximum": "fold_maximum", "minimum": "fold_minimum", "logical_or": "fold_or",
              "logical_and": "fold_and"}
"""Joining word -> the word that joins the lanes of a vector."""


class Task(Enum):
    """What a stage does in its nest."""

    ELEMENT = "gives one element at each point of the nest"
    ROW_FOLD = "folds the nest's points"
    COLUMN_ARRAY = "adds an element at each point of the nest to the same column of an array"
    COLUMN_SCALAR = "folds everything into one number"
    LINE = "goes along lines by loops of its own"


@dataclass
class Part:
    """A stage in a nest.

    Attributes:
        stage, rows: the stage and how the row loop walks through it.
        task: what it does.
        nest_axes: the axes of its space that are the nest's.
        extra: the other axes, which it loops over at each point.
    """

    stage: Stage
    rows: Rows
    task: Task
    nest_axes: list[int]
    extra: list[int]


@dataclass
class Piece:
    """A run of rounds of the innermost loop, from round `start` on, as a loop of its own; `vector`: in steps of LANES."""

    start: int
    variable: Variable
    vector: bool = False

    @property
    def size(self) -> int:
        """The number of rounds."""
        assert isinstance(self.variable.size, int)
        return self.variable.size

    @property
    def index(self) -> Index:
        """The round of the whole loop."""
        return self.start + (Constant(0) if self.size == 1 else self.variable)


@dataclass
class Nest:
    """Loops that several stages share inside a row.

    Attributes:
        sizes: the trip counts before merging.
        parts: the stages.
        loops: the merged loops.
        pieces: the innermost loop, cut where conditions on its variable change.
        tiled: whether the row loop and the innermost loop go through memory in tiles, because operands are transposed.
    """

    sizes: tuple[int, ...]
    parts: list[Part] = field(default_factory=list)
    loops: list[Loop] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    tiled: bool = False

    @property
    def lanes(self) -> bool:
        """Whether accumulators are vectors."""
        return any(p.vector for p in self.pieces)


@dataclass
class Accumulator:
    """The running result of a fold: a vector, a number, or both."""

    lanes: Local | None
    total: Local | None


def part_of(stage: Stage, rows: Rows, flat: bool) -> Part:
    """How a stage takes part in the nests of a row."""
    kept = [d for d in stage.kept if d not in rows.axes and stage.sizes[d] != 1]
    folded = [d for d in stage.folded if d not in rows.axes and stage.sizes[d] != 1]
    if stage.kind is Kind.LINE:
        return Part(stage, rows, Task.LINE, kept, list(stage.folded))
    if rows.column:
        task = Task.COLUMN_ARRAY if kept else Task.COLUMN_SCALAR
        nest = list(rows.axes) if flat else kept or folded
        return Part(stage, rows, task, nest, folded if kept else [])
    if flat:
        return Part(stage, rows, Task.ELEMENT, list(rows.axes), folded)
    if kept or not folded:
        return Part(stage, rows, Task.ELEMENT, kept, folded)
    return Part(stage, rows, Task.ROW_FOLD, folded, [])


class GroupWriter:
    """Writes one group of stages into a kernel.

    Args:
        writer: the kernel's state.
        group: the stages.
        split: chunk size when the row loop runs over the kernel's own range, in blocks of which column folds leave partial results.
    """

    def __init__(self, builder: KernelBuilder, points: Points, plan: StagePlan, group: Group, split: int = 0) -> None:
        self.builder, self.points, self.plan, self.group = builder, points, plan, group
        self.split = split
        self.base = builder.level
        self.count, ways = best_rows(plan, group)
        if not ways:
            ways = [Rows(1, ()) for _ in group.stages]
            self.count = 1
        self.flat = self.count > 1 and all(s.points == self.count and s.kind is not Kind.LINE for s in group.stages)
        self.row = Variable(builder.name("row"), self.count) if self.count > 1 and not self.flat else None
        self.parts = {s: part_of(s, w, self.flat) for s, w in zip(group.stages, ways, strict=True)}
        self.nests: list[Nest] = []
        self.nest_of: dict[Stage, int] = {}
        self.sums: dict[Stage, Accumulator] = {}
        self._plan_nests()

    # Which stages share a nest ---------------------------------------------------------------------------------------------------

    def _plan_nests(self) -> None:
        for part in self.parts.values():
            sizes = (self.count,) if self.flat else tuple(part.stage.sizes[d] for d in part.nest_axes)
            number = self._find_nest(part, sizes)
            if number is None:
                self.nests.append(Nest(sizes))
                number = len(self.nests) - 1
            self.nests[number].parts.append(part)
            self.nest_of[part.stage] = number

    def _find_nest(self, part: Part, sizes: tuple[int, ...]) -> int | None:
        """The number of an earlier nest that `part` may join."""
        reads = [(r, self.plan.stage_of.get(r.value)) for r in self.plan.access(part.stage).reads]
        inside = [(r, s) for r, s in reads if s in self.nest_of]
        earliest = max((self.nest_of[s] for _, s in inside), default=0)
        if part.task is Task.LINE:
            return None
        for number in range(earliest, len(self.nests)):
            nest = self.nests[number]
            if nest.sizes != sizes or any(p.task is Task.LINE for p in nest.parts):
                continue
            if all(self._same_point(part, r, self.parts[s]) for r, s in inside if self.nest_of[s] == number):
                return number
        return None

    def _same_point(self, part: Part, read: Read, producer: Part) -> bool:
        """Whether `part` reads, at each point of the nest, just the element that `producer` has given there."""
        if producer.task is not Task.ELEMENT:
            return False
        nest = [Variable(f"n{k}", n) for k, n in enumerate(self._sizes_of(producer))]
        here = dict(zip(part.stage.axes, self._indices(part, nest, part.stage.axes), strict=True))
        there = producer.stage.output_position(self._indices(producer, nest, producer.stage.axes))
        return substitute(read.position, here) == there

    def _sizes_of(self, part: Part) -> tuple[int, ...]:
        return (self.count,) if self.flat else tuple(part.stage.sizes[d] for d in part.nest_axes)

    def _indices(self, part: Part, nest: Sequence[Index], extra: Sequence[Index]) -> list[Index]:
        """Indices of the stage's space at a point of the nest; `extra` has the others, by axis."""
        indices: list[Index] = [Constant(0) if n == 1 else e for n, e in zip(part.stage.sizes, extra, strict=True)]
        row_axes = part.rows.axes
        row: Index | None = nest[0] if self.flat else self.row
        if row is not None:
            for d, index in zip(row_axes, unflatten(row, [part.stage.sizes[d] for d in row_axes]), strict=True):
                indices[d] = index
        if not self.flat:
            for d, index in zip(part.nest_axes, nest, strict=True):
                indices[d] = index
        return indices

    # Writing -----------------------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Plans the loops of every nest."""
        for nest in self.nests:
            self._plan_loops(nest)

    @property
    def is_tiled(self) -> bool:
        """Whether rows are visited in tiles of TILE_ROWS."""
        return any(nest.tiled for nest in self.nests)

    def write(self) -> None:
        """The whole group."""
        self._start_columns()
        first, end = (START, STOP) if self.split else (Constant(0), Constant(self.count))
        if self.is_tiled:
            self._write_tiles(first, end)
        else:
            if self.row is not None:
                self.builder.open(self.row, first, end)
            for nest in self.nests:
                self._write_nest(nest)
            if self.row is not None:
                self.builder.close()
        self._finish_columns()
        for value in self.group.values():
            self.points.places[value].level = self.base

    def _write_tiles(self, first: Index, end: Index) -> None:
        """The only nest, in tiles of rows and of rounds of its loop; transposed operands come by way of a copy of the tile."""
        assert self.row is not None
        (nest,), builder = self.nests, self.builder
        columns = nest.loops[-1].size
        tile = builder.variable("tile", self.count)
        builder.open(tile, first, end, TILE_ROWS)
        last_row = self._least(tile + TILE_ROWS, end, self.count)
        column = builder.variable("column", columns)
        builder.open(column, 0, columns, TILE_COLUMNS)
        last_column = self._least(column + TILE_COLUMNS, Constant(columns), columns)
        copies = [(r, self._copy_tile(r, nest, (tile, last_row), (column, last_column))) for r in self._transposed(nest)]
        builder.open(self.row, tile, last_row)
        piece = nest.pieces[0]
        builder.open(piece.variable, column, last_column)
        for read, copy in copies:
            buffer = self.points.places[read.value].buffer
            assert buffer is not None
            element = builder.let(buffer.name, Load(copy, (piece.variable - column) * TILE_ROWS + (self.row - tile)), builder.level)
            builder.remember(("load", buffer.name, read.position, 1), element, builder.level)
        self._write_points(nest, self._nest_indices(nest, piece.index))
        for _ in range(4):
            builder.close()

    def _transposed(self, nest: Nest) -> list[Read]:
        """The reads of a nest that are contiguous along the rows and not along its loop."""
        assert self.row is not None
        last = nest.loops[-1].variable
        reads = self._report(nest, self._nest_indices(nest, last)).reads
        plain = [r for r in reads if set(variables_of(r.position)) <= {self.row, last}]
        return [r for r in plain if step_of(r.position, self.row) == 1 and step_of(r.position, last) not in (0, 1)]

    def _copy_tile(self, read: Read, nest: Nest, rows: tuple[Index, Index], columns: tuple[Index, Index]) -> Buffer:
        """Copies the tile of a transposed operand to the stack, line by line of memory: tiles of large powers of two would else fight
        for the same places of the cache."""
        builder, source = self.builder, self.points.places[read.value].buffer
        assert source is not None and self.row is not None
        copy = builder.buffer("tile_" + source.name, source.dtype, TILE_ROWS * TILE_COLUMNS, Role.LOCAL)
        k = builder.variable("k", nest.loops[-1].size)
        builder.open(k, *columns)
        target = (k - columns[0]) * TILE_ROWS
        if self.count % TILE_ROWS == 0:
            position = substitute(read.position, {self.row: rows[0], nest.loops[-1].variable: k})
            builder.store(copy, target, Load(source, position, LANES))
        else:
            row = builder.variable("r", self.count)
            builder.open(row, *rows)
            builder.store(copy, target + (row - rows[0]), Load(source, substitute(read.position, {self.row: row, nest.loops[-1].variable: k})))
            builder.close()
        builder.close()
        return copy

    def _least(self, index: Index, bound: Index, size: int) -> Index:
        least = apply("minimum", (Position(index), Position(bound)), int64)
        return Variable(self.builder.let("end", least, self.builder.level).name, size + 1)

    def _plan_loops(self, nest: Nest) -> None:
        """Merges axes of the nest where all positions allow it, and decides how the innermost loop runs."""
        probes = [Variable(f"n{k}", n) for k, n in enumerate(nest.sizes)]
        if any(p.task is Task.LINE for p in nest.parts):
            nest.loops = [Loop(self.builder.variable("j", n), (k,)) for k, n in enumerate(nest.sizes)]
        else:
            nest.loops = merged_loops(self.builder, nest.sizes, self._expressions(nest, probes), probes)
        if not nest.loops:
            return
        last = nest.loops[-1]
        report = self._report(nest, self._nest_indices(nest, last.variable))
        ends = [0, *cuts(report, last.variable), last.size]
        names = [last.variable.name] + [self.builder.name(last.variable.name) for _ in ends[2:]]
        nest.pieces = [Piece(a, Variable(n, b - a)) for n, a, b in zip(names, ends, ends[1:], strict=False)]
        for piece in nest.pieces:
            piece.vector = self._runs_in_vectors(nest, piece)
        nest.tiled = self._is_transposed(nest)

    def _runs_in_vectors(self, nest: Nest, piece: Piece) -> bool:
        wanted = piece.size <= SHORT_LOOP or any(self._wants_lanes(p) for p in nest.parts)
        if piece.size < LANES or not wanted or any(p.task is Task.LINE for p in nest.parts):
            return False
        indices = self._nest_indices(nest, piece.index)
        even = all(self._stores_evenly(p, indices, piece.variable) for p in nest.parts)
        return even and self._report(nest, indices).can_be_vector(piece.variable)

    def _is_transposed(self, nest: Nest) -> bool:
        """Whether a nest of elements alone reads memory that is contiguous along the rows."""
        alone = self.row is not None and len(self.nests) == 1 and len(nest.loops) == len(nest.pieces) == 1
        if not alone or nest.pieces[0].vector or any(p.task is not Task.ELEMENT or p.extra for p in nest.parts):
            return False
        return min(self.count, nest.loops[-1].size) >= TILE_ROWS and bool(self._transposed(nest))

    def _wants_lanes(self, part: Part) -> bool:
        """Whether a vector of accumulators is better than what a compiler makes of a plain loop."""
        return part.task in (Task.ROW_FOLD, Task.COLUMN_SCALAR) or bool(part.extra)

    def _stores_evenly(self, part: Part, indices: Sequence[Index], variable: Variable) -> bool:
        if part.task in (Task.ROW_FOLD, Task.COLUMN_SCALAR):
            return True
        return step_of(part.stage.output_position(self._indices(part, indices, part.stage.axes)), variable) == 1

    def _expressions(self, nest: Nest, probes: Sequence[Variable]) -> list[tuple[Index, int]]:
        found = list(self._report(nest, probes).expressions())
        for part in nest.parts:
            if part.task in (Task.ELEMENT, Task.COLUMN_ARRAY):
                found.append((part.stage.output_position(self._indices(part, probes, part.stage.axes)), part.stage.value.type.size))
        return found

    def _report(self, nest: Nest, indices: Sequence[Index]) -> Access:
        report = Access(self.plan.stored, self.plan.producers)
        for part in nest.parts:
            part.stage.walk(report, self._indices(part, indices, part.stage.axes))
        return report

    def _nest_indices(self, nest: Nest, last: Index) -> list[Index]:
        """The index of each axis of the nest, from the loops' variables and the index of the innermost loop."""
        indices: list[Index] = [Constant(0)] * len(nest.sizes)
        for loop in nest.loops:
            index = last if loop is nest.loops[-1] else loop.variable
            for k, part in zip(loop.dims, unflatten(index, [nest.sizes[k] for k in loop.dims]), strict=True):
                indices[k] = part
        return indices

    # Column folds, which are complete after the row loop

    def _column_parts(self) -> Iterator[tuple[Nest, Part]]:
        for nest in self.nests:
            for part in nest.parts:
                if part.task in (Task.COLUMN_ARRAY, Task.COLUMN_SCALAR):
                    yield nest, part

    def _start_columns(self) -> None:
        for nest, part in self._column_parts():
            if part.task is Task.COLUMN_SCALAR:
                self.sums[part.stage] = self._accumulator(part.stage, nest.lanes, self._has_tail(nest))
                continue
            buffer, offset = self._column_target(part.stage)
            index = self.builder.variable("j", part.stage.value.type.size)
            self.builder.open(index, 0, part.stage.value.type.size)
            self.builder.store(buffer, offset + index, unit_of(part.stage.join, buffer.dtype), part.stage.node.loc)
            self.builder.close()

    def _column_target(self, stage: Stage) -> tuple[Buffer, Index]:
        """The buffer of a column fold, and where its array for this block begins."""
        place = self.points.places[stage.value]
        assert place.buffer is not None
        size = stage.value.type.size
        if place.buffer.size == size:
            return place.buffer, Constant(0)
        key, blocks = "block", place.buffer.size // size
        found = self.builder.known(key)
        if found is None:
            found = self.builder.remember(key, self.builder.let("block", Position(START // self.split), 0), 0)
        assert isinstance(found, Local)
        return place.buffer, Variable(found.name, blocks) * size

    def _finish_columns(self) -> None:
        for _, part in self._column_parts():
            if part.task is Task.COLUMN_SCALAR:
                total = self._total(part.stage, self.sums[part.stage])
                self.points.places[part.stage.value].registers[0] = total
                if self.points.places[part.stage.value].buffer is not None:
                    buffer, offset = self._column_target(part.stage)
                    self.builder.store(buffer, offset, total, part.stage.node.loc)

    def _accumulator(self, stage: Stage, lanes: bool, number: bool) -> Accumulator:
        hint, unit = stage.value.hint or stage.node.op.name, unit_of(stage.join, stage.value.dtype)
        vector = self.builder.accumulator(hint + "_lanes", Literal(unit.value, unit.dtype, LANES), stage.node.loc) if lanes else None
        total = self.builder.accumulator(hint, unit, stage.node.loc) if number or not lanes else None
        return Accumulator(vector, total)

    def _total(self, stage: Stage, sum_: Accumulator) -> Scalar:
        """The number that an accumulator comes to."""
        if sum_.lanes is None:
            assert sum_.total is not None
            return sum_.total
        folded = Apply(FOLD_LANES[stage.join], (sum_.lanes,), stage.value.dtype)
        result = folded if sum_.total is None else Apply(stage.join, (folded, sum_.total), stage.value.dtype)
        return self.builder.let(stage.value.hint or stage.node.op.name, result, self.builder.level, stage.node.loc)

    # One nest

    def _has_tail(self, nest: Nest) -> bool:
        """Whether single elements stand beside or behind whole vectors."""
        return any(not p.vector or self._piece_tail(nest, p) for p in nest.pieces)

    def _piece_tail(self, nest: Nest, piece: Piece) -> bool:
        return piece.size % LANES != 0 or (self.flat and bool(self.split) and (self.split % LANES != 0 or len(nest.pieces) > 1))

    def _write_nest(self, nest: Nest) -> None:
        for part in nest.parts:
            if part.task is Task.ROW_FOLD:
                self.sums[part.stage] = self._accumulator(part.stage, nest.lanes, self._has_tail(nest))
        if 0 not in nest.sizes:
            for loop in nest.loops[:-1]:
                self.builder.open(loop.variable, 0, loop.size)
            for piece in nest.pieces:
                self._write_piece(nest, piece)
            if not nest.pieces:
                self._write_points(nest, [])
            for _ in nest.loops[:-1]:
                self.builder.close()
        for part in nest.parts:
            self._finish(part)

    def _write_piece(self, nest: Nest, piece: Piece) -> None:
        """One run of the innermost loop: whole vectors, then single elements."""
        start, stop = self._range(nest, piece)
        indices = self._nest_indices(nest, piece.index)
        if piece.vector:
            whole = self._whole_vectors(start, stop) if self._piece_tail(nest, piece) else stop
            self.builder.open(piece.variable, start, whole, LANES)
            self.points.vector = piece.variable
            self._write_points(nest, indices)
            self.points.vector = None
            self.builder.close()
            if not self._piece_tail(nest, piece):
                return
            start = whole
        if piece.size == 1 and isinstance(start, Constant):
            self._write_points(nest, indices)
        else:
            self.builder.open(piece.variable, start, stop)
            self._write_points(nest, indices)
            self.builder.close()

    def _range(self, nest: Nest, piece: Piece) -> tuple[Index, Index]:
        """The first and the last round, in the variable of the piece."""
        if not (self.flat and self.split):
            return Constant(0), Constant(piece.size)
        if len(nest.pieces) == 1:
            return START, STOP
        first = apply("maximum", (Position(START - piece.start), Literal(0, int64)), int64)
        last = apply("minimum", (Position(STOP - piece.start), Literal(piece.size, int64)), int64)
        return tuple(Variable(self.builder.let(hint, s, 0).name, piece.size + 1) for hint, s in (("first", first), ("last", last)))  # type: ignore[return-value]

    def _whole_vectors(self, start: Index, stop: Index) -> Index:
        """Where the last whole vector of a range ends."""
        if isinstance(start, Constant) and isinstance(stop, Constant):
            return Constant(start.value + (stop.value - start.value) // LANES * LANES)
        rest = apply("maximum", (Position(stop - start), Literal(0, int64)), int64)
        length = self.builder.let("length", rest, self.builder.depth(rest))
        return start + Variable(length.name, 1 << 47) // LANES * LANES

    def _write_points(self, nest: Nest, indices: Sequence[Index]) -> None:
        for part in nest.parts:
            self._write_part(part, self._indices(part, indices, part.stage.axes))

    def _write_part(self, part: Part, indices: Sequence[Index]) -> None:
        stage, builder = part.stage, self.builder
        match part.task:
            case Task.LINE:
                emit_line(builder, self.points, stage, indices, self._store, self._settle)
            case Task.ELEMENT:
                element = self.points.computed(stage.value, indices) if stage.kind is Kind.MAP else self._inner_fold(part, indices)
                self._give(stage, indices, element)
            case Task.COLUMN_ARRAY:
                buffer, offset = self._column_target(stage)
                position = offset + stage.output_position(indices)
                present = Load(buffer, position, LANES if self.points.vector is not None else 1)
                if part.extra:
                    value = apply(stage.join, (present, self._inner_fold(part, indices)), stage.value.dtype)
                else:
                    value = self._step(stage, present, indices)
                builder.store(buffer, position, value, stage.node.loc)
            case _:
                sum_ = self.sums[stage]
                target = sum_.lanes if self.points.vector is not None else sum_.total
                assert target is not None
                builder.set(target, self._step(stage, target, indices), stage.node.loc)

    def _step(self, stage: Stage, accumulator: Scalar, indices: Sequence[Index]) -> Scalar:
        """The accumulator joined with the operands at a point."""
        return fold_step(self.points, stage, accumulator, indices)

    def _inner_fold(self, part: Part, indices: Sequence[Index]) -> Scalar:
        """Folds the extra axes at one point of the nest."""
        stage, builder = part.stage, self.builder
        unit = unit_of(stage.join, stage.value.dtype)
        if any(stage.sizes[d] == 0 for d in stage.folded):
            return unit
        if not part.extra:
            return fold_step(self.points, stage, None, indices)
        loops = [Loop(builder.variable("k", stage.sizes[d]), (d,)) for d in part.extra]
        inner = list(indices)
        for loop in loops:
            inner[loop.dims[0]] = loop.variable
        if self.points.vector is None and loops[-1].size >= 2 * LANES and self._vector_inside(stage, inner, loops[-1].variable):
            return self._vector_fold(stage, loops, inner)
        hint = stage.value.hint or stage.node.op.name
        start = Literal(unit.value, unit.dtype, LANES if self.points.vector is not None else 1)
        total = builder.accumulator(hint, start, stage.node.loc)
        for loop in loops:
            builder.open(loop.variable, 0, loop.size)
        builder.set(total, self._step(stage, total, inner), stage.node.loc)
        for _ in loops:
            builder.close()
        return total

    def _vector_inside(self, stage: Stage, indices: Sequence[Index], variable: Variable) -> bool:
        report = Access(self.plan.stored, self.plan.producers)
        stage.walk(report, indices)
        return report.can_be_vector(variable)

    def _vector_fold(self, stage: Stage, loops: Sequence[Loop], indices: Sequence[Index]) -> Scalar:
        """Folds the extra axes, LANES elements of the last one at a time."""
        builder, last = self.builder, loops[-1]
        whole = last.size // LANES * LANES
        sum_ = self._accumulator(stage, True, whole < last.size)
        assert sum_.lanes is not None
        for loop in loops[:-1]:
            builder.open(loop.variable, 0, loop.size)
        builder.open(last.variable, 0, whole, LANES)
        self.points.vector = last.variable
        builder.set(sum_.lanes, self._step(stage, sum_.lanes, indices), stage.node.loc)
        self.points.vector = None
        builder.close()
        if sum_.total is not None:
            builder.open(last.variable, whole, last.size)
            builder.set(sum_.total, self._step(stage, sum_.total, indices), stage.node.loc)
            builder.close()
        for _ in loops[:-1]:
            builder.close()
        return self._total(stage, sum_)

    def _give(self, stage: Stage, indices: Sequence[Index], element: Scalar) -> None:
        """Makes an element known to the other stages of the nest, and stores it if anybody else needs it."""
        self._settle(stage.value, [indices[d] for d in stage.kept], element)

    def _settle(self, value: Value, indices: Sequence[Index], element: Scalar) -> None:
        self.points.hold(value, indices, element)
        self._store(value, indices, element)

    def _store(self, value: Value, indices: Sequence[Index], element: Scalar) -> None:
        """Stores an element if the value has memory."""
        place = self.points.places[value]
        if place.buffer is not None:
            if self.points.vector is not None:
                element = splat(element)
            loc = self.plan.producers[value].loc
            self.builder.store(place.buffer, place.offset(flatten(indices, value.type.sizes)), element, loc)

    def read_later(self, value: Value) -> bool:
        """Whether another nest of the group reads `value`."""
        own = self.nest_of[self.plan.stage_of[value]]
        return any(r.value is value for s, n in self.nest_of.items() if n != own for r in self.plan.access(s).reads)

    def _finish(self, part: Part) -> None:
        """What is left to do for a stage when its nest is closed."""
        stage = part.stage
        if part.task is Task.ROW_FOLD:
            total = self._total(stage, self.sums[stage])
            self._give(stage, self._indices(part, [Constant(0)] * len(part.nest_axes), stage.axes), total)
        for value in stage.outputs:
            place = self.points.places[value]
            if part.task not in (Task.COLUMN_ARRAY, Task.COLUMN_SCALAR):
                place.level = max(self.base, self.builder.level)


def cuts(report: Access, variable: Variable) -> list[int]:
    """The rounds of a loop at which conditions on its variable change; none when they are too many."""
    found = {b for bound in report.bounds if bound.expression == variable for b in (bound.low, bound.high)}
    inside = sorted(b for b in found if variable.low < b <= variable.high)
    return inside if len(inside) <= MOST_CUTS else []


def fold_step(points: Points, stage: Stage, accumulator: Scalar | None, indices: Sequence[Index]) -> Scalar:
    """The accumulator of a fold (None: nothing yet) joined with the operands at a point of the space."""
    elements, dtype = [points.at(v, i) for v, i in stage.operands(indices)], stage.value.dtype
    if not stage.is_product:
        return elements[0] if accumulator is None else apply(stage.join, (accumulator, elements[0]), dtype)
    if accumulator is None:
        return apply("mul", tuple(elements), dtype)
    if dtype.is_floating_point:
        return apply("fma", (*elements, accumulator), dtype)
    return apply("add", (accumulator, apply("mul", tuple(elements), dtype)), dtype)


def part_buffer(builder: KernelBuilder, value: Value, rows: int) -> Buffer | None:
    """A buffer on the stack for one row of a value; None when a row is too large for that."""
    part = value.type.size // rows
    if part * value.dtype.itemsize > PART_BYTES:
        return None
    return builder.buffer(value.hint or "part", value.dtype, part, Role.LOCAL)
