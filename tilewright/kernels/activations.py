"""Activations: functions of one number, and the gated units that combine two operands.

All of them take operands of any shape and any floating dtype, give that shape and dtype, and keep NaN. Where
a function has a kink, its docstring states the derivative that is used there.
"""

import math

import tilewright as tw
from tilewright.errors import ArgumentError


@tw.op
def relu(x: tw.Tile["..."]):
    """max(x, 0); the derivative at 0 is 0."""
    return tw.where(x <= 0, 0, x)


@tw.op
def leaky_relu(x: tw.Tile["..."], *, negative_slope: float = 0.01):
    """x where x > 0, else negative_slope · x; the derivative at 0 is negative_slope."""
    return tw.where(x > 0, x, negative_slope * x)


@tw.op
def elu(x: tw.Tile["..."], *, alpha: float = 1.0):
    """x where x > 0, else alpha · (eˣ - 1); the derivative at 0 is alpha (Clevert et al., 2016)."""
    return tw.where(x > 0, x, alpha * tw.expm1(x))


@tw.op
def celu(x: tw.Tile["..."], *, alpha: float = 1.0):
    """x where x > 0, else alpha · (exp(x / alpha) - 1), which is smooth at 0 (Barron, 2017)."""
    return tw.where(x > 0, x, alpha * tw.expm1(x / alpha))


SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717


@tw.op
def selu(x: tw.Tile["..."]):
    """λ x where x > 0, else λ α (eˣ - 1), which keeps mean 0 and variance 1 (Klambauer et al., 2017).

    λ ≈ 1.0507 and α ≈ 1.6733; the derivative at 0 is λ α.
    """
    return SELU_SCALE * elu(x, alpha=SELU_ALPHA)


@tw.op
def gelu(x: tw.Tile["..."], *, approximate: str = "none"):
    """x · Φ(x), Φ the normal distribution function (Hendrycks & Gimpel, 2016).

    approximate="tanh": ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))).
    """
    if approximate == "none":
        return 0.5 * x * (1 + tw.erf(x / math.sqrt(2)))
    if approximate == "tanh":
        return 0.5 * x * (1 + tw.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    raise ArgumentError(f'approximate is "none" or "tanh", not {approximate!r}')


@tw.op
def silu(x: tw.Tile["..."]):
    """x · σ(x), also called swish (Elfwing et al., 2017)."""
    return x * tw.sigmoid(x)


@tw.op
def softplus(x: tw.Tile["..."], *, beta: float = 1.0, threshold: float | None = None):
    """log(1 + exp(beta · x)) / beta, stable for any x; x itself where beta · x is above a `threshold`."""
    y = tw.softplus(beta * x) / beta
    return y if threshold is None else tw.where(beta * x > threshold, x, y)


@tw.op
def sigmoid(x: tw.Tile["..."]):
    """σ(x) = 1 / (1 + e⁻ˣ), stable for any x."""
    return tw.sigmoid(x)


@tw.op
def tanh(x: tw.Tile["..."]):
    """(eˣ - e⁻ˣ) / (eˣ + e⁻ˣ)."""
    return tw.tanh(x)


@tw.op
def mish(x: tw.Tile["..."]):
    """x · tanh(softplus(x)) (Misra, 2019)."""
    return x * tw.tanh(tw.softplus(x))


@tw.op
def hardswish(x: tw.Tile["..."]):
    """0 up to -3, x from 3 on, x (x + 3) / 6 between (Howard et al., 2019).

    The derivative is 0 at -3 and 1 at 3.
    """
    return tw.where(x <= -3, 0, tw.where(x >= 3, x, x * (x + 3) / 6))


@tw.op
def hardsigmoid(x: tw.Tile["..."]):
    """0 up to -3, 1 from 3 on, x / 6 + ½ between; the derivative is 0 at both kinks."""
    return tw.where(x <= -3, 0, tw.where(x >= 3, 1, x / 6 + 0.5))


@tw.op
def hardtanh(x: tw.Tile["..."], *, low: float = -1.0, high: float = 1.0):
    """x kept in low … high; the derivative is 0 at both kinks."""
    return tw.where(x <= low, low, tw.where(x >= high, high, x))


@tw.op
def relu6(x: tw.Tile["..."]):
    """x kept in 0 … 6; the derivative is 0 at both kinks."""
    return hardtanh(x, low=0.0, high=6.0)


@tw.op
def logsigmoid(x: tw.Tile["..."]):
    """log σ(x), stable for any x."""
    return -tw.softplus(-x)


@tw.op
def softsign(x: tw.Tile["..."]):
    """x / (1 + |x|)."""
    return x / (1 + tw.abs(x))


@tw.op
def tanhshrink(x: tw.Tile["..."]):
    """x - tanh(x)."""
    return x - tw.tanh(x)


@tw.op
def hardshrink(x: tw.Tile["..."], *, lambd: float = 0.5):
    """0 where |x| ≤ lambd, else x; the derivative is 0 at the steps."""
    return tw.where(tw.abs(x) <= lambd, 0, x)


@tw.op
def softshrink(x: tw.Tile["..."], *, lambd: float = 0.5):
    """0 where |x| ≤ lambd, else x - lambd · sign(x); the derivative is 0 at the kinks."""
    return tw.where(tw.abs(x) <= lambd, 0, x - lambd * tw.sign(x))


@tw.op
def threshold(x: tw.Tile["..."], *, threshold: float, value: float):
    """x where x > threshold, else value; the derivative at the step is 0."""
    return tw.where(x <= threshold, value, x)


@tw.op
def prelu(x: tw.Tile["..."], weight: tw.Tile["..."]):
    """x where x > 0, else weight · x, the weight being learned (He et al., 2015); both broadcast."""
    return tw.where(x > 0, x, weight * x)


@tw.op
def rrelu(x: tw.Tile["..."], seed: tw.Tile[""], *, lower: float = 1 / 8, upper: float = 1 / 3):
    """x where x > 0, else slope · x, each slope uniform in lower … upper (Xu et al., 2015).

    After training it is `leaky_relu` with the mean slope.
    """
    slope = lower + (upper - lower) * tw.rand(seed, "...", dtype=x.dtype.compute)
    return tw.where(x > 0, x, slope * x)


@tw.op
def glu(x: tw.Tile["..."], gate: tw.Tile["..."]):
    """x · σ(gate), gate and x projections of one input (Dauphin et al., 2017)."""
    return x * tw.sigmoid(gate)


@tw.op
def swiglu(x: tw.Tile["..."], gate: tw.Tile["..."]):
    """x · silu(gate), gate and x projections of one input (Shazeer, 2020)."""
    return x * silu(gate)


@tw.op
def geglu(x: tw.Tile["..."], gate: tw.Tile["..."], *, approximate: str = "none"):
    """x · gelu(gate), gate and x projections of one input (Shazeer, 2020)."""
    return x * gelu(gate, approximate=approximate)


ACTIVATIONS = {
    "relu": relu,
    "leaky_relu": leaky_relu,
    "elu": elu,
    "celu": celu,
    "selu": selu,
    "gelu": gelu,
    "silu": silu,
    "softplus": softplus,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "mish": mish,
    "hardswish": hardswish,
    "hardsigmoid": hardsigmoid,
    "hardtanh": hardtanh,
    "relu6": relu6,
    "logsigmoid": logsigmoid,
    "softsign": softsign,
    "tanhshrink": tanhshrink,
    "hardshrink": hardshrink,
    "softshrink": softshrink,
}


def activate(x, name):
    """The activation called `name` of a tile, for ops that end in one; None leaves the tile as it is."""
    if name is None:
        return x
    if name not in ACTIVATIONS:
        raise ArgumentError(f"activation is None or one of {', '.join(ACTIVATIONS)}, not {name!r}")
    return ACTIVATIONS[name](x)
