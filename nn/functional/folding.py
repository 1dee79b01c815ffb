"""unfold and fold: the windows of images as the columns of a matrix, and back, adding up where they overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...ir.errors import ShapeError
from ...tracer.dispatch import EMIT
from ...tracer.location import error
from ...tracer.promotion import named
from ...tracer.shape import contiguous
from ...tracer.tensor import Tensor
from .padding import fitted
from .windows import Windows, as_sizes, span_of

Sizes = int | Sequence[int]


def unfold(input: Tensor, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1) -> Tensor:
    """The windows of images ([N,] C, H, W) as columns ([N,] C * KH * KW, number of windows)."""
    if input.ndim not in (3, 4):
        raise error(
            ShapeError, f"unfold: Expected 3D or 4D (batch mode) tensor, but got input of shape {list(input.shape)}"
        )
    kernel, dilation, padding, stride = _options("unfold", kernel_size, dilation, padding, stride)
    first = input.ndim - 2
    x = fitted(input, [(first + k, padding[k], padding[k]) for k in range(2)], 0)
    _check_room(x, kernel, dilation)
    windows = Windows(x.shape, kernel, stride, dilation)
    rows = input.shape[first - 1] * math.prod(kernel)
    columns = EMIT.view_as(windows.of(x), (*input.shape[: first - 1], rows, math.prod(windows.shape[-2:])))
    return named(contiguous(columns), "Im2ColBackward0")


def fold(
    input: Tensor,
    output_size: Sizes,
    kernel_size: Sizes,
    dilation: Sizes = 1,
    padding: Sizes = 0,
    stride: Sizes = 1,
) -> Tensor:
    """Images from columns as `unfold` makes them: at each place the sum of the elements of all windows there."""
    if input.ndim not in (2, 3):
        raise error(
            ShapeError, f"fold: Expected 2D or 3D (batch mode) tensor for input, but got shape {list(input.shape)}"
        )
    kernel, dilation, padding, stride = _options("fold", kernel_size, dilation, padding, stride)
    size = as_sizes("fold", "output_size", output_size, 2)
    sizes = [n + 2 * p for n, p in zip(size, padding, strict=True)]
    places = [(n - span_of(k, d)) // s + 1 for n, k, d, s in zip(sizes, kernel, dilation, stride, strict=True)]
    if input.shape[-2] % math.prod(kernel) or input.shape[-1] != math.prod(places):
        raise error(
            ShapeError,
            f"fold: Given output_size={size}, kernel_size={kernel}, dilation={dilation}, padding={padding}, "
            f"stride={stride}, expected {math.prod(places)} columns of a multiple of {math.prod(kernel)} elements, but "
            f"got {list(input.shape)}",
        )
    lead = (*input.shape[:-2], input.shape[-2] // math.prod(kernel))
    rank = len(lead)
    windows = Windows((*lead, *sizes), kernel, stride, dilation)
    image = windows.added(EMIT.view_as(input, windows.shape))
    image = fitted(image, [(rank + k, -padding[k], -padding[k]) for k in range(2)], 0)
    return named(contiguous(image), "Col2ImBackward0")


def _options(name: str, *sizes: Sizes) -> list[tuple[int, ...]]:
    whats = ("kernel_size", "dilation", "padding", "stride")
    found = [as_sizes(name, what, v, 2) for what, v in zip(whats, sizes, strict=True)]
    for what, values in zip(whats, found, strict=True):
        if min(values) < (0 if what == "padding" else 1):
            raise error(ShapeError, f"{name}: {what} must be positive, got {values}")
    return found


def _check_room(x: Tensor, kernel: Sequence[int], dilation: Sequence[int]) -> None:
    if any(span_of(k, d) > n for k, d, n in zip(kernel, dilation, x.shape[-2:], strict=True)):
        raise error(
            ShapeError,
            f"unfold: windows of {tuple(kernel)} do not fit into padded images of shape {list(x.shape[-2:])}",
        )
