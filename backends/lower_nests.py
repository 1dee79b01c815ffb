"""Plans the loops of a group of stages: one loop over rows, and inside it nests that several stages share.

Nothing is written here; `lower_groups.py` does that. All decisions follow from shapes and positions, never from the
machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import gcd

from ..ir.access import Access, Read, in_vectors, step_of
from ..ir.costs import DEAR
from ..ir.graph import Value
from ..ir.index import Constant, Index, Variable, substitute, unflatten, variables_of
from ..ir.loops import LANES
from ..ir.product_tiles import Columns, best_block, is_tiled
from ..ir.schedule import Group, Rows, best_rows
from ..ir.sizes import Undecided, divides, is_known, typical
from ..ir.stages import Kind, Stage, StagePlan
from .lower_builder import KernelBuilder
from .lower_depth import is_deep
from .lower_short import is_short, places
from .lower_spaces import Loop, merged_loops

FEWEST_LANES = 10
"""Loops of fewer rounds are written one by one: most lanes of a vector would be idle, and LLVM may make vectors across
rows of them."""

MOST_CUTS = 6
"""A loop is cut at no more places than these."""

LONG_CHAIN, LONG_LOOP = 2 * DEAR, 1024
"""Elements of so much work, in loops of so many, are computed in two vectors at a time: one chain of operations after
another leaves half of the processor idle, which cannot look far enough ahead."""

MOST_VECTORS = 4
"""A product works on at most so many vectors of its innermost axis at a time."""

TILED_COST = 8
"""Work besides tiled products that is written out for each element of a tile; more gets loops of its own."""



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

    @property
    def is_column(self) -> bool:
        """Whether the stage is complete only after the loop over rows."""
        return self.task in (Task.COLUMN_ARRAY, Task.COLUMN_SCALAR)

    @property
    def is_tiled(self) -> bool:
        """Whether the stage is a product that is computed in tiles of several rows."""
        return self.task is Task.ELEMENT and bool(self.extra) and bool(self.nest_axes) and is_tiled(self.stage.node)

    @property
    def columns(self) -> Columns:
        """The columns of a product along the innermost axis of its nest."""
        return Columns(self.stage.sizes[self.nest_axes[-1]], self.stage.value.dtype.bits // 32)

    @property
    def accumulates(self) -> bool:
        """Whether the stage keeps a running number while its nest runs."""
        return self.task in (Task.ROW_FOLD, Task.COLUMN_SCALAR)


def part_of(stage: Stage, rows: Rows, flat: bool) -> Part:
    """How a stage takes part in the nests of a row."""
    kept = [d for d in stage.kept if d not in rows.axes and stage.sizes[d] != 1]
    folded = [d for d in stage.folded if d not in rows.axes and stage.sizes[d] != 1]
    if stage.kind is Kind.LINE and not (kept and is_short(stage, folded)):
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


@dataclass
class Piece:
    """A run of rounds of the innermost loop as a loop of its own.

    Attributes:
        start: the first round.
        variable: counts from there.
        vectors: how many vectors of LANES rounds are done at a time, 0 for single rounds.
    """

    start: int
    variable: Variable
    vectors: int = 0

    @property
    def size(self) -> int:
        """The number of rounds."""
        return self.variable.size  # type: ignore[return-value]

    @property
    def index(self) -> Index:
        """The round of the whole loop."""
        return self.start + (Constant(0) if self.size == 1 else self.variable)

    @property
    def stepping(self) -> Variable:
        """The variable while it counts in whole steps (of more than one value, so that it stays a variable)."""
        if not is_known(self.size):
            return self.variable
        return Variable(self.variable.name, max(self.size - self.step + 1, 2))

    @property
    def step(self) -> int:
        """The rounds that are done at a time."""
        return self.vectors * LANES or 1


@dataclass
class Nest:
    """Loops that several stages share inside a row.

    Attributes:
        sizes: the trip counts before merging.
        parts: the stages.
        loops: the merged loops.
        pieces: the innermost loop, cut where conditions on its variable change.
        deep: whether its only stage is a product of long rows, which comes before all others.
        tiled: whether the row loop and the innermost loop go through memory in tiles, for the sake of transposed
            operands.
    """

    sizes: tuple[int, ...]
    parts: list[Part] = field(default_factory=list)
    loops: list[Loop] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    deep: bool = False
    tiled: bool = False

    @property
    def lanes(self) -> bool:
        """Whether accumulators are vectors."""
        return any(p.vectors for p in self.pieces)

    @property
    def products(self) -> list[Part]:
        """The products that are computed in tiles of several rows."""
        return [p for p in self.parts if p.is_tiled] if any(p.vectors for p in self.pieces) else []

    @property
    def is_line(self) -> bool:
        """Whether its only stage goes along lines."""
        return any(p.task is Task.LINE for p in self.parts)

    def indices(self, last: Index) -> list[Index]:
        """The index of each axis, from the loops' variables and the index `last` of the innermost loop."""
        indices: list[Index] = [Constant(0)] * len(self.sizes)
        for loop in self.loops:
            index = last if loop is self.loops[-1] else loop.variable
            for k, part in zip(loop.dims, unflatten(index, [self.sizes[k] for k in loop.dims]), strict=True):
                indices[k] = part
        return indices


class GroupPlan:
    """The loops of one group.

    Attributes:
        count: the number of rows.
        flat: whether each row is one point, so that the row loop is the loop of the only nest.
        row: the variable of the row loop; None when there is none.
        block: how many rows are done at a time, for the sake of products.
        parts: stage -> its part.
        nests: in order; `nest_of` has the number of the nest of each stage.
    """

    def __init__(self, builder: KernelBuilder, plan: StagePlan, group: Group) -> None:
        self.builder, self.plan, self.group = builder, plan, group
        self.count, ways = best_rows(plan, group)
        if not ways:
            self.count, ways = 1, [Rows(1, ()) for _ in group.stages]
        points_only = all(s.points == self.count and s.kind is not Kind.LINE for s in group.stages)
        self.flat = typical(self.count) > 1 and points_only
        has_rows = typical(self.count) > 1 and not self.flat
        self.row = Variable(builder.name("row"), self.count) if has_rows else None
        self.parts = {s: part_of(s, w, self.flat) for s, w in zip(group.stages, ways, strict=True)}
        self.nests: list[Nest] = []
        self.nest_of: dict[Stage, int] = {}
        for part in self.parts.values():
            self._add(part)
        self.block = self._rows_at_once()
        for nest in self.nests:
            self._plan_loops(nest)
        if not any(nest.products for nest in self.nests):
            self.block = 1
        for nest in self.nests:
            nest.deep = self.block > 1 and bool(nest.products) and self.is_deep(nest.parts[0])

    @property
    def is_tiled(self) -> bool:
        """Whether rows are visited in tiles of LANES."""
        return any(nest.tiled for nest in self.nests)

    def is_deep(self, part: Part) -> bool:
        """Whether a part is a product of long rows that reads nothing of what the group computes."""
        if not part.is_tiled or not is_deep(part.stage):
            return False
        return not any(r.value in self.group.values() for r in self.plan.access(part.stage).reads)

    def columns(self) -> Iterator[tuple[Nest, Part]]:
        """The column folds, with their nests."""
        return ((nest, part) for nest in self.nests for part in nest.parts if part.is_column)

    def read_later(self, value: Value) -> bool:
        """Whether another nest of the group reads `value`."""
        own = self.nest_of[self.plan.stage_of[value]]
        return any(r.value is value for s, n in self.nest_of.items() if n != own for r in self.plan.access(s).reads)

    def indices(self, part: Part, nest: Sequence[Index], row: Index | None = None) -> list[Index]:
        """Indices of a stage's space at a point of the nest, in a row or in that of `self.row`; axes that are neither
        rows nor the nest's keep their own variables."""
        space: list[Index] = [
            Constant(0) if n == 1 else a for n, a in zip(part.stage.sizes, part.stage.axes, strict=True)
        ]
        row = nest[0] if self.flat else row or self.row
        if row is not None:
            sizes = [part.stage.sizes[d] for d in part.rows.axes]
            space = _replaced(space, part.rows.axes, unflatten(row, sizes))
        return space if self.flat else _replaced(space, part.nest_axes, nest)

    def report(self, nest: Nest, indices: Sequence[Index]) -> Access:
        """What the stages of a nest need at a point."""
        report = Access(self.plan.stored, self.plan.producers)
        for part in nest.parts:
            at = self.indices(part, indices)
            for point in places(part.stage, part.extra, at) if is_short(part.stage, part.extra) else [at]:
                part.stage.walk(report, point)
        return report

    # Which stages share a nest

    def _add(self, part: Part) -> None:
        """Puts a stage into the first nest that it may join, or into a new one."""
        sizes = self._sizes(part)
        number = self._find(part, sizes)
        if number is None:
            self.nests.append(Nest(sizes))
            number = len(self.nests) - 1
        self.nests[number].parts.append(part)
        self.nest_of[part.stage] = number

    def _sizes(self, part: Part) -> tuple[int, ...]:
        return (self.count,) if self.flat else tuple(part.stage.sizes[d] for d in part.nest_axes)

    def _find(self, part: Part, sizes: tuple[int, ...]) -> int | None:
        """The number of an earlier nest that `part` may join."""
        if part.task is Task.LINE:
            return None
        inside = []
        for read in self.plan.access(part.stage).reads:
            producer = self.plan.stage_of.get(read.value)
            if producer in self.nest_of:
                inside.append((read, producer))
        earliest = max((self.nest_of[s] for _, s in inside), default=0)
        for number in range(earliest, len(self.nests)):
            nest, here = self.nests[number], [(r, s) for r, s in inside if self.nest_of[s] == number]
            if (
                nest.sizes == sizes
                and not nest.is_line
                and self._suits_tiles(part, nest)
                and all(self._same_point(part, r, self.parts[s]) for r, s in here)
            ):
                return number
        return None

    def _suits_tiles(self, part: Part, nest: Nest) -> bool:
        """Whether a nest has no tiled product, or the group does little besides, and folds no row there: that is
        written out for each point of a tile."""
        parts = [*nest.parts, part]
        if not any(p.is_tiled for p in parts):
            return True
        cost = sum(self.plan.access(s).cost for s in self.group.stages if not is_tiled(s.node))
        if any(self.is_deep(p) for p in parts):
            return False
        return cost <= TILED_COST and all(p.task is not Task.ROW_FOLD for p in parts)

    def _same_point(self, part: Part, read: Read, producer: Part) -> bool:
        """Whether `part` reads, at each point of the nest, just the element that `producer` has given there."""
        if producer.task is not Task.ELEMENT:
            return False
        nest = [Variable(f"n{k}", n) for k, n in enumerate(self._sizes(producer))]
        here = dict(zip(part.stage.axes, self.indices(part, nest), strict=True))
        return substitute(read.position, here) == producer.stage.output_position(self.indices(producer, nest))

    # How the loops of a nest run

    def _rows_at_once(self) -> int:
        """How many rows suit the products of the group. Operands may change where the last axis of the rows ends."""
        products = [p for p in self.parts.values() if p.is_tiled and p.columns.vectors]
        if self.row is None or not products:
            return 1
        many = [p.stage.sizes[p.rows.axes[-1]] for p in products if len(p.rows.axes) > 1]
        return best_block(self.count, gcd(*many), [p.columns for p in products])[0]

    def _plan_loops(self, nest: Nest) -> None:
        """Merges axes where all positions allow it, and decides how the innermost loop runs."""
        probes = [Variable(f"n{k}", n) for k, n in enumerate(nest.sizes)]
        if nest.is_line:
            nest.loops = [Loop(self.builder.variable("j", n), (k,)) for k, n in enumerate(nest.sizes)]
        else:
            nest.loops = merged_loops(self.builder, nest.sizes, self._expressions(nest, probes), probes)
        if not nest.loops:
            return
        last = nest.loops[-1]
        inside = [] if nest.is_line else cuts(self.report(nest, nest.indices(last.variable)), last.variable)
        ends = [0, *inside, last.size]
        names = [last.variable.name, *(self.builder.name(last.variable.name) for _ in ends[2:])]
        nest.pieces = [Piece(a, Variable(n, b - a)) for n, a, b in zip(names, ends, ends[1:], strict=False)]
        for piece in nest.pieces:
            piece.vectors = self._vectors(nest, piece)
        nest.pieces = [p for piece in nest.pieces for p in self._whole_and_rest(piece)]
        for piece in nest.pieces:
            while piece.vectors and not self._all_are_vectors(nest, piece):
                piece.vectors = min(piece.vectors - 1, 1)
        nest.tiled = self._is_transposed(nest)

    def _expressions(self, nest: Nest, probes: Sequence[Variable]) -> list[tuple[Index, int]]:
        """Every position that the nest touches, about `probes`."""
        found = list(self.report(nest, probes).expressions())
        for part in nest.parts:
            if not part.accumulates:
                position = part.stage.output_position(self.indices(part, probes))
                found.append((position, part.stage.value.type.size))
        return found

    def _vectors(self, nest: Nest, piece: Piece) -> int:
        """How many vectors at a time a piece does: none when it is short or vectors are impossible."""
        products = any(p.extra for p in nest.parts)
        if typical(piece.size) < FEWEST_LANES or nest.is_line:
            return 0
        indices = nest.indices(piece.index)
        even = all(p.accumulates or self._output_step(p, indices, piece.variable) == 1 for p in nest.parts)
        report = self.report(nest, indices)
        if not even or not report.can_be_vector(piece.variable):
            return 0
        if self.flat:
            return 2 if report.cost >= LONG_CHAIN and typical(piece.size) >= LONG_LOOP else 1
        tiled = [p for p in nest.parts if p.is_tiled]
        if tiled and self.block > 1:
            return Columns(piece.size, tiled[0].columns.registers).widest(self.block)
        fitting = [n for n in range(1, MOST_VECTORS + 1) if divides(n * LANES, piece.size)]
        return max(fitting, default=1) if products else 1

    def _all_are_vectors(self, nest: Nest, piece: Piece) -> bool:
        """Whether each vector of a step can be computed: positions of a later one may be written in another way than
        those of the first, of which nobody sees that they are contiguous."""
        points = (nest.indices(piece.start + piece.stepping + k * LANES) for k in range(piece.vectors))
        return all(self.report(nest, indices).can_be_vector(piece.stepping) for indices in points)

    def _whole_and_rest(self, piece: Piece) -> list[Piece]:
        """A piece cut where no more whole steps fit but a vector does."""
        if self.flat or piece.vectors < 2 or not is_known(piece.size) or piece.size % piece.step < LANES:
            return [piece]
        whole, rest = piece.size // piece.step * piece.step, piece.size % piece.step
        name = self.builder.name(piece.variable.name)
        return [
            Piece(piece.start, Variable(piece.variable.name, whole), piece.vectors),
            Piece(piece.start + whole, Variable(name, rest), rest // LANES),
        ]

    def _output_step(self, part: Part, indices: Sequence[Index], variable: Variable) -> int | None:
        return step_of(part.stage.output_position(self.indices(part, indices)), variable)

    def _is_transposed(self, nest: Nest) -> bool:
        """Whether the only nest reads memory that is contiguous along the rows."""
        alone = self.row is not None and len(self.nests) == 1 and len(nest.loops) == len(nest.pieces) == 1
        tasks = (Task.ELEMENT, Task.COLUMN_ARRAY)
        if not alone or nest.pieces[0].vectors or any(p.task not in tasks or p.extra for p in nest.parts):
            return False
        last, turned = nest.loops[-1].variable, self.transposed(nest)
        if not turned or min(typical(self.count), typical(last.size)) < LANES:
            return False
        indices = nest.indices(last)
        report = self.report(nest, indices)
        if last in report.rigid or not all(r in turned or in_vectors(r, last) for r in report.reads):
            return False
        steps = [step_of(p, last) for p in report.positions] + [self._output_step(p, indices, last) for p in nest.parts]
        return set(steps) <= {0, 1}

    def transposed(self, nest: Nest) -> list[Read]:
        """The reads of a nest that are contiguous along the rows, upward or downward, and not along its loop."""
        assert self.row is not None
        row, last = self.row, nest.loops[-1].variable
        reads = self.report(nest, nest.indices(last)).reads
        plain = [r for r in reads if set(variables_of(r.position)) <= {row, last}]
        return [r for r in plain if step_of(r.position, row) in (1, -1) and step_of(r.position, last) not in (0, 1, -1)]


def _replaced(space: Sequence[Index], axes: Sequence[int], indices: Sequence[Index]) -> list[Index]:
    """`space` with the indices of some axes replaced."""
    new = dict(zip(axes, indices, strict=True))
    return [new.get(d, index) for d, index in enumerate(space)]


def cuts(report: Access, variable: Variable) -> list[int]:
    """The rounds of a loop at which conditions on its variable change; none when they are too many."""
    found = {b for bound in report.bounds if bound.expression == variable for b in (bound.low, bound.high)}
    try:
        inside = sorted(b for b in found if variable.low < b <= variable.high)
    except Undecided:  # symbolic sizes say nothing of the order
        return []
    return inside if len(inside) <= MOST_CUTS else []
