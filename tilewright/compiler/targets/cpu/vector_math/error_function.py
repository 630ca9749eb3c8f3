"""erf and erfc."""

from __future__ import annotations

from tilewright.compiler.targets.cpu.builder import Builder, Value
from tilewright.compiler.targets.cpu.vector_math.formats import (
    F32_FORMAT,
    F64_FORMAT,
    format_of,
    hexes,
    of_format,
)
from tilewright.compiler.targets.cpu.vector_math.parts import (
    bits_to_power,
    expm1_polynomial,
    horner,
    scale,
    split_exp,
    through_f64_if_exact,
)
from tilewright.compiler.targets.cpu.vector_math.registers import by_register, has_tables, lookup

# ln erfc(x), 0.91 <= x <= 4, f32.
_LOG_ERFC_F32 = hexes(
    "-0x1.7b06b4p-13 -0x1.20b36ap+0 -0x1.462f08p-1 -0x1.aa14d8p-4 0x1.6ce568p-6",
    "-0x1.9059acp-9 0x1.9d504ep-13",
)
# (1 + 2x) e^(x^2) erfc(x) in q = (x - 4) / (x + 4), 0 <= x <= 28.
_ERFC = hexes(
    "0x1.3ba5916e9fd7fp+0 -0x1.1df1ad154a28fp-3 0x1.f7f5df66fd6ccp-7 0x1.16ecefcfa54a5p-4",
    "-0x1.9ddb23c3e8957p-4 0x1.7fee004e0fdefp-4 -0x1.0fb06dfe55349p-4 0x1.3079edf6d4dadp-5",
    "-0x1.096238829b4efp-6 0x1.49c6726f00383p-8 -0x1.8d4a9c4dc5141p-11",
    "-0x1.a1df1613ad5dfp-13 0x1.3be06c0a62a84p-13 -0x1.995aceb11cb36p-16",
    "-0x1.788dd17557e04p-17 0x1.7f34714381464p-18 0x1.3bdaa4ae744b2p-22",
    "-0x1.bb700f7676db5p-21 0x1.3e4722167957dp-24 0x1.d9e0cc774df88p-24",
    "-0x1.2c1e33729bfc6p-26 -0x1.e3765595c3165p-27 0x1.ccfe16e1814f6p-30",
    "0x1.495304f0b770ep-30",
)
_ERFC_F32 = hexes(  # up to 10.3
    "0x1.3ba592p+0 -0x1.1df1acp-3 0x1.f7d664p-7 0x1.16e958p-4 -0x1.9d9178p-4 0x1.805874p-4",
    "-0x1.1160d4p-4 0x1.294158p-5 -0x1.0269ap-6 0x1.ddf3fcp-8 0x1.05c9e6p-10",
)

# erf in 16 intervals, f32: interval n holds the |x| nearest to n widths. For u = |x| - n width and base b,
# erf |x| = b + u (c1 + u (c2 + …)); b is c0, but |x| itself in interval 0. The width was chosen so that every
# c0 is close to a float.
_ERF_WIDTH = float.fromhex("0x1.047258p-2")
_ERF_LIMIT = 3.94  # above it erf is 1
_ERF_TABLE = (
    hexes(
        "0 0x1.1faaa6p-2 0x1.0e62f6p-1 0x1.705bbp-1 0x1.b3173ap-1 0x1.db156ep-1 0x1.f02beep-1",
        "0x1.f9f47p-1 0x1.fdf2b4p-1 0x1.ff61dp-1 0x1.ffd5ccp-1 0x1.fff60ap-1 0x1.fffdecp-1",
        "0x1.ffff9ep-1 0x1.fffffp-1 0x1.fffffep-1",
    ),
    hexes(
        "0x1.06eba8p-3 0x1.0ec51ep+0 0x1.be032cp-1 0x1.42c18p-1 0x1.9a6edep-2 0x1.ca9632p-3",
        "0x1.c234c8p-4 0x1.845718p-5 0x1.2652bp-6 0x1.87fde8p-8 0x1.cab678p-10 0x1.d7a544p-12",
        "0x1.aa1732p-14 0x1.523862p-16 0x1.d7c78p-19 0x1.211ba8p-21",
    ),
    hexes(
        "0x1.04c198p-22 -0x1.13778ap-2 -0x1.c5c074p-2 -0x1.ec8a0ep-2 -0x1.a19028p-2 -0x1.23993p-2",
        "-0x1.57867p-3 -0x1.59b45ep-4 -0x1.2b6f6p-5 -0x1.c0a2dap-7 -0x1.23a666p-8 -0x1.49d51p-10",
        "-0x1.450622p-12 -0x1.1772fcp-14 -0x1.a3b126p-17 -0x1.137afcp-19",
    ),
    hexes(
        "-0x1.812af6p-2 -0x1.3a55e4p-2 -0x1.1efbb4p-3 0x1.1afb62p-5 0x1.24c9fep-3 0x1.5591ccp-3",
        "0x1.127494p-3 0x1.599b2ap-4 0x1.65228cp-5 0x1.35ab34p-6 0x1.c854aep-8 0x1.1ff93ep-9",
        "0x1.38f4e2p-11 0x1.25f3f8p-13 0x1.de97fp-16 0x1.526122p-18",
    ),
    hexes(
        "0x1.1c799ep-12 0x1.058eaap-3 0x1.750134p-3 0x1.2c1e36p-3 0x1.037dcp-4 -0x1.5b7696p-7",
        "-0x1.77fa66p-5 -0x1.7f4db8p-5 -0x1.07929ep-5 -0x1.18db14p-6 -0x1.e7468ep-8 -0x1.608158p-9",
        "-0x1.af3896p-11 -0x1.c1ee4ep-13 -0x1.92ccdep-15 -0x1.36bb56p-17",
    ),
    hexes(
        "0x1.c6c4ep-4 0x1.45df74p-4 0x1.97b7bp-8 -0x1.bfea14p-5 -0x1.171e2cp-4 -0x1.6acc5p-5",
        "-0x1.8be466p-7 0x1.04a324p-7 0x1.aa5a96p-7 0x1.45e7e4p-7 0x1.63e5c6p-8 0x1.317ffcp-9",
        "0x1.acd018p-11 0x1.f65b3cp-13 0x1.f14ecp-15 0x1.a36b5cp-17",
    ),
)


def erf(b: Builder, x: Value) -> Value:
    """x + x P(x^2) near zero; 1 - erfc(|x|) with the sign of x beyond; f32 by table where there are any."""
    if x.type.kind == "f64":
        return _erf_f64(b, x)
    if has_tables(b, x):
        return by_register(b, x, _erf_by_table)
    size = b.min_second(4.0, b.abs(x))
    near = b.fma(size, horner(b, b.mul(size, size), F32_FORMAT.erf), size)
    r, shifted = split_exp(b, horner(b, size, _LOG_ERFC_F32), extra=F32_FORMAT.bias)
    scale = b.neg(bits_to_power(b, shifted, F32_FORMAT))
    far = b.fma(scale, horner(b, r, (1.0, 1.0, *F32_FORMAT.exp)), 1.0)
    return b.copysign(b.select(b.cmp("lt", size, 0.92), near, far), x)


def _erf_by_table(b: Builder, x: Value) -> Value:
    """A polynomial for each of 16 intervals of |x|."""
    size = b.min_second(_ERF_LIMIT, b.abs(x))
    shifted = b.fma(size, 1 / _ERF_WIDTH, F32_FORMAT.magic)
    interval = b.sub(shifted, F32_FORMAT.magic)
    u = b.fma(interval, -_ERF_WIDTH, size)
    base, *slopes = (lookup(b, b.bitcast(shifted, "i32"), row) for row in _ERF_TABLE)
    y = b.fma(u, horner(b, u, slopes), b.select(b.cmp("gt", interval, 0.0), base, size))
    return b.copysign(y, x)


def _erf_f64(b: Builder, x: Value) -> Value:
    size = b.abs(x)
    near = b.fma(size, horner(b, b.mul(size, size), F64_FORMAT.erf), size)
    far = b.sub(1.0, _erfc_positive(b, size))
    return b.copysign(b.select(b.cmp("lt", size, 1.0), near, far), x)


def _erfc_positive(b: Builder, x: Value) -> Value:
    """erfc(x) = P(q) e^(-x^2) / (1 + 2x) for x >= 0, q = (x - 4) / (x + 4).

    x^2, the quotient and what it is made of are kept in two parts.

    The form of M. M. Shepherd and J. G. Laframboise, Math. Comp. 36 (1981) 249.
    """
    x = b.min_second(of_format(x, 10.3, 28.0), x)
    q = b.div(b.sub(x, 4.0), b.add(x, 4.0))
    square = b.mul(x, x)
    lost = b.fma(x, x, b.neg(square))
    r, shifted = split_exp(b, b.neg(square))
    growth = expm1_polynomial(b, b.sub(r, lost))
    constant, *slopes = of_format(x, _ERFC_F32, _ERFC)
    slope = horner(b, q, slopes)
    top = b.fma(q, slope, constant)
    top_low = b.fma(q, slope, b.sub(constant, top))
    bottom = b.fma(x, 2.0, 1.0)
    bottom_low = b.sub(1.0, b.sub(bottom, b.mul(x, 2.0)))
    y = b.div(top, bottom)
    missing = b.fma(b.neg(y), bottom_low, b.add(b.fma(b.neg(y), bottom, top), top_low))
    growth = b.add(growth, b.div(missing, top))
    return scale(b, b.fma(y, growth, y), shifted)


@through_f64_if_exact
def erfc(b: Builder, x: Value) -> Value:
    """1 - erf(x) where |x| < 1/2; 2 - erfc(-x) below."""
    size = b.abs(x)
    tail = _erfc_positive(b, size)
    outer = b.select(b.cmp("lt", x, 0.0), b.sub(2.0, tail), tail)
    inner = b.sub(1.0, b.fma(x, horner(b, b.mul(x, x), format_of(x).erf), x))
    return b.select(b.cmp("lt", size, 0.5), inner, outer)
