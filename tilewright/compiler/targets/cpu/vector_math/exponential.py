"""exp, exp2, expm1, the logistic functions and the hyperbolic ones."""

from __future__ import annotations

import math

from tilewright.compiler.targets.cpu.builder import Builder, Value
from tilewright.compiler.targets.cpu.vector_math.formats import LN2, format_of
from tilewright.compiler.targets.cpu.vector_math.parts import (
    bits_to_power,
    expm1_polynomial,
    horner,
    log1p_reduced,
    scale,
    split_exp,
    through_f64,
)

# (sinh(r) - r) / r^3 in r^2, |r| <= 1: the Taylor series.
_SINH = tuple(1 / math.factorial(n) for n in range(3, 20, 2))


def exp(b: Builder, x: Value) -> Value:
    """e^x = 2^n e^r, n the integer nearest x / ln 2."""
    return _exp(b, x, halvings=0)


def _exp(b: Builder, x: Value, halvings: int) -> Value:
    """e^x / 2^halvings without overflow on the way."""
    form = format_of(x)
    low, high = form.exp_range
    x = b.max_second(low, b.min_second(high, x))  # NaN passes through
    r, shifted = split_exp(b, x)
    y = horner(b, r, (1.0, 1.0, *form.exp))
    return scale(b, y, b.sub(shifted, float(halvings)) if halvings else shifted)


def exp_negative(b: Builder, x: Value) -> Value:
    """e^x for x <= 0."""
    form = format_of(x)
    r, shifted = split_exp(b, b.max_second(form.exp_range[0], x))
    return scale(b, horner(b, r, (1.0, 1.0, *form.exp)), shifted)


def exp2(b: Builder, x: Value) -> Value:
    """2^x = 2^n e^(r ln 2), n the integer nearest x; r is exact."""
    form = format_of(x)
    lowest = -float(form.bias + form.mantissa + 2)
    x = b.max_second(lowest, b.min_second(float(form.bias + 2), x))
    shifted = b.add(x, form.magic)
    r = b.sub(x, b.sub(shifted, form.magic))
    high = b.mul(r, LN2)
    low = b.fma(r, LN2, b.neg(high))  # what the rounding of the product took away
    y = horner(b, high, (1.0, 1.0, *form.exp))
    return scale(b, b.fma(y, low, y), shifted)


def expm1(b: Builder, x: Value) -> Value:
    """e^x - 1 = 2 (2^(n-1) (e^r - 1) + 2^(n-1) - 1/2); halved so that the largest n has a 2^n."""
    low, high = format_of(x).expm1_range
    half = expm1_halved(b, b.max_second(low, b.min_second(high, x)), halvings=1)
    return b.copysign(b.mul(half, 2.0), x)


def expm1_halved(b: Builder, x: Value, halvings: int) -> Value:
    """(e^x - 1) / 2^halvings for an x with n - halvings in the normal range."""
    form = format_of(x)
    r, shifted = split_exp(b, x, extra=form.bias - halvings)
    scale = bits_to_power(b, shifted, form)
    return b.fma(scale, expm1_polynomial(b, r), b.sub(scale, 0.5**halvings))


def sigmoid(b: Builder, x: Value) -> Value:
    """1 - s, or for a negative x e^-|x| (1 - s), with s = e^-|x| / (1 + e^-|x|), whose error weighs least."""
    e = exp_negative(b, b.neg(b.abs(x)))
    numerator = b.select(b.cmp("lt", x, 0.0), e, 1.0)
    complement = b.div(e, b.add(e, 1.0))
    return b.fma(b.neg(numerator), complement, numerator)


def softplus(b: Builder, x: Value) -> Value:
    """ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|)."""
    e = exp_negative(b, b.neg(b.abs(x)))
    above = b.cmp("gt", e, 0.41421356)
    f = b.select(above, b.fma(e, 0.5, -0.5), e)
    k = b.select(above, b.constant(1.0, x.type), 0.0)
    return b.add(b.max_second(x, 0.0), log1p_reduced(b, f, k))


def tanh(b: Builder, x: Value) -> Value:
    """1 - 2 / (e^2|x| + 1), or |x| + |x|^3 P(x^2) up to 0.55, with the sign of x."""
    form = format_of(x)
    size = b.min_second(form.tanh_limit, b.abs(x))
    square = b.mul(size, size)
    near = b.fma(b.mul(size, square), horner(b, square, form.tanh), size)
    r, shifted = split_exp(b, b.mul(size, 2.0), extra=form.bias)
    power = bits_to_power(b, shifted, form)
    denominator = b.fma(power, horner(b, r, (1.0, 1.0, *form.exp)), 1.0)
    far = b.sub(1.0, b.div(2.0, denominator))
    return b.copysign(b.select(b.cmp("lt", size, 0.55), near, far), x)


@through_f64
def sinh(b: Builder, x: Value) -> Value:
    """|x| + |x|^3 P(x^2) up to 1, h - 1 / 4h for h = e^|x| / 2 beyond, with the sign of x."""
    size = b.abs(x)
    square = b.mul(size, size)
    near = b.fma(b.mul(size, square), horner(b, square, _SINH), size)
    h = _exp(b, size, halvings=1)
    far = b.sub(h, b.div(0.25, h))
    return b.copysign(b.select(b.cmp("lt", size, 1.0), near, far), x)


@through_f64
def cosh(b: Builder, x: Value) -> Value:
    """h + 1 / 4h for h = e^|x| / 2."""
    h = _exp(b, b.abs(x), halvings=1)
    return b.add(h, b.div(0.25, h))
