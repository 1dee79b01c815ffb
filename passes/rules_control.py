"""Rewrite rules of ops with regions: conditions and trip counts that are known, operands and carried values that need not be there."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..ir.builder import Rebuilder
from ..ir.graph import Graph, Node, Value
from ..ir.ops import OPS
from .fold import emit_array, known_array
from .rewrite import Rewriter, number_of, op, rules, same_number

# Known conditions and counts -------------------------------------------------------------------------------------------------


def inlined(b: Rewriter, region: Graph, arguments: Sequence[Value]) -> tuple[Value, ...]:
    """Emits the nodes of `region`, each rewritten anew; the values of its results."""
    env = dict(zip(region.params, arguments, strict=True))
    for node in region.nodes:
        outputs = tuple(Value(v.type, v.hint) for v in node.outputs)
        fresh = Node(node.op, tuple(env[v] for v in node.inputs), node.attrs, outputs, node.loc, node.regions)
        env.update(zip(node.outputs, b.settle(fresh), strict=True))
    return tuple(env[r] for r in region.results)


def _decided(b: Rewriter, node: Node) -> Sequence[Value] | None:
    known = b.numbers.get(node.inputs[0])
    return None if known is None else inlined(b, node.regions[0 if known else 1], node.inputs[1:])


def _few_iterations(b: Rewriter, node: Node) -> Sequence[Value] | None:
    start, stop = (b.numbers.get(v) for v in node.inputs[:2])
    if start is None or stop is None or stop - start > 1:
        return None
    if stop > start:
        return inlined(b, node.regions[0], (node.inputs[0], *node.inputs[2:]))
    has_lasts = len(node.outputs) > node.attrs["carried"]                    # these would be an error when it runs
    return None if has_lasts else node.inputs[2:2 + node.attrs["carried"]]


# Operands that are constants or come twice -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """Where the operands of an op with regions stand."""

    before: int
    """Inputs that are no params of regions: the bounds of a loop, the predicate of a cond."""
    own: int
    """Params of the regions that are no operands: the index of a loop."""
    carried: int


def _layout(node: Node) -> Layout:
    if node.op is OPS.loop:
        return Layout(2, 1, node.attrs["carried"])
    return Layout(0, 0, node.attrs["carried"]) if node.op is OPS.while_loop else Layout(1, 0, 0)


def _without(region: Graph, params: Sequence[Value], instead: Mapping[Value, Callable[[Any], Value]], results: Sequence[Value]) -> Graph:
    """`region` with these of its params and results; `instead` gives what stands for params that are gone."""
    b = Rebuilder(region)
    b.params = list(params)
    for param, emit in instead.items():
        b.env[param] = emit(b)
    for node in region.nodes:
        b.copy(node)
    return b.finish([b.new(r) for r in results])


def _needless_operands(b: Rewriter, node: Node) -> Sequence[Value] | None:
    """Constants are made anew inside the regions; an operand that comes twice is given once."""
    at = _layout(node)
    operands = node.inputs[at.before:]
    first: dict[Value, int] = {}
    dropped: dict[int, Callable[[Any, Graph], Value]] = {}
    for k in range(at.carried, len(operands)):
        array = known_array(b, operands[k])
        same = first.setdefault(operands[k], k)
        if array is not None:
            dropped[k] = lambda r, region, array=array: emit_array(r, array)
        elif operands[k] in b.numbers:
            dropped[k] = lambda r, region, v=operands[k]: r.full(v.shape, b.numbers[v].item(), v.dtype)
        elif same != k:
            dropped[k] = lambda r, region, same=same: region.params[at.own + same]
    if not dropped:
        return None
    regions = []
    for region in node.regions:
        params = [p for k, p in enumerate(region.params, -at.own) if k not in dropped]
        instead = {region.params[at.own + k]: (lambda r, e=emit, g=region: e(r, g)) for k, emit in dropped.items()}
        regions.append(_without(region, params, instead, region.results))
    kept = [v for k, v in enumerate(operands) if k not in dropped]
    return b.control(node.op, (*node.inputs[:at.before], *kept), node.attrs, regions)


# Carried values --------------------------------------------------------------------------------------------------------------


def _settled_slots(b: Rewriter, node: Node) -> Sequence[Value] | None:
    """Carried values that every iteration leaves as they are become invariants; those that are always one constant become that."""
    at, body = _layout(node), node.regions[-1]
    slots, initial = body.params[at.own:at.own + at.carried], node.inputs[at.before:at.before + at.carried]
    inside = _numbers_in(body)
    kept, same, constant = [], [], {}
    for k, (slot, value, following) in enumerate(zip(slots, initial, body.results, strict=False)):
        known, next_known = b.numbers.get(value), inside.get(following)
        if following is slot:
            same.append(k)
        elif known is not None and next_known is not None and same_number(known, next_known):
            constant[k] = known
        else:
            kept.append(k)
    if len(kept) == at.carried:
        return None
    rest = [k for k in range(at.carried, len(node.inputs) - at.before)]
    order = [*kept, *rest, *same]
    regions = [_reordered(region, at, order, constant, kept if region is body else None) for region in node.regions]
    inputs = (*node.inputs[:at.before], *(node.inputs[at.before + k] for k in order))
    outputs = b.control(node.op, inputs, {"carried": len(kept)}, regions)
    new = dict(zip((*kept, *range(at.carried, len(node.outputs))), outputs, strict=True))
    new.update((k, initial[k]) for k in same)
    new.update((k, b.full(initial[k].shape, known.item(), initial[k].dtype)) for k, known in constant.items())
    return [new[k] for k in range(len(node.outputs))]


def _reordered(region: Graph, at: Layout, order: Sequence[int], constant: Mapping[int, Any], kept: Sequence[int] | None) -> Graph:
    params = [*region.params[:at.own], *(region.params[at.own + k] for k in order)]
    instead = {}
    for k, known in constant.items():
        slot = region.params[at.own + k]
        instead[slot] = lambda r, s=slot, known=known: r.full(s.shape, known.item(), s.dtype)
    results = region.results if kept is None else [*(region.results[k] for k in kept), *region.results[at.carried:]]
    return _without(region, params, instead, results)


def _numbers_in(region: Graph) -> dict[Value, Any]:
    numbers: dict[Value, Any] = {}
    for node in region.nodes:
        known = number_of(node, numbers)
        if known is not None:
            numbers[node.outputs[0]] = known
    return numbers


def _twins(b: Rewriter, node: Node) -> Sequence[Value] | None:
    """Two carried values that begin equal and go on equal are one."""
    at, body = _layout(node), node.regions[-1]
    initial = node.inputs[at.before:at.before + at.carried]
    first: dict[tuple[Value, Value], int] = {}
    twin = {}
    for k, pair in enumerate(zip(initial, body.results, strict=False)):
        if first.setdefault(pair, k) != k:
            twin[k] = first[pair]
    if not twin:
        return None
    kept = [k for k in range(at.carried) if k not in twin]
    order = [*kept, *range(at.carried, len(node.inputs) - at.before)]
    regions = []
    for region in node.regions:
        params = [*region.params[:at.own], *(region.params[at.own + k] for k in order)]
        instead = {region.params[at.own + k]: (lambda r, v=region.params[at.own + one]: v) for k, one in twin.items()}
        results = region.results if region is not body else [*(region.results[k] for k in kept), *region.results[at.carried:]]
        regions.append(_without(region, params, instead, results))
    inputs = (*node.inputs[:at.before], *(node.inputs[at.before + k] for k in order))
    outputs = b.control(node.op, inputs, {"carried": len(kept)}, regions)
    new = dict(zip((*kept, *range(at.carried, len(node.outputs))), outputs, strict=True))
    return [new[twin.get(k, k)] for k in range(len(node.outputs))]


def _known_lasts(b: Rewriter, node: Node) -> Sequence[Value] | None:
    """A value of the last iteration that is also carried, given from outside or given twice needs no output of its own."""
    (body,), carried = node.regions, node.attrs["carried"]
    outside = dict(zip(body.params[1 + carried:], node.inputs[2 + carried:], strict=True))
    first: dict[Value, int] = {}
    for k, result in enumerate(body.results):
        first.setdefault(result, k)
    lasts = range(carried, len(body.results))
    kept = [k for k in lasts if first[body.results[k]] == k and body.results[k] not in outside]
    if len(kept) == len(lasts):
        return None
    numbers = [*range(carried), *kept]
    region = Graph(body.name, body.params, body.nodes, tuple(body.results[k] for k in numbers), body.notes)
    new = dict(zip(numbers, b.control(OPS.loop, node.inputs, node.attrs, (region,)), strict=True))
    return [new[k] if k in new else outside.get(body.results[k], new.get(first[body.results[k]])) for k in range(len(body.results))]


RULES = rules(
    ("decided cond", op("cond"), _decided),                                 # if True: a else: b  is  a
    ("few iterations", op("loop"), _few_iterations),                        # a loop that runs once is its body; one that never runs, nothing
    ("needless operands", op("loop while_loop cond"), _needless_operands),
    ("settled slots", op("loop while_loop"), _settled_slots),               # x = x in every iteration
    ("twins", op("loop while_loop"), _twins),                               # x, y = f(x), f(x) from x == y
    ("known lasts", op("loop"), _known_lasts),
)
