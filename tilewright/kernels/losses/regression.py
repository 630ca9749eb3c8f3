"""Losses of values and of distributions."""

import math

import tilewright as tw
from tilewright.kernels.losses.reduction import reduced, weighted


@tw.op
def mse(x: tw.Tile["..."], target: tw.Tile["..."], weight: tw.Tile["..."] = None, *, reduction: str = "mean"):
    """weight · (x - target)²; weights broadcast, and the mean divides by their sum."""
    return weighted(tw.square(x - target), weight, reduction)


@tw.op
def l1(x: tw.Tile["..."], target: tw.Tile["..."], weight: tw.Tile["..."] = None, *, reduction: str = "mean"):
    """weight · |x - target|; weights as `mse` has them. The derivative where they are equal is 0."""
    return weighted(tw.abs(x - target), weight, reduction)


@tw.op
def huber(
    x: tw.Tile["..."],
    target: tw.Tile["..."],
    weight: tw.Tile["..."] = None,
    *,
    delta: float = 1.0,
    reduction: str = "mean",
):
    """weight · (½ e² where |e| ≤ delta, else delta (|e| - ½ delta)), with e = x - target (Huber, 1964).

    Weights broadcast. The mean is over the elements, whatever they weigh, as torch has it for this loss.
    """
    error = x - target
    size = tw.abs(error)
    loss = tw.where(size <= delta, 0.5 * error * error, delta * (size - 0.5 * delta))
    return reduced(loss if weight is None else weight * loss, reduction)


@tw.op
def smooth_l1(x: tw.Tile["..."], target: tw.Tile["..."], *, beta: float = 1.0, reduction: str = "mean"):
    """½ e² / beta where |e| < beta, else |e| - ½ beta, with e = x - target (Girshick, 2015).

    With beta = 0 it is `l1`.
    """
    error = tw.abs(x - target)
    if not beta:
        return reduced(error, reduction)
    return reduced(tw.where(error < beta, 0.5 * error * error / beta, error - 0.5 * beta), reduction)


@tw.op
def gaussian_nll(
    x: tw.Tile["..."],
    target: tw.Tile["..."],
    var: tw.Tile["..."],
    *,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
):
    """½ (log v + (x - target)² / v), v = max(var, eps); with `full` also ½ log 2π (Nix & Weigend, 1994).

    `var` broadcasts against x. Below eps the derivative by var is 0; torch passes that by v on, and refuses a
    negative var.
    """
    variance = tw.where(var < eps, eps, var)
    loss = 0.5 * (tw.log(variance) + tw.square(x - target) / variance)
    return reduced(loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)


@tw.op
def poisson_nll(
    x: tw.Tile["..."],
    target: tw.Tile["..."],
    *,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
):
    """eˣ - target · x, or with `log_input=False` x - target · log(x + eps).

    `full` adds Stirling's log target! ≈ target · log target - target + ½ log(2π target) where target > 1.
    """
    loss = tw.exp(x) - target * x if log_input else x - target * tw.log(x + eps)
    if full:
        count = tw.cast(tw.where(target > 1, target, 1), x.dtype.compute)
        stirling = count * tw.log(count) - count + 0.5 * tw.log(2 * math.pi * count)
        loss = loss + tw.where(target > 1, stirling, 0)
    return reduced(loss, reduction)


@tw.op
def kl_div(
    log_input: tw.Tile["... c"],
    target: tw.Tile["... c"],
    *,
    reduction: str = "mean",
    log_target: bool = False,
):
    """target · (log target - log_input), 0 · log 0 = 0; with `log_target`, target is given as its logarithm.

    Distributions lie along c, the first one as logarithms. The reduction "batchmean" is the divergence
    itself: the sum along c, averaged over the distributions; "mean" divides by c as well.
    """
    if log_target:
        loss = tw.exp(target) * (target - log_input)
    else:
        loss = tw.where(target == 0, 0, target * tw.log(target)) - target * log_input
    if reduction == "batchmean":
        return tw.mean(tw.sum(loss, "c"))
    return reduced(loss, reduction)
