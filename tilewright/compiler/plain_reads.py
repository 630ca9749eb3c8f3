"""Windows of one position: operands that seem to be read at computed positions are read as they lie.

    x.at(h=i + r, w=j + s) · k(r, s)        x(i, j) · k     where r has one position, and i as many as h, …

A convolution of 1×1 is a product of matrices. Which form a call takes is decided by its extents.
"""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.compiler.nest import Kernel, indexed_reads
from tilewright.compiler.phases import with_nodes
from tilewright.dsl.affine import affine
from tilewright.dsl.axes import base
from tilewright.dsl.program import At, Index, Node, Read, Size


def with_plain_reads(kernel: Kernel, extents: Mapping[str, int]) -> Kernel:
    """A contraction with plain reads in the place of windows of one position."""
    if kernel.contraction is None:
        return kernel
    table: dict[Node, Node] = {}
    for node in indexed_reads(kernel):
        names = _names(node, extents)
        if names is not None and isinstance(node.arg, Read):
            table[node] = Read(node.arg.param, names, node.dtype)
    return with_nodes(kernel, table) if table else kernel


def _names(node: At, extents: Mapping[str, int]) -> tuple[str, ...] | None:
    """The axes along which an operand is walked from its first position to its last, if that is all."""
    if not isinstance(node.arg, Read):
        return None
    positions = dict(zip(node.along, node.positions, strict=True))
    names = []
    for axis in node.arg.names:
        name = _walked(positions[axis], extents) if axis in positions else axis
        if name is None or extents[base(name)] != extents[base(axis)]:
            return None
        names.append(name)
    return tuple(names) if len(set(names)) == len(names) else None


def _walked(position: Node, extents: Mapping[str, int]) -> str | None:
    """The axis whose index a position is."""
    form = affine(position)
    start = form.constant
    moving = []
    for term, factor in form.terms.items():
        if isinstance(term, Size):
            start += factor * extents[base(term.axis)]
        elif not isinstance(term, Index):
            return None
        elif extents[base(term.axis)] > 1:
            moving.append((term.axis, factor))
    return moving[0][0] if not start and len(moving) == 1 and moving[0][1] == 1 else None
