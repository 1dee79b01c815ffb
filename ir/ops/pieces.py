"""Ops that put pieces side by side: pad and concatenate."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..op import Trait
from ..types import Axes, Dim, TensorType
from .infer import check_axis, check_rank, check_same, check_value
from .registry import OPS


def _infer_pad(types: Sequence[TensorType], attrs: Mapping[str, Any]) -> TensorType:
    (x,), low, high = types, attrs["low"], attrs["high"]
    check_rank("pad", "low", low, x.rank)
    check_rank("pad", "high", high, x.rank)
    check_value("pad", attrs["value"], x.dtype)
    if any(n < 0 for n in (*low, *high)):
        raise ShapeError(f"pad: low {low} and high {high} must not be negative")
    sizes = zip(x.shape, low, high, strict=True)
    return x.with_shape(tuple(n + a + b if a or b else n for n, a, b in sizes))


def _pad(x: np.ndarray, low: Axes, high: Axes, value: float | int | bool) -> np.ndarray:
    result = np.full([n + a + b for n, a, b in zip(x.shape, low, high, strict=True)], value, x.dtype)
    result[tuple(slice(a, a + n) for a, n in zip(low, x.shape, strict=True))] = x
    return result


def _pad_rule(b: Any, node: Any, g: Any) -> Any:
    low, shape = node.attrs["low"], node.inputs[0].shape
    return b.slice(g, starts=low, stops=tuple(a + n for a, n in zip(low, shape, strict=True)), steps=(1,) * len(low))


def _infer_concatenate(types: Sequence[TensorType], attrs: Mapping[str, Any]) -> TensorType:
    if not types:
        raise ShapeError("concatenate takes at least one tensor")
    first, dim = types[0], check_axis("concatenate", attrs["dim"], types[0].rank)
    for other in types[1:]:
        if other.rank != first.rank:
            raise ShapeError(
                f"concatenate: the operands have different numbers of axes, {first.shape} and {other.shape}"
            )
        check_same(f"concatenate along axis {dim}", first, _resized(other, dim, first.shape[dim]))
    if len(types) == 1:
        return first
    return _resized(first, dim, sum(t.shape[dim] for t in types))


def _resized(type: TensorType, dim: int, size: Dim) -> TensorType:
    return type.with_shape((*type.shape[:dim], size, *type.shape[dim + 1 :]))


def _concatenate(*xs: np.ndarray, dim: int) -> np.ndarray:
    return np.concatenate(xs, dim)


def _concatenate_rule(b: Any, node: Any, g: Any, i: int) -> Any:
    dim, sizes = node.attrs["dim"], node.inputs[i].shape
    start = sum(node.inputs[k].shape[dim] for k in range(i))
    starts = tuple(start if k == dim else 0 for k in range(len(sizes)))
    return b.slice(
        g, starts=starts, stops=tuple(a + n for a, n in zip(starts, sizes, strict=True)), steps=(1,) * len(sizes)
    )


OPS.declare(
    "pad",
    infer=_infer_pad,
    evaluate=_pad,
    attrs={"high": tuple, "low": tuple, "value": (bool, int, float)},
    vjp=(_pad_rule,),
    traits=[Trait.PIECEWISE],
    torch_name="ConstantPadNd",
)
OPS.declare(
    "concatenate",
    infer=_infer_concatenate,
    evaluate=_concatenate,
    attrs={"dim": int},
    vjp=_concatenate_rule,
    arity=None,
    traits=[Trait.PIECEWISE],
    torch_name="Cat",
)
