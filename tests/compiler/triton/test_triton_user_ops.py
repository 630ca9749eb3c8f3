"""Ops as a user would write them (`tests/support/user_ops.py`) on the Triton target.

Values, first and second derivatives in the interpreter; binaries for every architecture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from tests.support import checks, layouts, special
from tests.support.cases import FLOATS, Case
from tests.support.compare import check_results
from tests.support.user_ops import CASES, EXACT_CASES, case_of

pytest.importorskip("triton")

from tilewright.compiler.pipeline import compile_program, lower
from tilewright.compiler.targets.triton import schedule
from tilewright.compiler.targets.triton.launch import Recipes, Step, whole_elements
from tilewright.compiler.targets.triton.schedule import uses_dot
from tilewright.compiler.targets.triton.toolchain import Target

TARGETS = ("cuda:80", "cuda:90", "cuda:100", "hip:gfx942")
ALL = [*CASES, *EXACT_CASES]
EVERY = pytest.mark.parametrize("case", ALL, ids=str)
DIFFERENTIABLE = pytest.mark.parametrize("case", CASES, ids=str)
EVERY_DTYPE = pytest.mark.parametrize("dtype", FLOATS)


@EVERY
def test_value(case: Case):
    checks.check_value(case, np.float32, "interpreter")


@DIFFERENTIABLE
def test_backward(case: Case):
    checks.check_backward(case, np.float32, "interpreter")


@DIFFERENTIABLE
@pytest.mark.everyday(20)
def test_second_backward(case: Case):
    checks.check_second(case, "interpreter")


@pytest.mark.parametrize("name", ["extremes", "classified", "accuracy", "ranks", "softmax_over_two_axes"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0])
def test_special_values(name: str, value: float):
    special.check_special(replace(case_of(name), special=(value,)), "interpreter")


# --- schedules that small extents do not get ----------------------------------------------------------------


@pytest.fixture
def few_registers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No row fits, and is walked in blocks of four; what is compiled already would not know."""
    monkeypatch.setattr(schedule, "LARGEST_ROW", 2)
    monkeypatch.setattr(schedule, "LOOPED_BLOCK", 4)
    compile_program.cache_clear()
    yield
    compile_program.cache_clear()


def check_by_noise(case: Case, dtype: type = np.float32, axes: object = None) -> None:
    """Forward and backward against the reference, within what rounding explains."""
    for program, arrays in checks.programs_of(case, dtype, axes):
        check_results(program, arrays, checks.run(program, arrays, "interpreter"), ulps=8)


@EVERY
@pytest.mark.usefixtures("few_registers")
@pytest.mark.everyday(30)
def test_rows_walked_in_blocks(case: Case):
    check_by_noise(case)


# --- binaries -----------------------------------------------------------------------------------------------

LONG, MANY = 70_000, 5000
SAMPLE: list[tuple[str, str, dict[str, object]]] = [
    ("rotary", "f32", {"...": (8,), "t": 512, "d": 64}),
    ("gated_rms_norm", "f16", {"...": (MANY,), "d": 1000}),
    ("gated_rms_norm", "f32", {"...": (300,), "d": LONG}),
    ("gamma_nll", "f32", {"n": 1_000_000}),
    ("gated_linear", "f16", {"...": (512,), "k": 256, "n": 384}),
    ("linear_attention", "f32", {"i": 256, "j": 256, "d": 64, "e": 64}),
    ("gram", "f64", {"i": 64, "j": 64, "d": 128}),
]


def kind_of(step: Step) -> str:
    """What a launch is, in the terms of the emitter (`rows`, `dots`)."""
    kernel = step.kernel
    if kernel.contraction:
        return "dot" if uses_dot(kernel) else "product"
    if kernel.split and kernel.split.of == "row":
        return "chunk of a row"
    if kernel.split:
        return "chunk of rows in memory" if step.schedule.looped else "chunk of rows"
    if not kernel.row:
        return "pointwise"
    return "row in blocks" if step.schedule.looped else "row"


def launches(case: Case, dtype: type, axes: object = None) -> Iterator[Step]:
    for program, arrays in checks.programs_of(case, dtype, axes):
        _, shapes, strides = whole_elements({p.name: arrays[p.name] for p in program.tiles})
        yield from Recipes(lower(program), Target.parse("cuda:90")).recipe(shapes, strides).steps


def test_the_sample_has_every_kind_of_kernel():
    sample = [launches(case_of(name), FLOATS[dtype], axes) for name, dtype, axes in SAMPLE]
    found = {kind_of(step) for steps in sample for step in steps}
    every = {kind_of(step) for case in ALL for step in launches(case, np.float32)}
    assert found >= every | {"product", "row in blocks", "chunk of rows in memory"}


@pytest.mark.parametrize(
    ("name", "dtype", "axes"),
    [
        pytest.param(*one, marks=pytest.mark.exhaustive if n > 2 and n % 2 else ())
        for n, one in enumerate(SAMPLE)
    ],
)
def test_binaries_of_a_sample(name: str, dtype: str, axes: dict[str, object]):
    checks.check_compiles(case_of(name), FLOATS[dtype], "cuda:90", axes)


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("name", "dtype", "axes"), SAMPLE)
def test_binaries_of_the_sample_for(name: str, dtype: str, axes: dict[str, object], target: str):
    checks.check_compiles(case_of(name), FLOATS[dtype], target, axes)


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", TARGETS)
@EVERY
def test_binaries(case: Case, target: str):
    for dtype in ("f32", "f16"):
        checks.check_compiles(case, FLOATS[dtype], target)


# --- long campaigns -----------------------------------------------------------------------------------------


@pytest.mark.exhaustive
@EVERY_DTYPE
@EVERY
def test_further_extents(case: Case, dtype: str):
    for axes in (None, *case.more):
        check_by_noise(case, FLOATS[dtype], axes)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("few_registers")
@DIFFERENTIABLE
def test_second_backward_in_blocks(case: Case):
    checks.check_second(case, "interpreter")


@pytest.mark.exhaustive
@DIFFERENTIABLE
def test_tangents(case: Case):
    checks.check_tangents(case, "interpreter")


@pytest.mark.exhaustive
@pytest.mark.parametrize("layout", layouts.LAYOUTS)
@EVERY
def test_layouts(case: Case, layout: str):
    layouts.check_layout(case, layout, "interpreter")
