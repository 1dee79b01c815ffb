"""Bodies of fusion nodes to kernels: which groups of stages a kernel has, where values are in memory, and the calls
that come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product as all_indices

from ..ir.graph import Graph, Node, Value
from ..ir.index import Constant, Index, flatten, variables_of
from ..ir.loops import LANES, Buffer, Kernel, Literal, Load, Role, Scalar, named
from ..ir.ops import OPS
from ..ir.schedule import Group, Scheduler, best_rows, worth_sharing
from ..ir.sizes import NO_VALUES, Dim, Symbol, at_most, is_known, typical, value_of
from ..ir.stages import Kind, Stage, StagePlan
from ..ir.types import TensorType, int64
from ..ir.windows import WindowProduct, only_product
from .base import KernelCall
from .lower_builder import KernelBuilder
from .lower_depth import least_rows
from .lower_folds import fold_step, unit_of
from .lower_groups import GroupWriter
from .lower_lines import STACK_BYTES
from .lower_nests import GroupPlan, Task
from .lower_points import Place, Points
from .lower_products import prepared
from .lower_sharing import in_place_pairs
from .lower_sizes import SymbolicCall, symbols_in_code
from .lower_updates import emit_update
from .lower_windows import WindowWriter

SERIAL_COST = 200_000
"""Additions' worth of work that one thread does before sharing pays."""

CHUNK_COST = 100_000
"""Additions' worth of work of one chunk of a shared kernel."""

PART_BYTES = 1 << 15
"""A row of a value that later nests read again stands on the stack up to this size."""

COLUMN_ROWS = 16
"""Rows of a chunk that leaves partial results of column folds, at least."""


def lower_body(
    body: Graph, inputs: Sequence[Value], outputs: Sequence[Value], symbols: Sequence[Symbol] = ()
) -> tuple[KernelCall, ...]:
    """The calls that compute `outputs` from `inputs` as `body` says: one kernel, and one more when column folds leave
    partial results.

    With `symbols`, the sizes that have no value yet, they are `SymbolicCall`s.
    """
    plan = StagePlan(body)
    work = sum(plan.work(s) for s in plan.units if isinstance(s, Stage))
    product = only_product(body)
    if product is not None:
        writer = BodyWriter(body, plan, inputs, outputs, work, KernelBuilder(symbols))
        writer.write_windows(product)
        return writer.calls()
    if typical(work) > SERIAL_COST:
        groups = Scheduler(plan, worth_sharing, unroll=False).run()
        writer = BodyWriter(body, plan, inputs, outputs, work, KernelBuilder(symbols))
        if len(groups) == 1 and writer.write_split(groups[0]):
            return writer.calls()
    body, pinned = prepared(body)
    plan = StagePlan(body, pinned=pinned)
    writer = BodyWriter(body, plan, inputs, outputs, work, KernelBuilder(symbols))
    writer.write_serial(Scheduler(plan, worth_sharing, unroll=True).run())
    return writer.calls()


@dataclass
class BodyWriter:
    """Writes the kernel of one body.

    Attributes:
        body: what to compute.
        plan: its stages.
        inputs, outputs: the values outside.
        work: additions' worth of it.
        alone: the only group with loops. When it is one loop over elements, that runs over the kernel's own range, so
            that one kernel serves every size.
    """

    body: Graph
    plan: StagePlan
    inputs: Sequence[Value]
    outputs: Sequence[Value]
    work: int
    builder: KernelBuilder = field(default_factory=KernelBuilder)
    places: dict[Value, Place] = field(default_factory=dict)
    arguments: list[tuple[Buffer, Value | TensorType]] = field(default_factory=list)
    shared: list[tuple[int, int]] = field(default_factory=list)
    partial: dict[Value, Value] = field(default_factory=dict)
    groups: Sequence[Group] = ()
    alone: Group | None = None
    readers: dict[Value, list[Group]] = field(default_factory=dict)
    extent: int = 1
    chunk: int = 1
    chunks: Chunks | None = None
    split: tuple[Symbol, Symbol] | None = None

    def __post_init__(self) -> None:
        self.points = Points(self.builder, self.places, self.plan.producers)
        self.add_inputs()

    def add_inputs(self) -> None:
        """Arguments for the inputs."""
        for outer, param in zip(self.inputs, self.body.params, strict=True):
            self.places[param] = Place(self.argument(outer, param.hint or "x", Role.INPUT))

    def argument(self, value: Value | TensorType, hint: str, role: Role, same_as: str = "") -> Buffer:
        """One more argument of the call, and its buffer."""
        type = value.type if isinstance(value, Value) else value
        buffer = self.builder.buffer(hint, type.dtype, type.size, role, same_as)
        self.arguments.append((buffer, value))
        return buffer

    # Where values are

    def add_outputs(self) -> None:
        """Places for the results, or for the partial results of column folds."""
        for outer, result in zip(self.outputs, self.body.results, strict=True):
            base = self._base_of_update(result)
            hint = result.hint or "out"
            if base is not None:
                number = self.body.params.index(base)
                self.shared.append((len(self.arguments), number))
                self.places[result] = Place(self.argument(outer, hint, Role.OUTPUT, self.arguments[number][0].name))
            elif result in self.partial:
                self.places[result] = Place(self.argument(self.partial[result], hint + "_parts", Role.OUTPUT))
            else:
                self.places[result] = Place(self.argument(outer, hint, Role.OUTPUT))

    def _base_of_update(self, result: Value) -> Value | None:
        """The param that `result` is an update of, or an update of an update, if everybody else has read it by then."""
        base = result
        while base not in self.body.params:
            stage = self.plan.stage_of.get(base)
            if stage is None or not stage.is_update or base is not result and base in self.body.results:
                return None
            base = stage.node.inputs[0]
            if not self._is_read_before(base, stage):
                return None
        return base if base is not result else None

    def _is_read_before(self, base: Value, update: Stage) -> bool:
        """Whether no stage but `update` itself needs `base` in or after its group."""
        started = False
        for group in self.groups:
            started = started or update in group.stages
            for stage in group.stages if started else ():
                needs = (
                    any(r.value is base for r in self.plan.access(stage).reads)
                    or stage.is_update
                    and stage.node.inputs[0] is base
                )
                if needs and stage is not update:
                    return False
        return True

    def _divide(self, extent: Dim, least: int = 1, step: int = 1) -> None:
        """Lets the kernel be called in chunks."""
        self.extent, self.chunks = extent, Chunks(self.work, least, step)  # type: ignore[assignment]
        self.chunk = self.chunks.size(extent) if is_known(self.work, extent) else 0

    def scratch(self, value: Value) -> Place:
        """A place in memory of the call for a whole value."""
        return Place(self.argument(value.type, value.hint or "scratch", Role.SCRATCH))

    # A kernel that is called in chunks

    def write_split(self, group: Group) -> bool:
        """Writes the kernel over the rows of its only group; False, with nothing written, when it has no rows to
        share."""
        if len(group.stages) == 1 and group.stages[0].kind is Kind.UPDATE and group.stages[0].sizes:
            self.add_outputs()
            self._divide(emit_update(self.builder, self.points, self.plan, group.stages[0], split=True))
            return True
        count, ways = best_rows(self.plan, group)
        if typical(count) <= 1 or any(_long_sort(s) for s in group.stages):
            return False
        loops = GroupPlan(self.builder, self.plan, group)
        columns = [s for s, w in zip(group.stages, ways, strict=True) if w.column]
        deep = any(nest.deep for nest in loops.nests)
        least = least_rows(count) if deep else COLUMN_ROWS if columns else 1
        self._divide(count, least, LANES if loops.is_tiled else loops.block)
        split: Dim
        blocks: Dim
        if self.chunk:
            split, blocks = self.chunk, -(-count // self.chunk)
        else:
            self.split = split, blocks = self.builder.symbol("chunk"), self.builder.symbol("blocks")
        if blocks != 1:
            for stage in columns:
                self.partial[stage.value] = Value(
                    stage.value.type.with_shape((blocks, *stage.value.shape)), stage.value.hint
                )
        self.add_outputs()
        self._place_values(loops)
        GroupWriter(self.points, loops, ranged=True, split=split).write()
        return True

    def write_windows(self, product: WindowProduct) -> None:
        """Writes the kernel of a product that reads its windows in place."""
        self.add_outputs()
        output = self.places[product.node.output].buffer
        assert output is not None
        writer = WindowWriter(self.builder, product, self.places, output)
        self._divide(writer.tasks)
        writer.write()

    # A serial kernel

    def write_serial(self, groups: Sequence[Group]) -> None:
        """Writes the groups one after another."""
        self.groups = groups
        self.add_outputs()
        looping = [g for g in groups if not g.unrolled]
        self.alone = looping[0] if len(looping) == 1 else None
        self.write_groups(groups)

    def write_groups(self, groups: Sequence[Group]) -> None:
        """Writes the groups one after another at the present level."""
        self.groups = groups
        self._note_readers()
        for group in groups:
            if any(s.empty for s in group.stages):
                self._write_empty(group)
            elif group.unrolled:
                for stage in group.stages:
                    self._write_unrolled(stage)
            elif group.stages[0].is_update:
                self._write_update(group, group.stages[0])
            else:
                loops = GroupPlan(self.builder, self.plan, group)
                self._place_values(loops)
                ranged = group is self.alone and loops.flat and not self.builder.symbols
                if ranged:
                    self.extent = self.chunk = loops.count
                GroupWriter(self.points, loops, ranged).write()

    def _write_empty(self, group: Group) -> None:
        """A group with a stage that has nothing to compute, which is alone in it: what remains is the base of an
        update."""
        (stage,) = group.stages
        for value in stage.outputs:
            if stage.is_update:
                self._write_update(group, stage)
            elif value not in self.places:
                self.places[value] = self.scratch(value)

    def _note_readers(self) -> None:
        """Notes the groups that read each value."""
        for group in self.groups:
            for stage in group.stages:
                base = [stage.node.inputs[0]] if stage.is_update else []
                for value in [r.value for r in self.plan.access(stage).reads] + base:
                    if group not in self.readers.setdefault(value, []):
                        self.readers[value].append(group)

    def _place_values(self, loops: GroupPlan) -> None:
        """Gives the values of a group memory where somebody reads them who does not get them in a local."""
        for stage, part in loops.parts.items():
            for value in stage.outputs:
                if value not in self.places:
                    outside = any(g is not loops.group for g in self.readers.get(value, ()))
                    self.places[value] = self._place_for(loops, value, part.task, outside)

    def _place_for(self, loops: GroupPlan, value: Value, task: Task, outside: bool) -> Place:
        update = self._only_update(value)
        if update is not None:
            return Place(self._update_place(update, loops.group, value, loops).buffer)
        is_line = task is Task.LINE and value.type.rank == len(self.plan.stage_of[value].sizes)
        if at_most(value.type.size, 1) and not is_line:
            return Place()
        if outside or task is Task.COLUMN_ARRAY or any(n.deep and n.parts[0].stage.value is value for n in loops.nests):
            return self.scratch(value)
        row_scalar = value.type.size == loops.count and loops.row is not None and loops.block == 1
        if not is_line and (row_scalar or not loops.read_later(value)):
            return Place()
        most = PART_BYTES * (2 if loops.block > 1 else 1) // value.dtype.itemsize
        part = value.type.size // loops.count * loops.block
        if loops.row is not None and typical(part) <= most:
            room = part
            if not is_known(part):
                room = most
                self.builder.fits.append((part, most))
            return Place(self.builder.buffer(value.hint or "part", value.dtype, room, Role.LOCAL), part=part)
        return self.scratch(value)

    def _only_update(self, value: Value) -> Stage | None:
        """The update that overwrites `value`, which nobody reads afterwards: both can be in the same memory."""
        if value in self.body.results or value in self.body.params or at_most(value.type.size, 1):
            return None
        reading = self.readers.get(value, [])
        last = [s for g in reading[-1:] for s in g.stages if s.is_update and s.node.inputs[0] is value]
        return last[0] if last and self._is_read_before(value, last[0]) else None

    def _update_place(self, stage: Stage, group: Group, first: Value, loops: GroupPlan | None = None) -> Place:
        """Where an update leaves its value; `first` is the value that is computed there first, in `group`."""
        if stage.value not in self.places:
            following = self._only_update(stage.value)
            held = self._update_place(following, group, first, loops) if following else self.scratch(stage.value)
            self.places[stage.value] = Place(held.buffer)
        return self.places[stage.value]

    def _write_update(self, group: Group, stage: Stage) -> None:
        """An update: of the base's own memory when nobody else needs that, else of a copy."""
        base, place = stage.node.inputs[0], self._update_place(stage, group, stage.value)
        assert place.buffer is not None
        held = self.places[base].buffer
        if held is None or place.buffer is not held and place.buffer.same_as != held.name:
            self._copy(base, place.buffer)
        if not stage.empty:
            emit_update(self.builder, self.points, self.plan, stage, split=False)
        place.level = self.builder.level

    def _copy(self, value: Value, target: Buffer) -> None:
        """Copies a whole stored value."""
        held = self.places[value]
        index = self.builder.variable("i", value.type.size)
        if held.registers and held.buffer is None:
            for position, scalar in held.registers.items():
                self.builder.store(target, Constant(position), scalar)
            return
        assert held.buffer is not None
        self.builder.open(index, 0, value.type.size)
        self.builder.store(target, index, Load(held.buffer, index))
        self.builder.close()

    def _write_unrolled(self, stage: Stage) -> None:
        """Straight-line code, element by element, with the elements in locals."""
        value = stage.value
        if value not in self.places:
            read = any(not g.unrolled or self._reads_by_data(g, value) for g in self.readers.get(value, ()))
            memory = read and not at_most(value.type.size, 1)
            self.places[value] = self.scratch(value) if memory else Place()
        place = self.places[value]
        elements: dict[int, Scalar] = {}
        for index in all_indices(*(range(stage.sizes[d]) for d in stage.kept)):
            position = flatten(index, value.type.sizes)
            assert isinstance(position, Constant)
            elements[position.value] = element = self._unrolled_element(stage, index)
            if place.buffer is not None:
                self.builder.store(place.buffer, position, element, stage.node.loc)
        place.registers, place.level = elements, self.builder.level

    def _reads_by_data(self, group: Group, value: Value) -> bool:
        """Whether unrolled stages ask for elements of `value` at places that are data."""
        return any(
            r.value is value and not set(variables_of(r.position)) <= set(s.axes)
            for s in group.stages
            for r in self.plan.access(s).reads
        )

    def _unrolled_element(self, stage: Stage, kept: Sequence[int]) -> Scalar:
        """One element of an unrolled stage."""
        indices: list[Index] = [Constant(0)] * len(stage.sizes)
        for d, i in zip(stage.kept, kept, strict=True):
            indices[d] = Constant(i)
        if stage.kind is Kind.MAP:
            return self.points.computed(stage.value, indices)
        total: Scalar | None = None
        for folded in all_indices(*(range(stage.sizes[d]) for d in stage.folded)):
            for d, i in zip(stage.folded, folded, strict=True):
                indices[d] = Constant(i)
            total = fold_step(self.points, stage, total, indices)
        if total is None:
            return unit_of(stage.join, stage.value.dtype)
        if isinstance(total, Literal):
            return total
        return self.builder.let(
            stage.value.hint or stage.node.op.name, total, self.builder.depth(total), stage.node.loc
        )

    # The calls

    def calls(self) -> tuple[KernelCall, ...]:
        """The call of the kernel, and that of the kernel that joins partial results."""
        known = {b.name for b, _ in self.arguments}
        for buffer in self.builder.buffers:
            if buffer.role is Role.SCRATCH and buffer.name not in known:
                self.arguments.append((buffer, TensorType((buffer.size,), buffer.dtype)))
        body, sites = self.builder.levels[0].statements, self.builder.sites
        symbols = symbols_in_code(body)
        buffers = [b for b, _ in self.arguments]
        if symbols:
            buffers.append(self.builder.buffer("sizes", int64, len(symbols), Role.INPUT))
        buffers += [b for b in self.builder.buffers if b.role is Role.LOCAL]
        kernel = named(summary(self.body), buffers, body, sites, symbols)
        return (self._call(kernel), *self._joining())

    def _call(self, kernel: Kernel) -> KernelCall:
        """The call of the kernel."""
        arguments, shared = tuple(v for _, v in self.arguments), tuple(self.shared)
        if not self.builder.symbols:
            in_place = self.in_place(kernel, isinstance(self.extent, int) and self.chunk < self.extent)
            return KernelCall(kernel, arguments, self.extent, self.chunk, in_place, shared)
        whole, parts = self.in_place(kernel, False), self.in_place(kernel, True)
        fits = tuple(self.builder.fits)
        return SymbolicCall(
            kernel, arguments, self.extent, self.chunk, whole, shared, self.chunks, self.split, parts, fits
        )

    def in_place(self, kernel: Kernel, chunks: bool) -> tuple[tuple[int, int], ...]:
        """(output, input) arguments that may share memory; `chunks`: the kernel is called for parts of its range."""
        taken = {source for _, source in self.shared}
        return tuple(pair for pair in in_place_pairs(kernel, chunks) if pair[1] not in taken)

    def _joining(self) -> tuple[KernelCall, ...]:
        """The calls that join the partial results of the blocks."""
        if not self.partial:
            return ()
        params, nodes, results, outputs = [], [], [], []
        for outer, result in zip(self.outputs, self.body.results, strict=True):
            if result in self.partial:
                param = Value(self.partial[result].type, result.hint)
                producer = self.plan.producers[result]
                op = OPS.sum if producer.op is OPS.dot_general else producer.op
                node = Node(op, (param,), {"dims": (0,)}, (Value(result.type, result.hint),), producer.loc)
                params.append(param)
                nodes.append(node)
                results.append(node.output)
                outputs.append(outer)
        graph = Graph("join", tuple(params), tuple(nodes), tuple(results))
        inputs = [self.partial[r] for r in self.body.results if r in self.partial]
        return lower_body(graph, inputs, outputs, self.builder.symbols)


def _long_sort(stage: Stage) -> bool:
    """Whether a stage sorts lines that are too long for the stack of a thread."""
    return stage.node.op is OPS.sort and stage.sizes[stage.folded[0]] * 8 > STACK_BYTES


@dataclass(frozen=True)
class Chunks:
    """How a kernel is called in chunks, from shapes only: as follows from its work, in chunks of at least `least`, a
    multiple of `step`."""

    work: Dim
    least: int
    step: int

    def size(self, extent: Dim, values: Mapping[Symbol, int] = NO_VALUES) -> int:
        """The size of a chunk; `extent` when sharing does not pay. `values` are those of symbolic sizes."""
        count, cost = value_of(extent, values), value_of(self.work, values)
        if cost <= SERIAL_COST or count <= 1:
            return max(count, 1)
        chunk = max(self.least, count * CHUNK_COST // cost)
        step = self.step * max(1, 64 // self.step) if chunk >= 64 else self.step
        return min(count, max(chunk // step, 1) * step)


def summary(body: Graph) -> str:
    """A short name: the ops that do the work, in order."""
    names = [n.op.name for n in body.nodes if n.op.name not in ("constant", "broadcast", "reshape", "convert")] or [
        "copy"
    ]
    distinct = list(dict.fromkeys(names))
    return "_".join(distinct if len(distinct) <= 4 else [*distinct[:3], "etc"])
