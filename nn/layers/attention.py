"""MultiheadAttention, and the encoder layer of a transformer made of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

from ...ir.errors import ShapeError
from ...ir.types import DType, bool_
from ...tracer.comparison import where
from ...tracer.creation import empty
from ...tracer.linear import matmul
from ...tracer.location import error
from ...tracer.tensor import Tensor
from .. import functional, init
from ..containers import ModuleList
from ..functional.attention import attention_weights
from ..module import Module
from ..parameter import Parameter
from .dropout import Dropout
from .linear import Linear
from .normalization import LayerNorm


class MultiheadAttention(Module):
    """Attention of several heads, each on projections of its own; torch's parameters and names.

    Args:
        embed_dim: features of queries and outputs, cut into `num_heads` equal parts.
        dropout: the probability that a weight is set to zero in training.
        kdim, vdim: features of keys and values, where they differ.
        batch_first: inputs and outputs are (N, L, E) instead of (L, N, E).
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError(f"embed_dim and num_heads must be greater than 0, got {embed_dim=} and {num_heads=}")
        if embed_dim % num_heads:
            raise ValueError("embed_dim must be divisible by num_heads")
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = embed_dim, num_heads, dropout, batch_first
        self.head_dim = embed_dim // num_heads
        self.kdim, self.vdim = kdim or embed_dim, vdim or embed_dim
        kinds = {"device": device, "dtype": dtype}
        same = self.kdim == self.vdim == embed_dim
        whole = {"in_proj_weight": (3 * embed_dim, embed_dim)}
        parts = {"q": embed_dim, "k": self.kdim, "v": self.vdim}
        apart = {f"{k}_proj_weight": (embed_dim, n) for k, n in parts.items()}
        for name, shape in {**whole, **apart}.items():
            present = (name in whole) == same
            self.register_parameter(name, Parameter(empty(*shape, **kinds)) if present else None)
        self.register_parameter("in_proj_bias", Parameter(empty(3 * embed_dim, **kinds)) if bias else None)
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, **kinds)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new start values."""
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            weight = getattr(self, name)
            if weight is not None:
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """(outputs, the weights of the keys or None).

        Args:
            query, key, value: (L, N, E), or (L, E) without a batch; (N, L, E) when `batch_first`.
            key_padding_mask: (N, S), True for keys to leave out, or numbers to add.
            need_weights: whether to return the weights, too.
            attn_mask: (L, S) or (N * heads, L, S), True where a query may not look, or numbers to add.
            average_attn_weights: whether the weights returned are the means over the heads.
            is_causal: says that `attn_mask` is the causal mask.
        """
        single = query.ndim == 2
        axis = 0 if self.batch_first else 1
        q, k, v = (x.unsqueeze(axis) if single else x for x in (query, key, value))
        if not self.batch_first:
            q, k, v = (x.transpose(0, 1) for x in (q, k, v))
        if is_causal and attn_mask is None:
            raise error(ShapeError, "MultiheadAttention: need attn_mask if specifying the is_causal hint")
        mask = self._mask(
            q,
            k,
            key_padding_mask if not single or key_padding_mask is None else key_padding_mask.unsqueeze(0),
            attn_mask,
        )
        heads = [self._heads(x) for x in self._projected(q, k, v, query is key and key is value)]
        weights = attention_weights(heads[0], heads[1], mask)
        dropped = functional.dropout(weights, self.dropout, self.training) if self.dropout else weights
        mixed = matmul(dropped, heads[2]).transpose(1, 2).flatten(2)
        output = self.out_proj(mixed)
        output = output if self.batch_first else output.transpose(0, 1)
        shown = (dropped.mean(1) if average_attn_weights else dropped) if need_weights else None
        if single:
            return output.squeeze(axis), None if shown is None else shown.squeeze(0)
        return output, shown

    def _projected(self, q: Tensor, k: Tensor, v: Tensor, same: bool) -> tuple[Tensor, ...]:
        """Queries, keys and values, projected."""
        bias = self.in_proj_bias
        if same and self.in_proj_weight is not None:
            return functional.linear(q, self.in_proj_weight, bias).chunk(3, -1)
        names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        whole = self.in_proj_weight
        weights = [getattr(self, n) for n in names] if whole is None else whole.chunk(3, 0)
        biases = (None,) * 3 if bias is None else bias.chunk(3, 0)
        return tuple(functional.linear(x, w, b) for x, w, b in zip((q, k, v), weights, biases, strict=True))

    def _heads(self, x: Tensor) -> Tensor:
        """(N, L, E) as (N, heads, L, E / heads)."""
        return x.unflatten(-1, (int(self.num_heads), int(self.head_dim))).transpose(1, 2)

    def _mask(self, q: Tensor, k: Tensor, padding: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """Both masks as one that is added to the products."""
        batch, keys = q.shape[0], k.shape[1]
        total = None
        if mask is not None:
            total = _added(mask, q.dtype)
            if mask.ndim == 3:
                total = total.reshape(batch, int(self.num_heads), *mask.shape[1:])
        if padding is not None:
            if tuple(padding.shape) != (batch, keys):
                raise error(
                    ShapeError, f"expecting key_padding_mask shape of {(batch, keys)}, but got {list(padding.shape)}"
                )
            left_out = _added(padding, q.dtype).reshape(batch, 1, 1, keys)
            total = left_out if total is None else total + left_out
        return total


def _added(mask: Tensor, dtype: DType) -> Tensor:
    """A mask as numbers to add: minus infinity where a bool one is True."""
    return where(mask, -math.inf, 0.0).to(dtype) if mask.dtype is bool_ else mask.to(dtype)


class TransformerEncoderLayer(Module):
    """Self-attention and a perceptron, each with dropout, a residual connection and a layer norm.

    Args:
        d_model, nhead: features, and heads of attention.
        dim_feedforward: units of the perceptron.
        activation: a function, or `relu` or `gelu`.
        norm_first: the layer norms come in front of attention and perceptron instead of behind the sums.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        kinds = {"device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first, **kinds)
        self.linear1 = Linear(d_model, dim_feedforward, bias=bias, **kinds)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias=bias, **kinds)
        self.norm_first = norm_first
        self.norm1, self.norm2 = (LayerNorm(d_model, layer_norm_eps, bias=bias, **kinds) for _ in range(2))
        self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout)
        if isinstance(activation, str) and activation not in ("relu", "gelu"):
            raise ValueError(f"activation should be relu/gelu, not {activation}")
        self.activation = getattr(functional, activation) if isinstance(activation, str) else activation

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """A sequence of the input's shape; the masks are those of `MultiheadAttention`."""
        if self.norm_first:
            x = src + self._attended(self.norm1(src), src_mask, src_key_padding_mask, is_causal)
            return x + self._fed(self.norm2(x))
        x = self.norm1(src + self._attended(src, src_mask, src_key_padding_mask, is_causal))
        return self.norm2(x + self._fed(x))

    def _attended(self, x: Tensor, mask: Tensor | None, padding: Tensor | None, is_causal: bool) -> Tensor:
        return self.dropout1(self.self_attn(x, x, x, padding, False, mask, is_causal=is_causal)[0])

    def _fed(self, x: Tensor) -> Tensor:
        return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))


class TransformerEncoder(Module):
    """Several encoder layers, copies of `encoder_layer`, and a norm of the last one's output."""

    def __init__(self, encoder_layer: TransformerEncoderLayer, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self.layers = ModuleList([copy.deepcopy(encoder_layer) for _ in range(num_layers)])
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """A sequence of the input's shape."""
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask, is_causal)
        return src if self.norm is None else self.norm(src)
