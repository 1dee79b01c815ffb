"""Normalisation layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ...ir.types import DType, int64
from ...tracer.creation import ones, tensor, zeros
from ...tracer.tensor import Tensor
from .. import functional, init
from ..module import Module
from ..parameter import Parameter


def _reset(module: Module) -> None:
    """Sets the scale to 1 and the shift to 0, where there are such."""
    if module.weight is not None:
        init.ones_(module.weight)
    if module.bias is not None:
        init.zeros_(module.bias)


class LayerNorm(Module):
    """Brings the last axes, of sizes `normalized_shape`, to mean 0 and variance 1.

    A learned scale and shift of each element follow.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape, self.eps, self.elementwise_affine = shape, eps, elementwise_affine
        kinds = {"device": device, "dtype": dtype}
        self.register_parameter("weight", Parameter(ones(shape, **kinds)) if elementwise_affine else None)
        self.register_parameter("bias", Parameter(zeros(shape, **kinds)) if elementwise_affine and bias else None)

    def reset_parameters(self) -> None:
        """Sets the scale to 1 and the shift to 0."""
        _reset(self)

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape."""
        return functional.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The sizes and options."""
        affine = f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        return f"{self.normalized_shape}, eps={self.eps}, {affine}"


class RMSNorm(Module):
    """Divides the last axes, of sizes `normalized_shape`, by their root mean square; a learned scale of each follows.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape, self.eps, self.elementwise_affine = shape, eps, elementwise_affine
        weight = Parameter(ones(shape, device=device, dtype=dtype)) if elementwise_affine else None
        self.register_parameter("weight", weight)

    def reset_parameters(self) -> None:
        """Sets the scale to 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape."""
        return functional.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        """The sizes and options."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(Module):
    """Brings each group of channels of each example to mean 0 and variance 1; a learned scale and shift of each channel
    follow."""

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: DType | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if num_channels % num_groups:
            raise ValueError("num_channels must be divisible by num_groups")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        kinds = {"device": device, "dtype": dtype}
        self.register_parameter("weight", Parameter(ones(num_channels, **kinds)) if affine else None)
        self.register_parameter("bias", Parameter(zeros(num_channels, **kinds)) if affine and bias else None)

    def reset_parameters(self) -> None:
        """Sets the scale to 1 and the shift to 0."""
        _reset(self)

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape."""
        return functional.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The sizes and options."""
        affine = f"affine={self.affine}, bias={self.bias is not None}"
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, {affine}"


class _Statistics(Module):
    """What layers with running statistics share."""

    ranks: ClassVar[tuple[int, ...]]
    """How many axes an input may have."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: DType | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        kinds = {"device": device, "dtype": dtype}
        self.register_parameter("weight", Parameter(ones(num_features, **kinds)) if affine else None)
        self.register_parameter("bias", Parameter(zeros(num_features, **kinds)) if affine and bias else None)
        tracked = track_running_stats
        self.register_buffer("running_mean", zeros(num_features, **kinds) if tracked else None)
        self.register_buffer("running_var", ones(num_features, **kinds) if tracked else None)
        self.register_buffer("num_batches_tracked", tensor(0, dtype=int64) if tracked else None)

    def reset_running_stats(self) -> None:
        """Sets the running statistics to mean 0 and variance 1, of no batches."""
        if self.track_running_stats:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            init.zeros_(self.num_batches_tracked)

    def reset_parameters(self) -> None:
        """Sets the scale to 1 and the shift to 0, and the running statistics to their start."""
        self.reset_running_stats()
        _reset(self)

    def _check(self, input: Tensor) -> None:
        if input.ndim not in type(self).ranks:
            wanted = " or ".join(f"{n}D" for n in type(self).ranks)
            raise ValueError(f"expected {wanted} input (got {input.ndim}D input)")

    def _momentum(self) -> Any:
        """The share of this batch in the running statistics; counts the batch."""
        if self.num_batches_tracked is None:
            return 0.0
        self.num_batches_tracked.add_(1)
        if self.momentum is not None:
            return self.momentum
        return 1.0 / self.num_batches_tracked.to(self.running_mean.dtype)

    def extra_repr(self) -> str:
        """The sizes and options."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_Statistics):
    """Normalises each channel over the batch."""

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape; in training mode the running statistics move towards the batch's."""
        self._check(input)
        batch = self.training or self.running_mean is None
        momentum = self._momentum() if self.training and self.track_running_stats else 0.0
        tracked = self.training and self.track_running_stats
        mean, var = (self.running_mean, self.running_var) if tracked or not batch else (None, None)
        return functional.batch_norm(input, mean, var, self.weight, self.bias, batch, momentum, self.eps)


class BatchNorm1d(_BatchNorm):
    """Brings each channel of (N, C) or (N, C, L) to mean 0 and variance 1 over the batch; a learned scale and shift
    follow.

    In evaluation mode running statistics take the place of the batch's. `momentum` is the share of the newest batch in
    them; None makes them the means over all batches.
    """

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """The same for (N, C, H, W)."""

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """The same for (N, C, D, H, W)."""

    ranks = (5,)


class _InstanceNorm(_Statistics):
    """Normalises each channel of each example."""

    momentum: float

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: DType | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape."""
        self._check(input)
        alone = input.ndim == min(type(self).ranks)
        own = self.training or not self.track_running_stats
        x = input.unsqueeze(0) if alone else input
        result = functional.instance_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, own, self.momentum, self.eps
        )
        return result.squeeze(0) if alone else result


class InstanceNorm1d(_InstanceNorm):
    """Brings each channel of each example of ([N,] C, L) to mean 0 and variance 1."""

    ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """The same for ([N,] C, H, W)."""

    ranks = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """The same for ([N,] C, D, H, W)."""

    ranks = (4, 5)
