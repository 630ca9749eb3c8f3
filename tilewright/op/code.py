"""`op.code(...)`: the source that was generated for an op, each kernel under a comment that says what it is.

    target                     gives
    "cpu", "mlir"              MLIR, as it is written for this machine's CPU
    "llvm", "asm"              what became of it: optimised LLVM IR, assembly
    "triton"                   Triton Python
    "cuda:90", "hip:gfx942"    Triton Python as it is scheduled for that architecture
    "ptx:90"                   what Triton's compiler made of it for that compute capability

`grad=True` gives the kernels of the backward instead of those of the forward.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tilewright.compiler.nest import Plan
from tilewright.compiler.pipeline import compile_program, lower
from tilewright.compiler.ranking import without_orders
from tilewright.dsl.formula import formula
from tilewright.dsl.program import Program
from tilewright.errors import ArgumentError, TargetError
from tilewright.op.derivatives import at_call, vjp
from tilewright.op.explain import backward_arrays, kernel_lines, stand_ins
from tilewright.op.op import Op

CPU_LANGUAGES = {"cpu": "mlir", "mlir": "mlir", "llvm": "llvm", "asm": "asm"}
COMMENT = {"mlir": "//", "llvm": ";", "asm": "#", "triton": "#"}
DEFAULT_ARCHITECTURE = "cuda:90"
GPU_TARGETS = ("triton", "cuda:", "hip:", "ptx:")


def code(op: Op, tiles: tuple[Any, ...], keywords: Mapping[str, Any], target: str, grad: bool) -> str:
    """Source text of an op's kernels for operands like these; tuples of ints stand for float32 arrays.

    Raises `ArgumentError` for an unknown target and `TargetError` where its compiler is missing.
    """
    if target not in CPU_LANGUAGES and not target.startswith(GPU_TARGETS):
        raise ArgumentError(
            f'op.code has no target {target!r}; write "cpu" (MLIR), "llvm" or "asm" for this CPU, "triton", '
            f'"cuda:90" or "hip:gfx942" for Triton\'s Python, "ptx:90" for PTX'
        )
    program, arrays = _program(op, tiles, keywords, grad)
    if target in CPU_LANGUAGES:
        return "\n".join(_cpu(program, arrays, CPU_LANGUAGES[target]))
    return "\n".join(_gpu(program, arrays, target))


def _program(
    op: Op, tiles: tuple[Any, ...], keywords: Mapping[str, Any], grad: bool
) -> tuple[Program, dict[str, np.ndarray]]:
    call = op.bind(stand_ins(op.arguments(tiles, keywords)))
    program = at_call(call.program, call.arrays)
    if not grad:
        return program, dict(call.arrays)
    derivative = vjp(program)
    return derivative.backward, backward_arrays(derivative, call.arrays)


def _cpu(program: Program, arrays: Mapping[str, np.ndarray], language: str) -> Iterator[str]:
    executable: Any = compile_program(program, "cpu")
    mark = COMMENT[language]
    yield _commented([program.name, *formula(program).split("\n")], mark)
    for step in executable.steps(arrays):
        yield ""
        yield _commented(
            kernel_lines(step.compiled.kernel, step.extents, executable.plan.kernels, step), mark
        )
        yield executable.source(step.compiled, language)


def _commented(lines: Any, mark: str) -> str:
    return textwrap.indent("\n".join(lines), f"{mark} ", lambda _: True)


def _gpu(program: Program, arrays: Mapping[str, np.ndarray], target: str) -> Iterator[str]:
    kind, _, architecture = target.partition(":")
    mark = "//" if kind == "ptx" else COMMENT["triton"]
    plan = without_orders(lower(program))
    yield _commented([program.name, *formula(program).split("\n")], mark)
    where = f"cuda:{architecture}" if kind == "ptx" else target if architecture else DEFAULT_ARCHITECTURE
    recipe = _launches(plan, arrays, where)
    kernels = [step.kernel for step in recipe.steps]
    for step in recipe.steps:
        yield ""
        yield _commented(kernel_lines(step.kernel, recipe.extents, kernels), mark)
        if kind == "ptx":
            yield _compiled(step, where).texts["ptx"]
        else:
            yield step.emitted.text


def _launches(plan: Plan, arrays: Mapping[str, np.ndarray], target: str) -> Any:
    """What the Triton target launches on an architecture for operands like these."""
    try:
        from tilewright.compiler.targets.triton.launch import Recipes, whole_elements
        from tilewright.compiler.targets.triton.toolchain import Target
    except ImportError as reason:
        raise TargetError(f'there is no Triton target here ({reason}); use target="cpu"') from None
    _, shapes, strides = whole_elements(arrays)
    return Recipes(plan, Target.parse(target)).recipe(shapes, strides)


def _compiled(step: Any, target: str) -> Any:
    """One launch as a binary for an architecture: an `Artefact`."""
    from tilewright.compiler.targets.triton.binaries import compile_step
    from tilewright.compiler.targets.triton.toolchain import Target

    return compile_step(step, Target.parse(target), step.operands)


def ahead_of_time(
    op: Op, tiles: tuple[Any, ...], keywords: Mapping[str, Any], target: str, grad: bool = False
) -> tuple[Any, ...]:
    """The binaries (`Artefact`s) of an op's kernels for an architecture ("cuda:90"), made without a GPU.

    Raises `TargetError` where Triton is missing.
    """
    program, arrays = _program(op, tiles, keywords, grad)
    steps = _launches(lower(program), arrays, target).steps
    return tuple(_compiled(step, target) for step in steps)
