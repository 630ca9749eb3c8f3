"""Losses. `reduction` is "mean", "sum" or "none"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tilewright import kernels
from tilewright.errors import ArgumentError, ShapeError
from tilewright.tensor.creation import beside
from tilewright.tensor.tensor import Tensor


def cross_entropy(
    input: Tensor, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """-weight[target] · log softmax(input)[target]; classes are dimension 1 (0 of a vector).

    Targets are class numbers, or distributions in the shape of the input.
    """
    target = beside(target, input)
    options = {"reduction": reduction, "label_smoothing": label_smoothing}
    if target.dtype.is_float and target.shape == input.shape:
        return kernels.soft_cross_entropy(_classes_last(input), _classes_last(target), weight, **options)
    return kernels.cross_entropy(_classes_last(input), target, weight, ignore_index=ignore_index, **options)


def nll_loss(
    input: Tensor, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """-weight[target] · input[target], for an input of log-probabilities."""
    return kernels.nll(_classes_last(input), target, weight, ignore_index=ignore_index, reduction=reduction)


def _classes_last(input: Tensor) -> Tensor:
    return input if input.ndim <= 2 else input.permute(0, *range(2, input.ndim), 1)


def mse_loss(input: Any, target: Any, reduction: str = "mean", weight: Any = None) -> Tensor:
    """weight · (x - target)²; the mean divides by the sum of the weights, which broadcast."""
    return kernels.mse(input, target, weight, reduction=reduction)


def l1_loss(input: Any, target: Any, reduction: str = "mean", weight: Any = None) -> Tensor:
    """weight · |x - target|; the mean divides by the sum of the weights, which broadcast."""
    return kernels.l1(input, target, weight, reduction=reduction)


def huber_loss(
    input: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None
) -> Tensor:
    """weight · (½ e² where |e| ≤ delta, else delta (|e| - ½ delta)), with e = x - target.

    Weights broadcast; the mean divides by the number of elements, as torch's does here.
    """
    return kernels.huber(input, target, weight, reduction=reduction, delta=delta)


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Tensor:
    """-(target · log σ(x) + (1 - target) · log(1 - σ(x)))."""
    return kernels.bce_with_logits(input, target, weight, pos_weight, reduction=reduction)


def kl_div(input: Any, target: Any, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target · (log target - x), for x = log of the other distribution; "batchmean" divides by the first
    dimension.
    """
    if reduction != "batchmean":
        return kernels.kl_div(input, target, reduction=reduction, log_target=log_target)
    if not input.ndim:
        raise ArgumentError('kl_div: "batchmean" divides by the first dimension, and a number has none')
    return kernels.kl_div(input, target, reduction="sum", log_target=log_target) / input.shape[0]


def smooth_l1_loss(input: Any, target: Any, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """½ e² / beta where |e| < beta, else |e| - ½ beta, with e = x - target."""
    return kernels.smooth_l1(input, target, reduction=reduction, beta=float(beta))


def gaussian_nll_loss(
    input: Tensor, target: Any, var: Tensor, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Tensor:
    """½ (log var + (x - target)² / var); one variance an element, or one for each row."""
    if var.ndim == input.ndim - 1 and var.shape == input.shape[:-1]:
        var = var.unsqueeze(-1)
    return kernels.gaussian_nll(input, target, var, full=full, eps=eps, reduction=reduction)


def poisson_nll_loss(
    input: Any, target: Any, log_input: bool = True, full: bool = False, eps: float = 1e-8,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """eˣ - target · x, or x - target · log(x + eps) for an input that is no logarithm."""
    return kernels.poisson_nll(input, target, log_input=log_input, full=full, eps=eps, reduction=reduction)


def binary_cross_entropy(input: Any, target: Any, weight: Any = None, reduction: str = "mean") -> Tensor:
    """-weight · (target · log x + (1 - target) · log(1 - x))."""
    return kernels.bce(input, target, weight, reduction=reduction)


def soft_margin_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """log(1 + exp(-target · x)), `target` being 1 or -1."""
    return kernels.soft_margin(input, target, reduction=reduction)


def hinge_embedding_loss(input: Any, target: Any, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """x where target is 1, max(0, margin - x) where it is -1."""
    return kernels.hinge_embedding(input, target, margin=float(margin), reduction=reduction)


def margin_ranking_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """max(0, margin - target · (x - z))."""
    return kernels.margin_ranking(input1, input2, target, margin=float(margin), reduction=reduction)


def cosine_embedding_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """1 - cos(x, z) where target is 1, max(0, cos(x, z) - margin) where it is -1."""
    return kernels.cosine_embedding(input1, input2, target, margin=float(margin), reduction=reduction)


def triplet_margin_loss(
    anchor: Any, positive: Any, negative: Any, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6,
    swap: bool = False, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """max(0, ‖a - p‖ - ‖a - n‖ + margin)."""
    return kernels.triplet_margin(
        anchor, positive, negative, margin=float(margin), p=float(p), eps=eps, swap=swap, reduction=reduction
    )


def triplet_margin_with_distance_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, *,
    distance_function: Callable[[Any, Any], Tensor] | None = None, margin: float = 1.0, swap: bool = False,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """max(0, d(a, p) - d(a, n) + margin), d being `pairwise_distance` unless given.

    `swap` takes the nearer of d(a, n) and d(p, n).
    """
    distance = kernels.pairwise_distance if distance_function is None else distance_function
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = far.minimum(distance(positive, negative))
    return kernels.margin_ranking(far, near, beside(1, near), margin=float(margin), reduction=reduction)


def linear_cross_entropy(
    input: Tensor, linear_weight: Tensor, target: Any, *, linear_bias: Any = None, weight: Any = None,
    reduction: str = "mean", ignore_index: int | None = None, label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """`cross_entropy` of `linear(input, linear_weight, linear_bias)` as one op: [n in], [classes in], [n].

    Targets are class numbers, or distributions [n classes].
    """
    target, shape = beside(target, input), (*input.shape[:-1], linear_weight.shape[0])
    if linear_weight.ndim != 2 or input.ndim not in (1, 2):
        raise ShapeError(
            f"linear_cross_entropy needs [n in] or [in] and weights [classes in]; got {input.shape} and "
            f"{linear_weight.shape}"
        )
    options = {"reduction": reduction, "label_smoothing": label_smoothing}
    if target.dtype.is_float and target.shape == shape:
        if ignore_index is not None:
            raise ArgumentError("linear_cross_entropy: ignore_index is for targets that are class numbers")
        logits = kernels.linear(input, linear_weight, linear_bias)
        return kernels.soft_cross_entropy(logits, target, weight, **options)
    ignored = -100 if ignore_index is None else ignore_index
    return kernels.linear_cross_entropy(
        input, linear_weight, target, linear_bias, weight, ignore_index=ignored, **options
    )


def multi_margin_loss(
    input: Any, target: Any, p: int = 1, margin: float = 1.0, weight: Any = None, reduction: str = "mean"
) -> Tensor:
    """weight[target] · Σ_{i ≠ target} max(0, margin - x[target] + x[i])^p / classes."""
    return kernels.multi_margin(input, target, weight, p=p, margin=float(margin), reduction=reduction)


def multilabel_margin_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """Σ max(0, 1 - x[target[j]] + x[i]) / classes; the targets of a row end at its first negative one."""
    return kernels.multilabel_margin(input, target, reduction=reduction)


def multilabel_soft_margin_loss(
    input: Any, target: Any, weight: Any = None, reduction: str = "mean"
) -> Tensor:
    """-weight · (target · log σ(x) + (1 - target) · log σ(-x)), averaged over the classes."""
    return kernels.multilabel_soft_margin(input, target, weight, reduction=reduction)
