"""Losses: every reduction and option."""

from __future__ import annotations

import math
import warnings
from itertools import product

import numpy as np
import torch.nn.functional as F

from tests.support.cases import Case, Shape, labels, log_probabilities, probabilities
from tilewright import kernels as K

REDUCTIONS = ("mean", "sum", "none")
CLASSES = {"...": (2, 3), "c": 7}
CLASSES_MORE = ({"...": ()}, {"...": (1,)}, {"...": (65,), "c": 1025}, {"...": (0,)})
PAIRS = {"...": (3, 4)}
PAIRS_MORE = ({"...": ()}, {"...": (1, 7)}, {"...": (3, 1025)}, {"...": (40, 1025)}, {"...": (0, 3)})


def some_ignored(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    found = rng.integers(0, 7, shape)
    found.reshape(-1)[:1] = -100
    return found


def torch_cross_entropy(logits, target, **options):
    found = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), target.reshape(-1), **options)
    return found.reshape(target.shape) if found.ndim else found


def torch_bce(x, target, weight=None, pos_weight=None, reduction="mean"):
    weight, pos_weight = (None if w is None else w.detach() for w in (weight, pos_weight))
    return F.binary_cross_entropy_with_logits(x, target, weight, pos_weight=pos_weight, reduction=reduction)


def torch_kl_div(log_input, target, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch suggests "batchmean"
        return F.kl_div(log_input, target, **options)


def cross_entropy(draw, more=(), dtype=np.int64, **constants) -> Case:
    return Case(
        K.cross_entropy,
        CLASSES,
        more=more,
        constants=constants,
        draw={"target": draw},
        dtypes={"target": dtype},
        torch=torch_cross_entropy if dtype == np.int64 else None,
        typical=constants.get("reduction") == "none",
        special=(1e4, -1e4) if constants.get("label_smoothing") else (-math.inf, 1e4),
    )


def pairs(op, torch, more=(), **constants) -> Case:
    return Case(
        op, PAIRS, more=more, constants=constants, torch=torch, typical=constants["reduction"] == "mean"
    )


def bce(absent=(), **fields) -> Case:
    draw = {"target": probabilities}
    return Case(K.bce_with_logits, PAIRS, draw=draw, absent=absent, torch=torch_bce, **fields)


def kl_div(target, **constants) -> Case:
    return Case(
        K.kl_div,
        {"...": (3,), "c": 5},
        more=({"c": 1025},),
        constants=constants,
        draw={"log_input": log_probabilities, "target": target},
        torch=torch_kl_div,
        typical=constants.get("reduction") == "batchmean",
    )


NO_WEIGHTS = ("weight", "pos_weight")

CASES = [
    *(
        cross_entropy(some_ignored, CLASSES_MORE, reduction=reduction, label_smoothing=smoothing)
        for reduction, smoothing in product(REDUCTIONS, (0.0, 0.1))
    ),
    cross_entropy(labels(0, 7)),
    cross_entropy(labels(0, 7), ignore_index=2),
    cross_entropy(labels(0, 7), dtype=np.uint8),
    *(pairs(K.mse, F.mse_loss, PAIRS_MORE, reduction=r) for r in REDUCTIONS),
    *(pairs(K.l1, F.l1_loss, PAIRS_MORE, reduction=r) for r in REDUCTIONS),
    pairs(K.huber, F.huber_loss, delta=1.0, reduction="mean"),
    pairs(K.huber, F.huber_loss, delta=0.5, reduction="sum"),
    pairs(K.huber, F.huber_loss, delta=2.0, reduction="none"),
    *(bce(NO_WEIGHTS, constants={"reduction": r}, special=(1e4, -1e4)) for r in REDUCTIONS),
    bce(),
    bce(batch={"pos_weight": (4,)}),
    *(kl_div(probabilities, reduction=r) for r in (*REDUCTIONS, "batchmean")),
    kl_div(log_probabilities, log_target=True),
]
