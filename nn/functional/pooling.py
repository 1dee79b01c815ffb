"""Pooling: the largest element or the mean of every window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...ir.errors import ShapeError
from ...ir.types import DType, int32, int64
from ...tracer.dispatch import EMIT
from ...tracer.location import error
from ...tracer.promotion import named
from ...tracer.shape import contiguous
from ...tracer.tensor import Tensor
from .padding import fitted
from .windows import Windows, as_sizes, span_of

Sizes = int | Sequence[int]


# ---- the largest -----------------------------------------------------------------------------------------------------


def max_pool1d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of every window of the last axis; see `max_pool2d`."""
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of every window of the last two axes; of equal ones the first gets the gradient.

    Args:
        stride: how far windows are apart; the kernel's size when left out.
        padding: places added at both ends, which are never the largest.
        dilation: how far apart the elements of a window are.
        ceil_mode: whether a last window may reach beyond the end.
        return_indices: whether to return the row-major position of each element in the pooled axes, too.

    Raises:
        ShapeError: the sizes do not fit together.
    """
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of every window of the last three axes; see `max_pool2d`."""
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def _max_pool(
    n: int,
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
    return_indices: bool,
) -> Any:
    frame = _frame(f"max_pool{n}d", input, n, kernel_size, stride, padding, dilation, ceil_mode)
    lowest = -math.inf if input.dtype.is_floating_point else _least(input.dtype)
    parts = frame.windows(input, lowest)
    dim = parts.ndim - n - 1
    place = EMIT.argmax(parts, dim=dim)
    small = EMIT.cast(place, int32)  # which is kept for the derivative
    repeated = EMIT.expand(EMIT.view_as(small, (*place.shape[:dim], 1, *place.shape[dim:])), parts.shape)
    chosen = EMIT.eq(repeated, EMIT.iota(shape=tuple(parts.shape), dim=dim, dtype=int32))
    largest = EMIT.sum(EMIT.select(chosen, parts, EMIT.full_like(parts, 0)), dims=(dim,))
    result = named(largest, f"MaxPool{n}DWithIndicesBackward0")
    return (result, frame.positions(place)) if return_indices else result


def _least(dtype: DType) -> int:
    return -(1 << (dtype.bits - 1)) if dtype.is_signed else 0


# ---- the mean --------------------------------------------------------------------------------------------------------


def avg_pool1d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of every window of the last axis; see `avg_pool2d`."""
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of every window of the last two axes.

    Args:
        stride: how far windows are apart; the kernel's size when left out.
        padding: zeros added at both ends.
        ceil_mode: whether a last window may reach beyond the end.
        count_include_pad: whether the zeros count in the mean.
        divisor_override: what to divide the sums by instead.

    Raises:
        ShapeError: the sizes do not fit together.
    """
    return _avg_pool(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of every window of the last three axes; see `avg_pool2d`."""
    return _avg_pool(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def _avg_pool(
    n: int,
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    frame = _frame(f"avg_pool{n}d", input, n, kernel_size, stride, padding, 1, ceil_mode)
    parts = frame.windows(input, 0)
    total = EMIT.sum(parts, dims=(parts.ndim - n - 1,))
    if divisor is None and (any(frame.extra) or (any(frame.padding) and not count_include_pad)):
        count: Any = frame.counts(input.dtype, count_include_pad)
    else:
        count = math.prod(frame.kernel) if divisor is None else divisor
    return named(total / count, f"AvgPool{n}DBackward0")


# ---- to a given size -------------------------------------------------------------------------------------------------


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """Means over parts of the last axis, `output_size` of them."""
    return _adaptive_avg_pool(1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Means over parts of the last two axes, `output_size` of them along each (None: as many as there are elements).

    Part k of an axis of n elements reaches from k n / size, rounded down, to (k + 1) n / size, rounded up.
    """
    return _adaptive_avg_pool(2, input, output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """Means over parts of the last three axes; see `adaptive_avg_pool2d`."""
    return _adaptive_avg_pool(3, input, output_size)


def _adaptive_avg_pool(n: int, input: Tensor, output_size: Any) -> Tensor:
    name = f"adaptive_avg_pool{n}d"
    _check_rank(name, input, n)
    given = output_size if isinstance(output_size, Sequence) else (output_size,) * n
    sizes = [input.shape[input.ndim - n + k] if m is None else int(m) for k, m in enumerate(given)]
    if len(sizes) != n or min(sizes) < 0:
        raise error(ShapeError, f"{name}: output_size must be {n} sizes, got {output_size}")
    result, uneven = input, []
    for k, m in enumerate(sizes):
        dim = input.ndim - n + k
        if m and input.shape[dim] % m == 0:
            result = EMIT.view_as(result, (*result.shape[:dim], m, input.shape[dim] // m, *result.shape[dim + 1 :]))
            result = _even(result, input.shape, dim, m)
        else:
            uneven.append((dim, m))
    for dim, m in uneven:
        result = _uneven(result, dim, m)
    return named(contiguous(result), f"AdaptiveAvgPool{n}DBackward0")


def _even(cut: Tensor, shape: Sequence[int], dim: int, m: int) -> Tensor:
    """The mean over the axis behind `dim`."""
    return EMIT.sum(cut, dims=(dim + 1,)) / (shape[dim] // m)


def _uneven(x: Tensor, dim: int, m: int) -> Tensor:
    """Means over parts of different lengths, which may overlap: a product with a matrix of weights."""
    n = x.shape[dim]
    part, place = (EMIT.iota(shape=(m, n), dim=k, dtype=int64) for k in (0, 1))
    first, last = part * n // max(m, 1), ((part + 1) * n + m - 1) // max(m, 1)
    inside = EMIT.logical_and(place >= first, place < last)
    weights = EMIT.cast(inside, x.dtype) / EMIT.cast(last - first, x.dtype)
    product = EMIT.dot_general(x, weights, lhs_batch=(), rhs_batch=(), lhs_contract=(dim,), rhs_contract=(1,))
    rank = x.ndim
    return EMIT.permute(product, dims=(*range(dim), rank - 1, *range(dim, rank - 1)))


# ---- shared ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Frame:
    """Where the windows of the last axes lie."""

    sizes: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    extra: tuple[int, ...]
    """Places that the last window reaches beyond the padded end."""

    @property
    def places(self) -> tuple[int, ...]:
        """How many windows there are along each axis."""
        return tuple(
            (n + 2 * p + e - span_of(k, d)) // s + 1
            for n, p, e, k, d, s in zip(
                self.sizes, self.padding, self.extra, self.kernel, self.dilation, self.stride, strict=True
            )
        )

    def windows(self, x: Tensor, value: float) -> Tensor:
        """The windows, with the elements of each along one axis in front of the axes that number them."""
        first, n = x.ndim - len(self.sizes), len(self.sizes)
        x = fitted(x, [(first + k, self.padding[k], self.padding[k] + self.extra[k]) for k in range(n)], value)
        windows = Windows(x.shape, self.kernel, self.stride, self.dilation)
        return EMIT.view_as(windows.of(x), (*windows.shape[:first], math.prod(self.kernel), *windows.shape[-n:]))

    def counts(self, dtype: DType, with_padding: bool) -> Tensor:
        """How many elements of each window count, zeros beyond the padding never do."""
        result: Any = 1
        for axis, places in enumerate(self.places):
            n, p = self.sizes[axis], self.padding[axis]
            first = EMIT.iota(shape=(places,), dim=0, dtype=int64) * self.stride[axis] - p
            last = (first + self.kernel[axis]).clamp(max=n + p)
            if not with_padding:
                first, last = first.clamp(min=0), last.clamp(max=n)
            along = EMIT.cast(last - first, dtype)
            result = along.reshape((places,) + (1,) * (len(self.sizes) - 1 - axis)) * result
        return result

    def positions(self, place: Tensor) -> Tensor:
        """The row-major position, in the pooled axes, of element number `place` of each window."""
        n, result = len(self.sizes), None
        for axis in range(n):
            inside = place // math.prod(self.kernel[axis + 1 :]) % self.kernel[axis]
            window = EMIT.iota(shape=tuple(place.shape), dim=place.ndim - n + axis, dtype=int64)
            along = window * self.stride[axis] - self.padding[axis] + inside * self.dilation[axis]
            result = along if result is None else result * self.sizes[axis] + along
        assert result is not None
        return result


def _check_rank(name: str, input: Tensor, n: int) -> None:
    if input.ndim not in (n + 1, n + 2):
        raise error(
            ShapeError, f"{name}: Expected {n + 1}D or {n + 2}D (batch mode) tensor, but got {list(input.shape)}"
        )


def _frame(
    name: str,
    input: Tensor,
    n: int,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
) -> _Frame:
    _check_rank(name, input, n)
    kernel = as_sizes(name, "kernel_size", kernel_size, n)
    strides = kernel if stride is None or stride == () else as_sizes(name, "stride", stride, n)
    ends, spread = as_sizes(name, "padding", padding, n), as_sizes(name, "dilation", dilation, n)
    sizes = tuple(input.shape[input.ndim - n :])
    if min(*kernel, *strides, *spread) <= 0 or min(ends) < 0:
        raise error(
            ShapeError, f"{name}: kernel_size, stride and dilation must be positive and padding must not be negative"
        )
    if any(2 * p > k for p, k in zip(ends, kernel, strict=True)):
        raise error(
            ShapeError,
            f"{name}: pad should be at most half of effective kernel size, got padding {ends} and kernel {kernel}",
        )
    extra = []
    for size, k, s, p, d in zip(sizes, kernel, strides, ends, spread, strict=True):
        room = size + 2 * p - span_of(k, d)
        if room < 0:
            raise error(
                ShapeError, f"{name}: Output size is too small: a window of {span_of(k, d)} in {list(input.shape)}"
            )
        count = room // s + 1
        if ceil_mode and room % s and count * s < size + p:
            count += 1
        extra.append(max((count - 1) * s - room, 0))
    return _Frame(sizes, kernel, strides, ends, spread, tuple(extra))
