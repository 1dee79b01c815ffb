"""Embedding: a table of learned rows."""

from __future__ import annotations

from typing import Any

from ...ir.types import DType
from ...tracer.creation import empty
from ...tracer.grad_mode import no_grad
from ...tracer.tensor import Tensor
from .. import functional, init
from ..module import Module
from ..parameter import Parameter


class Embedding(Module):
    """Looks up rows of a table of shape (num_embeddings, embedding_dim) by integers.

    The row `padding_idx` gets no gradient. The table starts normally distributed, with zeros in the row `padding_idx`.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ValueError("Padding_idx must be within num_embeddings")
            padding_idx %= num_embeddings
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.weight = Parameter(empty(num_embeddings, embedding_dim, device=device, dtype=dtype))
        self.reset_parameters()

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None) -> Embedding:
        """An embedding over an existing table, which learns only when not `freeze`."""
        if embeddings.ndim != 2:
            raise ValueError("Embeddings parameter is expected to be 2-dimensional")
        rows, columns = embeddings.shape
        module = cls(rows, columns, padding_idx=padding_idx)
        module.weight = Parameter(embeddings, requires_grad=not freeze)
        return module

    def reset_parameters(self) -> None:
        """Draws new start values."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx].fill_(0)

    def forward(self, input: Tensor) -> Tensor:
        """An output of the input's shape with an axis of size `embedding_dim` more."""
        return functional.embedding(input, self.weight, None if self.padding_idx is None else int(self.padding_idx))

    def extra_repr(self) -> str:
        """The sizes."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
