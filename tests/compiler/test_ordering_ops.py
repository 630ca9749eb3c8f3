"""Sorting on the CPU target: every dtype, ties, NaN, both zeros; gradients go where the values came from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tilewright as tw
from tests.support.checks import assert_close
from tilewright.autograd.check import check_jvp, check_vjp
from tilewright.dsl.text import from_text, to_text
from tilewright.errors import AxisError, LanguageError


@tw.op
def ordered(x: tw.Tile["... n"], *, descending=False):
    return tw.argsort(x, "n", descending=descending)


@tw.op
def columns_sorted(x: tw.Tile["n m"]):
    return tw.sort(tw.square(x), "n")


@tw.op
def in_order(x: tw.Tile["... n"], *, descending=False):
    return tw.sort(x, "n", descending=descending)


@tw.op
def best(x: tw.Tile["... n"], *, k=3, largest=True):
    return tw.topk(x, k, "n", largest=largest)


@tw.op
def middle(x: tw.Tile["... n"]):
    return tw.median(x, "n")


@tw.op
def part(x: tw.Tile["... n"], *, q=0.3):
    return tw.quantile(x, q, "n")


@tw.op
def sparsemax(x: tw.Tile["... n"]):
    """The projection on the simplex: a sort, a sum of the first k and a threshold, differentiable."""
    z = tw.sort(x, "n", descending=True)
    k = tw.index("n") + 1
    before = tw.index("j") <= tw.index("n")
    total = tw.sum(tw.where(before, z["... j"], 0), "j")
    support = tw.sum(tw.where(k * z + 1 > total, 1, 0), "n")
    sum_of_support = tw.sum(tw.where(tw.index("n") < support, z, 0), "n")
    return tw.maximum(x - (sum_of_support - 1) / support, 0)


def drawn(dtype: str, n: int) -> np.ndarray:
    """Rows with ties, NaNs of both signs, both zeros and infinities."""
    rng = np.random.default_rng(n)
    x = (rng.standard_normal((5, n)) * 40).astype(dtype)
    if x.dtype.kind == "f" and n > 6:
        x[0, 3], x[0, 5] = np.nan, -np.nan
        x[1, 2], x[1, 4] = -0.0, 0.0
        x[2, 1], x[2, 2] = np.inf, -np.inf
    x[3] = np.round(x[3] / 32)
    return x


@pytest.mark.parametrize("n", (1, 2, 3, 7, 64, 1025))
@pytest.mark.parametrize("dtype", ("float32", "float64", "float16", "int64", "int32", "int8", "uint8"))
@pytest.mark.parametrize("descending", (False, True))
def test_order(dtype: str, n: int, descending: bool):
    x = drawn(dtype, n)
    expected = torch.tensor(x).sort(stable=True, dim=-1, descending=descending).indices.numpy()
    assert np.array_equal(ordered.reference(x, descending=descending), expected)
    assert np.array_equal(ordered(x, descending=descending), expected)
    assert np.array_equal(in_order(x), np.sort(x, -1), equal_nan=x.dtype.kind == "f")


def test_rows_of_other_layouts():
    x = drawn("float32", 37)
    assert np.array_equal(in_order(x[::-1, ::-2]), np.sort(x[::-1, ::-2], -1), equal_nan=True)
    assert np.array_equal(columns_sorted(x.T), np.sort(x.T * x.T, 0), equal_nan=True)
    repeated = np.broadcast_to(x[:1], (4, 37))
    assert np.array_equal(in_order(repeated), np.sort(repeated, -1), equal_nan=True)
    assert in_order(x[:, :0]).shape == (5, 0)


@pytest.mark.parametrize("largest", (True, False))
def test_topk_against_torch(largest: bool):
    x = np.random.default_rng(0).standard_normal((4, 9))
    tensor = torch.tensor(x, requires_grad=True)
    values, places = tensor.topk(3, largest=largest)
    torch.manual_seed(0)
    cotangent = torch.randn_like(values)
    values.backward(cotangent)
    found, at = best(x, k=3, largest=largest)
    assert np.array_equal(found, values.detach()) and np.array_equal(at, places)
    assert_close(best.vjp(x, cotangent.numpy(), k=3, largest=largest), tensor.grad.numpy())


def test_topk_beyond_the_extent():
    values, places = best(np.array([2.0, 5.0]), k=4)
    assert np.array_equal(values, [5, 2, 0, 0])
    assert np.array_equal(places, [1, 0, -1, -1])


def test_median_and_quantile():
    x = np.random.default_rng(0).standard_normal((6, 8))
    assert np.array_equal(middle(x), torch.tensor(x).median(-1).values)
    for q in (0.0, 0.25, 0.5, 1.0):
        assert_close(part(x, q=q), np.quantile(x, q, axis=-1))
    x[2, 3] = np.nan
    assert np.isnan(middle(x)[2]) and np.isnan(part(x)[2]) and np.isfinite(np.delete(middle(x), 2)).all()


@tw.op
def parts(x: tw.Tile["n"], q: tw.Tile["k"]):
    return tw.quantile(x, q, "n")


def test_quantiles_of_a_tile():
    """Outside of 0 … 1 they are NaN, not the value at a place that is not there."""
    x, q = np.random.default_rng(0).standard_normal(7), np.array([0, 0.3, 1, -0.1, 1.1, np.nan])
    assert_close(parts(x, q)[:3], np.quantile(x, q[:3]))
    assert np.isnan(parts(x, q)[3:]).all()
    _, slopes = parts.vjp(x, q[1:2], np.ones(1))
    low, high = np.sort(x)[1:3]
    assert_close(slopes, np.array([6 * (high - low)]))


@pytest.mark.parametrize("op", (in_order, best, middle, part, sparsemax), ids=lambda op: op.name)
def test_derivatives_against_finite_differences(op):
    x = np.random.default_rng(3).permutation(24).reshape(3, 8) / 4.0
    call = op.bind(op.arguments([x], {}))
    assert from_text(to_text(call.program)) == call.program
    assert check_vjp(call.program, dict(call.arrays)).error <= 1e-6
    assert check_jvp(call.program, dict(call.arrays)).error <= 1e-6


def test_messages():
    @tw.op
    def two(x: tw.Tile["n m"]):
        return tw.sort(x, "n m")

    @tw.op
    def half(x: tw.Tile["n"]):
        return tw.topk(x, 2.5, "n")

    with pytest.raises(AxisError, match="one axis name"):
        two(np.zeros((2, 2)))
    with pytest.raises(LanguageError, match="how many values to keep"):
        half(np.zeros(2))
