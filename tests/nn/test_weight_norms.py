"""Weights computed before every call against torch's: state, results, gradients, singular vectors."""

import numpy as np
import pytest
import torch

import tilewright as tw
from tests.tensor.against_torch import assert_close, draw, to_torch
from tilewright import nn
from tilewright.errors import ArgumentError


def modules(name, **options):
    """A linear layer whose weight is computed, and torch's with the same state."""
    ours = getattr(nn.utils, name)(nn.Linear(5, 4), **options)
    theirs = getattr(torch.nn.utils, name)(torch.nn.Linear(5, 4), **options)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    theirs.load_state_dict({n: to_torch(t.numpy()) for n, t in ours.state_dict().items()})
    return ours, theirs


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("name", "options"),
    [("weight_norm", {}), ("weight_norm", {"dim": 1}), ("weight_norm", {"dim": None}), ("spectral_norm", {}),
     ("spectral_norm", {"n_power_iterations": 3, "dim": 1})],
    ids=str,
)  # fmt: skip
def test_calls_and_steps_are_torchs(name, options):
    ours, theirs = modules(name, **options)
    optimizers = tw.optim.SGD(ours.parameters(), lr=0.1), torch.optim.SGD(theirs.parameters(), lr=0.1)
    for seed in range(2):
        x = draw((3, 5), "float32", seed)
        y, z = ours(tw.tensor(x)), theirs(to_torch(x))
        assert_close(y, z, 1e-4)
        for result, optimizer in zip((y, z), optimizers, strict=True):
            optimizer.zero_grad()
            (result * result).sum().backward()
            optimizer.step()
        for key, value in ours.state_dict().items():
            assert_close(value, theirs.state_dict()[key], 1e-4)
    x = draw((3, 5), "float32", 9)
    assert_close(ours.eval()(tw.tensor(x)), theirs.eval()(to_torch(x)), 1e-4)


def test_the_largest_singular_value_becomes_1():
    tw.manual_seed(0)
    layer = nn.utils.spectral_norm(nn.Linear(6, 4), n_power_iterations=50)
    with tw.no_grad():
        layer(tw.ones(2, 6))
    assert np.linalg.svd(layer.weight.detach().numpy())[1][0] == pytest.approx(1, rel=1e-3)


def test_a_parameter_that_is_not_there_is_refused():
    with pytest.raises(ArgumentError, match="no parameter 'weights'; its parameters are weight, bias"):
        nn.utils.weight_norm(nn.Linear(2, 3), "weights")
