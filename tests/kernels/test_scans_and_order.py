"""Scans and orders where a table of cases cannot say it: ties, NaN, infinities, whole numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.checks import targets
from tilewright import kernels as K
from tilewright.compiler.pipeline import compile_program, lower

RANDOM = np.random.default_rng(0)
TIES = np.round(RANDOM.standard_normal((6, 23)) * 2)


def run(op, target: str, *arrays: np.ndarray, **constants):
    call = op.bind(op.arguments(arrays, constants))
    return compile_program(call.program, target).run(call.arrays, call.scalars)


@pytest.mark.parametrize("target", targets())
def test_equal_values_keep_their_order(target: str):
    values, where = run(K.sort, target, TIES)
    wanted = torch.tensor(TIES).sort(dim=-1, stable=True)
    np.testing.assert_array_equal(values, wanted.values)
    np.testing.assert_array_equal(where, wanted.indices)
    values, where = run(K.sort, target, TIES, descending=True)
    np.testing.assert_array_equal(
        where, torch.tensor(TIES).sort(dim=-1, stable=True, descending=True).indices
    )
    best, at = run(K.topk, target, TIES, k=5)
    np.testing.assert_array_equal(best, values[:, :5])
    np.testing.assert_array_equal(at, where[:, :5])


@pytest.mark.parametrize("target", targets())
def test_the_first_of_equal_extremes(target: str):
    for op, position in ((K.max_with_index, np.argmax), (K.min_with_index, np.argmin)):
        values, where = run(op, target, TIES)
        np.testing.assert_array_equal(where, position(TIES, -1))
        np.testing.assert_array_equal(values, np.take_along_axis(TIES, where[:, None], -1)[:, 0])


@pytest.mark.parametrize("target", targets())
def test_nan_is_larger_than_everything(target: str):
    x = TIES.copy()
    x[0, 4] = x[0, 9] = x[1, 0] = x[2, 22] = np.nan
    values, where = run(K.max_with_index, target, x)
    np.testing.assert_array_equal(where, np.argmax(x, -1))
    np.testing.assert_array_equal(np.isnan(values), [1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(run(K.sort, target, x)[0], np.sort(x, -1))
    middle, at = run(K.median, target, x)
    np.testing.assert_array_equal(middle, torch.tensor(x).median(-1).values)
    np.testing.assert_array_equal(middle, np.take_along_axis(x, at[:, None], -1)[:, 0])


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint8"])
def test_whole_numbers(dtype: str):
    x = RANDOM.integers(0, 100, (5, 12)).astype(dtype)
    np.testing.assert_array_equal(K.sort(x)[0], np.sort(x, -1))
    np.testing.assert_array_equal(K.median(x)[0], np.sort(x, -1)[:, 5])
    np.testing.assert_array_equal(K.topk(x, k=2)[0], -np.sort(-x.astype(int), -1)[:, :2])
    np.testing.assert_array_equal(K.max_with_index(x)[1], np.argmax(x, -1))
    np.testing.assert_array_equal(K.cumsum(x), np.cumsum(x, -1, dtype=np.int64))
    np.testing.assert_array_equal(K.differences(x), np.diff(x))


def test_the_gradient_goes_to_one_of_equals():
    x = np.array([[1.0, 3.0, 3.0, 0.0]])
    np.testing.assert_array_equal(K.max_with_index.vjp(x, np.array([2.0])), [[0, 2, 0, 0]])
    np.testing.assert_array_equal(K.cummax_with_index.vjp(x, np.ones((1, 4))), [[1, 1, 2, 0]])
    np.testing.assert_array_equal(K.median.vjp(x[:, :3], np.array([2.0])), [[0, 2, 0]])


def test_slopes_at_infinities():
    """Where torch divides infinities: exp(-inf) adds nothing, and a product's slope is that of the others."""
    slope = K.logcumsumexp.vjp(np.array([-np.inf, 1.0, 2.0]), np.ones(3))
    share = 1 / (1 + np.e)
    np.testing.assert_allclose(slope, [0, 1 + share, 1 - share])
    assert K.cumprod.vjp(np.array([1.0, np.inf, 2.0, 3.0]), np.array([1.0, 2, 3, 4]))[1] == 32


def test_a_maximum_and_its_position_are_one_pass():
    x = np.zeros((64, 1000), np.float32)
    call = K.max_with_index.bind(K.max_with_index.arguments([x], {}))
    assert len(lower(call.program).kernels) == 1


def test_a_recurrence_continues_from_its_state():
    a, b = RANDOM.uniform(-1, 1, (3, 40)), RANDOM.standard_normal((3, 40))
    whole = K.linear_recurrence(a, b)
    first = K.linear_recurrence(a[:, :17], b[:, :17])
    second = K.linear_recurrence(a[:, 17:], b[:, 17:], first[:, -1])
    np.testing.assert_allclose(np.concatenate([first, second], -1), whole, rtol=1e-12)


def test_too_few_positions_for_a_difference():
    assert K.differences(np.zeros((2, 1))).shape == (2, 0)
    assert K.differences(np.zeros((2, 0))).shape == (2, 0)
