"""Dropout."""

from __future__ import annotations

from ...tracer.tensor import Tensor
from .. import functional
from ..module import Module


class Dropout(Module):
    """In training mode, sets each element to zero with probability `p` and scales the others by 1 / (1 - p)."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p = p

    def forward(self, input: Tensor) -> Tensor:
        """The thinned input; the input itself in evaluation mode."""
        return functional.dropout(input, self.p, self.training)

    def extra_repr(self) -> str:
        """The probability, as torch prints it."""
        return f"p={self.p}, inplace=False"
