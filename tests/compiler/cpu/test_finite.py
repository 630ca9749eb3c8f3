"""Runs of zeros are passed over beside finite numbers, and meet infinities as they would anywhere."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support.indexing_ops import channels_last, conv2d
from tests.support.threads import assert_same_bits
from tilewright.compiler.targets.cpu.contractions.finite import Finite

PADDED = {"before": 1, "behind": 1}
BAD = [np.inf, -np.inf, np.nan]


@tw.op
def one_position(x: tw.Tile["n h w c"], k: tw.Tile["o c"], *, pad: int = 3) -> tw.Tile["n oh ow o"]:
    """Windows of one position, some beside the image: they do not overlap."""
    oh, ow = (tw.axis(f"o{a}", (tw.size(a) + 2 * pad - 1) // 2 + 1) for a in "hw")
    return tw.sum(x.at(h=oh * 2 - pad, w=ow * 2 - pad) * k, "c")


@tw.op
def phases(x: tw.Tile["n h c"], k: tw.Tile["r c o"], *, more: int = 0) -> tw.Tile["n h t o"]:
    """Two phases of a filter: of an odd number of taps the second has one fewer, and neither has `more`."""
    t, u = tw.axis("t", 2), tw.axis("u", (tw.size("r") + 1) // 2 + more)
    return tw.sum(x.at(h=tw.index("h") + u) * k.at(r=t + 2 * u), "u c")


@tw.op
def of_a_filter(d: tw.Tile["n h w o"], x: tw.Tile["n h w c"]) -> tw.Tile["o r s c"]:
    h, w = tw.index("h") + tw.axis("r", 5) - 2, tw.index("w") + tw.axis("s", 5) - 2
    return tw.sum(d * x.at(h=h, w=w), "n h w")


def drawn(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


CALLS = [
    pytest.param(channels_last, [(2, 9, 28, 16), (64, 3, 3, 16)], PADDED, id="rows with addresses"),
    pytest.param(channels_last, [(2, 9, 28, 16), (16, 3, 3, 16)], PADDED, id="rows that lie evenly"),
    pytest.param(channels_last, [(9, 6, 7, 16), (40, 3, 3, 16)], PADDED, id="rows of nine images"),
    pytest.param(conv2d, [(2, 32, 12, 12), (64, 32, 3, 3)], {"pad": 1}, id="images along their lines"),
    pytest.param(one_position, [(2, 5, 13, 32), (64, 32)], {}, id="rows without any run"),
    pytest.param(phases, [(3, 40, 64), (5, 64, 64)], {}, id="taps that do not exist"),
    pytest.param(phases, [(3, 40, 64), (5, 64, 16)], {"more": 2}, id="no taps for even rows"),
    pytest.param(of_a_filter, [(2, 12, 20, 9), (2, 12, 20, 16)], {}, id="taps along channels"),
]


@pytest.mark.parametrize(("op", "shapes", "constants"), CALLS)
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("which", [0, 1])
def test_what_is_not_finite_meets_zeros(op: tw.Op, shapes, constants, bad: float, which: int):
    """At the first place and at the last: wherever it is, the formula decides."""
    for place in (0, -1):
        operands = drawn(*shapes)
        operands[which].reshape(-1)[place] = bad
        with np.errstate(invalid="ignore"):
            wanted = op.reference(*operands, **constants)
        np.testing.assert_allclose(op(*operands, **constants), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("op", "shapes", "constants"), CALLS)
def test_zeros_leave_no_sign(op: tw.Op, shapes, constants):
    """Products that are too small to be told from -0, and zeros before or behind them."""
    operands = [np.full(shape, 1e-30, "f4") for shape in shapes]
    operands[0] *= -1
    found = op(*operands, **constants)
    assert not found.any() and not np.signbit(found).any()


@pytest.mark.parametrize(("op", "shapes", "constants"), CALLS)
def test_the_same_bits_for_every_thread_count(op: tw.Op, shapes, constants):
    """Threads look at parts of their own, of which some are finite."""
    operands = drawn(*shapes)
    operands[1].reshape(-1)[0] = np.inf
    assert_same_bits(lambda: op(*operands, **constants))


@pytest.mark.parametrize(("op", "shapes", "constants"), CALLS)
def test_runs_are_passed_over(op: tw.Op, shapes, constants, monkeypatch: pytest.MonkeyPatch):
    """The code asks whether the other side is finite, and windows that are never left do not."""
    asked: list[object] = []
    holds = Finite.holds
    monkeypatch.setattr(Finite, "holds", property(lambda self: (asked.append(self), holds.fget(self))[1]))
    op.code(*drawn(*shapes), **constants, target="mlir")
    assert asked


def test_windows_that_are_never_left_ask_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Finite, "look_through", lambda *_: pytest.fail("there is nothing to pass over"))
    channels_last.code(*drawn((2, 9, 28, 16), (64, 3, 3, 16)), target="mlir")
