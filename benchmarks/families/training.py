"""Training: a step of AdamW on ten million parameters, and steps of models with all that belongs to them."""

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
GPT = {"words": 1024, "length": 128, "width": 128, "heads": 4, "layers": 2}
SENTENCES = 8
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
    rng = np.random.default_rng(0)
    images = rng.standard_normal((BATCH, WIDTHS[0])).astype(np.float32)
    return _training(
        _layers, images, rng.integers(0, WIDTHS[-1], BATCH), sum(a * b for a, b in pairwise(WIDTHS))
    )


def gpt() -> Work:
    rng = np.random.default_rng(0)
    words = rng.integers(0, GPT["words"], (SENTENCES, GPT["length"] + 1))
    width, length = GPT["width"], GPT["length"]
    products = length * (GPT["layers"] * (12 * width * width + 2 * length * width) + width * GPT["words"])
    return _training(_gpt, words[:, :-1].copy(), words[:, 1:].reshape(-1), products)


def _training(make: Callable[..., Any], inputs: np.ndarray, labels: np.ndarray, products: int) -> Work:
    """Forward, cross-entropy, backward and AdamW; the first loss is compared.

    `products` are the multiply-adds of the forward for one of the `len(inputs)` examples.
    """
    theirs = make(torch.nn, dtype=torch.float32)
    mine = make(nn)
    mine.load_state_dict({name: tw.Tensor(value.numpy()) for name, value in theirs.state_dict().items()})
    exact = make(torch.nn, dtype=torch.float64)
    exact.load_state_dict(theirs.state_dict())
    ours = _step(mine, optim.AdamW(mine.parameters(), **RATES), nn.functional.cross_entropy,
                 tw.from_numpy(inputs), tw.from_numpy(labels))  # fmt: skip
    tensors = torch.from_numpy(inputs), torch.from_numpy(labels)
    entropy = torch.nn.functional.cross_entropy
    peer = _step(theirs, torch.optim.AdamW(theirs.parameters(), fused=True, **RATES), entropy, *tensors)

    def compiled() -> Callable[[], Any]:
        model = make(torch.nn, dtype=torch.float32)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True, **RATES)
        run = _step(torch.compile(model), optimizer, entropy, *tensors)
        run()
        return run

    def results() -> tuple[np.ndarray, ...]:
        return (np.asarray(ours().item()).reshape(1),)

    def right() -> tuple[np.ndarray, ...]:
        doubled = tensors[0].double() if tensors[0].is_floating_point() else tensors[0]
        return (entropy(exact(doubled), tensors[1]).detach().numpy().reshape(1),)

    weights = sum(parameter.numel() for parameter in theirs.parameters())
    operations = 6 * len(inputs) * products + 16 * weights
    return Work(ours, peer, compiled, results, right, 7 * 4 * weights, operations, 1e-5)


def _layers(library: Any, **options: Any) -> Any:
    parts: list[Any] = []
    for before, after in pairwise(WIDTHS):
        parts += [library.Linear(before, after, **options), library.GELU()]
    return library.Sequential(*parts[:-1])


def _gpt(library: Any, **options: Any) -> Any:
    """A decoder of pre-norm blocks, the same in both libraries."""
    width, heads, length = GPT["width"], GPT["heads"], GPT["length"]
    attention = library.functional.scaled_dot_product_attention

    class Attention(library.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.out = (
                library.Linear(width, width, **options) for _ in range(4)
            )

        def forward(self, x: Any) -> Any:
            parts = (
                layer(x).reshape(-1, length, heads, width // heads).transpose(1, 2)
                for layer in (self.query, self.key, self.value)
            )
            mixed = attention(*parts, is_causal=True)
            return self.out(mixed.transpose(1, 2).reshape(-1, length, width))

    class Block(library.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.between = (library.LayerNorm(width, **options) for _ in range(2))
            self.attention = Attention()
            self.wide = library.Linear(width, 4 * width, **options)
            self.narrow = library.Linear(4 * width, width, **options)
            self.activation = library.GELU()

        def forward(self, x: Any) -> Any:
            x = x + self.attention(self.before(x))
            return x + self.narrow(self.activation(self.wide(self.between(x))))

    class Decoder(library.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = library.Embedding(GPT["words"], width, **options)
            self.places = library.Embedding(length, width, **options)
            self.blocks = library.Sequential(*(Block() for _ in range(GPT["layers"])))
            self.last = library.LayerNorm(width, **options)
            self.head = library.Linear(width, GPT["words"], bias=False, **options)

        def forward(self, words: Any) -> Any:
            x = self.words(words) + self.places.weight
            return self.head(self.last(self.blocks(x))).reshape(-1, GPT["words"])

    return Decoder()


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
    Bench("GPT 2 × 128, 8 × 128 words, training step", "training", gpt, quick=False),
]
