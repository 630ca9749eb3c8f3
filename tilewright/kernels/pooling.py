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
    shared: bool = False,
) -> tw.Tile["... {out}"]:  # fmt: skip
    """x at the places `indices` in images of the extents `size`, 0 elsewhere: undoes `max_pool_with_indices`.

    Values at one place are added up; with `shared` their mean stands there, which is the maximum that windows
    share.
    """
    positions, extents, rest = {}, {}, indices
    for out, extent in reversed(list(zip(space.out.split(), each("size", size, space.rank, 0), strict=True))):
        positions[out], extents[out] = rest % extent, extent
        rest = rest // extent
    ordered = {out: positions[out] for out in space.out.split()}
    total = tw.scatter_add(x, ordered, extents, over=space.over)
    if not shared:
        return total
    count = tw.scatter_add(tw.cast(indices == indices, tw.int64), ordered, extents, over=space.over)
    return total / tw.cast(tw.maximum(count, 1), x.dtype.compute)


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
    return _largest_shares(space, x, size)


adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = in_every_space(adaptive_max_pool)


def adaptive_max_pool_with_indices(
    space: Space, x: tw.Tile["... {over}"], *, size: Steps
) -> tuple[tw.Tile["... {out}"], tw.Tile["... {out}"]]:  # fmt: skip
    """`adaptive_max_pool`, and where in the image (rows after one another) its maximum stands, int64."""
    largest, number, inside, places = _largest_shares(space, x, size), 0, True, {}
    for names, extent in zip(_names(space), each("size", size, space.rank, 0), strict=True):
        first, taken, count = _share(*names, extent)
        places[names[0]] = first + taken
        number, inside = number * tw.size(names[0]) + first + taken, (taken < count) & inside
    tiles = x.at(**places)
    found = ((tiles == largest) | tw.isnan(tiles)) & inside
    return largest, tw.min(tw.where(found, number, 2**62), space.taps)


adaptive_max_pool_with_indices1d, adaptive_max_pool_with_indices2d, adaptive_max_pool_with_indices3d = (
    in_every_space(adaptive_max_pool_with_indices)
)


def fractional_max_pool(
    space: Space, x: tw.Tile["... c {over}"], samples: tw.Tile["... c k"], *, window: Steps, size: Steps
) -> tuple[tw.Tile["... c {out}"], tw.Tile["... c {out}"]]:
    """`max_pool_with_indices` of m = `size` windows whose distances differ at random (Graham, 2014).

    Window i begins at ⌊(i + u)·a⌋ - ⌊u·a⌋ for a = (n - window) / (m - 1), the last one at n - window.
    `samples` are the u, uniform in [0, 1), of each channel: of a plane the last axis first, of a volume the
    first one, as torch has them.
    """
    order = [1, 0] if space.rank == 2 else list(range(space.rank))
    wide, extents = each("window", window, space.rank, 1), each("size", size, space.rank, 1)
    number, places = 0, {}
    for (over, out, tap), taps, extent, k in zip(_names(space), wide, extents, order, strict=True):
        last, u, i = tw.size(over) - taps, samples.at(k=k), tw.axis(out, extent)
        step = tw.cast(last, u.dtype.compute) / max(extent - 1, 1)
        begin = tw.cast((i + u) * step, tw.int64) - tw.cast(u * step, tw.int64)
        places[over] = tw.where(i == extent - 1, last, begin) + tw.axis(tap, taps)
        number = number * tw.size(over) + places[over]
    tiles = x.at(**places)
    largest = tw.max(tiles, space.taps)
    found = (tiles == largest) | tw.isnan(tiles)
    return largest, tw.min(tw.where(found, number, 2**62), space.taps)


fractional_max_pool1d, fractional_max_pool2d, fractional_max_pool3d = in_every_space(fractional_max_pool)


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
    first, taken, count = _share(*names, extent)
    return tw.where(taken < count, x.at(**{names[0]: first + taken}), fill), count


def _largest_shares(space: Space, x: Any, size: Steps) -> Any:
    """The largest value of each share, one axis after the other."""
    for names, extent in zip(_names(space), each("size", size, space.rank, 0), strict=True):
        tiles, _ = _shares(x, names, extent, -tw.inf)
        x = tw.max(tiles, names[2])
    return x


def _share(over: str, out: str, tap: str, extent: int) -> tuple[Any, Any, Any]:
    """The first position of each share, the number of one in it, and how many there are."""
    size, number = tw.size(over), tw.axis(out, extent)
    first = number * size // extent
    count = (number * size + size + extent - 1) // extent - first
    return first, tw.axis(tap, (size + extent - 2) // extent + 1), count


def _declared(
    space: Space, window: Steps, stride: Steps | None, padding: Steps, dilation: Steps, ceil: bool
) -> tuple[Sliding, ...]:
    """The windows of a pool, with their taps declared as axes."""
    slides = space.sliding(stride or window, padding, dilation, ceil)
    for slide, extent in zip(slides, each("window", window, space.rank, 1), strict=True):
        tw.axis(slide.tap, extent)
    return slides
