"""Rows of windows that lie evenly: lines and their ends, borders, what is read and written beside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tilewright as tw
from tests.support.checks import backward_of, extents_of, with_cotangents
from tests.support.contractions import on_avx2, walk_of, with_wide_vectors
from tests.support.guarded import on_guard_pages
from tests.support.indexing_ops import channels_last
from tests.support.threads import assert_same_bits
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu import toolchain
from tilewright.compiler.targets.cpu.contractions.reading.even import Even
from tilewright.compiler.targets.cpu.contractions.walk import Walk
from tilewright.compiler.targets.cpu.executable import CpuExecutable
from tilewright.compiler.targets.cpu.recipe import CompiledKernel

PADDED = {"before": 1, "behind": 1}


@tw.op
def residual(
    x: tw.Tile["n t c"], k: tw.Tile["o r c"], y: tw.Tile["n t o"], b: tw.Tile["o"]
) -> tw.Tile["n t o"]:
    """A window along one axis, with what follows the sum."""
    window = x.at(t=tw.index("t") + tw.index("r") - 1)
    return y + tw.tanh(tw.sum(window * k, "r c") + b)


def drawn(*shapes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)


def contraction_of(*operands: np.ndarray, **constants: int) -> CompiledKernel:
    call = channels_last.bind(channels_last.arguments(operands, constants))
    return with_wide_vectors(call.program).compiled(dict(call.arrays))[-1]


def assembly(*operands: np.ndarray, **constants: int) -> str:
    """That of a contraction which reads its operands as they are."""
    call = channels_last.bind(channels_last.arguments(operands, constants))
    executable = with_wide_vectors(call.program)
    (made,) = [c for c in executable.compiled(dict(call.arrays)) if c.kernel.contraction]
    return executable.source(made, "asm")


def gradient_of_filter(*operands: np.ndarray, **constants: int) -> CompiledKernel:
    call = channels_last.bind(channels_last.arguments(operands, constants))
    backward = backward_of(call.program)
    program = replace(backward, results=backward.results[1:])
    given = with_cotangents(program, dict(call.arrays), extents_of(call.program, dict(call.arrays)))
    return with_wide_vectors(program).compiled({p.name: given[p.name] for p in program.tiles})[-1]


@pytest.mark.parametrize(("width", "rows"), [(8, 8), (32, 16), (56, 28), (100, 25)])
def test_register_blocks_fill_lines(width: int, rows: int):
    made = contraction_of(*drawn((2, 3, width, 16), (16, 3, 3, 16)), **PADDED)
    walk = walk_of(made)
    assert walk.even == Even(1, 16, rows, False, edges=1)
    assert (made.schedule.block_rows, made.schedule.block_columns) == (rows, 1)


@pytest.mark.parametrize("filters", [17, 32])
def test_two_vectors_of_columns_have_half_as_many_rows(filters: int):
    made = contraction_of(*drawn((2, 3, 56, 16), (filters, 3, 3, 16)), **PADDED)
    assert walk_of(made).even == Even(1, 16, 14, False, 2, 1)
    assert (made.schedule.block_rows, made.schedule.block_columns) == (14, 2)


def test_where_rows_do_not_lie_evenly():
    short = contraction_of(*drawn((2, 9, 7, 16), (16, 3, 3, 16)), **PADDED)
    wide = contraction_of(*drawn((2, 9, 28, 16), (33, 3, 3, 16)), **PADDED)
    assert walk_of(short).direct and walk_of(short).even is None
    assert walk_of(wide).direct and walk_of(wide).even is None


def test_the_taps_of_a_filters_gradient_lie_evenly():
    """(s, c) is one line of 3 · 8, from channel to channel; the image is walked along its own lines."""
    walk = walk_of(gradient_of_filter(*drawn((2, 9, 20, 8), (16, 3, 3, 8)), **PADDED))
    assert walk.step == 8 and walk.even == Even(2, 1, 24, False)


@pytest.mark.parametrize(
    ("taps", "constants", "edges"),
    [
        (5, {"before": 2, "behind": 1}, 2),
        (5, {"before": 3, "behind": 3, "stride": 2}, 2),
        (9, {"before": 8, "behind": 8}, 8),
        (3, {}, 0),
    ],
)
def test_how_many_rows_may_be_outside(taps: int, constants: dict[str, int], edges: int):
    """More of them than are looked at one by one have addresses of their own."""
    made = contraction_of(*drawn((2, 9, 56, 16), (16, 3, taps, 16)), **constants)
    even = walk_of(made).even
    assert even and even.edges == edges


@pytest.mark.parametrize("stride", [1, 2])
def test_addresses_are_displacements(stride: int):
    """Of 28 rows all but those that may be outside are read from one register."""
    image, filters = drawn((1, 60, 56 * stride, 16), (16, 3, 3, 16))
    text = assembly(image, filters, stride=stride, **PADDED)
    lines = [line for line in text.splitlines() if "vfmadd" in line and "{1to16}" in line]
    even = walk_of(contraction_of(image, filters, stride=stride, **PADDED)).even
    assert even and even.edges == 1
    for row in range(even.edges, 28 - even.edges):
        assert any(f"\t{64 * stride * row}(" in line for line in lines), f"row {row}, first summed position"


def test_what_several_rows_read_stays_in_no_register():
    """Windows of three channels overlap; sums have all registers, and nothing is put away beside them."""
    text = assembly(*drawn((1, 30, 56, 3), (16, 3, 3, 3)))
    products = [n for n, line in enumerate(text.splitlines()) if "vfmadd" in line and "{1to16}" in line]
    between = text.splitlines()[products[0] : products[-1]]
    assert len(products) >= 9 * 27, "three taps of three channels, for each of as many rows as fill a line"
    assert not [line for line in between if "%zmm" in line and "(%rsp)" in line]


@pytest.mark.parametrize(("stride", "written"), [(2, 3), (1, 1)])
def test_brief_runs_are_written_out_where_registers_hold_their_addresses(stride: int, written: int):
    """Three lines of taps, of nine positions each. Windows with a step share fewer elements: two addresses a
    line serve them, where those without need three.
    """
    image, filters = drawn((1, 60, 56 * stride, 3), (32, 3, 3, 3))
    text = assembly(image, filters, stride=stride, **PADDED)
    products = [line for line in text.splitlines() if "vfmadd" in line and "%zmm" in line]
    even = walk_of(contraction_of(image, filters, stride=stride, **PADDED)).even
    assert even and even.vectors == 2
    assert len(products) == written * 9 * even.rows * even.vectors


def test_a_filters_gradient_packs_nothing():
    walk = walk_of(gradient_of_filter(*drawn((2, 9, 20, 8), (16, 3, 3, 8)), **PADDED))
    assert walk.even and walk.direct and walk.in_lines


CASES = [
    ((2, 3, 29, 5), (7, 3, 3, 5), PADDED),
    ((2, 4, 30, 9), (27, 3, 3, 9), PADDED),
    ((2, 9, 9, 16), (16, 9, 9, 16), {"before": 4, "behind": 4}),  # one row is the whole middle
    *(
        pytest.param(*case, marks=pytest.mark.exhaustive)
        for case in (
            ((1, 4, 33, 18), (16, 2, 5, 18), {"before": 2, "behind": 1}),
            ((2, 5, 29, 3), (12, 3, 3, 3), {"stride": 2, **PADDED}),
            ((2, 3, 8, 9), (1, 3, 3, 9), PADDED),
            ((2, 5, 31, 8), (3, 3, 7, 8), {"before": 3, "behind": 3}),
            ((1, 9, 57, 16), (16, 3, 3, 16), {"stride": 2, **PADDED}),
            ((1, 9, 57, 12), (16, 3, 3, 12), {"stride": 3, "before": 2}),
            ((2, 7, 30, 16), (12, 3, 3, 16), {"dilation": 2, "before": 2, "behind": 2}),
            ((2, 4, 20, 16), (16, 3, 3, 16), {}),
            ((1, 2, 9, 33), (16, 3, 3, 33), {"before": 1, "behind": 1, "wide": 12}),
            ((3, 4, 50, 64), (8, 3, 3, 64), PADDED),
            ((2, 6, 31, 2), (5, 5, 5, 2), {"before": 2, "behind": 2}),
            ((3, 5, 40, 4), (16, 3, 4, 4), {"stride": 3, "before": 1}),
            ((2, 9, 57, 3), (32, 3, 3, 3), {"stride": 2, **PADDED}),
            ((1, 4, 20, 33), (31, 3, 3, 33), {"before": 1, "behind": 1, "wide": 9}),
            ((3, 3, 41, 16), (18, 3, 5, 16), {"dilation": 2, "before": 4, "behind": 4}),
            ((2, 5, 33, 16), (16, 3, 9, 16), {"before": 8, "behind": 8}),
            ((2, 5, 12, 16), (16, 5, 5, 16), {"before": 4, "behind": 4}),
        )
    ),
]


@pytest.mark.parametrize(("image", "filters", "constants"), CASES)
def test_values_and_gradients_between_pages_without_access(image, filters, constants):
    on_guard_pages(channels_last, image, filters, **constants)


def test_what_follows_the_sum():
    on_guard_pages(residual, (3, 37, 20), (11, 3, 20), (3, 37, 11), (11,))


def test_rows_that_two_blocks_have_are_written_once():
    """The last block of a line begins before the one before ends: what it replaces is read once."""
    x, k, y, b = drawn((3, 37, 20), (11, 3, 20), (3, 37, 11), (11,))
    wanted = residual.reference(x, k, y, b)
    assert residual(x, k, y, b, out=y) is y
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)


def test_operands_that_lie_apart():
    """Every other line, and the first of more channels."""
    image, k = drawn((2, 8, 30, 20), (16, 3, 3, 12))
    x = image[:, ::2, :, :12]
    walk = walk_of(contraction_of(x, k, **PADDED))
    assert walk.even and walk.even.apart == 20
    found, wanted = channels_last(x, k, **PADDED), channels_last.reference(x, k, **PADDED)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_what_is_infinite_meets_the_zeros_as_padding_does():
    x, k = np.ones((1, 3, 30, 8), "f4"), np.ones((16, 3, 3, 8), "f4")
    k[0, 0, 0, 0] = np.inf
    found = channels_last(x, k, **PADDED)
    inside = found[0, 1:, 1:, 0]
    assert np.isnan(found[0, 0, :, 0]).all() and np.isnan(found[0, :, 0, 0]).all() and np.isinf(inside).all()
    assert np.isfinite(found[..., 1:]).all()


def test_what_comes_from_afar():
    """An operand beyond the second cache is asked for ahead; nothing of it is read beside its lines."""
    x, k = drawn((1, 40, 120, 64), (3, 3, 3, 64))
    walk = walk_of(contraction_of(x, k, **PADDED))
    assert walk.even and walk.even.far
    found, wanted = channels_last(x, k, **PADDED), channels_last.reference(x, k, **PADDED)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)


def test_the_same_bits_for_every_thread_count():
    x, k = drawn((3, 31, 37, 16), (16, 3, 3, 16))
    assert_same_bits(lambda: channels_last(x, k, **PADDED))


@pytest.mark.skipif(not toolchain.avx2().is_host, reason="this machine cannot run AVX2's code")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_vectors_of_256_bits(dtype: str):
    """Register blocks are of fewer rows, and of two vectors."""
    operands = (array.astype(dtype) for array in drawn((1, 4, 33, 18), (16, 2, 5, 18)))
    on_avx2(channels_last, *operands, applies=lambda walk: walk.even, **PADDED)


@pytest.mark.parametrize(("width", "rows", "filters"), [(56, 4, 24), (11, 3, 17)])
def test_three_vectors_of_columns(width: int, rows: int, filters: int):
    """Of 256 bits: three panels of one would have every row read three times."""
    x, k = drawn((1, 4, width, 18), (filters, 2, 5, 18))

    def applies(walk: Walk) -> bool:
        return walk.even is not None and (walk.even.rows, walk.even.vectors) == (rows, 3)

    call = channels_last.bind(channels_last.arguments((x, k), PADDED))
    (made,) = CpuExecutable(lower(call.program), toolchain.avx2()).compiled(dict(call.arrays))
    assert applies(walk_of(made))
    on_avx2(channels_last, x, k, applies=lambda walk: walk.even, **PADDED)


def test_three_vectors_of_phases():
    """The gradient of an image: columns are windows themselves, and the last vector of them is not full."""
    x, k = drawn((1, 5, 131, 2), (19, 3, 4, 2))
    on_avx2(channels_last, x, k, applies=bool, stride=3, before=2, behind=4)
