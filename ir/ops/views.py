"""Views: ops that only say where each element comes from.

The index functions use plain operators: they work on index expressions, Python ints and integer arrays alike, and may
return the int 0 for an axis of size one.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import IndexRangeError, ShapeError
from ..op import ZERO_GRAD, Trait
from ..types import Axes, TensorType, int64
from .infer import check_axes, check_rank, check_shape, element_count
from .registry import OPS

Attrs = Mapping[str, Any]
Types = Sequence[TensorType]


# broadcast


def _infer_broadcast(types: Types, attrs: Attrs) -> TensorType:
    (x,), shape = types, attrs["shape"]
    check_shape("broadcast", shape)
    lead = len(shape) - x.rank
    if lead < 0 or any(d not in (1, s) for d, s in zip(x.shape, shape[lead:], strict=True)):
        raise ShapeError(f"broadcast: shape {x.shape} cannot become {shape}")
    return x.with_shape(shape)


def broadcast_array(x: np.ndarray, shape: Axes) -> np.ndarray:
    """`x` with repeated elements, without a copy; much faster than `np.broadcast_to` when `x` is contiguous."""
    if x.ndim == 0:
        return np.ndarray(shape, x.dtype, x, 0, (0,) * len(shape))
    if x.flags.c_contiguous and x.size:
        lead = len(shape) - x.ndim
        strides = [0] * lead + [s if n == m else 0 for n, m, s in zip(x.shape, shape[lead:], x.strides, strict=True)]
        return np.ndarray(shape, x.dtype, x, 0, strides)
    return np.broadcast_to(x, shape)


def _broadcast_index(indices: Sequence[Any], x: TensorType, attrs: Attrs) -> list[Any]:
    shape = attrs["shape"]
    lead = len(shape) - x.rank
    return [0 if d == 1 else i for d, i in zip(x.shape, indices[lead:], strict=True)]


# reshape


def _infer_reshape(types: Types, attrs: Attrs) -> TensorType:
    (x,), shape = types, attrs["shape"]
    check_shape("reshape", shape)
    if element_count(x.shape) != element_count(shape):
        raise ShapeError(f"reshape: shape {x.shape} and {shape} have different numbers of elements")
    return x.with_shape(shape)


def _reshape(x: np.ndarray, shape: Axes) -> np.ndarray:
    return x.reshape(shape)


def _reshape_groups(old: Axes, new: Axes) -> list[tuple[range, range]]:
    """The smallest runs of axes of both shapes with equal products, from left to right; size one fits into any run."""
    groups, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        first = (i, j)
        left = right = 1
        while True:
            if left == right and (i, j) != first:
                break
            if i < len(old) and (left <= right or j == len(new)):
                left, i = left * old[i], i + 1
            else:
                right, j = right * new[j], j + 1
        groups.append((range(first[0], i), range(first[1], j)))
    return groups


def _reshape_index(indices: Sequence[Any], x: TensorType, attrs: Attrs) -> list[Any]:
    shape, sizes = attrs["shape"], x.sizes
    result: list[Any] = [0] * x.rank
    if 0 in shape or 0 in sizes:
        return result
    for old, new in _reshape_groups(sizes, shape):
        wide = [a for a in old if sizes[a] != 1]
        flat = flatten([indices[a] for a in new if shape[a] != 1], [shape[a] for a in new if shape[a] != 1])
        for axis, index in zip(wide, unflatten(flat, [sizes[a] for a in wide]), strict=True):
            result[axis] = index
    return result


def flatten(indices: Sequence[Any], sizes: Sequence[int]) -> Any:
    """The row-major position of `indices` in an array with `sizes`."""
    flat: Any = 0
    for k, (index, size) in enumerate(zip(indices, sizes, strict=True)):
        flat = index if k == 0 else flat * size + index
    return flat


def unflatten(flat: Any, sizes: Sequence[int]) -> list[Any]:
    """The inverse of `flatten`."""
    strides = row_major_strides(tuple(sizes))
    parts = [flat if s == 1 else flat // s for s in strides]
    return [p if k == 0 else p % n for k, (p, n) in enumerate(zip(parts, sizes, strict=True))]


def row_major_strides(shape: Axes) -> tuple[int, ...]:
    """Strides, in elements, of a contiguous array."""
    return tuple(math.prod(shape[k + 1 :]) for k in range(len(shape)))


# permute


def _infer_permute(types: Types, attrs: Attrs) -> TensorType:
    (x,), dims = types, attrs["dims"]
    check_rank("permute", "dims", dims, x.rank)
    check_axes("permute", dims, x.rank)
    return x.with_shape(tuple(x.shape[d] for d in dims))


def _permute(x: np.ndarray, dims: Axes) -> np.ndarray:
    return x.transpose(dims)


def inverse_permutation(dims: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes `dims`."""
    return tuple(sorted(range(len(dims)), key=dims.__getitem__))


def _permute_index(indices: Sequence[Any], x: TensorType, attrs: Attrs) -> list[Any]:
    return [indices[k] for k in inverse_permutation(attrs["dims"])]


# slice


def _infer_slice(types: Types, attrs: Attrs) -> TensorType:
    (x,), starts, stops, steps = types, attrs["starts"], attrs["stops"], attrs["steps"]
    for what, values in (("starts", starts), ("stops", stops), ("steps", steps)):
        check_rank("slice", what, values, x.rank)
    shape = []
    for size, start, stop, step in zip(x.shape, starts, stops, steps, strict=True):
        if (start, stop, step) == (0, size, 1):
            shape.append(size)
        elif not (0 <= start <= stop <= size and step >= 1):
            raise IndexRangeError(f"slice: {start}:{stop}:{step} is not within an axis of size {size}")
        else:
            shape.append(-((start - stop) // step))
    return x.with_shape(tuple(shape))


def _slice(x: np.ndarray, starts: Axes, stops: Axes, steps: Axes) -> np.ndarray:
    box: tuple[Any, ...] = (*map(slice, starts, stops, steps), ...)  # the ellipsis keeps a view of shape [] an array
    return x[box]


DILATION = 16
"""Up to so many elements for each one that a slice with steps takes, its transpose is made of views, which fuse."""


def _slice_rule(b: Any, node: Any, g: Any) -> Any:
    shape, starts, stops, steps = node.inputs[0].shape, node.attrs["starts"], node.attrs["stops"], node.attrs["steps"]
    if math.prod(steps) > DILATION:
        return b.slice_update(b.full(shape, 0, g.dtype), g, starts=starts, steps=steps)
    spread = dilate(b, g, steps)
    ends = tuple(
        stop if step == 1 else min(n, start + m)
        for n, start, stop, step, m in zip(shape, starts, stops, steps, spread.shape, strict=True)
    )
    if any(step != 1 for step in steps):
        lengths = tuple(end if start == 0 else end - start for start, end in zip(starts, ends, strict=True))
        if tuple(spread.shape) != lengths:
            spread = b.slice(spread, starts=(0,) * len(shape), stops=lengths, steps=(1,) * len(shape))
    high = tuple(0 if n == end else n - end for n, end in zip(shape, ends, strict=True))
    return spread if not any(starts + high) else b.pad(spread, low=starts, high=high, value=0)


def dilate(b: Any, x: Any, steps: Axes) -> Any:
    """`x` with `step - 1` zeros behind each element along each axis."""
    if all(step == 1 for step in steps):
        return x
    spread = [k for k, step in enumerate(steps) if step != 1]
    apart, high = [], []
    for n, step in zip(x.shape, steps, strict=True):
        apart += [n] if step == 1 else [n, 1]
        high += [0] if step == 1 else [0, step - 1]
    wide = b.pad(b.view_as(x, tuple(apart)), low=(0,) * len(high), high=tuple(high), value=0)
    return b.view_as(wide, tuple(n * steps[k] if k in spread else n for k, n in enumerate(x.shape)))


def _slice_index(indices: Sequence[Any], x: TensorType, attrs: Attrs) -> list[Any]:
    return [i * step + start for i, start, step in zip(indices, attrs["starts"], attrs["steps"], strict=True)]


# flip


def _infer_flip(types: Types, attrs: Attrs) -> TensorType:
    check_axes("flip", attrs["dims"], types[0].rank)
    return types[0]


def _flip(x: np.ndarray, dims: Axes) -> np.ndarray:
    box: tuple[Any, ...] = (*(slice(None, None, -1 if k in dims else 1) for k in range(x.ndim)), ...)
    return x[box]


def _flip_index(indices: Sequence[Any], x: TensorType, attrs: Attrs) -> list[Any]:
    return [
        i * -1 + (n - 1) if k in attrs["dims"] else i for k, (i, n) in enumerate(zip(indices, x.sizes, strict=True))
    ]


# as_strided


def check_window(name: str, x: TensorType, shape: Axes, strides: Axes, offset: int) -> None:
    """The strided window lies within the elements of `x`."""
    check_shape(name, shape)
    check_rank(name, "strides", strides, len(shape))
    if offset < 0 or any(s < 0 for s in strides):
        raise ShapeError(f"{name}: offset {offset} and strides {strides} must not be negative")
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if 0 not in shape and last >= x.size:
        raise IndexRangeError(
            f"{name}: shape {shape} with strides {strides} from {offset} reaches element {last} of the {x.size} of {x}"
        )


def overlaps(shape: Axes, strides: Axes) -> bool:
    """Whether a strided window may hold one element twice (never answers False wrongly)."""
    reach = 0
    for stride, size in sorted((s, n) for n, s in zip(shape, strides, strict=True) if n != 1):
        if stride <= reach:
            return True
        reach += stride * (size - 1)
    return False


def _infer_as_strided(types: Types, attrs: Attrs) -> TensorType:
    check_window("as_strided", types[0], attrs["shape"], attrs["strides"], attrs["offset"])
    return types[0].with_shape(attrs["shape"])


def strided_window(x: np.ndarray, shape: Axes, strides: Axes, offset: int) -> np.ndarray:
    """The window as a NumPy view of the contiguous array `x`."""
    if 0 in shape:
        return np.empty(shape, x.dtype)
    return np.ndarray(shape, x.dtype, x, offset * x.itemsize, [s * x.itemsize for s in strides])


def _as_strided(x: np.ndarray, shape: Axes, strides: Axes, offset: int) -> np.ndarray:
    return strided_window(np.ascontiguousarray(x), shape, strides, offset)


def _as_strided_rule(b: Any, node: Any, g: Any) -> Any:
    source, shape, strides, offset = node.inputs[0], g.shape, node.attrs["strides"], node.attrs["offset"]
    if not overlaps(shape, strides):
        return b.as_strided_update(b.full(source.shape, 0, g.dtype), g, strides=strides, offset=offset)
    places = b.full(shape, offset, int64)
    for axis, stride in enumerate(strides):
        places = b.add(places, b.scale(b.iota(shape=shape, dim=axis, dtype=int64), stride))
    total = b.scatter(b.full((math.prod(source.shape),), 0, g.dtype), g, places, dims=(0,), mode="add")
    return b.view_as(total, source.shape)


def _as_strided_index(indices: Sequence[Any], x: TensorType, attrs: Attrs) -> list[Any]:
    flat = attrs["offset"]
    for index, stride in zip(indices, attrs["strides"], strict=True):
        flat = index * stride + flat
    return unflatten(flat, x.sizes)


OPS.declare(
    "broadcast",
    infer=_infer_broadcast,
    evaluate=broadcast_array,
    index=_broadcast_index,
    attrs={"shape": tuple},
    vjp=(lambda b, node, g: b.sum_to(g, node.inputs[0].shape),),
    traits=[Trait.VIEW],
    torch_name="Expand",
)
OPS.declare(
    "reshape",
    infer=_infer_reshape,
    evaluate=_reshape,
    index=_reshape_index,
    attrs={"shape": tuple},
    vjp=(lambda b, node, g: b.view_as(g, node.inputs[0].shape),),
    traits=[Trait.VIEW],
    torch_name="View",
)
OPS.declare(
    "permute",
    infer=_infer_permute,
    evaluate=_permute,
    index=_permute_index,
    attrs={"dims": tuple},
    vjp=(lambda b, node, g: b.permute(g, dims=inverse_permutation(node.attrs["dims"])),),
    traits=[Trait.VIEW],
    torch_name="Permute",
)
OPS.declare(
    "slice",
    infer=_infer_slice,
    evaluate=_slice,
    index=_slice_index,
    attrs={"starts": tuple, "steps": tuple, "stops": tuple},
    vjp=(_slice_rule,),
    traits=[Trait.VIEW],
    torch_name="Slice",
)
OPS.declare(
    "flip",
    infer=_infer_flip,
    evaluate=_flip,
    index=_flip_index,
    attrs={"dims": tuple},
    vjp=(lambda b, node, g: b.flip(g, dims=node.attrs["dims"]),),
    traits=[Trait.VIEW],
    torch_name="Flip",
)
OPS.declare(
    "as_strided",
    infer=_infer_as_strided,
    evaluate=_as_strided,
    index=_as_strided_index,
    attrs={"offset": int, "shape": tuple, "strides": tuple},
    vjp=(_as_strided_rule,),
    traits=[Trait.VIEW],
    torch_name="AsStrided",
)
OPS.declare(
    "stop_gradient",                # a view that shows all of its input, through which no gradient flows
    infer=lambda types, attrs: types[0],
    evaluate=lambda x: x.view(),
    index=lambda indices, x, attrs: list(indices),
    vjp=ZERO_GRAD,
    traits=[Trait.VIEW],
    torch_name="Detach",
)
OPS.declare(
    "barrier",                      # the first input, for what is not to run before the second is there; never merged
    infer=lambda types, attrs: types[0],
    evaluate=lambda x, after: x.view(),
    index=lambda indices, x, attrs: list(indices),
    arity=2,
    vjp=(lambda b, node, g: g, ZERO_GRAD),
    traits=[Trait.VIEW],
    torch_name="Barrier",
)
