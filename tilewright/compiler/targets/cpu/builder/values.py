"""Types and values of the MLIR text, and the bits of constants."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np

from tilewright.dsl.dtypes import BY_NAME

FLOAT_BITS = {"f64": 64, "f32": 32, "f16": 16, "bf16": 16, "bfloat": 16, "f8e4m3fn": 8, "f8e5m2": 8}
INTEGER_BITS = {"i1": 1, "i8": 8, "i16": 16, "i32": 32, "i64": 64}
FLOAT8 = ("f8e4m3fn", "f8e5m2")
# What MLIR is told: LLVM calls a function to round bfloat16 numbers that a loop finds in a register, where
# there is no instruction for it. Only those of dot products are its own.
SPELT = {"ptr": "!llvm.ptr", "bf16": "i16", "bfloat": "bf16", "f8e4m3fn": "i8", "f8e5m2": "i8"}
STORAGE_FLOATS = ("f16", "bf16", *FLOAT8)  # loaded and stored, never computed in


@dataclass(frozen=True, slots=True)
class Type:
    """An element kind (f64 f32 f16 bf16 f8e4m3fn f8e5m2 i1 i8 i16 i32 i64 ptr; bfloat: bf16 as operands of an
    instruction) and a number of lanes (0: scalar).
    """

    kind: str
    lanes: int = 0

    @property
    def element(self) -> str:
        return SPELT.get(self.kind, self.kind)

    @property
    def is_bits(self) -> bool:
        """Whether these are floats that MLIR takes for integers."""
        return self.is_float and self.element.startswith("i")

    def __str__(self) -> str:
        return f"vector<{self.lanes}x{self.element}>" if self.lanes else self.element

    @property
    def bits(self) -> int:
        """Width of one element."""
        return FLOAT_BITS.get(self.kind) or INTEGER_BITS.get(self.kind) or 64

    @property
    def bytes(self) -> int:
        """Size of one element in memory."""
        return max(1, self.bits // 8)

    @property
    def is_float(self) -> bool:
        return self.kind in FLOAT_BITS

    @property
    def scalar(self) -> Type:
        return Type(self.kind)

    def vector(self, lanes: int) -> Type:
        """The same kind with this many lanes (0: scalar)."""
        return Type(self.kind, lanes)

    def of(self, kind: str) -> Type:
        """The same lanes of another kind."""
        return Type(kind, self.lanes)

    @property
    def integer(self) -> Type:
        """The integer type with the same bits."""
        return Type(f"i{self.bits}", self.lanes)


F64, F32, F16, BF16, BFLOAT = Type("f64"), Type("f32"), Type("f16"), Type("bf16"), Type("bfloat")
I1, I8, I16, I32, I64 = Type("i1"), Type("i8"), Type("i16"), Type("i32"), Type("i64")
PTR = Type("ptr")


@dataclass(frozen=True, slots=True)
class Value:
    """An SSA value of the function that is being written."""

    name: str
    type: Type

    def __str__(self) -> str:
        return self.name

    @property
    def lanes(self) -> int:
        return self.type.lanes


Operand = Value | int | float | bool


def float_bits(x: float, kind: str) -> int:
    """The bits of `x` rounded to nearest even in `kind`."""
    if kind == "f64":
        return struct.unpack("<Q", struct.pack("<d", x))[0]
    if kind == "f16":
        try:
            return struct.unpack("<H", struct.pack("<e", x))[0]
        except OverflowError:
            return 0x7C00 if x > 0 else 0xFC00
    if kind in FLOAT8:
        with np.errstate(all="ignore"):
            return int(np.float64(x).astype(BY_NAME[kind].numpy).view(np.uint8))
    try:
        single = struct.unpack("<I", struct.pack("<f", x))[0]
    except OverflowError:
        single = 0x7F800000 if x > 0 else 0xFF800000
    if kind == "f32":
        return single
    if math.isnan(x):
        return single >> 16 | 0x40
    return (single + 0x7FFF + ((single >> 16) & 1)) >> 16


def wrap(x: int, bits: int) -> int:
    """`x` modulo 2^bits as a signed number, which is how MLIR prints signless constants."""
    x &= (1 << bits) - 1
    return x - (1 << bits) if x >> (bits - 1) else x
