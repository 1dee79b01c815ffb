"""In-place forms: the result of the out-of-place function, checked and written into the tensor's own memory."""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..ir.errors import DTypeError, ShapeError
from ..ir.types import DType
from .dispatch import EMIT, write
from .dtypes import torch_name
from .location import error
from .promotion import can_cast
from .tape import next_record, preserve
from .tensor import Tensor


def check_castable(result: DType, target: DType) -> None:
    """Refuses to store floats in integers, or numbers in bools."""
    if not can_cast(result, target):
        raise error(DTypeError, f"result type {torch_name(result)} can't be cast to the desired output type "
                                f"{torch_name(target)}: "
                                "use the out-of-place form, or convert the tensor first with `.to(...)`")


def assign(target: Tensor, value: Tensor, name: str, since: int | None = None) -> Tensor:
    """Writes the result `value` of the operation `name` into `target`, which keeps its dtype and shape.

    `since` tells the records of the operation itself, which may have saved the target.
    """
    if value.dtype is not target.dtype:
        check_castable(value.dtype, target.dtype)
        value = EMIT.cast(value, target.dtype)
    if tuple(value.shape) != tuple(target.shape):
        raise error(ShapeError, f"{name}: output with shape {list(target.shape)} doesn't match the broadcast shape "
                                f"{list(value.shape)}")
    if since is not None and value._edge is not None:
        preserve(value, target, since)
    return write(target, value, name)


def in_place(function: Callable[..., Tensor], name: str = "") -> Callable[..., Tensor]:
    """Attaches the in-place form of `function` to Tensor, under its name (or `name`) and an underscore."""
    plain = name or function.__name__

    @functools.wraps(function)
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        since = next_record()
        return assign(self, function(self, *args, **kwargs), method.__name__, since)

    method.__name__ = method.__qualname__ = f"{plain}_"
    method.__doc__ = f"In-place form of `weft.{plain}`; returns the tensor."
    setattr(Tensor, method.__name__, method)
    return method
