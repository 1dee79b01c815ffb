"""Groups of stages to loop nests: one loop over rows, and inside it nests that several stages share.

Stages of one nest hand elements to each other in locals. Folds keep accumulators in locals, as vectors of LANES partial results where
the innermost loop allows it, or along columns in memory. The order of every sum follows from shapes alone.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from ..ir.access import Access, Read
from ..ir.graph import Value
from ..ir.index import Constant, Index, Variable, flatten, substitute, unflatten
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
class Nest:
    """Loops that several stages share inside a row; `sizes` are their trip counts before merging."""

    sizes: tuple[int, ...]
    parts: list[Part] = field(default_factory=list)
    loops: list[Loop] = field(default_factory=list)
    vector: bool = False


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

    def write(self) -> None:
        """The whole group."""
        for nest in self.nests:
            self._plan_loops(nest)
        self._start_columns()
        if self.row is not None:
            self._open_rows()
        for nest in self.nests:
            self._write_nest(nest)
        if self.row is not None:
            self.builder.close()
        self._finish_columns()
        for value in self.group.values():
            self.points.places[value].level = self.base

    def _open_rows(self) -> None:
        assert self.row is not None
        if self.split:
            self.builder.open(self.row, START, STOP)
        else:
            self.builder.open(self.row, 0, self.count)

    def _plan_loops(self, nest: Nest) -> None:
        """Merges axes of the nest where all positions allow it, and decides whether the innermost loop counts in vectors."""
        probes = [Variable(f"n{k}", n) for k, n in enumerate(nest.sizes)]
        if any(p.task is Task.LINE for p in nest.parts):
            nest.loops = [Loop(self.builder.variable("j", n), (k,)) for k, n in enumerate(nest.sizes)]
            return
        nest.loops = merged_loops(self.builder, nest.sizes, self._expressions(nest, probes), probes)
        last = nest.loops[-1] if nest.loops else None
        if last is None or last.size < LANES or not (last.size <= SHORT_LOOP or any(self._wants_lanes(p) for p in nest.parts)):
            return
        report = self._report(nest, self._nest_indices(nest))
        nest.vector = report.can_be_vector(last.variable) and all(self._stores_evenly(p, nest, last.variable) for p in nest.parts)

    def _wants_lanes(self, part: Part) -> bool:
        """Whether a vector of accumulators is better than what a compiler makes of a plain loop."""
        return part.task in (Task.ROW_FOLD, Task.COLUMN_SCALAR) or bool(part.extra)

    def _stores_evenly(self, part: Part, nest: Nest, variable: Variable) -> bool:
        report = Access((), {})
        if part.task in (Task.ROW_FOLD, Task.COLUMN_SCALAR):
            return True
        report.positions[part.stage.output_position(self._part_indices(part, nest))] = None
        return report.can_be_vector(variable) and all(variable in report.behind(p) for p in report.positions)

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

    def _nest_indices(self, nest: Nest) -> list[Index]:
        """The index of each axis of the nest, from the loops' variables."""
        indices: list[Index] = [Constant(0)] * len(nest.sizes)
        for loop in nest.loops:
            for k, index in zip(loop.dims, unflatten(loop.variable, [nest.sizes[k] for k in loop.dims]), strict=True):
                indices[k] = index
        return indices

    def _part_indices(self, part: Part, nest: Nest) -> list[Index]:
        return self._indices(part, self._nest_indices(nest), part.stage.axes)

    # Column folds, which are complete after the row loop

    def _column_parts(self) -> Iterator[tuple[Nest, Part]]:
        for nest in self.nests:
            for part in nest.parts:
                if part.task in (Task.COLUMN_ARRAY, Task.COLUMN_SCALAR):
                    yield nest, part

    def _start_columns(self) -> None:
        for nest, part in self._column_parts():
            if part.task is Task.COLUMN_SCALAR:
                self.sums[part.stage] = self._accumulator(part.stage, nest.vector, self._has_tail(nest))
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
        """Whether single elements are left behind whole vectors."""
        return bool(nest.loops) and (nest.loops[-1].size % LANES != 0 or (self.flat and self.split % LANES != 0))

    def _write_nest(self, nest: Nest) -> None:
        for part in nest.parts:
            if part.task is Task.ROW_FOLD:
                self.sums[part.stage] = self._accumulator(part.stage, nest.vector, self._has_tail(nest))
        if 0 not in nest.sizes:
            for loop in nest.loops[:-1]:
                self.builder.open(loop.variable, 0, loop.size)
            if not nest.loops:
                self._write_points(nest)
            else:
                self._write_innermost(nest, nest.loops[-1])
            for _ in nest.loops[:-1]:
                self.builder.close()
        for part in nest.parts:
            self._finish(part)

    def _write_innermost(self, nest: Nest, loop: Loop) -> None:
        start, stop = (START, STOP) if self.flat and self.split else (Constant(0), Constant(loop.size))
        if not nest.vector:
            self.builder.open(loop.variable, start, stop)
            self._write_points(nest)
            self.builder.close()
            return
        whole: Index = Constant(loop.size // LANES * LANES)
        if self.flat and self.split:
            whole = self._whole_vectors() if self._has_tail(nest) else STOP
        self.builder.open(loop.variable, start, whole, LANES)
        self.points.vector = loop.variable
        self._write_points(nest)
        self.points.vector = None
        self.builder.close()
        if self._has_tail(nest):
            self.builder.open(loop.variable, whole, stop)
            self._write_points(nest)
            self.builder.close()

    def _whole_vectors(self) -> Index:
        """Where the last whole vector of the kernel's range ends."""
        rest = self.builder.let("rest", Apply("sub", (Position(STOP), Position(START)), int64), 0)
        vectors = self.builder.let("vectors", Position(Variable(rest.name, 1 << 47) // LANES), 0)
        return START + Variable(vectors.name, 1 << 43) * LANES

    def _write_points(self, nest: Nest) -> None:
        for part in nest.parts:
            self._write_part(part, nest)

    def _write_part(self, part: Part, nest: Nest) -> None:
        stage, builder = part.stage, self.builder
        match part.task:
            case Task.LINE:
                emit_line(builder, self.points, stage, self._indices(part, self._nest_indices(nest), stage.axes), self._store)
            case Task.ELEMENT:
                indices = self._indices(part, self._nest_indices(nest), stage.axes)
                element = self.points.computed(stage.value, indices) if stage.kind is Kind.MAP else self._inner_fold(part, nest, indices)
                self._give(stage, indices, element)
            case Task.COLUMN_ARRAY:
                indices = self._indices(part, self._nest_indices(nest), stage.axes)
                buffer, offset = self._column_target(stage)
                position = offset + stage.output_position(indices)
                present = Load(buffer, position, LANES if self.points.vector is not None else 1)
                if part.extra:
                    value = apply(stage.join, (present, self._inner_fold(part, nest, indices)), stage.value.dtype)
                else:
                    value = self._step(stage, present, indices)
                builder.store(buffer, position, value, stage.node.loc)
            case _:
                sum_ = self.sums[stage]
                target = sum_.lanes if self.points.vector is not None else sum_.total
                assert target is not None
                builder.set(target, self._step(stage, target, self._indices(part, self._nest_indices(nest), stage.axes)), stage.node.loc)

    def _step(self, stage: Stage, accumulator: Scalar, indices: Sequence[Index]) -> Scalar:
        """The accumulator joined with the operands at a point."""
        return fold_step(self.points, stage, accumulator, indices)

    def _inner_fold(self, part: Part, nest: Nest, indices: Sequence[Index]) -> Scalar:
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
        kept = [indices[d] for d in stage.kept]
        self.points.hold(stage.value, kept, element)
        self._store(stage.value, kept, element)

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
