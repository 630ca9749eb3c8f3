"""The trigonometric functions and their inverses."""

from __future__ import annotations

from tilewright.compiler.targets.triton.scalar_math.helpers import define, define_both

define('''
def tan_f32(x):
    """sin x / cos x."""
    return tl.div_rn(tl.sin(x), tl.cos(x))
''')

define('''
def tan_f64(x):
    """sin x / cos x."""
    return tl.sin(x) / tl.cos(x)
''')

define_both(
    '''
def asin_T(x):
    """s + s³·P(s²) up to 1/2; beyond, π/2 - 2·asin(√((1 - |x|) / 2))."""
    a = tl.abs(x)
    far = a > 0.5
    z = tl.where(far, (1.0 - a) * 0.5, a * a)
    s = tl.where(far, SQRT(z), a)
    POLYNOMIAL p z
    y = s * z * p + s
    y = tl.where(far, ($PI_2_HIGH - 2.0 * y) + $PI_2_LOW, y)
    return copysign_T(y, x)
''',
    p="ASIN",
)

define_both(
    '''
def acos_T(x):
    """π/2 - asin(x) up to 1/2; beyond, 2·asin(√((1 - |x|) / 2)), or π less it."""
    a = tl.abs(x)
    far = a > 0.5
    z = tl.where(far, (1.0 - a) * 0.5, a * a)
    s = tl.where(far, SQRT(z), x)
    POLYNOMIAL p z
    y = s * z * p + s
    near_value = $PI_2_HIGH - (y - $PI_2_LOW)
    far_value = tl.where(x > 0, 2.0 * y, $PI_HIGH - (2.0 * y - $PI_LOW))
    return tl.where(far, far_value, near_value)
''',
    p="ASIN",
)

define_both(
    '''
def atan_T(x):
    """s + s³·P(s²) up to tan(π/8), with atan(x) = π/4 + atan((x-1)/(x+1)) and = π/2 - atan(1/x) beyond."""
    a = tl.abs(x)
    far = a > 2.414213562373095
    middle = a > 0.41421356237309503
    bounded = tl.where(far, 1.0, a)
    s = tl.where(far, -1.0 / tl.where(far, a, 1.0), tl.where(middle, (bounded - 1.0) / (bounded + 1.0), a))
    z = s * s
    POLYNOMIAL p z
    y = s * z * p + s
    part = tl.where(far, 1.0, tl.where(middle, 0.5, 0.0)).to(x.dtype)
    y = part * $PI_2_HIGH + (y + part * $PI_2_LOW)
    return tl.where(x == x, copysign_T(y, x), x)
''',
    p="ATAN",
)

define_both('''
def atan2_T(y, x):
    """The angle of the point (x, y): the arc tangent of the smaller over the larger, by quadrants."""
    across = tl.abs(x)
    up = tl.abs(y)
    larger = tl.maximum(across, up)
    smaller = tl.minimum(across, up)
    divisor = tl.where(larger > 0, larger, 1.0)
    quotient = DIVIDE(smaller, divisor)
    quotient = tl.where(smaller == float("inf"), 1.0, quotient)
    angle = atan_T(quotient)
    angle = tl.where(up > across, $PI_2_HIGH - (angle - $PI_2_LOW), angle)
    left = x.to(INTEGER, bitcast=True) < 0
    angle = tl.where(left, $PI_HIGH - (angle - $PI_LOW), angle)
    return tl.where((x == x) & (y == y), copysign_T(angle, y), x + y)
''')
