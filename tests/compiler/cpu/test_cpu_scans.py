"""Scans on the CPU: every layout and extent against the reference, torch, and themselves."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tests.support.campaigns import campaign, on
from tests.support.threads import assert_same_bits
from tilewright.compiler.nest import Kernel
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu import layout, toolchain, work
from tilewright.compiler.targets.cpu.executable import CpuExecutable
from tilewright.compiler.targets.cpu.layout import Layout
from tilewright.compiler.targets.cpu.schedule import Schedule, default_schedule
from tilewright.dsl.dtypes import float64, int64
from tilewright.dsl.program import Program
from tilewright.runtime.guard import run_forked

NAMES = ("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp")
RANDOM = np.random.default_rng(0)


def named(name: str, axis: str, **keywords: bool) -> tw.Op:
    def scan(x: tw.Tile["n t"]):
        return getattr(tw, name)(x, axis, **keywords)

    return tw.op(scan)


def recurrence(l, r):
    return l[0] * r[0], l[1] * r[0] + r[1]


def welford(l, r):
    n = l[0] + r[0]
    delta = r[1] - l[1]
    return n, l[1] + delta * (r[0] / n), l[2] + r[2] + delta * delta * (l[0] * r[0] / n)


def check(name: str, **keywords: bool) -> None:
    """Both axes in every memory order: along the vectors, across them, and against them."""
    for axis in "nt":
        op = named(name, axis, **keywords)
        for shape in ((1, 1), (17, 33), (40, 7), (3, 0), (0, 3)):
            x = 0.9 * RANDOM.normal(size=shape).astype(np.float32)
            for laid in (x, np.asfortranarray(x), x[::-1, ::-1]):
                np.testing.assert_allclose(op(laid), op.reference(laid), rtol=2e-5, atol=2e-5)


def test_every_extent_and_layout():
    check("cumsum", reverse=False, exclusive=False)
    check("cumprod", reverse=True, exclusive=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shape", [(40, 2048), (16005, 5), (16016, 12)])
@pytest.mark.parametrize(("axis", "reverse"), [("t", False), ("t", True), ("n", True)])
def test_large_results_go_past_the_caches(shape: tuple[int, int], axis: str, reverse: bool, dtype: type):
    """Rows that go together and rows that are left over; results that begin at a cache line."""

    def choose(kernel: Kernel, layout: Layout, target: toolchain.CpuTarget, stream: bool) -> Schedule:
        return default_schedule(kernel, layout, target, True)

    op = named("cumsum", axis, reverse=reverse)
    x = RANDOM.integers(-2, 3, shape).astype(dtype)
    call = op.bind(op.arguments((x,), {}))
    compiled = CpuExecutable(lower(call.program), choose=choose)
    assert all(kernel.schedule.stream for kernel in compiled.compiled(call.arrays))
    (y,) = compiled.run(call.arrays)
    np.testing.assert_array_equal(y, np.asarray(op.reference(x), y.dtype))


@tw.op
def centred(x: tw.Tile["t c"], w: tw.Tile["c"], v: tw.Tile["t"]):
    """Scans of few rows beside each other, both ways, and what follows them."""
    sums = tw.cumsum(x * w + v, "t", reverse=True)
    return sums - tw.max(sums, "t"), tw.cumprod(1 + x / 64, "t", exclusive=True)


@pytest.mark.parametrize("columns", [2, 3, 12])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_few_rows_beside_each_other(columns: int, kind: type):
    """Right, and with the bits of the same columns among many."""
    arrays = [RANDOM.normal(size=s).astype(kind) for s in ((83, columns), (columns,), (83,))]
    call = centred.bind(centred.arguments(tuple(arrays), {}))
    executable = centred.executable(call.program)
    assert isinstance(executable, CpuExecutable)
    assert all(c.schedule.beside == columns for c in executable.compiled(call.arrays))
    found = centred(*arrays)
    for mine, right in zip(found, centred.reference(*arrays), strict=True):
        np.testing.assert_allclose(mine, right, rtol=1e-4, atol=1e-4)
    x, w, v = arrays
    for mine, among in zip(found, centred(np.tile(x, 9), np.tile(w, 9), v), strict=True):
        np.testing.assert_array_equal(among[:, :columns], mine)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", [(1, 40_003), (3, 40_003), (40_003, 1)], ids=str)
def test_large_results_may_end_anywhere(
    shape: tuple[int, int], reverse: bool, monkeypatch: pytest.MonkeyPatch
):
    """A store past the caches that is not aligned would end the process."""
    monkeypatch.setattr(work, "STREAM_FROM", 0)
    op = named("cumsum", "t" if shape[0] < shape[1] else "n", reverse=reverse)
    x = RANDOM.integers(-2, 3, shape).astype(np.float32)
    outcome = run_forked(
        lambda: np.testing.assert_array_equal(op(x), np.asarray(op.reference(x), np.float32))
    )
    assert outcome.kind == "returned", outcome.report


@pytest.mark.exhaustive
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_every_name_extent_and_layout(name: str, reverse: bool, exclusive: bool):
    check(name, reverse=reverse, exclusive=exclusive)


@pytest.mark.parametrize("name", NAMES)
def test_scans_are_torchs(name: str):
    torch = pytest.importorskip("torch")
    x = RANDOM.normal(size=(19, 257))
    theirs = getattr(torch, name)(torch.tensor(x, requires_grad=True), 1)
    expected = theirs.values if name in ("cummax", "cummin") else theirs
    np.testing.assert_allclose(named(name, "t")(x), expected.detach().numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["cummax", "cummin"])
def test_positions_of_extremes_are_torchs(name: str):
    torch = pytest.importorskip("torch")
    x = np.round(RANDOM.normal(size=(18, 50)) * 2)
    x[3, 7] = x[5, 0] = np.nan
    expected = getattr(torch, name)(torch.tensor(x), 1).indices.numpy()
    np.testing.assert_array_equal(named("arg" + name, "t")(x), expected)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.bool_])
def test_integers_are_exact(dtype: type):
    x = RANDOM.integers(0, 2 if dtype is np.bool_ else 7, (21, 37)).astype(dtype)
    for name in ("cumsum", "cummax", "cummin"):
        for axis in "nt":
            op = named(name, axis, reverse=True)
            np.testing.assert_array_equal(op(x), op.reference(x))


def test_special_values_stay_in_their_rows():
    x = RANDOM.normal(size=(16, 40)).astype(np.float32)
    x[2, 5], x[3, 0], x[4, 39], x[5, 1] = np.nan, np.inf, -np.inf, np.nan
    for name in NAMES:
        op = named(name, "t")
        np.testing.assert_allclose(op(x), op.reference(x), rtol=2e-5, atol=2e-5)


def test_a_long_row_alone():
    x = RANDOM.normal(size=(1, 5003))
    np.testing.assert_array_equal(named("cumsum", "t")(x), np.cumsum(x, 1))


def test_bits_depend_on_neither_neighbours_nor_threads():
    x = RANDOM.normal(size=(37, 1001)).astype(np.float32)
    op = named("logcumsumexp", "t")
    together = op(x)
    assert_same_bits(lambda: op(x))
    for row in (0, 15, 16, 36):
        np.testing.assert_array_equal(op(x[row : row + 1])[0], together[row])


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of 64 positions or more are walked in segments."""
    monkeypatch.setattr(layout, "FEWEST", 64)


@tw.op
def endless_rows(x: tw.Tile["n t"], *, reverse=False, exclusive=False):
    """A scan of a scan, pairs, and reductions of both, of rows that are walked in parts."""
    way = {"reverse": reverse, "exclusive": exclusive}
    c = tw.cumsum(x - tw.mean(x, "t"), "t", **way)
    initial = (1.0, 0.5) if exclusive else None
    h = tw.scan(recurrence, (tw.sin(c), x), "t", initial=initial, **way)[1]
    return c, h, tw.sum(h * x, "t"), tw.max(c, "t"), tw.argcummax(x, "t", reverse=reverse)


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("reverse", [False, True])
def test_endless_rows(reverse: bool, dtype: type, endless: None):
    for extent in (64, 300, 9001):
        x = RANDOM.normal(size=(2, extent)).astype(dtype)
        for exclusive in (False, True):
            way = {"reverse": reverse, "exclusive": exclusive}
            for found, expected in zip(endless_rows(x, **way), endless_rows.reference(x, **way), strict=True):
                scale = np.max(np.abs(expected))
                np.testing.assert_allclose(found, expected, rtol=0, atol=scale * 1e4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.bool_])
def test_endless_rows_of_whole_numbers(dtype: type, endless: None):
    x = RANDOM.integers(0, 2 if dtype is np.bool_ else 7, (2, 1000)).astype(dtype)
    for name in ("cumsum", "cummax", "argcummin"):
        op = named(name, "t", reverse=True)
        np.testing.assert_array_equal(op(x), op.reference(x))


def test_bits_of_endless_rows_depend_on_neither_neighbours_nor_threads():
    x = RANDOM.normal(size=(33, layout.FEWEST + 77)).astype(np.float32)
    op = named("logcumsumexp", "t")
    together = op(x)
    assert_same_bits(lambda: op(x))
    for row in (0, 16, 32):
        np.testing.assert_array_equal(op(x[row : row + 1])[0], together[row])


@pytest.mark.exhaustive
@pytest.mark.parametrize("special", [False, True])
def test_random_programs_with_endless_rows(special: bool, monkeypatch: pytest.MonkeyPatch):
    """Of 64-bit values, of which 64 positions are a block of segments."""
    monkeypatch.setattr(layout, "FEWEST", 1)
    check = on(CpuExecutable)

    def check_small(program: Program, sizes: dict[str, int], *rest: int) -> None:
        if math.prod(sizes.values()) < 200_000:
            check(program, sizes, *rest)

    options = {"scans": True, "special": special, "max_nodes": 6, "dtypes": (float64, int64)}
    campaign(check_small, 200, (70, 1, 2, 3), **options)()


def test_scans_with_reductions_before_and_after():
    @tw.op
    def several(x: tw.Tile["n t"]):
        e = tw.exp(x - tw.max(x, "t"))
        c = tw.cumsum(e / tw.sum(e, "t"), "t")
        return c, tw.sum(c * x, "t"), c / tw.max(c, "t"), tw.cumprod(c, "t", reverse=True)

    for shape in ((3, 20), (33, 50)):
        x = RANDOM.normal(size=shape)
        for laid in (x, np.asfortranarray(x)):
            for found, expected in zip(several(laid), several.reference(laid), strict=True):
                np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)


def test_scans_of_tuples():
    @tw.op
    def tuples(a: tw.Tile["t"], b: tw.Tile["n t"], c: tw.Tile["n"]):
        h = tw.scan(recurrence, (a, b), "t")[1]
        k = tw.scan(recurrence, (c, b), "t", reverse=True)[1]
        count, mean, squares = tw.scan(welford, (1.0, b, 0.0), "t")
        return h, k, mean, squares / count

    for rows in (2, 16, 35):
        a, b, c = RANDOM.normal(size=31), RANDOM.normal(size=(rows, 31)), RANDOM.uniform(-1, 1, rows)
        for laid in (b, np.asfortranarray(b)):
            for found, expected in zip(tuples(a, laid, c), tuples.reference(a, laid, c), strict=True):
                np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_torchs(name: str):
    torch = pytest.importorskip("torch")
    x, g = RANDOM.normal(size=(18, 40)), RANDOM.normal(size=(18, 40))
    t = torch.tensor(x, requires_grad=True)
    theirs = getattr(torch, name)(t, 1)
    (theirs.values if name in ("cummax", "cummin") else theirs).backward(torch.tensor(g))
    ours = tw.Tensor(x, requires_grad=True)
    named(name, "t")(ours).backward(tw.Tensor(g))
    np.testing.assert_allclose(ours.grad.numpy(), t.grad.numpy(), rtol=1e-9, atol=1e-10)
