"""backward(), grad() and the rest of torch's autograd surface, over the tape and the one reverse-mode pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..ir.errors import GradientError, ShapeError, TraceError
from ..passes.reverse import backpropagate
from .dispatch import EMIT, check_not_frozen, check_writable, write
from .grad_mode import set_grad_enabled
from .location import error
from .loop_gradient import translate
from .slots import EPOCH, note_read
from .state import STATE
from .tape import Accumulate, Edge, Record, alias_of, gradient_edge, retain, tensor_requires_grad
from .tensor import Tensor, attach_property, method, tensor_property, wrap


def edges_of(entry: Record) -> tuple[Edge | None, ...]:
    """The edges of a record's inputs; those into iterations of captured loops lead to the loops instead."""
    trace = entry.trace
    return entry.edges if trace is None or not trace.captured else tuple(translate(trace, e) for e in entry.edges)


def records_behind(edges: Iterable[Edge]) -> list[Record]:
    """The records that the edges reach, in the order in which they were made."""
    seen: set[int] = set()
    found: list[Record] = []
    stack = [edge[0] for edge in edges]
    while stack:
        entry = stack.pop()
        if isinstance(entry, Accumulate) or id(entry) in seen:
            continue
        if entry.refusal:
            raise error(GradientError, entry.refusal)
        seen.add(id(entry))
        found.append(entry)
        stack.extend([edge[0] for edge in edges_of(entry) if edge is not None])
    found.sort(key=lambda r: r.sequence)
    return found


def _edge_now(tensor: Tensor) -> Edge | None:
    edge = gradient_edge(tensor)
    return edge if STATE.trace is None or not STATE.trace.captured else translate(STATE.trace, edge)


def _output_keys(entry: Record) -> tuple[Edge, ...]:
    return tuple([(entry, k) for k in range(len(entry.saved_outputs) or 1)])


def sweep(
    roots: Sequence[Tensor],
    seeds: Sequence[Tensor],
    wanted: Sequence[Edge] | None,
    create_graph: bool,
    retain_graph: bool,
) -> dict[Edge, Tensor]:
    """The cotangent at every wanted edge (at every leaf when `wanted` is None), after the hooks of leaves."""
    cotangents: dict[Edge, Tensor] = {}
    with set_grad_enabled(create_graph):
        for root, seed in zip(roots, seeds, strict=True):
            edge = _edge_now(root)
            assert edge is not None
            cotangents[edge] = EMIT.add(cotangents[edge], seed) if edge in cotangents else seed
        found = flow(cotangents, wanted, create_graph, retain_graph)
        return found | {edge: _hooked(edge[0].leaf, g) for edge, g in found.items() if isinstance(edge[0], Accumulate)}


def flow(
    cotangents: Mapping[Edge, Tensor],
    wanted: Sequence[Edge] | None,
    create_graph: bool,
    retain_graph: bool,
    within: Any = None,
) -> dict[Edge, Tensor]:
    """The cotangent at every wanted edge (at every leaf when `wanted` is None), from those at some edges.

    With `within`, a trace, what flows into records that were made before it goes no further.
    """
    with set_grad_enabled(create_graph), _differentiating():
        records = [r for r in records_behind(cotangents) if within is None or r.trace is within]
        targets = dict.fromkeys(wanted if wanted is not None else _ends(records, cotangents))
        records = _leading_to(records, targets)
        targets |= {(r, k): None for r in records if r.retained for k in r.retained}
        walked: list[Record] = []
        found = backpropagate(
            records,
            cotangents,
            targets,
            EMIT,
            input_keys=edges_of,
            output_keys=_output_keys,
            on_node=walked.append,
            arrive=_arrive if any(r.hooks or r.section for r in records) else None,
        )
    for entry in records:
        if entry.retained:
            _keep_retained(entry, found)
    if not retain_graph:
        for entry in walked:
            entry.free()
    return found


@contextmanager
def _differentiating() -> Iterator[None]:
    """What is emitted in the block is backward code."""
    before, STATE.differentiating = STATE.differentiating, True
    try:
        yield
    finally:
        STATE.differentiating = before


def _leading_to(records: Sequence[Record], targets: Iterable[Edge]) -> list[Record]:
    """The records that a cotangent has to pass, or arrives at, on its way to the targets."""
    needed: set[int] = set()
    ends = {(id(entry), k) for entry, k in targets}
    for entry in records:  # what made a record's inputs stands before it
        for edge in edges_of(entry):
            if edge is not None and (id(edge[0]) in needed or (id(edge[0]), edge[1]) in ends):
                needed.add(id(entry))
                break
    _check_trace([r for r in records if id(r) in needed])
    made = {number for number, _ in ends}
    return [r for r in records if id(r) in needed or id(r) in made]


def _arrive(entry: Record, arriving: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """The cotangents of a record's outputs are complete: hooks may change them, a checkpointed call learns of them."""
    arriving = _call_hooks(entry, arriving)
    if entry.section is not None:
        for cotangent in arriving:
            if cotangent is not None:
                entry.section.arrived(cotangent)
    return arriving


def _call_hooks(entry: Record, arriving: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """The cotangents of a record's outputs, after the hooks of the tensors that these were."""
    hooks = entry.hooks
    if not hooks:
        return arriving
    return tuple(
        g if g is None or k not in hooks else _replaced(g, hooks[k].values()) for k, g in enumerate(arriving)
    )


def _replaced(value: Tensor, hooks: Iterable[Callable[[Tensor], Tensor | None]]) -> Tensor:
    for hook in tuple(hooks):
        changed = hook(value)
        if changed is not None:
            if tuple(changed.shape) != tuple(value.shape):
                raise error(
                    ShapeError, f"a hook made a gradient of shape {list(changed.shape)} from one of {list(value.shape)}"
                )
            value = changed
    return value


def _check_trace(records: Sequence[Record]) -> None:
    trace = STATE.trace
    for entry in records:
        if entry.trace is not trace:
            what = "outside" if trace is not None else "inside"
            raise error(
                TraceError,
                f"backward reaches an operation ({entry.name}) that was recorded {what} the compiled function: "
                "compute the whole loss where backward is called, or detach() what comes from elsewhere",
            )


def _ends(records: Sequence[Record], cotangents: Iterable[Edge]) -> dict[Edge, None]:
    """The leaves' edges, in an order that is the same in every process: it decides how programs number their inputs."""
    edges = [e for r in records for e in edges_of(r) if e is not None] + list(cotangents)
    return {e: None for e in edges if isinstance(e[0], Accumulate)}


def _keep_retained(entry: Record, found: dict[Edge, Tensor]) -> None:
    for k, reference in (entry.retained or {}).items():
        tensor, value = reference(), found.get((entry, k))
        if tensor is not None and value is not None:
            _accumulate(tensor, value)


def _accumulate(leaf: Tensor, value: Tensor) -> None:
    """Adds a cotangent to `.grad` as torch does: in place when no graph of the gradient is wanted."""
    previous = leaf.grad
    if previous is None:
        leaf._set_grad(_own_copy(value))
    elif STATE.grad_enabled:
        leaf._set_grad(EMIT.add(previous, value))
    else:
        _add_in_place(previous, value)


def _add_in_place(target: Tensor, value: Tensor) -> None:
    """target += value, where no gradient is recorded."""
    x, y = target._array, value._array
    if x is None or y is None or STATE.trace is not None or x.dtype is not y.dtype:
        write(target, EMIT.add(target, value), "add_")
        return
    check_writable(target, "add_")
    check_not_frozen(target, "add_")
    np.add(x, y, out=x)
    target._storage.version += 1


def _own_copy(value: Tensor) -> Tensor:
    """The cotangent as a tensor that shares memory with nothing else."""
    if STATE.grad_enabled:
        return value.clone()
    if value._array is None:
        return alias_value(value)
    return wrap(np.array(value._array, order="C"))


def alias_value(value: Tensor) -> Tensor:
    """A traced tensor with the same value and a storage of its own."""
    assert STATE.trace is not None
    return STATE.trace.new_tensor(STATE.trace.read(value))


def _seed(root: Tensor, gradient: Tensor | None, what: str) -> Tensor:
    if gradient is None:
        if root.shape.numel() != 1:
            raise error(
                GradientError,
                f"grad can be implicitly created only for scalar outputs, got shape {list(root.shape)}: "
                f"reduce it (`.sum()`) or pass `{what}`",
            )
        return EMIT.full_like(root, 1)
    if tuple(gradient.shape) != tuple(root.shape):
        raise error(
            ShapeError,
            f"backward: the gradient has shape {list(gradient.shape)}, the tensor {list(root.shape)}: they must be "
            "equal",
        )
    return gradient


def _check_root(root: Tensor) -> None:
    if STATE.trace is not None and STATE.trace.in_region:
        raise error(
            TraceError,
            "a gradient cannot be taken inside a branch of cond or in while_loop: take it outside, where the loss is "
            "known",
        )
    if not tensor_requires_grad(root):
        raise error(
            GradientError,
            "element 0 of tensors does not require grad and does not have a grad_fn: make an input with "
            "requires_grad=True, and compute the result outside no_grad()",
        )


@method()
def backward(
    self: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Computes the derivative of this tensor by the leaves and adds it to their `.grad` (torch's `Tensor.backward`).

    Args:
        gradient: the cotangent, of this tensor's shape; 1 for a scalar when left out.
        retain_graph: keep what the tape saved, for another backward; default: the value of `create_graph`.
        create_graph: record the derivative itself, for second derivatives.
        inputs: accumulate into these leaves only.

    Raises:
        GradientError: no gradient is recorded, the tape was freed, or a saved value was overwritten.
    """
    backward_all([self], None if gradient is None else [gradient], retain_graph, create_graph, inputs)


def backward_all(
    tensors: Sequence[Tensor] | Tensor,
    grad_tensors: Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """The sum of the derivatives of several tensors, accumulated in the leaves (torch.autograd.backward)."""
    roots = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    for root in roots:
        _check_root(root)
    given = list(grad_tensors) if grad_tensors is not None else [None] * len(roots)
    seeds = [_seed(root, g, "gradient=") for root, g in zip(roots, given, strict=True)]
    leaves = None if inputs is None else [inputs] if isinstance(inputs, Tensor) else list(inputs)
    wanted = None if leaves is None else [_wanted_edge(t) for t in leaves]
    keep = create_graph if retain_graph is None else retain_graph
    found = sweep(roots, seeds, wanted, create_graph, keep)
    with set_grad_enabled(create_graph):
        if leaves is not None:
            for leaf in leaves:
                value = found.get(_wanted_edge(leaf))
                if value is not None:
                    _accumulate(leaf, value)
            return
        for (target, _), value in found.items():
            if isinstance(target, Accumulate):
                _accumulate(target.leaf, value)


def _hooked(leaf: Tensor, value: Tensor) -> Tensor:
    if STATE.trace is not None:
        note_read(leaf, "backward_hooks")
    return _replaced(value, leaf._backward_hooks.values()) if leaf._backward_hooks else value


def _wanted_edge(tensor: Tensor) -> Edge:
    edge = _edge_now(tensor)
    if edge is None:
        raise error(GradientError, "One of the differentiated Tensors does not require grad")
    return edge


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """The derivative of the sum of `outputs` by each of `inputs` (torch.autograd.grad); nothing is accumulated.

    Returns:
        one tensor per input, of the input's shape; None for an unused input when `allow_unused`.

    Raises:
        GradientError: an input does not require grad, or is not used and `allow_unused` is False.
    """
    roots = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    targets = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    given = (
        [grad_outputs]
        if isinstance(grad_outputs, Tensor) or grad_outputs is None and len(roots) == 1
        else list(grad_outputs or [None] * len(roots))
    )
    for root in roots:
        _check_root(root)
    edges = [_wanted_edge(t) for t in targets]
    seeds = [_seed(root, g, "grad_outputs=") for root, g in zip(roots, given, strict=True)]
    keep = create_graph if retain_graph is None else retain_graph
    found = sweep(roots, seeds, edges, create_graph, keep)
    results = [found.get(edge) for edge in edges]
    if not allow_unused and any(r is None for r in results):
        raise error(
            GradientError,
            "One of the differentiated Tensors appears to not have been used in the graph. "
            "Set allow_unused=True if this is the desired behavior.",
        )
    return tuple(None if r is None else r if create_graph or STATE.trace is not None else alias_of(r) for r in results)


# ---- the rest of the surface on tensors ------------------------------------------------------------------------------


def _get_requires_grad(self: Tensor) -> bool:
    """Whether operations on this tensor are recorded; may be set on leaves of floating-point dtype."""
    return tensor_requires_grad(self)


def _set_requires_grad(self: Tensor, value: bool) -> None:
    if self._current_edge() is not None:
        if value:
            return
        raise error(
            GradientError,
            "you can only change requires_grad flags of leaf variables. If you want to use a computed variable in a "
            "subgraph that doesn't require differentiation use var_no_grad = var.detach()",
        )
    if value and not self.dtype.is_floating_point:
        raise error(GradientError, f"only Tensors of floating point dtype can require gradients, got {self.dtype}")
    trace = STATE.trace
    if trace is None:
        self._requires_grad = bool(value)
        EPOCH.bump_tensors()
        return
    if self._array is not None and id(self) not in trace.derived:
        trace.know(self)
        trace.note_write(self, "requires_grad", self._requires_grad)
    self._requires_grad = bool(value)


attach_property("requires_grad", _get_requires_grad, _set_requires_grad)


@method()
def requires_grad_(self: Tensor, requires_grad: bool = True) -> Tensor:
    """Sets `requires_grad` and returns the tensor."""
    _set_requires_grad(self, requires_grad)
    return self


@tensor_property
def grad_fn(self: Tensor) -> Record | Accumulate | None:
    """The record of the operation that made this tensor, None for a leaf; prints torch's name."""
    edge = self._current_edge()
    return None if edge is None else edge[0]


@method()
def detach(self: Tensor) -> Tensor:
    """A tensor over the same memory that no gradient flows through."""
    alias = alias_of(self)
    alias._detached = True
    return alias


@method()
def detach_(self: Tensor) -> Tensor:
    """Cuts this tensor from the tape, in place."""
    if self._base is not None:
        raise error(GradientError, "Can't detach views in-place. Use detach() instead")
    if STATE.trace is not None and self._array is not None:
        STATE.trace.know(self)
    self._edge, self._requires_grad = None, False
    EPOCH.bump_tensors()
    return self


@method()
def retain_grad(self: Tensor) -> None:
    """Lets `backward` fill `.grad` of this tensor too, though it is not a leaf."""
    edge = self._current_edge()
    if edge is None:
        if not self._requires_grad:
            raise error(GradientError, "can't retain_grad on Tensor that has requires_grad=False")
        return
    retain(self)
    self._retains_grad = True


@tensor_property
def retains_grad(self: Tensor) -> bool:
    """Whether `retain_grad` was called on this non-leaf tensor."""
    return self._retains_grad


@method()
def register_hook(self: Tensor, hook: Callable[[Tensor], Tensor | None]) -> Any:
    """Calls `hook` with the gradient of this tensor whenever one is computed; a result replaces it. Returns a handle
    with `remove()`.

    The hook of a tensor that an operation made stays with the value that it has now, when the tensor is written later.
    """
    if not tensor_requires_grad(self):
        raise error(GradientError, "cannot register a hook on a tensor that doesn't require gradient")
    handle = HookHandle(self, self._current_edge())
    handle.set({**handle.hooks(), id(handle): hook})
    return handle


class HookHandle:
    """Removes a hook."""

    def __init__(self, tensor: Tensor, edge: Edge | None) -> None:
        self._place: Tensor | tuple[Any, int] = tensor if edge is None else edge
        """The leaf, or the record and the number of its output."""

    def hooks(self) -> Mapping[int, Any]:
        """The hooks of the leaf, or of the output of a record, by the identity of their handles."""
        if isinstance(self._place, Tensor):
            return self._place._backward_hooks
        entry, k = self._place
        return (entry.hooks or {}).get(k, {})

    def set(self, hooks: Mapping[int, Any]) -> None:
        """Replaces the hooks; compiled programs compare the dict of a leaf by identity."""
        if isinstance(self._place, Tensor):
            self._place._backward_hooks = hooks
            EPOCH.bump()
        else:
            entry, k = self._place
            entry.hooks = {**(entry.hooks or {}), k: hooks}

    def remove(self) -> None:
        """Removes the hook; a second call does nothing."""
        self.set({key: hook for key, hook in self.hooks().items() if key != id(self)})


def _get_data(self: Tensor) -> Tensor:
    """The same memory without gradient; assigning makes this tensor use the other's memory."""
    return detach(self)


def _set_data(self: Tensor, other: Tensor) -> None:
    if STATE.trace is not None:
        raise error(
            TraceError,
            "`tensor.data = ...` inside a compiled function: write the values with `tensor.copy_(...)` under no_grad",
        )
    self._array, self._storage_or_none = other._memory(), other._storage
    self._base, self._steps = None, ()
    EPOCH.bump_tensors()


attach_property("data", _get_data, _set_data)
