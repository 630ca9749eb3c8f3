"""Reads at places that are data: grids, pairs of points, windows at random, pools with places."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F

from tests.kernels.cases_scans import apart
from tests.support.cases import Case, Draw, Shape, labels
from tilewright import kernels as K

PLANE = {"...": (2,), "c": 3, "h": 5, "w": 4, "oh": 3, "ow": 4, "k": 2}
VOLUME = {"...": (1,), "c": 2, "d": 3, "h": 2, "w": 4, "od": 2, "oh": 3, "ow": 2, "k": 3}
WHOLE = {"first": np.int64, "second": np.int64}
MODES = {"linear": "bilinear", "nearest": "nearest", "cubic": "bicubic"}


FINEST = 1024  # of a grid's unit: every dtype has these numbers, and no place in a small image is rounded


def places(*sizes: int, align_corners: bool = False) -> Draw:
    """Inside and outside of an image of these sizes, its last axis first (and again, where there are more): a
    quarter of a position from where another one is read, or is nearer, so that a finite difference does not
    reach there.
    """

    def draw(rng: np.random.Generator, shape: Shape) -> np.ndarray:
        size = np.resize(sizes, shape[-1])
        whole = rng.integers(-2, size + 2, shape) + rng.choice((0.25, 0.75), shape)
        position = whole + rng.uniform(-0.05, 0.05, shape)
        grid = 2 * position / (size - 1) - 1 if align_corners else (2 * position + 1) / size - 1
        return np.round(grid * FINEST) / FINEST

    return draw


def between(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Places of a line of five positions, none of which a finite difference moves past one."""
    return (2 * (rng.integers(-2, 6, shape) + rng.uniform(0.2, 0.8, shape)) + 1) / 5 - 1


def chances(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    return rng.uniform(0, 1, shape)


def torch_grid_sample(x, grid, mode="linear", padding="zeros", align_corners=False):
    return F.grid_sample(x, grid, MODES[mode], padding, align_corners)


def torch_affine_grid(theta, size, align_corners=False):
    return F.affine_grid(theta, [len(theta), 1, *size], align_corners)


def torch_distances(x, first, second, p=2.0):
    return F.pairwise_distance(x[first], x[second], p, eps=0.0)


def torch_fractional(x, samples, window, size):
    return F.fractional_max_pool2d_with_indices(x, window, size, _random_samples=samples.detach())


def torch_adaptive(x, size):
    return F.adaptive_max_pool2d_with_indices(x, size)


def sample(op, axes, **constants) -> Case:
    common = constants == {}
    sizes = [axes[axis] for axis in ("w", "h", "d") if axis in axes]
    return Case(
        op,
        axes,
        draw={"grid": places(*sizes, align_corners=constants.get("align_corners", False))},
        constants=constants,
        torch=torch_grid_sample,
        rare=not common,
        heavy=True,
    )


CASES = [
    sample(K.grid_sample2d, PLANE),
    sample(K.grid_sample2d, PLANE, mode="nearest", padding="border", align_corners=True),
    sample(K.grid_sample2d, PLANE, padding="reflection"),
    sample(K.grid_sample2d, PLANE, mode="cubic", padding="reflection", align_corners=True),
    sample(K.grid_sample3d, VOLUME, padding="border"),
    Case(K.grid_sample1d, {"...": (2,), "c": 3, "w": 5, "ow": 4, "k": 1}, draw={"grid": between}, rare=True),
    Case(K.affine_grid1d, {"...": (2,), "k": 1, "j": 2}, constants={"size": 4}, rare=True),
    Case(K.affine_grid2d, {"...": (2,), "k": 2, "j": 3}, constants={"size": (3, 4)}, torch=torch_affine_grid),
    Case(K.affine_grid3d, {"...": (1,), "k": 3, "j": 4}, torch=torch_affine_grid, rare=True,
         constants={"size": (3, 4, 2), "align_corners": True}),
    *(Case(K.distances_between, {"n": 5, "d": 3, "k": 7}, dtypes=WHOLE,
           draw={"first": labels(0, 3), "second": labels(3, 5)}, constants={"p": p}, rare=p != 2,
           torch=torch_distances)
      for p in (1.0, 2.0, 3.0)),
    Case(K.fractional_max_pool2d, {"...": (2,), "c": 2, "h": 7, "w": 6, "k": 2}, torch=torch_fractional,
         draw={"x": apart, "samples": chances}, constants={"window": (2, 3), "size": (3, 2)}, rare=True),
    Case(K.adaptive_max_pool_with_indices2d, {"...": (2,), "h": 7, "w": 6}, draw={"x": apart}, rare=True,
         torch=torch_adaptive, constants={"size": (3, 4)}),
    *(Case(op, {"...": (1,), "c": 2, **line, "k": rank}, draw={"x": apart, "samples": chances}, rare=True,
           constants={"window": 2, "size": 2})
      for rank, op, line in ((1, K.fractional_max_pool1d, {"w": 7}),
                             (3, K.fractional_max_pool3d, {"d": 3, "h": 4, "w": 3}))),
    *(Case(op, {"...": (2,), **line}, draw={"x": apart}, rare=True, constants={"size": 3})
      for op, line in ((K.adaptive_max_pool_with_indices1d, {"w": 7}),
                       (K.adaptive_max_pool_with_indices3d, {"d": 4, "h": 5, "w": 4}))),
    Case(K.channel_shuffle, {"...": (2,), "groups": 3, "c": 2, "s": 5}, constants={"groups": 3},
         torch=lambda x, groups: F.channel_shuffle(x, groups)),
]  # fmt: skip
