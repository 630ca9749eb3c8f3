"""Every prebuilt op on every target, at odd extents, in every dtype, with its derivatives."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from tests.kernels import (
    cases_activations,
    cases_distances,
    cases_dropout,
    cases_embeddings,
    cases_losses,
    cases_norms,
    cases_optim,
    cases_positions,
    cases_products,
    cases_rows,
    cases_sampling,
    cases_scans,
    cases_windows,
)
from tests.support import checks, layouts, special
from tests.support.cases import FLOATS, Case
from tilewright import kernels
from tilewright.errors import UserError

CASES: list[Case] = [
    *cases_activations.CASES,
    *cases_rows.CASES,
    *cases_scans.CASES,
    *cases_products.CASES,
    *cases_losses.CASES,
    *cases_optim.CASES,
    *cases_dropout.CASES,
    *cases_norms.CASES,
    *cases_embeddings.CASES,
    *cases_positions.CASES,
    *cases_distances.CASES,
    *cases_windows.CASES,
    *cases_sampling.CASES,
]


def those(wanted: Callable[[Case], bool]) -> pytest.MarkDecorator:
    """Those cases every day, the others in long campaigns."""
    marks = {True: (), False: pytest.mark.exhaustive}
    return pytest.mark.parametrize(
        "case", [pytest.param(c, marks=marks[bool(wanted(c))]) for c in CASES], ids=str
    )


EVERY = pytest.mark.parametrize("case", CASES, ids=str)
COMMON = those(lambda case: not case.rare)
TYPICAL = those(lambda case: case.typical)
LIGHT = those(lambda case: case.typical and not case.heavy)


@COMMON
def test_value(case: Case):
    for axes in (None, *case.more):
        checks.check_value(case, np.float32, "cpu", axes)


@TYPICAL
def test_float64(case: Case):
    for axes in (None, *case.more[:1]):
        checks.check_value(case, np.float64, "cpu", axes)


@TYPICAL
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.everyday(28)
def test_half_precision(case: Case, dtype: str):
    for axes in (None, *case.more[:1]):
        checks.check_value(case, FLOATS[dtype], "cpu", axes)


@COMMON
def test_backward(case: Case):
    for axes in (None, *case.more[:1]):
        checks.check_backward(case, np.float32, "cpu", axes)


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", [c for c in CASES if len(c.more) > 1], ids=str)
def test_backward_of_further_extents(case: Case):
    for axes in case.more[1:]:
        checks.check_backward(case, np.float32, "cpu", axes)


@COMMON
def test_empty_axes(case: Case):
    checks.check_empty_axes(case, "cpu")


@LIGHT
@pytest.mark.parametrize("dtype", ["f64", "bf16"])
def test_backward_in_other_dtypes(case: Case, dtype: str):
    checks.check_backward(case, FLOATS[dtype], "cpu")


@pytest.mark.skipif("interpreter" not in checks.targets(), reason="Triton is not installed")
@COMMON
def test_in_the_interpreter(case: Case):
    checks.check_value(case, np.float32, "interpreter")
    checks.check_backward(case, np.float32, "interpreter")


@pytest.mark.exhaustive
@EVERY
@pytest.mark.parametrize("target", ["cuda:80", "cuda:90", "cuda:100", "hip:gfx942"])
def test_compiles_ahead_of_time(case: Case, target: str):
    for dtype in ("f32", "f16"):
        checks.check_compiles(case, FLOATS[dtype], target)


@COMMON
def test_slopes(case: Case):
    checks.check_slopes(case)


@LIGHT
def test_jvp(case: Case):
    checks.check_tangents(case, "cpu")


@LIGHT
def test_second_backward(case: Case):
    checks.check_second(case, "cpu")


@pytest.mark.parametrize("case", [c for c in CASES if c.special], ids=str)
def test_special_values(case: Case):
    special.check_special(case, "cpu")


@LIGHT
@pytest.mark.everyday(8)
def test_layouts(case: Case):
    """Two of those that long campaigns try with every op."""
    for layout in ("transposed", "repeated"):
        layouts.check_layout(case, layout, "cpu")


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.exhaustive if c.rare and c.heavy else ()) for c in CASES if c.torch],
    ids=str,
)
def test_agrees_with_torch(case: Case):
    checks.check_torch(case, case.arguments(np.float64))


@pytest.mark.parametrize("case", [c for c in CASES if c.torch and c.special], ids=str)
def test_agrees_with_torch_at_special_values(case: Case):
    for value in case.special:
        arguments = case.arguments(np.float64)
        first = next(iter(arguments))
        arguments[first] = special.sprinkled(arguments[first], (value,))
        checks.check_torch(case, arguments)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_of_ignored_targets_alone(reduction: str):
    """As torch has it: 0 and no gradient, but NaN for the mean."""
    logits = np.random.default_rng(0).standard_normal((4, 7))
    loss = kernels.cross_entropy(logits, np.full(4, -100), reduction=reduction)
    assert np.all(np.isnan(loss)) if reduction == "mean" else not np.any(loss)
    gradient = kernels.cross_entropy.grad(logits, np.full(4, -100), reduction="sum")
    assert not np.any(gradient)


def test_cross_entropy_of_a_target_that_is_no_class_is_nan():
    loss = kernels.cross_entropy(np.zeros((3, 4), np.float32), np.array([1, 4, -1]), reduction="none")
    assert list(np.isnan(loss)) == [False, True, True]


@pytest.mark.parametrize(
    "op", [kernels.nll, kernels.softmax_focal, kernels.multi_margin], ids=lambda op: op.name
)
def test_other_losses_of_a_target_that_is_no_class_are_nan(op):
    loss = op(np.zeros((3, 4), np.float32), np.array([1, 4, -1]), reduction="none")
    assert list(np.isnan(loss)) == [False, True, True]


def test_a_class_of_weight_0_counts_for_nothing_in_the_mean():
    logits, target = np.random.default_rng(0).standard_normal((4, 3)), np.array([0, 1, 0, -100])
    weight = np.array([0.0, 2.0, 1.0])
    found = kernels.cross_entropy(logits, target, weight)
    np.testing.assert_allclose(found, kernels.cross_entropy(logits[1:2], target[1:2]), rtol=1e-12)
    assert np.isnan(kernels.cross_entropy(logits[:1], target[:1], weight)), "no weight at all"


def test_relu_keeps_nan_and_has_the_slope_0_at_0():
    x = np.array([np.nan, -1.0, 0.0, -0.0, 2.0])
    np.testing.assert_array_equal(kernels.relu(x), [np.nan, 0, 0, 0, 2])
    np.testing.assert_array_equal(kernels.relu.grad(x)[1:], [0, 0, 0, 1])


@pytest.mark.parametrize(
    ("op", "arguments", "constants", "message"),
    [
        (kernels.gelu, 1, {"approximate": "erf"}, 'approximate is "none" or "tanh", not \'erf\''),
        (kernels.mse, 2, {"reduction": "avg"}, 'reduction is "mean", "sum" or "none", not \'avg\''),
        (kernels.cross_entropy, 2, {}, "target holds class numbers"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_wrong_options_are_refused(op, arguments, constants, message):
    x = np.zeros((2, 3), np.float32)
    given = (x, x[:, 0]) if op is kernels.cross_entropy else (x,) * arguments
    with pytest.raises(UserError, match=re.escape(message)):
        op(*given, **constants)


def test_an_unknown_activation_is_refused():
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(UserError, match=r"activation is None or one of relu, .*, not 'swish'"):
        kernels.linear(x, x, activation="swish")
