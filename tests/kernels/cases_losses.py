"""Losses: every reduction and option."""

from __future__ import annotations

import math
import warnings
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F

from tests.support.cases import Case, Shape, labels, log_probabilities, normal, positive, probabilities
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
        absent=("weight",),
        torch=torch_cross_entropy if dtype == np.int64 else None,
        typical=constants.get("reduction") == "none",
        special=(1e4, -1e4) if constants.get("label_smoothing") else (-math.inf, 1e4),
    )


def pairs(op, torch, more=(), **constants) -> Case:
    return Case(
        op,
        PAIRS,
        more=more,
        constants=constants,
        absent=("weight",),
        torch=torch,
        typical=constants["reduction"] == "mean",
    )


def weighed(torch_loss):
    """torch's loss, whose weights have the shape of the input."""

    def call(x, target, weight, **options):
        return torch_loss(x, target, weight=weight.expand_as(x), **options)

    return call


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
    Case(
        K.linear_cross_entropy,
        {"...": (3,), "c": 7, "i": 5},
        absent=("weight",),
        rare=True,
        draw={"target": labels(0, 7)},
        dtypes={"target": np.int64},
    ),
    cross_entropy(labels(0, 7), ignore_index=2),
    cross_entropy(labels(0, 7), dtype=np.uint8),
    *(pairs(K.mse, F.mse_loss, PAIRS_MORE, reduction=r) for r in REDUCTIONS),
    *(pairs(K.l1, F.l1_loss, PAIRS_MORE, reduction=r) for r in REDUCTIONS),
    pairs(K.huber, F.huber_loss, delta=1.0, reduction="mean"),
    pairs(K.huber, F.huber_loss, delta=0.5, reduction="sum"),
    pairs(K.huber, F.huber_loss, delta=2.0, reduction="none"),
    *(
        Case(
            op,
            PAIRS,
            constants={"reduction": r},
            draw={"weight": positive},
            batch=b,
            torch=weighed(peer),
            rare=True,
        )
        for op, peer, b in (
            (K.mse, F.mse_loss, {}),
            (K.l1, F.l1_loss, {"weight": (4,)}),
            (K.huber, F.huber_loss, {"weight": (3, 1)}),
        )
        for r in REDUCTIONS
    ),
    *(bce(NO_WEIGHTS, constants={"reduction": r}, special=(1e4, -1e4)) for r in REDUCTIONS),
    bce(),
    bce(batch={"pos_weight": (4,)}),
    *(kl_div(probabilities, reduction=r) for r in (*REDUCTIONS, "batchmean")),
    kl_div(log_probabilities, log_target=True),
]


# --- further losses of classes -----------------------------------------------------------------------------


def signs(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    return 2 * rng.integers(0, 2, shape) - 1


def coarse(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Halves: away from the kink of a margin that is none, so that finite differences do not cross it."""
    return np.rint(2 * rng.standard_normal(shape)) / 2


def some_zero(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Weights of classes; one class counts for nothing."""
    weights = rng.uniform(0.2, 2.0, shape)
    weights[:1] = 0
    return weights


def weightless(torch_loss):
    """torch's loss of flat targets; its weights take no gradient."""

    def call(x, target, weight=None, **options):
        weight = None if weight is None else weight.detach()
        found = torch_loss(x.reshape(-1, x.shape[-1]), target.reshape(-1), weight, **options)
        return found.reshape(target.shape) if found.ndim else found

    return call


def torch_soft_cross_entropy(logits, target, weight=None, **options):
    flat = (t.reshape(-1, t.shape[-1]) for t in (logits, target))
    found = F.cross_entropy(*flat, None if weight is None else weight.detach(), **options)
    return found.reshape(logits.shape[:-1]) if found.ndim else found


def torch_multilabel(x, target, weight=None, reduction="mean"):
    weight = None if weight is None else weight.detach()
    return F.multilabel_soft_margin_loss(x, target, weight, reduction=reduction)


def torch_softmax_focal(logits, target, gamma=2.0, reduction="mean", ignore_index=-100):
    loss = F.cross_entropy(logits.movedim(-1, 1), target, reduction="none", ignore_index=ignore_index)
    loss = (1 - torch.exp(-loss)) ** gamma * loss
    count = (target != ignore_index).sum()
    return {"mean": loss.sum() / count, "sum": loss.sum(), "none": loss}[reduction]


def torch_sigmoid_focal(x, target, alpha=0.25, gamma=2.0, reduction="mean"):
    p = torch.sigmoid(x)
    hit = p * target + (1 - p) * (1 - target)
    loss = F.binary_cross_entropy_with_logits(x, target, reduction="none") * (1 - hit) ** gamma
    if alpha is not None:
        loss = (alpha * target + (1 - alpha) * (1 - target)) * loss
    return {"mean": loss.mean(), "sum": loss.sum(), "none": loss}[reduction]


def multi_margin_of_torch(x, target, weight, p=1, margin=1.0, reduction="mean"):
    return F.multi_margin_loss(x, target, p=p, margin=margin, weight=weight, reduction=reduction)


def classes(op, peer, target=some_ignored, weighted=False, **constants) -> Case:
    return Case(
        op,
        CLASSES,
        more=CLASSES_MORE[1:],
        constants=constants,
        draw={"target": target, "weight": some_zero} | ({"x": coarse} if op is K.multi_margin else {}),
        dtypes={"target": np.int64} if target is not probabilities else {},
        absent=() if weighted else ("weight",),
        torch=peer,
        rare=True,
    )


CASES += [
    *(
        classes(K.cross_entropy, weightless(F.cross_entropy), weighted=True, reduction=r, label_smoothing=s)
        for r, s in product(REDUCTIONS, (0.0, 0.1))
    ),
    *(
        classes(K.nll, weightless(F.nll_loss), weighted=w, reduction=r)
        for r, w in product(REDUCTIONS, (False, True))
    ),
    *(
        classes(
            K.soft_cross_entropy, torch_soft_cross_entropy, probabilities, w, reduction=r, label_smoothing=s
        )
        for r, w, s in (("mean", True, 0.1), ("sum", False, 0.1), ("none", True, 0.0))
    ),
    *(classes(K.softmax_focal, torch_softmax_focal, reduction=r) for r in REDUCTIONS),
    *(
        classes(
            K.multi_margin, weightless(multi_margin_of_torch), labels(0, 7), w, reduction=r, p=p, margin=m
        )
        for r, w, p, m in (("mean", True, 1, 0.7), ("sum", False, 2, 1.2), ("none", True, 2, 0.3))
    ),
    *(
        classes(K.multilabel_soft_margin, torch_multilabel, probabilities, w, reduction=r)
        for r, w in (("mean", True), ("sum", False), ("none", False))
    ),
]


# --- further losses of pairs -------------------------------------------------------------------------------


def beside(op, peer, draw=None, axes=PAIRS, **constants) -> Case:
    draw = draw or {}
    whole = draw.get("target") in (signs, counts)
    return Case(
        op,
        axes,
        constants=constants,
        draw=draw,
        dtypes={"target": np.int64} if whole else {},
        absent=("weight",) if op is K.bce else (),
        torch=peer,
        rare=True,
    )


def torch_gaussian(x, target, var, **options):
    return F.gaussian_nll_loss(x, target, var, **options)


def torch_poisson(x, target, **options):
    return F.poisson_nll_loss(x, target.to(x.dtype), **options)


def counts(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    return rng.integers(0, 6, shape)


def torch_soft_margin(x, target, reduction="mean"):
    return F.soft_margin_loss(x, target.to(x.dtype), reduction=reduction)


def torch_hinge(x, target, margin=1.0, reduction="mean"):
    loss = torch.relu(margin - target * x)
    return {"mean": loss.mean(), "sum": loss.sum(), "none": loss}[reduction]


def torch_bce_of_probabilities(x, target, reduction="mean"):
    return F.binary_cross_entropy(x, target, reduction=reduction)


SIGNS = {"target": signs, "x": coarse, "z": coarse}
SHARES = {"target": probabilities}
POINTS = {"...": (3,), "d": 5}

CASES += [
    *(
        beside(K.smooth_l1, F.smooth_l1_loss, reduction=r, beta=b)
        for r, b in (("mean", 1.0), ("sum", 0.3), ("none", 0.0))
    ),
    *(
        beside(K.gaussian_nll, torch_gaussian, {"var": positive}, reduction=r, full=f)
        for r, f in (("mean", False), ("sum", True), ("none", True))
    ),
    *(
        beside(
            K.poisson_nll,
            torch_poisson,
            {"target": counts, "x": normal if l else positive},
            reduction=r,
            log_input=l,
            full=f,
        )
        for r, l, f in (("mean", True, False), ("sum", False, True), ("none", True, True))
    ),
    *(
        beside(K.bce, torch_bce_of_probabilities, {"x": probabilities, **SHARES}, reduction=r)
        for r in REDUCTIONS
    ),
    *(
        beside(K.sigmoid_focal, torch_sigmoid_focal, SHARES, reduction=r, gamma=g, alpha=a)
        for r, g, a in (("mean", 2.0, 0.25), ("sum", 1.5, None), ("none", 0.0, 0.6))
    ),
    *(beside(K.soft_margin, torch_soft_margin, SIGNS, reduction=r) for r in REDUCTIONS),
    *(beside(K.hinge, torch_hinge, SIGNS, reduction=r, margin=0.7) for r in REDUCTIONS),
    *(beside(K.hinge_embedding, F.hinge_embedding_loss, SIGNS, reduction=r, margin=0.7) for r in REDUCTIONS),
    *(beside(K.margin_ranking, F.margin_ranking_loss, SIGNS, reduction=r, margin=0.3) for r in REDUCTIONS),
    *(
        beside(
            K.cosine_embedding, F.cosine_embedding_loss, {"target": signs}, POINTS, reduction=r, margin=0.1
        )
        for r in REDUCTIONS
    ),
    *(
        beside(K.triplet_margin, F.triplet_margin_loss, axes=POINTS, reduction=r, p=p, swap=s, margin=m)
        for r, p, s, m in (("mean", 2.0, False, 1.0), ("sum", 1.0, True, 0.5), ("none", 3.0, True, 2.0))
    ),
]


# --- several classes at once -------------------------------------------------------------------------------


def first_classes(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Some classes in any order, then -1 and what does not matter; the first row has none, the last all."""
    rows = np.argsort(rng.random(shape), axis=-1)
    flat = rows.reshape(-1, max(1, shape[-1]))
    for number, row in enumerate(flat[:-1]):
        row[number % shape[-1] :][:1] = -1
    return rows


def between_the_kinks(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Multiples of 0.4: no two of them are 1 apart."""
    return 0.4 * np.rint(2 * rng.standard_normal(shape))


def torch_multilabel_margin(x, target, reduction="mean"):
    flat = (t.reshape(-1, t.shape[-1]) for t in (x, target))
    found = F.multilabel_margin_loss(*flat, reduction=reduction)
    return found.reshape(x.shape[:-1]) if found.ndim else found


CASES += [
    Case(
        K.multilabel_margin,
        CLASSES,
        constants={"reduction": r},
        draw={"target": first_classes, "x": between_the_kinks},
        dtypes={"target": np.int64},
        torch=torch_multilabel_margin,
        rare=True,
    )
    for r in REDUCTIONS
]


# --- losses of sequences, along their labels ----------------------------------------------------------------

SEQUENCES = {"f": 9, "t": 10, "n": 5, "c": 6, "s": 4}
LENGTHS = {"frames": labels(0, 10), "length": labels(0, 5), "targets": labels(1, 6), "name": labels(1, 3)}
LENGTHS |= {"name_before": labels(1, 3), "number": labels(2, 3)}


def sequences(op, **fields) -> Case:
    return Case(
        op,
        SEQUENCES,
        more=({"f": 40, "t": 41, "n": 17},),
        draw={"log_probs": log_probabilities, **LENGTHS},
        dtypes=dict.fromkeys(LENGTHS, np.int64),
        rare=True,
        heavy=True,
        **fields,
    )


CASES += [
    sequences(K.ctc_emissions, constants={"blank": 2}),
    sequences(K.ctc_start),
    sequences(K.ctc_label),
    *(
        sequences(K.ctc_total, constants={"reduction": reduction, "zero_infinity": True})
        for reduction in REDUCTIONS
    ),
]
