"""Convolutions (cross-correlations, as everywhere in deep learning).

`stride`, `padding` and `dilation` are one number, or one for each axis that windows slide along; x is 0
outside. Source: Dumoulin and Visin, A guide to convolution arithmetic for deep learning, 2016.
"""

from __future__ import annotations

from typing import Any

import tilewright as tw
from tilewright.kernels.windows import Sliding, Steps, sliding, windows


@tw.op
def conv1d(
    x: tw.Tile["... c w"], weight: tw.Tile["o c s"], bias: tw.Tile["o"] = None,
    *, stride: Steps = 1, padding: Steps = 0, dilation: Steps = 1,
) -> tw.Tile["... o ow"]:  # fmt: skip
    """Σ_cs x[…, c, ow·stride + s·dilation - padding] · weight[o, c, s] + bias[o]."""
    return _convolved(x, weight, bias, sliding("w", "ow", "s", stride, padding, dilation))


@tw.op
def conv2d(
    x: tw.Tile["... c h w"], weight: tw.Tile["o c r s"], bias: tw.Tile["o"] = None,
    *, stride: Steps = 1, padding: Steps = 0, dilation: Steps = 1,
) -> tw.Tile["... o oh ow"]:  # fmt: skip
    """`conv1d` along two axes."""
    return _convolved(x, weight, bias, sliding("h w", "oh ow", "r s", stride, padding, dilation))


@tw.op
def conv3d(
    x: tw.Tile["... c d h w"], weight: tw.Tile["o c q r s"], bias: tw.Tile["o"] = None,
    *, stride: Steps = 1, padding: Steps = 0, dilation: Steps = 1,
) -> tw.Tile["... o od oh ow"]:  # fmt: skip
    """`conv1d` along three axes."""
    return _convolved(x, weight, bias, sliding("d h w", "od oh ow", "q r s", stride, padding, dilation))


@tw.op
def conv2d_channels_last(
    x: tw.Tile["... h w c"], weight: tw.Tile["o r s c"], bias: tw.Tile["o"] = None,
    *, stride: Steps = 1, padding: Steps = 0, dilation: Steps = 1,
) -> tw.Tile["... oh ow o"]:  # fmt: skip
    """`conv2d` of images whose channels lie together, and of weights that do so as well."""
    return _convolved(x, weight, bias, sliding("h w", "oh ow", "r s", stride, padding, dilation))


@tw.op
def depthwise_conv2d(
    x: tw.Tile["... c h w"], weight: tw.Tile["c r s"], bias: tw.Tile["c"] = None,
    *, stride: Steps = 1, padding: Steps = 0, dilation: Steps = 1,
) -> tw.Tile["... c oh ow"]:  # fmt: skip
    """Σ_rs x[…, c, oh·stride + r·dilation - padding, …] · weight[c, r, s] + bias[c]: every channel alone."""
    slides = sliding("h w", "oh ow", "r s", stride, padding, dilation)
    y = tw.sum(windows(x, slides) * weight, "r s")
    return y if bias is None else y + bias


def _convolved(x: Any, weight: Any, bias: Any, slides: tuple[Sliding, ...]) -> Any:
    taps = " ".join(s.tap for s in slides)
    y = tw.sum(windows(x, slides) * weight, f"c {taps}")
    return y if bias is None else y + bias
