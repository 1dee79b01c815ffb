"""Indexing with integer tensors: gather and scatter."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DTypeError, IndexRangeError, ShapeError
from ..op import Trait
from ..types import Axes, TensorType, bool_, int64
from .infer import check_axes, check_indices, without
from .registry import OPS
from .updates import check_update

MODES = {"set": None, "add": np.add, "mul": np.multiply, "amin": np.minimum, "amax": np.maximum}
"""How `scatter` joins an update with what stands there; `set` replaces it, and of equal indices the last one wins."""

Types = Sequence[TensorType]


def _check_bounds(name: str, x: np.ndarray, indices: Sequence[np.ndarray], dims: Axes) -> None:
    for index, dim in zip(indices, dims, strict=True):
        size = x.shape[dim]
        if index.size and index.view(np.uint64).max() >= size:  # a negative index is a huge unsigned one
            bad = index[(index < 0) | (index >= size)].flat[0] if index.ndim else index
            raise IndexRangeError(f"{name}: index {bad} is out of range for axis {dim} of size {size}")


def _named_axes_first(rank: int, dims: Axes) -> Axes:
    return tuple(dims) + tuple(k for k in range(rank) if k not in dims)


# gather


def _infer_gather(types: Types, attrs: Mapping[str, Any]) -> TensorType:
    (x, *indices), dims = types, attrs["dims"]
    shape = check_indices("gather", indices)
    _check_dims("gather", x, indices, dims)
    return x.with_shape(shape + without(x.shape, dims))


def _check_dims(name: str, x: TensorType, indices: Types, dims: Axes) -> None:
    check_axes(name, dims, x.rank)
    if len(indices) != len(dims):
        raise ShapeError(f"{name}: {len(indices)} indices for the axes {dims}")


def _gather(x: np.ndarray, *indices: np.ndarray, dims: Axes) -> np.ndarray:
    _check_bounds("gather", x, indices, dims)
    if dims == (0,):
        return x.take(indices[0], 0)
    return x.transpose(_named_axes_first(x.ndim, dims))[indices]


def _gather_rule(b: Any, node: Any, g: Any, i: int) -> Any:
    if i > 0:
        return None
    return b.scatter(
        b.full(node.inputs[0].shape, 0, g.dtype), g, *_indices(node, 1), dims=node.attrs["dims"], mode="add"
    )


# scatter


def _infer_scatter(types: Types, attrs: Mapping[str, Any]) -> TensorType:
    (x, u, *indices), dims, mode = types, attrs["dims"], attrs["mode"]
    check_update("scatter", x, u)
    shape = check_indices("scatter", indices)
    _check_dims("scatter", x, indices, dims)
    if mode not in MODES:
        raise ShapeError(f"scatter: mode {mode!r} is none of {', '.join(MODES)}")
    if mode in ("add", "mul") and x.dtype is bool_:
        raise DTypeError(f"scatter with mode {mode!r} is not defined for bool")
    if u.shape != shape + without(x.shape, dims):
        raise ShapeError(f"scatter: the update has shape {u.shape}, not {shape + without(x.shape, dims)}")
    return x


def _scatter(x: np.ndarray, u: np.ndarray, *indices: np.ndarray, dims: Axes, mode: str) -> np.ndarray:
    _check_bounds("scatter", x, indices, dims)
    result = x.copy()
    target = result.transpose(_named_axes_first(x.ndim, dims))
    rest = u.shape[indices[0].ndim :]
    rows = tuple(np.ascontiguousarray(index).reshape(-1) for index in indices)  # NumPy then writes in row-major order
    values = u.reshape((rows[0].size, *rest))
    join = MODES[mode]
    if join is None:
        target[rows] = values
    else:
        join.at(target, rows, values)
    return result


def _indices(node: Any, first: int) -> list[Any]:
    return [node.inputs[k] for k in range(first, first + len(node.attrs["dims"]))]


def _scatter_rule(b: Any, node: Any, g: Any, i: int) -> Any:
    rules = {
        "set": (_set_target, _set_value),
        "add": (lambda b, node, g: g, _gathered),
        "mul": (_mul_target, _mul_value),
        "amin": (_extreme_target, _extreme_value),
        "amax": (_extreme_target, _extreme_value),
    }
    return rules[node.attrs["mode"]][i](b, node, g) if i < 2 else None


def _gathered(b: Any, node: Any, x: Any) -> Any:
    """The elements of `x`, a tensor like the target, at the places of the updates."""
    return b.gather(x, *_indices(node, 2), dims=node.attrs["dims"])


def _scattered(b: Any, node: Any, x: Any, u: Any, mode: str) -> Any:
    return b.scatter(x, u, *_indices(node, 2), dims=node.attrs["dims"], mode=mode)


def _set_target(b: Any, node: Any, g: Any) -> Any:
    return _scattered(b, node, g, b.full(node.inputs[1].shape, 0, g.dtype), "set")


def _set_value(b: Any, node: Any, g: Any) -> Any:
    """Only the update written last at its place had an effect: each writes its number there and looks who is left."""
    dims, indices = node.attrs["dims"], _indices(node, 2)
    places, sizes, shape = indices[0].shape, [node.inputs[0].shape[d] for d in dims], node.inputs[1].shape
    numbers = b.view_as(b.iota(shape=(math.prod(places),), dim=0, dtype=int64), places)
    board = b.scatter(b.full(tuple(sizes), 0, int64), numbers, *indices, dims=tuple(range(len(dims))), mode="set")
    last = b.eq(b.gather(board, *indices, dims=tuple(range(len(dims)))), numbers)
    mask = b.expand(b.view_as(last, places + (1,) * (len(shape) - len(places))), shape)
    return b.select(mask, _gathered(b, node, g), b.full(shape, 0, g.dtype))


def _mul_target(b: Any, node: Any, g: Any) -> Any:
    return _scattered(b, node, g, node.inputs[1], "mul")


def _mul_value(b: Any, node: Any, g: Any) -> Any:
    """g times the product of all other factors at the same place, right also where factors are zero."""
    x, u = node.inputs[0], node.inputs[1]
    x_zero, u_zero = b.eq(x, b.full_like(x, 0)), b.eq(u, b.full_like(u, 0))
    x_factor, u_factor = b.select(x_zero, b.full_like(x, 1), x), b.select(u_zero, b.full_like(u, 1), u)
    product = _scattered(b, node, x_factor, u_factor, "mul")
    zeros = _scattered(b, node, b.cast(x_zero, x.dtype), b.cast(u_zero, u.dtype), "add")
    others = b.sub(_gathered(b, node, zeros), b.cast(u_zero, u.dtype))
    value = b.div(_gathered(b, node, b.mul(g, product)), u_factor)
    return b.select(b.eq(others, b.full_like(u, 0)), value, b.full_like(u, 0))


def _share(b: Any, node: Any, g: Any) -> Any:
    """g divided by the number of elements that attain the extreme: ties share equally."""
    x, u, out = node.inputs[0], node.inputs[1], node.outputs[0]
    count = _scattered(b, node, b.cast(b.eq(x, out), g.dtype), b.cast(b.eq(u, _gathered(b, node, out)), g.dtype), "add")
    return b.div(g, count)


def _extreme_target(b: Any, node: Any, g: Any) -> Any:
    return b.select(b.eq(node.inputs[0], node.outputs[0]), _share(b, node, g), b.full_like(g, 0))


def _extreme_value(b: Any, node: Any, g: Any) -> Any:
    u, out = node.inputs[1], _gathered(b, node, node.outputs[0])
    return b.select(b.eq(u, out), _gathered(b, node, _share(b, node, g)), b.full_like(u, 0))


OPS.declare(
    "gather",
    infer=_infer_gather,
    evaluate=_gather,
    attrs={"dims": tuple},
    arity=None,
    vjp=_gather_rule,
    traits=[Trait.INDEXED],
    torch_name="Index",
)
OPS.declare(
    "scatter",
    infer=_infer_scatter,
    evaluate=_scatter,
    attrs={"dims": tuple, "mode": str},
    arity=None,
    vjp=_scatter_rule,
    traits=[Trait.UPDATE, Trait.INDEXED],
    torch_name="IndexPut",
)
