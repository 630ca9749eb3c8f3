"""Contractions by dot-product instructions: every way to pack words of two summed positions.

Where the machine has no such instruction, the same tests hold of the ordinary loops.
"""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tilewright import kernels
from tilewright.compiler.targets.cpu import toolchain
from tilewright.op.check import relative_error

BF16 = np.dtype(ml_dtypes.bfloat16)
has_instruction = pytest.mark.skipif(
    not (toolchain.host().has_bf16_products and toolchain.host().has_i16_products),
    reason="this machine has no AVX512-BF16 and VNNI",
)


@tw.op
def two_sums(a: tw.Tile["m k l"], b: tw.Tile["k l n"]):
    return tw.sum(a * b, "k l")


@tw.op
def chosen(a: tw.Tile["m k"], b: tw.Tile["k n"]):
    """What is pointwise in a side, but gives only numbers that were there."""
    return tw.sum(tw.where(a > 0, tw.cast(a, tw.float32), 0.5) * tw.maximum(-b, 0.0), "k")


@tw.op
def computed(a: tw.Tile["m k"], b: tw.Tile["k n"]):
    """A side whose values are no bfloat16 numbers: they must not become some."""
    return tw.sum(tw.exp(a) * b, "k")


@tw.op
def added_up(a: tw.Tile["m k"], b: tw.Tile["k n"]):
    return tw.sum(tw.cast(a, tw.int32) * b, "k")


def drawn(rng: np.random.Generator, shape: tuple[int, ...], order: tuple[int, ...]) -> np.ndarray:
    """Whole numbers, so that sums are exact, with the dimensions in some order in memory."""
    whole = rng.integers(-8, 9, [shape[d] for d in order]).astype(BF16)
    return whole.transpose(np.argsort(order))


@pytest.mark.parametrize("shape", [(1, 1, 1), (17, 31, 33), (9, 1025, 20), (3, 2, 70)])
def test_products_in_every_layout(shape: tuple[int, int, int]):
    m, k, n = shape
    rng = np.random.default_rng(0)
    for left, right in itertools.product([(0, 1), (1, 0)], repeat=2):
        a, b = drawn(rng, (m, k), left), drawn(rng, (k, n), right)
        exact = a.astype(np.float64) @ b.astype(np.float64)
        np.testing.assert_array_equal(kernels.matmul(a, b).astype(np.float64), exact.astype(BF16))


@pytest.mark.parametrize("extents", [(5, 7, 1), (3, 5, 9), (2, 67, 3), (31, 1, 61)])
def test_runs_that_begin_in_the_middle_of_a_word(extents: tuple[int, int, int]):
    """Sums over axes that do not lie in memory as one are walked run by run; odd runs share words."""
    (k, l, n), m = extents, 19
    rng = np.random.default_rng(1)
    for left, right in [((0, 1, 2), (0, 1, 2)), ((2, 0, 1), (1, 2, 0)), ((1, 0, 2), (2, 0, 1))]:
        a, b = drawn(rng, (m, k, l), left), drawn(rng, (k, l, n), right)
        exact = np.einsum("mkl,kln->mn", a.astype(np.float64), b.astype(np.float64))
        np.testing.assert_array_equal(two_sums(a, b).astype(np.float64), exact.astype(BF16))


def test_infinities_and_nan_stay_in_their_row_and_column():
    a, b = np.ones((9, 5), BF16), np.ones((5, 20), BF16)
    a[2, 3], b[4, 7] = np.inf, np.nan
    found = kernels.matmul(a, b).astype(np.float64)
    expected = np.full((9, 20), 5.0)
    expected[2], expected[:, 7] = np.inf, np.nan
    np.testing.assert_array_equal(found, expected)


@has_instruction
@pytest.mark.parametrize(("op", "used"), [(kernels.matmul, True), (chosen, True), (computed, False)])
def test_the_instruction_is_used_where_no_value_is_rounded_for_it(op: tw.Op, used: bool):
    rng = np.random.default_rng(2)
    a, b = (rng.standard_normal(shape).astype(BF16) for shape in ((40, 50), (50, 60)))
    assert ("vdpbf16ps" in op.code(a, b, target="asm")) == used
    assert relative_error(op(a, b), op.reference(a, b)) < 5e-3


@pytest.mark.parametrize("left", ["int8", "uint8", "int16"])
@pytest.mark.parametrize("right", ["int8", "uint8"])
def test_sums_of_integers_are_exact(left: str, right: str):
    """The extremes in a row and a column, over several blocks of positions."""
    rng = np.random.default_rng(3)
    a, b = (_whole(rng, shape, kind) for shape, kind in (((9, 5003), left), ((5003, 20), right)))
    a[0], b[:, 0] = np.iinfo(left).min, np.iinfo(right).max
    np.testing.assert_array_equal(added_up(a, b), a.astype(np.int64) @ b.astype(np.int64))
    np.testing.assert_array_equal(kernels.matmul(a, b), a.astype(np.int64) @ b.astype(np.int64))


def _whole(rng: np.random.Generator, shape: tuple[int, int], kind: str) -> np.ndarray:
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max, shape, endpoint=True).astype(kind)


@has_instruction
@pytest.mark.parametrize(("left", "used"), [("int8", True), ("uint8", True), ("int16", False)])
def test_the_instruction_for_integers_is_used_where_it_cannot_overflow(left: str, used: bool):
    a, b = np.ones((40, 50), left), np.ones((50, 60), np.int8)
    assert ("vpdpwssd" in added_up.code(a, b, target="asm")) == used


def test_a_product_that_may_wrap_is_no_contraction():
    @tw.op
    def wrapping(a: tw.Tile["m k"], b: tw.Tile["k n"]):
        return tw.sum(a * b, "k")

    a, b = np.full((3, 5), 100, np.int8), np.full((5, 4), 100, np.int8)
    np.testing.assert_array_equal(wrapping(a, b), np.full((3, 4), 5 * 16))
