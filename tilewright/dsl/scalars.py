"""The scalar table: every function of numbers that the language has, one row each.

A row holds the name, the NumPy and sympy meanings, the typing rule, and where needed a stable partial
derivative (`grad`, written with the result `y` and the operands; a test proves it equal to sympy's) or an
`expand`: the function in terms of other rows, for targets that have no spelling of their own. A row is
callable on the language's expressions, so rows are written in terms of each other. Targets keep their
spellings by row name.

To add a function, add a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tilewright.dsl import meanings
from tilewright.dsl.dtypes import DType
from tilewright.dsl.meanings import elementwise, sp
from tilewright.dsl.philox import WORDS, word_of_block
from tilewright.dsl.scalar_types import (
    arithmetic,
    bitwise,
    choice,
    comparison,
    floating,
    from_bits,
    marking,
    predicate,
    random_word,
    shifting,
    whole,
)

SCALARS: dict[str, ScalarFunction] = {}

apply: Callable[[ScalarFunction, tuple[Any, ...]], Any] | None = None
"""`expression.apply`, which is built on this table, and sets itself here."""

TypeRule = Callable[[str, tuple[DType, ...]], DType]


@dataclass(frozen=True, eq=False)
class ScalarFunction:
    """One row. `infix` is the operator that formulas print, `domain` where tests draw operands.

    `same_bits`: the result is the reference's to the last bit on every target, so nothing in a kernel that
    has the function may be contracted. `jumps`: an operand changed in its last bit may change all of the
    result (`dsl.jumps`).
    """

    name: str
    arity: int
    numpy: Callable[..., Any]
    types: TypeRule
    sympy: Callable[..., Any] | None = None
    grad: Callable[..., tuple[Any, ...]] | None = None
    expand: Callable[..., Any] | None = None
    infix: str | None = None
    domain: tuple[float, float] = (-4.0, 4.0)
    ulp: float = 2.0
    same_bits: bool = False
    jumps: bool = False

    def result_dtype(self, operands: tuple[DType, ...]) -> DType:
        return self.types(self.name, operands)

    def __call__(self, *operands: Any) -> Any:
        assert apply is not None
        return apply(self, operands)


def scalar(name: str, arity: int = 1, **fields: Any) -> ScalarFunction:
    row = ScalarFunction(name, arity, **fields)
    SCALARS[name] = row
    return row


def _by_expansion(name: str) -> Callable[..., Any]:
    """The meaning of a row that is defined by its `expand`: what the reference makes of that."""

    def call(*operands: Any) -> Any:
        from tilewright.dsl.reference import value_of_expansion

        return value_of_expansion(SCALARS[name], operands)

    return call


# --- arithmetic -------------------------------------------------------------------------------------------

add = scalar(
    "add", 2, numpy=np.add, sympy=lambda x, y: x + y, types=arithmetic, infix="+", grad=lambda y, a, b: (1, 1)
)
sub = scalar(
    "sub",
    2,
    numpy=np.subtract,
    sympy=lambda x, y: x - y,
    types=arithmetic,
    infix="-",
    grad=lambda y, a, b: (1, -1),
)
mul = scalar(
    "mul",
    2,
    numpy=np.multiply,
    sympy=lambda x, y: x * y,
    types=arithmetic,
    infix="*",
    grad=lambda y, a, b: (b, a),
)
div = scalar(
    "div", 2, numpy=np.divide, sympy=lambda x, y: x / y, types=floating, infix="/",
    grad=lambda y, a, b: (1 / b, -(y / b)),
)  # fmt: skip
neg = scalar("neg", numpy=np.negative, sympy=lambda x: -x, types=arithmetic, grad=lambda y, x: (-1,))
floordiv = scalar(
    "floordiv",
    2,
    numpy=meanings.floordiv,
    types=arithmetic,
    infix="//",
    grad=lambda y, a, b: (None, None),
    jumps=True,
)
mod = scalar(
    "mod", 2, numpy=np.mod, types=arithmetic, infix="%", grad=lambda y, a, b: (1, -floor(a / b)), jumps=True
)
fmod = scalar("fmod", 2, numpy=np.fmod, types=floating, grad=lambda y, a, b: (1, -trunc(a / b)), jumps=True)
power = scalar(
    "pow", 2, numpy=np.power, sympy=lambda x, y: x**y, types=floating, infix="**", domain=(0.1, 4.0),
    grad=lambda y, a, b: (
        where(b == 0, 0, b * power(a, b - 1)),
        where(a == 0, where(b == 0, 0, where(b > 0, 0, y)), y * log(a)),
    ),
)  # fmt: skip
abs_ = scalar("abs", numpy=np.abs, sympy=sp("Abs"), types=arithmetic, grad=lambda y, x: (sign(x),))
sign = scalar("sign", numpy=np.sign, types=arithmetic, grad=lambda y, x: (None,), jumps=True)
minimum = scalar(
    "minimum", 2, numpy=np.minimum, types=arithmetic,
    grad=lambda y, a, b: (_share(a < b, a == b, a), _share(b < a, a == b, a)),
)  # fmt: skip
maximum = scalar(
    "maximum", 2, numpy=np.maximum, types=arithmetic,
    grad=lambda y, a, b: (_share(a > b, a == b, a), _share(b > a, a == b, a)),
)  # fmt: skip


def _share(wins: Any, ties: Any, like: Any) -> Any:
    """1 where an operand wins, 1/2 at a tie, 0 where it loses."""
    return where(wins, 1, where(ties, 0.5, 0))


# --- exponentials and powers ------------------------------------------------------------------------------

exp = scalar("exp", numpy=np.exp, sympy=sp("exp"), types=floating, grad=lambda y, x: (y,), domain=(-30, 30))
exp2 = scalar(
    "exp2", numpy=np.exp2, sympy=lambda x: 2**x, types=floating, grad=lambda y, x: (y * 0.6931471805599453,),
    domain=(-30, 30),
)  # fmt: skip
expm1 = scalar(
    "expm1", numpy=np.expm1, sympy=lambda x: sp("exp")(x) - 1, types=floating, grad=lambda y, x: (y + 1,)
)
log = scalar(
    "log", numpy=np.log, sympy=sp("log"), types=floating, grad=lambda y, x: (1 / x,), domain=(0.01, 100)
)
log2 = scalar(
    "log2", numpy=np.log2, sympy=lambda x: sp("log")(x, 2), types=floating, domain=(0.01, 100),
    grad=lambda y, x: (1.4426950408889634 / x,),
)  # fmt: skip
log1p = scalar(
    "log1p", numpy=np.log1p, sympy=lambda x: sp("log")(1 + x), types=floating, domain=(-0.9, 100),
    grad=lambda y, x: (1 / (1 + x),),
)  # fmt: skip
sqrt = scalar(
    "sqrt", numpy=np.sqrt, sympy=sp("sqrt"), types=floating, grad=lambda y, x: (0.5 / y,), domain=(0.01, 100)
)
rsqrt = scalar(
    "rsqrt", numpy=lambda x: 1 / np.sqrt(x), sympy=lambda x: 1 / sp("sqrt")(x), types=floating,
    grad=lambda y, x: (-0.5 * y / x,), domain=(0.01, 100),
)  # fmt: skip

# --- trigonometric and hyperbolic -------------------------------------------------------------------------

sin = scalar(
    "sin", numpy=np.sin, sympy=sp("sin"), types=floating, grad=lambda y, x: (cos(x),), domain=(-10, 10)
)
cos = scalar(
    "cos", numpy=np.cos, sympy=sp("cos"), types=floating, grad=lambda y, x: (-sin(x),), domain=(-10, 10)
)
tan = scalar(
    "tan", numpy=np.tan, sympy=sp("tan"), types=floating, grad=lambda y, x: (1 + y * y,), domain=(-1.4, 1.4)
)
asin = scalar(
    "asin", numpy=np.arcsin, sympy=sp("asin"), types=floating, domain=(-0.95, 0.95),
    grad=lambda y, x: (rsqrt((1 - x) * (1 + x)),),
)  # fmt: skip
acos = scalar(
    "acos", numpy=np.arccos, sympy=sp("acos"), types=floating, domain=(-0.95, 0.95),
    grad=lambda y, x: (-rsqrt((1 - x) * (1 + x)),),
)  # fmt: skip
atan = scalar("atan", numpy=np.arctan, sympy=sp("atan"), types=floating)
atan2 = scalar("atan2", 2, numpy=np.arctan2, sympy=sp("atan2"), types=floating)
sinh = scalar("sinh", numpy=np.sinh, sympy=sp("sinh"), types=floating)
cosh = scalar("cosh", numpy=np.cosh, sympy=sp("cosh"), types=floating)
tanh = scalar("tanh", numpy=np.tanh, sympy=sp("tanh"), types=floating, grad=lambda y, x: (1 - y * y,))
asinh = scalar("asinh", numpy=np.arcsinh, sympy=sp("asinh"), types=floating)
acosh = scalar(
    "acosh", numpy=np.arccosh, sympy=sp("acosh"), types=floating, domain=(1.05, 100),
    grad=lambda y, x: (rsqrt((x - 1) * (x + 1)),),
)  # fmt: skip
atanh = scalar(
    "atanh", numpy=np.arctanh, sympy=sp("atanh"), types=floating, domain=(-0.95, 0.95),
    grad=lambda y, x: (1 / ((1 - x) * (1 + x)),),
)  # fmt: skip

# --- special functions ------------------------------------------------------------------------------------

erf = scalar(
    "erf", numpy=elementwise("erf"), sympy=sp("erf"), types=floating,
    grad=lambda y, x: (1.1283791670955126 * exp(-(x * x)),),
)  # fmt: skip
erfc = scalar(
    "erfc", numpy=elementwise("erfc"), sympy=sp("erfc"), types=floating,
    grad=lambda y, x: (-1.1283791670955126 * exp(-(x * x)),),
)  # fmt: skip
lgamma = scalar(
    "lgamma", numpy=meanings.lgamma, sympy=sp("loggamma"), types=floating, domain=(0.05, 30),
    grad=lambda y, x: (digamma(x),),
)  # fmt: skip
digamma = scalar(
    "digamma", numpy=lambda x: meanings.polygamma(0, x), sympy=sp("digamma"), types=floating,
    grad=lambda y, x: (polygamma(1, x),), domain=(0.1, 30), ulp=16,
)  # fmt: skip
polygamma = scalar(
    "polygamma", 2, numpy=meanings.polygamma, sympy=sp("polygamma"), types=floating, domain=(0.1, 30), ulp=64,
    grad=lambda y, n, x: (None, polygamma(n + 1, x)),
    expand=lambda n, x: _polygamma(n, x),
)  # fmt: skip
sigmoid = scalar(
    "sigmoid", numpy=meanings.sigmoid, sympy=lambda x: 1 / (1 + sp("exp")(-x)), types=floating,
    domain=(-30, 30), grad=lambda y, x: (y * (1 - y),),
)  # fmt: skip
softplus = scalar(
    "softplus", numpy=lambda x: np.logaddexp(0, x), sympy=lambda x: sp("log")(1 + sp("exp")(x)),
    types=floating, grad=lambda y, x: (sigmoid(x),), domain=(-30, 30),
)  # fmt: skip
logaddexp = scalar(
    "logaddexp", 2, numpy=np.logaddexp, sympy=lambda x, y: sp("log")(sp("exp")(x) + sp("exp")(y)),
    types=floating, domain=(-30, 30),
    grad=lambda y, a, b: (exp(a - _finite_below(y)), exp(b - _finite_below(y))),
    expand=lambda a, b: maximum(a, b) + log1p(exp(where(a == b, 0, -abs_(a - b)))),
)  # fmt: skip


def _finite_below(y: Any) -> Any:
    """y, or 0 where y is -inf: log(0 + 0), whose operands have the partials exp(-inf) = 0."""
    return where(y == float("-inf"), 0, y)


def _polygamma(n: Any, x: Any) -> Any:
    """ψ⁽ⁿ⁾(x) for a constant n: the series for x > 0, below it the reflection.

    ψ⁽ⁿ⁾(x) = (-1)ⁿ ψ⁽ⁿ⁾(1 - x) - π dⁿ/dxⁿ cot πx   (Abramowitz & Stegun 6.4.7)
    At the poles 0, -1, -2, … infinite for an odd n, whose two sides agree, else NaN. Near the roots that an
    even n has between poles the error is small beside the two terms, not beside the result.
    """
    import math

    order = int(n.constant_value())
    if order == 0:
        return digamma(x)
    positive = x > 0
    value = _polygamma_series(order, where(positive, x, 1 - x))
    turn = x - round_(x)
    reflected = (-1) ** order * value - math.pi ** (order + 1) * _cotangent_slope(
        order, 1 / tan(math.pi * turn)
    )
    pole = float("inf") if order % 2 else float("nan")
    return where(positive, value, where(turn == 0, pole, reflected))


def _cotangent_slope(order: int, cotangent: Any) -> Any:
    """dⁿ/dtⁿ cot t as a polynomial in c = cot t: Q₀ = c and Qₙ₊₁ = -(1 + c²) Qₙ'."""
    coefficients = [0, 1]
    for _ in range(order):
        slope = [-power * c for power, c in enumerate(coefficients)][1:]
        padded, shifted = [*slope, 0, 0], [0, 0, *slope]
        coefficients = [a + b for a, b in zip(padded, shifted, strict=True)]
    square = cotangent * cotangent
    *rest, result = coefficients[(order + 1) % 2 :: 2]
    for c in reversed(rest):
        result = result * square + c
    return result if order % 2 else result * cotangent


def _polygamma_series(order: int, x: Any) -> Any:
    """ψ⁽ⁿ⁾(x) for n ≥ 1 and x > 0: recurrence up to x + 12, then the asymptotic series.

    ψ⁽ⁿ⁾(x) = (-1)ⁿ⁺¹ n! [Σ_{k<12} (x+k)⁻ⁿ⁻¹ + z⁻ⁿ/n + z⁻ⁿ⁻¹/2 + Σ_j B₂ⱼ (2j+n-1)!/((2j)! n!) z⁻²ʲ⁻ⁿ],
    z = x + 12   (Abramowitz & Stegun 6.4.6, 6.4.11)
    """
    import math

    shifts = 12
    bernoulli = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)
    z = x + shifts

    def inverse_power(base: Any, exponent: int) -> Any:
        inverse = 1 / base
        result = inverse
        for _ in range(exponent - 1):
            result = result * inverse
        return result

    total = inverse_power(z, order) * (1 / order) + inverse_power(z, order + 1) * 0.5
    for j, b in enumerate(bernoulli, start=1):
        coefficient = b * math.factorial(2 * j + order - 1) / (math.factorial(2 * j) * math.factorial(order))
        total = total + coefficient * inverse_power(z, 2 * j + order)
    for k in reversed(range(shifts)):
        total = total + inverse_power(x + k, order + 1)
    return (-1) ** (order + 1) * math.factorial(order) * total


# --- rounding ---------------------------------------------------------------------------------------------

floor = scalar("floor", numpy=np.floor, types=floating, grad=lambda y, x: (None,), jumps=True)
ceil = scalar("ceil", numpy=np.ceil, types=floating, grad=lambda y, x: (None,), jumps=True)
round_ = scalar("round", numpy=np.rint, types=floating, grad=lambda y, x: (None,), jumps=True)
trunc = scalar("trunc", numpy=np.trunc, types=floating, grad=lambda y, x: (None,), jumps=True)

# --- parts of numbers -------------------------------------------------------------------------------------

mantissa = scalar(
    "mantissa",
    numpy=lambda x: np.frexp(x)[0],
    types=floating,
    grad=lambda y, x: (where(x == 0, 0, y / x),),
    jumps=True,
)
exponent = scalar(
    "exponent", numpy=lambda x: np.where(np.isfinite(x), np.frexp(x)[1], 0), types=whole,
    grad=lambda y, x: (None,), jumps=True,
)  # fmt: skip

# --- predicates, logic, bits ------------------------------------------------------------------------------

isnan = scalar("isnan", numpy=np.isnan, types=predicate)
isinf = scalar("isinf", numpy=np.isinf, types=predicate)
isfinite = scalar("isfinite", numpy=np.isfinite, types=predicate)
eq = scalar("eq", 2, numpy=np.equal, types=comparison, infix="==", jumps=True)
ne = scalar("ne", 2, numpy=np.not_equal, types=comparison, infix="!=", jumps=True)
lt = scalar("lt", 2, numpy=np.less, types=comparison, infix="<", jumps=True)
le = scalar("le", 2, numpy=np.less_equal, types=comparison, infix="<=", jumps=True)
gt = scalar("gt", 2, numpy=np.greater, types=comparison, infix=">", jumps=True)
ge = scalar("ge", 2, numpy=np.greater_equal, types=comparison, infix=">=", jumps=True)
and_ = scalar("and", 2, numpy=np.bitwise_and, types=bitwise, infix="&")
or_ = scalar("or", 2, numpy=np.bitwise_or, types=bitwise, infix="|")
xor = scalar("xor", 2, numpy=np.bitwise_xor, types=bitwise, infix="^")
not_ = scalar("not", numpy=np.invert, types=bitwise)
shl = scalar("shl", 2, numpy=np.left_shift, types=shifting, infix="<<")
shr = scalar("shr", 2, numpy=np.right_shift, types=shifting, infix=">>")
where = scalar(
    "where", 3, numpy=np.where, types=choice, grad=lambda y, c, a, b: (None, where(c, 1, 0), where(c, 0, 1))
)

stop_gradient = scalar("stop_gradient", numpy=lambda x: x, types=marking, grad=lambda y, x: (None,))

# What the user has decided about the backward: the same value, computed there again, or kept for it.
recomputed = scalar("recomputed", numpy=lambda x: x, types=marking, grad=lambda y, x: (1.0,))
kept = scalar("kept", numpy=lambda x: x, types=marking, grad=lambda y, x: (1.0,))

# --- random numbers ---------------------------------------------------------------------------------------

philox_words = tuple(
    scalar(f"philox{n}", 3, numpy=partial(word_of_block, n), types=random_word) for n in range(WORDS)
)


def _normal_quantile(bits: Any) -> Any:
    from tilewright.dsl.normal import quantile

    return quantile(bits)


normal_quantile = scalar(
    "normal_quantile", numpy=_by_expansion("normal_quantile"), types=from_bits, expand=_normal_quantile,
    grad=lambda y, n: (None,), same_bits=True,
)  # fmt: skip

COMMUTATIVE = frozenset({"add", "mul", "minimum", "maximum", "eq", "ne", "and", "or", "xor"})

COPYING = frozenset({
    "abs", "ceil", "floor", "kept", "mantissa", "maximum", "minimum", "neg", "recomputed", "round", "sign",
    "stop_gradient", "trunc", "where",
})  # fmt: skip
"""The functions whose results are operands, or parts of them, to the last bit: none of them rounds."""

DEAR = frozenset({
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cos", "cosh", "digamma", "erf", "erfc",
    "exp", "exp2", "expm1", "fmod", "lgamma", "log", "log1p", "log2", "logaddexp", "normal_quantile",
    "polygamma", "pow", "sigmoid", "sin", "sinh", "softplus", "tan", "tanh",
    *(word.name for word in philox_words),
})  # fmt: skip
"""The functions that take several times as long as it takes to read their operands."""
