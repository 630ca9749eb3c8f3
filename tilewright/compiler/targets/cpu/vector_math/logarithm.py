"""log, log2, log1p and the inverse hyperbolic functions."""

from __future__ import annotations

from tilewright.compiler.targets.cpu.builder import Builder, Type, Value
from tilewright.compiler.targets.cpu.vector_math.formats import INFINITY, LN2, NAN, format_of, hexes
from tilewright.compiler.targets.cpu.vector_math.parts import (
    fast_two_sum,
    horner,
    lift_subnormal,
    log1p_reduced,
    log_specials,
    scale_avx512,
    split_log,
    through_f64_if_exact,
    two_product,
)
from tilewright.compiler.targets.cpu.vector_math.registers import by_register, has_tables, lookup

# ln m for a mantissa m in [1, 2), f32: its first four bits name c near 1/m and t = -ln c; for r = m c - 1
# it is t + r + r^2 P(r). c was chosen so that t is close to a float. From m = 1.375 on, t is raised by
# _LN2 - ln 2: it meets
# -_LN2 near x = 1, and the last t is _LN2 itself.
_LN2 = float.fromhex("0x1.62e43p-1")  # ln 2 rounded to f32
_LOG_INVERSE = hexes(
    "0x1p+0 0x1.d40f4ep-1 0x1.badefep-1 0x1.a42dbp-1 0x1.8f9708p-1 0x1.7cf1b6p-1 0x1.6c23dcp-1",
    "0x1.5ca964p-1 0x1.4e5f7ep-1 0x1.41345cp-1 0x1.352496p-1 0x1.29dd74p-1 0x1.1f774cp-1",
    "0x1.15a5e8p-1 0x1.0c9956p-1 0x1p-1",
)
_LOG_TABLE = hexes(
    "0 0x1.6f874p-4 0x1.290ddap-3 0x1.94c6f2p-3 0x1.fbab7ep-3 0x1.2ec494p-2 0x1.5cf702p-2",
    "0x1.8971a4p-2 0x1.b44b06p-2 0x1.dd6fbcp-2 0x1.025092p-1 0x1.15579ep-1 0x1.278962p-1",
    "0x1.39542ap-1 0x1.4a4b3ap-1 0x1.62e43p-1",
)
_LOG_POLYNOMIAL = hexes(
    "-0x1.fffffep-2 0x1.555866p-2 -0x1.00225ep-2 0x1.83bf22p-3",
)

# ln(1 + f) = 2s + 2/3 s^3 + s^5 P(s^2) for s = f / (2 + f), 1 + f in [1/sqrt 2, sqrt 2]; 2/3 in two parts.
_LOG_IN_S = hexes(
    "0x1.999999999999ap-2 0x1.2492492492521p-2 0x1.c71c71c6eaa8dp-3 0x1.745d177a8f2p-3",
    "0x1.3b1395d4f9e5fp-3 0x1.1118c74823a2ep-3 0x1.df7ce9a6bcccbp-4 0x1.e02d197c00c78p-4",
)
_TWO_THIRDS = hexes("0x1.5555555555555p-1 0x1.5555555555555p-55")


def log(b: Builder, x: Value) -> Value:
    """ln x = k ln 2 + ln m, m in [1/sqrt 2, sqrt 2); f32 by table where there are any."""
    if has_tables(b, x):
        return by_register(b, x, _log_by_table)
    tiny, lifted, power = lift_subnormal(b, x)
    k, m, _ = split_log(b, lifted)
    k = b.select(tiny, b.sub(k, power), k)
    return log_specials(b, x, log1p_reduced(b, b.sub(m, 1.0), k))


def log_in_two_parts(b: Builder, x: Value) -> tuple[Value, Value]:
    """ln x as the unevaluated sum of two f64 numbers, good to about 2^-64 of it, for a positive finite x.

    k ln 2 + 2 atanh(s): the quotient s, the first two terms and the sums carry what their rounding lost.
    """
    tiny, lifted, power = lift_subnormal(b, x)
    k, m, _ = split_log(b, lifted)
    k = b.select(tiny, b.sub(k, power), k)
    f, d = b.sub(m, 1.0), b.add(m, 1.0)
    s = b.div(f, d)
    lost = b.div(b.fma(b.neg(s), b.sub(m, b.sub(d, 1.0)), b.fma(b.neg(s), d, f)), d)
    z, z_lost = two_product(b, s, s)
    cube, cube_lost = two_product(b, s, z)
    cube_lost = b.fma(s, z_lost, cube_lost)
    two_thirds, rest = _TWO_THIRDS
    second, second_lost = two_product(b, cube, b.constant(two_thirds, x.type))
    second_lost = b.fma(cube, rest, b.fma(cube_lost, two_thirds, second_lost))
    tail = b.fma(b.mul(cube, z), horner(b, z, _LOG_IN_S), second_lost)
    high, low = fast_two_sum(b, b.add(s, s), second)
    low = b.add(low, b.fma(b.fma(lost, b.fma(z, z, z), lost), 2.0, tail))
    ln2, ln2_rest = format_of(x).ln2
    high, carried = fast_two_sum(b, b.mul(k, ln2), high)
    return fast_two_sum(b, high, b.add(carried, b.fma(k, ln2_rest, low)))


def _exponent_and_mantissa(b: Builder, x: Value) -> tuple[Value, Value]:
    """(k, m): x = 2^k m, m in [1, 2), for subnormals too; 0 has k = -inf, inf k = inf, x < 0 m = NaN."""
    mask, rounding = b.constant(-1, Type("i16")), b.constant(4, Type("i32"))
    k = b.intrinsic("llvm.x86.avx512.mask.getexp.ps.512", [x, x, mask, rounding], x.type)
    nan_if_negative = b.constant(8, Type("i32"))
    arguments = [x, nan_if_negative, x, mask, rounding]
    return k, b.intrinsic("llvm.x86.avx512.mask.getmant.ps.512", arguments, x.type)


def _log_by_table(b: Builder, x: Value) -> Value:
    """k ln 2 + ln m, m in [1, 2)."""
    k, m = _exponent_and_mantissa(b, x)
    inverse, offset = _log_row(b, k, m)
    return _log_sum(b, offset, b.fma(m, inverse, -1.0))


def _log_row(b: Builder, k: Value, m: Value) -> tuple[Value, Value]:
    """(c, k ln 2 - ln c)."""
    index = b.shr(b.bitcast(m, "i32"), 19, signed=False)
    return lookup(b, index, _LOG_INVERSE), b.fma(k, _LN2, lookup(b, index, _LOG_TABLE))


def _log_sum(b: Builder, offset: Value, r: Value) -> Value:
    """offset + ln(1 + r)."""
    return b.add(offset, b.fma(b.mul(r, r), horner(b, r, _LOG_POLYNOMIAL), r))


def _log1p_by_table(b: Builder, x: Value) -> Value:
    """ln u for u = 1 + x rounded; r regains what the rounding lost."""
    u = b.add(x, 1.0)
    k, m = _exponent_and_mantissa(b, u)
    inverse, offset = _log_row(b, k, m)
    lost = scale_avx512(b, b.sub(x, b.sub(u, 1.0)), b.neg(b.max_second(-126.0, k)))
    y = _log_sum(b, offset, b.fma(lost, inverse, b.fma(m, inverse, -1.0)))
    return b.copysign(b.select(b.cmp("eq", x, INFINITY), x, y), x)


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
    if has_tables(b, x):
        return by_register(b, x, _log1p_by_table)
    form = format_of(x)
    u = b.add(x, 1.0)
    k, m, biased = split_log(b, u)
    inverse = b.bitcast(b.shl(b.sub(2 * form.bias, biased), form.mantissa), x.type.kind)
    exact = b.fma(x, inverse, b.sub(inverse, 1.0))
    large = b.cmp("gt", u, _one_is_nothing(x))  # 2^-k may underflow there
    y = log1p_reduced(b, b.select(large, b.sub(m, 1.0), exact), k)
    return b.copysign(log_specials(b, u, y), x)


@through_f64_if_exact
def asinh(b: Builder, x: Value) -> Value:
    """ln(|x| + sqrt(x^2 + 1)) as log1p(|x| + x^2 / (1 + sqrt(x^2 + 1))); ln |x| + ln 2 where 1 is nothing."""
    size = b.abs(x)
    large = b.cmp("gt", size, _one_is_nothing(x))
    square = b.mul(size, size)
    small = b.add(size, b.div(square, b.add(b.sqrt(b.add(square, 1.0)), 1.0)))
    return b.copysign(_log1p_or_log_twice(b, large, small, size), x)


@through_f64_if_exact
def acosh(b: Builder, x: Value) -> Value:
    """log1p(t + sqrt(2t + t^2)) for t = x - 1; ln x + ln 2 where 1 is nothing; NaN below 1."""
    t = b.sub(x, 1.0)
    large = b.cmp("gt", x, _one_is_nothing(x))
    small = b.add(t, b.sqrt(b.fma(t, t, b.mul(t, 2.0))))
    y = _log1p_or_log_twice(b, large, small, x)
    return b.select(b.cmp("ge", x, 1.0), y, NAN)


def _one_is_nothing(x: Value) -> float:
    """The size from which on 1 does not matter."""
    return 2.0 ** (format_of(x).mantissa + 2)


def _log1p_or_log_twice(b: Builder, large: Value, small: Value, size: Value) -> Value:
    """log1p(small), or ln(2 size) where size is large."""
    y = log1p(b, b.select(large, size, small))
    return b.select(large, b.add(y, LN2), y)


@through_f64_if_exact
def atanh(b: Builder, x: Value) -> Value:
    """log1p(2|x| + 2|x| |x| / (1 - |x|)) / 2 with the sign of x."""
    size = b.abs(x)
    twice = b.mul(size, 2.0)
    ratio = b.div(size, b.sub(1.0, size))
    argument = b.select(b.cmp("lt", size, 0.5), b.fma(twice, ratio, twice), b.mul(ratio, 2.0))
    return b.copysign(b.mul(log1p(b, argument), 0.5), x)
