"""Run-time scalars of ops that are given as Tensors: read where they lie, and differentiated."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tilewright.errors import ArgumentError, DTypeError, ShapeError

RNG = np.random.default_rng(12)


@tw.op
def scaled(x: tw.Tile["... d"], *, by: tw.Scalar = 2.0, power: tw.Scalar = 1.0):
    return tw.sin(x) * by**power


@tw.op
def shifted(x: tw.Tile["d"], *, by: tw.Scalar["int64"] = 1):
    return x.at(d=tw.index("d") + by)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("of", ["float64", "float32", "int32"])
def test_they_are_what_numbers_are(device, dtype, of):
    """Whatever their dtype, results have that of the other operands."""
    for place in ("cpu", device):
        x = tw.tensor(RNG.standard_normal((3, 4)), dtype=dtype, device=place)
        by, power = tw.tensor(3, dtype=of, device=place), tw.tensor(2, dtype=of, device=place)
        expected = scaled(x, by=3.0, power=2.0)
        for given in ({"by": by, "power": power}, {"by": by, "power": 2.0}, {"by": 3.0, "power": power}):
            found = scaled(x, **given)
            assert found.dtype == x.dtype and found.device == x.device
            np.testing.assert_array_equal(found.cpu().numpy(), expected.cpu().numpy())


def test_no_value_is_frozen(device):
    x, by = tw.tensor(RNG.standard_normal(5), device=device), tw.full((), 2.0, device=device)
    first = scaled(x, by=by)
    by.fill_(5.0)
    np.testing.assert_allclose(scaled(x, by=by).cpu().numpy(), first.cpu().numpy() * 2.5, rtol=1e-12)


def test_they_are_differentiated():
    x = tw.tensor(RNG.standard_normal((3, 4)), requires_grad=True)
    by = tw.tensor(3.0, dtype="float64", requires_grad=True)
    scaled(x, by=by, power=2.0).sum().backward()
    np.testing.assert_allclose(by.grad.numpy(), 6 * np.sin(x.detach().numpy()).sum())
    np.testing.assert_allclose(x.grad.numpy(), 9 * np.cos(x.detach().numpy()))


def test_whole_numbers():
    x = tw.tensor(np.arange(5.0))
    np.testing.assert_array_equal(shifted(x, by=tw.tensor(2)).numpy(), [2, 3, 4, 0, 0])
    with pytest.raises(DTypeError, match=r"'by' is a whole number of int64.*\.astype\('int64'\)"):
        shifted(x, by=tw.tensor(2.0))


def test_what_cannot_be_a_tensor_is_named():
    x = tw.tensor(np.arange(5.0))
    with pytest.raises(ArgumentError, match=r"'by'.*only a call of the op itself.*pass a number here"):
        scaled.vjp(x, x, by=tw.tensor(2.0))
    with pytest.raises(ShapeError, match=r"by is .* needs 0 dimensions"):
        scaled(x, by=tw.tensor([2.0]))
