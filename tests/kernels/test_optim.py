"""Optimizer steps against torch.optim, many steps in a row, and against formulas where torch has none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from tilewright import kernels
from tilewright.errors import ArgumentError
from tilewright.op.op import Op

STEPS = 12
SHAPE = (3, 7)


def drawn(shape=SHAPE, dtype=np.float64) -> tuple[np.ndarray, list[np.ndarray]]:
    """A parameter and its gradients; some of them are 0, as those of an embedding are."""
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal(shape).astype(dtype) for _ in range(STEPS)]
    for grad in grads:
        grad[..., :1] = 0
    return rng.standard_normal(shape).astype(dtype), grads


@dataclass(frozen=True)
class Peer:
    """An optimizer of torch, the step that must follow it, and the state that the step begins with.

    `state` gives the operands behind the gradient for a parameter, `options` are torch's; `keywords` those
    of the step that torch does not have.
    """

    op: Op
    optimizer: str
    options: dict[str, Any] = field(default_factory=dict)
    state: tuple[str, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = SHAPE

    def __str__(self) -> str:
        return " ".join([self.op.name, *(f"{name}={value}" for name, value in self.options.items())])


RENAMED = {
    "betas": ("beta1", "beta2"),
    "etas": ("eta_minus", "eta_plus"),
    "step_sizes": ("smallest", "largest"),
    "adjust_lr_fn": ("adjust",),
    "ns_steps": ("iterations",),
    "ns_coefficients": ("coefficients",),
    "decoupled_weight_decay": ("decoupled",),
    "d": ("clip",),
}
STATE_OPTIONS = ("amsgrad", "centered", "initial_accumulator_value")


def keywords_of(peer: Peer) -> dict[str, Any]:
    found = dict(peer.keywords)
    for name, value in peer.options.items():
        if name in STATE_OPTIONS or (name == "momentum" and peer.op is kernels.asgd_step):
            continue
        if peer.optimizer == "Adafactor" and name == "eps":
            found["eps"], found["smallest"] = value
        elif len(names := RENAMED.get(name, (name,))) == 2:
            found.update(zip(names, value, strict=True))
        else:
            found[names[0]] = value
    return found


def initial(name: str, param: np.ndarray, peer: Peer) -> np.ndarray:
    if name == "step_size":
        return np.full_like(param, peer.options.get("lr", 1e-2))
    if name == "square_sum":
        return np.full_like(param, peer.options.get("initial_accumulator_value", 0))
    if name == "row_avg":
        return np.zeros(param.shape[:-1], param.dtype)
    if name == "column_avg":
        return np.zeros((*param.shape[:-2], param.shape[-1]), param.dtype)
    return np.zeros_like(param)


def steps_of(peer: Peer, param: np.ndarray, grads: list[np.ndarray]) -> Iterator[np.ndarray]:
    """The parameter after each step."""
    keywords = keywords_of(peer)
    state = [initial(name, param, peer) for name in peer.state]
    if peer.op is kernels.rprop_step:
        keywords.pop("lr", None)
    momenta = 1.0
    for number, grad in enumerate(grads, start=1):
        if "step" in peer.op.scalars:
            keywords["step"] = number
        if peer.op is kernels.nadam_step:
            chosen = {n: keywords[n] for n in ("beta1", "momentum_decay") if n in keywords}
            momenta = keywords["momenta"] = momenta * kernels.nadam_momentum(number, **chosen)
        if peer.op is kernels.sgd_step and peer.state:
            keywords["first"] = number == 1
        result = peer.op(param, grad, *state, **keywords)
        param, *state = result if isinstance(result, tuple) else (result,)
        yield param


ADAM = ("exp_avg", "exp_avg_sq")
AMSGRAD = (*ADAM, "max_exp_avg_sq")
ALL_OPTIONS = {"lr": 0.1, "weight_decay": 0.3, "eps": 1e-3, "betas": (0.5, 0.9)}
NO_AVERAGE = {"betas": (0.0, 0.9)}

PEERS = [
    Peer(kernels.sgd_step, "SGD", {"lr": 0.1, "weight_decay": 0.3, "maximize": True}),
    *(
        Peer(kernels.sgd_step, "SGD", {"lr": 0.1, "momentum": 0.9, **options}, ("buffer",))
        for options in ({}, {"dampening": 0.2, "weight_decay": 0.1}, {"nesterov": True})
    ),
    *(
        Peer(op, name, options, state)
        for op, name in ((kernels.adam_step, "Adam"), (kernels.adamw_step, "AdamW"))
        for options, state in (
            ({}, ADAM),
            (ALL_OPTIONS, ADAM),
            (NO_AVERAGE, ADAM),
            ({"amsgrad": True, "maximize": True, **ALL_OPTIONS}, AMSGRAD),
        )
    ),
    *(
        Peer(kernels.adamax_step, "Adamax", options, ("exp_avg", "exp_inf"))
        for options in ({}, {"maximize": True, **ALL_OPTIONS}, NO_AVERAGE)
    ),
    *(
        Peer(op, name, options, ADAM)
        for op, name, more in (
            (kernels.nadam_step, "NAdam", {"momentum_decay": 0.1}),
            (kernels.radam_step, "RAdam", {}),
        )
        for options in (
            {},
            {"maximize": True, **ALL_OPTIONS, **more},
            {"decoupled_weight_decay": True, "weight_decay": 0.3},
            NO_AVERAGE,
        )
    ),
    Peer(kernels.radam_step, "RAdam", {"betas": (0.9, 0.6)}, ADAM),  # never long enough to be rectified
    *(
        Peer(kernels.adagrad_step, "Adagrad", options, ("square_sum",))
        for options in (
            {},
            {"lr": 0.1, "lr_decay": 0.2, "weight_decay": 0.3, "initial_accumulator_value": 0.5},
            {"eps": 0.1, "maximize": True},
        )
    ),
    *(
        Peer(kernels.adadelta_step, "Adadelta", options, ("square_avg", "delta_avg"))
        for options in ({}, {"lr": 0.5, "rho": 0.7, "eps": 1e-2, "weight_decay": 0.3, "maximize": True})
    ),
    Peer(kernels.rmsprop_step, "RMSprop", {}, ("square_avg",)),
    Peer(
        kernels.rmsprop_step,
        "RMSprop",
        {"lr": 0.1, "alpha": 0.8, "eps": 1e-3, "weight_decay": 0.3, "momentum": 0.9, "maximize": True},
        ("square_avg", "buffer"),
    ),
    Peer(
        kernels.rmsprop_step,
        "RMSprop",
        {"centered": True, "momentum": 0.9},
        ("square_avg", "buffer", "grad_avg"),
    ),
    *(
        Peer(kernels.rprop_step, "Rprop", options, ("previous", "step_size"))
        for options in (
            {},
            {"lr": 0.1, "etas": (0.3, 1.7), "step_sizes": (0.05, 0.2), "maximize": True},
        )
    ),
    *(
        Peer(kernels.asgd_step, "ASGD", options, ("average",))
        for options in (
            {},
            {"lr": 0.1, "lambd": 0.2, "alpha": 0.6, "t0": 3, "weight_decay": 0.3, "maximize": True},
        )
    ),
    *(
        Peer(op, "Adafactor", options, state, shape=shape)
        for op, state, shape in (
            (kernels.adafactor_step, ("row_avg", "column_avg"), SHAPE),
            (kernels.adafactor_step, ("row_avg", "column_avg"), (2, 3, 4)),
            (kernels.adafactor_vector_step, ("square_avg",), (7,)),
        )
        for options in (
            {},
            {
                "lr": 0.5,
                "beta2_decay": -0.5,
                "eps": (1e-2, 0.1),
                "d": 1.5,
                "weight_decay": 0.3,
                "maximize": True,
            },
        )
    ),
]


@pytest.fixture
def exact_torch() -> Iterator[None]:
    """torch keeps numbers of its own, such as NAdam's product of momenta, in its default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def torch_steps(peer: Peer, param: np.ndarray, grads: list[np.ndarray]) -> Iterator[np.ndarray]:
    tensor = torch.nn.Parameter(torch.tensor(param))
    optimizer = getattr(torch.optim, peer.optimizer)([tensor], **peer.options)
    for grad in grads:
        tensor.grad = torch.tensor(grad)
        optimizer.step()
        yield tensor.detach().numpy().copy()


@pytest.mark.usefixtures("exact_torch")
@pytest.mark.parametrize("peer", PEERS, ids=str)
def test_steps_are_torchs(peer: Peer):
    param, grads = drawn(peer.shape)
    followed = zip(steps_of(peer, param, grads), torch_steps(peer, param, grads), strict=True)
    for number, (found, expected) in enumerate(followed, start=1):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13, err_msg=f"step {number}")


@pytest.mark.usefixtures("exact_torch")
@pytest.mark.parametrize("peer", [p for p in PEERS if not p.options or p.options is NO_AVERAGE], ids=str)
def test_steps_in_single_precision(peer: Peer):
    """Far from what torch computes in double precision by no more than a few roundings of each step."""
    param, grads = drawn(peer.shape, np.float32)
    exact = torch_steps(peer, param.astype(np.float64), [g.astype(np.float64) for g in grads])
    for found, expected in zip(steps_of(peer, param, grads), exact, strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_rectification_sets_in_at_the_right_step():
    """ρ passes 5 between two steps; in single precision ρ is off by more than that for a β₂ near 1."""
    grad, zero = np.ones(3, np.float32), np.zeros(3, np.float32)
    for beta2 in (0.999, 0.99999):
        options = {"beta1": 0.0, "beta2": beta2, "lr": 1.0}
        for step in range(4, 9):
            found, *_ = kernels.radam_step(grad, grad, zero, zero, step=step, **options)
            exact, *_ = kernels.radam_step.reference(grad, grad, zero, zero, step=step, **options)
            np.testing.assert_allclose(found, exact, rtol=2e-3)
            assert (abs(found[0]) < 1e-6) == (step < 6), "a step of 1 until then"


# --- steps that torch has not, or not in this precision ----------------------------------------------------


@pytest.mark.parametrize("maximize", [False, True])
def test_lion(maximize: bool):
    param, grads = drawn()
    mean, expected, expected_mean = np.zeros(SHAPE), param, np.zeros(SHAPE)
    for grad in grads:
        param, mean = kernels.lion_step(
            param, grad, mean, lr=0.1, weight_decay=0.2, beta1=0.7, beta2=0.8, maximize=maximize
        )
        slope = -grad if maximize else grad
        direction = np.sign(0.7 * expected_mean + (1 - 0.7) * slope)
        expected = expected * (1 - 0.1 * 0.2) - 0.1 * direction
        expected_mean = 0.8 * expected_mean + (1 - 0.8) * slope
        np.testing.assert_allclose(param, expected, rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(mean, expected_mean, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("maximize", [False, True])
def test_lamb_is_adam_as_long_as_the_parameter(maximize: bool):
    param, grads = drawn()
    state = [np.zeros(SHAPE), np.zeros(SHAPE)]
    for step, grad in enumerate(grads, start=1):
        options = {"step": step, "maximize": maximize, "eps": 1e-6}
        adam, *_ = kernels.adam_step(np.zeros(SHAPE), grad, *state, lr=1.0, **options)
        update = 0.3 * param - adam
        expected = param - 0.1 * np.linalg.norm(param) / np.linalg.norm(update) * update
        param, *state = kernels.lamb_step(param, grad, *state, lr=0.1, weight_decay=0.3, **options)
        np.testing.assert_allclose(param, expected, rtol=1e-12)
    assert np.any(kernels.lamb_step(np.zeros(SHAPE), grad, *state, step=1)[0]), "a parameter of 0 moves"


@pytest.mark.parametrize("nesterov", [False, True])
def test_lars(nesterov: bool):
    param, grads = drawn()
    buffer, velocity = np.zeros(SHAPE), np.zeros(SHAPE)
    for grad in grads:
        rate = 0.01 * np.linalg.norm(param) / (np.linalg.norm(grad) + 0.3 * np.linalg.norm(param) + 1e-8)
        update = rate * (grad + 0.3 * param)
        velocity = 0.8 * velocity + update
        expected = param - 0.5 * (update + 0.8 * velocity if nesterov else velocity)
        param, buffer = kernels.lars_step(
            param, grad, buffer, lr=0.5, momentum=0.8, weight_decay=0.3, coefficient=0.01, nesterov=nesterov
        )
        np.testing.assert_allclose(param, expected, rtol=1e-12)
        np.testing.assert_allclose(buffer, velocity, rtol=1e-12)
    zero = np.zeros(SHAPE)
    np.testing.assert_allclose(kernels.lars_step(zero, grad, zero, lr=0.5)[0], -0.5 * grad)


def newton_schulz(x: np.ndarray, coefficients: tuple[float, ...], iterations: int) -> np.ndarray:
    """The iteration, on singular values."""
    a, b, c = coefficients
    u, s, v = np.linalg.svd(x / np.linalg.norm(x), full_matrices=False)
    for _ in range(iterations):
        s = a * s + b * s**3 + c * s**5
    return (u * s) @ v


MUON = [
    {"ns_steps": 2},
    pytest.param({"nesterov": False, "momentum": 0.6}, marks=pytest.mark.exhaustive),
    {"adjust_lr_fn": "match_rms_adamw", "ns_steps": 2, "ns_coefficients": (1.5, -0.5, 0.1)},
]


@pytest.mark.parametrize("options", MUON, ids=str)
@pytest.mark.parametrize("shape", [(4, 6), (6, 4)], ids=str)
@pytest.mark.everyday(2)
def test_muon(options: dict[str, Any], shape: tuple[int, int]):
    """Against singular values, and against torch up to the rounding of its iterations to bfloat16."""
    peer = Peer(kernels.muon_step, "Muon", {"lr": 0.1, **options}, ("buffer",), shape=shape)
    keywords = keywords_of(peer)
    param, grads = drawn(shape)
    momentum, buffer, expected, velocity = options.get("momentum", 0.95), *np.zeros((3, *shape))
    expected = param
    iterations = keywords.get("iterations", 5)
    coefficients = keywords.get("coefficients", (3.4445, -4.775, 2.0315))
    rows, columns = shape
    scale = 0.2 * math.sqrt(max(shape)) if "adjust_lr_fn" in options else math.sqrt(max(1, rows / columns))
    for grad, theirs in zip(grads[:4], torch_steps(peer, param, grads), strict=False):
        velocity = momentum * velocity + (1 - momentum) * grad
        update = momentum * velocity + (1 - momentum) * grad if options.get("nesterov", True) else velocity
        expected = expected * (1 - 0.1 * 0.1) - 0.1 * scale * newton_schulz(update, coefficients, iterations)
        results = [kernels.muon_step(param, grad, buffer, tall=tall, **keywords) for tall in (False, True)]
        for moved, found in results:
            np.testing.assert_allclose(moved, expected, rtol=1e-9, atol=1e-11)
            np.testing.assert_allclose(found, velocity, rtol=1e-12)
        param, buffer = results[0]
        np.testing.assert_allclose(param, theirs, atol=0.05)


def test_an_unknown_adjustment_is_refused():
    x = np.ones((2, 3))
    with pytest.raises(ArgumentError, match=r"adjust is .* not 'rms'"):
        kernels.muon_step(x, x, x, adjust="rms")


# --- precision and dtypes ----------------------------------------------------------------------------------


def test_the_correction_of_the_bias_is_as_exact_in_float32():
    """1 - 0.999 of float32 numbers is off by 1e-5; of compiled numbers it is not."""
    param, (grad, *_) = drawn()
    zero = np.zeros(SHAPE)
    exact, _, _ = kernels.adamw_step.reference(param, grad, zero, zero, step=1, weight_decay=0.0)
    narrow = [a.astype(np.float32) for a in (param, grad, zero, zero)]
    found, _, square = kernels.adamw_step(*narrow, step=1, weight_decay=0.0)
    np.testing.assert_allclose(found - narrow[0], exact - param, rtol=3e-4)
    np.testing.assert_allclose(square, 0.001 * grad * grad, rtol=1e-6)


def test_each_result_has_the_dtype_of_what_it_replaces():
    param = np.ones(5, ml_dtypes.bfloat16)
    state = np.zeros(5, np.float32)
    found = kernels.adamw_step(param, param, state, state, step=1)
    assert [str(a.dtype) for a in found] == ["bfloat16", "float32", "float32"]


def test_the_smallest_mean_square_follows_the_dtype_of_the_parameter():
    for dtype, eps in ((np.float16, 2.0**-10), (ml_dtypes.bfloat16, 2.0**-7), (np.float32, 2.0**-23)):
        param, zero = np.ones(4, dtype), np.zeros(4, dtype)
        by_default = kernels.adafactor_vector_step(param, zero + dtype(1e-3), zero, step=1)
        given = kernels.adafactor_vector_step(param, zero + dtype(1e-3), zero, step=1, eps=eps)
        np.testing.assert_array_equal(by_default[0].astype(np.float32), given[0].astype(np.float32))
