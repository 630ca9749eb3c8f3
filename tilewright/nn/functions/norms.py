"""Normalisation, of activations and of rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilewright import kernels
from tilewright.errors import ArgumentError, ShapeError
from tilewright.nn.functions.along import along, with_last
from tilewright.tensor.creation import beside
from tilewright.tensor.tensor import Tensor


def layer_norm(
    input: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    """(x - mean) / √(var + eps) · weight + bias over the last dimensions, which have `normalized_shape`."""
    return _over_last(kernels.layer_norm, input, normalized_shape, (weight, bias), eps)


def rms_norm(input: Tensor, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
    """x / √(mean(x²) + eps) · weight over the last dimensions; eps is by default the dtype's machine
    epsilon.
    """
    if eps is None:
        eps = {64: 2.0**-52, 32: 2.0**-23}.get(input.dtype.bits, 2.0**-23)
    return _over_last(kernels.rms_norm, input, normalized_shape, (weight,), eps)


def _over_last(op: Any, input: Tensor, normalized_shape: Any, weights: tuple[Any, ...], eps: float) -> Tensor:
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    count = len(shape)
    if not count or input.shape[-count:] != shape:
        raise ShapeError(f"the last dimensions of the input, of shape {input.shape}, are not {shape}")
    if count == 1:
        return op(input, *weights, eps=eps)
    flat = input.flatten(input.ndim - count)
    return op(flat, *(w if w is None else w.flatten() for w in weights), eps=eps).reshape(input.shape)


def batch_norm(
    input: Tensor, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """(x - μ) / √(σ² + eps) · weight + bias for each channel, dimension 1.

    In training the statistics are the input's, and running ones are moved towards them, in place.
    """
    options = (running_mean, running_var, weight, bias, training, momentum, eps)
    if training and math.prod(input.shape) == input.shape[1]:
        raise ShapeError(f"batch_norm: a variance needs more than one value a channel; got {input.shape}")
    return _of_channels(kernels.batch_norm, input, *options)


def instance_norm(
    input: Tensor, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """`batch_norm` with the statistics of each sample alone, dimension 0 being that of samples."""
    options = (running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    if use_input_stats and math.prod(input.shape[2:]) == 1:
        raise ShapeError(f"instance_norm: a variance needs more than one position; got {input.shape}")
    return _of_channels(kernels.instance_norm, input, *options)


def _of_channels(
    op: Any, input: Tensor, mean: Any, var: Any, weight: Any, bias: Any, training: bool, momentum: float,
    eps: float,
) -> Tensor:  # fmt: skip
    if input.ndim < 2:
        raise ShapeError(f"{op.name}: channels are dimension 1, and the input has shape {input.shape}")
    flat = input.reshape(*input.shape[:2], math.prod(input.shape[2:]))
    found = op(flat, mean, var, weight, bias, momentum=momentum, training=training, eps=eps)
    if not training or mean is None:
        return found.reshape(input.shape)
    y, *moved = found
    for running, value in zip((mean, var), moved, strict=True):
        running.copy_(value.detach())
    return y.reshape(input.shape)


def group_norm(
    input: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    """(x - μ) / √(σ² + eps) · weight + bias, with the statistics of each group of channels, dimension 1."""
    if input.ndim < 2:
        raise ShapeError(f"group_norm: channels are dimension 1, and the input has shape {input.shape}")
    if num_groups < 1 or input.shape[1] % num_groups:
        raise ArgumentError(f"{input.shape[1]} channels are not {num_groups} groups of equally many")
    flat = input.reshape(*input.shape[:2], math.prod(input.shape[2:]))
    return kernels.group_norm(flat, weight, bias, groups=num_groups, eps=eps).reshape(input.shape)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """x / max(‖x‖ₚ, eps), along dim."""
    return along(lambda x: kernels.normalize(x, p=float(p), eps=eps), input, dim)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Σ x1 · x2 / (max(‖x1‖, eps) · max(‖x2‖, eps)), along dim."""
    return kernels.cosine_similarity(with_last(x1, dim), with_last(x2, dim), eps=eps)


def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """‖x1 - x2 + eps‖ₚ, along the last dimension."""
    distance = kernels.pairwise_distance(x1, x2, p=float(p), eps=eps)
    return distance.unsqueeze(-1) if keepdim else distance


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """‖x[i] - x[j]‖ₚ for all pairs i < j of rows: `cdist(x, x)` above its diagonal, in a vector."""
    if input.ndim != 2:
        raise ShapeError(f"pdist needs a matrix with a point in each row; got the shape {input.shape}")
    first, second = (beside(i, input) for i in np.triu_indices(input.shape[0], 1))
    return kernels.distances_between(input, first, second, p=float(p))
