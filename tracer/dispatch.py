"""The one dispatcher: every operation on tensors passes through `apply`, `view` or `write`.

Outside a trace an op evaluates its reference meaning at once; inside, it appends a node. Either way it is recorded on
the tape when a gradient is wanted. Operands must already fit the strict IR op: the promotion and broadcasting rules are
in promotion.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..ir.emitter import Emitter
from ..ir.errors import GradientError, TraceError
from ..ir.graph import Graph
from ..ir.op import GradientRule, Op
from ..ir.ops import OPS
from ..ir.ops.views import broadcast_array
from ..ir.types import DType, Shape
from .location import error
from .slots import EPOCH
from .state import STATE
from .tape import (
    Placeholder,
    constant_edge,
    derived_edge,
    gradient_edge,
    move_retained,
    rebase,
    record,
    tensor_requires_grad,
)
from .tensor import Step, Tensor, wrap

np.seterr(all="ignore")  # the reference meanings follow IEEE silently, as torch does

_NO_ATTRS: dict[str, Any] = {}


def apply(op: Op, inputs: Sequence[Tensor], attrs: Mapping[str, Any] = _NO_ATTRS) -> Any:
    """Runs or traces `op`; the result (a tuple when there are several) shares no memory with the inputs.

    The result of a view op may alias its input's memory in eager mode and is for reading only: `view` makes user-
    visible views.
    """
    trace = STATE.trace
    if trace is not None:
        outputs = trace.emit(op, inputs, attrs)
    else:
        outputs = _evaluate(op, inputs, attrs)
    if STATE.grad_enabled and op.vjp is not GradientRule.ZERO_GRAD:
        for t in inputs:
            if t._requires_grad or (t._base is not None and tensor_requires_grad(t)):
                record(op, inputs, attrs, outputs)
                break
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


def _evaluate(op: Op, inputs: Sequence[Tensor], attrs: Mapping[str, Any]) -> list[Tensor]:
    arrays = [t._array for t in inputs]
    for array in arrays:
        if array is None:
            raise next(t for t in inputs if t._array is None)._no_memory()
    result = op.evaluate(*arrays, **attrs)
    if type(result) is tuple:
        return [_dense(op, r) for r in result]
    output = _dense(op, result)
    if op.is_view and (result.base is arrays[0] or np.may_share_memory(result, arrays[0])):
        output._storage_or_none = inputs[0]._storage  # one version counter for one memory
    return [output]


def _dense(op: Op, array: Any) -> Tensor:
    """A result as a tensor.

    As in torch, elementwise results keep their operands' layout, views alias, all others are contiguous.
    """
    if op.keeps_layout or array.flags.c_contiguous:
        return wrap(array)
    return wrap(np.ascontiguousarray(array))


def apply_copy(op: Op, x: Tensor, attrs: Mapping[str, Any] = _NO_ATTRS) -> Tensor:
    """A view op whose result is a tensor of its own for the user (torch's `flip`, `repeat` copy)."""
    result = apply(op, (x,), attrs)
    if result._array is not None and not (result._array.flags.owndata and result._array.flags.c_contiguous):
        result._array, result._storage_or_none = np.array(result._array, order="C"), None
    return result


def view(op: Op, x: Tensor, attrs: Mapping[str, Any], array: np.ndarray | None = None) -> Tensor:
    """A view of `x` that shares its storage; in eager mode the op's reference meaning must give a NumPy view.

    `array` is the view's memory where the caller knows it already.
    """
    if x._array is None:
        if STATE.trace is None:
            raise x._no_memory()
        result = STATE.trace.view(op, x, attrs)
    else:
        result = wrap(op.evaluate(x._array, **attrs) if array is None else array)
        if STATE.trace is not None:
            STATE.trace.adopt_view(op, x, attrs, result)
    link_view(result, x, ((op, attrs),))
    if (
        (x._requires_grad or x._base is not None)
        and STATE.grad_enabled
        and tensor_requires_grad(x)
        and x.dtype.is_floating_point
    ):
        record(op, (x,), attrs, (result,))
        result._edge_version = result._storage.version
    return result


def part_at(x: Tensor, positions: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """In a trace, a view of the part of `x` with these sizes that begins at traced positions (0-d int64 tensors)."""
    assert STATE.trace is not None
    attrs = {"sizes": tuple(sizes), "positions": tuple(positions)}
    result = STATE.trace.part_at(x, attrs)
    link_view(result, x, ((OPS.dynamic_slice, attrs),))
    if STATE.grad_enabled and tensor_requires_grad(x) and x.dtype.is_floating_point:
        record(OPS.dynamic_slice, (x, *positions), {"sizes": attrs["sizes"]}, (result,))
        result._edge_version = result._storage.version
    return result


def link_view(result: Tensor, x: Tensor, steps: tuple[Step, ...]) -> None:
    """Makes `result` a view of `x`: same storage, and for gradients the base and the steps from it.

    A view made under no_grad has no base: no gradient ever flows through it, and writing a tracked value into it is
        an error.
    """
    storage = result._storage_or_none = x._storage
    if x._frozen:
        result._frozen = True
    if STATE.grad_enabled and not x._made_without_grad:
        result._base = x if x._base is None else x._base
        result._steps = (*x._steps, *steps) if x._base is not None else steps
        result._edge_version = storage.version
    else:
        result._made_without_grad = True


def check_writable(target: Tensor, op_name: str) -> None:
    """Refuses what torch refuses: a leaf that requires grad, a view of one, a tensor whose elements overlap."""
    base = target._base
    if STATE.grad_enabled and (target._requires_grad or base is not None):
        if tensor_requires_grad(target) and target._edge is None:
            raise error(
                GradientError,
                f"{op_name}: a leaf Variable that requires grad is being used in an in-place operation. "
                "Put the update under `with weft.no_grad():`",
            )
        if base is not None and base._requires_grad and base._current_edge() is None:
            raise error(
                GradientError,
                f"{op_name}: a view of a leaf Variable that requires grad is being used in an in-place operation. "
                "Put the update under `with weft.no_grad():`",
            )
    if overlaps(target):
        raise error(
            GradientError,
            f"{op_name}: unsupported operation: more than one element of the written-to tensor refers to a single "
            "memory location. Please clone() the tensor before performing the operation.",
        )


def check_not_frozen(target: Tensor, op_name: str) -> None:
    """Refuses to write into read-only memory."""
    if target._frozen:
        raise error(GradientError, f"{op_name}: this tensor is read-only memory")


def overlaps(target: Tensor) -> bool:
    """Whether two elements of the tensor share memory."""
    array = target._array
    if array is not None and array.flags.forc:
        return False
    axes = sorted((s, n) for s, n in zip(target.stride(), target.shape, strict=True) if n > 1)
    reach = 0
    for stride, size in axes:
        if stride <= reach:
            return stride == 0 or _collide(axes)
        reach += stride * (size - 1)
    return False


def _collide(axes: Sequence[tuple[int, int]]) -> bool:
    """The full count, for strides in which a row runs into the next."""
    offsets = np.zeros((), np.int64)
    for stride, size in axes:
        offsets = np.add.outer(offsets, stride * np.arange(size))
    return np.unique(offsets).size < offsets.size


def write(target: Tensor, new: Tensor, op_name: str = "copy_") -> Tensor:
    """Writes `new` (same shape and dtype) into the memory of `target`; the version counter moves and gradient edges
    follow.
    """
    check_writable(target, op_name)
    check_not_frozen(target, op_name)
    if target._made_without_grad and STATE.grad_enabled and (tensor_requires_grad(new) or tensor_requires_grad(target)):
        raise error(
            GradientError,
            "A view was created in no_grad mode and is being modified inplace with grad mode enabled: make the view "
            "outside no_grad, or write under no_grad",
        )
    trace = STATE.trace
    if trace is not None:
        trace.write(target, new)
    else:
        if target._array is None or new._array is None:
            raise (target if target._array is None else new)._no_memory()
        if new._array is not target._array:
            target._array[...] = new._array
    written(target, new, op_name)
    return target


def written(target: Tensor, new: Tensor, op_name: str) -> None:
    """The bookkeeping after a write: version, and edges when a gradient is recorded."""
    base = target._base
    if STATE.trace is not None and STATE.trace.in_region:
        whole = target if base is None else base
        if STATE.grad_enabled and not (whole._detached or whole._made_without_grad):
            STATE.trace.region_tracked[id(whole)] = whole
        else:
            STATE.trace.region_untracked.add(target._storage)
        target._storage.version += 1
        return
    tracked = STATE.grad_enabled and (tensor_requires_grad(new) or tensor_requires_grad(target))
    if not tracked:
        target._storage.version += 1
        return
    new_edge, old_edge = gradient_edge(new), derived_edge(target)
    if STATE.trace is None and (old_edge is None or base is not None and base._edge is None):
        EPOCH.bump_tensors()  # a leaf that was an argument of a compiled call is one no longer
    if new_edge is None and old_edge is not None:
        new_edge = constant_edge(old_edge, target.type_, op_name)
    if base is not None:
        moved = base._edge
        rebase(target, new_edge)
        move_retained(base, moved)
    target._storage.version += 1
    if base is not None:
        base._edge_version = base._storage.version
        target._edge_version = target._storage.version
    target._edge, target._requires_grad = new_edge, new_edge is not None
    move_retained(target, old_edge)
    if STATE.trace is not None:
        for tensor in (target,) if base is None else (target, base):
            STATE.trace.note_value(tensor)


class TensorEmitter(Emitter):
    """Emits ops on tensors through the dispatcher: eager evaluation or trace nodes, whichever is on."""

    def emit(self, op: Op, inputs: Sequence[Tensor], attrs: Mapping[str, Any]) -> Any:
        return apply(op, inputs, attrs)

    def control(
        self, op: Op, inputs: Sequence[Tensor], attrs: Mapping[str, Any], regions: Sequence[Graph]
    ) -> tuple[Tensor, ...]:
        trace = STATE.trace
        if trace is None:
            return super().control(op, inputs, attrs, regions)
        outputs = trace.control(op, inputs, attrs, regions)
        if STATE.grad_enabled:
            record(op, inputs, attrs, outputs, tuple(regions))
        return tuple(outputs)

    def agrees(self, cotangent: Tensor, node: Any, i: int) -> bool:
        array, saved = cotangent._array, node.saved_inputs
        if array is None or saved is None or type(saved[i]) is not Placeholder:
            return super().agrees(cotangent, node, i)
        return array.shape == saved[i].shape and array.dtype is saved[i].dtype.numpy

    def full(self, shape: Shape, value: float | int | bool, dtype: DType) -> Tensor:
        if STATE.trace is not None:
            return super().full(shape, value, dtype)
        sizes: Any = tuple(shape)  # numbers, outside a trace
        return wrap(broadcast_array(OPS.constant.evaluate(value=value, dtype=dtype), sizes))

    def constant_value(self, x: Tensor) -> float | int | bool | None:
        if x._array is not None:
            return x._array.item() if STATE.trace is None else None
        assert STATE.trace is not None
        return STATE.trace.builder.constant_value(STATE.trace.read(x))


EMIT = TensorEmitter()


def fresh(x: Tensor) -> Tensor:
    """`x`, or a contiguous copy when its memory may be shared: for results of view ops that must stand on their own."""
    if x._array is not None and x._array.base is not None:
        return wrap(np.array(x._array, order="C"))
    return x


def require_no_trace(what: str, remedy: str) -> None:
    """Raises TraceError inside a trace."""
    if STATE.trace is not None:
        raise error(TraceError, f"{what} is not known while a function is traced: {remedy}")
