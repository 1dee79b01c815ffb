"""slant: the view behind sliding windows, whose transpose is a slant of a pad, so that windows differentiate without a
scatter."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import IndexRangeError, ShapeError
from ..op import Trait
from ..types import TensorType
from .infer import check_axes, check_shape, known
from .registry import OPS

Attrs = Mapping[str, Any]


def _infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    (x,), dim, window, size = types, attrs["dim"], attrs["window"], attrs["size"]
    check_axes("slant", (dim, window), x.rank)
    check_shape("slant", (size,))
    length, positions = known("slant", x.shape[dim]), known("slant", x.shape[window])
    offset, reach = attrs["offset"], attrs["step"] * (positions - 1)
    if size and positions:
        first, last = offset + min(reach, 0), offset + size - 1 + max(reach, 0)
        if first < 0 or last >= length:
            raise IndexRangeError(
                f"slant: {size} elements from {offset} by {attrs['step']} for each of {positions} windows reach from "
                f"{first} to {last}, beyond axis {dim} of size {length}"
            )
    if size < 0:
        raise ShapeError(f"slant: size {size} must not be negative")
    return x.with_shape(tuple(size if k == dim else n for k, n in enumerate(x.shape)))


def _evaluate(x: np.ndarray, dim: int, window: int, step: int, offset: int, size: int) -> np.ndarray:
    shape, strides = list(x.shape), list(x.strides)
    shape[dim] = size
    if 0 in shape:
        return np.empty(shape, x.dtype)
    strides[window] += step * strides[dim]
    start = x[tuple(slice(offset, None) if k == dim else slice(None) for k in range(x.ndim))]
    return np.lib.stride_tricks.as_strided(start, shape, strides, writeable=False)


def _index(indices: Sequence[Any], x: TensorType, attrs: Attrs) -> list[Any]:
    dim, window = attrs["dim"], attrs["window"]
    moved = indices[window] * attrs["step"] + indices[dim] + attrs["offset"]
    return [moved if k == dim else index for k, index in enumerate(indices)]


def _rule(b: Any, node: Any, g: Any) -> Any:
    """Each diagonal is moved back: element j of window w came from j - offset - step * w, which the pad makes exist."""
    x, attrs = node.inputs[0], node.attrs
    dim, window, offset, size = attrs["dim"], attrs["window"], attrs["offset"], attrs["size"]
    length, positions = x.shape[dim], x.shape[window]
    if size == 0 or positions == 0:
        return b.full(x.shape, 0, g.dtype)
    reach = attrs["step"] * (positions - 1)
    low, high = offset + max(reach, 0), length - offset - size - min(reach, 0)
    sides = [tuple(n if k == dim else 0 for k in range(len(x.shape))) for n in (low, high)]
    padded = b.pad(g, low=sides[0], high=sides[1], value=0)
    return b.slant(padded, dim=dim, window=window, step=-attrs["step"], offset=low - offset, size=length)


OPS.declare(
    "slant",                        # out[.., i, .., w, ..] = x[.., i + offset + step * w, .., w, ..]
    infer=_infer,
    evaluate=_evaluate,
    index=_index,
    attrs={"dim": int, "offset": int, "size": int, "step": int, "window": int},
    vjp=(_rule,),
    traits=[Trait.VIEW],
    torch_name="Unfold",
)
