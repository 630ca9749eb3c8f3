"""Ops that read an operand under a second axis name, as in a Gram matrix."""

import numpy as np
import pytest

import tilewright as tw
from tilewright.errors import ShapeError


@tw.op
def gram(x: tw.Tile["i d"]):
    return tw.sum(x * x["j d"], "d")


@tw.op
def self_attention(x: tw.Tile["i d"]):
    scores = tw.sum(x * x["j d"], "d")
    p = tw.exp(scores - tw.max(scores, "j"))
    return tw.sum(p / tw.sum(p, "j") * x["j d"], "j")


@tw.op
def differences(x: tw.Tile["n d"], ids: tw.Tile["n"]) -> tw.Tile["r q d"]:
    """Of all pairs of sums, which run along an axis that no operand has."""
    sums = tw.scatter_add(x, {"r": ids}, 4)
    return sums - sums["q d"]


@tw.op
def beside(x: tw.Tile["n d"], ids: tw.Tile["n"]):
    return x + tw.scatter_add(x, {"r": ids}, 4)["n d"]


@tw.op
def positions(x: tw.Tile["n d"]):
    return x * tw.cast(tw.index("n"), x.dtype)["d"]


@tw.op
def product(a: tw.Tile["n"], b: tw.Tile["n"]):
    return a * b


@tw.op
def inlined(x: tw.Tile["n"], ids: tw.Tile["n"]):
    return product(tw.scatter_add(x, {"r": ids}, 4), x)


def test_a_second_name_of_an_axis_that_no_operand_has():
    x, ids = np.random.default_rng(0).standard_normal((9, 3)), np.arange(9) % 4
    sums = np.stack([x[ids == r].sum(0) for r in range(4)])
    np.testing.assert_allclose(differences(x, ids), sums[:, None] - sums, rtol=1e-12)
    d_y = np.random.default_rng(1).standard_normal((4, 4, 3))
    np.testing.assert_allclose(differences.vjp(x, ids, d_y), (d_y.sum(1) - d_y.sum(0))[ids], rtol=1e-12)


@pytest.mark.parametrize(
    ("op", "rows", "message"),
    [(beside, 9, "a tile along 'r', which has 4 positions, is read along 'n', which has 9"),
     (positions, 5, r"along 'n', which has 5.*along 'd', which has 3.*y\.at\(n=…\)"),
     (inlined, 9, "along 'n', which has 9 positions, is read along 'r', which has 4")],
    ids=lambda value: getattr(value, "name", None),
)  # fmt: skip
def test_names_of_another_extent_are_refused(op, rows, message):
    """And are not read beyond their end, or cut."""

    def arguments(rows):
        x = np.ones((rows, 3) if op is not inlined else rows)
        return (x,) if len(op.tiles) == 1 else (x, np.arange(rows) % 4)

    with pytest.raises(ShapeError, match=rf"test_renamed_axes\.py:\d+: op '{op.name}': .*{message}"):
        op(*arguments(rows))
    fits = 3 if op is positions else 4
    assert op(*arguments(fits)).shape == arguments(fits)[0].shape


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
