"""Random Programs on the CPU target against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.compare import check_results
from tests.support.programs import draw_arguments, extents, programs
from tilewright.autograd.derive import vjp
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu.executable import CpuExecutable
from tilewright.dsl.dtypes import bfloat16, float16, float32, float64, int32, int64
from tilewright.dsl.extents import bind_extents
from tilewright.dsl.program import Program
from tilewright.dsl.text import to_text
from tilewright.errors import DerivativeError
from tilewright.op.derived import without_saved

SIZES = (3, 1, 2, 8, 17, 0)


def check(program: Program, sizes: dict[str, int], seed: int, special: bool = False) -> None:
    arguments = draw_arguments(program, sizes, seed, special)
    tiles = {p.name: np.asarray(arguments[p.name]) for p in program.tiles}
    scalars = {p.name: np.asarray(arguments[p.name]).item() for p in program.scalars}
    executable = CpuExecutable(lower(program))
    actual = executable.run(tiles, scalars)
    try:
        check_results(program, arguments, actual, ulps=8.0)
        check_in_place(executable, tiles, scalars, actual)
    except AssertionError as error:
        error.add_note(f"{to_text(program)}\n{sizes}")
        raise


def check_in_place(
    executable: CpuExecutable,
    tiles: dict[str, np.ndarray],
    scalars: dict[str, float],
    expected: tuple[np.ndarray, ...],
) -> None:
    """Every result once more over every operand that it fits: the same bits."""
    for position, right in enumerate(expected):
        for name, operand in tiles.items():
            if (operand.shape, operand.dtype) != (right.shape, right.dtype):
                continue
            given = {n: a.copy() for n, a in tiles.items()}
            out = [given[name] if n == position else None for n in range(len(expected))]
            for mine, wanted in zip(executable.run(given, scalars, out), expected, strict=True):
                np.testing.assert_array_equal(mine, wanted, f"result {position} over {name}")


def campaign(examples: int, **options: object):
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        program = data.draw(programs(**options))  # type: ignore[arg-type]
        sizes = data.draw(extents(program, SIZES))
        check(program, sizes, data.draw(st.integers(0, 1000)), bool(options.get("special")))

    return run


def derivatives(examples: int):
    """Backwards, and backwards of backwards, of random programs."""

    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        phases=(Phase.explicit, Phase.generate),  # each step of shrinking compiles: find, then read the text
    )
    @given(st.data())
    def run(data: st.DataObject) -> None:
        program = data.draw(programs(dtypes=(float64, float32, int64), max_nodes=7, max_results=1))
        sizes = data.draw(extents(program, SIZES))
        shapes = {p.name: tuple(sizes[a] for a in p.axes) for p in program.params}
        sizes = bind_extents(program, shapes)  # of renamed axes too, along which cotangents run
        for _ in range(2):
            try:
                program = without_saved(vjp(program))
            except DerivativeError:
                return
            check(program, sizes, data.draw(st.integers(0, 1000)))

    return run


def test_random_derivatives():
    derivatives(15)()


@pytest.mark.exhaustive
def test_many_random_derivatives():
    derivatives(400)()


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
    campaign(600, **KINDS[kind])()
