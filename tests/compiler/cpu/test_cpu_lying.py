"""Forms that a call's extents and strides give a kernel: brief and short rows, narrow axes, operands that lie
across or a few elements apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import tilewright as tw
from tests.support.contractions import with_wide_vectors
from tilewright.compiler.targets.cpu.schedule import Schedule
from tilewright.runtime import guard


@tw.op
def centred(x: tw.Tile["... r d"], w: tw.Tile["d"], b: tw.Tile["r"]):
    """Two phases, a result of the row beside it, and operands with one of the axes."""
    shifted = tw.exp(x - tw.max(x, "d")) * w
    total = tw.sum(shifted, "d")
    return shifted / total + b, tw.log(total) * b


@tw.op
def total(x: tw.Tile["... d"]):
    """Σ x along d."""
    return tw.sum(x, "d")


@tw.op
def twice(x: tw.Tile["..."]):
    return x * 2


@tw.op
def columns(x: tw.Tile["... r c"], w: tw.Tile["r"], v: tw.Tile["c"]):
    """Reductions across the rows, the second of what the first gives."""
    mean = tw.mean(x * w, "r")
    spread = tw.max(tw.abs(x - mean), "r")
    return spread + v, tw.argmax(x, "r"), tw.sum(x * tw.cast(tw.index("c"), x.dtype), "r")


@tw.op
def placed(x: tw.Tile["... r c"], row: tw.Tile["c"], column: tw.Tile["r"]):
    """Pointwise, with operands that have one of the axes, and positions."""
    moved = x * tw.exp(row) + tw.sin(column)
    return tw.where(tw.index("r") > tw.index("c"), moved, -moved)


@tw.op
def beside(x: tw.Tile["a b"], y: tw.Tile["b a"]):
    """One operand lies across."""
    return x * 2 + y


@tw.op
def walked(x: tw.Tile["... d"], w: tw.Tile["d"]):
    """Scans one way and reductions of what they give."""
    sums = tw.cumsum(x * w, "d", reverse=True)
    return sums, tw.cumprod(x, "d", exclusive=True, reverse=True) - tw.max(sums, "d")


def schedules(op: tw.Op, *arrays: np.ndarray) -> list[Schedule]:
    """Those of a call's kernels for AVX-512."""
    call = op.bind(op.arguments(arrays, {}))
    return [compiled.schedule for compiled in with_wide_vectors(call.program).compiled(call.arrays)]


def assert_right(op: tw.Op, *arrays: np.ndarray) -> None:
    actual, expected = op(*arrays), op.reference(*arrays)
    pairs = zip(actual, expected, strict=True) if isinstance(actual, tuple) else [(actual, expected)]
    for mine, right in pairs:
        np.testing.assert_allclose(mine, right, rtol=3e-5, atol=3e-5)


TOLERANCE = {np.float32: 1e-6, np.float64: 1e-14, np.uint8: 0, np.float16: 1e-3}


def normal(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype)


@pytest.mark.parametrize(("rows", "length"), [(16, 3), (37, 21), (50, 48)])
def test_brief_rows(rows: int, length: int):
    arrays = normal(2, rows, length), normal(length), normal(rows)
    assert any(schedule.brief for schedule in schedules(centred, *arrays))
    assert_right(centred, *(np.abs(a) for a in arrays))


@pytest.mark.parametrize(
    ("rows", "length", "dtype"),
    [(64, 2, np.float32), (131, 3, np.float64), (100, 8, np.float32), (77, 12, np.float64)],
)
def test_short_rows(rows: int, length: int, dtype: type):
    arrays = normal(2, rows, length, dtype=dtype), normal(length, dtype=dtype), normal(rows, dtype=dtype)
    assert all(schedule.short == length for schedule in schedules(centred, *arrays))
    assert_right(centred, *(np.abs(a) for a in arrays))
    assert any(schedule.short == length for schedule in schedules(walked, *arrays[:2]))
    assert_right(walked, *arrays[:2])


@pytest.mark.parametrize("dtype", ["bool_", "uint8", "int64", "bfloat16", "float16"])
def test_short_rows_of_every_kind(dtype: str):
    x = tw.tensor(np.random.default_rng(5).integers(0, 3, (67, 5))).to(getattr(tw, dtype))
    wide = x.numpy().astype(np.float64)
    for name in ("any", "all") if dtype == "bool_" else ("sum", "max", "argmin"):
        found = getattr(tw, name)(x, axis=1).numpy().astype(np.float64)
        np.testing.assert_array_equal(found, getattr(np, name)(wide, axis=1))
    if dtype != "bool_":
        sums = tw.cumsum(x, axis=1).numpy().astype(np.float64)
        np.testing.assert_array_equal(sums, np.cumsum(wide, axis=1))


@pytest.mark.parametrize("length", [3, 8, 11])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_short_row_has_the_same_bits_among_many_and_alone(length: int, dtype: type):
    x, w = normal(70, length, dtype=dtype), normal(length, dtype=dtype)
    assert not any(schedule.short for schedule in schedules(total, x[:3]))
    np.testing.assert_array_equal(total(x)[:3], total(x[:3]))
    for many, few in zip(walked(x, w), walked(x[:3], w), strict=True):
        np.testing.assert_array_equal(many[:3], few)


@pytest.mark.parametrize("length", [20, 100])
def test_a_row_has_the_same_bits_among_many_and_alone(length: int):
    x = normal(40, length)
    assert any(schedule.brief for schedule in schedules(total, x))
    assert not any(schedule.brief for schedule in schedules(total, x[:3]))
    np.testing.assert_array_equal(total(x)[:3], total(x[:3]))


@pytest.mark.parametrize(
    ("rows", "width", "dtype"), [(128, 3, np.float32), (333, 17, np.float32), (200, 5, np.float64)]
)
def test_few_columns(rows: int, width: int, dtype: type):
    arrays = normal(rows, width, dtype=dtype), normal(rows, dtype=dtype), normal(width, dtype=dtype)
    assert any(schedule.outer for schedule in schedules(columns, *arrays))
    assert_right(columns, *arrays)


def test_an_extremum_of_few_columns_keeps_nan_and_signs_of_zero():
    x = np.zeros((150, 3), np.float32)
    x[:, 1] = -0.0
    x[77, 2] = np.nan
    highest, lowest = tw.max(x, axis=0), tw.min(x, axis=0)
    np.testing.assert_array_equal(np.signbit([highest[:2], lowest[:2]]), [[False, True]] * 2)
    assert np.isnan([highest[2], lowest[2]]).all()


@pytest.mark.parametrize(
    ("rows", "width", "dtype"), [(130, 3, np.float32), (129, 20, np.float32), (140, 7, np.float64)]
)
def test_a_narrow_last_axis(rows: int, width: int, dtype: type):
    arrays = normal(2, rows, width, dtype=dtype), normal(width, dtype=dtype), normal(rows, dtype=dtype)
    assert any(schedule.outer for schedule in schedules(placed, *arrays))
    assert_right(placed, *arrays)


@pytest.mark.parametrize("op", [placed, total])
def test_vectors_that_run_on_touch_nothing_beside_their_operands(op: tw.Op):
    arrays = (normal(131, 5), normal(5), normal(131))[: len(op.tiles)]
    expected = op(*arrays)

    def touch() -> None:
        tw.set_num_threads(1)
        for side in ("start", "end"):
            np.testing.assert_array_equal(op(*(guard.guarded(a, side) for a in arrays)), expected)

    outcome = guard.run_forked(touch)
    assert outcome.kind == "returned", outcome.report


@pytest.mark.parametrize("shape", [(64, 64), (70, 19)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32])
def test_operands_that_lie_across(shape: Sequence[int], dtype: type):
    x, y = (normal(*s) * 9 for s in (shape, shape[::-1]))
    x, y = x.astype(dtype), y.astype(dtype)
    assert any(schedule.across for schedule in schedules(beside, x, np.ascontiguousarray(y)))
    np.testing.assert_array_equal(beside(x, y), x * 2 + y.T)


@pytest.mark.parametrize("apart", [2, 3, 5, 8, 9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.float16])
def test_lanes_a_few_elements_apart(apart: int, dtype: type):
    """Every n-th column and a field of records: along the vectors, across them, and in sums."""
    whole = (normal(9, 50 * apart) * 9).astype(dtype)
    tensor = tw.tensor(whole)
    spaced = whole[:, apart - 1 :: apart], tensor[:, apart - 1 :: apart]
    field = whole.reshape(-1, apart)[:, 1], tensor.reshape(-1, apart)[:, 1]
    for x, given in (spaced, (spaced[0].T, spaced[1].T), field):
        exact = x.astype(np.float64)
        np.testing.assert_array_equal(given.to(tw.float64).numpy(), exact)
        for axis in range(x.ndim):
            sums = tw.sum(given, axis=axis).numpy().astype(np.float64)
            np.testing.assert_allclose(sums, exact.sum(axis), rtol=4 * TOLERANCE[dtype], atol=1e-4)


def test_lanes_apart_touch_nothing_behind_the_last():
    x = normal(130, 4)
    expected = twice(x[:, 3])

    def touch() -> None:
        placed_last = guard.guarded(x, "end")
        np.testing.assert_array_equal(twice(placed_last[:, 3]), expected)

    outcome = guard.run_forked(touch)
    assert outcome.kind == "returned", outcome.report


def test_copies_out_of_order():
    x = normal(3, 130, 5, 70)
    for axes in ((3, 1, 0, 2), (0, 3, 2, 1), (2, 0, 1, 3)):
        copied = tw.tensor(x).permute(*axes).contiguous()
        assert copied.is_contiguous()
        np.testing.assert_array_equal(copied.numpy(), x.transpose(axes))
        flat = tw.tensor(x).permute(*axes).reshape(-1)
        np.testing.assert_array_equal(flat.numpy(), x.transpose(axes).reshape(-1))
