"""Scans on the Triton target: in the interpreter against the reference, and as binaries."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tests.support.campaigns import KINDS, campaign, derivatives, on
from tests.support.compare import check_results
from tilewright.compiler.pipeline import compile_program, lower
from tilewright.compiler.targets.triton import schedule
from tilewright.compiler.targets.triton.binaries import compile_plan
from tilewright.compiler.targets.triton.executable import InterpreterExecutable, source
from tilewright.compiler.targets.triton.launch import whole_elements

NAMES = ("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp")
FLOATS = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
INTEGERS = (np.int8, np.int32, np.int64, np.uint8, np.bool_)
TARGETS = ("cuda:80", "cuda:90", "cuda:100", "hip:gfx942")
RANDOM = np.random.default_rng(0)


def named(name: str, axis: str = "t", **keywords: bool) -> tw.Op:
    def scan(x: tw.Tile["n t"]):
        return getattr(tw, name)(x, axis, **keywords)

    return tw.op(scan)


@tw.op
def everything(x: tw.Tile["n t"], a: tw.Tile["t"], *, reverse=False, exclusive=False):
    """A prologue, a tuple whose second value is seen, pairs of a value and its position, what follows."""

    def linear(l, r):
        return l[0] * r[0], l[1] * r[0] + r[1]

    e = tw.exp(x - tw.max(x, "t"))
    initial = (1.0, 0.25) if exclusive else None
    h = tw.scan(linear, (tw.tanh(a), e), "t", reverse=reverse, exclusive=exclusive, initial=initial)[1]
    top = tw.argcummax(x, "t", reverse=reverse)
    return tw.sigmoid(h) * 2, tw.sum(h * x, "t"), top, tw.cumsum(x, "t", reverse=reverse, exclusive=exclusive)


def call_of(op: tw.Op, *arrays: np.ndarray, **constants: bool):
    return op.bind(op.arguments(arrays, constants))


def check(op: tw.Op, *arrays: np.ndarray, **constants: bool) -> None:
    call = call_of(op, *arrays, **constants)
    found = compile_program(call.program, "interpreter").run(call.arrays, call.scalars)
    check_results(call.program, {**call.arrays, **call.scalars}, found, ulps=8.0)


@pytest.fixture
def in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of more than two elements are walked in blocks of four."""
    for name, value in (("LARGEST_SCAN", 2), ("LARGEST_ROW", 2), ("LOOPED_BLOCK", 4)):
        monkeypatch.setattr(schedule, name, value)


def every_way(shapes: tuple[tuple[int, int], ...]) -> None:
    for reverse in (False, True):
        for exclusive in (False, True):
            for n, t in shapes:
                x = RANDOM.normal(size=(n, t)).astype(np.float32)
                a = RANDOM.normal(size=t).astype(np.float32)
                for laid in (x, np.asfortranarray(x)):
                    check(everything, laid, a, reverse=reverse, exclusive=exclusive)


def test_rows_in_registers():
    every_way(((1, 1), (5, 37)))


def test_rows_in_blocks(in_small_blocks: None):
    every_way(((3, 8), (5, 37)))


def test_blocks_of_one_row_are_carried_on(in_small_blocks: None):
    """The text has the block's state in it: a test of the fixture above."""
    x = np.zeros((2, 37), np.float32)
    (text,) = source(lower(call_of(named("cumsum"), x).program), {"x": x}).values()
    assert "state = tl.gather(" in text


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("name", NAMES)
def test_floats(name: str, dtype: type, in_small_blocks: None):
    for x in (RANDOM.normal(size=(3, 19)), RANDOM.normal(size=(3, 2))):
        check(named(name), x.astype(dtype))


@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda d: np.dtype(d).name)
def test_integers_are_exact(dtype: type, in_small_blocks: None):
    x = RANDOM.integers(0, 2 if dtype is np.bool_ else 7, (3, 19)).astype(dtype)
    for name in ("cumsum", "cumprod", "cummax", "cummin"):
        for keywords in ({}, {"reverse": True, "exclusive": True}):
            op = named(name, **keywords)
            call = call_of(op, x)
            (found,) = compile_program(call.program, "interpreter").run(call.arrays)
            np.testing.assert_array_equal(found, op.reference(x), err_msg=f"{name} {keywords}")


@pytest.mark.parametrize("name", (*NAMES, "argcummax", "argcummin"))
def test_special_values_stay_in_their_rows(name: str, in_small_blocks: None):
    x = np.round(RANDOM.normal(size=(7, 21)) * 2).astype(np.float32)
    x[0, 3], x[1, 0], x[2, 20], x[3, 1], x[4] = np.nan, np.inf, -np.inf, np.nan, -np.inf
    x[5, ::2], x[5, 1::2], x[6, 4], x[6, 9] = -0.0, 0.0, np.inf, -np.inf
    for keywords in ({}, {"reverse": True}):
        op = named(name, **keywords)
        call = call_of(op, x)
        (found,) = compile_program(call.program, "interpreter").run(call.arrays)
        np.testing.assert_allclose(found, op.reference(x), rtol=2e-5, atol=2e-5, err_msg=str(keywords))


def test_random_programs_in_blocks(in_small_blocks: None):
    campaign(on(InterpreterExecutable), 25, **KINDS["scans"])()


@pytest.mark.exhaustive
@pytest.mark.parametrize("special", (False, True))
def test_many_random_programs_in_blocks(special: bool, in_small_blocks: None):
    campaign(on(InterpreterExecutable), 400, special=special, **KINDS["scans"])()


@pytest.mark.exhaustive
def test_many_random_derivatives():
    derivatives(on(InterpreterExecutable), 400, scans=True)()


# --- binaries ---------------------------------------------------------------------------------------------


def compiled(op: tw.Op, target: str, *arrays: np.ndarray, **constants: bool) -> None:
    call = call_of(op, *arrays, **constants)
    _, shapes, strides = whole_elements(call.arrays)
    assert compile_plan(lower(call.program), target, shapes, strides)


def test_a_scan_compiles():
    compiled(named("cumsum", reverse=True), "cuda:90", np.empty((64, 100), np.float32))


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", TARGETS)
def test_every_dtype_compiles(target: str):
    for dtype in (*FLOATS, *INTEGERS):
        for width in (1, 200, 100_000):
            for name in ("cumsum", "cummax"):
                if dtype is np.bool_ and name == "cumsum":
                    continue
                compiled(named(name, exclusive=True), target, np.empty((8, width), dtype))


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", TARGETS)
def test_tuples_and_what_surrounds_them_compile(target: str):
    for dtype in FLOATS:
        for width in (64, 100_000):
            x, a = np.empty((8, width), dtype), np.empty(width, dtype)
            for laid in (x, np.asfortranarray(x)):
                compiled(everything, target, laid, a, reverse=True, exclusive=True)
