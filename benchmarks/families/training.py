"""Training: a step of AdamW on ten million parameters, and a step of an MLP with all that belongs to it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch

import tilewright as tw
from benchmarks.work import Bench, Work
from tilewright import nn, optim

PARAMETERS = 10_000_000
WIDTHS = (784, 1024, 1024, 10)
BATCH = 256
RATES = {"lr": 1e-3, "weight_decay": 1e-2}


def adamw() -> Work:
    """torch's own is the fused one, its fastest."""
    rng = np.random.default_rng(0)
    start, slope = (rng.standard_normal(PARAMETERS).astype(np.float32) for _ in range(2))
    mine = nn.Parameter(start)
    mine.grad = tw.Tensor(slope)
    theirs = torch.nn.Parameter(torch.from_numpy(start.copy()))
    theirs.grad = torch.from_numpy(slope)
    exact = torch.nn.Parameter(torch.from_numpy(start.astype(np.float64)))
    exact.grad = torch.from_numpy(slope.astype(np.float64))
    ours, peer = optim.AdamW([mine], **RATES), torch.optim.AdamW([theirs], fused=True, **RATES)
    oracle = torch.optim.AdamW([exact], **RATES)

    def results() -> tuple[np.ndarray, ...]:
        ours.step()
        return (mine.detach().numpy().copy(),)

    def right() -> tuple[np.ndarray, ...]:
        oracle.step()
        return (exact.detach().numpy(),)

    moved = 7 * 4 * PARAMETERS  # four arrays read, three written
    return Work(ours.step, peer.step, None, results, right, moved, 16 * PARAMETERS, 1e-5)


def mlp() -> Work:
    """Forward, cross-entropy, backward and AdamW; the first loss is compared."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((BATCH, WIDTHS[0])).astype(np.float32)
    digits = rng.integers(0, WIDTHS[-1], BATCH)
    theirs = _layers(torch.nn, dtype=torch.float32)
    mine = _layers(nn)
    mine.load_state_dict({name: tw.Tensor(value.numpy()) for name, value in theirs.state_dict().items()})
    exact = _layers(torch.nn, dtype=torch.float64)
    exact.load_state_dict(theirs.state_dict())
    ours = _step(mine, optim.AdamW(mine.parameters(), **RATES), nn.functional.cross_entropy,
                 tw.from_numpy(images), tw.from_numpy(digits))  # fmt: skip
    tensors = torch.from_numpy(images), torch.from_numpy(digits)
    entropy = torch.nn.functional.cross_entropy
    peer = _step(theirs, torch.optim.AdamW(theirs.parameters(), fused=True, **RATES), entropy, *tensors)

    def compiled() -> Callable[[], Any]:
        model = _layers(torch.nn, dtype=torch.float32)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True, **RATES)
        run = _step(torch.compile(model), optimizer, entropy, *tensors)
        run()
        return run

    def results() -> tuple[np.ndarray, ...]:
        return (np.asarray(ours().item()).reshape(1),)

    def right() -> tuple[np.ndarray, ...]:
        loss = torch.nn.functional.cross_entropy(exact(tensors[0].double()), tensors[1])
        return (loss.detach().numpy().reshape(1),)

    weights = sum(a * b + b for a, b in pairwise(WIDTHS))
    operations = 6 * BATCH * weights + 16 * weights
    return Work(ours, peer, compiled, results, right, 7 * 4 * weights, operations, 1e-5)


def _layers(library: Any, **options: Any) -> Any:
    parts: list[Any] = []
    for before, after in pairwise(WIDTHS):
        parts += [library.Linear(before, after, **options), library.GELU()]
    return library.Sequential(*parts[:-1])


def _step(model: Any, optimizer: Any, loss_of: Any, images: Any, digits: Any) -> Callable[[], Any]:
    def step() -> Any:
        optimizer.zero_grad()
        loss = loss_of(model(images), digits)
        loss.backward()
        optimizer.step()
        return loss

    return step


BENCHES = [
    Bench("AdamW step, 10 M parameters", "training", adamw),
    Bench("MLP 784→1024→1024→10 training step, batch 256", "training", mlp, compiled_in_quick=True),
]
