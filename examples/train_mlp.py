"""A small network learns to tell two spirals apart; every kernel that runs is generated.

python examples/train_mlp.py
"""

from __future__ import annotations

import numpy as np

import tilewright as tw
from tilewright import nn, optim


def spirals(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points on two spirals, and which one each is on."""
    rng = np.random.default_rng(seed)
    arm = rng.integers(0, 2, count)
    turn = np.sqrt(rng.uniform(0.05, 1, count)) * 3 * np.pi
    angle = turn + np.pi * arm
    points = np.stack([turn * np.cos(angle), turn * np.sin(angle)], axis=1) / 5
    return (points + rng.normal(0, 0.02, points.shape)).astype(np.float32), arm.astype(np.int64)


def main(steps: int = 400) -> float:
    """Trains and returns the share of new points that are told apart."""
    tw.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 2))
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    points, arms = (tw.from_numpy(a) for a in spirals(512))
    for step in range(steps):
        loss = nn.functional.cross_entropy(model(points), arms)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step}: loss {loss.item():.4f}")
    new_points, new_arms = spirals(512, seed=1)
    with tw.no_grad():
        guesses = np.argmax(model(tw.from_numpy(new_points)).numpy(), axis=1)
    share = float(np.mean(guesses == new_arms))
    print(f"{share:.1%} of new points are told apart")
    return share


if __name__ == "__main__":
    raise SystemExit(0 if main() > 0.95 else 1)
