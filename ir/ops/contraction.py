"""dot_general: the product of two tensors summed over axes, as in matrix products, dots and outer products."""
from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import ShapeError
from ..op import Trait
from ..types import Axes, TensorType
from .infer import NUMBERS, check_axes, check_kind, check_same
from .registry import OPS


def _free(rank: int, *used: Axes) -> Axes:
    taken = {k for axes in used for k in axes}
    return tuple(k for k in range(rank) if k not in taken)


def _infer(types: Sequence[TensorType], attrs: Mapping[str, Any]) -> TensorType:
    x, y = types
    lhs_batch, rhs_batch, lhs_contract, rhs_contract = (
        attrs[k] for k in ("lhs_batch", "rhs_batch", "lhs_contract", "rhs_contract")
    )
    check_same("dot_general", x.with_shape(()), y.with_shape(()))
    check_kind("dot_general", x, NUMBERS)
    check_axes("dot_general", lhs_batch + lhs_contract, x.rank)
    check_axes("dot_general", rhs_batch + rhs_contract, y.rank)
    for a, b in ((lhs_batch, rhs_batch), (lhs_contract, rhs_contract)):
        if tuple(x.shape[k] for k in a) != tuple(y.shape[k] for k in b):
            raise ShapeError(f"dot_general: axes {a} of shape {x.shape} do not match axes {b} of shape {y.shape}")
    batch = tuple(x.shape[k] for k in lhs_batch)
    rows = tuple(x.shape[k] for k in _free(x.rank, lhs_batch, lhs_contract))
    return x.with_shape(batch + rows + tuple(y.shape[k] for k in _free(y.rank, rhs_batch, rhs_contract)))


@functools.cache
def _plan(
    x_rank: int, y_rank: int, lhs_batch: Axes, rhs_batch: Axes, lhs_contract: Axes, rhs_contract: Axes
) -> Callable[..., Any]:
    """A function (x, y) -> result, chosen once for each arrangement of axes."""
    x_free, y_free = _free(x_rank, lhs_batch, lhs_contract), _free(y_rank, rhs_batch, rhs_contract)
    x_order, y_order = lhs_batch + x_free + lhs_contract, rhs_batch + rhs_contract + y_free
    free = len(x_free), len(y_free)
    if len(lhs_contract) == 1 and (free == (1, 1) or (max(free) <= 1 and not lhs_batch)):  # as NumPy arranges them
        if x_order == tuple(range(x_rank)) and y_order == tuple(range(y_rank)):
            return np.matmul
        return lambda x, y: np.matmul(x.transpose(x_order), y.transpose(y_order))

    def product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        batch = tuple(x.shape[k] for k in lhs_batch)
        rows, columns = tuple(x.shape[k] for k in x_free), tuple(y.shape[k] for k in y_free)
        inner = math.prod(x.shape[k] for k in lhs_contract)
        left = x.transpose(x_order).reshape((*batch, math.prod(rows), inner))
        right = y.transpose(y_order).reshape((*batch, inner, math.prod(columns)))
        return np.matmul(left, right).reshape(batch + rows + columns)

    return product


def _dot_general(
    x: np.ndarray, y: np.ndarray, lhs_batch: Axes, rhs_batch: Axes, lhs_contract: Axes, rhs_contract: Axes
) -> np.ndarray:
    return _plan(x.ndim, y.ndim, lhs_batch, rhs_batch, lhs_contract, rhs_contract)(x, y)


def _arrange(b: Any, product: Any, axes: Sequence[int]) -> Any:
    """`product`, whose k-th axis is axis `axes[k]` of the operand, in the operand's order."""
    order = tuple(sorted(range(len(axes)), key=axes.__getitem__))
    return product if order == tuple(range(len(axes))) else b.permute(product, dims=order)


class _Layout(NamedTuple):
    """The axes of the two products that are the derivative of one."""

    batch: Axes
    left: Axes
    right: Axes
    """Of the result."""
    lhs_free: Axes
    rhs_free: Axes
    lhs_axes: Axes
    rhs_axes: Axes
    """Of the operands, in the order in which the products give them."""


@functools.cache
def _layout(lhs: int, rhs: int, lhs_batch: Axes, rhs_batch: Axes, lhs_contract: Axes, rhs_contract: Axes) -> _Layout:
    """For operands of these ranks."""
    lhs_free, rhs_free = _free(lhs, lhs_batch, lhs_contract), _free(rhs, rhs_batch, rhs_contract)
    n, m = len(lhs_batch), len(lhs_free)
    left_of = dict(zip(rhs_contract, lhs_contract, strict=True))
    right_of = dict(zip(lhs_contract, rhs_contract, strict=True))
    return _Layout(
        tuple(range(n)),
        tuple(range(n, n + m)),
        tuple(range(n + m, n + m + len(rhs_free))),
        lhs_free,
        rhs_free,
        lhs_batch + lhs_free + tuple(left_of[k] for k in sorted(rhs_contract)),
        rhs_batch + tuple(right_of[k] for k in sorted(lhs_contract)) + rhs_free,
    )


def _left_rule(b: Any, node: Any, g: Any) -> Any:
    (x, y), a = node.inputs, node.attrs
    at = _layout(len(x.shape), len(y.shape), **a)
    product = b.dot_general(
        g, y, lhs_batch=at.batch, rhs_batch=a["rhs_batch"], lhs_contract=at.right, rhs_contract=at.rhs_free
    )
    return _arrange(b, product, at.lhs_axes)


def _right_rule(b: Any, node: Any, g: Any) -> Any:
    (x, y), a = node.inputs, node.attrs
    at = _layout(len(x.shape), len(y.shape), **a)
    product = b.dot_general(
        x, g, lhs_batch=a["lhs_batch"], rhs_batch=at.batch, lhs_contract=at.lhs_free, rhs_contract=at.left
    )
    return _arrange(b, product, at.rhs_axes)


OPS.declare(
    "dot_general",
    infer=_infer,
    evaluate=_dot_general,
    arity=2,
    vjp=(_left_rule, _right_rule),
    traits=[Trait.LIBRARY],
    torch_name="Mm",
    attrs={"lhs_batch": tuple, "lhs_contract": tuple, "rhs_batch": tuple, "rhs_contract": tuple},
)
