"""Floats to integers: truncated towards zero, the nearest end of the range outside of it, 0 for NaN."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tilewright.dsl import dtypes

FLOATS = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
INTEGERS = ["int8", "uint8", "int16", "int32", "int64"]


def values(kind: type, info: np.iinfo) -> np.ndarray:
    """What is special, and both sides of the ends of the range; more than one vector of them."""
    near = [
        end + step for end in (0, info.min, info.max) for step in (-1.5, -1, -0.9, -0.5, 0, 0.5, 0.9, 1, 1.5)
    ]
    with np.errstate(over="ignore"):
        return np.array([np.nan, np.inf, -np.inf, -0.0, 1e-30, 3e38, -3e38, *near] * 2, np.float64).astype(
            kind
        )


@pytest.mark.parametrize("integer", INTEGERS)
@pytest.mark.parametrize("kind", FLOATS, ids=lambda kind: kind.__name__)
def test_floats_to_integers(kind: type, integer: str):
    @tw.op
    def whole(x: tw.Tile["n"]):
        return tw.cast(x, getattr(dtypes, integer))

    info = np.iinfo(integer)
    x = values(kind, info)
    expected = [
        0 if np.isnan(v) else info.max if v >= info.max else info.min if v <= info.min else int(v)
        for v in x.astype(np.float64)
    ]
    np.testing.assert_array_equal(whole(x), np.array(expected, integer))
