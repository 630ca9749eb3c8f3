"""Pools: one number for each window, channels first. The stride is the window's own size unless given.

`window`, `stride`, `padding` and `dilation` are one number, or one for each axis. With `ceil` the last window
may reach beyond the padding.
"""

from __future__ import annotations

import math
from typing import Any

import tilewright as tw
from tilewright.kernels.spaces import Space, in_every_space
from tilewright.kernels.windows import Sliding, Steps, each, windows


def max_pool(
    space: Space, x: tw.Tile["... {over}"], *, window: Steps, stride: Steps | None = None, padding: Steps = 0,
    dilation: Steps = 1, ceil: bool = False,
) -> tw.Tile["... {out}"]:  # fmt: skip
    """max over s of x[…, ow·stride + s·dilation - padding], -∞ outside; NaN wins. Along each axis."""
    slides = _declared(space, window, stride, padding, dilation, ceil)
    return tw.max(windows(x, slides, -tw.inf), space.taps)


max_pool1d, max_pool2d, max_pool3d = in_every_space(max_pool)


def max_pool_with_indices(
    space: Space, x: tw.Tile["... {over}"], *, window: Steps, stride: Steps | None = None, padding: Steps = 0,
    dilation: Steps = 1, ceil: bool = False,
) -> tuple[tw.Tile["... {out}"], tw.Tile["... {out}"]]:  # fmt: skip
    """`max_pool`, and where in the image (rows after one another) its first maximum stands, int64."""
    slides = _declared(space, window, stride, padding, dilation, ceil)
    tiles = windows(x, slides, -tw.inf)
    largest = tw.max(tiles, space.taps)
    number, inside = 0, True
    for slide in slides:
        position, size = slide.positions(), tw.size(slide.over)
        number, inside = number * size + position, (position >= 0) & (position < size) & inside
    found = ((tiles == largest) | tw.isnan(tiles)) & inside
    return largest, tw.min(tw.where(found, number, 2**62), space.taps)


max_pool_with_indices1d, max_pool_with_indices2d, max_pool_with_indices3d = in_every_space(
    max_pool_with_indices
)


def max_unpool(
    space: Space, x: tw.Tile["... {over}"], indices: tw.Tile["... {over}"], *, size: Steps,
) -> tw.Tile["... {out}"]:  # fmt: skip
    """x at the places `indices` in images of the extents `size`, 0 elsewhere: undoes `max_pool_with_indices`.

    Where windows share a maximum their values are added up.
    """
    positions, extents, rest = {}, {}, indices
    for out, extent in reversed(list(zip(space.out.split(), each("size", size, space.rank, 0), strict=True))):
        positions[out], extents[out] = rest % extent, extent
        rest = rest // extent
    ordered = {out: positions[out] for out in space.out.split()}
    return tw.scatter_add(x, ordered, extents, over=space.over)


max_unpool1d, max_unpool2d, max_unpool3d = in_every_space(max_unpool)


def avg_pool(
    space: Space, x: tw.Tile["... {over}"], *, window: Steps, stride: Steps | None = None, padding: Steps = 0,
    ceil: bool = False, count_include_pad: bool = True, divisor: int | None = None,
) -> tw.Tile["... {out}"]:  # fmt: skip
    """Σ_s x[…, ow·stride + s - padding] / (how many there are), along each axis.

    Padding counts unless `count_include_pad` is False; `divisor` is what to divide by instead.
    """
    slides = _declared(space, window, stride, padding, 1, ceil)
    total = tw.sum(windows(x, slides), space.taps)
    if divisor is not None:
        return total / divisor
    if count_include_pad and not ceil:
        return total / math.prod(each("window", window, space.rank, 1))
    count = 1
    for slide in slides:
        first, size, beyond = slide.start(), tw.size(slide.over), slide.after if count_include_pad else 0
        end = tw.minimum(first + tw.size(slide.tap), size + beyond)
        begin = first if count_include_pad else tw.maximum(first, 0)
        count = count * tw.cast(end - begin, x.dtype)
    return total / count


avg_pool1d, avg_pool2d, avg_pool3d = in_every_space(avg_pool)


def lp_pool(
    space: Space, x: tw.Tile["... {over}"], *, norm: float, window: Steps, stride: Steps | None = None,
    ceil: bool = False,
) -> tw.Tile["... {out}"]:  # fmt: skip
    """(Σ_s x[…, ow·stride + s]ᵖ)^(1/p) for p = `norm`, along each axis.

    Beyond the end (with `ceil`) stands what lets a window keep its mean, as torch has it.
    """
    slides = _declared(space, window, stride, 0, 1, ceil)
    total = tw.sum(windows(x, slides) ** norm, space.taps)
    for slide in slides if ceil else ():
        there = tw.minimum(tw.size(slide.tap), tw.size(slide.over) - slide.start())
        total = total * (tw.cast(tw.size(slide.tap), x.dtype) / tw.cast(there, x.dtype))
    return total ** (1 / norm)


lp_pool1d, lp_pool2d, lp_pool3d = in_every_space(lp_pool)


def adaptive_avg_pool(space: Space, x: tw.Tile["... {over}"], *, size: Steps) -> tw.Tile["... {out}"]:
    """The mean of x[…, ⌊i·n / m⌋ … ⌈(i + 1)·n / m⌉ - 1] for each of the m = `size` results i."""
    for names, extent in zip(_names(space), each("size", size, space.rank, 0), strict=True):
        tiles, count = _shares(x, names, extent, 0)
        x = tw.sum(tiles, names[2]) / tw.cast(count, x.dtype)
    return x


adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = in_every_space(adaptive_avg_pool)


def adaptive_max_pool(
    space: Space, x: tw.Tile["... {over}"], *, size: Steps
) -> tw.Tile["... {out}"]:  # fmt: skip
    """The largest of x[…, ⌊i·n / m⌋ … ⌈(i + 1)·n / m⌉ - 1] for each of the m = `size` results i; NaN wins."""
    for names, extent in zip(_names(space), each("size", size, space.rank, 0), strict=True):
        tiles, _ = _shares(x, names, extent, -tw.inf)
        x = tw.max(tiles, names[2])
    return x


adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = in_every_space(adaptive_max_pool)


@tw.op
def local_response_norm(
    x: tw.Tile["... c s"], *, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> tw.Tile["... c s"]:
    """x / (k + alpha · Σ x[c - ⌊size/2⌋ … c - ⌊size/2⌋ + size - 1]² / size)^beta, 0 outside.

    Source: Krizhevsky et al., ImageNet classification with deep convolutional networks, 2012.
    """
    squares = (x * x).at(c=tw.index("c") + tw.axis("near", size) - size // 2)
    return x / (k + alpha / size * tw.sum(squares, "near")) ** beta


def _names(space: Space) -> list[tuple[str, str, str]]:
    return list(zip(space.over.split(), space.out.split(), space.taps.split(), strict=True))


def _shares(x: Any, names: tuple[str, str, str], extent: int, fill: float) -> tuple[Any, Any]:
    """n positions as `extent` shares of nearly one length, `fill` where one is shorter; their lengths."""
    over, out, tap = names
    size, number = tw.size(over), tw.axis(out, extent)
    first = number * size // extent
    count = (number * size + size + extent - 1) // extent - first
    taken = tw.axis(tap, (size + extent - 2) // extent + 1)
    return tw.where(taken < count, x.at(**{over: first + taken}), fill), count


def _declared(
    space: Space, window: Steps, stride: Steps | None, padding: Steps, dilation: Steps, ceil: bool
) -> tuple[Sliding, ...]:
    """The windows of a pool, with their taps declared as axes."""
    slides = space.sliding(stride or window, padding, dilation, ceil)
    for slide, extent in zip(slides, each("window", window, space.rank, 1), strict=True):
        tw.axis(slide.tap, extent)
    return slides
