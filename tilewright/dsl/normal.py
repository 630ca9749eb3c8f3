"""The quantile function of the standard normal distribution over 64-bit integers, for random numbers.

Only + - * / of float64, each rounded once as IEEE 754 has it: every target that does not contract them gives
the same bits. Within 4e-15 of the exact quantile, relatively.

With p the smaller tail and w = -log(4 p (1 - p)) the quantile is (p - ½) · N(w) / D(w): the quotient is
smooth down to the smallest tail, 2⁻⁶⁵. (The substitution is that of M. Giles, "Approximating the erfinv
function", 2011; the coefficients were fitted for this place in 80 digits, by rational least squares.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tilewright.dsl import scalars
from tilewright.dsl.dtypes import float64
from tilewright.dsl.expression import cast

LARGEST = 2**63 - 1
UNIT = 2.0**-64
NUMERATOR = (
    2.506628274630993, 0.9503310791392398, 0.26250544782649976, 0.051582158617186506,
    0.0077671545604290305, 0.0009258528738636045, 8.782066353073452e-05, 6.644851870232345e-06,
    4.047305184661953e-07, 2.00053180736335e-08, 7.029228978452379e-10, 2.046083579669615e-11,
    1.352305763485138e-13, 8.566725776127862e-17,
)  # fmt: skip
DENOMINATOR = (
    1.0, 0.11732786004875087, 0.06097612309542624, 0.005720651305063813, 0.0012599665474770884,
    8.997259983086639e-05, 1.0493759525435019e-05, 5.454394915306323e-07, 3.737149298866167e-08,
    1.283671995866627e-09, 4.948473827516523e-11, 7.374217518888914e-13, 1.8078074638264406e-15,
)  # fmt: skip

LOG_2 = 0.6931471805599453
ROOT_OF_HALF = 0.7071067811865476
TWICE_ATANH = (
    0.666666666666667, 0.3999999999989945, 0.28571428626001427, 0.22222211130560726, 0.18182889433757515,
    0.15331711346672997, 0.14616576421644387,
)  # fmt: skip
"""(2 atanh(s) / s - 2) / s² in powers of s², for s² up to 0.0295."""


def quantile(bits: Any) -> Any:
    """z(n) for int64 n: the number below which a share ½ + (n + ½) / 2⁶⁴ of the normal distribution lies.

    Increasing in n and odd about -½: z(~n) = -z(n).
    """
    negative = bits < 0
    middle = scalars.where(negative, ~bits, bits)
    tail = (cast(LARGEST - middle, float64) + 0.5) * UNIT
    w = -logarithm(4.0 * tail * (1.0 - tail))
    distance = (cast(middle, float64) + 0.5) * UNIT
    size = distance * (polynomial(w, NUMERATOR) / polynomial(w, DENOMINATOR))
    return scalars.where(negative, -size, size)


def logarithm(x: Any) -> Any:
    """log x = k log 2 + 2 atanh((m - 1) / (m + 1)) for x = m 2ᵏ with √½ ≤ m < √2."""
    m, k = scalars.mantissa(x), cast(scalars.exponent(x), float64)
    low = m < ROOT_OF_HALF
    m = scalars.where(low, m + m, m)
    k = scalars.where(low, k - 1.0, k)
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    return k * LOG_2 + s * (2.0 + z * polynomial(z, TWICE_ATANH))


def polynomial(x: Any, coefficients: Sequence[float]) -> Any:
    """c₀ + x (c₁ + x (c₂ + …))"""
    result: Any = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        result = result * x + c
    return result
