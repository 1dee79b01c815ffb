"""Normalisation over axes."""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.errors import ShapeError
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
    sizes = tuple(normalized_shape)
    if tuple(input.shape[input.ndim - len(sizes) :]) != sizes or input.ndim < len(sizes):
        wanted = ", ".join(["*", *map(str, sizes)])
        raise error(
            ShapeError,
            f"Given normalized_shape={list(sizes)}, expected input with shape [{wanted}], but got input of size "
            f"{list(input.shape)}",
        )
    dims = tuple(range(-len(sizes), 0))
    centred = input - input.mean(dims, keepdim=True)
    result = centred * ((centred * centred).mean(dims, keepdim=True) + eps).rsqrt()
    result = result if weight is None else result * weight
    return named(result if bias is None else result + bias, "NativeLayerNormBackward0")
