"""The same numbers in other places: windows, flips, rolls, diagonals, pixel shuffles."""

from __future__ import annotations

import tilewright as tw
from tilewright.kernels.spaces import PLANE
from tilewright.kernels.windows import Steps, each, windows


@tw.op
def unfold2d(
    x: tw.Tile["... c h w"], *, window: Steps, stride: Steps = 1, padding: Steps = 0, dilation: Steps = 1
) -> tw.Tile["... (c r s) (oh ow)"]:
    """x[…, c, oh·stride + r·dilation - padding, …]: every window as a column, 0 outside."""
    for tap, extent in zip(PLANE.taps.split(), each("window", window, 2, 1), strict=True):
        tw.axis(tap, extent)
    return windows(x, PLANE.sliding(stride, padding, dilation))


@tw.op
def fold2d(
    x: tw.Tile["... (c r s) (oh ow)"], *, size: Steps, r: int, s: int, ow: int, stride: Steps = 1,
    padding: Steps = 0, dilation: Steps = 1,
) -> tw.Tile["... c h w"]:  # fmt: skip
    """y[…, c, oh·stride + r·dilation - padding, …] += x[…, c, r, s, oh, ow]: the transpose of `unfold2d`.

    `size` is that of the image, `r` and `s` of the window, and `ow` how many windows there are in a row.
    """
    steps = (each("stride", stride, 2, 1), each("dilation", dilation, 2, 1), each("padding", padding, 2, 0))
    places = {
        over: tw.index(out) * step + tw.index(tap) * wide - pad
        for over, out, tap, step, wide, pad in zip("hw", ("oh", "ow"), "rs", *steps, strict=True)
    }
    return tw.scatter_add(x, places, dict(zip("hw", each("size", size, 2, 0), strict=True)))


@tw.op
def mirrored(x: tw.Tile["... n"]) -> tw.Tile["... n"]:
    """x[…, n - 1 - i]."""
    return x.at(n=tw.size("n") - 1 - tw.index("n"))


@tw.op
def rolled(x: tw.Tile["... n"], *, shift: int) -> tw.Tile["... n"]:
    """x[…, (i - shift) mod n]."""
    return x.at(n=(tw.index("n") - shift) % tw.size("n"))


@tw.op
def diagonals(x: tw.Tile["... i j"], *, offset: int = 0) -> tw.Tile["... n"]:
    """x[…, n, n + offset]; below the main one for a negative offset."""
    down, right = max(-offset, 0), max(offset, 0)
    n = tw.axis("n", tw.maximum(tw.minimum(tw.size("i") - down, tw.size("j") - right), 0))
    return x.at(i=n + down, j=n + right)


@tw.op
def channel_shuffle(x: tw.Tile["... (groups c) s"], *, groups: int) -> tw.Tile["... (c groups) s"]:
    """Channels of `groups` groups, one of each in turn (Zhang et al., ShuffleNet, 2018)."""
    return x


@tw.op
def pixel_shuffle(
    x: tw.Tile["... (c rows columns) h w"], *, rows: int, columns: int
) -> tw.Tile["... c (h rows) (w columns)"]:
    """rows · columns channels as that many pixels: y[…, c, h·rows + a, w·columns + b] = x[…, (c a b), h, w].

    Source: Shi et al., Real-time single image super-resolution, 2016.
    """
    return x


@tw.op
def pixel_unshuffle(
    x: tw.Tile["... c (h rows) (w columns)"], *, rows: int, columns: int
) -> tw.Tile["... (c rows columns) h w"]:
    """Undoes `pixel_shuffle`."""
    return x
