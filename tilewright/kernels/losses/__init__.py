"""Losses."""

from tilewright.kernels.losses.classification import bce_with_logits, cross_entropy, huber, kl_div, l1, mse

__all__ = ["bce_with_logits", "cross_entropy", "huber", "kl_div", "l1", "mse"]
