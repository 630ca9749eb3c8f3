"""Attention."""

from __future__ import annotations

from typing import Any

from tilewright import kernels
from tilewright.errors import ShapeError
from tilewright.tensor import generator as generators
from tilewright.tensor.creation import beside
from tilewright.tensor.generator import Generator
from tilewright.tensor.tensor import Tensor


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False, *,
    window: int | None = None, softcap: float | None = None, slopes: Any = None, key_mask: Any = None,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """softmax(scale · q·kᵀ)·v: [… queries features], [… keys features] → [… queries features].

    `attn_mask` says which keys a query sees, or is added to the scores if it is floating-point. With
    `enable_gqa` the heads, dimension -3, of key and value each serve several of the query's. `window`,
    `softcap`, `slopes` and `key_mask` are those of `kernels.attention`, where a query that sees no key
    gives 0.
    """
    mask = None if attn_mask is None else _full(beside(attn_mask, query), query, key)
    heads = query.shape[:-2]
    if enable_gqa:
        query, key, value, mask = _grouped(query, key, value, mask)
    is_bias = mask is not None and mask.dtype.is_float
    result = kernels.attention(
        query, key, value, None if is_bias else mask, mask if is_bias else None, key_mask, slopes,
        generators.seed_from(generator) if dropout_p else None,
        causal=is_causal, window=window, scale=scale, softcap=softcap, dropout=float(dropout_p),
    )  # fmt: skip
    return result.reshape(*heads, *result.shape[-2:]) if enable_gqa else result


def _full(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """The mask of all queries and keys; one that lacks a dimension, or has 1 there, holds for all of it."""
    while mask.ndim < 2:
        mask = mask.unsqueeze(0)
    return mask.expand(*mask.shape[:-2], query.shape[-2], key.shape[-2])


def _grouped(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Any:
    """Heads as [groups, heads of a group], of which key and value have one each, as views."""
    heads, groups = query.shape[-3], key.shape[-3]
    if not groups or heads % groups:
        raise ShapeError(f"{heads} heads of queries cannot share {groups} heads of keys equally")
    if mask is not None and mask.ndim > 2:
        shared = 1 if mask.shape[-3] == 1 else groups
        mask = mask.reshape(*mask.shape[:-3], shared, mask.shape[-3] // shared, *mask.shape[-2:])
    query = query.reshape(*query.shape[:-3], groups, heads // groups, *query.shape[-2:])
    return query, key.unsqueeze(-3), value.unsqueeze(-3), mask


def alibi_slopes(heads: int) -> list[float]:
    """The slope of each head: 2^(-8 (h + 1) / heads) for a power of 2 (Press et al., 2022).

    For other numbers those of the power below, and every second one of the power above.
    """
    below = 1 << (heads.bit_length() - 1)
    slopes = [2 ** (-8 * (h + 1) / below) for h in range(below)]
    return slopes + [2 ** (-4 * (2 * h + 1) / below) for h in range(heads - below)]
