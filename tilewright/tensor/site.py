"""Where a Tensor's op is called, worked out once for operands of given layouts.

A `Site` is everything about a call that its operands' layouts and dtypes decide: the Program, its
derivative, the executables, the shapes of views and results. Inside of it complex numbers are pairs of real
ones (`op.pairs`): arrays come in by `inside` and go out by `outside`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.autograd.derivative import Derivative
from tilewright.compiler.pipeline import Executable, Run, compile_program
from tilewright.dsl.axes import PAIR
from tilewright.dsl.dtypes import DType
from tilewright.dsl.empty import without_empty_axes
from tilewright.dsl.extents import bind_extents, result_shapes
from tilewright.dsl.program import Program, Read, reads
from tilewright.op import storage
from tilewright.op.derivatives import vjp
from tilewright.op.derived import without_saved
from tilewright.op.pairs import as_pairs, from_pairs_of, is_complex_array
from tilewright.op.seen import Seen
from tilewright.runtime.addresses import address
from tilewright.runtime.recent import Recent

Shape = tuple[int, ...]

MAX_LAYOUTS = 16  # of a backward's operands: cotangents come as they come


def inside(array: np.ndarray, shape: Shape) -> np.ndarray:
    """A user's array as a Program's operand of this shape."""
    if is_complex_array(array):
        array = as_pairs(array)
    return array if array.shape == shape else storage.reshaped(array, shape)


def outside(array: np.ndarray, shape: Shape, paired: bool) -> np.ndarray:
    """A Program's result as a user has it: of this shape, and complex if it runs along pairs."""
    if paired:
        array = from_pairs_of(array)
    return array if array.shape == shape else array.reshape(shape)


def zeros(shape: Shape, dtype: DType) -> np.ndarray:
    return np.broadcast_to(np.zeros((), dtype.numpy), shape)


def _place(array: Any) -> int:
    return address(array) if isinstance(array, np.ndarray) else array.address


@functools.lru_cache(maxsize=2048)
def closed_backward(derivative: Derivative) -> Program:
    return without_saved(derivative)


@dataclass(frozen=True)
class Order:
    """A site's operands and results as a user has them, where dimensions stand in another order."""

    operands: tuple[Seen, ...]
    results: tuple[Seen, ...]


class Site:
    """One Program at one set of operand layouts, differentiated by the operands `tracked`.

    `shapes` are those of the operands in the Program, `given` those that the caller knows them by;
    `expected` are the shapes in which the caller wants the results. `as_given` and `as_expected`: whether
    operands and results are as the Program has them. `lies`: whether `forward` takes operands as they are
    given, and gives results as they are expected, for all that differs is their shapes. `target` is the
    device that the operands lie on. `order`, if there is one, says how a user has what is `given` and
    `expected`.
    """

    def __init__(
        self, program: Program, shapes: Sequence[Shape], given: Sequence[Shape], expected: Sequence[Shape],
        tracked: Sequence[bool], target: str = "cpu",
    ):  # fmt: skip
        self.program = program
        self.target = target
        self.names = tuple(p.name for p in program.tiles)
        self.shapes = tuple(shapes)
        self.given = tuple(given)
        self.expected = tuple(expected)
        self.as_given = self.shapes == self.given and not any(PAIR in p.axes for p in program.tiles)
        self.paired = tuple(PAIR in r.axes for r in program.results)
        self.forward: Run | None = None  # for operands of one set of strides
        self.lies = False
        self.order: Order | None = None
        wrt = tuple(p.name for p, t in zip(program.tiles, tracked, strict=True) if t and p.dtype.is_float)
        self.recorded = bool(wrt) and any(r.dtype.is_float for r in program.results)
        if self.recorded:
            self._prepare_backward(wrt)
        else:
            self.executable = compile_program(program, target)

    def _prepare_backward(self, wrt: tuple[str, ...]) -> None:
        derivative = self.derivative = vjp(without_empty_axes(self.program, self._extents()), wrt)
        self.executable = compile_program(derivative.forward, self.target)
        self.count = len(self.program.results)
        results = [r.name for r in derivative.forward.results]
        self.has_residuals = any(name not in results[: self.count] for name in derivative.saved)
        self.read = tuple(p.name for p in derivative.backward.tiles)
        kept = set(self.names) if self.has_residuals else set(self.read)
        values = {r.param for r in reads(r.node for r in derivative.backward.results)}
        if self.has_residuals:
            values.update(self.names)
        self.kept_operands = tuple((n, name) for n, name in enumerate(self.names) if name in kept & values)
        self.shape_only = {
            p.name: zeros(shape, p.dtype)
            for p, shape in zip(self.program.tiles, self.shapes, strict=True)
            if p.name in kept - values
        }
        self.kept_results = tuple(
            (n, name) for n, name in enumerate(results) if name in set(derivative.saved)
        )
        number = {r.name: n for n, r in enumerate(self.program.results)}
        extents = self._extents()
        self.cotangents = tuple(
            (number[result], name, tuple(extents[a] for a in derivative.backward.param(name).axes))
            for result, name in derivative.cotangents
        )
        self.differentiable = frozenset(n for n, _, _ in self.cotangents)
        position = {name: n for n, name in enumerate(self.names)}
        program_axes = {p.name: p.axes for p in self.program.tiles}
        passed = {name: n for n, name, _ in self.cotangents}
        self.gradients = tuple(
            Gradient(
                position[operand],
                self.shapes[position[operand]],
                self.given[position[operand]],
                PAIR in program_axes[operand],
                _passed_through(derivative.backward, n, passed, extents),
            )
            for n, (operand, _) in enumerate(derivative.gradients)
        )
        self.fresh = frozenset(g.position for g in self.gradients if g.through is None)
        self.computes = bool(self.fresh)
        self.kept_any = self.computes and bool(self.kept_operands or self.kept_results)
        self.second: dict[tuple[bool, ...], Site] = {}
        self._backward_runs: Recent[tuple, Run] = Recent(MAX_LAYOUTS)

    def prepare(self, arrays: Sequence[np.ndarray]) -> None:
        """Make `forward`, for operands that lie as these do."""
        operands = [inside(array, shape) for array, shape in zip(arrays, self.shapes, strict=True)]
        pairs = zip(arrays, operands, strict=True)
        same = all(a.dtype == o.dtype and _place(a) == _place(o) for a, o in pairs)
        self.lies = same and not self.recorded and not any(self.paired)
        self.forward = self.executable.prepared(operands, self.expected if self.lies else None)

    @functools.cached_property
    def backward(self) -> Executable:
        return compile_program(self.derivative.backward, self.target)

    def run_backward(
        self, operands: Sequence[np.ndarray], scalars: Mapping[str, float | int]
    ) -> tuple[np.ndarray, ...]:
        """The gradients for operands in the order of `read`, which may lie otherwise from call to call."""
        strides = tuple([array.strides for array in operands])
        run = self._backward_runs.get(strides)
        if run is None:
            run = self._backward_runs[strides] = self.backward.prepared(operands)
        return run(operands, scalars)

    @functools.cached_property
    def result_shapes(self) -> tuple[Shape, ...]:
        """Of the results in the Program."""
        return result_shapes(self.program, dict(zip(self.names, self.shapes, strict=True)))

    @functools.cached_property
    def as_expected(self) -> bool:
        return not any(self.paired) and self.result_shapes == self.expected

    def _extents(self) -> dict[str, int]:
        return bind_extents(self.program, dict(zip(self.names, self.shapes, strict=True)))


@dataclass(frozen=True)
class Through:
    """A gradient that is a cotangent itself, repeated along the axes where `shape` (else the
    cotangent's) is 1.
    """

    result: int
    shape: Shape


@dataclass(frozen=True)
class Gradient:
    """Where a gradient goes: the operand, its shape in the Program, and what its source knows it by."""

    position: int
    shape: Shape
    given: Shape
    paired: bool
    through: Through | None


def _passed_through(
    backward: Program, position: int, cotangents: Mapping[str, int], extents: Mapping[str, int]
) -> Through | None:
    result = backward.results[position]
    node = result.node
    if not isinstance(node, Read) or node.param not in cotangents or PAIR in result.axes:
        return None
    if tuple(a for a in result.axes if a in node.names) != node.names:
        return None
    return Through(cotangents[node.param], tuple(extents[a] if a in node.names else 1 for a in result.axes))
