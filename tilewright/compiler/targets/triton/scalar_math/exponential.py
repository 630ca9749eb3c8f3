"""Exponentials, logarithms and the logistic functions."""

from __future__ import annotations

from tilewright.compiler.targets.triton.scalar_math.helpers import define, define_both

define('''
def exp_f32(x):
    """eˣ as 2ᵗ, t = x·log₂e, with the rounding error of t put back; `tl.exp` leaves it out."""
    t = x * 1.44269502
    lost = tl.fma(x, x * 0.0 + 1.44269502, -t) + x * 1.92596299e-08
    power = tl.exp2(t)
    return tl.where(tl.abs(x) < 88.72, power + power * (lost * 0.693147182), power)
''')

define_both(
    '''
def expm1_T(x):
    """eˣ - 1 without cancellation: eʳ - 1 for the remainder r of x by ln 2, scaled by 2ⁿ."""
    limited = tl.minimum(tl.maximum(x, $MINUS_ONE), $OVERFLOW)
    n = (limited * 1.4426950408889634 + $ROUNDER) - $ROUNDER
    r = (limited - n * $LN2_HIGH) - n * $LN2_LOW
    POLYNOMIAL p r
    e = r * r * p + r
    half = power_of_two_T(n.to(INTEGER) - 1)
    y = 2.0 * (half * e + (half - 0.5))
    y = tl.where(n == 0, e, y)
    return tl.where((x == x) & (x != 0), y, x)
''',
    p="EXP",
)

define('''
def log1p(x):
    """log(1 + x): log(u) + (x - (u - 1)) / u with u = 1 + x as rounded."""
    u = 1.0 + x
    finite = (u > 0) & (u < float("inf"))
    lost = tl.where(finite, (x - (u - 1.0)) / tl.where(finite, u, 1.0), 0.0)
    return tl.where(u == 1.0, x, tl.log(u) + lost)
''')

define_both('''
def sigmoid_T(x):
    """1 / (1 + e⁻ˣ), from e^-|x|, which cannot overflow."""
    e = EXP(-tl.abs(x))
    numerator = tl.where(x >= 0, 1.0, e)
    denominator = 1.0 + e
    return DIVIDE(numerator, denominator)
''')

define_both('''
def softplus_T(x):
    """log(1 + eˣ) = max(x, 0) + log1p(e^-|x|)."""
    return tl.where(x > 0, x, 0.0) + log1p(EXP(-tl.abs(x)))
''')
