"""Activations: every option, at kinks and infinities."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from tests.support.cases import Case, Shape
from tilewright import kernels as K

INF, NAN = math.inf, math.nan
AXES = {"...": (2, 3, 5)}
MORE = ({"...": (3, 1025)}, {"...": (1, 7)}, {"...": (0, 4)}, {"...": ()})


def beside_the_kinks(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Numbers from -4 to 4, none close to a whole number."""
    return rng.integers(-4, 4, shape) + rng.uniform(0.25, 0.75, shape)


def torch_softplus(x, beta=1.0):
    """Without torch's threshold, above which its softplus is the identity."""
    return torch.logaddexp(torch.zeros_like(x), beta * x) / beta


def activation(op, peer, special=(-INF, INF, NAN, 1e4, -1e4, 0.0, -0.0), rare=False, **constants) -> Case:
    draw = {"x": beside_the_kinks}
    return Case(
        op,
        AXES,
        more=MORE,
        constants=constants,
        draw=draw,
        special=special,
        torch=peer,
        typical=op is K.gelu,
        rare=rare,
    )


FINITE = (NAN, 1e4, -1e4, 0.0, 3.0, -3.0)

CASES = [
    activation(K.relu, F.relu),
    activation(K.leaky_relu, F.leaky_relu),
    activation(K.leaky_relu, F.leaky_relu, negative_slope=0.2),
    activation(K.elu, F.elu),
    activation(K.elu, F.elu, alpha=1.5),
    activation(K.gelu, F.gelu, FINITE),
    activation(K.gelu, F.gelu, FINITE, approximate="tanh"),
    activation(K.silu, F.silu, FINITE),
    activation(K.softplus, torch_softplus),
    activation(K.softplus, torch_softplus, beta=2.0),
    activation(K.softplus, F.softplus, rare=True, beta=3.0, threshold=1.0),
    activation(K.sigmoid, torch.sigmoid),
    activation(K.tanh, torch.tanh),
    activation(K.mish, F.mish, FINITE),
    activation(K.hardswish, F.hardswish, FINITE),
    Case(K.swiglu, AXES, more=MORE, torch=lambda x, gate: x * F.silu(gate), special=FINITE),
    Case(K.geglu, AXES, more=MORE, torch=lambda x, gate: x * F.gelu(gate), special=FINITE),
    Case(K.swiglu, AXES, batch={"gate": (3, 1)}, torch=lambda x, gate: x * F.silu(gate), typical=True),
]

KINKS = (-INF, INF, NAN, 1e4, 0.0, 0.5, -0.5, 3.0, -3.0, 6.0)
LIMITS = (-INF, NAN, 1e4, -1e4, 0.0)


def torch_threshold(x, threshold, value):
    return F.threshold(x, threshold, value)


def torch_hardsigmoid(x):
    """torch's own has a sixth in float32 as its slope."""
    return F.relu6(x + 3) / 6


def torch_hardtanh(x, low=-1.0, high=1.0):
    return F.hardtanh(x, low, high)


def torch_prelu(x, weight):
    return torch.where(x > 0, x, weight * x)


CASES += [
    activation(K.celu, F.celu, LIMITS, rare=True, alpha=1.5),
    activation(K.selu, F.selu, LIMITS, rare=True),
    activation(K.hardsigmoid, torch_hardsigmoid, KINKS, rare=True),
    activation(K.hardtanh, torch_hardtanh, KINKS, rare=True),
    activation(K.hardtanh, torch_hardtanh, KINKS, rare=True, low=-0.5, high=3.0),
    activation(K.relu6, F.relu6, KINKS, rare=True),
    activation(K.logsigmoid, F.logsigmoid, LIMITS, rare=True),
    activation(K.softsign, F.softsign, (NAN, 1e4, 0.0), rare=True),
    activation(K.tanhshrink, F.tanhshrink, LIMITS, rare=True),
    activation(K.hardshrink, F.hardshrink, KINKS, rare=True),
    activation(K.softshrink, F.softshrink, KINKS, rare=True, lambd=0.5),
    activation(K.threshold, torch_threshold, KINKS, rare=True, threshold=0.5, value=-2.0),
    Case(K.prelu, AXES, batch={"weight": (3, 1)}, torch=torch_prelu, special=FINITE, rare=True),
    Case(K.glu, AXES, torch=lambda x, gate: x * torch.sigmoid(gate), special=FINITE, rare=True),
]
