"""What `backward`, `tw.grad`, hooks and leaves do, and what they refuse."""

import gc
import weakref

import numpy as np
import pytest
import torch

import tilewright as tw
from tests.tensor.against_torch import draw
from tilewright.errors import ArgumentError, DerivativeError, DTypeError, ShapeError


def leaf(*shape, dtype="float64", seed=0):
    return tw.tensor(draw(shape, dtype, seed), requires_grad=True)


def test_leaves_and_results_know_what_they_are():
    x = leaf(3)
    y = x * 2
    assert x.is_leaf and x.requires_grad and x.grad_fn is None
    assert not y.is_leaf and y.requires_grad and y.grad_fn.name == "mul"
    assert y.detach().is_leaf and not y.detach().requires_grad
    assert not (tw.ones(3) * 2).requires_grad
    assert (tw.ones(3) * 2).is_leaf


def test_gradients_accumulate_in_one_buffer_of_their_own():
    x = leaf(3)
    (x * 2).sum().backward()
    first = x.grad
    (x * 3).sum().backward()
    assert x.grad is first
    np.testing.assert_array_equal(first.numpy(), [5, 5, 5])
    assert first.is_contiguous() and first.numpy().flags.writeable


def test_two_leaves_never_share_a_gradient_buffer():
    x, y = leaf(3), leaf(3)
    seed = tw.ones(3, dtype="float64")
    (x + y).backward(seed)
    x.grad.zero_()
    assert y.grad.tolist() == [1, 1, 1] and seed.tolist() == [1, 1, 1]


def test_the_gradient_passed_in_is_not_adopted():
    x = leaf(2, 3)
    given = np.ones((2, 3))
    x.reshape(2, 3).backward(given)
    given[:] = 7
    assert x.grad.sum().item() == 6


@pytest.mark.parametrize("gradient", [
    np.broadcast_to(np.array([2.0]), (3, 4)), np.arange(24.0).reshape(4, 6)[:, ::2].T,
    np.arange(12.0).reshape(3, 4)[::-1, ::-1],
    np.lib.stride_tricks.as_strided(np.arange(8.0), (3, 4), (8, 8)),
], ids=["stride 0", "strided", "reversed", "overlapping"])  # fmt: skip
def test_gradients_of_any_layout_are_right(gradient):
    x, w = leaf(3, 4), leaf(3, 1, seed=1)
    ((x * w).exp()).backward(tw.from_numpy(gradient))
    product = np.exp(x.detach().numpy() * w.detach().numpy())
    np.testing.assert_allclose(x.grad.numpy(), gradient * product * w.detach().numpy())
    np.testing.assert_allclose(
        w.grad.numpy(), (gradient * product * x.detach().numpy()).sum(1, keepdims=True)
    )


def test_a_leaf_used_directly_gets_the_gradient():
    x = leaf(1)
    x.backward()
    assert x.grad.tolist() == [1.0]


def test_only_what_requires_a_gradient_gets_one():
    x, y = leaf(3), tw.ones(3, dtype="float64")
    (x * y).sum().backward()
    assert y.grad is None and x.grad.tolist() == [1, 1, 1]


def test_users_ops_record_one_node_with_several_results():
    @tw.op
    def both(x: tw.Tile["... d"], y: tw.Tile["... d"], *, scale: tw.Scalar = 1.0):
        return x * y * scale, tw.sum(x + y, "d"), tw.argmax(x, "d")

    x, y = leaf(2, 3), draw((2, 3), seed=1)
    a, b, c = both(x, y, scale=3.0)
    assert a.grad_fn is b.grad_fn and not c.requires_grad and c.dtype == tw.int64
    b.sum().backward(retain_graph=True)
    np.testing.assert_array_equal(x.grad.numpy(), np.ones((2, 3)))
    (a.sum() + b.sum()).backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 + 3 * y)


def test_ops_take_arrays_and_numbers_beside_tensors():
    @tw.op
    def blend(x: tw.Tile["..."], y: tw.Tile["..."], weight: tw.Tile["..."] = None):
        return x + y if weight is None else x * weight + y

    x = tw.tensor([1.0, 2.0], dtype="float16", requires_grad=True)
    y = blend(x, 0.5)
    assert y.dtype == tw.float16 and y.tolist() == [1.5, 2.5]
    z = blend(np.array([1.0, 2.0], np.float16), y, weight=x)
    z.sum().backward()
    assert x.grad.tolist() == [2.0, 3.0]


def test_derivative_ops_take_tensors_and_are_recorded():
    @tw.op
    def cube(x: tw.Tile["..."]):
        return x * x * x

    x, t = leaf(4), leaf(4, seed=1)
    value = x.detach().numpy()
    cube.vjp(x, t).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 6 * value * t.detach().numpy())
    np.testing.assert_allclose(t.grad.numpy(), 3 * value**2)
    np.testing.assert_allclose(cube.jvp(x, t).detach().numpy(), 3 * value**2 * t.detach().numpy())
    np.testing.assert_allclose(cube.grad(x).detach().numpy(), 3 * value**2)


# --- tw.grad ----------------------------------------------------------------------------------------------


def test_grad_leaves_leaves_alone():
    x, y = leaf(3), leaf(3, seed=1)
    z = (x * y).sum()
    gx, gy = tw.grad(z, [x, y])
    np.testing.assert_array_equal(gx.numpy(), y.detach().numpy())
    np.testing.assert_array_equal(gy.numpy(), x.detach().numpy())
    assert x.grad is None and not gx.requires_grad


def test_grad_by_an_inner_result_and_with_cotangents():
    x = leaf(3)
    y = x * 2
    outputs = [y * y, y.sum()]
    (g,) = tw.grad(outputs, y, [tw.ones(3, dtype="float64"), None])
    np.testing.assert_allclose(g.numpy(), 2 * y.detach().numpy() + 1)


def test_unused_inputs():
    x, y = leaf(3), leaf(3)
    with pytest.raises(DerivativeError, match="do not depend on input 1; pass allow_unused=True"):
        tw.grad(x.sum(), [x, y])
    assert tw.grad((x * 1).sum(), [x, y], allow_unused=True)[1] is None


def test_hessian_vector_product():
    x = leaf(4)
    v = draw((4,), seed=3)
    (g,) = tw.grad((x**4).sum(), x, create_graph=True)
    (h,) = tw.grad(g, x, tw.tensor(v))
    np.testing.assert_allclose(h.numpy(), 12 * x.detach().numpy() ** 2 * v)


def test_backward_with_create_graph_records_the_gradient():
    x = leaf(3)
    (x**3).sum().backward(create_graph=True)
    g = x.grad
    assert g.requires_grad
    x.grad = None
    g.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 6 * x.detach().numpy())


# --- hooks ------------------------------------------------------------------------------------------------


def test_hooks_on_leaves_and_results():
    x = leaf(2)
    y = x * 3
    seen = []
    y.register_hook(lambda g: seen.append(g.tolist()))
    handle = x.register_hook(lambda g: g * 10)
    y.sum().backward(retain_graph=True)
    assert seen == [[1, 1]] and x.grad.tolist() == [30, 30]
    handle.remove()
    x.grad = None
    y.sum().backward()
    assert x.grad.tolist() == [3, 3]


def test_what_a_hook_keeps_is_not_overwritten():
    x = leaf(2)
    kept = []
    x.register_hook(kept.append)
    (x * 2).sum().backward()
    (x * 2).sum().backward()
    assert kept[0].tolist() == [2, 2] and x.grad.tolist() == [4, 4]


def test_a_hook_that_returns_another_shape_is_refused():
    x = leaf(2)
    x.register_hook(lambda g: g.sum())
    with pytest.raises(ArgumentError, match=r"returns None or a Tensor of the gradient's shape \(2,\)"):
        (x * 2).sum().backward()


def test_retain_grad():
    x = leaf(2)
    y = x * 3
    y.retain_grad()
    assert y.grad is None
    (y * y).sum().backward()
    np.testing.assert_allclose(y.grad.numpy(), 2 * y.detach().numpy())


# --- recording --------------------------------------------------------------------------------------------


def test_no_grad_and_enable_grad():
    x = leaf(2)
    with tw.no_grad():
        assert not (x * 2).requires_grad
        assert not x[0].requires_grad
        with tw.enable_grad():
            assert (x * 2).requires_grad
    assert (x * 2).requires_grad
    assert tw.is_grad_enabled()

    @tw.no_grad()
    def plain(x):
        return x * 2

    assert not plain(x).requires_grad


# --- refusals ---------------------------------------------------------------------------------------------


def test_backward_of_many_elements_needs_a_gradient():
    with pytest.raises(
        DerivativeError, match=r"shape \(3,\) needs the gradient to start from; .*loss.sum\(\)"
    ):
        (leaf(3) * 2).backward()


def test_backward_of_a_constant():
    with pytest.raises(DerivativeError, match="was not recorded"):
        tw.ones(1).backward()


def test_gradient_of_another_shape():
    with pytest.raises(ShapeError, match=r"the gradient has shape \(2,\), the tensor \(3,\)"):
        (leaf(3) * 2).backward(tw.ones(2))


def test_backward_twice():
    x = leaf(3)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(DerivativeError, match=r"mul saved for its gradient are freed.*retain_graph=True"):
        y.backward()


def test_integer_tensors_have_no_gradient():
    with pytest.raises(DTypeError, match=r"only floating-point tensors have gradients.*int64.*x.float\(\)"):
        tw.tensor([1, 2], requires_grad=True)


def test_numpy_of_a_recorded_tensor():
    x = leaf(3)
    for call in (x.numpy, lambda: np.asarray(x), (x * 2).numpy):
        with pytest.raises(DerivativeError, match=r"x.detach\(\).numpy\(\)"):
            call()


def test_requires_grad_of_a_result_cannot_be_switched_off():
    with pytest.raises(DerivativeError, match=r"y.detach\(\)"):
        (leaf(3) * 2).requires_grad_(False)
    x = leaf(3)
    assert not x.requires_grad_(False).requires_grad


def test_grad_is_checked_when_it_is_set():
    x = leaf(3)
    with pytest.raises(ShapeError, match=r"shape \(3,\)"):
        x.grad = tw.ones(2, dtype="float64")
    with pytest.raises(DTypeError, match="float64"):
        x.grad = tw.ones(3)
    with pytest.raises(DerivativeError, match="only a leaf"):
        (x * 2).grad = tw.ones(3, dtype="float64")


INDICES = {
    "list": [0, 2, 0, -1],
    "rows": np.array([[1, 1], [3, -4]]),
    "one of a tuple": (np.array([2, 2, 1]),),
    "mask": np.array([True, False, True, True]),
    "elements": ([0, 1, 0], [4, 2, 4]),
    "columns": (slice(None), [1, 1, 0]),
    "between": (slice(1, None, 2), None, np.array([[0], [3]])),
    "whole mask": np.arange(20).reshape(4, 5) % 3 == 0,
    "tensor": tw.tensor([3, 3, 0]),
    "nothing": np.zeros(0, np.int64),
}


@pytest.mark.parametrize("name", INDICES)
def test_gradients_of_selected_elements_add_up(name):
    index = INDICES[name]
    data = np.random.default_rng(0).standard_normal((4, 5))
    mine, peer = tw.tensor(data, requires_grad=True), torch.tensor(data, requires_grad=True)
    found = mine[index]
    if isinstance(index, tw.Tensor):
        index = torch.tensor(index.numpy())
    expected = peer[index]
    np.testing.assert_array_equal(found.detach().numpy(), expected.detach().numpy())
    assert found.shape == tuple(expected.shape)
    (found * found * found).sum().backward()
    (expected**3).sum().backward()
    np.testing.assert_allclose(mine.grad.numpy(), peer.grad.numpy(), rtol=1e-12)


def test_second_derivatives_of_selected_elements():
    x = leaf(4)
    (first,) = tw.grad((x[[1, 1, 3]] ** 3).sum(), x, create_graph=True)
    (second,) = tw.grad(first.sum(), x)
    expected = 6 * x.detach().numpy() * [0, 2, 0, 1]
    np.testing.assert_allclose(second.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("recorded", [True, False])
def test_indices_out_of_range(recorded):
    x = leaf(3) if recorded else tw.ones(3)
    with pytest.raises(IndexError, match=r"shape \(3,\): index 3 is out of bounds"):
        x[[0, 3]]
    with pytest.raises(ShapeError, match="boolean index did not match"):
        x[np.ones(4, bool)]


# --- in place ---------------------------------------------------------------------------------------------


def test_a_saved_operand_that_is_overwritten_is_noticed():
    x = leaf(3)
    w = tw.ones(3, dtype="float64")
    y = (x * w).sum()
    w.add_(1)
    with pytest.raises(
        DerivativeError, match=r"mul saved for its gradient, was modified in place.*x.clone\(\)"
    ):
        y.backward()


def test_a_saved_result_that_is_overwritten_is_noticed():
    x = leaf(3)
    y = x.exp()
    with tw.no_grad():
        y.mul_(2)
    with pytest.raises(DerivativeError, match="modified in place"):
        y.sum().backward()


def test_writes_through_views_are_noticed():
    x = leaf(4)
    w = tw.ones(4, dtype="float64")
    y = (x * w).sum()
    w[1:].reshape(3, 1)[0] = 5.0
    with pytest.raises(DerivativeError, match="modified in place"):
        y.backward()


def test_overwriting_what_is_not_saved_is_fine():
    x = leaf(3)
    w = tw.ones(3, dtype="float64")
    y = (x + w).sum()
    w.zero_()
    y.backward()
    assert x.grad.tolist() == [1, 1, 1]


def test_recorded_tensors_are_not_written_to():
    x = leaf(3)
    w = tw.ones(3, dtype="float64")
    for write in (lambda: x.add_(1), lambda: (x * 2).zero_(), lambda: w.copy_(x), lambda: w.mul_(x)):
        with pytest.raises(DerivativeError, match="behind the tape's back; write x = x"):
            write()
    with pytest.raises(DerivativeError, match="behind the tape's back"):
        x[0] = 1.0
    with tw.no_grad():
        x.add_(1)
        given = x.tolist()
        before, other = x, x.detach()
        x += 1
        x *= 2
        assert x is before and x.is_leaf and other.tolist() == x.tolist() == [(v + 1) * 2 for v in given]
    x += 1
    assert not x.is_leaf


def test_assignments_with_an_operator_are_in_place_where_nothing_is_recorded():
    x = tw.tensor([1.0, 2.0])
    same = x
    x += 1
    x /= tw.tensor([2.0, 3.0])
    x **= 2
    x -= tw.ones(2)
    assert same is x and same.tolist() == [0, 0] and x.version == 4
    with pytest.raises(ShapeError, match=r"x \+= y: the result has shape \(3, 2\)"):
        x += tw.ones(3, 2)
    whole = tw.tensor([1, 2])
    with pytest.raises(DTypeError, match=r"x \*= y: a float32 result does not fit a int64 tensor"):
        whole *= 0.5
    w = leaf(2)
    x += w  # this one is recorded
    x.sum().backward()
    assert x is not same and w.grad.tolist() == [1, 1]


# --- memory -----------------------------------------------------------------------------------------------


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_graphs_hold_no_cycles():
    x = leaf(3)
    y = (x.exp() * x).reshape(3, 1).sum()
    nodes = [weakref.ref(y), weakref.ref(y.grad_fn), weakref.ref(y.grad_fn.inputs[0][0])]
    y.backward()
    (g,) = tw.grad((x**3).sum(), x, create_graph=True)
    nodes += [weakref.ref(g), weakref.ref(g.grad_fn)]
    del y, g
    assert all(node() is None for node in nodes)


@pytest.mark.usefixtures("no_collector")
def test_saved_arrays_are_freed_while_backward_runs():
    x = leaf(5)
    y = x
    alive = []
    for _ in range(4):
        y = y.tanh()
        alive.append(weakref.ref(y))
    counts = []
    x.register_hook(lambda g: counts.append(sum(node.saved is not None for node in nodes)))
    nodes = []
    origin = y.grad_fn
    while not isinstance(origin, tw.autograd.tape.Leaf):
        nodes.append(origin)
        origin = origin.inputs[0][0]
    y.sum().backward()
    assert counts == [0] and len(nodes) == 4


def test_a_deep_graph():
    x = leaf(2)
    y = x
    for _ in range(20_000):
        y = y + 1
    y.sum().backward()
    assert x.grad.tolist() == [1, 1]
    del y


def test_zero_size_gradients():
    x, w = tw.zeros(0, 3, requires_grad=True), tw.ones(3, 2, requires_grad=True)
    (x @ w).sum().backward()
    assert x.grad.shape == (0, 3) and w.grad.tolist() == [[0, 0]] * 3
