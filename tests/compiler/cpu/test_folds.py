"""Reductions in vectors, step by step, at the ends of the float line: NaN of both signs, zeros, infinities.

Every row has the number in question at another place, so that it comes through each way that a value can take
into a result: whole vectors, the masked end, the join of the accumulators, the step across lanes.
"""

from __future__ import annotations

from functools import cache

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu import toolchain
from tilewright.compiler.targets.cpu.executable import CpuExecutable
from tilewright.dsl.program import Program

TARGETS = {target.name: target for target in (toolchain.host(), toolchain.avx2()) if target.is_host}
DTYPES = {"f64": np.float64, "f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
EXTENTS = (1, 7, 17, 1025)


@tw.op
def along(x: tw.Tile["n d"]):
    """One row after another."""
    return tw.max(x, "d"), tw.min(x, "d")


@tw.op
def partial(x: tw.Tile["n d"]):
    """Columns, as partial results of groups of rows beside the rows' own."""
    return tw.max(x, "d"), tw.max(x, "n"), tw.min(x, "n")


@tw.op
def everything(x: tw.Tile["n d"]):
    """Partial results of chunks."""
    return tw.max(x), tw.min(x)


@cache
def executable(program: Program, target: str) -> CpuExecutable:
    return CpuExecutable(lower(program), TARGETS[target])


def run(op: tw.Op, x: np.ndarray, target: str) -> list[np.ndarray]:
    call = op.bind(op.arguments((x,), {}))
    return [np.asarray(r, np.float64) for r in executable(call.program, target).run(call.arrays)]


def diagonal(extent: int, number: float, elsewhere: float, kind: type) -> np.ndarray:
    """Row n has the number at n."""
    return np.where(np.eye(extent, dtype=bool), number, elsewhere).astype(kind)


def assert_same_bits(actual: np.ndarray, expected: float) -> None:
    np.testing.assert_array_equal(actual, np.full(actual.shape, expected))
    if not np.isnan(expected):
        np.testing.assert_array_equal(np.signbit(actual), np.full(actual.shape, np.signbit(expected)))


WAYS = {
    "lanes along the row": np.ascontiguousarray,
    "lanes across rows": np.asfortranarray,
}
NUMBERS = [
    # at one place, elsewhere, largest, smallest
    (0.0, -0.0, 0.0, -0.0),
    (-0.0, 0.0, 0.0, -0.0),
    (np.nan, 1.0, np.nan, np.nan),
    (-np.nan, 1.0, np.nan, np.nan),
    (-np.nan, -np.inf, np.nan, np.nan),
    (np.nan, np.inf, np.nan, np.nan),
    (-1.0, -2.0, -1.0, -2.0),
    (2.0, 1.0, 2.0, 1.0),
    (-np.inf, -0.0, -0.0, -np.inf),
    (np.inf, 0.0, np.inf, 0.0),
]


def alone(extent: int, largest: float, smallest: float, number: float) -> tuple[float, float]:
    return (largest, smallest) if extent > 1 else (number, number)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("way", WAYS)
def test_extrema_of_rows(way: str, kind: str, target: str):
    for extent in EXTENTS:
        for number, elsewhere, largest, smallest in NUMBERS:
            x = WAYS[way](diagonal(extent, number, elsewhere, DTYPES[kind]))
            results = run(along, x, target)
            for result, expected in zip(results, alone(extent, largest, smallest, number), strict=True):
                assert_same_bits(result, expected)


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("op", [partial, everything], ids=lambda op: op.name)
def test_extrema_of_partial_results(op: tw.Op, kind: str):
    host = toolchain.host().name
    for extent in EXTENTS:
        for number, elsewhere, largest, smallest in NUMBERS:
            x = diagonal(extent, number, elsewhere, DTYPES[kind])
            high, low = alone(extent, largest, smallest, number)
            *highs, lows = run(op, x, host)
            for result in highs:
                assert_same_bits(result, high)
            assert_same_bits(lows, low)


def test_extrema_of_everything_at_each_place_of_its_chunks():
    """The one +0 or NaN is found wherever it is; so is the one -0."""
    host = toolchain.host().name
    rng = np.random.default_rng(0)
    for place in [0, 15, 16, 63, 64, 16383, 16384, *rng.integers(0, 40000, 20), 39999]:
        for number, elsewhere, largest, smallest in NUMBERS[:4]:
            x = np.full((200, 200), elsewhere, np.float32)
            x.flat[place] = number
            for result, expected in zip(run(everything, x, host), (largest, smallest), strict=True):
                assert_same_bits(result, expected)


def test_partial_results_are_what_is_tested():
    """The ops above still become kernels of partial results, of rows and of chunks."""
    x = np.ones((64, 64), np.float32)
    for op, of in ((partial, "parallel"), (everything, "row")):
        splits = [
            kernel.split for kernel in lower(op.bind(op.arguments((x,), {})).program).kernels if kernel.split
        ]
        assert {split.of for split in splits} == {of}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", DTYPES)
def test_extrema_of_random_rows(kind: str, target: str):
    """All bit patterns, of which few are NaN."""
    rng = np.random.default_rng(1)
    integers = f"u{np.dtype(DTYPES[kind]).itemsize}"
    for extent in EXTENTS:
        x = rng.integers(0, np.iinfo(integers).max, (37, extent), integers, endpoint=True)
        x = x.view(DTYPES[kind])
        with np.errstate(invalid="ignore"):
            wide = x.astype(np.float64)
            for result, expected in zip(run(along, x, target), (wide.max(1), wide.min(1)), strict=True):
                np.testing.assert_array_equal(result, expected)
