"""Softmax and its logarithms, along the last axis.

The largest element is subtracted first, so no exponential overflows. A row that holds NaN or inf, or nothing
but -inf, gives NaN (`logsumexp` gives inf and -inf for the latter two).
"""

import tilewright as tw


@tw.op
def softmax(x: tw.Tile["... d"]):
    """exp(x) / Σ exp(x), along d."""
    e = tw.exp(x - tw.max(x, "d"))
    return e / tw.sum(e, "d")


@tw.op
def log_softmax(x: tw.Tile["... d"]):
    """x - log Σ exp(x), along d."""
    shifted = x - tw.max(x, "d")
    return shifted - tw.log(tw.sum(tw.exp(shifted), "d"))


@tw.op
def logsumexp(x: tw.Tile["... d"]):
    """log Σ exp(x), along d; -inf for an empty row."""
    return tw.logsumexp(x, "d")
