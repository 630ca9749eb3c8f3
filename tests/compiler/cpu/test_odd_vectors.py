"""Contractions with an odd number of vectors of columns: the last three have register blocks of their own."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support.contractions import with_wide_vectors
from tests.support.guarded import on_guard_pages
from tilewright import kernels
from tilewright.compiler.targets.cpu.schedule import Schedule


@tw.op
def dressed(a: tw.Tile["m k"], b: tw.Tile["k n"], c: tw.Tile["n"], d: tw.Tile["m n"]):
    return tw.tanh(tw.sum(a * tw.exp(-b * b), "k") + c) * d


def schedule_for(m: int, k: int, n: int, dtype: str = "float32") -> Schedule:
    operands = np.zeros((m, k), dtype), np.zeros((k, n), dtype)
    call = kernels.matmul.bind(kernels.matmul.arguments(operands, {}))
    (compiled,) = with_wide_vectors(call.program).compiled(dict(call.arrays))
    return compiled.schedule


def test_odd_numbers_of_vectors_alone():
    assert [n for n in (16, 32, 33, 48, 49, 64, 96) if schedule_for(40, 64, n).odd] == [33, 48]
    assert [n for n in (8, 16, 24, 25, 40, 48) if schedule_for(40, 64, n, "float64").odd] == [24, 40]


@pytest.mark.parametrize("columns", [33, 41, 48, 80, 240])
@pytest.mark.parametrize("rows", [17, 40])
def test_values(rows: int, columns: int):
    """Whole and ragged last vectors, whole and ragged rows; several blocks of sums, chunks and batches."""
    rng = np.random.default_rng(0)
    for batch, depth in (((), 65), ((3,), 19), ((), 5000)):
        a = rng.integers(-4, 5, (*batch, rows, depth)).astype(np.float32)
        b = rng.integers(-4, 5, (*batch, depth, columns)).astype(np.float32)
        np.testing.assert_array_equal(kernels.matmul(a, b), a.astype(np.float64) @ b.astype(np.float64))


def test_bfloat16_words():
    rng = np.random.default_rng(1)
    a, b = (rng.integers(-4, 5, shape).astype("bfloat16") for shape in ((40, 65), (65, 48)))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_array_equal(kernels.matmul(a, b), exact.astype(a.dtype))


def test_no_byte_beside_the_operands():
    on_guard_pages(kernels.matmul, (19, 33), (33, 41))
    on_guard_pages(dressed, (19, 33), (33, 41), (41,), (19, 41))
