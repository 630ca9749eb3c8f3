"""Derivative ops stack: values by finite differences, shapes as given, errors that name what is missing."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tilewright.errors import ArgumentError, ShapeError


@tw.op
def mix(x: tw.Tile["... d"], w: tw.Tile["d"]):
    return tw.sum(tw.tanh(x * w), "d")


@pytest.fixture
def given() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {"x": (2, 1, 4), "w": (4,), "dy": (2, 1), "gx": (2, 1, 4), "gw": (4,)}
    return {name: random.standard_normal(shape) for name, shape in shapes.items()}


def slope(function, x: np.ndarray, direction: np.ndarray, step: float = 1e-6) -> float:
    return (function(x + step * direction) - function(x - step * direction)) / (2 * step)


def test_gradients_have_the_shapes_of_their_operands(given):
    dx, dw = mix.vjp(given["x"], given["w"], given["dy"])
    assert dx.shape == (2, 1, 4) and dw.shape == (4,)


def test_the_vjp_of_a_vjp(given):
    x, w, dy, gx, gw = given.values()

    def scalar(x: np.ndarray) -> float:
        dx, dw = mix.vjp(x, w, dy)
        return float((dx * gx).sum() + (dw * gw).sum())

    second = mix.vjp.vjp(x, w, dy, gx, gw)
    assert [value.shape for value in second] == [(2, 1, 4), (4,), (2, 1)]
    direction = np.cos(np.arange(8.0)).reshape(2, 1, 4)
    assert np.isclose(slope(scalar, x, direction), (second[0] * direction).sum(), rtol=1e-7)


def test_the_gradient_of_a_gradient(given):
    x, w, *_ = given.values()
    direction = np.sin(np.arange(8.0)).reshape(2, 1, 4)
    by_difference = slope(lambda x: float(sum(g.sum() for g in mix.grad(x, w))), x, direction)
    assert np.isclose((mix.grad.grad(x, w)[0] * direction).sum(), by_difference, rtol=1e-7)


def test_the_jvp_of_a_jvp(given):
    x, w, _, gx, gw = given.values()
    zero = np.zeros_like
    mixed = mix.jvp.jvp(x, w, gx, gw, gx, gw, zero(gx), zero(gw))
    step = 1e-4
    ahead = mix.jvp(x + step * gx, w + step * gw, gx, gw)
    behind = mix.jvp(x - step * gx, w - step * gw, gx, gw)
    np.testing.assert_allclose(mixed, (ahead - behind) / (2 * step), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda g: mix.vjp(g["x"], g["w"]), ArgumentError, "needs the operand 'd_y'"),
        (lambda g: mix.vjp(g["x"], g["w"], g["dy"], g["dy"]), ArgumentError, "1 operands more"),
        (lambda g: mix.vjp(g["x"], g["w"], d_z=g["dy"]), ArgumentError, "needs the operand 'd_y'"),
        (lambda g: mix.vjp(g["x"], g["w"], g["x"]), ShapeError, "d_y has shape (2, 1, 4), but (2, 1)"),
    ],
)
def test_errors(given, call, error: type[Exception], words: str):
    with pytest.raises(error) as caught:
        call(given)
    assert words in str(caught.value) and "test_derived.py" in str(caught.value)
