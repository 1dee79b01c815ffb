"""Looking up rows of a table."""

from __future__ import annotations

from ...ir.errors import DTypeError
from ...ir.types import int64
from ...tracer.dispatch import EMIT
from ...tracer.location import error
from ...tracer.promotion import named
from ...tracer.tensor import Tensor


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """The rows of `weight` that the integers in `input` name; no gradient reaches the row `padding_idx`.

    Raises:
        DTypeError: `input` holds no integers.
        IndexRangeError: an integer is negative or not below the number of rows.
    """
    if not input.dtype.is_integer:
        raise error(DTypeError, f"embedding: expected indices of dtype weft.int64 or weft.int32, but got {input.dtype}")
    rows = EMIT.gather(weight, EMIT.cast(input, int64), dims=(0,))
    if padding_idx is not None:
        count = weight.shape[0]
        if not -count <= padding_idx < count:
            raise ValueError("Padding_idx must be within num_embeddings")
        is_padding = (input == padding_idx % count).unsqueeze(-1)
        rows = EMIT.select(EMIT.expand(is_padding, rows.shape), rows.detach(), rows)
    return named(rows, "EmbeddingBackward0")
