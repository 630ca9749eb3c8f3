"""Elementary functions as Builder operations on vectors and scalars of f32 and f64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tilewright.compiler.targets.cpu.builder import Builder, Value


@dataclass(frozen=True)
class _Format:
    """The numbers of one float format; every split constant is `high + low` with trailing zeros in `high`."""

    mantissa: int  # stored bits
    bias: int
    magic: float  # 1.5 * 2^mantissa: adding it rounds to an integer, held in the low bits
    ln2_high: float
    ln2_low: float
    exp_range: tuple[float, float]  # beyond it exp is 0 or infinite
    exp: tuple[float, ...]  # e^r on |r| <= ln2 / 2


_F32 = _Format(
    mantissa=23,
    bias=127,
    magic=float.fromhex("0x1.8p23"),
    ln2_high=float.fromhex("0x1.62e400p-1"),
    ln2_low=float.fromhex("0x1.7f7d1cp-20"),
    exp_range=(-104.0, 89.0),
    exp=(
        1.0,
        1.0,
        *map(
            float.fromhex,
            ("0x1.fffffcp-2", "0x1.555492p-3", "0x1.5558f2p-5", "0x1.123a1ep-7", "0x1.6a23e8p-10"),
        ),
    ),
)
_F64 = _Format(
    mantissa=52,
    bias=1023,
    magic=float.fromhex("0x1.8p52"),
    ln2_high=float.fromhex("0x1.62e42fefa3800p-1"),
    ln2_low=float.fromhex("0x1.ef35793c76730p-45"),
    exp_range=(-746.0, 710.0),
    exp=(
        1.0,
        1.0,
        *map(
            float.fromhex,
            (
                "0x1.0p-1 0x1.5555555555555p-3 0x1.555555555555bp-5 0x1.11111111110ecp-7 0x1.6c16c16c1424ep-10 "
                "0x1.a01a01a02c6f6p-13 0x1.a01a01b0bc94cp-16 0x1.71de3a13f42dep-19 0x1.27e4c65cb7a08p-22 "
                "0x1.ae6521f619cfcp-26 0x1.1f9372feb3d62p-29 0x1.607ca7ce71003p-33"
            ).split(),
        ),
    ),
)


def _format(x: Value) -> _Format:
    return _F32 if x.type.kind == "f32" else _F64


def horner(b: Builder, x: Value, coefficients: Sequence[float]) -> Value:
    """c0 + x (c1 + x (c2 + …)) by fused steps."""
    result: Value | float = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        result = b.fma(x, result, c)
    assert isinstance(result, Value)
    return result


def _clamp(b: Builder, x: Value, low: float, high: float) -> Value:
    """x held to [low, high]; NaN stays NaN."""
    return b.max_second(low, b.min_second(high, x))


def _scale(b: Builder, y: Value, shifted: Value) -> Value:
    """y * 2^n rounded once, for n = shifted - magic, in two factors so that subnormal results are right."""
    form = _format(y)
    n = b.sub(b.bitcast(shifted, y.type.integer.kind), _integer_magic(form))
    half = b.shr(n, 1, signed=True)
    return b.mul(b.mul(y, _power(b, half, form, y)), _power(b, b.sub(n, half), form, y))


def _integer_magic(form: _Format) -> int:
    return (form.bias + form.mantissa) << form.mantissa | 1 << (form.mantissa - 1)


def _power(b: Builder, n: Value, form: _Format, like: Value) -> Value:
    """2^n for an integer n in the normal range."""
    return b.bitcast(b.shl(b.add(n, form.bias), form.mantissa), like.type.kind)


def exp(b: Builder, x: Value) -> Value:
    """e^x = 2^n e^r, n the integer nearest x / ln 2, r = x - n ln 2 with ln 2 in two parts."""
    form = _format(x)
    x = _clamp(b, x, *form.exp_range)
    shifted = b.fma(x, 1.4426950408889634, form.magic)
    n = b.sub(shifted, form.magic)
    r = b.fma(n, -form.ln2_low, b.fma(n, -form.ln2_high, x))
    return _scale(b, horner(b, r, form.exp), shifted)


VECTOR_MATH: dict[str, Callable[..., Value]] = {"exp": exp}
