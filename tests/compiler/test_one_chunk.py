"""Sums in two steps of which a call has one chunk are one kernel."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support.guarded import on_guard_pages
from tilewright.compiler.pipeline import compile_program
from tilewright.op.check import relative_error


@tw.op
def mean_of_squares(x: tw.Tile["n m"], y: tw.Tile["n m"], *, scale: tw.Scalar = 1.0):
    """What follows the sum reads sizes and a number of the call."""
    return scale * tw.mean((x - y) * (x - y), "n m")


@tw.op
def normalised(x: tw.Tile["n"], w: tw.Tile["n"]):
    """Two phases, each with partial results of its own, and what is pointwise behind them."""
    spread = tw.sqrt(tw.sum(x * x, "n") + 1)
    return x / spread * w, tw.sum(x / spread * w, "n"), tw.max(x, "n") - tw.min(x, "n")


@tw.op
def of_batches(x: tw.Tile["... n m"]) -> tw.Tile["..."]:
    return tw.logsumexp(x, "n m")


@tw.op
def two_sums(x: tw.Tile["n"], y: tw.Tile["m"]):
    """Two sums, and what is pointwise behind one of them."""
    return tw.sum(x, "n") + tw.sum(y * y, "m") * y


def drawn(*shapes: tuple[int, ...], dtype: str = "float32") -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)


def kernels(op: tw.Op, *operands: np.ndarray) -> list[str]:
    call = op.bind(op.arguments(operands, {}))
    return [made.kernel.name for made in compile_program(call.program).compiled(dict(call.arrays))]


@pytest.mark.parametrize(("shape", "count"), [((4, 4), 1), ((128, 128), 1), ((128, 129), 2), ((1, 1), 1)])
def test_how_many_kernels_a_mean_is(shape: tuple[int, int], count: int):
    x, y = drawn(shape, shape)
    assert len(kernels(mean_of_squares, x, y)) == count
    found, wanted = mean_of_squares(x, y, scale=3.0), mean_of_squares.reference(x, y, scale=3.0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_one_op_at_extents_of_both_kinds():
    """Code for one chunk is not run for several, in whatever order they come."""
    for extent in (5, 100_000, 16, 70_000, 5):
        operands = drawn((extent,), (extent,))
        for found, wanted in zip(normalised(*operands), normalised.reference(*operands), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * max(1, np.max(np.abs(wanted))))


def test_each_sum_that_has_one_chunk_is_whole():
    """One of two sums may have several."""
    short, long = drawn((30,), (100_000,))
    assert len(kernels(two_sums, short, short)) < len(kernels(two_sums, short, long))
    for operands in ((short, short), (short, long), (long, short)):
        assert relative_error(two_sums(*operands), two_sums.reference(*operands)) < 1e-5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_and_gradients_between_pages_without_access(dtype: str):
    on_guard_pages(of_batches, (1, 9, 31), dtype=dtype)
    on_guard_pages(normalised, (77,), (77,), dtype=dtype)


def test_a_result_beside_what_is_summed():
    """`out` may be memory that the sum reads."""
    x, w = drawn((500,), (500,))
    wanted = normalised.reference(x, w)
    found = normalised(x, w, out=(x, None, None))
    assert found[0] is x
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


def test_batches_of_one():
    (x,) = drawn((1, 6, 50))
    np.testing.assert_allclose(of_batches(x), of_batches.reference(x), rtol=1e-5)
