"""Embeddings, bags of them, and reads and sums at positions that are data."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from tests.support.cases import Case, Shape, coin, labels
from tilewright import kernels as K

TABLE = {"row": 7, "d": 5}
IDS = {"dtypes": {"ids": np.int64}}
INSIDE = {"draw": {"ids": labels(0, 7)}, **IDS}


def torch_embedding(table, ids, padding=None, padding_idx=None):
    rows = table[ids]
    if padding_idx is None:
        return rows
    stands = torch.zeros_like(table[0]) if padding is None else padding
    return torch.where((ids == padding_idx)[..., None], stands, rows)


def embedding(constants=None, absent=("padding",), more=(), **others) -> Case:
    return Case(
        K.embedding,
        {"...": (2, 3), **TABLE},
        more=more,
        constants=constants or {},
        absent=absent,
        torch=torch_embedding,
        **INSIDE,
        **others,
    )


def all_different(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Numbers far enough from each other for finite differences of a maximum."""
    return 0.1 * rng.permutation(int(np.prod(shape))).reshape(shape)


def torch_bag(table, ids, weight=None, mode="mean", padding_idx=None):
    flat = ids.reshape(-1, ids.shape[-1])
    weight = None if weight is None else weight.reshape(flat.shape)
    found = F.embedding_bag(flat, table, mode=mode, per_sample_weights=weight, padding_idx=padding_idx)
    return found.reshape(*ids.shape[:-1], table.shape[-1])


def torch_ragged(table, ids, offsets, weight=None, mode="mean", padding_idx=None):
    options = {"mode": mode, "padding_idx": padding_idx}
    return F.embedding_bag(ids, table, offsets, per_sample_weights=weight, **options)


def bag(mode, weighted=False, padding_idx=None, **others) -> Case:
    constants = {"mode": mode} | ({} if padding_idx is None else {"padding_idx": padding_idx})
    return Case(
        K.embedding_bag,
        {"...": (2, 3), "n": 4, **TABLE},
        constants=constants,
        absent=() if weighted else ("weight",),
        torch=torch_bag,
        draw={"ids": labels(0, 7), "table": all_different},
        **IDS,
        **others,
    )


def ascending(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Offsets of bags, two of which are empty."""
    return np.array([0, 0, 4, 9, 9, 10])[: shape[0]]


def ragged(mode, weighted=False, padding_idx=None, **others) -> Case:
    constants = {"mode": mode} | ({} if padding_idx is None else {"padding_idx": padding_idx})
    return Case(
        K.embedding_bag_ragged,
        {"n": 11, "b": 6, **TABLE},
        constants=constants,
        draw={"ids": labels(0, 7), "offsets": ascending, "table": all_different},
        dtypes={"ids": np.int64, "offsets": np.int64},
        absent=() if weighted else ("weight",),
        torch=torch_ragged,
        rare=True,
        **others,
    )


def torch_shortened(x, max_norm, norm):
    return torch.renorm(x, norm, 0, max_norm)


def torch_take_along(x, ids):
    return x.gather(-1, ids.expand(*x.shape[:-1], -1))


def torch_index_add(x, ids, source, alpha=1.0):
    return x.index_add(0, ids, source, alpha=alpha)


def torch_add_along(x, ids, source):
    return x.scatter_add(-1, ids, source)


ALONG = {"...": (2, 3), "d": 7, "k": 4}

CASES = [
    embedding(more=({"...": (), "d": 65}, {"...": (41,), "d": 1}), typical=True),
    embedding({"padding_idx": 2}, rare=True),
    embedding({"padding_idx": 2}, (), rare=True),
    bag("sum", weighted=True, heavy=True),
    bag("mean", padding_idx=3, rare=True),
    bag("max", padding_idx=3, rare=True),
    ragged("sum", weighted=True),
    ragged("mean", padding_idx=3),
    ragged("max"),
    Case(
        K.one_hot,
        {"...": (2, 3)},
        constants={"classes": 7},
        torch=lambda ids, classes: F.one_hot(ids, classes),
        differentiable=False,
        rare=True,
        **INSIDE,
    ),
    Case(K.index_select, {"n": 6, **TABLE}, torch=lambda x, ids: x.index_select(0, ids), rare=True, **INSIDE),
    Case(K.index_add, {"n": 6, **TABLE}, scalars={"alpha": 0.3}, torch=torch_index_add, rare=True, **INSIDE),
    Case(
        K.shortened,
        {"...": (5,), "d": 7},
        constants={"max_norm": 2.0, "norm": 3.0},
        torch=torch_shortened,
        rare=True,
    ),
    Case(K.take_along, ALONG, torch=torch_take_along, typical=True, more=({"k": 1025},), **INSIDE),
    Case(K.take_along, ALONG, batch={"ids": (3,)}, torch=torch_take_along, rare=True, **INSIDE),
    Case(K.add_along, ALONG, torch=torch_add_along, rare=True, **INSIDE),
    Case(
        K.masked_fill,
        {"...": (2, 3, 5)},
        batch={"mask": (3, 1)},
        draw={"mask": coin},
        dtypes={"mask": np.bool_},
        scalars={"value": 2.5},
        torch=torch.masked_fill,
        special=(math.nan, math.inf),
        rare=True,
    ),
]
