"""Optimizers against torch, their state, and their errors."""

import copy

import numpy as np
import pytest
import torch

import tilewright as tw
from tests.tensor.against_torch import draw
from tilewright import nn
from tilewright.errors import ArgumentError, ShapeError

CASES = {
    "SGD": [
        {"lr": 0.1}, {"lr": 0.1, "momentum": 0.9}, {"lr": 0.1, "momentum": 0.9, "nesterov": True},
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}, {"lr": 0.1, "weight_decay": 0.1},
    ],
    "AdamW": [
        {}, {"lr": 0.02, "weight_decay": 0.1}, {"betas": (0.5, 0.9), "eps": 1e-3}, {"betas": (0.0, 0.9)},
    ],
}  # fmt: skip
ALL = [(name, options) for name, cases in CASES.items() for options in cases]


def parameters(dtype="float32"):
    arrays = [draw((4, 3), dtype, 1), draw((5,), dtype, 2), draw((), dtype, 3)]
    return [nn.Parameter(a) for a in arrays], [torch.nn.Parameter(torch.tensor(a)) for a in arrays]


def loss_of(tensors, step):
    return sum(((t - 0.1 * step) ** 2 / (1 + t**2)).sum() for t in tensors)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "options"), ALL, ids=str)
def test_steps_are_torchs(name, options, dtype):
    mine, other = parameters(dtype)
    ours, theirs = getattr(tw.optim, name)(mine, **options), getattr(torch.optim, name)(other, **options)
    identities = [id(p) for p in mine]
    for step in range(8):
        for tensors, optimizer in ((mine, ours), (other, theirs)):
            optimizer.zero_grad()
            loss_of(tensors, step).backward()
            optimizer.step()
    relative = 2e-6 if dtype == "float32" else 1e-12
    for a, b in zip(mine, other, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=relative, atol=relative)
    assert [id(p) for p in mine] == identities and all(p.is_leaf for p in mine)


@pytest.mark.parametrize(("name", "options"), [("SGD", {"momentum": 0.9}), ("AdamW", {})], ids=str)
def test_resuming_is_exact(name, options):
    def run(optimizer, tensors, steps):
        for step in steps:
            optimizer.zero_grad()
            loss_of(tensors, step).backward()
            optimizer.step()

    straight, _ = parameters()
    optimizer = getattr(tw.optim, name)(straight, **options)
    run(optimizer, straight, range(4))
    state = copy.deepcopy(optimizer.state_dict())
    resumed = [nn.Parameter(p.detach().clone()) for p in straight]
    run(optimizer, straight, range(4, 8))
    other = getattr(tw.optim, name)(resumed, lr=7.0)
    other.load_state_dict(state)
    run(other, resumed, range(4, 8))
    for a, b in zip(straight, resumed, strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


def test_numbers_may_be_tensors():
    """The steps are the same; a Tensor stays the one that it is when a state is loaded."""
    rng = np.random.default_rng(8)
    start, slopes = rng.standard_normal(5), rng.standard_normal((6, 5))
    rates = (0.1, 0.1, 0.1, 0.02, 0.02, 0.02)

    def trained(in_tensors: bool) -> tuple[np.ndarray, tw.optim.AdamW]:
        param = tw.tensor(start, requires_grad=True)
        lr = tw.tensor(0.0, dtype="float64") if in_tensors else 0.0
        optimizer = tw.optim.AdamW([param], lr=lr, capturable=in_tensors)
        for number, (slope, rate) in enumerate(zip(slopes, rates, strict=True)):
            if number == 3:
                saved, optimizer = (
                    optimizer.state_dict(),
                    tw.optim.AdamW([param], lr=lr, capturable=in_tensors),
                )
                optimizer.load_state_dict(saved)
            param.grad = tw.tensor(slope)
            if in_tensors:
                assert optimizer.param_groups[0]["lr"] is lr
                lr.fill_(rate)
            else:
                optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
        return param.detach().numpy(), optimizer

    (found, capturable), (expected, plain) = trained(True), trained(False)
    np.testing.assert_array_equal(found, expected)
    (kept,), (number,) = capturable.state.values(), plain.state.values()
    assert isinstance(kept["step"], tw.Tensor) and kept["step"].item() == number["step"] == 6
    plain.load_state_dict(capturable.state_dict())  # and the other way round
    plain.param_groups[0]["capturable"] = False
    plain.param_groups[0]["params"][0].grad = tw.tensor(slopes[0])
    plain.step()
    assert next(iter(plain.state.values()))["step"] == 7


def test_groups_have_options_of_their_own():
    (a, b, c), _ = parameters()
    optimizer = tw.optim.SGD([{"params": [a], "lr": 1.0}, {"params": b}], lr=0.5)
    optimizer.add_param_group({"params": [c], "lr": 0.0})
    before = [p.detach().clone() for p in (a, b, c)]
    (a.sum() + b.sum() + c).backward()
    optimizer.step()
    for parameter, old, lr in zip((a, b, c), before, (1.0, 0.5, 0.0), strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), old.numpy() - lr, rtol=1e-6)
    optimizer.param_groups[2]["lr"] = 2.0
    optimizer.step()
    np.testing.assert_allclose(c.item(), before[2].item() - 2.0, rtol=1e-6)
    assert "group 2: 1 parameters, lr=2.0" in repr(optimizer)


def test_parameters_without_a_gradient_stay():
    (a, b, _), _ = parameters()
    optimizer = tw.optim.AdamW([a, b])
    before = b.tolist()
    a.sum().backward()
    optimizer.step()
    assert b.tolist() == before and b not in optimizer.state


def test_views_of_a_parameter_see_the_step():
    (a, _, _), _ = parameters()
    view = a.detach()
    a.sum().backward()
    tw.optim.SGD([a], lr=1.0).step()
    assert view.tolist() == a.tolist() and np.shares_memory(view.numpy(), a._array)


def test_a_step_between_forward_and_backward_is_noticed():
    (a, _, _), _ = parameters()
    a.sum().backward()
    loss = (a * a).sum()
    tw.optim.SGD([a], lr=1.0).step()
    with pytest.raises(tw.errors.DerivativeError, match="modified in place"):
        loss.backward()


def test_a_closure_computes_the_loss_anew():
    (a, _, _), _ = parameters()
    optimizer = tw.optim.SGD([a], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (a * a).sum()
        loss.backward()
        return loss

    first = optimizer.step(closure).item()
    assert optimizer.step(closure).item() < first


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_parameters(dtype):
    parameter = nn.Parameter(tw.tensor([1.0, 2.0], dtype=dtype))
    optimizer = tw.optim.AdamW([parameter], lr=0.1)
    (parameter * parameter).sum().backward()
    optimizer.step()
    assert parameter.dtype.name == dtype and parameter.tolist()[0] == pytest.approx(0.9, abs=0.01)


def test_misuse():
    (a, b, _), _ = parameters()
    cases = [
        (lambda: tw.optim.SGD([]), "no parameters"),
        (lambda: tw.optim.SGD(a), "an iterable of tensors"),
        (lambda: tw.optim.SGD([a, a]), "given twice"),
        (lambda: tw.optim.SGD([a * 2]), "trains leaves"),
        (lambda: tw.optim.SGD(["weight"]), "are tensors, not str"),
        (lambda: tw.optim.SGD([{"params": [a], "rate": 1}]), "SGD has no option 'rate'"),
        (lambda: tw.optim.SGD([a], lr=-1), "lr is at least 0"),
        (lambda: tw.optim.AdamW([a], betas=(1.0, 0.9)), r"betas\[0\] is at least 0 and less than 1"),
        (lambda: tw.optim.SGD([a], nesterov=True), "needs a momentum"),
        (lambda: tw.optim.SGD([a]).load_state_dict(tw.optim.SGD([a, b]).state_dict()), "groups of"),
    ]
    for call, message in cases:
        with pytest.raises(ArgumentError, match=message):
            call()
    source = tw.optim.AdamW([b])
    b.sum().backward()
    source.step()
    with pytest.raises(ShapeError, match=r"the saved exp_avg has shape \(5,\), the parameter \(4, 3\)"):
        tw.optim.AdamW([a]).load_state_dict(source.state_dict())
