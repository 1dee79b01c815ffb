"""Running sums, products and extremes along one axis."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..types import TensorType, int64
from .infer import ANY, NUMBERS, check_axis, check_kind
from .registry import OPS


def _cumulative(
    name: str, ufunc: np.ufunc, rule: Callable[..., Any], torch_name: str, kinds: frozenset[str], unit: Any = None
) -> None:
    def infer(types: Sequence[TensorType], attrs: Mapping[str, Any]) -> TensorType:
        check_kind(name, types[0], kinds)
        check_axis(name, attrs["dim"], types[0].rank)
        return types[0]

    def evaluate(x: np.ndarray, dim: int) -> np.ndarray:
        return ufunc.accumulate(x, axis=dim, dtype=x.dtype)

    OPS.declare(name, infer=infer, evaluate=evaluate, vjp=(rule,), attrs={"dim": int}, unit=unit, torch_name=torch_name)


def _from_the_end(b: Any, x: Any, dim: int) -> Any:
    """The running sum from the last element backwards."""
    return b.flip(b.cumsum(b.flip(x, dims=(dim,)), dim=dim), dims=(dim,))


def _cumprod_rule(b: Any, node: Any, g: Any) -> Any:
    """Up to the first zero, the products that contain x[k], divided by it; there, those without it; then nothing.

    With no zero along the axis this is exact to every order; at a zero the first derivative is.
    """
    x, out, dim = node.inputs[0], node.outputs[0], node.attrs["dim"]
    zero, one = b.full_like(x, 0), b.full_like(x, 1)
    is_zero = b.eq(x, zero)
    seen = b.cumsum(b.cast(is_zero, int64), dim=dim)
    first = b.logical_and(is_zero, b.eq(seen, b.full_like(seen, 1)))
    before = b.eq(seen, b.full_like(seen, 0))
    divided = b.div(_from_the_end(b, b.mul(g, out), dim), b.select(is_zero, one, x))
    left_out = _from_the_end(b, b.mul(g, b.cumprod(b.select(first, one, x), dim=dim)), dim)
    return b.select(before, divided, b.select(first, left_out, zero))


def _extreme_rule(b: Any, node: Any, g: Any) -> Any:
    """A running extreme comes from the last place that attained it: the largest position so far where x equals it."""
    x, out, dim = node.inputs[0], node.outputs[0], node.attrs["dim"]
    places = [b.iota(shape=x.shape, dim=k, dtype=int64) for k in range(len(x.shape))]
    attained = b.select(b.eq(x, out), places[dim], b.full(x.shape, 0, int64))
    places[dim] = b.cummax(attained, dim=dim)
    return b.scatter(b.full(x.shape, 0, g.dtype), g, *places, dims=tuple(range(len(x.shape))), mode="add")


_cumulative("cumsum", np.add, lambda b, node, g: _from_the_end(b, g, node.attrs["dim"]), "Cumsum", NUMBERS, 0)
_cumulative("cumprod", np.multiply, _cumprod_rule, "Cumprod", NUMBERS, 1)
_cumulative("cummax", np.maximum, _extreme_rule, "Cummax", ANY)
_cumulative("cummin", np.minimum, _extreme_rule, "Cummin", ANY)
