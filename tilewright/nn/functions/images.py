"""Functions of images under torch's names: channels first, on the prebuilt ops."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from tilewright import kernels
from tilewright.errors import ArgumentError, ShapeError
from tilewright.tensor.creation import beside
from tilewright.tensor.draws import rand
from tilewright.tensor.generator import Generator
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
def _adaptive_max_pools(rank: int) -> Callable[..., Any]:
    plain = (kernels.adaptive_max_pool1d, kernels.adaptive_max_pool2d, kernels.adaptive_max_pool3d)[rank - 1]
    with_indices = (
        kernels.adaptive_max_pool_with_indices1d, kernels.adaptive_max_pool_with_indices2d,
        kernels.adaptive_max_pool_with_indices3d,
    )[rank - 1]  # fmt: skip

    def adaptive_max_pool(input: Any, output_size: Any, return_indices: bool = False) -> Any:
        """The largest value of each of `output_size` shares of the last axes; with `return_indices` also its
        place.
        """
        return (with_indices if return_indices else plain)(input, size=_sizes(input, output_size, rank))

    return adaptive_max_pool


@_along_axes
def _fractional_max_pools(rank: int) -> Callable[..., Any]:
    op = (kernels.fractional_max_pool1d, kernels.fractional_max_pool2d, kernels.fractional_max_pool3d)[
        rank - 1
    ]

    def fractional_max_pool(
        input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
        return_indices: bool = False, _random_samples: Any = None, generator: Generator | None = None,
    ) -> Any:  # fmt: skip
        """The largest value of each of `output_size` windows (or that part, `output_ratio`, of the positions)
        whose distances differ at random; with `return_indices` also its place.

        `_random_samples` [n channels axes], uniform in [0, 1), decide instead of the generator.
        """
        if (output_size is None) == (output_ratio is None):
            raise ArgumentError("fractional_max_pool takes either output_size or output_ratio")
        if output_ratio is not None:
            ratios = output_ratio if isinstance(output_ratio, (tuple, list)) else (output_ratio,) * rank
            output_size = tuple(int(n * r) for n, r in zip(input.shape[-rank:], ratios, strict=True))
        channels = input.shape[: input.ndim - rank]
        samples = _random_samples
        if samples is None:
            samples = rand(*channels, rank, dtype=input.dtype, generator=generator, device=input.device)
        samples = beside(samples, input).reshape(*channels, rank)
        found = op(input, samples, window=_hashable(kernel_size), size=_hashable(output_size))
        return found if return_indices else found[0]

    return fractional_max_pool


@_along_axes
def _max_unpools(rank: int) -> Callable[..., Tensor]:
    op = (kernels.max_unpool1d, kernels.max_unpool2d, kernels.max_unpool3d)[rank - 1]

    def max_unpool(
        input: Tensor, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
        output_size: Any = None,
    ) -> Tensor:  # fmt: skip
        """The input at the places `indices`, 0 elsewhere: undoes a max_pool with `return_indices`.

        `output_size` says which of the sizes it is that are pooled to that of the input; the smallest unless
        given. Where windows overlap, the mean of the values for one place stands there.
        """
        windows, steps, pads = (
            value if isinstance(value, (tuple, list)) else (value,) * rank
            for value in (kernel_size, kernel_size if stride is None else stride, padding)
        )
        size = tuple(
            (n - 1) * step + window - 2 * pad
            for n, window, step, pad in zip(input.shape[-rank:], windows, steps, pads, strict=True)
        )
        if output_size is not None:
            size = _unpooled_size(tuple(output_size)[-rank:], size, steps)
        overlap = any(step < window for window, step in zip(windows, steps, strict=True))
        return op(input, indices, size=size, shared=overlap)

    return max_unpool


def _unpooled_size(wanted: tuple[int, ...], least: tuple[int, ...], steps: Any) -> tuple[int, ...]:
    fits = (n - s < w < n + s for w, n, s in zip(wanted, least, steps, strict=True))
    if len(wanted) != len(least) or not all(fits):
        raise ArgumentError(
            f"max_unpool: an output_size is within one stride of {least} along each axis; got {wanted}"
        )
    return wanted


def _with_indices(pool: Function) -> Function:
    """A pool that gives (values, places)."""

    @functools.wraps(pool)
    def with_indices(*arguments: Any, **options: Any) -> Any:
        return pool(*arguments, **{**options, "return_indices": True})

    with_indices.__name__ = with_indices.__qualname__ = f"{pool.__name__}_with_indices"
    return with_indices  # type: ignore[return-value]


max_pool1d, max_pool2d, max_pool3d = _max_pools
avg_pool1d, avg_pool2d, avg_pool3d = _avg_pools
lp_pool1d, lp_pool2d, lp_pool3d = _lp_pools
adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = _adaptive_avg_pools
adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = _adaptive_max_pools
_, fractional_max_pool2d, fractional_max_pool3d = _fractional_max_pools
max_unpool1d, max_unpool2d, max_unpool3d = _max_unpools
max_pool1d_with_indices, max_pool2d_with_indices, max_pool3d_with_indices = map(_with_indices, _max_pools)
adaptive_max_pool1d_with_indices, adaptive_max_pool2d_with_indices, adaptive_max_pool3d_with_indices = map(
    _with_indices, _adaptive_max_pools
)
fractional_max_pool2d_with_indices = _with_indices(fractional_max_pool2d)
fractional_max_pool3d_with_indices = _with_indices(fractional_max_pool3d)


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
    "nearest": (1, 2, 3), "nearest-exact": (1, 2, 3), "area": (1, 2, 3), "linear": (1,), "bilinear": (2,),
    "trilinear": (3,), "bicubic": (2,),
}  # fmt: skip
METHODS = {"bicubic": "cubic", "nearest": "nearest", "nearest-exact": "nearest-exact"}


def interpolate(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> Tensor:  # fmt: skip
    """[n channels …] at another size, `mode` being a name in `INTERPOLATIONS`.

    `recompute_scale_factor` takes the scale that the two sizes have, not the one given. `antialias` (for
    "bilinear" and "bicubic") lets every position count in a smaller image.
    """
    rank = input.ndim - 2
    if rank not in INTERPOLATIONS.get(mode, ()):
        known = ", ".join(name for name, ranks in INTERPOLATIONS.items() if rank in ranks)
        raise ArgumentError(f"interpolate has {known or 'no mode'} for {input.ndim} dimensions; got {mode!r}")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ArgumentError(f'antialias is for the modes "bilinear" and "bicubic"; got {mode!r}')
    if scale_factor is not None and (recompute_scale_factor or mode == "area"):
        if size is not None:
            raise ArgumentError("interpolate takes either the size of the result or the scale")
        scales = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * rank
        size = tuple(int(n * scale) for n, scale in zip(input.shape[2:], scales, strict=True))
        scale_factor = None
    if mode == "area":
        return _adaptive_avg_pools[rank - 1](input, size)
    method = METHODS.get(mode, "linear")
    op = (kernels.interpolate1d, kernels.interpolate2d, kernels.interpolate3d)[rank - 1]
    return op(
        input, size=_hashable(size), scale=_hashable(scale_factor), mode=method,
        align_corners=bool(align_corners), antialias=antialias,
    )  # fmt: skip


def grid_sample(
    input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:  # fmt: skip
    """[n channels …] read at the places grid [n … axes], the last axis first: -1 is one end and 1 the other.

    `mode` is "bilinear" (of volumes, too), "nearest" or "bicubic"; beyond the ends `padding_mode` has
    "zeros", the last values ("border") or the image mirrored ("reflection"). With `align_corners` the ends
    are the first and the last position, else their outer borders.
    """
    rank = input.ndim - 2
    if rank not in (2, 3) or grid.ndim != input.ndim or grid.shape[-1] != rank:
        raise ShapeError(
            "grid_sample reads [n channels h w] at [n rows columns 2], or volumes at [n … … … 3]; got the "
            f"shapes {input.shape} and {grid.shape}"
        )
    methods = {"bilinear": "linear", "nearest": "nearest"} | ({"bicubic": "cubic"} if rank == 2 else {})
    if mode not in methods:
        raise ArgumentError(f"grid_sample has {', '.join(methods)} for {input.ndim} dimensions; got {mode!r}")
    op = (kernels.grid_sample2d, kernels.grid_sample3d)[rank - 2]
    return op(input, grid, mode=methods[mode], padding=padding_mode, align_corners=bool(align_corners))


def affine_grid(theta: Tensor, size: Any, align_corners: bool | None = None) -> Tensor:
    """The places, for `grid_sample`, that the maps theta [n axes axes+1] make of an image [n channels …]."""
    rank = len(size) - 2
    if rank not in (2, 3) or theta.ndim != 3 or theta.shape[1:] != (rank, rank + 1):
        raise ShapeError(
            "affine_grid has maps [n 2 3] for a size [n channels h w], or [n 3 4] for one of volumes; got "
            f"the shape {theta.shape} and the size {tuple(size)}"
        )
    op = (kernels.affine_grid2d, kernels.affine_grid3d)[rank - 2]
    return op(theta, size=tuple(size)[2:], align_corners=bool(align_corners))


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Channels, dimension 1, of `groups` groups: one of each in turn."""
    if input.ndim < 3 or groups < 1 or input.shape[1] % groups:
        raise ShapeError(
            f"channel_shuffle needs [n channels …] with a multiple of {groups} channels; got {input.shape}"
        )
    return kernels.channel_shuffle(input.flatten(2), groups=groups).reshape(input.shape)


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
    "adaptive_max_pool1d_with_indices",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_with_indices",
    "adaptive_max_pool3d",
    "adaptive_max_pool3d_with_indices",
    "affine_grid",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "channel_shuffle",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "fold",
    "fractional_max_pool2d",
    "fractional_max_pool2d_with_indices",
    "fractional_max_pool3d",
    "fractional_max_pool3d_with_indices",
    "grid_sample",
    "interpolate",
    "local_response_norm",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool1d_with_indices",
    "max_pool2d",
    "max_pool2d_with_indices",
    "max_pool3d",
    "max_pool3d_with_indices",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
    "pad",
    "pixel_shuffle",
    "pixel_unshuffle",
    "unfold",
]
