"""Tensors of random numbers: `tw.rand(3, 4)` and its kin, made by generated kernels.

A draw is a function of the generator's next seed and of the linear index in the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.dsl import language as tw
from tilewright.dsl.axes import Tile
from tilewright.dsl.draws import floating, shares_between
from tilewright.dsl.dtypes import DType, as_dtype, bool_, float32, float64, int64
from tilewright.dsl.scalars import normal_quantile
from tilewright.errors import ArgumentError
from tilewright.op import storage
from tilewright.op.binding import where
from tilewright.op.traced import TracedOp, op
from tilewright.runtime.devices import CPU
from tilewright.tensor.generator import Generator, seed_from
from tilewright.tensor.tensor import Tensor, _shape

# --- the ops ----------------------------------------------------------------------------------------------
# `like` has the shape of the result; its elements are never read. Bounds are operands of float64 and int64.


@op
def uniform(like: Tile["..."], seed: Tile[""], low: Tile[""], high: Tile[""], *, dtype: DType):
    """low + u (high - low)"""
    first, last = tw.cast(low, dtype.compute), tw.cast(high, dtype.compute)
    return tw.cast(first + tw.rand(seed, "...", dtype=dtype) * (last - first), dtype)


@op
def normal(like: Tile["..."], seed: Tile[""], mean: Tile[""], std: Tile[""], *, dtype: DType):
    """mean + std z, in float64"""
    return tw.cast(mean + tw.randn(seed, "...", dtype=float64) * std, dtype)


@op
def truncated_normal(
    like: Tile["..."], seed: Tile[""], first: Tile[""], end: Tile[""], low: Tile[""], high: Tile[""],
    mean: Tile[""], std: Tile[""], *, dtype: DType,
):  # fmt: skip
    """mean + std z for a z between the quantiles of two shares, in float64, kept within low … high"""
    z = normal_quantile(tw.randint(seed, first, end, "..."))
    return tw.cast(tw.clip(mean + z * std, low, high), dtype)


@op
def integers(like: Tile["..."], seed: Tile[""], low: Tile[""], high: Tile[""], *, dtype: DType):
    """low … high - 1"""
    return tw.cast(tw.randint(seed, low, high, "..."), dtype)


@op
def coins(like: Tile["..."], seed: Tile[""], p: Tile[""], *, dtype: DType):
    """1 with probability p, else 0"""
    return tw.cast(tw.bernoulli(seed, p, "..."), dtype)


@op
def coins_of(p: Tile["..."], seed: Tile[""]):
    """True with the probability that stands at each position"""
    return tw.bernoulli(seed, p, "...")


def draw(
    draw_op: TracedOp, shape: tuple[int, ...], generator: Generator | None, *numbers: float, dtype: DType,
    device: Any = CPU,
) -> Any:  # fmt: skip
    """The array of this shape that an op draws with a generator's next seed and these numbers.

    The numbers are the same on every device.
    """
    place = storage.wanted_device(device)
    like = storage.repeated(False, shape, np.dtype(np.bool_), place)
    operands = [np.asarray(n, np.float64 if isinstance(n, float) else np.int64) for n in numbers]
    if place is CPU:
        return draw_op(like, seed_from(generator), *operands, dtype=dtype)
    return draw_op(Tensor._make(like), seed_from(generator), *operands, dtype=dtype)._array


# --- as they are called -----------------------------------------------------------------------------------


def _made(array: np.ndarray, requires_grad: bool) -> Tensor:
    made = Tensor._make(array)
    return made.requires_grad_() if requires_grad else made


def rand(
    *shape: Any, dtype: Any = float32, generator: Generator | None = None, requires_grad: bool = False,
    device: Any = None,
) -> Tensor:  # fmt: skip
    """Uniform in [0, 1)."""
    wanted = floating(dtype, "rand")
    drawn = draw(uniform, _shape(shape), generator, 0.0, 1.0, dtype=wanted, device=device)
    return _made(drawn, requires_grad)


def randn(
    *shape: Any, dtype: Any = float32, generator: Generator | None = None, requires_grad: bool = False,
    device: Any = None,
) -> Tensor:  # fmt: skip
    """Normal with mean 0 and variance 1."""
    wanted = floating(dtype, "randn")
    drawn = draw(normal, _shape(shape), generator, 0.0, 1.0, dtype=wanted, device=device)
    return _made(drawn, requires_grad)


def truncated_randn(
    low: float, high: float, *shape: Any, mean: float = 0.0, std: float = 1.0, dtype: Any = float32,
    generator: Generator | None = None, requires_grad: bool = False, device: Any = None,
) -> Tensor:  # fmt: skip
    """Normal with this mean and standard deviation, under the condition that it lies in low … high."""
    wanted = floating(dtype, "truncated_randn")
    first, end = shares_between((low - mean) / std, (high - mean) / std)
    numbers = (first, end, float(low), float(high), float(mean), float(std))
    drawn = draw(truncated_normal, _shape(shape), generator, *numbers, dtype=wanted, device=device)
    return _made(drawn, requires_grad)


def randint(
    low: int, high: int, *shape: Any, dtype: Any = int64, generator: Generator | None = None,
    device: Any = None,
) -> Tensor:  # fmt: skip
    """Whole numbers from `low` to `high` - 1."""
    wanted = as_dtype(dtype)
    least, largest = wanted.range if wanted.is_integer else int64.range
    if not least <= low < high <= largest + (wanted != int64):
        raise ArgumentError(
            f"{where('randint')}: numbers from {low} to below {high} need low < high and a dtype that holds "
            f"them, not {wanted.name}"
        )
    return Tensor._make(draw(integers, _shape(shape), generator, low, high, dtype=wanted, device=device))


def bernoulli(
    p: Any, *shape: Any, dtype: Any = bool_, generator: Generator | None = None, device: Any = None
) -> Tensor:
    """True with probability `p`: a number and a shape, or a Tensor or array of probabilities."""
    wanted = as_dtype(dtype)
    if isinstance(p, (Tensor, np.ndarray)):
        if shape:
            raise ArgumentError(f"{where('bernoulli')}: a Tensor of probabilities has the shape already")
        chances = p.detach() if isinstance(p, Tensor) else Tensor._make(p)
        return coins_of(chances, seed_from(generator)).to(dtype=wanted, device=device)
    if not 0 <= p <= 1:
        raise ArgumentError(f"{where('bernoulli')}: a probability lies between 0 and 1, got {p}")
    return Tensor._make(draw(coins, _shape(shape), generator, float(p), dtype=wanted, device=device))


def randperm(count: int, generator: Generator | None = None, device: Any = None) -> Tensor:
    """0 … count - 1 in random order: that of 64 random bits each."""
    keys = draw(integers, (count,), generator, -(2**63), 2**63 - 1, dtype=int64)
    order = np.argsort(keys, kind="stable")
    return Tensor._make(storage.moved(order, storage.wanted_device(device)))


DRAWS = {f.__name__: f for f in (rand, randn, truncated_randn, randint, bernoulli)}
"""What the language's functions of these names are outside of ops."""
