"""Dropout."""

from __future__ import annotations

from typing import Any

from tilewright import kernels
from tilewright.errors import ArgumentError
from tilewright.tensor import generator as generators
from tilewright.tensor.generator import Generator


def _drop(op: Any, input: Any, p: float, training: bool, generator: Generator | None) -> Any:
    """The input itself where nothing is to be dropped; else the op with the generator's next seed."""
    if not 0 <= p <= 1:
        raise ArgumentError(f"p is the probability of being dropped, between 0 and 1; got {p}")
    return op(input, generators.seed_from(generator), p=float(p)) if training and p else input


def dropout(input: Any, p: float = 0.5, training: bool = True, generator: Generator | None = None) -> Any:
    """input / (1 - p) with probability 1 - p, else 0."""
    return _drop(kernels.dropout, input, p, training, generator)


def dropout1d(input: Any, p: float = 0.5, training: bool = True, generator: Generator | None = None) -> Any:
    """Dropout of whole channels: [… channels length]."""
    return _drop(kernels.dropout1d, input, p, training, generator)


def dropout2d(input: Any, p: float = 0.5, training: bool = True, generator: Generator | None = None) -> Any:
    """Dropout of whole channels: [… channels height width]."""
    return _drop(kernels.dropout2d, input, p, training, generator)


def dropout3d(input: Any, p: float = 0.5, training: bool = True, generator: Generator | None = None) -> Any:
    """Dropout of whole channels: [… channels depth height width]."""
    return _drop(kernels.dropout3d, input, p, training, generator)


def alpha_dropout(
    input: Any, p: float = 0.5, training: bool = False, generator: Generator | None = None
) -> Any:
    """Dropout that keeps mean 0 and variance 1, beside selu."""
    return _drop(kernels.alpha_dropout, input, p, training, generator)


def feature_alpha_dropout(
    input: Any, p: float = 0.5, training: bool = False, generator: Generator | None = None
) -> Any:
    """`alpha_dropout` of whole channels: [batch channels …]."""
    if not training or not p:
        return _drop(kernels.feature_alpha_dropout, input, p, training, generator)
    flat = input.reshape(*input.shape[:2], -1)
    return _drop(kernels.feature_alpha_dropout, flat, p, training, generator).reshape(input.shape)
