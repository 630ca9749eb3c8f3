"""A value that is read under two names for its axes is computed once; values of other extents are not it."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support.checks import assert_close, assert_right, backward_of, extents_of, with_cotangents
from tilewright.compiler.pipeline import lower
from tilewright.dsl.namesakes import Namesakes
from tilewright.dsl.program import Program, Reduce
from tilewright.errors import InternalError


@tw.op
def covariance(x: tw.Tile["n d"]):
    centred = x - tw.mean(x, "n")
    return tw.sum(centred["n e"] * centred, "n")


@tw.op
def powers(x: tw.Tile["i j"], *, times: int = 3):
    """x ← (x xᵀ) x, as often as asked for."""
    for _ in range(times):
        x = tw.sum(tw.sum(x * x["k j"], "j") * x["k j"], "k")
    return x


@tw.op
def softmax_gram(x: tw.Tile["i d"]):
    p = tw.exp(x - tw.logsumexp(x, "d"))
    return tw.sum(p * p["k d"], "d"), p["k d"] * 2


@tw.op
def windows(x: tw.Tile["... t"], *, short: int = 2, long: int = 3):
    """Sums of x over windows of two lengths: the same formula, over axes of other extents."""
    one = tw.sum(x.at(t=tw.index("t") + tw.axis("a", short)), "a")
    other = tw.sum(x.at(t=tw.index("t") + tw.axis("b", long)), "b")
    return tw.sum(tw.exp(one), "t") * other


@tw.op
def two_operands(x: tw.Tile["i d"], z: tw.Tile["j d"]):
    return tw.sum((x - tw.mean(x, "i")) * (z - tw.mean(z, "j")), "d")


def bound(op, *arrays, **constants) -> tuple[Program, dict]:
    call = op.bind(op.arguments(arrays, constants))
    return call.program, {**call.arrays}


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape)


def check(op, *arrays, **constants) -> None:
    """Forward and backward are what the reference says."""
    program, given = bound(op, *arrays, **constants)
    assert_right(program, given, "cpu", 64, op.name)
    backward = backward_of(program)
    assert_right(
        backward, with_cotangents(backward, given, extents_of(program, given)), "cpu", 256, op.name, 1.0
    )


def test_the_mean_of_a_covariance_is_computed_once():
    program, _ = bound(covariance, normal(5, 4))
    assert [k.kind for k in lower(program).kernels] == ["row", "contraction"]
    check(covariance, normal(5, 4))


def test_an_iteration_costs_the_same_each_time():
    """Not twice, four times, eight times: each product is one kernel, whoever reads it."""
    for times in (1, 2, 5):
        program, _ = bound(powers, normal(3, 4), times=times)
        assert [k.kind for k in lower(program).kernels] == ["contraction"] * 2 * times
    check(powers, 0.5 * normal(3, 4), times=2)


def test_a_result_under_other_names_is_written_as_well():
    check(softmax_gram, normal(3, 4))
    y, twice = softmax_gram(normal(3, 4))
    assert_close(tw.kernels.softmax(normal(3, 4)) * 2, twice.T)
    assert y.shape == (3, 3)


def test_axes_of_other_extents_are_other_axes():
    check(windows, normal(2, 6))
    check(two_operands, normal(3, 4), normal(5, 4))
    program, _ = bound(windows, normal(2, 6))
    namesakes = Namesakes(program)
    sums = [n for n in program.nodes() if isinstance(n, Reduce) and n.over in (("a",), ("b",))]
    assert len({namesakes.form(n) for n in sums}) == 2
    program, _ = bound(windows, normal(2, 6), short=3)
    namesakes = Namesakes(program)
    sums = [n for n in program.nodes() if isinstance(n, Reduce) and n.over in (("a",), ("b",))]
    assert len({namesakes.form(n) for n in sums}) == 1
    check(windows, normal(2, 6), short=3)


def test_which_axis_is_which_matters():
    """x and its transpose are no namesakes, nor are sums over one axis and over the other."""

    @tw.op
    def sums(x: tw.Tile["i j"], z: tw.Tile["j i"]):
        return tw.sum(x * z, "i"), tw.sum(x * z, "j"), tw.sum(x * x["i k"] * z["k i"], "i")

    check(sums, normal(4, 4), normal(4, 4))
    program, _ = bound(sums, normal(4, 4), normal(4, 4))
    namesakes = Namesakes(program)
    assert len({namesakes.form(r.node) for r in program.results}) == 3


def test_products_are_the_same_either_way_round():
    """And each axis of one is the right axis of the other."""

    @tw.op
    def products(x: tw.Tile["i d"], k: tw.Tile["d"], z: tw.Tile["i j"]):
        return tw.sum(x * k, "d"), tw.sum(k * x["j d"], "d"), x * k, k * x["j d"], z - x["j d"] * k, z - k * x

    program, _ = bound(products, normal(4, 4), normal(4), normal(4, 4))
    namesakes = Namesakes(program)
    sums, swapped, whole, renamed, one, other = (r.node for r in program.results)
    assert namesakes.form(sums) == namesakes.form(swapped)
    assert namesakes.names(whole, renamed) == {"i": "j", "d": "d"}
    assert namesakes.form(one) != namesakes.form(other)
    with pytest.raises(InternalError, match="differ in more than"):
        namesakes.names(sums, whole)
    check(products, normal(4, 4), normal(4), normal(4, 4))
