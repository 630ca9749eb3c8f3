"""Complex Tensors: values and gradients against torch, to the second order, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import tilewright as tw
from tests.support.checks import assert_close
from tilewright.errors import DerivativeError, DTypeError


def drawn(*shape: int, seed: int = 0, dtype: Any = np.complex128) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)


def same(actual: Any, expected: Any, tolerance: float = 64.0) -> None:
    actual = actual.detach().numpy()
    expected = expected.detach().resolve_conj().numpy()
    assert actual.dtype == expected.dtype
    for part in (np.real, np.imag):
        assert_close(part(actual), np.asarray(part(expected), np.float64), tolerance, floor=1.0)


@tw.op
def projected(a: tw.Tile["... m k"], b: tw.Tile["... k n"]):
    return tw.sum(tw.exp(a) * tw.conj(b), "k")


EXPRESSIONS: dict[str, Callable[[Any, Any], Any]] = {
    "product": lambda z, w: z @ w,
    "arithmetic": lambda z, w: (2 * z - 1j) / (z + 3) + z * z,
    "conjugate": lambda z, w: z.conj() * z,
    "parts": lambda z, w: z.real * z.imag,
    "abs": lambda z, w: z.abs(),
    "angle": lambda z, w: z.angle(),
    "mean": lambda z, w: z.mean() * z.sum(1),
    "power": lambda z, w: z**3,
    "functions": lambda z, w: z.exp() + z.sin() * z.tanh(),
    "views": lambda z, w: z.reshape(5, 4).transpose(0, 1)[1:, ::2] * 1j,
    "broadcast": lambda z, w: z[:1] * z[:, :1],
    "with real": lambda z, w: z.real * w.sum() + z.imag,
}


@pytest.mark.parametrize("name", EXPRESSIONS)
@pytest.mark.parametrize(
    "dtype", [pytest.param(np.complex64, marks=pytest.mark.exhaustive), np.complex128], ids=["c64", "c128"]
)
def test_values_and_gradients_are_torchs(name: str, dtype: Any):
    arrays = drawn(4, 5, dtype=dtype), drawn(5, 3, seed=1, dtype=dtype)
    mine = [tw.tensor(a, requires_grad=True) for a in arrays]
    peer = [torch.tensor(a, requires_grad=True) for a in arrays]
    value, expected = EXPRESSIONS[name](*mine), EXPRESSIONS[name](*peer)
    same(value, expected)
    cotangent = drawn(*value.shape, seed=2, dtype=dtype)
    cotangent = cotangent if value.is_complex() else cotangent.real.copy()
    value.backward(tw.tensor(cotangent))
    expected.backward(torch.tensor(cotangent))
    for tensor, other in zip(mine, peer, strict=True):
        assert (tensor.grad is None) == (other.grad is None)
        if tensor.grad is not None:
            same(tensor.grad, other.grad, 512)


def test_second_derivatives_are_torchs():
    z = drawn(3, 4)
    mine, peer = tw.tensor(z, requires_grad=True), torch.tensor(z, requires_grad=True)
    (first,) = tw.grad((mine * mine * mine.conj()).abs().sum(), mine, create_graph=True)
    (other,) = torch.autograd.grad((peer * peer * peer.conj()).abs().sum(), peer, create_graph=True)
    same(first, other)
    (second,) = tw.grad((first.abs() * first.real).sum(), mine)
    (expected,) = torch.autograd.grad((other.abs() * other.real).sum(), peer)
    same(second, expected, 1024)


def test_an_op_of_ones_own_and_its_derivative_op():
    a, b = drawn(2, 3, 4), drawn(4, 5, seed=1)
    y = projected(tw.tensor(a), tw.tensor(b))
    np.testing.assert_allclose(y.numpy(), np.exp(a) @ b.conj(), rtol=1e-12)
    d_a, d_b = projected.vjp(tw.tensor(a), tw.tensor(b), y)
    for mine, array in zip((d_a, d_b), projected.vjp(a, b, y.numpy()), strict=True):
        assert mine.dtype == tw.complex128
        np.testing.assert_array_equal(mine.numpy(), array)


def test_descending_a_complex_parameter():
    """min |z - c|², by its gradient 2 (z - c), the direction of steepest ascent."""
    aim = drawn(5)
    z = tw.tensor(np.zeros(5, np.complex128), requires_grad=True)
    for _ in range(60):
        z.grad = None
        ((z - tw.tensor(aim)).abs() ** 2).sum().backward()
        assert z.grad is not None
        with tw.no_grad():
            z -= z.grad * 0.2
    np.testing.assert_allclose(z.detach().numpy(), aim, atol=1e-8)


def test_dtypes_meet_as_numpys():
    z = tw.tensor([1 + 2j, 3])
    assert z.dtype == tw.complex64  # Python's numbers become the narrower type, as floats do
    assert (z * 2).dtype == (z + 1j).dtype == (z * tw.ones(2)).dtype == tw.complex64
    assert (z * tw.ones(2, dtype=tw.float64)).dtype == tw.complex128
    assert (tw.ones(2) * 1j).dtype == tw.complex64
    assert (tw.ones(2, dtype="float64") * 1j).dtype == tw.complex128
    assert z.abs().dtype == z.real.dtype == tw.float32
    assert z.to(tw.complex128).dtype == tw.complex128
    assert tw.ones(2).to("complex64").tolist() == [1, 1]
    assert tw.zeros(2, dtype=tw.complex128).numpy().dtype == np.complex128
    assert (z == z).dtype == tw.bool_


def test_the_language_outside_of_ops():
    z = drawn(3, 4)
    for name in ("real", "imag", "conj", "angle", "exp", "abs"):
        expected = getattr(np, name)(z)
        np.testing.assert_allclose(getattr(tw, name)(z), expected, rtol=1e-12)
        np.testing.assert_allclose(getattr(tw, name)(tw.tensor(z)).numpy(), expected, rtol=1e-12)
    np.testing.assert_array_equal(tw.complex(tw.tensor(z.real), tw.tensor(z.imag)).numpy(), z)
    np.testing.assert_array_equal(tw.complex(z.real, z.imag), z)


def test_in_place_and_by_element():
    z = tw.tensor(drawn(3, 2))
    z[0] = 2j
    z += 1
    z *= 1j
    assert z[0, 1].item() == -2 + 1j


def test_no_elements_and_no_dimensions():
    empty = tw.tensor(np.zeros((0, 2), np.complex64))
    assert (empty * 1j).shape == empty.abs().shape == (0, 2)
    assert (empty.sum() + 1).item() == 1
    assert (tw.tensor(2j) * tw.tensor(3j)).item() == -6


def test_what_has_no_meaning_is_refused():
    z = tw.tensor(drawn(3), requires_grad=True)
    with pytest.raises(DerivativeError, match="a gradient is that of a real number"):
        z.sum().backward()
    with pytest.raises(DTypeError, match=r"test_complex_tensors.py:\d+: op 'convert': .* imaginary part"):
        z.to(tw.float32)
    with pytest.raises(DTypeError, match=r"test_complex_tensors.py:\d+: op 'max': max has no meaning"):
        z.max()
    with pytest.raises(DTypeError, match=r"test_complex_tensors.py:\d+: op 'lt': lt has no meaning"):
        _ = z < z
    with pytest.raises(DTypeError, match=r"pass data\.real"):
        tw.tensor(drawn(3), dtype=tw.float32)
    with pytest.raises(DTypeError, match="add complex ones"):
        tw.complex(z, z)

    @tw.op
    def casting(x: tw.Tile["n"]):
        return tw.cast(x, tw.complex64)

    with pytest.raises(DTypeError, match=r"write tw\.complex"):
        casting(np.ones(3))
