"""The gamma function's derivatives of every order, at arguments of either sign, through the CPU kernels."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

import tilewright as tw
from tilewright.autograd.derive import vjp
from tilewright.compiler.pipeline import compile_program
from tilewright.dsl.dtypes import float64
from tilewright.dsl.expression import constant
from tilewright.dsl.scalars import SCALARS
from tilewright.op.derived import without_saved

POLES = np.array([0.0, -0.0, -1.0, -2.0, -17.0, -1e20])


def points() -> np.ndarray:
    draw = np.random.default_rng(11)
    near_poles = -draw.integers(0, 6, 40) + draw.choice([-1, 1], 40) * 10 ** draw.uniform(-6, -1, 40)
    spread = np.exp(draw.uniform(-8, 5, 60))
    return np.concatenate(
        [draw.uniform(-9, 12, 200), near_poles, spread, [-0.5, -1.5, 0.5, 1.0, 2.0, -30.25]]
    )


def exact(order: int, x: float) -> float:
    with mpmath.workprec(160):
        return float(mpmath.polygamma(order, mpmath.mpf(x)))


def scale(order: int, x: np.ndarray) -> np.ndarray:
    """The size of the two terms of the reflection: their difference may be small, its error is not."""
    below = np.where(x > 0, -0.5, x)
    sine = np.sin(math.pi * (below - np.rint(below)))
    reflection = math.factorial(order) * (math.pi / np.abs(sine)) ** (order + 1)
    value = np.abs([exact(order, v) for v in x])
    return np.where(x > 0, value, np.maximum(value, reflection))


@tw.op
def polygamma_1_to_4(x: tw.Tile["n"]):
    polygamma = SCALARS["polygamma"]
    return tuple(polygamma(constant(order, float64), x) for order in (1, 2, 3, 4))


def test_polygamma_of_either_sign():
    x = points()
    for order, y in enumerate(polygamma_1_to_4(x), start=1):
        expected = np.array([exact(order, v) for v in x])
        error = np.abs(np.asarray(y) - expected) / scale(order, x)
        worst = int(np.argmax(error))
        assert error[worst] < 3e-15, f"order {order} at {x[worst]!r}: {error[worst]}"


def test_polygamma_at_poles_and_infinities():
    x = np.array([*POLES, math.inf, -math.inf, math.nan])
    for order, y in enumerate(polygamma_1_to_4(x), start=1):
        pole = math.inf if order % 2 else math.nan
        np.testing.assert_array_equal(np.asarray(y), [pole] * len(POLES) + [0.0, math.nan, math.nan])


@tw.op
def log_gamma(x: tw.Tile["n"]):
    return tw.lgamma(x)


@tw.op
def psi(x: tw.Tile["n"]):
    return tw.digamma(x)


@pytest.mark.parametrize(("op", "order"), [(log_gamma, 0), (psi, 1)], ids=["lgamma", "digamma"])
def test_derivatives_of_derivatives(op, order):
    """The gradient's vjp with cotangent h is h f''(x); vjp itself with cotangent g is g f'(x)."""
    x = points()
    draw = np.random.default_rng(4)
    g, h = draw.uniform(0.5, 2, x.shape), draw.uniform(0.5, 2, x.shape)
    first, second = (np.array([exact(n, v) for v in x]) for n in (order, order + 1))
    assert np.max(np.abs(np.asarray(op.vjp(x, g)) - g * first) / scale(order, x)) < 1e-14
    assert np.max(np.abs(np.asarray(op.grad.vjp(x, h)) - h * second) / scale(order + 1, x)) < 1e-14
    assert np.max(np.abs(np.asarray(op.grad.grad(x)) - second) / scale(order + 1, x)) < 1e-14


@pytest.mark.parametrize("order", [0, 1], ids=["lgamma", "digamma"])
def test_vjp_of_vjp(order):
    """(x, g) ↦ g f'(x), and with the cotangent h: h g f''(x) for x, h f'(x) for g."""
    x = points()
    draw = np.random.default_rng(5)
    g, h = draw.uniform(0.5, 2, x.shape), draw.uniform(0.5, 2, x.shape)
    op = (log_gamma, psi)[order]
    once = op.vjp.bind(op.vjp.arguments((x, g), {})).program
    twice = without_saved(vjp(once))
    given = {"x": x, "d_y": g}
    by_x, by_g = compile_program(twice, "cpu").run({p.name: given.get(p.name, h) for p in twice.tiles})
    first, second = (np.array([exact(n, v) for v in x]) for n in (order, order + 1))
    assert np.max(np.abs(by_x - h * g * second) / scale(order + 1, x)) < 2e-14
    assert np.max(np.abs(by_g - h * first) / scale(order, x)) < 1e-14
