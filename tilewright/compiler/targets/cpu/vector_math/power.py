"""Powers, remainders and rounding."""

from __future__ import annotations

from tilewright.compiler.targets.cpu.builder import Builder, Value
from tilewright.compiler.targets.cpu.vector_math.exponential import exp2
from tilewright.compiler.targets.cpu.vector_math.formats import INFINITY, NAN
from tilewright.compiler.targets.cpu.vector_math.logarithm import log2
from tilewright.compiler.targets.cpu.vector_math.parts import per_lane, through_f64, where_rare


def pow_(b: Builder, x: Value, y: Value) -> Value:
    """x^y. f32: 2^(y log2 |x|) in f64 with C99's special cases; f64: the C library."""
    if x.type.kind == "f64":
        return per_lane(b, "pow", x, y)
    x, y = b.convert(x, "f64"), b.convert(y, "f64")
    size = b.abs(x)
    magnitude = exp2(b, b.mul(y, log2(b, size)))
    # y beyond 2^53 is an even integer, and so is an infinity.
    whole = b.cmp("eq", b.trunc(y), y)
    half = b.mul(y, 0.5)
    odd = b.and_(whole, b.cmp("ne", b.trunc(half), half))
    negative = b.cmp("lt", b.bitcast(x, "i64"), 0)
    result = b.select(b.and_(odd, negative), b.neg(magnitude), magnitude)
    finite_negative = b.and_(b.cmp("lt", x, 0.0), b.cmp("gt", x, -INFINITY))
    result = b.select(b.and_(finite_negative, b.not_(whole)), NAN, result)
    infinite_turn = b.and_(b.cmp("eq", size, 1.0), b.cmp("eq", b.abs(y), INFINITY))
    always_one = b.or_(b.cmp("eq", y, 0.0), b.or_(b.cmp("eq", x, 1.0), infinite_turn))
    return b.convert(b.select(always_one, 1.0, result), "f32")


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
