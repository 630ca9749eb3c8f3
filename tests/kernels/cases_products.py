"""Matrix products, linear layers and attention."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from tests.support.cases import Case, Shape, coin
from tilewright import kernels as K


def torch_linear(x, weight, bias=None, activation=None):
    y = F.linear(x, weight, bias)
    return y if activation is None else getattr(F, activation)(y)


def torch_bilinear(x, z, weight, bias=None):
    return F.bilinear(x, z, weight, bias)


def torch_attention(q, k, v, mask=None, causal=False, scale=None):
    allowed = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool)
    if causal:
        allowed = allowed.tril()
    if mask is not None:
        allowed = allowed & mask
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, scale=scale)


def some_rows_see_nothing(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    seen = coin(rng, shape)
    seen[..., :1, :] = False
    return seen


MATMUL = {"...": (2,), "m": 3, "k": 5, "n": 4}
MATMUL_MORE = (
    {"...": (), "m": 33, "k": 17, "n": 65},
    {"...": (3, 1), "m": 7, "k": 1025, "n": 9},
    {"m": 130, "k": 2100, "n": 70},
    {"m": 1, "k": 1, "n": 1},
    {"m": 0},
    {"k": 0},
    {"n": 0},
    {"...": (0,)},
)
LINEAR = {"...": (2, 3), "k": 5, "n": 4}
LINEAR_MORE = (
    {"...": (), "k": 7},
    {"...": (65,), "k": 129, "n": 33},
    {"k": 0},
    {"...": (0,)},
)
ATTENTION = {"...": (2,), "i": 4, "j": 4, "d": 3, "e": 5}
ATTENTION_MORE = (
    {"...": (), "i": 5, "j": 70, "d": 16},
    {"i": 33, "j": 33, "d": 8, "e": 8},
    {"i": 0},
    {"...": (0,)},
)


def attention(mask_draw=None, axes=ATTENTION, more=(), batch=None, **constants) -> Case:
    """Without a mask if it is not said how to draw one."""
    masked = mask_draw is not None
    return Case(
        K.attention,
        axes,
        more=more,
        constants=constants,
        draw={"mask": mask_draw} if masked else {},
        dtypes={"mask": np.bool_} if masked else {},
        absent=() if masked else ("mask",),
        batch=batch or {},
        torch=torch_attention,
        typical=True,
        heavy=True,
    )


CASES = [
    Case(K.matmul, MATMUL, more=MATMUL_MORE, torch=torch.matmul, heavy=True, typical=True, tolerance=64),
    Case(K.matmul, MATMUL, batch={"b": ()}, torch=torch.matmul),
    Case(K.matmul, {**MATMUL, "...": (3, 2)}, batch={"a": (3, 1)}, torch=torch.matmul),
    Case(K.linear, LINEAR, more=LINEAR_MORE, torch=torch_linear, typical=True),
    Case(K.linear, LINEAR, torch=torch_linear, absent=("bias",)),
    Case(K.linear, LINEAR, constants={"activation": "relu"}, torch=torch_linear),
    Case(K.linear, LINEAR, constants={"activation": "gelu"}, more=LINEAR_MORE, torch=torch_linear),
    Case(K.linear, LINEAR, constants={"activation": "silu"}, torch=torch_linear, heavy=True),
    Case(K.bilinear, {"...": (2,), "i": 3, "j": 4, "n": 2}, torch=torch_bilinear, heavy=True, typical=True),
    Case(
        K.bilinear,
        {"...": (2, 3), "i": 5, "j": 4, "n": 3},
        torch=torch_bilinear,
        absent=("bias",),
        heavy=True,
    ),
    attention(more=ATTENTION_MORE),
    attention(causal=True),
    attention(scale=0.3),
    attention(some_rows_see_nothing, {**ATTENTION, "i": 3, "j": 5}, more=ATTENTION_MORE),
    attention(
        coin,
        {**ATTENTION, "...": (2, 3)},
        batch={"mask": (), "k": (3,), "v": (2, 1)},
        causal=True,
        scale=1 / math.sqrt(3),
    ),
]
