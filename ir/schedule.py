"""Groups of stages that share a loop over rows.

A row loop with R rows fits a stage when the leading axes that its output keeps have R elements in all (row r of the
output is then its r-th part of equal size), or when the leading axes that it folds have (a column fold: complete only
after the loop). Stages may share the loop when none reads another's row but its own. One algorithm serves fusion,
which makes a kernel of each group, and lowering, which makes a loop nest of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod

from .access import Access, Read, step_of
from .graph import Node, Value
from .index import Index, Variable, flatten
from .product_tiles import is_tiled
from .sizes import at_most, typical
from .stages import Kind, Stage, StagePlan
from .types import Axes

UNROLLED_POINTS, UNROLLED_ELEMENTS = 16, 4
"""A stage with at most so many points and elements is unrolled, and its elements are locals."""


@dataclass(frozen=True)
class Rows:
    """How a row loop walks through a stage: over the axes `axes` of its space, kept ones or, for a column fold, folded
    ones."""

    count: int
    axes: Axes
    column: bool = False


@dataclass(eq=False)
class Group:
    """Stages that share a loop.

    Attributes:
        stages: in order.
        choices: for each possible number of rows, how each stage walks.
        unrolled: whether the stages are straight-line code.
        external: a node that is no stage, alone.
    """

    stages: list[Stage] = field(default_factory=list)
    choices: dict[int, list[Rows]] = field(default_factory=dict)
    unrolled: bool = False
    external: Node | None = None

    @property
    def units(self) -> Sequence[Stage | Node]:
        """The stages, or the only node."""
        return self.stages if self.external is None else [self.external]

    def values(self) -> set[Value]:
        """What the stages compute."""
        return {v for s in self.stages for v in s.outputs}


def is_unrolled(stage: Stage) -> bool:
    """Whether a stage is small enough for straight-line code."""
    small = all(at_most(v.type.size, UNROLLED_ELEMENTS) for v in stage.outputs)
    return stage.kind in (Kind.MAP, Kind.FOLD) and small and at_most(stage.points, UNROLLED_POINTS)


def row_choices(stage: Stage) -> list[Rows]:
    """The row loops that fit a stage on its own."""
    found: dict[tuple[int, bool], Rows] = {}
    if is_tiled(stage.node):  # its innermost axis is computed in vectors, of several rows at a time
        rows = Rows(prod(stage.sizes[d] for d in stage.kept[:-1]), stage.kept[:-1])
        return [rows] if typical(rows.count) > 1 else []
    if stage.kind in (Kind.MAP, Kind.FOLD, Kind.LINE):
        for n in range(1, len(stage.kept) + 1):
            rows = Rows(prod(stage.sizes[d] for d in stage.kept[:n]), stage.kept[:n])
            if typical(rows.count) > 1 and _numbers_rows(stage, rows):
                found[rows.count, False] = rows
    if stage.kind is Kind.FOLD:
        for n in range(1, len(stage.folded) + 1):
            rows = Rows(prod(stage.sizes[d] for d in stage.folded[:n]), stage.folded[:n], column=True)
            if typical(rows.count) > 1:
                found[rows.count, True] = rows
    return list(found.values())


def row_index(stage: Stage, rows: Rows) -> Index:
    """The number of the row, in the variables of the stage."""
    return flatten([stage.axes[d] for d in rows.axes], [stage.sizes[d] for d in rows.axes])


def _numbers_rows(stage: Stage, rows: Rows) -> bool:
    """Whether the elements of row r of the space are row r of every output."""
    position = stage.output_position(stage.axes)
    return all(v.type.size and position // (v.type.size // rows.count) == row_index(stage, rows) for v in stage.outputs)


STRIDED_FOLD = 8
"""Folds of at least so many elements must not jump through memory for the sake of sharing a loop."""


class Scheduler:
    """Puts the units of a plan into groups, in order.

    Args:
        plan: the stages.
        may_join: whether it pays that a stage joins a group, (plan, group, stage) -> bool.
        unroll: whether tiny stages become straight-line code.
    """

    def __init__(self, plan: StagePlan, may_join: Callable[[StagePlan, Group, Stage], bool], unroll: bool) -> None:
        self.plan = plan
        self.may_join = may_join
        self.unroll = unroll
        self.groups: list[Group] = []
        self.group_of: dict[Value, int] = {}

    def run(self) -> list[Group]:
        """The groups."""
        for unit in self._tiny_first():
            number = self._place(unit)
            for value in unit.outputs:
                self.group_of[value] = number
        return self._merged()

    def _merged(self) -> list[Group]:
        """The groups, each moved into the first one that reads its values, where they fit together."""
        sources = [
            {self.group_of[v] for v in self._sources(g) if v in self.group_of} - {k} for k, g in enumerate(self.groups)
        ]
        groups: list[Group | None] = list(self.groups)
        for late in range(len(groups)):
            for early in sorted(sources[late]):
                first, second = groups[early], groups[late]
                if first is None or second is None or any(early in sources[k] for k in range(early + 1, late)):
                    continue
                both = self._combined(first, second)
                if both is not None:
                    groups[early], groups[late] = None, both
                    sources[late] |= sources[early]
                    for later in sources[late + 1 :]:
                        later |= {late} if early in later else set()
        return [g for g in groups if g is not None]

    def _sources(self, group: Group) -> set[Value]:
        """What the units of a group read."""
        if group.external is not None:
            return set(group.external.inputs)
        return set().union(*(self.plan.sources(s) for s in group.stages))

    def _combined(self, first: Group, second: Group) -> Group | None:
        """The stages of both groups in one; None when they do not fit."""
        if first.external is not None or second.external is not None or first.unrolled or second.unrolled:
            return None
        both = Group(list(first.stages), dict(first.choices))
        return both if all(self._join(both, s, self.plan.access(s), paying=False) for s in second.stages) else None

    def _tiny_first(self) -> list[Stage | Node]:
        """The units in order, with unrolled ones as early as what they read allows."""
        order: list[Stage | Node] = []
        for unit in self.plan.units:
            at = len(order)
            if self.unroll and isinstance(unit, Stage) and is_unrolled(unit):
                reads = self.plan.sources(unit)
                at = max((k + 1 for k, u in enumerate(order) if any(v in reads for v in u.outputs)), default=0)
                while at < len(order) and isinstance(other := order[at], Stage) and is_unrolled(other):
                    at += 1
            order.insert(at, unit)
        return order

    def _place(self, unit: Stage | Node) -> int:
        """The number of the group that takes `unit`."""
        if isinstance(unit, Node):
            self.groups.append(Group(external=unit))
            return len(self.groups) - 1
        access = self.plan.access(unit)
        earliest = max((self.group_of.get(v, 0) for v in self.plan.sources(unit)), default=0)
        if unit.is_update:
            earliest = max(earliest, self._after_readers(unit))
        for number in range(earliest, len(self.groups)):
            if self._join(self.groups[number], unit, access):
                return number
        self.groups.append(self._alone(unit))
        return len(self.groups) - 1

    def _after_readers(self, stage: Stage) -> int:
        """The first group in which the memory of an update's base may be overwritten: behind all that read it, so
        far."""
        base = stage.node.inputs[0]
        reading = [
            n
            for n, g in enumerate(self.groups)
            for s in g.stages
            if any(r.value is base for r in self.plan.access(s).reads)
        ]
        return max([self.group_of.get(base, 0), *(n + 1 for n in reading)])

    def _alone(self, stage: Stage) -> Group:
        if self.unroll and is_unrolled(stage):
            return Group([stage], unrolled=True)
        return Group([stage], {rows.count: [rows] for rows in reversed(self._preferred(stage))})

    def _preferred(self, stage: Stage) -> list[Rows]:
        """The row loops that fit a stage; first those that leave the contiguous axis to the inner loops."""
        inner = self.plan.inner_axis(stage)
        return sorted(row_choices(stage), key=lambda rows: rows.column == (inner in stage.folded))

    def _join(self, group: Group, stage: Stage, access: Access, paying: bool = True) -> bool:
        """Lets `stage` join `group` if that is legal and, when it has to, pays."""
        if (
            group.external is not None
            or stage.empty
            or any(s.empty for s in group.stages)
            or group.unrolled != (self.unroll and is_unrolled(stage))
        ):
            return False
        if group.unrolled:
            group.stages.append(stage)
            return True
        if not group.choices or (paying and not self.may_join(self.plan, group, stage)):
            return False
        inside = [r for r in access.reads if r.value in group.values()]
        kept = {}
        for rows in self._preferred(stage):
            others = group.choices.get(rows.count)
            if others is not None and rows.count not in kept and self._legal(group, others, stage, rows, inside):
                kept[rows.count] = [*others, rows]
        stages = [*group.stages, stage]
        kept = {count: ways for count, ways in kept.items() if not any(map(self._strides, stages, ways))}
        if not kept:
            return False
        group.stages.append(stage)
        group.choices = kept
        return True

    def _strides(self, stage: Stage, rows: Rows) -> bool:
        """Whether a fold would jump through memory that another row loop lets it read in order."""
        if stage.kind is not Kind.FOLD or stage.is_product or rows.column:
            return False
        if typical(stage.points) < STRIDED_FOLD * typical(rows.count):
            return False
        inner = self.plan.inner_axis(stage)
        return inner in rows.axes and any(inner not in r.axes for r in row_choices(stage))

    def _legal(self, group: Group, others: Sequence[Rows], stage: Stage, rows: Rows, inside: Sequence[Read]) -> bool:
        """Whether `stage` reads, of what the group computes, its own row alone."""
        row = row_index(stage, rows)
        ways = dict(zip(group.stages, others, strict=True))
        for read in inside:
            way = ways[self.plan.stage_of[read.value]]
            if way.column or read.position // (read.value.type.size // rows.count) != row:
                return False
        return True


UNRELATED_COST = 20_000
"""Stages of one shape that read nothing in common share a loop up to this cost, for the sake of a shorter kernel; but
those of one form are better as one kernel that is called several times."""


def _wide_reads(plan: StagePlan, stage: Stage) -> set[Value]:
    """The values of more than one element that a stage reads."""
    return {r.value for r in plan.access(stage).reads if not at_most(r.value.type.size, 1)}


def worth_sharing(plan: StagePlan, group: Group, stage: Stage) -> bool:
    """Whether it pays that `stage` shares the loop of `group`: it reads what the group computes or reads too."""
    theirs = group.values().union(*(_wide_reads(plan, s) for s in group.stages))
    if _wide_reads(plan, stage) & theirs:
        return True
    alike = [s for s in group.stages if s.sizes == stage.sizes and s.kept == stage.kept]
    return (
        plan.cost(stage) <= UNRELATED_COST
        and bool(alike)
        and all(form_of(plan, s) != form_of(plan, stage) for s in alike)
    )


def form_of(plan: StagePlan, stage: Stage, sized: bool = True) -> tuple[object, ...]:
    """What two stages have in common whose code is the same but for constants, and `sized`: for the same sizes."""
    return stage.node.op.name, sized and stage.sizes, stage.value.dtype, plan.access(stage).cost


def is_flat(plan: StagePlan, group: Group) -> bool:
    """Whether a group is one loop over elements."""
    count, ways = best_rows(plan, group)
    return typical(count) > 1 and all(_flat(plan, s, w, count) for s, w in zip(group.stages, ways, strict=True))


SMALL_COST = 200_000
"""Additions' worth of work up to which stages are put into one serial kernel, and a loop body into one kernel with its
loop."""

SMALL_STAGES = 64
"""More stages than this are not put into one kernel: its compilation would take too long."""


def is_small(plan: StagePlan) -> bool:
    """Whether all of a body is better done in one serial kernel."""
    stages = [u for u in plan.units if isinstance(u, Stage)]
    return len(stages) == len(plan.units) <= SMALL_STAGES and sum(plan.cost(s) for s in stages) <= SMALL_COST


ENOUGH_ROWS = 16
"""Rows that give enough chunks to share."""


def best_rows(plan: StagePlan, group: Group) -> tuple[int, list[Rows]]:
    """The number of rows to use, 0 for none: single elements when all positions move evenly with them, else what
    leaves contiguous axes to inner loops, gives enough rows, finishes folds in a row, and then the most rows."""
    for count in sorted(group.choices, key=typical, reverse=True):
        ways = group.choices[count]
        if all(_flat(plan, s, w, count) for s, w in zip(group.stages, ways, strict=True)):
            return count, ways
    counts = [c for c in group.choices if not all(s.points == c for s in group.stages)] or list(group.choices)
    count = max(counts, key=lambda c: _merit(plan, group, c), default=0)
    return count, group.choices.get(count, [])


def _merit(plan: StagePlan, group: Group, count: int) -> tuple[int, bool, int, int]:
    """What makes a number of rows good, most important first."""
    ways = list(zip(group.stages, group.choices[count], strict=True))
    contiguous = sum(s.points == count or plan.inner_axis(s) not in w.axes for s, w in ways)
    finished = sum(
        s.kind is not Kind.FOLD or s.is_product or not w.column and set(s.kept) <= set(w.axes) for s, w in ways
    )
    return contiguous, typical(count) >= ENOUGH_ROWS, finished, typical(count)


def _flat(plan: StagePlan, stage: Stage, rows: Rows, count: int) -> bool:
    """Whether the stage has one point a row, at positions that move evenly with the number of the row."""
    if stage.points != count or stage.kind is Kind.LINE:
        return False
    flat = Variable("row", count)
    from_row = unflattened(stage, rows, flat)
    report = Access(plan.stored, plan.producers)
    stage.walk(report, from_row)
    return flat not in report.rigid and all(step_of(e, flat) is not None for e, _ in report.expressions())


def unflattened(stage: Stage, rows: Rows, row: Index) -> list[Index]:
    """Indices of the space whose row is `row`; the other axes keep the stage's own variables."""
    indices: list[Index] = list(stage.axes)
    rest = row
    for k, d in enumerate(rows.axes):
        stride = prod(stage.sizes[e] for e in rows.axes[k + 1 :])
        indices[d], rest = rest // stride, rest % stride
    return indices
