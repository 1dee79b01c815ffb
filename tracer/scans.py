"""Running and ordered results along an axis: cumulative sums, sorting, ranks, quantiles, histograms, unique values."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..ir.errors import DTypeError, IndexRangeError, ShapeError
from ..ir.op import Op
from ..ir.ops import OPS
from ..ir.sizes import whole
from ..ir.types import DType, bool_, int32, int64
from .arithmetic import add, div, mul, sub
from .axes import axis, count
from .comparison import eq, isnan, le, lt, select_by
from .dispatch import EMIT, apply, require_no_trace
from .dtypes import as_dtype
from .inplace import in_place
from .joining import cat
from .location import error
from .parts import narrow
from .promotion import as_tensor_of, floating_type, named, operand, result_type
from .reductions import MaxResult, check_same_shape, take_along
from .reductions import sum as sum_of
from .shape import reshape, slice_step
from .tensor import Tensor, method, wrap


class SortResult(NamedTuple):
    """Sorted values and where they came from."""

    values: Tensor
    indices: Tensor


# ---- cumulative ------------------------------------------------------------------------------------------------------

def _running(op: Op, x: Tensor, dim: int, dtype: DType | None) -> Tensor:
    x = EMIT.cast(x, as_dtype(dtype)) if dtype is not None else x if x.dtype.is_floating_point else EMIT.cast(x, int64)
    d = axis(dim, x.ndim)
    return apply(op, (x,), {"dim": d}) if x.ndim else x.clone()


@method()
def cumsum(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    """The running sum along an axis."""
    return _running(OPS.cumsum, input, dim, dtype)


@method()
def cumprod(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    """The running product along an axis."""
    return _running(OPS.cumprod, input, dim, dtype)


def _running_extreme(op: Op, x: Tensor, dim: int) -> MaxResult:
    """Values, and the last position that attained each (NaN counts as attained)."""
    d = axis(dim, x.ndim)
    if x.ndim == 0:
        return MaxResult(x.clone(), EMIT.full((), 0, int64))
    values = apply(op, (x,), {"dim": d})
    reached = eq(x, values)
    if x.dtype.is_floating_point:
        reached = reached | isnan(x)
    places = EMIT.iota(shape=tuple(x.shape), dim=d, dtype=int64)
    return MaxResult(values, EMIT.cummax(select_by(reached, places, 0, int64), dim=d))


@method()
def cummax(input: Tensor, dim: int) -> MaxResult:
    """The running maximum along an axis, and where it was attained."""
    return _running_extreme(OPS.cummax, input, dim)


@method()
def cummin(input: Tensor, dim: int) -> MaxResult:
    """The running minimum along an axis, and where it was attained."""
    return _running_extreme(OPS.cummin, input, dim)


@method()
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """The logarithm of the running sum of exponentials; stable when the elements lie within the exponent range of each
    other."""
    x = EMIT.cast(input, floating_type(input))
    if x.ndim == 0:
        return x.clone()
    top = x.detach().amax(dim, keepdim=True)
    top = select_by(eq(top.abs(), math.inf), 0, top, top.dtype)
    return named(add(cumsum(sub(x, top).exp(), dim).log(), top), "LogcumsumexpBackward0")


@method()
def diff(input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None,
         append: Tensor | None = None) -> Tensor:
    """Differences of neighbours along an axis, taken n times."""
    d = axis(dim, input.ndim)
    parts = [p for p in (prepend, input, append) if p is not None]
    x = cat(parts, d) if len(parts) > 1 else input
    for _ in range(n):
        length = x.shape[d]
        if length == 0:
            break
        right, left = narrow(x, d, 1, length - 1), narrow(x, d, 0, length - 1)
        x = right ^ left if x.dtype is bool_ else sub(right, left)
    return x


def gradient(input: Tensor, *, spacing: Any = 1, dim: int | Sequence[int] | None = None,
             edge_order: int = 1) -> tuple[Tensor, ...]:
    """Estimates of the partial derivatives of samples on a grid: central differences inside, one-sided ones (of
    `edge_order` 1 or 2) at the edges.

    Args:
        spacing: the distance of samples, for all axes or for each; or the coordinates along each axis, as vectors.
    """
    if edge_order not in (1, 2):
        raise error(ShapeError, f"gradient: edge_order must be 1 or 2, got {edge_order}")
    named_dims = range(input.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    along = [axis(d, input.ndim) for d in named_dims]
    steps = list(spacing) if isinstance(spacing, Sequence) else [spacing] * len(along)
    if len(steps) != len(along):
        raise error(ShapeError, f"gradient: {len(steps)} spacings for {len(along)} dimensions")
    x = EMIT.cast(input, floating_type(input))
    return tuple(_derivative(x, d, h, edge_order) for d, h in zip(along, steps, strict=True))


def _derivative(x: Tensor, d: int, spacing: Any, edge_order: int) -> Tensor:
    n = x.shape[d]
    if n < edge_order + 1:
        raise error(ShapeError, f"gradient: each dimension needs at least edge_order + 1 = {edge_order + 1} samples, "
                                f"dimension {d} has {n}")
    if isinstance(spacing, Tensor) and spacing.ndim:
        h = reshape(diff(EMIT.cast(spacing, x.dtype)), *[-1 if k == d else 1 for k in range(x.ndim)])
    else:
        shape = tuple(n - 1 if k == d else 1 for k in range(x.ndim))
        h = EMIT.expand(as_tensor_of(operand("gradient", spacing), x.dtype), shape)
    slope = div(diff(x, dim=d), h)  # between neighbours
    if n == 2:
        return cat([slope, slope], d)
    left, right = narrow(slope, d, 0, n - 2), narrow(slope, d, 1, n - 2)
    before, after = narrow(h, d, 0, n - 2), narrow(h, d, 1, n - 2)
    inner = div(add(mul(left, after), mul(right, before)), add(before, after))
    first, last = narrow(slope, d, 0, 1), narrow(slope, d, n - 2, 1)
    if edge_order == 2:
        first, last = _edge(slope, h, d, 0, 1), _edge(slope, h, d, n - 2, n - 3)
    return cat([first, inner, last], d)


def _edge(slope: Tensor, h: Tensor, d: int, near: int, far: int) -> Tensor:
    """The second-order slope at an edge, from the slopes of its two nearest intervals."""
    a, b = narrow(h, d, near, 1), narrow(h, d, far, 1)
    bend = div(sub(narrow(slope, d, far, 1), narrow(slope, d, near, 1)), add(a, b))
    return sub(narrow(slope, d, near, 1), mul(bend, a))


def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: float = 1.0, dim: int = -1) -> Tensor:
    """The integral by the trapezoidal rule along an axis."""
    return sum_of(_trapezoids(y, x, dx, dim), dim)


trapz = trapezoid


def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: float = 1.0, dim: int = -1) -> Tensor:
    """The running integral by the trapezoidal rule along an axis."""
    return cumsum(_trapezoids(y, x, dx, dim), dim)


def _trapezoids(y: Tensor, x: Tensor | None, dx: float, dim: int) -> Tensor:
    d = axis(dim, y.ndim)
    n = y.shape[d]
    pair = add(narrow(y, d, 1, n - 1), narrow(y, d, 0, n - 1))
    if x is None:
        return mul(pair, dx / 2)
    width = diff(x, dim=-1 if x.ndim == 1 else d)
    if x.ndim == 1:
        width = reshape(width, *[-1 if k == d else 1 for k in range(y.ndim)])
    return mul(mul(pair, width), 0.5)


# ---- order -----------------------------------------------------------------------------------------------------------

@method()
def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> SortResult:
    """The elements in order along an axis, and where they came from. Always stable; NaN counts as the largest."""
    d = axis(dim, input.ndim)
    if input.ndim == 0:
        return SortResult(input.clone(), EMIT.full((), 0, int64))
    return SortResult(*apply(OPS.sort, (input,), {"dim": d, "descending": bool(descending)}))


@method()
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """Where the elements in order come from."""
    return sort(input, dim, descending).indices


@method()
def msort(input: Tensor) -> Tensor:
    """The elements in order along the first axis."""
    return sort(input, 0).values


@method()
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> SortResult:
    """The k largest (or smallest) elements along an axis in order, and where they came from."""
    d, k = axis(dim, input.ndim), whole(k)
    n = input.shape[d] if input.ndim else 1
    if not 0 <= k <= n:
        raise error(IndexRangeError, f"selected index k out of range: k={k} of {n} elements")
    values, indices = sort(input, d, descending=largest)
    if input.ndim == 0:
        return SortResult(values, indices)
    return SortResult(named(_first(values, d, k), "TopkBackward0"), _first(indices, d, k))


def _first(x: Tensor, d: int, k: int) -> Tensor:
    """The first k elements along an axis as a tensor of its own."""
    op, attrs = slice_step(tuple(x.shape), d, 0, k)
    part = apply(op, (x,), attrs)
    if part._array is not None:
        part._array = np.ascontiguousarray(part._array)
    return part


@method()
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> SortResult:
    """The k-th smallest element along an axis (k counts from 1), and where it was."""
    d, k = axis(dim, input.ndim), whole(k)
    n = input.shape[d] if input.ndim else 1
    if not 1 <= k <= n:
        raise error(IndexRangeError, f"kthvalue(): selected number k out of range for dimension {d}")
    values, indices = sort(input, d)
    if not input.ndim:
        return SortResult(values, indices)
    return _ranked(values, indices, k - 1, d, keepdim, "KthvalueBackward0")


def _ranked(values: Tensor, indices: Tensor, rank: int, d: int, keepdim: bool, name: str) -> SortResult:
    op, attrs = slice_step(tuple(values.shape), d, rank, rank + 1)
    parts = [apply(op, (x,), attrs) for x in (values, indices)]
    if not keepdim:
        shape = (*values.shape[:d], *values.shape[d + 1:])
        parts = [EMIT.view_as(x, shape) for x in parts]
    return SortResult(named(parts[0], name), parts[1])


@method()
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The middle element (the lower of two); along an axis `(values, indices)`. NaN if one is NaN."""
    return _median(input, dim, keepdim, False)


@method()
def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """As `median`, of the elements that are not NaN."""
    return _median(input, dim, keepdim, True)


def _median(input: Tensor, dim: int | None, keepdim: bool, skip_nan: bool) -> Any:
    if dim is None:
        x = reshape(input, -1)
        if x.shape[0] == 0:
            raise error(IndexRangeError, "median() has no value for a tensor without elements")
        return named(_median(x, 0, False, skip_nan).values, "NanmedianBackward0" if skip_nan else "MedianBackward0")
    d = axis(dim, input.ndim)
    if input.ndim == 0:
        return SortResult(input.clone(), EMIT.full((), 0, int64))
    n = input.shape[d]
    values, indices = sort(input, d)
    if not input.dtype.is_floating_point:
        return _ranked(values, indices, (n - 1) // 2, d, keepdim, "MedianBackward1")
    bad = EMIT.cast(isnan(input), int64).sum(d, keepdim=True)
    middle = (n - bad - 1).clamp(0).div(2, rounding_mode="floor")
    if not skip_nan:
        middle = select_by(bad > 0, n - 1, middle, int64)  # NaN is sorted last
    found, places = take_along(values, middle, d), take_along(indices, middle, d)
    if not keepdim:
        shape = (*input.shape[:d], *input.shape[d + 1:])
        found, places = EMIT.view_as(found, shape), EMIT.view_as(places, shape)
    return SortResult(named(found, "NanmedianBackward1" if skip_nan else "MedianBackward1"), places)


@method()
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> SortResult:
    """The most frequent element along an axis (the smallest of equally frequent ones), and its last position."""
    d = axis(dim, input.ndim)
    if input.ndim == 0:
        return SortResult(input.clone(), EMIT.full((), 0, int64))
    same = eq(input.unsqueeze(d), input.unsqueeze(d + 1))  # [.., i, j, ..]: x[j] == x[i]
    frequency = sum_of(same, d)
    best = select_by(eq(frequency, frequency.amax(d, keepdim=True)), input, _highest(input.dtype), input.dtype)
    values = best.amin(d, keepdim=True)
    places = select_by(eq(input, values), EMIT.iota(shape=tuple(input.shape), dim=d, dtype=int64), 0, int64)
    indices = places.amax(d, keepdim=True)
    if not keepdim:
        shape = (*input.shape[:d], *input.shape[d + 1:])
        values, indices = EMIT.view_as(values, shape), EMIT.view_as(indices, shape)
    return SortResult(named(values, "ModeBackward0"), indices)


def _highest(dtype: DType) -> float | int | bool:
    return True if dtype is bool_ else math.inf if dtype.is_floating_point else int(np.iinfo(dtype.numpy).max)


@method()
def quantile(input: Tensor, q: float | Tensor, dim: int | None = None, keepdim: bool = False, *,
             interpolation: str = "linear") -> Tensor:
    """The q-quantiles along an axis (of all elements by default); NaN if one is NaN."""
    return _quantile("quantile", input, q, dim, keepdim, interpolation, False)


@method()
def nanquantile(input: Tensor, q: float | Tensor, dim: int | None = None, keepdim: bool = False, *,
                interpolation: str = "linear") -> Tensor:
    """As `quantile`, of the elements that are not NaN."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, True)


def _quantile(name: str, input: Tensor, q: Any, dim: int | None, keepdim: bool, interpolation: str,
              skip_nan: bool) -> Tensor:
    if not input.dtype.is_floating_point:
        raise error(DTypeError, f"{name}() input tensor must be either float or double dtype")
    if interpolation not in ("linear", "lower", "higher", "nearest", "midpoint"):
        raise error(DTypeError, f"{name}() interpolation must be one of linear, lower, higher, midpoint or nearest, "
                                f"but got {interpolation}")
    levels = q if isinstance(q, Tensor) else input.new_tensor(q)
    if levels.ndim > 1:
        raise error(ShapeError, f"{name}() q must be a scalar or 1D tensor")
    x = reshape(input, -1) if dim is None else input
    d = axis(0 if dim is None else dim, x.ndim)
    last = x.movedim(d, -1) if x.ndim else reshape(x, 1)
    n = last.shape[-1]
    if n == 0:
        raise error(IndexRangeError, f"{name}() input tensor must be non-empty")
    ordered = sort(last, -1).values
    bad = sum_of(isnan(last), -1, keepdim=True)
    top = sub(n - 1, bad) if skip_nan else select_by(bad > 0, math.inf, n - 1, last.dtype)
    top = EMIT.cast(top, last.dtype)
    flat = reshape(levels, -1)
    place = mul(flat, top)  # [.., q]
    place = select_by(isnan(place) | (place > n - 1), n - 1, place, place.dtype).clamp(0)
    result = _interpolated(ordered, place, interpolation)
    result = result.movedim(-1, 0)
    if keepdim:
        result = result.unsqueeze(d + 1) if dim is not None else reshape(result, -1, *([1] * input.ndim))
    return named(result[0] if levels.ndim == 0 else result, "SqueezeBackward4")


def _interpolated(ordered: Tensor, place: Tensor, interpolation: str) -> Tensor:
    below, above = place.floor(), place.ceil()
    weight = sub(place, below)
    if interpolation == "lower":
        weight = mul(weight, 0)
    elif interpolation == "higher":
        below = above
    elif interpolation == "nearest":
        below = above = place.round()
    elif interpolation == "midpoint":
        weight = select_by(eq(below, above), 0, 0.5, place.dtype)
    shape = tuple(place.shape)
    low = take_along(ordered, EMIT.cast(EMIT.expand(below, shape), int64), len(shape) - 1)
    high = take_along(ordered, EMIT.cast(EMIT.expand(above, shape), int64), len(shape) - 1)
    if interpolation == "lower" or interpolation == "higher" or interpolation == "nearest":
        return low
    return low.lerp(high, weight)


# ---- search and counting ---------------------------------------------------------------------------------------------

def searchsorted(sorted_sequence: Tensor, input: Any, *, out_int32: bool = False, right: bool = False,
                 side: str | None = None) -> Tensor:
    """Where each element would be inserted along the last axis of an ordered tensor, by bisection."""
    right = right or side == "right"
    values = input if isinstance(input, Tensor) else sorted_sequence.new_tensor(input)
    dtype = result_type(sorted_sequence, values)
    table, wanted = EMIT.cast(sorted_sequence, dtype), EMIT.cast(values, dtype)
    shape, n = tuple(wanted.shape), table.shape[-1]
    if table.ndim > 1 and tuple(table.shape[:-1]) != shape[:-1]:
        raise error(ShapeError, f"searchsorted: the sequence {list(table.shape)} and the values {list(shape)} must "
                                "agree in all but the last axis")
    flat, low, high = table.ndim == 1, EMIT.full(shape, 0, int64), EMIT.full(shape, n, int64)
    for _ in range(n.bit_length()):
        middle = EMIT.shift_right(EMIT.add(low, high), EMIT.full(shape, 1, int64))
        probe = EMIT.minimum(middle, EMIT.full(shape, max(n - 1, 0), int64))
        element = EMIT.gather(table, probe, dims=(0,)) if flat else take_along(table, probe, len(shape) - 1)
        after = EMIT.logical_and(le(element, wanted) if right else lt(element, wanted), EMIT.lt(low, high))
        low = EMIT.select(after, EMIT.add(middle, EMIT.full(shape, 1, int64)), low)
        high = EMIT.select(after, high, EMIT.minimum(middle, high))
    return EMIT.cast(low, int32 if out_int32 else int64)


def bucketize(input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """The number of the bucket, between ordered boundaries, that each element falls into."""
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


@method()
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each non-negative integer occurs (or the sum of its weights). Traced, `minlength` must cover all of
    them."""
    if input.ndim != 1 or not input.dtype.is_integer:
        raise error(DTypeError, "bincount only supports 1-d non-negative integral inputs.")
    size = minlength
    if input._array is not None and input._array.size:
        if input._array.min() < 0:
            raise error(DTypeError, "bincount only supports 1-d non-negative integral inputs.")
        size = max(size, int(input._array.max()) + 1)
    elif input._array is None and not minlength:
        require_no_trace("the largest element, which gives bincount's size,", "pass minlength=")
    index = EMIT.cast(input, int64)
    amount = EMIT.full(tuple(input.shape), 1, int64) if weights is None else weights
    if weights is not None:
        check_same_shape("bincount", input, weights)
    return apply(OPS.scatter, (EMIT.full((size,), 0, amount.dtype), amount, index), {"dims": (0,), "mode": "add"})


@method()
def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """The counts of elements in `bins` equal intervals of [min, max]; the range of the data when both are 0."""
    x = reshape(input, -1)
    low: Any = min
    high: Any = max
    if min == max:
        low, high = x.amin(), x.amax()
        same = eq(low, high)
        low, high = select_by(same, sub(low, 1), low, x.dtype), select_by(same, add(high, 1), high, x.dtype)
    inside = (x >= low) & (x <= high)
    place = EMIT.cast(mul(div(sub(x, low), sub(high, low) if isinstance(high, Tensor) else high - low), bins),
                      int64).clamp(0, bins - 1)
    amount = EMIT.cast(inside, x.dtype)
    return apply(OPS.scatter, (EMIT.full((bins,), 0, x.dtype), amount, place), {"dims": (0,), "mode": "add"})


@method()
def unique(input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False,
           dim: int | None = None) -> Any:
    """The different elements (or parts along `dim`) in order, with inverse indices and counts on request."""
    require_no_trace("how many different elements a tensor has", "compute `unique` outside the compiled function")
    values, inverse, counts = np.unique(input._memory(), return_inverse=True, return_counts=True, axis=dim)
    return _unique_result(values, inverse.reshape(input.shape if dim is None else -1), counts, return_inverse,
                          return_counts)


def _unique_result(values: np.ndarray, inverse: np.ndarray, counts: np.ndarray, return_inverse: bool,
                   return_counts: bool) -> Any:
    parts = [wrap(values)]
    parts += [wrap(inverse.astype(np.int64))] * return_inverse + [wrap(counts.astype(np.int64))] * return_counts
    return parts[0] if len(parts) == 1 else tuple(parts)


@method()
def unique_consecutive(input: Tensor, return_inverse: bool = False, return_counts: bool = False,
                       dim: int | None = None) -> Any:
    """The elements without immediate repetitions."""
    require_no_trace("how many runs of equal elements a tensor has", "compute it outside the compiled function")
    array = input._memory()
    rows = array.reshape(-1, 1) if dim is None else np.moveaxis(array, dim, 0).reshape(array.shape[dim], -1)
    starts = np.concatenate([[True], (rows[1:] != rows[:-1]).any(1)])[:len(rows)]
    inverse = np.cumsum(starts) - 1
    counts = np.diff(np.append(np.flatnonzero(starts), len(rows)))
    values = array.reshape(-1)[starts] if dim is None else np.compress(starts, array, dim)
    return _unique_result(values, inverse.reshape(array.shape if dim is None else -1), counts, return_inverse,
                          return_counts)


@method()
def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Whether each element is one of `test_elements`."""
    example = elements if isinstance(elements, Tensor) else test_elements
    x = elements if isinstance(elements, Tensor) else example.new_tensor(elements)
    pool = test_elements if isinstance(test_elements, Tensor) else example.new_tensor(test_elements)
    if count(pool.shape) == 0:
        return EMIT.full(tuple(x.shape), invert, bool_)
    found = eq(x.unsqueeze(-1), reshape(pool, -1)).any(-1)
    return ~found if invert else found


for _function in (cumsum, cumprod):
    in_place(_function)
