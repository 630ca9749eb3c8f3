"""How far each function is from the exact value: a table that the tests hold the functions to.

f32: the largest error over all 2^32 arguments where `every_argument` says so, else over about three million
that cover every exponent and sign, both by table and without. f64: the largest over some ten thousand random
arguments against 120-bit arithmetic, dense where a formula changes, raised by a tenth or more because others
may be worse.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Accuracy:
    """Errors in units of the last place: 0.5 is correct rounding."""

    f32: float
    f64: float
    every_argument: bool = False
    note: str = ""


@dataclass(frozen=True)
class FastAccuracy:
    """Errors of fast functions of f32."""

    f32: float
    note: str = ""


MEASURED_ULP: dict[str, Accuracy] = {
    "exp": Accuracy(0.90, 0.90, every_argument=True),
    "exp2": Accuracy(0.92, 0.95, every_argument=True),
    "expm1": Accuracy(1.50, 1.90, every_argument=True),
    "log": Accuracy(1.60, 0.90, every_argument=True),
    "log2": Accuracy(1.90, 1.70, every_argument=True),
    "log1p": Accuracy(1.60, 1.00, every_argument=True),
    "sin": Accuracy(1.90, 1.80, every_argument=True),
    "cos": Accuracy(1.90, 1.90, every_argument=True),
    "tan": Accuracy(0.51, 1.00, every_argument=True),
    "asin": Accuracy(0.51, 1.80, every_argument=True),
    "acos": Accuracy(0.51, 1.20, every_argument=True),
    "atan": Accuracy(0.51, 1.60, every_argument=True),
    "atan2": Accuracy(0.51, 1.95),
    "sinh": Accuracy(0.51, 1.70, every_argument=True),
    "cosh": Accuracy(0.51, 1.40, every_argument=True),
    "tanh": Accuracy(1.60, 1.40, every_argument=True),
    "asinh": Accuracy(0.51, 1.70, every_argument=True),
    "acosh": Accuracy(0.51, 1.80, every_argument=True),
    "atanh": Accuracy(0.51, 1.80, every_argument=True),
    "erf": Accuracy(1.28, 1.20, every_argument=True),
    "erfc": Accuracy(0.51, 2.00, every_argument=True),
    "lgamma": Accuracy(
        0.51, 0.90, every_argument=True, note="x > -1/2 in f64; below, relative to max(|result|, 1)"
    ),
    "digamma": Accuracy(
        0.52,
        1.40,
        every_argument=True,
        note="x > 0 in f64; below, relative to max(|result|, 1 / distance to a pole)",
    ),
    "sigmoid": Accuracy(1.70, 1.60, every_argument=True),
    "softplus": Accuracy(1.82, 1.80),
    "pow": Accuracy(0.51, 0.90),
    "fmod": Accuracy(0.0, 0.0),
    "rsqrt": Accuracy(1.50, 1.50, every_argument=True),
    "round": Accuracy(0.0, 0.0, every_argument=True),
}

FAST_ULP: dict[str, FastAccuracy] = {
    "tan": FastAccuracy(1.30),
    "asin": FastAccuracy(1.60),
    "acos": FastAccuracy(1.30),
    "atan": FastAccuracy(2.30),
    "atan2": FastAccuracy(2.70),
    "sinh": FastAccuracy(1.80),
    "cosh": FastAccuracy(1.50),
    "asinh": FastAccuracy(2.30),
    "acosh": FastAccuracy(2.40),
    "atanh": FastAccuracy(2.30),
    "erfc": FastAccuracy(2.50),
    "pow": FastAccuracy(1.00, "times 1 + |exponent|"),
}
"""Of functions that are computed otherwise where `set_math_accuracy("fast")` was said, over all 2^32
arguments or some millions of pairs."""

EXPANDED_ULP: dict[str, Accuracy] = {
    "logaddexp": Accuracy(1.10, 1.20, note="relative to max(|result|, 1)"),
}
"""Of functions that are written in terms of those: the larger operand and a logarithm may cancel."""
