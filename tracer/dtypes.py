"""Element types as users meet them: the default dtype, finfo and iinfo, and what may stand for a dtype in an
argument."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..ir.errors import DTypeError
from ..ir.types import BY_NUMPY, DTYPES, DType, bool_, float32, float64, int8, int16, int32, int64, uint8
from .location import error

TORCH_NAMES = {bool_: "Bool", uint8: "Byte", int8: "Char", int16: "Short", int32: "Int", int64: "Long",
               float32: "Float", float64: "Double"}
"""The names that torch's error messages use."""

_PYTHON = {bool: bool_, int: int64, float: float64}
_STRUCTURED = ("dtypes are weft.float32, weft.float64, weft.int64, weft.int32, weft.int16, weft.int8, weft.uint8, "
               "weft.bool")


class _Default:
    """The dtype that Python floats become."""

    dtype: DType = float32


def get_default_dtype() -> DType:
    """The dtype that Python floats become; float32 until `set_default_dtype`."""
    return _Default.dtype


def set_default_dtype(dtype: DType) -> None:
    """Lets Python floats become `dtype` from now on."""
    wanted = as_dtype(dtype)
    if not wanted.is_floating_point:
        raise error(DTypeError, "set_default_dtype: only floating-point types are supported as the default type, got "
                                f"{wanted}")
    _Default.dtype = wanted


def as_dtype(dtype: Any) -> DType:
    """The DType that `dtype` names: a DType, Python's bool, int or float, or a NumPy dtype."""
    if type(dtype) is DType:
        return dtype
    if dtype in _PYTHON:
        return _PYTHON[dtype]
    if isinstance(dtype, np.dtype) or isinstance(dtype, type) and issubclass(dtype, np.generic):
        return dtype_of_numpy(np.dtype(dtype))
    raise error(DTypeError, f"dtype must be a weft dtype, got {dtype!r}; {_STRUCTURED}")


def dtype_of_numpy(dtype: np.dtype) -> DType:
    """The DType of NumPy arrays of `dtype`, or an error that lists what there is."""
    known = BY_NUMPY.get(dtype if dtype.isnative else dtype.newbyteorder("="))
    if known is None:
        raise error(DTypeError, f"can't convert a NumPy array of type {dtype}; {_STRUCTURED}: convert it first with "
                                "`.astype(...)`")
    return known


def torch_name(dtype: DType) -> str:
    """The name of `dtype` in torch's error messages, such as `Long`."""
    return TORCH_NAMES.get(dtype, dtype.name)


def is_floating_point(input: Any) -> bool:
    """Whether a tensor holds real numbers."""
    return input.dtype.is_floating_point


class finfo:
    """The limits of a floating-point dtype: `bits`, `eps`, `max`, `min`, `tiny`, `smallest_normal`, `resolution`."""

    def __init__(self, dtype: DType | None = None) -> None:
        chosen = get_default_dtype() if dtype is None else as_dtype(dtype)
        if not chosen.is_floating_point:
            raise error(DTypeError, "finfo() requires a floating point input type. Use iinfo to handle "
                                    f"'{chosen.name}'")
        limits = np.finfo(chosen.numpy)
        self.dtype, self.bits = chosen.name, chosen.bits
        self.eps, self.max, self.min = float(limits.eps), float(limits.max), float(limits.min)
        self.tiny = self.smallest_normal = float(limits.smallest_normal)
        self.resolution = float(limits.resolution)

    def __repr__(self) -> str:
        return (f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, eps={self.eps:g}, "
                f"smallest_normal={self.tiny:g}, tiny={self.tiny:g}, dtype={self.dtype})")


class iinfo:
    """The limits of an integer dtype: `bits`, `max`, `min`."""

    def __init__(self, dtype: DType) -> None:
        chosen = as_dtype(dtype)
        if not chosen.is_integer:
            raise error(DTypeError, f"iinfo() requires an integer input type. Use finfo to handle '{chosen.name}'")
        limits = np.iinfo(chosen.numpy)
        self.dtype, self.bits, self.max, self.min = chosen.name, chosen.bits, int(limits.max), int(limits.min)

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"


def wrap_integer(value: int, dtype: DType) -> int:
    """`value` modulo the range of an integer dtype, as C casts it."""
    low = -(1 << (dtype.bits - 1)) if dtype.is_signed else 0
    return (value - low) % (1 << dtype.bits) + low


assert all(d in TORCH_NAMES or d.name in ("uint32", "uint64") for d in DTYPES)
