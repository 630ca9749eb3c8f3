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


OPTIONS = ("mask", "bias", "key_mask", "slopes", "seed")


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
        absent=OPTIONS[masked:],
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


# --- the options of attention ------------------------------------------------------------------------------

OPTIONS = ("mask", "bias", "key_mask", "slopes", "seed")


def attention_weights_by_torch(
    q,
    k,
    mask=None,
    bias=None,
    key_mask=None,
    slopes=None,
    causal=False,
    window=None,
    scale=None,
    softcap=None,
):
    i, j = torch.arange(q.shape[-2])[:, None], torch.arange(k.shape[-2])
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias
    if slopes is not None:
        scores = scores - slopes[..., None, None] * (i - j).abs()
    seen = torch.ones_like(scores, dtype=torch.bool)
    for condition in (
        mask,
        None if key_mask is None else key_mask[..., None, :],
        i >= j if causal else None,
        (i - j).abs() < window if window is not None else None,
    ):
        seen = seen if condition is None else seen & condition
    scores = torch.where(seen, scores, -torch.inf)
    safe = torch.where(seen.any(-1, keepdim=True), scores, 0.0)
    return torch.where(seen, torch.softmax(safe, -1), 0.0)


def attending(op, given=(), axes=ATTENTION, more=(), draw=None, batch=None, **constants) -> Case:
    """Attention, or its weights, with the optional operands `given`."""
    given_names = [n for n in ("q", "k", "v", *OPTIONS) if n in given or n in "qkv"]

    def peer(*operands, **options):
        named = dict(zip([n for n in given_names if n in {t.name for t in op.tiles}], operands, strict=True))
        v = named.pop("v", None)
        p = attention_weights_by_torch(**named, **options)
        return p if v is None else p @ v

    return Case(
        op,
        axes,
        more=more,
        constants=constants,
        draw={"mask": some_rows_see_nothing, "key_mask": coin, **(draw or {})},
        dtypes={"mask": np.bool_, "key_mask": np.bool_},
        absent=tuple(n for n in OPTIONS if n not in given),
        batch=batch or {},
        torch=peer,
        heavy=True,
        rare=True,
    )


HEADS = {**ATTENTION, "...": (2, 3), "i": 5, "j": 6}
WIDE = ({"i": 33, "j": 70, "d": 16},)

CASES += [
    attending(K.attention, ("bias",), softcap=2.0, more=WIDE),
    attending(K.attention, ("key_mask",), HEADS, batch={"key_mask": (2, 1)}, causal=True),
    attending(K.attention, ("slopes",), HEADS, batch={"slopes": (3,)}, causal=True),
    attending(K.attention, axes=HEADS, window=2, more=WIDE),
    attending(K.attention, axes={**HEADS, "i": 6, "j": 3}, window=2, causal=True),
    attending(K.attention, OPTIONS[:4], HEADS, batch={"slopes": (3,)}, causal=True, window=4, scale=0.4),
    attending(K.attention_weights, OPTIONS[:4], HEADS, batch={"key_mask": (2, 1)}, softcap=3.0),
    attending(K.attention_weights),
]
