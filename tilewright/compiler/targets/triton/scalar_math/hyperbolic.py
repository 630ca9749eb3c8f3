"""The hyperbolic functions and their inverses."""

from __future__ import annotations

from tilewright.compiler.targets.triton.scalar_math import coefficients as coefficient
from tilewright.compiler.targets.triton.scalar_math.helpers import define, define_both, polynomial

define_both('''
def sinh_T(x):
    """(eˣ - e⁻ˣ) / 2 = (E + E / (E + 1)) / 2 with E = expm1(|x|); e^(|x|/2) squared where E overflows."""
    a = tl.abs(x)
    e = expm1_T(tl.where(a < $NEAR_OVERFLOW, a, 0.0))
    half = EXP(0.5 * a)
    y = tl.where(a < $NEAR_OVERFLOW, 0.5 * (e + e / (e + 1.0)), (0.5 * half) * half)
    return copysign_T(y, x)
''')

define_both('''
def cosh_T(x):
    """(eˣ + e⁻ˣ) / 2; e^(|x|/2) squared where e^|x| overflows."""
    a = tl.abs(x)
    e = EXP(a)
    half = EXP(0.5 * a)
    return tl.where(a < $NEAR_OVERFLOW, 0.5 * e + 0.5 / e, (0.5 * half) * half)
''')

define(f'''
def tanh_f32(x):
    """An odd polynomial for small x, else 1 - 2 / (e^(2|x|) + 1)."""
    a = tl.abs(x)
    z = a * a
    {polynomial("p", "z", coefficient.TANH_32).replace(chr(10), chr(10) + "    ")}
    y = tl.where(a < 0.625, a * z * p + a, 1.0 - 2.0 / (exp_f32(2.0 * a) + 1.0))
    return copysign_f32(y, x)
''')

define('''
def tanh_f64(x):
    """E / (E + 2) with E = expm1(2|x|)."""
    e = expm1_f64(2.0 * tl.minimum(tl.abs(x), 22.0))
    return tl.where(x == x, copysign_f64(e / (e + 2.0), x), x)
''')

define_both('''
def asinh_T(x):
    """log(|x| + √(x² + 1)), by log1p where |x| is small, with the sign of x."""
    a = tl.abs(x)
    bounded = tl.minimum(a, $LARGE)
    square = bounded * bounded
    small = log1p(bounded + square / (1.0 + SQRT(1.0 + square)))
    return copysign_T(tl.where(a < $LARGE, small, tl.log(a) + 0.6931471805599453), x)
''')

define_both('''
def acosh_T(x):
    """log(x + √(x² - 1)) = log1p(t + √(t (2 + t))) with t = x - 1."""
    t = tl.minimum(x, $LARGE) - 1.0
    small = log1p(t + SQRT(t * (2.0 + t)))
    y = tl.where(x < $LARGE, small, tl.log(x) + 0.6931471805599453)
    return tl.where(x < 1.0, float("nan"), y)
''')

define_both('''
def atanh_T(x):
    """log((1 + x) / (1 - x)) / 2 = log1p(2a + 2a² / (1 - a)) / 2 with a = |x|, and the sign of x."""
    a = tl.abs(x)
    twice = a + a
    small = 0.5 * log1p(twice + twice * a / (1.0 - a))
    large = 0.5 * log1p(twice / (1.0 - a))
    return copysign_T(tl.where(a < 0.5, small, large), x)
''')
