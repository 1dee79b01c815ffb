"""Parts of a tensor as views: ranges and single indices of an axis, pieces, diagonals, windows, other strides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ir.errors import IndexRangeError, ShapeError
from ..ir.ops import OPS
from ..ir.sizes import whole
from ..ir.types import int64
from .axes import axis, count, sizes
from .dispatch import EMIT, apply, part_at
from .layout import contiguous_strides
from .location import error
from .promotion import named
from .scalars import RuntimeScalar
from .shape import chain, is_contiguous, reshape_step, slice_step
from .state import STATE
from .tensor import Step, Tensor, method

# ---- parts -----------------------------------------------------------------------------------------------------------


def traced_position(position: Any) -> Tensor | None:
    """The 0-d tensor behind a position that is known only when the compiled program runs; None for a plain int."""
    if type(position) is RuntimeScalar:
        return position.tensor
    return position if isinstance(position, Tensor) and STATE.trace is not None and not position.ndim else None


def wrapped_position(position: Tensor, n: int) -> Tensor:
    """A traced position along an axis of size n, with negative ones counted from the end."""
    position = EMIT.cast(position, int64)
    from_end = apply(OPS.add, (position, EMIT.scalar(n, int64)))
    return apply(OPS.select, (apply(OPS.lt, (position, EMIT.scalar(0, int64))), from_end, position))


def _part_at(x: Tensor, d: int, start: Tensor, length: int) -> Tensor:
    """`length` elements of axis d from a traced position, as a view."""
    shape = tuple(x.shape)
    if not 0 <= length <= shape[d]:
        raise error(IndexRangeError, f"narrow: {length} elements do not fit dimension {d} of size {shape[d]}")
    starts = [wrapped_position(start, shape[d]) if k == d else EMIT.scalar(0, int64) for k in range(len(shape))]
    return part_at(x, starts, (*shape[:d], length, *shape[d + 1 :]))


@method()
def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """`length` elements from `start` along `dim`. In a compiled function `start` may be a traced number."""
    shape = tuple(input.shape)
    if not shape:
        raise error(ShapeError, "narrow() cannot be applied to a 0-dim tensor.")
    d, length = axis(dim, len(shape)), whole(length)
    n, traced = shape[d], traced_position(start)
    if traced is not None:
        return named(_part_at(input, d, traced, length), "SliceBackward0")
    start = whole(start)
    if not -n <= start <= n:
        raise error(IndexRangeError, f"start out of range (expected to be in range of [{-n}, {n}], but got {start})")
    first = start + n if start < 0 else start
    if length < 0 or first + length > n:
        raise error(IndexRangeError, f"start ({first}) + length ({length}) exceeds dimension size ({n}).")
    return chain(input, [slice_step(shape, d, first, first + length)])


def check_index(index: int, size: int, dim: int) -> int:
    """An index along one axis, counted from the front."""
    if not -size <= index < size:
        raise error(IndexRangeError, f"index {index} is out of bounds for dimension {dim} with size {size}")
    return index + size if index < 0 else index


def select_steps(shape: Sequence[int], d: int, index: int) -> list[Step]:
    """The view steps that take one index of axis `d`, which disappears."""
    return [slice_step(shape, d, index, index + 1), reshape_step([*shape[:d], *shape[d + 1 :]])]


@method()
def select(input: Tensor, dim: int, index: Any) -> Tensor:
    """The part at one index of axis `dim`, which disappears. In a compiled function `index` may be a traced number: a
    copy then."""
    shape = tuple(input.shape)
    if not shape:
        raise error(IndexRangeError, "select() cannot be applied to a 0-dim tensor.")
    d, traced = axis(dim, len(shape)), traced_position(index)
    if traced is not None:
        part = _part_at(input, d, traced, 1)
        return chain(part, [reshape_step([*shape[:d], *shape[d + 1 :]])], "SelectBackward0")
    return _selected(input, d, check_index(whole(index), shape[d], d), "SelectBackward0")


def _selected(x: Tensor, d: int, index: int, name: str) -> Tensor:
    array = x._array
    key: tuple[Any, ...] = (*(slice(None),) * d, index, ...)
    part = None if array is None else array[key]
    return chain(x, select_steps(tuple(x.shape), d, index), name, part)


@method()
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The parts at all indices of axis `dim`."""
    shape = tuple(input.shape)
    if not shape:
        raise error(ShapeError, "Dimension specified as 0 but tensor has no dimensions")
    d = axis(dim, len(shape))
    return tuple(_selected(input, d, k, "UnbindBackward0") for k in range(shape[d]))


@method()
def split(input: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces along `dim`: of one size (the last may be smaller), or of the sizes given."""
    shape = tuple(input.shape)
    if not shape:
        raise error(ShapeError, "split expects at least a 1-dimensional tensor")
    d = axis(dim, len(shape))
    n = shape[d]
    if isinstance(split_size_or_sections, int):
        size = whole(split_size_or_sections)
        if size < 0 or (size == 0 and n):
            raise error(
                ShapeError,
                f"split expects split_size be non-negative, but got split_size={size}"
                if size < 0
                else f"split_size can only be 0 if dimension size is 0, but got dimension size of {n}",
            )
        bounds = [(a, min(a + size, n)) for a in range(0, n, size)] if n else [(0, 0)]
        return tuple(chain(input, [slice_step(shape, d, a, b)], "SplitBackward0") for a, b in bounds)
    return split_with_sizes(input, split_size_or_sections, d)


@method()
def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of the sizes given along `dim`."""
    shape, split_sizes = tuple(input.shape), sizes([split_sizes])
    d = axis(dim, len(shape))
    if sum(split_sizes) != shape[d] or min(split_sizes, default=0) < 0:
        raise error(
            ShapeError,
            f"split_with_sizes expects split_sizes to sum exactly to {shape[d]} (input tensor's size at dimension "
            f"{d}), but got split_sizes={list(split_sizes)}",
        )
    pieces, start = [], 0
    for n in split_sizes:
        pieces.append(chain(input, [slice_step(shape, d, start, start + n)], "SplitWithSizesBackward0"))
        start += n
    return tuple(pieces)


@method()
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` pieces of equal size (the last may be smaller)."""
    chunks = whole(chunks)
    if chunks <= 0:
        raise error(ShapeError, f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    n = input.shape[axis(dim, input.ndim)] if input.ndim else 1
    return split(input, max(-(-n // chunks), 1), dim)


@method()
def tensor_split(input: Tensor, indices_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces along `dim`: as many as said, of nearly equal sizes, or cut at the indices given."""
    shape = tuple(input.shape)
    d = axis(dim, len(shape))
    n = shape[d]
    if isinstance(indices_or_sections, int):
        parts = whole(indices_or_sections)
        cuts = [k * (n // parts) + min(k, n % parts) for k in range(1, parts)]
    else:
        cuts = [min(max(c + n if c < 0 else c, 0), n) for c in sizes([indices_or_sections])]
    bounds = zip([0, *cuts], [*cuts, n], strict=True)
    return tuple(chain(input, [slice_step(shape, d, a, max(a, b))]) for a, b in bounds)


def _split_along(name: str, minimum: int, dim: int) -> Any:
    def function(input: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
        if input.ndim < minimum:
            raise error(
                ShapeError,
                f"{name} requires a tensor with at least {minimum} "
                f"dimension{'s' * (minimum > 1)}, but got {input.ndim}",
            )
        d = 0 if name == "hsplit" and input.ndim == 1 else dim
        if isinstance(indices_or_sections, int) and input.shape[d] % indices_or_sections:
            raise error(
                ShapeError,
                f"{name} attempted to split along dimension {d}, but the size of the dimension {input.shape[d]} is not "
                f"divisible by the split_size {indices_or_sections}!",
            )
        return tensor_split(input, indices_or_sections, d)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"`tensor_split` along axis {dim}."
    return method()(function)


hsplit = _split_along("hsplit", 1, 1)
vsplit = _split_along("vsplit", 2, 0)
dsplit = _split_along("dsplit", 3, 2)


# ---- strided views ---------------------------------------------------------------------------------------------------


def strided(
    x: Tensor, shape: Sequence[int], factors: Sequence[dict[int, int]], starts: dict[int, int], name: str
) -> Tensor:
    """A view whose axis k moves along axis d of `x` by `factors[k][d]` elements for each d, from the position `starts`.

    Expressed as `as_strided` on the row-major order of `x`; its memory in eager mode comes from the true strides.
    """
    dense, true = contiguous_strides(x.shape), x.stride()
    strides = tuple(sum(dense[d] * f for d, f in move.items()) for move in factors)
    step = (
        OPS.as_strided,
        {"shape": tuple(shape), "strides": strides, "offset": sum(dense[d] * s for d, s in starts.items())},
    )
    array = x._array
    if array is not None:
        width = array.itemsize
        inner = array[tuple(slice(starts.get(d, 0), None) for d in range(array.ndim))] if 0 not in shape else array
        moved = [sum(true[d] * f for d, f in move.items()) * width for move in factors]
        array = np.lib.stride_tricks.as_strided(inner, tuple(shape), moved)
    return chain(x, [step], name, array)


@method()
def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A view of the diagonal of two axes, as the last axis; `offset` > 0 is above the main diagonal."""
    shape, offset = tuple(input.shape), whole(offset)
    a, b = axis(dim1, len(shape)), axis(dim2, len(shape))
    if a == b:
        raise error(ShapeError, f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    rest = [k for k in range(len(shape)) if k not in (a, b)]
    length = max(min(shape[a] + min(offset, 0), shape[b] - max(offset, 0)), 0)
    starts = {a: max(-offset, 0), b: max(offset, 0)} if length else {}
    return strided(
        input, [*(shape[k] for k in rest), length], [*({k: 1} for k in rest), {a: 1, b: 1}], starts, "DiagonalBackward0"
    )


@method()
def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """All windows of `size` elements along an axis, `step` apart, as a view with one more axis."""
    shape, size, step = tuple(input.shape), whole(size), whole(step)
    d = axis(dimension, len(shape))
    if size > (shape[d] if shape else 1):
        raise error(
            ShapeError, f"maximum size for tensor at dimension {d} is {shape[d] if shape else 1} but size is {size}"
        )
    windows = (shape[d] - size) // step + 1
    factors = [{k: step if k == d else 1} for k in range(len(shape))] + [{d: 1}]
    return strided(input, [*shape[:d], windows, *shape[d + 1 :], size], factors, {}, "UnfoldBackward0")


@method()
def as_strided(input: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> Tensor:
    """A view of the tensor's memory with any strides, counted in elements of the storage."""
    size, stride = sizes([size]), sizes([stride])
    offset = input.storage_offset() if storage_offset is None else whole(storage_offset)
    base = input if input._base is None else input._base
    if not is_contiguous(base) or base.storage_offset() != 0:
        raise error(
            ShapeError,
            f"as_strided: the memory has shape {list(base.shape)} with strides {base.stride()}; only views of "
            "contiguous memory can be re-strided: call .contiguous() first",
        )
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if offset < 0 or (0 not in size and last >= count(base.shape)):
        raise error(
            IndexRangeError,
            f"as_strided: sizes {list(size)}, strides {list(stride)}, storage offset {offset} reach element {last} of "
            f"a storage of {count(base.shape)} elements",
        )
    return chain(
        base,
        [(OPS.as_strided, {"shape": tuple(size), "strides": tuple(stride), "offset": offset})],
        "AsStridedBackward0",
    )
