"""Reductions whose vectors run across rows: strips, steps of several positions, ragged ends, phases."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu import toolchain
from tilewright.compiler.targets.cpu.executable import CpuExecutable
from tilewright.compiler.targets.cpu.rows import columns


@tw.op
def total(x: tw.Tile["n d"]):
    return tw.sum(x, "n")


@tw.op
def spread(x: tw.Tile["n d"]):
    """Two phases, and results after the second."""
    return tw.var(x, "n"), tw.mean(x, "n")


@tw.op
def soften(x: tw.Tile["n d"]):
    """Three phases, and results inside the last."""
    e = tw.exp(x - tw.max(x, "n"))
    return e / tw.sum(e, "n")


@tw.op
def weighted(w: tw.Tile["n"], x: tw.Tile["n d"], scale: tw.Tile["d"]):
    """Operands that vary along the row alone, and along the lanes alone."""
    return tw.sum(w * x, "n") * scale


@tw.op
def middle(x: tw.Tile["b n d"]):
    return tw.sum(x, "n"), tw.max(x, "n")


@tw.op
def outer_two(x: tw.Tile["b n d"]):
    return tw.sum(x * x, ("b", "n"))


def shapes_of(op: tw.Op, n: int, d: int) -> list[tuple[int, ...]]:
    if op is weighted:
        return [(n,), (n, d), (d,)]
    return [(3, n, d)] if op in (middle, outer_two) else [(n, d)]


OPS = [total, spread, soften, weighted, middle, outer_two]
ROWS = (1, 7, 8, 17)
WIDTHS = (1, 7, 64, 1025)
TARGETS = {target.name: target for target in (toolchain.host(), toolchain.avx2()) if target.is_host}


def as_tuple(value: object) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def assert_right(op: tw.Op, actual: object, arrays: list[np.ndarray], tolerance: float) -> None:
    for a, e in zip(as_tuple(actual), as_tuple(op.reference(*arrays)), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), e, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_values(op: tw.Op):
    rng = np.random.default_rng(0)
    for n in ROWS:
        for d in WIDTHS:
            arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes_of(op, n, d)]
            assert_right(op, op(*arrays), arrays, 1e-5)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", [np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("op", [spread, soften, middle], ids=lambda op: op.name)
def test_dtypes(op: tw.Op, kind: type, target: str):
    rng = np.random.default_rng(1)
    tolerance = {np.float64: 1e-13, np.float16: 4e-3}.get(kind, 3e-2)
    arrays = [rng.standard_normal(s).astype(kind) for s in shapes_of(op, 17, 77)]
    call = op.bind(op.arguments(tuple(arrays), {}))
    actual = CpuExecutable(lower(call.program), TARGETS[target]).run(call.arrays)
    assert_right(op, tuple(actual), arrays, tolerance)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int64, np.bool_])
def test_integers_and_booleans(kind: type):
    @tw.op
    def all_kinds(x: tw.Tile["n d"]):
        return tw.any(x != 0, "n"), tw.all(x != 0, "n"), tw.max(x, "n"), tw.min(x, "n")

    x = np.random.default_rng(2).integers(0, 3, (17, 77)).astype(kind)
    for actual, expected in zip(
        all_kinds(x), ((x != 0).any(0), (x != 0).all(0), x.max(0), x.min(0)), strict=True
    ):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_they_are_of_this_kind(op: tw.Op):
    """What is tested above is what the kernels are."""
    arrays = [np.ones(s, np.float32) for s in shapes_of(op, 17, 77)]
    call = op.bind(op.arguments(tuple(arrays), {}))
    compiled = CpuExecutable(lower(call.program)).compiled(call.arrays)
    assert all(columns.lies_across(c.kernel, c.schedule) for c in compiled)


def test_one_bit_pattern_for_all_widths(monkeypatch: pytest.MonkeyPatch):
    """The width of a strip is the launch's business, not the result's; so is the number of threads."""
    rng = np.random.default_rng(3)
    call = spread.bind(spread.arguments((rng.standard_normal((100, 1000)).astype(np.float32),), {}))
    expected = CpuExecutable(lower(call.program)).run(call.arrays)
    for width in (16, 48, 512):
        monkeypatch.setattr(columns, "strip_width", lambda *_, width=width: width)
        actual = CpuExecutable(lower(call.program)).run(call.arrays)
        for a, e in zip(actual, expected, strict=True):
            np.testing.assert_array_equal(a, e)


def test_threads_share_a_strip():
    kernel, extents = _kernel_of(total, (1 << 12, 1 << 12))
    alone, shared = (_width(kernel, extents, workers) for workers in (1, 8))
    assert shared * 8 <= 1 << 12 < 8 * alone
    assert _width(kernel, {**extents, "d": 64}, 64) * 4 >= 64  # not less than a cache line a position
    assert _width(kernel, {**extents, "d": 64}, 64) == 4 * toolchain.host().lanes("f32")


def test_later_phases_find_their_rows_in_the_cache():
    kernel, extents = _kernel_of(spread, (200, 10_000))
    assert _width(kernel, extents, 1) * 200 * 4 <= columns.WORKING_SET


def _kernel_of(op: tw.Op, shape: tuple[int, int]):
    call = op.bind(op.arguments((np.broadcast_to(np.float32(0), shape),), {}))
    (kernel,) = lower(call.program).kernels
    return kernel, dict(zip("nd", shape, strict=True))


def _width(kernel, extents: dict[str, int], workers: int) -> int:
    from tilewright.compiler.targets.cpu.layout import Layout
    from tilewright.compiler.targets.cpu.schedule import default_schedule

    target = toolchain.host()
    schedule = default_schedule(kernel, Layout({"x": "s1"}), target)
    return columns.strip_width(kernel, schedule, target, extents, workers)
