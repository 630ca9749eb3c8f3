"""Ops that index, on the CPU target: values against the reference, derivatives against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import tilewright as tw
from tests.support import indexing_ops as ops
from tests.support.checks import (
    assert_close,
    assert_gradients_right,
    assert_right,
    check_empty_call,
    extents_of,
    with_cotangents,
)
from tests.support.indexing_ops import CASES, IndexingCase
from tilewright.autograd.check import check_jvp, check_vjp
from tilewright.autograd.derive import jvp, vjp
from tilewright.compiler.pipeline import lower
from tilewright.compiler.sinking import sink
from tilewright.dsl.program import Reduce
from tilewright.dsl.simplify import simplify
from tilewright.dsl.text import from_text, to_text
from tilewright.dsl.verify import verify
from tilewright.errors import ShapeError
from tilewright.op.derived import without_saved

SLOPE = 1e-6


@pytest.mark.parametrize("case", CASES, ids=str)
def test_value(case: IndexingCase):
    arguments = case.arguments()
    expected = case.op.reference(*arguments, **case.constants)
    assert_close(case.op(*arguments, **case.constants), expected, 64, str(case))
    narrow = [a.astype(np.float32) if a.dtype.kind == "f" else a.astype(np.int32) for a in arguments]
    assert_close(
        case.op(*narrow, **case.constants), case.op.reference(*narrow, **case.constants), 64, str(case)
    )


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.everyday(15)
def test_gradient_kernels_agree_with_the_reference_of_the_gradient(case: IndexingCase):
    arguments = case.arguments()
    result = case.op.reference(*arguments, **case.constants)
    cotangent = np.random.default_rng(1).standard_normal(result.shape)
    expected = case.op.vjp.reference(*arguments, cotangent, **case.constants)
    actual = case.op.vjp(*arguments, cotangent, **case.constants)
    as_tuple = lambda value: value if isinstance(value, tuple) else (value,)  # noqa: E731
    for one, other in zip(as_tuple(actual), as_tuple(expected), strict=True):
        assert_close(one, other, 256, str(case), floor=1.0)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.everyday(15)
def test_derivatives_against_finite_differences(case: IndexingCase):
    """vjp, jvp and the vjp of the backward, in float64."""
    program, arrays = bound(case)
    assert from_text(to_text(program)) == program
    backward = verify(without_saved(vjp(program)))
    assert from_text(to_text(backward)) == backward
    verify(jvp(program))
    assert check_vjp(program, arrays).error <= SLOPE
    assert check_jvp(program, arrays).error <= SLOPE
    seeded = with_cotangents(backward, arrays, extents_of(program, arrays))
    assert check_vjp(backward, seeded).error <= SLOPE


@pytest.mark.parametrize("case", CASES, ids=str)
def test_empty_axes(case: IndexingCase):
    specs = [tile.spec.axes for tile in case.op.tiles]
    for empty in dict.fromkeys(axis for axes in specs for axis in axes):
        arrays = []
        for array, axes in zip(case.arguments(), specs, strict=True):
            cut = (slice(0, 0) if axis == empty else slice(None) for axis in axes)
            arrays.append(array[..., *cut])
        try:
            call = case.op.bind(case.op.arguments(arrays, case.constants))
        except ShapeError:  # an axis would have fewer than 0 positions
            continue
        check_empty_call(call, "cpu", 64, f"{case} without {empty}")


def bound(case: IndexingCase):
    call = case.op.bind(case.op.arguments(case.arguments(), case.constants))
    return call.program, dict(call.arrays)


CONVOLUTIONS = [c for c in CASES if c.op is ops.conv2d and 0 not in c.shapes[0]]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution_against_torch(case: IndexingCase):
    x, k = (torch.tensor(a, requires_grad=True) for a in case.arguments())
    options = {"stride": 1, "pad": 0, "dilation": 1, **case.constants}
    y = F.conv2d(x, k, stride=options["stride"], padding=options["pad"], dilation=options["dilation"])
    torch.manual_seed(0)
    cotangent = torch.randn_like(y)
    y.backward(cotangent)
    arrays = case.arguments()
    assert_close(case.op(*arrays, **case.constants), y.detach().numpy(), 64)
    d_x, d_k = case.op.vjp(*arrays, cotangent.numpy(), **case.constants)
    assert_close(d_x, x.grad.numpy(), 64)
    assert_close(d_k, k.grad.numpy(), 64)


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_a_convolution_and_its_gradients_are_contractions(case: IndexingCase):
    program, _ = bound(case)
    forward = lower(program).kernels
    assert [k.kind for k in forward] == ["contraction"]
    phases = ["pointwise"] * (case.constants.get("stride", 1) > 1)  # of the stride, put in their places
    assert sorted(k.kind for k in lower(vjp(program).backward).kernels) == ["contraction"] * 2 + phases


def test_gradients_of_gathers_are_gathers():
    """No scatter where positions can be solved: those with an absolute value cannot. Nor in the second."""
    for case in [c for c in CASES if not c.draws and c.op is not ops.reflect_pad]:
        first = without_saved(vjp(bound(case)[0]))
        second = without_saved(vjp(first))
        for program in (first, second):
            assert all(k.kind != "scatter" for k in lower(program).kernels), case


def test_duplicates_add_up_in_the_order_of_the_positions():
    values = np.array([1e8, 1.0, -1e8, 1.0], np.float32)
    places = np.zeros(4, np.int64)
    total = ops.histogram(values, places, bins=2)
    expected = np.float32(0)
    for value in values:
        expected += value
    assert total[0] == expected and total[1] == 0


def test_the_positions_outside_are_the_fill():
    table = np.arange(6.0).reshape(3, 2)
    ids = np.array([0, 3, -1, 2, 2**40, -(2**40)])
    assert np.array_equal(ops.embedding(table, ids), [[0, 1], [0, 0], [0, 0], [4, 5], [0, 0], [0, 0]])


def test_places_that_depend_on_an_axis_that_the_values_lack():
    @tw.op
    def spread(x: tw.Tile["n"], ids: tw.Tile["m n"]):
        return tw.scatter_add(x, {"row": ids}, 4, over="n")

    rng = np.random.default_rng(0)
    x, ids, g = rng.standard_normal(9), rng.integers(0, 4, (3, 9)), rng.standard_normal((3, 4))
    assert_close(spread(x, ids), spread.reference(x, ids))
    assert_close(spread.vjp(x, ids, g), sum(g[m][ids[m]] for m in range(3)))


def test_two_inlined_calls_share_an_axis_that_they_declare_alike():
    @tw.op
    def both(x: tw.Tile["t"], y: tw.Tile["t"]):
        return ops.unfold(x) + ops.unfold(y)

    x, y = np.random.default_rng(0).standard_normal((2, 11))
    assert_close(both(x, y), ops.unfold(x) + ops.unfold(y))


def test_an_op_is_inlined_into_itself():
    @tw.op
    def twice(x: tw.Tile["... t"]):
        once = ops.unfold(x, k=3, stride=1)
        return ops.unfold(tw.sum(once, "k"), k=2, stride=1)

    x = np.random.default_rng(0).standard_normal((2, 9))
    sums = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
    assert_close(twice(x), np.stack([sums[:, :-1], sums[:, 1:]], -1))


def test_a_sum_that_is_used_twice_is_not_repeated_where_it_is_indexed():
    @tw.op
    def symmetric(x: tw.Tile["t d"]):
        steep = tw.exp(x).at(t=tw.size("t") - 1 - tw.index("t"))
        total = tw.sum(steep * 2 + 1, "d")
        return total + total.at(t=tw.size("t") - 1 - tw.index("t"))

    call = symmetric.bind(symmetric.arguments([np.ones((5, 7))], {}))
    sunk = sink(simplify(call.program))
    assert sum(isinstance(n, Reduce) for n in sunk.nodes()) == 1


@tw.op
def ordered_then_picked(c: tw.Tile["j k"]):
    """A diagonal of rows in order: the outer position fixes a coordinate of the inner ones."""
    return c.at(k=tw.argsort(c, "k", descending=True)).at(j=tw.index("k") * 2 + 3)


@tw.op
def ranked_then_picked(c: tw.Tile["j k"]):
    rank = tw.sum(tw.where(c["j l"] < c, 1, 0), "l")
    return c.at(k=rank).at(j=tw.index("k") * 2 + 3)


@tw.op
def counted_then_picked(c: tw.Tile["j k"]):
    return tw.exp(c.at(k=tw.cumsum(tw.where(c > 0, 1, 0), "k") - 1)).at(j=tw.index("k") * 2 + 3)


@tw.op
def shifted_by_the_largest(c: tw.Tile["j k"]):
    """A position that waits for a reduction of its own row."""
    return tw.exp(c.at(k=tw.cast(tw.max(c, "k"), tw.int64) + tw.index("k"))) + c


@pytest.mark.parametrize("extents", [(9, 4), (7, 19), (1, 1), (40, 17)], ids=str)
@pytest.mark.parametrize(
    "op", [ordered_then_picked, ranked_then_picked, counted_then_picked, shifted_by_the_largest], ids=str
)
def test_positions_that_are_computed_from_values_of_other_positions(op, extents):
    places = np.random.default_rng(1).permutation(math.prod(extents)).reshape(extents)
    c = 0.37 * places - 0.19 * places.size  # far apart, so that no small step changes their order
    call = op.bind(op.arguments([c], {}))
    assert_right(call.program, call.arrays, "cpu", 16, op.name)
    assert_gradients_right(call.program, call.arrays, "cpu", 64, op.name)
    if c.size < 50:
        assert check_vjp(call.program, call.arrays).error < SLOPE
