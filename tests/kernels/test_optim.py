"""Optimizer steps against torch.optim, several steps in a row."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch

from tilewright import kernels

STEPS = 4
SHAPE = (3, 7)


def drawn() -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    return rng.standard_normal(SHAPE), [rng.standard_normal(SHAPE) for _ in range(STEPS)]


@pytest.mark.parametrize(
    "options",
    [{}, {"weight_decay": 0.3}, {"betas": (0.5, 0.9), "eps": 1e-3, "lr": 0.1}, {"betas": (0.0, 0.9)}],
)
def test_adamw(options):
    param, grads = drawn()
    peer = torch.nn.Parameter(torch.tensor(param))
    optimizer = torch.optim.AdamW([peer], **options)
    keywords = {n: v for n, v in options.items() if n != "betas"}
    if "betas" in options:
        keywords["beta1"], keywords["beta2"] = options["betas"]
    mean = square = np.zeros(SHAPE)
    for number, grad in enumerate(grads, start=1):
        peer.grad = torch.tensor(grad)
        optimizer.step()
        param, mean, square = kernels.adamw_step(param, grad, mean, square, step=number, **keywords)
        np.testing.assert_allclose(param, peer.detach().numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0.1},
        {"lr": 0.1, "weight_decay": 0.3},
        {"lr": 0.1, "momentum": 0.9},
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.1},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    ],
)
def test_sgd(options):
    param, grads = drawn()
    peer = torch.nn.Parameter(torch.tensor(param))
    optimizer = torch.optim.SGD([peer], **options)
    buffer = np.zeros(SHAPE)
    for number, grad in enumerate(grads):
        peer.grad = torch.tensor(grad)
        optimizer.step()
        if "momentum" in options:
            param, buffer = kernels.sgd_step(param, grad, buffer, first=number == 0, **options)
        else:
            param = kernels.sgd_step(param, grad, **options)
        np.testing.assert_allclose(param, peer.detach().numpy(), rtol=1e-12, atol=1e-14)


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
