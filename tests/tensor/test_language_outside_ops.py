"""`tw.exp`, `tw.sum` and their kin on Tensors and NumPy arrays."""

import numpy as np
import pytest

import tilewright as tw
from tests.tensor.against_torch import draw
from tilewright.errors import ArgumentError, LanguageError


def test_functions_on_arrays_give_arrays():
    x = draw((3, 4), "float32", low=0.5)
    np.testing.assert_allclose(tw.exp(x), np.exp(x), rtol=1e-6)
    np.testing.assert_allclose(tw.maximum(x, 1.0), np.maximum(x, 1))
    np.testing.assert_allclose(tw.where(x > 1, x, 0.0), np.where(x > 1, x, 0))
    np.testing.assert_allclose(tw.clip(x, 0.7, 1), np.clip(x, 0.7, 1))
    np.testing.assert_allclose(tw.pow(x, 2), x**2, rtol=1e-6)
    assert isinstance(tw.sqrt(x), np.ndarray) and tw.sqrt(x).dtype == np.float32


def test_functions_on_tensors_give_tensors():
    x = tw.tensor(draw((3, 4)), requires_grad=True)
    y = tw.sum(tw.exp(x) * tw.square(x), dim=0)
    assert isinstance(y, tw.Tensor) and y.requires_grad and y.shape == (4,)
    y.sum().backward()
    value = x.detach().numpy()
    np.testing.assert_allclose(x.grad.numpy(), np.exp(value) * (value**2 + 2 * value))
    assert tw.stop_gradient(x).sum().item() == pytest.approx(value.sum())
    assert isinstance(tw.where(x > 0, x, np.zeros(4)), tw.Tensor)


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "prod", "var", "logsumexp", "any", "all"])
def test_reductions(name):
    x = draw((3, 4))
    theirs = {"logsumexp": lambda x, axis, keepdims: np.log(np.sum(np.exp(x), axis, keepdims=keepdims))}
    reference = theirs.get(name) or (
        lambda x, axis, keepdims: getattr(np, name)(x, axis=axis, keepdims=keepdims)
    )
    function = getattr(tw, name)
    for axis in (None, 0, -1, (0, 1)):
        for keepdim in (False, True):
            expected = reference(x, axis, keepdim)
            np.testing.assert_allclose(function(x, dim=axis, keepdim=keepdim), expected, rtol=1e-10)
            np.testing.assert_allclose(
                function(tw.tensor(x), axis, keepdims=keepdim).numpy(), expected, rtol=1e-10
            )
    np.testing.assert_allclose(tw.var(x, 0, correction=1), x.var(0, ddof=1))


def test_positions_and_conversion():
    x = draw((3, 4))
    np.testing.assert_array_equal(tw.argmax(x, axis=1), x.argmax(1))
    assert tw.argmin(tw.tensor(x)).item() == x.argmin()
    assert tw.cast(tw.tensor(x), tw.float16).dtype == tw.float16
    assert tw.cast(x, tw.int32).dtype == np.int32


def test_numbers_stay_numbers():
    assert tw.exp(0.0) == 1.0 and tw.maximum(1, 2) == 2


def test_refusals():
    with pytest.raises(ArgumentError, match="axis names"):
        tw.sum(tw.ones(3), "d")
    with pytest.raises(ArgumentError, match="no argument 'where'"):
        tw.sum(tw.ones(3), where=1)
    with pytest.raises(ArgumentError, match="list"):
        tw.sum([1, 2])
    with pytest.raises(ArgumentError, match="str"):
        tw.exp("a")

    @tw.op
    def mixed(x: tw.Tile["..."]):
        return x + tw.ones(3)

    with pytest.raises(LanguageError, match="pass arrays as Tile parameters"):
        mixed(np.ones(3, np.float32))
