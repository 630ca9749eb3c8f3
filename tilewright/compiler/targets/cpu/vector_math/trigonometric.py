"""sin, cos, tan and their inverses."""

from __future__ import annotations

import math

from tilewright.compiler.targets.cpu.builder import Builder, Value
from tilewright.compiler.targets.cpu.vector_math.formats import INFINITY, format_of, hexes, of_format
from tilewright.compiler.targets.cpu.vector_math.parts import (
    horner,
    keep_zero,
    through_f64_if_exact,
    two_product,
    two_sum,
    where_rare,
)

# (sin(r) - r) / r^3 in r^2, |r| <= pi / 4.
_SIN_QUARTER = hexes(
    "-0x1.5555555555555p-3 0x1.111111111110bp-7 -0x1.a01a01a018a67p-13 0x1.71de3a5330106p-19",
    "-0x1.ae64528cdbd0cp-26 0x1.61208bdee7bfap-33 -0x1.aaa2126c0d19dp-41",
)
_SIN_QUARTER_F32 = hexes("-0x1.555546p-3 0x1.110778p-7 -0x1.995408p-13")
# (cos(r) - 1 + r^2/2) / r^4 in r^2, |r| <= pi / 4.
_COS_QUARTER = hexes(
    "0x1.5555555555555p-5 -0x1.6c16c16c16c1p-10 0x1.a01a01a018de9p-16 -0x1.27e4fb75fd741p-22",
    "0x1.1eed8ca3a7bf9p-29 -0x1.9393383f65b6fp-37 0x1.aac5ac0a2338p-45",
)
_COS_QUARTER_F32 = hexes("0x1.55554ap-5 -0x1.6c0c28p-10 0x1.99e80cp-16")
# (atan(r) - r) / r^3 in r^2, |r| <= tan(pi / 8).
_ATAN = hexes(
    "-0x1.5555555555554p-2 0x1.999999999965ap-3 -0x1.2492492475d91p-3 0x1.c71c71b77a978p-4",
    "-0x1.745d14c01141dp-4 0x1.3b136eb4cc65fp-4 -0x1.110c7a32b150dp-4 0x1.e1728a3ec49adp-5",
    "-0x1.ab80d60f4f6a1p-5 0x1.70fa5931fddb2p-5 -0x1.12552ce301921p-5 0x1.f25cc09c635cp-7",
)
_ATAN_F32 = hexes("-0x1.555454p-2 0x1.9924dap-3 -0x1.1c380ap-3 0x1.49e732p-4")
# (asin(r) - r) / r^3 in r^2, r^2 <= 1/4.
_ASIN = hexes(
    "0x1.5555555555578p-3 0x1.333333332df0fp-4 0x1.6db6db722b9f4p-5 0x1.f1c71a8b8ca61p-6",
    "0x1.6e8bdfe7ef75p-6 0x1.1c49ddeedde61p-6 0x1.ca2145a7a2c81p-7 0x1.7577848832394p-7",
    "0x1.618adf3f5873ap-7 0x1.e159a880f9b2cp-9 0x1.6502598188653p-6 -0x1.59f6d52f791d3p-6",
    "0x1.0be474a91a2f7p-5",
)
_ASIN_F32 = hexes("0x1.5555c8p-3 0x1.330204p-4 0x1.747bb8p-5 0x1.8c3e5p-6 0x1.595c6p-5")


def _reduce_trig(b: Builder, x: Value, n: Value) -> Value:
    """x - n pi by three fused steps; the first is exact where |x| <= trig_limit and 2n is an integer."""
    for part in format_of(x).pi:
        x = b.fma(n, -part, x)
    return x


def _sin_reduced(b: Builder, r: Value, parity: Value) -> Value:
    """(-1)^parity sin r for |r| <= pi / 2; parity is the lowest bit of an integer."""
    form = format_of(r)
    z = b.mul(r, r)
    y = b.fma(b.mul(r, z), horner(b, z, form.sin), r)
    y = b.max_second(-1.0, b.min_second(1.0, y))  # rounding may reach beyond at pi / 2
    sign = b.shl(parity, r.type.bits - 1)
    return b.bitcast(b.xor(b.bitcast(y, sign.type.kind), sign), r.type.kind)


def sin(b: Builder, x: Value) -> Value:
    """(-1)^n sin(x - n pi), n the integer nearest x / pi; a huge x asks the C library."""
    form = format_of(x)
    shifted = b.fma(x, 1 / math.pi, form.magic)
    r = _reduce_trig(b, x, b.sub(shifted, form.magic))
    y = keep_zero(b, x, _sin_reduced(b, r, b.bitcast(shifted, x.type.integer.kind)))
    return where_rare(b, b.cmp("gt", b.abs(x), form.trig_limit), y, "sin", x)


def cos(b: Builder, x: Value) -> Value:
    """(-1)^n sin(x - (n - 1/2) pi), n the integer nearest x / pi + 1/2; a huge x asks the C library."""
    form = format_of(x)
    shifted = b.add(b.fma(x, 1 / math.pi, 0.5), form.magic)
    n = b.sub(shifted, form.magic)
    y = _sin_reduced(b, _reduce_trig(b, x, b.sub(n, 0.5)), b.bitcast(shifted, x.type.integer.kind))
    return where_rare(b, b.cmp("gt", b.abs(x), form.trig_limit), y, "cos", x)


@through_f64_if_exact
def tan(b: Builder, x: Value) -> Value:
    """sin r / cos r or -cos r / sin r for r = x - n pi/2; the quotient is corrected by its residual."""
    form = format_of(x)
    shifted = b.fma(x, 2 / math.pi, form.magic)
    n = b.sub(shifted, form.magic)
    middle, last = (-part / 2 for part in form.pi[1:])
    first = b.fma(n, -form.pi[0] / 2, x)
    product, product_low = two_product(b, n, b.constant(middle, x.type))
    second, second_low = two_sum(b, first, product)
    r = b.fma(n, last, second)
    low = b.add(b.fma(n, last, b.sub(second, r)), b.add(second_low, product_low))
    quotient = _tan_quotient(b, r, low, shifted)
    y = keep_zero(b, x, quotient)
    return where_rare(b, b.cmp("gt", b.abs(x), form.trig_limit), y, "tan", x)


def _tan_quotient(b: Builder, r: Value, low: Value, shifted: Value) -> Value:
    """tan(r + low + n pi/2), |r| <= pi/4, with numerator and denominator as unevaluated sums."""
    z = b.mul(r, r)
    sine = of_format(r, _SIN_QUARTER_F32, _SIN_QUARTER)
    sine_low = b.fma(b.mul(r, z), horner(b, z, sine), low)
    half = b.mul(z, 0.5)
    cosine = b.sub(1.0, half)
    rest = b.sub(b.sub(1.0, cosine), half)
    residue = b.fma(r, b.mul(r, -0.5), half)  # z was rounded
    tail = horner(b, z, of_format(r, _COS_QUARTER_F32, _COS_QUARTER))
    cosine_low = b.fma(b.mul(z, z), tail, b.add(rest, b.fma(r, b.neg(low), residue)))
    odd = b.convert(b.and_(b.bitcast(shifted, r.type.integer.kind), 1), "i1")
    top, top_low = b.select(odd, b.neg(cosine), r), b.select(odd, b.neg(cosine_low), sine_low)
    bottom, bottom_low = b.select(odd, r, cosine), b.select(odd, sine_low, cosine_low)
    inverse = b.div(1.0, b.add(bottom, bottom_low))
    q = b.mul(b.add(top, top_low), inverse)
    error = b.add(b.fma(b.neg(q), bottom, top), b.fma(b.neg(q), bottom_low, top_low))
    return b.fma(error, inverse, q)


@through_f64_if_exact
def atan(b: Builder, x: Value) -> Value:
    """The angle of (1, x)."""
    size = b.abs(x)
    return b.copysign(_atan_ratio(b, size, b.constant(1.0, x.type)), x)


def _atan_ratio(b: Builder, top: Value, bottom: Value) -> Value:
    """atan(top / bottom) in [0, pi/2] for top, bottom >= 0, reduced to |t| <= tan(pi/8) by multiples of pi/4.

    atan(y/x) = pi/4 + atan((y-x) / (y+x)) = pi/2 - atan(x/y).
    """
    one_eighth, three_eighths = math.tan(math.pi / 8), math.tan(3 * math.pi / 8)
    ratio = b.div(top, bottom)
    middle = b.cmp("gt", ratio, one_eighth)
    steep = b.cmp("gt", ratio, three_eighths)
    t_middle = b.div(b.sub(ratio, 1.0), b.add(ratio, 1.0))
    t_steep = b.neg(b.div(bottom, top))
    t = b.select(steep, t_steep, b.select(middle, t_middle, ratio))
    pi, pi_low, *_ = format_of(t).pi
    base = b.select(steep, pi / 2, b.select(middle, b.constant(pi / 4, t.type), 0.0))
    low = b.select(middle, b.constant(pi_low / 4, t.type), 0.0)
    low = b.select(steep, pi_low / 2, low)
    z = b.mul(t, t)
    tail = horner(b, z, of_format(t, _ATAN_F32, _ATAN))
    return b.add(base, b.add(b.fma(b.mul(t, z), tail, low), t))


@through_f64_if_exact
def atan2(b: Builder, y: Value, x: Value) -> Value:
    """The angle of (x, y) in [-pi, pi], with C99's answers for zeros and infinities."""
    height, width = b.abs(y), b.abs(x)
    both_infinite = b.and_(b.cmp("eq", height, INFINITY), b.cmp("eq", width, INFINITY))
    both_zero = b.cmp("eq", b.max_second(height, width), 0.0)
    top = b.select(both_infinite, 1.0, height)
    bottom = b.select(b.or_(both_infinite, both_zero), 1.0, width)
    angle = _atan_ratio(b, top, bottom)
    negative = b.cmp("lt", b.bitcast(x, x.type.integer.kind), 0)
    pi, pi_low, *_ = format_of(x).pi
    reflected = b.add(b.sub(pi, angle), pi_low)
    angle = b.copysign(b.select(negative, reflected, angle), y)
    angle = b.select(b.is_nan(x), x, angle)
    return b.select(b.is_nan(y), y, angle)


def _asin_polynomial(b: Builder, z: Value) -> Value:
    """(asin(r) - r) / r for z = r^2 <= 1/4."""
    return b.mul(z, horner(b, z, of_format(z, _ASIN_F32, _ASIN)))


def _root_parts(b: Builder, z: Value) -> tuple[Value, Value]:
    """sqrt(z) as high + low."""
    s = b.sqrt(z)
    low = b.div(b.fma(b.neg(s), s, z), b.mul(s, 2.0))
    return s, b.select(b.cmp("gt", s, 0.0), low, 0.0)


@through_f64_if_exact
def asin(b: Builder, x: Value) -> Value:
    """x + x P(x^2) up to 1/2; pi/2 - 2 asin(sqrt((1 - |x|) / 2)) above; NaN beyond 1."""
    size = b.abs(x)
    large = b.cmp("gt", size, 0.5)
    z = b.select(large, b.mul(b.sub(1.0, size), 0.5), b.mul(size, size))
    p = _asin_polynomial(b, z)
    s, low = _root_parts(b, z)
    twice = b.mul(b.add(b.fma(s, p, low), s), 2.0)
    pi, pi_low, *_ = format_of(x).pi
    outer = b.add(b.sub(pi / 2, twice), pi_low / 2)
    return b.copysign(b.select(large, outer, b.fma(size, p, size)), x)


@through_f64_if_exact
def acos(b: Builder, x: Value) -> Value:
    """pi/2 - asin x up to 1/2 in size; 2 asin(sqrt((1 - |x|) / 2)) above, from pi for a negative x."""
    size = b.abs(x)
    large = b.cmp("gt", size, 0.5)
    z = b.select(large, b.mul(b.sub(1.0, size), 0.5), b.mul(size, size))
    p = _asin_polynomial(b, z)
    s, low = _root_parts(b, z)
    twice = b.mul(b.add(b.fma(s, p, low), s), 2.0)
    pi, pi_low, *_ = format_of(x).pi
    reflected = b.add(b.sub(pi, twice), pi_low)
    outer = b.select(b.cmp("lt", x, 0.0), reflected, twice)
    inner = b.sub(pi / 2, b.sub(x, b.fma(b.neg(x), p, pi_low / 2)))
    return b.select(large, outer, inner)
