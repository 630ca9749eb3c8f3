"""Modules of images: convolutions, pools, resizing, padding; channels first, under torch's names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tilewright.errors import ArgumentError
from tilewright.nn import functional as F
from tilewright.nn import init
from tilewright.nn.module import Module
from tilewright.nn.parameter import Parameter
from tilewright.tensor.creation import empty
from tilewright.tensor.tensor import Tensor

Sizes = int | Sequence[int]


class Optioned(Module):
    """A module of one function; subclasses name its options, which are attributes, in `options`."""

    options: tuple[str, ...] = ()

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.options)


# --- convolutions -----------------------------------------------------------------------------------------


class Convolution(Optioned):
    """What convolutions along `rank` axes have in common: a weight, a bias, and how both start.

    weight and bias start uniform in ±1/√(what one result is a sum of), as torch has it.
    """

    rank = 1
    options = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes, padding: Any,
        dilation: Sizes, groups: int, bias: bool, dtype: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ArgumentError(f"{in_channels} and {out_channels} channels are not {groups} equal groups")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = _each(kernel_size, self.rank)
        self.stride, self.dilation = _each(stride, self.rank), _each(dilation, self.rank)
        self.padding = padding if isinstance(padding, str) else _each(padding, self.rank)
        self.weight = Parameter(empty(*self._weight_shape(), dtype=dtype))
        self.register_parameter("bias", Parameter(empty(out_channels, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def _weight_shape(self) -> tuple[int, ...]:
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    def reset_parameters(self) -> None:
        """Draw the initial values again."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            terms = math.prod(self.weight.shape[1:])
            bound = 1 / math.sqrt(terms) if terms else 0.0
            init.uniform_(self.bias, -bound, bound)


class _Conv(Convolution):
    """Cross-correlation of [… in_channels + axes] with [out_channels in_channels/groups + windows].

    `padding` may be "same" or "valid"; `padding_mode` is "zeros", "reflect", "replicate" or "circular".
    """

    options = (*Convolution.options, "padding_mode")

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Any = 0,
        dilation: Sizes = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
        dtype: Any = "float32",
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, dtype
        )
        self.padding_mode = padding_mode

    def forward(self, input: Tensor) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._pads(), self.padding_mode)
            padding = 0
        function = (F.conv1d, F.conv2d, F.conv3d)[self.rank - 1]
        return function(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _pads(self) -> tuple[int, ...]:
        """(before, after) for each axis, the last one first."""
        if self.padding == "valid":
            return (0,) * (2 * self.rank)
        if self.padding == "same":
            reaches = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return tuple(end for reach in reversed(reaches) for end in (reach // 2, reach - reach // 2))
        return tuple(int(number) for number in reversed(self.padding) for _ in range(2))


class Conv1d(_Conv):
    __doc__ = _Conv.__doc__


class Conv2d(_Conv):
    __doc__ = _Conv.__doc__
    rank = 2


class Conv3d(_Conv):
    __doc__ = _Conv.__doc__
    rank = 3


class TransposedConvolution(Convolution):
    """The transpose of a convolution, for a weight [in_channels out_channels/groups + windows]."""

    options = (*Convolution.options, "output_padding")

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Sizes = 0,
        output_padding: Sizes = 0, groups: int = 1, bias: bool = True, dilation: Sizes = 1,
        padding_mode: str = "zeros", dtype: Any = "float32",
    ) -> None:  # fmt: skip
        if padding_mode != "zeros":
            raise ArgumentError(
                f'a transposed convolution has the padding mode "zeros", not {padding_mode!r}'
            )
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, dtype
        )
        self.output_padding = _each(output_padding, self.rank)

    def _weight_shape(self) -> tuple[int, ...]:
        return (self.in_channels, self.out_channels // self.groups, *self.kernel_size)

    def forward(self, input: Tensor) -> Tensor:
        function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[self.rank - 1]
        return function(
            input, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups,
            self.dilation,
        )  # fmt: skip


class ConvTranspose1d(TransposedConvolution):
    __doc__ = TransposedConvolution.__doc__


class ConvTranspose2d(TransposedConvolution):
    __doc__ = TransposedConvolution.__doc__
    rank = 2


class ConvTranspose3d(TransposedConvolution):
    __doc__ = TransposedConvolution.__doc__
    rank = 3


# --- pools ------------------------------------------------------------------------------------------------


class _MaxPool(Optioned):
    """The largest value of each window; with `return_indices` also where it stands."""

    rank = 1
    options = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")

    def __init__(
        self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1,
        return_indices: bool = False, ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, input: Tensor) -> Any:
        function = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[self.rank - 1]
        return function(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode,
            self.return_indices,
        )  # fmt: skip


class MaxPool1d(_MaxPool):
    __doc__ = _MaxPool.__doc__


class MaxPool2d(_MaxPool):
    __doc__ = _MaxPool.__doc__
    rank = 2


class MaxPool3d(_MaxPool):
    __doc__ = _MaxPool.__doc__
    rank = 3


class _AvgPool(Optioned):
    """The mean of each window, of which padding is part unless `count_include_pad` is False."""

    rank = 1
    options = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")

    def __init__(
        self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, input: Tensor) -> Tensor:
        function = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[self.rank - 1]
        return function(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad,
            self.divisor_override,
        )  # fmt: skip


class AvgPool1d(_AvgPool):
    __doc__ = _AvgPool.__doc__


class AvgPool2d(_AvgPool):
    __doc__ = _AvgPool.__doc__
    rank = 2


class AvgPool3d(_AvgPool):
    __doc__ = _AvgPool.__doc__
    rank = 3


class _Adaptive(Optioned):
    """`output_size` shares of each axis, of nearly one length, as their mean or their largest value."""

    function = staticmethod(F.adaptive_avg_pool1d)
    options = ("output_size",)

    def __init__(self, output_size: Sizes) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return self.function(input, self.output_size)


class AdaptiveAvgPool1d(_Adaptive):
    """The mean of each of `output_size` shares of the last axis."""


class AdaptiveAvgPool2d(_Adaptive):
    """The mean of each of `output_size` shares of the last two axes."""

    function = staticmethod(F.adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_Adaptive):
    """The mean of each of `output_size` shares of the last three axes."""

    function = staticmethod(F.adaptive_avg_pool3d)


class _AdaptiveMax(_Adaptive):
    """The largest value of each share; with `return_indices` also where it stands."""

    function: Any = staticmethod(F.adaptive_max_pool1d)

    def __init__(self, output_size: Sizes, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        return self.function(input, self.output_size, self.return_indices)


class AdaptiveMaxPool1d(_AdaptiveMax):
    """The largest value of each of `output_size` shares of the last axis."""

    function = staticmethod(F.adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptiveMax):
    """The largest value of each of `output_size` shares of the last two axes."""

    function = staticmethod(F.adaptive_max_pool2d)


class AdaptiveMaxPool3d(_AdaptiveMax):
    """The largest value of each of `output_size` shares of the last three axes."""

    function = staticmethod(F.adaptive_max_pool3d)


class LocalResponseNorm(Optioned):
    """x / (k + alpha · mean of the squares of `size` neighbouring channels)^beta"""

    options = ("size", "alpha", "beta", "k")

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)


# --- sizes ------------------------------------------------------------------------------------------------


class Upsample(Optioned):
    """`functional.interpolate` to a size, or by a factor."""

    options = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")

    def __init__(
        self, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
        align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.size, self.scale_factor, self.mode, self.align_corners = size, scale_factor, mode, align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )


class UpsamplingNearest2d(Upsample):
    """`Upsample` by the nearest pixel."""

    options = ("size", "scale_factor")

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, "nearest")


class UpsamplingBilinear2d(Upsample):
    """`Upsample` between pixels whose corners are aligned."""

    options = ("size", "scale_factor")

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, "bilinear", align_corners=True)


class ChannelShuffle(Optioned):
    """Channels of `groups` groups, one of each in turn."""

    options = ("groups",)

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, input: Tensor) -> Tensor:
        return F.channel_shuffle(input, self.groups)


class Unfold(Optioned):
    """Every window as a column."""

    options = ("kernel_size", "dilation", "padding", "stride")

    def __init__(
        self, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1
    ) -> None:
        super().__init__()
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def forward(self, input: Tensor) -> Tensor:
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)


class Fold(Unfold):
    """The transpose of `Unfold`: windows added up in an image of `output_size`."""

    options = ("output_size", *Unfold.options)

    def __init__(
        self, output_size: Sizes, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0,
        stride: Sizes = 1,
    ) -> None:  # fmt: skip
        super().__init__(kernel_size, dilation, padding, stride)
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return F.fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)


class PixelShuffle(Optioned):
    """upscale_factor² channels as that many pixels."""

    options = ("upscale_factor",)

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_shuffle(input, self.upscale_factor)


class PixelUnshuffle(Optioned):
    """downscale_factor² pixels as that many channels."""

    options = ("downscale_factor",)

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_unshuffle(input, self.downscale_factor)


class _Pad(Optioned):
    """Something around the last axes: `padding` as torch has it, the last axis first, or one number."""

    rank, mode, value = 1, "constant", 0.0
    options = ("padding",)

    def __init__(self, padding: Sizes) -> None:
        super().__init__()
        count = 2 * self.rank
        self.padding = (padding,) * count if isinstance(padding, int) else tuple(padding)
        if len(self.padding) != count:
            raise ArgumentError(f"padding is one number or {count} of them, two an axis; got {padding!r}")

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self.mode, self.value)


class _ConstantPad(_Pad):
    options = ("padding", "value")

    def __init__(self, padding: Sizes, value: float) -> None:
        super().__init__(padding)
        self.value = value


def _padding(name: str, rank: int, parent: type[_Pad], mode: str, what: str) -> Any:
    return type(name, (parent,), {"rank": rank, "mode": mode, "__doc__": what, "__module__": __name__})


ZeroPad1d, ZeroPad2d, ZeroPad3d = (
    _padding(f"ZeroPad{rank}d", rank, _Pad, "constant", "Zeros around the last axes.") for rank in (1, 2, 3)
)
ConstantPad1d, ConstantPad2d, ConstantPad3d = (
    _padding(f"ConstantPad{rank}d", rank, _ConstantPad, "constant", "A value around the last axes.")
    for rank in (1, 2, 3)
)
ReflectionPad1d, ReflectionPad2d, ReflectionPad3d = (
    _padding(f"ReflectionPad{rank}d", rank, _Pad, "reflect", "The image mirrored at its last values.")
    for rank in (1, 2, 3)
)
ReplicationPad1d, ReplicationPad2d, ReplicationPad3d = (
    _padding(f"ReplicationPad{rank}d", rank, _Pad, "replicate", "The last values, repeated.")
    for rank in (1, 2, 3)
)
CircularPad1d, CircularPad2d, CircularPad3d = (
    _padding(f"CircularPad{rank}d", rank, _Pad, "circular", "The values of the other end.")
    for rank in (1, 2, 3)
)


def _each(value: Sizes, count: int) -> tuple[int, ...]:
    return (value,) * count if isinstance(value, int) else tuple(value)
