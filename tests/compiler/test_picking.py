"""Sums of which one term is left: read at its position where that can be, and right either way."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tilewright.compiler.pipeline import lower
from tilewright.dsl.program import At, Reduce

X = np.random.default_rng(0).standard_normal((7, 13)).astype(np.float32)
T = np.array([0, 12, 5, -1, 13, 3, 3])
INSIDE = (T >= 0) & (T < 13)


def of_rows(values: np.ndarray) -> np.ndarray:
    """The value at each row's label, 0 where the label is none."""
    return np.where(INSIDE, values[np.arange(7), np.clip(T, 0, 12)], 0)


@tw.op
def chosen(x: tw.Tile["n c"], t: tw.Tile["n"]):
    return tw.sum(tw.where(tw.index("c") == t, x, 0), "c")


@tw.op
def chosen_formula(x: tw.Tile["n c"], t: tw.Tile["n"]):
    return tw.sum(tw.where(t == tw.index("c"), tw.exp(x - tw.max(x, "c")) * tw.index("c"), 0), "c")


@tw.op
def chosen_of_two(x: tw.Tile["n c"], t: tw.Tile["n"]):
    return tw.sum(tw.where(tw.index("c") == t, x, 0), "n c")


@tw.op
def chosen_of_running(x: tw.Tile["n c"], t: tw.Tile["n"]):
    return tw.sum(tw.where(tw.index("c") == t, tw.cumsum(x, "c"), 0), "c")


@tw.op
def fixed_points(x: tw.Tile["n c"], p: tw.Tile["c"]):
    return tw.sum(tw.where(tw.index("c") == p, x, 0), "c")


@tw.op
def chosen_or_one(x: tw.Tile["n c"], t: tw.Tile["n"]):
    return tw.sum(tw.where(tw.index("c") == t, x, 1), "c")


def sums_and_reads(op: tw.Op, *operands: np.ndarray) -> tuple[int, int]:
    plan = lower(op.bind(op.arguments(operands, {})).program)
    nodes = [node for kernel in plan.kernels for node in kernel.nodes()]
    sums = [node for node in nodes if isinstance(node, Reduce) and node.combine == "sum"]
    return len(sums), len([node for node in nodes if isinstance(node, At)])


def test_one_term_is_read():
    assert sums_and_reads(chosen, X, T) == (0, 1)
    np.testing.assert_array_equal(chosen(X, T), of_rows(X))


def test_what_is_not_chosen_does_not_count():
    x = np.full_like(X, np.nan)
    x[INSIDE, T[INSIDE]] = X[INSIDE, T[INSIDE]]
    np.testing.assert_array_equal(chosen(x, T), of_rows(X))


def test_a_formula_is_computed_at_the_position():
    assert sums_and_reads(chosen_formula, X, T)[0] == 0
    expected = of_rows(np.exp(X - X.max(1, keepdims=True)) * np.arange(13))
    np.testing.assert_allclose(chosen_formula(X, T), expected, rtol=1e-6)


def test_the_other_axes_are_summed():
    assert sums_and_reads(chosen_of_two, X, T)[1] == 1
    np.testing.assert_allclose(chosen_of_two(X, T), of_rows(X).sum(), rtol=1e-6)


@pytest.mark.parametrize(
    ("op", "second", "expected"),
    [
        (chosen_of_running, T, of_rows(np.cumsum(X, 1))),
        (chosen_or_one, T, of_rows(X) + np.where(INSIDE, 12, 13)),
        (fixed_points, (P := np.arange(13) % 5), (X * (np.arange(13) == P)).sum(1)),
    ],
    ids=["of a scan", "another value beside it", "a position of every column"],
)
def test_other_sums_stay(op: tw.Op, second: np.ndarray, expected: np.ndarray):
    assert sums_and_reads(op, X, second)[1] == 0
    np.testing.assert_allclose(op(X, second), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op", [chosen, chosen_formula], ids=lambda op: op.name)
def test_gradients(op: tw.Op):
    op.check(X.astype(np.float64), T)
