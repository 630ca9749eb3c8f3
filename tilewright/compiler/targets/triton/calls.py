"""The kernels of a call: a Plan's, in the form that suits the extents and strides of its operands.

    a product with a vector, or of two     a row kernel, or a pointwise one: tiles would be nearly empty
    a window of one position               a plain read
    few rows of many positions             chunks, which programs share, and kernels that finish them
    a copy that moves nothing              none: the kernel before writes the result itself

What is between kernels is added to the call's buffers; what lies `inside` of a result has no memory of its
own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tilewright.compiler import long_rows, slender
from tilewright.compiler.chunks import chunk_extent
from tilewright.compiler.nest import Buffer, Kernel, Plan
from tilewright.compiler.plain_reads import with_plain_reads
from tilewright.compiler.targets.triton.schedule import LONG_SUM, SMALLEST_GRID
from tilewright.compiler.unmoved import unmoved
from tilewright.dsl.axes import base

LONGEST_ALONE = 1 << 17  # positions of a row: one program takes longer than further launches for a longer one
FEW_ROWS = SMALLEST_GRID // 4  # that leave half of a large GPU idle


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
    between: list[Buffer] = field(default_factory=list)

    def kernels(self) -> Iterator[Kernel]:
        """All kernels, in order."""
        for kernel in self.plan.kernels:
            if kernel.outputs[0].buffer.name in self.inside.values():
                continue
            kernel = with_plain_reads(self._slender(kernel), self.extents)
            cut = long_rows.cut(kernel, self._byte_strides(kernel), self.extents, LONGEST_ALONE, FEW_ROWS)
            if cut is None:
                yield kernel
                continue
            self.extents[cut.axis] = chunk_extent(cut.axis, self.extents, SMALLEST_GRID, SMALLEST_GRID)
            for buffer in cut.between:
                self.add(buffer)
            yield from cut.kernels

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
        summed = math.prod(self.extents[base(axis)] for axis in kernel.contraction.k)
        results = math.prod(self.extents[base(axis)] for axis in kernel.parallel)
        if summed >= LONG_SUM and results < SMALLEST_GRID:
            return kernel
        # Axes of one position are joined to their neighbours; the sum must not be one over nothing but such.
        return slender.as_row(kernel, [*kernel.parallel, *(kernel.contraction.k if summed > 1 else ())])

    def _byte_strides(self, kernel: Kernel) -> dict[str, list[int]]:
        sizes = {param.name: param.dtype.numpy.itemsize for param in kernel.tiles}
        return {name: [step * size for step in self.strides[name]] for name, size in sizes.items()}


def inside_results(plan: Plan, extents: Mapping[str, int], elsewhere: Mapping[str, object]) -> dict[str, str]:
    """The intermediates that lie as the results do that are copies of them, but for results `elsewhere`."""
    return {name: result for name, result in unmoved(plan, extents).items() if result not in elsewhere}


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(step)
        step *= max(1, extent)
    return tuple(reversed(strides))
