"""Partials of the scalar table: stated ones equal sympy's, and all of them the slope of the NumPy meaning."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from tilewright.autograd.scalar import _from_sympy, _sympy_partials, partials, scaled
from tilewright.dsl import language as tw
from tilewright.dsl import meanings, scalars
from tilewright.dsl.dtypes import bool_, float64
from tilewright.dsl.expression import Expr, constant
from tilewright.dsl.formula import formula
from tilewright.dsl.program import Map, Param, Program, Read, Result
from tilewright.dsl.reference import reference
from tilewright.dsl.scalars import SCALARS, ScalarFunction
from tilewright.errors import DerivativeError

POINTS = 41
FLOATING = (scalars.arithmetic, scalars.floating)
SMOOTH = [
    r for r in SCALARS.values() if r.sympy is not None and r.types in FLOATING and r.name != "polygamma"
]
STATED = [r for r in SMOOTH if r.grad is not None]
KINKED = [
    SCALARS[n] for n in ("minimum", "maximum", "floor", "ceil", "round", "trunc", "mod", "fmod", "floordiv")
]


def operands(row: ScalarFunction) -> tuple[Expr, ...]:
    return tuple(Expr(Read(f"x{n}", ("i",), float64)) for n in range(row.arity))


def evaluate(value: Any, points: tuple[np.ndarray, ...]) -> np.ndarray:
    if not isinstance(value, Expr):
        return np.full(POINTS, 0.0 if value is None else float(value))
    params = tuple(Param(f"x{n}", ("i",), float64) for n in range(len(points)))
    program = Program("partial", params, (Result("y", value.node, ("i",)),))
    return reference(program, {p.name: x for p, x in zip(params, points, strict=True)})[0]


def points_of(row: ScalarFunction) -> tuple[np.ndarray, ...]:
    """Points inside the row's domain, away from 0 where functions have kinks."""
    rng = np.random.default_rng(3)
    low, high = row.domain
    return tuple(rng.uniform(low, high, POINTS) for _ in range(row.arity))


def node_of(row: ScalarFunction) -> Map:
    return Map(row.name, tuple(x.node for x in operands(row)))


@pytest.mark.parametrize("row", STATED, ids=lambda r: r.name)
def test_a_stated_partial_equals_sympys(row: ScalarFunction):
    points = points_of(row)
    derived = [_from_sympy(d, operands(row)) for d in _sympy_partials(row.name)]
    for ours, theirs in zip(partials(node_of(row)), derived, strict=True):
        np.testing.assert_allclose(evaluate(ours, points), evaluate(theirs, points), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("row", [*SMOOTH, *KINKED], ids=lambda r: r.name)
def test_a_partial_is_the_slope(row: ScalarFunction):
    points = points_of(row)
    for position, partial in enumerate(partials(node_of(row))):
        h = 1e-5 * np.maximum(1, np.abs(points[position]))

        def shifted(by: np.ndarray, position: int = position) -> np.ndarray:
            moved = [x + by if n == position else x for n, x in enumerate(points)]
            return row.numpy(*moved)

        central = (8 * (shifted(h) - shifted(-h)) - (shifted(2 * h) - shifted(-2 * h))) / (12 * h)
        scale = 1 + np.abs(row.numpy(*points))
        assert np.max(np.abs(evaluate(partial, points) - central) / scale) < 1e-8


def test_the_comparison_sees_a_wrong_partial(monkeypatch):
    wrong = dataclasses.replace(SCALARS["tanh"], grad=lambda y, x: (1 - y,))
    monkeypatch.setitem(SCALARS, "tanh", wrong)
    with pytest.raises(AssertionError):
        test_a_stated_partial_equals_sympys(wrong)
    with pytest.raises(AssertionError):
        test_a_partial_is_the_slope(wrong)


def test_polygamma_has_the_next_order():
    x = Expr(Read("x0", ("i",), float64))
    node = SCALARS["polygamma"](constant(1, float64), x).node
    points = (np.linspace(0.5, 9, POINTS),)
    h = 1e-4
    slope = (meanings.polygamma(1, points[0] + h) - meanings.polygamma(1, points[0] - h)) / (2 * h)
    np.testing.assert_allclose(evaluate(partials(node)[1], points), slope, rtol=1e-6)


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "sigmoid", "erf", "sqrt", "mul", "div", "where"])
def test_common_rows_need_no_sympy(name: str):
    assert SCALARS[name].grad is not None


def value_at(expression: Expr | None, **values: float) -> float:
    assert expression is not None
    params = tuple(Param(name, (), float64) for name in values)
    program = Program("at", params, (Result("y", expression.node, ()),))
    return float(reference(program, values)[0])


def scalar_operand(name: str) -> Expr:
    return Expr(Read(name, (), float64))


X, Z, G = scalar_operand("x"), scalar_operand("z"), scalar_operand("g")

# (what, y, operand, point, dy/doperand): the table in the docstring of autograd.scalar
AT_A_KINK = [
    ("abs at 0", tw.abs(X), 0, {"x": 0.0}, 0.0),
    ("maximum at a tie, first", tw.maximum(X, Z), 0, {"x": 2.0, "z": 2.0}, 0.5),
    ("maximum at a tie, second", tw.maximum(X, Z), 1, {"x": 2.0, "z": 2.0}, 0.5),
    ("minimum at a tie", tw.minimum(X, Z), 0, {"x": 2.0, "z": 2.0}, 0.5),
    ("maximum where it loses", tw.maximum(X, Z), 0, {"x": 1.0, "z": 2.0}, 0.0),
    ("floor", tw.floor(X), 0, {"x": 2.0}, 0.0),
    ("sqrt at 0", tw.sqrt(X), 0, {"x": 0.0}, np.inf),
    ("log at 0", tw.log(X), 0, {"x": 0.0}, np.inf),
    ("rsqrt at 0", tw.rsqrt(X), 0, {"x": 0.0}, -np.inf),
    ("x ** 0 at 0", tw.pow(X, Z), 0, {"x": 0.0, "z": 0.0}, 0.0),
    ("x ** 2 at 0", tw.pow(X, Z), 0, {"x": 0.0, "z": 2.0}, 0.0),
    ("x ** 1 at 0", tw.pow(X, Z), 0, {"x": 0.0, "z": 1.0}, 1.0),
    ("0 ** z for z > 0", tw.pow(X, Z), 1, {"x": 0.0, "z": 2.0}, 0.0),
    ("0 ** z for z = 0", tw.pow(X, Z), 1, {"x": 0.0, "z": 0.0}, 0.0),
    ("sigmoid far out", tw.sigmoid(X), 0, {"x": -800.0}, 0.0),
    ("softplus far out", tw.softplus(X), 0, {"x": 800.0}, 1.0),
    ("tanh far out", tw.tanh(X), 0, {"x": -1e6}, 0.0),
]


@pytest.mark.parametrize(
    ("y", "position", "point", "expected"), [c[1:] for c in AT_A_KINK], ids=[c[0] for c in AT_A_KINK]
)
def test_points_without_a_derivative(y: Expr, position: int, point: dict[str, float], expected: float):
    back = scaled(constant(1.0, float64), partials(y.node)[position])
    assert (back is None and expected == 0) or value_at(back, **point) == expected


def test_a_choice_is_applied_by_choosing():
    """An infinite cotangent does not meet the 0 of the branch that was not chosen."""
    first = scaled(G, partials(tw.where(X > 0, X, Z).node)[1])
    assert value_at(first, g=np.inf, x=-1.0) == 0
    lost = scaled(G, partials(tw.maximum(X, Z).node)[0])
    assert value_at(lost, g=np.inf, x=1.0, z=2.0) == 0


def test_a_power_with_a_constant_exponent_has_no_choice():
    node = SCALARS["pow"](X, constant(2.5, float64)).node
    assert formula(partials(node)[0].node) == "2.5 * x ** 1.5"


def test_a_row_without_derivative_says_so(monkeypatch):
    row = ScalarFunction("mystery", 1, np.abs, scalars.floating)
    monkeypatch.setitem(SCALARS, "mystery", row)
    with pytest.raises(
        DerivativeError, match=r"mystery has no derivative.*state one, or wrap .*stop_gradient"
    ):
        partials(Map("mystery", (X.node,)))


def test_conditions_have_no_partial():
    condition = Expr(Read("c", (), bool_))
    assert partials(tw.where(condition, X, Z).node)[0] is None
