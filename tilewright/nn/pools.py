"""Modules of pools: power means, windows at random, and the undoing of maxima."""

from __future__ import annotations

from typing import Any

from tilewright.errors import ArgumentError
from tilewright.nn import functional as F
from tilewright.nn.images import Optioned, Sizes
from tilewright.tensor.tensor import Tensor


class _MaxUnpool(Optioned):
    """The input at the places that a max_pool with `return_indices` gave, 0 elsewhere."""

    rank = 1
    options = ("kernel_size", "stride", "padding")

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding = padding

    def forward(self, input: Tensor, indices: Any, output_size: Any = None) -> Tensor:
        function = (F.max_unpool1d, F.max_unpool2d, F.max_unpool3d)[self.rank - 1]
        return function(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool1d(_MaxUnpool):
    __doc__ = _MaxUnpool.__doc__


class MaxUnpool2d(_MaxUnpool):
    __doc__ = _MaxUnpool.__doc__
    rank = 2


class MaxUnpool3d(_MaxUnpool):
    __doc__ = _MaxUnpool.__doc__
    rank = 3


class _LPPool(Optioned):
    """(Σ xᵖ)^(1/p) of each window, for p = norm_type."""

    rank = 1
    options = ("norm_type", "kernel_size", "stride", "ceil_mode")

    def __init__(
        self, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
    ) -> None:
        super().__init__()
        self.norm_type, self.kernel_size, self.stride = norm_type, kernel_size, stride
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        function = (F.lp_pool1d, F.lp_pool2d, F.lp_pool3d)[self.rank - 1]
        return function(input, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)


class LPPool1d(_LPPool):
    __doc__ = _LPPool.__doc__


class LPPool2d(_LPPool):
    __doc__ = _LPPool.__doc__
    rank = 2


class LPPool3d(_LPPool):
    __doc__ = _LPPool.__doc__
    rank = 3


class _FractionalMaxPool(Optioned):
    """The largest value of each of `output_size` windows whose distances differ at random (Graham, 2014)."""

    rank = 2
    options = ("kernel_size", "output_size", "output_ratio")

    def __init__(
        self, kernel_size: Sizes, output_size: Sizes | None = None, output_ratio: Any = None,
        return_indices: bool = False, _random_samples: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if (output_size is None) == (output_ratio is None):
            raise ArgumentError("a fractional pool takes either output_size or output_ratio")
        self.kernel_size, self.output_size, self.output_ratio = kernel_size, output_size, output_ratio
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)

    def forward(self, input: Tensor) -> Any:
        function = F.fractional_max_pool2d if self.rank == 2 else F.fractional_max_pool3d
        return function(
            input, self.kernel_size, self.output_size, self.output_ratio, self.return_indices,
            self._random_samples,
        )  # fmt: skip


class FractionalMaxPool2d(_FractionalMaxPool):
    __doc__ = _FractionalMaxPool.__doc__


class FractionalMaxPool3d(_FractionalMaxPool):
    __doc__ = _FractionalMaxPool.__doc__
    rank = 3
