"""Convolution layers, with torch's parameters and start values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from ...ir.types import DType
from ...tracer.creation import empty
from ...tracer.tensor import Tensor
from .. import functional, init
from ..functional.windows import as_sizes, span_of
from ..module import Module
from ..parameter import Parameter

Sizes = int | Sequence[int]


class _Convolution(Module):
    """What all convolutions share: the weight, the bias, and the options as tuples."""

    axes: ClassVar[int]
    """How many axes the kernel moves along."""
    transposed: ClassVar[bool] = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes,
        padding: Sizes | str,
        dilation: Sizes,
        groups: int,
        bias: bool,
        padding_mode: str,
        device: Any,
        dtype: DType | None,
    ) -> None:
        super().__init__()
        name, n = type(self).__name__, int(type(self).axes)
        if groups <= 0:
            raise ValueError("groups must be a positive integer")
        if in_channels % groups:
            raise ValueError("in_channels must be divisible by groups")
        if out_channels % groups:
            raise ValueError("out_channels must be divisible by groups")
        if padding_mode not in ("zeros", "reflect", "replicate", "circular"):
            raise ValueError(f"padding_mode must be zeros, reflect, replicate or circular, but got {padding_mode!r}")
        self.in_channels, self.out_channels, self.groups, self.padding_mode = (
            in_channels,
            out_channels,
            groups,
            padding_mode,
        )
        self.kernel_size = as_sizes(name, "kernel_size", kernel_size, n)
        self.stride, self.dilation = as_sizes(name, "stride", stride, n), as_sizes(name, "dilation", dilation, n)
        self.padding = padding if isinstance(padding, str) else as_sizes(name, "padding", padding, n)
        if type(self).transposed:
            shape = (in_channels, out_channels // groups, *self.kernel_size)
        else:
            shape = (out_channels, in_channels // groups, *self.kernel_size)
        kinds = {"device": device, "dtype": dtype}
        self.weight = Parameter(empty(*shape, **kinds))
        self.register_parameter("bias", Parameter(empty(out_channels, **kinds)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new start values."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in = init.fans(self.weight)[0]
            bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
            init.uniform_(self.bias, -bound, bound)

    def _padded(self, input: Tensor) -> tuple[Tensor, Any]:
        """The input, padded already when the padding is not zeros, and what is left to pad with zeros."""
        if self.padding_mode == "zeros" or (isinstance(self.padding, str) and self.padding != "same"):
            return input, self.padding
        totals = [span_of(k, d) - 1 for k, d in zip(self.kernel_size, self.dilation, strict=True)]
        if isinstance(self.padding, str):
            ends = [(t // 2, t - t // 2) for t in totals]
        else:
            ends = [(p, p) for p in self.padding]
        return functional.pad(input, [p for pair in reversed(ends) for p in pair], self.padding_mode), 0

    def extra_repr(self) -> str:
        """The sizes and the options that are not the usual ones."""
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        usual = {"padding": (0,) * len(self.kernel_size), "dilation": (1,) * len(self.kernel_size), "groups": 1}
        usual |= {"output_padding": usual["padding"]} if type(self).transposed else {}
        order = ("padding", "dilation", "output_padding", "groups")
        parts += [f"{k}={getattr(self, k)}" for k in order if k in usual and getattr(self, k) != usual[k]]
        parts += ["bias=False"] if self.bias is None else []
        parts += [f"padding_mode={self.padding_mode}"] if self.padding_mode != "zeros" else []
        return ", ".join(parts)


class _Conv(_Convolution):
    """A convolution."""

    function: ClassVar[Callable[..., Tensor]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )

    def forward(self, input: Tensor) -> Tensor:
        """The input's channels, mixed; the other axes shrink by what the kernel reaches over, unless padded."""
        x, padding = self._padded(input)
        return type(self).function(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv1d(_Conv):
    """Slides a learned kernel over ([N,] in_channels, L)."""

    axes = 1
    function = staticmethod(functional.conv1d)


class Conv2d(_Conv):
    """Slides a learned kernel over ([N,] in_channels, H, W).

    The weight has the shape (out_channels, in_channels / groups, KH, KW). It and the bias start uniform between
    -1/sqrt(n) and 1/sqrt(n), where n is the number of inputs of one output, as torch's.
    """

    axes = 2
    function = staticmethod(functional.conv2d)


class Conv3d(_Conv):
    """Slides a learned kernel over ([N,] in_channels, D, H, W)."""

    axes = 3
    function = staticmethod(functional.conv3d)


class _ConvTranspose(_Convolution):
    """A transposed convolution."""

    transposed = True
    function: ClassVar[Callable[..., Tensor]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sizes = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(f'Only "zeros" padding mode is supported for {type(self).__name__}')
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        self.output_padding = as_sizes(type(self).__name__, "output_padding", output_padding, len(self.kernel_size))

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """The transpose of a convolution; `output_size` chooses among the sizes that a stride leaves open."""
        extra = self.output_padding if output_size is None else self._extra(input, output_size)
        return type(self).function(
            input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation
        )

    def _extra(self, input: Tensor, output_size: Sequence[int]) -> list[int]:
        """The output padding that gives the output this size."""
        n = len(self.kernel_size)
        extra = []
        for k, wanted in enumerate(tuple(output_size)[-n:]):
            least = (input.shape[input.ndim - n + k] - 1) * self.stride[k] - 2 * self.padding[k]
            least += span_of(self.kernel_size[k], self.dilation[k])
            if not least <= wanted < least + self.stride[k]:
                raise ValueError(
                    f"requested an output size of {list(output_size)}, but axis {k} has {least} to "
                    f"{least + self.stride[k] - 1}"
                )
            extra.append(wanted - least)
        return extra


class ConvTranspose1d(_ConvTranspose):
    """The transpose of `Conv1d`, with a weight of shape (in_channels, out_channels / groups, K)."""

    axes = 1
    function = staticmethod(functional.conv_transpose1d)


class ConvTranspose2d(_ConvTranspose):
    """The transpose of `Conv2d`, with a weight of shape (in_channels, out_channels / groups, KH, KW)."""

    axes = 2
    function = staticmethod(functional.conv_transpose2d)


class ConvTranspose3d(_ConvTranspose):
    """The transpose of `Conv3d`, with a weight of shape (in_channels, out_channels / groups, KD, KH, KW)."""

    axes = 3
    function = staticmethod(functional.conv_transpose3d)
