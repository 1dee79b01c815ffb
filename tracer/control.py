"""cond, while_loop and scan: control flow that depends on values, as functions over tensors.

In eager mode they are plain Python. In a compiled function they become nodes with regions. The names and signatures are
torch's (`torch.cond`, `torch.while_loop`); `scan` is JAX's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..ir.errors import ShapeError, TraceError
from ..ir.graph import Graph, Value
from ..ir.ops import OPS
from ..ir.types import bool_
from ..passes.records import outputs_reached
from .dispatch import EMIT
from .location import error, user_location
from .loops import range as weft_range
from .regions import Region, record_region
from .state import STATE
from .storage import Storage
from .structure import flatten, unflatten
from .tape import edge_along
from .tensor import Tensor
from .trace import Trace


def cond(
    pred: Tensor | bool, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Sequence[Any] = ()
) -> Any:
    """`true_fn(*operands)` if `pred` else `false_fn(*operands)`; in a compiled function the choice is made when the
    program runs.

    Args:
        pred: a bool, or a tensor with one element.
        true_fn, false_fn: functions of the operands; in a compiled function both must return tensors of the same types.
        operands: arguments of both.

    Raises:
        TraceError, ShapeError: the branches return different structures or types.
    """
    if STATE.trace is None or not isinstance(pred, Tensor):
        return true_fn(*operands) if bool(pred) else false_fn(*operands)
    trace = STATE.trace
    predicate = EMIT.view_as(EMIT.cast(pred, bool_), ())
    branches = [
        record_region(trace, f, operands, f"cond: {name}") for f, name in ((true_fn, "true_fn"), (false_fn, "false_fn"))
    ]
    _check_same(branches)
    storages = list(dict.fromkeys(s for branch in branches for s in branch.written))
    results = [[*branch.result_values, *map(branch.end_value, storages)] for branch in branches]
    outside: dict[Value, None] = {}
    for branch, values in zip(branches, results, strict=True):
        outside |= branch.operands(values)
    graphs = [
        branch.graph(name, list(outside), values)
        for branch, name, values in zip(branches, ("then", "otherwise"), results, strict=True)
    ]
    inputs = [predicate, *_operands(trace, outside, branches)]
    outputs = EMIT.control(OPS.cond, inputs, {}, graphs)
    _cut_constant_outputs(inputs, graphs, outputs)
    count = len(branches[0].result_values)
    _store(trace, storages, outputs[count:], branches)
    return _results(trace, branches, outputs[:count])


def while_loop(
    cond_fn: Callable[..., Any], body_fn: Callable[..., Any], carried_inputs: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Calls `body_fn(*carried)` for new carried tensors as long as `cond_fn(*carried)` holds; the last ones
    (torch.while_loop).

    No gradient flows through it: the number of iterations is not known. In a compiled function the carried tensors keep
    their types.

    Raises:
        ShapeError: the body returns other shapes or dtypes than it was given.
    """
    state: tuple[Tensor, ...] = tuple(carried_inputs)
    if STATE.trace is None:
        state = tuple(t.clone() for t in state)  # the body may write its arguments
        while bool(cond_fn(*state)):
            state = tuple(body_fn(*state))
        return state
    return _traced_while(STATE.trace, cond_fn, body_fn, state)


def _traced_while(
    trace: Trace, cond_fn: Callable[..., Any], body_fn: Callable[..., Any], state: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    carried = [
        trace.new_tensor(trace.read(t)) for t in state
    ]  # storages of their own: the body may write its arguments
    condition = record_region(trace, cond_fn, carried, "while_loop: cond_fn")
    body = record_region(trace, lambda *args: tuple(body_fn(*args)), carried, "while_loop: body_fn")
    before, after = [t.type_ for t in carried], body.result_types
    if before != after:
        raise error(
            ShapeError,
            f"while_loop: the body was given {_types(before)} and returned {_types(after)}: they must be equal",
        )
    if condition.written:
        raise error(TraceError, "while_loop: cond_fn writes into a tensor: do that in body_fn")
    own = {t._storage for t in carried}
    storages = [s for s in body.written if s not in own]
    predicate = _predicate(condition)
    nexts = [*body.result_values, *(body.written[s] for s in storages)]
    initial = [trace.read(t) for t in carried] + [trace.states[s].value for s in storages]
    keys = [Value(v.type, v.hint) for v in initial]  # carried values are apart from what they start as
    for region in (condition, body):
        inside = [region.inside[t._storage] for t in carried] + [
            region.inside.get(s, v) for s, v in zip(storages, initial[len(state) :], strict=True)
        ]
        region.stand_ins |= dict(zip(inside, keys, strict=True))
    known = set(keys)
    outside = {
        v: None for r, values in ((condition, [predicate]), (body, nexts)) for v in r.operands(values) if v not in known
    }
    graphs = [
        condition.graph("condition", [*keys, *outside], [predicate]),
        body.graph("body", [*keys, *outside], nexts),
    ]
    inputs = [*state, *_operands(trace, [*initial[len(state) :], *outside], [condition, body])]
    outputs = EMIT.control(OPS.while_loop, inputs, {"carried": len(initial)}, graphs)
    _store(trace, storages, outputs[len(state) :], [body])
    return tuple(outputs[: len(state)])


def _predicate(region: Region) -> Value:
    """The condition's result, which must be one bool."""
    types = region.result_types
    if len(types) != 1 or types[0] is None or types[0].size != 1 or types[0].dtype is not bool_:
        raise error(
            ShapeError,
            f"while_loop: cond_fn must return one tensor with one bool, got {_types(types)}: compare, "
            "e.g. `x.sum() > 0`",
        )
    value = region.result_values[0]
    if value.shape != ():
        node = region.trace.builder.make_node(OPS.reshape, (value,), {"shape": ()}, loc=user_location())
        region.nodes.append(node)
        return node.output
    return value


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]], init: Any, xs: Any = None, length: int | None = None
) -> tuple[Any, Any]:
    """`carry, y = f(carry, x)` for each slice `x` of `xs` along axis 0; (the last carry, the `y`s stacked)
    (jax.lax.scan).

    Args:
        f: from a carry and a slice to the next carry (same structure) and an output (tensors in tuples, lists or dicts,
            or None).
        init: the first carry.
        xs: tensors with one length along axis 0, in any structure; None with `length`.
    """
    leaves: list[Any] = []
    structure = flatten(xs, leaves)
    tensors = [x for x in leaves if isinstance(x, Tensor)]
    steps = length if length is not None else tensors[0].shape[0]
    if any(t.shape[0] != steps for t in tensors):
        raise error(ShapeError, f"scan: the lengths along axis 0 differ: {[t.shape[0] for t in tensors]}")
    carry, shape = init, None
    stacked: list[Any] | None = None
    for i in weft_range(steps):
        x = unflatten(structure, [leaf[i] if isinstance(leaf, Tensor) else leaf for leaf in leaves])
        carry, y = f(carry, x)
        parts: list[Any] = []
        shape = flatten(y, parts)
        if stacked is None:
            stacked = [EMIT.full((steps, *p.shape), 0, p.dtype) if p is not None else None for p in parts]
            stacked = [None if s is None else s.clone() for s in stacked]
        for k, part in enumerate(parts):
            if part is not None:
                stacked[k][i] = part
    if stacked is None:
        raise error(ShapeError, "scan over 0 steps: the outputs' shapes are not known")
    return carry, unflatten(shape, stacked)


# ---- shared ----------------------------------------------------------------------------------------------------------


def _check_same(branches: Sequence[Region]) -> None:
    a, b = branches
    if a.structure != b.structure or a.result_types != b.result_types:
        raise error(
            ShapeError,
            f"cond: true_fn returns {_types(a.result_types)} and false_fn {_types(b.result_types)}: they must be equal",
        )


def _types(types: Sequence[Any]) -> str:
    return f"({', '.join(map(str, types))})"


def _operands(trace: Trace, values: Iterable[Value], regions: Sequence[Region]) -> list[Tensor]:
    """Tensors that hold the outside values of regions, with the gradient edges of those that read them."""
    found = []
    for value in values:
        tensor = trace.new_tensor(value)
        edge = next((r.edges[value] for r in regions if value in r.edges), None)
        if edge is not None:
            tensor._edge, tensor._requires_grad = edge, True
        found.append(tensor)
    return found


def _cut_constant_outputs(inputs: Sequence[Tensor], graphs: Sequence[Graph], outputs: Sequence[Tensor]) -> None:
    """Takes the edge from outputs that depend, in every branch, only on what no gradient flows to."""
    active = outputs_reached("cond", graphs, {i for i, t in enumerate(inputs) if t._requires_grad})
    for k, output in enumerate(outputs):
        if k not in active:
            output._edge, output._requires_grad = None, False


def _results(trace: Trace, branches: Sequence[Region], outputs: Sequence[Tensor]) -> Any:
    """The returned structure. What is a tensor from outside in some branch cannot be written: which one it is depends
    on the predicate."""
    tensors, leaves = iter(outputs), []
    for parts in zip(*(branch.results for branch in branches), strict=True):
        leaves.append(None if parts[0] is None else next(tensors))
        if any(p is not None and p._storage in b.inside for p, b in zip(parts, branches, strict=True)):
            trace.states[leaves[-1]._storage].reason_read_only = (  # type: ignore[union-attr]
                "a write into a result of cond that is a tensor from outside in one of the branches: return a clone() "
                "there"
            )
    return unflatten(branches[0].structure, leaves)


def _store(trace: Trace, storages: Sequence[Storage], values: Sequence[Tensor], regions: Sequence[Region]) -> None:
    """Gives the written storages their new values, and the tensors that were written the gradient edges."""
    for storage, value in zip(storages, values, strict=True):
        trace.states[storage].value = trace.read(value)
        storage.version += 1
        for tensor in [t for region in regions for t in region.tracked.values() if t._storage is storage]:
            if trace.in_region:
                trace.region_tracked[id(tensor)] = tensor  # the outer region gives it an edge when it ends
            elif value._requires_grad and not tensor._made_without_grad:
                path = trace.path_of(tensor)
                tensor._edge, tensor._requires_grad = edge_along(path, value.type_, value._edge), True
