"""Columns of windows that are read where they lie, over the ends of an image's lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

import tilewright as tw
from tests.support.checks import backward_of, extents_of, with_cotangents
from tests.support.contractions import on_avx2, walk_of, with_wide_vectors
from tests.support.guarded import on_guard_pages
from tests.support.indexing_ops import conv2d
from tests.support.threads import assert_same_bits
from tilewright.compiler.targets.cpu import toolchain
from tilewright.compiler.targets.cpu.contractions.reading.overrun import Overrun
from tilewright.compiler.targets.cpu.contractions.walk import Walk
from tilewright.dsl.program import Program

AROUND = {"pad": 1}


@tw.op
def residual(
    x: tw.Tile["n c t"], k: tw.Tile["o c r"], y: tw.Tile["n o t"], b: tw.Tile["o"]
) -> tw.Tile["n o t"]:
    """A window along one axis, with what follows the sum."""
    window = x.at(t=tw.index("t") + tw.index("r") - 1)
    return y + tw.tanh(tw.sum(window * k, "c r") + b)


@tw.op
def along_the_image(x: tw.Tile["n c h w"], k: tw.Tile["o c r s"], y: tw.Tile["oh ow"]):
    """What follows the sum depends on the place in the image."""
    window = x.at(h=tw.index("oh") + tw.index("r"), w=tw.index("ow") + tw.index("s"))
    sums = tw.sum(window * k, "c r s")
    return sums * y + tw.index("ow") - 2 * tw.index("oh")


@tw.op
def volumes(x: tw.Tile["n c d h w"], k: tw.Tile["o c q r s"]):
    """Windows along three axes, with zeros around."""
    od, oh, ow = (tw.axis(f"o{a}", tw.size(a) + 2 - tw.size(b) + 1) for a, b in ("dq", "hr", "ws"))
    window = x.at(d=od + tw.index("q") - 1, h=oh + tw.index("r") - 1, w=ow + tw.index("s") - 1)
    return tw.sum(window * k, "c q r s")


def drawn(*shapes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)


def walks(program: Program, arrays: Mapping[str, np.ndarray]) -> list[Walk]:
    compiled = with_wide_vectors(program).compiled({p.name: arrays[p.name] for p in program.tiles})
    return [walk_of(found) for found in compiled if found.kernel.contraction]


def walk(*operands: np.ndarray, **constants: int) -> Walk:
    call = conv2d.bind(conv2d.arguments(operands, constants))
    return walks(call.program, call.arrays)[-1]


def walk_of_gradient(*operands: np.ndarray, **constants: int) -> Walk:
    """That of the image's gradient."""
    call = conv2d.bind(conv2d.arguments(operands, constants))
    backward = backward_of(call.program)
    program = replace(backward, results=backward.results[:1])
    given = with_cotangents(program, dict(call.arrays), extents_of(call.program, dict(call.arrays)))
    return walks(program, given)[-1]


@pytest.mark.parametrize(
    ("image", "filters", "constants", "expected"),
    [
        ((2, 6, 14, 14), (4, 6, 5, 5), {}, Overrun(2, 14, 4, 3, "s", 1)),
        (
            (2, 8, 28, 28),
            (6, 8, 3, 3),
            AROUND,
            Overrun(2, 30, 6, 2, "s", 1, {"h": (1, 1), "w": (1, 1)}),
        ),
        ((2, 3, 9, 40), (32, 3, 3, 3), {"dilation": 2}, Overrun(2, 40, 8, 2, "s", 2)),
    ],
)
def test_columns_run_over_lines(image, filters, constants, expected):
    assert walk(*drawn(image, filters), **constants).overrun == expected


def test_an_images_gradient_runs_over_lines():
    found = walk_of_gradient(*drawn((2, 6, 12, 12), (16, 6, 5, 5))).overrun
    assert found == Overrun(2, 16, 3, 4, "s", -1, {"oh": (4, 4), "ow": (4, 4)})


@pytest.mark.parametrize(
    ("image", "filters", "constants"),
    [
        pytest.param((2, 8, 20, 20), (33, 8, 3, 3), {}, id="many rows: packing pays"),
        pytest.param((2, 8, 20, 20), (16, 8, 3, 3), {"stride": 2}, id="columns are two elements apart"),
        pytest.param((2, 8, 30, 5), (16, 8, 3, 4), {}, id="most columns are between lines"),
        pytest.param((1, 64, 70, 70), (16, 64, 3, 3), AROUND, id="an image beyond half of the second cache"),
    ],
)
def test_where_columns_are_packed(image, filters, constants):
    assert walk(*drawn(image, filters), **constants).overrun is None


CASES = [
    ((3, 6, 14, 14), (16, 6, 5, 5), {}),
    ((2, 5, 9, 28), (7, 5, 3, 3), AROUND),
    *(
        pytest.param(*case, marks=pytest.mark.exhaustive)
        for case in (
            ((3, 6, 12, 12), (16, 6, 5, 5), {}),
            ((2, 3, 8, 32), (32, 3, 3, 3), AROUND),
            ((1, 17, 7, 33), (9, 17, 3, 3), {"pad": 2}),
            ((2, 4, 11, 57), (3, 4, 3, 7), {"pad": 3}),
            ((2, 4, 20, 21), (5, 4, 3, 3), {"dilation": 3, "pad": 3}),
            ((1, 2, 1, 40), (4, 2, 1, 9), {}),
            ((4, 2, 3, 18), (2, 2, 3, 17), {"pad": 8}),
            ((2, 20, 6, 6), (20, 20, 3, 3), {"pad": 2}),
            ((1, 1, 40, 16), (31, 1, 4, 1), AROUND),
            ((5, 9, 2, 100), (24, 9, 2, 3), {}),
        )
    ),
]


@pytest.mark.parametrize(("image", "filters", "constants"), CASES)
def test_values_and_gradients_between_pages_without_access(image, filters, constants):
    on_guard_pages(conv2d, image, filters, **constants)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("image", "filters", "constants"), [case for case in CASES if isinstance(case, tuple)]
)
def test_doubles_between_pages_without_access(image, filters, constants):
    on_guard_pages(conv2d, image, filters, dtype="float64", **constants)


def test_what_follows_the_sum():
    on_guard_pages(residual, (3, 9, 37), (11, 9, 3), (3, 11, 37), (11,))
    on_guard_pages(along_the_image, (2, 5, 9, 21), (6, 5, 3, 3), (7, 19))


@pytest.mark.exhaustive
def test_windows_of_volumes():
    """A step along the outermost axis is another image of what windows share."""
    on_guard_pages(volumes, (2, 3, 4, 6, 18), (5, 3, 2, 3, 3))


def test_operands_that_lie_apart():
    """Every other channel and some columns: between lines is more of the image, which nobody stores."""
    big = np.full((3, 8, 12, 31), np.nan, "f4")
    x, k = big[1:, ::2, 2:11, 3:25], drawn((6, 4, 3, 3))[0]
    x[...] = drawn(x.shape)[0]
    for constants in ({}, AROUND):
        assert walk(x, k, **constants).overrun
        found, wanted = conv2d(x, k, **constants), conv2d.reference(x, k, **constants)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_what_is_infinite_meets_the_zeros_as_padding_does():
    x, k = np.ones((1, 3, 20, 20), "f4"), np.ones((4, 3, 3, 3), "f4")
    k[0, 0, 0, 0] = np.inf
    found = conv2d(x, k, **AROUND)
    assert np.isnan(found[0, 0, 0]).all() and np.isnan(found[0, 0, :, 0]).all()
    assert np.isinf(found[0, 0, 1:, 1:]).all() and np.isfinite(found[0, 1:]).all()


def test_the_same_bits_for_every_thread_count():
    """Threads share an image: each that has some of its columns has a copy of its own."""
    for images in (1, 3):
        x, k = drawn((images, 20, 40, 40), (12, 20, 3, 3))
        assert_same_bits(lambda x=x, k=k: conv2d(x, k, **AROUND))


@pytest.mark.skipif(not toolchain.avx2().is_host, reason="this machine cannot run AVX2's code")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_vectors_of_256_bits(dtype: str):
    operands = (array.astype(dtype) for array in drawn((2, 5, 9, 28), (7, 5, 3, 3)))
    on_avx2(conv2d, *operands, applies=lambda walk: walk.overrun, **AROUND)


@tw.op
def long_filters(x: tw.Tile["n c t"], k: tw.Tile["o c r"]) -> tw.Tile["n o u"]:
    """Filters that are computed, and so packed, of many taps that lie side by side."""
    u = tw.axis("u", tw.size("t") - tw.size("r") + 1)
    return tw.sum(x.at(t=u + tw.index("r")) * tw.exp(k), "c r")


def test_filters_of_many_taps_are_turned_while_they_are_packed():
    """Their number is no power of two."""
    shapes = (2, 3, 90), (5, 3, 35)
    call = long_filters.bind(long_filters.arguments(drawn(*shapes), {}))
    (walk,) = walks(call.program, call.arrays)
    assert walk.overrun and not walk.direct
    on_guard_pages(long_filters, *shapes)


@tw.op
def framed(x: tw.Tile["n c h w"], k: tw.Tile["o c r s"], *, high=0, wide=0) -> tw.Tile["n o oh ow"]:
    """Windows with more zeros above than beside."""
    oh = tw.axis("oh", tw.size("h") + 2 * high - tw.size("r") + 1)
    ow = tw.axis("ow", tw.size("w") + 2 * wide - tw.size("s") + 1)
    return tw.sum(x.at(h=oh + tw.index("r") - high, w=ow + tw.index("s") - wide) * k, "c r s")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("filters", [8, 32])
@pytest.mark.parametrize(
    ("image", "taps", "zeros"),
    [
        ((28, 28), (3, 1), {"high": 1}),
        ((28, 28), (7, 1), {"high": 3}),
        ((4, 8), (1, 1), {"high": 3, "wide": 2}),
        ((7, 48), (2, 1), {}),
    ],
)
@pytest.mark.everyday(5)
def test_lines_with_nothing_between_them(dtype: str, filters: int, image, taps, zeros):
    """Taps across lines alone: behind an image there is room for whole vectors, which are nobody's."""
    on_guard_pages(framed, (3, 16, *image), (filters, 16, *taps), dtype=dtype, **zeros)
