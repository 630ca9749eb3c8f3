"""Handwritten digits: scikit-learn's bundled images, and a small network that learns to read them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.runtime import threads

WANTED = 0.97
EPOCHS = 30
BATCH = 64
HIDDEN = 128
DESCRIPTION = f"an MLP 64 → {HIDDEN} → {HIDDEN} → 10 with GELU, AdamW, {EPOCHS} epochs"
REMEDY = (
    "The digits come with scikit-learn, which is not installed. Install it with "
    '`pip install "tilewright[demo]"` (from a checkout: `pip install -e ".[demo]"`).'
)


@dataclass(frozen=True)
class Digits:
    """Images as rows of 64 pixels of mean 0 and deviation about 1, and the digits that they show."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


@dataclass(frozen=True)
class Outcome:
    accuracy: float
    steps: int
    seconds: float

    @property
    def reached(self) -> bool:
        return self.accuracy >= WANTED


def load(seed: int = 0) -> Digits | None:
    """A fifth of the images held out at random; None without scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        return None
    bundle: Any = load_digits()
    order = np.random.default_rng(seed).permutation(len(bundle.target))
    images = ((bundle.data - 4.9) / 6.0).astype(np.float32)[order]
    labels = bundle.target.astype(np.int64)[order]
    held_out = len(order) // 5
    return Digits(images[held_out:], labels[held_out:], images[:held_out], labels[:held_out])


def build(seed: int = 0) -> Any:
    """The network."""
    import tilewright as tw
    from tilewright import nn

    tw.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(64, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 10)
    )


def accuracy(model: Any, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of images whose largest output is their digit."""
    import tilewright as tw

    with tw.no_grad():
        outputs = model(tw.from_numpy(images)).numpy()
    return float(np.mean(np.argmax(outputs, axis=1) == labels))


def train(data: Digits, console: Any = None, epochs: int = EPOCHS, seed: int = 0) -> Outcome:
    """Train a new network; `console` (of rich) shows the progress."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    before = threads.get_num_threads()
    threads.set_num_threads(1)  # a step's kernels are too small to share
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=console is None) as progress:
        task = progress.add_task("training", total=epochs, state="")

        def show(epoch: int, loss: float, share: float) -> None:
            progress.update(task, completed=epoch, state=f"loss {loss:.4f}, held out {share:.1%}")

        try:
            return _train(data, epochs, seed, show)
        finally:
            threads.set_num_threads(before)


def _train(data: Digits, epochs: int, seed: int, show: Any) -> Outcome:
    import tilewright as tw
    from tilewright import nn, optim

    began = time.perf_counter()
    model = build(seed)
    optimizer = optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    rng = np.random.default_rng(seed)
    steps = 0
    share = 0.0
    for epoch in range(epochs):
        losses = []
        order = rng.permutation(len(data.train_labels))
        for first in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[first : first + BATCH]
            outputs = model(tw.from_numpy(data.train_images[chosen]))
            loss = nn.functional.cross_entropy(outputs, tw.from_numpy(data.train_labels[chosen]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            steps += 1
        share = accuracy(model, data.test_images, data.test_labels)
        show(epoch + 1, float(np.mean(losses)), share)
    return Outcome(share, steps, time.perf_counter() - began)
