"""The kernels of a call: a Plan's, in the form that suits the extents and strides of its operands.

    a product with a vector, or of two     a row kernel, or a pointwise one: tiles would be nearly empty
    a window of one position               a plain read
    long rows of few programs              chunks, which programs share, and kernels that finish them
    a copy that moves nothing              none: the kernel before writes the result itself
    a copy of a product to its places      none either

What is between kernels is added to the call's buffers; what lies `inside` of a result has no memory of its
own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tilewright.compiler import chunks, row_chunks, slender
from tilewright.compiler.nest import Buffer, Kernel, Plan
from tilewright.compiler.placed import Places, placed, written_in_place
from tilewright.compiler.plain_reads import with_plain_reads
from tilewright.compiler.targets.triton.layouts import contiguous_strides, layout_of, normal_strides
from tilewright.compiler.targets.triton.schedule import (
    LONG_SUM,
    SMALLEST_GRID,
    Layout,
    ceiling,
    default_schedule,
    programs,
    rows_of_a_program,
    rows_side_by_side,
    total,
)
from tilewright.compiler.targets.triton.toolchain import Target
from tilewright.compiler.unmoved import unmoved
from tilewright.dsl.axes import base

MANY_PROGRAMS = SMALLEST_GRID // 4  # half of what keeps all of a large GPU busy
WORTH_A_LAUNCH = 1 << 16  # elements that a program alone walks in the time of a further launch, about


@dataclass
class Call:
    """What the operands of a call decide. `extents`, `shapes` and `strides` grow with what lies between."""

    plan: Plan
    extents: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    strides: dict[str, tuple[int, ...]]
    """In elements."""
    inside: Mapping[str, str] = field(default_factory=dict)
    """The intermediates that lie in memory as a result does, and these."""
    written: dict[str, str] = field(default_factory=dict)
    """The results that a kernel writes in place of what they would be copies of, and that."""
    between: list[Buffer] = field(default_factory=list)

    def kernels(self, target: Target) -> Iterator[Kernel]:
        """All kernels, in order."""
        for kernel in self.plan.kernels:
            if kernel.outputs[0].buffer.name in {*self.inside.values(), *self.written}:
                continue
            kernel = self._in_place(with_plain_reads(self._slender(kernel), self.extents))
            yield from self._in_chunks(kernel, target) or [kernel]

    def layout_of(self, kernel: Kernel) -> Layout:
        """How what a kernel reads and writes lies."""
        shapes = {name: self.shapes[name] for name in _names(kernel)}
        return layout_of(kernel, shapes, self.normal_strides(kernel), self.extents)

    def normal_strides(self, kernel: Kernel) -> dict[str, tuple[int, ...]]:
        """The strides of what a kernel reads and writes, in elements."""
        return {name: normal_strides(self.shapes[name], self.strides[name]) for name in _names(kernel)}

    def add(self, buffer: Buffer) -> None:
        """Memory between two kernels, in C order."""
        shape = tuple(self.extents[base(axis)] for axis in buffer.axes)
        self.between.append(buffer)
        self.shapes[buffer.name] = shape
        self.strides[buffer.name] = contiguous_strides(shape)

    def _slender(self, kernel: Kernel) -> Kernel:
        """A product as the row kernel or the pointwise one that it is, if its sum need not be split."""
        if kernel.contraction is None or not slender.is_slender(kernel.contraction, self.extents):
            return kernel
        summed, results = (total(axes, self.extents) for axes in (kernel.contraction.k, kernel.parallel))
        if summed >= LONG_SUM and results < SMALLEST_GRID:
            return kernel
        # Axes of one position are joined to their neighbours; the sum must not be one over nothing but such.
        return slender.as_row(kernel, [*kernel.parallel, *(kernel.contraction.k if summed > 1 else ())])

    def _in_place(self, kernel: Kernel) -> Kernel:
        """A product that writes a result at its places, instead of what a later kernel would copy there."""
        if kernel.contraction is None:
            return kernel
        names = {output.buffer.name for output in kernel.outputs} - {*self.inside}
        found = {name: places for name, places in self._placed.items() if name in names}
        self.written |= {places.buffer.name: name for name, places in found.items()}
        return written_in_place(kernel, found)

    @functools.cached_property
    def _placed(self) -> dict[str, Places]:
        return placed(self.plan, self.extents)

    def _in_chunks(self, kernel: Kernel, target: Target) -> tuple[Kernel, ...]:
        """What stands for a row kernel whose programs are few and long; nothing where it is as good alone."""
        extents = self.extents
        if not row_chunks.can_be_cut(kernel):
            return ()
        layout = self.layout_of(kernel)
        schedule = default_schedule(kernel, layout, extents, target)
        if programs(kernel, schedule, extents) >= MANY_PROGRAMS:
            return ()
        cut = row_chunks.in_chunks(kernel, f"#parts:{kernel.name}", extents)
        positions = total(kernel.row, extents)
        walks = len(kernel.phases) if schedule.looped else 1
        each = positions * rows_of_a_program(kernel, schedule, extents) * walks
        beside, _ = rows_side_by_side(cut.kernels[0], layout, kernel.parallel, extents)
        tiles = ceiling(total(kernel.parallel, extents), beside)
        parts = min(ceiling(SMALLEST_GRID, tiles), positions * beside // chunks.ELEMENTS_A_CHUNK)
        if parts < 2 or each < WORTH_A_LAUNCH * (len(cut.kernels) - 1):
            return ()
        extents[cut.axis] = parts
        for buffer in cut.between:
            self.add(buffer)
        return cut.kernels


def _names(kernel: Kernel) -> list[str]:
    """What a kernel reads and writes."""
    return [*(p.name for p in kernel.tiles), *(o.buffer.name for o in kernel.outputs)]


def inside_results(plan: Plan, extents: Mapping[str, int], elsewhere: Mapping[str, object]) -> dict[str, str]:
    """The intermediates that lie as the results do that are copies of them, but for results `elsewhere`."""
    return {name: result for name, result in unmoved(plan, extents).items() if result not in elsewhere}
