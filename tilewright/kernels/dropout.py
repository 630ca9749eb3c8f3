"""Dropout: positions, or whole channels, replaced at random while a network is trained.

What is dropped is a function of the seed and the position alone: the backward draws it again, and no mask is
ever stored. `p`, the probability of being dropped, is compiled in.
"""

import math

import tilewright as tw
from tilewright.errors import ArgumentError
from tilewright.kernels.activations import SELU_ALPHA, SELU_SCALE


def dropped(x, seed, p, axes):
    """x / (1 - p) with probability 1 - p, else 0; one decision for each position along `axes`."""
    checked(p)
    scale = 1 / (1 - p) if p < 1 else 0.0
    return tw.where(tw.bernoulli(seed, 1 - p, axes), x * scale, 0)


def checked(p):
    if not 0 <= p <= 1:
        raise ArgumentError(f"p is the probability of being dropped, between 0 and 1; got {p}")


@tw.op
def dropout(x: tw.Tile["..."], seed: tw.Tile[""], *, p: float = 0.5):
    """x / (1 - p) with probability 1 - p, else 0, so that the mean stays (Srivastava et al., 2014)."""
    return dropped(x, seed, p, "...")


@tw.op
def dropout1d(x: tw.Tile["... c l"], seed: tw.Tile[""], *, p: float = 0.5):
    """Dropout of whole channels c of sequences (Tompson et al., 2015)."""
    return dropped(x, seed, p, "... c")


@tw.op
def dropout2d(x: tw.Tile["... c h w"], seed: tw.Tile[""], *, p: float = 0.5):
    """Dropout of whole channels c of images (Tompson et al., 2015)."""
    return dropped(x, seed, p, "... c")


@tw.op
def dropout3d(x: tw.Tile["... c d h w"], seed: tw.Tile[""], *, p: float = 0.5):
    """Dropout of whole channels c of volumes (Tompson et al., 2015)."""
    return dropped(x, seed, p, "... c")


ALPHA = -SELU_SCALE * SELU_ALPHA
"""What the activation selu tends to for large negative arguments."""


@tw.op
def alpha_dropout(x: tw.Tile["..."], seed: tw.Tile[""], *, p: float = 0.5):
    """a · (x with probability 1 - p, else α) + b, for activations that normalise themselves; 0 for p = 1.

    α is selu's limit, and a = ((1 - p) (1 + p α²))^-½, b = -a α p keep mean 0 and variance 1
    (Klambauer et al., 2017).
    """
    return _saturated(x, seed, p, "...")


@tw.op
def feature_alpha_dropout(x: tw.Tile["... c s"], seed: tw.Tile[""], *, p: float = 0.5):
    """`alpha_dropout` of whole channels c, each with all its positions s."""
    return _saturated(x, seed, p, "... c")


def _saturated(x, seed, p, axes):
    checked(p)
    a = 1 / math.sqrt((1 - p) * (1 + p * ALPHA**2)) if p < 1 else 0.0
    return a * tw.where(tw.bernoulli(seed, 1 - p, axes), x, ALPHA) - a * ALPHA * p
