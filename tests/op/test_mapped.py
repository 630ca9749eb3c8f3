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


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.exhaustive if n % 2 else ()) for n, c in enumerate(ops.CASES)],
    ids=str,
)
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
    with pytest.raises(ShapeError, match="no dimension 5 to map over"):
        tw.vmap(layer_of_rows, {"x": 5, "w": None})(tensor, weight)


# --- mapped dimensions anywhere ---------------------------------------------------------------------------


@tw.op
def rows(x: tw.Tile["n d"], w: tw.Tile["d"]):
    return tw.tanh(tw.sum(x * w, "d")), tw.exp(x - tw.max(x, "d"))


def rows_in_torch(x, w):
    return torch.tanh((x * w).sum(-1)), torch.exp(x - x.amax(-1, keepdim=True))


def vmap_in_torch(function, in_axes, out_axes):
    """One position after the other."""

    def mapped(*operands):
        count = next(o.shape[a] for o, a in zip(operands, in_axes, strict=True) if a is not None)
        each = [
            function(*(o if a is None else o.select(a, n) for o, a in zip(operands, in_axes, strict=True)))
            for n in range(count)
        ]
        places = out_axes if isinstance(out_axes, tuple) else (out_axes,) * len(each[0])
        return tuple(
            torch.stack(parts, place) for parts, place in zip(zip(*each, strict=True), places, strict=True)
        )

    return mapped


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other.detach().numpy(), 1e-9, 1e-11)


@tw.op
def scaled(x: tw.Tile["n"], w: tw.Tile["n"]):
    """The second result knows nothing of the first operand."""
    return x * w, tw.sum(w * w, "n")


def test_a_result_that_is_the_same_for_all_is_given_once():
    """Its cotangent comes once, too; mapped again, it has the outer dimension alone."""
    rng = np.random.default_rng(3)
    x, w, d = rng.standard_normal((4, 5)), rng.standard_normal(5), rng.standard_normal((4, 5))
    mapped = tw.vmap(scaled, (0, None), (-1, None))
    products, squares = mapped(x, w)
    np.testing.assert_allclose(products, (x * w).T)
    np.testing.assert_allclose(squares, np.sum(w * w))
    dx, dw = mapped.vjp(x, w, d.T, np.array(2.0))
    np.testing.assert_allclose(dx, d * w)
    np.testing.assert_allclose(dw, np.sum(d * x, 0) + 4 * w)
    weights = rng.standard_normal((3, 5))
    products, squares = tw.vmap(mapped, (None, 0))(x, weights)
    np.testing.assert_allclose(products, np.einsum("in,jn->jni", x, weights))
    np.testing.assert_allclose(squares, np.sum(weights**2, 1))


@pytest.mark.parametrize(
    ("in_axes", "out_axes"), [((1, None), (1, 0)), ((-1, 1), (-1, -2)), ((0, -1), 1)], ids=str
)
def test_values_and_derivatives_with_dimensions_anywhere(in_axes, out_axes):
    """Gradients and tangents lie as operands do, cotangents as results; to any order, on Tensors too."""
    rng = np.random.default_rng(3)
    x = np.moveaxis(rng.standard_normal((5, 4, 3)), 0, in_axes[0])
    w = rng.standard_normal(3 if in_axes[1] is None else (5, 3))
    w = w if in_axes[1] is None else np.moveaxis(w, 0, in_axes[1])
    mapped = tw.vmap(rows, in_axes, out_axes)
    in_torch = vmap_in_torch(rows_in_torch, in_axes, out_axes)
    operands = torch.tensor(x, requires_grad=True), torch.tensor(w, requires_grad=True)
    expected = in_torch(*operands)
    same(mapped(x, w), expected)
    out = tuple(np.empty(e.shape) for e in expected)
    assert mapped(x, w, out=out)[0] is out[0]
    same(out, expected)
    cotangents = tuple(torch.from_numpy(rng.standard_normal(e.shape)).requires_grad_() for e in expected)
    given = tuple(c.detach().numpy() for c in cotangents)
    gradients = torch.autograd.grad(expected, operands, cotangents, create_graph=True)
    same(mapped.vjp(x, w, *given), gradients)
    tangents = tuple(torch.from_numpy(rng.standard_normal(o.shape)) for o in operands)
    pushed = torch.autograd.functional.jvp(in_torch, operands, tangents)[1]
    same(mapped.jvp(x, w, *(t.numpy() for t in tangents)), pushed)
    seconds = torch.autograd.grad(gradients, (*operands, *cotangents), tangents)
    same(mapped.vjp.vjp(x, w, *given, *(t.numpy() for t in tangents)), seconds)
    tensors = tuple(tw.tensor(a, requires_grad=True) for a in (x, w, *given))
    for gradient, tangent in zip(mapped.vjp(*tensors), tangents, strict=True):
        (gradient * tw.tensor(tangent.numpy())).sum().backward(retain_graph=True)
    same((t.grad.numpy() for t in tensors), seconds)


@pytest.mark.parametrize(("inner", "outer"), [((1, -1), (0, 1)), ((-1, None), (2, 1))], ids=str)
def test_nested_maps_with_dimensions_anywhere(inner, outer):
    rng = np.random.default_rng(4)
    x, w = rng.standard_normal((4, 3)), rng.standard_normal(3)
    for places in (inner, outer):
        x = np.stack([x, 2 * x, -x], places[0])
        w = w if places[1] is None else np.stack([w, 2 * w, -w], places[1])

    def of_torch(x, w):
        return torch.autograd.grad(sum(y.sum() for y in rows_in_torch(x, w)), (x, w))

    expected = vmap_in_torch(vmap_in_torch(of_torch, inner, (1, -1)), outer, (-1, 0))(
        torch.tensor(x, requires_grad=True), torch.tensor(w, requires_grad=True)
    )
    nested = tw.vmap(tw.vmap(rows.grad, inner, (1, -1)), outer, (-1, 0))
    same(nested(x, w), expected)
    same((t.numpy() for t in nested(tw.tensor(x), tw.tensor(w))), expected)


def test_a_derivative_is_mapped_over_its_cotangents():
    """By position and by name; what is mapped so is differentiated again, also on Tensors."""
    rng = np.random.default_rng(5)
    arrays = [rng.standard_normal(shape) for shape in ((4, 5, 3), (3,), (4, 5), (1, 3, 5))]
    arrays[3] = np.repeat(arrays[3], 4, 0)

    def in_torch(x, w, d_y0, d_y1):
        return torch.autograd.grad(rows_in_torch(x, w), (x, w), (d_y0, d_y1), create_graph=True)

    operands = [torch.tensor(a, requires_grad=True) for a in arrays]
    expected = vmap_in_torch(in_torch, (1, None, 1, 2), (2, 0))(*operands)
    mapped = tw.vmap(rows.vjp, (1, None, 1, 2), (2, 0))
    same(mapped(*arrays), expected)
    same(
        mapped(*arrays[:3], arrays[3][:1]),
        vmap_in_torch(in_torch, (1, None, 1, 2), (2, 0))(*operands[:3], operands[3]),
    )
    named = tw.vmap(rows.vjp, {"x": 1, "w": None, "d_y1": 2, "d_y0": 1}, (2, 0))
    same(named(*arrays[:2], d_y0=arrays[2], d_y1=arrays[3]), expected)
    further = [rng.standard_normal(e.shape) for e in expected]
    seconds = torch.autograd.grad(expected, operands, [torch.tensor(f) for f in further])
    same(mapped.vjp(*arrays, *further), seconds)
    tensors = [tw.tensor(a, requires_grad=True) for a in arrays]
    for gradient, direction in zip(mapped(*tensors), further, strict=True):
        (gradient * tw.tensor(direction)).sum().backward(retain_graph=True)
    same((t.grad.numpy() for t in tensors), seconds)


def test_complex_numbers_with_dimensions_counted_from_the_end():
    @tw.op
    def product(a: tw.Tile["m k"], b: tw.Tile["k"]):
        return tw.sum(a * b, "k"), tw.sum(tw.abs(a), "k")

    def in_torch(a, b):
        return (a * b).sum(-1), a.abs().sum(-1)

    rng = np.random.default_rng(6)
    a, b = (rng.standard_normal(s) + 1j * rng.standard_normal(s) for s in ((4, 3, 2), (3,)))
    operands = torch.tensor(a, requires_grad=True), torch.tensor(b, requires_grad=True)
    expected = vmap_in_torch(in_torch, (-1, None), (-1, 0))(*operands)
    mapped = tw.vmap(product, (-1, None), (-1, 0))
    same(mapped(a, b), expected)
    cotangents = [(1 + 2j) * rng.standard_normal((4, 2)), rng.standard_normal((2, 4))]
    gradients = torch.autograd.grad(expected, operands, [torch.tensor(c) for c in cotangents])
    same(mapped.vjp(a, b, *cotangents), gradients)
    tensors = [tw.tensor(array) for array in (a, b, *cotangents)]
    same((t.numpy() for t in mapped.vjp(*tensors)), gradients)


def test_random_numbers_depend_on_the_seed_and_the_position_in_the_op():
    @tw.op
    def noisy(x: tw.Tile["d"], seed: tw.Tile[""]):
        return x + tw.rand(seed, "d", dtype=tw.float64)

    x, seeds = np.zeros((6, 4)), np.arange(4)
    one = tw.vmap(noisy, (1, None), 1)(x, np.int64(3))
    np.testing.assert_array_equal(one, np.repeat(noisy(x[:, 0], np.int64(3))[:, None], 4, 1))
    each = tw.vmap(noisy, (1, 0), 1)(x, seeds)
    np.testing.assert_array_equal(each, np.stack([noisy(x[:, 0], s) for s in seeds], 1))
    same_draws = tw.vmap(noisy, (1, 0), 1).vjp(x, seeds, np.ones((6, 4)))
    np.testing.assert_array_equal(same_draws, np.ones((6, 4)))


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", ops.CASES, ids=str)
def test_derivatives_of_every_kind_of_node_along_the_last_dimension(case):
    arguments = [np.stack([a, a[::-1] if a.ndim else a], -1) for a in case.arguments()]
    mapped = tw.vmap(case.op, -1, -1)
    rng = np.random.default_rng(7)
    cotangent = rng.standard_normal(mapped(*arguments, **case.constants).shape)
    found = mapped.vjp(*arguments, cotangent, **case.constants)
    each = [
        case.op.vjp(*(a[..., n] for a in arguments), cotangent[..., n], **case.constants) for n in range(2)
    ]
    for position, gradient in enumerate(found if isinstance(found, tuple) else (found,)):
        parts = [e[position] if isinstance(e, tuple) else e for e in each]
        assert_close(gradient, np.stack(parts, -1), 64, str(case))


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
    with pytest.raises(ArgumentError, match="in_axes are dimensions or None, got 'x'"):
        tw.vmap(loss, ("x", 0, 0))
    with pytest.raises(ArgumentError, match="in_axes has 2 entries"):
        tw.vmap(loss, (0, 0))
    with pytest.raises(ArgumentError, match=r"out_axes are dimensions or None, got 0\.5"):
        tw.vmap(loss, 0, 0.5)
    with pytest.raises(ArgumentError, match="out_axes is None for the result y, which differs from position"):
        tw.vmap(loss, {"w": None}, None)(x, w, t)
    with pytest.raises(ShapeError, match="out_axes asks for dimension 2 of the result y, which has 1"):
        tw.vmap(loss, {"w": None}, 2)(x, w, t)
    with pytest.raises(ArgumentError, match="out_axes has 2 entries for 1 results"):
        tw.vmap(loss, {"w": None}, (0, 0))(x, w, t)
    with pytest.raises(ArgumentError, match=r"names 'd_y', which is not given.*by name in both"):
        tw.vmap(loss.vjp, {"w": None, "d_y": 0})(x, w, t, np.ones(5))
    with pytest.raises(ArgumentError, match="has an entry too many"):
        tw.vmap(loss.vjp, (0, None, 0, 0, 0))(x, w, t, np.ones(5))
