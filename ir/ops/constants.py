"""Ops without inputs: constant, literal, iota, empty."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..op import ZERO_GRAD, Trait
from ..types import Axes, DType, TensorType
from .infer import NUMBERS, check_axis, check_kind, check_shape, check_value, element_count
from .registry import OPS

LITERAL_LIMIT = 16
"""Larger arrays are arguments of a program, never part of its text."""


def _infer_constant(types: Sequence[TensorType], attrs: Mapping[str, Any]) -> TensorType:
    check_value("constant", attrs["value"], attrs["dtype"])
    return TensorType((), attrs["dtype"])


def _constant(value: float | int | bool, dtype: DType) -> np.ndarray:
    return np.array(value, dtype.numpy)


def _infer_literal(types: Sequence[TensorType], attrs: Mapping[str, Any]) -> TensorType:
    values, shape, dtype = attrs["values"], attrs["shape"], attrs["dtype"]
    check_shape("literal", shape)
    if element_count(shape) != len(values):
        raise ShapeError(f"literal: {len(values)} values do not fill the shape {shape}")
    if len(values) > LITERAL_LIMIT:
        raise ShapeError(
            f"literal: {len(values)} values; arrays of more than {LITERAL_LIMIT} are arguments, not literals"
        )
    for value in values:
        check_value("literal", value, dtype)
    return TensorType(shape, dtype)


def _literal(values: tuple, shape: Axes, dtype: DType) -> np.ndarray:
    return np.array(values, dtype.numpy).reshape(shape)


def _infer_iota(types: Sequence[TensorType], attrs: Mapping[str, Any]) -> TensorType:
    shape, result = attrs["shape"], TensorType(attrs["shape"], attrs["dtype"])
    check_shape("iota", shape)
    check_axis("iota", attrs["dim"], len(shape))
    check_kind("iota", result, NUMBERS)
    return result


def _iota(shape: Axes, dim: int, dtype: DType) -> np.ndarray:
    counts = np.arange(shape[dim]).astype(dtype.numpy)
    return np.broadcast_to(counts.reshape((-1,) + (1,) * (len(shape) - dim - 1)), shape)


def _infer_empty(types: Sequence[TensorType], attrs: Mapping[str, Any]) -> TensorType:
    check_shape("empty", attrs["shape"])
    return TensorType(attrs["shape"], attrs["dtype"])


def _empty(shape: Axes, dtype: DType) -> np.ndarray:
    return np.zeros(shape, dtype.numpy)


OPS.declare(
    "constant",
    infer=_infer_constant,
    evaluate=_constant,
    vjp=ZERO_GRAD,
    traits=[Trait.CONSTANT],
    arity=0,
    attrs={"dtype": DType, "value": (bool, int, float)},
    torch_name="ScalarTensor",
)
OPS.declare(
    "literal",
    infer=_infer_literal,
    evaluate=_literal,
    vjp=ZERO_GRAD,
    traits=[Trait.CONSTANT],
    arity=0,
    attrs={"dtype": DType, "shape": tuple, "values": tuple},
    torch_name="Tensor",
)
OPS.declare(
    "iota",
    infer=_infer_iota,
    evaluate=_iota,
    vjp=ZERO_GRAD,
    traits=[Trait.CONSTANT],
    arity=0,
    attrs={"dim": int, "dtype": DType, "shape": tuple},
    torch_name="Arange",
)
OPS.declare(
    "empty",
    infer=_infer_empty,
    evaluate=_empty,
    vjp=ZERO_GRAD,
    traits=[Trait.CONSTANT],
    arity=0,
    attrs={"dtype": DType, "shape": tuple},
    torch_name="Tensor",
)
"""Memory of which no element is read before it is written. A pass may put it where it has seen that; it then takes no
time. What it would hold if it were read is zeros here, and anything in a compiled program."""
