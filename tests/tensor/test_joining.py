"""Parts of Tensors and wholes of parts, and their gradients, against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tilewright as tw
from tilewright.errors import UserError

X = np.random.default_rng(0).standard_normal((3, 5, 4))


@pytest.mark.parametrize(
    ("cut", "peer"),
    [
        (lambda x: tw.unbind(x, 1), lambda x: torch.unbind(x, 1)),
        (lambda x: x.unbind(-1), lambda x: x.unbind(-1)),
        (lambda x: tw.split(x, 2, 1), lambda x: torch.split(x, 2, 1)),
        (lambda x: x.split([1, 0, 3], -1), lambda x: x.split([1, 0, 3], -1)),
    ],
    ids=["unbind", "unbind last", "split", "split into sizes"],
)
def test_parts_and_their_gradients(cut, peer):
    x, y = tw.tensor(X, requires_grad=True), torch.tensor(X, requires_grad=True)
    parts, expected = cut(x), peer(y)
    assert len(parts) == len(expected)
    for part, other in zip(parts, expected, strict=True):
        np.testing.assert_array_equal(part.detach().numpy(), other.detach().numpy())
        assert np.shares_memory(part.detach().numpy(), x.detach().numpy()) or not part.numel()
    parts[0].sum().backward()
    (parts[-1] * 3).sum().backward()
    expected[0].sum().backward(retain_graph=True)
    (expected[-1] * 3).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.grad.numpy())


@pytest.mark.parametrize("name", ["cat", "stack"])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_wholes_and_their_gradients(name, dim):
    arrays = [X, X[::-1] * 2, X[:, ::-1]]
    given = [tw.tensor(a, requires_grad=n != 1) for n, a in enumerate(arrays)]
    others = [torch.tensor(a.copy(), requires_grad=n != 1) for n, a in enumerate(arrays)]
    whole, expected = getattr(tw, name)(given, dim), getattr(torch, name)(others, dim)
    np.testing.assert_array_equal(whole.detach().numpy(), expected.detach().numpy())
    weight = np.random.default_rng(1).standard_normal(whole.shape)
    (whole * tw.tensor(weight)).sum().backward()
    (expected * torch.tensor(weight)).sum().backward()
    for tensor, other in zip(given, others, strict=True):
        assert (tensor.grad is None) == (other.grad is None)
        if tensor.grad is not None:
            np.testing.assert_array_equal(tensor.grad.numpy(), other.grad.numpy())


def test_gradients_of_gradients_pass_through_parts_and_wholes():
    x = tw.tensor(X, requires_grad=True)
    first, *_, last = tw.unbind(x, 1)
    y = tw.stack([first * first * last, last], 0)
    (slope,) = tw.grad(y.sum(), x, create_graph=True)
    (found,) = tw.grad((slope * slope).sum(), x)
    z = torch.tensor(X, requires_grad=True)
    first, *_, last = torch.unbind(z, 1)
    (slope,) = torch.autograd.grad(torch.stack([first * first * last, last]).sum(), z, create_graph=True)
    (expected,) = torch.autograd.grad((slope * slope).sum(), z)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-12, atol=1e-12)


def test_a_part_that_is_written_to_is_noticed():
    x = tw.tensor(X, requires_grad=True)
    parts = (x * 1).unbind()
    y = parts[0] * parts[0]
    with tw.no_grad():
        parts[1].zero_()
    with pytest.raises(UserError, match="modified in place"):
        y.sum().backward()


def test_wholes_have_the_dtype_in_which_their_parts_meet():
    assert tw.cat([tw.ones(2), tw.ones(1, dtype="int64")]).dtype == tw.float32
    assert tw.stack([tw.ones(1, dtype="float16"), tw.ones(1, dtype="bfloat16")]).dtype == tw.float32
    mixed = tw.cat([tw.tensor([1j]), tw.ones(1, dtype="float64")])
    assert mixed.dtype == tw.complex128 and mixed.tolist() == [1j, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: tw.cat([]), "cat needs a tensor"),
        (lambda x: tw.cat([x, x[:, :2]]), "cat along dimension 0: the other extents differ"),
        (lambda x: tw.stack([x, x[:2]]), "stack: the tensors have one shape"),
        (lambda x: tw.stack([x, 1.0]), "stack takes a list of Tensors, not of float"),
        (lambda x: x.unbind(3), "unbind: there is no dimension 3"),
        (lambda x: x.split(0), "split: parts have 1 position or more, not 0"),
        (lambda x: x.split([1, 1]), "split: parts of [1, 1] positions do not add up to the 3 there are"),
    ],
)
def test_wrong_parts_are_refused(call, message):
    with pytest.raises(UserError) as caught:
        call(tw.tensor(X))
    assert message in str(caught.value)
