"""Convolutions and pools, forward and backward: channels first and last, of few and of many channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.nn import functional as F

from benchmarks.work import Bench, both, forward
from tests.kernels.test_convolution import channels_last, depthwise
from tests.support.cases import Case
from tilewright import kernels as K
from tilewright.op.op import Op


def convolution(
    channels: int,
    edge: int,
    filters: int,
    window: int,
    last: bool = False,
    quick: bool = False,
    images: int = 8,
    **options: int,
) -> list[Bench]:
    groups = options.get("groups", 1)
    axes = {
        "...": (images,), "groups": groups, "c": channels // groups, "h": edge, "w": edge,
        "o": filters // groups, "r": window, "s": window,
    }  # fmt: skip
    op, peer = (K.conv2d_channels_last, channels_last) if last else (K.conv2d, F.conv2d)
    case = Case(op, axes, constants=options, absent=("bias",), torch=peer)
    told = "".join(f", {key} {options[key]}" for key in ("stride", "dilation", "groups") if key in options)
    told += f", {images} images" if images != 8 else ""
    name = f"conv {window}×{window} {channels}→{filters} {edge}²{told}, {'NHWC' if last else 'NCHW'}"
    return [
        forward(name, "convolutions", case, axes, quick=quick),
        both(name, "convolutions", case, axes, quick=quick),
    ]


def pooled(op: Op, peer: Callable[..., Any], **options: int) -> list[Bench]:
    axes = {"...": (8, 64), "h": 112, "w": 112}

    def theirs(x: Any, window: int, **rest: int) -> Any:
        return peer(x, window, **rest)

    case = Case(op, axes, constants=options, torch=theirs)
    told = ", stride 1" if options.get("stride") == 1 else ""  # else each window begins at every second place
    name = f"{op.name.removesuffix('2d')} {options['window']}×{options['window']} 8×64×112²{told}"
    return [forward(name, "convolutions", case, axes, quick=False)]


def by_channel(window: int, **options: int) -> list[Bench]:
    axes = {"...": (8,), "c": 64, "h": 56, "w": 56, "r": window, "s": window}
    case = Case(K.depthwise_conv2d, axes, constants=options, absent=("bias",), torch=depthwise)
    told = "".join(f", {key} {options[key]}" for key in ("stride",) if key in options)
    name = f"depthwise conv {window}×{window} 8×64×56²{told}"
    return [
        forward(name, "convolutions", case, axes, quick=False),
        both(name, "convolutions", case, axes, quick=False),
    ]


BENCHES = [
    bench
    for last in (False, True)
    for bench in (
        *convolution(64, 56, 64, 3, last, quick=True, padding=1),
        *convolution(128, 28, 128, 3, last, padding=1),
        *convolution(256, 14, 256, 3, last, padding=1),
        *convolution(64, 56, 256, 1, last),
        *convolution(64, 56, 128, 3, last, padding=1, stride=2),
        *convolution(64, 56, 64, 3, last, padding=1, groups=4),
        *convolution(128, 56, 128, 3, last, padding=1, groups=32),
        *convolution(128, 28, 128, 3, last, padding=1, stride=2, groups=16),
        *convolution(512, 7, 512, 3, last, padding=1),
        *convolution(256, 28, 512, 1, last, stride=2),
        *convolution(64, 28, 64, 5, last, padding=2),
        *convolution(64, 28, 64, 3, last, padding=2, dilation=2),
        *convolution(3, 224, 64, 7, last, padding=3, stride=2),
        *convolution(3, 224, 32, 3, last, padding=1, stride=2),
        *convolution(32, 32, 64, 3, last, images=32, padding=1),
        *convolution(6, 14, 16, 5, last, images=64),
    )
]
BENCHES += [
    *by_channel(3, padding=1),
    *by_channel(3, padding=1, stride=2),
    *by_channel(5, padding=2),
    *pooled(K.max_pool2d, F.max_pool2d, window=2),
    *pooled(K.max_pool2d, F.max_pool2d, window=3, stride=2, padding=1),
    *pooled(K.max_pool2d, F.max_pool2d, window=3, stride=1, padding=1),
    *pooled(K.avg_pool2d, F.avg_pool2d, window=2),
    *pooled(K.avg_pool2d, F.avg_pool2d, window=3, stride=1, padding=1),
]
