"""Attention, as the formula says it."""

import tilewright as tw


@tw.op
def attention(
    q: tw.Tile["... i d"],
    k: tw.Tile["... j d"],
    v: tw.Tile["... j e"],
    mask: tw.Tile["... i j"] = None,
    *,
    causal: bool = False,
    scale: float | None = None,
) -> tw.Tile["... i e"]:
    """softmax(scale · q·kᵀ)·v, the softmax along the keys j (Vaswani et al., 2017).

    `scale` is 1/√d unless given. A query i sees the keys where `mask` is true and, if `causal`, those with
    j ≤ i. A query that sees no key gives 0.
    """
    scores = tw.sum(q * k, "d")
    scores = scores * (tw.rsqrt(tw.cast(tw.size("d"), scores.dtype)) if scale is None else scale)
    if causal:
        scores = tw.where(tw.index("i") >= tw.index("j"), scores, -tw.inf)
    if mask is None:
        p = tw.exp(scores - tw.max(scores, "j"))
        return tw.sum(p / tw.sum(p, "j") * v, "j")
    scores = tw.where(mask, scores, -tw.inf)
    largest = tw.max(scores, "j")
    p = tw.exp(scores - tw.where(largest == -tw.inf, 0, largest))
    total = tw.sum(p, "j")
    return tw.sum(p / tw.where(total == 0, 1, total) * v, "j")
