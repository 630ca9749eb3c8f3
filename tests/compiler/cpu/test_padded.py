"""Windows over few channels: taps that lie one after the other are one run, with zeros around the operand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tilewright as tw
from tests.support.checks import backward_of, extents_of, with_cotangents
from tests.support.contractions import walk_of
from tests.support.guarded import on_guard_pages
from tests.support.indexing_ops import channels_last
from tilewright.compiler.pipeline import compile_program
from tilewright.compiler.targets.cpu.recipe import CompiledKernel


@tw.op
def forked(x: tw.Tile["n t c"], k: tw.Tile["o r c"], l: tw.Tile["p s c"]):
    """Two windows over one operand, with other zeros around them."""
    a, b = tw.axis("a", tw.size("t")), tw.axis("b", tw.size("t") + 2)
    first = tw.sum(x.at(t=a + tw.index("r") - 1) * k, "r c")
    return first, tw.sum(x.at(t=b + tw.index("s") - 2) * l, "s c")


def kernels_for(x: np.ndarray, k: np.ndarray, **constants: int) -> tuple[CompiledKernel, ...]:
    call = channels_last.bind(channels_last.arguments((x, k), constants))
    return compile_program(call.program).compiled(dict(call.arrays))


@pytest.mark.parametrize(("taps", "channels"), [(7, 3), (2, 7)])
def test_taps_and_channels_are_one_run(taps: int, channels: int):
    x, k = np.zeros((2, 12, 14, channels), "f4"), np.zeros((32, taps, taps, channels), "f4")
    copy, contraction = kernels_for(x, k, stride=2, before=1, behind=2)
    assert copy.kernel.kind == "pointwise"
    walk = walk_of(contraction)
    assert walk.direct and walk.summed == ("r", "s", "c") and walk.joined == 2


@pytest.mark.parametrize(("channels", "stride"), [(3, 1), (12, 1), (5, 2)])
def test_a_filters_gradient_walks_along_lines(channels: int, stride: int):
    """From channel c to channel c of the next position, with nothing of the image packed."""
    operands = np.zeros((2, 9, 16 * stride, channels), "f4"), np.zeros((32, 3, 3, channels), "f4")
    constants = {"stride": stride, "before": 1, "behind": 1}
    call = channels_last.bind(channels_last.arguments(operands, constants))
    backward = backward_of(call.program)
    program = replace(backward, results=backward.results[1:])
    given = with_cotangents(program, dict(call.arrays), extents_of(call.program, dict(call.arrays)))
    copy, contraction = compile_program(program).compiled({p.name: given[p.name] for p in program.tiles})
    walk = walk_of(contraction)
    assert copy.kernel.kind == "pointwise"
    assert walk.direct and walk.step == stride * channels and walk.left.own == ("r", "s", "c")


@tw.op
def of_a_filter(d: tw.Tile["n h w o"], x: tw.Tile["n h w c"]) -> tw.Tile["o r s c"]:
    """A filter's gradient as a user writes it, summed in an order of his own."""
    h, w = tw.index("h") + tw.axis("r", 3) - 1, tw.index("w") + tw.axis("s", 3) - 1
    return tw.sum(d * x.at(h=h, w=w), "w n h")


def test_the_axis_along_which_lines_lie_is_summed_last():
    d, x = np.ones((2, 20, 20, 32), "f4"), np.ones((2, 20, 20, 3), "f4")
    call = of_a_filter.bind(of_a_filter.arguments((d, x), {}))
    walk = walk_of(compile_program(call.program).compiled(dict(call.arrays))[-1])
    assert walk.summed == ("n", "h", "w") and walk.step == 3
    on_guard_pages(of_a_filter, (2, 5, 21, 17), (2, 5, 21, 3))


def test_what_stays_inside_needs_no_zeros():
    (contraction,) = kernels_for(np.zeros((2, 12, 12, 3), "f4"), np.zeros((32, 4, 4, 3), "f4"), stride=4)
    assert walk_of(contraction).direct and walk_of(contraction).joined == 2


def test_others_are_read_as_they_lie():
    """Many channels are runs of their own; apart from each other, or under a dilation, taps are none."""
    k = np.zeros((32, 3, 3, 3), "f4")
    many = kernels_for(np.zeros((2, 9, 9, 16), "f4"), np.zeros((32, 3, 3, 16), "f4"), before=1, behind=1)
    strided = kernels_for(np.zeros((2, 9, 9, 6), "f4")[..., ::2], k, before=1, behind=1)
    dilated = kernels_for(np.zeros((2, 9, 9, 3), "f4"), k, before=1, behind=1, dilation=2)
    assert [len(kernels) for kernels in (many, strided, dilated)] == [1, 1, 1]


CONSTANTS = (
    {"stride": 2, "before": 3, "behind": 2},
    *(
        pytest.param(constants, marks=pytest.mark.exhaustive)
        for constants in (
            {"before": 1, "behind": 1},
            {"before": 1, "behind": 0, "wide": 9},
            {"stride": 3, "before": 0, "behind": 4},
            {"before": 2, "behind": 2, "dilation": 2},
        )
    ),
)


@pytest.mark.parametrize("constants", CONSTANTS, ids=str)
def test_values_and_gradients(constants: dict[str, int]):
    on_guard_pages(channels_last, (2, 6, 7, 3), (19, 3, 4, 3), **constants)


@pytest.mark.parametrize("channels", [2, pytest.param(5, marks=pytest.mark.exhaustive)])
def test_float64(channels: int):
    on_guard_pages(
        channels_last, (2, 6, 7, channels), (19, 3, 3, channels), dtype="float64", before=1, behind=1
    )


@tw.op
def lines(x: tw.Tile["n line w c"], k: tw.Tile["o r s c"]) -> tw.Tile["n oh ow o"]:
    """Axes that are called as a user pleases."""
    oh, ow = tw.axis("oh", tw.size("line")), tw.axis("ow", tw.size("w"))
    window = x.at(line=oh + tw.index("r") - 1, w=ow + tw.index("s") - 1)
    return tw.sum(window * k, "r s c") + tw.index("oh") * tw.size("line")


@pytest.mark.parametrize("channels", [3, pytest.param(16, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize(
    "constants",
    [
        {"stride": 2, "behind": 0},
        *(pytest.param(c, marks=pytest.mark.exhaustive) for c in ({"stride": 1}, {"dilation": 2})),
    ],
    ids=str,
)
def test_gradients_along_lines(channels: int, constants: dict[str, int]):
    constants = {"before": 1, "behind": 1, **constants}
    on_guard_pages(channels_last, (2, 6, 41, channels), (19, 3, 3, channels), **constants)


def test_an_axis_of_any_name():
    on_guard_pages(lines, (2, 6, 7, 3), (19, 3, 3, 3))


def test_far_places_are_not_copied():
    """A step that leaves the operand at once would make a copy of zeros alone."""
    x, k = np.ones((1, 4, 4, 3), "f4"), np.ones((16, 3, 3, 3), "f4")
    (contraction,) = kernels_for(x, k, stride=300, before=900, behind=900)
    assert contraction.kernel.contraction
    assert not channels_last(x, k, stride=300, before=900, behind=900)[:, 0].any()


def test_zeros_of_each_window():
    on_guard_pages(forked, (3, 9, 3), (17, 3, 3), (18, 4, 3))


def test_what_is_infinite_meets_the_zeros_as_padding_does():
    """0 · ∞ beside the image is NaN, as in a convolution of the padded image."""
    x, k = np.ones((1, 3, 3, 3), "f4"), np.ones((16, 3, 3, 3), "f4")
    k[0, 0, 0, 0] = np.inf
    result = channels_last(x, k, before=1, behind=1)
    assert (
        np.isnan(result[0, 0, 0, 0]) and np.isinf(result[0, 1, 1, 0]) and np.isfinite(result[..., 1:]).all()
    )
