"""Losses of distances: which of several points are near each other. The derivative at a kink is 0."""

import tilewright as tw
from tilewright.kernels.activations import relu
from tilewright.kernels.distances import pairwise_distance
from tilewright.kernels.losses.reduction import reduced

TINY = 1e-12


@tw.op
def triplet_margin(
    anchor: tw.Tile["... d"],
    positive: tw.Tile["... d"],
    negative: tw.Tile["... d"],
    *,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
):
    """max(0, ‖a - p‖ - ‖a - n‖ + margin), norms of order p along d; each difference has eps added to it.

    `swap` takes the nearer of ‖a - n‖ and ‖p - n‖ (Balntas et al., 2016).
    """
    near, far = (pairwise_distance(anchor, other, p=p, eps=eps) for other in (positive, negative))
    if swap:
        far = tw.minimum(far, pairwise_distance(positive, negative, p=p, eps=eps))
    return reduced(relu(near - far + margin), reduction)


@tw.op
def cosine_embedding(
    x: tw.Tile["... d"],
    z: tw.Tile["... d"],
    target: tw.Tile["..."],
    *,
    margin: float = 0.0,
    reduction: str = "mean",
):
    """1 - cos(x, z) where target is 1, max(0, cos(x, z) - margin) where it is -1, along d."""
    lengths = (tw.sum(x * x, "d") + TINY) * (tw.sum(z * z, "d") + TINY)
    cosine = tw.sum(x * z, "d") * tw.rsqrt(lengths)
    return reduced(
        tw.where(target == 1, 1 - cosine, tw.where(target == -1, relu(cosine - margin), 0)), reduction
    )


@tw.op
def margin_ranking(
    x: tw.Tile["..."],
    z: tw.Tile["..."],
    target: tw.Tile["..."],
    *,
    margin: float = 0.0,
    reduction: str = "mean",
):
    """max(0, margin - target · (x - z)): x should rank higher where target is 1, lower where it is -1."""
    return reduced(relu(margin - target * (x - z)), reduction)


@tw.op
def hinge_embedding(
    x: tw.Tile["..."], target: tw.Tile["..."], *, margin: float = 1.0, reduction: str = "mean"
):
    """x where target is 1, max(0, margin - x) where it is -1."""
    return reduced(tw.where(target == 1, x, 0) + tw.where(target == -1, relu(margin - x), 0), reduction)
