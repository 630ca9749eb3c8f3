"""Dimensions that run along several axes, `Tile["(g c)"]`: views of arrays, indexing inside of ops."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support.checks import assert_close
from tilewright.dsl.program import At, Program
from tilewright.errors import ArgumentError, AxisError, LanguageError, ShapeError


@tw.op
def grouped(x: tw.Tile["... (groups c)"], w: tw.Tile["(groups o) c"], *, groups: int = 1) -> tw.Tile[
    "... (groups o)"
]:  # fmt: skip
    """y[g o] = Σ_c x[g c] · w[g o, c]."""
    return tw.sum(x * w, "c")


@tw.op
def shuffled(x: tw.Tile["... (c a b) h w"], *, a: int, b: int) -> tw.Tile["... c (h a) (w b)"]:
    return x


@tw.op
def sums(x: tw.Tile["(a b)"], *, a: int) -> tuple[tw.Tile["a"], tw.Tile["(b a)"]]:
    return tw.sum(x, "b"), x * tw.cast(1 + tw.index("a"), x.dtype)


@tw.op
def outer(x: tw.Tile["n"], w: tw.Tile["k m"], b: tw.Tile["k"]):
    """`grouped` inside of an op: its result has the axis of `w` and `b`."""
    return tw.tanh(grouped(x, w, groups=2) + b)


def by_numpy(x: np.ndarray, w: np.ndarray, groups: int) -> np.ndarray:
    split = x.reshape(*x.shape[:-1], groups, -1)
    return np.einsum("...gc,goc->...go", split, w.reshape(groups, -1, w.shape[1])).reshape(*x.shape[:-1], -1)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_groups_and_their_gradients(groups: int):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((5, 6)), rng.standard_normal((12, 6 // groups))
    assert_close(grouped(x, w, groups=groups), by_numpy(x, w, groups), 64)
    d_y = rng.standard_normal((5, 12))
    d_x, d_w = grouped.vjp(x, w, d_y=d_y, groups=groups)
    for position in range(6):
        tangent = np.eye(6)[position] * np.ones((5, 1))
        assert_close(d_x[:, position], np.sum(by_numpy(tangent, w, groups) * d_y, -1), 64)
    assert d_w.shape == w.shape
    assert np.allclose(np.sum(d_w * w), np.sum(by_numpy(x, w, groups) * d_y))


def test_tensors_and_layouts():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((6, 5)).T[::-1], rng.standard_normal((3, 12)).T
    a, b = tw.tensor(x, requires_grad=True), tw.tensor(w, requires_grad=True)
    y = grouped(a, b, groups=2)
    y.sum().backward()
    assert_close(y.detach().numpy(), by_numpy(x, w, 2), 64)
    d_x, d_w = grouped.vjp(x, w, d_y=np.ones(y.shape), groups=2)
    assert_close(a.grad.numpy(), d_x, 16)
    assert_close(b.grad.numpy(), d_w, 16)


def test_results_are_joined_and_several():
    x = np.arange(6.0)
    first, second = sums(x, a=2)
    assert np.array_equal(first, [3, 12])
    assert np.array_equal(second, [0, 6, 1, 8, 2, 10])
    out = np.empty(6)
    sums(x, a=2, out=(None, out))
    assert np.array_equal(out, second)


def test_arrays_are_only_viewed_in_another_shape():
    x = np.arange(72.0).reshape(18, 2, 2)
    y = shuffled(x, a=2, b=3)
    expected = x.reshape(3, 2, 3, 2, 2).transpose(0, 3, 1, 4, 2).reshape(3, 4, 6)
    assert np.array_equal(y, expected)
    assert np.array_equal(shuffled.vjp(x, d_y=y, a=2, b=3), x)
    program: Program = shuffled.bind(shuffled.arguments((x,), {"a": 2, "b": 3})).program
    assert not any(isinstance(node, At) for node in program.nodes())


def test_one_group_leaves_no_axis():
    arguments = grouped.arguments((np.ones(3), np.ones((4, 3))), {})
    assert grouped.bind(arguments).program.results[0].axes == ("o",)


def test_vmap_and_shapes():
    x, w = np.ones((7, 2, 6)), np.ones((7, 4, 3))
    assert_close(tw.vmap(grouped)(x, w, groups=2), np.full((7, 2, 4), 3.0))
    assert tw.shapes(grouped, (2, 6), (4, 3), groups=2).shape == (2, 4)


def test_inside_an_op():
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal(6), rng.standard_normal((4, 3)), rng.standard_normal(4)
    assert_close(outer(x, w, b), np.tanh(by_numpy(x, w, 2) + b), 64)
    assert outer.check(x, w, b).ok
    with pytest.raises(ShapeError, match="the axis 'groups' would have -1"):
        outer(np.ones(5), w, b)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match=r"\(groups c\) is 5 in x .* a multiple of 2|their product, 6"):
        grouped(np.ones(5), np.ones((4, 3)), groups=2)
    with pytest.raises(
        ShapeError, match=r"\(c a b\) is 7 in x .* a = 2 and b = 3; it must be a multiple of 6"
    ):
        shuffled(np.ones((7, 1, 1)), a=2, b=3)
    with pytest.raises(ArgumentError, match="groups is the extent of an axis"):
        grouped(np.ones(6), np.ones((4, 3)), groups=0)


def test_something_says_how_long_every_axis_is():
    @tw.op
    def unknown(x: tw.Tile["(a b)"]):
        return tw.sum(x, "a")

    @tw.op
    def around(x: tw.Tile["n"]):
        return unknown(x)

    with pytest.raises(ShapeError, match="nothing says how long a and b in"):
        unknown(np.ones(6))
    with pytest.raises(AxisError, match="nothing says how long a and b in"):
        around(np.ones(6))


def test_one_order_of_axes_is_grouped_in_one_way():
    def twice(x: tw.Tile["a b c"]) -> tuple[tw.Tile["(a b) c"], tw.Tile["a (b c)"]]:
        return x, x

    with pytest.raises(LanguageError, match="two results have the same axes"):
        tw.op(twice)


@pytest.mark.parametrize("text", ["(a b", "a) b", "a ()", "((a b) c)", "... (... a)"])
def test_wrong_groups_are_refused(text: str):
    with pytest.raises(AxisError):
        tw.Tile[text]


def test_the_second_gradient_takes_what_the_first_gives():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 6)), rng.standard_normal((4, 3))
    cotangent = rng.standard_normal((2, 4))
    d_x, d_w = grouped.vjp(x, w, cotangent, groups=2)
    twice = grouped.vjp.vjp(x, w, cotangent, np.ones_like(d_x), np.zeros_like(d_w), groups=2)
    assert_close(twice[2], grouped(np.ones_like(x), w, groups=2))
