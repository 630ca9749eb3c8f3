"""Losses and activations as modules, with their options, against torch's."""

import numpy as np
import pytest
import torch

import tilewright as tw
from tests.nn.test_layers import compare_module
from tests.tensor.against_torch import compare, draw
from tilewright import nn
from tilewright.errors import ShapeError
from tilewright.nn import functional as F

T = torch.nn.functional
REDUCTIONS = ["mean", "sum", "none"]
X, Z = draw((4, 5)), draw((4, 5), seed=1)
SHARES = draw((4, 5), seed=2, low=0.05, high=0.95)
SIGNS = np.where(draw((4, 5), seed=3) > 0, 1.0, -1.0)
CLASSES = np.array([1, 0, 4, 2])
WEIGHT = draw((5,), seed=4, low=0.5, high=2.0)
LISTS = np.array([[1, 2, -1, 0, 0], [-1, 0, 0, 0, 0], [3, -1, 0, 0, 0], [4, 3, 2, 1, 0]])

LOSSES = [
    ("NLLLoss", {}, (X, CLASSES)),
    ("NLLLoss", {"weight": WEIGHT, "ignore_index": 2}, (X, CLASSES)),
    ("CrossEntropyLoss", {"weight": WEIGHT, "label_smoothing": 0.1}, (X, CLASSES)),
    ("CrossEntropyLoss", {"weight": WEIGHT}, (X, SHARES)),
    ("SmoothL1Loss", {"beta": 0.5}, (X, Z)),
    ("GaussianNLLLoss", {"full": True}, (X, Z, SHARES)),
    ("GaussianNLLLoss", {}, (X, Z, SHARES[:, 0])),
    ("PoissonNLLLoss", {"full": True}, (X, np.rint(3 * SHARES))),
    ("BCELoss", {"weight": WEIGHT}, (SHARES, SHARES[::-1].copy())),
    ("SoftMarginLoss", {}, (X, SIGNS)),
    ("HingeEmbeddingLoss", {"margin": 0.7}, (X, SIGNS)),
    ("MarginRankingLoss", {"margin": 0.3}, (X, Z, SIGNS)),
    ("CosineEmbeddingLoss", {"margin": 0.1}, (X, Z, SIGNS[:, 0].copy())),
    ("TripletMarginLoss", {"swap": True}, (X, Z, SHARES)),
    ("TripletMarginWithDistanceLoss", {"swap": True, "margin": 0.4}, (X, Z, SHARES)),
    ("MultiMarginLoss", {"p": 2, "margin": 0.7, "weight": WEIGHT}, (X, CLASSES)),
    ("MultiLabelMarginLoss", {}, (X, LISTS)),
    ("MultiLabelSoftMarginLoss", {"weight": WEIGHT}, (X, SHARES)),
]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("name", "options", "inputs"), LOSSES, ids=lambda v: v if isinstance(v, str) else "")
def test_losses(name, options, inputs, reduction):
    mine, other = (
        {n: made(v) if isinstance(v, np.ndarray) else v for n, v in options.items()}
        for made in (tw.tensor, torch.tensor)
    )
    ours = getattr(nn, name)(**mine, reduction=reduction)
    theirs = getattr(torch.nn, name)(**other, reduction=reduction)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    first, *others = inputs

    def one_input(module, made):
        return lambda x: module(x, *(made(v) for v in others))

    compare(one_input(ours, tw.tensor), one_input(theirs, torch.tensor), first, relative=1e-10)


def test_losses_of_targets_that_are_distributions_have_classes_in_dimension_1():
    x, target = draw((2, 5, 3)), np.moveaxis(np.full((2, 3, 5), 0.2), 2, 1).copy()
    compare(nn.CrossEntropyLoss(), torch.nn.CrossEntropyLoss(), x, target, relative=1e-10)
    labels = np.array([[0, 1, 4], [2, 2, 3]])
    compare(F.nll_loss, T.nll_loss, x, labels, relative=1e-10)


MODULES = [
    ("ReLU6", {}), ("CELU", {"alpha": 0.5}), ("SELU", {}), ("Hardsigmoid", {}),
    ("Hardtanh", {"min_val": -0.5, "max_val": 2.0}), ("Hardshrink", {"lambd": 0.3}),
    ("Softshrink", {"lambd": 0.3}), ("Tanhshrink", {}), ("Softsign", {}), ("LogSigmoid", {}),
    ("Threshold", {"threshold": 0.4, "value": -1.0}), ("GLU", {"dim": 1}), ("Softmin", {"dim": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), MODULES, ids=lambda v: v if isinstance(v, str) else "")
def test_activations(name, options):
    ours, theirs = getattr(nn, name)(**options), getattr(torch.nn, name)(**options)
    compare(ours, theirs, draw((4, 6, 5), "float32", low=-4, high=4), relative=1e-5)
    stated = ", ".join(f"{n}={v}" for n, v in options.items())
    assert repr(ours) == f"{name}({stated})"


@pytest.mark.parametrize(("parameters", "shape"), [(1, (3, 4)), (4, (3, 4)), (4, (2, 4, 3, 2))], ids=str)
def test_prelu(parameters, shape):
    compare_module(nn.PReLU(parameters), torch.nn.PReLU(parameters), draw(shape, "float32"))


def test_rrelu():
    x = tw.tensor(draw((50, 40), "float32"))
    layer = nn.RReLU(0.1, 0.3)
    slopes = (layer(x) / x).numpy()[x.numpy() < 0]
    assert slopes.min() >= 0.1 - 1e-6 and slopes.max() <= 0.3 + 1e-6 and slopes.std() > 0.05
    compare(layer.eval(), torch.nn.RReLU(0.1, 0.3).eval(), x.numpy())


def test_gumbel_softmax_draws_from_the_softmax():
    logits = tw.tensor(np.log(np.tile([[0.5], [0.3], [0.2]], (1, 4000)))).requires_grad_()
    hard = F.gumbel_softmax(logits, tau=0.5, hard=True, dim=0, generator=tw.Generator(0))
    assert set(np.unique(hard.detach().numpy().round(12))) == {0.0, 1.0}
    np.testing.assert_allclose(hard.detach().numpy().mean(1), [0.5, 0.3, 0.2], atol=0.03)
    soft = F.gumbel_softmax(logits, tau=0.5, dim=0, generator=tw.Generator(0))
    np.testing.assert_array_equal(soft.detach().numpy().argmax(0), hard.detach().numpy().argmax(0))
    cotangent = tw.tensor(draw(hard.shape))
    ours, theirs = (tw.grad(y, (logits,), (cotangent,))[0].numpy() for y in (hard, soft))
    np.testing.assert_array_equal(ours, theirs)


def test_feature_alpha_dropout_drops_whole_channels():
    tw.manual_seed(0)
    y = nn.FeatureAlphaDropout(0.4)(tw.ones(5, 200, 3, 2)).numpy()
    dropped = y == y.min()
    assert (dropped.reshape(5, 200, 6) == dropped.reshape(5, 200, 6)[..., :1]).all()
    assert abs(dropped.mean() - 0.4) < 0.06


def test_refusals():
    with pytest.raises(ShapeError, match="no two halves"):
        nn.GLU()(tw.ones(2, 3))
    with pytest.raises(ShapeError, match="one for each of the 4 positions of dimension 1"):
        nn.PReLU(3)(tw.ones(2, 4))
