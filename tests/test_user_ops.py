"""Ops that the library does not hold, as a user would write them: values and derivatives on the CPU.

The same table is tried on the Triton target in `tests/compiler/triton/test_triton_user_ops.py`.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import tilewright as tw
from tests.support import checks, layouts, special
from tests.support.cases import FLOATS, Case
from tests.support.user_ops import CASES, EXACT_CASES, case_of
from tilewright import kernels

EVERY = pytest.mark.parametrize("case", CASES, ids=str)
LONG = {"tucker", "biased_attention", "soft_capped_attention"}  # many contractions, differentiated twice


def twice_every_day(case: Case) -> bool:
    """Whether the second derivative is taken every day."""
    return not case.heavy and case.op.name not in LONG


@EVERY
@pytest.mark.parametrize("dtype", ["f32", pytest.param("f64", marks=pytest.mark.exhaustive)])
def test_value(case: Case, dtype: str):
    for axes in (None, *(case.more if dtype == "f32" else ())):
        checks.check_value(case, FLOATS[dtype], "cpu", axes)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(c, marks=pytest.mark.exhaustive if number % 2 and twice_every_day(c) else ())
        for number, c in enumerate(CASES)
    ],
    ids=str,
)
@pytest.mark.everyday(19)
def test_backward(case: Case):
    """Every day of half of those whose second derivatives are taken every day as well."""
    checks.check_backward(case, np.float64, "cpu")


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", [c for c in CASES if c.more], ids=str)
def test_backward_of_further_extents(case: Case):
    for axes in case.more:
        checks.check_backward(case, np.float32, "cpu", axes)


@pytest.mark.parametrize("case", [*CASES, *EXACT_CASES], ids=str)
def test_empty_axes(case: Case):
    checks.check_empty_axes(case, "cpu")


@pytest.mark.parametrize("case", EXACT_CASES, ids=str)
@pytest.mark.parametrize("dtype", ["f32", pytest.param("f64", marks=pytest.mark.exhaustive)])
def test_whole_numbers(case: Case, dtype: str):
    checks.check_value(case, FLOATS[dtype], "cpu")


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", [case for case in EXACT_CASES if case.more], ids=str)
def test_whole_numbers_of_further_extents(case: Case):
    for axes in case.more:
        checks.check_value(case, np.float32, "cpu", axes)


@pytest.mark.parametrize(
    "name", ["extremes", "classified", "accuracy", "ranks", "range_scaled", "softmax_over_two_axes"]
)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0])
def test_special_values(name: str, value: float):
    case = case_of(name)
    for axes in (None, *(a for a in case.more[1:3] if 0 not in a.values())):
        for dtype in (np.float32, np.float64):
            arguments = case.arguments(dtype, axes=axes)
            arguments["x"] = special.sprinkled(arguments["x"], (value, 1.0))
            call = case.call(arguments)
            checks.assert_right(
                call.program, {**call.arrays, **call.scalars}, "cpu", 16, f"{name} of {value}"
            )


LAID_OUT = (
    "batch_norm", "group_norm", "residual_norm", "info_nce", "quantile_huber", "covariance", "gram",
    "batched_transposed", "two_summed_axes", "normalised_product", "product_and_its_sums", "every_shape",
    "column_of_softmax", "three_levels", "broadcast_results", "rows_and_columns", "outer_sum", "range_scaled",
    "weighted_mean_squares",
)  # fmt: skip


@pytest.mark.parametrize("name", LAID_OUT)
@pytest.mark.parametrize(
    "layout",
    [
        "transposed",
        *(pytest.param(l, marks=pytest.mark.exhaustive) for l in ("reversed", "strided", "repeated")),
    ],
)
@pytest.mark.everyday(8)
def test_layouts(name: str, layout: str):
    layouts.check_layout(case_of(name), layout, "cpu")


HALVES = (
    "gram", "normalised_product", "two_summed_axes", "linear_attention", "batch_norm", "every_shape",
    "moments", "distances",
)  # fmt: skip


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("dtype", ["f16", pytest.param("bf16", marks=pytest.mark.exhaustive)])
def test_half_precision(name: str, dtype: str):
    case = case_of(name)
    for axes in (None, *case.more[:1]):
        checks.check_value(case, FLOATS[dtype], "cpu", axes)


@EVERY
def test_slopes(case: Case):
    checks.check_slopes(case)


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=() if twice_every_day(c) else pytest.mark.exhaustive) for c in CASES],
    ids=str,
)
@pytest.mark.everyday(16)
def test_second_backward(case: Case):
    checks.check_second(case, "cpu")


@tw.op
def scaled_sum(x: tw.Tile["i j"], z: tw.Tile["i"]):
    return tw.sum(x / z, "j")


def test_a_sum_over_no_elements_is_0_whatever_it_is_scaled_by():
    y = scaled_sum(np.ones((2, 0), np.float32), np.zeros(2, np.float32))
    np.testing.assert_array_equal(y, [0, 0])


def test_a_query_without_keys_gives_0():
    q, k, v = (np.ones(s, np.float32) for s in ((2, 3), (0, 3), (0, 5)))
    np.testing.assert_array_equal(kernels.attention(q, k, v), np.zeros((2, 5)))


@tw.op
def scaled_by_smallest(a: tw.Tile["n i"], b: tw.Tile["m n"]):
    return tw.sum(tw.sum(a * a, "i") * tw.min(b, "n") * tw.exp(b), "n")


def test_a_factor_that_is_infinite_without_elements_stays_in_the_sum():
    y = scaled_by_smallest(np.ones((0, 3), np.float32), np.ones((2, 0), np.float32))
    np.testing.assert_array_equal(y, [0, 0])


def test_an_infinite_constant_stays_in_its_sum():
    @tw.op
    def unbounded(a: tw.Tile["n"]):
        return tw.sum(a * -tw.inf, "n"), tw.sum(a / 0.0, "n"), tw.sum(a * tw.nan, "n")

    for values in ([1.0, -2.0], [1.0, 2.0], [-1.0, -3.0]):
        a = np.array(values)
        for mine, expected in zip(unbounded(a), unbounded.reference(a), strict=True):
            np.testing.assert_array_equal(mine, expected)
