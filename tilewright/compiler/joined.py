"""Axes that lie in memory as one are walked as one.

    Σ_ab x(a, b)        x contiguous:     the row b of extent(a) · extent(b) positions; a has one
    Σ_b x(a, b, c, d)   c, d contiguous:  rows beside each other along d, as many as c and d have together

A last axis of three positions would otherwise end a loop after three elements. Neighbouring axes of a kernel
are joined where every operand and result that has one of them has the other behind it, and steps from the end
of the inner one to the next position of the outer one; the strides of the call decide. What is left of the
outer axis has one position and no loop; sizes stay what they were, under names of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from tilewright.compiler.nest import ACCUMULATOR, Kernel, indexed_reads
from tilewright.compiler.phases import write_phases
from tilewright.dsl.axes import base
from tilewright.dsl.program import Index, Node, Read, Size
from tilewright.dsl.program import replace as replace_nodes

KINDS = ("pointwise", "row", "scan")

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Call:
    """A kernel as a call runs it: the shapes and strides of what it reads and writes, and its extents."""

    kernel: Kernel
    shapes: Shapes
    strides: Shapes
    extents: Mapping[str, int]


def joined(call: Call) -> Call:
    """The call with as few axes as its operands allow."""
    kernel = call.kernel
    contraction = kernel.contraction
    if kernel.kind not in KINDS and not contraction:
        return call
    groups = (kernel.parallel, kernel.row)
    if contraction:
        groups = (contraction.batch, contraction.m, contraction.n, contraction.k)
    pairs = [pair for axes in groups for pair in pairwise(axes)]
    fixed = _fixed_axes(kernel)
    for outer, inner in pairs:
        if not {outer, inner} & fixed and _lie_as_one(call, outer, inner):
            call = _join(call, outer, inner)
    return call


def _fixed_axes(kernel: Kernel) -> set[str]:
    """The axes whose positions are asked for (or sizes, in a contraction), or that stand for others too."""
    asked = (Index, Size) if kernel.contraction else (Index,)
    fixed = {node.axis for node in kernel.nodes() if isinstance(node, asked)}
    for node in indexed_reads(kernel):
        fixed |= {*node.axes, *node.arg.axes}
    if kernel.split:
        fixed.add(kernel.split.axis)
    bases: dict[str, set[str]] = {}
    for node in kernel.nodes():
        for axis in node.axes:
            bases.setdefault(base(axis), set()).add(axis)
    return fixed | {axis for found in bases.values() if len(found) > 1 for axis in found}


def _operands(kernel: Kernel) -> list[tuple[str, tuple[str, ...]]]:
    """What is read and written, with which axes."""
    nodes = (n for n in kernel.nodes() if isinstance(n, Read) and n.param != ACCUMULATOR)
    reads = {(n.param, n.names) for n in nodes if n.names}
    return [*reads, *((o.buffer.name, o.buffer.axes) for o in kernel.outputs)]


def _lie_as_one(call: Call, outer: str, inner: str) -> bool:
    """Whether everything steps from the last position of `inner` to the next one of `outer`."""
    places: dict[str, tuple[str, ...]] = {}
    for name, axes in _operands(call.kernel):
        if places.setdefault(name, axes) != axes or len(set(axes)) != len(axes):
            return False
        if outer not in axes and inner not in axes:
            continue
        if (outer, inner) not in pairwise(axes):
            return False
        at = axes.index(outer)
        steps = call.strides[name]
        if steps[at] != steps[at + 1] * call.extents[base(inner)]:
            return False
    return True


def _join(call: Call, outer: str, inner: str) -> Call:
    kernel, extents = call.kernel, dict(call.extents)
    sizes: dict[Node, Node] = {}
    for node in kernel.nodes():
        if isinstance(node, Size) and base(node.axis) in (base(outer), base(inner)):
            sizes[node] = Size(f"size of {base(node.axis)}")
            extents[f"size of {base(node.axis)}"] = extents[base(node.axis)]
    extents[base(outer)], extents[base(inner)] = 1, extents[base(outer)] * extents[base(inner)]
    shapes, strides = dict(call.shapes), dict(call.strides)
    for name, axes in _operands(kernel):
        if outer in axes:
            at = axes.index(outer)
            last, step = extents[base(inner)], strides[name][at + 1]
            shapes[name] = (*shapes[name][:at], 1, last, *shapes[name][at + 2 :])
            strides[name] = (*strides[name][:at], last * step, step, *strides[name][at + 2 :])
    kernel = kernel if kernel.contraction else _without_loop(kernel, outer, sizes)
    return Call(kernel, shapes, strides, extents)


def _without_loop(kernel: Kernel, axis: str, sizes: Mapping[Node, Node]) -> Kernel:
    outputs = [replace(output, node=replace_nodes(output.node, sizes)) for output in kernel.outputs]
    row = _without(kernel.row, axis)
    return replace(
        kernel,
        parallel=_without(kernel.parallel, axis),
        row=row,
        outputs=tuple(outputs),
        phases=write_phases(outputs, row),
        single=(*kernel.single, axis),
    )


def _without(axes: Sequence[str], axis: str) -> tuple[str, ...]:
    return tuple(a for a in axes if a != axis)
