"""Distances and angles, points that are equal or 0 among them."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from tests.support.cases import Case, Shape
from tilewright import kernels as K

POINTS = {"...": (3,), "d": 5}
PAIRS = {"...": (2,), "i": 3, "j": 4, "d": 5}
NORMS = (0.5, 1.0, 3.0, math.inf)


def even(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Multiples of 0.4 with a little in which all differ; odd ones are far from them."""
    return 0.4 * np.rint(2 * rng.standard_normal(shape)) + rng.uniform(-0.05, 0.05, shape)


def odd(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    return even(rng, shape) + 0.2


def torch_cosine(x, z, eps=1e-8):
    return F.cosine_similarity(x, z, dim=-1, eps=eps)


def torch_normalize(x, p=2.0, eps=1e-12):
    return F.normalize(x, p, -1, eps)


CASES = [
    Case(K.cosine_similarity, POINTS, torch=torch_cosine, typical=True, more=({"d": 1025},)),
    Case(K.pairwise_distance, POINTS, torch=F.pairwise_distance, rare=True),
    *(Case(K.pairwise_distance, POINTS, constants={"p": p}, torch=F.pairwise_distance, rare=True)
      for p in NORMS),
    Case(K.cdist, PAIRS, torch=torch.cdist, more=({"i": 33, "j": 65, "d": 17},), rare=True),
    *(Case(K.cdist, PAIRS, constants={"p": p}, draw={"x": even, "z": odd}, torch=torch.cdist, rare=True)
      for p in NORMS),
    Case(K.normalize, POINTS, torch=torch_normalize, rare=True),
    *(Case(K.normalize, POINTS, constants={"p": p}, torch=torch_normalize, rare=True) for p in NORMS),
]  # fmt: skip
