"""Layers, activations and losses against torch, under torch's names."""

import numpy as np
import pytest
import torch

import tilewright as tw
from tests.tensor.against_torch import assert_close, compare, draw, to_torch
from tilewright import nn
from tilewright.errors import ArgumentError, DTypeError, ShapeError
from tilewright.nn import functional as F

T = torch.nn.functional


def compare_module(ours, theirs, *inputs, relative=2e-5):
    """Two modules with the same state on the same inputs: results, and gradients of parameters and inputs."""
    theirs.load_state_dict({n: to_torch(t.numpy()) for n, t in ours.state_dict().items()})
    mine = [tw.tensor(x, requires_grad=x.dtype.kind == "f") for x in inputs]
    other = [to_torch(x, x.dtype.kind == "f") for x in inputs]
    y, z = ours(*mine), theirs(*other)
    assert_close(y, z, relative)
    cotangent = draw(y.shape, y.dtype.name, 5)
    y.backward(tw.tensor(cotangent))
    z.backward(to_torch(cotangent))
    for a, b in zip(mine, other, strict=True):
        if b.grad is not None:
            assert_close(a.grad, b.grad, relative)
    names = dict(theirs.named_parameters())
    assert list(names) == [name for name, _ in ours.named_parameters()]
    for name, parameter in ours.named_parameters():
        assert_close(parameter.grad, names[name].grad, relative)


@pytest.mark.parametrize("shape", [(5,), (7, 5), (2, 3, 5), (0, 5)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape, bias):
    compare_module(nn.Linear(5, 4, bias=bias), torch.nn.Linear(5, 4, bias=bias), draw(shape, "float32"))


def test_bilinear():
    inputs = draw((6, 3), "float32"), draw((6, 4), "float32", 1)
    compare_module(nn.Bilinear(3, 4, 5), torch.nn.Bilinear(3, 4, 5), *inputs)


@pytest.mark.parametrize("shape", [5, (5,), (3, 5)], ids=str)
@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm(shape, affine):
    ours, theirs = (
        nn.LayerNorm(shape, elementwise_affine=affine),
        torch.nn.LayerNorm(shape, elementwise_affine=affine),
    )
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    compare_module(ours, theirs, draw((2, 3, 5), "float32"), relative=1e-4)


@pytest.mark.parametrize("eps", [None, 1e-3])
def test_rms_norm(eps):
    ours, theirs = nn.RMSNorm(5, eps=eps), torch.nn.RMSNorm(5, eps=eps)
    nn.init.normal_(ours.weight)
    compare_module(ours, theirs, draw((2, 3, 5), "float32"), relative=1e-4)


ACTIVATIONS = [
    ("ReLU", {}), ("LeakyReLU", {}), ("LeakyReLU", {"negative_slope": 0.3}), ("ELU", {}),
    ("ELU", {"alpha": 0.5}), ("GELU", {}), ("GELU", {"approximate": "tanh"}), ("SiLU", {}), ("Softplus", {}),
    ("Softplus", {"beta": 2.0}), ("Softplus", {"beta": 0.5, "threshold": 1.0}), ("Softmax2d", {}),
    ("Sigmoid", {}), ("Tanh", {}), ("Mish", {}), ("Hardswish", {}),
    ("Softmax", {"dim": -1}), ("Softmax", {"dim": 0}), ("LogSoftmax", {"dim": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), ACTIVATIONS, ids=str)
def test_activations(name, options):
    ours, theirs = getattr(nn, name)(**options), getattr(torch.nn, name)(**options)
    compare(ours, theirs, draw((4, 3, 5), "float32", low=-4, high=4), relative=1e-5)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin"])
@pytest.mark.parametrize(("dtype", "wanted"), [("float16", "float32"), ("float32", "float64")])
def test_softmax_in_another_dtype(name, dtype, wanted):
    """The input is cast first, so nothing is rounded to its dtype on the way."""
    x, factor = draw((4, 5), dtype, low=-8, high=8), draw((4, 5), wanted, seed=1)
    compare(
        lambda x: getattr(F, name)(x, 0, dtype=wanted) * tw.tensor(factor),
        lambda x: getattr(T, name)(x, 0, dtype=getattr(torch, wanted)) * to_torch(factor),
        x,
        relative=1e-3 if dtype == "float16" else 2e-5,
    )
    found = getattr(F, name)(tw.tensor(x), 0, dtype=wanted)
    assert_close(found, getattr(T, name)(to_torch(x), 0, dtype=getattr(torch, wanted)), 1e-6)


def test_functional_names_are_torchs():
    public = [n for n in vars(F) if not n.startswith("_") and callable(vars(F)[n]) and n.islower()]
    missing = [n for n in public if not hasattr(T, n) and n not in ("sigmoid", "tanh")]
    assert missing == [] and len(public) > 20


REDUCTIONS = ["mean", "sum", "none"]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", ["MSELoss", "L1Loss", "HuberLoss"])
def test_regression_losses(name, reduction):
    inputs = draw((4, 5), "float32"), draw((4, 5), "float32", 1)
    compare(getattr(nn, name)(reduction=reduction), getattr(torch.nn, name)(reduction=reduction), *inputs)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(6, 5), (5,), (2, 5, 3), (2, 5, 3, 2)], ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(shape, reduction, smoothing):
    targets = (shape[0], *shape[2:]) if len(shape) > 1 else ()
    target = np.random.default_rng(0).integers(0, 5, targets)
    options = {"reduction": reduction, "label_smoothing": smoothing}
    compare(nn.CrossEntropyLoss(**options), torch.nn.CrossEntropyLoss(**options), draw(shape), target)


def test_cross_entropy_ignores_an_index():
    target = np.array([1, -100, 3])
    compare(nn.CrossEntropyLoss(), torch.nn.CrossEntropyLoss(), draw((3, 5)), target)
    ours = nn.CrossEntropyLoss(ignore_index=3, reduction="sum")
    compare(
        ours, torch.nn.CrossEntropyLoss(ignore_index=3, reduction="sum"), draw((3, 5)), np.array([1, 0, 3])
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_binary_cross_entropy(reduction):
    inputs = draw((4, 5)), draw((4, 5), seed=1, low=0, high=1)
    compare(
        nn.BCEWithLogitsLoss(reduction=reduction), torch.nn.BCEWithLogitsLoss(reduction=reduction), *inputs
    )
    weight, positive = draw((5,), seed=2, low=0.5), draw((5,), seed=3, low=0.5)
    ours = nn.BCEWithLogitsLoss(tw.tensor(weight), reduction, tw.tensor(positive))
    theirs = torch.nn.BCEWithLogitsLoss(
        torch.tensor(weight), reduction=reduction, pos_weight=torch.tensor(positive)
    )
    compare(ours, theirs, *inputs)
    assert list(ours.state_dict()) == list(theirs.state_dict())


@pytest.mark.filterwarnings("ignore:reduction")
@pytest.mark.parametrize("reduction", [*REDUCTIONS, "batchmean"])
@pytest.mark.parametrize("log_target", [False, True])
def test_kl_divergence(reduction, log_target):
    target = torch.softmax(torch.tensor(draw((4, 3, 5), seed=1)), -1)
    target = (target.log() if log_target else target).numpy()
    x = torch.log_softmax(torch.tensor(draw((4, 3, 5))), -1).numpy()
    options = {"reduction": reduction, "log_target": log_target}
    compare(nn.KLDivLoss(**options), torch.nn.KLDivLoss(**options), x, target, relative=1e-10)


@pytest.mark.parametrize("causal", [False, True])
def test_attention(causal):
    arrays = [draw((2, 3, 4, 5), seed=s) for s in range(3)]
    compare(
        lambda *qkv: F.scaled_dot_product_attention(*qkv, is_causal=causal),
        lambda *qkv: T.scaled_dot_product_attention(*qkv, is_causal=causal),
        *arrays, relative=1e-10,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_layers_in_other_precisions(dtype):
    model = nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.LayerNorm(7), nn.Linear(7, 2)).to(dtype)
    theirs = torch.nn.Sequential(
        torch.nn.Linear(5, 7), torch.nn.GELU(), torch.nn.LayerNorm(7), torch.nn.Linear(7, 2)
    )
    theirs = theirs.to(getattr(torch, dtype))
    relative = {"float16": 2e-2, "bfloat16": 0.1, "float64": 1e-10}[dtype]
    x = draw((3, 5), dtype)
    theirs.load_state_dict({n: to_torch(t.numpy()) for n, t in model.state_dict().items()})
    ours, other = model(tw.tensor(x)), theirs(to_torch(x))
    assert ours.dtype.name == dtype
    assert_close(ours, other, relative)
    ours.float().sum().backward()
    assert all(p.grad.dtype.name == dtype for p in model.parameters())


def test_wrong_arguments():
    x = tw.ones(3, 4)
    with pytest.raises(ShapeError, match=r"axis 'k' is 4 in x .* but 5 in weight"):
        nn.Linear(5, 2)(x)
    with pytest.raises(
        ShapeError, match=r"the last dimensions of the input, of shape \(3, 4\), are not \(5,\)"
    ):
        nn.LayerNorm(5)(x)
    with pytest.raises(ShapeError, match="no dimension 2"):
        nn.Softmax(2)(x)
    with pytest.raises(DTypeError, match="target holds class numbers"):
        nn.CrossEntropyLoss()(x, tw.ones(3))
    with pytest.raises(ArgumentError, match="reduction is one of 'mean', 'sum', 'none', not 'avg'"):
        nn.MSELoss("avg")


# --- initialisation ---------------------------------------------------------------------------------------


def test_default_initialisation_is_torchs():
    tw.manual_seed(0)
    layer = nn.Linear(100, 400)
    bound = 1 / 10
    for parameter in layer.parameters():
        values = parameter.detach().numpy()
        assert np.abs(values).max() <= bound and np.abs(values).max() > 0.95 * bound
        assert abs(values.std() - bound / np.sqrt(3)) < 0.01


INITIALISERS = [
    ("uniform_", (-1, 3), 4 / np.sqrt(12)), ("normal_", (1, 2), 2), ("trunc_normal_", (0, 1, -2, 2), 0.8796),
    ("xavier_uniform_", (2,), 2 * np.sqrt(2 / 500)), ("xavier_normal_", (), np.sqrt(2 / 500)),
    ("kaiming_uniform_", (), np.sqrt(2 / 300)), ("kaiming_normal_", (0, "fan_out", "relu"), np.sqrt(2 / 200)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "deviation"), INITIALISERS, ids=str)
def test_initialisers(name, arguments, deviation):
    weight = nn.Parameter(tw.zeros(200, 300))
    assert getattr(nn.init, name)(weight, *arguments, generator=tw.Generator(0)) is weight
    assert weight.is_leaf and weight.detach().numpy().std() == pytest.approx(deviation, rel=0.02)


@pytest.mark.parametrize(("shape", "gain"), [((5, 3), 1.0), ((3, 2, 4), 1.4), ((4, 4), 1.0), ((3, 5), 2.0)])
def test_orthogonal_initialiser(shape, gain):
    matrix = nn.init.orthogonal_(tw.empty(shape), gain, tw.Generator(0)).numpy().reshape(shape[0], -1)
    gram = matrix @ matrix.T if shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(gram, gain**2 * np.eye(len(gram)), atol=1e-5)
    other = nn.init.orthogonal_(tw.empty(shape), gain, tw.Generator(1)).numpy()
    assert np.abs(other.reshape(matrix.shape) - matrix).max() > 0.1


@pytest.mark.parametrize("shape", [(4, 3, 3), (6, 2, 3, 5), (2, 4, 1, 2, 3)], ids=str)
@pytest.mark.parametrize("groups", [1, 2])
def test_dirac_initialiser(shape, groups):
    wanted = torch.nn.init.dirac_(torch.empty(shape), groups).numpy()
    np.testing.assert_array_equal(nn.init.dirac_(tw.empty(shape), groups).numpy(), wanted)


def test_sparse_initialiser():
    matrix = nn.init.sparse_(tw.empty(50, 300), 0.33, 0.5, tw.Generator(0)).numpy()
    assert ((matrix == 0).sum(0) == 17).all() and matrix[matrix != 0].std() == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize(("dim", "sizes"), [(1, (2, 3)), (-1, (-1, 4)), (0, [1, 4, 1])], ids=str)
def test_unflatten(dim, sizes):
    x = draw((4, 6, 8), "float32")
    compare(nn.Unflatten(dim, sizes), torch.nn.Unflatten(dim, tuple(sizes)), x)
    assert tw.tensor(x).unflatten(dim, sizes).shape == torch.tensor(x).unflatten(dim, sizes).shape
    with pytest.raises(ShapeError, match="do not fit"):
        nn.Unflatten(dim, (5, 3))(tw.tensor(x))


def test_constant_initialisers_and_refusals():
    weight = nn.Parameter(tw.empty(2, 2))
    assert nn.init.zeros_(weight).tolist() == [[0, 0], [0, 0]]
    assert nn.init.ones_(weight).tolist() == [[1, 1], [1, 1]]
    assert nn.init.eye_(weight).tolist() == [[1, 0], [0, 1]]
    assert nn.init.constant_(weight, 2.5).tolist() == [[2.5, 2.5], [2.5, 2.5]]
    assert nn.init.fans(tw.zeros(4, 3, 5, 5)) == (75, 100)
    assert nn.init.calculate_gain("leaky_relu", 0.2) == torch.nn.init.calculate_gain("leaky_relu", 0.2)
    with pytest.raises(ShapeError, match="at least two dimensions"):
        nn.init.xavier_uniform_(tw.zeros(3))
    with pytest.raises(ShapeError, match="a convolution's weight"):
        nn.init.dirac_(weight)
    with pytest.raises(ArgumentError, match="4 channels are not 3 groups"):
        nn.init.dirac_(tw.zeros(4, 3, 3), 3)
    with pytest.raises(ShapeError, match="orthogonal_ needs two or more dimensions"):
        nn.init.orthogonal_(tw.zeros(3))
    with pytest.raises(ShapeError, match="sparse_ needs a matrix"):
        nn.init.sparse_(tw.zeros(3), 0.5)
    with pytest.raises(ShapeError, match="Softmax2d takes 3 or 4 dimensions"):
        nn.Softmax2d()(tw.zeros(3, 2))
    with pytest.raises(ArgumentError, match="no gain is known"):
        nn.init.calculate_gain("sine")
    with pytest.raises(ArgumentError, match="hardly anything"):
        nn.init.trunc_normal_(weight, 0.0, 1.0, 50.0, 51.0)
