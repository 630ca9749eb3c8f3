"""Rows of windows come image by image at one place, where that lets them leave the operand together."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support.contractions import drawn_whole, loops_of, on_avx2, walk_of, with_wide_vectors
from tests.support.guarded import on_guard_pages
from tests.support.indexing_ops import channels_last
from tests.support.threads import assert_same_bits
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu import toolchain
from tilewright.compiler.targets.cpu.executable import CpuExecutable

AROUND = {"before": 1, "behind": 1}
WIDER = {"before": 2, "behind": 2}


@tw.op
def films(x: tw.Tile["n t w c"], k: tw.Tile["o s c"]) -> tw.Tile["n t ow o"]:
    ow = tw.axis("ow", tw.size("w"))
    return tw.sum(x.at(w=ow + tw.index("s") - 2) * k, "s c")


def order_of_rows(op: tw.Op, *shapes: tuple[int, ...], **constants: int) -> tuple[str, ...]:
    call = op.bind(op.arguments(tuple(np.zeros(shape, np.float32) for shape in shapes), constants))
    (made,) = [c for c in with_wide_vectors(call.program).compiled(call.arrays) if c.kernel.contraction]
    return walk_of(made).left.own


def drawn(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


CALLS = [
    pytest.param(channels_last, [(8, 14, 14, 32), (64, 3, 3, 32)], AROUND, ("oh", "ow", "n"), id="images"),
    pytest.param(channels_last, [(9, 7, 5, 32), (48, 3, 3, 32)], AROUND, ("oh", "ow", "n"), id="odd ones"),
    pytest.param(
        channels_last,
        [(8, 9, 28, 16), (64, 3, 3, 16)],
        WIDER | {"dilation": 2},
        ("oh", "ow", "n"),
        id="apart",
    ),
    pytest.param(channels_last, [(9, 7, 28, 16), (64, 5, 5, 16)], WIDER, ("oh", "ow", "n"), id="five taps"),
    pytest.param(films, [(3, 4, 20, 32), (64, 5, 32)], {}, ("ow", "n", "t"), id="films"),
    pytest.param(
        channels_last, [(7, 14, 14, 32), (64, 3, 3, 32)], AROUND, ("n", "oh", "ow"), id="few images"
    ),
    pytest.param(channels_last, [(8, 7, 40, 16), (64, 3, 3, 16)], AROUND, ("n", "oh", "ow"), id="long lines"),
    pytest.param(channels_last, [(8, 14, 14, 32), (64, 3, 3, 32)], {}, ("n", "oh", "ow"), id="never outside"),
]


@pytest.mark.parametrize(("op", "shapes", "constants", "order"), CALLS)
def test_the_order_of_rows(op, shapes, constants, order):
    assert order_of_rows(op, *shapes, **constants) == order


@pytest.mark.parametrize(("op", "shapes", "constants", "order"), CALLS)
@pytest.mark.everyday(3)
def test_values_and_memory(op, shapes, constants, order):
    found, wanted = (f(*drawn(*shapes), **constants) for f in (op, op.reference))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    on_guard_pages(op, *shapes, **constants)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_types(dtype):
    x, k = (a.astype(dtype) for a in drawn((9, 6, 7, 16), (40, 3, 3, 16)))
    assert channels_last.check(x, k, **AROUND).ok


def test_views():
    x, k = drawn((20, 16, 8, 32), (48, 3, 3, 32))
    x = x[::-2, 1:15, ::-1]
    wanted = channels_last.reference(x, k, **AROUND)
    np.testing.assert_allclose(channels_last(x, k, **AROUND), wanted, rtol=1e-4, atol=1e-4)


def test_bits_for_every_number_of_threads():
    x, k = drawn((19, 14, 14, 32), (64, 3, 3, 32))
    assert_same_bits(lambda: channels_last(x, k, **AROUND))


def test_on_vectors_of_256_bits():
    x, k = drawn((9, 7, 7, 32), (64, 3, 3, 32))
    on_avx2(channels_last, x, k, applies=lambda walk: walk.direct, **AROUND)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_masks_that_are_integers_are_made_outside_of_the_loop(dtype: str):
    """AVX2: the loop over the channels of a tap only copies what is inside."""
    operands = drawn_whole((2, 64, 56, 56), (64, 64, 3, 3), dtype=dtype)
    call = tw.kernels.conv2d.bind(tw.kernels.conv2d.arguments(operands, {"padding": 1}))
    executable = CpuExecutable(lower(call.program), toolchain.avx2())
    (made,) = [c for c in executable.compiled(dict(call.arrays)) if c.kernel.contraction]
    copying = [
        loop for loop in loops_of(executable.source(made, "asm")) if any("vmaskmov" in i for i in loop)
    ]
    assert copying
    assert not any("vpcmp" in instruction for loop in copying for instruction in loop)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_windows_that_are_inside_are_packed_without_masks(dtype: str):
    """AVX2: taps are the innermost loop, and whether they are inside is asked before it."""
    operands = drawn_whole((1, 3, 64, 64), (64, 3, 7, 7), dtype=dtype)
    call = tw.kernels.conv2d.bind(tw.kernels.conv2d.arguments(operands, {"padding": 3, "stride": 2}))
    executable = CpuExecutable(lower(call.program), toolchain.avx2())
    (made,) = [c for c in executable.compiled(dict(call.arrays)) if c.kernel.contraction]
    packing = [
        loop
        for loop in loops_of(executable.source(made, "asm"))
        if any("vperm" in i or "vshufp" in i for i in loop) and not any("vfmadd" in i for i in loop)
    ]
    with_masks = [any("vpcmp" in instruction for instruction in loop) for loop in packing]
    assert set(with_masks) == {True, False}
