"""How a loss becomes one number."""

import tilewright as tw
from tilewright.errors import ArgumentError


def reduced(loss, reduction):
    """The sum or mean of all elements of a loss, or the loss itself."""
    if reduction == "mean":
        return tw.mean(loss)
    if reduction == "sum":
        return tw.sum(loss)
    if reduction == "none":
        return loss
    raise ArgumentError(f'reduction is "mean", "sum" or "none", not {reduction!r}')


def weighted(loss, weight, reduction):
    """`reduced`, each element counted by its weight: the mean divides by the sum of the weights."""
    if weight is None:
        return reduced(loss, reduction)
    total = reduced(weight * loss, reduction)
    return total / tw.mean(weight) if reduction == "mean" else total
