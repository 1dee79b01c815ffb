"""Changes of the element type: convert (the value) and bitcast (the bits)."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DTypeError
from ..op import NOT_DIFFERENTIABLE, Trait
from ..types import DType, TensorType
from .infer import NUMBERS, check_kind
from .registry import OPS


def _infer_convert(types: Sequence[TensorType], attrs: Mapping[str, Any]) -> TensorType:
    return types[0].with_dtype(attrs["dtype"])


def _convert(x: np.ndarray, dtype: DType) -> np.ndarray:
    return x.astype(dtype.numpy)


def _infer_bitcast(types: Sequence[TensorType], attrs: Mapping[str, Any]) -> TensorType:
    (x,), dtype = types, attrs["dtype"]
    result = x.with_dtype(dtype)
    check_kind("bitcast", x, NUMBERS)
    check_kind("bitcast", result, NUMBERS)
    if x.dtype.bits != dtype.bits:
        raise DTypeError(f"bitcast: {x.dtype.name} and {dtype.name} have different widths")
    return result


def _bitcast(x: np.ndarray, dtype: DType) -> np.ndarray:
    return x.view(dtype.numpy)


OPS.declare(
    "convert",
    infer=_infer_convert,
    evaluate=_convert,
    vjp=(lambda b, node, g: b.cast(g, node.inputs[0].dtype),),
    attrs={"dtype": DType},
    traits=[Trait.ELEMENTWISE],
    torch_name="ToCopy",
)
OPS.declare(
    "bitcast",
    infer=_infer_bitcast,
    evaluate=_bitcast,
    vjp=NOT_DIFFERENTIABLE,
    attrs={"dtype": DType},
    traits=[Trait.ELEMENTWISE],
    torch_name="ViewDtype",
)
