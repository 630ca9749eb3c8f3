"""Products whose results are too large for the caches go past them: vectors of whole cache lines alone."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tests.support.guarded import on_guard_pages
from tilewright import kernels
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu import toolchain, work
from tilewright.compiler.targets.cpu.executable import CpuExecutable
from tilewright.compiler.targets.cpu.toolchain import CpuTarget
from tilewright.runtime.guard import run_forked


@tw.op
def by_groups(x: tw.Tile["b m k"], w: tw.Tile["b k g n"], bias: tw.Tile["g n"]) -> tw.Tile["b m g n"]:
    return tw.tanh(tw.sum(x * w, "k") + bias)


@pytest.fixture(autouse=True)
def everything_streams(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(work, "STREAM_FROM", 0)


EVERY_DAY = {("float32", 48), ("float32", 137), ("bfloat16", 40)}


@pytest.mark.parametrize(
    ("dtype", "columns"),
    [
        pytest.param(dtype, columns, marks=() if (dtype, columns) in EVERY_DAY else pytest.mark.exhaustive)
        for dtype in ("float32", "float64", "bfloat16")
        for columns in (16, 40, 48, 64, 137)
    ],
)
def test_results_may_end_anywhere(dtype: str, columns: int):
    """A store past the caches that is not aligned would end the process."""
    rng = np.random.default_rng(0)
    kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    x, w = (rng.integers(-3, 4, shape).astype(kind) for shape in ((9_001, 5), (5, columns)))
    exact = x.astype("float64") @ w.astype("float64")

    def touch() -> None:
        np.testing.assert_array_equal(kernels.matmul(x, w).astype("float64"), exact)

    outcome = run_forked(touch, 60)
    assert outcome.kind == "returned", outcome.report


@pytest.mark.parametrize(
    "columns", [(4, 24), *(pytest.param(c, marks=pytest.mark.exhaustive) for c in ((3, 16), (2, 19)))]
)
def test_blocks_whose_columns_lie_in_pieces(columns: tuple[int, int]):
    groups, n = columns
    on_guard_pages(by_groups, (2, 700, 6), (2, 6, groups, n), columns)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("width", "padding"), [(64, 1), (66, 0), (64, 0)])
@pytest.mark.everyday(3)
def test_lines_that_vectors_run_on_over(groups: int, width: int, padding: int):
    """Columns between lines are numbered too: vectors begin anywhere."""
    on_guard_pages(kernels.conv2d, (3, 4, 66, width), (8, 4 // groups, 3, 3), groups=groups, padding=padding)


def goes_past_the_caches(rows: int, columns: int, target: CpuTarget | None = None) -> bool:
    operands = np.zeros((rows, 5), "float32"), np.zeros((5, columns), "float32")
    call = kernels.matmul.bind(kernels.matmul.arguments(operands, {}))
    found = CpuExecutable(lower(call.program), target)
    (compiled,) = found.compiled(dict(call.arrays))
    return "nontemporal" in found.source(compiled)


def test_whole_vectors_go_past_the_caches():
    assert goes_past_the_caches(9_001, 48) and not goes_past_the_caches(9_001, 40)


@pytest.mark.parametrize(
    ("columns", "past"), [(512, False), (640, True), (768, False), (1024, False), (1040, True)]
)
def test_half_lines_of_rows_at_few_places_of_their_pages_do_not(columns: int, past: bool):
    """Rows that are a multiple of a kilobyte long begin at four places of a page at most."""
    assert goes_past_the_caches(301, columns, toolchain.avx2()) is past
