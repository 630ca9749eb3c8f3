"""exp, exp2, expm1, the logistic functions and the hyperbolic ones."""

from __future__ import annotations

import math

from tilewright.compiler.targets.cpu.builder import Builder, Value
from tilewright.compiler.targets.cpu.vector_math.formats import LN2, LOG2_E, format_of, hexes, of_format
from tilewright.compiler.targets.cpu.vector_math.parts import (
    bits_to_power,
    expm1_polynomial,
    fast_two_sum,
    horner,
    log1p_reduced,
    scale,
    split_exp,
    through_f64_if_exact,
)
from tilewright.compiler.targets.cpu.vector_math.registers import by_register, has_tables, lookup

# (sinh(r) - r) / r^3 in r^2, |r| <= 1: the Taylor series; f32.
_SINH = tuple(1 / math.factorial(n) for n in range(3, 20, 2))
_SINH_F32 = hexes("0x1.555556p-3 0x1.1110ep-7 0x1.a022bcp-13 0x1.756c1ep-19")
# tanh in 16 intervals, f32: the exponent and two bits of 0.82 |x| + 1/2 name one. The centre, and the
# coefficients in |x| - centre; the centres were chosen so that tanh there is close to a float. Interval 8
# begins at 0.
_TANH_LIMIT = 9.14  # above it tanh is 1
_TANH_TABLE = (
    hexes(
        "0x1.1142cp+1 0x1.5f52cp+1 0x1.ad4c0ep+1 0x1.fb609cp+1 0x1.367b2cp+2 0x1.881caep+2",
        "0x1.d1cb7ep+2 0x1.1438f4p+3 0 0x1.d453aep-3 0x1.8641c2p-2 0x1.113c2p-1 0x1.86432ep-1",
        "0x1.1126bap+0 0x1.5f2e06p+0 0x1.ad2afcp+0",
    ),
    hexes(
        "0x1.f1e03ap-1 0x1.fbc9bep-1 0x1.fec036p-1 0x1.ffa182p-1 0x1.ffeffap-1 0x1.fffecp-1",
        "0x1.ffffep-1 0x1.fffffep-1 0 0x1.cc54aep-3 0x1.74663cp-2 0x1.f3e436p-2 0x1.48e742p-1",
        "0x1.939fap-1 0x1.c21982p-1 0x1.dd633ap-1",
    ),
    hexes(
        "0x1.bdbcc2p-5 0x1.0c74b8p-6 0x1.3f663ep-8 0x1.79d546p-10 0x1.0058cp-12 0x1.4015f6p-16",
        "0x1.fff15p-20 0x1.112d88p-23 0x1p+0 0x1.e621fcp-1 0x1.bc48d8p-1 0x1.85fb92p-1 0x1.2cb74cp-1",
        "0x1.83a00ap-2 0x1.d144ap-3 0x1.0b8a26p-3",
    ),
    hexes(
        "-0x1.b16cb8p-5 -0x1.0a36b6p-6 -0x1.3e9206p-8 -0x1.797f96p-10 -0x1.ff4ccp-13 -0x1.3f2366p-16",
        "-0x1.feaffap-20 -0x1.e530eep-23 0x1.c14c74p-21 -0x1.b5127ep-3 -0x1.43256p-2 -0x1.7cc258p-2",
        "-0x1.825a86p-2 -0x1.31947cp-2 -0x1.9905dap-3 -0x1.f2e8e2p-4",
    ),
    hexes(
        "0x1.10ed4p-5 0x1.5d1abp-7 0x1.a6af6p-9 0x1.f6981ap-11 0x1.55ff8cp-13 0x1.a77f04p-17",
        "0x1.5633bcp-20 0x1.6f20fcp-25 -0x1.55622cp-2 -0x1.12f924p-2 -0x1.655786p-3 -0x1.28788cp-4",
        "0x1.7d9d74p-5 0x1.bebda8p-4 0x1.98f78cp-4 0x1.1ed32cp-4",
    ),
    hexes(
        "-0x1.e5f5fap-7 -0x1.5634acp-8 -0x1.a97434p-10 -0x1.fdcc5ap-12 -0x1.6d3318p-14 -0x1.c8612p-18",
        "-0x1.6c8bcap-21 0x1.281006p-22 0x1.be8bccp-11 0x1.0c3f5ep-3 0x1.583e48p-3 0x1.457d7ap-3",
        "0x1.889b36p-4 0x1.ce5c44p-7 -0x1.5578bcp-6 -0x1.92d8bep-6",
    ),
    hexes(
        "0x1.20971cp-8 0x1.fd1cc6p-10 0x1.4d630ap-11 0x1.95a472p-13 0x1.14cd18p-15 0x1.8345ep-19",
        "0x1.0e4daep-22 0x1.28f5aep-22 0x1.06ed96p-3 0x1.4efbbcp-4 0x1.0a9e74p-6 -0x1.23947ap-5",
        "-0x1.02d77ap-4 -0x1.3c2ffap-5 -0x1.41102ap-7 0x1.44c87ep-9",
    ),
)


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


def exp_of_two_parts(b: Builder, high: Value, low: Value) -> Value:
    """e^(high + low) with little more than the last rounding's error, for |low| far below |high|; f64.

    e^r = 1 + r + (r^2 P(r) + (1 + r) low): only the sum in front is rounded at the size of the result.
    """
    form = format_of(high)
    lowest, highest = form.exp_range
    inside = b.and_(b.cmp("gt", high, lowest), b.cmp("lt", high, highest))
    high = b.max_second(lowest, b.min_second(highest, high))  # NaN passes through
    shifted = b.fma(high, LOG2_E, form.magic)
    n = b.sub(shifted, form.magic)
    ln2, ln2_rest = form.ln2
    low = b.fma(n, -ln2_rest, b.select(inside, low, 0.0))
    r, lost = fast_two_sum(b, b.fma(n, -ln2, high), low)
    tail = b.fma(b.mul(r, r), horner(b, r, form.exp), b.fma(r, lost, lost))
    leading, rounded = fast_two_sum(b, b.constant(1.0, r.type), r)
    return scale(b, b.add(leading, b.add(rounded, tail)), shifted)


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
    """e^x - 1 = 2 (2^(n-1) (e^r - 1) + 2^(n-1) - 1/2); halved so that the largest n has a 2^n.

    A subnormal x, whose half may not exist, is the result.
    """
    low, high = format_of(x).expm1_range
    half = expm1_halved(b, b.max_second(low, b.min_second(high, x)), halvings=1)
    tiny = b.cmp("lt", b.abs(x), format_of(x).smallest_normal)
    return b.select(tiny, x, b.copysign(b.mul(half, 2.0), x))


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
    """1 - 2 / (e^2|x| + 1), or |x| + |x|^3 P(x^2) up to 0.55, with x's sign; f32 by table where possible."""
    if has_tables(b, x):
        return by_register(b, x, _tanh_by_table)
    form = format_of(x)
    size = b.min_second(form.tanh_limit, b.abs(x))
    square = b.mul(size, size)
    near = b.fma(b.mul(size, square), horner(b, square, form.tanh), size)
    r, shifted = split_exp(b, b.mul(size, 2.0), extra=form.bias)
    power = bits_to_power(b, shifted, form)
    denominator = b.fma(power, horner(b, r, (1.0, 1.0, *form.exp)), 1.0)
    far = b.sub(1.0, b.div(2.0, denominator))
    return b.copysign(b.select(b.cmp("lt", size, 0.55), near, far), x)


def _tanh_by_table(b: Builder, x: Value) -> Value:
    """A polynomial for each of 16 intervals of |x|."""
    size = b.min_second(_TANH_LIMIT, b.abs(x))
    index = b.shr(b.bitcast(b.fma(size, 0.82, 0.5), "i32"), 21, signed=False)
    centre, *coefficients = (lookup(b, index, row) for row in _TANH_TABLE)
    return b.copysign(horner(b, b.sub(size, centre), coefficients), x)


@through_f64_if_exact
def sinh(b: Builder, x: Value) -> Value:
    """|x| + |x|^3 P(x^2) up to 1, h - 1 / 4h for h = e^|x| / 2 beyond, with the sign of x."""
    size = b.abs(x)
    square = b.mul(size, size)
    near = b.fma(b.mul(size, square), horner(b, square, of_format(x, _SINH_F32, _SINH)), size)
    h = _exp(b, size, halvings=1)
    far = b.sub(h, b.div(0.25, h))
    return b.copysign(b.select(b.cmp("lt", size, 1.0), near, far), x)


@through_f64_if_exact
def cosh(b: Builder, x: Value) -> Value:
    """h + 1 / 4h for h = e^|x| / 2."""
    h = _exp(b, b.abs(x), halvings=1)
    return b.add(h, b.div(0.25, h))
