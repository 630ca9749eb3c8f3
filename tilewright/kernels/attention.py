"""Attention, as the formula says it."""

import tilewright as tw
from tilewright.errors import ArgumentError
from tilewright.kernels.dropout import dropped


@tw.op
def attention(
    q: tw.Tile["... i d"], k: tw.Tile["... j d"], v: tw.Tile["... j e"], mask: tw.Tile["... i j"] = None,
    bias: tw.Tile["... i j"] = None, key_mask: tw.Tile["... j"] = None, slopes: tw.Tile["..."] = None,
    seed: tw.Tile[""] = None, *,
    causal: bool = False, window: int | None = None, scale: float | None = None,
    softcap: float | None = None, dropout: float = 0.0,
) -> tw.Tile["... i e"]:  # fmt: skip
    """softmax(s)·v, the softmax along the keys j, s = scale · q·kᵀ (Vaswani et al., 2017).

    `scale` is 1/√d unless given. In this order: `softcap` makes s cap · tanh(s / cap), `bias` is added, and
    `slopes` (one for each head, that is batch axis) take slope · |i - j| away (Press et al., 2022).
    A query i sees the keys j where `mask` and `key_mask` are true, if `causal` those with j ≤ i, with a
    `window` those with |i - j| < window. A query that sees no key gives 0.
    `dropout` is the probability with which each weight of the sum becomes 0, by `seed`, the others growing.
    """
    scores = _scores(q, k, bias, slopes, scale, softcap)
    seen = _seen(mask, key_mask, causal, window)
    p = _softmax(scores, seen, every_query_sees=causal and mask is key_mask is window is None)
    if dropout:
        if seed is None:
            raise ArgumentError("attention with dropout draws random numbers: pass seed")
        p = dropped(p, seed, dropout, "... i j")
    return tw.sum(p * v, "j")


@tw.op
def attention_weights(
    q: tw.Tile["... i d"], k: tw.Tile["... j d"], mask: tw.Tile["... i j"] = None,
    bias: tw.Tile["... i j"] = None, key_mask: tw.Tile["... j"] = None, slopes: tw.Tile["..."] = None, *,
    causal: bool = False, window: int | None = None, scale: float | None = None,
    softcap: float | None = None,
) -> tw.Tile["... i j"]:  # fmt: skip
    """The weights of the values in `attention`, which has the same options."""
    scores = _scores(q, k, bias, slopes, scale, softcap)
    seen = _seen(mask, key_mask, causal, window)
    return _softmax(scores, seen, every_query_sees=causal and mask is key_mask is window is None)


def _scores(q, k, bias, slopes, scale, softcap):
    scores = tw.sum(q * k, "d")
    scores = scores * (tw.rsqrt(tw.cast(tw.size("d"), scores.dtype)) if scale is None else scale)
    if softcap is not None:
        scores = softcap * tw.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias
    if slopes is not None:
        apart = tw.abs(tw.index("i") - tw.index("j"))
        scores = scores - slopes * tw.cast(apart, scores.dtype)
    return scores


def _seen(mask, key_mask, causal, window):
    """The conditions under which the query i sees the key j, the positions' before the operands'."""
    i, j = tw.index("i"), tw.index("j")
    conditions = []
    if causal:
        conditions.append(i >= j)
    if window is not None:
        conditions.append((i - j < window) & (j - i < window))
    return [*conditions, *(m for m in (mask, key_mask) if m is not None)]


def _softmax(scores, seen, every_query_sees):
    for condition in seen:
        scores = tw.where(condition, scores, -tw.inf)
    largest = tw.max(scores, "j")
    if not seen or every_query_sees:
        p = tw.exp(scores - largest)
        return p / tw.sum(p, "j")
    p = tw.exp(scores - tw.where(largest == -tw.inf, 0, largest))
    total = tw.sum(p, "j")
    return p / tw.where(total == 0, 1, total)
