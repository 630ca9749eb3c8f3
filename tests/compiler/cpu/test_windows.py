"""Windows of a few taps: borders, strips and what is left of them, vectors and their ends, on guard pages."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support.contractions import with_wide_vectors
from tests.support.guarded import on_guard_pages
from tests.support.indexing_ops import by_channel, in_line, max_pool
from tests.support.threads import assert_same_bits
from tilewright.compiler.targets.cpu.windows.strips import WindowTiles, slides
from tilewright.compiler.targets.cpu.windows.taps import TapSums, sums_by_tap


@tw.op
def channels_together(x: tw.Tile["h w c"], k: tw.Tile["r s c"], *, pad=1):
    """Vectors run along channels: it is for whole tiles that positions are inside."""
    oh = tw.axis("oh", tw.size("h") + 2 * pad - tw.size("r") + 1) + tw.index("r") - pad
    ow = tw.axis("ow", tw.size("w") + 2 * pad - tw.size("s") + 1) + tw.index("s") - pad
    return tw.sum(x.at(h=oh, w=ow) * k, "r s")


@tw.op
def spread_and_mean(x: tw.Tile["n h w"], *, pad=1):
    """Two phases, the second of which reads the windows again, a condition and a floor that slides."""
    h = tw.axis("oh", tw.size("h") + 2 * pad - 2) + tw.axis("r", 3) - pad
    w = tw.axis("ow", tw.size("w") + 2 * pad - 2) + tw.axis("s", 3) - pad
    window = x.at(h=h, w=w)
    mean = tw.mean(window, "r s")
    far = tw.where(h // 2 == w, 0.5, 1)
    return tw.sum(tw.where(w >= 0, (window - mean) * (window - mean), mean) * far, "r s")


@tw.op
def one_filter(x: tw.Tile["n c h w"], k: tw.Tile["c r s"], *, pad=1, stride=1):
    """Channels are summed around the taps."""
    h = stride * tw.axis("oh", (tw.size("h") + 2 * pad - tw.size("r")) // stride + 1) + tw.index("r") - pad
    w = stride * tw.axis("ow", (tw.size("w") + 2 * pad - tw.size("s")) // stride + 1) + tw.index("s") - pad
    return tw.sum(x.at(h=h, w=w) * k, "c r s")


@tw.op
def surprise(x: tw.Tile["c h w"], *, pad=1):
    """Two phases over windows of all channels, of which a condition knows the channel."""
    h = tw.axis("oh", tw.size("h") + 2 * pad - 2) + tw.axis("r", 3) - pad
    w = tw.axis("ow", tw.size("w") + 2 * pad - 2) + tw.axis("s", 3) - pad
    window = tw.where(tw.index("c") < w + 30, x.at(h=h, w=w, fill=-1), 0.25)
    return tw.logsumexp(window, "c r s")


def kind_of(op: tw.Op, *shapes: tuple[int, ...], **constants: int) -> type | None:
    """Which loops the only kernel of a call has, of those that know of windows."""
    operands = tuple(np.zeros(shape, np.float32) for shape in shapes)
    call = op.bind(op.arguments(operands, constants))
    arrays = {p.name: call.arrays[p.name] for p in call.program.tiles}
    (made,) = with_wide_vectors(call.program).compiled(arrays)
    if slides(made.kernel, made.layout, made.schedule):
        return WindowTiles
    return TapSums if sums_by_tap(made.kernel, made.layout, made.schedule) else None


def test_few_taps_are_written_out_many_are_not():
    assert kind_of(by_channel, (1, 2, 9, 40), (2, 3, 3)) is WindowTiles
    assert kind_of(by_channel, (1, 2, 19, 40), (2, 9, 9)) is None


EVERY_DAY = {(5, 3), (9, 37)}
LENGTHS = [
    pytest.param(height, width, marks=() if (height, width) in EVERY_DAY else pytest.mark.exhaustive)
    for height in (1, 3, 5, 8, 9)
    for width in (3, 16, 37)
]


@pytest.mark.parametrize(("height", "width"), LENGTHS)
def test_strips_and_vectors_of_every_length(height: int, width: int):
    on_guard_pages(by_channel, (2, 2, height, width), (2, 3, 3), pad=1)


KINDS = [
    {"stride": 2, "pad": 1},
    pytest.param({"dilation": 2, "pad": 3}, marks=pytest.mark.exhaustive),
    pytest.param({"stride": 3}, marks=pytest.mark.exhaustive),
    pytest.param({"pad": 4}, marks=pytest.mark.exhaustive),
]


@pytest.mark.parametrize("constants", KINDS, ids=str)
def test_windows_of_every_kind(constants: dict[str, int]):
    on_guard_pages(by_channel, (2, 3, 11, 41), (3, 3, 2), **constants)


def test_vectors_along_another_axis():
    on_guard_pages(channels_together, (6, 7, 19), (3, 3, 19))


MANY_TAPS = [
    (by_channel, (1, 2, 7, 23), (2, 4, 5), {"stride": 2, "pad": 2}),
    *(
        pytest.param(*case, marks=pytest.mark.exhaustive)
        for case in (
            (by_channel, (1, 2, 7, 23), (2, 7, 7), {"pad": 3}),
            (by_channel, (1, 2, 8, 33), (2, 7, 7), {"pad": 3}),
            (by_channel, (1, 2, 8, 33), (2, 4, 5), {"stride": 2, "pad": 2}),
            (channels_together, (7, 9, 19), (5, 5, 19), {"pad": 2}),
            (channels_together, (8, 9, 19), (5, 5, 19), {"pad": 2}),
        )
    ),
]


@pytest.mark.parametrize(("op", "image", "filter", "constants"), MANY_TAPS)
def test_taps_that_strips_do_not_share_are_a_loop(op, image, filter, constants):
    on_guard_pages(op, image, filter, **constants)


DEEP = [
    ((2, 9, 9, 37), (9, 3, 3), {}),
    ((1, 70, 5, 20), (70, 2, 5), {"pad": 2}),
    *(
        pytest.param(*case, marks=pytest.mark.exhaustive)
        for case in (
            ((2, 9, 14, 28), (9, 3, 3), {}),
            ((1, 9, 13, 41), (9, 3, 3), {"stride": 2}),
            ((1, 9, 40, 17), (9, 5, 5), {"pad": 0}),
            ((3, 20, 1, 16), (20, 3, 3), {}),
            ((1, 8, 7, 7), (8, 3, 3), {"pad": 3}),
            ((1, 65, 6, 50), (65, 1, 7), {"pad": 0}),
        )
    ),
]


@pytest.mark.parametrize(("image", "filter", "constants"), DEEP)
def test_channels_are_summed_around_the_taps(image, filter, constants):
    assert kind_of(one_filter, image, filter, **constants) is WindowTiles
    on_guard_pages(one_filter, image, filter, **constants)


def test_other_reductions_over_channels_and_taps():
    assert kind_of(surprise, (12, 9, 37)) is WindowTiles
    on_guard_pages(surprise, (12, 9, 37))
    on_guard_pages(surprise, (40, 6, 16), pad=0)


def test_gradients_of_images_of_one_channel():
    """The transpose of the windows, whose filters are summed around the taps."""
    rng = np.random.default_rng(0)
    shapes = (9, 1, 28, 28), (32, 1, 3, 3), (32,), (9, 32, 28, 28)
    operands = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    exact = tw.kernels.conv2d.vjp(*(operand.astype(np.float64) for operand in operands), padding=1)[0]
    np.testing.assert_allclose(tw.kernels.conv2d.vjp(*operands, padding=1)[0], exact, atol=1e-4)
    assert_same_bits(lambda: tw.kernels.conv2d.vjp(*operands, padding=1)[0])


def test_code_for_one_size_is_not_run_for_another():
    """Extents of small images are constants of the code: each size has its own, however they come."""
    rng = np.random.default_rng(0)
    kernels = rng.standard_normal((2, 5, 5)).astype(np.float32)
    for height, width in ((7, 7), (7, 9), (40, 7), (7, 7), (6, 33)):
        x = rng.standard_normal((1, 2, height, width)).astype(np.float32)
        found = by_channel(x, kernels, pad=2)
        np.testing.assert_allclose(found, by_channel.reference(x, kernels, pad=2), rtol=0, atol=1e-4)


def test_no_axis_for_strips():
    on_guard_pages(in_line, (3, 50), (5,), pad=2)
    on_guard_pages(in_line, (2, 33), (4,), dtype="float64")


def test_several_phases():
    on_guard_pages(spread_and_mean, (2, 6, 35))


EXTREMA = [{"k": 3, "pad": 1}, pytest.param({"k": 2, "stride": 1}, marks=pytest.mark.exhaustive)]


@pytest.mark.parametrize("constants", EXTREMA, ids=str)
def test_extrema_with_something_outside(constants: dict[str, int]):
    on_guard_pages(max_pool, (2, 3, 13, 38), **constants)


@tw.op
def of_filter(x: tw.Tile["n c h w"], g: tw.Tile["n c oh ow"], *, taps=3, stride=1, pad=1):
    """The gradient of a filter of each channel, written as the sum that it is, and scaled by its place."""
    r, s = tw.axis("r", taps), tw.axis("s", taps)
    h, w = tw.index("oh") * stride + r - pad, tw.index("ow") * stride + s - pad
    return tw.sum(x.at(h=h, w=w) * g, "n oh ow") * (r + 2 * s)


@pytest.mark.parametrize("stride", [1, 2, pytest.param(3, marks=pytest.mark.exhaustive)])
def test_sums_of_every_tap_in_one_pass(stride: int):
    x, g = (2, 3, 4 * stride + 1, 37 * stride), (2, 3, 5, 37)
    assert kind_of(of_filter, x, g, stride=stride) is TapSums
    on_guard_pages(of_filter, x, g, stride=stride)
    on_guard_pages(of_filter, (1, 2, 3 * stride, 7), (1, 2, 4, 5), taps=2, stride=stride, dtype="float64")


@tw.op
def of_filter_last(x: tw.Tile["n h w c"], g: tw.Tile["n oh ow c"], *, taps=3, stride=1, pad=1):
    """The same of images whose channels lie together: vectors run along these, and each tap has one."""
    r, s = tw.axis("r", taps), tw.axis("s", taps)
    h, w = tw.index("oh") * stride + r - pad, tw.index("ow") * stride + s - pad
    return tw.sum(x.at(h=h, w=w) * g, "n oh ow") * (r + 2 * s)


@pytest.mark.parametrize("channels", [37, pytest.param(16, marks=pytest.mark.exhaustive)])
def test_sums_of_every_tap_along_channels(channels: int):
    x, g = (2, 6, 11, channels), (2, 6, 11, channels)
    assert kind_of(of_filter_last, x, g) is TapSums
    on_guard_pages(of_filter_last, x, g)
    on_guard_pages(of_filter_last, (1, 7, 9, channels), (1, 4, 5, channels), stride=2)


def test_sums_of_many_taps_in_passes():
    assert kind_of(of_filter, (2, 2, 9, 35), (2, 2, 9, 35), taps=7, pad=3) is TapSums
    rng = np.random.default_rng(0)
    x, g = (rng.standard_normal((2, 5, 6, 18)).astype("f4") for _ in range(2))
    found, wanted = (of(x, g, taps=6, pad=2) for of in (of_filter_last, of_filter_last.reference))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.exhaustive
def test_sums_of_many_taps_along_lines():
    on_guard_pages(of_filter_last, (2, 5, 6, 18), (2, 5, 6, 18), taps=6, pad=2)
    on_guard_pages(of_filter, (2, 2, 9, 35), (2, 2, 9, 35), taps=7, pad=3)


@tw.op
def of_groups(x: tw.Tile["n g c h w"], d: tw.Tile["n g o h w"], *, taps=3) -> tw.Tile["g o c r s"]:
    """The gradient of filters whose groups have several channels each."""
    h, w = (tw.index(a) + tw.axis(b, taps) - taps // 2 for a, b in ("hr", "ws"))
    return tw.sum(x.at(h=h, w=w) * d, "n h w")


@tw.op
def of_groups_last(x: tw.Tile["n h w g c"], d: tw.Tile["n h w g o"], *, taps=3) -> tw.Tile["g o r s c"]:
    h, w = (tw.index(a) + tw.axis(b, taps) - taps // 2 for a, b in ("hr", "ws"))
    return tw.sum(x.at(h=h, w=w) * d, "n h w")


@pytest.mark.parametrize(
    ("channels", "filters", "taps"),
    [(2, 3, 3), (1, 4, 5), pytest.param(4, 8, 1, marks=pytest.mark.exhaustive)],
)
def test_filters_of_small_groups_have_sums_of_every_tap(channels: int, filters: int, taps: int):
    """A product of matrices would have as many rows and columns as a group has filters and channels."""
    n, g, h, w = 3, 4, 17, 35
    first, last = (
        ((n, g, a, h, w) for a in (channels, filters)),
        ((n, h, w, g, a) for a in (channels, filters)),
    )
    for op, shapes in ((of_groups, [*first]), (of_groups_last, [*last])):
        if taps > 1:
            assert kind_of(op, *shapes, taps=taps) is TapSums
        on_guard_pages(op, *shapes, taps=taps)


def test_images_of_one_position_a_line():
    """Vectors run along the taps, and what is asked of them is asked of every lane."""
    for filters in (1, 2):
        on_guard_pages(of_groups, (8, 5, 7, 9, 1), (8, 5, filters, 9, 1), taps=5)


def test_larger_groups_stay_products():
    assert kind_of(of_groups, (3, 2, 9, 17, 35), (3, 2, 9, 17, 35)) is None
    assert kind_of(of_groups, (1, 4, 3, 5, 7), (1, 4, 3, 5, 7)) is None


def test_sums_of_small_groups_have_the_same_bits_for_every_number_of_threads():
    rng = np.random.default_rng(0)
    x, d = (rng.standard_normal((7, 4, 3, 28, 28)).astype("f") for _ in range(2))
    assert_same_bits(lambda: of_groups(x, d))
    x, d = (np.ascontiguousarray(a.transpose(0, 3, 4, 1, 2)) for a in (x, d))
    assert_same_bits(lambda: of_groups_last(x, d))


@tw.op
def stepping(x: tw.Tile["n g c h w"], k: tw.Tile["g o c r s"], *, stride=2) -> tw.Tile["n g o oh ow"]:
    oh, ow = (tw.axis(f"o{a}", (tw.size(a) - 1) // stride + 1) for a in "hw")
    h, w = oh * stride + tw.index("r") - 1, ow * stride + tw.index("s") - 1
    return tw.sum(x.at(h=h, w=w) * k, "c r s")


@pytest.mark.parametrize("stride", [2, pytest.param(3, marks=pytest.mark.exhaustive)])
def test_small_groups_whose_windows_step_over_elements(stride: int):
    shapes = (2, 3, 4, 19, 37), (3, 5, 4, 3, 3)
    assert kind_of(stepping, *shapes, stride=stride) is WindowTiles
    assert kind_of(stepping, *shapes, stride=1) is None
    on_guard_pages(stepping, *shapes, stride=stride)
