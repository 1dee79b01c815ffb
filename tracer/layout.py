"""Strides of views, computed as torch computes them; pure arithmetic on shapes, for tensors that have no memory yet."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..ir.errors import ShapeError, TraceError
from ..ir.op import Op
from ..ir.types import TensorType
from .location import error


def contiguous_strides(shape: Sequence[Any]) -> tuple[int, ...]:
    """Row-major strides in elements; as torch, sizes of 0 count as 1."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def view_strides(shape: Sequence[int], strides: Sequence[int], new_shape: Sequence[int]) -> tuple[int, ...] | None:
    """The strides of `new_shape` over the same memory, or None when no view exists (the rule of torch's `view`)."""
    if 0 in new_shape:
        return contiguous_strides(new_shape)
    result = [0] * len(new_shape)
    position = len(new_shape) - 1
    base, chunk, taken = strides[-1] if strides else 1, 1, 1
    for d in reversed(range(len(shape))):
        chunk *= shape[d]
        if d == 0 or (shape[d - 1] != 1 and strides[d - 1] != chunk * base):
            while position >= 0 and (taken < chunk or new_shape[position] == 1):
                result[position] = taken * base
                taken *= new_shape[position]
                position -= 1
            if taken != chunk:
                return None
            if d > 0:
                base, chunk, taken = strides[d - 1], 1, 1
    if not shape:
        return contiguous_strides(new_shape)
    return tuple(result) if position < 0 else None


def window_geometry(
    attrs: Mapping[str, Any], shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> tuple[tuple[int, ...], int]:
    """(strides, offset) in memory of a strided window on the row-major order of a tensor that may itself be strided."""
    if strides == contiguous_strides(shape):
        return attrs["strides"], offset + attrs["offset"]
    start = _place(attrs["offset"], shape)
    moves = [_place(s if n > 1 else 0, shape) for s, n in zip(attrs["strides"], attrs["shape"], strict=True)]
    ends = list(start)
    for move, n in zip(moves, attrs["shape"], strict=True):
        ends = [end + step * max(n - 1, 0) for end, step in zip(ends, move, strict=True)]
    if any(end >= n for end, n in zip(ends, shape, strict=True)):
        raise error(
            TraceError,
            f"as_strided: a window {attrs['shape']} with strides {attrs['strides']} of a view with strides {strides} "
            "has no strides of its own: take it of a contiguous() copy",
        )
    in_memory = [sum(p * s for p, s in zip(place, strides, strict=True)) for place in (*moves, start)]
    return tuple(in_memory[:-1]), offset + in_memory[-1]


def _place(position: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The indices of the element at a position in row-major order."""
    place = []
    for n in reversed(shape):
        position, index = divmod(position, max(n, 1))
        place.append(index)
    return tuple(reversed(place))


def step_geometry(op: Op, attrs: Mapping[str, Any], type_: TensorType, strides: tuple[int, ...],
                  offset: int) -> tuple[tuple[int, ...], int]:
    """(strides, offset) after one view step from a tensor of `type_` with these strides and offset."""
    shape = type_.sizes
    match op.name:
        case "reshape":
            new = view_strides(shape, strides, attrs["shape"])
            if new is None:
                raise error(
                    ShapeError,
                    "view size is not compatible with input tensor's size and stride (at least one dimension spans "
                    f"across two contiguous subspaces): {list(shape)} with strides {list(strides)} as "
                    f"{list(attrs['shape'])}. Use .reshape(...) instead.",
                )
            return new, offset
        case "permute":
            return tuple(strides[d] for d in attrs["dims"]), offset
        case "slice":
            moved = sum(s * start for s, start in zip(strides, attrs["starts"], strict=True))
            return tuple(s * step for s, step in zip(strides, attrs["steps"], strict=True)), offset + moved
        case "broadcast":
            lead = len(attrs["shape"]) - len(shape)
            inner = tuple(
                0 if n == 1 and m != 1 else s for n, m, s in zip(shape, attrs["shape"][lead:], strides, strict=True)
            )
            return (0,) * lead + inner, offset
        case "as_strided":
            return window_geometry(attrs, type_.sizes, strides, offset)
        case "dynamic_slice":  # where it begins is not known
            return strides, offset
    raise error(TraceError, f"{op.name} does not make views")
