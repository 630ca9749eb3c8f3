"""Partial derivatives of the scalar functions, one row of the table at a time.

`partials(y)` for y = f(x₀, x₁, …) gives ∂f/∂xᵢ as expressions of the operands and of the result y. A row
that states `grad` is taken at its word (a test proves it equal to sympy's derivative); any other row's sympy
meaning is differentiated and printed back. Where a function has no derivative this table holds:

    point                          partial
    abs(0), sign anywhere          0
    minimum, maximum at a tie      ½ to each operand
    where(c, a, b)                 1 to the branch that is chosen, 0 to the other, nothing to c
    floor ceil round trunc //      0
    mod, fmod                      1 to the dividend, -⌊a/b⌋ (-trunc a/b) to the divisor
    sqrt(0), rsqrt(0), log(0)      inf, -inf, inf: the limit, as NumPy's arithmetic gives it
    pow(x, 0)                      0 to x, also at x = 0;  pow(0, c) gives 0 to the exponent for c ≥ 0
    relu as where(x > 0, x, 0)     0 at 0;  relu as maximum(x, 0): ½ at 0
    stop_gradient                  0, and it stays in the derivative, whose derivative is to be 0 too

Partials that choose (`where(c, 1, 0)`) are applied by choosing, never by multiplying: see `scaled`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from tilewright.dsl.dtypes import DType
from tilewright.dsl.expression import Expr, cast, constant, power
from tilewright.dsl.folding import fold
from tilewright.dsl.program import Const, Map
from tilewright.dsl.scalars import SCALARS, where
from tilewright.errors import DerivativeError, InternalError

Partial = Expr | float | None
"""An expression, a number, or None for zero."""


def partials(node: Map) -> tuple[Partial, ...]:
    """∂f/∂operand for every operand of y = f(operands), as expressions of the operands and of y."""
    row = SCALARS[node.function]
    operands = tuple(Expr(a) for a in node.operands)
    if row.grad is not None:
        stated = row.grad(Expr(node), *operands)
    elif row.sympy is not None:
        stated = tuple(_from_sympy(d, operands) for d in _sympy_partials(node.function))
    else:
        raise DerivativeError(
            f"{node.function} has no derivative: its row in the scalar table states neither grad nor a sympy "
            f"meaning; state one, or wrap the operand in tw.stop_gradient"
        )
    if len(stated) != len(operands):
        raise InternalError(f"{node.function} has {len(operands)} operands but {len(stated)} partials")
    known = frozenset((node, *node.operands))
    return tuple(Expr(fold(p.node, known)) if isinstance(p, Expr) else p for p in stated)


def scaled(cotangent: Expr, partial: Partial) -> Expr | None:
    """cotangent · partial; None if it is zero.

    A partial that chooses between numbers chooses between cotangents: where(c, 1, 0) gives
    where(c, cotangent, 0), so an infinity or NaN on the side that was not chosen never meets a zero.
    """
    if partial is None:
        return None
    if isinstance(partial, Expr) and isinstance(partial.node, Const):
        partial = partial.node.value
    if not isinstance(partial, Expr):
        if partial == 0:
            return None
        return cotangent if partial == 1 else -cotangent if partial == -1 else cotangent * float(partial)
    node = partial.node
    if isinstance(node, Map) and node.function == "where":
        condition, first, second = (Expr(a) for a in node.operands)
        if any(_is_number(branch) for branch in (first, second)):
            return select(condition, scaled(cotangent, first), scaled(cotangent, second), cotangent.dtype)
    return cotangent * cast(partial, cotangent.dtype)


def select(condition: Expr, first: Expr | None, second: Expr | None, dtype: DType) -> Expr | None:
    """where(condition, first, second) where None is zero."""
    if first is None and second is None:
        return None
    zero = constant(0, dtype)
    return where(condition, first if first is not None else zero, second if second is not None else zero)


def _is_number(value: Expr) -> bool:
    node = value.node
    if isinstance(node, Map) and node.function == "where":
        return all(_is_number(Expr(branch)) for branch in node.operands[1:])
    return isinstance(node, Const)


# --- sympy, imported only when a row states no grad -------------------------------------------------------


@cache
def _sympy_partials(function: str) -> tuple[Any, ...]:
    import sympy

    row = SCALARS[function]
    assert row.sympy is not None
    symbols = sympy.symbols(f"x:{row.arity}", real=True)
    meaning = row.sympy(*symbols)
    return tuple(sympy.diff(meaning, symbol) for symbol in symbols)


_SYMPY_NAMES = {"Abs": "abs", "loggamma": "lgamma"}


def _from_sympy(expression: Any, operands: tuple[Expr, ...]) -> Partial:
    """A sympy expression in x0, x1, … as an expression of the language."""
    if expression.is_Number or expression.is_NumberSymbol:
        return float(expression)
    if expression.is_Symbol:
        return operands[int(expression.name[1:])]
    if expression.is_Add:
        return _fold_all(lambda a, b: a + b, expression.args, operands)
    if expression.is_Mul:
        return _product(expression, operands)
    if expression.is_Pow:
        return _power(expression, operands)
    name = _SYMPY_NAMES.get(type(expression).__name__, type(expression).__name__)
    if name not in SCALARS:
        raise DerivativeError(
            f"sympy's derivative uses {name}, which the scalar table lacks; state grad in the function's row"
        )
    return SCALARS[name](*(_from_sympy(a, operands) for a in expression.args))


def _fold_all(combine: Any, args: Any, operands: tuple[Expr, ...]) -> Any:
    first, *rest = (_from_sympy(a, operands) for a in args)
    for value in rest:
        first = combine(first, value)
    return first


def _product(expression: Any, operands: tuple[Expr, ...]) -> Any:
    numerator, denominator = expression.as_numer_denom()
    if denominator != 1:
        above: Any = _from_sympy(numerator, operands)
        return above / _from_sympy(denominator, operands)
    return _fold_all(lambda a, b: a * b, expression.args, operands)


def _power(expression: Any, operands: tuple[Expr, ...]) -> Any:
    base, exponent = expression.args
    if not exponent.is_Rational:
        return SCALARS["pow"](_from_sympy(base, operands), _from_sympy(exponent, operands))
    value = int(exponent) if exponent.is_Integer else float(exponent)
    if isinstance(value, float) and value < 0 and value != -0.5:
        return 1 / power(_from_sympy(base, operands), -value)
    return power(_from_sympy(base, operands), value)
