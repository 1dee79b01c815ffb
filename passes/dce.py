"""Dead code: what no result needs is left out, carried slots, operands and results of regions included.

Every op is pure, so a dead node has no effect. A dead node with an index out of range therefore raises no error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from ..ir.graph import Graph, Node, Value
from ..ir.ops import OPS
from .options import Options


@dataclass(frozen=True)
class DeadCode:
    """Leaves out what no result needs. Params stay; the meaning of the results is unchanged."""

    name: str = field(default="dce", init=False)

    def __call__(self, graph: Graph, options: Options) -> Graph:
        """The graph without dead code; the same object when there is none."""
        return live_part(graph, graph.results)


def live_part(graph: Graph, results: Sequence[Value]) -> Graph:
    """`graph` with these of its results, and only the nodes that they need."""
    live, kept = set(results), []
    for node in reversed(graph.nodes):
        if any(v in live for v in node.outputs):
            node = TRIMMERS[node.op](node, live) if node.op in TRIMMERS else node
            live.update(node.inputs)
            kept.append(node)
    kept.reverse()
    unchanged = len(kept) == len(graph.nodes) and all(a is b for a, b in zip(kept, graph.nodes, strict=True))
    if (
        unchanged
        and len(results) == len(graph.results)
        and all(a is b for a, b in zip(results, graph.results, strict=True))
    ):
        return graph
    return Graph(graph.name, graph.params, tuple(kept), tuple(results), graph.notes)


def used_values(graph: Graph) -> set[Value]:
    """The values that nodes or results of `graph` read."""
    return {*graph.results, *(v for node in graph.nodes for v in node.inputs)}


def _pick(items: Sequence[Value], positions: Iterable[int]) -> tuple[Value, ...]:
    return tuple(items[k] for k in positions)


def _with_params(graph: Graph, params: Sequence[Value]) -> Graph:
    same = len(params) == len(graph.params)
    return graph if same else Graph(graph.name, tuple(params), graph.nodes, graph.results, graph.notes)


def _changed(
    node: Node, inputs: Sequence[Value], outputs: Sequence[Value], attrs: dict, regions: Sequence[Graph]
) -> Node:
    same_regions = all(a is b for a, b in zip(regions, node.regions, strict=True))
    if same_regions and len(inputs) == len(node.inputs) and len(outputs) == len(node.outputs):
        return node
    return replace(node, inputs=tuple(inputs), outputs=tuple(outputs), attrs=attrs, regions=tuple(regions))


def trim_loop(node: Node, live: set[Value]) -> Node:
    """The loop with only the slots, lasts and invariants that its live outputs need."""
    (body,), carried = node.regions, node.attrs["carried"]
    slots, lasts = {k for k in range(carried) if node.outputs[k] in live}, range(carried, len(node.outputs))
    kept_lasts = [k for k in lasts if node.outputs[k] in live]
    while True:
        kept = [*sorted(slots), *kept_lasts]
        trimmed = live_part(body, _pick(body.results, kept))
        used = used_values(trimmed)
        grown = slots | {k for k in range(carried) if body.params[1 + k] in used}
        if grown == slots:
            break
        slots = grown
    operands = [*sorted(slots), *(k for k in range(carried, len(node.inputs) - 2) if body.params[1 + k] in used)]
    trimmed = _with_params(trimmed, (body.params[0], *(body.params[1 + k] for k in operands)))
    inputs = (*node.inputs[:2], *(node.inputs[2 + k] for k in operands))
    return _changed(node, inputs, _pick(node.outputs, kept), {"carried": len(slots)}, (trimmed,))


def trim_while(node: Node, live: set[Value]) -> Node:
    """The loop with only the slots and invariants that its condition and its live outputs need."""
    (condition, body), carried = node.regions, node.attrs["carried"]
    tested = live_part(condition, condition.results)
    needed = {k for k, p in enumerate(tested.params) if p in used_values(tested)}
    slots = {k for k in range(carried) if node.outputs[k] in live or k in needed}
    while True:
        trimmed = live_part(body, _pick(body.results, sorted(slots)))
        used = used_values(trimmed)
        grown = slots | {k for k in range(carried) if body.params[k] in used}
        if grown == slots:
            break
        slots = grown
    operands = [*sorted(slots), *(k for k in range(carried, len(node.inputs)) if k in needed or body.params[k] in used)]
    regions = (
        _with_params(tested, _pick(tested.params, operands)),
        _with_params(trimmed, _pick(body.params, operands)),
    )
    return _changed(
        node, _pick(node.inputs, operands), _pick(node.outputs, sorted(slots)), {"carried": len(slots)}, regions
    )


def trim_cond(node: Node, live: set[Value]) -> Node:
    """The cond with only its live outputs, and the operands that either branch needs."""
    kept = [k for k, v in enumerate(node.outputs) if v in live]
    branches = [live_part(branch, _pick(branch.results, kept)) for branch in node.regions]
    used = [used_values(branch) for branch in branches]
    operands = [
        k for k in range(len(node.inputs) - 1) if any(b.params[k] in u for b, u in zip(branches, used, strict=True))
    ]
    regions = [_with_params(branch, _pick(branch.params, operands)) for branch in branches]
    inputs = (node.inputs[0], *(node.inputs[1 + k] for k in operands))
    return _changed(node, inputs, _pick(node.outputs, kept), {}, regions)


TRIMMERS = {OPS.loop: trim_loop, OPS.while_loop: trim_while, OPS.cond: trim_cond}
"""Op with regions -> (node, live values) -> the node with what it needs."""
