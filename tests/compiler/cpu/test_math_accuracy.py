"""Fast elementary functions: given where they are asked for, from then on, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import tilewright as tw
from tilewright.errors import ArgumentError


@pytest.fixture(autouse=True)
def exact_again() -> Iterator[None]:
    yield
    tw.set_math_accuracy("exact")


@tw.op
def angle(x: tw.Tile["n"], y: tw.Tile["n"]) -> tw.Tile["n"]:
    return tw.atan(x) * tw.cosh(y)


@tw.op
def drawn(seed: tw.Tile[""], x: tw.Tile["n"]) -> tw.Tile["n"]:
    return x + tw.randn(seed, "n")


def operands(dtype: str = "float32") -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.uniform(-2, 2, 4099).astype(dtype) for _ in range(2)]


def error(found: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    exact = np.arctan(x.astype(np.float64)) * np.cosh(y.astype(np.float64))
    return float(np.max(np.abs(found - exact) / np.spacing(np.abs(exact).astype(np.float32))))


def test_a_choice_holds_from_then_on():
    x, y = operands()
    assert tw.get_math_accuracy() == "exact"
    exact = angle(x, y)
    tw.set_math_accuracy("fast")
    fast = angle(x, y)
    assert tw.get_math_accuracy() == "fast"
    tw.set_math_accuracy("exact")
    assert np.any(fast != exact)
    np.testing.assert_array_equal(angle(x, y), exact)
    assert error(exact, x, y) < 2 < error(fast, x, y) < 6


@pytest.mark.parametrize("how", ["tensors", "given memory", "other strides", "nothing"])
def test_however_an_op_is_called(how: str):
    def call() -> np.ndarray:
        x, y = operands()
        if how == "tensors":
            return angle(tw.tensor(x), tw.tensor(y)).numpy()
        if how == "given memory":
            return angle(x, y, out=np.empty_like(x))
        if how == "nothing":
            return angle(x[:0], y[:0])
        return angle(x[::-1], y[::2].repeat(2)[: len(x)])

    exact = call()
    tw.set_math_accuracy("fast")
    assert np.any(call() != exact) == (how != "nothing")
    tw.set_math_accuracy("exact")
    np.testing.assert_array_equal(call(), exact)


def test_gradients_are_fast_as_well():
    x, y = operands()
    exact = angle.grad(x, y)
    tw.set_math_accuracy("fast")
    fast = angle.grad(x, y)
    for one, other in zip(fast, exact, strict=True):
        assert np.any(one != other)
        np.testing.assert_allclose(one, other, rtol=2e-6)


def test_float64_and_random_numbers_stay_the_same():
    x, y = operands("float64")
    exact = angle(x, y), drawn(np.int64(3), x)
    tw.set_math_accuracy("fast")
    for one, other in zip((angle(x, y), drawn(np.int64(3), x)), exact, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_code_that_is_shown_is_what_runs():
    exact = angle.code(*operands(), target="mlir")
    tw.set_math_accuracy("fast")
    fast = angle.code(*operands(), target="mlir")
    assert "f64" in exact and "f64" not in fast.split("_direct")[0]


def test_another_word_is_refused():
    with pytest.raises(ArgumentError, match=r'set_math_accuracy\(\'quick\'\): write one of "exact", "fast"'):
        tw.set_math_accuracy("quick")
    assert tw.get_math_accuracy() == "exact"
