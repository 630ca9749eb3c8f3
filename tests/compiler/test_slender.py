"""Contractions in which a side or the sum has one position: what they become, and that it is right."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tilewright.compiler.pipeline import lower
from tilewright.compiler.slender import reshaped


@tw.op
def product(a: tw.Tile["... m k"], b: tw.Tile["... k n"]):
    return tw.sum(a * b, "k")


@tw.op
def layer(a: tw.Tile["m k"], b: tw.Tile["n k"], bias: tw.Tile["n"], other: tw.Tile["m n"]):
    """Sides with work of their own, and an epilogue that reads along both."""
    return tw.tanh(tw.sum(tw.exp(-a * a) * b, "k") + bias) * other


@tw.op
def two_sums(a: tw.Tile["m k l"], b: tw.Tile["k l n"]):
    return tw.sum(a * b, ("k", "l"))


@tw.op
def filtered(x: tw.Tile["c h"], f: tw.Tile["o c r"]):
    """A convolution along h."""
    window = x.at(h=tw.index("h") + tw.index("r") - 1, fill=0)
    return tw.sum(window * f, ("c", "r"))


SIZES = [(1, 9, 20), (40, 9, 1), (40, 1, 20), (1, 33, 1), (1, 1, 20), (1, 1, 1), (40, 1025, 1), (1, 1025, 40)]


def draw(*shapes: tuple[int, ...], kind: type = np.float32) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(s).astype(kind) for s in shapes]


def assert_right(op: tw.Op, arrays: list[np.ndarray], tolerance: float = 2e-5) -> None:
    actual = np.asarray(op(*arrays), np.float64)
    np.testing.assert_allclose(actual, op.reference(*arrays), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_products(sizes: tuple[int, int, int]):
    m, k, n = sizes
    a, b = draw((m, k), (k, n))
    for left in (a, np.asfortranarray(a)):
        for right in (b, np.asfortranarray(b)):
            assert_right(product, [left, right])
    assert_right(product, draw((3, m, k), (3, k, n)))
    assert_right(layer, draw((m, k), (n, k), (n,), (m, n)))
    assert_right(two_sums, draw((m, k, 2), (k, 2, n)))
    assert_right(two_sums, draw((m, k, 1), (k, 1, n)))


@pytest.mark.parametrize("kind", [np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("sizes", SIZES[:4], ids=str)
def test_dtypes(sizes: tuple[int, int, int], kind: type):
    m, k, n = sizes
    tolerance = {np.float64: 1e-12, np.float16: 2e-2}.get(kind, 1e-1)
    assert_right(product, draw((m, k), (k, n), kind=kind), tolerance)


@pytest.mark.parametrize("channels", [(1, 1), (5, 1), (1, 5)], ids=str)
def test_computed_positions(channels: tuple[int, int]):
    inside, outside = channels
    assert_right(filtered, draw((inside, 30), (outside, inside, 3)))


def test_derivatives():
    """The gradients of a product with a vector are one such product and an outer one."""
    for m, k, n in SIZES[:4]:
        a, b, dy = draw((m, k), (k, n), (m, n))
        da, db = _gradients(a, b, dy)
        np.testing.assert_allclose(da, dy @ b.T, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(db, a.T @ dy, rtol=1e-4, atol=1e-4)


def _gradients(a: np.ndarray, b: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    left, right = tw.tensor(a, requires_grad=True), tw.tensor(b, requires_grad=True)
    product(left, right).backward(tw.tensor(dy))
    assert left.grad is not None and right.grad is not None
    return left.grad.numpy(), right.grad.numpy()


def test_a_result_over_an_operand():
    a, b, bias, other = draw((1, 33), (20, 33), (20,), (1, 20))
    expected = layer(a, b, bias, other)
    np.testing.assert_array_equal(layer(a, b, bias, other, out=other), expected)


@pytest.mark.parametrize(
    ("sizes", "kind", "single"),
    [
        ((4, 5, 6), "contraction", ()),
        ((1, 5, 6), "row", ("m",)),
        ((4, 5, 1), "row", ("n",)),
        ((4, 1, 6), "pointwise", ("k",)),
        ((1, 5, 1), "row", ("m", "n")),
        ((1, 1, 1), "pointwise", ("m", "n", "k")),
    ],
)
def test_forms(sizes: tuple[int, int, int], kind: str, single: tuple[str, ...]):
    call = product.bind(product.arguments(tuple(draw((4, 5), (5, 6))), {}))
    (kernel,) = lower(call.program).kernels
    form = reshaped(kernel, dict(zip("mkn", sizes, strict=True)))
    assert (form.kind, form.single) == (kind, single)
    assert form.inputs == kernel.inputs
    assert form.axes() != () and set(form.axes()) == set(kernel.axes())


def test_explain_shows_the_form():
    text = product.explain((1, 5), (5, 6))
    forward = text[text.index("Forward") : text.index("Derivation")]
    assert "row kernel" in forward and "contraction" not in forward
