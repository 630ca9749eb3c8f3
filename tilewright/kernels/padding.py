"""Images with something around them."""

from __future__ import annotations

from typing import Any

import tilewright as tw
from tilewright.errors import ArgumentError
from tilewright.kernels.spaces import Space, in_every_space
from tilewright.kernels.windows import Pads, ends

MODES = ("constant", "reflect", "replicate", "circular")


def pad(
    space: Space, x: tw.Tile["... {over}"], *, padding: Pads, mode: str = "constant", value: float = 0,
) -> tw.Tile["... {out}"]:  # fmt: skip
    """x[…, out - before], and what `mode` says beyond the ends, for n positions:

    constant   `value`
    reflect    x[-p] before the first and x[2 (n - 1) - p] behind the last: the end is no mirror image
    replicate  x[0] and x[n - 1]
    circular   x[p + n] and x[p - n]

    `padding` is one number, one for each axis, or a pair (before, after) for each; negative ones take away.
    """
    return padded(x, space.over, space.out, padding, mode, value)


def padded(x: Any, over: str, out: str, padding: Pads, mode: str = "constant", value: float = 0) -> Any:
    """`x` with positions more along the axes `over`, which are called `out` then."""
    if mode not in MODES:
        raise ArgumentError(f"a padding mode is one of {', '.join(MODES)}; got {mode!r}")
    names = tuple(zip(over.split(), out.split(), strict=True))
    pairs = ends("padding", padding, len(names), -(2**31))
    for (axis, new), (before, after) in zip(names, pairs, strict=True):
        position = tw.axis(new, tw.size(axis) + before + after) - before
        x = _beyond(x, axis, position, mode, value)
    return x


def _beyond(x: Any, axis: str, position: Any, mode: str, value: float) -> Any:
    """`x` at positions that may be outside; up to one length away where the mode is not constant."""
    if mode == "constant":
        return x.at(fill=value, **{axis: position})
    size = tw.size(axis)
    low, high = {
        "reflect": (-position, 2 * (size - 1) - position),
        "replicate": (0, size - 1),
        "circular": (position + size, position - size),
    }[mode]
    return x.at(**{axis: tw.where(position < 0, low, tw.where(position >= size, high, position))})


pad1d, pad2d, pad3d = in_every_space(pad)
