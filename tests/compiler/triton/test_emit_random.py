"""Random Programs in Triton's interpreter against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.compare import check_results
from tests.support.programs import draw_arguments, extents, programs
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.triton.executable import InterpreterExecutable
from tilewright.dsl.dtypes import bfloat16, float16, float32, float64, int32, int64
from tilewright.dsl.program import Program

SIZES = (3, 1, 2, 8, 17, 0)


def check(program: Program, sizes: dict[str, int], seed: int, special: bool = False) -> None:
    arguments = draw_arguments(program, sizes, seed, special)
    tiles = {p.name: np.asarray(arguments[p.name]) for p in program.tiles}
    scalars = {p.name: np.asarray(arguments[p.name]).item() for p in program.scalars}
    actual = InterpreterExecutable(lower(program)).run(tiles, scalars)
    check_results(program, arguments, actual, ulps=8.0)


def campaign(examples: int, **options: object):
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        program = data.draw(programs(**options))  # type: ignore[arg-type]
        sizes = data.draw(extents(program, SIZES))
        check(program, sizes, data.draw(st.integers(0, 1000)), bool(options.get("special")))

    return run


KINDS = {
    "mixed": {},
    "floats": {"dtypes": (float32, float64), "max_nodes": 14},
    "halves": {"dtypes": (float16, bfloat16, float32), "max_nodes": 8},
    "integers": {"dtypes": (int32, int64), "max_nodes": 8},
}


@pytest.mark.parametrize("kind", KINDS)
def test_random_programs(kind: str):
    campaign(25, **KINDS[kind])()


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", KINDS)
def test_many_random_programs(kind: str):
    campaign(400, **KINDS[kind])()
