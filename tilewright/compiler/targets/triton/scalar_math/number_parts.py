"""Mantissas and exponents."""

from __future__ import annotations

from tilewright.compiler.targets.triton.scalar_math.helpers import define_both

define_both('''
def mantissa_T(x):
    """m of x = m·2ᵏ with ½ ≤ |m| < 1; 0, infinities and NaN are their own."""
    size = tl.abs(x)
    lifted = tl.where(size < $SMALLEST_NORMAL, x * $FRACTION, x)
    bits = (lifted.to(INTEGER, bitcast=True) & ~$EXPONENT) | $HALF
    return tl.where((size > 0) & (size < float("inf")), bits.to(FLOAT, bitcast=True), x)
''')

define_both('''
def exponent_T(x):
    """k of x = m·2ᵏ with ½ ≤ |m| < 1; 0 for 0, infinities and NaN."""
    size = tl.abs(x)
    subnormal = size < $SMALLEST_NORMAL
    lifted = tl.where(subnormal, size * $FRACTION, size)
    k = (lifted.to(INTEGER, bitcast=True) >> $FRACTION_BITS) - tl.where(subnormal, $LIFTED_BIAS, $BIAS - 1)
    return tl.where((size > 0) & (size < float("inf")), k, 0).to(tl.int32)
''')
