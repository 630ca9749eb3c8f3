"""`op.code(...)`: the source that was generated for an op, each kernel under a comment that says what it is.

    target                     gives
    "cpu", "mlir"              MLIR, as it is written for this machine's CPU
    "llvm", "asm"              what became of it: optimised LLVM IR, assembly
    "triton"                   Triton Python
    "cuda:90", "hip:gfx942"    Triton Python as it is scheduled for that architecture
    "ptx:90"                   what Triton's compiler made of it for that architecture

`grad=True` gives the kernels of the backward instead of those of the forward.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tilewright.autograd.derive import vjp
from tilewright.compiler.pipeline import compile_program
from tilewright.dsl.formula import formula
from tilewright.dsl.program import Program
from tilewright.errors import ArgumentError, TargetError
from tilewright.op.costs import extents_of
from tilewright.op.explain import backward_arrays, kernel_lines, stand_ins
from tilewright.op.op import Op

CPU_LANGUAGES = {"cpu": "mlir", "mlir": "mlir", "llvm": "llvm", "asm": "asm"}
COMMENT = {"mlir": "//", "llvm": ";", "asm": "#", "triton": "#"}
GPU_TARGETS = ("triton", "cuda:", "hip:", "ptx:")
DEFAULT_ARCHITECTURE = "cuda:90"


def code(op: Op, tiles: tuple[Any, ...], keywords: Mapping[str, Any], target: str, grad: bool) -> str:
    """Source text of an op's kernels for operands like these; tuples of ints stand for float32 arrays.

    Raises `ArgumentError` for an unknown target and `TargetError` where its compiler is missing.
    """
    if target not in CPU_LANGUAGES and not target.startswith(GPU_TARGETS):
        raise ArgumentError(
            f'op.code has no target {target!r}; write "cpu" (MLIR), "llvm" or "asm" for this CPU, "triton", '
            f'"cuda:90" or "hip:gfx942" for Triton\'s Python, "ptx:90" for PTX'
        )
    call = op.bind(stand_ins(op.arguments(tiles, keywords)))
    program, arrays = call.program, dict(call.arrays)
    if grad:
        derivative = vjp(program)
        program, arrays = derivative.backward, backward_arrays(derivative, arrays)
    if target in CPU_LANGUAGES:
        return "\n".join(_cpu(program, arrays, CPU_LANGUAGES[target]))
    return "\n".join(_gpu(program, arrays, target))


def _cpu(program: Program, arrays: Mapping[str, np.ndarray], language: str) -> Iterator[str]:
    executable: Any = compile_program(program, "cpu")
    mark = COMMENT[language]
    yield _commented([program.name, *formula(program).split("\n")], mark)
    extents = extents_of(executable.plan, {name: a.shape for name, a in arrays.items()})
    writers = {o.buffer.name: k.name for k in executable.plan.kernels for o in k.outputs}
    for compiled in executable.compiled(arrays):
        yield ""
        yield _commented(kernel_lines(compiled.kernel, extents, writers, compiled), mark)
        yield executable.source(compiled, language)


def _commented(lines: Any, mark: str) -> str:
    return textwrap.indent("\n".join(lines), f"{mark} ", lambda _: True)


def _gpu(program: Program, arrays: Mapping[str, np.ndarray], target: str) -> Iterator[str]:
    try:
        from tilewright.compiler.targets.triton.executable import source
    except ImportError as reason:
        raise TargetError(
            f'there is no Triton target in this installation ({reason}); use target="cpu"'
        ) from None
    kind, _, architecture = target.partition(":")
    where = DEFAULT_ARCHITECTURE if kind == "triton" else f"cuda:{architecture}" if kind == "ptx" else target
    plan = compile_program(program, "cpu").plan
    language = "ptx" if kind == "ptx" else "triton"
    mark = "//" if language == "ptx" else COMMENT["triton"]
    yield _commented([program.name, *formula(program).split("\n")], mark)
    extents = extents_of(plan, {name: a.shape for name, a in arrays.items()})
    writers = {o.buffer.name: k.name for k in plan.kernels for o in k.outputs}
    texts = source(plan, arrays, where, language)
    for kernel in plan.kernels:
        if kernel.name not in texts:
            continue
        yield ""
        yield _commented(kernel_lines(kernel, extents, writers), mark)
        yield texts[kernel.name]
