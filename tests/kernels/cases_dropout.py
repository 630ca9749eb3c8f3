"""Ops that draw: the same numbers on every target, in every dtype, forward and backward."""

from __future__ import annotations

import math

import numpy as np
import torch.nn.functional as F

from tests.support.cases import Case, labels
from tilewright import kernels as K

SPECIAL = (-math.inf, math.inf, math.nan, 1e4, 0.0, -0.0)
SEED = {"dtypes": {"seed": np.int64}, "draw": {"seed": labels(-(2**63), 2**63 - 1)}}
AXES = {"...": (2, 3, 5)}
MORE = ({"...": (3, 1025)}, {"...": (1, 7)}, {"...": (0, 4)}, {"...": ()})
SAME = {"lower": 0.5, "upper": 0.5}
CHANNELS = {"...": (2,), "c": 3, "l": 5, "d": 2, "h": 4, "w": 5}


def leaky(x, seed, lower, upper):
    return F.leaky_relu(x, lower)


CASES = [
    *(Case(K.dropout, AXES, more=MORE, constants={"p": p}, special=SPECIAL, typical=p == 0.3, **SEED)
      for p in (0.0, 0.3, 1.0)),
    *(Case(op, CHANNELS, more=({"c": 1, "w": 37},), constants={"p": 0.4}, special=SPECIAL, **SEED)
      for op in (K.dropout1d, K.dropout2d, K.dropout3d)),
    *(Case(K.alpha_dropout, AXES, more=MORE, constants={"p": p}, special=SPECIAL, **SEED)
      for p in (0.0, 0.3, 1.0)),
    Case(K.feature_alpha_dropout, {"...": (2,), "c": 3, "s": 5}, constants={"p": 0.4}, rare=True, **SEED),
    Case(K.rrelu, AXES, more=MORE, special=SPECIAL, rare=True, **SEED),
    Case(K.rrelu, AXES, constants=SAME, torch=leaky, special=SPECIAL, rare=True, **SEED),
    Case(K.gumbel_softmax, {"...": (2, 3), "d": 7}, more=({"d": 1025}, {"d": 1}), rare=True, **SEED),
    Case(K.gumbel_softmax, {"...": (2, 3), "d": 7}, constants={"tau": 0.3}, rare=True, **SEED),
]  # fmt: skip
