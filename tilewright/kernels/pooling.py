"""Pools: one number for each window, channels first. The stride is the window's own size unless given.

`window`, `stride`, `padding` and `dilation` are one number, or one for each axis.
"""

from __future__ import annotations

import math
from typing import Any

import tilewright as tw
from tilewright.kernels.windows import Sliding, Steps, each, sliding, windows


@tw.op
def max_pool1d(
    x: tw.Tile["... w"], *, window: Steps, stride: Steps | None = None, padding: Steps = 0,
    dilation: Steps = 1,
) -> tw.Tile["... ow"]:  # fmt: skip
    """max over s of x[…, ow·stride + s·dilation - padding], -∞ outside; NaN wins."""
    slides = sliding("w", "ow", "s", stride or window, padding, dilation)
    return _largest(x, slides, window)


@tw.op
def max_pool2d(
    x: tw.Tile["... h w"], *, window: Steps, stride: Steps | None = None, padding: Steps = 0,
    dilation: Steps = 1,
) -> tw.Tile["... oh ow"]:  # fmt: skip
    """`max_pool1d` along two axes."""
    return _largest(x, sliding("h w", "oh ow", "r s", stride or window, padding, dilation), window)


@tw.op
def max_pool3d(
    x: tw.Tile["... d h w"], *, window: Steps, stride: Steps | None = None, padding: Steps = 0,
    dilation: Steps = 1,
) -> tw.Tile["... od oh ow"]:  # fmt: skip
    """`max_pool1d` along three axes."""
    return _largest(x, sliding("d h w", "od oh ow", "q r s", stride or window, padding, dilation), window)


@tw.op
def avg_pool1d(
    x: tw.Tile["... w"], *, window: Steps, stride: Steps | None = None, padding: Steps = 0,
    count_include_pad: bool = True,
) -> tw.Tile["... ow"]:  # fmt: skip
    """Σ_s x[…, ow·stride + s - padding] / size(s), or over those of them that are inside."""
    return _mean(x, sliding("w", "ow", "s", stride or window, padding, 1), window, count_include_pad)


@tw.op
def avg_pool2d(
    x: tw.Tile["... h w"], *, window: Steps, stride: Steps | None = None, padding: Steps = 0,
    count_include_pad: bool = True,
) -> tw.Tile["... oh ow"]:  # fmt: skip
    """`avg_pool1d` along two axes."""
    slides = sliding("h w", "oh ow", "r s", stride or window, padding, 1)
    return _mean(x, slides, window, count_include_pad)


@tw.op
def avg_pool3d(
    x: tw.Tile["... d h w"], *, window: Steps, stride: Steps | None = None, padding: Steps = 0,
    count_include_pad: bool = True,
) -> tw.Tile["... od oh ow"]:  # fmt: skip
    """`avg_pool1d` along three axes."""
    slides = sliding("d h w", "od oh ow", "q r s", stride or window, padding, 1)
    return _mean(x, slides, window, count_include_pad)


def _largest(x: Any, slides: tuple[Sliding, ...], window: Steps) -> Any:
    return tw.max(windows(x, _declared(slides, window), -tw.inf), _taps(slides))


def _mean(x: Any, slides: tuple[Sliding, ...], window: Steps, count_include_pad: bool) -> Any:
    total = tw.sum(windows(x, _declared(slides, window)), _taps(slides))
    if count_include_pad:
        return total / math.prod(each("window", window, len(slides), 1))
    count = 1
    for s in slides:
        first = s.start()
        inside = tw.minimum(first + tw.size(s.tap), tw.size(s.over)) - tw.maximum(first, 0)
        count = count * tw.cast(inside, x.dtype)
    return total / count


def _declared(slides: tuple[Sliding, ...], window: Steps) -> tuple[Sliding, ...]:
    """The same, with their taps declared as axes."""
    for slide, extent in zip(slides, each("window", window, len(slides), 1), strict=True):
        tw.axis(slide.tap, extent)
    return slides


def _taps(slides: tuple[Sliding, ...]) -> str:
    return " ".join(s.tap for s in slides)
