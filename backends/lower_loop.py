"""A whole `loop` node as one kernel over its iterations, with the carried state in locals or in place in its memory.

The kernel can be left and entered again between iterations: what it carries in locals is loaded first and stored last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..ir.access import Read
from ..ir.graph import Node, Value
from ..ir.index import Constant, Variable
from ..ir.loops import START, STOP, Buffer, Kernel, Load, Local, Position, Role, Scalar
from ..ir.ops import OPS
from ..ir.schedule import UNROLLED_ELEMENTS, Group, Scheduler, is_small, is_unrolled, worth_sharing
from ..ir.sizes import Symbol, at_most
from ..ir.stages import Kind, Stage, StagePlan
from .base import KernelCall
from .lower_bodies import BodyWriter
from .lower_builder import KernelBuilder
from .lower_nests import GroupPlan, Task
from .lower_points import Place
from .lower_products import prepared


def is_whole(node: Node) -> bool:
    """Whether a loop's body is one fusion node and small, so that the loop is one kernel."""
    if node.op is not OPS.loop or len(node.regions[0].nodes) != 1 or node.regions[0].nodes[0].op is not OPS.fusion:
        return False
    return is_small(StagePlan(node.regions[0].nodes[0].regions[0]))


def lower_loop(node: Node, symbols: Sequence[Symbol] = ()) -> KernelCall:
    """The call of the kernel that is a whole loop; a `SymbolicCall` with `symbols`."""
    fusion = node.regions[0].nodes[0]
    body, pinned = prepared(fusion.regions[0])
    writer = LoopWriter(body, StagePlan(body, pinned=pinned), (), (), 0, KernelBuilder(symbols), node=node)
    writer.write_loop()
    return writer.calls()[0]


@dataclass
class Carried:
    """One carried value.

    Attributes:
        param: the value inside of the fusion's body, or the loop body's own param when the fusion does not read it.
        following: what it is in the next iteration.
        buffer: its memory.
        locals: its elements, when it is in locals.
    """

    param: Value
    following: Value
    buffer: Buffer
    locals: list[Local] = field(default_factory=list)


@dataclass
class LoopWriter(BodyWriter):
    """Writes the kernel of a loop. Inside, `body` is the region of the only fusion node of the loop's body."""

    node: Node = None  # type: ignore[assignment]
    carried: list[Carried] = field(default_factory=list)
    lasts: list[tuple[Value, Buffer]] = field(default_factory=list)
    index: Variable = None  # type: ignore[assignment]

    def add_inputs(self) -> None:
        """Arguments are added by `write_loop`, which knows what is carried."""

    def write_loop(self) -> None:
        """The whole kernel."""
        self.groups = groups = Scheduler(self.plan, worth_sharing, unroll=True).run()
        self.extent = self.node.inputs[1]  # type: ignore[assignment]
        self.chunk = 1 << 40
        self.index = Variable(self.builder.name("iteration"), Symbol("iteration"))
        self._add_arguments()
        for c in self.carried:
            if self._fits_locals(c):
                c.locals = [
                    self.builder.accumulator(c.param.hint or "state", Load(c.buffer, Constant(k)))
                    for k in range(c.buffer.size)
                ]
                self.places[c.param] = Place(registers=dict(enumerate(c.locals)))
        self.builder.open(self.index, START, STOP)
        for c in self.carried:
            self.builder.varies(c.locals)
        self.write_groups(groups)
        self._store_lasts()
        self._carry()
        self.builder.close()
        for c in self.carried:
            for k, local in enumerate(c.locals):
                self.builder.store(c.buffer, Constant(k), local)

    def in_place(self, kernel: Kernel, chunks: bool) -> tuple[tuple[int, int], ...]:
        return ()  # the next iteration reads the inputs again

    # Arguments

    def _add_arguments(self) -> None:
        body, fusion = self.node.regions[0], self.node.regions[0].nodes[0]
        inside = dict(zip(fusion.inputs, self.body.params, strict=True))
        results = dict(zip(fusion.outputs, self.body.results, strict=True))
        count = self.node.attrs["carried"]
        self.places[inside.get(body.params[0], body.params[0])] = Place(level=1, registers={0: Position(self.index)})
        for k, (outer, param) in enumerate(zip(self.node.inputs[2:], body.params[1:], strict=True)):
            buffer = self.argument(outer, param.hint or "x", Role.INPUT)
            self.places[inside.get(param, param)] = Place(buffer, level=1 if k < count else 0)
            if k < count:
                result = body.results[k]
                self.carried.append(
                    Carried(inside.get(param, param), results.get(result, inside.get(result, result)), buffer)
                )
        for k, (outer, result) in enumerate(zip(self.node.outputs, body.results, strict=True)):
            if k < count:
                self.shared.append((len(self.arguments), k))
                self.argument(outer, outer.hint or "out", Role.OUTPUT, self.carried[k].buffer.name)
            else:
                value = results.get(result, inside.get(result, result))
                self.lasts.append((value, self.argument(outer, outer.hint or "last", Role.OUTPUT)))

    def _fits_locals(self, c: Carried) -> bool:
        """Whether a carried value can be in locals: its elements are asked for by constant positions, and so are
        given."""
        if not at_most(c.buffer.size, UNROLLED_ELEMENTS):
            return False
        readers = [
            u
            for u in self.plan.units
            if isinstance(u, Stage) and any(r.value is c.param for r in self.plan.access(u).reads)
        ]
        if c.buffer.size > 1 and not all(is_unrolled(s) for s in readers):
            return False
        if c.buffer.size > 1 and any(self._reads_by_data(g, c.param) for g in self.groups):
            return False
        maker = self.plan.stage_of.get(c.following)
        return (
            maker is None and c.following is c.param or maker is not None and (is_unrolled(maker) or c.buffer.size == 1)
        )

    # The end of an iteration

    def _carry(self) -> None:
        """Lets every carried value be its following value, all at once."""
        moving = [c for c in self.carried if c.following is not c.param]
        sources = [self._elements(c.following) if c.locals else [] for c in moving]
        params = {c.param for c in self.carried}
        spare: dict[Value, Buffer] = {}
        for c in moving:
            if not c.locals and c.following in params and c.following not in spare:
                place = self.scratch(c.following)
                assert place.buffer is not None
                spare[c.following] = place.buffer
                self._copy(c.following, place.buffer)
        self.places.update({value: Place(buffer, level=self.builder.level) for value, buffer in spare.items()})
        for c, scalars in zip(moving, sources, strict=True):
            if not c.locals and self.places[c.following].buffer is not c.buffer:
                self._copy(c.following, c.buffer)
            for target, scalar in zip(c.locals, scalars, strict=False):
                self.builder.set(target, scalar)

    def _elements(self, value: Value) -> list[Scalar]:
        """The elements of a value in locals, safe from changes of carried locals."""
        found = [self.points.at(value, index) for index in indices_in_order(value)]
        mutable = {local for c in self.carried for local in c.locals}
        return [self.builder.let("next", s, self.builder.level) if s in mutable else s for s in found]

    def _store_lasts(self) -> None:
        for value, buffer in self.lasts:
            if self.places[value].buffer is not buffer:
                self._copy(value, buffer)

    # Where values of the body are

    def _place_for(self, loops: GroupPlan, value: Value, task: Task, outside: bool) -> Place:
        target = self._target(loops.group, value, value, loops)
        if target is not None:
            return Place(target)
        return super()._place_for(loops, value, task, outside or self._is_wanted(value))

    def _update_place(self, stage: Stage, group: Group, first: Value, loops: GroupPlan | None = None) -> Place:
        if stage.value not in self.places:
            target = self._target(group, stage.value, first, loops)
            if target is not None:
                self.places[stage.value] = Place(target)
        return super()._update_place(stage, group, first, loops)

    def _is_wanted(self, value: Value) -> bool:
        """Whether a value is needed at the end of an iteration."""
        return any(c.following is value for c in self.carried) or any(v is value for v, _ in self.lasts)

    def _only_update(self, value: Value) -> Stage | None:
        return None if self._is_wanted(value) else super()._only_update(value)

    def _target(self, group: Group, value: Value, first: Value, loops: GroupPlan | None) -> Buffer | None:
        """The memory in which `value` can be computed right where it has to end; `first` is computed there first, in
        `group`."""
        if not at_most(value.type.size, 1):
            for c in self.carried:
                if c.following is value and not c.locals and self._may_overwrite(group, c, first, loops):
                    return c.buffer
            return next((b for v, b in self.lasts if v is value), None)
        return None

    def _may_overwrite(self, group: Group, c: Carried, first: Value, loops: GroupPlan | None) -> bool:
        """Whether everybody who reads the carried value has done so when `first` is computed into its memory."""
        if any(f is not c and f.following is c.param for f in self.carried) or any(v is c.param for v, _ in self.lasts):
            return False
        maker, started = self.plan.stage_of[first], False
        in_place = maker.is_update and maker.node.inputs[0] is c.param
        for other in self.groups:
            started = started or other is group
            for stage in other.stages if started else ():
                reads = [r for r in self.plan.access(stage).reads if r.value is c.param]
                allowed = other is group and (
                    in_place and stage is maker if loops is None else self._same_element(loops, maker, stage, reads)
                )
                if (
                    reads or stage.is_update and stage is not maker and stage.node.inputs[0] is c.param
                ) and not allowed:
                    return False
        return True

    def _same_element(self, loops: GroupPlan, maker: Stage, stage: Stage, reads: Sequence[Read]) -> bool:
        """Whether `stage` reads just the element that `maker` overwrites, at the same point of one nest and not after
        it."""
        order = list(loops.parts)
        return (
            order.index(stage) <= order.index(maker)
            and maker.kind is Kind.MAP
            and stage.kind is Kind.MAP
            and stage.sizes == maker.sizes
            and loops.nest_of[stage] == loops.nest_of[maker]
            and all(r.position == stage.output_position(stage.axes) for r in reads)
        )


def indices_in_order(value: Value) -> list[tuple[int, ...]]:
    """All indices of a small value, row-major."""
    indices: list[tuple[int, ...]] = [()]
    for size in value.type.sizes:
        indices = [(*i, k) for i in indices for k in range(size)]
    return indices
