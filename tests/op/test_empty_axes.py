"""Calls in which an axis has no positions: what everything that an op offers makes of them.

`tests/support/checks.check_empty_axes` has values and slopes of many ops; these are the hard places: a factor
that is 1 / 0 beside a sum over nothing, whose value and gradients are 0.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import tilewright as tw
from tilewright.compiler.pipeline import compile_program

ZERO = np.zeros(2, np.float32)
NOTHING = np.ones((2, 0), np.float32)


@tw.op
def scaled_sum(x: tw.Tile["i j"], z: tw.Tile["i"]):
    return tw.sum(x / z, "j")


@tw.op
def scaled(x: tw.Tile["... d"], z: tw.Tile["d"]):
    return x / z


@tw.op
def product(a: tw.Tile["m k"], b: tw.Tile["k n"], z: tw.Tile["n"]):
    return tw.sum(a * b / z, "k")


@tw.op
def pairwise(x: tw.Tile["i d"], z: tw.Tile["i"]):
    """The scores of all pairs; j has its extent from the renamed operand alone."""
    return tw.sum(x * x["j d"] / z, "d")


TARGETS = ["cpu", *(["interpreter"] if importlib.util.find_spec("triton") else [])]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("op", "operands", "shape"),
    [
        (scaled_sum, (NOTHING, ZERO), (2,)),
        (product, (NOTHING, NOTHING.T, ZERO), (2, 2)),
        (pairwise, (NOTHING, ZERO), (2, 2)),
        (scaled, (NOTHING.T, ZERO), (0, 2)),
    ],
    ids=str,
)
def test_a_sum_of_nothing_is_0(op, operands, shape, target: str):
    call = op.bind(op.arguments(operands, {}))
    (y,) = compile_program(call.program, target).run(call.arrays, call.scalars)
    np.testing.assert_array_equal(y, np.zeros(shape))
    np.testing.assert_array_equal(op(*operands), op.reference(*operands))


def test_its_gradients_are_0():
    d_x, d_z = scaled_sum.vjp(NOTHING, ZERO, np.ones(2, np.float32))
    assert d_x.shape == (2, 0)
    np.testing.assert_array_equal(d_z, [0, 0])
    _, d_z = scaled.vjp(NOTHING.T, ZERO, NOTHING.T)
    np.testing.assert_array_equal(d_z, [0, 0])
    np.testing.assert_array_equal(pairwise.grad(NOTHING, ZERO)[1], [0, 0])
    np.testing.assert_array_equal(scaled_sum.jvp(NOTHING, ZERO, NOTHING, np.ones(2, np.float32)), [0, 0])


def test_its_second_gradients_are_0():
    cotangents = (np.ones(2, np.float32), NOTHING, np.ones(2, np.float32))
    d_x, d_z, d_d_y = scaled_sum.vjp.vjp(NOTHING, ZERO, *cotangents)
    assert d_x.shape == (2, 0)
    np.testing.assert_array_equal(d_z, [0, 0])
    np.testing.assert_array_equal(d_d_y, [0, 0])


@pytest.mark.parametrize("op", [scaled_sum, pairwise])
def test_on_tensors(op):
    x, z = tw.tensor(NOTHING, requires_grad=True), tw.tensor(ZERO, requires_grad=True)
    (d_x, d_z) = tw.grad(op(x, z).sum(), (x, z), create_graph=True)
    np.testing.assert_array_equal(d_z.detach().numpy(), [0, 0])
    assert d_x.shape == (2, 0)
    assert x.grad is z.grad is None
    op(x, z).sum().backward()
    np.testing.assert_array_equal(z.grad.numpy(), [0, 0])


def test_a_call_with_positions_is_not_changed_by_one_without():
    x = np.ones((2, 3), np.float32)
    for _ in range(2):
        np.testing.assert_array_equal(scaled_sum(NOTHING, ZERO), [0, 0])
        np.testing.assert_array_equal(scaled_sum(x, ZERO + 2), [1.5, 1.5])
        np.testing.assert_array_equal(scaled_sum.vjp(x, ZERO + 1, ZERO + 1)[1], [-3, -3])
        np.testing.assert_array_equal(scaled_sum.vjp(NOTHING, ZERO, ZERO)[1], [0, 0])


@pytest.mark.parametrize("op", [scaled_sum, pairwise])
def test_what_is_printed_is_what_runs(op):
    page = op.explain(NOTHING, ZERO)
    assert " / " in page.split("Forward")[0], "the mathematics is the definition"
    assert "sum(" not in page.split("Forward")[1]
    for target in ("cpu", *(["triton"] if "interpreter" in TARGETS else [])):
        for grad in (False, True):
            assert op.code(NOTHING, ZERO, target=target, grad=grad)
    assert op.check(NOTHING, ZERO)
    assert op.bench(NOTHING, ZERO)
