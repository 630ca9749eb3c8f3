"""Functions under torch's names, on the prebuilt ops."""

from __future__ import annotations

from typing import Any

from tilewright import kernels
from tilewright.errors import ArgumentError, ShapeError
from tilewright.tensor import generator as generators
from tilewright.tensor.generator import Generator
from tilewright.tensor.tensor import Tensor

# --- linear -----------------------------------------------------------------------------------------------


def linear(input: Any, weight: Any, bias: Any = None) -> Tensor:
    """x·weightᵀ + bias: [… in], [out in], [out] → [… out]."""
    return kernels.linear(input, weight, bias)


def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Tensor:
    """xᵀ·weight[n]·z + bias[n] for every n: [… i], [… j], [n i j], [n] → [… n]."""
    return kernels.bilinear(input1, input2, weight, bias)


# --- activations ------------------------------------------------------------------------------------------


def relu(input: Any) -> Tensor:
    return kernels.relu(input)


def leaky_relu(input: Any, negative_slope: float = 0.01) -> Tensor:
    return kernels.leaky_relu(input, negative_slope=negative_slope)


def elu(input: Any, alpha: float = 1.0) -> Tensor:
    return kernels.elu(input, alpha=alpha)


def gelu(input: Any, approximate: str = "none") -> Tensor:
    return kernels.gelu(input, approximate=approximate)


def silu(input: Any) -> Tensor:
    return kernels.silu(input)


def softplus(input: Any, beta: float = 1.0) -> Tensor:
    return kernels.softplus(input, beta=beta)


def sigmoid(input: Any) -> Tensor:
    return kernels.sigmoid(input)


def tanh(input: Any) -> Tensor:
    return kernels.tanh(input)


def mish(input: Any) -> Tensor:
    return kernels.mish(input)


def hardswish(input: Any) -> Tensor:
    return kernels.hardswish(input)


def _along(op: Any, input: Tensor, dim: int) -> Tensor:
    """An op of the last axis along another one."""
    if not input.ndim or not -input.ndim <= dim < input.ndim:
        raise ShapeError(f"there is no dimension {dim} in a tensor of {input.ndim} dimensions")
    if dim % input.ndim == input.ndim - 1:
        return op(input)
    return op(input.transpose(dim, -1)).transpose(dim, -1)


def softmax(input: Tensor, dim: int = -1) -> Tensor:
    """exp(x) / Σ exp(x), along dim."""
    return _along(kernels.softmax, input, dim)


def log_softmax(input: Tensor, dim: int = -1) -> Tensor:
    """x - log Σ exp(x), along dim."""
    return _along(kernels.log_softmax, input, dim)


# --- dropout ----------------------------------------------------------------------------------------------


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
    input: Any, p: float = 0.5, training: bool = True, generator: Generator | None = None
) -> Any:
    """Dropout that keeps mean 0 and variance 1, beside selu."""
    return _drop(kernels.alpha_dropout, input, p, training, generator)


# --- norms ------------------------------------------------------------------------------------------------


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


# --- losses -----------------------------------------------------------------------------------------------


def cross_entropy(
    input: Tensor,
    target: Any,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log softmax(input)[target]; classes are dimension 1 (0 of a vector), targets are class numbers."""
    classes = input if input.ndim <= 2 else _classes_last(input)
    return kernels.cross_entropy(
        classes, target, reduction=reduction, label_smoothing=label_smoothing, ignore_index=ignore_index
    )


def _classes_last(input: Tensor) -> Tensor:
    return input.permute(0, *range(2, input.ndim), 1)


def mse_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """(x - target)²."""
    return kernels.mse(input, target, reduction=reduction)


def l1_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """|x - target|."""
    return kernels.l1(input, target, reduction=reduction)


def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """½ e² where |e| ≤ delta, else delta (|e| - ½ delta), with e = x - target."""
    return kernels.huber(input, target, reduction=reduction, delta=delta)


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Tensor:
    """-(target · log σ(x) + (1 - target) · log(1 - σ(x)))."""
    return kernels.bce_with_logits(input, target, weight, pos_weight, reduction=reduction)


def kl_div(input: Any, target: Any, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target · (log target - x), for x = log of the other distribution; "batchmean" divides by the first
    dimension.
    """
    if reduction != "batchmean":
        return kernels.kl_div(input, target, reduction=reduction, log_target=log_target)
    if not input.ndim:
        raise ArgumentError('kl_div: "batchmean" divides by the first dimension, and a number has none')
    return kernels.kl_div(input, target, reduction="sum", log_target=log_target) / input.shape[0]


def scaled_dot_product_attention(query: Any, key: Any, value: Any, is_causal: bool = False) -> Tensor:
    """softmax(q·kᵀ/√d)·v."""
    return kernels.attention(query, key, value, causal=is_causal)
