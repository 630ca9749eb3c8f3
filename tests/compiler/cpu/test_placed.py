"""Results that kernels of windows write where they belong: phases in turns, ends that no block fills."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import tilewright as tw
from tests.support.checks import backward_of, extents_of, with_cotangents
from tests.support.guarded import on_guard_pages
from tests.support.indexing_ops import by_channel, in_line
from tilewright.compiler.pipeline import Executable, compile_program
from tilewright.compiler.targets.cpu.windows.strips import slides

Arrays = dict[str, np.ndarray]


@tw.op
def channels_together(x: tw.Tile["n h w c"], k: tw.Tile["r s c"], *, stride=2, pad=1) -> tw.Tile["n oh ow c"]:
    oh = tw.axis("oh", (tw.size("h") + 2 * pad - tw.size("r")) // stride + 1) * stride
    ow = tw.axis("ow", (tw.size("w") + 2 * pad - tw.size("s")) // stride + 1) * stride
    return tw.sum(x.at(h=oh + tw.index("r") - pad, w=ow + tw.index("s") - pad) * k, "r s")


HALVED = {"stride": 2, "pad": 1}


def gradient(op: tw.Op, *shapes: tuple[int, ...], **constants: int) -> tuple[Executable, Arrays]:
    """That of the first operand alone, and operands for it."""
    rng = np.random.default_rng(0)
    operands = tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    call = op.bind(op.arguments(operands, constants))
    backward = backward_of(call.program)
    program = replace(backward, results=backward.results[:1])
    given = with_cotangents(backward, dict(call.arrays), extents_of(call.program, call.arrays))
    return compile_program(program), {p.name: given[p.name] for p in program.tiles}


def is_placed(executable: Executable, arrays: Arrays) -> bool:
    """Whether one kernel of windows does it all."""
    made = executable.compiled(arrays)
    return len(made) == 1 and slides(made[0].kernel, made[0].layout, made[0].schedule)


EVERY_DAY = {(8, 32), (7, 37), (9, 5)}
EDGES = [
    pytest.param(height, width, marks=() if (height, width) in EVERY_DAY else pytest.mark.exhaustive)
    for height in (1, 2, 7, 8, 9, 15)
    for width in (3, 5, 16, 31, 32, 33, 37, 64, 65)
]


@pytest.mark.parametrize(("height", "width"), EDGES)
def test_phases_in_turns_at_every_end(height: int, width: int):
    assert is_placed(*gradient(by_channel, (2, 3, height, width), (3, 3, 3), **HALVED))
    on_guard_pages(by_channel, (2, 3, height, width), (3, 3, 3), **HALVED)


KINDS = [
    {"stride": 3},
    pytest.param({"dilation": 3, "pad": 3}, marks=pytest.mark.exhaustive),
    pytest.param({"stride": 2, "pad": 0}, marks=pytest.mark.exhaustive),
    pytest.param({"stride": 4, "pad": 3}, marks=pytest.mark.exhaustive),
    pytest.param({"stride": 2, "dilation": 2, "pad": 2}, marks=pytest.mark.exhaustive),
    pytest.param({"stride": 3, "dilation": 2, "pad": 1}, marks=pytest.mark.exhaustive),
]


@pytest.mark.parametrize("constants", KINDS, ids=str)
def test_strides_of_every_kind(constants: dict[str, int]):
    on_guard_pages(by_channel, (2, 3, 11, 41), (3, 3, 3), **(HALVED | constants))
    on_guard_pages(by_channel, (1, 2, 12, 48), (2, 3, 2), dtype="float64", **(HALVED | constants))


@pytest.mark.parametrize("edge", [9, pytest.param(8, marks=pytest.mark.exhaustive)])
def test_vectors_along_channels(edge: int):
    assert is_placed(*gradient(channels_together, (2, edge, edge, 19), (3, 3, 19)))
    on_guard_pages(channels_together, (2, edge, edge + 1, 19), (3, 3, 19))


def test_one_axis():
    assert is_placed(*gradient(in_line, (3, 50), (5,), stride=2))
    on_guard_pages(in_line, (3, 50), (5,), stride=2)
    on_guard_pages(in_line, (3, 67), (4,), stride=3, pad=2)


def test_taps_that_a_phase_lacks_are_not_multiplied():
    """∞ in the cotangent reaches the taps that there are, with no 0 · ∞ of others."""
    executable, arrays = gradient(by_channel, (1, 1, 9, 40), (1, 3, 3), **HALVED)
    cotangent = next(array for array in arrays.values() if array.shape == (1, 1, 5, 20))
    cotangent[0, 0, 2, 9] = np.inf
    (found,) = executable.run(arrays)
    operands = map(torch.from_numpy, (cotangent, arrays["k"][:, None]))
    wanted = torch.nn.functional.conv_transpose2d(*operands, stride=2, padding=1, output_padding=(0, 1))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert np.isinf(found).sum() == 9
