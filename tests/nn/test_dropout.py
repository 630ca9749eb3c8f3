"""Dropout in training and evaluation: shares, scales, seeds, and what a step of training does with it."""

import numpy as np
import pytest

import tilewright as tw
from tilewright import kernels, nn
from tilewright.autograd.derive import vjp
from tilewright.errors import ArgumentError
from tilewright.nn import functional as F

ELEMENTWISE = [nn.Dropout, nn.AlphaDropout]
CHANNELS = [(nn.Dropout1d, 1), (nn.Dropout2d, 2), (nn.Dropout3d, 3)]


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_share_is_dropped_and_the_rest_scaled(p):
    tw.manual_seed(0)
    y = nn.Dropout(p)(tw.ones(400, 250)).numpy()
    assert set(np.unique(y)) <= {np.float32(0), np.float32(1 / (1 - p) if p < 1 else 0)}
    assert abs((y == 0).mean() - p) < 0.006


@pytest.mark.parametrize(("kind", "rank"), CHANNELS, ids=lambda v: getattr(v, "__name__", v))
@pytest.mark.parametrize("batch", [(), (50,), (5, 10)], ids=str)
def test_whole_channels_are_dropped(kind, rank, batch):
    tw.manual_seed(1)
    y = kind(0.4)(tw.ones(*batch, 40, *(3,) * rank)).numpy()
    flat = y.reshape(*batch, 40, -1)
    assert (flat == flat[..., :1]).all()
    assert abs((flat[..., 0] == 0).mean() - 0.4) < (0.05 if batch else 0.3)
    assert len(np.unique(flat[..., 0].reshape(-1, 40), axis=0)) == max(1, int(np.prod(batch)))


def test_alpha_dropout_keeps_mean_and_variance():
    tw.manual_seed(2)
    for p in (0.1, 0.5, 0.8):
        y = nn.AlphaDropout(p)(tw.randn(600, 500)).numpy()
        assert abs(y.mean()) < 0.01 and abs(y.std() - 1) < 0.01
        _, counts = np.unique(y, return_counts=True)
        assert abs(counts.max() / y.size - p) < 0.01
    assert not nn.AlphaDropout(1.0)(tw.randn(50)).numpy().any()


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout])
def test_evaluation_changes_nothing(kind):
    x = tw.randn(2, 3, 4, 5, 6)
    layer = kind(0.5)
    assert (layer(x) != x).any()
    assert layer.eval()(x) is x and kind(0.0)(x) is x
    assert repr(layer) == f"{kind.__name__}(p=0.5)"


def test_the_default_generator_decides_and_goes_on():
    layer, x = nn.Dropout(0.5), tw.ones(100)
    tw.manual_seed(7)
    first, second = layer(x), layer(x)
    tw.manual_seed(7)
    assert (layer(x) == first).all() and (layer(x) == second).all() and (first != second).any()
    one, other = (F.dropout(x, 0.5, generator=tw.Generator(3)) for _ in range(2))
    assert (one == other).all()


def test_the_gradient_goes_where_the_value_went():
    tw.manual_seed(3)
    x = tw.randn(50, 60).requires_grad_()
    y = nn.Dropout(0.3)(x)
    y.backward(tw.ones(50, 60))
    kept = y.detach().numpy() != 0
    np.testing.assert_array_equal(x.grad.numpy(), np.where(kept, np.float32(1 / 0.7), 0))


@pytest.mark.parametrize(
    "op", [kernels.dropout, kernels.dropout1d, kernels.alpha_dropout], ids=lambda op: op.name
)
def test_no_mask_is_stored(op):
    x = np.ones((4, 5, 6), np.float32)
    call = op.bind(op.arguments((x, np.int64(1)), {}))
    derivative = vjp(call.program)
    assert not derivative.saved and len(derivative.forward.results) == 1
    assert {p.name for p in derivative.backward.tiles} == {"seed", "d_y"}


def test_two_layers_and_two_calls_inside_one_op_differ():
    @tw.op
    def twice(x: tw.Tile["..."], seed: tw.Tile[""]):
        return kernels.dropout(x, seed, p=0.5), kernels.dropout(x, seed, p=0.5)

    first, second = twice(np.ones((80, 90), np.float32), 4)
    assert 0.45 < np.mean(first != second) < 0.55


def test_what_is_dropped_may_be_infinite():
    x = np.full(200, np.inf, np.float32)
    assert set(np.unique(kernels.dropout(x, 1, p=0.5))) == {0, np.inf}


def test_refusals():
    for p in (-0.1, 1.5):
        with pytest.raises(ArgumentError, match="p is the probability of being dropped, between 0 and 1"):
            nn.Dropout(p)
        with pytest.raises(ArgumentError, match="p is the probability of being dropped"):
            F.dropout(tw.ones(3), p)
        with pytest.raises(ArgumentError, match="p is the probability of being dropped"):
            kernels.dropout(np.ones(3, np.float32), 0, p=p)


def test_a_network_with_dropout_learns():
    tw.manual_seed(0)
    x = tw.randn(256, 8)
    target = (x[:, 0] * x[:, 1] > 0).to("int64")
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 2))
    optimizer, loss_of = tw.optim.AdamW(model.parameters(), lr=1e-2), nn.CrossEntropyLoss()
    for _ in range(150):
        optimizer.zero_grad()
        loss_of(model(x), target).backward()
        optimizer.step()
    model.eval()
    assert (model(x).argmax(1) == target).float().mean().item() > 0.95
