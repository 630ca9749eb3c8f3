"""Campaigns of random Programs, and of their derivatives, on a target against the float64 reference.

campaign(on(CpuExecutable), 400, **KINDS["halves"])()
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.compare import check_results
from tests.support.programs import draw_arguments, extents, programs
from tilewright.autograd.derive import vjp
from tilewright.compiler.nest import Plan
from tilewright.compiler.pipeline import lower
from tilewright.dsl.dtypes import (
    bfloat16,
    float8_e4m3fn,
    float8_e5m2,
    float16,
    float32,
    float64,
    int32,
    int64,
)
from tilewright.dsl.extents import bind_extents
from tilewright.dsl.program import Program
from tilewright.dsl.text import to_text
from tilewright.errors import DerivativeError
from tilewright.op.derived import without_saved

Check = Callable[..., None]

SIZES = (3, 1, 2, 8, 17, 0)
KINDS: dict[str, dict[str, Any]] = {
    "mixed": {},
    "floats": {"dtypes": (float32, float64), "max_nodes": 14},
    "halves": {"dtypes": (float16, bfloat16, float32), "max_nodes": 8},
    "eighths": {"dtypes": (float8_e4m3fn, float8_e5m2, bfloat16, float32), "max_nodes": 8},
    "special eighths": {"dtypes": (float8_e4m3fn, float8_e5m2), "max_nodes": 6, "special": True},
    "integers": {"dtypes": (int32, int64), "max_nodes": 8},
    "special": {"special": True},
    "special floats": {"special": True, "dtypes": (float32, float64), "max_nodes": 8},
    "scans": {"scans": True, "max_nodes": 8},
    "indexing": {"indexing": True, "dtypes": (float32, float64, int64), "max_nodes": 8},
}

EVERY_DAY = [kind for kind in KINDS if kind != "special eighths"]


def on(executable: Callable[[Plan], Any], also: Callable[..., None] | None = None) -> Check:
    """What a campaign does with a Program: run it by an executable, and look at whatever `also` looks at.

    `also` takes the executable of the Program's Plan, tiles, scalars and results.
    """

    def check(program: Program, sizes: dict[str, int], seed: int, special: bool = False) -> None:
        arguments = draw_arguments(program, sizes, seed, special)
        tiles = {p.name: np.asarray(arguments[p.name]) for p in program.tiles}
        scalars = {p.name: np.asarray(arguments[p.name]).item() for p in program.scalars}
        compiled = executable(lower(program))
        actual = compiled.run(tiles, scalars)
        try:
            check_results(program, arguments, actual, ulps=8.0)
            if also:
                also(compiled, tiles, scalars, actual)
        except AssertionError as error:
            error.add_note(f"{to_text(program)}\n{sizes}")
            raise

    return check


def campaign(
    check: Check, examples: int, sizes: tuple[int, ...] = SIZES, **options: Any
) -> Callable[[], None]:
    """Random Programs whose axes have some of these sizes; `options` are those of `programs`."""

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        program = data.draw(programs(**options))
        drawn = data.draw(extents(program, sizes))
        seed = data.draw(st.integers(0, 1000))
        check(program, drawn, seed, options.get("special", False))

    return run


def derivatives(check: Check, examples: int, **options: Any) -> Callable[[], None]:
    """Backwards, and backwards of backwards, of random Programs."""

    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        phases=(Phase.explicit, Phase.generate),  # each step of shrinking compiles: find, then read the text
    )
    @given(st.data())
    def run(data: st.DataObject) -> None:
        dtypes = (float64, float32, int64)
        program = data.draw(programs(dtypes=dtypes, max_nodes=7, max_results=1, **options))
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
