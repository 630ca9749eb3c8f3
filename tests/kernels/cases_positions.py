"""Positions, rotary and sinusoidal, against formulas that count in other ways."""

from __future__ import annotations

import numpy as np
import torch

from tests.support.cases import Case, labels
from tilewright import kernels as K

AXES = {"...": (2, 3), "t": 4, "d": 6}


def torch_rope(x, positions=None, base=10000.0, interleaved=False, rotary=None):
    """Complex numbers, one a pair, times e^(i angle)."""
    t, d = x.shape[-2:]
    half = (d if rotary is None else min(d, rotary)) // 2
    if not half:
        return x.clone()
    positions = torch.arange(t) if positions is None else positions
    angle = positions[..., None] * base ** (-torch.arange(half, dtype=torch.float64) / half)
    turned, rest = x[..., : 2 * half], x[..., 2 * half :]
    pairs = turned.unflatten(-1, (half, 2)) if interleaved else turned.unflatten(-1, (2, half)).mT
    product = torch.view_as_real(
        torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.ones(()).double(), angle)
    )
    turned = product.flatten(-2) if interleaved else product.mT.flatten(-2)
    return torch.cat([turned, rest], -1)


def rope(absent=("positions",), axes=AXES, more=(), **fields) -> Case:
    return Case(
        K.rope,
        axes,
        more=more,
        absent=absent,
        draw={"positions": labels(0, 50)},
        dtypes={"positions": np.int64},
        torch=torch_rope,
        **fields,
    )


def torch_sinusoidal(positions, width, base=10000.0):
    angle = positions[..., None] * base ** (-2 * torch.arange((width + 1) // 2, dtype=torch.float64) / width)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)[..., :width]


def torch_alibi(scores):
    heads, queries, keys = scores.shape[-3:]
    slopes = 2.0 ** (-8 * torch.arange(1, heads + 1, dtype=torch.float64) / heads)
    apart = (torch.arange(queries)[:, None] - torch.arange(keys)).abs()
    return scores - slopes[:, None, None] * apart


CASES = [
    rope(typical=True, more=({"t": 33, "d": 64},)),
    rope(constants={"interleaved": True}, rare=True),
    rope((), constants={"interleaved": True, "base": 500.0}, rare=True),
    rope((), batch={"positions": (3,)}, constants={"rotary": 4}, rare=True),
    rope(axes={**AXES, "d": 7}, constants={"interleaved": True}, rare=True),
    rope(axes={**AXES, "d": 1}, rare=True),
    Case(K.sinusoidal_positions, {"...": (2, 3)}, constants={"width": 6}, torch=torch_sinusoidal, rare=True),
    Case(K.sinusoidal_positions, {"...": (4,)}, constants={"width": 5}, torch=torch_sinusoidal, rare=True),
    Case(K.alibi, {"...": (2,), "h": 4, "i": 3, "j": 5}, torch=torch_alibi, rare=True),
]
