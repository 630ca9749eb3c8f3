"""vmap, whole Jacobians and Hessians, Hessian-vector products."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tilewright as tw
from tests.support import indexing_ops as ops
from tests.support.checks import assert_close
from tilewright.errors import ArgumentError, ShapeError


@tw.op
def loss(x: tw.Tile["n d"], w: tw.Tile["d"], t: tw.Tile["n"]):
    return tw.sum(tw.softplus(-t * tw.sum(x * w, "d")), "n")


@tw.op
def layer(x: tw.Tile["... d"], w: tw.Tile["d e"]):
    return tw.tanh(tw.sum(x * w, "d")), tw.max(x, "d")


@tw.op
def layer_of_rows(x: tw.Tile["d"], w: tw.Tile["d"]):
    return tw.exp(x * w - tw.max(x, "d"))


@tw.op
def entropy(w: tw.Tile["d"]):
    return tw.sum(tw.exp(w) * w, "d")


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((5, 4, 3)), rng.standard_normal(3), rng.standard_normal((5, 4))


def stacked(results):
    return tuple(np.stack(parts) for parts in zip(*results, strict=True))


def test_values_and_gradients_are_those_of_each_position(data):
    x, w, t = data
    mapped = tw.vmap(loss, {"w": None})
    assert_close(mapped(x, w, t), np.stack([loss(a, w, b) for a, b in zip(x, t, strict=True)]))
    gradients = tw.vmap(loss.grad, {"w": None})(x, w, t)
    expected = stacked([loss.grad(a, w, b) for a, b in zip(x, t, strict=True)])
    for one, other in zip(gradients, expected, strict=True):
        assert_close(one, other)


def test_a_mapped_op_is_differentiated(data):
    x, w, t = data
    cotangent = np.arange(1.0, 6)
    gradients = tw.vmap(loss, {"w": None}).vjp(x, w, t, cotangent)
    each = [loss.vjp(a, w, b, c) for a, b, c in zip(x, t, cotangent, strict=True)]
    assert_close(gradients[0], np.stack([e[0] for e in each]))
    assert_close(gradients[1], sum(e[1] for e in each))


def test_maps_stack(data):
    x, w, t = (np.stack([a, 2 * a]) for a in data)
    twice = tw.vmap(tw.vmap(loss, {"w": None}))
    expected = [tw.vmap(loss, {"w": None})(a, b, c) for a, b, c in zip(x, w, t, strict=True)]
    assert_close(twice(x, w, t), np.stack(expected))


def test_batch_axes_and_several_results():
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((2, 6, 3, 4)), rng.standard_normal((6, 4, 5))
    found = tw.vmap(layer, {"x": 1})(x, w)
    for one, other in zip(found, stacked([layer(x[:, n], w[n]) for n in range(6)]), strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("case", ops.CASES, ids=str)
def test_every_kind_of_node(case):
    """Indexing, scatters and reductions under one more axis; the first operand mapped, then all."""
    arguments = [np.stack([a, a[::-1].copy() if a.ndim else a]) for a in case.arguments()]
    mapped = tw.vmap(case.op)(*arguments, **case.constants)
    each = [case.op.reference(*(a[n] for a in arguments), **case.constants) for n in range(2)]
    assert_close(mapped, np.stack(each), 64, str(case))
    names = [t.name for t in case.op.tiles]
    same = dict.fromkeys(names[1:])
    first = tw.vmap(case.op, same)(arguments[0], *(a[0] for a in arguments[1:]), **case.constants)
    others = [a[0] for a in arguments[1:]]
    each = [case.op.reference(arguments[0][n], *others, **case.constants) for n in range(2)]
    assert_close(first, np.stack(each), 64, str(case))


def test_no_positions(data):
    x, w, t = data
    assert tw.vmap(loss, {"w": None})(x[:0], w, t[:0]).shape == (0,)


def test_on_tensors(data):
    x, w, t = data
    tensor = tw.tensor(x, requires_grad=True)
    tw.vmap(loss, {"w": None})(tensor, tw.tensor(w), tw.tensor(t)).sum().backward()
    assert_close(tensor.grad.numpy(), np.stack([loss.grad(a, w, b)[0] for a, b in zip(x, t, strict=True)]))


def test_tensors_are_mapped_over_any_dimension():
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((4, 6)), rng.standard_normal(4)
    mapped = tw.vmap(layer_of_rows, {"x": 1, "w": None})
    cotangent = rng.standard_normal((6, 4))
    tensor, weight = tw.tensor(x, requires_grad=True), tw.tensor(w, requires_grad=True)
    found = mapped(tensor, weight)
    assert_close(found.detach().numpy(), mapped(x, w))
    assert_close(mapped(x, w), np.stack([layer_of_rows(x[:, n], w) for n in range(6)]))
    found.backward(tw.tensor(cotangent))
    each = [layer_of_rows.vjp(x[:, n], w, cotangent[n]) for n in range(6)]
    assert_close(tensor.grad.numpy(), np.stack([e[0] for e in each], 1))
    assert_close(weight.grad.numpy(), sum(e[1] for e in each))
    for derivative in (mapped.vjp, mapped.jvp):
        with pytest.raises(ArgumentError, match=r"another dimension than the first.*np\.moveaxis"):
            derivative(x, w, cotangent, w)


def test_jacobian_and_hessian_against_torch(data):
    x, w, _ = data
    found = layer.jacobian(x[0], np.outer(w, [1.0, 2.0]))
    tensors = torch.tensor(x[0]), torch.tensor(np.outer(w, [1.0, 2.0]))

    def in_torch(x, w):
        return torch.tanh(x @ w), x.amax(-1)

    expected = torch.autograd.functional.jacobian(in_torch, tensors)
    for blocks, rows in zip(found, expected, strict=True):
        for name, block in zip(("x", "w"), rows, strict=True):
            assert_close(blocks[name], block.numpy())
    assert_close(entropy.hessian(w), np.diag(np.exp(w) * (w + 2)))
    direction = np.array([1.0, -2.0, 0.5])
    assert_close(entropy.hvp(w, direction), entropy.hessian(w) @ direction)


def test_messages(data):
    x, w, t = data
    with pytest.raises(ShapeError, match="5 in x but 3 in w"):
        tw.vmap(loss)(x, w, t)
    with pytest.raises(ShapeError, match=r"no dimension 7 to map over"):
        tw.vmap(loss, {"x": 7, "w": None})(x, w, t)
    with pytest.raises(ArgumentError, match="'y', no operand"):
        tw.vmap(loss, {"y": 0})
    with pytest.raises(ArgumentError, match="maps an op"):
        tw.vmap(np.sin)
