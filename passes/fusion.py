"""Fusion: cuts a graph into `fusion` nodes, each of which becomes one kernel, products for BLAS, views that those
read, and control nodes.

Stages (`ir/stages.py`) that share a loop over rows make a kernel when that is legal (`ir/schedule.py`) and pays; what
is small is put into one serial kernel, a small loop with all its iterations. The graph stays a graph: each fusion node
has its ops in a region.
"""

from __future__ import annotations

import functools
from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace

from ..ir import schedule
from ..ir.graph import Graph, Node, Value
from ..ir.op import Trait
from ..ir.ops import OPS
from ..ir.product_tiles import is_tiled
from ..ir.schedule import Group, Scheduler, form_of, is_flat, is_small, worth_sharing
from ..ir.sizes import typical
from ..ir.stages import Stage, StagePlan, has_own_stage
from ..ir.windows import steps_of
from .fusion_products import direct_product, is_large_product, reads_in_place
from .operands import arranged
from .rows_in_place import rows_in_place
from .window_products import enclosed

COPIED_SIZE = 1 << 16
"""Elements from which a view is copied by a kernel of its own: up to four times as fast as the runtime's routine for
all views, which needs no compiling."""

REPEATS = 3
"""From this many groups of one form on, each is a kernel of its own, which is compiled once."""


@functools.lru_cache(maxsize=8)
def fuse(graph: Graph) -> Graph:
    """The graph with everything that needs generated code in `fusion` nodes; regions inside are fused too.

    The last few are remembered: a pass looks at what fusion would make.
    """
    return _fused(*arranged(rows_in_place(graph, is_small_loop)))


def _fused(graph: Graph, ordered: Container[Value]) -> Graph:
    """A graph with operands in order, fused; `ordered` are those that have to be stored so."""
    return enclosed(_Fuser(graph, ordered).run())


@dataclass
class _Kernel:
    """Stages of one kernel in the making; `open` while others may be added."""

    stages: list[Stage] = field(default_factory=list)
    cost: int = 0
    open: bool = False
    node: Node | None = None


class _Fuser:
    """One graph on its way."""

    def __init__(self, graph: Graph, ordered: Container[Value]) -> None:
        self.graph, self.ordered = graph, ordered
        self.producers = {v: n for n in graph.nodes for v in n.outputs}
        self.in_place: set[Node] = set()
        """Views that products alone read, where they stand."""
        self.plan = StagePlan(graph, self._is_external, self._is_bare, ordered)
        self.kernel_of: dict[Value, int] = {}
        self.order = {v: k for k, v in enumerate((*graph.params, *self.producers))}

    def run(self) -> Graph:
        """The fused graph."""
        kernels = self._kernels(Scheduler(self.plan, worth_sharing, unroll=True).run())
        nodes = [self._fused_control(k.node) if k.node is not None else self._fusion(k.stages) for k in kernels]
        return Graph(self.graph.name, self.graph.params, tuple(nodes), self.graph.results, self.graph.notes)

    def _is_external(self, node: Node) -> bool:
        """Whether a node has a place of its own in the fused graph."""
        return is_external(node) or direct_product(node, self.producers) is not None

    def _is_bare(self, node: Node, readers: Container[Stage | Node]) -> bool:
        """Whether a node that has to be in memory needs no code: constants, and views of what is in memory anyway."""
        if node.op.has(Trait.VIEW) and self._is_read_in_place(node, readers):
            self.in_place.add(node)
            return True
        if node.op in (OPS.constant, OPS.literal, OPS.empty, OPS.reshape):
            return True
        if not node.op.has(Trait.VIEW) or node.output in self.ordered:
            return False
        root: Node | None = node
        while root is not None and root.op.has(Trait.VIEW):
            root = self.producers.get(root.inputs[0])
        in_memory = root is None or has_own_stage(root) or is_external(root)
        return in_memory and not self._deserves_kernel(node)

    def _deserves_kernel(self, view: Node) -> bool:
        """Whether a view that somebody wants as contiguous memory is so large that a kernel for its copy pays."""
        if typical(view.output.type.size) < COPIED_SIZE:
            return False
        found = steps_of(view.output, self.producers)
        return found is None or not found.is_whole(view.output.type.sizes)

    def _is_read_in_place(self, view: Node, readers: Container[Stage | Node]) -> bool:
        """Whether products read a view where it stands, directly or through other views."""
        assert isinstance(readers, dict)
        nodes = [r for r in readers if isinstance(r, Node)]
        return bool(nodes) and all(r in self.in_place or self._reads_in_place(r, view.output) for r in nodes)

    def _reads_in_place(self, node: Node, operand: Value) -> bool:
        """Whether a product reads `operand`, a view, where it stands."""
        if node.op is not OPS.dot_general:
            return False
        return direct_product(node, self.producers) is not None or reads_in_place(node, operand, self.producers)

    # Kernels of groups

    def _kernels(self, groups: Sequence[Group]) -> list[_Kernel]:
        """Puts small groups into common kernels; the others are kernels of their own."""
        forms = [self._form(g) for g in groups]
        kernels: list[_Kernel] = []
        for group, form in zip(groups, forms, strict=True):
            cost = sum(self.plan.cost(s) for s in group.stages)
            joinable = group.external is None and cost <= schedule.SMALL_COST and forms.count(form) < REPEATS
            number = self._find(kernels, group, cost) if joinable else None
            if number is None:
                kernels.append(_Kernel(open=joinable, node=group.external))
                number = len(kernels) - 1
            kernels[number].stages += group.stages
            kernels[number].cost += cost
            for unit in group.units:
                self.kernel_of.update(dict.fromkeys(unit.outputs, number))
        return kernels

    def _find(self, kernels: Sequence[_Kernel], group: Group, cost: int) -> int | None:
        """The first kernel that a small group may join."""
        reads = {v for s in group.stages for v in self.plan.sources(s)}
        first = max((self.kernel_of.get(v, 0) for v in reads), default=0)
        overwritten = {s.node.inputs[0] for s in group.stages if s.is_update}
        reading = [
            n
            for n, k in enumerate(kernels)
            if any(r.value in overwritten for s in k.stages for r in self.plan.access(s).reads)
        ]
        for number in range(max([first, *reading]), len(kernels)):
            kernel = kernels[number]
            count = len(kernel.stages) + len(group.stages)
            if kernel.open and kernel.cost + cost <= schedule.SMALL_COST and count <= schedule.SMALL_STAGES:
                return number
        return None

    def _form(self, group: Group) -> tuple[object, ...]:
        """What two groups have in common whose kernels are the same but for constants."""
        if group.external is not None:
            return (group.external,)
        sized = not is_flat(self.plan, group)
        return tuple(form_of(self.plan, s, sized) for s in group.stages)

    def _fusion(self, stages: Sequence[Stage]) -> Node:
        """The fusion node that computes the values of `stages` that are needed elsewhere."""
        members, params = self._members(stages)
        needed = self._needed_outside(members)
        outputs = [v for s in stages for v in s.outputs if v in needed]
        copies = {p: Value(p.type, p.hint) for p in params}
        body = []
        for member in members:
            made = tuple(Value(v.type, v.hint) for v in member.outputs)
            body.append(
                Node(member.op, tuple(copies[v] for v in member.inputs), member.attrs, made, member.loc, member.regions)
            )
            copies.update(zip(member.outputs, made, strict=True))
        name = "_".join(dict.fromkeys(s.node.op.name for s in stages[:3]))
        notes = {"writes": self._overwritten(stages, params, outputs, needed)}
        region = Graph(name, tuple(copies[p] for p in params), tuple(body), tuple(copies[v] for v in outputs), notes)
        return Node(OPS.fusion, tuple(params), {}, tuple(outputs), stages[-1].node.loc, (region,))

    def _overwritten(
        self, stages: Sequence[Stage], params: Sequence[Value], outputs: Sequence[Value], needed: Container[Value]
    ) -> dict[int, int]:
        """Output -> the param in whose memory it may be computed: updates of what nobody else needs."""
        found: dict[int, int] = {}
        bases = {s.value: s.node.inputs[0] for s in stages if s.is_update}
        for stage in (s for s in stages if s.is_update):
            base = stage.value
            while base in bases:
                base = bases[base]
            dies = base in params and base not in needed and self.plan.may_overwrite(base)
            if dies and stage.value in outputs and params.index(base) not in found.values():
                found[outputs.index(stage.value)] = params.index(base)
        return found

    def _members(self, stages: Sequence[Stage]) -> tuple[list[Node], list[Value]]:
        """The nodes of a kernel, in order, and the values it reads."""
        members = {s.node for s in stages}
        params: dict[Value, None] = {}
        pending = [s.node for s in stages]
        while pending:
            for x in pending.pop().inputs:
                producer = self.producers.get(x)
                if producer in members:
                    continue
                if producer is None or x in self.plan.stored:
                    params[x] = None
                else:
                    members.add(producer)
                    pending.append(producer)
        return [n for n in self.graph.nodes if n in members], sorted(params, key=self.order.__getitem__)

    def _needed_outside(self, members: Container[Node]) -> set[Value]:
        """The values that results or units outside of `members` read."""
        needed = set(self.graph.results)
        for unit in self.plan.units:
            node = unit if isinstance(unit, Node) else unit.node
            if node in members:
                continue
            needed.update(node.inputs if isinstance(unit, Node) else self.plan.sources(unit))
        return needed

    # Control

    def _fused_control(self, node: Node) -> Node:
        """A node that stays, with fused regions."""
        if not node.regions or node.op is OPS.fusion:
            return node
        if node.op is OPS.loop and is_small_loop(node):
            regions: tuple[Graph, ...] = (wrapped(node.regions[0]),)
        else:
            regions = tuple(_fused(r, self.ordered) for r in node.regions)
        return replace(node, regions=regions)


def is_external(node: Node) -> bool:
    """Whether a node is never part of a kernel: control, rows put in their place, and products for BLAS."""
    return node.op.has(Trait.CONTROL) or node.op is OPS.row_update or is_large_product(node) and not is_tiled(node)


# Small loops --------------------------------------------------------------------------------------------------------


def is_small_loop(node: Node) -> bool:
    """Whether a loop becomes one kernel with all its iterations."""
    body = node.regions[0]
    return bool(body.nodes) and not any(is_external(n) for n in body.nodes) and is_small(StagePlan(body))


def wrapped(body: Graph) -> Graph:
    """A loop body as one fusion node that gives every result which is not a param."""
    computed = tuple(dict.fromkeys(r for r in body.results if r not in body.params))
    params = tuple(Value(p.type, p.hint) for p in body.params)
    outer = {p: q for p, q in zip(body.params, params, strict=True)} | {r: Value(r.type, r.hint) for r in computed}
    region = Graph(body.name, body.params, body.nodes, computed)
    node = Node(OPS.fusion, params, {}, tuple(outer[r] for r in computed), body.nodes[-1].loc, (region,))
    return Graph(body.name, params, (node,) if computed else (), tuple(outer[r] for r in body.results), body.notes)
