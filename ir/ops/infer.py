"""What the type inference of several ops shares: groups of dtypes, checks of axes, shapes, indices and numbers."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DeviceError, DTypeError, IndexRangeError, ShapeError
from ..op import Infer
from ..sizes import Dim, Polynomial, Undecided
from ..types import DType, Shape, TensorType, bool_, int64

BOOLS = frozenset({"bool"})
FLOATS = frozenset({"float"})
INTEGERS = frozenset({"int", "uint"})
NUMBERS = INTEGERS | FLOATS
BITS = INTEGERS | BOOLS
ANY = NUMBERS | BOOLS


def check_kind(name: str, type: TensorType, kinds: frozenset[str]) -> None:
    """The dtype is of one of `kinds`."""
    if type.dtype.kind not in kinds:
        raise DTypeError(f"{name} is not defined for {type.dtype.name}: it takes {' or '.join(sorted(kinds))}")


def check_same(name: str, a: TensorType, b: TensorType) -> None:
    """Both operands have one device, dtype and shape."""
    if a == b:
        return
    if a.device != b.device:
        raise DeviceError(f"{name}: the operands are on different devices, {a.device} and {b.device}")
    if a.dtype is not b.dtype:
        raise DTypeError(f"{name}: the operands have different dtypes, {a.dtype.name} and {b.dtype.name}")
    raise ShapeError(f"{name}: the operands have different shapes, {a.shape} and {b.shape}")


def elementwise(name: str, kinds: frozenset[str], result: DType | None = None) -> Infer:
    """All operands are of one type, which is the result's, or with dtype `result`."""

    def infer(types: Sequence[TensorType], attrs: Mapping[str, Any]) -> TensorType:
        first = types[0]
        for other in types[1:]:
            check_same(name, first, other)
        check_kind(name, first, kinds)
        return first if result is None else first.with_dtype(result)

    return infer


def check_axis(name: str, dim: Any, rank: int) -> int:
    """`dim` is an axis of a tensor with `rank` axes."""
    if not isinstance(dim, int) or not 0 <= dim < rank:
        raise IndexRangeError(f"{name}: axis {dim} does not exist in a tensor with {rank} axes")
    return dim


def check_axes(name: str, dims: Sequence[Any], rank: int) -> None:
    """`dims` are different axes of a tensor with `rank` axes."""
    for dim in dims:
        check_axis(name, dim, rank)
    if len(set(dims)) != len(dims):
        raise ShapeError(f"{name}: an axis is named twice in {tuple(dims)}")


def check_rank(name: str, what: str, values: Sequence[Any], rank: int) -> None:
    """One value for each axis."""
    if len(values) != rank:
        raise ShapeError(f"{name}: {what} {tuple(values)} must have one entry for each of {rank} axes")


def check_indices(name: str, indices: Sequence[TensorType]) -> Shape:
    """Index operands are int64 and of one shape, which is returned."""
    if not indices:
        raise ShapeError(f"{name} takes at least one index")
    for index in indices:
        if index.dtype is not int64:
            raise DTypeError(f"{name}: an index must be int64, got {index.dtype.name}")
        check_same(name, indices[0], index)
    return indices[0].shape


def check_positions(name: str, starts: Sequence[TensorType], rank: int) -> None:
    """One int64 scalar for each axis."""
    check_rank(name, "start positions", starts, rank)
    for start in starts:
        if start.dtype is not int64 or start.shape:
            raise DTypeError(f"{name}: a start position must be i64[], got {start}")


def check_value(name: str, value: Any, dtype: DType) -> None:
    """The Python number `value` can be stored in `dtype` (a float type takes any number, and any type a size)."""
    if isinstance(value, Polynomial):
        return
    if dtype.kind == "float":
        fits = isinstance(value, (int, float))
    elif dtype is bool_:
        fits = isinstance(value, bool) or (isinstance(value, int) and value in (0, 1))
    else:
        limits = np.iinfo(dtype.numpy)
        fits = isinstance(value, int) and limits.min <= value <= limits.max
    if not fits:
        raise DTypeError(f"{name}: {value!r} is not a value of dtype {dtype.name}")


def check_shape(name: str, shape: Sequence[Any]) -> None:
    """Every size is symbolic or an int that is not negative."""
    for dim in shape:
        if not isinstance(dim, Polynomial) and (not isinstance(dim, int) or dim < 0):
            raise ShapeError(f"{name}: {tuple(shape)} is not a shape: {dim!r} is not a size")


def without(shape: Shape, dims: Sequence[int]) -> Shape:
    """The shape with the axes `dims` left out."""
    return tuple(d for i, d in enumerate(shape) if i not in dims)


def element_count(shape: Shape) -> Dim:
    """The number of elements."""
    return math.prod(shape)


def known(name: str, dim: Dim) -> int:
    """A size that the op computes with, which therefore must be an int."""
    if not isinstance(dim, int):
        raise Undecided(f"{name}: the size {dim} is not known before the program runs")
    return dim
