"""Dropout."""

from __future__ import annotations

from ...tracer.dispatch import EMIT
from ...tracer.promotion import named
from ...tracer.random import rand
from ...tracer.tensor import Tensor


def dropout(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Sets each element to zero with probability `p` and scales the others by 1 / (1 - p).

    The identity when not `training`.
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0.0:
        return input
    nothing = EMIT.full_like(input, 0)
    if p == 1.0:
        return input * nothing
    return named(EMIT.select(rand(input.shape) >= p, input * (1.0 / (1.0 - p)), nothing), "MulBackward0")
