"""Ops as a user would write them (`tests/support/user_ops.py`) on the Triton target.

Values, first and second derivatives in the interpreter; binaries for every architecture.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.support import checks
from tests.support.cases import FLOATS, Case
from tests.support.user_ops import CASES, EXACT_CASES

pytest.importorskip("triton")

TARGETS = ("cuda:80", "cuda:90", "cuda:100", "hip:gfx942")
EVERY = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.mark.parametrize("case", [*CASES, *EXACT_CASES], ids=str)
def test_value(case: Case):
    checks.check_value(case, np.float32, "interpreter")


@EVERY
def test_backward(case: Case):
    checks.check_backward(case, np.float32, "interpreter")


@EVERY
def test_second_backward(case: Case):
    checks.check_second(case, "interpreter")


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", [*CASES, *EXACT_CASES], ids=str)
def test_binaries(case: Case, target: str):
    for dtype in ("f32", "f16"):
        checks.check_compiles(case, FLOATS[dtype], target)
