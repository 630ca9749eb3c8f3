"""Few rows by which a large side passes: it is packed several panels at a time, in blocks of few sums."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support.guarded import on_guard_pages
from tests.support.threads import assert_same_bits
from tilewright import kernels
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu import toolchain
from tilewright.compiler.targets.cpu.contractions import panels, sizes
from tilewright.compiler.targets.cpu.contractions.panels import AT_A_TIME
from tilewright.compiler.targets.cpu.contractions.sizes import SHALLOW, block_sizes
from tilewright.compiler.targets.cpu.executable import CpuExecutable
from tilewright.compiler.targets.cpu.toolchain import caches

LARGE = 1_300, 903  # summed positions and columns: more than a second cache of two megabytes holds


@tw.op
def gated(a: tw.Tile["m k"], b: tw.Tile["k n"], g: tw.Tile["k"], bias: tw.Tile["n"]) -> tw.Tile["m n"]:
    """Something is done to the columns while they are packed, and to the results."""
    return tw.tanh(tw.sum(a * (tw.exp(b) * g), "k") * 0.001 + bias)


def drawn(*shape: int, dtype: str = "float32") -> np.ndarray:
    """Small whole numbers, whose sums are exact."""
    return np.random.default_rng(sum(shape)).integers(-4, 5, shape).astype(dtype)


def sizes_of(a: np.ndarray, b: np.ndarray, threads: int = 1) -> sizes.Sizes:
    call = kernels.matmul.bind(kernels.matmul.arguments((a, b), {}))
    (made,) = CpuExecutable(lower(call.program)).compiled(dict(call.arrays))
    extents = {"m": a.shape[0], "n": b.shape[1], "k": a.shape[1]}
    return block_sizes(made.kernel, made.schedule, made.layout, extents, threads)


def test_a_large_side_passes_in_blocks_of_few_sums():
    depth, columns = LARGE
    assert 4 * depth * columns > caches().l2
    found = sizes_of(drawn(40, depth), drawn(depth, columns))
    assert found.block_k <= SHALLOW < depth <= sizes.UNCUT
    assert found.chunk_n * 4 >= AT_A_TIME
    small = sizes_of(drawn(40, depth), drawn(depth, 24))
    assert small.block_k == depth
    assert sizes_of(drawn(900, depth), drawn(depth, columns)).block_k == depth


def test_the_order_of_sums_knows_no_threads():
    depth, columns = LARGE
    a, b = drawn(400, depth), drawn(depth, columns)
    assert len({sizes_of(a, b, threads).block_k for threads in (1, 2, 7, 64)}) == 1
    few = a[:37] / 7
    assert_same_bits(lambda: kernels.matmul(few, b / 3))


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("rows", [17, 40, pytest.param(131, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("columns", [16, 64, 100, 903])
def test_values(rows: int, columns: int, dtype: str):
    """Whole groups of panels, single ones behind them, and the rest of one."""
    a, b = drawn(rows, LARGE[0], dtype=dtype), drawn(LARGE[0], columns, dtype=dtype)
    exact = a.astype("f8") @ b.astype("f8")
    for left in (a, a.T.copy().T):
        for right in (b, b[:, ::-1], b.T.copy().T):
            np.testing.assert_array_equal(kernels.matmul(left, right), left.astype("f8") @ right.astype("f8"))
    np.testing.assert_array_equal(kernels.matmul(a, b), exact)


@pytest.mark.parametrize("columns", [64, 77])
def test_what_is_done_to_columns_and_results(columns: int):
    on_guard_pages(gated, (30, 70), (70, columns), (70,), (columns,))


@tw.op
def swapped(a: tw.Tile["m i j"], b: tw.Tile["n j i"]) -> tw.Tile["m n"]:
    """One side has the summed axes the other way round: it is turned, square by square."""
    return tw.sum(a * b, "i j")


@pytest.mark.parametrize(
    ("op", "shapes", "several"),
    [(kernels.matmul, ((40, 70), (70, 96)), True), (swapped, ((40, 24, 32), (96, 32, 24)), False)],
    ids=["straight", "turned"],
)
def test_several_panels_are_packed_of_sides_that_lie_along_them(
    op: tw.Op, shapes, several: bool, monkeypatch: pytest.MonkeyPatch
):
    call = op.bind(op.arguments(tuple(drawn(*shape) for shape in shapes), {}))

    def code() -> str:
        executable = CpuExecutable(lower(call.program))
        return executable.source(executable.compiled(dict(call.arrays))[-1])

    found = code()
    monkeypatch.setattr(panels, "AT_A_TIME", 1)
    assert (code() != found) is several


@pytest.mark.skipif(not toolchain.avx2().is_host, reason="this machine cannot run AVX2's code")
@pytest.mark.parametrize(("rows", "columns"), [(19, 903), (16, 1024), (100, 65)])
def test_vectors_of_256_bits(rows: int, columns: int):
    a, b = drawn(rows, LARGE[0]), drawn(LARGE[0], columns)
    call = kernels.matmul.bind(kernels.matmul.arguments((a, b), {}))
    (found,) = CpuExecutable(lower(call.program), toolchain.avx2()).run(dict(call.arrays))
    np.testing.assert_array_equal(found, a.astype("f8") @ b.astype("f8"))
