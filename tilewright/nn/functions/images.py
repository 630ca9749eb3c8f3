"""Functions of images under torch's names: channels first, on the prebuilt ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tilewright import kernels
from tilewright.errors import ArgumentError, ShapeError
from tilewright.tensor.tensor import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])


def _along_axes(make: Callable[[int], Function]) -> tuple[Function, Function, Function]:
    """The functions that `make` gives for the last axis, the last two and the last three, named by rank."""
    one, two, three = (make(rank) for rank in (1, 2, 3))
    for rank, function in enumerate((one, two, three), 1):
        function.__name__ = function.__qualname__ = f"{function.__name__}{rank}d"
    return one, two, three


# --- convolutions -----------------------------------------------------------------------------------------


@_along_axes
def _convolutions(rank: int) -> Callable[..., Tensor]:
    op = (kernels.conv1d, kernels.conv2d, kernels.conv3d)[rank - 1]

    def conv(
        input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:  # fmt: skip
        """Σ x[…, c, i·stride + s·dilation - padding] · weight[o, c, s] + bias[o], i and s along each axis."""
        return op(
            input, weight, bias, stride=_hashable(stride), padding=_hashable(padding),
            dilation=_hashable(dilation), groups=groups,
        )  # fmt: skip

    return conv


@_along_axes
def _transposed_convolutions(rank: int) -> Callable[..., Tensor]:
    op = (kernels.conv_transpose1d, kernels.conv_transpose2d, kernels.conv_transpose3d)[rank - 1]

    def conv_transpose(
        input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
    ) -> Tensor:  # fmt: skip
        """The transpose of the convolution, for weights [in, out / groups, windows]."""
        return op(
            input, weight, bias, stride=_hashable(stride), padding=_hashable(padding),
            output_padding=_hashable(output_padding), groups=groups, dilation=_hashable(dilation),
        )  # fmt: skip

    return conv_transpose


conv1d, conv2d, conv3d = _convolutions
conv_transpose1d, conv_transpose2d, conv_transpose3d = _transposed_convolutions


# --- pools ------------------------------------------------------------------------------------------------


@_along_axes
def _max_pools(rank: int) -> Callable[..., Any]:
    plain = (kernels.max_pool1d, kernels.max_pool2d, kernels.max_pool3d)[rank - 1]
    with_indices = (
        kernels.max_pool_with_indices1d, kernels.max_pool_with_indices2d, kernels.max_pool_with_indices3d,
    )[rank - 1]  # fmt: skip

    def max_pool(
        input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False, return_indices: bool = False,
    ) -> Any:  # fmt: skip
        """The largest value of each window; with `return_indices` also its place."""
        return (with_indices if return_indices else plain)(
            input, window=_hashable(kernel_size), stride=_hashable(stride), padding=_hashable(padding),
            dilation=_hashable(dilation), ceil=ceil_mode,
        )  # fmt: skip

    return max_pool


@_along_axes
def _avg_pools(rank: int) -> Callable[..., Tensor]:
    op = (kernels.avg_pool1d, kernels.avg_pool2d, kernels.avg_pool3d)[rank - 1]

    def avg_pool(
        input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> Tensor:  # fmt: skip
        """The mean of each window, of which padding is part if `count_include_pad`."""
        return op(
            input, window=_hashable(kernel_size), stride=_hashable(stride), padding=_hashable(padding),
            ceil=ceil_mode, count_include_pad=count_include_pad, divisor=divisor_override,
        )  # fmt: skip

    return avg_pool


@_along_axes
def _lp_pools(rank: int) -> Callable[..., Tensor]:
    op = (kernels.lp_pool1d, kernels.lp_pool2d, kernels.lp_pool3d)[rank - 1]

    def lp_pool(
        input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
    ) -> Tensor:
        """(Σ xᵖ)^(1/p) of each window, for p = norm_type."""
        return op(
            input, norm=float(norm_type), window=_hashable(kernel_size), stride=_hashable(stride),
            ceil=ceil_mode,
        )  # fmt: skip

    return lp_pool


@_along_axes
def _adaptive_avg_pools(rank: int) -> Callable[[Any, Any], Tensor]:
    op = (kernels.adaptive_avg_pool1d, kernels.adaptive_avg_pool2d, kernels.adaptive_avg_pool3d)[rank - 1]

    def adaptive_avg_pool(input: Any, output_size: Any) -> Tensor:
        """The mean of each of `output_size` shares of the last axes."""
        return op(input, size=_sizes(input, output_size, rank))

    return adaptive_avg_pool


@_along_axes
def _adaptive_max_pools(rank: int) -> Callable[[Any, Any], Tensor]:
    op = (kernels.adaptive_max_pool1d, kernels.adaptive_max_pool2d, kernels.adaptive_max_pool3d)[rank - 1]

    def adaptive_max_pool(input: Any, output_size: Any) -> Tensor:
        """The largest value of each of `output_size` shares of the last axes."""
        return op(input, size=_sizes(input, output_size, rank))

    return adaptive_max_pool


max_pool1d, max_pool2d, max_pool3d = _max_pools
avg_pool1d, avg_pool2d, avg_pool3d = _avg_pools
lp_pool1d, lp_pool2d, lp_pool3d = _lp_pools
adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = _adaptive_avg_pools
adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = _adaptive_max_pools


# --- the rest ---------------------------------------------------------------------------------------------


def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """x / (k + alpha · mean of the squares of `size` neighbouring channels)^beta, along dimension 1."""
    if input.ndim < 3:
        raise ShapeError(f"local_response_norm needs [n, channels, …]; got the shape {input.shape}")
    flat = kernels.local_response_norm(input.flatten(2), size=size, alpha=alpha, beta=beta, k=k)
    return flat.reshape(input.shape)


def pad(input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Tensor:
    """Positions more around the last axes: `pad` has two numbers for the last one, then for the one before.

    `mode` is "constant" (with `value`), "reflect", "replicate" or "circular".
    """
    numbers = tuple(pad)
    rank = len(numbers) // 2
    if len(numbers) % 2 or not 1 <= rank <= 3:
        raise ArgumentError(f"pad has two numbers for each of one to three axes; got {numbers}")
    pairs = tuple(zip(numbers[-2::-2], numbers[::-2], strict=True))
    op = (kernels.pad1d, kernels.pad2d, kernels.pad3d)[rank - 1]
    return op(input, padding=pairs, mode=mode, value=0.0 if value is None else float(value))


INTERPOLATIONS = {
    "nearest": (1, 2, 3), "linear": (1,), "bilinear": (2,), "trilinear": (3,), "bicubic": (2,),
}  # fmt: skip


def interpolate(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:  # fmt: skip
    """[n channels …] at another size: "nearest", "linear", "bilinear", "trilinear" or "bicubic"."""
    rank = input.ndim - 2
    if rank not in INTERPOLATIONS.get(mode, ()):
        known = ", ".join(name for name, ranks in INTERPOLATIONS.items() if rank in ranks)
        raise ArgumentError(f"interpolate has {known or 'no mode'} for {input.ndim} dimensions; got {mode!r}")
    method = "cubic" if mode == "bicubic" else "nearest" if mode == "nearest" else "linear"
    op = (kernels.interpolate1d, kernels.interpolate2d, kernels.interpolate3d)[rank - 1]
    return op(
        input, size=_hashable(size), scale=_hashable(scale_factor), mode=method,
        align_corners=bool(align_corners),
    )  # fmt: skip


def pixel_shuffle(input: Any, upscale_factor: int) -> Tensor:
    """upscale_factor² channels as that many pixels: [… c·r² h w] → [… c h·r w·r]."""
    return kernels.pixel_shuffle(input, rows=upscale_factor, columns=upscale_factor)


def pixel_unshuffle(input: Any, downscale_factor: int) -> Tensor:
    """downscale_factor² pixels as that many channels: [… c h·r w·r] → [… c·r² h w]."""
    return kernels.pixel_unshuffle(input, rows=downscale_factor, columns=downscale_factor)


def unfold(input: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """Every window as a column: [n c h w] → [n c·(window's size) (number of windows)]."""
    return kernels.unfold2d(
        input, window=_hashable(kernel_size), stride=_hashable(stride), padding=_hashable(padding),
        dilation=_hashable(dilation),
    )  # fmt: skip


def fold(
    input: Any, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """The transpose of `unfold`: windows added up in an image of `output_size`."""
    given = (output_size, kernel_size, dilation, padding, stride)
    size, window, wide, pads, step = ((v, v) if isinstance(v, int) else tuple(v) for v in given)
    count = (size[1] + 2 * pads[1] - wide[1] * (window[1] - 1) - 1) // step[1] + 1
    return kernels.fold2d(
        input, size=size, r=window[0], s=window[1], ow=count, stride=step, padding=pads, dilation=wide
    )


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _sizes(input: Any, output_size: Any, rank: int) -> tuple[int, ...]:
    """`output_size` with the input's extents in place of None."""
    sizes = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * rank
    return tuple(e if s is None else s for s, e in zip(sizes, input.shape[-rank:], strict=True))


__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "fold",
    "interpolate",
    "local_response_norm",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "pad",
    "pixel_shuffle",
    "pixel_unshuffle",
    "unfold",
]
