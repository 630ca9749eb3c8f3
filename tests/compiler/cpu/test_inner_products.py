"""Contractions with one skinny side, both sides contiguous along the sums: read in place, nothing packed."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tests.support.contractions import with_blocks
from tests.support.threads import assert_same_bits
from tilewright import kernels
from tilewright.runtime.guard import guarded, run_forked

SHAPES = [
    (2, 256, 3),
    (9, 257, 33),
    (16, 1000, 64),
    (3, 300, 500),
    (100, 303, 7),
    (33, 1024, 16),
    (70, 2500, 3),
    (2, 4097, 5),
]


def drawn(rng: np.random.Generator, *shape: int, dtype: str) -> np.ndarray:
    """Small whole numbers, whose sums are exact in every dtype's accumulator."""
    return rng.integers(-4, 5, shape).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


@tw.op
def two_axes(a: tw.Tile["m i j"], b: tw.Tile["n i j"], c: tw.Tile["n"]):
    return tw.maximum(tw.sum(a * b, "i j") + c, 0), tw.sum(a * b, "i j")


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.everyday(12)
def test_values(shape: tuple[int, int, int], dtype: str):
    m, k, n = shape
    rng = np.random.default_rng(0)
    for batch in ((), (3,)):
        a, b = drawn(rng, *batch, m, k, dtype=dtype), drawn(rng, *batch, n, k, dtype=dtype)
        exact = a.astype(np.float64) @ np.swapaxes(b.astype(np.float64), -1, -2)
        found = kernels.matmul(a, np.swapaxes(b, -1, -2))
        np.testing.assert_array_equal(found, exact.astype(found.dtype))


@pytest.mark.parametrize(("rows", "columns"), [(4, 3), (6, 2), (5, 1), (8, 2)])
def test_blocks_of_any_number_of_sums(rows: int, columns: int):
    """Their lanes are added up vector by vector, of which the last is full or not."""
    a, b = (drawn(np.random.default_rng(0), n, 300, dtype="float32") for n in (11, 37))
    call = kernels.matmul.bind(kernels.matmul.arguments((a, b.T), {}))
    (found,) = with_blocks(call.program, rows, columns).run(dict(call.arrays))
    np.testing.assert_array_equal(found, a @ b.T)


def test_rows_that_lie_apart_and_several_summed_axes():
    rng = np.random.default_rng(1)
    a, b = drawn(rng, 10, 17, 24, dtype="float32")[::2], drawn(rng, 80, 17, 24, dtype="float32")[::-2]
    c = drawn(rng, 40, dtype="float32")
    exact = np.einsum("mij,nij->mn", a.astype(np.float64), b.astype(np.float64))
    for found, wanted in zip(two_axes(a, b, c), (np.maximum(exact + c, 0), exact), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_the_same_bits_for_every_thread_count():
    rng = np.random.default_rng(2)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((12, 1000), (3000, 1000)))
    assert_same_bits(lambda: kernels.linear(x, w))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nothing_beside_the_operands_is_read(dtype: str):
    rng = np.random.default_rng(3)
    cases = [
        (drawn(rng, m, k, dtype=dtype), drawn(rng, n, k, dtype=dtype))
        for m, k, n in ((5, 257, 35), (40, 303, 7))
    ]
    expected = [kernels.linear(x, w) for x, w in cases]

    def touch() -> None:
        tw.set_num_threads(1)
        for side in ("start", "end"):
            for (x, w), wanted in zip(cases, expected, strict=True):
                np.testing.assert_array_equal(kernels.linear(guarded(x, side), guarded(w, side)), wanted)

    tw.set_num_threads(1)
    try:
        for x, w in cases:
            kernels.linear(x, w)
        outcome = run_forked(touch)
    finally:
        tw.set_num_threads(None)
    assert outcome.kind == "returned", outcome.report


def test_packing_is_left_out():
    x, w = np.zeros((4, 512), np.float32), np.zeros((96, 512), np.float32)
    assert kernels.linear.code(x, w) != kernels.linear.code(np.zeros((40, 512), np.float32), w)
