"""The parameters of a generated kernel: which there are, their types, and their values for a launch.

A kernel takes only what its text uses: pointers, extents of axes, strides in elements (those of one or zero
elements are in the text), scalars, and the length of a chunk; block sizes are constexprs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.compiler.nest import Kernel
from tilewright.compiler.targets.triton.schedule import Layout, Schedule, chunk_length
from tilewright.compiler.targets.triton.spelling import POINTERS, SCALARS_BY_VALUE
from tilewright.compiler.targets.triton.writer import Names, axis_name
from tilewright.dsl.axes import base
from tilewright.dsl.dtypes import DType

POINTER, SIZE, STRIDE, CHUNK, SCALAR = "pointer", "size", "stride", "chunk", "scalar"
_ORDER = (POINTER, SIZE, STRIDE, CHUNK, SCALAR)


@dataclass(frozen=True)
class Parameter:
    """One run-time parameter. `of` is the operand, axis or scalar that it belongs to."""

    name: str
    kind: str
    of: str
    type: str
    dimension: int = -1


class Parameters:
    """Collects a kernel's parameters while its text is written."""

    def __init__(self, kernel: Kernel, layout: Layout, names: Names):
        self.layout = layout
        self.names = names
        self.integer = "i64" if layout.wide else "i32"
        self.dtypes: dict[str, DType] = {p.name: p.dtype for p in kernel.inputs}
        self.axes: dict[str, tuple[str, ...]] = {p.name: p.axes for p in kernel.inputs}
        for output in kernel.outputs:
            self.dtypes[output.buffer.name] = output.buffer.dtype
            self.axes[output.buffer.name] = output.buffer.axes
        self.blocks: dict[str, int] = {}
        self._found: dict[tuple, Parameter] = {}
        # Names that a reader looks for first: operands keep theirs.
        for name in (*(p.name for p in kernel.tiles), *(o.buffer.name for o in kernel.outputs)):
            self.pointer(name)
        for param in kernel.scalars:
            self.scalar(param.name)

    def _parameter(self, kind: str, of: str, wish: str, type: str, dimension: int = -1) -> str:
        key = (kind, of, dimension)
        if key not in self._found:
            self._found[key] = Parameter(self.names.fresh(wish), kind, of, type, dimension)
        return self._found[key].name

    def pointer(self, operand: str) -> str:
        return self._parameter(POINTER, operand, f"{operand}_ptr", POINTERS[self.dtypes[operand].short])

    def size(self, axis: str) -> str:
        axis = base(axis)
        return self._parameter(SIZE, axis, f"size_{axis_name(axis)}", self.integer)

    def stride(self, operand: str, dimension: int) -> str:
        wish = f"stride_{operand}_{axis_name(self.axes[operand][dimension])}"
        return self._parameter(STRIDE, operand, wish, self.integer, dimension)

    def scalar(self, name: str) -> str:
        return self._parameter(SCALAR, name, name, SCALARS_BY_VALUE[self.dtypes[name].short])

    def chunk(self) -> str:
        return self._parameter(CHUNK, "", "chunk", self.integer)

    def block(self, wish: str, size: int) -> str:
        """A constexpr block size."""
        name = self.names.fresh(wish)
        self.blocks[name] = size
        return name

    def ordered(self) -> tuple[Parameter, ...]:
        return tuple(p for kind in _ORDER for p in self._found.values() if p.kind == kind)


def integer_value(
    parameter: Parameter, kernel: Kernel, schedule: Schedule, extents: Mapping[str, int],
    strides: Mapping[str, tuple[int, ...]],
) -> int | None:  # fmt: skip
    """The value of a parameter that extents and strides (in elements) decide, else None."""
    if parameter.kind == SIZE:
        return extents[parameter.of]
    if parameter.kind == STRIDE:
        return strides[parameter.of][parameter.dimension]
    if parameter.kind == CHUNK:
        return chunk_length(kernel, schedule, extents)
    return None
