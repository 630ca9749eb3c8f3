"""Long sums of few results, computed in parts so that all of a device works on them.

    y[m, n] = f(Σ_k left · right)                               a few tiles, each a long loop
        ↓
    sums[part, m, n] = Σ_{k of the part} left · right           a contraction of as many programs more
    y[m, n] = f(Σ_part sums[part, m, n])                        a row kernel, with what follows the sum

The second step adds the parts up in their order: no atomics, equal bits from run to run. Which kernels are
split, and into how many parts, is for the schedule to say, from the extents of the call alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tilewright.compiler.nest import ACCUMULATOR, Buffer, Kernel, Output, Split
from tilewright.compiler.phases import write_phases
from tilewright.dsl.program import Param, Read, Reduce, topological
from tilewright.dsl.program import replace as replace_nodes

SUM = "sum"
"""What the chunks of such a `Split` are of."""


@dataclass(frozen=True)
class InParts:
    """Both steps, and the buffer between them, whose first axis counts the parts."""

    sums: Kernel
    finish: Kernel
    buffer: Buffer

    @property
    def axis(self) -> str:
        return self.buffer.axes[0]


def in_parts(kernel: Kernel) -> InParts:
    """A contraction as two kernels."""
    contraction = kernel.contraction
    assert contraction is not None
    root = contraction.root
    axis = "#parts:" + ",".join(contraction.k)
    buffer = Buffer(f"{kernel.name}_sums", (axis, *root.axes), root.dtype)
    accumulator = Read(ACCUMULATOR, root.axes, root.dtype)
    sums = replace(
        kernel, name=f"{kernel.name}_in_parts", outputs=(Output(buffer, accumulator),), split=Split(axis, SUM)
    )
    whole = Reduce("sum", (axis,), Read(buffer.name, buffer.axes, buffer.dtype))
    outputs = [
        replace(output, node=replace_nodes(output.node, {accumulator: whole})) for output in kernel.outputs
    ]
    phases = write_phases(outputs, (axis,))
    finish = replace(kernel, row=(axis,), outputs=tuple(outputs), phases=phases, contraction=None)
    inputs = (*kernel.inputs, Param(buffer.name, buffer.axes, buffer.dtype))
    return InParts(_with_inputs(sums, inputs), _with_inputs(finish, inputs), buffer)


def _with_inputs(kernel: Kernel, inputs: tuple[Param, ...]) -> Kernel:
    """The kernel with those operands that it reads."""
    read = {node.param for node in topological(kernel.leading) if isinstance(node, Read)}
    return replace(kernel, inputs=tuple(param for param in inputs if param.name in read))
