"""Generated Triton kernels of every family, interpreted, against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.compiler.triton.emit_cases import (
    FAMILIES,
    Family,
    blend,
    call_of,
    check,
    derived,
    normalise,
    positions,
    product,
    soften,
    total,
)
from tests.support.layouts import LAYOUTS
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.triton import layouts, schedule
from tilewright.compiler.targets.triton.executable import InterpreterExecutable, source

EVERY = pytest.mark.parametrize("family", FAMILIES, ids=lambda f: str(f))
DIFFERENTIABLE = pytest.mark.parametrize("family", [f for f in FAMILIES if f.differentiable], ids=str)


@EVERY
def test_value(family: Family):
    for extents in family.extents:
        for dtype in family.dtypes:
            check(call_of(family, family.operands(extents, dtype)), InterpreterExecutable)


@DIFFERENTIABLE
def test_derivatives(family: Family):
    for extents in family.extents[-2:]:
        for dtype in family.dtypes[1:3]:
            operands = family.operands(extents, dtype)
            if sum(o.size for o in operands) > 20_000:
                continue
            for rule in ("vjp", "jvp"):
                check(derived(rule, call_of(family, operands)), InterpreterExecutable)


@DIFFERENTIABLE
def test_second_derivative(family: Family):
    operands = family.operands(
        family.extents[0] if 0 not in family.extents[0] else family.extents[3], np.float64
    )
    first = derived("vjp", call_of(family, operands))
    check(derived("vjp", first, seed=2), InterpreterExecutable)


@EVERY
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout(family: Family, layout: str):
    operands = family.operands(family.extents[-1], family.dtypes[1])
    if sum(o.size for o in operands) > 20_000:
        operands = family.operands(family.extents[-2], family.dtypes[1])
    check(call_of(family, [LAYOUTS[layout](o) for o in operands]), InterpreterExecutable)


# --- schedules that small extents do not get ----------------------------------------------------------


@pytest.fixture
def few_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No row fits, and is walked in blocks of sixteen."""
    monkeypatch.setattr(schedule, "LARGEST_ROW", 8)
    monkeypatch.setattr(schedule, "LOOPED_BLOCK", 16)


@pytest.mark.usefixtures("few_registers")
@pytest.mark.parametrize("family", [f for f in FAMILIES if "k" not in f.shapes.__code__.co_varnames], ids=str)
def test_rows_walked_in_blocks(family: Family):
    for extents in family.extents[:6]:
        operands = family.operands(extents, family.dtypes[1])
        check(call_of(family, operands), InterpreterExecutable)
        if family.differentiable:
            check(derived("vjp", call_of(family, operands)), InterpreterExecutable)


@EVERY
def test_wide_indices(family: Family, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(layouts, "NARROW_LIMIT", 0)
    call = call_of(family, family.operands(family.extents[len(family.extents) // 2], family.dtypes[0]))
    _, recipe = InterpreterExecutable(lower(call.program)).recipe(call.arrays)
    assert {p.type for s in recipe.steps for p in s.parameters if p.name in s.integers} <= {"i64"}
    check(call, InterpreterExecutable)


def test_width_follows_the_largest_address():
    x = np.lib.stride_tricks.as_strided(np.zeros(8, np.float32), (2, 4), (4 * 2**31, 4))
    call = soften.bind(soften.arguments((x,), {}))
    (text,) = source(lower(call.program), call.arrays).values()
    assert "tl.program_id(0).to(tl.int64)" in text
    near = np.zeros((2, 4), np.float32)
    (text,) = source(lower(call.program), {"x": near}).values()
    assert "int64" not in text


# --- what the text must be like -----------------------------------------------------------------------


def _text(op: tw.Op, *operands: np.ndarray) -> dict[str, str]:
    call = op.bind(op.arguments(operands, {}))
    return source(lower(call.program), call.arrays)


def test_a_row_that_fits_is_loaded_once():
    (text,) = _text(soften, np.zeros((64, 4096), np.float32)).values()
    assert text.count("tl.load(x_ptr") == 1
    (text,) = _text(soften, np.zeros((80, 200_000), np.float32)).values()
    assert text.count("tl.load(x_ptr") == 3


def test_even_extents_need_no_masks():
    (text,) = _text(soften, np.zeros((64, 4096), np.float32)).values()
    assert "mask" not in text
    (text,) = _text(soften, np.zeros((64, 4095), np.float32)).values()
    assert "mask=in_d" in text


def test_neighbouring_axes_that_lie_as_one_are_one():
    x = np.zeros((4, 6, 8), np.float32)
    (text,) = _text(blend, x, x).values()
    assert "//" not in text
    (text,) = _text(blend, x, x[:, ::-1]).values()
    assert "//" in text


def test_half_precision_sides_stay_narrow():
    half = np.zeros((64, 64), np.float16)
    (text,) = _text(product, half, half).values()
    assert "ieee" not in text
    assert ".to(tl.float32)" not in text
    (text,) = _text(product, half.astype(np.float32), half.astype(np.float32)).values()
    assert 'input_precision="ieee"' in text


def test_texts_are_the_same_every_time():
    x = np.ones((5, 9), np.float32)
    assert _text(normalise, x, x[0]) == _text(normalise, x, x[0])


def test_operands_with_names_that_python_or_triton_uses():
    @tw.op
    def awkward(tl: tw.Tile["x float"], pid: tw.Tile["float"], range: tw.Tile["x"]):
        return tw.sum(tl * pid, "float") + range * tw.trunc(range)

    rng = np.random.default_rng(0)
    operands = (rng.standard_normal((3, 5)), rng.standard_normal(5), rng.standard_normal(3))
    check(awkward.bind(awkward.arguments(operands, {})), InterpreterExecutable)


def test_elements_that_straddle_addresses_are_copied():
    pairs = np.zeros(6, np.dtype([("small", np.int8), ("x", np.float32)]))
    pairs["x"] = np.arange(6)
    check(soften.bind(soften.arguments((pairs["x"],), {})), InterpreterExecutable)


def test_special_values_meet_in_reductions():
    for value in (np.nan, np.inf, -np.inf):
        x = np.ones((3, 5), np.float32)
        x[1, 2] = value
        check(total.bind(total.arguments((x,), {})), InterpreterExecutable)
        check(soften.bind(soften.arguments((x,), {})), InterpreterExecutable)


def test_an_op_of_no_axes():
    @tw.op
    def single(x: tw.Tile[""], y: tw.Tile[""]):
        return x * 2 + tw.exp(y), x > y

    check(single.bind(single.arguments((np.float32(3), np.float32(0.5)), {})), InterpreterExecutable)


def test_operators_around_functions_that_are_spelled_as_operators():
    @tw.op
    def mixed(x: tw.Tile["n"], y: tw.Tile["n"]):
        fine = ~tw.isfinite(x) & ~tw.isnan(y)
        return fine, -(x / y) * 2, (x // y) ** 2, abs(-x) - (-y), tw.rsqrt(x * x + 1) ** 2

    operands = (np.array([1.5, np.nan, np.inf, -2]), np.array([0.5, 2.0, np.nan, -3]))
    check(mixed.bind(mixed.arguments(operands, {})), InterpreterExecutable)


def test_indices_of_tiny_operands():
    check(positions.bind(positions.arguments((np.ones((1, 1)),), {})), InterpreterExecutable)
