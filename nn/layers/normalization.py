"""LayerNorm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...ir.types import DType
from ...tracer.creation import ones, zeros
from ...tracer.tensor import Tensor
from .. import functional, init
from ..module import Module
from ..parameter import Parameter


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
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape."""
        return functional.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The sizes and options."""
        affine = f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        return f"{self.normalized_shape}, eps={self.eps}, {affine}"
