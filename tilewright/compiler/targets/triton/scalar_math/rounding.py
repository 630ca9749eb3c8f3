"""Signs, bits and rounding."""

from __future__ import annotations

from tilewright.compiler.targets.triton.scalar_math.helpers import define, define_both

define_both('''
def power_of_two_T(n):
    """2ⁿ for an integer n that is a normal exponent."""
    return ((n + $BIAS) << $FRACTION_BITS).to(FLOAT, bitcast=True)
''')

define_both('''
def copysign_T(magnitude, sign):
    """The magnitude of the one with the sign of the other."""
    magnitude_bits = magnitude.to(INTEGER, bitcast=True) & $MAGNITUDE
    sign_bit = sign.to(INTEGER, bitcast=True) & $SIGN
    return (magnitude_bits | sign_bit).to(FLOAT, bitcast=True)
''')

define_both('''
def round_T(x):
    """The nearest integer, ties to even: adding 2^(fraction bits) leaves no room for a fraction."""
    magnitude = tl.abs(x)
    rounded = (magnitude + $FRACTION) - $FRACTION
    return copysign_T(tl.where(magnitude < $FRACTION, rounded, magnitude), x)
''')

define('''
def trunc(x):
    """The integer towards zero."""
    return tl.where(x < 0, tl.ceil(x), tl.floor(x))
''')

define('''
def sign(x):
    """-1, 0 or 1; NaN for NaN."""
    return tl.where(x > 0, 1, tl.where(x < 0, -1, tl.where(x == 0, 0, x))).to(x.dtype)
''')

define('''
def sign_int(x):
    """-1, 0 or 1 of an integer, signed or not."""
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)
''')
