"""Loss functions on classes: negative log likelihood and cross entropy."""

from __future__ import annotations

from ...ir.errors import DTypeError, ShapeError
from ...ir.types import int64
from ...tracer.dispatch import EMIT
from ...tracer.location import error
from ...tracer.promotion import named
from ...tracer.tensor import Tensor
from .activation import log_softmax
from .loss import reduced

FEW_CLASSES = 1024
"""Up to this many, the class of a row is found by comparing; a gather costs less beyond."""


def _rows(input: Tensor) -> Tensor:
    """(N, C, d1, ...) or (C) as a matrix with one row per prediction and one column per class."""
    if input.ndim == 0:
        raise error(
            ShapeError, "a loss on classes needs an input with an axis of classes: (C), (N, C) or (N, C, d1, ...)"
        )
    if input.ndim == 2:
        return input
    return input.unsqueeze(0) if input.ndim == 1 else input.movedim(1, -1).reshape(-1, input.shape[1])


def _expected_target(input: Tensor) -> tuple[int, ...]:
    return () if input.ndim == 1 else (input.shape[0], *input.shape[2:])


def _check_target(input: Tensor, target: Tensor) -> None:
    if not target.dtype.is_integer:
        raise error(
            DTypeError, f"expected target dtype to be weft.int64 or weft.uint8 class indices, but got {target.dtype}"
        )
    wanted = _expected_target(input)
    if tuple(target.shape) != wanted:
        if input.ndim > 1 and target.ndim and target.shape[0] != input.shape[0]:
            raise error(
                ShapeError,
                f"Expected input batch_size ({input.shape[0]}) to match target batch_size ({target.shape[0]}).",
            )
        raise error(ShapeError, f"Expected target size {list(wanted)}, got {list(target.shape)}")


def _class_weights(weight: Tensor, classes: int) -> Tensor:
    if tuple(weight.shape) != (classes,):
        raise error(
            ShapeError,
            f"weight tensor should be defined either for all {classes} classes or no classes but got weight tensor of "
            f"shape: {list(weight.shape)}",
        )
    return weight


class _Targets:
    """Class indices with `ignore_index` taken out, and the weight of each prediction."""

    def __init__(self, target: Tensor, weight: Tensor | None, ignore_index: int, like: Tensor) -> None:
        flat = EMIT.cast(target, int64).reshape(-1)
        counted = flat != ignore_index
        self.index = EMIT.select(counted, flat, EMIT.full_like(flat, 0))
        ones = EMIT.cast(counted, like.dtype)
        self.weight = ones if weight is None else ones * EMIT.gather(weight, self.index, dims=(0,))

    def pick(self, rows: Tensor) -> Tensor:
        """Of each row the element of its class; checked to be a class.

        With few classes by comparing every column with the class, which needs no scatter in the derivative and so
        becomes one kernel together with the softmax. The gather from an iota is the check.
        """
        count, classes = rows.shape
        if classes > FEW_CLASSES:
            row = EMIT.iota(shape=(count,), dim=0, dtype=int64)
            return EMIT.gather(rows, row, self.index, dims=(0, 1))
        known = EMIT.gather(EMIT.iota(shape=(classes,), dim=0, dtype=int64), self.index, dims=(0,))
        column = EMIT.iota(shape=(count, classes), dim=1, dtype=int64)
        chosen = EMIT.eq(EMIT.expand(EMIT.view_as(known, (count, 1)), (count, classes)), column)
        return EMIT.sum(EMIT.select(chosen, rows, EMIT.full_like(rows, 0)), dims=(1,))

    def reduced(self, losses: Tensor, shape: tuple[int, ...], reduction: str) -> Tensor:
        """Weighted losses joined; the mean is by the weights of the predictions that count."""
        if reduction == "mean":
            return losses.sum() / self.weight.sum()
        return reduced(losses.reshape(shape), reduction)


def nll_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """Minus the log probability that `input` (N, C, ...) gives to the class `target` (N, ...), weighted and averaged.

    Raises:
        ShapeError, DTypeError: `target` holds no class index for each prediction.
        IndexRangeError: a target is no class.
    """
    _check_target(input, target)
    if weight is not None:
        _class_weights(weight, input.shape[min(1, input.ndim - 1)])
    targets = _Targets(target, weight, ignore_index, input)
    losses = -targets.pick(_rows(input)) * targets.weight
    return named(
        targets.reduced(losses, _expected_target(input), reduction),
        "NllLoss2DBackward0" if input.ndim > 2 else "NllLossBackward0",
    )


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The cross entropy between logits (N, C, ...) and classes (N, ...) or class probabilities of the input's shape.

    Args:
        weight: a factor for each class.
        ignore_index: a target that does not count.
        label_smoothing: the share of the target's mass that is spread evenly over all classes.
    """
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    dim = min(1, input.ndim - 1)
    if input.shape == target.shape and target.dtype.is_floating_point:
        return _from_probabilities(input, target, weight, reduction, label_smoothing, dim)
    log_p = log_softmax(input, dim)
    if label_smoothing == 0.0:
        return nll_loss(log_p, target, weight, ignore_index, reduction)
    return _smoothed(log_p, target, weight, ignore_index, reduction, label_smoothing, dim)


def _smoothed(
    log_p: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str, smoothing: float, dim: int
) -> Tensor:
    classes, shape = log_p.shape[dim], _expected_target(log_p)
    sharp = nll_loss(log_p, target, weight, ignore_index, reduction)
    targets = _Targets(target, weight, ignore_index, log_p)
    rows = _rows(log_p)
    spread = -(rows if weight is None else rows * weight).sum(-1)
    counted = EMIT.cast(target.reshape(-1) != ignore_index, log_p.dtype)
    return (1 - smoothing) * sharp + targets.reduced(spread * counted, shape, reduction) * (smoothing / classes)


def _from_probabilities(
    input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, smoothing: float, dim: int
) -> Tensor:
    classes = input.shape[dim]
    if smoothing > 0.0:
        target = target * (1 - smoothing) + smoothing / classes
    product = log_softmax(input, dim) * target
    if weight is not None:
        product = product * _class_weights(weight, classes).reshape((classes,) + (1,) * (input.ndim - 1 - dim))
    losses = -product.sum(dim)
    return losses.sum() / (input.shape.numel() // classes) if reduction == "mean" else reduced(losses, reduction)
