"""Scalar functions that Triton lacks, as readable `@triton.jit` source for generated kernels to carry along.

`PRELUDE` maps the name of each helper to its text. `prelude_for(text)` gives the texts that a kernel's source
uses, with what they use in turn, in an order in which each is defined before it is called.

The texts are portable: they use only what compiles for CUDA and HIP and runs in Triton's interpreter, on
scalars and on blocks alike. A name ends in the dtype that it is for; one without such an ending takes both
float32 and float64. Three habits have their reasons:

- a constant stands in an expression, never alone on the right of `=`: the interpreter would make it float32;
- `tl.fma` gets no constants: Triton before 3.8 makes them float32 in float64 code;
- exact differences use `tl.fma` and sums only, so they hold with floating-point contraction on or off.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from tilewright.compiler.targets.triton import coefficients as coefficient
from tilewright.dsl import philox

PRELUDE: dict[str, str] = {}
"""Name of every helper to its source text."""


def _polynomial(result: str, variable: str, coefficients: Sequence[float]) -> str:
    """Horner's scheme as lines of source.

    >>> print(_polynomial("p", "z", (1.0, 2.0, 3.0)))
    p = 3.0 * z + 2.0
    p = p * z + 1.0
    """
    *lower, second, highest = coefficients
    lines = [f"{result} = {highest!r} * {variable} + {_signed(second)}"]
    lines += [f"{result} = {result} * {variable} + {_signed(value)}" for value in reversed(lower)]
    return "\n".join(line.replace("+ -", "- ") for line in lines)


def _signed(value: float) -> str:
    return repr(value)


def _define(text: str) -> None:
    """Add one helper from its text, decorated."""
    text = text.strip("\n")
    name = re.match(r"def (\w+)\(", text)
    assert name is not None
    PRELUDE[name[1]] = f"@triton.jit\n{text}\n"


def _define_both(text: str, **polynomials: str) -> None:
    """Add the float32 and the float64 version of one text.

    In the text, `_T` ends names of helpers, `SQRT(x)`, `EXP(x)` and `DIVIDE(a, b)` are the accurate
    spellings of a dtype, `$NAME` is a constant of `_CONSTANTS`, and a line `POLYNOMIAL p x` puts Horner's
    scheme with the coefficients called NAME there: `p="ASIN"` and so on are given as keywords.
    """
    for suffix in ("f32", "f64"):
        bits = suffix[1:]
        version = text.replace("_T(", f"_{suffix}(")
        index = 0 if suffix == "f32" else 1
        version = re.sub(r"\$(\w+)", lambda found, index=index: repr(_CONSTANTS[found[1]][index]), version)
        for (indent, result, variable), name in zip(
            re.findall(r"( *)POLYNOMIAL (\w+) (\w+)", text), polynomials.values(), strict=True
        ):
            lines = _polynomial(result, variable, getattr(coefficient, f"{name}_{bits}"))
            block = "\n".join(indent + line for line in lines.split("\n"))
            version = version.replace(f"{indent}POLYNOMIAL {result} {variable}", block, 1)
        if suffix == "f32":
            version = version.replace("SQRT(", "tl.sqrt_rn(").replace("EXP(", "exp_f32(")
            version = version.replace("DIVIDE(", "tl.div_rn(")
        else:
            version = version.replace("SQRT(", "tl.sqrt(").replace("EXP(", "tl.exp(")
            version = re.sub(r"DIVIDE\((.*?), (.*?)\)", r"(\1) / (\2)", version)
        version = version.replace("INTEGER", f"tl.int{bits}").replace("FLOAT", f"tl.float{bits}")
        _define(version)


def _split(value: float, low: float, *, single: tuple[float, float]) -> dict[int, tuple[float, float]]:
    """A constant in two parts for each dtype: index 0 and 1 of the result are the high and low parts."""
    return {0: (single[0], value), 1: (single[1], low)}


_PI_2 = _split(1.5707963267948966, 6.123233995736766e-17, single=(1.57079637, -4.37113883e-08))
_PI = _split(3.141592653589793, 1.2246467991473532e-16, single=(3.14159274, -8.74227766e-08))
_ROOT = _split(1.4616321449683622, 9.549995429965697e-17, single=(1.46163213, 1.24381499e-08))
_LOG2E = _split(1.4426950408889634, 2.0355273740931033e-17, single=(1.44269502, 1.92596299e-08))
_TWO_THIRDS = _split(0.6666666666666666, 3.700743415417188e-17, single=(0.666666687, -1.98682153e-08))

_CONSTANTS: dict[str, tuple[float, float]] = {
    # name: (float32, float64)
    "PI_2_HIGH": _PI_2[0],
    "PI_2_LOW": _PI_2[1],
    "PI_HIGH": _PI[0],
    "PI_LOW": _PI[1],
    "ROOT_HIGH": _ROOT[0],
    "ROOT_LOW": _ROOT[1],
    "LOG2E_HIGH": _LOG2E[0],
    "LOG2E_LOW": _LOG2E[1],
    "TWO_THIRDS_HIGH": _TWO_THIRDS[0],
    "TWO_THIRDS_LOW": _TWO_THIRDS[1],
    # ln 2 with so few bits that a multiple by an exponent is exact, and the rest
    "LN2_HIGH": (0.693145752, 0.6931471803691238),
    "LN2_LOW": (1.42860677e-06, 1.9082149292705877e-10),
    # adding and subtracting it rounds to an integer
    "ROUNDER": (12582912.0, 6755399441055744.0),
    "FRACTION": (8388608.0, 4503599627370496.0),
    "FRACTION_BITS": (23, 52),
    "BIAS": (127, 1023),
    "LIFTED_BIAS": (126 + 23, 1022 + 52),
    "EXPONENT": (0x7F800000, 0x7FF0000000000000),
    "HALF": (0x3F000000, 0x3FE0000000000000),
    "MAGNITUDE": (0x7FFFFFFF, 0x7FFFFFFFFFFFFFFF),
    "SIGN": (-(2**31), -(2**63)),
    "SQRT_HALF_BITS": (0x3F3504F3, 0x3FE6A09E667F3BCD),
    "SMALLEST_NORMAL": (1.17549435e-38, 2.2250738585072014e-308),
    "OVERFLOW": (89.0, 710.0),
    "NEAR_OVERFLOW": (88.0, 709.0),
    "MINUS_ONE": (-18.0, -38.0),
    "SATURATED": (10.0, 20.0),
    "EXPONENT_LIMIT": (200.0, 1200.0),
    "LARGE": (1e8, 1e150),
    "STIRLING": (8.0, 12.0),
    "ASYMPTOTIC": (7.0, 12.0),
    "STEPS": (6, 10),
    "ERFC_ZERO": (11.0, 28.0),
}

# --- bits and rounding ------------------------------------------------------------------------------------

_define_both('''
def power_of_two_T(n):
    """2ⁿ for an integer n that is a normal exponent."""
    return ((n + $BIAS) << $FRACTION_BITS).to(FLOAT, bitcast=True)
''')

_define_both('''
def copysign_T(magnitude, sign):
    """The magnitude of the one with the sign of the other."""
    magnitude_bits = magnitude.to(INTEGER, bitcast=True) & $MAGNITUDE
    sign_bit = sign.to(INTEGER, bitcast=True) & $SIGN
    return (magnitude_bits | sign_bit).to(FLOAT, bitcast=True)
''')

_define_both('''
def round_T(x):
    """The nearest integer, ties to even: adding 2^(fraction bits) leaves no room for a fraction."""
    magnitude = tl.abs(x)
    rounded = (magnitude + $FRACTION) - $FRACTION
    return copysign_T(tl.where(magnitude < $FRACTION, rounded, magnitude), x)
''')

_define('''
def trunc(x):
    """The integer towards zero."""
    return tl.where(x < 0, tl.ceil(x), tl.floor(x))
''')

_define('''
def sign(x):
    """-1, 0 or 1; NaN for NaN."""
    return tl.where(x > 0, 1, tl.where(x < 0, -1, tl.where(x == 0, 0, x))).to(x.dtype)
''')

_define('''
def sign_int(x):
    """-1, 0 or 1 of an integer, signed or not."""
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)
''')

# --- exponentials and logarithms --------------------------------------------------------------------------

_define('''
def exp_f32(x):
    """eˣ as 2ᵗ, t = x·log₂e, with the rounding error of t put back; `tl.exp` leaves it out."""
    t = x * 1.44269502
    lost = tl.fma(x, x * 0.0 + 1.44269502, -t) + x * 1.92596299e-08
    power = tl.exp2(t)
    return tl.where(tl.abs(x) < 88.72, power + power * (lost * 0.693147182), power)
''')

_define_both(
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

_define('''
def log1p(x):
    """log(1 + x): log(u) + (x - (u - 1)) / u with u = 1 + x as rounded."""
    u = 1.0 + x
    finite = (u > 0) & (u < float("inf"))
    lost = tl.where(finite, (x - (u - 1.0)) / tl.where(finite, u, 1.0), 0.0)
    return tl.where(u == 1.0, x, tl.log(u) + lost)
''')

_define_both('''
def sigmoid_T(x):
    """1 / (1 + e⁻ˣ), from e^-|x|, which cannot overflow."""
    e = EXP(-tl.abs(x))
    numerator = tl.where(x >= 0, 1.0, e)
    denominator = 1.0 + e
    return DIVIDE(numerator, denominator)
''')

_define_both('''
def softplus_T(x):
    """log(1 + eˣ) = max(x, 0) + log1p(e^-|x|)."""
    return tl.where(x > 0, x, 0.0) + log1p(EXP(-tl.abs(x)))
''')

# --- hyperbolic functions ---------------------------------------------------------------------------------

_define_both('''
def sinh_T(x):
    """(eˣ - e⁻ˣ) / 2 = (E + E / (E + 1)) / 2 with E = expm1(|x|); e^(|x|/2) squared where E overflows."""
    a = tl.abs(x)
    e = expm1_T(tl.where(a < $NEAR_OVERFLOW, a, 0.0))
    half = EXP(0.5 * a)
    y = tl.where(a < $NEAR_OVERFLOW, 0.5 * (e + e / (e + 1.0)), (0.5 * half) * half)
    return copysign_T(y, x)
''')

_define_both('''
def cosh_T(x):
    """(eˣ + e⁻ˣ) / 2; e^(|x|/2) squared where e^|x| overflows."""
    a = tl.abs(x)
    e = EXP(a)
    half = EXP(0.5 * a)
    return tl.where(a < $NEAR_OVERFLOW, 0.5 * e + 0.5 / e, (0.5 * half) * half)
''')

_define(f'''
def tanh_f32(x):
    """An odd polynomial for small x, else 1 - 2 / (e^(2|x|) + 1)."""
    a = tl.abs(x)
    z = a * a
    {_polynomial("p", "z", coefficient.TANH_32).replace(chr(10), chr(10) + "    ")}
    y = tl.where(a < 0.625, a * z * p + a, 1.0 - 2.0 / (exp_f32(2.0 * a) + 1.0))
    return copysign_f32(y, x)
''')

_define('''
def tanh_f64(x):
    """E / (E + 2) with E = expm1(2|x|)."""
    e = expm1_f64(2.0 * tl.minimum(tl.abs(x), 22.0))
    return tl.where(x == x, copysign_f64(e / (e + 2.0), x), x)
''')

_define_both('''
def asinh_T(x):
    """log(|x| + √(x² + 1)), by log1p where |x| is small, with the sign of x."""
    a = tl.abs(x)
    bounded = tl.minimum(a, $LARGE)
    square = bounded * bounded
    small = log1p(bounded + square / (1.0 + SQRT(1.0 + square)))
    return copysign_T(tl.where(a < $LARGE, small, tl.log(a) + 0.6931471805599453), x)
''')

_define_both('''
def acosh_T(x):
    """log(x + √(x² - 1)) = log1p(t + √(t (2 + t))) with t = x - 1."""
    t = tl.minimum(x, $LARGE) - 1.0
    small = log1p(t + SQRT(t * (2.0 + t)))
    y = tl.where(x < $LARGE, small, tl.log(x) + 0.6931471805599453)
    return tl.where(x < 1.0, float("nan"), y)
''')

_define_both('''
def atanh_T(x):
    """log((1 + x) / (1 - x)) / 2 = log1p(2a + 2a² / (1 - a)) / 2 with a = |x|, and the sign of x."""
    a = tl.abs(x)
    twice = a + a
    small = 0.5 * log1p(twice + twice * a / (1.0 - a))
    large = 0.5 * log1p(twice / (1.0 - a))
    return copysign_T(tl.where(a < 0.5, small, large), x)
''')

# --- trigonometric functions ------------------------------------------------------------------------------

_define('''
def tan_f32(x):
    """sin x / cos x."""
    return tl.div_rn(tl.sin(x), tl.cos(x))
''')

_define('''
def tan_f64(x):
    """sin x / cos x."""
    return tl.sin(x) / tl.cos(x)
''')

_define_both(
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

_define_both(
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

_define_both(
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

_define_both('''
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

# --- special functions ------------------------------------------------------------------------------------

_define_both(
    '''
def erfc_T(x):
    """1 - erf(x); from |x| = 1/2 on e^(-x²)·P((a-3) / (a+3)) / (1 + 2a) with a = |x|, or two less it."""
    a = tl.minimum(tl.abs(x), $ERFC_ZERO)
    t = (a - 3.0) / (a + 3.0)
    POLYNOMIAL p t
    square = a * a
    lost = tl.fma(a, a, -square)
    e = EXP(-square)
    e = e - e * lost
    y = DIVIDE(e * p, 1.0 + 2.0 * a)
    y = tl.where(x < 0, 2.0 - y, y)
    return tl.where(tl.abs(x) >= 0.5, y, 1.0 - tl.erf(x))
''',
    p="ERFCX",
)

_define_both(
    '''
def lgamma_T(x):
    """log|Γ(x)|: y·P(y) about Γ(2), reached by Γ(x+1) = x·Γ(x); Stirling's series; reflection below -1/2."""
    a = tl.abs(x)
    low = a < 0.5
    # Γ(2 + y): y = x below 1/2, x - 1 up to 3/2, x - 2 beyond, after steps down from at most the limit
    w = tl.minimum(a, $STIRLING)
    product = tl.where(w < 0, w, 1.0)
    for _ in range($STEPS):
        step = w >= 2.5
        product = tl.where(step, product * (w - 1.0), product)
        w = tl.where(step, w - 1.0, w)
    y = tl.where(low, x, tl.where(a < 1.5, w - 1.0, w - 2.0))
    POLYNOMIAL p y
    logarithm = tl.log(tl.where(low, a * (1.0 + x), tl.where(a < 1.5, a, product)))
    near = y * p + tl.where(a < 1.5, -logarithm, logarithm)
    # Stirling: (a - 1/2)·(log a - 1) + (log 2π - 1)/2 + Σ B₂ₖ / (2k (2k-1) a²ᵏ⁻¹)
    i = 1.0 / tl.maximum(a, $STIRLING)
    z = i * i
    SERIES
    log_a = tl.log(a)
    far = (a - 0.5) * (log_a - 1.0) + (i * q + 0.4189385332046727)
    y = tl.where(a < $STIRLING, near, far)
    # Γ(-a)·Γ(a) = -π / (a·sin(πa))
    distance = tl.abs(a - round_T(a))
    sine = tl.sin($PI_HIGH * distance)
    reflected = 1.1447298858494002 - log_a - tl.log(sine) - y
    y = tl.where(x <= -0.5, tl.where(distance == 0, float("inf"), reflected), y)
    return tl.where(a == float("inf"), a, y)
'''.replace(
        "SERIES",
        _polynomial(
            "q",
            "z",
            (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400),
        ).replace("\n", "\n    "),
    ),
    p="LGAMMA",
)

_define_both(
    '''
def digamma_T(x):
    """ψ(x) = (x - root)·P(x) on [1, 2], reached by ψ(x+1) = ψ(x) + 1/x; a series; reflection below zero."""
    v = tl.where(x < 0, 1.0 - x, x)
    w = tl.where(v < 1.0, v + 1.0, tl.minimum(v, $ASYMPTOTIC))
    total = tl.where(v < 1.0, -1.0 / tl.where(v < 1.0, v, 1.0), 0.0)
    for _ in range($STEPS):
        step = w > 2.0
        total = total + tl.where(step, 1.0 / tl.where(step, w - 1.0, 1.0), 0.0)
        w = tl.where(step, w - 1.0, w)
    u = w - 1.5
    POLYNOMIAL p u
    near = ((w - $ROOT_HIGH) - $ROOT_LOW) * p + total
    # log v - 1/(2v) - Σ B₂ₖ / (2k v²ᵏ)
    i = 1.0 / tl.maximum(v, $ASYMPTOTIC)
    z = i * i
    SERIES
    far = tl.log(v) - (0.5 * i + z * q)
    y = tl.where(v < $ASYMPTOTIC, near, far)
    # ψ(1 - x) = ψ(x) + π·cot(πx)
    distance = x - round_T(x)
    pole = (x <= 0) & (distance == 0)
    turn = $PI_HIGH * distance
    quarter = 0.5 - tl.abs(distance)
    cosine = tl.where(quarter < 0.25, tl.sin($PI_HIGH * quarter), tl.cos(turn))
    cotangent = cosine / tl.where(distance == 0, 1.0, tl.sin(turn))
    y = tl.where(x < 0, y - $PI_HIGH * cotangent, y)
    y = tl.where(pole, float("nan"), tl.where(x == x, y, x))
    return tl.where(x == 0, copysign_T(tl.abs(x) + 1.0, x) * -float("inf"), y)
'''.replace(
        "SERIES",
        _polynomial(
            "q", "z", (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12, -3617 / 8160)
        ).replace("\n", "\n    "),
    ),
    p="DIGAMMA",
)

# --- powers and remainders --------------------------------------------------------------------------------

_define_both(
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

_define_both(
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

_define('''
def remainder_steps(a, b, steps):
    """a mod b for a ≥ 0, b > 0, exact: fma leaves no rounding, and each step shrinks a by 2⁵² or below b."""
    for _ in range(steps):
        quotient = a / b
        whole = tl.where(quotient < 0, tl.ceil(quotient), tl.floor(quotient))
        a = tl.fma(-whole, b, a)
    return tl.where(a < 0, a + b, a)
''')

_define('''
def remainder_by_multiple(a, b):
    """a mod b for a ≥ 0, b > 0 and a / b < 2⁷²⁸, exact; a where b is infinite."""
    finite = b < float("inf")
    return tl.where(finite, remainder_steps(a, tl.where(finite, b, 1.0), 14), a)
''')

_define('''
def fmod_f64(x, y):
    """The remainder of x by y with the sign of x, exact: by multiples of y first, as x / y may overflow."""
    a = tl.abs(x)
    b = tl.abs(y)
    far = b * 5.260135901548374e210  # 2⁷⁰⁰
    r = remainder_by_multiple(remainder_by_multiple(a, far * 5.260135901548374e210), far)
    r = remainder_by_multiple(tl.where(a < float("inf"), r, a - a), b)
    return copysign_f64(tl.where(b == b, r, b), x)
''')

_define('''
def fmod_f32(x, y):
    """The remainder of x by y with the sign of x, exact; in float64, where six steps reach every quotient."""
    a = tl.abs(x).to(tl.float64)
    b = tl.abs(y).to(tl.float64)
    r = remainder_steps(a, b, 6)
    r = tl.where((b == float("inf")) & (a < float("inf")), a, r)
    return copysign_f32(r.to(tl.float32), x)
''')

_define_both('''
def mod_T(x, y):
    """The remainder with the sign of the divisor, as Python's %."""
    r = fmod_T(x, y)
    r = tl.where((r != 0) & ((r < 0) != (y < 0)), r + y, r)
    return tl.where(r == 0, copysign_T(r, y), r)
''')

_define('''
def floordiv_int(x, y):
    """The quotient rounded down, as Python's //; 0 where the divisor is 0."""
    divisor = tl.where(y == 0, 1, y).to(x.dtype)
    q = x // divisor
    r = x - q * divisor
    q = tl.where((r != 0) & ((r < 0) != (divisor < 0)), q - 1, q)
    return tl.where(y == 0, 0, q).to(x.dtype)
''')

_define('''
def mod_int(x, y):
    """The remainder with the sign of the divisor, as Python's %; 0 where the divisor is 0."""
    divisor = tl.where(y == 0, 1, y).to(x.dtype)
    r = x - x // divisor * divisor
    r = tl.where((r != 0) & ((r < 0) != (divisor < 0)), r + divisor, r)
    return tl.where(y == 0, 0, r).to(x.dtype)
''')


# --- parts of numbers -------------------------------------------------------------------------------------

_define_both('''
def mantissa_T(x):
    """m of x = m·2ᵏ with ½ ≤ |m| < 1; 0, infinities and NaN are their own."""
    size = tl.abs(x)
    lifted = tl.where(size < $SMALLEST_NORMAL, x * $FRACTION, x)
    bits = (lifted.to(INTEGER, bitcast=True) & ~$EXPONENT) | $HALF
    return tl.where((size > 0) & (size < float("inf")), bits.to(FLOAT, bitcast=True), x)
''')

_define_both('''
def exponent_T(x):
    """k of x = m·2ᵏ with ½ ≤ |m| < 1; 0 for 0, infinities and NaN."""
    size = tl.abs(x)
    subnormal = size < $SMALLEST_NORMAL
    lifted = tl.where(subnormal, size * $FRACTION, size)
    k = (lifted.to(INTEGER, bitcast=True) >> $FRACTION_BITS) - tl.where(subnormal, $LIFTED_BIAS, $BIAS - 1)
    return tl.where((size > 0) & (size < float("inf")), k, 0).to(tl.int32)
''')

# --- random bits ------------------------------------------------------------------------------------------

_define(f'''
def philox(seed, position, stream):
    """The four words of Philox4x32-10's block for the key `seed` and the counter (position, stream)."""
    k0, k1 = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    c0, c1 = position.to(tl.uint32), (position >> 32).to(tl.uint32)
    c2, c3 = stream.to(tl.uint32), (stream >> 32).to(tl.uint32)
    for _ in tl.static_range({philox.ROUNDS}):
        first, second = c0, c2
        c0 = tl.umulhi(second, {philox.MULTIPLIERS[1]}) ^ c1 ^ k0
        c2 = tl.umulhi(first, {philox.MULTIPLIERS[0]}) ^ c3 ^ k1
        c1 = second * {philox.MULTIPLIERS[1]}
        c3 = first * {philox.MULTIPLIERS[0]}
        k0 = k0 + {philox.WEYL[0]}
        k1 = k1 + {philox.WEYL[1]}
    return c0, c1, c2, c3
''')

for _number in range(philox.WORDS):
    _define(f'''
def philox{_number}(seed, position, stream):
    """Word {_number} of the block."""
    w0, w1, w2, w3 = philox(seed, position, stream)
    return w{_number}.to(tl.int32, bitcast=True)
''')


@functools.cache
def _used_by(name: str) -> tuple[str, ...]:
    return tuple(word for word in _names_in(PRELUDE[name]) if word != name)


def _names_in(text: str) -> list[str]:
    """Helpers that a text calls, in order of first appearance."""
    calls = re.findall(r"(?<![\w.])(\w+)\(", text)
    return [name for name in dict.fromkeys(calls) if name in PRELUDE]


def prelude_for(text: str) -> str:
    """The source of every helper that `text` calls, directly or not; empty when it calls none."""
    ordered: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in ordered:
            return
        for needed in _used_by(name):
            visit(needed)
        ordered[name] = None

    for name in _names_in(text):
        visit(name)
    return "\n\n".join(PRELUDE[name] for name in ordered)
