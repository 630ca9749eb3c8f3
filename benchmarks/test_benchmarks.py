"""Every row of the tables under pytest-benchmark, checked first."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.families import BENCHES
from benchmarks.work import Bench


@pytest.mark.parametrize("bench", BENCHES, ids=str)
def test_bench(bench: Bench, benchmark: Any):
    work = bench.make()
    assert work.error() <= work.tolerance
    benchmark.group = bench.family
    benchmark.extra_info.update(bytes=work.moved, operations=work.operations)
    benchmark(work.ours)
