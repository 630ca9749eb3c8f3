"""Complex operands: values against NumPy, gradients against torch (∂/∂re + i ∂/∂im of a real loss)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tilewright as tw
from tests.support.checks import assert_close
from tilewright import kernels
from tilewright.compiler.pipeline import lower
from tilewright.errors import AxisError, DerivativeError, DTypeError

FUNCTIONS = [
    "exp",
    "log",
    "sqrt",
    "sin",
    "cos",
    "tan",
    "sinh",
    "cosh",
    "tanh",
    "abs",
    "angle",
    "conj",
    "real",
    "imag",
]


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def same(actual: np.ndarray, expected: np.ndarray, tolerance: float = 64.0) -> None:
    assert np.iscomplexobj(actual) == np.iscomplexobj(expected)
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert_close(np.real(actual), np.real(expected).astype(np.float64), tolerance, floor=1.0)
    assert_close(np.imag(actual), np.imag(expected).astype(np.float64), tolerance, floor=1.0)


@tw.op
def product(a: tw.Tile["... m k"], b: tw.Tile["... k n"]):
    return tw.sum(a * b, "k")


@tw.op
def mixture(x: tw.Tile["n"], y: tw.Tile["n"]):
    chosen = tw.where(tw.real(x) > 0, x, y)
    return x / y, x**3 - 1j * y, chosen, x**y, tw.mean(x), tw.sum(tw.abs(x) ** 2), x == y


@tw.op
def loss(x: tw.Tile["n"], y: tw.Tile["n"]):
    return tw.sum(tw.abs(x / y) + tw.real(tw.exp(x) * tw.conj(y)), "n")


@tw.op
def affine_product(a: tw.Tile["m k"], b: tw.Tile["k n"], c: tw.Tile["n"]):
    return product(a, b) + c


@tw.op
def phasor(r: tw.Tile["n"], t: tw.Tile["n"]):
    return tw.complex(r * tw.cos(t), r * tw.sin(t))


@tw.op
def shifted(z: tw.Tile["n"]):
    return z.at(n=tw.index("n") + 1, fill=2 + 3j)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_and_their_gradients(name: str):
    function = getattr(tw, name)

    def body(x: tw.Tile["n"]):
        return function(x)

    op = tw.op(body)
    z = 2 * drawn(53)
    same(op(z), getattr(np, name)(z))
    tensor = torch.tensor(z, requires_grad=True)
    result = getattr(torch, name)(tensor).resolve_conj()
    torch.manual_seed(0)
    cotangent = torch.randn_like(result)
    result.backward(cotangent)
    same(op.vjp(z, cotangent.numpy()), tensor.grad.resolve_conj().numpy(), 256)


@pytest.mark.parametrize("dtype", (np.complex128, np.complex64))
def test_contraction(dtype: type):
    a, b = drawn(2, 7, 19).astype(dtype), drawn(19, 5).astype(dtype)
    result = product(a, b)
    assert result.dtype == dtype
    same(result, a.astype(complex) @ b)
    same(product(a[:, ::-1, ::2], b[::2]), a[:, ::-1, ::2].astype(complex) @ b[::2])
    same(product(a, b.real.copy()), a.astype(complex) @ b.real)
    same(product(a[:, :0], b), a[:, :0].astype(complex) @ b)


def test_prebuilt_products():
    a, b = drawn(3, 5).astype(np.complex64), drawn(5, 4, seed=1).astype(np.complex64)
    expected = a.astype(complex) @ b
    for found in (kernels.matmul(a, b), kernels.matmul(tw.from_numpy(a), tw.from_numpy(b)).numpy()):
        assert found.dtype == np.complex64
        same(found, expected)


def test_a_complex_contraction_is_four_real_ones():
    op = product.with_pairs(frozenset({"a", "b"}))
    call = op.bind(op.arguments([np.zeros((4, 3, 2)), np.zeros((3, 5, 2))], {}))
    kinds = [k.kind for k in lower(call.program).kernels]
    assert kinds.count("contraction") == 4 and "row" not in kinds


def test_gradient_of_a_contraction():
    a, b, g = drawn(4, 3), drawn(3, 5, seed=1), drawn(4, 5, seed=2)
    tensors = [torch.tensor(v, requires_grad=True) for v in (a, b)]
    (tensors[0] @ tensors[1]).backward(torch.tensor(g))
    for found, tensor in zip(product.vjp(a, b, g), tensors, strict=True):
        same(found, tensor.grad.resolve_conj().numpy())


def test_arithmetic():
    x, y = drawn(7), drawn(7, seed=1)
    expected = (x / y, x**3 - 1j * y, np.where(x.real > 0, x, y), x**y, x.mean(), np.sum(abs(x) ** 2), x == y)
    for found, value in zip(mixture(x, y), expected, strict=True):
        same(found, value)
    for found, value in zip(mixture.reference(x, y), expected, strict=True):
        same(found, value)


def test_gradient_of_a_real_loss():
    x, y = drawn(9), drawn(9, seed=1)
    tensors = [torch.tensor(v, requires_grad=True) for v in (x, y)]
    one, two = tensors
    (one / two).abs().sum().add((one.exp() * two.conj()).real.sum()).backward()
    for found, tensor in zip(loss.grad(x, y), tensors, strict=True):
        same(found, tensor.grad.resolve_conj().numpy(), 256)


def test_gradient_of_the_absolute_value_at_0():
    @tw.op
    def size(z: tw.Tile["n"]):
        return tw.sum(tw.abs(z), "n")

    same(size.grad(np.array([0j, 3 + 4j])), np.array([0, 0.6 + 0.8j]))


def test_inlining_making_and_indexing():
    a, b, c = drawn(4, 3), drawn(3, 5), drawn(5)
    same(affine_product(a, b, c), a @ b + c)
    same(affine_product(a, b, c.real.copy()), a @ b + c.real)
    r, t = np.arange(3.0), np.arange(3.0) / 2
    same(phasor(r, t), r * np.exp(1j * t))
    same(shifted(c), np.append(c[1:], 2 + 3j))
    same(tw.vmap(product)(np.stack([a, 2 * a]), np.stack([b, b])), np.stack([a @ b, 2 * a @ b]))


def test_checks_and_explains_itself():
    a, b = drawn(4, 3), drawn(3, 5)
    assert "re_im" in product.explain(a, b)
    assert product.cost(a, b).forward.operations >= 8 * 4 * 3 * 5


def test_messages():
    @tw.op
    def largest(x: tw.Tile["n"]):
        return tw.max(x, "n")

    @tw.op
    def error_function(x: tw.Tile["n"]):
        return tw.erf(x)

    z = drawn(3)
    with pytest.raises(DTypeError, match=r"test_complex.py:\d+.*max has no meaning for complex"):
        largest(z)
    with pytest.raises(DTypeError, match="erf has no meaning for complex"):
        error_function(z)
    with pytest.raises(DerivativeError, match="gradient is that of a real result"):
        product.grad(drawn(2, 2), drawn(2, 2))
    with pytest.raises(AxisError, match="give yours another name"):
        tw.Tile["n re_im"]
