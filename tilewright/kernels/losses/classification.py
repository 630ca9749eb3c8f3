"""Losses. `reduction` is "mean", "sum" or "none"; means and sums run over every element."""

import tilewright as tw
from tilewright.errors import ArgumentError, DTypeError


def reduced(loss, reduction):
    """The sum or mean of all elements of a loss, or the loss itself."""
    if reduction == "mean":
        return tw.mean(loss)
    if reduction == "sum":
        return tw.sum(loss)
    if reduction == "none":
        return loss
    raise ArgumentError(f'reduction is "mean", "sum" or "none", not {reduction!r}')


@tw.op
def cross_entropy(
    logits: tw.Tile["... c"],
    target: tw.Tile["..."],
    *,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
):
    """-log softmax(logits)[target], along c.

    With label smoothing s: (1 - s) · that + s · mean(-log softmax(logits)). `target` holds 0 … c - 1.
    Targets equal to `ignore_index` count for nothing: their loss is 0, and the mean is over the other targets
    (NaN if there is none). Any other target that is no class gives NaN. Raises `DTypeError` for a floating
    target.
    """
    if not target.dtype.is_integer:
        raise DTypeError(f"target holds class numbers, so it is an integer array, not {target.dtype.name}")
    label = tw.cast(target, tw.int64)
    counts = label != ignore_index
    total = tw.logsumexp(logits, "c")
    loss = total - tw.sum(tw.where(tw.index("c") == label, logits, 0), "c")
    if label_smoothing:
        loss = (1 - label_smoothing) * loss + label_smoothing * (total - tw.mean(logits, "c"))
    loss = tw.where((label >= 0) & (label < tw.size("c")), loss, tw.nan)
    loss = tw.where(counts, loss, 0)
    if reduction == "mean":
        return tw.sum(loss) / tw.cast(tw.sum(counts), loss.dtype)
    return reduced(loss, reduction)


@tw.op
def mse(x: tw.Tile["..."], target: tw.Tile["..."], *, reduction: str = "mean"):
    """(x - target)²."""
    return reduced(tw.square(x - target), reduction)


@tw.op
def l1(x: tw.Tile["..."], target: tw.Tile["..."], *, reduction: str = "mean"):
    """|x - target|; the derivative where they are equal is 0."""
    return reduced(tw.abs(x - target), reduction)


@tw.op
def huber(x: tw.Tile["..."], target: tw.Tile["..."], *, delta: float = 1.0, reduction: str = "mean"):
    """½ e² where |e| ≤ delta, else delta (|e| - ½ delta), with e = x - target (Huber, 1964)."""
    error = x - target
    size = tw.abs(error)
    return reduced(tw.where(size <= delta, 0.5 * error * error, delta * (size - 0.5 * delta)), reduction)


@tw.op
def bce_with_logits(
    x: tw.Tile["..."],
    target: tw.Tile["..."],
    weight: tw.Tile["..."] = None,
    pos_weight: tw.Tile["..."] = None,
    *,
    reduction: str = "mean",
):
    """-weight · (pos_weight · target · log σ(x) + (1 - target) · log(1 - σ(x))), stable for any x.

    `target` lies in 0 … 1; the weights broadcast against x and are 1 where they are not given.
    """
    positive = 1 if pos_weight is None else 1 + (pos_weight - 1) * target
    loss = (1 - target) * x + positive * tw.softplus(-x)
    return reduced(loss if weight is None else loss * weight, reduction)


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
