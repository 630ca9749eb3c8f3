"""Powers, remainders and rounding."""

from __future__ import annotations

from tilewright.compiler.targets.cpu.builder import Builder, Value
from tilewright.compiler.targets.cpu.vector_math.exponential import exp_of_two_parts
from tilewright.compiler.targets.cpu.vector_math.formats import INFINITY, LN2, NAN, format_of, hexes
from tilewright.compiler.targets.cpu.vector_math.logarithm import log_in_two_parts
from tilewright.compiler.targets.cpu.vector_math.parts import (
    bits_to_power,
    fast_two_sum,
    horner,
    lift_subnormal,
    log1p_reduced,
    scale,
    split_log,
    through_f64,
    two_product,
    where_rare,
)
from tilewright.runtime.precision import FAST

_ENDLESS = 200.0  # from here on powers of two are 0 or infinite in f32

# For f32, in f64: log2 m = s P(s^2), s = (m - 1) / (m + 1), m in [1/sqrt 2, sqrt 2], to 2^-37 of itself;
# 2^r = 1 + r P(r), |r| <= 1/2, to 2^-33.
_LOG2 = hexes(
    "0x1.71547652bed13p+1 0x1.ec709d13c0821p-1 0x1.27777f461993ep-1 0x1.a58dceca72ce8p-2",
    "0x1.5ce39e0f72792p-2",
)
_EXP2 = hexes(
    "0x1.62e42fefa39efp-1 0x1.ebfbe045f4d3cp-3 0x1.c6b08d883dca1p-5 0x1.3b2a1b7152befp-7",
    "0x1.5d879ead06a82p-10 0x1.443fffc90db59p-13 0x1.00a581594758ep-16",
)


def pow_(b: Builder, x: Value, y: Value) -> Value:
    """x^y with C99's special cases; f32 is computed in f64 and rounded once, but for fast powers."""
    if x.type.kind == "f64":
        return _with_signs_and_specials(b, x, y, _power_of_size(b, b.abs(x), y))
    if b.accuracy == FAST:
        return _with_signs_and_specials(b, x, y, _fast_power_of_size(b, b.abs(x), y))
    x, y = b.convert(x, "f64"), b.convert(y, "f64")
    magnitude = _power_of_size_for_f32(b, b.abs(x), y)
    return b.convert(_with_signs_and_specials(b, x, y, magnitude), "f32")


def _power_of_size_for_f32(b: Builder, size: Value, y: Value) -> Value:
    """2^(y log2 size); a size from f32 is never subnormal in f64."""
    k, m, _ = split_log(b, size)
    s = b.div(b.sub(m, 1.0), b.add(m, 1.0))
    logarithm = b.fma(s, horner(b, b.mul(s, s), _LOG2), k)
    exponent = b.mul(_where_positive(b, size, logarithm), y)
    exponent = b.max_second(-200.0, b.min_second(200.0, exponent))  # NaN passes through
    form = format_of(exponent)
    shifted = b.add(exponent, form.magic)
    r = b.sub(exponent, b.sub(shifted, form.magic))
    return b.mul(horner(b, r, (1.0, *_EXP2)), bits_to_power(b, b.add(shifted, float(form.bias)), form))


def _fast_power_of_size(b: Builder, size: Value, y: Value) -> Value:
    """2^(y log2 size) in f32. The logarithm is a sum of two numbers: the error of the mantissa's own is left,
    times y.
    """
    form = format_of(size)
    tiny, lifted, power = lift_subnormal(b, size)
    k, m, _ = split_log(b, lifted)
    k = b.select(tiny, b.sub(k, power), k)
    fraction = log1p_reduced(b, b.sub(m, 1.0), None)
    scaled, lost = two_product(b, fraction, b.constant(form.log2_e[0], size.type))
    high, low = fast_two_sum(b, k, scaled)
    low = b.add(low, b.fma(fraction, form.log2_e[1], lost))
    exponent = b.mul(_where_positive(b, size, high), y)
    rest = b.fma(low, y, b.fma(high, y, b.neg(exponent)))
    inside = b.cmp("lt", b.abs(exponent), _ENDLESS)
    exponent = b.max_second(-_ENDLESS, b.min_second(_ENDLESS, exponent))  # NaN passes through
    shifted = b.add(exponent, form.magic)
    r = b.add(b.sub(exponent, b.sub(shifted, form.magic)), b.select(inside, rest, 0.0))
    return scale(b, horner(b, b.mul(r, LN2), (1.0, 1.0, *form.exp)), shifted)


def _where_positive(b: Builder, size: Value, logarithm: Value) -> Value:
    """The logarithm of a size, of which `logarithm` is right where it is positive and finite."""
    inside = b.and_(b.cmp("gt", size, 0.0), b.cmp("lt", size, INFINITY))
    outside = b.select(b.cmp("eq", size, 0.0), -INFINITY, size)  # infinity and NaN are their own logarithms
    return b.select(inside, logarithm, outside)


def _power_of_size(b: Builder, size: Value, y: Value) -> Value:
    """e^(y ln size) for size >= 0, with the logarithm and the product in two parts each."""
    high, low = log_in_two_parts(b, size)
    product, lost = two_product(b, _where_positive(b, size, high), y)
    return exp_of_two_parts(b, product, b.fma(low, y, lost))


def _with_signs_and_specials(b: Builder, x: Value, y: Value, magnitude: Value) -> Value:
    """x^y from |x|^y: the sign of an odd power, NaN for a fractional one of a negative, what is always 1."""
    # y beyond what the mantissa holds is an even integer, and so is an infinity.
    whole = b.cmp("eq", b.trunc(y), y)
    half = b.mul(y, 0.5)
    odd = b.and_(whole, b.cmp("ne", b.trunc(half), half))
    negative = b.cmp("lt", b.bitcast(x, x.type.integer.kind), 0)
    result = b.select(b.and_(odd, negative), b.neg(magnitude), magnitude)
    finite_negative = b.and_(b.cmp("lt", x, 0.0), b.cmp("gt", x, -INFINITY))
    result = b.select(b.and_(finite_negative, b.not_(whole)), NAN, result)
    infinite_turn = b.and_(b.cmp("eq", b.abs(x), 1.0), b.cmp("eq", b.abs(y), INFINITY))
    always_one = b.or_(b.cmp("eq", y, 0.0), b.or_(b.cmp("eq", x, 1.0), infinite_turn))
    return b.select(always_one, 1.0, result)


@through_f64
def fmod(b: Builder, x: Value, y: Value) -> Value:
    """x - y trunc(x / y), exact; a quotient beyond 2^52 asks the C library.

    The rounded quotient may be one too far: the remainder then has the wrong sign, and |y| is given back.
    """
    size, modulus = b.abs(x), b.abs(y)
    quotient = b.trunc(b.div(size, modulus))
    r = b.fma(b.neg(quotient), modulus, size)
    r = b.select(b.cmp("lt", r, 0.0), b.add(r, modulus), r)
    r = b.select(b.cmp("lt", size, modulus), size, r)
    rare = b.cmp("lt", quotient, 2.0**52)
    rare = b.not_(b.and_(rare, b.cmp("gt", modulus, 0.0)))
    return where_rare(b, rare, b.copysign(r, x), "fmod", x, y)


def rsqrt(b: Builder, x: Value) -> Value:
    """1 / sqrt(x) by the exact square root and division."""
    return b.div(1.0, b.sqrt(x))


def round_half_even(b: Builder, x: Value) -> Value:
    """The nearest integer, ties to even."""
    return b.round_even(x)
