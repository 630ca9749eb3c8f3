"""Softmax and its logarithms, along the last axis, of x as it is or, with `dtype`, first cast to that.

The largest element is subtracted first, so no exponential overflows. A row that holds NaN or inf, or nothing
but -inf, gives NaN (`logsumexp` gives inf and -inf for the latter two).
"""

from typing import Any

import tilewright as tw


def _as(x, dtype):
    return x if dtype is None else tw.cast(x, dtype)


@tw.op
def softmax(x: tw.Tile["... d"], *, dtype: Any = None):
    """exp(x) / Σ exp(x), along d."""
    x = _as(x, dtype)
    e = tw.exp(x - tw.max(x, "d"))
    return _as(e / tw.sum(e, "d"), dtype)


@tw.op
def log_softmax(x: tw.Tile["... d"], *, dtype: Any = None):
    """x - log Σ exp(x), along d."""
    x = _as(x, dtype)
    shifted = x - tw.max(x, "d")
    return _as(shifted - tw.log(tw.sum(tw.exp(shifted), "d")), dtype)


@tw.op
def logsumexp(x: tw.Tile["... d"]):
    """log Σ exp(x), along d; -inf for an empty row."""
    return tw.logsumexp(x, "d")


@tw.op
def softmin(x: tw.Tile["... d"], *, dtype: Any = None):
    """exp(-x) / Σ exp(-x), along d."""
    return softmax(-x, dtype=dtype)


@tw.op
def gumbel_softmax(x: tw.Tile["... d"], seed: tw.Tile[""], *, tau: float = 1.0):
    """softmax((x + g) / tau) along d, g drawn from Gumbel's distribution (Jang et al., 2017).

    g = -log(-log u) for u uniform in (0, 1), so that the largest element is a draw from softmax(x).
    """
    dtype = x.dtype.compute
    u = tw.maximum(tw.rand(seed, "... d", dtype=dtype), dtype.epsilon / 4)
    return softmax((x - tw.log(-tw.log(u))) / tau)
