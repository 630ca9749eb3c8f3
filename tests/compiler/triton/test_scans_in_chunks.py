"""Scans of few long rows on the Triton target, which many programs share."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tests.compiler.triton.test_calls_of_extents import bound, check, moved, recipe
from tests.compiler.triton.test_triton_scans import FLOATS, INTEGERS, NAMES, everything, named
from tests.support.campaigns import KINDS, campaign, derivatives, on
from tests.support.fake_cuda import FakeCuda, installed
from tilewright.compiler import chunks
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.triton import calls, schedule
from tilewright.compiler.targets.triton.binaries import compile_plan, may_contract
from tilewright.compiler.targets.triton.executable import InterpreterExecutable, source
from tilewright.compiler.targets.triton.launch import whole_elements
from tilewright.op.op import Call, Op

RANDOM = np.random.default_rng(5)
TARGETS = ("cuda:90", "hip:gfx942")
WAYS = [{"reverse": r, "exclusive": e} for r in (False, True) for e in (False, True)]


@pytest.fixture
def short_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of 48 elements and more are shared by programs, which walk blocks of eight."""
    monkeypatch.setattr(calls, "WORTH_A_LAUNCH", 1)
    monkeypatch.setattr(chunks, "ELEMENTS_A_CHUNK", 24)
    monkeypatch.setattr(schedule, "LOOPED_BLOCK", 8)


def drawn(*shape: int, dtype: type = np.float32) -> np.ndarray:
    if np.dtype(dtype).kind in "iub":
        return RANDOM.integers(0, 2 if dtype is np.bool_ else 7, shape).astype(dtype)
    return RANDOM.standard_normal(shape).astype(dtype)


def shared(call: Call) -> list[int]:
    """Programs of the kernels whose rows are in chunks, of which each has several."""
    pieces = [step for step in recipe(call).steps if step.kernel.split]
    assert all(step.integers["chunk"] < step.integers["size_t"] for step in pieces)
    return [step.grid for step in pieces]


def run(call: Call) -> tuple[np.ndarray, ...]:
    return InterpreterExecutable(lower(call.program)).run(call.arrays, call.scalars)


# --- the ops ----------------------------------------------------------------------------------------------


@tw.op
def recurrence(a: tw.Tile["t"], x: tw.Tile["n t"], *, reverse=False, exclusive=False):
    """h[t] = a[t] h[t - 1] + x[t]"""
    start = (1.0, 0.25) if exclusive else None
    return tw.scan(
        lambda l, r: (l[0] * r[0], l[1] * r[0] + r[1]),
        (tw.tanh(a), x),
        "t",
        reverse=reverse,
        exclusive=exclusive,
        initial=start,
    )[1]


@tw.op
def turning(a: tw.Tile["n t"], b: tw.Tile["n t"]):
    """Products of rotations and scalings: the order of the factors matters, and 0 is no identity."""

    def times(l, r):
        return (r[0] * l[0] - r[1] * l[1], r[0] * l[1] + r[1] * l[0])

    def after(l, r):
        return (l[0] * r[0], l[1] + 0 * r[1])

    real, imaginary = tw.scan(times, (tw.cos(a), tw.sin(a)), "t")
    product, first = tw.scan(after, (tw.exp(b * 0.1), b), "t")
    return real, imaginary, product, first


@tw.op
def nested(x: tw.Tile["n t"]):
    """Scans of scans beside reductions of them, inclusive and exclusive ones of the same."""
    mean = tw.mean(x * x, "t")
    c = tw.cumsum(x * mean, "t")
    d = tw.cummax(tw.cumsum(c, "t", exclusive=True) * x, "t")
    return d, tw.max(d * c, "t"), tw.cumsum(x * mean, "t", exclusive=True), mean, x - mean


@tw.op
def known_before(x: tw.Tile["n t"]):
    """An exclusive scan in a later phase than the inclusive one of the same values."""
    c = tw.cumsum(x, "t")
    top = tw.max(c, "t")
    return tw.cumsum(x, "t", exclusive=True) - top, c / (1 + top * top), tw.argcummax(x, "t")


@tw.op
def at_top(x: tw.Tile["n t"]):
    """Where a sum is the largest: it must be the same number in both of its uses."""
    c = tw.cumsum(x, "t")
    return tw.where(c == tw.max(c, "t"), 1, 0)


@tw.op
def down(x: tw.Tile["t n"], *, reverse=False, exclusive=False):
    """Neighbours in memory are scanned together."""
    return tw.cumsum(tw.exp(x), "t", reverse=reverse, exclusive=exclusive) * tw.sum(x, "t")


# --- how many programs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", [named("cumsum"), named("cummax", reverse=True, exclusive=True)])
@pytest.mark.parametrize(
    ("rows", "width", "programs"),
    [(1, 4_000_000, 244), (1, 1 << 18, 16), (3, 1 << 21, 264), (40, 1 << 18, 280)],
)
def test_few_long_rows_have_work_for_many_programs(op: Op, rows: int, width: int, programs: int):
    call = bound(op, np.empty((rows, width), np.float32))
    assert shared(call) == [programs] * 2
    assert len(recipe(call).steps) == 3


def test_kernels_with_other_blocks_have_the_same_chunks():
    """Rows of the operand lie beside each other, those of the result one after the other."""
    call = bound(named("cumsum"), np.empty((1_000_003, 3), np.float32).T)
    assert shared(call) == [244, 732]
    first, _, last = recipe(call).steps
    assert first.integers["chunk"] == last.integers["chunk"]
    assert (first.schedule.block_rows, last.schedule.block_rows) == (4, 1)
    assert first.schedule.block_columns < last.schedule.block_columns


@pytest.mark.parametrize("shape", [(512, 1 << 18), (1, 1 << 16), (66, 1 << 20), (4096, 4096)])
def test_many_rows_and_short_ones_have_a_program_each(shape):
    assert len(recipe(bound(named("cumsum"), np.empty(shape, np.float32))).steps) == 1


@tw.op
def of_all(x: tw.Tile["t"]):
    return tw.cumsum(tw.exp(x), "t") * 2


def test_a_gradient_is_shared_as_well():
    x = np.empty(1 << 20, np.float32)
    assert shared(bound(of_all.vjp, x, x)) == [64] * 2
    a, x = np.empty(1 << 20, np.float32), np.empty((2, 1 << 20), np.float32)
    assert shared(bound(recurrence.vjp, a, x, x)) == [128, 128, 128, 64]


# --- numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ways", WAYS, ids=str)
@pytest.mark.parametrize("shape", [(1, 137), pytest.param((3, 65), marks=pytest.mark.exhaustive)], ids=str)
def test_scans_go_on_from_the_chunks_before(shape, ways, short_enough: None):
    for call in (
        bound(named("cumsum", **ways), drawn(*shape)),
        bound(recurrence, drawn(shape[1]), drawn(*shape), **ways),
    ):
        assert len(shared(call)) == 2
        check(call)


def test_a_scan_of_everything(short_enough: None):
    call = bound(of_all, drawn(201))
    assert shared(call) == [8] * 2
    check(call)


def test_what_needs_several_walks(short_enough: None):
    x = drawn(2, 99)
    for op, walks in ((turning, 4), (nested, 5), (known_before, 3)):
        call = bound(op, *([x, drawn(2, 99)] if op is turning else [x]))
        assert len(shared(call)) == walks, op.name
        check(call)


@pytest.mark.parametrize(
    "lay",
    [
        np.asfortranarray,
        *(
            pytest.param(lay, marks=pytest.mark.exhaustive)
            for lay in (lambda x: x[:, ::-1], lambda x: np.repeat(x, 2, 1)[:, ::2])
        ),
    ],
    ids=range(3),
)
def test_operands_that_lie_otherwise(lay, short_enough: None):
    """Beside each other rows have shorter blocks, and chunks as long as those of other kernels."""
    for n in (3, 20)[: 1 if lay is np.asfortranarray else 2]:
        call = bound(recurrence, drawn(132), lay(drawn(n, 132)), reverse=True)
        assert len(shared(call)) == 2
        check(call)


def test_what_is_compared_is_computed_once(short_enough: None):
    """Kernels of one scan may have blocks of other lengths, which round otherwise."""
    x = np.asfortranarray(np.random.default_rng(0).standard_normal((7, 203)).astype(np.float32))
    call = bound(at_top, x)
    assert len(shared(call)) >= 2
    (found,) = run(call)
    np.testing.assert_array_equal(found.sum(1), 1)
    np.testing.assert_array_equal(found.argmax(1), np.cumsum(x, 1, np.float64).argmax(1))


def test_what_scans_compare_is_rounded_alike_in_all_their_kernels():
    @tw.op
    def scaled(x: tw.Tile["t"], w: tw.Tile["t"]):
        return tw.cummax(x * w + 1, "t")

    @tw.op
    def summed(x: tw.Tile["t"], w: tw.Tile["t"]):
        return tw.cumsum(x * w + 1, "t")

    x = np.empty(1 << 20, np.float32)
    for op, contracted in ((scaled, False), (summed, True)):
        found = [may_contract(step.kernel) for step in recipe(bound(op, x, x)).steps]
        assert found == [contracted] * 3


def test_columns_go_on_from_the_chunks_before(short_enough: None):
    for ways in WAYS[::3]:
        call = bound(down, drawn(99, 3), **ways)
        assert len(shared(call)) == 2
        assert all(step.schedule.block_rows == 4 for step in recipe(call).steps if step.kernel.split)
        check(call)


OTHERS = ("cumsum", "cumprod", "cummin", "logcumsumexp", "argcummax", "argcummin")


@pytest.mark.parametrize("name", ["cummax", *(pytest.param(n, marks=pytest.mark.exhaustive) for n in OTHERS)])
def test_special_values_go_no_other_way_than_the_scan(name: str, short_enough: None):
    """They are in the first chunk, in the middle and in the last, whose tail is beyond the row."""
    x = np.round(drawn(7, 99) * 2)
    x[0, 3], x[1, 45], x[2, 98], x[3, 0], x[4] = np.nan, np.inf, -np.inf, np.nan, -np.inf
    x[5, ::2], x[5, 1::2], x[6, 33], x[6, 70] = -0.0, 0.0, np.inf, -np.inf
    for reverse in (False, True):
        op = named(name, reverse=reverse)
        call = bound(op, x)
        assert len(shared(call)) == 2
        np.testing.assert_allclose(run(call)[0], op.reference(x), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    "op",
    [
        named("cumprod").vjp,
        pytest.param(named("logcumsumexp").vjp, marks=pytest.mark.exhaustive),
        named("cummax", exclusive=True).vjp,
    ],
)
def test_gradients(op: Op, short_enough: None):
    call = bound(op, drawn(2, 111), drawn(2, 111))
    assert len(shared(call)) >= 2
    check(call)


def test_on_a_device_the_memory_between_goes_back(short_enough: None):
    x = drawn(2, 100)
    with installed(FakeCuda()) as fake:
        there = tw.tensor(x, device="cuda")
        before = tw.cuda.memory_stats().live_bytes
        launched = len(fake.launches)
        y = tw.cumsum(there, 1)
        assert len(fake.launches) == launched + 3
        assert tw.cuda.memory_stats().live_bytes == 2 * before
        np.testing.assert_allclose(y.cpu().numpy(), np.cumsum(x, 1, np.float64), rtol=1e-5, atol=1e-5)


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("name", NAMES)
def test_floats(name: str, dtype: type, short_enough: None):
    for ways in WAYS:
        for n, t in ((1, 49), (2, 64), (3, 201)):
            call = bound(named(name, **ways), drawn(n, t, dtype=dtype))
            assert len(shared(call)) == 2
            check(call)


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda d: np.dtype(d).name)
def test_integers_are_exact(dtype: type, short_enough: None):
    for name in ("cumsum", "cumprod", "cummax", "cummin"):
        for ways in WAYS:
            for n, t in ((1, 49), (3, 201)):
                x = drawn(n, t, dtype=dtype)
                op = named(name, **ways)
                call = bound(op, x)
                assert len(shared(call)) == 2
                np.testing.assert_array_equal(run(call)[0], op.reference(x), err_msg=f"{name} {ways}")


@pytest.mark.exhaustive
@pytest.mark.parametrize("ways", WAYS, ids=str)
def test_everything(ways, short_enough: None):
    for n, t in ((1, 50), (2, 77), (3, 200)):
        for lay in (np.asarray, np.asfortranarray):
            x, a = drawn(n, t), drawn(t)
            call = bound(everything, lay(x), a, **ways)
            assert len(shared(call)) >= 3
            check(call)
            check(bound(recurrence.vjp, a, lay(x), drawn(n, t), **ways))


# --- random programs --------------------------------------------------------------------------------------


@pytest.fixture
def always_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of two positions or a few more."""
    monkeypatch.setattr(calls, "WORTH_A_LAUNCH", 0)
    monkeypatch.setattr(chunks, "ELEMENTS_A_CHUNK", 2)
    monkeypatch.setattr(schedule, "LOOPED_BLOCK", 2)


@pytest.mark.exhaustive
def test_many_random_programs(always_cut: None):
    """Of moderate numbers: where products of factors overflow, it matters which are combined first."""
    campaign(on(InterpreterExecutable), 400, **KINDS["scans"])()


@pytest.mark.exhaustive
def test_many_random_derivatives(always_cut: None):
    derivatives(on(InterpreterExecutable), 300, scans=True)()


# --- texts and binaries -----------------------------------------------------------------------------------


def test_golden(golden):
    call = bound(recurrence, np.empty(1 << 18, np.float32), np.empty((2, 1 << 18), np.float32), reverse=True)
    golden("triton/scan_in_chunks.py.txt", "\n\n".join(source(lower(call.program), call.arrays).values()))


def compiled(op: Op, target: str, *arrays: np.ndarray, **constants: bool) -> None:
    call = bound(op, *arrays, **constants)
    assert len(shared(call)) >= 2
    _, shapes, strides = whole_elements(call.arrays)
    assert compile_plan(lower(call.program), target, shapes, strides)


def test_chunks_move_their_row_twice_in_and_once_out():
    x = np.empty((1, 1 << 20), np.float32)
    total, _ = moved(bound(named("cumsum"), x).program, {"x": x})
    assert 3 * x.nbytes <= total < 1.01 * 3 * x.nbytes


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", (*FLOATS, *INTEGERS), ids=lambda d: np.dtype(d).name)
def test_every_dtype_compiles(dtype: type, target: str):
    for name in ("cumsum", "cummax", "argcummax"):
        if dtype is np.bool_ and name == "cumsum":
            continue
        ways = {} if name == "argcummax" else {"exclusive": True, "reverse": True}
        compiled(named(name, **ways), target, np.empty((3, 200_001), dtype))


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", TARGETS)
def test_tuples_and_what_surrounds_them_compile(target: str):
    for dtype in (np.float32, ml_dtypes.bfloat16, np.float64):
        x, a = np.empty((2, 500_000), dtype), np.empty(500_000, dtype)
        across = np.empty((500_000, 2), dtype).T
        for laid in (x, across):
            compiled(everything, target, laid, a, reverse=True, exclusive=True)
        compiled(down, target, np.empty((100_000, 200), dtype), exclusive=True)
        compiled(recurrence.vjp, target, a, x, x)
        compiled(nested, target, x)
        compiled(turning, target, x, across)
