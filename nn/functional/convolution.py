"""Convolutions: products of a weight with the windows of an input, and their transposes.

The windows are views; as a matrix they have a row for each input channel and place within the kernel, and a column for
each place of the output. Forward, the weight's derivative and the input's read the same matrix, so one copy of it is
enough.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...ir.errors import DTypeError, ShapeError
from ...tracer.dispatch import EMIT
from ...tracer.location import error
from ...tracer.promotion import named
from ...tracer.shape import contiguous
from ...tracer.tensor import Tensor
from .padding import fitted
from .windows import Windows, as_sizes, span_of

Sizes = int | Sequence[int]

FEW_PLACES = 16
"""With fewer places than these, and than output channels, those of all images are the columns of one matrix."""


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The weight (out, in / groups, K) slid over an input ([N,] in, L); see `conv2d`."""
    return _conv(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The weight (out, in / groups, KH, KW) slid over an input ([N,] in, H, W): at each place the sum of the products.

    Args:
        stride: how far apart the places are.
        padding: zeros added at both ends of an axis; `"valid"` is none, `"same"` gives an output of the input's size.
        dilation: how far apart the elements under the kernel are.
        groups: input and output channels are cut into so many groups, each with weights of its own.

    Raises:
        ShapeError, DTypeError: the operands do not fit together.
    """
    return _conv(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The weight (out, in / groups, KD, KH, KW) slid over an input ([N,] in, D, H, W); see `conv2d`."""
    return _conv(3, input, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """The transpose of `conv1d`; see `conv_transpose2d`."""
    return _conv_transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """The transpose of `conv2d`: every input element spreads the weight (in, out / groups, KH, KW) over the output,
    times itself.

    Args:
        padding: as of the convolution whose transpose this is: the output is smaller by so much at both ends.
        output_padding: makes the output larger at one end, where a stride leaves the size open.

    Raises:
        ShapeError, DTypeError: the operands do not fit together.
    """
    return _conv_transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """The transpose of `conv3d`; see `conv_transpose2d`."""
    return _conv_transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


# ---- forward ---------------------------------------------------------------------------------------------------------


def _conv(
    n: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes | str,
    dilation: Sizes,
    groups: int,
) -> Tensor:
    name, groups = f"conv{n}d", int(groups)
    x = _batched(name, n, input, weight)
    stride, dilation = (as_sizes(name, what, v, n) for what, v in (("stride", stride), ("dilation", dilation)))
    _check_positive(name, stride, dilation, groups)
    kernel = tuple(weight.shape[2:])
    ends = _ends(name, n, padding, kernel, stride, dilation)
    _check_channels(name, input, weight, bias, groups, weight.shape[0], groups * weight.shape[1])
    _check_room(x, kernel, dilation, ends)
    x = fitted(x, [(2 + k, *ends[k]) for k in range(n)], 0)
    return _finished(_slide(x, weight, stride, dilation, groups), bias, input, n)


def _slide(x: Tensor, weight: Tensor, stride: Sequence[int], dilation: Sequence[int], groups: int) -> Tensor:
    """The product of the weight with all windows of a padded, batched input."""
    batch, channels, *_ = x.shape
    outputs, kernel, n = weight.shape[0], tuple(weight.shape[2:]), x.ndim - 2
    cut = () if groups == 1 else (groups,)
    x = EMIT.view_as(x, (batch, *cut, channels // groups, *x.shape[2:]))
    windows = Windows(x.shape, kernel, tuple(stride), tuple(dilation))
    parts, places = windows.of(x), windows.shape[-n:]
    weights = EMIT.view_as(weight, (*cut, outputs // groups, channels // groups, *kernel))
    first = 1 + len(cut)
    rows = tuple(range(first, first + 1 + n))
    if math.prod(places) >= min(outputs // groups, FEW_PLACES):
        weights = EMIT.expand(weights, (batch, *weights.shape))
        lead, columns = tuple(range(first)), tuple(k + 1 for k in rows)
        axes = {"lhs_batch": lead, "rhs_batch": lead, "lhs_contract": columns, "rhs_contract": rows}
        return EMIT.view_as(EMIT.dot_general(weights, parts, **axes), (batch, outputs, *places))
    parts = EMIT.permute(parts, dims=(*range(1, first), *rows, 0, *range(first + 1 + n, first + 1 + 2 * n)))
    lead, inner = tuple(range(len(cut))), tuple(k - 1 for k in rows)
    axes = {"lhs_batch": lead, "rhs_batch": lead, "lhs_contract": rows, "rhs_contract": inner}
    result = EMIT.view_as(EMIT.dot_general(weights, parts, **axes), (outputs, batch, *places))
    return EMIT.permute(result, dims=(1, 0, *range(2, 2 + n)))


# ---- transposed ------------------------------------------------------------------------------------------------------


def _conv_transpose(
    n: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    groups: int,
    dilation: Sizes,
) -> Tensor:
    name, groups = f"conv_transpose{n}d", int(groups)
    x = _batched(name, n, input, weight)
    stride, padding, extra, dilation = (
        as_sizes(name, what, v, n)
        for what, v in (
            ("stride", stride),
            ("padding", padding),
            ("output_padding", output_padding),
            ("dilation", dilation),
        )
    )
    _check_positive(name, stride, dilation, groups)
    for e, s, d in zip(extra, stride, dilation, strict=True):
        if e >= max(s, d):
            raise error(
                ShapeError,
                f"{name}: output padding must be smaller than either stride or dilation, but got {list(extra)}",
            )
    outputs = groups * weight.shape[1]
    _check_channels(name, input, weight, bias, groups, outputs, weight.shape[0])
    result = _spread(x, weight, stride, dilation, groups)
    axes = [(2 + k, -padding[k], extra[k] - padding[k]) for k in range(n)]
    return _finished(fitted(result, axes, 0), bias, input, n)


def _spread(x: Tensor, weight: Tensor, stride: Sequence[int], dilation: Sequence[int], groups: int) -> Tensor:
    """Every element of a batched input times the weight, added up where they overlap."""
    batch, channels, *places = x.shape
    outputs, kernel = weight.shape[1], tuple(weight.shape[2:])
    cut = () if groups == 1 else (groups,)
    x = EMIT.view_as(x, (batch, *cut, channels // groups, *places))
    weights = EMIT.view_as(weight, (*cut, channels // groups, outputs, *kernel))
    weights = EMIT.expand(weights, (batch, *weights.shape))
    lead, inner = tuple(range(1 + len(cut))), (1 + len(cut),)
    parts = EMIT.dot_general(weights, x, lhs_batch=lead, rhs_batch=lead, lhs_contract=inner, rhs_contract=inner)
    sizes = [(p - 1) * s + span_of(k, d) for p, s, k, d in zip(places, stride, kernel, dilation, strict=True)]
    windows = Windows((batch, *cut, outputs, *sizes), kernel, tuple(stride), tuple(dilation))
    return EMIT.view_as(windows.added(parts), (batch, groups * outputs, *sizes))


# ---- shared ----------------------------------------------------------------------------------------------------------


def _batched(name: str, n: int, input: Tensor, weight: Tensor) -> Tensor:
    if weight.ndim != n + 2:
        raise error(
            ShapeError, f"{name}: expected a weight with {n + 2} axes, but got one of size: {list(weight.shape)}"
        )
    if input.ndim not in (n + 1, n + 2):
        raise error(
            ShapeError,
            f"Expected {n + 1}D (unbatched) or {n + 2}D (batched) input to {name}, but got input of size: "
            f"{list(input.shape)}",
        )
    if input.dtype is not weight.dtype:
        raise error(
            DTypeError,
            f"{name}: input ({input.dtype}) and weight ({weight.dtype}) must have the same dtype: convert one of them",
        )
    return input if input.ndim == n + 2 else EMIT.view_as(input, (1, *input.shape))


def _check_positive(name: str, stride: Sequence[int], dilation: Sequence[int], groups: int) -> None:
    for what, values in (("stride", stride), ("dilation", dilation), ("groups", (groups,))):
        if min(values) <= 0:
            raise error(ShapeError, f"{name}: {what} must be positive, got {list(values)}")


def _ends(
    name: str, n: int, padding: Sizes | str, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[tuple[int, int]]:
    """(in front, behind) for each axis."""
    if padding == "valid":
        return [(0, 0)] * n
    if padding == "same":
        if any(s != 1 for s in stride):
            raise error(ShapeError, "padding='same' is not supported for strided convolutions")
        totals = [span_of(k, d) - 1 for k, d in zip(kernel, dilation, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    if isinstance(padding, str):
        raise ValueError(f"Invalid padding string {padding!r}, should be one of 'valid', 'same'")
    sizes = as_sizes(name, "padding", padding, n)
    if min(sizes) < 0:
        raise error(ShapeError, f"{name}: negative padding is not supported, got {list(sizes)}")
    return [(p, p) for p in sizes]


def _check_channels(
    name: str, input: Tensor, weight: Tensor, bias: Tensor | None, groups: int, outputs: int, channels: int
) -> None:
    given = input.shape[-(weight.ndim - 1)]
    if given != channels or outputs % groups or channels % groups:
        raise error(
            ShapeError,
            f"Given groups={groups}, weight of size {list(weight.shape)}, expected input{list(input.shape)} to have "
            f"{channels} channels, but got {given} channels instead"
            + ("" if given != channels else f", and {outputs} outputs cannot be cut into {groups} groups"),
        )
    if bias is not None and tuple(bias.shape) != (outputs,):
        raise error(
            ShapeError,
            f"Given weight of size {list(weight.shape)}, expected bias to be 1-dimensional with {outputs} elements, "
            f"but got bias of size {list(bias.shape)} instead",
        )
    if bias is not None and bias.dtype is not input.dtype:
        raise error(DTypeError, f"{name}: input ({input.dtype}) and bias ({bias.dtype}) must have the same dtype")


def _check_room(x: Tensor, kernel: Sequence[int], dilation: Sequence[int], ends: Sequence[tuple[int, int]]) -> None:
    sizes = [n + a + b for n, (a, b) in zip(x.shape[2:], ends, strict=True)]
    spans = [span_of(k, d) for k, d in zip(kernel, dilation, strict=True)]
    if any(s > n for s, n in zip(spans, sizes, strict=True)):
        raise error(
            ShapeError,
            f"Calculated padded input size per channel: ({' x '.join(map(str, sizes))}). Kernel size: "
            f"({' x '.join(map(str, spans))}). Kernel size can't be greater than actual input size",
        )


def _finished(result: Tensor, bias: Tensor | None, input: Tensor, n: int) -> Tensor:
    """Adds the bias; an input without a batch gives a result without one."""
    if bias is not None:
        result = EMIT.add(result, EMIT.expand(EMIT.view_as(bias, (*bias.shape, *(1,) * n)), result.shape))
    if input.ndim == n + 1:
        result = EMIT.view_as(result, tuple(result.shape[1:]))
    return named(contiguous(result), "ConvolutionBackward0")
