"""Attention: softmax(q·kᵀ / √d)·v for every head, forward and backward, beside torch's flash kernel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from benchmarks.work import both, find, forward
from tests.kernels.cases_products import CASES, OPTIONS
from tilewright import kernels as K

HEADS = {"...": (8,), "i": 2048, "j": 2048, "d": 64, "e": 64}


def flash(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = False) -> Any:
    """torch's fastest: it takes four dimensions, and no mask but the causal one."""
    whole = (t.unsqueeze(0) for t in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(*whole, is_causal=causal).squeeze(0)


PLAIN = replace(find(CASES, K.attention, OPTIONS), torch=flash)
CAUSAL = replace(find(CASES, K.attention, OPTIONS, causal=True), torch=flash)

BENCHES = [
    forward("attention 8×2048×64", "attention", PLAIN, HEADS, quick=False),
    forward("attention 8×2048×64, causal", "attention", CAUSAL, HEADS, quick=False),
    both("attention 8×2048×64", "attention", PLAIN, HEADS, quick=False),
]
