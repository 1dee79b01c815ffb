"""Updates of a box or a strided window of a tensor, and the slice whose position is known only at run time."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DTypeError, IndexRangeError, ShapeError
from ..op import Trait
from ..types import Axes, TensorType
from .infer import check_positions, check_rank
from .registry import OPS
from .views import check_window, overlaps, strided_window

Attrs = Mapping[str, Any]
Types = Sequence[TensorType]


def check_update(name: str, x: TensorType, u: TensorType) -> None:
    """What is written has the dtype of what it is written to."""
    if x.dtype is not u.dtype:
        raise DTypeError(f"{name}: the tensor is {x.dtype.name} and the update {u.dtype.name}")


def _zeros(b: Any, x: Any, dtype: Any) -> Any:
    return b.full(x.shape, 0, dtype)


# slice_update


def _infer_slice_update(types: Types, attrs: Attrs) -> TensorType:
    (x, u), starts, steps = types, attrs["starts"], attrs["steps"]
    check_update("slice_update", x, u)
    for what, values in (("starts", starts), ("steps", steps), ("the update's shape", u.shape)):
        check_rank("slice_update", what, values, x.rank)
    for size, n, start, step in zip(x.shape, u.sizes, starts, steps, strict=True):
        if (n, start, step) == (size, 0, 1):
            continue
        if start < 0 or step < 1 or (n and start + (n - 1) * step >= size):
            raise IndexRangeError(
                f"slice_update: {n} elements from {start} by {step} do not fit an axis of size {size}"
            )
    return x


def _slice_update(x: np.ndarray, u: np.ndarray, starts: Axes, steps: Axes) -> np.ndarray:
    result = x.copy()
    if u.size:
        result[tuple(slice(a, a + n * c, c) for a, n, c in zip(starts, u.shape, steps, strict=True))] = u
    return result


def _slice_update_target(b: Any, node: Any, g: Any) -> Any:
    return b.slice_update(g, _zeros(b, node.inputs[1], g.dtype), starts=node.attrs["starts"], steps=node.attrs["steps"])


def _slice_update_value(b: Any, node: Any, g: Any) -> Any:
    starts, steps, shape = node.attrs["starts"], node.attrs["steps"], node.inputs[1].shape
    stops = tuple(a + (n - 1) * c + 1 if n else a for a, n, c in zip(starts, shape, steps, strict=True))
    return b.slice(g, starts=starts, stops=stops, steps=steps)


# as_strided_update


def _infer_as_strided_update(types: Types, attrs: Attrs) -> TensorType:
    (x, u), strides = types, attrs["strides"]
    check_update("as_strided_update", x, u)
    check_window("as_strided_update", x, u.sizes, strides, attrs["offset"])
    if overlaps(u.sizes, strides):
        raise ShapeError(f"as_strided_update: a window of shape {u.shape} with strides {strides} overlaps itself")
    return x


def _as_strided_update(x: np.ndarray, u: np.ndarray, strides: Axes, offset: int) -> np.ndarray:
    result = x.copy()
    strided_window(result, u.shape, strides, offset)[...] = u
    return result


def _as_strided_update_target(b: Any, node: Any, g: Any) -> Any:
    return b.as_strided_update(
        g, _zeros(b, node.inputs[1], g.dtype), strides=node.attrs["strides"], offset=node.attrs["offset"]
    )


def _as_strided_update_value(b: Any, node: Any, g: Any) -> Any:
    return b.as_strided(g, shape=node.inputs[1].shape, strides=node.attrs["strides"], offset=node.attrs["offset"])


# dynamic_update and dynamic_slice


def _check_box(name: str, x: TensorType, sizes: Axes) -> None:
    check_rank(name, "sizes", sizes, x.rank)
    for size, n in zip(x.shape, sizes, strict=True):
        if n != size and not 0 <= n <= size:
            raise ShapeError(f"{name}: a box of {sizes} does not fit into the shape {x.shape}")


def _place(name: str, shape: Axes, starts: Sequence[np.ndarray], sizes: Axes) -> tuple[Any, ...]:
    """The box as slices and an ellipsis, with its position checked."""
    box: list[Any] = [...]
    for axis, (size, start, n) in enumerate(zip(shape, map(int, starts), sizes, strict=True)):
        if not 0 <= start <= size - n:
            raise IndexRangeError(
                f"{name}: start {start} is out of range for {n} elements of axis {axis} of size {size}"
            )
        box.append(slice(start, start + n))
    return tuple(box)


def _infer_dynamic_update(types: Types, attrs: Attrs) -> TensorType:
    x, u, *starts = types
    check_update("dynamic_update", x, u)
    _check_box("dynamic_update", x, u.sizes)
    check_positions("dynamic_update", starts, x.rank)
    return x


def _dynamic_update(x: np.ndarray, u: np.ndarray, *starts: np.ndarray) -> np.ndarray:
    box = _place("dynamic_update", x.shape, starts, u.shape)
    result = x.copy()
    result[box] = u
    return result


def _starts(node: Any, first: int) -> list[Any]:
    return [node.inputs[k] for k in range(first, first + len(node.inputs[0].shape))]


def _dynamic_update_rule(b: Any, node: Any, g: Any, i: int) -> Any:
    if i == 0:
        return b.dynamic_update(g, _zeros(b, node.inputs[1], g.dtype), *_starts(node, 2))
    return b.dynamic_slice(g, *_starts(node, 2), sizes=node.inputs[1].shape) if i == 1 else None


def _infer_dynamic_slice(types: Types, attrs: Attrs) -> TensorType:
    x, *starts = types
    _check_box("dynamic_slice", x, attrs["sizes"])
    check_positions("dynamic_slice", starts, x.rank)
    return x.with_shape(attrs["sizes"])


def _dynamic_slice(x: np.ndarray, *starts: np.ndarray, sizes: Axes) -> np.ndarray:
    return x[_place("dynamic_slice", x.shape, starts, sizes)]


def _dynamic_slice_rule(b: Any, node: Any, g: Any, i: int) -> Any:
    return b.dynamic_update(_zeros(b, node.inputs[0], g.dtype), g, *_starts(node, 1)) if i == 0 else None


# row_update


def _infer_row_update(types: Types, attrs: Attrs) -> TensorType:
    x, u, index = types
    check_update("row_update", x, u)
    check_positions("row_update", [index], 1)
    if not x.rank or u.sizes != (1, *x.sizes[1:]):
        raise ShapeError(f"row_update: {u.shape} is no row of {x.shape}")
    return x


def _row_update(x: np.ndarray, u: np.ndarray, index: np.ndarray, step: int, offset: int) -> np.ndarray:
    return _dynamic_update(x, u, np.array(step * int(index) + offset), *[np.array(0)] * (x.ndim - 1))


def _row_update_rule(b: Any, node: Any, g: Any, i: int) -> Any:
    x, u, index = node.inputs
    if i == 0:
        return b.row_update(g, _zeros(b, u, g.dtype), index, **node.attrs)
    row = b.add(b.mul(index, b.index_scalar(node.attrs["step"])), b.index_scalar(node.attrs["offset"]))
    starts = row, *[b.index_scalar(0)] * (len(x.shape) - 1)
    return b.dynamic_slice(g, *starts, sizes=u.shape) if i == 1 else None


OPS.declare(
    "slice_update",
    infer=_infer_slice_update,
    evaluate=_slice_update,
    attrs={"starts": tuple, "steps": tuple},
    arity=2,
    vjp=(_slice_update_target, _slice_update_value),
    traits=[Trait.UPDATE],
    torch_name="CopySlices",
)
OPS.declare(
    "as_strided_update",
    infer=_infer_as_strided_update,
    evaluate=_as_strided_update,
    attrs={"offset": int, "strides": tuple},
    arity=2,
    vjp=(_as_strided_update_target, _as_strided_update_value),
    traits=[Trait.UPDATE],
    torch_name="AsStridedScatter",
)
OPS.declare(
    "dynamic_update",
    infer=_infer_dynamic_update,
    evaluate=_dynamic_update,
    arity=None,
    vjp=_dynamic_update_rule,
    traits=[Trait.UPDATE, Trait.INDEXED],
    torch_name="SelectScatter",
)
OPS.declare(
    "dynamic_slice",
    infer=_infer_dynamic_slice,
    evaluate=_dynamic_slice,
    attrs={"sizes": tuple},
    arity=None,
    vjp=_dynamic_slice_rule,
    traits=[Trait.INDEXED],
    torch_name="Select",
)
OPS.declare(
    "row_update",
    infer=_infer_row_update,
    evaluate=_row_update,
    attrs={"offset": int, "step": int},
    arity=3,
    vjp=_row_update_rule,
    traits=[Trait.UPDATE, Trait.INDEXED],
    torch_name="SelectScatter",
)
"""Row `step * index + offset` of a sequence that a loop carries: what fusion makes of a `dynamic_update` when the row
can be computed where it belongs (passes/rows_in_place.py)."""
