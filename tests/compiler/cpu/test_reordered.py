"""Groups of few filters in channels-last order, computed along the lines of images; one or two vectors of
filters of images that lie along their lines, computed along the filters.
"""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support.contractions import assert_exact, on_avx2, walk_of, with_wide_vectors
from tests.support.contractions import drawn_whole as drawn
from tests.support.guarded import on_guard_pages
from tests.support.indexing_ops import windows
from tests.support.threads import assert_same_bits
from tilewright.kernels.convolution import conv2d_channels_last


@tw.op
def grouped(
    x: tw.Tile["n h w g c"], k: tw.Tile["g o r s c"], b: tw.Tile["g o"], z: tw.Tile["n h w g o"], *, pad=1
) -> tw.Tile["n h w g o"]:
    """An epilogue that reads operands along the groups and in the results' own order."""
    h, w = tw.index("h") + tw.index("r") - pad, tw.index("w") + tw.index("s") - pad
    return tw.maximum(tw.sum(x.at(h=h, w=w) * k, "r s c") + b, 0) + z


@tw.op
def twice(x: tw.Tile["n t g c"], k: tw.Tile["g o r c"], l: tw.Tile["g o r c"]):
    """Two groupwise windows over one operand, of which the second reads what the first made."""
    t = tw.index("t") + tw.index("r") - 1
    first = tw.sum(x.at(t=t) * k, "r c")
    return first, tw.sum(x.at(t=t) * l, "r c") * first


@tw.op
def across_and_along(x: tw.Tile["n h w g c"], k: tw.Tile["g o r s c"], l: tw.Tile["g o s c"]):
    """Windows over images and over their lines, of one operand."""
    h, w = tw.index("h") + tw.index("r") - 1, tw.index("w") + tw.index("s") - 1
    return tw.sum(x.at(h=h, w=w) * k, "r s c"), tw.sum(x.at(w=w) * l, "s c")


@tw.op
def along_films(x: tw.Tile["n t h w g c"], k: tw.Tile["g o q r s c"]) -> tw.Tile["n t h w g o"]:
    t, h, w = (tw.index(a) + tw.index(b) - 1 for a, b in (("t", "q"), ("h", "r"), ("w", "s")))
    return tw.sum(x.at(t=t, h=h, w=w) * k, "q r s c")


@tw.op
def filtered(x: tw.Tile["n c h w"], k: tw.Tile["o c r s"], b: tw.Tile["o"], *, pad=0) -> tw.Tile["n o oh ow"]:
    """Images that lie along their lines, with an epilogue along the filters."""
    return tw.maximum(tw.sum(windows(x, 1, pad, 1) * k, "c r s") + b, 0)


@tw.op
def added(x: tw.Tile["n c h w"], k: tw.Tile["o c r s"], z: tw.Tile["n o h w"]) -> tw.Tile["n o h w"]:
    """An epilogue that reads what lies along the lines."""
    h, w = tw.index("h") + tw.index("r") - 1, tw.index("w") + tw.index("s") - 1
    return tw.sum(x.at(h=h, w=w) * k, "c r s") + z


@tw.op
def signals(x: tw.Tile["n c t"], k: tw.Tile["o c r"]) -> tw.Tile["n o a"]:
    a = tw.axis("a", tw.size("t") - tw.size("r") + 1)
    return tw.sum(x.at(t=a + tw.index("r")) * k, "c r")


def kernels_of(op: tw.Op, *operands: np.ndarray, **constants: int) -> list[str]:
    """Those of a call, and what each writes."""
    call = op.bind(op.arguments(operands, constants))
    compiled = with_wide_vectors(call.program).compiled(dict(call.arrays))
    return [c.kernel.outputs[0].buffer.name for c in compiled]


IMAGES = [(2, 14, 15, 5, 6), (5, 6, 3, 3, 6), (5, 6), (2, 14, 15, 5, 6)]
CALLS = [
    pytest.param(grouped, IMAGES, {}, id="sixes"),
    pytest.param(
        grouped, [(1, 20, 28, 3, 8), (3, 2, 3, 3, 8), (3, 2), (1, 20, 28, 3, 2)], {}, id="fewer filters"
    ),
    pytest.param(
        grouped, [(3, 12, 28, 4, 3), (4, 7, 5, 5, 3), (4, 7), (3, 12, 28, 4, 7)], {"pad": 2}, id="odd ones"
    ),
    pytest.param(
        grouped, [(2, 9, 33, 2, 4), (2, 8, 1, 3, 4), (2, 8), (2, 9, 33, 2, 8)], {}, id="lines alone"
    ),
    pytest.param(twice, [(2, 300, 4, 6), (4, 6, 3, 6), (4, 6, 3, 6)], {}, id="two of one operand"),
    pytest.param(
        across_and_along, [(2, 12, 28, 4, 6), (4, 6, 3, 3, 6), (4, 6, 3, 6)], {}, id="two kinds of lines"
    ),
    pytest.param(filtered, [(3, 6, 14, 14), (16, 6, 5, 5), (16,)], {}, id="one vector of filters"),
    pytest.param(
        filtered, [(3, 16, 14, 13), (31, 16, 3, 3), (31,)], {"pad": 1}, id="nearly two, with borders"
    ),
    pytest.param(filtered, [(5, 33, 7, 20), (32, 33, 1, 5), (32,)], {}, id="along lines alone"),
    pytest.param(filtered, [(1, 8, 40, 9), (17, 8, 7, 2), (17,)], {"pad": 3}, id="short lines"),
    pytest.param(added, [(3, 16, 14, 14), (16, 16, 3, 3), (3, 16, 14, 14)], {}, id="something beside"),
    pytest.param(signals, [(4, 20, 90), (16, 20, 9)], {}, id="signals"),
    pytest.param(along_films, [(2, 5, 7, 16, 3, 4), (3, 4, 3, 3, 3, 4)], {}, id="films"),
]


@pytest.mark.parametrize(("op", "shapes", "constants"), CALLS)
@pytest.mark.everyday(5)
def test_values_and_memory(op, shapes, constants):
    operands = drawn(*shapes)
    found, wanted = (f(*operands, **constants) for f in (op, op.reference))
    for a, b in zip(*((f,) if isinstance(f, np.ndarray) else f for f in (found, wanted)), strict=True):
        np.testing.assert_array_equal(a, b)
    on_guard_pages(op, *shapes, **constants)


def test_vectors_run_along_the_lines_of_a_copy():
    operands = drawn(*IMAGES)
    names = kernels_of(grouped, *operands)
    assert names[0] == "x along h w" and names[-2:] == ["y along h w", "y"]
    call = grouped.bind(grouped.arguments(tuple(operands), {}))
    (walk,) = [
        walk_of(c)
        for c in with_wide_vectors(call.program).compiled(dict(call.arrays))
        if c.kernel.contraction
    ]
    assert walk.overrun is not None
    assert walk.right.own[-1] == "w"


@pytest.mark.parametrize(
    ("image", "filters"), [((3, 6, 14, 14), (16, 6, 5, 5)), ((3, 32, 14, 14), (32, 32, 3, 3))]
)
def test_vectors_run_along_the_filters_of_images(image: tuple[int, ...], filters: tuple[int, ...]):
    operands = drawn(image, filters, filters[:1])
    assert kernels_of(filtered, *operands) == ["x along c", "y along o", "y"]
    call = filtered.bind(filtered.arguments(tuple(operands), {}))
    (walk,) = [
        walk_of(c)
        for c in with_wide_vectors(call.program).compiled(dict(call.arrays))
        if c.kernel.contraction
    ]
    assert walk.even is not None and walk.direct
    assert walk.summed[-2:] == ("s", "c")


@pytest.mark.parametrize(
    ("op", "shapes"),
    [
        (filtered, [(3, 6, 14, 14), (6, 6, 3, 3), (6,)]),  # a third of a vector
        (filtered, [(3, 16, 30, 30), (40, 16, 3, 3), (40,)]),  # three vectors
        (added, [(3, 32, 14, 14), (32, 32, 3, 3), (3, 32, 14, 14)]),
    ],
)
def test_images_that_stay_along_their_lines(op: tw.Op, shapes: list[tuple[int, ...]]):
    assert kernels_of(op, *drawn(*shapes)) == ["y"]


def test_vectors_of_wide_numbers_have_half_as_many_filters():
    for filters, copied in ((16, True), (33, False)):
        shapes = (3, 6, 14, 14), (filters, 6, 5, 5), (filters,)
        operands = [a.astype("d") for a in drawn(*shapes)]
        assert ("x along c" in kernels_of(filtered, *operands)) is copied


def test_filters_that_fill_vectors_stay_as_they_are():
    shapes = [(2, 14, 14, 4, 16), (4, 16, 3, 3, 16), (4, 16), (2, 14, 14, 4, 16)]
    assert not any("along h w" in name for name in kernels_of(grouped, *drawn(*shapes)))


@pytest.mark.parametrize(("groups", "channels", "filters"), [(5, 30, 30), (4, 16, 8), (8, 8, 32)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.everyday(3)
def test_convolution_and_its_gradients(groups, channels, filters, stride, dilation):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 13, 14, channels)).astype("f")
    k = rng.standard_normal((filters, 3, 3, channels // groups)).astype("f")
    constants = {"stride": stride, "padding": 1, "dilation": dilation, "groups": groups}
    y = conv2d_channels_last(x, k, **constants)
    np.testing.assert_allclose(y, conv2d_channels_last.reference(x, k, **constants), rtol=1e-4, atol=1e-5)
    dy = rng.standard_normal(y.shape).astype("f")
    vjp = conv2d_channels_last.vjp
    gradients = [f(x, k, d_y=dy, **constants) for f in (vjp, vjp.reference)]
    for found, wanted in zip(*gradients, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)


OTHERS = [(grouped, IMAGES), (filtered, [(3, 6, 14, 14), (16, 6, 5, 5), (16,)])]


@pytest.mark.parametrize(("op", "shapes"), OTHERS)
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_types(op, shapes, dtype):
    assert_exact(op, *drawn(*shapes, dtype=dtype))


@pytest.mark.exhaustive
@pytest.mark.parametrize(("op", "shapes"), OTHERS)
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_everything_of_other_types(op, shapes, dtype):
    assert op.check(*drawn(*shapes, dtype=dtype)).ok


def test_views_and_results_of_the_users():
    x, k, b, z = drawn((4, 14, 30, *IMAGES[0][3:]), *IMAGES[1:])
    x = x[::-2, :, ::2]
    out = np.zeros((2, 14, 15, 10, 6), "f")[:, :, :, ::2]
    grouped(x, k, b, z, out=out)
    np.testing.assert_array_equal(out, grouped.reference(x, k, b, z))


def test_bits_for_every_number_of_threads():
    rng = np.random.default_rng(0)
    operands = [rng.standard_normal(shape).astype("f") for shape in ((7, *IMAGES[0][1:]), *IMAGES[1:3])]
    z = rng.standard_normal((7, *IMAGES[3][1:])).astype("f")
    assert_same_bits(lambda: grouped(*operands, z))


def test_bits_of_images_for_every_number_of_threads():
    rng = np.random.default_rng(0)
    shapes = [(37, 32, 14, 14), (32, 32, 3, 3), (32,)]
    operands = [rng.standard_normal(shape).astype("f") for shape in shapes]
    assert_same_bits(lambda: filtered(*operands, pad=1))


def test_on_vectors_of_256_bits():
    rng = np.random.default_rng(0)
    shapes = [(2, 14, 15, 5, 6), (5, 4, 3, 3, 6), (5, 4), (2, 14, 15, 5, 4)]
    operands = [rng.standard_normal(shape).astype("f") for shape in shapes]
    on_avx2(grouped, *operands, applies=lambda walk: walk.overrun)
