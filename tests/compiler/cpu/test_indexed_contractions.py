"""Contractions with sides read at computed positions: all ways to walk, pack and read them, on guard pages.

The extents of a call decide on how many lines of an image a vector stands, whether windows can leave it, and
whether rows are read where they lie.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tests.support.checks import backward_of, extents_of, with_cotangents
from tests.support.guarded import on_guard_pages
from tests.support.indexing_ops import conv2d
from tilewright.compiler.pipeline import compile_program
from tilewright.compiler.targets.cpu.contractions.walk import Walk


@tw.op
def channels_last(
    x: tw.Tile["... h w c"], k: tw.Tile["o r s c"], *, stride=1, pad=0
) -> tw.Tile["... oh ow o"]:
    oh = tw.axis("oh", (tw.size("h") + 2 * pad - tw.size("r")) // stride + 1)
    ow = tw.axis("ow", (tw.size("w") + 2 * pad - tw.size("s")) // stride + 1)
    window = x.at(h=oh * stride + tw.index("r") - pad, w=ow * stride + tw.index("s") - pad)
    return tw.sum(window * k, "c r s")


@tw.op
def dressed(x: tw.Tile["n c h w"], k: tw.Tile["o c r s"], a: tw.Tile["n"], z: tw.Tile["n o oh ow"]):
    """A prologue and an epilogue that read operands of their own."""
    oh, ow = tw.index("oh") + tw.index("r") - 1, tw.index("ow") + tw.index("s") - 1
    window = (tw.maximum(x, 0) * a).at(h=oh, w=ow)
    return tw.sigmoid(tw.sum(window * k, "c r s") + z) * a


@tw.op
def every(x: tw.Tile["n w"], *, step: int, first: int, count: int):
    """Positions that lie `step` apart; those outside are 0."""
    return x.at(w=tw.axis("ow", count) * step + first)


def some(*values: Any, often: tuple[Any, ...] = ()) -> list[Any]:
    """Those that are tried often, and the others in long campaigns."""
    return [v if v in often else pytest.param(v, marks=pytest.mark.exhaustive) for v in values]


@pytest.mark.parametrize("step", some(2, 3, 4, 5, often=(2,)))
def test_lanes_a_few_elements_apart(step: int):
    """Whole vectors, a ragged end, positions before the operand and behind it; the last read is its last."""
    on_guard_pages(every, (3, 35 * step + 1), step=step, first=0, count=36)
    on_guard_pages(every, (2, 17 * step), step=step, first=-2 * step - 1, count=23)
    on_guard_pages(every, (2, 9 * step), dtype="float64", step=step, first=1, count=9)


@pytest.mark.exhaustive
@pytest.mark.parametrize("stride", [2, 3])
def test_windows_that_slide_by_several(stride: int):
    on_guard_pages(conv2d, (2, 3, 5, 37), (9, 3, 3, 3), stride=stride, pad=1)


def test_all_columns_in_one_vector():
    on_guard_pages(channels_last, (2, 5, 9, 11), (13, 3, 3, 11), pad=1)


WINDOWS = [{}, {"stride": 2, "pad": 1}, {"dilation": 2, "pad": 2}, {"pad": 4}]


@pytest.mark.parametrize("width", some(1, 3, 6, 13, 17, 32, often=(17,)))
def test_vectors_across_lines_of_every_length(width: int):
    on_guard_pages(conv2d, (2, 3, 5, width), (9, 3, 3, 3), pad=1)


@pytest.mark.parametrize(
    "constants",
    [
        {},
        {"stride": 2, "pad": 1},
        *some({"dilation": 2, "pad": 2}, {"pad": 4}),
    ],
    ids=str,
)
def test_windows(constants: dict[str, int]):
    on_guard_pages(conv2d, (3, 2, 9, 21), (5, 2, 3, 2), **constants)


@pytest.mark.parametrize("channels", some(1, 7, 16, 19, often=(7,)))
def test_rows_where_they_lie(channels: int):
    on_guard_pages(channels_last, (2, 5, 7, channels), (37, 3, 3, channels), pad=1)
    on_guard_pages(channels_last, (2, 6, 9, channels), (5, 3, 2, channels), stride=2)


@pytest.mark.parametrize("stride", some(2, 3, often=(2,)))
def test_phases_have_taps_of_their_own(stride: int):
    """Of a filter's three taps each phase of a gradient has one or two; lanes are put in order then."""
    on_guard_pages(channels_last, (2, 9, 8, 18), (17, 3, 3, 18), stride=stride, pad=1)
    on_guard_pages(conv2d, (1, 16, 6, 33), (16, 16, 2, 2), dtype="float64", stride=stride)


@pytest.mark.exhaustive
@pytest.mark.parametrize("stride", [2, 3])
def test_phases_of_long_lines(stride: int):
    on_guard_pages(conv2d, (2, 18, 7, 37), (17, 18, 3, 3), stride=stride, pad=1)


def test_panels_beside_the_image():
    on_guard_pages(channels_last, (3, 5, 8, 17), (19, 3, 3, 17), pad=2)
    on_guard_pages(conv2d, (2, 17, 3, 40), (16, 17, 3, 3), pad=1)


@pytest.mark.parametrize("op", [channels_last, conv2d], ids=lambda op: op.name)
def test_zeros_beside_the_image_take_part(op: tw.Op):
    """0 · ∞ is NaN: an infinite tap is seen wherever its window reaches, image or not."""
    x, k = np.ones((2, 17, 11, 7), np.float32), np.ones((19, 17, 3, 3), np.float32)
    k[3, 5, 0, 0] = np.inf
    if op is channels_last:
        x, k = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)) for a in (x, k))
    y = op(x, k, pad=1)
    mine = y[..., 3] if op is channels_last else y[:, 3]
    assert np.isnan(mine[:, 0]).all() and np.isnan(mine[:, :, 0]).all() and np.isposinf(mine[:, 1:, 1:]).all()


def test_phases_leave_out_the_taps_that_they_lack():
    x, k = np.zeros((2, 9, 9, 32), np.float32), np.zeros((32, 3, 3, 32), np.float32)
    for stride, sparse in ((2, True), (1, False)):
        call = channels_last.bind(channels_last.arguments((x, k), {"stride": stride, "pad": 1}))
        backward = backward_of(call.program)
        program = replace(backward, results=backward.results[:1])
        arrays = with_cotangents(backward, dict(call.arrays), extents_of(call.program, dict(call.arrays)))
        compiled = compile_program(program).compiled({p.name: arrays[p.name] for p in program.tiles})
        (contraction,) = [c for c in compiled if c.kernel.contraction]
        walk = Walk.of(contraction.kernel, contraction.schedule, contraction.layout)
        assert (walk.sparse is not None) == sparse


def test_several_blocks_of_sums():
    on_guard_pages(conv2d, (1, 520, 2, 9), (3, 520, 3, 3), pad=1)


@pytest.mark.exhaustive
def test_several_blocks_of_sums_along_the_channels():
    on_guard_pages(channels_last, (1, 2, 9, 520), (3, 3, 3, 520), pad=1)


def test_prologues_and_epilogues():
    on_guard_pages(dressed, (3, 2, 6, 11), (20, 2, 3, 3), (3,), (3, 20, 6, 11))


@pytest.mark.exhaustive
def test_float64():
    on_guard_pages(conv2d, (2, 3, 5, 13), (9, 3, 3, 3), dtype="float64", pad=1)
    on_guard_pages(channels_last, (2, 5, 7, 19), (37, 3, 3, 19), dtype="float64", pad=1)


def test_rows_of_channels_last_are_read_where_they_lie():
    x, k = np.zeros((1, 6, 6, 32), np.float32), np.zeros((4, 3, 3, 32), np.float32)
    call = channels_last.bind(channels_last.arguments((x, k), {"pad": 1}))
    (compiled,) = compile_program(call.program).compiled(dict(call.arrays))
    walk = Walk.of(compiled.kernel, compiled.schedule, compiled.layout)
    assert walk.direct and walk.summed == ("r", "s", "c")


def test_positions_that_cannot_leave_are_known():
    for pad, known in ((0, {"h", "w"}), (1, set())):
        x, k = np.zeros((1, 2, 6, 6), np.float32), np.zeros((4, 2, 3, 3), np.float32)
        call = conv2d.bind(conv2d.arguments((x, k), {"pad": pad}))
        (compiled,) = compile_program(call.program).compiled(dict(call.arrays))
        (inside,) = compiled.layout.inside.values()
        assert inside == known
