"""erf and erfc."""

from __future__ import annotations

from tilewright.compiler.targets.cpu.builder import Builder, Value
from tilewright.compiler.targets.cpu.vector_math.exponential import exp_negative
from tilewright.compiler.targets.cpu.vector_math.formats import F32_FORMAT, F64_FORMAT, hexes
from tilewright.compiler.targets.cpu.vector_math.parts import (
    bits_to_power,
    horner,
    split_exp,
    through_f64,
)

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


def erf(b: Builder, x: Value) -> Value:
    """x + x P(x^2) near zero; 1 - erfc(|x|) with the sign of x beyond."""
    if x.type.kind == "f64":
        return _erf_f64(b, x)
    size = b.min_second(4.0, b.abs(x))
    near = b.fma(size, horner(b, b.mul(size, size), F32_FORMAT.erf), size)
    r, shifted = split_exp(b, horner(b, size, _LOG_ERFC_F32), extra=F32_FORMAT.bias)
    scale = b.neg(bits_to_power(b, shifted, F32_FORMAT))
    far = b.fma(scale, horner(b, r, (1.0, 1.0, *F32_FORMAT.exp)), 1.0)
    return b.copysign(b.select(b.cmp("lt", size, 0.92), near, far), x)


def _erf_f64(b: Builder, x: Value) -> Value:
    size = b.abs(x)
    near = b.fma(size, horner(b, b.mul(size, size), F64_FORMAT.erf), size)
    far = b.sub(1.0, _erfc_positive(b, size))
    return b.copysign(b.select(b.cmp("lt", size, 1.0), near, far), x)


def _erfc_positive(b: Builder, x: Value) -> Value:
    """erfc(x) = P(q) e^(-x^2) / (1 + 2x) for x >= 0, q = (x - 4) / (x + 4); x^2 is kept in two parts.

    The form of M. M. Shepherd and J. G. Laframboise, Math. Comp. 36 (1981) 249.
    """
    x = b.min_second(28.0, x)
    q = b.div(b.sub(x, 4.0), b.add(x, 4.0))
    square = b.mul(x, x)
    lost = b.fma(x, x, b.neg(square))
    y = b.div(horner(b, q, _ERFC), b.fma(x, 2.0, 1.0))
    return b.mul(b.fma(y, b.neg(lost), y), exp_negative(b, b.neg(square)))


@through_f64
def erfc(b: Builder, x: Value) -> Value:
    """1 - erf(x) where |x| < 1/2; 2 - erfc(-x) below."""
    size = b.abs(x)
    tail = _erfc_positive(b, size)
    outer = b.select(b.cmp("lt", x, 0.0), b.sub(2.0, tail), tail)
    inner = b.sub(1.0, b.fma(x, horner(b, b.mul(x, x), F64_FORMAT.erf), x))
    return b.select(b.cmp("lt", size, 0.5), inner, outer)
