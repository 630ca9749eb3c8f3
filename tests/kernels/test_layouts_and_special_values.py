"""Every prebuilt op, on every target: other memory, special numbers, other extents, further derivatives.

A few small ops every day, all of them in long campaigns. Each failure names the op, its options, the dtype,
the layout or the number, and the target.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels import test_convolution, test_images
from tests.kernels.test_kernels import CASES as TABLES
from tests.support import checks, layouts, places, special
from tests.support.cases import Case, Subject
from tilewright import kernels
from tilewright.op.op import Op

CASES: list[Subject] = [*TABLES, *test_convolution.CASES, *test_images.CASES]
SAMPLE = {
    "softmax", "layer_norm", "linear", "cross_entropy reduction=mean label_smoothing=0.0 no weight",
}  # fmt: skip

OF_A_SAMPLE = pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=() if str(c) in SAMPLE else pytest.mark.exhaustive) for c in CASES],
    ids=str,
)
EVERY_TARGET = pytest.mark.parametrize("target", checks.targets())


@EVERY_TARGET
@OF_A_SAMPLE
def test_incoming_gradients_of_every_layout(case: Subject, target: str):
    layouts.check_gradient_layouts(case, target)


@EVERY_TARGET
@OF_A_SAMPLE
def test_special_values(case: Subject, target: str):
    special.check_special_everywhere(case, target)


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", CASES, ids=str)
def test_special_values_in_float64(case: Subject):
    special.check_special_everywhere(case, "cpu", np.float64)


@OF_A_SAMPLE
def test_results_in_given_memory(case: Subject):
    places.check_places(case)


@pytest.mark.exhaustive
@EVERY_TARGET
@pytest.mark.parametrize("case", CASES, ids=str)
def test_tangents(case: Subject, target: str):
    checks.check_tangents(case, target)


@pytest.mark.exhaustive
@EVERY_TARGET
@pytest.mark.parametrize("case", CASES, ids=str)
def test_second_backward(case: Subject, target: str):
    checks.check_second(case, target)


@pytest.mark.exhaustive
@EVERY_TARGET
@pytest.mark.parametrize("case", TABLES, ids=str)
def test_extents(case: Case, target: str):
    checks.check_extents(case, target)


@pytest.mark.skipif("interpreter" not in checks.targets(), reason="Triton is not installed")
@pytest.mark.exhaustive
@pytest.mark.parametrize("case", TABLES, ids=str)
def test_empty_axes_in_the_interpreter(case: Case):
    checks.check_empty_axes(case, "interpreter")


def test_every_op_stands_in_a_table():
    ops = {value for value in vars(kernels).values() if isinstance(value, Op)}
    missing = sorted(op.name for op in ops - {case.op for case in CASES})
    assert not missing, missing


def test_the_sample_is_in_the_tables():
    assert {str(case) for case in CASES} >= SAMPLE
