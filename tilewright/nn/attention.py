"""Attention as a module."""

from __future__ import annotations

from typing import Any

from tilewright import kernels
from tilewright.errors import ArgumentError
from tilewright.nn import functional as F
from tilewright.nn import init
from tilewright.nn.layers import Linear
from tilewright.nn.module import Module
from tilewright.nn.parameter import Parameter
from tilewright.tensor.creation import arange, beside, empty, full, zeros
from tilewright.tensor.generator import seed_from
from tilewright.tensor.joining import cat
from tilewright.tensor.tensor import Tensor


class MultiheadAttention(Module):
    """Attention of several heads of linear projections, put together by another one (Vaswani et al., 2017).

    query [queries batch embed_dim], key and value [keys batch …], with `batch_first` [batch queries …], or
    without a batch. Gives (result, weights): the weights of the keys, averaged over the heads or for each
    of them, None if they are not needed. Masks are true where a key is *not* seen, or are added to the
    scores. A query that sees no key gives the bias of the output alone (torch: NaN). With `add_bias_kv`
    there is one key more, `bias_k`, whose value is `bias_v`, with `add_zero_attn` another one of zeros; every
    query sees them.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
        add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
        vdim: int | None = None, batch_first: bool = False, dtype: Any = "float32",
    ) -> None:  # fmt: skip
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise ArgumentError(f"{embed_dim} features are not {num_heads} heads of equally many")
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        self.kdim, self.vdim = kdim or embed_dim, vdim or embed_dim
        self.dropout, self.batch_first, self.add_zero_attn = dropout, batch_first, add_zero_attn
        for name, shape in self._weights().items():
            self.register_parameter(name, None if shape is None else Parameter(empty(shape, dtype=dtype)))
        self.register_parameter(
            "in_proj_bias", Parameter(zeros(3 * embed_dim, dtype=dtype)) if bias else None
        )
        for name in ("bias_k", "bias_v"):
            row = Parameter(empty(1, 1, embed_dim, dtype=dtype)) if add_bias_kv else None
            self.register_parameter(name, row)
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, dtype=dtype)
        self.reset_parameters()

    def _weights(self) -> dict[str, tuple[int, int] | None]:
        """One weight for all three projections where they have equally many features, as torch has it."""
        size = self.embed_dim
        together = self.kdim == self.vdim == size
        apart = {"q_proj_weight": size, "k_proj_weight": self.kdim, "v_proj_weight": self.vdim}
        found: dict[str, tuple[int, int] | None] = {"in_proj_weight": (3 * size, size) if together else None}
        return found | {name: None if together else (size, inputs) for name, inputs in apart.items()}

    def reset_parameters(self) -> None:
        """Draw the initial values again."""
        for name in self._weights():
            if getattr(self, name) is not None:
                init.xavier_uniform_(getattr(self, name))
        self.out_proj.reset_parameters()
        for row in (self.bias_k, self.bias_v):
            if row is not None:
                init.xavier_normal_(row)
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                init.zeros_(bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Any = None,
        need_weights: bool = True, attn_mask: Any = None, average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        alone = query.ndim == 2
        if alone:
            query, key, value = (t.unsqueeze(0) for t in (query, key, value))
        elif not self.batch_first:
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))
        q, k, v = self._projected(query, key, value)
        seen, added = self._masks(key_padding_mask, attn_mask, q, k)
        q, k, v, seen, added, is_causal = self._with_further_keys(q, k, v, seen, added, is_causal)
        dropout = self.dropout if self.training else 0.0
        seed = seed_from(None) if dropout else None
        heads = kernels.attention(q, k, v, seen, added, seed=seed, causal=is_causal, dropout=dropout)
        result = self.out_proj(heads.transpose(1, 2).flatten(2))
        weights = None
        if need_weights:
            weights = kernels.attention_weights(q, k, seen, added, causal=is_causal)
            weights = weights.mean(1) if average_attn_weights else weights
        if alone:
            return result.squeeze(0), weights if weights is None else weights.squeeze(0)
        return result if self.batch_first else result.transpose(0, 1), weights

    def _projected(self, *inputs: Tensor) -> list[Tensor]:
        """query, key and value of each head: [batch heads position features]."""
        size = self.embed_dim
        rows = [slice(n * size, (n + 1) * size) for n in range(3)]
        apart = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        weights = apart if self.in_proj_weight is None else [self.in_proj_weight[r] for r in rows]
        biases = [None if self.in_proj_bias is None else self.in_proj_bias[r] for r in rows]
        projected = (F.linear(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=True))
        return [y.reshape(*y.shape[:2], self.num_heads, self.head_dim).transpose(1, 2) for y in projected]

    def _masks(self, padding: Any, given: Any, q: Tensor, k: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """What is seen (true), and what is added to the scores: [batch heads queries keys]."""
        shape = (*q.shape[:2], q.shape[2], k.shape[2])
        seen, added = None, None
        for mask, spread in ((padding, _of_keys), (given, self._of_scores)):
            if mask is None:
                continue
            mask = spread(beside(mask, q)).expand(*shape)
            if mask.dtype.is_float:
                added = mask if added is None else added + mask
            else:
                seen = ~mask if seen is None else seen & ~mask
        return seen, added

    def _with_further_keys(
        self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, added: Tensor | None, is_causal: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, bool]:
        """What is attended to with the keys that the module adds, which stand behind the others."""
        rows = []
        if self.bias_k is not None:
            rows.append([b.reshape(self.num_heads, 1, self.head_dim) for b in (self.bias_k, self.bias_v)])
        if self.add_zero_attn:
            rows.append([zeros(self.num_heads, 1, self.head_dim, dtype=k.dtype, device=k.device)] * 2)
        if not rows:
            return q, k, v, seen, added, is_causal
        if is_causal:  # by position, which further keys have none of
            queries, keys = (arange(x.shape[2], device=k.device) for x in (q, k))
            order = queries.unsqueeze(1) >= keys
            seen = order if seen is None else seen & order
        further = [[row.expand(k.shape[0], *row.shape) for row in side] for side in zip(*rows, strict=True)]
        masks = [
            None if m is None else _widened(m, value, len(rows)) for m, value in ((seen, True), (added, 0))
        ]
        return q, cat([k, *further[0]], 2), cat([v, *further[1]], 2), masks[0], masks[1], False

    def _of_scores(self, mask: Tensor) -> Tensor:
        """[queries keys] as it is, [batch · heads queries keys] with a dimension for each."""
        return mask if mask.ndim == 2 else mask.reshape(-1, self.num_heads, *mask.shape[1:])

    def extra_repr(self) -> str:
        return f"{self.embed_dim}, {self.num_heads}, dropout={self.dropout}, batch_first={self.batch_first}"


def _widened(mask: Tensor, value: Any, count: int) -> Tensor:
    """A mask of scores with columns of one value more."""
    columns = full((*mask.shape[:-1], count), value, dtype=mask.dtype, device=mask.device)
    return cat([mask, columns], -1)


def _of_keys(mask: Tensor) -> Tensor:
    """[batch keys] or [keys] as [batch 1 1 keys]."""
    return mask.reshape(-1, 1, 1, mask.shape[-1])
