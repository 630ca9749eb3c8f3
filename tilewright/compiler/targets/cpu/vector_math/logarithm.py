"""log, log2, log1p and the inverse hyperbolic functions."""

from __future__ import annotations

from tilewright.compiler.targets.cpu.builder import Builder, Value
from tilewright.compiler.targets.cpu.vector_math.formats import LN2, NAN, format_of
from tilewright.compiler.targets.cpu.vector_math.parts import (
    lift_subnormal,
    log1p_reduced,
    log_specials,
    split_log,
    through_f64,
)


def log(b: Builder, x: Value) -> Value:
    """ln x = k ln 2 + ln m, m in [1/sqrt 2, sqrt 2)."""
    tiny, lifted, power = lift_subnormal(b, x)
    k, m, _ = split_log(b, lifted)
    k = b.select(tiny, b.sub(k, power), k)
    return log_specials(b, x, log1p_reduced(b, b.sub(m, 1.0), k))


def log2(b: Builder, x: Value) -> Value:
    """k + log2(e) ln m, with log2(e) in two parts."""
    tiny, lifted, power = lift_subnormal(b, x)
    k, m, _ = split_log(b, lifted)
    k = b.select(tiny, b.sub(k, power), k)
    y = log1p_reduced(b, b.sub(m, 1.0), None)
    high, low = format_of(x).log2_e
    return log_specials(b, x, b.add(b.fma(y, high, k), b.mul(y, low)))


def log1p(b: Builder, x: Value) -> Value:
    """ln(1 + x): k and m are those of 1 + x, but f = 2^-k x + (2^-k - 1) is rounded once from x itself."""
    form = format_of(x)
    u = b.add(x, 1.0)
    k, m, biased = split_log(b, u)
    inverse = b.bitcast(b.shl(b.sub(2 * form.bias, biased), form.mantissa), x.type.kind)
    exact = b.fma(x, inverse, b.sub(inverse, 1.0))
    large = b.cmp("gt", u, 2.0 ** (form.mantissa + 2))  # 2^-k may underflow there, and 1 no longer matters
    y = log1p_reduced(b, b.select(large, b.sub(m, 1.0), exact), k)
    return b.copysign(log_specials(b, u, y), x)


@through_f64
def asinh(b: Builder, x: Value) -> Value:
    """ln(|x| + sqrt(x^2 + 1)) as log1p(|x| + x^2 / (1 + sqrt(x^2 + 1))); ln |x| + ln 2 above 2^54."""
    size = b.abs(x)
    large = b.cmp("gt", size, 2.0**54)
    square = b.mul(size, size)
    small = b.add(size, b.div(square, b.add(b.sqrt(b.add(square, 1.0)), 1.0)))
    return b.copysign(_log1p_or_log_twice(b, large, small, size), x)


@through_f64
def acosh(b: Builder, x: Value) -> Value:
    """log1p(t + sqrt(2t + t^2)) for t = x - 1; ln x + ln 2 above 2^54; NaN below 1."""
    t = b.sub(x, 1.0)
    large = b.cmp("gt", x, 2.0**54)
    small = b.add(t, b.sqrt(b.fma(t, t, b.mul(t, 2.0))))
    y = _log1p_or_log_twice(b, large, small, x)
    return b.select(b.cmp("ge", x, 1.0), y, NAN)


def _log1p_or_log_twice(b: Builder, large: Value, small: Value, size: Value) -> Value:
    """log1p(small), or ln(2 size) where size is large."""
    y = log1p(b, b.select(large, size, small))
    return b.select(large, b.add(y, LN2), y)


@through_f64
def atanh(b: Builder, x: Value) -> Value:
    """log1p(2|x| + 2|x| |x| / (1 - |x|)) / 2 with the sign of x."""
    size = b.abs(x)
    twice = b.mul(size, 2.0)
    ratio = b.div(size, b.sub(1.0, size))
    argument = b.select(b.cmp("lt", size, 0.5), b.fma(twice, ratio, twice), b.mul(ratio, 2.0))
    return b.copysign(b.mul(log1p(b, argument), 0.5), x)
