"""Rewrite rules of ops with regions: known conditions and trip counts, operands and carried values not needed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ir.builder import Rebuilder
from ..ir.graph import Graph, Node, Value
from ..ir.ops import OPS
from .fold import emit_array, known_array
from .numbering import number_values
from .rewrite import Rewriter, number_of, op, rules, same_number

# Known conditions and counts ------------------------------------------------------------------------------------------


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
    has_lasts = len(node.outputs) > node.attrs["carried"]  # these would be an error when it runs
    return None if has_lasts else node.inputs[2 : 2 + node.attrs["carried"]]


Interval = tuple[int, int]
WIDEST = 1 << 62
"""Indices stay far below; what goes beyond it may wrap around."""


def _decided_by_index(b: Rewriter, node: Node) -> Sequence[Value] | None:
    """Comparisons with the index of a loop that come out the same in every iteration: is it negative, say."""
    start, stop = (b.numbers.get(v) for v in node.inputs[:2])
    if start is None:
        return None
    body = node.regions[0]
    last = WIDEST if stop is None else int(stop) - 1
    ranges: dict[Value, Interval] = {body.params[0]: (int(start), max(int(start), last))}
    decided: dict[Value, bool] = {}
    for inner in body.nodes:
        known = number_of(inner, {}) if inner.op is OPS.constant and inner.output.dtype.kind == "int" else None
        operands = [ranges.get(v) for v in inner.inputs]
        if known is not None:
            ranges[inner.output] = (int(known), int(known))
        elif inner.op in (OPS.add, OPS.sub) and None not in operands:
            interval = _combined(inner, *operands)  # type: ignore[arg-type]
            if -WIDEST <= interval[0] and interval[1] <= WIDEST:
                ranges[inner.output] = interval
        elif inner.op in (OPS.lt, OPS.le, OPS.gt, OPS.ge) and None not in operands:
            answer = _compared(inner, *operands)  # type: ignore[arg-type]
            if answer is not None:
                decided[inner.output] = answer
    if not decided:
        return None
    r = Rebuilder(body)
    for inner in body.nodes:
        if inner.outputs[0] in decided:
            r.replace(inner, [r.scalar(decided[inner.output], inner.output.dtype)])
        else:
            r.copy(inner)
    return b.control(OPS.loop, node.inputs, node.attrs, (r.done(),))


def _combined(node: Node, a: Interval, z: Interval) -> Interval:
    return (a[0] + z[0], a[1] + z[1]) if node.op is OPS.add else (a[0] - z[1], a[1] - z[0])


def _compared(node: Node, a: Interval, z: Interval) -> bool | None:
    """What a comparison gives for all numbers of two intervals; None when that is not the same."""
    if node.op in (OPS.gt, OPS.ge):
        a, z = z, a
    strict = node.op in (OPS.lt, OPS.gt)
    if a[1] < z[0] or not strict and a[1] == z[0]:
        return True
    return False if a[0] > z[1] or strict and a[0] == z[1] else None


# Operands and carried values that need not be there -------------------------------------------------------------------


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


Instead = Mapping[int, Any]
"""Operand -> what replaces its param: another operand (an int), a small array, or the number in all its elements."""


def _rebuilt(b: Rewriter, node: Node, order: Sequence[int], instead: Instead, slots: Sequence[int]) -> dict[int, Value]:
    """Emits `node` with the operands `order`, of which the carried ones are `slots`; old output -> new value."""
    at = _layout(node)
    outputs = [*slots, *range(at.carried, len(node.outputs))]
    regions = []
    for region in node.regions:
        is_body = region is node.regions[-1] or node.op is OPS.cond
        results = [region.results[k] for k in outputs] if is_body else region.results
        regions.append(_with_operands(region, at, order, instead, results))
    inputs = (*node.inputs[: at.before], *(node.inputs[at.before + k] for k in order))
    attrs = {"carried": len(slots)} if "carried" in node.attrs else {}
    return dict(zip(outputs, b.control(node.op, inputs, attrs, regions), strict=True))


def _with_operands(
    region: Graph, at: Layout, order: Sequence[int], instead: Instead, results: Sequence[Value]
) -> Graph:
    r = Rebuilder(region)
    r.params = [*region.params[: at.own], *(region.params[at.own + k] for k in order)]
    for k, what in instead.items():
        param = region.params[at.own + k]
        if isinstance(what, int):
            r.env[param] = region.params[at.own + what]
        elif isinstance(what, np.ndarray):
            r.env[param] = emit_array(r, what)
        else:
            r.env[param] = r.full(param.shape, what.item(), param.dtype)
    for node in region.nodes:
        r.copy(node)
    return r.finish([r.new(v) for v in results])


def _needless_operands(b: Rewriter, node: Node) -> Sequence[Value] | None:
    """Constants are made anew inside the regions; an operand that comes twice is given once."""
    at = _layout(node)
    operands = node.inputs[at.before :]
    first: dict[Value, int] = {}
    instead: dict[int, Any] = {}
    for k in range(at.carried, len(operands)):
        array = known_array(b, operands[k])
        if array is not None:
            instead[k] = array
        elif operands[k] in b.numbers:
            instead[k] = b.numbers[operands[k]]
        elif first.setdefault(operands[k], k) != k:
            instead[k] = first[operands[k]]
    if not instead:
        return None
    order = [k for k in range(len(operands)) if k not in instead]
    return list(_rebuilt(b, node, order, instead, range(at.carried)).values())


def _settled_slots(b: Rewriter, node: Node) -> Sequence[Value] | None:
    """Values that every iteration leaves alone become invariants; those that are one constant throughout, that."""
    at, body = _layout(node), node.regions[-1]
    initial, inside = node.inputs[at.before : at.before + at.carried], _numbers_in(body)
    same, constant = [], {}
    for k, (value, following) in enumerate(zip(initial, body.results, strict=False)):
        known, next_known = b.numbers.get(value), inside.get(following)
        if following is body.params[at.own + k]:
            same.append(k)
        elif known is not None and next_known is not None and same_number(known, next_known):
            constant[k] = known
    if not same and not constant:
        return None
    slots = [k for k in range(at.carried) if k not in same and k not in constant]
    new = _rebuilt(b, node, [*slots, *range(at.carried, len(node.inputs) - at.before), *same], constant, slots)
    new.update((k, initial[k]) for k in same)
    new.update((k, b.full(initial[k].shape, known.item(), initial[k].dtype)) for k, known in constant.items())
    return [new[k] for k in range(len(node.outputs))]


def _numbers_in(region: Graph) -> dict[Value, Any]:
    numbers: dict[Value, Any] = {}
    for node in region.nodes:
        known = number_of(node, numbers)
        if known is not None:
            numbers[node.outputs[0]] = known
    return numbers


def _twins(b: Rewriter, node: Node) -> Sequence[Value] | None:
    """Carried values that begin equal and go on equal are one: the coarsest division into such classes."""
    at, body = _layout(node), node.regions[-1]
    initial = node.inputs[at.before : at.before + at.carried]
    classes = _classes([_known_as(b, v) for v in initial])
    rest = [("index",)] * at.own, [("outside", id(v)) for v in node.inputs[at.before + at.carried :]]
    while max(classes, default=-1) < at.carried - 1:
        numbers = number_values(body, (*rest[0], *classes, *rest[1]), {})
        finer = _classes([(old, numbers[r]) for old, r in zip(classes, body.results, strict=False)])
        if finer == classes:
            break
        classes = finer
    twin = {k: classes.index(c) for k, c in enumerate(classes) if classes.index(c) != k}
    if not twin:
        return None
    slots = [k for k in range(at.carried) if k not in twin]
    new = _rebuilt(b, node, [*slots, *range(at.carried, len(node.inputs) - at.before)], twin, slots)
    return [new[twin.get(k, k)] for k in range(len(node.outputs))]


def _known_as(b: Rewriter, value: Value) -> Hashable:
    known = b.numbers.get(value)
    return value if known is None else (value.type, known.tobytes())


def _classes(keys: Sequence[Hashable]) -> list[int]:
    """Equal small numbers for equal keys."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def _known_lasts(b: Rewriter, node: Node) -> Sequence[Value] | None:
    """A value of the last iteration that is also carried, given from outside or given twice needs no own output."""
    (body,), carried = node.regions, node.attrs["carried"]
    known: dict[Value, Value | int] = dict(zip(body.params[1 + carried :], node.inputs[2 + carried :], strict=True))
    kept = [*range(carried)]
    for k, result in enumerate(body.results):
        if known.setdefault(result, k) == k and k >= carried:
            kept.append(k)
    if len(kept) == len(body.results):
        return None
    region = Graph(body.name, body.params, body.nodes, tuple(body.results[k] for k in kept), body.notes)
    new = dict(zip(kept, b.control(OPS.loop, node.inputs, node.attrs, (region,)), strict=True))
    answers = []
    for k, result in enumerate(body.results):
        same = known[result] if k >= carried else k
        answers.append(new[same] if isinstance(same, int) else same)
    return answers


# fmt: off
RULES = rules(
    ("decided cond", op("cond"), _decided),                                             # a if True else b = a
    ("few iterations", op("loop"), _few_iterations),                                    # a loop run once = its body
    ("decided by the index", op("loop"), _decided_by_index),                            # i < 0 = False
    ("needless operands", op("loop while_loop cond"), _needless_operands),
    ("settled slots", op("loop while_loop"), _settled_slots),                           # x = x in every iteration
    ("twins", op("loop while_loop"), _twins),                                           # x, y = f(x), f(y) from x = y
    ("known lasts", op("loop"), _known_lasts),
)
# fmt: on
