"""Gradients of filters of few taps: vectors run along the filters, beside all taps of a register block."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support.contractions import with_wide_vectors
from tests.support.guarded import on_guard_pages
from tests.support.threads import assert_same_bits
from tilewright.compiler.targets.cpu.schedule import Schedule


@tw.op
def channels_last(x: tw.Tile["n h w"], dy: tw.Tile["n h w o"], *, taps=3) -> tw.Tile["o r s"]:
    h = tw.index("h") + tw.axis("r", taps) - taps // 2
    w = tw.index("w") + tw.axis("s", taps) - taps // 2
    return tw.sum(x.at(h=h, w=w) * dy, "n h w")


@tw.op
def channels_first(x: tw.Tile["n h w"], dy: tw.Tile["n o h w"], *, taps=3) -> tw.Tile["o r s"]:
    h = tw.index("h") + tw.axis("r", taps) - taps // 2
    w = tw.index("w") + tw.axis("s", taps) - taps // 2
    return tw.sum(x.at(h=h, w=w) * tw.abs(dy), "n h w")


def schedule_of(op: tw.Op, *shapes: tuple[int, ...], **constants: int) -> Schedule:
    call = op.bind(op.arguments(tuple(np.zeros(shape, np.float32) for shape in shapes), constants))
    *_, made = with_wide_vectors(call.program).compiled(call.arrays)
    return made.schedule


CASES = [
    (channels_last, 3, 32, ("o", 9, 2)),
    (channels_first, 3, 40, ("o", 9, 2)),
    (channels_last, 5, 6, ("o", 25, 1)),
    (channels_first, 3, 8, ("s", 8, 1)),
    *(
        pytest.param(*case, marks=pytest.mark.exhaustive)
        for case in (
            (channels_last, 3, 8, ("o", 9, 1)),
            (channels_first, 3, 16, ("o", 9, 1)),
            (channels_last, 2, 64, ("o", 4, 4)),
            (channels_last, 7, 16, ("o", 16, 1)),
            (channels_first, 5, 33, ("s", 8, 2)),
        )
    ),
]


@pytest.mark.parametrize(("op", "taps", "filters", "expected"), CASES)
@pytest.mark.everyday(2)
def test_vectors_and_register_blocks(op, taps, filters, expected):
    n, h, w = 3, 29, 31
    image, results = (n, h, w), (n, h, w, filters) if op is channels_last else (n, filters, h, w)
    schedule = schedule_of(op, image, results, taps=taps)
    assert (schedule.lane_axis, schedule.block_rows, schedule.block_columns) == expected
    on_guard_pages(op, image, results, taps=taps)


def test_short_sums_leave_vectors_along_the_results():
    assert schedule_of(channels_last, (1, 20, 14), (1, 20, 14, 32)).lane_axis == "s"


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_types(dtype):
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal(shape).astype(dtype) for shape in ((2, 23, 25), (2, 23, 25, 20)))
    assert channels_last.check(x, dy).ok


def test_bits_for_every_number_of_threads():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 28, 28)).astype("f")
    for op, shape in ((channels_last, (20, 28, 28, 32)), (channels_first, (20, 32, 28, 28))):
        dy = rng.standard_normal(shape).astype("f")
        assert_same_bits(lambda op=op, dy=dy: op(x, dy))
