"""Losses. `reduction` is "mean", "sum" or "none"; means and sums run over every element."""

from tilewright.kernels.losses.alignment import ctc_emissions, ctc_label, ctc_start, ctc_total
from tilewright.kernels.losses.classification import (
    bce,
    bce_with_logits,
    cross_entropy,
    hinge,
    linear_cross_entropy,
    multi_margin,
    multilabel_margin,
    multilabel_soft_margin,
    nll,
    sigmoid_focal,
    soft_cross_entropy,
    soft_margin,
    softmax_focal,
)
from tilewright.kernels.losses.metric import cosine_embedding, hinge_embedding, margin_ranking, triplet_margin
from tilewright.kernels.losses.regression import gaussian_nll, huber, kl_div, l1, mse, poisson_nll, smooth_l1

__all__ = [
    "bce", "bce_with_logits", "cosine_embedding", "cross_entropy", "ctc_emissions", "ctc_label",
    "ctc_start", "ctc_total", "gaussian_nll", "hinge", "hinge_embedding", "huber", "kl_div", "l1",
    "linear_cross_entropy", "margin_ranking", "mse", "multi_margin", "multilabel_margin",
    "multilabel_soft_margin", "nll", "poisson_nll", "sigmoid_focal", "smooth_l1", "soft_cross_entropy",
    "soft_margin", "softmax_focal", "triplet_margin",
]  # fmt: skip
