"""Normalisation: over the last axes, over groups of channels, over batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ir.errors import ShapeError
from ...tracer.dispatch import EMIT
from ...tracer.grad_mode import no_grad
from ...tracer.location import error
from ...tracer.promotion import named
from ...tracer.tensor import Tensor


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Shifts and scales the last axes to mean 0 and variance 1, then multiplies by `weight` and adds `bias`.

    Raises:
        ShapeError: the last axes of `input` do not have the sizes `normalized_shape`.
    """
    dims = _last_axes(input, normalized_shape)
    return named(_affine(_centred(input, dims, eps), weight, bias), "NativeLayerNormBackward0")


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Divides the last axes by their root mean square, then multiplies by `weight`.

    Args:
        eps: added to the mean square; when left out, the distance from 1 to the next number of the dtype.

    Raises:
        ShapeError: the last axes of `input` do not have the sizes `normalized_shape`.
    """
    dims = _last_axes(input, normalized_shape)
    least = float(np.finfo(input.dtype.numpy).eps) if eps is None else eps
    result = input * ((input * input).mean(dims, keepdim=True) + least).rsqrt()
    return named(result if weight is None else result * weight, "FusedRmsNormBackward0")


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Shifts and scales each group of channels of each example to mean 0 and variance 1; `weight` and `bias` are per
    channel.

    Raises:
        ShapeError: the channels (axis 1) cannot be cut into `num_groups` groups.
    """
    groups = int(num_groups)
    if input.ndim < 2 or input.shape[1] % groups:
        raise error(
            ShapeError,
            f"Expected number of channels in input to be divisible by num_groups, but got input of shape "
            f"{list(input.shape)} and num_groups={groups}",
        )
    batch, channels, *rest = input.shape
    cut = EMIT.view_as(input, (batch, groups, channels // groups * math.prod(rest)))
    result = EMIT.view_as(_centred(cut, (2,), eps), tuple(input.shape))
    return named(_affine(result, *_per_channel(input, weight, bias)), "NativeGroupNormBackward0")


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Shifts and scales each channel of each example ([N,] C, ...) to mean 0 and variance 1.

    Running statistics are updated with the means over the examples; without `use_input_stats` they are used instead.
    """
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    dims = tuple(range(2, input.ndim))
    if math.prod(input.shape[d] for d in dims) <= 1:
        raise error(
            ShapeError, f"Expected more than 1 spatial element when training, got input size {list(input.shape)}"
        )
    mean, var, result = _moments(input, dims, eps)
    _update(running_mean, running_var, mean.mean(0), var.mean(0), momentum, math.prod(input.shape[d] for d in dims))
    return named(_affine(result, *_per_channel(input, weight, bias)), "ViewBackward0")


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: Any = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Shifts and scales each channel (axis 1) to mean 0 and variance 1 over the batch and all other axes.

    Args:
        running_mean, running_var: statistics, moved towards the batch's by `momentum` when `training`, else used as
        they are.
        weight, bias: a factor and a summand for each channel, applied last.

    Raises:
        ShapeError: there is one value a channel only, or statistics are missing.
    """
    dims = (0, *range(2, input.ndim))
    if not training:
        if running_mean is None or running_var is None:
            raise error(ShapeError, "Expected running_mean and running_var to be defined when training=False")
        scale = (running_var + eps).rsqrt()
        shift, factor = _per_channel(input, running_mean, scale)
        result = (input - shift) * factor
        return named(_affine(result, *_per_channel(input, weight, bias)), "NativeBatchNormBackward0")
    count = math.prod(input.shape[d] for d in dims)
    if count <= 1:
        raise error(
            ShapeError, f"Expected more than 1 value per channel when training, got input size {list(input.shape)}"
        )
    mean, var, result = _moments(input, dims, eps)
    _update(running_mean, running_var, mean, var, momentum, count)
    return named(_affine(result, *_per_channel(input, weight, bias)), "NativeBatchNormBackward0")


# ---- shared ----------------------------------------------------------------------------------------------------------


def _last_axes(input: Tensor, normalized_shape: Sequence[int]) -> tuple[int, ...]:
    """The axes that are normalised, counted from the end."""
    sizes = tuple(normalized_shape)
    if tuple(input.shape[input.ndim - len(sizes) :]) != sizes or input.ndim < len(sizes):
        wanted = ", ".join(["*", *map(str, sizes)])
        raise error(
            ShapeError,
            f"Given normalized_shape={list(sizes)}, expected input with shape [{wanted}], but got input of size "
            f"{list(input.shape)}",
        )
    return tuple(range(-len(sizes), 0))


def _centred(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """`x` with mean 0 and variance 1 over `dims`."""
    centred = x - x.mean(dims, keepdim=True)
    return centred * ((centred * centred).mean(dims, keepdim=True) + eps).rsqrt()


def _moments(x: Tensor, dims: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The mean and the variance over `dims`, which they do not have, and `x` with mean 0 and variance 1."""
    kept = tuple(n for d, n in enumerate(x.shape) if d not in dims)
    mean = x.mean(dims, keepdim=True)
    centred = x - mean
    var = (centred * centred).mean(dims, keepdim=True)
    return EMIT.view_as(mean, kept), EMIT.view_as(var, kept), centred * (var + eps).rsqrt()


def _per_channel(input: Tensor, *values: Tensor | None) -> list[Tensor | None]:
    """Values for each channel, in a shape that broadcasts to the input's."""
    shape = (input.shape[1],) + (1,) * (input.ndim - 2)
    for v in values:
        if v is not None and tuple(v.shape) != (input.shape[1],):
            raise error(
                ShapeError, f"Expected a vector of {input.shape[1]} elements, one for each channel, got {list(v.shape)}"
            )
    return [None if v is None else EMIT.view_as(v, shape) for v in values]


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


@no_grad()
def _update(
    running_mean: Tensor | None, running_var: Tensor | None, mean: Tensor, var: Tensor, momentum: Any, count: int
) -> None:
    """Moves running statistics towards those of a batch; the variance without the bias of a sample of `count`."""
    for running, now in ((running_mean, mean), (running_var, var * count / (count - 1))):
        if running is not None:
            running.mul_(1 - momentum).add_(now.detach() * momentum)
