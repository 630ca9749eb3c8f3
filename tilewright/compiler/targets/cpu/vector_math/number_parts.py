"""Mantissa and exponent: x = m 2^k with 1/2 <= |m| < 1; 0, infinities and NaN are their own m, with k = 0."""

from __future__ import annotations

from tilewright.compiler.targets.cpu.builder import Builder, Value
from tilewright.compiler.targets.cpu.vector_math.formats import INFINITY, Format, format_of


def mantissa(b: Builder, x: Value) -> Value:
    form, word, _, ordinary = _lifted(b, x)
    field = _exponent_field(form, x.type.bits)
    half = (form.bias - 1) << form.mantissa
    return b.select(ordinary, b.bitcast(b.or_(b.and_(word, ~field), half), x.type.kind), x)


def exponent(b: Builder, x: Value) -> Value:
    form, word, tiny, ordinary = _lifted(b, x)
    field = b.and_(
        b.shr(word, form.mantissa, signed=False), _exponent_field(form, x.type.bits) >> form.mantissa
    )
    k = b.sub(field, b.select(tiny, b.constant(form.bias - 1 + form.mantissa, word.type), form.bias - 1))
    return b.convert(b.select(ordinary, k, 0), "i32")


def _exponent_field(form: Format, bits: int) -> int:
    return (2**bits - 2 ** (form.mantissa + 1)) // 2


def _lifted(b: Builder, x: Value) -> tuple[Format, Value, Value, Value]:
    """(format, bits of x made normal, was it subnormal?, is it neither 0 nor infinite nor NaN?)"""
    form = format_of(x)
    size = b.abs(x)
    tiny = b.cmp("lt", size, form.smallest_normal)
    lifted = b.select(tiny, b.mul(x, 2.0**form.mantissa), x)
    ordinary = b.and_(b.cmp("lt", size, INFINITY), b.cmp("gt", size, 0.0))
    return form, b.bitcast(lifted, x.type.integer.kind), tiny, ordinary
