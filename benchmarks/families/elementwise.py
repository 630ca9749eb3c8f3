"""Functions of one number on arrays that no cache holds."""

from __future__ import annotations

import torch

import tilewright as tw
from benchmarks.work import both, find, forward
from tests.kernels.cases_activations import CASES
from tests.support.cases import Case
from tilewright import kernels as K

SHAPE = {"...": (4096, 4096)}


@tw.op
def exp(x: tw.Tile["..."]):
    """eˣ."""
    return tw.exp(x)


@tw.op
def erf(x: tw.Tile["..."]):
    """2/√π ∫ e^(-t²) dt from 0 to x."""
    return tw.erf(x)


@tw.op
def biased(x: tw.Tile["... c"], bias: tw.Tile["c"]):
    """x + bias, of few channels."""
    return x + bias


@tw.op
def add_transposed(x: tw.Tile["i j"], y: tw.Tile["j i"]):
    """x + yᵀ."""
    return x + y


CHANNELS = {"...": (1_000_000,), "c": 3}
SQUARE = {"i": 2048, "j": 2048}

BENCHES = [
    forward("exp 4096²", "elementwise", Case(exp, SHAPE, torch=torch.exp), SHAPE),
    forward("tanh 4096²", "elementwise", find(CASES, K.tanh), SHAPE, compiled_in_quick=True),
    forward("erf 4096²", "elementwise", Case(erf, SHAPE, torch=torch.erf), SHAPE),
    forward("sigmoid 4096²", "elementwise", find(CASES, K.sigmoid), SHAPE),
    forward("GELU 4096²", "elementwise", find(CASES, K.gelu), SHAPE, compiled_in_quick=True),
    forward("SiLU 4096²", "elementwise", find(CASES, K.silu), SHAPE),
    forward("SwiGLU 4096²", "elementwise", find(CASES, K.swiglu), SHAPE, quick=False),
    both("GELU 4096²", "elementwise", find(CASES, K.gelu), SHAPE, quick=False),
    forward("x + bias 1M×3", "elementwise", Case(biased, CHANNELS, torch=torch.add), CHANNELS, quick=False),
    forward(
        "x + yᵀ 2048²",
        "elementwise",
        Case(add_transposed, SQUARE, torch=lambda x, y: x + y.T),
        SQUARE,
        quick=False,
    ),
]
