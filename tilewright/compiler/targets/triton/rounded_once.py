"""left · right + addend on NumPy arrays, rounded once, as the fused instruction of a GPU does.

NumPy has no fused multiply-add. Everything rests on sums whose rounding error is a number itself (Knuth), and
on rounding to odd, after which a second, narrower rounding cannot go the wrong way (Boldo and Melquiond,
Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd, 2008).
"""

from __future__ import annotations

import numpy as np

FAR = 300  # bits between two numbers of which the smaller only says on which side of the larger the sum lies


def fma64(left: np.ndarray, right: np.ndarray, addend: np.ndarray) -> np.ndarray:
    """float64, right for every result that is no subnormal, however large the product is on its own."""
    with np.errstate(all="ignore"):
        plain = left * right + addend
        (left, left_exponent), (right, right_exponent) = np.frexp(left), np.frexp(right)
        number, exponent = np.frexp(addend)
        unit = left_exponent + right_exponent
        distance = exponent - unit
        high, low = _product(left, right)
        addend_there = np.ldexp(number, np.clip(distance, -FAR, FAR))
        upper, upper_error = two_sum(addend_there, low)
        total, error = two_sum(high, upper)
        together = np.ldexp(total + add_to_odd(upper_error, error), unit)
        ordinary = np.isfinite(high) & np.isfinite(addend) & (high != 0) & (addend != 0)
        return np.where(ordinary & (distance <= FAR), together, np.where(ordinary, addend, plain))


def fma_narrow(left: np.ndarray, right: np.ndarray, addend: np.ndarray) -> np.ndarray:
    """Of operands of 32 bits or fewer: in float64, where products are exact, rounded to odd."""
    with np.errstate(all="ignore"):
        return add_to_odd(left.astype(np.float64) * right, addend.astype(np.float64))


def float32_to_odd(values: np.ndarray) -> np.ndarray:
    """float64 as float32 rounded to odd, from where a narrower rounding goes the right way as well."""
    bits = values.view(np.int64)
    dropped = np.int64(0x1FFFFFFF)
    odd = np.where(bits & dropped != 0, np.int64(0x20000000), 0)
    with np.errstate(all="ignore"):
        return np.where(np.isfinite(values), ((bits & ~dropped) | odd).view(np.float64), values).astype(
            np.float32
        )


def two_sum(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sum and its rounding error."""
    total = left + right
    back = total - left
    return total, (left - (total - back)) + (right - back)


def add_to_odd(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left + right in float64, an inexact result rounded to the neighbour whose last bit is one."""
    total, error = two_sum(left, right)
    bits = np.array(total).view(np.int64)
    inexact = np.isfinite(total) & (error != 0) & (bits & 1 == 0)
    outward = (error > 0) == (total > 0)
    return (bits + np.where(inexact, np.where(outward, 1, -1), 0)).view(np.float64)


def _product(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The product of float64 numbers below 1 and its rounding error (Dekker)."""
    product = left * right
    (left_high, left_low), (right_high, right_low) = _halves(left), _halves(right)
    lost = ((left_high * right_high - product) + left_high * right_low) + left_low * right_high
    return product, lost + left_low * right_low


def _halves(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A float64 as the sum of two numbers of 26 bits."""
    scaled = value * 134217729.0
    high = scaled - (scaled - value)
    return high, value - high
