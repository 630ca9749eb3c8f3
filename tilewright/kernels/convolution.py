"""Convolutions (cross-correlations, as everywhere in deep learning).

`stride`, `padding` and `dilation` are one number, or one for each axis that windows slide along. `padding`
may be a pair (before, after) for each axis, "same" or "valid"; what lies there says `padding_mode` (`pad`).
Channels are `groups` sets which do not meet; as many groups as channels are a depthwise convolution. Source:
Dumoulin and Visin, A guide to convolution arithmetic for deep learning, 2016.
"""

from __future__ import annotations

from typing import Any

import tilewright as tw
from tilewright.errors import ArgumentError
from tilewright.kernels.padding import padded
from tilewright.kernels.spaces import PLANE, Space, in_every_space
from tilewright.kernels.windows import Pads, Steps, each, sliding, windows


def conv(
    space: Space,
    x: tw.Tile["... (groups c) {over}"],
    weight: tw.Tile["(groups o) c {taps}"],
    bias: tw.Tile["(groups o)"] = None,
    *, stride: Steps = 1, padding: Pads = 0, dilation: Steps = 1, groups: int = 1,
    padding_mode: str = "zeros",
) -> tw.Tile["... (groups o) {out}"]:  # fmt: skip
    """Σ_cs x[…, c, ow·stride + s·dilation - padding] · weight[o, c, s] + bias[o], along each axis."""
    return _convolved(space, x, weight, bias, stride, padding, dilation, padding_mode)


conv1d, conv2d, conv3d = in_every_space(conv)


@tw.op
def conv2d_channels_last(
    x: tw.Tile["... h w (groups c)"],
    weight: tw.Tile["(groups o) r s c"],
    bias: tw.Tile["(groups o)"] = None,
    *, stride: Steps = 1, padding: Pads = 0, dilation: Steps = 1, groups: int = 1,
    padding_mode: str = "zeros",
) -> tw.Tile["... oh ow (groups o)"]:  # fmt: skip
    """`conv2d` of images whose channels lie together, and of weights that do so as well."""
    return _convolved(PLANE, x, weight, bias, stride, padding, dilation, padding_mode)


def depthwise_conv(
    space: Space,
    x: tw.Tile["... c {over}"],
    weight: tw.Tile["c {taps}"],
    bias: tw.Tile["c"] = None,
    *, stride: Steps = 1, padding: Pads = 0, dilation: Steps = 1,
) -> tw.Tile["... c {out}"]:  # fmt: skip
    """Σ_s x[…, c, ow·stride + s·dilation - padding] · weight[c, s] + bias[c]: every channel alone."""
    y = tw.sum(windows(x, space.sliding(stride, padding, dilation)) * weight, space.taps)
    return y if bias is None else y + bias


depthwise_conv1d, depthwise_conv2d, depthwise_conv3d = in_every_space(depthwise_conv)


def _convolved(
    space: Space, x: Any, weight: Any, bias: Any, stride: Steps, padding: Pads, dilation: Steps, mode: str
) -> Any:
    over = space.over
    if mode != "zeros":
        if isinstance(padding, str):
            raise ArgumentError(f'padding={padding!r} is for padding_mode="zeros"; state it as numbers')
        over = " ".join(f"{axis}pad" for axis in over.split())
        x, padding = padded(x, space.over, over, padding, mode), 0
    slides = sliding(over, space.out, space.taps, stride, padding, dilation)
    y = tw.sum(windows(x, slides) * weight, f"c {space.taps}")
    return y if bias is None else y + bias


def conv_transpose(
    space: Space,
    x: tw.Tile["... (groups c) {over}"],
    weight: tw.Tile["(groups c) o {taps}"],
    bias: tw.Tile["(groups o)"] = None,
    *, stride: Steps = 1, padding: Steps = 0, output_padding: Steps = 0, groups: int = 1, dilation: Steps = 1,
) -> tw.Tile["... (groups o) {out}"]:  # fmt: skip
    """y[…, o, w·stride + s·dilation - padding] += Σ_c x[…, c, w] · weight[c, o, s]: the transpose of `conv`.

    The result is (size - 1)·stride - 2·padding + dilation·(taps - 1) + output_padding + 1 long.
    """
    steps = (each("stride", stride, space.rank, 1), each("padding", padding, space.rank, 0))
    further = each("output_padding", output_padding, space.rank, 0), each("dilation", dilation, space.rank, 1)
    names = zip(space.over.split(), space.out.split(), space.taps.split(), strict=True)
    positions, extents = {}, {}
    for (over, out, tap), step, pad, more, wide in zip(names, *steps, *further, strict=True):
        positions[out] = tw.index(over) * step + tw.index(tap) * wide - pad
        extents[out] = (tw.size(over) - 1) * step - 2 * pad + wide * (tw.size(tap) - 1) + more + 1
    y = tw.scatter_add(tw.sum(x * weight, "c"), positions, extents)
    return y if bias is None else y + bias


conv_transpose1d, conv_transpose2d, conv_transpose3d = in_every_space(conv_transpose)
