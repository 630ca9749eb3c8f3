"""Rows of windows over few channels, read where they lie, with zeros for what is outside of their lines."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support.contractions import on_avx2, walk_of, with_wide_vectors
from tests.support.guarded import on_guard_pages
from tests.support.indexing_ops import channels_last
from tests.support.threads import assert_same_bits
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu import toolchain
from tilewright.compiler.targets.cpu.executable import CpuExecutable
from tilewright.compiler.targets.cpu.recipe import CompiledKernel

PADDED = {"before": 1, "behind": 1}


@tw.op
def gated(x: tw.Tile["n t c"], k: tw.Tile["o r c"], b: tw.Tile["o"]) -> tw.Tile["n t o"]:
    """A window along one axis, whose operand is read once more behind the sum."""
    window = x.at(t=tw.index("t") + tw.index("r") - 1)
    total = tw.sum(window * k, "r c") + b
    return total * tw.sum(x, "c")


def drawn(*shapes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)


def kernels_of(op: tw.Op, *operands: np.ndarray, **constants: int) -> tuple[CompiledKernel, ...]:
    call = op.bind(op.arguments(operands, constants))
    return with_wide_vectors(call.program).compiled(dict(call.arrays))


def kernels_on_avx2(op: tw.Op, *operands: np.ndarray, **constants: int) -> tuple[CompiledKernel, ...]:
    call = op.bind(op.arguments(operands, constants))
    return CpuExecutable(lower(call.program), toolchain.avx2()).compiled(dict(call.arrays))


def is_filled(compiled: CompiledKernel) -> bool:
    even = walk_of(compiled).even if compiled.kernel.contraction else None
    return even is not None and even.filled


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("compiled", [kernels_of, kernels_on_avx2])
def test_long_lines_are_not_copied(compiled, channels: int):
    (made,) = compiled(channels_last, *drawn((2, 9, 400, channels), (32, 3, 3, channels)), **PADDED)
    walk = walk_of(made)
    assert is_filled(made) and walk.direct
    assert walk.span({**dict.fromkeys("nhwo", 2), "r": 3, "s": 3, "c": channels}) == 3 * channels


def test_short_lines_and_others_are():
    """Where most register blocks are at the ends of lines, or more columns than two vectors pass by."""
    short = kernels_of(channels_last, *drawn((2, 9, 20, 3), (32, 3, 3, 3)), **PADDED)
    many = kernels_of(channels_last, *drawn((2, 9, 400, 3), (65, 3, 3, 3)), **PADDED)
    assert [len(short), len(many)] == [2, 2]
    assert not is_filled(short[-1]) and not is_filled(many[-1])


@pytest.mark.parametrize("channels", [1, 2, pytest.param(4, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize(
    "constants",
    [
        PADDED,
        {"stride": 2, "before": 3, "behind": 0},
        pytest.param({"before": 0, "behind": 2}, marks=pytest.mark.exhaustive),
        pytest.param({"stride": 3, "before": 2, "behind": 4}, marks=pytest.mark.exhaustive),
    ],
    ids=str,
)
def test_between_pages(channels: int, constants: dict[str, int]):
    operands = (2, 5, 431, channels), (19, 3, 4, channels)
    assert is_filled(kernels_of(channels_last, *drawn(*operands), **constants)[-1])
    on_guard_pages(channels_last, *operands, **constants)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_vectors_of_256_bits(dtype: str):
    operands = [array.astype(dtype) for array in drawn((1, 4, 230, 3), (14, 2, 5, 3))]
    assert is_filled(kernels_on_avx2(channels_last, *operands, **PADDED)[-1])
    on_avx2(channels_last, *operands, applies=bool, **PADDED)


def test_an_operand_that_is_read_once_more():
    shapes = (3, 301, 3), (20, 3, 3), (20,)
    assert any(map(is_filled, kernels_of(gated, *drawn(*shapes))))
    on_guard_pages(gated, *shapes)


def test_whole_numbers():
    rng = np.random.default_rng(0)
    x, k = (rng.integers(-9, 9, shape, dtype="i4") for shape in ((2, 4, 200, 3), (16, 3, 3, 3)))
    found = channels_last(x, k, **PADDED)
    np.testing.assert_array_equal(found, channels_last.reference(x, k, **PADDED))


@pytest.mark.parametrize("place", [0, -1])
def test_what_lies_beside_a_line_is_not_read(place: int):
    """The ends of the lines before and behind, which are infinite."""
    x, k = drawn((2, 7, 300, 3), (24, 3, 3, 3))
    x[:, 1::2, place] = np.inf
    found = channels_last(x, k, **PADDED)
    near = slice(2, None) if place == 0 else slice(0, -2)
    assert np.isfinite(found[:, :, near]).all()
    assert not np.isfinite(found[:, :, place]).any()


def test_what_is_infinite_meets_the_zeros_as_padding_does():
    x, k = drawn((1, 5, 260, 3), (24, 3, 3, 3))
    k[0, 0, 0, 0] = np.inf
    found = channels_last(x, k, **PADDED)[..., 0]
    assert np.isnan(found[0, 0]).all() and np.isnan(found[0, :, 0]).all()
    assert not np.isnan(found[0, 1:, 1:]).any()


def test_a_single_channel_without_a_border_is_not_packed():
    """A run of one short axis, which is written out."""
    (made,) = kernels_of(channels_last, *drawn((2, 9, 60, 1), (16, 3, 3, 1)))
    walk = walk_of(made)
    assert walk.direct and walk.even and not walk.even.filled
    on_guard_pages(channels_last, (2, 6, 41, 1), (16, 3, 5, 1))


def test_the_same_bits_for_every_thread_count():
    x, k = drawn((3, 31, 250, 3), (32, 3, 3, 3))
    assert_same_bits(lambda: channels_last(x, k, **PADDED))
