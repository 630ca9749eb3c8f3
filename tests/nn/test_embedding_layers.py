"""Embeddings and bags of them against torch's modules."""

import numpy as np
import pytest
import torch

import tilewright as tw
from tests.tensor.against_torch import assert_close, compare, draw, to_torch
from tilewright import nn
from tilewright.errors import ArgumentError, ShapeError
from tilewright.nn import functional as F


def both(name, *inputs, **options):
    """A module and torch's with the same rows on the same inputs: results and gradients."""
    rows = draw((7, 5), "float32")
    ours = getattr(nn, name).from_pretrained(tw.tensor(rows), freeze=False, **options)
    theirs = getattr(torch.nn, name).from_pretrained(to_torch(rows), freeze=False, **options)
    mine = [None if x is None else tw.tensor(x, requires_grad=x.dtype.kind == "f") for x in inputs]
    other = [None if x is None else to_torch(x, x.dtype.kind == "f") for x in inputs]
    y, z = ours(*mine), theirs(*other)
    assert_close(y, z, 1e-5)
    cotangent = draw(y.shape, "float32", 3)
    y.backward(tw.tensor(cotangent))
    z.backward(to_torch(cotangent))
    assert_close(ours.weight.grad, theirs.weight.grad, 1e-5)
    for a, b in zip(mine, other, strict=True):
        if b is not None and b.grad is not None:
            assert_close(a.grad, b.grad, 1e-5)


@pytest.mark.parametrize("padding_idx", [None, 2, -1])
def test_embedding(padding_idx):
    both("Embedding", np.array([[0, 2, 6], [2, 2, 5]]), padding_idx=padding_idx)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding_idx", [None, 2])
def test_embedding_bag(mode, padding_idx):
    options = {"mode": mode, "padding_idx": padding_idx}
    both("EmbeddingBag", np.array([[0, 2, 6], [2, 2, 5]]), **options)
    ids = np.array([0, 2, 6, 2, 2, 5, 1])
    both("EmbeddingBag", ids, np.array([0, 3, 3, 5]), **options)
    both("EmbeddingBag", ids, np.array([0, 3, 7]), **options, include_last_offset=True)


def test_embedding_bag_with_weights():
    ids, weights = np.array([[0, 2, 6], [2, 2, 5]]), draw((2, 3), "float32", 8)
    both("EmbeddingBag", ids, None, weights, mode="sum")
    both("EmbeddingBag", ids.reshape(-1), np.array([0, 4]), weights.reshape(-1), mode="sum")


def test_positional_arguments_are_torchs():
    """Of a call with all of them by position."""
    rows, ids = draw((7, 5), "float32"), np.array([0, 2, 6, 2, 2, 5, 1])
    arguments = (np.array([0, 3, 7]), None, 2.0, False, "sum", False, draw((7,), "float32", 8), True, 2)

    def call(function, convert):
        given = (convert(a) if isinstance(a, np.ndarray) else a for a in arguments)
        return lambda weight: function(convert(ids), weight, *given)

    compare(call(F.embedding_bag, tw.tensor), call(torch.nn.functional.embedding_bag, torch.tensor), rows)
    with pytest.raises(ArgumentError, match="there are no sparse Tensors"):
        nn.Embedding(7, 5, sparse=True)(tw.tensor(ids))
    with pytest.raises(ArgumentError, match="there are no sparse Tensors"):
        F.embedding_bag(tw.tensor(ids), tw.tensor(rows), tw.tensor(arguments[0]), sparse=True)


def test_one_hot():
    ids = np.array([[0, 2], [5, 1]])
    for classes in (-1, 8):
        wanted = torch.nn.functional.one_hot(torch.tensor(ids), classes).numpy()
        np.testing.assert_array_equal(F.one_hot(tw.tensor(ids), classes).numpy(), wanted)


def test_state_and_first_values():
    tw.manual_seed(0)
    layer = nn.Embedding(500, 40, padding_idx=3)
    values = layer.weight.detach().numpy()
    assert not values[3].any() and abs(values.std() - 1) < 0.02
    assert list(layer.state_dict()) == list(torch.nn.Embedding(5, 4).state_dict())
    assert repr(layer) == "Embedding(500, 40, padding_idx=3)"
    assert not nn.Embedding.from_pretrained(tw.ones(3, 2)).weight.requires_grad


def test_the_padding_is_not_trained():
    tw.manual_seed(0)
    layer = nn.Embedding(6, 4, padding_idx=0)
    optimizer = tw.optim.SGD(layer.parameters(), lr=0.1)
    before = layer.weight.detach().numpy().copy()
    (layer(tw.tensor(np.array([0, 1, 1]))) - 1).square().sum().backward()
    optimizer.step()
    moved = np.any(layer.weight.detach().numpy() != before, axis=1)
    assert list(moved) == [False, True, False, False, False, False]


@pytest.mark.exhaustive
@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("name", ["Embedding", "EmbeddingBag"])
def test_rows_that_are_read_are_shortened_in_place(name: str, norm_type: float):
    rows, ids = draw((6, 4)), np.array([[1, 2, 1], [5, 0, 0]])
    options = {"max_norm": 1.5, "norm_type": norm_type}
    theirs = getattr(torch.nn, name)(6, 4, **options)
    theirs.weight.data = to_torch(rows)
    ours = getattr(nn, name)(6, 4, dtype="float64", **options)
    ours.weight.data.copy_(tw.tensor(rows))
    found, expected = ours(tw.tensor(ids)), theirs(torch.tensor(ids))
    assert_close(found, expected, 1e-10)
    found.square().sum().backward()
    expected.square().sum().backward()
    assert_close(ours.weight.grad, theirs.weight.grad, 1e-10)
    assert_close(ours.weight, theirs.weight, 1e-10)
    assert np.array_equal(ours.weight.detach().numpy()[3:5], rows[3:5])


def test_refusals():
    with pytest.raises(ArgumentError, match="padding_idx 7 is none of the 7 rows"):
        nn.Embedding(7, 2, padding_idx=7)
    with pytest.raises(ArgumentError, match="a matrix has one bag a row"):
        F.embedding_bag(tw.tensor(np.zeros((2, 2), int)), tw.ones(3, 2), tw.tensor(np.array([0])))
    with pytest.raises(ShapeError, match="a vector with offsets"):
        F.embedding_bag(tw.tensor(np.zeros(2, int)), tw.ones(3, 2))
    with pytest.raises(ShapeError, match="a matrix with a row for each index"):
        nn.Embedding.from_pretrained(tw.ones(3))


@pytest.mark.parametrize("padding", [None, 1])
def test_gradients_divided_by_how_often_a_row_is_read(padding):
    ids = np.array([[1, 1, 2], [5, 1, 0], [2, 4, 4]])
    options = {"padding_idx": padding, "scale_grad_by_freq": True}
    table = draw((6, 4))
    compare(
        lambda w: F.embedding(tw.tensor(ids), w, **options),
        lambda w: torch.nn.functional.embedding(torch.tensor(ids), w, **options),
        table,
    )
    # torch's own backward of bags takes another row's count; its embedding, reduced, is what is meant
    for mode in ("sum", "mean"):
        compare(
            lambda w, mode=mode: F.embedding_bag(tw.tensor(ids), w, mode=mode, scale_grad_by_freq=True),
            lambda w, mode=mode: getattr(
                torch.nn.functional.embedding(torch.tensor(ids), w, scale_grad_by_freq=True), mode
            )(1),
            table,
        )
    with pytest.raises(ArgumentError, match="scale_grad_by_freq is for the modes"):
        F.embedding_bag(tw.tensor(ids), tw.tensor(table), mode="max", **options)
