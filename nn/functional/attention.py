"""Attention: means of values, weighted by how well their keys fit a query."""

from __future__ import annotations

import math

from ...ir.errors import ShapeError
from ...ir.types import bool_, int64
from ...tracer.comparison import where
from ...tracer.dispatch import EMIT
from ...tracer.linear import matmul
from ...tracer.location import error
from ...tracer.tensor import Tensor
from .dropout import dropout


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """For each query the mean of the values, weighted by softmax(query . key * scale).

    Args:
        query, key, value: (..., L, E), (..., S, E) and (..., S, V).
        attn_mask: bool, True where a query may look at a key; or numbers that are added to the products.
        dropout_p: the probability that a weight is set to zero (always, not only in training).
        is_causal: a query may look at keys up to its own position only.
        scale: 1 / sqrt(E) when left out.
        enable_gqa: the queries may have more heads (axis -3) than the keys and values, a multiple.

    Raises:
        ShapeError: the sizes do not fit together, or a mask is given together with `is_causal`.
    """
    if is_causal and attn_mask is not None:
        raise error(ShapeError, "scaled_dot_product_attention: an attn_mask should not be set when is_causal=True")
    if enable_gqa:
        key, value = _shared_heads(query, key), _shared_heads(query, value)
    weights = attention_weights(query, key, attn_mask, is_causal, scale)
    return matmul(dropout(weights, dropout_p) if dropout_p else weights, value)


def attention_weights(
    query: Tensor, key: Tensor, mask: Tensor | None, is_causal: bool = False, scale: float | None = None
) -> Tensor:
    """The softmax of the scaled and masked products of queries and keys; rows without any key are zero."""
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = matmul(query, key.transpose(-2, -1)) * factor
    if is_causal:
        allowed = _causal(scores)
        return EMIT.select(allowed, scores, EMIT.full_like(scores, -math.inf)).softmax(-1)
    if mask is None:
        return scores.softmax(-1)
    scores = where(mask, scores, -math.inf) if mask.dtype is bool_ else scores + mask
    highest = scores.detach().amax(-1, keepdim=True)
    raised = (scores - where(highest == -math.inf, 0.0, highest)).exp()
    total = raised.sum(-1, keepdim=True)
    return raised / where(total == 0, 1.0, total)


def _causal(scores: Tensor) -> Tensor:
    """Whether a query, numbered along the last axis but one, may look at a key, numbered along the last."""
    shape = tuple(scores.shape)
    query, key = (EMIT.iota(shape=shape, dim=len(shape) - k, dtype=int64) for k in (2, 1))
    return EMIT.le(key, query)


def _shared_heads(query: Tensor, x: Tensor) -> Tensor:
    """`x` with each of its heads repeated for the queries' heads that share it."""
    heads, own = query.shape[-3], x.shape[-3]
    if own == 0 or heads % own:
        raise error(
            ShapeError, f"scaled_dot_product_attention: {heads} heads of queries cannot share {own} heads of keys"
        )
    return x.repeat_interleave(heads // own, -3) if heads != own else x
