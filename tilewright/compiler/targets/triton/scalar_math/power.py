"""Powers, quotients and remainders."""

from __future__ import annotations

from tilewright.compiler.targets.triton.scalar_math.helpers import define, define_both

define_both(
    '''
def log2_pair_T(a):
    """log₂(a) for a > 0 as an unevaluated sum of two numbers, good to about 1.5 times the precision."""
    subnormal = a < $SMALLEST_NORMAL
    scaled = tl.where(subnormal, a * (2.0 * $FRACTION), a)
    bits = scaled.to(INTEGER, bitcast=True)
    exponent = (bits - $SQRT_HALF_BITS) >> $FRACTION_BITS
    m = (bits - (exponent << $FRACTION_BITS)).to(FLOAT, bitcast=True)
    e = exponent.to(FLOAT) - tl.where(subnormal, $FRACTION_BITS + 1.0, 0.0)
    # log m = 2·atanh(s), s = (m - 1) / (m + 1) with the quotient's error in `lost`
    f = m - 1.0
    d = m + 1.0
    s = DIVIDE(f, d)
    lost = (tl.fma(-s, d, f) - s * (m - (d - 1.0))) / d
    z = s * s
    z_lost = tl.fma(s, s, -z)
    POLYNOMIAL p z
    cube = s * z
    cube_lost = tl.fma(s, z, -cube) + s * z_lost
    two_thirds = z * 0.0 + $TWO_THIRDS_HIGH
    second = cube * two_thirds
    second_lost = tl.fma(cube, two_thirds, -second) + (cube * $TWO_THIRDS_LOW + cube_lost * two_thirds)
    first = s + s
    high = first + second
    low = (second - (high - first)) + (second_lost + cube * z * p + 2.0 * lost * (1.0 + z))
    log2e = z * 0.0 + $LOG2E_HIGH
    part = high * log2e
    part_lost = tl.fma(high, log2e, -part) + (high * $LOG2E_LOW + low * log2e)
    total = e + part
    back = total - e
    return total, (e - (total - back)) + (part - back) + part_lost
''',
    p="LOG",
)

define_both(
    '''
def pow_T(x, y):
    """xʸ as 2^(y·log₂|x|) with the logarithm and the product in two parts; signs and specials as in C."""
    infinity = float("inf")
    a = tl.abs(x)
    log_high, log_low = log2_pair_T(a)
    log_high = tl.where(a == 0, -float("inf"), tl.where(a == float("inf"), a, log_high))
    product = y * log_high
    inside = tl.abs(product) < $EXPONENT_LIMIT
    lost = tl.where(inside, tl.fma(y, log_high, -product) + y * log_low, 0.0)
    bounded = tl.minimum(tl.maximum(product, -$EXPONENT_LIMIT), $EXPONENT_LIMIT)
    n = (bounded + $ROUNDER) - $ROUNDER
    r = ((bounded - n) + lost) * 0.6931471805599453
    POLYNOMIAL p r
    power = 1.0 + (r * r * p + r)
    whole = n.to(INTEGER)
    half = whole >> 1
    power = power * power_of_two_T(half) * power_of_two_T(whole - half)
    power = tl.where(product == product, power, product)
    integer = tl.floor(y) == y
    odd = integer & (tl.floor(0.5 * y) != 0.5 * y)
    negative = x.to(INTEGER, bitcast=True) < 0
    power = tl.where(negative & odd, power * -1.0, power)
    undefined = (x < 0) & (a < float("inf")) & (integer == 0) & (tl.abs(y) < float("inf"))
    power = tl.where(undefined, float("nan"), power)
    one = (x == 1.0) | (y == 0) | ((a == 1.0) & (tl.abs(y) == float("inf")))
    return tl.where(one, 1.0, tl.where(x == x, power, x))
'''.replace('    infinity = float("inf")\n', ""),
    p="EXP",
)

define('''
def remainder_steps(a, b, steps):
    """a mod b for a ≥ 0, b > 0, exact: fma leaves no rounding, and each step shrinks a by 2⁵² or below b."""
    for _ in range(steps):
        quotient = a / b
        whole = tl.where(quotient < 0, tl.ceil(quotient), tl.floor(quotient))
        a = tl.fma(-whole, b, a)
    return tl.where(a < 0, a + b, a)
''')

define('''
def remainder_by_multiple(a, b):
    """a mod b for a ≥ 0, b > 0 and a / b < 2⁷²⁸, exact; a where b is infinite."""
    finite = b < float("inf")
    return tl.where(finite, remainder_steps(a, tl.where(finite, b, 1.0), 14), a)
''')

define('''
def fmod_f64(x, y):
    """The remainder of x by y with the sign of x, exact: by multiples of y first, as x / y may overflow."""
    a = tl.abs(x)
    b = tl.abs(y)
    far = b * 5.260135901548374e210  # 2⁷⁰⁰
    r = remainder_by_multiple(remainder_by_multiple(a, far * 5.260135901548374e210), far)
    r = remainder_by_multiple(tl.where(a < float("inf"), r, a - a), b)
    return copysign_f64(tl.where(b == b, r, b), x)
''')

define('''
def fmod_f32(x, y):
    """The remainder of x by y with the sign of x, exact; in float64, where six steps reach every quotient."""
    a = tl.abs(x).to(tl.float64)
    b = tl.abs(y).to(tl.float64)
    r = remainder_steps(a, b, 6)
    r = tl.where((b == float("inf")) & (a < float("inf")), a, r)
    return copysign_f32(r.to(tl.float32), x)
''')

define_both('''
def mod_T(x, y):
    """The remainder with the sign of the divisor, as Python's %."""
    r = fmod_T(x, y)
    r = tl.where((r != 0) & ((r < 0) != (y < 0)), r + y, r)
    return tl.where(r == 0, copysign_T(r, y), r)
''')

define('''
def floordiv_int(x, y):
    """The quotient rounded down, as Python's //; 0 where the divisor is 0."""
    divisor = tl.where(y == 0, 1, y).to(x.dtype)
    q = x // divisor
    r = x - q * divisor
    q = tl.where((r != 0) & ((r < 0) != (divisor < 0)), q - 1, q)
    return tl.where(y == 0, 0, q).to(x.dtype)
''')

define('''
def mod_int(x, y):
    """The remainder with the sign of the divisor, as Python's %; 0 where the divisor is 0."""
    divisor = tl.where(y == 0, 1, y).to(x.dtype)
    r = x - x // divisor * divisor
    r = tl.where((r != 0) & ((r < 0) != (divisor < 0)), r + divisor, r)
    return tl.where(y == 0, 0, r).to(x.dtype)
''')
