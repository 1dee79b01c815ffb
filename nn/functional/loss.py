"""Loss functions on numbers: how far a prediction is from its target. Losses on classes are in classes.py."""

from __future__ import annotations

import warnings

from ...ir.errors import WeftError
from ...tracer.dispatch import EMIT
from ...tracer.location import error
from ...tracer.promotion import named
from ...tracer.state import STATE
from ...tracer.tensor import Tensor

_NEAR = 1e-12
"""Nearer to 0 than this, a probability's logarithm is continued linearly, so that its derivative stays finite."""


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """The mean or the sum of all elements, or the elements themselves for `none`."""
    if reduction == "mean":
        return loss.mean()
    if reduction == "sum":
        return loss.sum()
    if reduction == "none":
        return loss
    raise ValueError(f"{reduction} is not a valid value for reduction")


def _difference(input: Tensor, target: Tensor) -> Tensor:
    if input.shape != target.shape:
        warnings.warn(
            f"Using a target size ({target.shape}) that is different to the input size ({input.shape}). This will "
            "likely lead to incorrect results due to broadcasting. Please ensure they have the same size.",
            stacklevel=3,
        )
    return input - target


def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The squared difference, averaged."""
    difference = _difference(input, target)
    return named(reduced(difference * difference, reduction), "MseLossBackward0")


def l1_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The absolute difference, averaged."""
    return reduced(_difference(input, target).abs(), reduction)


def smooth_l1_loss(input: Tensor, target: Tensor, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """d^2 / (2 beta) where the difference d is less than `beta`, else |d| - beta / 2."""
    if beta < 0:
        raise ValueError("smooth_l1_loss does not support negative values for beta.")
    if beta == 0:
        return l1_loss(input, target, reduction)
    distance = _difference(input, target).abs()
    loss = EMIT.select(distance < beta, distance * distance * (0.5 / beta), distance - 0.5 * beta)
    return named(reduced(loss, reduction), "SmoothL1LossBackward0")


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """d^2 / 2 where the difference d is less than `delta`, else delta (|d| - delta / 2)."""
    if delta <= 0:
        raise ValueError("huber_loss does not support non-positive values for delta.")
    distance = _difference(input, target).abs()
    loss = EMIT.select(distance <= delta, distance * distance * 0.5, (distance - 0.5 * delta) * delta)
    return named(reduced(loss, reduction), "HuberLossBackward0")


def _log_bounded(p: Tensor) -> Tensor:
    """log(p), at least -100; the slope is 1e12 below 1e-12, where the logarithm's own may exceed all floats."""
    near = p < _NEAR
    fixed = p.detach()
    edge = EMIT.maximum(fixed.log(), EMIT.full_like(fixed, -100)) + (p - fixed) / _NEAR
    return EMIT.select(near, edge, EMIT.select(near, EMIT.full_like(p, 1), p).log())


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """-(t log(p) + (1 - t) log(1 - p)) for probabilities p.

    Raises:
        ValueError: the sizes differ.
        WeftError: outside a compiled function, when an element of `input` is no probability.
    """
    if input.shape != target.shape:
        raise ValueError(
            f"Using a target size ({target.shape}) that is different to the input size ({input.shape}) is deprecated. "
            "Please ensure they have the same size."
        )
    if STATE.trace is None and not bool(((input >= 0) & (input <= 1)).all()):
        raise error(WeftError, "binary_cross_entropy: all elements of input should be between 0 and 1")
    loss = (target - 1) * _log_bounded(1 - input) - target * _log_bounded(input)
    loss = loss if weight is None else loss * weight
    return named(reduced(loss, reduction), "BinaryCrossEntropyBackward0")


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """As `binary_cross_entropy` of sigmoid(input), by a formula that is exact for logits of any size.

    Args:
        weight: a factor for each element, broadcast.
        pos_weight: a factor for the positive class, broadcast.
    """
    if input.shape != target.shape:
        raise ValueError(f"Target size ({target.shape}) must be the same as input size ({input.shape})")
    log_sigmoid = EMIT.minimum(input, EMIT.full_like(input, 0)) - (-input.abs()).exp().log1p()
    if pos_weight is not None:
        log_sigmoid = log_sigmoid * ((pos_weight - 1) * target + 1)
    loss = (1 - target) * input - log_sigmoid
    loss = loss if weight is None else loss * weight
    return named(reduced(loss, reduction), "BinaryCrossEntropyWithLogitsBackward0")
