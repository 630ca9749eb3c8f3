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


def activation(op, peer, special=(-INF, INF, NAN, 1e4, -1e4, 0.0, -0.0), **constants) -> Case:
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
    activation(K.sigmoid, torch.sigmoid),
    activation(K.tanh, torch.tanh),
    activation(K.mish, F.mish, FINITE),
    activation(K.hardswish, F.hardswish, FINITE),
    Case(K.swiglu, AXES, more=MORE, torch=lambda x, gate: x * F.silu(gate), special=FINITE),
    Case(K.geglu, AXES, more=MORE, torch=lambda x, gate: x * F.gelu(gate), special=FINITE),
    Case(K.swiglu, AXES, batch={"gate": (3, 1)}, torch=lambda x, gate: x * F.silu(gate), typical=True),
]
