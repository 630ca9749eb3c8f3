"""Small programs whose derivatives are tested: an op as a function, and the operands it is tried on.

A case is a function whose annotations name the axes, and the extents of the axes. Operands are drawn in
float64 from a normal distribution, or as `draw` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tilewright.dsl import language as tw
from tilewright.dsl.axes import Scalar, Tile
from tilewright.dsl.dtypes import DType, float64, int64
from tilewright.dsl.program import Program
from tilewright.dsl.trace import Operand, read_signature, trace

EXTENTS = {"b": 2, "c": 4, "d": 5, "e": 3, "g": 2, "i": 3, "j": 4, "k": 3, "l": 2, "m": 3, "n": 4, "o": 3}


@dataclass(frozen=True)
class Case:
    function: Callable[..., Any]
    constants: dict[str, Any] = field(default_factory=dict)
    extents: dict[str, int] = field(default_factory=dict)
    draw: dict[str, Callable[..., Any]] = field(default_factory=dict)
    dtypes: dict[str, DType] = field(default_factory=dict)
    scalars: dict[str, float] = field(default_factory=dict)
    wrt: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return self.function.__name__

    def program(self, dtype: DType = float64) -> Program:
        signature = read_signature(self.function)
        operands = {
            t.name: Operand(self.dtypes.get(t.name, dtype), int(t.spec.batched)) for t in signature.tiles
        }
        return trace(signature, operands, dict.fromkeys(self.scalars, dtype), self.constants)

    def arguments(self, seed: int = 0) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        extents = EXTENTS | {"_0": 2} | self.extents
        program = self.program()
        arguments: dict[str, Any] = {}
        for param in program.tiles:
            shape = tuple(extents[a] for a in param.axes)
            drawn = self.draw.get(param.name, lambda r, s: r.standard_normal(s))(rng, shape)
            arguments[param.name] = np.asarray(drawn, None if param.dtype.is_float else param.dtype.numpy)
        return arguments | self.scalars


def positive(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.uniform(0.5, 2.0, shape)


def labels(count: int) -> Callable[..., np.ndarray]:
    return lambda rng, shape: rng.integers(0, count, shape)


def with_zeros(count: int) -> Callable[..., np.ndarray]:
    """Normal numbers with `count` zeros in the first row."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        values = rng.standard_normal(shape)
        values[0, :count] = 0
        return values

    return draw


# --- pointwise --------------------------------------------------------------------------------------------


def affine(x: Tile["... d"], w: Tile["d"], b: Tile["d"]):
    return x * w + b


def sigmoid(x: Tile["... d"]):
    return tw.sigmoid(x)


def tanh(x: Tile["... d"]):
    return tw.tanh(x)


def exp(x: Tile["... d"]):
    return tw.exp(x)


def gelu(x: Tile["... d"]):
    return 0.5 * x * (1 + tw.erf(x / math.sqrt(2)))


def gelu_tanh(x: Tile["... d"]):
    return 0.5 * x * (1 + tw.tanh(0.7978845608 * (x + 0.044715 * x**3)))


def silu_gate(x: Tile["... d"], gate: Tile["... d"]):
    return x * gate * tw.sigmoid(gate)


def relu(x: Tile["... d"]):
    return tw.where(x > 0, x, 0)


def clipped(x: Tile["... d"]):
    return tw.clip(x, -0.5, 0.75) ** 2


def extremes(x: Tile["... d"], z: Tile["... d"]):
    return tw.maximum(x, z) * tw.minimum(x, 0.3) + tw.abs(z)


def powers(x: Tile["... d"], z: Tile["... d"]):
    return x**1.5 + x**-2 + tw.pow(x, z) + tw.sqrt(x) * tw.rsqrt(z * z + 1)


def transcendental(x: Tile["... d"]):
    u = tw.sin(x) * tw.cos(x) + tw.atan(x) + tw.sinh(0.3 * x) - tw.cosh(0.2 * x) + tw.asinh(x)
    return (
        u + tw.log1p(x * x) + tw.expm1(0.1 * x) + tw.softplus(x) + tw.exp2(0.5 * x) + tw.atan2(x, x * x + 1)
    )


def special(x: Tile["... d"]):
    return tw.lgamma(x) + tw.digamma(x) * tw.log2(x) + tw.erfc(x)


def same_branch_twice(x: Tile["... d"], z: Tile["... d"]):
    return tw.where((x > 0) & (z < 1), tw.exp(x) * z, tw.where(z > 0, x / (1 + z * z), x * z))


def stopped(x: Tile["... d"]):
    return x * tw.stop_gradient(tw.exp(x)) + tw.stop_gradient(x)


def scalar_parameters(x: Tile["... d"], *, alpha: Scalar, beta: Scalar):
    return tw.where(x > 0, alpha * x, beta * (tw.exp(x) - 1))


def several(x: Tile["... d"], z: Tile["... d"]):
    return x * z, tw.sum(tw.exp(x), "d"), tw.argmax(z, "d")


# --- contractions -----------------------------------------------------------------------------------------


def matmul(a: Tile["... m k"], b: Tile["... k n"]):
    return tw.sum(a * b, "k")


def linear_gelu(x: Tile["m k"], w: Tile["n k"], b: Tile["n"]):
    return gelu(tw.sum(x * w, "k") + b)


def outer(a: Tile["m"], b: Tile["n"]):
    return a * b


def inner(a: Tile["... k"], b: Tile["... k"]):
    return tw.sum(a * b, "k")


def hadamard_sum(a: Tile["m n"], b: Tile["m n"]):
    return tw.sum(a * b)


def row_sum(a: Tile["m n"]):
    return tw.sum(a, "n")


def transposed(a: Tile["m n"]) -> Tile["n m"]:
    return a * 2


def diagonal(a: Tile["i j"]):
    return a["i i"] * a["i i"]


def trace_of_product(a: Tile["i j"], b: Tile["j i"]):
    return tw.sum(a * b, "i j")


def square_trace(a: Tile["i j"]):
    return tw.sum(a["i i"], "i") + tw.sum(a * a["j i"])


def chain(a: Tile["i j"], b: Tile["j k"], c: Tile["k l"]):
    return tw.sum(a * tw.sum(b * c, "k"), "j")


def three_at_once(a: Tile["i k"], b: Tile["k l"], c: Tile["l j"]):
    return tw.sum(a * b * c, "k l")


def bilinear(x: Tile["... i"], a: Tile["o i j"], z: Tile["... j"]):
    return tw.sum(x * a * z, "i j")


def quadratic_form(x: Tile["i"], a: Tile["i j"]):
    return tw.sum(x * a * x["j"])


def gram(x: Tile["i d"]):
    return tw.sum(x["j d"] * x, "d")


def distances(x: Tile["i d"], z: Tile["j d"]):
    return tw.sqrt(tw.sum((x - z) ** 2, "d"))


def pairwise_sum(x: Tile["i d"]):
    return tw.sum(tw.exp(-tw.sum((x - x["j d"]) ** 2, "d")), "j")


def broadcast_result(x: Tile["d"], z: Tile["m d"]):
    return tw.sum(z, "m") * x + tw.mean(x * z, "m")


def column_mean(x: Tile["i d"]):
    return tw.mean(x["j d"], "j")


# --- reductions -------------------------------------------------------------------------------------------


def mean_square(x: Tile["... d"]):
    return tw.mean(x * x, "d")


def variance(x: Tile["... d"]):
    return tw.var(x, "d", correction=1)


def product(x: Tile["m d"]):
    return tw.prod(x, "d")


def product_of_all(x: Tile["m d"]):
    return tw.prod(x * 0.5)


def largest(x: Tile["... d"]):
    return tw.max(x, "d") - tw.min(x * x, "d")


def spread(x: Tile["... d"]):
    return x / (tw.max(tw.abs(x), "d") + 0.1)


def logsumexp(x: Tile["... d"]):
    return tw.logsumexp(x, "d")


def softmax(x: Tile["... d"]):
    e = tw.exp(x - tw.max(x, "d"))
    return e / tw.sum(e, "d")


def log_softmax(x: Tile["... d"]):
    z = x - tw.max(x, "d")
    return z - tw.log(tw.sum(tw.exp(z), "d"))


def cross_entropy(x: Tile["... c"], t: Tile["..."]):
    return tw.logsumexp(x, "c") - tw.sum(tw.where(tw.index("c") == t, x, 0), "c")


def soft_cross_entropy(x: Tile["... c"], p: Tile["... c"]):
    return -tw.sum(p * (x - tw.logsumexp(x, "c")), "c")


def layer_norm(x: Tile["... d"], w: Tile["d"], b: Tile["d"], *, eps: float = 1e-5):
    centred = x - tw.mean(x, "d")
    normal = centred * tw.rsqrt(tw.mean(centred * centred, "d") + eps)
    return normal * w + b


def rms_norm(x: Tile["... d"], w: Tile["d"], *, eps: float = 1e-6):
    return x * tw.rsqrt(tw.mean(x * x, "d") + eps) * w


def gated_norm(x: Tile["... d"], z: Tile["... d"], w: Tile["d"], *, eps: float = 1e-6):
    h = x * z * tw.sigmoid(z)
    return h * tw.rsqrt(tw.mean(h * h, "d") + eps) * w


def group_norm(x: Tile["b g c d"], w: Tile["g c"], v: Tile["g c"], *, eps: float = 1e-5):
    centred = x - tw.mean(x, "c d")
    return centred / tw.sqrt(tw.var(x, "c d") + eps) * w + v


def batch_norm(x: Tile["b c d"], w: Tile["c"]):
    centred = x - tw.mean(x, "b d")
    return centred * tw.rsqrt(tw.var(x, "b d") + 1e-5) * w


def l2_normalise(x: Tile["... d"]):
    return x / tw.sqrt(tw.sum(x * x, "d"))


def cosine(x: Tile["i d"], z: Tile["j d"]):
    lengths = tw.sqrt(tw.sum(x * x, "d")) * tw.sqrt(tw.sum(z * z, "d"))
    return tw.sum(x * z, "d") / lengths


def focal(x: Tile["... c"], t: Tile["..."], *, gamma: float = 2.0):
    log_p = tw.sum(tw.where(tw.index("c") == t, x - tw.logsumexp(x, "c"), 0), "c")
    return -((1 - tw.exp(log_p)) ** gamma) * log_p


def mixture(x: Tile["b d"], mean: Tile["k d"], log_scale: Tile["k d"], logit: Tile["k"]):
    standard = (x - mean) * tw.exp(-log_scale)
    log_density = -0.5 * tw.sum(standard * standard, "d") - tw.sum(log_scale, "d")
    return tw.logsumexp(log_density + logit - tw.logsumexp(logit, "k"), "k")


def attention(q: Tile["... i d"], k: Tile["... j d"], v: Tile["... j e"], *, causal: bool = False):
    s = tw.sum(q * k, "d") * tw.rsqrt(tw.cast(tw.size("d"), q.dtype))
    if causal:
        s = tw.where(tw.index("i") >= tw.index("j"), s, -tw.inf)
    p = tw.exp(s - tw.max(s, "j"))
    return tw.sum(p / tw.sum(p, "j") * v, "j")


def mixed(x: Tile["m d"], w: Tile["d"], n: Tile["m"]):
    return tw.sum(x * w, "d") * n


def double_reduction(x: Tile["b m n"]):
    return tw.exp(tw.mean(tw.tanh(x), "b n")) * tw.max(x, "m n")


# --- scans ------------------------------------------------------------------------------------------------


def running_sum(x: Tile["... d"], w: Tile["d"]):
    return tw.cumsum(x * w, "d") * x


def running_sum_before(x: Tile["... d"]):
    return tw.cumsum(x * x, "d", reverse=True, exclusive=True)


def running_product(x: Tile["b d"]):
    return tw.cumprod(x, "d")


def running_product_of_rows(x: Tile["b d"]):
    return tw.cumprod(x, "b", reverse=True) * tw.cumprod(x, "d", exclusive=True)


def running_largest(x: Tile["b d"]):
    return tw.cummax(x, "d") * x


def running_smallest(x: Tile["b d"]):
    return tw.cummin(x * x, "d", reverse=True) + tw.argcummin(x, "d") * x


def running_logsumexp(x: Tile["b d"]):
    return tw.logcumsumexp(x, "d") + tw.logcumsumexp(x, "b", reverse=True)


def running_softmax(x: Tile["b d"]):
    e = tw.exp(x - tw.max(x, "d"))
    return tw.cumsum(e, "d") / tw.sum(e, "d")


def linear_recurrence(a: Tile["d"], b: Tile["... d"]):
    return tw.scan(lambda l, r: (l[0] * r[0], l[1] * r[0] + r[1]), (a, b), "d")[1]


def recurrence_from(a: Tile["b d"], b: Tile["d"], h: Tile["b"]):
    step = lambda l, r: (l[0] * r[0], l[1] * r[0] + r[1])  # noqa: E731
    decay, state = tw.scan(step, (a, b), "d", initial=(1.0, h), reverse=True)
    before = tw.scan(step, (a, b), "d", exclusive=True, initial=(1.0, 0.5))[1]
    return state + decay * before


def running_variance(x: Tile["b d"]):
    def welford(l, r):
        n = l[0] + r[0]
        delta = r[1] - l[1]
        return n, l[1] + delta * (r[0] / n), l[2] + r[2] + delta * delta * (l[0] * r[0] / n)

    n, mean, squares = tw.scan(welford, (1.0, x, 0.0), "d")
    return mean + squares / n


def state_space(a: Tile["d s"], b: Tile["d s"], x: Tile["... d"]):
    step = lambda l, r: (l[0] * r[0], l[1] * r[0] + r[1])  # noqa: E731
    return tw.sum(tw.scan(step, (tw.exp(-tw.softplus(a)), b * x), "d")[1], "s")


def matrix_products(x: Tile["d"], y: Tile["d"]):
    """Products of the matrices (x y; y 1), all entries at once: no value of the state stays apart."""

    def product(l, r):
        a, b, c, d = l
        e, f, g, h = r
        return a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h

    return tw.scan(product, (x, y, y, 1.0), "d")[1]


def saturating(x: Tile["b d"]):
    """A combine without a neutral number among 0, 1 and the infinities: sqrt(l² + r² + 1)"""
    return tw.scan(lambda l, r: tw.sqrt(l * l + r * r + 1), x, "d") * x


def segmented(x: Tile["b d"], k: Tile["d"]):
    """Sums that begin anew where k is positive: a mask among the values."""
    step = lambda l, r: (l[0] | r[0], tw.where(r[0], r[1], l[1] + r[1]))  # noqa: E731
    return tw.scan(step, (k > 0, x), "d")[1] * k


CASES = [
    Case(affine), Case(sigmoid), Case(tanh), Case(exp), Case(gelu), Case(gelu_tanh), Case(silu_gate),
    Case(relu), Case(clipped), Case(extremes), Case(powers, draw={"x": positive, "z": positive}),
    Case(transcendental), Case(special, draw={"x": positive}), Case(same_branch_twice),
    Case(scalar_parameters, scalars={"alpha": 1.5, "beta": 0.7}),
    Case(scalar_parameters, scalars={"alpha": 1.5, "beta": 0.7}, wrt=("x", "alpha", "beta")),
    Case(several), Case(matmul), Case(linear_gelu), Case(outer), Case(inner), Case(hadamard_sum),
    Case(row_sum), Case(transposed), Case(diagonal, extents={"j": 3}), Case(trace_of_product),
    Case(square_trace, extents={"j": 3}), Case(chain), Case(three_at_once), Case(bilinear),
    Case(quadratic_form, extents={"j": 3}), Case(gram, extents={"j": 3}), Case(distances),
    Case(pairwise_sum), Case(broadcast_result), Case(column_mean), Case(mean_square), Case(variance),
    Case(product), Case(product, draw={"x": with_zeros(1)}), Case(product, draw={"x": with_zeros(2)}),
    Case(product_of_all), Case(largest), Case(spread), Case(logsumexp), Case(softmax), Case(log_softmax),
    Case(soft_cross_entropy), Case(layer_norm), Case(rms_norm), Case(gated_norm), Case(group_norm),
    Case(batch_norm), Case(l2_normalise), Case(cosine), Case(mixture), Case(attention),
    Case(cross_entropy, dtypes={"t": int64}, draw={"t": labels(4)}),
    Case(focal, dtypes={"t": int64}, draw={"t": labels(4)}),
    Case(mixed, dtypes={"n": int64}, draw={"n": labels(9)}),
    Case(attention, {"causal": True}, {"j": 3}), Case(double_reduction),
    Case(running_sum), Case(running_sum_before), Case(running_product),
    Case(running_product, draw={"x": with_zeros(1)}), Case(running_product, draw={"x": with_zeros(2)}),
    Case(running_product_of_rows), Case(running_largest), Case(running_smallest), Case(running_logsumexp),
    Case(running_softmax), Case(linear_recurrence), Case(recurrence_from), Case(running_variance),
    Case(state_space, extents={"s": 2}), Case(matrix_products), Case(saturating), Case(segmented),
]  # fmt: skip
