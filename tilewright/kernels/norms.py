"""Normalisation. Statistics are computed in float32 for half-precision operands.

Channels are the axis c, behind the samples n; s are the positions of a sample, all of them along one axis.
"""

import tilewright as tw
from tilewright.errors import ArgumentError


def standardized(x, mean, var, eps):
    """(x - mean) / √(var + eps)."""
    return (x - mean) * tw.rsqrt(var + eps)


def moments(x, axes):
    """The mean and the variance (which divides by the number of elements) along `axes`."""
    mean = tw.mean(x, axes)
    centred = x - mean
    return mean, tw.mean(centred * centred, axes)


def affine(y, weight, bias):
    """y · weight + bias, each where it is given."""
    if weight is not None:
        y = y * weight
    return y if bias is None else y + bias


@tw.op
def layer_norm(
    x: tw.Tile["... d"], weight: tw.Tile["d"] = None, bias: tw.Tile["d"] = None, *, eps: float = 1e-5
):
    """(x - mean(x)) / √(var(x) + eps) · weight + bias, along d; var divides by d (Ba et al., 2016)."""
    return affine(standardized(x, *moments(x, "d"), eps), weight, bias)


@tw.op
def rms_norm(x: tw.Tile["... d"], weight: tw.Tile["d"] = None, *, eps: float = 1e-6):
    """x / √(mean(x²) + eps) · weight, along d (Zhang & Sennrich, 2019)."""
    return affine(x * tw.rsqrt(tw.mean(x * x, "d") + eps), weight, None)


@tw.op
def batch_norm(
    x: tw.Tile["n c s"], running_mean: tw.Tile["c"] = None, running_var: tw.Tile["c"] = None,
    weight: tw.Tile["c"] = None, bias: tw.Tile["c"] = None, *,
    momentum: tw.Scalar = 0.1, training: bool = True, eps: float = 1e-5,
):  # fmt: skip
    """(x - μ) / √(σ² + eps) · weight + bias for each channel c (Ioffe & Szegedy, 2015).

    In training μ and σ² are those of x along n and s. With running statistics it gives (y, running_mean,
    running_var), running ← running + momentum · (this batch's - running), its variance dividing by
    size(n) size(s) - 1. Otherwise, μ and σ² are the running ones. y has the dtype of x.
    """
    return _of_channels(x, "n s", running_mean, running_var, weight, bias, momentum, training, eps)


@tw.op
def instance_norm(
    x: tw.Tile["n c s"], running_mean: tw.Tile["c"] = None, running_var: tw.Tile["c"] = None,
    weight: tw.Tile["c"] = None, bias: tw.Tile["c"] = None, *,
    momentum: tw.Scalar = 0.1, training: bool = True, eps: float = 1e-5,
):  # fmt: skip
    """`batch_norm` with the statistics of each sample alone, along s (Ulyanov et al., 2016).

    Running statistics take the mean over the samples.
    """
    return _of_channels(x, "s", running_mean, running_var, weight, bias, momentum, training, eps)


@tw.op
def group_norm(
    x: tw.Tile["... (groups c) s"], weight: tw.Tile["(groups c)"] = None, bias: tw.Tile["(groups c)"] = None,
    *, groups: int, eps: float = 1e-5,
) -> tw.Tile["... (groups c) s"]:  # fmt: skip
    """(x - μ) / √(σ² + eps) · weight + bias, μ and σ² of each group of channels (Wu & He, 2018)."""
    return affine(standardized(x, *moments(x, "c s"), eps), weight, bias)


def _of_channels(x, axes, running_mean, running_var, weight, bias, momentum, training, eps):
    if not training and (running_mean is None or running_var is None):
        raise ArgumentError("without training the running statistics are needed: running_mean, running_var")
    mean, var = moments(x, axes) if training else (running_mean, running_var)
    y = tw.cast(affine(standardized(x, mean, var, eps), weight, bias), x.dtype)
    if not training or running_mean is None:
        return y
    count = tw.cast(tw.size(axes), var.dtype)
    seen = (mean, running_mean), (var * (count / (count - 1)), running_var)
    return y, *(_moved(old, new, momentum) for new, old in seen)


def _moved(old, new, momentum):
    """A running statistic a step nearer to a batch's."""
    new = tw.mean(new, "n") if "n" in new.axes else new
    return tw.cast(old + momentum * (new - old), old.dtype)


@tw.op
def weight_norm(v: tw.Tile["o i"], g: tw.Tile["o"]):
    """g · v / √Σ v², along i (Salimans & Kingma, 2016)."""
    return v * (g * tw.rsqrt(tw.sum(v * v, "i")))


@tw.op
def power_iteration(weight: tw.Tile["o i"], u: tw.Tile["o"], *, eps: float = 1e-12):
    """(u, v) nearer to the singular vectors of the largest singular value: v ← Wᵀu / ‖·‖, u ← W v / ‖·‖."""
    v = _unit(tw.sum(weight * u, "o"), "i", eps)
    return _unit(tw.sum(weight * v, "i"), "o", eps), v


@tw.op
def spectral_norm(weight: tw.Tile["o i"], u: tw.Tile["o"], v: tw.Tile["i"]):
    """W / (uᵀ W v): W over its largest singular value, whose vectors are u and v (Miyato et al., 2018)."""
    return weight / tw.sum(tw.sum(weight * v, "i") * u, "o")


def _unit(x, axis, eps):
    return x / tw.maximum(tw.sqrt(tw.sum(x * x, axis)), eps)
