"""Operands that lie across the rows they are reduced with, copied along them.

    y[n, h, w] = Σ_rsc x[n, h + r, w + s, c] · k[c, r, s]      x lies along c, k along s

Vectors run along c, where most elements lie side by side: of k each lane would be picked on its own, for
every result again. A copy that lies along c is made once, of operands that are read many times. So it is
where each channel has results of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tilewright.compiler.nest import Kernel, indexed_reads, reads_of
from tilewright.compiler.targets.cpu.contractions.staged import Staged
from tilewright.compiler.targets.cpu.lengths import LEAST, SHORT
from tilewright.dsl.axes import base
from tilewright.dsl.program import Read

REPEATED = 16  # how often each element is read at least, so that a copy pays
FEWEST = 32768  # that are read in all: a kernel more costs as much as so many lanes that are picked


def along_rows(
    kernel: Kernel, strides: Mapping[str, Sequence[int]], extents: Mapping[str, int]
) -> tuple[Staged, ...]:
    """The operands of a row kernel that are worth copies."""
    axis = _lane_axis(kernel, strides, extents) if kernel.kind == "row" and not kernel.split else None
    if axis is None:
        return ()
    params = {param.name: param for param in kernel.tiles}
    positions = math.prod(extents[base(a)] for a in (*kernel.parallel, *kernel.row))
    if positions < FEWEST:
        return ()
    found = []
    for read in dict.fromkeys(reads_of(kernel)):
        if axis not in read.names or len(set(read.names)) < len(read.names) or not read.dtype.is_float:
            continue
        place, param = read.names.index(axis), params[read.param]
        lies_across = strides[param.name][place] not in (0, param.dtype.itemsize)
        if lies_across and positions >= REPEATED * math.prod(extents[base(a)] for a in read.names):
            order = (*(d for d in range(len(param.axes)) if d != place), place)
            found.append(Staged(param, order))
    return tuple(found)


def _lane_axis(
    kernel: Kernel, strides: Mapping[str, Sequence[int]], extents: Mapping[str, int]
) -> str | None:
    """The axis along which the largest operand lies, if that is no tiny one and read as it is: one of the
    row, or that of the channels of windows, along which the results lie too.
    """
    moving = [a for a in kernel.outputs[0].buffer.axes if extents[base(a)] > 1]
    lanes = {*kernel.row, *(moving[-1:] if indexed_reads(kernel) else ())}
    indexed = [(n.arg, n.along) for n in indexed_reads(kernel) if isinstance(n.arg, Read)]
    reads = [*((read, ()) for read in reads_of(kernel)), *indexed]
    reads = [(read, computed) for read, computed in reads if read.names]  # scalars lie nowhere
    sizes = [math.prod(extents[base(a)] for a in read.names) for read, _ in reads]
    for size, (read, computed) in zip(sizes, reads, strict=True):
        if size < max(sizes):
            continue
        for axis, stride in zip(read.names, strides[read.param], strict=True):
            plain = axis in lanes and axis not in computed
            if plain and extents[base(axis)] >= LEAST[SHORT] and stride == read.dtype.itemsize:
                return axis
    return None
