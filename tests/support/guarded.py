"""Ops between pages without access: a byte too many is a crash, and that a failed test."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

import tilewright as tw
from tests.support.checks import backward_of, extents_of, with_cotangents
from tilewright.compiler.pipeline import Executable, compile_program
from tilewright.dsl.reference import reference
from tilewright.op.check import relative_error
from tilewright.runtime import guard, memory

Arrays = Mapping[str, np.ndarray]


def on_guard_pages(op: tw.Op, *shapes: tuple[int, ...], dtype: str = "float32", **constants: int) -> None:
    """Values and gradients, every operand, result and workspace between pages without access."""
    rng = np.random.default_rng(0)
    operands = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    call = op.bind(op.arguments(tuple(operands), constants))
    arrays = dict(call.arrays)
    backward = backward_of(call.program)
    given = with_cotangents(backward, arrays, extents_of(call.program, arrays))
    for program in (call.program, backward):
        mine = {p.name: given[p.name] for p in program.tiles}
        executable = compile_program(program)
        executable.run(mine)  # compiled before the child is forked
        for side in ("end", "start"):
            touch = partial(_touch, executable, mine, reference(program, mine), side)
            outcome = guard.run_forked(touch, 60)
            assert outcome.kind == "returned", f"{program.name} at the {side}: {outcome.report}"


def _touch(
    executable: Executable, arrays: Arrays, expected: tuple[np.ndarray, ...], side: guard.Side
) -> None:
    memory.empty = lambda shape, kind: guard.poisoned(shape, kind, side)
    results = executable.run({name: guard.guarded(array, side) for name, array in arrays.items()})
    for result, wanted in zip(results, expected, strict=True):
        assert relative_error(result, wanted) < (1e-13 if result.dtype == np.float64 else 1e-5)
