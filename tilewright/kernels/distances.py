"""Lengths, distances and angles between points, along the axis d. The derivative of a length 0 is 0."""

import math

import tilewright as tw


def length(x, axis, p=2.0):
    """(Σ |x|ᵖ)^(1/p) along an axis; the largest |x| for p = ∞, how many are not 0 for p = 0."""
    size = tw.abs(x)
    if p == 1:
        return tw.sum(size, axis)
    if p == 2:
        return _root(tw.sum(x * x, axis), tw.sqrt)
    if p == 0:
        return tw.cast(tw.sum(x != 0, axis), x.dtype)
    if math.isinf(p):
        return tw.max(size, axis)
    return _root(tw.sum(size**p, axis), lambda total: total ** (1 / p))


def _root(total, root):
    return tw.where(total == 0, 0, root(total))


@tw.op
def cosine_similarity(x: tw.Tile["... d"], z: tw.Tile["... d"], *, eps: float = 1e-8):
    """Σ x · z / (max(‖x‖, eps) · max(‖z‖, eps)), along d."""
    lengths = tw.maximum(length(x, "d"), eps) * tw.maximum(length(z, "d"), eps)
    return tw.sum(x * z, "d") / lengths


@tw.op
def pairwise_distance(x: tw.Tile["... d"], z: tw.Tile["... d"], *, p: float = 2.0, eps: float = 1e-6):
    """‖x - z + eps‖ₚ, along d."""
    return length(x - z + eps, "d", p)


@tw.op
def cdist(x: tw.Tile["... i d"], z: tw.Tile["... j d"], *, p: float = 2.0):
    """‖x[i] - z[j]‖ₚ for all pairs of points, along d: differences first, so that near points keep digits."""
    return length(x - z, "d", p)


@tw.op
def distances_between(x: tw.Tile["n d"], first: tw.Tile["k"], second: tw.Tile["k"], *, p: float = 2.0):
    """‖x[first] - x[second]‖ₚ for each of k pairs of points, along d: `cdist` of the pairs that count."""
    return length(x.at(n=first) - x.at(n=second), "d", p)


@tw.op
def normalize(x: tw.Tile["... d"], *, p: float = 2.0, eps: float = 1e-12):
    """x / max(‖x‖ₚ, eps), along d."""
    return x / tw.maximum(length(x, "d", p), eps)
