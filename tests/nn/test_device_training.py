"""Modules and optimizers on a device: that they train as they do on the CPU, and go where they are sent."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import tilewright as tw
from tilewright import nn, optim
from tilewright.errors import DeviceError

RNG = np.random.default_rng(3)


def values(tensor: tw.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


X, LABELS = floats(4, 3), np.array([0, 1, 1, 0])


def network() -> nn.Module:
    tw.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 5), nn.GELU(), nn.LayerNorm(5), nn.Linear(5, 2))


def step(model: nn.Module, optimizer: optim.Optimizer, device: str) -> float:
    optimizer.zero_grad()
    x, labels = tw.tensor(X, device=device), tw.tensor(LABELS, device=device)
    loss = nn.functional.cross_entropy(model(x), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


@pytest.mark.parametrize("kind", [optim.SGD, optim.AdamW])
def test_training_is_that_of_the_cpu(device, kind):
    here, there = network(), network().to(device)
    options = {"momentum": 0.9} if kind is optim.SGD else {}
    first, second = (kind(m.parameters(), lr=0.05, **options) for m in (here, there))
    for _ in range(3):
        assert step(there, second, device) == pytest.approx(step(here, first, "cpu"), rel=1e-5)
    for one, other in zip(here.parameters(), there.parameters(), strict=True):
        assert other.device == device
        np.testing.assert_allclose(values(other), values(one), rtol=1e-4, atol=1e-5)


def test_modules_move_with_their_optimizer(device):
    """Parameters keep their identity, gradients and an optimizer's state go along."""
    model = network()
    optimizer = optim.AdamW(model.parameters(), lr=0.05)
    twin = copy.deepcopy(model)
    twin_optimizer = optim.AdamW(twin.parameters(), lr=0.05)
    parameters = list(model.parameters())
    for place in ("cpu", device, "cpu", device):
        assert model.to(place) is model
        assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
        assert all(p.grad is None or p.grad.device == place for p in parameters)
        assert step(model, optimizer, place) == pytest.approx(step(twin, twin_optimizer, "cpu"), rel=1e-4)
        assert optimizer.state[parameters[0]]["exp_avg"].device == place
    assert model.cpu()[0].weight.device == "cpu"
    assert model.cuda(0)[0].weight.device == device


def test_buffers_move_and_whole_numbers_keep_their_dtype(device):
    model = nn.BatchNorm1d(3)
    model.to(device, tw.float64)
    assert {b.device for _, b in model.named_buffers()} == {tw.device(device)}
    assert model.running_mean.dtype == tw.float64
    counts = [b.dtype for name, b in model.named_buffers() if "num_batches" in name]
    assert all(not dtype.is_float for dtype in counts)


def test_states_are_loaded_where_the_module_is(device, tmp_path):
    here, there = network(), network().to(device)
    optimizer = optim.AdamW(there.parameters(), lr=0.05)
    step(there, optimizer, device)
    here.load_state_dict(there.state_dict())
    np.testing.assert_array_equal(values(here[0].weight), values(there[0].weight))
    assert here[0].weight.device == "cpu"
    on_cpu = optim.AdamW(here.parameters(), lr=0.05)
    on_cpu.load_state_dict(optimizer.state_dict())
    assert on_cpu.state[here[0].weight]["exp_avg"].device == "cpu"
    assert step(here, on_cpu, "cpu") == pytest.approx(step(there, optimizer, device), rel=1e-5)
    tw.save(there.state_dict(), tmp_path / "model.safetensors")
    there.load_state_dict(tw.load(tmp_path / "model.safetensors"))
    assert there[0].weight.device == device


def test_parameters_are_initialised_where_they_lie(device):
    with tw.device(device):
        tw.manual_seed(1)
        made = nn.Linear(3, 5)
    assert made.weight.device == device
    tw.manual_seed(1)
    np.testing.assert_array_equal(values(made.weight), values(nn.Linear(3, 5).weight))
    nn.init.constant_(made.weight, 2.5)
    nn.init.eye_(made.weight)
    assert values(made.weight)[1, 1] == 1


def test_inputs_elsewhere_are_refused(device):
    model = nn.Linear(3, 5).to(device)
    with pytest.raises(
        DeviceError, match=rf'x lies on cpu, .*an op runs on one device|write x.to\("{device}"\)'
    ):
        model(tw.tensor(X))


LAYERS = {
    "embedding": (lambda: nn.Embedding(5, 4, max_norm=1.0), lambda: [np.array([[1, 2], [4, 1]])]),
    "bags": (lambda: nn.EmbeddingBag(5, 4), lambda: [np.array([1, 2, 4]), np.array([0, 2])]),
    "attention": (lambda: nn.MultiheadAttention(4, 2), lambda: [floats(3, 1, 4)] * 3),
    "convolution": (lambda: nn.Conv2d(2, 3, 3, padding=1), lambda: [floats(1, 2, 4, 4)]),
    "hard choices": (lambda: lambda x: nn.functional.gumbel_softmax(x, hard=True), lambda: [floats(2, 4)]),
    "ctc": (
        lambda: lambda x: nn.functional.ctc_loss(tw.kernels.log_softmax(x), [[1, 2]], [4], [2]),
        lambda: [floats(4, 1, 5)],
    ),
    "a list as target": (lambda: lambda x: nn.functional.cross_entropy(x, [1, 0]), lambda: [floats(2, 3)]),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_run_where_their_inputs_lie(device, layer):
    make, inputs = LAYERS[layer]
    tw.manual_seed(2)
    module, arrays, results = make(), inputs(), []
    for place in ("cpu", device):
        tw.manual_seed(5)
        run = copy.deepcopy(module).to(place) if isinstance(module, nn.Module) else module
        given = [tw.tensor(a, device=place) for a in arrays]
        for each in given:
            each.requires_grad_(each.dtype.is_float)
        result = run(*given)
        result = result[0] if isinstance(result, tuple) else result
        assert result.device == place
        result.sum().backward()
        found = [each.grad for each in given if each.requires_grad]
        found += [p.grad for p in run.parameters()] if isinstance(run, nn.Module) else []
        results.append([values(r) for r in (result, *found)])
    for here, there in zip(*results, strict=True):
        np.testing.assert_allclose(there, here, rtol=2e-4, atol=2e-5)
