"""Windows that the tables of convolutions and images leave out: further ranks, maxima with their places."""

from __future__ import annotations

import math

import numpy as np
import torch.nn.functional as F

from tests.kernels.cases_scans import apart
from tests.support.cases import Case, labels
from tilewright import kernels as K

LINE, PLANE, SPACE = (
    {"...": (2, 3), "w": 11},
    {"...": (2,), "h": 5, "w": 7},
    {"...": (2,), "d": 3, "h": 4, "w": 5},
)


def depthwise(function):
    def call(x, weight, bias=None, **options):
        return function(x, weight[:, None], bias, groups=len(weight), **options)

    return call


def with_places(function):
    def call(x, window, **options):
        return function(x[:, None], window, return_indices=True, **options)

    return lambda x, **options: tuple(found[:, 0] for found in call(x, **options))


def torch_unpool(x, indices, size):
    rank = len(size)
    flat = x.flatten(-rank)
    found = flat.new_zeros((*flat.shape[:-1], math.prod(size)))
    return found.scatter_add(-1, indices.flatten(-rank), flat).unflatten(-1, size)


def unpool(op, axes, size) -> Case:
    return Case(
        op,
        axes,
        constants={"size": size},
        draw={"indices": labels(0, math.prod(size))},
        dtypes={"indices": np.int64},
        torch=torch_unpool,
        rare=True,
    )


APART = {"x": apart}

CASES = [
    Case(K.depthwise_conv1d, {"...": (2,), "c": 3, "w": 11, "s": 4}, torch=depthwise(F.conv1d), rare=True,
         constants={"stride": 2, "padding": 2, "dilation": 2}),
    Case(K.depthwise_conv3d, {"...": (2,), "c": 3, "d": 4, "h": 3, "w": 5, "q": 2, "r": 3, "s": 2}, rare=True,
         torch=depthwise(F.conv3d), constants={"padding": 1}),
    Case(K.lp_pool3d, SPACE, torch=lambda x, norm, window: F.lp_pool3d(x, norm, window), rare=True,
         constants={"norm": 2.0, "window": 2}),
    Case(K.max_pool_with_indices1d, {**LINE, "...": (3,)}, draw=APART, torch=with_places(F.max_pool1d),
         constants={"window": 3, "stride": 2, "padding": 1}, rare=True),
    Case(K.max_pool_with_indices2d, PLANE, draw=APART, torch=with_places(F.max_pool2d), rare=True,
         constants={"window": (2, 3), "stride": 1}),
    Case(K.max_pool_with_indices3d, SPACE, draw=APART, torch=with_places(F.max_pool3d), rare=True,
         constants={"window": 2}),
    unpool(K.max_unpool1d, LINE, (23,)),
    unpool(K.max_unpool2d, PLANE, (9, 8)),
    unpool(K.max_unpool3d, SPACE, (5, 4, 6)),
]  # fmt: skip
