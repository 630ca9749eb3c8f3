"""Convolutions and pools, forward and backward: channels first and last, of few and of many channels."""

from __future__ import annotations

from typing import Any

from torch.nn import functional as F

from benchmarks.work import Bench, both, forward
from tests.kernels.test_convolution import channels_last, depthwise
from tests.support.cases import Case
from tilewright import kernels as K


def convolution(
    channels: int,
    edge: int,
    filters: int,
    window: int,
    last: bool = False,
    quick: bool = False,
    **options: int,
) -> list[Bench]:
    groups = options.get("groups", 1)
    axes = {
        "...": (8,), "groups": groups, "c": channels // groups, "h": edge, "w": edge,
        "o": filters // groups, "r": window, "s": window,
    }  # fmt: skip
    op, peer = (K.conv2d_channels_last, channels_last) if last else (K.conv2d, F.conv2d)
    case = Case(op, axes, constants=options, absent=("bias",), torch=peer)
    told = "".join(f", {key} {options[key]}" for key in ("stride", "groups") if key in options)
    name = f"conv {window}×{window} {channels}→{filters} {edge}²{told}, {'NHWC' if last else 'NCHW'}"
    return [
        forward(name, "convolutions", case, axes, quick=quick),
        both(name, "convolutions", case, axes, quick=quick),
    ]


def pooled(**options: Any) -> list[Bench]:
    axes = {"...": (8, 64), "h": 112, "w": 112}
    case = Case(K.max_pool2d, axes, constants=options, torch=_max_pool)
    name = f"max_pool {options['window']}×{options['window']} 8×64×112²"
    return [forward(name, "convolutions", case, axes, quick=False)]


def _max_pool(x: Any, window: int, **options: int) -> Any:
    return F.max_pool2d(x, window, **options)


DEPTHWISE_AXES = {"...": (8,), "c": 64, "h": 56, "w": 56, "r": 3, "s": 3}
DEPTHWISE = Case(
    K.depthwise_conv2d, DEPTHWISE_AXES, constants={"padding": 1}, absent=("bias",), torch=depthwise
)

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
    )
]
BENCHES += [
    forward("depthwise conv 3×3 8×64×56²", "convolutions", DEPTHWISE, DEPTHWISE_AXES, quick=False),
    *pooled(window=2),
    *pooled(window=3, stride=2, padding=1),
]
