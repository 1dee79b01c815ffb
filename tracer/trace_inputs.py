"""What a program takes in from outside its trace: lifted memory, Python numbers, tracked slots; and the state that is
put back when the trace ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any

from ..ir.graph import Value
from ..ir.ops import OPS
from ..ir.types import TensorType
from .capture_values import Is, freeze, may_change, same_value
from .layout import contiguous_strides
from .slots import KEYS, MISSING
from .tape import Edge, tensor_requires_grad
from .tensor import Step, Tensor


@dataclass(eq=False)
class Lifted:
    """A parameter for memory that exists before the call: the memory of `tensor`, or its whole storage when `whole`."""

    tensor: Tensor
    whole: bool
    param: Value
    position: int
    fingerprint: tuple[Any, ...]
    """What another tensor must have in common to stand in its place."""


@dataclass(eq=False)
class Outsider:
    """A tensor from outside, and its autograd state before the trace."""

    tensor: Tensor
    edge: Edge | None
    requires_grad: bool
    edge_version: int
    retains_grad: bool

    def restore(self) -> None:
        """Puts the state back."""
        tensor = self.tensor
        tensor._edge, tensor._requires_grad, tensor._edge_version = self.edge, self.requires_grad, self.edge_version
        tensor._retains_grad, tensor._cache = self.retains_grad, None


@dataclass(eq=False)
class Derived:
    """A tensor over outside memory that the traced function made: the view step from `parent`, None for `detach`."""

    tensor: Tensor
    parent: Tensor
    step: Step | None
    grad_enabled: bool


@dataclass(eq=False)
class ScalarInput:
    """A parameter for a Python number: where it came from, and the values that the trace relied on."""

    source: Any
    param: Value
    example: int | float
    position: int
    pinned: bool = False
    """Whether Python code looked at the value, so that another value needs another trace."""
    at_least: int | None = None
    """A lower bound that the trace relied on (loops need a few iterations)."""


@dataclass(eq=False)
class SlotLog:
    """What a trace did to one tracked slot: its value before, and whether that was read."""

    container: Any
    key: Any
    initial: Any
    read: bool = False
    written: bool = False
    read_kind: str = "value"
    """`value`, or `presence` when only `key in container` was asked."""
    scalar: ScalarInput | None = None
    contents: Any = None
    """What was read, in the form that is compared (see capture_values.py); for a tensor its fingerprint."""
    leaf: int | None = None
    """The argument leaf that the container is, None for a captured container."""

    def owner(self, leaves: Sequence[Any]) -> Any:
        """The container in a call with these argument leaves."""
        return self.container if self.leaf is None else leaves[self.leaf]

    def now(self, leaves: Sequence[Any]) -> Any:
        """What the slot holds now, MISSING when it is gone."""
        container = self.owner(leaves)
        if self.key is KEYS:
            return tuple(dict.keys(container))
        if isinstance(container, dict):
            return dict.get(container, self.key, MISSING)
        return getattr(container, f"_{self.key}")

    def stands(self) -> bool:
        """Whether a captured slot holds the very object that the trace read there, or another number where that is an
        input: a quick yes, or a no that `fits` goes into. An object whose contents may change has a guard of its own.
        """
        container = self.container
        if self.key is KEYS:
            return len(container) == len(self.initial) and all(map(is_, dict.keys(container), self.initial))
        if isinstance(container, dict):
            now = dict.get(container, self.key, MISSING)
        else:
            now = getattr(container, f"_{self.key}")
        if self.read_kind == "presence":
            return (now is MISSING) == (self.initial is MISSING)
        if now is self.initial:
            return not self.written or isinstance(now, Tensor) or not may_change(now)
        return self.scalar is not None and type(now) is type(self.initial)

    def fits(self, now: Any) -> bool:
        """Whether the slot, which holds `now`, holds what the trace read there, or a tensor that may stand for it."""
        if self.read_kind == "presence":
            return (now is MISSING) == (self.initial is MISSING)
        if self.scalar is not None:
            return type(now) is type(self.initial)
        if isinstance(self.initial, Tensor):
            return isinstance(now, Tensor) and now._array is not None and fingerprint(now, False) == self.contents
        return same_value(now, self.contents)


def restore(container: Any, key: Any, value: Any) -> None:
    """Sets a tracked slot without logging or bumping."""
    if isinstance(container, dict):
        if value is MISSING:
            dict.pop(container, key, None)
        else:
            dict.__setitem__(container, key, value)
    else:
        setattr(container, f"_{key}", value)


def run_type(tensor: Tensor, whole: bool) -> TensorType:
    """The type of the parameter that holds a tensor's memory: its shape when it is contiguous, else a flat run of
    elements."""
    array = tensor._storage.array if whole else tensor._memory()
    assert array is not None
    if array.flags.c_contiguous:
        return TensorType(tuple(array.shape), tensor.dtype)
    extent = (
        sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)) // array.itemsize + 1
        if array.size
        else 0
    )
    return TensorType((extent,), tensor.dtype)


def fingerprint(tensor: Tensor, whole: bool) -> tuple[Any, ...]:
    """What of a captured tensor a program is specialised on; where its whole storage is an input, also its place in
    which one.
    """
    place = (Is(tensor._storage), tensor.storage_offset()) if whole else ()
    return (
        run_type(tensor, whole),
        tuple(tensor.shape),
        tensor.stride(),
        tensor_requires_grad(tensor),
        tensor._edge is None,
        base_of(tensor) if tensor_requires_grad(tensor) else None,
        *place,
    )


def base_of(tensor: Tensor) -> tuple[Any, ...] | None:
    """What of the tensor that this one is a view of matters to a program that writes the view: the gradient of the
    whole changes then. None for a tensor that is no view.
    """
    base = tensor._base
    if base is None:
        return None
    begin = tensor.storage_offset() - base.storage_offset()
    grad = (tensor_requires_grad(base), base._edge is None, tensor._made_without_grad)
    return tuple(base.shape), base.stride(), begin, *grad


def contents_of(value: Any) -> Any:
    """What a log keeps of a value that was read."""
    return fingerprint(value, False) if isinstance(value, Tensor) and value._array is not None else freeze(value)


def path_to(type_: TensorType, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> tuple[Step, ...]:
    """The steps from a dense value of `type_` to the tensor with this geometry: none, a reshape, a permute, or
    as_strided."""
    own = tuple(type_.shape)
    if offset == 0 and strides == contiguous_strides(shape) and type_.with_shape(shape).size == type_.size:
        return () if own == shape else ((OPS.reshape, {"shape": shape}),)
    if offset == 0 and len(shape) == len(own):
        dims = tuple(sorted(range(len(shape)), key=lambda i: (-strides[i], i)))
        base = tuple(shape[d] for d in dims)
        if tuple(strides[d] for d in dims) == contiguous_strides(base) and type_.with_shape(base).size == type_.size:
            order = tuple(dims.index(i) for i in range(len(dims)))
            steps: tuple[Step, ...] = () if own == base else ((OPS.reshape, {"shape": base}),)
            return (*steps, (OPS.permute, {"dims": order}))
    return ((OPS.as_strided, {"shape": shape, "strides": strides, "offset": offset}),)
