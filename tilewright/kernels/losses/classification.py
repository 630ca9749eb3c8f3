"""Losses of scores for classes, along the last axis, and of scores for yes and no."""

import tilewright as tw
from tilewright.errors import DTypeError
from tilewright.kernels.activations import relu
from tilewright.kernels.linear import linear
from tilewright.kernels.losses.reduction import reduced
from tilewright.kernels.softmax import log_softmax


class Labels:
    """Targets as class numbers along c: which count, which are no class, and what stands at them."""

    def __init__(self, target, ignore_index):
        if not target.dtype.is_integer:
            raise DTypeError(
                f"target holds class numbers, so it is an integer array, not {target.dtype.name}"
            )
        label = tw.cast(target, tw.int64)
        self.hit = tw.index("c") == label
        self.counts = None if ignore_index is None else label != ignore_index
        self.known = (label >= 0) & (label < tw.size("c"))

    def pick(self, values):
        """values[…, target]; 0 where the target is no class."""
        return tw.sum(tw.where(self.hit, values, 0), "c")

    def share(self, weight):
        """The weight of each target's class, 1 without weights."""
        return 1 if weight is None else self.pick(weight)

    def checked(self, loss):
        """`loss`, 0 where the target is ignored and NaN where it is no class."""
        loss = tw.where(self.known, loss, tw.nan)
        return loss if self.counts is None else tw.where(self.counts, loss, 0)

    def reduced(self, loss, share, reduction):
        """`reduced`, but the mean divides by the sum of the shares of the targets that count."""
        if reduction != "mean":
            return reduced(loss, reduction)
        return tw.sum(loss) / tw.cast(tw.sum(tw.where(self.counts, share, 0)), loss.dtype)


@tw.op
def cross_entropy(
    logits: tw.Tile["... c"],
    target: tw.Tile["..."],
    weight: tw.Tile["c"] = None,
    *,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
):
    """-weight[target] · log softmax(logits)[target], along c; weights are 1 where they are not given.

    With label smoothing s: (1 - s) · that + s · mean(-weight · log softmax(logits)). `target` holds
    0 … c - 1.
    Targets equal to `ignore_index` count for nothing: their loss is 0, and the mean is over the other
    targets, each counted by its weight (NaN if there is none). Any other target that is no class gives NaN.
    Raises `DTypeError` for a floating target.
    """
    labels = Labels(target, ignore_index)
    total = tw.logsumexp(logits, "c")
    share = labels.share(weight)
    loss = share * (total - labels.pick(logits))
    if label_smoothing:
        spread = total - tw.mean(logits, "c") if weight is None else tw.mean(weight * (total - logits), "c")
        loss = (1 - label_smoothing) * loss + label_smoothing * spread
    return labels.reduced(labels.checked(loss), share, reduction)


@tw.op
def linear_cross_entropy(
    x: tw.Tile["... i"],
    linear_weight: tw.Tile["c i"],
    target: tw.Tile["..."],
    linear_bias: tw.Tile["c"] = None,
    weight: tw.Tile["c"] = None,
    *,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
):
    """`cross_entropy` of the logits x·linear_weightᵀ + linear_bias, as one op."""
    options = {"reduction": reduction, "label_smoothing": label_smoothing, "ignore_index": ignore_index}
    return cross_entropy(linear(x, linear_weight, linear_bias), target, weight, **options)


@tw.op
def soft_cross_entropy(
    logits: tw.Tile["... c"],
    target: tw.Tile["... c"],
    weight: tw.Tile["c"] = None,
    *,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
):
    """-Σ weight · target · log softmax(logits), along c: `cross_entropy` of targets that are distributions.

    With label smoothing s the target is (1 - s) · target + s / c. The mean divides by the number of targets.
    """
    wanted = target
    if label_smoothing:
        uniform = label_smoothing / tw.cast(tw.size("c"), logits.dtype.compute)
        wanted = (1 - label_smoothing) * target + uniform
    surprise = -log_softmax(logits) * wanted
    return reduced(tw.sum(surprise if weight is None else surprise * weight, "c"), reduction)


@tw.op
def nll(
    log_probs: tw.Tile["... c"],
    target: tw.Tile["..."],
    weight: tw.Tile["c"] = None,
    *,
    reduction: str = "mean",
    ignore_index: int = -100,
):
    """-weight[target] · log_probs[target], along c: `cross_entropy` of what is log-probabilities already."""
    labels = Labels(target, ignore_index)
    share = labels.share(weight)
    return labels.reduced(labels.checked(-share * labels.pick(log_probs)), share, reduction)


@tw.op
def softmax_focal(
    logits: tw.Tile["... c"],
    target: tw.Tile["..."],
    weight: tw.Tile["c"] = None,
    *,
    gamma: float = 2.0,
    reduction: str = "mean",
    ignore_index: int = -100,
):
    """-weight[target] · (1 - p)^gamma · log p, p = softmax(logits)[target] (Lin et al., 2017).

    Targets, weights and the mean as `cross_entropy` has them; gamma = 0 is `cross_entropy`.
    """
    labels = Labels(target, ignore_index)
    share = labels.share(weight)
    log_p = labels.pick(logits) - tw.logsumexp(logits, "c")
    loss = -share * (-tw.expm1(log_p)) ** gamma * log_p
    return labels.reduced(labels.checked(loss), share, reduction)


@tw.op
def sigmoid_focal(
    x: tw.Tile["..."],
    target: tw.Tile["..."],
    *,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
    reduction: str = "mean",
):
    """α(t) · (1 - p)^gamma · BCE(x, t), p = t σ(x) + (1 - t) (1 - σ(x)) (Lin et al., 2017).

    `target` lies in 0 … 1; α(t) = alpha · t + (1 - alpha) · (1 - t), 1 if alpha is None.
    """
    missed = target * tw.sigmoid(-x) + (1 - target) * tw.sigmoid(x)
    loss = missed**gamma * ((1 - target) * x + tw.softplus(-x))
    if alpha is not None:
        loss = (alpha * target + (1 - alpha) * (1 - target)) * loss
    return reduced(loss, reduction)


@tw.op
def multi_margin(
    x: tw.Tile["... c"],
    target: tw.Tile["..."],
    weight: tw.Tile["c"] = None,
    *,
    p: int = 1,
    margin: float = 1.0,
    reduction: str = "mean",
):
    """weight[target] · Σ_{i ≠ target} max(0, margin - x[target] + x[i])^p / c (Crammer & Singer, 2001).

    The mean divides by the number of targets. A target that is no class gives NaN, where torch raises. The
    derivative at the kink is 0.
    """
    labels = Labels(target, None)
    gap = relu(margin - labels.pick(x) + x)
    others = tw.where(labels.hit, 0, gap**p)
    return reduced(labels.checked(labels.share(weight) * tw.mean(others, "c")), reduction)


@tw.op
def multilabel_margin(x: tw.Tile["... c"], target: tw.Tile["... c"], *, reduction: str = "mean"):
    """Σ_{j, i} max(0, 1 - x[target[j]] + x[i]) / c over the targets j and all i that are no target.

    Targets are class numbers up to the first negative one; one beyond the classes gives NaN. The derivative
    at the kink is 0.
    """
    place = tw.index("c")
    length = tw.min(tw.where(target < 0, place, tw.size("c")), "c")
    wanted, counts = target["... j"], tw.index("j") < length
    is_target = tw.any(counts & (wanted == place), "j")
    gap = relu(1 - x.at(c=wanted, fill=tw.nan) + x)
    loss = tw.sum(tw.where(counts & ~is_target, gap, 0), "c j")
    return reduced(loss / tw.cast(tw.size("c"), loss.dtype), reduction)


@tw.op
def multilabel_soft_margin(
    x: tw.Tile["... c"], target: tw.Tile["... c"], weight: tw.Tile["c"] = None, *, reduction: str = "mean"
):
    """-weight · (target · log σ(x) + (1 - target) · log σ(-x)), averaged over c; `target` lies in 0 … 1."""
    loss = (1 - target) * x + tw.softplus(-x)
    return reduced(tw.mean(loss if weight is None else weight * loss, "c"), reduction)


@tw.op
def soft_margin(x: tw.Tile["..."], target: tw.Tile["..."], *, reduction: str = "mean"):
    """log(1 + exp(-target · x)), `target` being 1 or -1."""
    return reduced(tw.softplus(-target * x), reduction)


@tw.op
def hinge(x: tw.Tile["..."], target: tw.Tile["..."], *, margin: float = 1.0, reduction: str = "mean"):
    """max(0, margin - target · x), `target` being 1 or -1; the derivative at the kink is 0."""
    return reduced(relu(margin - target * x), reduction)


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
def bce(x: tw.Tile["..."], target: tw.Tile["..."], weight: tw.Tile["..."] = None, *, reduction: str = "mean"):
    """-weight · (target · log x + (1 - target) · log(1 - x)), x and target in 0 … 1.

    Logarithms are kept at -100 or above, as torch has it; where one is below, its derivative is 0 (torch
    gives a large number there). `bce_with_logits` needs no such bound.
    """
    positive, negative = tw.maximum(tw.log(x), -100), tw.maximum(tw.log1p(-x), -100)
    loss = -(target * positive + (1 - target) * negative)
    return reduced(loss if weight is None else loss * weight, reduction)
