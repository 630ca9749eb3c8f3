"""Training end to end."""

import gc
import resource

import numpy as np
import pytest

import tilewright as tw
from tilewright import nn


@pytest.fixture(scope="module")
def digits():
    datasets = pytest.importorskip("sklearn.datasets")
    selection = pytest.importorskip("sklearn.model_selection")
    images, labels = datasets.load_digits(return_X_y=True)
    split = selection.train_test_split(
        (images / 16).astype(np.float32), labels, test_size=0.25, random_state=0, stratify=labels
    )
    return [tw.from_numpy(part) for part in split]


OPTIMIZERS = {
    "AdamW": lambda parameters: tw.optim.AdamW(parameters, lr=3e-3),
    "SGD": lambda parameters: tw.optim.SGD(parameters, lr=0.03, momentum=0.9, nesterov=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_digits(digits, name):
    """An MLP reads handwritten digits that it has not seen."""
    images, unseen, labels, expected = digits
    tw.manual_seed(3)
    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.LayerNorm(128), nn.Linear(128, 10))
    optimizer = OPTIMIZERS[name](model.parameters())
    loss_of = nn.CrossEntropyLoss()
    for _ in range(15):
        order = tw.randperm(len(images))
        for start in range(0, len(images), 64):
            rows = order[start : start + 64]
            loss = loss_of(model(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    accuracy = (model(unseen).argmax(1) == expected).float().mean().item()
    assert accuracy >= 0.97


def test_memory_stays_flat():
    """Two thousand steps hold no more memory than two hundred, without the garbage collector."""
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
    optimizer = tw.optim.AdamW(model.parameters())
    x, target = tw.randn(32, 64), tw.randn(32, 8)

    def steps(count):
        for _ in range(count):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), target).backward()
            optimizer.step()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    steps(200)
    gc.collect()
    gc.disable()
    try:
        before = steps(1)
        assert steps(2000) - before < 4096  # KiB
    finally:
        gc.enable()
