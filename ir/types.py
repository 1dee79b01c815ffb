"""Element types and tensor types. Nothing here knows about ops, graphs or tensors with data."""
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .sizes import Dim
from .sizes import Symbol as Symbol


class DType:
    """One element type; a singleton, compared by identity.

    `name` is torch's name (`float32`), `short` the IR's spelling (`f32`), `numpy` the NumPy dtype of the storage,
    `kind` one of `bool`, `uint`, `int`, `float`, and `bits` the width.
    """

    __slots__ = ("name", "short", "numpy", "kind", "bits")
    name: str
    short: str
    numpy: np.dtype
    kind: str
    bits: int

    def __init__(self, name: str, short: str, kind: str, bits: int) -> None:
        self.name, self.short, self.kind, self.bits = name, short, kind, bits
        self.numpy = np.dtype(name)

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.numpy.itemsize

    @property
    def is_floating_point(self) -> bool:
        """Whether the type holds real numbers, as torch's property of the same name."""
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        """Whether the type holds integers (bool is not one)."""
        return self.kind in ("int", "uint")

    @property
    def is_signed(self) -> bool:
        """Whether negative numbers exist in the type."""
        return self.kind in ("int", "float")

    def __repr__(self) -> str:
        return f"weft.{self.name}"

    def __reduce__(self) -> tuple:
        return dtype_named, (self.name,)


bool_ = DType("bool", "bool", "bool", 8)
uint8 = DType("uint8", "u8", "uint", 8)
uint32 = DType("uint32", "u32", "uint", 32)
uint64 = DType("uint64", "u64", "uint", 64)
int8 = DType("int8", "i8", "int", 8)
int16 = DType("int16", "i16", "int", 16)
int32 = DType("int32", "i32", "int", 32)
int64 = DType("int64", "i64", "int", 64)
float32 = DType("float32", "f32", "float", 32)
float64 = DType("float64", "f64", "float", 64)

DTYPES: tuple[DType, ...] = (bool_, uint8, uint32, uint64, int8, int16, int32, int64, float32, float64)
BY_SHORT: dict[str, DType] = {d.short: d for d in DTYPES}
BY_NUMPY: dict[np.dtype, DType] = {d.numpy: d for d in DTYPES}
_BY_NAME: dict[str, DType] = {d.name: d for d in DTYPES}


def dtype_named(name: str) -> DType:
    """The element type with torch's name `name`."""
    return _BY_NAME[name]


Shape = tuple[Dim, ...]
Axes = tuple[int, ...]
"""Numbers of axes, or one number for each axis: sizes, starts, strides. Code that is written for numbers serves
symbolic sizes too, as far as its questions have one answer for all of them (`ir/sizes.py`)."""


@dataclass(frozen=True, slots=True)
class TensorType:
    """The type of one IR value: sizes, element type, device. Prints `f32[100, 3]`, and `f32[3]@cuda:0` off the CPU."""

    shape: Shape
    dtype: DType
    device: str = "cpu"

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def sizes(self) -> Axes:
        """The sizes of the axes, to calculate with: what depends on a symbolic one is `Undecided`."""
        return self.shape  # type: ignore[return-value]

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.sizes)

    @property
    def nbytes(self) -> int:
        """Bytes of a contiguous buffer of this type."""
        return self.size * self.dtype.itemsize

    def with_shape(self, shape: Shape) -> TensorType:
        """The same element type and device with another shape."""
        return TensorType(tuple(shape), self.dtype, self.device)

    def with_dtype(self, dtype: DType) -> TensorType:
        """The same shape and device with another element type."""
        return TensorType(self.shape, dtype, self.device)

    def __str__(self) -> str:
        place = "" if self.device == "cpu" else f"@{self.device}"
        return f"{self.dtype.short}[{', '.join(map(str, self.shape))}]{place}"
