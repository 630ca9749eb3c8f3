"""The rows of the benchmarks can be set up: their ops, options and axes are those that there are."""

from __future__ import annotations

import pytest

from benchmarks.families import BENCHES
from benchmarks.work import Bench

QUICK = [bench for bench in BENCHES if bench.quick]


@pytest.mark.parametrize("bench", QUICK, ids=str)
def test_a_quick_row_can_be_set_up(bench: Bench):
    work = bench.make()
    assert work.moved > 0 and work.tolerance > 0


@pytest.mark.exhaustive
@pytest.mark.parametrize("bench", BENCHES, ids=str)
def test_a_row_is_right(bench: Bench):
    work = bench.make()
    assert work.error() <= work.tolerance
