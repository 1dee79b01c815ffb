"""The affine map."""

from __future__ import annotations

from ...ir.errors import DTypeError, ShapeError
from ...tracer.dispatch import EMIT
from ...tracer.location import error
from ...tracer.promotion import named
from ...tracer.tensor import Tensor


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`input @ weight.T + bias`, with a weight of shape (out, in) and an input whose last axis has size `in`.

    Raises:
        ShapeError: the sizes do not fit.
        DTypeError: input and weight have different dtypes.
    """
    shape, last = input.shape, input.ndim - 1
    if weight.ndim != 2 or last < 0 or shape[last] != weight.shape[1]:
        rows = 1
        for n in shape[:-1]:
            rows *= n
        columns = shape[-1] if shape else 1
        raise error(
            ShapeError,
            f"mat1 and mat2 shapes cannot be multiplied ({rows}x{columns} and "
            f"{'x'.join(str(n) for n in reversed(weight.shape))}): linear got an input of shape {list(shape)} "
            f"and a weight of shape {list(weight.shape)} (out, in)",
        )
    if input.dtype is not weight.dtype:
        raise error(DTypeError, f"mat1 and mat2 must have the same dtype, but got {input.dtype} and {weight.dtype}")
    product = EMIT.dot_general(input, weight, lhs_batch=(), rhs_batch=(), lhs_contract=(last,), rhs_contract=(1,))
    if bias is None:
        return product
    return named(product + bias, "AddmmBackward0" if last == 1 else "ViewBackward0")
