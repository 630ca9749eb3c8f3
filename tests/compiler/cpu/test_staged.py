"""Operands of windows that are copied for a contraction, and results that are turned after it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tilewright as tw
from tests.support.checks import backward_of, extents_of, with_cotangents
from tests.support.contractions import walk_of, with_wide_vectors
from tests.support.guarded import on_guard_pages
from tests.support.indexing_ops import conv2d
from tests.support.threads import assert_same_bits
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu import toolchain
from tilewright.compiler.targets.cpu.executable import CpuExecutable
from tilewright.compiler.targets.cpu.recipe import CompiledKernel
from tilewright.dsl.program import Program
from tilewright.dsl.reference import reference
from tilewright.op.check import relative_error


@tw.op
def added(x: tw.Tile["n c h w"], k: tw.Tile["o c r s"], b: tw.Tile["o"], z: tw.Tile["n o oh ow"]):
    """An epilogue that reads operands along and across the lanes."""
    oh, ow = tw.index("oh") + tw.index("r") - 1, tw.index("ow") + tw.index("s") - 1
    return tw.maximum(tw.sum(x.at(h=oh, w=ow) * k, "c r s") + b + z, 0)


@tw.op
def shifted(x: tw.Tile["n c t"], k: tw.Tile["d c r"]):
    """A window over what another kernel computes."""
    hidden = x - tw.mean(x, "c")
    a = tw.axis("a", tw.size("t") - tw.size("r") + 1)
    return tw.sum(hidden.at(t=a + tw.index("r")) * k, "c r")


@tw.op
def forked(x: tw.Tile["n c t"], k: tw.Tile["d c r"], l: tw.Tile["e c s"], m: tw.Tile["f c u"]):
    """Three windows over one operand."""
    a, b = tw.axis("a", tw.size("t") - tw.size("r") + 1), tw.axis("b", tw.size("t") - tw.size("s") + 1)
    d = tw.axis("g", tw.size("t") - tw.size("u") + 1)
    first = tw.sum(x.at(t=a + tw.index("r")) * k, "c r")
    second = tw.sum(x.at(t=b + tw.index("s")) * l, "c s")
    return first, second, tw.sum(x.at(t=d + tw.index("u")) * m, "c u")


def kernels_for(x: np.ndarray, k: np.ndarray, **constants: int) -> tuple[CompiledKernel, ...]:
    call = conv2d.bind(conv2d.arguments((x, k), constants))
    return with_wide_vectors(call.program).compiled(dict(call.arrays))


def drawn(*shape: int) -> np.ndarray:
    """Small whole numbers, whose sums are exact."""
    return np.random.default_rng(0).integers(-4, 5, shape).astype(np.float32)


def exact(x: np.ndarray, k: np.ndarray) -> np.ndarray:
    """The convolution of 3×3 windows, padded by 1."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("nchwrs,ocrs->nohw", windows, k.astype(np.float64))


def test_short_lines_are_worth_a_copy():
    """It lies along the channels: rows are read from it where they lie, vectors run along the filters."""
    copy, contraction, turned = kernels_for(
        np.zeros((2, 32, 7, 7), "f4"), np.zeros((40, 32, 3, 3), "f4"), pad=1
    )
    assert copy.kernel.kind == "pointwise" and copy.kernel.outputs[0].buffer.axes[-1] == "c"
    walk = walk_of(contraction)
    assert walk.direct and contraction.schedule.lane_axis == "o"
    assert contraction.kernel.outputs[0].buffer.axes[-1] == "o"
    assert turned.kernel.outputs[0].buffer.axes[-1] == "ow"


def test_images_that_the_second_cache_holds_are_worth_one():
    """All of an image and its copies: where it does not, windows of long lines are packed."""
    k = np.zeros((64, 64, 3, 3), "f4")
    assert len(kernels_for(np.zeros((2, 64, 8, 60), "f4"), k, pad=1)) == 3
    assert len(kernels_for(np.zeros((2, 64, 128, 128), "f4"), k, pad=1)) == 1


def test_images_whose_borders_are_passed_over_together_are_worth_one():
    x, k = drawn(16, 128, 28, 28), drawn(128, 128, 3, 3)
    assert [c.kernel.outputs[0].buffer.name for c in kernels_for(x, k, pad=1)] == [
        "x along c",
        "y along o",
        "y",
    ]
    assert len(kernels_for(x[:7], k, pad=1)) == 1


def test_others_are_not():
    long_lines = np.zeros((2, 32, 6, 60), "f4")
    few_channels = np.zeros((2, 8, 7, 7), "f4")
    for x in (long_lines, few_channels):
        (contraction,) = kernels_for(x, np.zeros((100, x.shape[1], 3, 3), "f4"), pad=1)
        assert contraction.schedule.lane_axis == "ow"


def test_images_that_fill_one_vector_alone_are_not_innermost():
    """AVX2, eight images of three colours: a vector of images is one column for each filter."""
    operands = (np.zeros((8, 3, 224, 224), np.float32), np.zeros((64, 3, 7, 7), np.float32))
    call = tw.kernels.conv2d.bind(tw.kernels.conv2d.arguments(operands, {"stride": 2, "padding": 3}))
    compiled = CpuExecutable(lower(call.program), toolchain.avx2()).compiled(dict(call.arrays))
    (walk,) = (walk_of(made) for made in compiled if made.kernel.contraction)
    assert walk.tapped is None and "ow" in walk.right.own[-1:] + walk.left.own[-1:]


def test_what_lies_along_the_channels_needs_no_copy():
    x = np.zeros((2, 7, 7, 32), "f4").transpose(0, 3, 1, 2)
    (contraction,) = kernels_for(x, np.zeros((40, 32, 3, 3), "f4"), pad=1)
    assert contraction.schedule.lane_axis == "o"


def test_a_copy_is_made_of_the_operand_of_each_call():
    """One op, operands of one shape in both orders: each has a recipe of its own."""
    k = drawn(40, 32, 3, 3)
    for factor in (1, 2):
        x = factor * drawn(2, 32, 7, 7)
        np.testing.assert_array_equal(conv2d(x, k, pad=1), exact(x, k))
        lying = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(conv2d(lying, k, pad=1), exact(x, k))


@pytest.mark.parametrize("edge", [*(pytest.param(n, marks=pytest.mark.exhaustive) for n in (3, 13)), 7])
def test_values_and_gradients(edge: int):
    on_guard_pages(conv2d, (2, 17, edge, edge), (37, 17, 3, 3), pad=1)


def test_filters_of_a_stride_are_copied_too():
    """Of a gradient with a stride the taps of a phase lie apart in a filter, as its channels do."""
    x, k = np.zeros((2, 48, 9, 9), "f4"), np.zeros((40, 48, 3, 3), "f4")
    call = conv2d.bind(conv2d.arguments((x, k), {"stride": 2, "pad": 1}))
    program = replace(backward_of(call.program), results=backward_of(call.program).results[:1])
    arrays = with_cotangents(program, dict(call.arrays), extents_of(call.program, dict(call.arrays)))
    given = {p.name: arrays[p.name] for p in program.tiles}
    *copies, contraction, _ = with_wide_vectors(program).compiled(given)
    assert {c.kernel.outputs[0].buffer.axes[-1] for c in copies} == {"o", "c"}
    assert contraction.kernel.contraction is not None


@pytest.mark.exhaustive
@pytest.mark.parametrize("constants", [{"stride": 2, "pad": 1}, {"pad": 2, "dilation": 2}, {}], ids=str)
def test_strides_dilation_and_no_padding(constants: dict[str, int]):
    on_guard_pages(conv2d, (3, 16, 9, 9), (19, 16, 3, 3), **constants)


def gradient_of_filters(channels: int, **constants: int) -> tuple[Program, dict[str, np.ndarray]]:
    x, k = drawn(2, channels, 30, 30), drawn(40, channels, 3, 3)
    call = conv2d.bind(conv2d.arguments((x, k), constants))
    backward = backward_of(call.program)
    program = replace(backward, results=backward.results[1:])
    arrays = with_cotangents(backward, dict(call.arrays), extents_of(call.program, dict(call.arrays)))
    return program, {p.name: arrays[p.name] for p in program.tiles}


def compiled(program: Program, arrays: dict[str, np.ndarray]) -> tuple[CompiledKernel, ...]:
    return with_wide_vectors(program).compiled(arrays)


@pytest.mark.parametrize(("channels", "stride", "copies"), [(40, 2, 1), (40, 1, 0)])
def test_operands_whose_elements_lie_apart_along_the_sums_are_copied(channels, stride, copies):
    """A filter's gradient, whose sums run over every other element of a line."""
    kernels = compiled(*gradient_of_filters(channels, stride=stride, pad=1))
    assert [c.kernel.kind for c in kernels] == ["pointwise"] * copies + ["contraction"]
    assert walk_of(kernels[-1]).right.own[-1] == "c"


@pytest.mark.parametrize(
    "constants", [{"pad": 1}, {"pad": 2, "dilation": 2}, {"pad": 1, "stride": 2}], ids=str
)
def test_gradients_of_filters_go_along_channels_that_fill_vectors(constants: dict[str, int]):
    """The operand is copied along them, read where it lies for every tap, and the gradient is turned."""
    _, contraction, turned = compiled(*gradient_of_filters(32, **constants))
    assert walk_of(contraction).tapped and contraction.kernel.outputs[0].buffer.axes == ("o", "r", "s", "c")
    assert turned.kernel.outputs[0].buffer.axes == ("o", "c", "r", "s")
    assert [c.kernel.kind for c in compiled(*gradient_of_filters(24, pad=1))] == ["contraction"]


@pytest.mark.parametrize("stride", [1, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_gradients_of_filters(stride: int):
    on_guard_pages(conv2d, (2, 16, 9, 11), (5, 16, 3, 3), stride=stride, pad=1)
    on_guard_pages(added, (2, 32, 9, 12), (33, 32, 3, 3), (33,), (2, 33, 9, 12))


def test_gradients_of_filters_on_narrower_vectors():
    program, arrays = gradient_of_filters(32, pad=1)
    executable = CpuExecutable(lower(program), toolchain.avx2())
    assert walk_of(executable.compiled(arrays)[1]).tapped
    for found, wanted in zip(executable.run(arrays), reference(program, arrays), strict=True):
        assert relative_error(found, wanted) < 1e-5


@pytest.mark.parametrize("edge", [pytest.param(8, marks=pytest.mark.exhaustive), 9])
def test_a_turned_intermediate_is_read_as_it_lies(edge: int):
    """The phases of a gradient, which another kernel puts in their places."""
    on_guard_pages(conv2d, (2, 18, edge, edge), (33, 18, 3, 3), stride=2, pad=1)


def test_results_that_replace_an_operand():
    x, k, b = drawn(2, 32, 7, 7), drawn(32, 32, 3, 3), np.zeros(32, "f4")
    z = drawn(2, 32, 7, 7)
    wanted = added(x, k, b, z)
    for operand in (x, z):
        kept = operand.copy()
        np.testing.assert_array_equal(added(x, k, b, z, out=operand), wanted)
        operand[...] = kept


def test_epilogues():
    on_guard_pages(added, (2, 16, 7, 7), (33, 16, 3, 3), (33,), (2, 33, 7, 7))


def test_what_another_kernel_computes():
    on_guard_pages(shifted, (3, 40, 9), (33, 40, 3))


@pytest.mark.exhaustive
def test_one_copy_for_several_windows():
    on_guard_pages(forked, (3, 40, 9), (33, 40, 3), (37, 40, 2), (34, 40, 4))


@pytest.mark.exhaustive
def test_float64():
    on_guard_pages(conv2d, (2, 16, 6, 7), (21, 16, 3, 3), dtype="float64", pad=1)


def test_results_over_their_operand():
    """The copy is read, so what it was made of may be written over."""
    x, k = drawn(2, 32, 7, 7), drawn(32, 32, 3, 3)
    wanted = exact(x, k)
    assert conv2d(x, k, pad=1, out=x) is x
    np.testing.assert_array_equal(x, wanted)


def test_the_same_bits_for_every_thread_count():
    rng = np.random.default_rng(1)
    x, k = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 64, 7, 7), (64, 64, 3, 3)))
    assert_same_bits(lambda: conv2d(x, k, pad=1))
