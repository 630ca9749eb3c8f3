"""Modules: registration, the tree, modes, state, hooks, text, misuse."""

from collections import OrderedDict

import numpy as np
import pytest
import torch

import tilewright as tw
from tilewright import nn
from tilewright.errors import ArgumentError


class Block(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.first = nn.Linear(width, 4)
        self.act = nn.ReLU()
        self.scale = nn.Parameter(tw.ones(4))
        self.register_buffer("mean", tw.zeros(4))
        self.register_buffer("scratch", tw.zeros(1), persistent=False)
        self.width = width

    def forward(self, x):
        return self.act(self.first(x)) * self.scale + self.mean


class TorchBlock(torch.nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.first = torch.nn.Linear(width, 4)
        self.act = torch.nn.ReLU()
        self.scale = torch.nn.Parameter(torch.ones(4))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("scratch", torch.zeros(1), persistent=False)


def build(namespace, block):
    return namespace.Sequential(
        OrderedDict(
            head=block(),
            rest=namespace.Sequential(namespace.Linear(4, 2, bias=False), namespace.LayerNorm(2)),
        )
    )


def test_names_are_torchs():
    ours, theirs = build(nn, Block), build(torch.nn, TorchBlock)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert [n for n, _ in ours.named_modules()] == [n for n, _ in theirs.named_modules()]
    assert [n for n, _ in ours.named_buffers()] == [n for n, _ in theirs.named_buffers()]
    assert [n for n, _ in ours.named_children()] == [n for n, _ in theirs.named_children()]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours) == repr(theirs).replace("TorchBlock", "Block")


def test_state_passes_to_and_from_torch():
    ours, theirs = build(nn, Block), build(torch.nn, TorchBlock)
    ours.load_state_dict(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.state_dict()[name].numpy(), tensor.numpy())


def test_loading_keeps_parameters_and_converts_dtypes():
    model = nn.Linear(2, 2)
    weight = model.weight
    result = model.load_state_dict({"weight": np.eye(2), "bias": np.zeros(2)})
    assert model.weight is weight and weight.dtype == tw.float32 and weight.tolist() == [[1, 0], [0, 1]]
    assert result == ([], [])


def test_loading_what_does_not_fit_names_everything_and_changes_nothing():
    model = nn.Linear(2, 2)
    before = model.weight.tolist()
    with pytest.raises(nn.StateError) as caught:
        model.load_state_dict({"weight": np.eye(3), "scale": np.ones(2)})
    text = str(caught.value)
    assert "missing: bias" in text and "unexpected: scale" in text
    assert "weight has shape (3, 3), the module's has (2, 2)" in text
    assert model.weight.tolist() == before
    result = model.load_state_dict({"weight": np.eye(2), "scale": np.ones(2)}, strict=False)
    assert result.missing_keys == ["bias"] and result.unexpected_keys == ["scale"]


def test_state_shares_memory_and_needs_no_gradient():
    model = nn.Linear(2, 2)
    state = model.state_dict()
    assert not state["weight"].requires_grad
    state["weight"].zero_()
    assert model.weight.tolist() == [[0, 0], [0, 0]]


def test_shared_parameters_count_once():
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    b.weight = a.weight
    model = nn.Sequential(a, b)
    assert len(list(model.parameters())) == 3 and len(model.state_dict()) == 4
    same = nn.Sequential(a, a)
    assert len(list(same.modules())) == 2


def test_modes():
    model = build(nn, Block)
    assert all(not m.training for m in model.eval().modules())
    assert all(m.training for m in model.train().modules())


def test_zero_grad():
    model = nn.Linear(2, 1)
    model(tw.ones(1, 2)).sum().backward()
    gradient = model.weight.grad
    model.zero_grad(set_to_none=False)
    assert model.weight.grad is gradient and gradient.tolist() == [[0, 0]]
    model.zero_grad()
    assert model.weight.grad is None


def test_conversion_keeps_identity_and_gradients():
    model = Block()
    model(tw.ones(1, 3)).sum().backward()
    parameters = list(model.parameters())
    model.half()
    assert [id(p) for p in model.parameters()] == [id(p) for p in parameters]
    assert {t.dtype for t in (*model.parameters(), *model.buffers())} == {tw.float16}
    assert model.scale.grad.dtype == tw.float16
    assert model(tw.ones(1, 3, dtype="float16")).dtype == tw.float16
    with pytest.raises(ArgumentError, match="floating-point, not int32"):
        model.to("int32")


def test_apply_and_requires_grad():
    model, seen = build(nn, Block), []
    model.apply(lambda m: seen.append(type(m).__name__))
    assert seen[-1] == "Sequential" and seen.index("Linear") < seen.index("Sequential")
    model.requires_grad_(False)
    assert not model(tw.ones(1, 3)).requires_grad


def test_attributes_are_replaced_and_deleted():
    block = Block()
    block.first = nn.Linear(3, 4, bias=False)
    block.scale = nn.Parameter(tw.zeros(4))
    block.mean = tw.ones(4)
    assert block.mean.tolist() == [1, 1, 1, 1] and "mean" in dict(block.named_buffers())
    del block.scale
    assert not hasattr(block, "scale") and "scale" not in block.state_dict()
    block.act = None
    assert block.act is None and "first" in dir(block)
    block.extra = nn.Parameter(tw.ones(1))
    assert "extra" in dict(block.named_parameters())


def test_hooks():
    layer = nn.Linear(2, 2)
    before = layer.register_forward_pre_hook(lambda module, args: (args[0] * 0,))
    after = layer.register_forward_hook(lambda module, args, result: result + 100)
    bias = layer.bias.detach().numpy()
    np.testing.assert_allclose(layer(tw.ones(1, 2)).detach().numpy()[0], bias + 100, rtol=1e-6)
    before.remove()
    after.remove()
    assert abs(layer(tw.ones(1, 2)).detach().numpy()).max() < 50


def test_containers():
    layers = nn.ModuleList([nn.Linear(2, 2), nn.ReLU()])
    layers.append(nn.Linear(2, 1)).insert(0, nn.Identity())
    assert [type(m).__name__ for m in layers] == ["Identity", "Linear", "ReLU", "Linear"]
    assert list(layers.state_dict()) == ["1.weight", "1.bias", "3.weight", "3.bias"]
    assert len(layers[1:3]) == 2 and layers[-1].out_features == 1
    layers[0] = nn.Tanh()
    table = nn.ModuleDict({"a": nn.ReLU()})
    table["b"] = layers
    assert list(table) == ["a", "b"] and "b" in table and len(table) == 2 and table["b"] is layers
    del table["a"]
    assert list(table.keys()) == ["b"]
    assert nn.Sequential(nn.Flatten(), nn.Identity())(tw.ones(2, 3, 4)).shape == (2, 12)
    assert nn.Sequential(nn.ReLU(), nn.ReLU())[:1](tw.ones(2)).tolist() == [1, 1]


def test_get_submodule():
    model = build(nn, Block)
    assert model.get_submodule("rest.0") is model.rest[0] and model.get_submodule("") is model
    with pytest.raises(AttributeError, match="no module 'nothing'"):
        model.get_submodule("rest.nothing")


# --- misuse -----------------------------------------------------------------------------------------------


def test_a_forgotten_super_init():
    class Forgot(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(2, 2)

    class Plain(nn.Module):
        def __init__(self):
            pass

    for use in (Forgot, lambda: Plain()(1), lambda: Plain().state_dict(), lambda: list(Plain().parameters())):
        with pytest.raises(
            nn.ModuleError, match=r"__init__ does not call super\(\).__init__\(\); call it first"
        ):
            use()


def test_misuse():
    class Nothing(nn.Module):
        pass

    with pytest.raises(nn.ModuleError, match="Nothing defines no forward"):
        Nothing()(1)
    with pytest.raises(AttributeError, match="Block has no attribute 'nothing'"):
        _ = Block().nothing
    with pytest.raises(nn.ModuleError, match=r"holds modules, not ReLU; create it first: nn.ReLU\(\)"):
        nn.Sequential(nn.ReLU)
    with pytest.raises(nn.ModuleError, match="is a parameter or module and cannot become a Tensor"):
        Block().scale = tw.ones(4)
    with pytest.raises(nn.ModuleError, match="texts without dots"):
        Block().register_buffer("a.b", tw.ones(1))
    with pytest.raises(nn.ModuleError, match="already has an attribute 'forward'"):
        Block().add_module("forward", nn.ReLU())
    assert repr(nn.Parameter(tw.ones(1))).startswith("Parameter containing:\ntensor([1.]")
