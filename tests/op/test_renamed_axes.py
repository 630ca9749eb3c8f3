"""Ops that read an operand under a second axis name, as in a Gram matrix."""

import numpy as np
import pytest

import tilewright as tw


@tw.op
def gram(x: tw.Tile["i d"]):
    return tw.sum(x * x["j d"], "d")


@tw.op
def self_attention(x: tw.Tile["i d"]):
    scores = tw.sum(x * x["j d"], "d")
    p = tw.exp(scores - tw.max(scores, "j"))
    return tw.sum(p / tw.sum(p, "j") * x["j d"], "j")


@pytest.mark.parametrize("shape", [(3, 4), (37, 65)], ids=str)
@pytest.mark.parametrize("op", [gram, self_attention], ids=lambda op: op.name)
def test_values_and_gradients(op, shape):
    random = np.random.default_rng(0)
    x = 0.3 * random.standard_normal(shape)
    y = op(x)
    np.testing.assert_allclose(y, op.reference(x), rtol=1e-12, atol=1e-13)
    d_y = random.standard_normal(y.shape)
    np.testing.assert_allclose(op.vjp(x, d_y), op.vjp.reference(x, d_y), rtol=1e-12, atol=1e-13)
    step = 1e-5
    t = random.standard_normal(shape)
    slope = (op(x + step * t) - op(x - step * t)) / (2 * step)
    np.testing.assert_allclose(op.jvp(x, t), slope, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose((op.vjp(x, d_y) * t).sum(), (d_y * slope).sum(), rtol=1e-7)
