"""Dropout: the same positions on every target, in every dtype, forward and backward."""

from __future__ import annotations

import math

import numpy as np

from tests.support.cases import Case, labels
from tilewright import kernels as K

SPECIAL = (-math.inf, math.inf, math.nan, 1e4, 0.0, -0.0)
SEED = {"dtypes": {"seed": np.int64}, "draw": {"seed": labels(-(2**63), 2**63 - 1)}}
AXES = {"...": (2, 3, 5)}
MORE = ({"...": (3, 1025)}, {"...": (1, 7)}, {"...": (0, 4)}, {"...": ()})
CHANNELS = {"...": (2,), "c": 3, "l": 5, "d": 2, "h": 4, "w": 5}

CASES = [
    *(Case(K.dropout, AXES, more=MORE, constants={"p": p}, special=SPECIAL, typical=p == 0.3, **SEED)
      for p in (0.0, 0.3, 1.0)),
    *(Case(op, CHANNELS, more=({"c": 1, "w": 37},), constants={"p": 0.4}, special=SPECIAL, **SEED)
      for op in (K.dropout1d, K.dropout2d, K.dropout3d)),
    *(Case(K.alpha_dropout, AXES, more=MORE, constants={"p": p}, special=SPECIAL, **SEED)
      for p in (0.0, 0.3, 1.0)),
]  # fmt: skip
