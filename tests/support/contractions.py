"""How contractions of a call are walked, and calls on vectors of 256 bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tests.support.checks import backward_of, extents_of, with_cotangents
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu import toolchain
from tilewright.compiler.targets.cpu.contractions.walk import Walk
from tilewright.compiler.targets.cpu.executable import CpuExecutable
from tilewright.compiler.targets.cpu.recipe import CompiledKernel
from tilewright.compiler.targets.cpu.schedule import Schedule, default_schedule
from tilewright.dsl.program import Program
from tilewright.dsl.reference import reference
from tilewright.op.check import relative_error

CLOSE = {"float32": 1e-5, "float64": 1e-13}


def with_wide_vectors(program: Program) -> CpuExecutable:
    """The code for AVX-512, to be looked at: every x86 machine can build and link it, if not run it."""
    host, wide = toolchain.host(), toolchain.avx512()
    if not host.is_x86:
        pytest.skip("code for AVX-512 is not linked on this machine")
    return CpuExecutable(lower(program), host if host.has_avx512 else wide)


def with_blocks(program: Program, rows: int, columns: int) -> CpuExecutable:
    """A Program whose contractions have register blocks of so many rows and vectors."""

    def choose(kernel, layout, target, stream) -> Schedule:
        found = default_schedule(kernel, layout, target, stream)
        return replace(found, block_rows=rows, block_columns=columns) if kernel.contraction else found

    return CpuExecutable(lower(program), choose=choose)


def loops_of(assembly: str) -> list[list[str]]:
    """The instructions between a label and a jump back to it, of loops with nothing inside."""
    lines = [line.strip() for line in assembly.splitlines()]
    labels = {line.split(":")[0]: n for n, line in enumerate(lines) if line.startswith(".LBB")}
    found = []
    for end, line in enumerate(lines):
        to = labels.get(line.split()[-1]) if line.startswith("j") else None
        if to is not None and to < end and not any(start in labels.values() for start in range(to + 1, end)):
            found.append(lines[to:end])
    return found


def walk_of(compiled: CompiledKernel) -> Walk:
    return Walk.of(compiled.kernel, compiled.schedule, compiled.layout)


def on_avx2(op: tw.Op, *operands: np.ndarray, applies: Callable[[Walk], object], **constants: int) -> None:
    """Values and gradients, of which each has a contraction that `applies`."""
    call = op.bind(op.arguments(operands, constants))
    backward = backward_of(call.program)
    given = with_cotangents(backward, dict(call.arrays), extents_of(call.program, dict(call.arrays)))
    for program in (call.program, backward):
        arrays = {p.name: given[p.name] for p in program.tiles}
        executable = CpuExecutable(lower(program), toolchain.avx2())
        contractions = [c for c in executable.compiled(arrays) if c.kernel.contraction]
        assert any(applies(walk_of(compiled)) for compiled in contractions)
        for found, wanted in zip(executable.run(arrays), reference(program, arrays), strict=True):
            assert relative_error(found, wanted) < CLOSE[operands[0].dtype.name]


def drawn_whole(*shapes: tuple[int, ...], dtype: str = "float32") -> list[Any]:
    """Small whole numbers, whose sums are exact."""
    rng = np.random.default_rng(0)
    return [rng.integers(-3, 4, shape).astype(dtype) for shape in shapes]


def assert_exact(op: tw.Op, *operands: np.ndarray) -> None:
    """The reference's values, in the result's own type."""
    found = op(*operands)
    np.testing.assert_array_equal(found, op.reference(*operands).astype(found.dtype))
