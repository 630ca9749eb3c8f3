"""Initial values of parameters, written in place. Random numbers are drawn as `tw.rand` and `tw.randn` do,

with the default generator (`tw.manual_seed`) unless another is given.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilewright.errors import ArgumentError, ShapeError
from tilewright.tensor import draws
from tilewright.tensor.generator import Generator
from tilewright.tensor.tensor import Tensor


def _write(tensor: Tensor, values: Any) -> Tensor:
    tensor.detach().copy_(values)
    return tensor


def _drawn(op: Any, tensor: Tensor, generator: Generator | None, *numbers: float) -> Tensor:
    place = tensor.device
    values = draws.draw(op, tensor.shape, generator, *numbers, dtype=tensor.dtype, device=place)
    return _write(tensor, values)


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform between a and b."""
    return _drawn(draws.uniform, tensor, generator, float(a), float(b))


def normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Normal with this mean and standard deviation."""
    return _drawn(draws.normal, tensor, generator, float(mean), float(std))


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Normal, under the condition that it lies in a … b."""
    drawn = draws.truncated_randn(
        a, b, tensor.shape, mean=mean, std=std, dtype=tensor.dtype, generator=generator, device=tensor.device
    )
    return _write(tensor, drawn)


def constant_(tensor: Tensor, val: float) -> Tensor:
    return _write(tensor, val)


def zeros_(tensor: Tensor) -> Tensor:
    return _write(tensor, 0)


def ones_(tensor: Tensor) -> Tensor:
    return _write(tensor, 1)


def eye_(tensor: Tensor) -> Tensor:
    """The identity matrix."""
    if tensor.ndim != 2:
        raise ShapeError(f"eye_ needs a matrix, this tensor has shape {tensor.shape}")
    return _write(tensor, np.eye(tensor.shape[0], tensor.shape[1]))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution's weight [out in window] that passes its input on, as many channels as it can."""
    if tensor.ndim not in (3, 4, 5):
        raise ShapeError(f"dirac_ needs a convolution's weight, this tensor has shape {tensor.shape}")
    if groups < 1 or tensor.shape[0] % groups:
        raise ArgumentError(f"{tensor.shape[0]} channels are not {groups} groups of equally many")
    outputs = tensor.shape[0] // groups
    values = np.zeros(tensor.shape)
    middle = tuple(size // 2 for size in tensor.shape[2:])
    for channel in range(min(outputs, tensor.shape[1])):
        values[(slice(channel, None, outputs), channel, *middle)] = 1
    return _write(tensor, values)


def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """gain times a random matrix with orthonormal rows, or columns if it has fewer (Saxe et al., 2014).

    Dimensions behind the first are columns. Uniform among all such matrices.
    """
    if tensor.ndim < 2:
        raise ShapeError(f"orthogonal_ needs two or more dimensions, this tensor has shape {tensor.shape}")
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    drawn = draws.randn(max(rows, columns), min(rows, columns), dtype="float64", generator=generator)
    q, r = np.linalg.qr(drawn.cpu().numpy())
    q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return _write(tensor, gain * (q if rows >= columns else q.T).reshape(tensor.shape))


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    """A normal matrix in each of whose columns the share `sparsity`, rounded up, is 0 (Martens, 2010)."""
    if tensor.ndim != 2:
        raise ShapeError(f"sparse_ needs a matrix, this tensor has shape {tensor.shape}")
    rows, columns = tensor.shape
    normal_(tensor, 0.0, std, generator)
    order = draws.rand(columns, rows, generator=generator).cpu().numpy().argsort(1)
    kept = (order >= math.ceil(sparsity * rows)).T
    return _write(tensor, np.where(kept, tensor.detach().cpu().numpy(), 0))


def fans(tensor: Tensor) -> tuple[int, int]:
    """(inputs, outputs) of each unit of a weight [out, in, …]; trailing dimensions are a window of inputs."""
    if tensor.ndim < 2:
        raise ShapeError(
            f"fan in and fan out need at least two dimensions, this tensor has shape {tensor.shape}"
        )
    window = math.prod(tensor.shape[2:])
    return tensor.shape[1] * window, tensor.shape[0] * window


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The gain that keeps variances through a nonlinearity (He et al., 2015)."""
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    gains = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75}
    if nonlinearity not in gains:
        raise ArgumentError(
            f"no gain is known for {nonlinearity!r}; use one of {', '.join(gains)}, leaky_relu"
        )
    return gains[nonlinearity]


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform in ±gain √(6 / (in + out)) (Glorot & Bengio, 2010)."""
    bound = gain * math.sqrt(6 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal with standard deviation gain √(2 / (in + out)) (Glorot & Bengio, 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(fans(tensor))), generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ArgumentError(f'mode is "fan_in" or "fan_out", not {mode!r}')
    fan = fans(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(max(1, fan))


def kaiming_uniform_(
    tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Uniform in ±gain √(3 / fan) (He et al., 2015); `a` is the slope of leaky_relu."""
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Normal with standard deviation gain / √fan (He et al., 2015); `a` is the slope of leaky_relu."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)
