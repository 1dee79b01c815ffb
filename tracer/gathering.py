"""Functions that read or write by integer indices along an axis: gather, scatter, index_select, index_add and their
relatives."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..ir.errors import DTypeError, IndexRangeError, ShapeError
from ..ir.ops import OPS
from ..ir.types import int32, int64
from .arithmetic import add, div, mul
from .axes import axis, count
from .comparison import select_by
from .dispatch import EMIT, apply
from .dtypes import torch_name
from .indexing import check_same_dtype, wrapped_indices
from .inplace import in_place
from .location import error
from .promotion import Operand, as_tensor_of, common_shape, named, operand
from .reductions import take_along
from .shape import reshape
from .tensor import Tensor, method


def _index_of(name: str, index: Tensor, n: int, d: int) -> Tensor:
    """Checked int64 indices along axis d of size n; negative ones are refused as in torch."""
    if not isinstance(index, Tensor) or index.dtype not in (int64, int32):
        raise error(DTypeError, f"{name}(): Expected dtype int32/int64 for index, got "
                                f"{torch_name(index.dtype) if isinstance(index, Tensor) else type(index).__name__}")
    if index._array is not None and index._array.size and int(index._array.min()) < 0:
        raise error(IndexRangeError, f"index {int(index._array.min())} is out of bounds for dimension {d} with size "
                                     f"{n}")
    return wrapped_indices(index, n, d) if index._array is not None else EMIT.cast(index, int64)


# ---- along an axis, whole slices -------------------------------------------------------------------------------------

def _slices(name: str, x: Tensor, dim: int, index: Tensor) -> tuple[int, Tensor]:
    d = axis(dim, x.ndim)
    if index.ndim > 1:
        raise error(ShapeError, f"{name}(): Index is supposed to be a vector, got shape {list(index.shape)}")
    return d, _index_of(name, _flat(index), x.shape[d] if x.ndim else 1, d)


def _front(x: Tensor, d: int) -> Tensor:
    """Axis d moved to the front, for reading."""
    order = (d, *(k for k in range(x.ndim) if k != d))
    return x if d == 0 else EMIT.permute(x, dims=order)


def _back(x: Tensor, d: int) -> Tensor:
    order = (*range(1, d + 1), 0, *range(d + 1, x.ndim))
    return x if d == 0 else EMIT.permute(x, dims=order)


@method()
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices at `index` along an axis."""
    d, places = _slices("index_select", input, dim, index)
    if input.ndim == 0:
        return named(reshape(input, 1).gather(0, places).reshape(()), "IndexSelectBackward0")
    result = _back(apply(OPS.gather, (input, places), {"dims": (d,)}), d)
    return named(_own(result), "IndexSelectBackward0")


def _own(x: Tensor) -> Tensor:
    """The value in contiguous memory of its own."""
    array = x._array
    if array is not None and not (array.flags.c_contiguous and array.flags.owndata):
        x._array = array.copy(order="C")
    return x


def _combine_slices(name: str, x: Tensor, dim: int, index: Tensor, source: Tensor, mode: str, grad_name: str) -> Tensor:
    check_same_dtype(name, x, source)
    d, places = _slices(name, x, dim, index)
    if x.ndim == 0:
        return EMIT.view_as(_combine_slices(name, reshape(x, 1), 0, index, reshape(source, 1), mode, grad_name), ())
    wanted = (*x.shape[:d], places.shape[0], *x.shape[d + 1:])
    if tuple(source.shape) != wanted:
        raise error(ShapeError, f"{name}(): Source/destination tensor must have same slice shapes. Destination slice "
                                f"shape: {list(wanted)}, source "
                                f"shape: {list(source.shape)}")
    return named(apply(OPS.scatter, (x, _front(source, d), places), {"dims": (d,), "mode": mode}), grad_name)


@method()
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Operand = 1) -> Tensor:
    """`input` plus the slices of `source` at the places `index` along an axis."""
    scaled = source if type(alpha) in (int, float) and alpha == 1 else mul(source, alpha)
    return _combine_slices("index_add", input, dim, index, scaled, "add", "IndexAddBackward0")


@method()
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """`input` with the slices of `source` at the places `index` along an axis."""
    return _combine_slices("index_copy", input, dim, index, source, "set", "IndexCopyBackward0")


@method()
def index_fill(input: Tensor, dim: int, index: Tensor, value: Operand) -> Tensor:
    """`input` with one value in the slices `index` along an axis."""
    d, places = _slices("index_fill", input, dim, index)
    x = reshape(input, 1) if input.ndim == 0 else input
    update = EMIT.expand(as_tensor_of(operand("index_fill", value), x.dtype),
                         (places.shape[0], *x.shape[:d], *x.shape[d + 1:]))
    result = apply(OPS.scatter, (x, update, places), {"dims": (d,), "mode": "set"})
    return named(EMIT.view_as(result, tuple(input.shape)), "IndexFillBackward0")


_MODES = {"sum": "add", "prod": "mul", "amax": "amax", "amin": "amin", "mean": "add"}


@method()
def index_reduce(input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *,
                 include_self: bool = True) -> Tensor:
    """Slices of `source` folded into `input` at the places `index`; `reduce` is prod, mean, amax or amin."""
    d, places = _slices("index_reduce", input, dim, index)
    shape = tuple(n if k == d else 1 for k, n in enumerate(source.shape))
    wide = EMIT.expand(EMIT.view_as(places, shape), tuple(source.shape))
    return scatter_reduce(input, d, wide, source, reduce, include_self=include_self)


# ---- along an axis, element by element -------------------------------------------------------------------------------

def _element_places(name: str, x: Tensor, dim: int, index: Tensor) -> tuple[int, list[Tensor]]:
    """The indices of every axis: `index` along `dim`, positions along the others."""
    d = axis(dim, x.ndim)
    if index.ndim != x.ndim:
        raise error(ShapeError, f"{name}: Index tensor must have the same number of dimensions as input tensor, got "
                                f"{list(index.shape)} for "
                                f"{list(x.shape)}")
    shape = tuple(index.shape)
    for k, (n, m) in enumerate(zip(shape, x.shape, strict=True)):
        if k != d and n > m:
            raise error(ShapeError, f"{name}: Size does not match at dimension {k} expected index {list(shape)} to be "
                                    "no larger than self "
                                    f"{list(x.shape)} apart from dimension {d}")
    places = _index_of(name, index, x.shape[d], d)
    return d, [places if k == d else EMIT.iota(shape=shape, dim=k, dtype=int64) for k in range(x.ndim)]


@method()
def gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """input[i][index[i][j][k]][k] for dim 1: the elements at `index` along an axis, the other axes in step."""
    if input.ndim == 0:
        return named(reshape(input, 1).gather(0, reshape(index, -1)).reshape(tuple(index.shape)), "GatherBackward0")
    _, places = _element_places("gather", input, dim, index)
    return named(apply(OPS.gather, (input, *places), {"dims": tuple(range(input.ndim))}), "GatherBackward0")


@method()
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """The elements at `indices` along an axis; the other axes broadcast."""
    if dim is None:
        return gather(reshape(input, -1), 0, reshape(indices, -1))
    d = axis(dim, input.ndim)
    if input.ndim != indices.ndim:
        raise error(ShapeError, "take_along_dim(): input and indices should have the same number of dimensions, but "
                                f"got {input.ndim} and {indices.ndim}")
    others = [tuple(1 if k == d else n for k, n in enumerate(t.shape)) for t in (input, indices)]
    shape = common_shape("take_along_dim", others)
    x = EMIT.expand(input, (*shape[:d], input.shape[d], *shape[d + 1:]))
    places = EMIT.expand(wrapped_indices(indices, input.shape[d], d), (*shape[:d], indices.shape[d], *shape[d + 1:]))
    return named(take_along(x, places, d), "GatherBackward0")


def _scatter(name: str, x: Tensor, dim: int, index: Tensor, src: Any, mode: str, grad_name: str) -> Tensor:
    if x.ndim == 0:
        flat = _scatter(name, reshape(x, 1), 0, reshape(index, -1), reshape(src, -1) if isinstance(src, Tensor)
                        else src, mode, grad_name)
        return EMIT.view_as(flat, ())
    d, places = _element_places(name, x, dim, index)
    shape = tuple(index.shape)
    if isinstance(src, Tensor):
        check_same_dtype(name, x, src)
        if src.ndim != x.ndim or any(n > m for n, m in zip(shape, src.shape, strict=True)):
            raise error(ShapeError, f"{name}: Expected index {list(shape)} to be no larger than src {list(src.shape)}")
        part = EMIT.slice(src, starts=(0,) * len(shape), stops=shape,
                          steps=(1,) * len(shape)) if tuple(src.shape) != shape else src
    else:
        part = EMIT.expand(as_tensor_of(operand(name, src), x.dtype), shape)
    del d
    return named(apply(OPS.scatter, (x, part, *places), {"dims": tuple(range(x.ndim)), "mode": mode}), grad_name)


@method()
def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Operand | None = None,
            reduce: str | None = None) -> Tensor:
    """A copy with the elements of `src` (or one value) written to the places `index` along an axis; the last of equal
    places wins."""
    source = value if src is None else src
    mode = {None: "set", "add": "add", "multiply": "mul"}[reduce]
    return _scatter("scatter", input, dim, index, source, mode, "ScatterBackward0" if isinstance(source, Tensor)
                    else "ScatterBackward1")


@method()
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """A copy with the elements of `src` added to the places `index` along an axis."""
    return _scatter("scatter_add", input, dim, index, src, "add", "ScatterAddBackward0")


@method()
def scatter_reduce(input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *,
                   include_self: bool = True) -> Tensor:
    """A copy with the elements of `src` folded into the places `index`: sum, prod, mean, amax or amin."""
    if reduce not in _MODES:
        raise error(DTypeError, f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}.")
    mode, x = _MODES[reduce], input
    ones_like_source = EMIT.full(tuple(index.shape), 1, int64)
    hit = _scatter("scatter_reduce", EMIT.full(tuple(x.shape), 0, int64), dim, index, ones_like_source, "add", "")
    if not include_self:
        x = select_by(hit > 0, _neutral(reduce, x), x, x.dtype)
    result = _scatter("scatter_reduce", x, dim, index, src, mode, "ScatterReduceBackward0")
    if reduce == "mean":
        number = add(hit, 1) if include_self else hit.clamp(1)
        exact = div(result, number) if x.dtype.is_floating_point else div(result, number, rounding_mode="floor")
        result = named(exact, "ScatterReduceBackward0")
    return result


def _neutral(reduce: str, x: Tensor) -> Any:
    if reduce in ("sum", "mean"):
        return 0
    if reduce == "prod":
        return 1
    if x.dtype.is_floating_point:
        return float("-inf") if reduce == "amax" else float("inf")
    low, high = -(1 << (x.dtype.bits - 1)) if x.dtype.is_signed else 0, (1 << (x.dtype.bits - x.dtype.is_signed)) - 1
    return low if reduce == "amax" else high


# ---- in flattened order ----------------------------------------------------------------------------------------------

def _flat(x: Tensor) -> Tensor:
    """The elements on one axis, for reading."""
    return EMIT.view_as(x, (count(x.shape),))


def _flat_places(name: str, x: Tensor, index: Tensor) -> Tensor:
    if index.dtype is not int64:
        raise error(DTypeError, f"{name}(): Expected a long tensor for index, but got {torch_name(index.dtype)}")
    return wrapped_indices(index, count(x.shape), 0)


@method()
def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements at positions in flattened order."""
    return named(EMIT.gather(_flat(input), _flat_places("take", input, index), dims=(0,)), "TakeBackward0")


@method()
def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with the elements of `source` at positions in flattened order."""
    check_same_dtype("put", input, source)
    places = _flat_places("put", input, _flat(index))
    flat = _flat(input)
    update = _flat(source)
    result = apply(OPS.scatter, (flat, update, places), {"dims": (0,), "mode": "add" if accumulate else "set"})
    return named(EMIT.view_as(result, tuple(input.shape)), "PutBackward0")


@method()
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """A copy in which the places where the mask holds take the elements of `source` in order."""
    check_same_dtype("masked_scatter", input, source)
    shape = common_shape("masked_scatter", [tuple(input.shape), tuple(mask.shape)])
    wide, x = EMIT.expand(mask, shape), EMIT.expand(input, shape)
    flat = _flat(wide)
    rank = EMIT.cumsum(EMIT.cast(flat, int64), dim=0)
    if flat._array is not None and int(flat._array.sum()) > count(source.shape):
        raise error(ShapeError, "masked_scatter: expected self and source to have same dtypes and the source to hold "
                                "as many elements as the mask "
                                f"selects: {int(flat._array.sum())}, got {count(source.shape)}")
    place = (rank - 1).clamp(0, max(count(source.shape) - 1, 0))
    if count(source.shape) == 0:
        return x.clone()
    taken = apply(OPS.gather, (_flat(source), place), {"dims": (0,)})
    return named(select_by(wide, EMIT.view_as(taken, shape), x, x.dtype), "MaskedScatterBackward0")


def unravel_index(indices: Tensor, shape: Sequence[int]) -> tuple[Tensor, ...]:
    """Flattened positions as one tensor of indices per axis."""
    result, rest = [], indices
    for n in reversed(tuple(shape)):
        result.append(rest % n)
        rest = rest // n
    return tuple(reversed(result))


# ---- copies with one part replaced -----------------------------------------------------------------------------------

def _with_part(input: Tensor, src: Tensor, cut: Callable[[Tensor], Tensor], name: str) -> Tensor:
    result = input.clone()
    part = cut(result)
    if tuple(part.shape) != tuple(src.shape):
        raise error(ShapeError, "expected src to have a size equal to the slice of self. src size = "
                                f"{list(src.shape)}, slice size = {list(part.shape)}")
    part.copy_(src)
    return named(result, name)


@method()
def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """A copy with `src` in place of one index along an axis."""
    return _with_part(input, src, lambda x: x.select(dim, index), "SelectScatterBackward0")


@method()
def slice_scatter(input: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None,
                  step: int = 1) -> Tensor:
    """A copy with `src` in place of start:end:step along an axis."""
    d = axis(dim, input.ndim)
    key = (slice(None),) * d + (slice(start, end, step),)
    return _with_part(input, src, lambda x: x[key], "SliceScatterBackward0")


@method()
def diagonal_scatter(input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A copy with `src` in place of a diagonal."""
    return _with_part(input, src, lambda x: x.diagonal(offset, dim1, dim2), "DiagonalScatterBackward0")


for _function in (index_add, index_copy, index_fill, index_reduce, scatter, scatter_add, scatter_reduce, put,
                  masked_scatter):
    in_place(_function)
