"""The floating-point formats of 8 bits: a sign, an exponent, a mantissa.

    float8_e4m3fn   s eeee mmm   up to 448, no infinity: all ones is NaN, and what is too large becomes NaN
    float8_e5m2     s eeeee mm   up to 57344, infinities and NaN as float16 has them, whose upper byte it is

Narrowing rounds to nearest, ties to even, as ml_dtypes and torch have it; subnormal numbers are kept.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """`beyond` and `nan` are the bits of what is too large and of NaN."""

    mantissa: int
    bias: int
    beyond: int
    nan: int

    @property
    def shift(self) -> int:
        """The bits of a float32's mantissa that are rounded away."""
        return 23 - self.mantissa

    @property
    def rebias(self) -> int:
        """What the upper bits of a float32 are larger by."""
        return 127 - self.bias << self.mantissa

    @property
    def smallest_normal(self) -> float:
        return 2.0 ** (1 - self.bias)

    @property
    def raising(self) -> float:
        """A float32 whose last place counts subnormal numbers: a sum with it is rounded to them."""
        return 2.0 ** (24 - self.bias - self.mantissa)


FORMATS = {
    "f8e4m3fn": Format(mantissa=3, bias=7, beyond=0x7F, nan=0x7F),
    "f8e5m2": Format(mantissa=2, bias=15, beyond=0x7C, nan=0x7E),
}
"""By the dtype's short name."""

E4M3FN_NAN = 480.0
"""The number that the bits of float8_e4m3fn's NaN would be."""
