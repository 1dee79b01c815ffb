"""The key that a call specialises on: dtypes, shapes, layouts, aliasing and grad mode of tensors, types of numbers,
values of the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ir.errors import TraceError
from .capture_values import freeze
from .location import error
from .state import STATE
from .tape import tensor_requires_grad
from .tensor import Tensor


def call_key(leaves: Sequence[Any]) -> tuple[Any, ...]:
    """The key of a call with these leaves."""
    parts: list[Any] = [STATE.grad_enabled]
    for leaf in leaves:
        kind = type(leaf)
        if isinstance(leaf, Tensor):
            parts.append(tensor_key(leaf))
        elif is_runtime_number(leaf):
            parts.append(kind)
        else:
            parts.append(object_key(leaf))
    parts.append(alias_pattern([leaf for leaf in leaves if isinstance(leaf, Tensor)]))
    return tuple(parts)


def tensor_key(tensor: Tensor) -> tuple[Any, ...]:
    """What of a tensor a program is specialised on; None in place of row-major strides."""
    array = tensor._array
    if array is None:
        raise tensor._no_memory()
    strides = None if array.flags.c_contiguous else array.strides
    return (array.dtype, array.shape, strides, tensor_requires_grad(tensor), tensor._edge is None)


def object_key(leaf: Any) -> Any:
    """A key for an argument that is neither tensor nor number: its value or contents where these are known, else its
    identity.
    """
    if isinstance(leaf, np.ndarray):
        raise error(
            TraceError,
            "a compiled function got a NumPy array, whose values it could not follow: pass weft.from_numpy(array)",
        )
    return freeze(leaf)


def is_runtime_number(leaf: Any) -> bool:
    """Whether an argument is a Python number that a program takes as an input."""
    return type(leaf) is float or type(leaf) is int and -1 << 63 <= leaf < 1 << 63


def alias_pattern(tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """() when no two tensors share a storage; otherwise, per tensor, the first that shares it, the place in the
    storage, and the storage's layout.
    """
    storages = [id(t._storage) for t in tensors]
    if len(set(storages)) == len(storages):
        return ()
    return tuple(
        (
            storages.index(s),
            t.storage_offset() if storages.count(s) > 1 else None,
            t.stride() if storages.count(s) > 1 else None,
            _layout(t) if storages.count(s) > 1 else None,
        )
        for s, t in zip(storages, tensors, strict=True)
    )


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    array = tensor._storage.array
    assert array is not None
    return array.shape, array.strides


def describe_key(key: tuple[Any, ...]) -> list[str]:
    """One readable text per leaf, for explaining why a call was traced again."""
    return [_describe(part) for part in key]


def _describe(part: Any) -> str:
    if isinstance(part, tuple) and len(part) == 5 and isinstance(part[0], np.dtype):
        dtype, shape, strides, requires_grad, leaf = part
        layout = "" if strides is None else f", strides {tuple(s // dtype.itemsize for s in strides)}"
        grad = f", requires_grad{'' if leaf else ' (not a leaf)'}" if requires_grad else ""
        return f"{dtype}{list(shape)}{layout}{grad}"
    if isinstance(part, type):
        return part.__name__
    if isinstance(part, tuple) and len(part) == 2 and isinstance(part[0], type):
        return repr(part[1])
    return "(values)" if part == () else repr(part)
