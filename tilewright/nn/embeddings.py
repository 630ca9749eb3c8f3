"""Embeddings as modules."""

from __future__ import annotations

from typing import Any

from tilewright.autograd.tape import no_grad
from tilewright.errors import ArgumentError, ShapeError
from tilewright.nn import functional as F
from tilewright.nn import init
from tilewright.nn.module import Module
from tilewright.nn.parameter import Parameter
from tilewright.tensor.creation import as_tensor, empty
from tilewright.tensor.tensor import Tensor


class Table(Module):
    """Base of the embeddings: weight [num_embeddings embedding_dim], normal at first, 0 at `padding_idx`."""

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None,
        max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
        sparse: bool = False, *, dtype: Any = "float32",
    ) -> None:  # fmt: skip
        super().__init__()
        self.sparse = sparse
        self.max_norm, self.norm_type = max_norm, norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ArgumentError(f"padding_idx {padding_idx} is none of the {num_embeddings} rows")
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.weight = Parameter(empty(num_embeddings, embedding_dim, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values again."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0

    @classmethod
    def from_pretrained(cls, embeddings: Any, freeze: bool = True, **options: Any) -> Any:
        """A module with these rows, which are not trained unless `freeze` is False."""
        rows = as_tensor(embeddings)
        if rows.ndim != 2:
            raise ShapeError(f"embeddings are a matrix with a row for each index, not of shape {rows.shape}")
        made = cls(rows.shape[0], rows.shape[1], **options, dtype=rows.dtype)
        made.weight = Parameter(rows.detach().clone(), requires_grad=not freeze)
        return made

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class Embedding(Table):
    """weight[input]; the row `padding_idx` is not trained."""

    def forward(self, input: Any) -> Tensor:
        return F.embedding(
            input, self.weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq,
            self.sparse,
        )  # fmt: skip


class EmbeddingBag(Table):
    """The sum, mean or max of the rows of each bag: [bag element], or a vector and its bags' offsets."""

    def __init__(
        self, num_embeddings: int, embedding_dim: int, max_norm: float | None = None, norm_type: float = 2.0,
        scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False, *,
        include_last_offset: bool = False, padding_idx: int | None = None, dtype: Any = "float32",
    ) -> None:  # fmt: skip
        super().__init__(
            num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse,
            dtype=dtype,
        )  # fmt: skip
        self.mode, self.include_last_offset = mode, include_last_offset

    def forward(self, input: Any, offsets: Any = None, per_sample_weights: Any = None) -> Tensor:
        return F.embedding_bag(
            input, self.weight, offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.mode,
            self.sparse, per_sample_weights, self.include_last_offset, self.padding_idx,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, mode={self.mode!r}"
