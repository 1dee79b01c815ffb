"""Stages: the values of a graph that get a loop nest, and the space that each nest walks through.

Everything else is inlined into the stages that read it. Fusion groups stages into kernels, lowering turns them into
loops.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from math import prod

from .access import Access, contiguous_axis, step_of
from .costs import CHEAP, DEAR, op_cost
from .graph import Graph, Node, Value
from .index import Index, IndexLike, Variable, as_index, disjoint, flatten, unflatten, variables
from .op import Trait
from .points import Walker
from .sizes import typical
from .types import Axes

REDUCTIONS = {
    "sum": "add",
    "prod": "mul",
    "amax": "maximum",
    "amin": "minimum",
    "any": "logical_or",
    "all": "logical_and",
}
"""Reduction op -> the word that joins two elements."""

CUMULATIVE = {"cumsum": "add", "cumprod": "mul", "cummax": "maximum", "cummin": "minimum"}
"""Running op -> the word that joins two elements."""


class Kind(Enum):
    """What the nest of a stage does."""

    MAP = "computes every element from elements of other values"
    FOLD = "folds some axes with an associative word (dot_general folds products)"
    LINE = "goes along one axis: running folds, positions of extremes, sorting"
    UPDATE = "writes a part of a buffer that holds the first input"
    SCATTER = "writes places that are data, in order, into a buffer that holds the first input"


@dataclass(frozen=True, eq=False)
class Stage:
    """A loop nest.

    Attributes:
        kind: what it does.
        node: the node whose outputs it computes.
        sizes: the space that it walks through.
        kept: axes of the space that the outputs have, in the outputs' order.
        folded: the other axes.
    """

    kind: Kind
    node: Node
    sizes: Axes
    kept: Axes
    folded: Axes

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The values that it computes."""
        return self.node.outputs

    @property
    def value(self) -> Value:
        """The first output."""
        return self.node.outputs[0]

    @property
    def hint(self) -> str:
        """What locals that hold its elements are called."""
        return self.value.hint or self.node.op.name

    @cached_property
    def axes(self) -> tuple[Variable, ...]:
        """One variable per axis of the space."""
        return variables(self.sizes, "a")

    @property
    def is_update(self) -> bool:
        """Whether it overwrites a part of its node's first input."""
        return self.kind in (Kind.UPDATE, Kind.SCATTER)

    @property
    def points(self) -> int:
        """The number of points of the space."""
        return prod(self.sizes)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to compute."""
        return all(v.type.size == 0 for v in self.outputs) or (self.is_update and self.points == 0)

    @property
    def join(self) -> str:
        """The word that joins two accumulators of a fold."""
        return REDUCTIONS.get(self.node.op.name, "add")

    @property
    def is_product(self) -> bool:
        """Whether this is a dot_general."""
        return self.node.op.name == "dot_general"

    def output_position(self, indices: Sequence[IndexLike]) -> Index:
        """Where the element computed at `indices` of the space stands in the output; with all axes kept for LINE."""
        kept = (
            self.kept
            if self.kind is not Kind.LINE or self.node.outputs[0].type.rank == len(self.kept)
            else range(len(self.sizes))
        )
        return flatten([indices[d] for d in kept], [self.sizes[d] for d in kept])

    def operands(self, indices: Sequence[IndexLike]) -> list[tuple[Value, list[Index]]]:
        """The points that one point of the space needs; for a MAP, the point of the value itself."""
        at = [as_index(i) for i in indices]
        if self.is_product:
            left, right = product_axes(self.node)
            return [(self.node.inputs[0], [at[d] for d in left]), (self.node.inputs[1], [at[d] for d in right])]
        match self.kind:
            case Kind.MAP:
                return [(self.value, at)]
            case Kind.UPDATE:
                return [(self.node.inputs[1], at), *((s, []) for s in self.node.inputs[2:])]
            case Kind.SCATTER:
                rank = self.node.inputs[2].type.rank
                return [(self.node.inputs[1], at), *((i, at[:rank]) for i in self.node.inputs[2:])]
        return [(self.node.inputs[0], at)]

    def walk(self, walker: Walker, indices: Sequence[IndexLike]) -> list[object]:
        """The elements of all operands at one point of the space."""
        if self.kind is Kind.MAP:
            return [walker.computed(self.value, indices)]
        return [walker.at(v, i) for v, i in self.operands(indices)]

    def access(self, stored: Container[Value], producers: Mapping[Value, Node]) -> Access:
        """What one point needs, with one variable per axis."""
        report = Access(stored, producers)
        self.walk(report, self.axes)
        return report

    def own_cost(self) -> int:
        """The work of one point beyond its operands."""
        match self.kind:
            case Kind.LINE:
                length = typical(self.sizes[self.folded[0]])
                return DEAR * max(1, length.bit_length()) if self.node.op.name == "sort" else 4 * CHEAP
            case Kind.SCATTER:
                return 4 * CHEAP
        return CHEAP


def never_meet(a: Index, b: Index, sizes: Axes) -> bool:
    """Whether two positions in one value are different, each for all values of its variables."""
    return any(disjoint(i, j) for i, j in zip(unflatten(a, sizes), unflatten(b, sizes), strict=True))


def target_position(node: Node, indices: Sequence[IndexLike], starts: Sequence[IndexLike] | None = None) -> Index:
    """The position in the base of element `indices` of an update; `starts` are those of a dynamic_update."""
    attrs, sizes = node.attrs, node.inputs[0].type.sizes
    moved = [as_index(i) for i in indices]
    match node.op.name:
        case "slice_update":
            return flatten(
                [i * step + start for i, step, start in zip(moved, attrs["steps"], attrs["starts"], strict=True)], sizes
            )
        case "as_strided_update":
            return sum(
                (i * stride for i, stride in zip(moved, attrs["strides"], strict=True)), as_index(attrs["offset"])
            )
    assert starts is not None
    return flatten([i + start for i, start in zip(moved, starts, strict=True)], sizes)


def product_axes(node: Node) -> tuple[list[int], list[int]]:
    """For a dot_general: the axes of its space (batch, free left, free right, contracted) that the axes of each
    operand are."""
    x, y = node.inputs
    batch, rhs_batch, contract, rhs_contract = (
        node.attrs[k] for k in ("lhs_batch", "rhs_batch", "lhs_contract", "rhs_contract")
    )
    left = [d for d in range(x.type.rank) if d not in batch and d not in contract]
    right = [d for d in range(y.type.rank) if d not in rhs_batch and d not in rhs_contract]
    kept = len(batch) + len(left) + len(right)
    of_left = {d: k for k, d in enumerate((*batch, *left))} | {d: kept + k for k, d in enumerate(contract)}
    of_right = (
        {d: k for k, d in enumerate(rhs_batch)}
        | {d: len(batch) + len(left) + k for k, d in enumerate(right)}
        | {d: kept + k for k, d in enumerate(rhs_contract)}
    )
    return [of_left[d] for d in range(x.type.rank)], [of_right[d] for d in range(y.type.rank)]


def stage_of(node: Node) -> Stage:
    """The stage that computes the outputs of `node` into memory."""
    make = _MAKERS.get(node.op.name, _map_stage)
    return make(node)


def has_own_stage(node: Node) -> bool:
    """Whether the op always needs a loop nest of its own: it has no single elements that could be inlined."""
    return node.op.name in _MAKERS


def _map_stage(node: Node) -> Stage:
    sizes = node.output.type.sizes
    return Stage(Kind.MAP, node, sizes, tuple(range(len(sizes))), ())


def _reduction_stage(node: Node) -> Stage:
    sizes, dims = node.inputs[0].type.sizes, node.attrs["dims"]
    return Stage(Kind.FOLD, node, sizes, tuple(d for d in range(len(sizes)) if d not in dims), tuple(dims))


def _product_stage(node: Node) -> Stage:
    left, right = product_axes(node)
    by_axis = dict(zip(left, node.inputs[0].type.sizes, strict=True)) | dict(
        zip(right, node.inputs[1].type.sizes, strict=True)
    )
    sizes = tuple(by_axis[d] for d in range(len(by_axis)))
    kept = len(sizes) - len(node.attrs["lhs_contract"])
    return Stage(Kind.FOLD, node, sizes, tuple(range(kept)), tuple(range(kept, len(sizes))))


def _line_stage(node: Node) -> Stage:
    sizes, dim = node.inputs[0].type.sizes, node.attrs["dim"]
    return Stage(Kind.LINE, node, sizes, tuple(d for d in range(len(sizes)) if d != dim), (dim,))


def _update_stage(node: Node) -> Stage:
    sizes = node.inputs[1].type.sizes
    return Stage(Kind.UPDATE, node, sizes, tuple(range(len(sizes))), ())


def _scatter_stage(node: Node) -> Stage:
    sizes = node.inputs[1].type.sizes
    return Stage(Kind.SCATTER, node, sizes, tuple(range(len(sizes))), ())


_MAKERS: Mapping[str, Callable[[Node], Stage]] = {
    **dict.fromkeys(REDUCTIONS, _reduction_stage),
    **dict.fromkeys(CUMULATIVE, _line_stage),
    "dot_general": _product_stage,
    "argmax": _line_stage,
    "argmin": _line_stage,
    "sort": _line_stage,
    "scatter": _scatter_stage,
    "slice_update": _update_stage,
    "as_strided_update": _update_stage,
    "dynamic_update": _update_stage,
}


# Which values get a stage -------------------------------------------------------------------------------------------

REPEATED_COST = 3 * CHEAP
"""An element that costs at most this is computed again by each stage that reads it, rather than stored."""

AMPLIFICATION = 4
"""How many times as many points a stage may have as a value that is computed there instead of once."""


class StagePlan:
    """The stages of a graph, and the nodes that are no stages but read whole values, in order.

    Args:
        external: nodes that are never part of a stage.
        bare: nodes that stay as they stand when their output has to be in memory.
        pinned: values that have to be stored.

    Attributes:
        units: stages and external nodes.
        stage_of: value -> the stage that computes it.
        producers: value -> its node.
    """

    def __init__(
        self,
        graph: Graph,
        external: Callable[[Node], bool] = lambda node: False,
        bare: Callable[[Node, Container[Stage | Node]], bool] = lambda node, readers: False,
        pinned: Container[Value] = (),
    ) -> None:
        self.graph = graph
        self.producers = {v: n for n in graph.nodes for v in n.outputs}
        self.stored: set[Value] = set(graph.params)
        self.stage_of: dict[Value, Stage] = {}
        self.units: list[Stage | Node] = []
        self._external, self._bare, self._pinned = external, bare, pinned
        self._uses = Counter([v for n in graph.nodes for v in n.inputs] + list(graph.results))
        self._accesses: dict[Stage, Access] = {}
        self._inner_axes: dict[Stage, int] = {}
        self._sources: dict[Stage, set[Value]] = {}
        self._choose()

    def access(self, stage: Stage) -> Access:
        """What one point of a stage needs."""
        if stage not in self._accesses:
            self._accesses[stage] = stage.access(self.stored, self.producers)
        return self._accesses[stage]

    def sources(self, stage: Stage) -> set[Value]:
        """The stored values that a stage is computed from, also those of which no element turns out to be needed."""
        if stage not in self._sources:
            found: set[Value] = set()
            pending, seen = [stage.node], {stage.node}
            while pending:
                for x in pending.pop().inputs:
                    node = self.producers.get(x)
                    if x in self.stored or node is None:
                        found.add(x)
                    elif node not in seen:
                        seen.add(node)
                        pending.append(node)
            self._sources[stage] = found
        return self._sources[stage]

    def inner_axis(self, stage: Stage) -> int:
        """The axis of a stage's space along which most of what it reads is contiguous; -1 when it has but one point."""
        if stage not in self._inner_axes:
            expressions = self.access(stage).expressions()
            wide = [d for d, n in enumerate(stage.sizes) if typical(n) > 1]
            if stage.is_product:  # its result is best computed in vectors, if only an operand can be read so
                runs = [
                    d for d in stage.kept if d in wide and any(step_of(e, stage.axes[d]) == 1 for e, _ in expressions)
                ]
                wide = runs or wide
            self._inner_axes[stage] = contiguous_axis(expressions, stage.axes, wide)
        return self._inner_axes[stage]

    def cost(self, stage: Stage) -> int:
        """The work of a stage, to decide by."""
        return typical(self.work(stage))

    def work(self, stage: Stage) -> int:
        """The work of a stage."""
        access = self.access(stage)
        return stage.points * (access.cost + stage.own_cost()) + access.once

    def _choose(self) -> None:
        results = set(self.graph.results)
        closures = self._closure_costs()
        readers: dict[Value, dict[Stage | Node, None]] = {}
        units: list[Stage | Node] = []
        for node in reversed(self.graph.nodes):
            outputs = node.outputs
            if not any(v in results or v in readers for v in outputs):
                continue
            by = {r: None for v in outputs for r in readers.get(v, ())}
            unit: Stage | Node | None = None
            if self._external(node):
                unit = node
            elif self._has_own_stage(node) or outputs[0] in results or not self._inline(node, by, closures[outputs[0]]):
                unit = node if self._bare(node, by) else self._stage_for(node, readers)
                if isinstance(unit, Stage):
                    self.stage_of.update(dict.fromkeys(outputs, unit))
            if unit is not None:
                units.append(unit)
                self.stored.update(outputs)
            for x in node.inputs:
                readers.setdefault(x, {}).update({unit: None} if unit is not None else by)
        self.units = _updates_last(units[::-1], readers)

    def _has_own_stage(self, node: Node) -> bool:
        """Whether a node always gets a loop nest of its own."""
        return has_own_stage(node) and not self._fills_part(node)

    def _fills_part(self, node: Node) -> bool:
        """Whether a node only puts a piece beside what is computed for it alone, rather than changes memory."""
        if node.op.name != "slice_update" or self._uses[node.inputs[0]] > 1:
            return False
        base, update = node.inputs
        maker = self.producers.get(base)
        if maker is None or self._external(maker) or self._has_own_stage(maker) or set(node.attrs["steps"]) != {1}:
            return False
        return base.type.sizes[:-1] == update.type.sizes[:-1] and 4 * update.type.size >= base.type.size

    def _stage_for(self, node: Node, readers: Container[Value]) -> Stage:
        """The stage of a node. For an update of most of its base from neighbours, or of a base that stays as it was, a
        map, which writes it all once."""
        stage = stage_of(node)
        if node.op.name == "slice_update":
            base, update = node.inputs
            large = 2 * update.type.size >= base.type.size and self._touches(update, base)
            if self._fills_part(node) or large and not (self._dies(base, readers) and self._reads_in_time(stage)):
                return _map_stage(node)
        return stage

    def _dies(self, base: Value, readers: Container[Value]) -> bool:
        """Whether nobody needs the base of an update as it was."""
        return self.may_overwrite(base) and base not in readers and base not in self.graph.results

    def may_overwrite(self, value: Value) -> bool:
        """Whether the memory of a value is the graph's own: not that of a param, unless a result is to be there."""
        written = self.graph.notes.get("writes", {}).values()
        return value not in self.graph.params or self.graph.params.index(value) in written

    def _closure_costs(self) -> dict[Value, int]:
        """For each value without a stage of its own, the work of one element from stored values; 0 where it is only
        looked up."""
        costs: dict[Value, int] = {}
        for node in self.graph.nodes:
            own = 0
            if not (self._has_own_stage(node) or self._external(node)):
                own = sum(costs.get(x, 0) for x in node.inputs) + walk_cost(node)
            costs.update(dict.fromkeys(node.outputs, own))
        return costs

    def _inline(self, node: Node, readers: Container[Stage | Node], cost: int) -> bool:
        """Whether the elements of `node` are computed where they are read."""
        assert isinstance(readers, dict)
        if node.output in self._pinned or any(
            not isinstance(r, Stage) or self._overwrites(r, node.output) for r in readers
        ):
            return False
        if cost == 0 or walk_cost(node) == 0:
            return True
        size = typical(node.output.type.size)
        if any(isinstance(r, Stage) and r.is_product and typical(r.points) > 2 * size for r in readers):
            return False
        if size > 1 and cost > REPEATED_COST and any(typical(r.points) > AMPLIFICATION * size for r in readers):
            return False
        return len(readers) <= 1 or cost <= REPEATED_COST

    def _overwrites(self, reader: Stage, value: Value) -> bool:
        """Whether a stage changes memory in place that `value` is, or from which it would be computed too late."""
        if not reader.is_update:
            return False
        base = reader.node.inputs[0]
        return value is base or self._touches(value, base) and not self._reads_in_time(reader)

    def _reads_in_time(self, update: Stage) -> bool:
        """Whether an update reads no element of its base after it may have overwritten it: only that which it is about
        to overwrite, or such as it never does."""
        node, base = update.node, update.node.inputs[0]
        if update.kind is not Kind.UPDATE or node.op.name == "dynamic_update":
            return False
        place = target_position(node, update.axes)
        reads = [r for r in update.access(_Whole(self, base), self.producers).reads if r.value is base]
        return all(r.position == place or never_meet(r.position, place, base.type.sizes) for r in reads)

    def _touches(self, value: Value, base: Value) -> bool:
        """Whether `value` is computed from `base`."""
        pending, seen = [value], {value}
        while pending:
            current = pending.pop()
            if current is base:
                return True
            node = self.producers.get(current)
            for x in node.inputs if node is not None and current not in self.stored else ():
                if x not in seen:
                    seen.add(x)
                    pending.append(x)
        return False


@dataclass(frozen=True)
class _Whole:
    """The values that are whole before an update of `base` begins, for all that a plan knows by then."""

    plan: StagePlan
    base: Value

    def __contains__(self, value: object) -> bool:
        if value is self.base or value in self.plan.stored:
            return True
        assert isinstance(value, Value)
        maker = self.plan.producers[value]
        return has_own_stage(maker) or self.plan._external(maker)


def _updates_last(units: list[Stage | Node], readers: Mapping[Value, Container[Stage | Node]]) -> list[Stage | Node]:
    """The units with updates that nobody reads moved to the end, where they can overwrite what others have read by
    then."""
    late = [u for u in units if isinstance(u, Stage) and u.node.op.has(Trait.UPDATE) and not readers.get(u.value)]
    return [u for u in units if u not in late] + late


def walk_cost(node: Node) -> int:
    """The work that a node adds to each element that is computed through it."""
    if node.op.has(Trait.ELEMENTWISE):
        return op_cost(node.op)
    if node.op.has(Trait.RANDOM):
        return 3 * DEAR
    return CHEAP if node.op.has(Trait.PIECEWISE) or node.op.has(Trait.UPDATE) or node.op.has(Trait.INDEXED) else 0
