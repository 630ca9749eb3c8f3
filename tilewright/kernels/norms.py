"""Normalisation along the last axis. Statistics are computed in float32 for half-precision operands."""

import tilewright as tw


@tw.op
def layer_norm(
    x: tw.Tile["... d"], weight: tw.Tile["d"] = None, bias: tw.Tile["d"] = None, *, eps: float = 1e-5
):
    """(x - mean(x)) / √(var(x) + eps) · weight + bias, along d; var divides by d (Ba et al., 2016)."""
    centred = x - tw.mean(x, "d")
    y = centred * tw.rsqrt(tw.mean(centred * centred, "d") + eps)
    if weight is not None:
        y = y * weight
    return y if bias is None else y + bias


@tw.op
def rms_norm(x: tw.Tile["... d"], weight: tw.Tile["d"] = None, *, eps: float = 1e-6):
    """x / √(mean(x²) + eps) · weight, along d (Zhang & Sennrich, 2019)."""
    y = x * tw.rsqrt(tw.mean(x * x, "d") + eps)
    return y if weight is None else y * weight
