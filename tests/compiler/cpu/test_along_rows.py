"""Operands that lie across rows and are read many times: copied along them, wherever they lie and whatever
they hold.
"""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support.guarded import on_guard_pages
from tests.support.threads import assert_same_bits
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu.executable import CpuExecutable


@tw.op
def likeness(x: tw.Tile["n d"], w: tw.Tile["d"]):
    return tw.logsumexp(x * tw.tanh(w), "d"), tw.sum(x * w, "d")


@tw.op
def last_layer(x: tw.Tile["n h w c"], k: tw.Tile["c r s"]):
    """Windows along which channels lie, and filters along which they do not."""
    h = tw.axis("oh", tw.size("h")) + tw.index("r") - 1
    w = tw.axis("ow", tw.size("w")) + tw.index("s") - 1
    return tw.sum(x.at(h=h, w=w) * k, "r s c")


@tw.op
def each_channel(x: tw.Tile["n h w c"], k: tw.Tile["c r s"]) -> tw.Tile["n oh ow c"]:
    """Windows of channels that do not meet."""
    h = tw.axis("oh", tw.size("h")) + tw.index("r") - 1
    w = tw.axis("ow", tw.size("w")) + tw.index("s") - 1
    return tw.sum(x.at(h=h, w=w) * k, "r s")


def kernels(op: tw.Op, *operands: np.ndarray) -> int:
    call = op.bind(op.arguments(operands, {}))
    return len(CpuExecutable(lower(call.program)).compiled(call.arrays))


def column(rng: np.random.Generator, extent: int, dtype: str) -> np.ndarray:
    return rng.standard_normal((extent, 3)).astype(dtype)[:, 1]


@pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("float16", marks=pytest.mark.exhaustive), "float64"]
)
@pytest.mark.parametrize("extent", [37, pytest.param(5, marks=pytest.mark.exhaustive)])
def test_a_column_of_weights(extent, dtype):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((8000, extent)).astype(dtype), column(rng, extent, dtype)
    assert kernels(likeness, x, w) == kernels(likeness, x, w.copy()) + 1
    assert likeness.check(x, w).ok


@pytest.mark.parametrize("shape", [(50, 37), (9, 3700)], ids=str)
def test_few_rows_need_no_copy(shape):
    """Little is read, or each weight only a few times."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(shape).astype("f"), column(rng, shape[1], "float32")
    assert kernels(likeness, x, w) == kernels(likeness, x, w.copy())


def test_what_is_reversed_or_repeated():
    """A step backwards is copied, one number for all is not."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1000, 37)).astype("f"), rng.standard_normal(37).astype("f")
    once = kernels(likeness, x, w)
    assert kernels(likeness, x, w[::-1]) == once + 1
    assert kernels(likeness, x, np.broadcast_to(w[0], 37)) == once
    assert likeness.check(x, w[::-1]).ok


def test_one_position_and_a_scalar():
    """Which is as large as all that has axes."""

    @tw.op
    def mixed(x: tw.Tile["n d"], w: tw.Tile["d"], *, by: tw.Scalar):
        return tw.sum(tw.exp(x) * w * by, "d")

    assert mixed.check((1, 1), (1,), by=0.5).ok


@pytest.mark.parametrize("channels", [19, pytest.param(8, marks=pytest.mark.exhaustive)])
def test_windows_along_channels(channels):
    on_guard_pages(last_layer, (5, 12, 10, channels), (channels, 3, 3))


def test_the_gradient_of_an_image_of_one_channel():
    rng = np.random.default_rng(0)
    shapes = (3, 9, 10, 1), (20, 3, 3, 1), (20,), (3, 9, 10, 20)
    operands = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    op = tw.kernels.conv2d_channels_last.vjp
    exact = op(*(operand.astype(np.float64) for operand in operands), padding=1)[0]
    np.testing.assert_allclose(op(*operands, padding=1)[0], exact, atol=1e-4)
    assert_same_bits(lambda: op(*operands, padding=1)[0])


def test_weights_that_are_written_over():
    """The copy is of what was there before."""
    x = np.ones((200, 200), np.float32)
    w = np.linspace(1, 2, 600, dtype=np.float32).reshape(200, 3)[:, 1]
    right = x @ w.astype(np.float64)

    @tw.op
    def total(x: tw.Tile["n d"], w: tw.Tile["d"]):
        return tw.sum(x * w, "d")

    total(x, w, out=w)
    np.testing.assert_allclose(w, right, rtol=1e-5)


@pytest.mark.parametrize("channels", [37, pytest.param(16, marks=pytest.mark.exhaustive)])
def test_windows_of_channels_that_do_not_meet(channels):
    rng = np.random.default_rng(0)
    x, k = (rng.standard_normal(shape).astype("f") for shape in ((3, 12, 11, channels), (channels, 3, 3)))
    assert kernels(each_channel, x, k) == kernels(each_channel, x, np.asfortranarray(k)) + 1
    on_guard_pages(each_channel, x.shape, k.shape)


@pytest.mark.parametrize(("filters", "channels"), [(1, 1), (2, 1), (1, 2)])
def test_groups_of_one_filter_are_stored_in_vectors(filters: int, channels: int):
    """Results lie along their groups where each has one position behind them."""

    @tw.op
    def grouped(x: tw.Tile["n t g c"], k: tw.Tile["g o r c"]) -> tw.Tile["n t g o"]:
        return tw.sum(x.at(t=tw.index("t") + tw.index("r") - 1) * k, "r c")

    shapes = (3, 40, 40, channels), (40, filters, 3, channels)
    if filters * channels == 1:
        text = str(grouped.code(*(np.zeros(shape, "f") for shape in shapes), target="mlir"))
        assert "vector.extract" not in text and "scatter" not in text
    on_guard_pages(grouped, *shapes)
