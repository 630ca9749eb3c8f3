"""`tw.exp`, `tw.sum` and their kin on Tensors and NumPy arrays."""

import numpy as np
import pytest

import tilewright as tw
from tests.tensor.against_torch import compare, draw
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


ALONG = {
    "cumsum": np.cumsum,
    "cumprod": np.cumprod,
    "cummax": np.maximum.accumulate,
    "cummin": np.minimum.accumulate,
    "logcumsumexp": np.logaddexp.accumulate,
    "sort": np.sort,
    "argsort": np.argsort,
}


@pytest.mark.parametrize("name", ALONG)
def test_along_one_dimension(name):
    x = draw((3, 4, 5))
    function, method = getattr(tw, name), getattr(tw.Tensor, name)
    for dim in (0, 1, -1):
        expected = ALONG[name](x, axis=dim)
        for found in (function(x, dim), function(x, axis=dim)):
            assert isinstance(found, np.ndarray)
            np.testing.assert_allclose(found, expected, rtol=1e-12)
        for found in (function(tw.tensor(x), dim=dim), method(tw.tensor(x), dim)):
            assert isinstance(found, tw.Tensor)
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_scans_in_reverse():
    x = draw((3, 4))
    np.testing.assert_allclose(tw.cumsum(x, 0, reverse=True), x[::-1].cumsum(0)[::-1])
    np.testing.assert_allclose(tw.tensor(x).cumsum(0, reverse=True).numpy(), x[::-1].cumsum(0)[::-1])
    np.testing.assert_allclose(tw.cumsum(x, 1, exclusive=True)[:, 1:], x.cumsum(1)[:, :-1])
    np.testing.assert_array_equal(tw.argcummax(np.array([1.0, 3, 2, 3]), 0), [0, 1, 1, 3])


def test_ranks():
    x = draw((3, 5))
    values, where = tw.topk(x, 2, 0)
    np.testing.assert_allclose(values, -np.sort(-x, 0)[:2])
    np.testing.assert_allclose(np.take_along_axis(x, where, 0), values)
    smallest, _ = tw.tensor(x).topk(2, largest=False)
    np.testing.assert_allclose(smallest.numpy(), np.sort(x, 1)[:, :2])
    np.testing.assert_allclose(tw.median(x, 1), np.median(x, 1))
    np.testing.assert_allclose(tw.median(x), np.median(x))
    assert tw.tensor(x).median(0, keepdim=True).shape == (1, 5)
    np.testing.assert_allclose(
        tw.quantile(x, 0.3, dim=1, keepdim=True), np.quantile(x, 0.3, 1, keepdims=True)
    )
    np.testing.assert_allclose(tw.sort(x, descending=True), -np.sort(-x))


def test_gradients_along_one_dimension():
    for ours, theirs in (
        (lambda x: x.cumsum(0), lambda x: x.cumsum(0)),
        (lambda x: x.cumprod(1), lambda x: x.cumprod(1)),
        (lambda x: tw.cummax(x, 1), lambda x: x.cummax(1).values),
        (lambda x: x.logcumsumexp(0), lambda x: x.logcumsumexp(0)),
        (lambda x: x.sort(0), lambda x: x.sort(0).values),
        (lambda x: x.topk(2, 0)[0], lambda x: x.topk(2, 0).values),
        (lambda x: x.median(1), lambda x: x.median(1).values),
    ):
        compare(ours, theirs, draw((3, 5)))


def test_numbers_stay_numbers():
    assert tw.exp(0.0) == 1.0 and tw.maximum(1, 2) == 2


def test_refusals():
    with pytest.raises(ArgumentError, match="axis names"):
        tw.sum(tw.ones(3), "d")
    with pytest.raises(ArgumentError, match="no argument 'where'"):
        tw.sum(tw.ones(3), where=1)
    with pytest.raises(ArgumentError, match="list"):
        tw.sum([1, 2])
    with pytest.raises(
        ArgumentError, match=r"'cumsum' runs along one dimension; say which, as in tw.cumsum\(x"
    ):
        tw.cumsum(tw.ones(3))
    with pytest.raises(ArgumentError, match=r"no argument 'descend'; it takes dim, descending"):
        tw.sort(tw.ones(3), descend=True)
    with pytest.raises(ArgumentError, match=r"q is a number"):
        tw.quantile(tw.ones(3), [0.1, 0.2])
    with pytest.raises(ArgumentError, match="str"):
        tw.exp("a")

    @tw.op
    def mixed(x: tw.Tile["..."]):
        return x + tw.ones(3)

    with pytest.raises(LanguageError, match="pass arrays as Tile parameters"):
        mixed(np.ones(3, np.float32))
