"""How the texts of helpers are written down: once for both float types, with their constants and polynomials.

The texts are portable: they use only what compiles for CUDA and HIP and runs in Triton's interpreter, on
scalars and on blocks alike. A name ends in the dtype that it is for; one without such an ending takes both
float32 and float64. Three habits have their reasons:

- a constant stands in an expression, never alone on the right of `=`: the interpreter would make it float32;
- `tl.fma` gets no constants: Triton before 3.8 makes them float32 in float64 code;
- exact differences use `tl.fma` and sums only, so they hold with floating-point contraction on or off.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tilewright.compiler.targets.triton.scalar_math import coefficients as coefficient

PRELUDE: dict[str, str] = {}
"""Name of every helper to its source text."""


def polynomial(result: str, variable: str, coefficients: Sequence[float]) -> str:
    """Horner's scheme as lines of source.

    >>> print(polynomial("p", "z", (1.0, 2.0, 3.0)))
    p = 3.0 * z + 2.0
    p = p * z + 1.0
    """
    *lower, second, highest = coefficients
    lines = [f"{result} = {highest!r} * {variable} + {second!r}"]
    lines += [f"{result} = {result} * {variable} + {value!r}" for value in reversed(lower)]
    return "\n".join(line.replace("+ -", "- ") for line in lines)


def define(text: str) -> None:
    """Add one helper from its text, decorated."""
    text = text.strip("\n")
    name = re.match(r"def (\w+)\(", text)
    assert name is not None
    PRELUDE[name[1]] = f"@triton.jit\n{text}\n"


def define_both(text: str, **polynomials: str) -> None:
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
            lines = polynomial(result, variable, getattr(coefficient, f"{name}_{bits}"))
            block = "\n".join(indent + line for line in lines.split("\n"))
            version = version.replace(f"{indent}POLYNOMIAL {result} {variable}", block, 1)
        if suffix == "f32":
            version = version.replace("SQRT(", "tl.sqrt_rn(").replace("EXP(", "exp_f32(")
            version = version.replace("DIVIDE(", "tl.div_rn(")
        else:
            version = version.replace("SQRT(", "tl.sqrt(").replace("EXP(", "tl.exp(")
            version = re.sub(r"DIVIDE\((.*?), (.*?)\)", r"(\1) / (\2)", version)
        version = version.replace("INTEGER", f"tl.int{bits}").replace("FLOAT", f"tl.float{bits}")
        define(version)


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
