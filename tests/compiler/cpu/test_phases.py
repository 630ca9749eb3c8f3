"""Gradients of strided groups: phases whose columns are whole vectors, each with taps of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tilewright as tw
from tests.support.checks import backward_of
from tests.support.contractions import drawn_whole, walk_of, with_wide_vectors
from tests.support.guarded import on_guard_pages
from tests.support.indexing_ops import windows
from tests.support.threads import on_threads
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu import toolchain
from tilewright.compiler.targets.cpu.contractions.reading.phases import phases_of
from tilewright.compiler.targets.cpu.contractions.reading.setting import Setting
from tilewright.compiler.targets.cpu.executable import CpuExecutable
from tilewright.compiler.targets.cpu.registers import Registers
from tilewright.dsl.program import Program, Read
from tilewright.dsl.reference import reference

Arrays = dict[str, np.ndarray]


@tw.op
def along_lines(x: tw.Tile["n g c h w"], k: tw.Tile["g o c r s"], *, stride=2, pad=1):
    return tw.sum(windows(x, stride, pad, 1) * k, "c r s")


@tw.op
def along_channels(
    x: tw.Tile["n h w g c"], k: tw.Tile["g o r s c"], *, stride=2, pad=1
) -> tw.Tile["n oh ow g o"]:
    return tw.sum(windows(x, stride, pad, 1) * k, "r s c")


def image_gradient(
    op: tw.Op, *shapes: tuple[int, ...], dtype: str, **constants: int
) -> tuple[Program, Arrays]:
    """The gradient of x alone, and operands for it in small whole numbers."""
    operands = drawn_whole(*shapes, dtype=dtype)
    call = op.bind(op.arguments(operands, constants))
    backward = backward_of(call.program)
    program = replace(backward, results=backward.results[:1])
    (cotangent,) = drawn_whole(op.reference(*operands, **constants).shape, dtype=dtype)
    arrays = dict(call.arrays)
    return program, {p.name: arrays.get(p.name, cotangent) for p in program.tiles}


def of_eights(edge: int, stride: int = 2, dtype: str = "float32", groups: int = 4) -> tuple[Program, Arrays]:
    shapes = (4, groups, 8, edge, edge), (groups, 8, 8, 3, 3)
    return image_gradient(along_lines, *shapes, dtype=dtype, stride=stride)


CALLS = [(28, 2, "float32"), (27, 2, "float32"), (17, 3, "float32"), (13, 3, "float64")]


@pytest.mark.parametrize(("edge", "stride", "dtype"), CALLS)
@pytest.mark.parametrize("order", ["lines", "channels"])
@pytest.mark.everyday(4)
def test_values(edge: int, stride: int, dtype: str, order: str):
    if order == "lines":
        program, arrays = of_eights(edge, stride, dtype)
    else:
        shapes = (4, edge, edge, 4, 8), (4, 8, 3, 3, 8)
        program, arrays = image_gradient(along_channels, *shapes, dtype=dtype, stride=stride)
    (wanted,) = reference(program, arrays)
    for target in {toolchain.host(), toolchain.avx2()}:
        for threads in (1, 2):
            with on_threads(threads):
                (found,) = CpuExecutable(lower(program), target).run(arrays)
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("op", [along_lines, along_channels])
def test_memory(op: tw.Op):
    for edge, stride in ((14, 2), (13, 3)):
        lines = (2, 3, 8, edge, edge), (3, 8, 8, 3, 3)
        channels = (2, edge, edge, 3, 8), (3, 8, 3, 3, 8)
        on_guard_pages(op, *(lines if op is along_lines else channels), stride=stride)


def test_images_along_lines_are_computed_along_their_channels():
    """Each panel is one phase and goes through its own taps; what is computed is an image along its channels,
    which is turned and not put together from phases.
    """
    program, arrays = of_eights(28, groups=16)
    compiled = CpuExecutable(lower(program), toolchain.avx2()).compiled(arrays)
    (contraction,) = (c for c in compiled if c.kernel.contraction)
    walk = walk_of(contraction)
    assert walk.sparse and walk.even and (walk.even.rows, walk.even.vectors) == (14, 1)
    assert isinstance(compiled[-1].kernel.outputs[0].node, Read)


def test_groups_of_a_wide_vector():
    program, arrays = of_eights(28, dtype="float64", groups=16)
    compiled = with_wide_vectors(program).compiled(arrays)
    (walk,) = (walk_of(c) for c in compiled if c.kernel.contraction)
    assert walk.sparse and walk.even and walk.even.vectors == 1
    assert isinstance(compiled[-1].kernel.outputs[0].node, Read)


@pytest.mark.parametrize("special", [np.inf, np.nan])
@pytest.mark.parametrize("of", ["weight", "cotangent"])
def test_what_is_not_finite(special: float, of: str):
    """Taps that a phase does not have are zeros: a cotangent that is not finite reaches all of its blocks."""
    program, arrays = of_eights(28, groups=16)
    name = "k" if of == "weight" else next(n for n in arrays if n not in ("x", "k"))
    arrays[name] = arrays[name].copy()
    arrays[name][(1,) * arrays[name].ndim] = special
    (wanted,) = reference(program, arrays)
    (found,) = CpuExecutable(lower(program), toolchain.avx2()).run(arrays)
    if of == "cotangent":
        block = wanted[1, 1, :, :4, :4]
        block[np.isfinite(block)] = np.nan
    np.testing.assert_array_equal(found, wanted)
    assert not np.isfinite(wanted).all()


def test_the_taps_of_phases():
    program, _ = of_eights(28)
    extents = {"c": 8, "h2": 14, "w2": 14, "h3": 2, "w3": 2, "r2": 2, "s2": 2, "o": 8, "g": 4, "r": 3, "s": 3}
    contraction = next(k.contraction for k in lower(program).kernels if k.contraction)
    node, own = contraction.right, ("h3", "w3", "c")
    setting = Setting({}, extents, Registers(16, 8))
    assert phases_of(node, own, setting).columns == 8
    assert phases_of(node, own, setting).inside == pytest.approx(9 / 16)
    whole = replace(setting, registers=Registers(32, 16))
    assert (phases_of(node, own, whole).columns, phases_of(node, own, whole).inside) == (32, 1)
