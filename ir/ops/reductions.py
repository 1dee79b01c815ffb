"""Reductions of the axes `dims`, which disappear, and the positions of extremes along one axis."""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..op import ZERO_GRAD, Infer, Trait, Vjp
from ..types import Axes, Shape, TensorType, int64
from .infer import ANY, BOOLS, NUMBERS, check_axes, check_axis, check_kind, without
from .registry import OPS


def _infer_reduction(name: str, kinds: frozenset[str], empty: bool) -> Infer:
    def infer(types: Sequence[TensorType], attrs: Mapping[str, Any]) -> TensorType:
        (x,), dims = types, attrs["dims"]
        check_kind(name, x, kinds)
        check_axes(name, dims, x.rank)
        if tuple(sorted(dims)) != tuple(dims):
            raise ShapeError(f"{name}: dims {dims} must be sorted")
        if not empty and any(x.shape[d] == 0 for d in dims):
            raise ShapeError(
                f"{name}: no elements along an axis of size 0 of shape {x.shape}, and no value to start from"
            )
        return x.with_shape(without(x.shape, dims))

    return infer


def _folded(ufunc: np.ufunc) -> Callable[..., Any]:
    def evaluate(x: np.ndarray, dims: Axes) -> np.ndarray:
        return ufunc.reduce(x, axis=dims, dtype=x.dtype)

    return evaluate


def _extreme(ufunc: np.ufunc) -> Callable[..., Any]:
    def evaluate(x: np.ndarray, dims: Axes) -> np.ndarray:
        return ufunc.reduce(x, axis=dims)

    return evaluate


def restore(b: Any, reduced: Any, shape: Shape, dims: Shape) -> Any:
    """What was reduced over `dims`, repeated along them: of `shape` again."""
    return b.expand(b.view_as(reduced, tuple(1 if k in dims else n for k, n in enumerate(shape))), shape)


def _sum_rule(b: Any, node: Any, g: Any) -> Any:
    return restore(b, g, node.inputs[0].shape, node.attrs["dims"])


def _prod_rule(b: Any, node: Any, g: Any) -> Any:
    """g times the product of all other elements: those before times those after, so that zeros need no division."""
    x, dims = node.inputs[0], node.attrs["dims"]
    shape = tuple(x.shape)
    kept = tuple(k for k in range(len(shape)) if k not in dims)
    order = kept + tuple(dims)
    rows = tuple(shape[k] for k in kept) + (math.prod(shape[k] for k in dims),)
    flat = b.view_as(b.permute(x, dims=order), rows)
    last = len(kept)
    before, after = _exclusive(b, flat, last), b.flip(_exclusive(b, b.flip(flat, dims=(last,)), last), dims=(last,))
    slope = b.mul(b.expand(b.view_as(g, rows[:-1] + (1,)), rows), b.mul(before, after))
    back = tuple(sorted(range(len(order)), key=order.__getitem__))
    return b.permute(b.view_as(slope, tuple(shape[k] for k in order)), dims=back)


def _exclusive(b: Any, x: Any, dim: int) -> Any:
    """The products of all elements before each one along the last axis `dim`."""
    if x.shape[dim] == 0:
        return x
    low = (0,) * dim + (1,)
    shifted = b.pad(x, low=low, high=(0,) * (dim + 1), value=1)
    shifted = b.slice(shifted, starts=(0,) * (dim + 1), stops=x.shape, steps=(1,) * (dim + 1))
    return b.cumprod(shifted, dim=dim)


def _extreme_rule(b: Any, node: Any, g: Any) -> Any:
    """Elements that attain the extreme share equally."""
    x, dims = node.inputs[0], node.attrs["dims"]
    attained = b.eq(x, restore(b, node.outputs[0], x.shape, dims))
    share = b.div(g, b.sum(b.cast(attained, g.dtype), dims=dims))
    return b.select(attained, restore(b, share, x.shape, dims), b.full(x.shape, 0, g.dtype))


def _reduction(
    name: str,
    evaluate: Callable[..., Any],
    vjp: Vjp,
    torch_name: str,
    kinds: frozenset[str],
    unit: Any,
    empty: bool = True,
) -> None:
    OPS.declare(
        name,
        infer=_infer_reduction(name, kinds, empty),
        evaluate=evaluate,
        vjp=vjp,
        attrs={"dims": tuple},
        traits=[Trait.REDUCTION],
        unit=unit,
        torch_name=torch_name,
    )


def _position(name: str, find: Callable[..., Any], torch_name: str) -> None:
    def infer(types: Sequence[TensorType], attrs: Mapping[str, Any]) -> TensorType:
        (x,), dim = types, check_axis(name, attrs["dim"], types[0].rank)
        if x.shape[dim] == 0:
            raise ShapeError(f"{name}: no elements along axis {dim} of shape {x.shape}")
        return x.with_shape(without(x.shape, (dim,))).with_dtype(int64)

    def evaluate(x: np.ndarray, dim: int) -> np.ndarray:
        return find(x, dim)

    OPS.declare(name, infer=infer, evaluate=evaluate, vjp=ZERO_GRAD, attrs={"dim": int}, torch_name=torch_name)


_reduction("sum", _folded(np.add), (_sum_rule,), "Sum", NUMBERS, 0)
_reduction("prod", _folded(np.multiply), (_prod_rule,), "Prod", NUMBERS, 1)
_reduction("amax", _extreme(np.maximum), (_extreme_rule,), "Amax", ANY, -math.inf, empty=False)
_reduction("amin", _extreme(np.minimum), (_extreme_rule,), "Amin", ANY, math.inf, empty=False)
_reduction("any", _extreme(np.logical_or), ZERO_GRAD, "Any", BOOLS, False)
_reduction("all", _extreme(np.logical_and), ZERO_GRAD, "All", BOOLS, True)
_position("argmax", np.argmax, "Argmax")
_position("argmin", np.argmin, "Argmin")
