"""Few rows with many columns, which are read where they lie, line by line: nothing of them is packed."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support.guarded import on_guard_pages
from tests.support.threads import assert_same_bits
from tilewright import kernels
from tilewright.compiler.pipeline import compile_program, lower
from tilewright.compiler.targets.cpu import toolchain
from tilewright.compiler.targets.cpu.contractions.walk import Walk
from tilewright.compiler.targets.cpu.executable import CpuExecutable
from tilewright.compiler.targets.cpu.toolchain import caches

SHAPES = [(2, 64, 33), (3, 200, 70), (8, 65, 1030), (15, 130, 48), (16, 1, 40), (5, 300, 16), (2, 0, 20)]


@tw.op
def two_results(a: tw.Tile["m i j"], b: tw.Tile["i j p q"], bias: tw.Tile["p q"]):
    """Summed axes that lie as one, and columns that do; an epilogue that reads along the columns."""
    found = tw.sum(a * b, "i j")
    return tw.maximum(found + bias, 0), tw.exp(found * 0.01)


def walk_of(op: tw.Op, *operands: np.ndarray) -> Walk:
    call = op.bind(op.arguments(operands, {}))
    (compiled,) = compile_program(call.program).compiled(dict(call.arrays))
    return Walk.of(compiled.kernel, compiled.schedule, compiled.layout)


def drawn(rng: np.random.Generator, *shape: int, dtype: str = "float32") -> np.ndarray:
    """Small whole numbers, whose sums are exact."""
    return rng.integers(-4, 5, shape).astype(dtype)


def test_few_rows_read_columns_where_they_lie():
    few, many, columns = np.zeros((9, 80), "f4"), np.zeros((17, 80), "f4"), np.zeros((80, 300), "f4")
    assert walk_of(kernels.matmul, few, columns).in_lines
    assert walk_of(kernels.matmul, few.T.copy().T, columns).in_lines
    assert not walk_of(kernels.matmul, many, columns).in_lines
    assert not walk_of(kernels.matmul, few, np.zeros((80, 600), "f4")[:, ::2]).in_lines


def test_lines_of_one_cache_set_are_read_where_they_lie_once():
    """They would not stay in the first cache for the next register block's rows."""
    way = caches().l1d // caches().l1d_ways // 4
    several, one = np.zeros((16, 80), "f4"), np.zeros((4, 80), "f4")
    assert not walk_of(kernels.matmul, several, np.zeros((80, way), "f4")).in_lines
    assert walk_of(kernels.matmul, one, np.zeros((80, way), "f4")).in_lines
    assert walk_of(kernels.matmul, several, np.zeros((80, way - 64), "f4")).in_lines


@pytest.mark.parametrize(
    "dtype", ["float32", *(pytest.param(d, marks=pytest.mark.exhaustive) for d in ("float64", "int64"))]
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values(shape: tuple[int, int, int], dtype: str):
    m, k, n = shape
    rng = np.random.default_rng(0)
    for batch in ((), (3,)):
        a, b = drawn(rng, *batch, m, k, dtype=dtype), drawn(rng, *batch, k, n, dtype=dtype)
        for left in (a, np.swapaxes(np.swapaxes(a, -1, -2).copy(), -1, -2), a[..., ::-1]):
            np.testing.assert_array_equal(kernels.matmul(left, b), left @ b)
        np.testing.assert_array_equal(kernels.matmul(a, b[..., ::-1, :]), a @ b[..., ::-1, :])


@pytest.mark.skipif(not toolchain.avx2().is_host, reason="this machine cannot run AVX2's code")
@pytest.mark.parametrize("columns", [64, 70])
def test_vectors_that_are_read_whole_where_masks_are_dear(columns: int):
    rng = np.random.default_rng(4)
    operands = drawn(rng, 5, 130), drawn(rng, 130, columns)
    call = kernels.matmul.bind(kernels.matmul.arguments(operands, {}))
    (found,) = CpuExecutable(lower(call.program), toolchain.avx2()).run(dict(call.arrays))
    np.testing.assert_array_equal(found, operands[0] @ operands[1])


def test_lines_that_lie_apart():
    rng = np.random.default_rng(1)
    a, b = drawn(rng, 6, 150), drawn(rng, 300, 120)[::2, 10:90]
    assert walk_of(kernels.matmul, a, b).in_lines
    np.testing.assert_array_equal(kernels.matmul(a, b), a @ b)


def test_several_axes_and_an_epilogue():
    on_guard_pages(two_results, (7, 5, 30), (5, 30, 9, 8), (9, 8))


def test_the_same_bits_for_every_thread_count():
    rng = np.random.default_rng(2)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((12, 1000), (1000, 3000)))
    assert_same_bits(lambda: kernels.matmul(x, w))


@tw.op
def filters_last(x: tw.Tile["n c h w"], k: tw.Tile["r s c o"]) -> tw.Tile["n h w o"]:
    window = x.at(h=tw.index("h") + tw.index("r") - 1, w=tw.index("w") + tw.index("s") - 1)
    return tw.sum(window * k, "r s c")


def test_few_windows_pass_by_filters_that_lie_in_lines():
    """Sums that are few, and known to the code, are one block."""
    on_guard_pages(filters_last, (1, 14, 4, 4), (3, 3, 14, 512), dtype="float64")


@pytest.mark.parametrize("shape", [(2, 70, 17), (5, 129, 63)], ids=str)
def test_nothing_beside_the_operands_is_read(shape: tuple[int, int, int]):
    m, k, n = shape
    on_guard_pages(kernels.matmul, (m, k), (k, n))


def test_what_is_not_finite_stays_in_its_column():
    x, w = np.ones((3, 40), "f4"), np.ones((40, 35), "f4")
    w[7, 34] = np.nan
    found = kernels.matmul(x, w)
    assert np.isnan(found[:, 34]).all() and (found[:, :34] == 40).all()
