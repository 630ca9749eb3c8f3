"""What runs when a Plan is called with operands of some shapes and strides: texts, grids and arguments.

A `Step` is one kernel launch without addresses. Interpreting, compiling ahead of time, launching and printing
all start from the same steps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tilewright.compiler.chunks import chunk_extent, is_chunk_axis
from tilewright.compiler.in_place import replaceable
from tilewright.compiler.nest import Buffer, Kernel, Plan
from tilewright.compiler.one_chunk import in_one_chunk
from tilewright.compiler.pipeline import lower
from tilewright.compiler.ranking import without_orders
from tilewright.compiler.targets.triton.calls import Call, inside_results
from tilewright.compiler.targets.triton.emit import Emitted, emit
from tilewright.compiler.targets.triton.layouts import Shapes, contiguous_strides
from tilewright.compiler.targets.triton.parameters import POINTER, SCALAR, Parameter, integer_value
from tilewright.compiler.targets.triton.schedule import (
    SMALLEST_GRID,
    Schedule,
    default_schedule,
    programs,
)
from tilewright.compiler.targets.triton.split_sums import in_parts
from tilewright.compiler.targets.triton.toolchain import Target
from tilewright.dsl.empty import without_empty_axes
from tilewright.dsl.extents import bind_extents
from tilewright.dsl.program import Program
from tilewright.runtime.precision import get_matmul_precision
from tilewright.runtime.recent import Recent

NOWHERE: Shapes = {}

MAX_TEXTS = 1024  # that are remembered of a Plan
DESCRIPTOR_ALIGNMENT = 16  # bytes, of an operand's address and of its rows


@dataclass(frozen=True)
class Step:
    """One launch: `integers` are the values of sizes, strides and chunks by parameter name."""

    kernel: Kernel
    emitted: Emitted
    schedule: Schedule
    grid: int
    integers: Mapping[str, int]
    plain: Step | None = None
    """The same without descriptors, where this one has some."""

    def suited(self, aligned: frozenset[str]) -> Step:
        """This launch, or one without descriptors if an operand that has one is not among the `aligned`."""
        return self if self.plain is None or aligned >= set(self.emitted.described) else self.plain

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return self.emitted.parameters

    @property
    def signature(self) -> dict[str, str]:
        """Triton's types of all parameters, in order."""
        types = {p.name: p.type for p in self.parameters}
        return types | dict.fromkeys(self.emitted.constexprs, "constexpr")

    @property
    def operands(self) -> frozenset[str]:
        """The names of the operands and buffers that the kernel takes."""
        return frozenset(p.of for p in self.parameters if p.kind == POINTER)

    def divisible_by_16(self, aligned: frozenset[str]) -> tuple[str, ...]:
        """Parameters known to be multiples of 16: integers by their value, pointers of `aligned` operands."""
        return tuple(
            p.name
            for p in self.parameters
            if (p.kind == POINTER and p.of in aligned)
            or (p.name in self.integers and self.integers[p.name] % 16 == 0)
        )


@dataclass(frozen=True)
class Recipe:
    """All launches of a Plan, and the buffers to allocate."""

    steps: tuple[Step, ...]
    buffers: tuple[tuple[Buffer, tuple[int, ...]], ...]
    replaceable: frozenset[tuple[str, str]] = frozenset()
    """(result, operand) where the one may be written over the other."""
    inside: tuple[tuple[str, str], ...] = ()
    """What lies in memory as a result does, and the result that it becomes."""
    extents: Mapping[str, int] = field(default_factory=dict)
    """Those of the call, and into how many parts it cuts what it cuts."""


class Recipes:
    """Makes recipes; texts are shared by calls that differ in extents alone.

    `choose` is what gives a kernel its schedule.
    """

    def __init__(self, plan: Plan, target: Target, choose: Callable[..., Schedule] = default_schedule):
        self.plan = without_orders(plan)
        self.target = target
        self._choose = choose
        self._texts: Recent[tuple, Emitted] = Recent(MAX_TEXTS)
        self._empty: dict[Program, Recipes] = {}

    @functools.cached_property
    def replaceable(self) -> frozenset[tuple[str, str]]:
        return replaceable(self.plan)

    def recipe(self, shapes: Shapes, strides: Shapes, places: Shapes = NOWHERE) -> Recipe:
        """The launches for operands with these shapes and strides (in elements). Raises `ShapeError`.

        `places` are the strides of results that do not lie in C order.
        """
        definition = self.plan.definition
        extents = bind_extents(definition, {p.name: shapes[p.name] for p in definition.tiles})
        nonempty = without_empty_axes(definition, extents)
        if nonempty != definition:
            return self._for_empty_axes(nonempty).recipe(shapes, strides, places)
        extents |= chunk_extents(self.plan, extents)
        plan = in_one_chunk(self.plan, extents)
        inside = inside_results(plan, extents, places)
        call = Call(plan, extents, dict(shapes), dict(strides), inside)
        for buffer in (*plan.results, *plan.intermediates):
            call.add(buffer)
        call.strides |= places
        steps: list[Step] = []
        for kernel in call.kernels(self.target):
            step = self._step(kernel, call)
            if step.schedule.parts == 1:
                steps.append(step)
                continue
            halves = in_parts(kernel)
            call.extents[halves.axis] = step.schedule.parts
            call.add(halves.buffer)
            steps += [self._step(half, call) for half in (halves.sums, halves.finish)]
        without = {*inside, *call.written.values()}
        buffers = tuple((b, call.shapes[b.name]) for b in call.between if b.name not in without)
        early = {*inside.values(), *call.written}
        replaced = self.replaceable if plan is self.plan else replaceable(plan)
        free = frozenset(pair for pair in replaced if pair[0] not in early)
        return Recipe(tuple(s for s in steps if s.grid), buffers, free, tuple(inside.items()), call.extents)

    def _for_empty_axes(self, program: Program) -> Recipes:
        found = self._empty.get(program)
        if found is None:
            found = self._empty[program] = Recipes(lower(program), self.target, self._choose)
        return found

    def _step(self, kernel: Kernel, call: Call) -> Step:
        extents, layout, plain = dict(call.extents), call.layout_of(kernel), call.normal_strides(kernel)
        schedule = self._choose(kernel, layout, extents, self.target, get_matmul_precision())

        def step(schedule: Schedule) -> Step:
            key = (kernel, layout, schedule)
            emitted = self._texts.get(key)
            if emitted is None:
                emitted = self._texts[key] = emit(kernel, layout, schedule)
            values = {p.name: integer_value(p, kernel, schedule, extents, plain) for p in emitted.parameters}
            integers = {name: value for name, value in values.items() if value is not None}
            return Step(kernel, emitted, schedule, programs(kernel, schedule, extents), integers)

        if not schedule.descriptors:
            return step(schedule)
        with_them, without = step(schedule), step(replace(schedule, descriptors=False))
        dtypes = {param.name: param.dtype for param in kernel.tiles}
        described = with_them.emitted.described
        rows = [plain[name][d] * dtypes[name].numpy.itemsize for name, d in described.items()]
        if not rows or any(size % DESCRIPTOR_ALIGNMENT or size <= 0 for size in rows):
            return without
        return replace(with_them, plain=without)


def chunk_extents(plan: Plan, extents: Mapping[str, int]) -> dict[str, int]:
    """The extents of a Plan's chunks, for those of its axes."""
    chunks = {axis for kernel in plan.kernels for axis in kernel.axes() if is_chunk_axis(axis)}
    return {axis: chunk_extent(axis, extents, SMALLEST_GRID, SMALLEST_GRID) for axis in chunks}


def element_strides(array: np.ndarray) -> tuple[int, ...] | None:
    """Strides in elements, or None where they are not whole numbers of elements."""
    if any(stride % array.itemsize for stride in array.strides):
        return None
    return tuple(stride // array.itemsize for stride in array.strides)


def whole_elements(
    arrays: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Operands, their shapes, and their strides in elements; copied where strides are not whole elements."""
    kept = {n: a if element_strides(a) is not None else np.ascontiguousarray(a) for n, a in arrays.items()}
    strides = {n: element_strides(a) or () for n, a in kept.items()}
    return kept, {n: a.shape for n, a in kept.items()}, strides


__all__ = [
    "POINTER", "SCALAR", "Recipe", "Recipes", "Step",
    "chunk_extents", "contiguous_strides", "element_strides", "whole_elements",
]  # fmt: skip
