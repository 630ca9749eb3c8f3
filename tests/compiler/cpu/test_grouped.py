"""Groups of few filters: vectors along the filters, or the channels, of several groups."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support.contractions import assert_exact, walk_of, with_wide_vectors
from tests.support.contractions import drawn_whole as drawn
from tests.support.guarded import on_guard_pages
from tests.support.threads import assert_same_bits
from tilewright.autotune.space import cpu_space
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu import toolchain
from tilewright.compiler.targets.cpu.executable import CpuExecutable
from tilewright.compiler.targets.cpu.objects import CompiledKernel
from tilewright.compiler.targets.cpu.schedule import default_schedule
from tilewright.kernels.convolution import conv2d, conv2d_channels_last


@tw.op
def images(
    x: tw.Tile["n h w g c"], k: tw.Tile["g o r s c"], b: tw.Tile["g o"], *, pad=1, step=1
) -> tw.Tile["n oh ow g o"]:
    """With an epilogue that lies along the vectors."""
    oh = tw.axis("oh", (tw.size("h") + 2 * pad - tw.size("r")) // step + 1)
    ow = tw.axis("ow", (tw.size("w") + 2 * pad - tw.size("s")) // step + 1)
    at = x.at(h=step * oh + tw.index("r") - pad, w=step * ow + tw.index("s") - pad)
    return tw.maximum(tw.sum(at * k, "r s c") + b, 0)


@tw.op
def beside(
    x: tw.Tile["n h w g c"], k: tw.Tile["g o r s c"], z: tw.Tile["n g o h w"], scale: tw.Tile["g"]
) -> tw.Tile["n h w g o"]:
    """With an epilogue that lies across the vectors, and one for each group."""
    h, w = tw.index("h") + tw.index("r") - 1, tw.index("w") + tw.index("s") - 1
    return tw.sum(x.at(h=h, w=w) * k, "r s c") * scale + z


@tw.op
def signals(x: tw.Tile["n t g c"], k: tw.Tile["r c g o"]) -> tw.Tile["n a g o"]:
    """Filters that lie along the vectors, and windows that lie inside."""
    a = tw.axis("a", tw.size("t") - tw.size("r") + 1)
    return tw.sum(x.at(t=a + tw.index("r")) * k, "r c")


@tw.op
def backwards(x: tw.Tile["n t g c"], k: tw.Tile["g o r c"]) -> tw.Tile["n t g o"]:
    """Windows that go back in time."""
    return tw.sum(x.at(t=tw.index("t") - 2 * tw.index("r")) * k, "r c")


@tw.op
def filters_of(x: tw.Tile["n h w g c"], y: tw.Tile["n h w g o"], *, taps=3) -> tw.Tile["g o r s c"]:
    """The sums of a filter's gradient."""
    r, s = tw.axis("r", taps), tw.axis("s", taps)
    return tw.sum(x.at(h=tw.index("h") + r - 1, w=tw.index("w") + s - 1) * y, "n h w")


@tw.op
def filters_across(x: tw.Tile["n g c t"], y: tw.Tile["n g o t"], *, taps=5) -> tw.Tile["g o c r"]:
    """The same of operands that do not lie along the channels."""
    r = tw.axis("r", taps)
    return tw.sum(x.at(t=tw.index("t") + r - 2) * y, "n t")


def compiled(op: tw.Op, *operands: np.ndarray, **constants: int) -> tuple[CompiledKernel, ...]:
    call = op.bind(op.arguments(operands, constants))
    return with_wide_vectors(call.program).compiled(dict(call.arrays))


def names(kernels: tuple[CompiledKernel, ...]) -> list[str]:
    return [c.kernel.outputs[0].buffer.name for c in kernels]


FOURS = [(2, 9, 14, 8, 4), (8, 4, 3, 3, 4), (8, 4)]
TAPS = [(3, 9, 14, 8, 4), (3, 9, 14, 8, 4)]
ROWS = [
    pytest.param(images, FOURS, {}, id="fours"),
    pytest.param(images, [(1, 30, 57, 2, 8), (2, 8, 3, 3, 8), (2, 8)], {}, id="eights"),
    pytest.param(images, [(2, 9, 9, 16, 2), (16, 2, 5, 5, 2), (16, 2)], {"pad": 2}, id="twos"),
    pytest.param(images, [(2, 9, 9, 4, 2), (4, 8, 3, 3, 2), (4, 8)], {}, id="more filters than channels"),
    pytest.param(images, [(3, 12, 13, 4, 3), (4, 4, 3, 3, 3), (4, 4)], {}, id="odd channels"),
    pytest.param(images, [(2, 9, 14, 5, 4), (5, 4, 3, 3, 4), (5, 4)], {}, id="part of a vector"),
    pytest.param(images, [(2, 8, 14, 3, 8), (3, 8, 3, 3, 8), (3, 8)], {}, id="half a vector"),
    pytest.param(images, [(2, 5, 6, 2, 4), (2, 4, 3, 3, 4), (2, 4)], {}, id="less than a vector"),
    pytest.param(images, [(2, 19, 30, 8, 4), (8, 4, 3, 3, 4), (8, 4)], {"step": 2}, id="strided"),
    pytest.param(images, [(2, 9, 29, 2, 8), (2, 8, 2, 3, 8), (2, 8)], {"step": 3, "pad": 0}, id="inside"),
    pytest.param(beside, [(2, 9, 14, 8, 4), (8, 4, 3, 3, 4), (2, 8, 4, 9, 14), (8,)], {}, id="epilogues"),
    pytest.param(signals, [(3, 40, 4, 4), (5, 4, 4, 4)], {}, id="signals"),
    pytest.param(backwards, [(3, 40, 6, 8), (6, 8, 4, 8)], {}, id="backwards"),
]
COLUMNS = [
    pytest.param(filters_of, TAPS, {}, id="fours"),
    pytest.param(filters_of, [(2, 9, 14, 6, 8), (2, 9, 14, 6, 8)], {}, id="eights"),
    pytest.param(filters_of, [(2, 9, 14, 16, 2), (2, 9, 14, 16, 2)], {"taps": 2}, id="twos"),
    pytest.param(filters_of, [(2, 9, 14, 4, 8), (2, 9, 14, 4, 3)], {}, id="fewer filters"),
    pytest.param(filters_of, [(2, 40, 40, 4, 4), (2, 40, 40, 4, 4)], {}, id="long sums"),
    pytest.param(filters_across, [(3, 8, 4, 100), (3, 8, 4, 100)], {}, id="copies"),
]


@pytest.mark.parametrize(("op", "shapes", "constants"), [*ROWS, *COLUMNS])
@pytest.mark.everyday(6)
def test_values_and_memory(op, shapes, constants):
    operands = drawn(*shapes)
    np.testing.assert_array_equal(op(*operands, **constants), op.reference(*operands, **constants))
    on_guard_pages(op, *shapes, **constants)


@pytest.mark.parametrize(("op", "shapes", "constants"), ROWS)
def test_rows_are_read_for_several_groups(op, shapes, constants):
    (kernel,) = compiled(op, *drawn(*shapes), **constants)
    walk = walk_of(kernel)
    assert walk.grouped is not None and walk.even is not None
    assert walk.right.own[-2:] == ("g", "o")


@pytest.mark.parametrize(("op", "shapes", "constants"), COLUMNS)
def test_channels_of_several_groups_are_read_from_tap_to_tap(op, shapes, constants):
    (walk,) = [walk_of(c) for c in compiled(op, *drawn(*shapes), **constants) if c.kernel.contraction]
    assert walk.tapped is not None and walk.tapped.beside is not None
    assert walk.right.own[-2:] == ("g", "c")


@pytest.mark.parametrize(
    "shapes",
    [
        [(2, 9, 14, 4, 5), (4, 5, 3, 3, 5), (4, 5)],  # vectors are no whole number of groups
        [(2, 9, 14, 4, 8), (4, 4, 3, 3, 8), (4, 4)],  # the channels of its groups are two vectors
        [(2, 9, 14, 4, 16), (4, 16, 3, 3, 16), (4, 16)],  # a group fills a vector
        [(2, 9, 14, 8, 1), (8, 4, 3, 3, 1), (8, 4)],  # no channels
    ],
)
def test_groups_that_stay_alone(shapes: list[tuple[int, ...]]):
    operands = drawn(*shapes)
    assert not any(walk_of(c).grouped for c in compiled(images, *operands) if c.kernel.contraction)
    np.testing.assert_array_equal(images(*operands), images.reference(*operands))


def test_what_is_not_finite_stays_in_its_group():
    x, k, b = drawn(*FOURS)
    clean = images(x, k, b)
    x[:, :, :, 3, 1] = np.inf
    k[5, 2] = np.nan
    found = images(x, k, b)
    np.testing.assert_array_equal(found, images.reference(x, k, b))
    whole = [0, 1, 2, 4, 6, 7]
    np.testing.assert_array_equal(found[:, :, :, whole], clean[:, :, :, whole])


def test_a_gradient_that_is_not_finite_stays_in_its_group():
    x, y = drawn(*TAPS)
    clean = filters_of(x, y)
    x[0, 0, 0, 3, 1], y[2, 8, 13, 5, 0] = np.inf, np.nan
    found = filters_of(x, y)
    np.testing.assert_array_equal(found, filters_of.reference(x, y))
    whole = [0, 1, 2, 4, 6, 7]
    np.testing.assert_array_equal(found[whole], clean[whole])


@pytest.mark.parametrize("op", [conv2d, conv2d_channels_last])
@pytest.mark.parametrize(
    ("groups", "channels", "filters", "stride", "dilation"),
    [
        (8, 32, 32, 1, 1),
        (8, 32, 32, 2, 1),
        (4, 32, 32, 2, 1),
        (16, 32, 32, 1, 2),
        (5, 20, 20, 3, 2),
        (4, 16, 32, 2, 1),
    ],
)
@pytest.mark.everyday(4)
def test_convolution_and_its_gradients(op, groups, channels, filters, stride, dilation):
    rng = np.random.default_rng(0)
    shapes = [(2, 17, 18, channels), (filters, 3, 3, channels // groups)]
    x, k = (rng.integers(-3, 4, shape).astype("f") for shape in shapes)
    if op is conv2d:
        x, k = (np.ascontiguousarray(np.moveaxis(a, -1, 1)) for a in (x, k))
    constants = {"stride": stride, "padding": 1, "dilation": dilation, "groups": groups}
    y = op(x, k, **constants)
    np.testing.assert_array_equal(y, op.reference(x, k, **constants))
    dy = rng.integers(-3, 4, y.shape).astype("f")
    gradients = [f(x, k, d_y=dy, **constants) for f in (op.vjp, op.vjp.reference)]
    for found, wanted in zip(*gradients, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_images_that_do_not_lie_so_are_copied_where_there_is_a_stride():
    x, k = drawn((2, 32, 28, 28), (32, 4, 3, 3))
    constants = {"padding": 1, "groups": 8}
    assert names(compiled(conv2d, x, k, **constants)) == ["y"]
    strided = compiled(conv2d, x, k, stride=2, **constants)
    assert len(strided) == 3
    assert walk_of(strided[1]).grouped is not None


OTHERS = [(images, FOURS), (filters_of, TAPS)]


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
    x, k, b = drawn((4, 9, 28, 8, 4), *FOURS[1:])
    x = x[::-2, :, ::2]
    out = np.zeros((2, 9, 14, 16, 4), "f")[:, :, :, ::2]
    images(x, k, b, out=out)
    np.testing.assert_array_equal(out, images.reference(x, k, b))


@pytest.mark.parametrize(("op", "shapes"), OTHERS)
def test_every_schedule(op: tw.Op, shapes: list[tuple[int, ...]]):
    operands = drawn(*shapes)
    call = op.bind(op.arguments(tuple(operands), {}))
    (kernel,) = [c for c in compiled(op, *operands) if c.kernel.contraction]
    for schedule in cpu_space(kernel.kernel, kernel.layout, toolchain.host()):
        executable = CpuExecutable(
            lower(call.program),
            choose=lambda k, *given, at=schedule: at if k == kernel.kernel else default_schedule(k, *given),
        )
        (found,) = executable.run(dict(call.arrays))
        np.testing.assert_array_equal(found, op.reference(*operands), err_msg=str(schedule))


@pytest.mark.parametrize(
    ("op", "shapes"),
    [(images, [(7, 29, 29, 16, 4), (16, 4, 3, 3, 4), (16, 4)]), (filters_of, [(7, 29, 29, 16, 4)] * 2)],
)
def test_bits_for_every_number_of_threads(op, shapes):
    rng = np.random.default_rng(0)
    operands = [rng.standard_normal(shape).astype("f") for shape in shapes]
    assert_same_bits(lambda: op(*operands))
