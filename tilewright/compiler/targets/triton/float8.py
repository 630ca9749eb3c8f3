"""Floats of 8 bits in Triton: bytes in memory, float16 numbers in a kernel, which holds all of their values.

    x = number_of_f8e4m3fn(tl.load(x_ptr + n))
    tl.store(y_ptr + n, bits_of_f8e4m3fn(y))

By integers, which every architecture has: Triton's own types of 8 bits are missing on some, and its
conversions saturate on others.
"""

from __future__ import annotations

import struct

from tilewright.compiler.targets.triton.writer import ATOM, Value
from tilewright.dsl.dtypes import FLOAT8, DType
from tilewright.dsl.float8 import FORMATS

NATIVE = {"f8e4m3fn": "tl.float8e4nv", "f8e5m2": "tl.float8e5"}
"""Triton's own types, for its products of tiles."""


def native(bits: Value, dtype: DType) -> Value:
    """Bits as Triton's own type."""
    return Value(f"{bits.atom}.to({NATIVE[dtype.short]}, bitcast=True)", ATOM, bits.dims)


def number(bits: Value, dtype: DType) -> Value:
    """The float16 that bits stand for."""
    return Value(f"number_of_{dtype.short}({bits.text})", ATOM, bits.dims)


def loaded(pointer: Value, mask: Value | None, dtype: DType) -> Value:
    """What memory holds there, 0 where the mask does not hold."""
    masked = f", mask={mask.text}, other=0" if mask else ""
    return number(Value(f"tl.load({pointer.text}{masked})", ATOM, pointer.dims), dtype)


def bits(value: Value, dtype: DType) -> Value:
    """The bits of a number of the dtype, as memory has them."""
    start = f"number_of_{dtype.short}(bits_of_{dtype.short}("
    if value.text.startswith(start):
        return Value(value.text.removeprefix(f"number_of_{dtype.short}(").removesuffix(")"), ATOM, value.dims)
    return _rounded(Value(f"{value.atom}.to(tl.float32)", ATOM, value.dims), dtype)


def nearest(value: Value, source: DType, dtype: DType) -> Value:
    """The number of the dtype nearest to one of another."""
    if source.short == "f64":
        value = Value(f"float32_to_odd({value.text})", ATOM, value.dims)
    elif source.short != "f32":
        value = Value(f"{value.atom}.to(tl.float32)", ATOM, value.dims)
    return number(_rounded(value, dtype), dtype)


def _rounded(value: Value, dtype: DType) -> Value:
    return Value(f"bits_of_{dtype.short}({value.text})", ATOM, value.dims)


def _word(number: float) -> str:
    return hex(struct.unpack("<I", struct.pack("<f", number))[0])


def _rounding(dtype: DType) -> str:
    form = FORMATS[dtype.short]
    nan = f"    found = tl.where(size > 0x7F800000, {form.nan:#x}, found)\n" * (form.nan != form.beyond)
    return f'''@triton.jit
def bits_of_{dtype.short}(x):
    """float32 as the bits of the nearest {dtype.name}, ties to even."""
    word = x.to(tl.uint32, bitcast=True)
    size = word & 0x7FFFFFFF
    up = size + {(1 << form.shift - 1) - 1:#x} + ((size >> {form.shift}) & 1)
    near = (up >> {form.shift}) - {form.rebias:#x}
    subnormal = (tl.abs(x) + {form.raising}).to(tl.uint32, bitcast=True) - {_word(form.raising)}
    found = tl.where(size < {_word(form.smallest_normal)}, subnormal, tl.minimum(near, {form.beyond:#x}))
{nan}    return (found | ((word >> 24) & 0x80)).to(tl.uint8)
'''


HELPERS = {f"bits_of_{dtype.short}": _rounding(dtype) for dtype in FLOAT8} | {
    "number_of_f8e5m2": '''@triton.jit
def number_of_f8e5m2(bits):
    """The bits of a float8_e5m2 as float16, whose upper byte they are."""
    return (bits.to(tl.uint16) << 8).to(tl.float16, bitcast=True)
''',
    "number_of_f8e4m3fn": '''@triton.jit
def number_of_f8e4m3fn(bits):
    """The bits of a float8_e4m3fn as float16, whose exponents are 8 higher."""
    word = bits.to(tl.uint16)
    number = (((word & 0x80) << 8) | ((word & 0x7F) << 7)).to(tl.float16, bitcast=True) * 256.0
    return tl.where((word & 0x7F) == 0x7F, float("nan"), number)
''',
    "float32_to_odd": '''@triton.jit
def float32_to_odd(x):
    """float64 as float32, inexact numbers as the odd neighbour: rounded once more, they are rounded once."""
    near = x.to(tl.float32)
    back = near.to(tl.float64)
    word = near.to(tl.int32, bitcast=True)
    odd = word + tl.where(tl.abs(back) < tl.abs(x), 1, -1)
    moves = (back != x) & (x == x) & ((word & 1) == 0)
    return tl.where(moves, odd, word).to(tl.float32, bitcast=True)
''',
}
