"""Ops that the library does not hold, as a user would write them, and the operands that they are tried on.

None of them needs anything of the library but the language. The formulas are chosen to meet each other in
every way that the partitioner knows: rows, contractions, reductions across rows and of everything, several
results. `CASES` have derivatives; `EXACT_CASES` are of whole numbers, booleans and positions.
"""

from __future__ import annotations

import functools
import math

import numpy as np

import tilewright as tw
from tests.support.cases import FLOATS, Case, coin, labels, positive, probabilities
from tilewright import kernels

# --- norms and gates ---------------------------------------------------------------------------------------


@tw.op
def gated_rms_norm(x: tw.Tile["... d"], gate: tw.Tile["... d"], weight: tw.Tile["d"], *, eps: float = 1e-6):
    h = x * kernels.silu(gate)
    return h * tw.rsqrt(tw.mean(h * h, "d") + eps) * weight


@tw.op
def group_norm(x: tw.Tile["b g c s"], weight: tw.Tile["g c"], bias: tw.Tile["g c"]):
    centred = x - tw.mean(x, "c s")
    return centred * tw.rsqrt(tw.var(x, "c s") + 1e-5) * weight + bias


@tw.op
def batch_norm(x: tw.Tile["b c s"], weight: tw.Tile["c"], *, eps: float = 1e-5):
    mean, variance = tw.mean(x, "b s"), tw.var(x, "b s")
    return (x - mean) * tw.rsqrt(variance + eps) * weight, mean, variance


@tw.op
def residual_norm(x: tw.Tile["... d"], residual: tw.Tile["... d"], weight: tw.Tile["d"]):
    h = x + residual
    return kernels.rms_norm(h, weight), h


@tw.op
def reglu(x: tw.Tile["... d"], gate: tw.Tile["... d"]):
    return x * kernels.relu(gate)


@tw.op
def gated_linear(x: tw.Tile["... k"], up: tw.Tile["n k"], gate: tw.Tile["n k"]) -> tw.Tile["... n"]:
    return kernels.linear(x, up) * tw.sigmoid(kernels.linear(x, gate))


@tw.op
def weight_normalised(x: tw.Tile["... k"], direction: tw.Tile["n k"], length: tw.Tile["n"]):
    return tw.sum(x * direction, "k") * length * tw.rsqrt(tw.sum(direction * direction, "k"))


@tw.op
def standardised(x: tw.Tile["n d"]):
    """Each column to mean 0 and variance 1, then each row to length 1."""
    z = (x - tw.mean(x, "n")) / tw.sqrt(tw.var(x, "n") + 1e-3)
    return z / tw.sqrt(tw.sum(z * z, "d"))


# --- scores and attention ----------------------------------------------------------------------------------


@tw.op
def soft_capped_attention(
    q: tw.Tile["i d"], k: tw.Tile["j d"], v: tw.Tile["j e"], *, cap: float = 5.0, window: int = 3
):
    s = cap * tw.tanh(tw.sum(q * k, "d") / cap)
    near = (tw.index("i") >= tw.index("j")) & (tw.index("i") - tw.index("j") < window)
    p = kernels.softmax(tw.where(near, s, -1e30))
    return tw.sum(p * v, "j")


@tw.op
def biased_attention(q: tw.Tile["h i d"], k: tw.Tile["h j d"], v: tw.Tile["h j e"], slope: tw.Tile["h"]):
    """Attention with a bias that falls with the distance (ALiBi)."""
    distance = tw.abs(tw.cast(tw.index("i") - tw.index("j"), tw.float32))
    s = tw.sum(q * k, "d") - slope * distance
    p = tw.exp(s - tw.max(s, "j"))
    return tw.sum(p * v, "j") / tw.sum(p, "j")


@tw.op
def linear_attention(q: tw.Tile["i d"], k: tw.Tile["j d"], v: tw.Tile["j e"]):
    """(φ(q) Σ_j φ(k) v) / (φ(q) Σ_j φ(k)), φ = elu + 1: a chain of contractions."""
    q, k = kernels.elu(q) + 1, kernels.elu(k) + 1
    return tw.sum(q * tw.sum(k * v, "j"), "d") / tw.sum(q * tw.sum(k, "j"), "d")


@tw.op
def rotary(x: tw.Tile["... t d"], z: tw.Tile["... t d"], *, base: float = 100.0):
    position, number = tw.cast(tw.index("t"), x.dtype), tw.cast(tw.index("d"), x.dtype)
    angle = position * tw.exp(-number * math.log(base) / 8)
    return x * tw.cos(angle) - z * tw.sin(angle), x * tw.sin(angle) + z * tw.cos(angle)


# --- losses ------------------------------------------------------------------------------------------------


@tw.op
def focal(x: tw.Tile["... c"], target: tw.Tile["..."], *, gamma: float = 2.0):
    log_p = tw.sum(tw.where(tw.index("c") == target, kernels.log_softmax(x), 0), "c")
    return tw.mean(-((1 - tw.exp(log_p)) ** gamma) * log_p)


@tw.op
def info_nce(x: tw.Tile["i d"], z: tw.Tile["j d"], *, temperature: tw.Scalar = 0.5):
    x, z = x / tw.sqrt(tw.sum(x * x, "d")), z / tw.sqrt(tw.sum(z * z, "d"))
    s = tw.sum(x * z, "d") / temperature
    positive_pair = tw.sum(tw.where(tw.index("i") == tw.index("j"), s, 0), "j")
    return tw.mean(tw.logsumexp(s, "j") - positive_pair)


@tw.op
def symmetric_contrastive(x: tw.Tile["i d"], z: tw.Tile["j d"]):
    """Both directions: one reduction along each axis of the scores (CLIP)."""
    s = tw.sum(x * z, "d")
    hit = tw.where(tw.index("i") == tw.index("j"), s, 0)
    return tw.mean(tw.logsumexp(s, "j") - tw.sum(hit, "j")) + tw.mean(tw.logsumexp(s, "i") - tw.sum(hit, "i"))


@tw.op
def triplet(a: tw.Tile["n d"], p: tw.Tile["n d"], q: tw.Tile["n d"], *, margin: float = 0.3):
    near, far = tw.sqrt(tw.sum((a - p) ** 2, "d")), tw.sqrt(tw.sum((a - q) ** 2, "d"))
    return tw.mean(kernels.relu(near - far + margin))


@tw.op
def hinge(x: tw.Tile["n c"], target: tw.Tile["n"]):
    right = tw.sum(tw.where(tw.index("c") == target, x, 0), "c")
    others = tw.where(tw.index("c") == target, 0, kernels.relu(1 + x - right))
    return tw.sum(others, "c")


@tw.op
def jensen_shannon(p: tw.Tile["... c"], q: tw.Tile["... c"]):
    m = 0.5 * (p + q)
    return 0.5 * tw.sum(p * tw.log(p / m) + q * tw.log(q / m), "c")


@tw.op
def entropy_regularised(x: tw.Tile["n c"], target: tw.Tile["n"], *, beta: tw.Scalar):
    log_p = kernels.log_softmax(x)
    entropy = -tw.sum(tw.exp(log_p) * log_p, "c")
    return kernels.cross_entropy(x, target) - beta * tw.mean(entropy), tw.mean(entropy)


@tw.op
def poisson_nll(log_rate: tw.Tile["..."], count: tw.Tile["..."]):
    return tw.mean(tw.exp(log_rate) - count * log_rate + tw.lgamma(count + 1))


@tw.op
def gamma_nll(x: tw.Tile["n"], shape: tw.Tile["n"], rate: tw.Tile[""]):
    return tw.sum(tw.lgamma(shape) - shape * tw.log(rate) - (shape - 1) * tw.log(x) + rate * x)


@tw.op
def log_cosh(x: tw.Tile["..."], z: tw.Tile["..."]):
    error = x - z
    return tw.mean(tw.abs(error) + tw.log1p(tw.exp(-2 * tw.abs(error))) - math.log(2))


@tw.op
def quantile_huber(x: tw.Tile["b q"], z: tw.Tile["b r"], level: tw.Tile["q"]):
    error = z - x
    huber = tw.where(tw.abs(error) <= 1, 0.5 * error * error, tw.abs(error) - 0.5)
    return tw.mean(tw.sum(tw.mean(tw.abs(level - tw.where(error < 0, 1.0, 0.0)) * huber, "r"), "q"))


@tw.op
def mixture_log_likelihood(
    x: tw.Tile["n d"], mean: tw.Tile["k d"], scale: tw.Tile["k d"], logit: tw.Tile["k"]
):
    z = (x - mean) * tw.exp(-scale)
    density = -0.5 * tw.sum(z * z, "d") - tw.sum(scale, "d")
    return tw.sum(tw.logsumexp(density + kernels.log_softmax(logit), "k"))


@tw.op
def weighted_mean_squares(x: tw.Tile["n d"], z: tw.Tile["n d"], weight: tw.Tile["n"]):
    return tw.sum(weight * tw.mean((x - z) ** 2, "d")) / tw.sum(weight)


# --- products of every pattern -----------------------------------------------------------------------------


@tw.op
def gram(x: tw.Tile["i d"]):
    return tw.sum(x["j d"] * x, "d")


@tw.op
def covariance(x: tw.Tile["n d"]):
    centred = x - tw.mean(x, "n")
    return tw.sum(centred["n e"] * centred, "n") / (tw.cast(tw.size("n"), tw.float32) - 1)


@tw.op
def distances(x: tw.Tile["i d"], z: tw.Tile["j d"]):
    return tw.sqrt(tw.sum((x - z) ** 2, "d") + 1e-3)


@tw.op
def rbf_kernel_sums(x: tw.Tile["i d"], z: tw.Tile["j d"], weight: tw.Tile["j"]):
    squares = tw.sum(x * x, "d") + tw.sum(z * z, "d") - 2 * tw.sum(x * z, "d")
    return tw.sum(tw.exp(-0.5 * squares) * weight, "j")


@tw.op
def mahalanobis(x: tw.Tile["n i"], centre: tw.Tile["i"], precision: tw.Tile["i j"]):
    z = x - centre
    return tw.sum(z * precision * z["n j"], "i j")


@tw.op
def bilinear_scores(x: tw.Tile["b i d"], w: tw.Tile["d e"], z: tw.Tile["b j e"]):
    return tw.sum(x * w * z, "d e")


@tw.op
def batched_transposed(a: tw.Tile["b k m"], b: tw.Tile["b n k"]) -> tw.Tile["b n m"]:
    return tw.sum(a * b, "k")


@tw.op
def two_summed_axes(a: tw.Tile["k m l"], b: tw.Tile["l n k"]):
    return tw.sum(a * b, "k l")


@tw.op
def outer_sum(a: tw.Tile["m"], b: tw.Tile["n"], c: tw.Tile["m n"]):
    return a * b + c, tw.sum(a * b * c)


@tw.op
def chain(a: tw.Tile["i j"], b: tw.Tile["j k"], c: tw.Tile["k l"], d: tw.Tile["l"]):
    return tw.sum(a * b * c * d, "j k l")


@tw.op
def tucker(core: tw.Tile["p q r"], a: tw.Tile["i p"], b: tw.Tile["j q"], c: tw.Tile["k r"]):
    return tw.sum(core * a * b * c, "p q r")


@tw.op
def normalised_product(a: tw.Tile["m k"], b: tw.Tile["k n"]):
    """A prologue with a reduction along k on both sides, an epilogue with one along n."""
    left = kernels.softmax(a)
    right = b / tw.sqrt(tw.sum(b * b, "k"))
    y = tw.sum(left * right, "k")
    return y - tw.mean(y, "n")


@tw.op
def product_and_its_sums(a: tw.Tile["m k"], b: tw.Tile["k n"]):
    y = tw.tanh(tw.sum(a * b, "k"))
    return y, tw.sum(y, "n"), tw.max(y, "m"), tw.sum(y * y)


@tw.op
def same_operand_twice(x: tw.Tile["i j"]):
    return tw.sum(x * x["j i"], "j") + tw.sum(x["i i"])


@tw.op
def polynomial_features(x: tw.Tile["n d"], w: tw.Tile["d e"], v: tw.Tile["d"]):
    return tw.sum(x * w * x["n e"], "d e") + tw.sum(x**3 * v, "d") + tw.sum(v)


@tw.op
def cosine_similarity(x: tw.Tile["i d"], z: tw.Tile["j d"]):
    lengths = tw.sqrt(tw.sum(x * x, "d")) * tw.sqrt(tw.sum(z * z, "d"))
    return tw.sum(x * z, "d") / tw.maximum(lengths, 1e-6)


# --- reductions that meet ----------------------------------------------------------------------------------


@tw.op
def softmax_over_two_axes(x: tw.Tile["n i j"]):
    e = tw.exp(x - tw.max(x, "i j"))
    return e / tw.sum(e, "i j")


@tw.op
def rows_and_columns(x: tw.Tile["i j"]):
    return (x - tw.mean(x, "i")) * tw.sigmoid(x - tw.mean(x, "j")) + tw.mean(x)


@tw.op
def every_shape(x: tw.Tile["i j"], w: tw.Tile["j"]):
    """Results of every shape that the axes give, one of them constant along an axis."""
    y = tw.exp(-x * x) * w
    return y, tw.sum(y, "j"), tw.sum(y, "i"), tw.sum(y), tw.sum(w * w), w * 2


@tw.op
def row_value_across_rows(x: tw.Tile["i j"]):
    """A row's result feeds a sum across the rows, which every row reads."""
    length = tw.sqrt(tw.sum(x * x, "j"))
    total = tw.sum(length, "i")
    return x / total + length / (1 + total)


@tw.op
def column_of_softmax(x: tw.Tile["i j"], w: tw.Tile["i"]):
    p = kernels.softmax(x)
    return tw.sum(p * w, "i"), p


@tw.op
def sinkhorn_step(x: tw.Tile["i j"]):
    x = x - tw.logsumexp(x, "j")
    return tw.exp(x - tw.logsumexp(x, "i"))


@tw.op
def three_levels(x: tw.Tile["a b c"]):
    m = tw.max(x, "c")
    s = tw.sum(tw.exp(x - m), "c")
    t = tw.mean(tw.log(s) * m, "b")
    return x * t + tw.sum(t * t, "a"), s


@tw.op
def broadcast_results(x: tw.Tile["i"], z: tw.Tile["j"]) -> tuple[tw.Tile["i j"], tw.Tile["j i"]]:
    return tw.sum(x) + z * 1, tw.exp(x)


@tw.op
def unused_operand(x: tw.Tile["n d"], ignored: tw.Tile["n d"], also: tw.Tile["m"]):
    return tw.sum(x, "d") * tw.cast(tw.size("m"), tw.float32)


@tw.op
def products_of_rows(x: tw.Tile["n d"]):
    return tw.prod(x, "d"), tw.prod(x * 0.5 + 1)


@tw.op
def moments(x: tw.Tile["... d"]):
    mean = tw.mean(x, "d")
    z = x - mean
    m2, m3, m4 = tw.mean(z**2, "d"), tw.mean(z**3, "d"), tw.mean(z**4, "d")
    return mean, m2, m3 / m2**1.5, m4 / (m2 * m2) - 3


@tw.op
def range_scaled(x: tw.Tile["n d"]):
    low, high = tw.min(x, "d"), tw.max(x, "d")
    return (x - low) / (high - low + 0.1) - tw.max(tw.abs(x))


# --- scalar functions --------------------------------------------------------------------------------------


@tw.op
def polar(x: tw.Tile["..."], z: tw.Tile["..."]):
    return tw.sqrt(x * x + z * z), tw.atan2(z, x)


@tw.op
def power_mean(x: tw.Tile["n d"], p: tw.Tile["n"]):
    return tw.mean(x**p, "d") ** (1 / p)


@tw.op
def top_hat(x: tw.Tile["..."], *, width: float = 1.0):
    return tw.where((x > -width) & (x < width), 1 - (x / width) ** 2, 0) ** 2


@tw.op
def clipped_gradient_norm(x: tw.Tile["n d"], *, limit: tw.Scalar = 1.0):
    length = tw.sqrt(tw.sum(x * x))
    return x * tw.minimum(limit / (length + 1e-6), 1)


@tw.op
def beta_log_density(x: tw.Tile["n"], a: tw.Tile["n"], b: tw.Tile["n"]):
    return (
        tw.lgamma(a + b) - tw.lgamma(a) - tw.lgamma(b) + (a - 1) * tw.log(x) + (b - 1) * tw.log1p(-x)
        + tw.digamma(a) * 0.1
    )  # fmt: skip


@tw.op
def tempered(x: tw.Tile["... c"], *, temperature: tw.Scalar):
    return kernels.softmax(x / temperature)


@tw.op
def mixed_precision_linear(x: tw.Tile["... k"], weight: tw.Tile["n k"], scale: tw.Tile["n"]):
    return tw.sum(x * weight, "k") * scale


# --- whole numbers, booleans, positions --------------------------------------------------------------------


@tw.op
def accuracy(x: tw.Tile["n c"], target: tw.Tile["n"]):
    hit = tw.argmax(x, "c") == target
    return tw.mean(hit), tw.sum(hit), hit, tw.argmin(x, "c"), tw.argmax(x, "n")


@tw.op
def masks(x: tw.Tile["i j"], seen: tw.Tile["i j"]):
    large = (x > 0.5) & seen
    return (
        tw.any(large, "j"),
        tw.all(large | ~seen, "i"),
        tw.any(large),
        tw.all(seen ^ large),
        tw.sum(large, "j"),
    )


@tw.op
def statistics_of_integers(n: tw.Tile["i j"]):
    return tw.sum(n, "j"), tw.max(n, "j"), tw.min(n, "i"), tw.prod(n, "j"), tw.mean(n), tw.max(n), tw.sum(n)


@tw.op
def arithmetic_of_integers(n: tw.Tile["..."], m: tw.Tile["..."]):
    return n // m, n % m, n * m - n, n & m, n | m, n ^ m, ~n, tw.abs(n), tw.minimum(n, m), n > m


@tw.op
def shifts(n: tw.Tile["..."], by: tw.Tile["..."]):
    return n << by, n >> by, (n >> 1) & 1


@tw.op
def positions(x: tw.Tile["i j"]):
    """Parity, distance from the diagonal, a triangle and a flat position."""
    i, j = tw.index("i"), tw.index("j")
    flat = i * tw.size("j") + j
    return (
        tw.where((i + j) % 2 == 0, x, -x),
        tw.sum(tw.where(i >= j, x, 0), "j"),
        flat,
        tw.max(flat * (x > 0), "j"),
    )


@tw.op
def histogram(label: tw.Tile["n"], weight: tw.Tile["n"], bins: tw.Tile["b"]):
    """A contraction of a comparison: how much falls into each bin."""
    return tw.sum(tw.where(label == tw.index("b"), weight, 0), "n") + 0 * bins, tw.sum(
        label == tw.index("b"), "n"
    )


@tw.op
def first_above(x: tw.Tile["n d"], *, level: float = 0.5):
    """The first position along d whose value is above the level, d if there is none."""
    return tw.min(tw.where(x > level, tw.index("d"), tw.size("d")), "d")


@tw.op
def ranks(x: tw.Tile["n i"]):
    """How many elements of the row are smaller: a sum over a second axis of the same row."""
    return tw.sum(x["n j"] < x, "j")


@tw.op
def conversions(x: tw.Tile["n d"]):
    whole = tw.cast(x * 10, tw.int32)
    return (
        whole,
        tw.cast(whole, tw.int8),
        tw.floor(x),
        tw.ceil(x),
        tw.round(x),
        tw.trunc(x),
        tw.cast(x, tw.bool_),
    )


@tw.op
def extremes(x: tw.Tile["i j"]):
    """NaN must win everywhere."""
    return tw.max(x, "j"), tw.min(x, "i"), tw.max(x), tw.maximum(x, 0), tw.clip(x, -1, 1), tw.argmax(x, "j")


@tw.op
def classified(x: tw.Tile["i j"]):
    return tw.isnan(x), tw.isinf(x), tw.isfinite(x), tw.any(tw.isnan(x), "j"), tw.sum(tw.isfinite(x), "i")


def small(rng, shape):
    return rng.uniform(0.1, 0.9, shape)


def between(rng, shape):
    """Numbers that are no whole ones, by a quarter."""
    return rng.integers(-3, 3, shape) + rng.uniform(0.25, 0.75, shape)


def with_zeros(rng, shape):
    values = rng.uniform(-1.5, 1.5, shape)
    values.reshape(-1)[:: max(1, values.size // 3)] = 0
    return values


MATRIX = {"n": 5, "d": 7}
RAGGED = ({"n": 1, "d": 1}, {"n": 37, "d": 131}, {"d": 1027})
PLANE = {"i": 5, "j": 7}
PLANES = ({"i": 1, "j": 1}, {"i": 67, "j": 33}, {"i": 3, "j": 1100}, {"i": 900, "j": 2}, {"i": 0}, {"j": 0})
LABELS = {"target": np.int64}

CASES = [
    Case(gated_rms_norm, {"...": (3,), "d": 7}, more=({"...": (5,), "d": 130},)),
    Case(group_norm, {"b": 2, "g": 3, "c": 2, "s": 5}, more=({"b": 1, "g": 2, "c": 8, "s": 33},)),
    Case(batch_norm, {"b": 4, "c": 3, "s": 5}, more=({"b": 9, "c": 17, "s": 40}, {"b": 1, "c": 65, "s": 3})),
    Case(residual_norm, {"...": (2, 3), "d": 7}, more=({"...": (9,), "d": 65},)),
    Case(reglu, {"...": (3,), "d": 4}),
    Case(gated_linear, {"...": (3,), "k": 5, "n": 4}, heavy=True, more=({"...": (33,), "k": 40, "n": 35},)),
    Case(
        weight_normalised, {"...": (3,), "k": 5, "n": 4}, heavy=True, more=({"...": (17,), "k": 70, "n": 33},)
    ),
    Case(standardised, MATRIX, more=RAGGED[1:], tolerance=64),
    Case(soft_capped_attention, {"i": 6, "j": 6, "d": 4, "e": 3}),
    Case(biased_attention, {"h": 2, "i": 4, "j": 5, "d": 3, "e": 2}),
    Case(
        linear_attention,
        {"i": 5, "j": 6, "d": 4, "e": 3},
        heavy=True,
        more=({"i": 34, "j": 70, "d": 17, "e": 9},),
    ),
    Case(rotary, {"...": (2,), "t": 5, "d": 4}, more=({"t": 33, "d": 16},), tolerance=64),
    Case(focal, {"...": (2, 3), "c": 5}, draw={"target": labels(0, 5)}, dtypes=LABELS),
    Case(
        info_nce,
        {"i": 5, "j": 5, "d": 4},
        heavy=True,
        scalars={"temperature": 0.7},
        more=({"i": 33, "j": 33, "d": 20},),
    ),
    Case(symmetric_contrastive, {"i": 5, "j": 5, "d": 4}, heavy=True, more=({"i": 70, "j": 70, "d": 9},)),
    Case(triplet, MATRIX, more=({"n": 33, "d": 129},)),
    Case(hinge, {"n": 5, "c": 4}, draw={"target": labels(0, 4)}, dtypes=LABELS, more=({"n": 70, "c": 33},)),
    Case(jensen_shannon, {"...": (3,), "c": 5}, draw={"p": probabilities, "q": probabilities}),
    Case(
        entropy_regularised,
        {"n": 6, "c": 5},
        scalars={"beta": 0.1},
        draw={"target": labels(0, 5)},
        dtypes=LABELS,
    ),
    Case(poisson_nll, {"...": (3, 4)}, draw={"count": labels(0, 9)}),
    Case(gamma_nll, {"n": 7}, draw={"x": positive, "shape": positive, "rate": positive}, more=({"n": 1030},)),
    Case(log_cosh, {"...": (3, 4)}, more=({"...": (40, 1000)},)),
    Case(
        quantile_huber,
        {"b": 3, "q": 4, "r": 5},
        draw={"level": small, "x": labels(-3, 3), "z": between},
        more=({"b": 20, "q": 33, "r": 40},),
    ),
    Case(mixture_log_likelihood, {"n": 5, "k": 3, "d": 4}, heavy=True, more=({"n": 70, "k": 17, "d": 9},)),
    Case(weighted_mean_squares, MATRIX, draw={"weight": positive}, more=RAGGED),
    Case(gram, {"i": 5, "d": 7, "j": 5}, more=({"i": 65, "d": 1030}, {"i": 0}, {"d": 0})),
    Case(covariance, MATRIX, more=({"n": 70, "d": 33}, {"n": 1100, "d": 9})),
    Case(distances, {"i": 5, "j": 4, "d": 3}, more=({"i": 33, "j": 65, "d": 17}, {"d": 0}, {"i": 0})),
    Case(
        rbf_kernel_sums,
        {"i": 5, "j": 4, "d": 3},
        heavy=True,
        more=({"i": 33, "j": 65, "d": 17},),
        tolerance=64,
    ),
    Case(
        mahalanobis, {"n": 5, "i": 4, "j": 4}, heavy=True, more=({"n": 33, "i": 40, "j": 40},), tolerance=64
    ),
    Case(
        bilinear_scores,
        {"b": 2, "i": 3, "j": 4, "d": 5, "e": 2},
        heavy=True,
        more=({"i": 33, "j": 35, "d": 17, "e": 40},),
    ),
    Case(
        batched_transposed, {"b": 2, "k": 5, "m": 3, "n": 4}, more=({"k": 1300, "m": 33, "n": 20}, {"k": 0})
    ),
    Case(two_summed_axes, {"k": 3, "m": 4, "l": 5, "n": 2}, more=({"k": 40, "m": 33, "l": 35, "n": 17},)),
    Case(outer_sum, {"m": 5, "n": 4}, more=({"m": 70, "n": 300}, {"m": 0})),
    Case(
        chain,
        {"i": 3, "j": 4, "k": 5, "l": 2},
        heavy=True,
        more=({"i": 33, "j": 17, "k": 40, "l": 35},),
        tolerance=64,
    ),
    Case(tucker, {"p": 2, "q": 3, "r": 2, "i": 4, "j": 3, "k": 5}),
    Case(
        normalised_product,
        {"m": 5, "k": 6, "n": 4},
        heavy=True,
        more=({"m": 33, "k": 1100, "n": 40}, {"m": 1, "k": 1, "n": 1}),
    ),
    Case(
        product_and_its_sums,
        {"m": 5, "k": 6, "n": 4},
        more=({"m": 40, "k": 1100, "n": 70}, {"k": 0}, {"m": 0}),
        tolerance=512,
    ),
    Case(same_operand_twice, {"i": 5, "j": 5}, more=({"i": 40, "j": 40},)),
    Case(
        polynomial_features,
        {"n": 5, "d": 4, "e": 4},
        heavy=True,
        more=({"n": 33, "d": 20, "e": 20},),
        tolerance=64,
    ),
    Case(cosine_similarity, {"i": 5, "j": 4, "d": 3}, more=({"i": 33, "j": 40, "d": 65},)),
    Case(softmax_over_two_axes, {"n": 2, "i": 3, "j": 5}, more=({"n": 3, "i": 40, "j": 33}, {"n": 0})),
    Case(rows_and_columns, PLANE, more=PLANES[:4]),
    Case(every_shape, PLANE, more=PLANES),
    Case(row_value_across_rows, PLANE, more=PLANES[:5]),
    Case(column_of_softmax, PLANE, more=PLANES[:5]),
    Case(sinkhorn_step, PLANE, more=PLANES[:4]),
    Case(three_levels, {"a": 2, "b": 3, "c": 5}, more=({"a": 7, "b": 9, "c": 70}, {"a": 40, "b": 1, "c": 1})),
    Case(broadcast_results, PLANE, more=PLANES),
    Case(unused_operand, {"n": 3, "d": 4, "m": 5}, more=({"m": 0},)),
    Case(products_of_rows, {"n": 3, "d": 5}, draw={"x": with_zeros}),
    Case(moments, {"...": (3,), "d": 9}, more=({"...": (2,), "d": 1030},), tolerance=256),
    Case(range_scaled, MATRIX, more=RAGGED),
    Case(polar, {"...": (3, 4)}),
    Case(power_mean, MATRIX, draw={"x": positive, "p": positive}, more=RAGGED),
    Case(top_hat, {"...": (3, 5)}),
    Case(clipped_gradient_norm, MATRIX, scalars={"limit": 2.0}, more=({"n": 40, "d": 1000},)),
    Case(beta_log_density, {"n": 7}, draw={"x": small, "a": positive, "b": positive}, tolerance=64),
    Case(tempered, {"...": (3,), "c": 5}, scalars={"temperature": 0.3}),
    Case(mixed_precision_linear, {"...": (3,), "k": 5, "n": 4}),
    Case(
        mixed_precision_linear,
        {"...": (3,), "k": 5, "n": 4},
        dtypes={"x": FLOATS["bf16"], "weight": np.float32, "scale": np.float16},
        more=({"...": (33,), "k": 70, "n": 40},),
    ),
]

INTEGERS = {"n": labels(-9, 10), "m": labels(1, 7)}
exact = functools.partial(Case, differentiable=False)
EXACT_CASES = [
    exact(
        accuracy, {"n": 9, "c": 5}, draw={"target": labels(0, 5)}, dtypes=LABELS, more=({"n": 70, "c": 33},)
    ),
    exact(masks, PLANE, draw={"seen": coin}, dtypes={"seen": np.bool_}, more=PLANES),
    *(
        exact(statistics_of_integers, PLANE, draw={"n": labels(low, 4)}, dtypes={"n": dtype}, more=PLANES[:3])
        for dtype, low in ((np.int64, -3), (np.int32, -3), (np.int8, -3), (np.uint8, 0))
    ),
    *(
        exact(arithmetic_of_integers, {"...": (3, 37)}, draw=INTEGERS, dtypes={"n": dtype, "m": dtype})
        for dtype in (np.int64, np.int32, np.int16, np.int8)
    ),
    exact(
        arithmetic_of_integers,
        {"...": (3, 37)},
        draw={"n": labels(0, 250), "m": labels(1, 250)},
        dtypes={"n": np.uint8, "m": np.uint8},
    ),
    exact(
        arithmetic_of_integers,
        {"...": (3, 37)},
        draw={"n": labels(-128, 128), "m": labels(1, 256)},
        dtypes={"n": np.int8, "m": np.uint8},
    ),
    *(
        exact(
            shifts, {"...": (3, 37)}, draw={"n": labels(0, 100), "by": labels(0, 5)}, dtypes={"n": t, "by": t}
        )
        for t in (np.int32, np.uint8, np.int64)
    ),
    exact(positions, PLANE, more=PLANES),
    exact(
        histogram,
        {"n": 50, "b": 6},
        draw={"label": labels(0, 6)},
        dtypes={"label": np.int32},
        more=({"n": 3000},),
    ),
    exact(first_above, MATRIX, more=RAGGED),
    exact(ranks, {"n": 3, "i": 7, "j": 7}, more=({"n": 5, "i": 70, "j": 70},)),
    exact(conversions, MATRIX, more=RAGGED),
    exact(extremes, PLANE, more=PLANES),
    exact(classified, PLANE, more=PLANES),
]


def case_of(name: str) -> Case:
    """The first case of the op of that name."""
    return next(case for case in (*CASES, *EXACT_CASES) if case.op.name == name)
