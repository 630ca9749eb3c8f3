"""Norms as modules, and modules that compare rows."""

from __future__ import annotations

from typing import Any

from tilewright.errors import ArgumentError, ShapeError
from tilewright.nn import functional as F
from tilewright.nn.activations import Activation
from tilewright.nn.module import Module
from tilewright.nn.parameter import Parameter
from tilewright.tensor.creation import ones, zeros
from tilewright.tensor.tensor import Tensor


class LayerNorm(Module):
    """(x - mean) / √(var + eps) · weight + bias over the last dimensions, which have `normalized_shape`."""

    def __init__(
        self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True,
        dtype: Any = "float32",
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalized_shape, self.eps = _shape(normalized_shape), eps
        self.elementwise_affine = elementwise_affine
        shape = self.normalized_shape
        self.register_parameter("weight", Parameter(ones(shape, dtype=dtype)) if elementwise_affine else None)
        with_bias = elementwise_affine and bias
        self.register_parameter("bias", Parameter(zeros(shape, dtype=dtype)) if with_bias else None)

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        affine = f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        return f"{self.normalized_shape}, eps={self.eps}, {affine}"


class RMSNorm(Module):
    """x / √(mean(x²) + eps) · weight over the last dimensions; eps is by default the dtype's machine
    epsilon.
    """

    def __init__(
        self,
        normalized_shape: Any,
        eps: float | None = None,
        elementwise_affine: bool = True,
        dtype: Any = "float32",
    ) -> None:
        super().__init__()
        self.normalized_shape, self.eps = _shape(normalized_shape), eps
        self.elementwise_affine = elementwise_affine
        shape = self.normalized_shape
        self.register_parameter("weight", Parameter(ones(shape, dtype=dtype)) if elementwise_affine else None)

    def forward(self, input: Tensor) -> Tensor:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


def _shape(shape: Any) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


class GroupNorm(Module):
    """(x - μ) / √(σ² + eps) · weight + bias, the statistics being those of each of `num_groups` groups."""

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True,
        dtype: Any = "float32", *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ArgumentError(f"{num_channels} channels are not {num_groups} groups of equally many")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        self.register_parameter("weight", Parameter(ones(num_channels, dtype=dtype)) if affine else None)
        with_bias = affine and bias
        self.register_parameter("bias", Parameter(zeros(num_channels, dtype=dtype)) if with_bias else None)

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


class ChannelNorm(Module):
    """Base of the norms with one mean and variance a channel, which keep running statistics of them.

    `momentum` is the share of a batch in the running statistics; None averages over all batches alike.
    """

    ranks: tuple[int, ...] = ()
    """How many dimensions inputs may have."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, dtype: Any = "float32", *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.register_parameter("weight", Parameter(ones(num_features, dtype=dtype)) if affine else None)
        with_bias = affine and bias
        self.register_parameter("bias", Parameter(zeros(num_features, dtype=dtype)) if with_bias else None)
        tracked = track_running_stats
        self.register_buffer("running_mean", zeros(num_features, dtype=dtype) if tracked else None)
        self.register_buffer("running_var", ones(num_features, dtype=dtype) if tracked else None)
        self.register_buffer("num_batches_tracked", zeros((), dtype="int64") if tracked else None)

    def _check(self, input: Tensor, channels: int) -> None:
        if input.ndim not in self.ranks or input.shape[channels] != self.num_features:
            ranks = " or ".join(map(str, self.ranks))
            raise ShapeError(
                f"{type(self).__name__}({self.num_features}) takes {ranks} dimensions, {self.num_features} "
                f"channels among them; the input has shape {input.shape}"
            )

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class BatchNorm(ChannelNorm):
    """(x - μ) / √(σ² + eps) · weight + bias for each channel, dimension 1 (Ioffe & Szegedy, 2015).

    In training the statistics are the batch's, in `eval` mode the running ones (the batch's where none are
    tracked).
    """

    def _share(self) -> float:
        """The share of this batch in the running statistics; counts the batch."""
        if not (self.training and self.track_running_stats):
            return 0.0
        self.num_batches_tracked.add_(1)
        return 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum

    def forward(self, input: Tensor) -> Tensor:
        self._check(input, 1)
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias,
            self.training or self.running_mean is None, self._share(), self.eps,
        )  # fmt: skip


class BatchNorm1d(BatchNorm):
    """`BatchNorm` of [batch channels] or [batch channels length]."""

    ranks = (2, 3)


class BatchNorm2d(BatchNorm):
    """`BatchNorm` of [batch channels height width]."""

    ranks = (4,)


class BatchNorm3d(BatchNorm):
    """`BatchNorm` of [batch channels depth height width]."""

    ranks = (5,)


class InstanceNorm(ChannelNorm):
    """`BatchNorm` with the statistics of each sample alone (Ulyanov et al., 2016), which may be one.

    As torch has it, it does not count the batches.
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
        track_running_stats: bool = False, dtype: Any = "float32", *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        alone = input.ndim == self.ranks[0]
        self._check(input, 0 if alone else 1)
        y = F.instance_norm(
            input.unsqueeze(0) if alone else input, self.running_mean, self.running_var, self.weight,
            self.bias, self.training or self.running_mean is None, self.momentum or 0.0, self.eps,
        )  # fmt: skip
        return y.squeeze(0) if alone else y


class InstanceNorm1d(InstanceNorm):
    """`InstanceNorm` of [… channels length]."""

    ranks = (2, 3)


class InstanceNorm2d(InstanceNorm):
    """`InstanceNorm` of [… channels height width]."""

    ranks = (3, 4)


class InstanceNorm3d(InstanceNorm):
    """`InstanceNorm` of [… channels depth height width]."""

    ranks = (4, 5)


class CosineSimilarity(Activation):
    """Σ x · z / (max(‖x‖, eps) · max(‖z‖, eps)), along dim"""

    options = ("dim", "eps")

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return F.cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(Activation):
    """‖x - z + eps‖ₚ, along the last dimension"""

    options = ("p", "eps", "keepdim")

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        super().__init__()
        self.p, self.eps, self.keepdim = p, eps, keepdim

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return F.pairwise_distance(x1, x2, self.p, self.eps, self.keepdim)
