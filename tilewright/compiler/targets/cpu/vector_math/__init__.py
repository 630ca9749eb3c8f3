"""Elementary functions as Builder operations on vectors and scalars of f32 and f64.

`VECTOR_MATH[name](b, x)` writes the operations of one call: polynomials and selects, no branch except around
rare lanes. The hot functions are computed in their own precision; the rare ones of f32 go through the f64
vector and are rounded once, unless fast ones are wanted (FAST_ULP); the remainder of a huge quotient alone
asks the C library. NaN gives NaN; -0, infinities, subnormals and overflow give what C99 Annex F asks for.
MEASURED_ULP says how exact each is, and EXPANDED_ULP functions that are written in terms of them.
"""

from __future__ import annotations

from collections.abc import Callable

from tilewright.compiler.targets.cpu.builder import Value
from tilewright.compiler.targets.cpu.vector_math.accuracy import (
    EXPANDED_ULP,
    FAST_ULP,
    MEASURED_ULP,
    Accuracy,
)
from tilewright.compiler.targets.cpu.vector_math.digamma import digamma
from tilewright.compiler.targets.cpu.vector_math.error_function import erf, erfc
from tilewright.compiler.targets.cpu.vector_math.exponential import (
    cosh,
    exp,
    exp2,
    expm1,
    sigmoid,
    sinh,
    softplus,
    tanh,
)
from tilewright.compiler.targets.cpu.vector_math.log_gamma import lgamma
from tilewright.compiler.targets.cpu.vector_math.logarithm import acosh, asinh, atanh, log, log1p, log2
from tilewright.compiler.targets.cpu.vector_math.power import fmod, pow_, round_half_even, rsqrt
from tilewright.compiler.targets.cpu.vector_math.trigonometric import acos, asin, atan, atan2, cos, sin, tan

VECTOR_MATH: dict[str, Callable[..., Value]] = {
    "exp": exp,
    "exp2": exp2,
    "expm1": expm1,
    "log": log,
    "log2": log2,
    "log1p": log1p,
    "sin": sin,
    "cos": cos,
    "tan": tan,
    "asin": asin,
    "acos": acos,
    "atan": atan,
    "atan2": atan2,
    "sinh": sinh,
    "cosh": cosh,
    "tanh": tanh,
    "asinh": asinh,
    "acosh": acosh,
    "atanh": atanh,
    "erf": erf,
    "erfc": erfc,
    "lgamma": lgamma,
    "digamma": digamma,
    "sigmoid": sigmoid,
    "softplus": softplus,
    "pow": pow_,
    "fmod": fmod,
    "rsqrt": rsqrt,
    "round": round_half_even,
}

__all__ = ["EXPANDED_ULP", "FAST_ULP", "MEASURED_ULP", "VECTOR_MATH", "Accuracy"]
