"""`op.check`: it says that right kernels are right, and that wrong ones are wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright.op import check as checking
from tilewright.op.check import relative_error


@tw.op
def softmax(x: tw.Tile["... d"]):
    e = tw.exp(x - tw.max(x, "d"))
    return e / tw.sum(e, "d")


@tw.op
def weighted(x: tw.Tile["... d"], weight: tw.Tile["d"], *, by: tw.Scalar = 2.0):
    return x * weight * by


@tw.op
def position(x: tw.Tile["... d"]):
    return tw.argmax(x, "d")


def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "targets_at_hand", lambda: (("cpu", ""), ("cuda:0", "no driver")))


def test_right_kernels_pass_on_every_target_at_hand():
    report = softmax.check((5, 33))
    assert report.ok, str(report)
    assert report
    verdicts = {(line.what, line.target): line.verdict for line in report.lines}
    assert verdicts["y", "cpu"] == verdicts["d_x", "cpu"] == "ok"
    assert verdicts["softmax: memory", "cpu"] == verdicts["softmax_backward: memory", "cpu"] == "ok"
    assert verdicts["d_x", "finite differences"] == "ok"


def test_scalars_half_precision_and_integers(monkeypatch: pytest.MonkeyPatch):
    on_cpu(monkeypatch)
    rng = np.random.default_rng(0)
    half = rng.standard_normal((4, 40)).astype(np.float16)
    assert weighted.check(half, half[0], by=0.5).ok
    report = position.check((4, 40))
    assert report.ok
    assert any("no floating-point result" in line.verdict for line in report.lines)


def test_a_target_that_is_missing_is_named_and_not_counted(monkeypatch: pytest.MonkeyPatch):
    on_cpu(monkeypatch)
    report = softmax.check((2, 3))
    assert "not here: no driver" in str(report)
    monkeypatch.setattr(checking, "targets_at_hand", lambda: ())
    assert not checking.CheckReport("nothing", ()).ok


@tw.op
def bounded(x: tw.Tile["n c t"], k: tw.Tile["o c r"]):
    a = tw.axis("a", tw.size("t") - tw.size("r") + 1)
    return tw.tanh(tw.sum(x.at(t=a + tw.index("r")) * k, "c r"))


def test_results_that_are_smaller_than_what_they_are_made_of(monkeypatch: pytest.MonkeyPatch):
    """Sums of ±40 are rounded before they become ±1: that is no fault of a kernel's."""
    on_cpu(monkeypatch)
    report = bounded.check((50, 32, 15), (40, 32, 5))
    assert report.ok, str(report)
    assert all(line.tolerance < 1e-4 for line in report.lines if line.tolerance and line.target == "cpu")
    right = checking.compile_program
    monkeypatch.setattr(checking, "compile_program", lambda program, target: Wrong(right(program, target)))
    assert not bounded.check((50, 32, 15), (40, 32, 5))


class Wrong:
    """An executable whose first result is off in one element."""

    def __init__(self, executable: Any):
        self.executable = executable
        self.plan = executable.plan

    def run(self, arguments: Any, scalars: Any = None) -> Any:
        first, *others = self.executable.run(arguments, scalars)
        first = first.copy()
        first.flat[-1] += 0.01
        return (first, *others)


class Leaking(Wrong):
    """An executable that reads one element beyond an operand."""

    def run(self, arguments: Any, scalars: Any = None) -> Any:
        for array in arguments.values():
            beyond = np.lib.stride_tricks.as_strided(array, (array.size + 1,), (array.itemsize,))
            beyond.sum()
        return self.executable.run(arguments, scalars)


@pytest.mark.parametrize(
    ("executable", "told"), [(Wrong, "WRONG"), (Leaking, "a kernel touched memory beside its operands")]
)
def test_wrong_kernels_are_found(executable: Any, told: str, monkeypatch: pytest.MonkeyPatch):
    on_cpu(monkeypatch)
    right = checking.compile_program
    monkeypatch.setattr(
        checking, "compile_program", lambda program, target: executable(right(program, target))
    )
    report = softmax.check((3, 1024))
    assert not report.ok
    assert any(told in line.verdict for line in report.lines)
    assert "WRONG" in str(report)


def test_a_kernel_that_fails_is_reported_not_raised(monkeypatch: pytest.MonkeyPatch):
    on_cpu(monkeypatch)

    def broken(program: Any, target: str) -> Any:
        raise tw.errors.LaunchError("the device fell off")

    monkeypatch.setattr(checking, "compile_program", broken)
    report = softmax.check((3, 4))
    assert not report.ok
    assert "the device fell off" in str(report)


def test_a_wrong_gradient_is_found(monkeypatch: pytest.MonkeyPatch):
    on_cpu(monkeypatch)
    right = checking.vjp
    other = right(weighted.bind(weighted.arguments(((3, 4), (4,)), {}).as_arrays()).program)

    @tw.op
    def squared(x: tw.Tile["... d"], weight: tw.Tile["d"], *, by: tw.Scalar = 2.0):
        return x * x * weight * by

    monkeypatch.setattr(checking, "vjp", lambda program: other)
    report = squared.check((3, 4), (4,))
    assert not report.ok
    assert "derived" in str(report)


def test_relative_error():
    one = np.ones(4)
    assert relative_error(one, one) == 0
    assert relative_error(np.array([1, 1, 1, 1.2]), one) == pytest.approx(0.1)
    assert relative_error(one[:3], one) == math.inf
    assert relative_error(one, np.array([1, 1, 1, np.nan])) == math.inf
    assert relative_error(np.array([np.inf, 1]), np.array([-np.inf, 1])) == math.inf
    assert relative_error(np.array([np.inf, np.nan]), np.array([np.inf, np.nan])) == 0
    assert relative_error(np.empty(0), np.empty(0)) == 0
    assert relative_error(np.zeros(3), np.zeros(3)) == 0
    assert relative_error(np.ones(3), np.zeros(3)) == math.inf


def test_numbers_that_a_dtype_has_nothing_between_are_right():
    """1.5 times the smallest number of float16 is that or twice as much."""
    smallest = 2.0**-24
    wanted = np.full(3, 1.5 * smallest)
    assert relative_error(np.full(3, smallest, np.float16), wanted) == 0
    assert relative_error(np.full(3, 2 * smallest, np.float16), wanted) == 0
    assert relative_error(np.full(3, 4 * smallest, np.float16), wanted) > 0.4
    assert relative_error(np.full(3, smallest, np.float32), wanted) > 0.1


@tw.op
def softened(x: tw.Tile["m k"], w: tw.Tile["k n"]):
    y = tw.sum(x * w, "k")
    return y / (1 + tw.abs(y))


def test_gradients_that_are_hardly_numbers():
    """1 / (1 + |y|)² of a sum of a thousand products, in half precision."""
    x, w = np.full((1, 1025), 1.2, np.float16), np.full((1025, 1), 1.1, np.float16)
    assert softened.check(x, w).ok


@tw.op
def rounded_inside(x: tw.Tile["... d"]):
    return tw.cast(tw.cast(x, tw.float8_e4m3fn), tw.float32) * 2


@tw.op
def gram(x: tw.Tile["m k"]):
    return tw.sum(x * x["n k"], "k")


def test_a_cast_to_a_narrow_dtype_is_no_error():
    assert rounded_inside.check(np.random.default_rng(0).standard_normal((3, 40)).astype(np.float32)).ok


@pytest.mark.parametrize("dtype", ["float16", "float8_e4m3fn", "float8_e5m2"])
def test_results_that_their_dtype_cannot_hold(dtype: str):
    """Sums of 65536 · 4 and 16 · 4, and of both."""
    narrow = getattr(tw, dtype).numpy
    assert gram.check(np.array([[256.0] * 4, [-4.0] * 4]).astype(narrow)).ok


@tw.op
def by_the_largest_product(x: tw.Tile["n h"], k: tw.Tile["r"], g: tw.Tile["n"]):
    p = x.at(h=tw.axis("at", tw.size("h")) + tw.index("r") - 1) * g
    return tw.sum(p * k, "r") / (1 + tw.max(tw.abs(p), "r"))


@pytest.mark.parametrize("seed", range(4))
def test_a_backward_gets_what_its_own_forward_saved(seed: int):
    """Which product is the largest is known to the kernel that rounded the products."""
    rng = np.random.default_rng(seed)
    operands = [rng.standard_normal(shape).astype(np.float32) for shape in ((3, 20), (3,), (3,))]
    report = by_the_largest_product.check(*operands)
    assert report.ok, str(report)
    assert {line.target for line in report.lines if line.what == "d_x"} >= {"cpu", "interpreter"}


def test_windows_beyond_what_the_interpreter_is_given():
    """The corner of a result is the result of the corner: 198 positions of 200 become 22 of 24."""
    report = bounded.check((30, 16, 200), (20, 16, 3))
    assert report.ok, str(report)
    assert any(line.target == "interpreter" and not line.skipped for line in report.lines)


@tw.op
def saturated(x: tw.Tile["n d"], w: tw.Tile["d"]):
    return tw.tanh(tw.sum(x * w, "d"))


def test_results_that_are_saved_rounded(monkeypatch: pytest.MonkeyPatch):
    """1 - y² is read from a y in half precision, near 1: the backward is right by what it was given."""
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(np.float16) for shape in ((40, 9), (9,)))
    assert saturated.check(x, w).ok
    on_cpu(monkeypatch)
    right = checking.compile_program
    monkeypatch.setattr(checking, "compile_program", lambda program, target: Wrong(right(program, target)))
    assert not saturated.check(x, w)


@tw.op
def divided(x: tw.Tile["n d"], w: tw.Tile["d k"]):
    s = tw.sum(tw.sin(x) * w, "d")
    return s / (1 + tw.abs(s))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_sums_whose_rounding_a_function_without_a_slope_hides(dtype: str):
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(dtype) for shape in ((30, 400), (400, 20)))
    report = divided.check(x, w)
    assert report.ok, str(report)


@tw.op
def of_length_one(x: tw.Tile["n d"], w: tw.Tile["d k"]):
    y = tw.sum(tw.where(w > 0.5, x * w, 0), "d")
    return y / tw.sqrt(1 + tw.sum(y * y, "k"))


def test_gradients_in_which_almost_all_cancels(monkeypatch: pytest.MonkeyPatch):
    """1 / s - y² / s³ of y = 20 and s² = 1 + y² is 1 / s³: a 400th of what it is put together from."""
    rng = np.random.default_rng(3)
    x, w = (rng.uniform(0.3, 1.2, shape).astype(np.float32) for shape in ((7, 1025), (1025, 1)))
    report = of_length_one.check(x, w)
    assert report.ok, str(report)
    on_cpu(monkeypatch)
    right = checking.compile_program
    monkeypatch.setattr(checking, "compile_program", lambda program, target: Wrong(right(program, target)))
    assert not of_length_one.check(x, w)
