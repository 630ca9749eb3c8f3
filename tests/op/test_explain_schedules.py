"""Schedules as `op.explain` tells them: vectors run along the axis in which the large operand lies."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright import kernels as K


@pytest.mark.parametrize(
    ("op", "operands"),
    [
        (K.cross_entropy, (np.empty((64, 512), np.float32), np.zeros(64, np.int64))),
        (K.softmax, ((64, 512),)),
        (K.rms_norm, ((64, 512), (512,))),
        (K.logsumexp, ((64, 512),)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_rows_are_walked_along_their_contiguous_axis(op, operands):
    text = op.explain(*operands)
    first = text[text.index("Forward:") :]
    told = next(line for line in first.splitlines() if line.strip().startswith("CPU"))
    assert "along c" in told or "along d" in told
