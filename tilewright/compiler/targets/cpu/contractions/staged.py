"""Operands of windows, copied into the order in which a contraction sums them.

    y[n, o, h, w] = Σ_rsc k[o, r, s, c] · x[n, c, h + r, w + s]        x lies along w

Rows of windows are read where they lie, with nothing packed, if their operand is contiguous along the last
summed axis (`direct`). Where it is not, and its lines are short, vectors are packed from pieces of several
lines, for every tap again. A copy of the operand, contiguous along c, costs less: the contraction reads that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tilewright.compiler.nest import Buffer, Contraction, Kernel, Output, indexed_reads
from tilewright.compiler.phases import write_phases
from tilewright.compiler.targets.cpu.layout import LEAST, LONG, WIDEST
from tilewright.compiler.targets.cpu.spelling import memory_kind, value_type
from tilewright.dsl.axes import base
from tilewright.dsl.program import At, Node, Param, Read

DEAR = 2  # to copy an element, or to store one across the lanes, against packing one from two pieces


@dataclass(frozen=True)
class Staged:
    """An operand and the order of its dimensions in the copy."""

    param: Param
    order: tuple[int, ...]

    @property
    def buffer(self) -> Buffer:
        axes = tuple(self.param.axes[dimension] for dimension in self.order)
        return Buffer(f"{self.param.name} along {axes[-1]}", axes, self.param.dtype)

    def kernel(self, of: str) -> Kernel:
        """The kernel that makes the copy."""
        value = Read(self.param.name, self.param.axes, self.param.dtype)
        outputs = (Output(self.buffer, value),)
        phases = write_phases(list(outputs), ())
        return Kernel(f"{of}_{self.param.name}", self.buffer.axes, (), outputs, phases, inputs=(self.param,))


def staged(
    kernel: Kernel, strides: Mapping[str, Sequence[int]], extents: Mapping[str, int]
) -> tuple[Staged, ...]:
    """The operands of a contraction that are worth copies: that of windows, and then that of the other side,
    which vectors run along instead, if its positions along them lie apart and are windows too.
    """
    contraction = kernel.contraction
    if contraction is None:
        return ()
    sides = (contraction.left, contraction.m), (contraction.right, contraction.n)
    for (node, own), (other, others) in (sides, sides[::-1]):
        if not _is_plain(kernel, node, contraction):
            continue
        assert isinstance(node, At)
        axis = _long_axis(node, contraction.k, extents)
        if axis is None or not _pays(node, own, others, contraction, extents):
            continue
        found = _along(kernel, node, axis, strides)
        if found and _is_plain(kernel, other, contraction):
            assert isinstance(other, At)
            lanes = _long_axis(other, others, extents)
            return (*found, *(_along(kernel, other, lanes, strides) if lanes else ()))
        if found:
            return found
    return ()


def _along(kernel: Kernel, node: At, axis: str, strides: Mapping[str, Sequence[int]]) -> tuple[Staged, ...]:
    """A copy that lies along the axis, if the operand does not."""
    assert isinstance(node.arg, Read)
    name, place = node.arg.param, node.arg.names.index(axis)
    param = next(p for p in kernel.tiles if p.name == name)
    if strides[name][place] == param.dtype.itemsize:
        return ()
    return (Staged(param, (*(d for d in range(len(param.axes)) if d != place), place)),)


def _is_plain(kernel: Kernel, node: Node, contraction: Contraction) -> bool:
    """Whether a side is an operand of the sum's own type, read at computed positions and nowhere else."""
    if not isinstance(node, At) or not isinstance(node.arg, Read):
        return False
    name, dtype = node.arg.param, node.dtype
    once = [n for n in kernel.nodes() if isinstance(n, Read) and n.param == name] == [node.arg]
    alone = [n for n in indexed_reads(kernel) if n.arg == node.arg] == [node]
    return once and alone and dtype == contraction.root.dtype and memory_kind(dtype) == value_type(dtype).kind


def _long_axis(node: At, axes: Sequence[str], extents: Mapping[str, int]) -> str | None:
    """The longest of these axes that windows do not slide along, if it is long."""
    slides = {axis for position in node.positions for axis in position.axes}
    plain = [a for a in axes if a in node.arg.axes and a not in slides and a not in node.along]
    longest = max(plain, key=lambda axis: extents[base(axis)], default=None)
    return longest if longest and extents[base(longest)] >= LEAST[LONG] else None


def _pays(
    node: At,
    own: Sequence[str],
    others: Sequence[str],
    contraction: Contraction,
    extents: Mapping[str, int],
) -> bool:
    """Whether a copy, and results that may be stored across the lanes, cost less than to pack windows.

    That costs as much as the square of the ends of lines in a vector: its pieces, each read under a mask.
    """

    def count(axes: Sequence[str]) -> int:
        return math.prod(extents[base(axis)] for axis in axes)

    line = next((extents[base(axis)] for axis in reversed(own) if extents[base(axis)] > 1), 1)
    ends = (WIDEST - 1) / line
    packed = count((*own, *contraction.k)) * ends**2
    return packed >= DEAR * (count(node.arg.axes) + count((*own, *others)))
