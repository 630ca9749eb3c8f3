"""What an op gives, and what it costs, without running it.

tw.shapes(kernels.matmul, (128, 64), (64, 32))       → float32(128, 32)
op.cost((4096, 1024), (1024,))                        → bytes and operations, as formulas and numbers
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.compiler.pipeline import lower
from tilewright.dsl.dtypes import DType, as_dtype, float32
from tilewright.dsl.extents import result_shapes
from tilewright.dsl.formula import formula
from tilewright.dsl.program import Program
from tilewright.errors import ArgumentError, DerivativeError
from tilewright.op import costs
from tilewright.op.op import Call, Op


@dataclass(frozen=True)
class Typed:
    """A shape and a dtype: what a result will be, or what stands for an operand."""

    shape: tuple[int, ...]
    dtype: DType = float32

    def __str__(self) -> str:
        return f"{self.dtype.name}{self.shape}"

    __repr__ = __str__


def shapes(op: Op, *tiles: Any, **keywords: Any) -> Any:
    """The shape and dtype of each result for operands of these shapes; nothing is computed.

    An operand is an array, a shape (float32), or a `Typed` shape. Raises what a call would: `ShapeError`,
    `AxisError`, `DTypeError`, `ArgumentError`.
    """
    found = result_types(stand_in_call(op, tiles, keywords))
    return found[0] if len(found) == 1 else found


def result_types(call: Call) -> tuple[Typed, ...]:
    given = result_shapes(call.program, {name: a.shape for name, a in call.arrays.items()})
    return tuple(
        Typed(call.seen(n, shape).shape, result.dtype)
        for n, (shape, result) in enumerate(zip(given, call.program.results, strict=True))
    )


def stand_in_call(op: Op, tiles: tuple[Any, ...], keywords: Mapping[str, Any]) -> Call:
    """A call whose operands have shapes and dtypes but no memory of their own."""
    named = {n: stand_in(v) if n in {t.name for t in op.tiles} else v for n, v in keywords.items()}
    return op.bind(op.arguments(tuple(map(stand_in, tiles)), named))


def stand_in(value: Any) -> Any:
    """An array of a shape, without the memory; what is no shape is left as it is."""
    if isinstance(value, (tuple, list)) and all(isinstance(e, (int, np.integer)) for e in value):
        value = Typed(tuple(int(e) for e in value))
    if not isinstance(value, Typed):
        return value
    if any(extent < 0 for extent in value.shape):
        raise ArgumentError(f"a shape has no negative extent, got {value.shape}")
    dtype = as_dtype(value.dtype).numpy
    steps, step = [], dtype.itemsize
    for extent in reversed(value.shape):
        steps.append(step)
        step *= max(1, extent)
    return np.lib.stride_tricks.as_strided(np.zeros(1, dtype), value.shape, tuple(reversed(steps)))


@dataclass(frozen=True)
class Work:
    """What some kernels move and compute: formulas over extents, and numbers."""

    kernels: int
    bytes: costs.Amount
    fewest: costs.Amount
    flops: costs.Amount
    extents: Mapping[str, int]

    @property
    def moved(self) -> int:
        return self.bytes.number(self.extents)

    @property
    def operations(self) -> int:
        return self.flops.number(self.extents)

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.operations / self.moved if self.moved else 0.0


@dataclass(frozen=True)
class Cost:
    """What a call of an op costs, and its gradient (None where it has none)."""

    op: str
    forward: Work
    gradient: Work | None
    sizes: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield self.op
        for what, work in (("forward", self.forward), ("gradient", self.gradient)):
            if work is None:
                yield f"  {what}: none"
                continue
            yield f"  {what}: {work.kernels} kernel{'s' * (work.kernels != 1)}"
            yield f"    bytes  {work.bytes} = {costs.quantity(work.moved, 'B')}"
            yield f"    fewest {work.fewest} = {costs.quantity(work.fewest.number(work.extents), 'B')}"
            yield f"    flops  {work.flops} = {costs.quantity(work.operations, 'FLOP')}"
        for size in self.sizes:
            yield f"  where {size}"


def cost(op: Op, tiles: tuple[Any, ...], keywords: Mapping[str, Any]) -> Cost:
    """Bytes and operations of a call with operands of these shapes, and of its gradient."""
    from tilewright.op.derived import vjp

    call = stand_in_call(op, tiles, keywords)
    given = {name: a.shape for name, a in call.arrays.items()}
    forward = _work(call.program, given)
    try:
        backward = vjp(call.program).backward
    except DerivativeError:
        gradient = None
    else:
        known = costs.extents_of_program(call.program, given)
        gradient = _work(backward, {p.name: tuple(known[a] for a in p.axes) for p in backward.tiles})
    sizes = tuple(f"{e.axis} = {formula(e.size)}" for e in call.program.extents)
    return Cost(op.name, forward, gradient, sizes)


def _work(program: Program, given: Mapping[str, tuple[int, ...]]) -> Work:
    plan = lower(program)
    extents = costs.extents_of(plan, given)
    moved = costs.Amount({})
    done = costs.Amount({})
    for kernel in plan.kernels:
        moved, done = moved + costs.bytes_moved(kernel), done + costs.operations(kernel)
    return Work(len(plan.kernels), moved, costs.fewest_bytes(program), done, extents)
