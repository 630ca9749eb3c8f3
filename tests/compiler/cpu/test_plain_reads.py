"""Windows of one position: contractions that read their operands as they lie."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support.guarded import on_guard_pages
from tests.support.indexing_ops import conv2d
from tilewright.compiler.nest import indexed_reads
from tilewright.compiler.pipeline import compile_program


@tw.op
def shifted(x: tw.Tile["n c t"], k: tw.Tile["d c"], q: tw.Tile["q"]):
    """A window whose start depends on a size."""
    a = tw.axis("a", tw.size("t") - tw.size("q") + 1)
    return tw.sum(x.at(t=a + tw.size("q") - 1) * k, "c") * tw.sum(q, "q")


def windows(x: tuple[int, ...], k: tuple[int, ...], **constants: int) -> int:
    """How many operands a convolution reads at computed positions."""
    operands = np.zeros(x, np.float32), np.zeros(k, np.float32)
    call = conv2d.bind(conv2d.arguments(operands, constants))
    return sum(
        len(indexed_reads(c.kernel)) for c in compile_program(call.program).compiled(dict(call.arrays))
    )


def test_windows_of_one_position_alone():
    assert windows((2, 3, 7, 7), (4, 3, 1, 1)) == 0
    assert windows((2, 3, 7, 7), (4, 3, 1, 3)) == 1
    assert windows((2, 3, 7, 7), (4, 3, 1, 1), stride=2) == 1
    assert windows((2, 3, 7, 7), (4, 3, 1, 1), pad=1) == 1


def test_one_op_with_windows_and_without():
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (2, 5, 7, 9)).astype(np.float32)
    for edge in (1, 2, 1):
        k = rng.integers(-4, 5, (6, 5, edge, edge)).astype(np.float32)
        seen = np.lib.stride_tricks.sliding_window_view(x, (edge, edge), axis=(2, 3))
        np.testing.assert_array_equal(conv2d(x, k), np.einsum("nchwrs,ocrs->nohw", seen, k))


def test_positions_that_a_size_decides():
    rng = np.random.default_rng(1)
    x, k = rng.integers(-4, 5, (2, 5, 9)).astype(np.float32), rng.integers(-4, 5, (6, 5)).astype(np.float32)
    for count in (1, 2, 1):
        q = np.ones(count, np.float32)
        wanted = count * np.einsum("nct,dc->ndt", x[:, :, count - 1 :], k)
        np.testing.assert_array_equal(shifted(x, k, q), wanted)


@pytest.mark.parametrize("edge", [7, 12])
def test_values_and_gradients(edge: int):
    on_guard_pages(conv2d, (2, 17, edge, edge), (37, 17, 1, 1))


def test_operands_that_do_not_lie_as_one():
    rng = np.random.default_rng(2)
    k = rng.integers(-4, 5, (19, 16, 1, 1)).astype(np.float32)
    whole = rng.integers(-4, 5, (2, 16, 14, 18)).astype(np.float32)
    for x in (whole[:, :, ::2], whole[..., ::2], whole.transpose(0, 1, 3, 2), whole[::-1]):
        np.testing.assert_array_equal(conv2d(x, k), np.einsum("nchw,oc->nohw", x, k[..., 0, 0]))
