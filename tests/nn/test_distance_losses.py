"""Losses of distances, distances of pairs, and losses of linear layers against torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import tilewright as tw
from tests.tensor.against_torch import compare, draw, to_torch
from tilewright.errors import ArgumentError, ShapeError
from tilewright.nn import functional as F

T = torch.nn.functional
REDUCTIONS = ["mean", "sum", "none"]
POINTS = tuple(draw((5, 4), seed=seed) for seed in range(3))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
def test_pdist(p):
    compare(lambda x: F.pdist(x, p), lambda x: T.pdist(x, p), draw((6, 3)))


@pytest.mark.parametrize("points", [0, 1, 2])
def test_pdist_of_few_points(points):
    assert F.pdist(tw.ones(points, 3)).shape == (points * (points - 1) // 2,)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("swap", [False, True])
def test_triplets_by_any_distance(reduction, swap):
    options = {"margin": 0.7, "swap": swap, "reduction": reduction}
    compare(
        lambda a, p, n: F.triplet_margin_with_distance_loss(
            a, p, n, distance_function=lambda x, y: 1 - F.cosine_similarity(x, y), **options
        ),
        lambda a, p, n: T.triplet_margin_with_distance_loss(
            a, p, n, distance_function=lambda x, y: 1 - T.cosine_similarity(x, y), **options
        ),
        *POINTS,
    )
    compare(
        lambda a, p, n: F.triplet_margin_with_distance_loss(a, p, n, **options),
        lambda a, p, n: T.triplet_margin_with_distance_loss(a, p, n, **options),
        *POINTS,
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.everyday(6)
def test_linear_cross_entropy(reduction, smoothing, weighted):
    target, share = np.array([0, 4, -100, 2, 1, 1]), draw((5,), seed=4, low=0.5)
    options = {"reduction": reduction, "label_smoothing": smoothing}

    def of(function, made):
        weight = {"weight": made(share)} if weighted else {}
        return lambda x, w, b: function(x, w, made(target), linear_bias=b, **weight, **options)

    operands = (draw((6, 3)), draw((5, 3), seed=1), draw((5,), seed=2))
    compare(of(F.linear_cross_entropy, tw.tensor), of(T.linear_cross_entropy, to_torch), *operands)


def test_linear_cross_entropy_of_distributions_and_of_one_row():
    shares = np.full((6, 5), 0.2)
    compare(
        lambda x, w: F.linear_cross_entropy(x, w, tw.tensor(shares)),
        lambda x, w: T.linear_cross_entropy(x, w, to_torch(shares)),
        draw((6, 3)),
        draw((5, 3), seed=1),
    )
    compare(
        lambda x, w: F.linear_cross_entropy(x, w, tw.tensor(np.array(3))),
        lambda x, w: T.linear_cross_entropy(x, w, torch.tensor(3)),
        draw((3,)),
        draw((5, 3), seed=1),
    )


def test_refusals():
    with pytest.raises(ShapeError, match="pdist needs a matrix"):
        F.pdist(tw.ones(2, 3, 4))
    with pytest.raises(ShapeError, match="linear_cross_entropy needs"):
        F.linear_cross_entropy(tw.ones(2, 3, 4), tw.ones(5, 4), np.zeros((2, 3), np.int64))
    with pytest.raises(ArgumentError, match="ignore_index is for targets"):
        F.linear_cross_entropy(tw.ones(2, 3), tw.ones(5, 3), tw.ones(2, 5), ignore_index=1)
