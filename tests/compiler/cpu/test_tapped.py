"""Columns that are taps and channels of windows, read where they lie: the gradients of filters."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support.contractions import walk_of, with_wide_vectors
from tests.support.guarded import on_guard_pages
from tests.support.threads import assert_same_bits
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu import toolchain
from tilewright.compiler.targets.cpu.contractions.reading.costs import FEW
from tilewright.compiler.targets.cpu.contractions.reading.tapped import Tapped
from tilewright.compiler.targets.cpu.contractions.sizes import DEEPEST, block_sizes
from tilewright.compiler.targets.cpu.contractions.walk import Walk
from tilewright.compiler.targets.cpu.executable import CpuExecutable
from tilewright.compiler.targets.cpu.schedule import Schedule
from tilewright.compiler.targets.cpu.toolchain import caches
from tilewright.dsl.reference import reference
from tilewright.op.check import relative_error


@tw.op
def of_a_filter(
    d: tw.Tile["n oh ow o"],
    x: tw.Tile["n h w c"],
    *,
    taps: int = 3,
    wide: int = 3,
    stride: int = 1,
    dilation: int = 1,
    pad: int = 0,
) -> tw.Tile["o r s c"]:
    """A filter's gradient, as a user writes it."""
    h = tw.index("oh") * stride + tw.axis("r", taps) * dilation - pad
    w = tw.index("ow") * stride + tw.axis("s", wide) * dilation - pad
    return tw.sum(d * x.at(h=h, w=w), "n oh ow")


@tw.op
def along_one_axis(d: tw.Tile["n t o"], x: tw.Tile["n t c"], b: tw.Tile["s c"]) -> tw.Tile["o s c"]:
    """A factor that is computed, and what follows the sum."""
    window = x.at(t=tw.index("t") + tw.index("s") - 1)
    return tw.tanh(tw.sum(tw.exp(d) * window, "n t") * 0.01) + b["s c"]


@tw.op
def volumes(d: tw.Tile["g n a b e o"], x: tw.Tile["n g u v w c"]) -> tw.Tile["g o p q r c"]:
    """Windows along three axes, a batch of them, of which two may be left."""
    places = {"u": tw.index("a") + tw.axis("p", 2), "v": tw.index("b") + tw.axis("q", 2) - 1}
    window = x.at(**places, w=tw.index("e") * 2 + tw.axis("r", 3) - 2)
    return tw.sum(d * window, "n a b e")


@tw.op
def backwards(d: tw.Tile["n t o"], x: tw.Tile["n t c"]) -> tw.Tile["o s c"]:
    """Lines are read from their ends."""
    return tw.sum(d * x.at(t=tw.size("t") - tw.index("t") - tw.axis("s", 3)), "n t")


def drawn(*shapes: tuple[int, ...], dtype: str = "float32") -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)


def made(op: tw.Op, *operands: np.ndarray, **constants: int) -> tuple[Walk, Schedule]:
    call = op.bind(op.arguments(operands, constants))
    compiled = with_wide_vectors(call.program).compiled(dict(call.arrays))[-1]
    return walk_of(compiled), compiled.schedule


@pytest.mark.parametrize(
    ("d", "x", "expected"),
    [
        ((2, 9, 20, 16), (2, 9, 20, 32), Tapped("ow", 32, 8, 3)),
        ((2, 9, 20, 5), (2, 9, 20, 16), Tapped("ow", 16, 5, 3)),
        ((2, 9, 20, 2), (2, 9, 20, 16), Tapped("ow", 16, 2, 3)),
    ],
)
def test_register_blocks_have_whole_panels(d, x, expected: Tapped):
    walk, schedule = made(of_a_filter, *drawn(d, x), pad=1)
    assert walk.tapped == expected and not walk.direct
    assert (schedule.lane_axis, schedule.block_rows, schedule.block_columns) == (
        "c",
        expected.rows,
        expected.vectors,
    )


def test_the_panels_of_taps_that_lie_apart_are_of_one_tap():
    """With a dilation the vectors of two taps have others between them."""
    walk, _ = made(of_a_filter, *drawn((2, 9, 20, 16), (2, 9, 20, 32)), pad=2, dilation=2)
    assert walk.tapped and walk.tapped.vectors in (1, 2)


@pytest.mark.parametrize(
    ("d", "x", "constants"),
    [
        pytest.param((2, 9, 20, 16), (2, 9, 20, 24), {}, id="channels that do not fill vectors"),
        pytest.param((8, 6, 6, 16), (8, 6, 6, 32), {}, id="brief lines"),
        pytest.param((2, 9, 20, 160), (2, 9, 20, 32), {}, id="many rows: packing pays"),
        pytest.param((1, 4, 8, 16), (1, 4, 8, 32), {}, id="few summed positions"),
    ],
)
def test_where_columns_are_packed(d, x, constants):
    assert made(of_a_filter, *drawn(d, x), pad=1, **constants)[0].tapped is None


@pytest.mark.parametrize(
    ("filters", "channels", "tapped"),
    [(32, 64, True), (64, 32, True), (64, 256, False), (128, 64, False), (64, 8, True), (128, 16, False)],
)
def test_columns_are_packed_that_would_be_read_many_times(filters: int, channels: int, tapped: bool):
    """AVX2 has register blocks of four rows: as many times are columns read. Of few channels a position reads
    hardly more than the one before did.
    """
    call = of_a_filter.bind(
        of_a_filter.arguments(drawn((2, 9, 20, filters), (2, 9, 20, channels)), {"pad": 1})
    )
    executable = CpuExecutable(lower(call.program), toolchain.avx2())
    walk = walk_of(executable.compiled(dict(call.arrays))[-1])
    assert bool(walk.tapped) is tapped


@pytest.mark.parametrize(("channels", "most"), [(32, None), (256, FEW), (8, DEEPEST)])
def test_what_few_sums_read_stays_in_the_first_cache(channels: int, most: int | None):
    """Or a few lines of it at least; register blocks of more sums are not delayed by the second cache."""
    d, x = (3, 40, 20, 16), (3, 40, 20, channels)
    call = of_a_filter.bind(of_a_filter.arguments(drawn(d, x), {"pad": 1}))
    extents = {"n": 3, "oh": 40, "ow": 20, "o": 16, "r": 3, "s": 3, "c": channels}
    narrow = CpuExecutable(lower(call.program), toolchain.avx2()).compiled(dict(call.arrays))[-1]
    assert walk_of(narrow).tapped
    found = block_sizes(narrow.kernel, narrow.schedule, narrow.layout, extents, 1).block_k
    most = most or caches().l1d // (4 * channels)
    assert most // 2 < found <= most
    if channels > 8:
        wide = with_wide_vectors(call.program).compiled(dict(call.arrays))[-1]
        assert block_sizes(wide.kernel, wide.schedule, wide.layout, extents, 1).block_k > 600


def test_lines_that_are_read_backwards_are_packed():
    assert made(backwards, *drawn((4, 40, 8), (4, 40, 16)))[0].tapped is None
    on_guard_pages(backwards, (4, 40, 8), (4, 40, 16))


CASES = [
    ((2, 9, 20, 7), (2, 9, 20, 16), {"pad": 1}),
    ((2, 10, 11, 16), (2, 21, 23, 32), {"stride": 2, "pad": 1}),
    *(
        pytest.param(*case, marks=pytest.mark.exhaustive)
        for case in (
            ((3, 20, 24, 9), (3, 20, 24, 48), {"pad": 2, "taps": 5, "wide": 5}),
            ((2, 9, 20, 33), (2, 11, 22, 16), {}),
            ((2, 9, 20, 64), (2, 9, 20, 64), {"pad": 2, "dilation": 2}),
            ((1, 40, 41, 3), (1, 40, 41, 16), {"pad": 3, "taps": 1, "wide": 7}),
            ((2, 3, 70, 8), (2, 3, 4, 16), {"pad": 40}),
            ((2, 12, 7, 2), (2, 12, 7, 16), {"pad": 1, "wide": 1}),
            ((2, 9, 14, 20), (2, 27, 40, 32), {"stride": 3, "pad": 1, "wide": 4}),
            ((2, 8, 20, 6), (2, 6, 9, 16), {"pad": 4, "dilation": 3}),
        )
    ),
]


@pytest.mark.parametrize(("d", "x", "constants"), CASES)
def test_values_and_gradients_between_pages_without_access(d, x, constants):
    assert made(of_a_filter, *drawn(d, x), **constants)[0].tapped
    on_guard_pages(of_a_filter, d, x, **constants)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("d", "x", "constants"), [case for case in CASES if isinstance(case, tuple)])
def test_doubles_between_pages_without_access(d, x, constants):
    on_guard_pages(of_a_filter, d, x, dtype="float64", **constants)


def test_one_axis_and_what_follows_the_sum():
    shapes = (3, 70, 11), (3, 70, 32), (3, 32)
    assert made(along_one_axis, *drawn(*shapes))[0].tapped
    on_guard_pages(along_one_axis, *shapes)


def test_three_axes_of_a_batch():
    shapes = (2, 2, 3, 4, 9, 5), (2, 2, 4, 4, 17, 16)
    assert made(volumes, *drawn(*shapes))[0].tapped
    on_guard_pages(volumes, *shapes)


def test_operands_that_lie_apart():
    """Every other image, some lines and columns, and the first of more channels."""
    big = np.full((4, 12, 31, 40), np.nan, "f4")
    x, d = big[::2, 2:11, 3:23, :32], drawn((2, 9, 20, 6))[0]
    x[...] = drawn(x.shape)[0]
    walk = made(of_a_filter, d, x, pad=1)[0]
    assert walk.tapped and walk.tapped.step == 40
    found, wanted = of_a_filter(d, x, pad=1), of_a_filter.reference(d, x, pad=1)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_the_same_bits_for_every_thread_count():
    """Sums wait between blocks of summed positions, which end in the middle of a line."""
    d, x = drawn((3, 31, 37, 9), (3, 31, 37, 32))
    assert_same_bits(lambda: of_a_filter(d, x, pad=1))


@pytest.mark.skipif(not toolchain.avx2().is_host, reason="this machine cannot run AVX2's code")
@pytest.mark.parametrize("rows", [3, 9])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_vectors_of_256_bits(dtype: str, rows: int):
    """Register blocks that 16 registers have room for, of panels over two taps."""
    operands = drawn((2, 9, 20, rows), (2, 9, 20, 16), dtype=dtype)
    call = of_a_filter.bind(of_a_filter.arguments(operands, {"pad": 1}))
    executable = CpuExecutable(lower(call.program), toolchain.avx2())
    arrays = dict(call.arrays)
    compiled = executable.compiled(arrays)[-1]
    assert walk_of(compiled).tapped
    assert (compiled.schedule.block_rows, compiled.schedule.block_columns) == (3, 3)
    (found,), (wanted,) = executable.run(arrays), reference(call.program, arrays)
    assert relative_error(found, wanted) < (1e-13 if dtype == "float64" else 1e-5)


@tw.op
def turned(d: tw.Tile["o n oh ow"], x: tw.Tile["n h w c"]) -> tw.Tile["o r s c"]:
    """The other side lies along the sums, and is turned while it is packed."""
    h, w = tw.index("oh") + tw.axis("r", 3) - 1, tw.index("ow") + tw.axis("s", 3) - 1
    return tw.sum(d * x.at(h=h, w=w), "n oh ow")


@pytest.mark.parametrize("rows", [5, pytest.param(7, marks=pytest.mark.exhaustive)])
def test_rows_that_are_no_power_of_two_are_turned(rows: int):
    """Lines of 37 end in the middle of a square."""
    shapes = (rows, 3, 9, 37), (3, 9, 37, 16)
    walk, schedule = made(turned, *drawn(*shapes))
    assert walk.tapped and schedule.block_rows in (rows, 8)
    on_guard_pages(turned, *shapes)
