"""Norms with running statistics, in groups and of rows, against torch's modules; training and evaluation."""

import numpy as np
import pytest
import torch

import tilewright as tw
from tests.nn.test_layers import compare_module
from tests.tensor.against_torch import assert_close, compare, draw, to_torch
from tilewright import nn
from tilewright.errors import ArgumentError, ShapeError
from tilewright.nn import functional as F

T = torch.nn.functional
BATCHES = [
    ("BatchNorm1d", (6, 4)), ("BatchNorm1d", (3, 4, 5)), ("BatchNorm2d", (2, 4, 3, 5)),
    ("BatchNorm3d", (2, 4, 3, 2, 2)), ("InstanceNorm1d", (3, 4, 5)), ("InstanceNorm1d", (4, 5)),
    ("InstanceNorm2d", (2, 4, 3, 5)), ("InstanceNorm3d", (2, 4, 3, 2, 2)),
]  # fmt: skip


def pair(name, *arguments, **options):
    """A module and torch's, with the same parameters, none of them at its initial value."""
    ours, theirs = getattr(nn, name)(*arguments, **options), getattr(torch.nn, name)(*arguments, **options)
    for number, parameter in enumerate(ours.parameters()):
        parameter.data.copy_(draw(parameter.shape, "float32", number, 0.5, 2))
    theirs.load_state_dict({n: to_torch(t.numpy()) for n, t in ours.state_dict().items()})
    return ours, theirs


@pytest.mark.parametrize(("name", "shape"), BATCHES, ids=str)
def test_training_then_evaluation(name, shape):
    ours, theirs = pair(name, 4, affine=True, track_running_stats=True)
    for seed in range(2):
        compare_training(ours, theirs, draw(shape, "float32", seed))
    ours.eval(), theirs.eval()
    compare_training(ours, theirs, draw(shape, "float32", 2))


def compare_training(ours, theirs, x):
    """Results, gradients, and the state afterwards."""
    for module in (ours, theirs):
        module.zero_grad()
    mine, other = tw.tensor(x, requires_grad=True), to_torch(x, True)
    y, z = ours(mine), theirs(other)
    assert_close(y, z, 1e-4)
    cotangent = draw(x.shape, "float32", 7)
    y.backward(tw.tensor(cotangent))
    z.backward(to_torch(cotangent))
    assert_close(mine.grad, other.grad, 2e-4)
    for (n, a), (m, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert n == m
        assert_close(a.grad, b.grad, 2e-4)
    state, wanted = ours.state_dict(), theirs.state_dict()
    assert list(state) == list(wanted)
    for n in state:
        assert_close(state[n], wanted[n], 1e-5)


@pytest.mark.parametrize(
    "options", [{"momentum": None}, {"affine": False}, {"track_running_stats": False}], ids=str
)
def test_options_of_batch_norm(options):
    ours, theirs = pair("BatchNorm1d", 4, **options)
    for seed in range(3):
        compare_training(ours, theirs, draw((6, 4), "float32", seed))
    ours.eval(), theirs.eval()
    compare_training(ours, theirs, draw((6, 4), "float32", 9))


def test_a_step_of_training_moves_as_torch_does():
    ours = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    theirs = torch.nn.Sequential(
        torch.nn.Linear(5, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    )
    theirs.load_state_dict({n: to_torch(t.numpy()) for n, t in ours.state_dict().items()})
    x, target = draw((16, 5), "float32"), np.arange(16) % 3
    mine, other = tw.optim.SGD(ours.parameters(), lr=0.1), torch.optim.SGD(theirs.parameters(), lr=0.1)
    for _ in range(3):
        for optimizer in (mine, other):
            optimizer.zero_grad()
        nn.CrossEntropyLoss()(ours(tw.tensor(x)), tw.tensor(target)).backward()
        torch.nn.CrossEntropyLoss()(theirs(to_torch(x)), torch.tensor(target)).backward()
        mine.step(), other.step()
    for name, value in ours.state_dict().items():
        assert_close(value, theirs.state_dict()[name], 1e-4)


def test_half_precision_keeps_its_dtype_and_the_statistics_theirs():
    x = tw.tensor(draw((6, 4), "float16"), requires_grad=True)
    layer = nn.BatchNorm1d(4)
    y = layer(x)
    y.sum().backward()
    assert y.dtype.name == x.grad.dtype.name == "float16"
    assert layer.running_mean.dtype.name == layer.weight.grad.dtype.name == "float32"


@pytest.mark.parametrize("shape", [(3, 12), (2, 12, 5), (2, 12, 3, 2)], ids=str)
@pytest.mark.parametrize("affine", [True, False])
def test_group_norm(shape, affine):
    compare_module(*pair("GroupNorm", 3, 12, affine=affine), draw(shape, "float32"), relative=1e-4)


@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [("BatchNorm1d", (4,), (6, 4)), ("BatchNorm2d", (4,), (2, 4, 3, 2)), ("GroupNorm", (2, 4), (3, 4, 5)),
     ("InstanceNorm1d", (4, 1e-5, 0.1, True), (3, 4, 5)), ("LayerNorm", (5,), (3, 5))],
    ids=str,
)  # fmt: skip
def test_without_a_bias(name, arguments, shape):
    ours, theirs = pair(name, *arguments, bias=False)
    assert ours.bias is None and [n for n, _ in ours.named_parameters()] == ["weight"]
    compare_training(ours, theirs, draw(shape, "float32"))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_rows(p):
    x, z = draw((3, 4, 5)), draw((3, 4, 5), seed=1)
    compare(lambda x: F.normalize(x, p, 0), lambda x: T.normalize(x, p, 0), x)
    ours, theirs = nn.PairwiseDistance(p, keepdim=True), torch.nn.PairwiseDistance(p, keepdim=True)
    compare(ours, theirs, x, z)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_cosine_similarity(dim):
    ours, theirs = nn.CosineSimilarity(dim), torch.nn.CosineSimilarity(dim)
    compare(ours, theirs, draw((3, 4, 5)), draw((3, 4, 5), seed=1))


def test_refusals():
    with pytest.raises(ShapeError, match=r"BatchNorm2d\(4\) takes 4 dimensions, 4 channels among them"):
        nn.BatchNorm2d(4)(tw.ones(2, 3, 4, 4))
    with pytest.raises(ShapeError, match="a variance needs more than one value a channel"):
        nn.BatchNorm1d(4)(tw.ones(1, 4))
    with pytest.raises(ShapeError, match="a variance needs more than one position"):
        nn.InstanceNorm1d(4)(tw.ones(2, 4, 1))
    with pytest.raises(ArgumentError, match="6 channels are not 4 groups of equally many"):
        nn.GroupNorm(4, 6)
    with pytest.raises(ArgumentError, match="running_mean, running_var"):
        tw.kernels.batch_norm(np.ones((2, 3, 4), np.float32), training=False)
