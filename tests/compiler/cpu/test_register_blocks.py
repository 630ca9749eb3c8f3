"""Register blocks of any height and width, and those that 16 and 32 registers have room for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tilewright as tw
from tests.support.checks import backward_of, extents_of, with_cotangents
from tests.support.contractions import drawn_whole, with_blocks, with_wide_vectors
from tests.support.guarded import on_guard_pages
from tests.support.indexing_ops import conv2d
from tilewright import kernels
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu import toolchain
from tilewright.compiler.targets.cpu.contractions.sizes import MOST_COLUMNS
from tilewright.compiler.targets.cpu.executable import CpuExecutable
from tilewright.compiler.targets.cpu.registers import Registers


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_panels_that_do_not_divide_a_chunk_of_columns(columns: int):
    """Rows are several chunks, and so columns are: those of a panel all belong to one of them."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype("f") for shape in ((300, 800), (800, MOST_COLUMNS + 76)))
    call = kernels.matmul.bind(kernels.matmul.arguments((a, b), {}))
    (found,) = with_blocks(call.program, 4, columns).run(dict(call.arrays))
    np.testing.assert_allclose(found, a.astype("d") @ b, rtol=0, atol=1e-3)


@pytest.mark.parametrize("rows", [3, 5, 6, 7])
def test_rows_that_are_packed_over_the_end_of_an_image(rows: int):
    """Images are whole vectors (784 positions), and no whole number of register blocks."""
    rng = np.random.default_rng(0)
    x, k = (rng.integers(-3, 4, shape).astype("f") for shape in ((8, 3, 56, 56), (5, 3, 3, 3)))
    call = conv2d.bind(conv2d.arguments((x, k), {"stride": 2, "pad": 1}))
    backward = backward_of(call.program)
    program = replace(backward, results=backward.results[:1])
    given = with_cotangents(backward, dict(call.arrays), extents_of(call.program, dict(call.arrays)))
    arrays = {p.name: np.rint(given[p.name]) for p in program.tiles}
    (wanted,) = CpuExecutable(lower(program)).run(arrays)
    (found,) = with_blocks(program, rows, 2).run(arrays)
    np.testing.assert_array_equal(found, wanted)


def blocks_of(a: tuple[int, int], b: tuple[int, int], target: toolchain.CpuTarget | None) -> tuple[int, int]:
    """Those of a product of matrices, by default."""
    call = kernels.matmul.bind(kernels.matmul.arguments((np.zeros(a, "f"), np.zeros(b, "f")), {}))
    executable = (
        with_wide_vectors(call.program) if target is None else CpuExecutable(lower(call.program), target)
    )
    (made,) = executable.compiled(dict(call.arrays))
    return made.schedule.block_rows, made.schedule.block_columns


@pytest.mark.skipif(not toolchain.avx2().is_host, reason="code for x86 is not linked on this machine")
def test_blocks_fit_the_registers():
    products = ((90, 70), (70, 100)), ((4, 70), (70, 100)), ((90, 70), (70, 8))
    assert [blocks_of(a, b, toolchain.avx2()) for a, b in products] == [(6, 2), (4, 3), (12, 1)]
    assert [blocks_of(a, b, None) for a, b in products] == [(8, 2), (4, 4), (16, 1)]


@pytest.mark.skipif(not toolchain.avx2().is_host, reason="code for x86 is not linked on this machine")
def test_few_sums_of_a_block_are_empty():
    """16 rows are four times 4, and three times 6; 96 columns are 4 · 3 vectors of 8, and 80 are 5 · 2."""
    products = ((16, 70), (70, 96)), ((16, 70), (70, 80)), ((18, 70), (70, 96)), ((600, 70), (70, 96))
    assert [blocks_of(a, b, toolchain.avx2()) for a, b in products] == [(4, 3), (6, 2), (6, 2), (6, 2)]
    assert blocks_of((16, 70), (70, 96), None) == (8, 2)


WIDER = [  # operands of windows; lines of whole vectors; stride, zeros around
    ((2, 3, 17, 24), (16, 3, 3, 3), {"stride": 1, "pad": 1}),
    ((3, 5, 31, 64), (40, 5, 5, 3), {"stride": 2, "pad": 1}),
    ((1, 16, 30, 30), (8, 16, 3, 3), {"stride": 1, "pad": 2}),
]


@pytest.mark.skipif(not toolchain.avx2().is_host, reason="this machine cannot run AVX2's code")
@pytest.mark.parametrize(("image", "filters", "constants"), WIDER)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_windows_by_three_vectors(image, filters, constants, dtype: str):
    operands = drawn_whole(image, filters, dtype=dtype)
    call = conv2d.bind(conv2d.arguments(operands, constants))
    executable = CpuExecutable(lower(call.program), toolchain.avx2())
    blocks = [c.schedule for c in executable.compiled(dict(call.arrays)) if c.kernel.contraction]
    assert [(made.block_rows, made.block_columns) for made in blocks] == [(4, 3)]
    (found,) = executable.run(dict(call.arrays))
    np.testing.assert_array_equal(found, conv2d.reference(*operands, **constants).astype(dtype))
    on_guard_pages(conv2d, image, filters, **constants)


@pytest.mark.skipif(not toolchain.avx2().is_host, reason="this machine cannot run AVX2's code")
@pytest.mark.parametrize(("m", "k", "n"), [(16, 70, 96), (20, 1, 24), (9, 700, 1000), (33, 2400, 120)])
def test_products_by_three_vectors(m: int, k: int, n: int):
    operands = drawn_whole((m, k), (k, n))
    call = kernels.matmul.bind(kernels.matmul.arguments(operands, {}))
    (found,) = CpuExecutable(lower(call.program), toolchain.avx2()).run(dict(call.arrays))
    np.testing.assert_array_equal(found, operands[0].astype("d") @ operands[1])


def test_what_registers_hold():
    few, many = Registers(16, 8), Registers(32, 16)
    assert [(r, v) for r in range(1, 8) for v in range(1, 7) if few.hold(r, v) and not few.hold(r + 1, v)][
        -1:
    ]
    assert few.hold(4, 3) and few.hold(6, 2) and few.hold(12, 1) and few.hold(1, 12)
    assert not few.hold(3, 4) and not few.hold(8, 2) and not few.hold(2, 6)
    assert many.hold(8, 3) and many.hold(14, 2) and not many.hold(8, 4)


@pytest.mark.skipif(not toolchain.avx2().is_host, reason="this machine cannot run AVX2's code")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blocks_of_avx2_stay_in_registers(dtype: str):
    """Nothing is put away in the innermost loop of a product."""
    operands = np.zeros((90, 70), dtype), np.zeros((70, 100), dtype)
    call = kernels.matmul.bind(kernels.matmul.arguments(operands, {}))
    executable = CpuExecutable(lower(call.program), toolchain.avx2())
    (made,) = executable.compiled(dict(call.arrays))
    lines = executable.source(made, "asm").splitlines()
    products = [n for n, line in enumerate(lines) if "vfmadd" in line and "%ymm" in line]
    assert products
    loops = [n for n, line in enumerate(lines) if line.startswith(".LBB")]
    for n in products:
        begin = max(start for start in loops if start < n)
        end = min((start for start in loops if start > n), default=len(lines))
        body = lines[begin:end]
        if sum("vfmadd" in line for line in body) >= 12:
            assert not [line for line in body if "%ymm" in line and "(%rsp)" in line]


@tw.op
def rows_far_apart(x: tw.Tile["m k"], y: tw.Tile["k n"]):
    return tw.tanh(tw.sum(x * y, "k"))


@pytest.mark.parametrize("columns", [8, 40])
@pytest.mark.parametrize("depth", [1024, 1025])
def test_rows_a_page_apart(depth: int, columns: int):
    """Their lines are of one set of the first cache: they are packed beside many columns."""
    rng = np.random.default_rng(0)
    x, y = (
        rng.standard_normal((50, 1024 + depth % 2)).astype("f")[:, :depth],
        rng.standard_normal((depth, columns)).astype("f"),
    )
    np.testing.assert_allclose(rows_far_apart(x, y), rows_far_apart.reference(x, y), rtol=1e-4, atol=1e-4)
