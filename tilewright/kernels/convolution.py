"""Convolutions (cross-correlations, as everywhere in deep learning), channels first.

y[n, o, u] = Σ over c, r of x[n, c, u·stride + r·dilation - padding] · weight[o, c, r] + bias[o], x being 0 outside

`stride`, `padding` and `dilation` are one number, or one for each axis. With `groups`, the channels of x and y are
cut into so many equal parts, and each part of y sees one part of x: weight has size(x's c) / groups of them.
Source: Dumoulin and Visin, A guide to convolution arithmetic for deep learning, 2016.
"""

from __future__ import annotations

from typing import Any

import tilewright as tw
from tilewright.errors import ArgumentError
from tilewright.kernels.windows import Sliding, Steps, sliding, windows


@tw.op
def conv1d(
    x: tw.Tile["... c w"], weight: tw.Tile["o i s"], bias: tw.Tile["o"] = None,
    *, stride: Steps = 1, padding: Steps = 0, dilation: Steps = 1, groups: int = 1,
) -> tw.Tile["... o ow"]:  # fmt: skip
    """Σ_cs x[…, c, ow·stride + s·dilation - padding] · weight[o, c, s] + bias[o]."""
    return _convolved(x, weight, bias, sliding("w", "ow", "s", stride, padding, dilation), groups)


@tw.op
def conv2d(
    x: tw.Tile["... c h w"], weight: tw.Tile["o i r s"], bias: tw.Tile["o"] = None,
    *, stride: Steps = 1, padding: Steps = 0, dilation: Steps = 1, groups: int = 1,
) -> tw.Tile["... o oh ow"]:  # fmt: skip
    """`conv1d` along two axes."""
    return _convolved(x, weight, bias, sliding("h w", "oh ow", "r s", stride, padding, dilation), groups)


@tw.op
def conv3d(
    x: tw.Tile["... c d h w"], weight: tw.Tile["o i q r s"], bias: tw.Tile["o"] = None,
    *, stride: Steps = 1, padding: Steps = 0, dilation: Steps = 1, groups: int = 1,
) -> tw.Tile["... o od oh ow"]:  # fmt: skip
    """`conv1d` along three axes."""
    slides = sliding("d h w", "od oh ow", "q r s", stride, padding, dilation)
    return _convolved(x, weight, bias, slides, groups)


def _convolved(x: Any, weight: Any, bias: Any, slides: tuple[Sliding, ...], groups: int) -> Any:
    if not isinstance(groups, int) or groups < 1:
        raise ArgumentError(f"groups is a whole number from 1 on, not {groups!r}")
    taps = " ".join(s.tap for s in slides)
    if groups == 1:
        y = tw.sum(windows(x, slides).at(c=tw.index("i")) * weight, f"i {taps}")
    else:
        y = _in_groups(windows(x, slides), weight, taps, groups)
    return y if bias is None else y + bias


def _in_groups(window: Any, weight: Any, taps: str, groups: int) -> Any:
    """Output channel o = g·size(p) + p sees the input channels c = g·size(i) + i."""
    g, p = tw.axis("g", groups), tw.axis("p", tw.size("o") // groups)
    y = tw.sum(window.at(c=g * tw.size("i") + tw.index("i")) * weight.at(o=g * tw.size("p") + p), f"i {taps}")
    o = tw.index("o")
    return y.at(g=o // tw.size("p"), p=o % tw.size("p"))
