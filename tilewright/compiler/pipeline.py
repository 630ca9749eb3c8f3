"""The road from a Program to something that runs: one straight line.

Program → solve for positions → simplify → pick → sink → partition → (a target's) schedule, code, build
cache, launch
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from tilewright.compiler.in_place import Out
from tilewright.compiler.nest import Plan
from tilewright.dsl.program import Program
from tilewright.errors import TargetError

CHECKED = bool(os.environ.get("TILEWRIGHT_DEBUG"))


class Run(Protocol):
    """An `Executable` for operands of certain shapes and strides, which are in the Program's order.

    They may come in any shape: what counts is that the elements lie where those of the prepared operands do.
    """

    def __call__(
        self,
        operands: Sequence[np.ndarray],
        scalars: Mapping[str, float | int] = ...,
        out: Out | None = ...,
    ) -> tuple[np.ndarray, ...]: ...


class Executable(Protocol):
    """A Program compiled for one target."""

    plan: Plan

    def run(
        self,
        arguments: Mapping[str, np.ndarray],
        scalars: Mapping[str, float | int] | None = None,
        out: Out | None = None,
    ) -> tuple[np.ndarray, ...]: ...

    def prepared(self, operands: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...]] | None = ...) -> Run:
        """A run for operands that lie as these do; `shapes` are those of fresh results, the Program's unless
        told.
        """
        ...


def lower(program: Program) -> Plan:
    """The kernels of a Program."""
    # Half of what there is to import; `import tilewright` does without.
    from tilewright.autograd.inversion import without_scatters
    from tilewright.compiler.partition import partition
    from tilewright.compiler.picking import pick
    from tilewright.compiler.sinking import sink
    from tilewright.dsl.simplify import simplify

    program = _checked(program, "derivation")
    solved = _checked(without_scatters(program), "solving for positions")
    simple = _checked(simplify(solved), "simplification")  # first: a sum that moved out is a kernel less
    simple = _checked(simplify(sink(pick(simple))), "sinking of indexing")
    return replace(partition(simple), definition=replace(program, extents=solved.extents))


def _checked(program: Program, step: str) -> Program:
    from tilewright.dsl.verify import verify

    return verify(program, step) if CHECKED else program


@functools.lru_cache(maxsize=1024)
def compile_program(program: Program, target: str = "cpu") -> Executable:
    """A Program ready to run on "cpu", in Triton's "interpreter", or on a device such as "cuda:0".

    Raises `TargetError` where this machine has no such target.
    """
    plan = lower(program)
    if target == "cpu":
        from tilewright.compiler.targets.cpu.executable import CpuExecutable

        return CpuExecutable(plan)
    if target == "interpreter":
        from tilewright.compiler.targets.triton.executable import InterpreterExecutable

        return InterpreterExecutable(plan)
    if target.startswith("cuda"):
        from tilewright.compiler.targets.triton.on_device import CudaExecutable

        return CudaExecutable(plan, target)
    raise TargetError(
        f'there is no target {target!r}; the targets are "cpu", "interpreter" and "cuda:0", "cuda:1", …'
    )
