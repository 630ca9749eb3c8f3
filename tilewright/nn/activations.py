"""Activations as modules."""

from __future__ import annotations

from typing import Any

from tilewright.errors import ShapeError
from tilewright.nn import functional as F
from tilewright.nn.module import Module
from tilewright.nn.parameter import Parameter
from tilewright.tensor.creation import full
from tilewright.tensor.tensor import Tensor


class Activation(Module):
    """A module of one function; subclasses name their options in `options`."""

    options: tuple[str, ...] = ()

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.options)


class ReLU(Activation):
    """max(x, 0)"""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input)


class LeakyReLU(Activation):
    """x where x > 0, else negative_slope · x"""

    options = ("negative_slope",)

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope)


class ELU(Activation):
    """x where x > 0, else alpha · (eˣ - 1)"""

    options = ("alpha",)

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        return F.elu(input, self.alpha)


class GELU(Activation):
    """x · Φ(x); approximate="tanh" is the tanh formula"""

    options = ("approximate",)

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, self.approximate)


class SiLU(Activation):
    """x · σ(x)"""

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(input)


class Softplus(Activation):
    """log(1 + exp(beta · x)) / beta, x where beta · x is above threshold"""

    options = ("beta", "threshold")

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, input: Tensor) -> Tensor:
        return F.softplus(input, self.beta, self.threshold)


class Sigmoid(Activation):
    """1 / (1 + e⁻ˣ)"""

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class Tanh(Activation):
    """(eˣ - e⁻ˣ) / (eˣ + e⁻ˣ)"""

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class Mish(Activation):
    """x · tanh(softplus(x))"""

    def forward(self, input: Tensor) -> Tensor:
        return F.mish(input)


class Hardswish(Activation):
    """0 up to -3, x from 3 on, x (x + 3) / 6 between"""

    def forward(self, input: Tensor) -> Tensor:
        return F.hardswish(input)


class Softmax(Activation):
    """exp(x) / Σ exp(x), along dim"""

    options = ("dim",)

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim)


class Softmax2d(Activation):
    """softmax along the channels of [… channels height width]"""

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in (3, 4):
            raise ShapeError(f"Softmax2d takes 3 or 4 dimensions; the input has shape {input.shape}")
        return F.softmax(input, -3)


class LogSoftmax(Activation):
    """x - log Σ exp(x), along dim"""

    options = ("dim",)

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim)


class ReLU6(Activation):
    """x kept in 0 … 6"""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu6(input)


class CELU(Activation):
    """x where x > 0, else alpha · (exp(x / alpha) - 1)"""

    options = ("alpha",)

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        return F.celu(input, self.alpha)


class SELU(Activation):
    """λ x where x > 0, else λ α (eˣ - 1) (Klambauer et al., 2017)"""

    def forward(self, input: Tensor) -> Tensor:
        return F.selu(input)


class Hardsigmoid(Activation):
    """0 up to -3, 1 from 3 on, x / 6 + ½ between"""

    def forward(self, input: Tensor) -> Tensor:
        return F.hardsigmoid(input)


class Hardtanh(Activation):
    """x kept in min_val … max_val"""

    options = ("min_val", "max_val")

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        super().__init__()
        self.min_val, self.max_val = min_val, max_val

    def forward(self, input: Tensor) -> Tensor:
        return F.hardtanh(input, self.min_val, self.max_val)


class Hardshrink(Activation):
    """0 where |x| ≤ lambd, else x"""

    options = ("lambd",)

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Tensor) -> Tensor:
        return F.hardshrink(input, self.lambd)


class Softshrink(Activation):
    """0 where |x| ≤ lambd, else x - lambd · sign(x)"""

    options = ("lambd",)

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Tensor) -> Tensor:
        return F.softshrink(input, self.lambd)


class Tanhshrink(Activation):
    """x - tanh(x)"""

    def forward(self, input: Tensor) -> Tensor:
        return F.tanhshrink(input)


class Softsign(Activation):
    """x / (1 + |x|)"""

    def forward(self, input: Tensor) -> Tensor:
        return F.softsign(input)


class LogSigmoid(Activation):
    """log σ(x)"""

    def forward(self, input: Tensor) -> Tensor:
        return F.logsigmoid(input)


class Threshold(Activation):
    """x where x > threshold, else value"""

    options = ("threshold", "value")

    def __init__(self, threshold: float, value: float) -> None:
        super().__init__()
        self.threshold, self.value = threshold, value

    def forward(self, input: Tensor) -> Tensor:
        return F.threshold(input, self.threshold, self.value)


class GLU(Activation):
    """a · σ(b), a and b the halves of the input along dim"""

    options = ("dim",)

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return F.glu(input, self.dim)


class Softmin(Activation):
    """exp(-x) / Σ exp(-x), along dim"""

    options = ("dim",)

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return F.softmin(input, self.dim)


class RReLU(Activation):
    """x where x > 0, else slope · x: random slopes in training, their mean in `eval` mode"""

    options = ("lower", "upper")

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3) -> None:
        super().__init__()
        self.lower, self.upper = lower, upper

    def forward(self, input: Tensor) -> Tensor:
        return F.rrelu(input, self.lower, self.upper, self.training)


class PReLU(Activation):
    """x where x > 0, else weight · x: one learned weight, or one for each position of dimension 1."""

    options = ("num_parameters",)

    def __init__(self, num_parameters: int = 1, init: float = 0.25, dtype: Any = "float32") -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.weight = Parameter(full((num_parameters,), init, dtype=dtype))

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, self.weight)
