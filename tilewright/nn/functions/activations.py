"""Activations."""

from __future__ import annotations

import functools
from typing import Any

from tilewright import kernels
from tilewright.dsl.dtypes import as_dtype
from tilewright.errors import ShapeError
from tilewright.nn.functions.along import along, checked
from tilewright.tensor import generator as generators
from tilewright.tensor.creation import beside
from tilewright.tensor.generator import Generator
from tilewright.tensor.tensor import Tensor


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


def softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    return kernels.softplus(input, beta=beta, threshold=threshold)


def sigmoid(input: Any) -> Tensor:
    return kernels.sigmoid(input)


def tanh(input: Any) -> Tensor:
    return kernels.tanh(input)


def mish(input: Any) -> Tensor:
    return kernels.mish(input)


def hardswish(input: Any) -> Tensor:
    return kernels.hardswish(input)


def relu6(input: Any) -> Tensor:
    return kernels.relu6(input)


def celu(input: Any, alpha: float = 1.0) -> Tensor:
    return kernels.celu(input, alpha=alpha)


def selu(input: Any) -> Tensor:
    return kernels.selu(input)


def hardsigmoid(input: Any) -> Tensor:
    return kernels.hardsigmoid(input)


def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    return kernels.hardtanh(input, low=min_val, high=max_val)


def hardshrink(input: Any, lambd: float = 0.5) -> Tensor:
    return kernels.hardshrink(input, lambd=lambd)


def softshrink(input: Any, lambd: float = 0.5) -> Tensor:
    return kernels.softshrink(input, lambd=lambd)


def tanhshrink(input: Any) -> Tensor:
    return kernels.tanhshrink(input)


def softsign(input: Any) -> Tensor:
    return kernels.softsign(input)


def logsigmoid(input: Any) -> Tensor:
    return kernels.logsigmoid(input)


def threshold(input: Any, threshold: float, value: float) -> Tensor:
    return kernels.threshold(input, threshold=threshold, value=value)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0, else weight · x: one weight, or one for each position of dimension 1."""
    if weight.numel() == 1:
        return kernels.prelu(input, weight.reshape(()))
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.shape != (channels,):
        raise ShapeError(
            f"prelu: the weight has shape {weight.shape}; it holds one number, or one for each of the "
            f"{channels} positions of dimension 1 of an input of shape {input.shape}"
        )
    return kernels.prelu(input, weight.reshape(channels, *(1,) * (input.ndim - 2)))


def rrelu(
    input: Any, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """x where x > 0, else slope · x: random slopes in training, their mean after it."""
    if not training:
        return kernels.leaky_relu(input, negative_slope=(lower + upper) / 2)
    return kernels.rrelu(input, generators.seed_from(generator), lower=lower, upper=upper)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a · σ(b), a and b the halves of the input along dim."""
    dim = checked(input, dim)
    half, odd = divmod(input.shape[dim], 2)
    if odd:
        raise ShapeError(f"glu: dimension {dim} has {input.shape[dim]} positions, which are no two halves")
    before = (slice(None),) * dim
    return kernels.glu(input[*before, :half], input[*before, half:])


def softmax(input: Tensor, dim: int = -1, dtype: Any = None) -> Tensor:
    """exp(x) / Σ exp(x), along dim; with `dtype`, of the input in that dtype."""
    return along(_in(dtype, kernels.softmax), input, dim)


def log_softmax(input: Tensor, dim: int = -1, dtype: Any = None) -> Tensor:
    """x - log Σ exp(x), along dim; with `dtype`, of the input in that dtype."""
    return along(_in(dtype, kernels.log_softmax), input, dim)


def softmin(input: Tensor, dim: int = -1, dtype: Any = None) -> Tensor:
    """exp(-x) / Σ exp(-x), along dim; with `dtype`, of the input in that dtype."""
    return along(_in(dtype, kernels.softmin), input, dim)


def _in(dtype: Any, op: Any) -> Any:
    """The op with its `dtype`, one op for however that is written."""
    return op if dtype is None else functools.partial(op, dtype=as_dtype(dtype))


def gumbel_softmax(
    logits: Tensor, tau: float = 1.0, hard: bool = False, dim: int = -1,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """softmax((logits + Gumbel noise) / tau); `hard` gives its largest place as 1, with the same gradient."""
    seed = generators.seed_from(generator)
    soft = along(lambda x: kernels.gumbel_softmax(x, seed, tau=float(tau)), logits, dim)
    if not hard:
        return soft
    chosen = soft.detach().argmax(dim, keepdim=True)
    places = beside(range(soft.shape[dim]), soft).reshape(-1, *(1,) * (soft.ndim - 1 - dim % soft.ndim))
    return (chosen == places).to(soft.dtype) - soft.detach() + soft
