"""Sums in two steps that a call has one chunk of: the second step does it all.

part[c] = Σ_{n in chunk c} x[n]       a row kernel, split
y       = Σ_c part[c] / size(n)       a row kernel

y       = Σ_n x[n] / size(n)          where c has one position
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tilewright.compiler.nest import Kernel, Plan
from tilewright.compiler.phases import write_phases
from tilewright.dsl.program import Node, Read, Reduce
from tilewright.dsl.program import replace as replace_nodes


def in_one_chunk(plan: Plan, extents: Mapping[str, int]) -> Plan:
    """The plan without the first steps of one chunk; itself if there are none."""
    kernels = list(plan.kernels)
    gone: set[str] = set()
    for first in plan.kernels:
        names = {output.buffer.name for output in first.outputs}
        readers = [kernel for kernel in kernels if names & {param.name for param in kernel.inputs}]
        if len(readers) != 1 or not _is_one_chunk(first, plan, extents):
            continue
        both = _both(first, readers[0])
        if both is not None:
            kernels[kernels.index(readers[0])] = both
            kernels.remove(first)
            gone |= names
    if not gone:
        return plan
    left = tuple(buffer for buffer in plan.intermediates if buffer.name not in gone)
    return replace(plan, kernels=tuple(kernels), intermediates=left)


def _is_one_chunk(kernel: Kernel, plan: Plan, extents: Mapping[str, int]) -> bool:
    """Whether a kernel makes nothing but the partial results of one chunk of its rows."""
    if kernel.kind != "row" or kernel.split is None or kernel.split.of != "row":
        return False
    if extents[kernel.split.axis] > 1 or kernel.starts:
        return False
    between = {buffer.name for buffer in plan.intermediates}
    return all(
        output.buffer.name in between
        and kernel.split.axis in output.buffer.axes
        and output.accumulate is None
        and isinstance(output.node, Reduce)
        and {*output.node.over} == {*kernel.row}
        for output in kernel.outputs
    )


def _both(first: Kernel, second: Kernel) -> Kernel | None:
    """The second step, computing what it reads of the first; None if it does anything else with that."""
    assert first.split is not None
    axis = first.split.axis
    parts = {Read(o.buffer.name, o.buffer.axes, o.buffer.dtype): o.node for o in first.outputs}
    if second.kind != "row" or second.row != (axis,) or second.split or {*second.parallel} & {*first.row}:
        return None
    table: dict[Node, Node] = {}
    for node in second.nodes():
        if isinstance(node, Reduce) and node.over == (axis,) and node.arg in parts:
            table[node] = parts[node.arg]
    outputs = [replace(output, node=replace_nodes(output.node, table)) for output in second.outputs]
    if any(output.accumulate or output.places or axis in output.axes for output in outputs):
        return None
    params = {param.name: param for param in (*first.inputs, *second.inputs)}
    both = replace(
        second,
        row=first.row,
        outputs=tuple(outputs),
        phases=write_phases(outputs, first.row),
        single=(*first.single, *second.single),
    )
    if any(axis in node.axes for node in both.nodes()):
        return None
    names = dict.fromkeys(node.param for node in both.nodes() if isinstance(node, Read))
    return replace(both, inputs=tuple(params[name] for name in names))
