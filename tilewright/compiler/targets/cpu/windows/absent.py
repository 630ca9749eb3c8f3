"""Taps that a phase lacks: beyond them there is nothing, not even a zero.

Of a filter's taps 0, 1, 2 phase t of a stride of 2 has those at t + 2·u, which are two or one. A position
that every phase and tap has for itself, and that is outside of the operand, is no tap. What lies beside an
image is read by many windows: a zero that takes part, as 0 · ∞ is NaN there.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tilewright.compiler.contraction import factors
from tilewright.compiler.nest import Kernel, Phase, indexed_reads
from tilewright.compiler.targets.cpu.layout import Layout
from tilewright.dsl.axes import base
from tilewright.dsl.positions import everywhere
from tilewright.dsl.program import At, Cast, Node, Reduce


class Absent:
    """Which taps of which phases there are not. `few` are the axes of both, of known extents."""

    def __init__(self, kernel: Kernel, layout: Layout, few: frozenset[str]):
        reads = indexed_reads(kernel) if layout.windows.phases else ()
        self.outside = {node: _outside(node, layout, few) for node in reads}

    def holds(self, phase: Phase, at: Mapping[str, int]) -> bool:
        """Whether no sum of a loop has a term at this place, of which some coordinates may not be known."""
        return not phase.stores and all(self._has_none(reduction, at) for reduction in phase.reductions)

    def _has_none(self, reduction: Reduce, at: Mapping[str, int]) -> bool:
        parts = [_plain(factor) for factor in factors(reduction.arg)]
        found = [one for part in parts if isinstance(part, At) for one in self.outside.get(part, ())]
        here = [outside[tuple(at.get(axis, slice(None)) for axis in axes)] for axes, outside in found]
        return reduction.combine == "sum" and any(place.all() for place in here)


def _outside(node: At, layout: Layout, few: frozenset[str]) -> list[tuple[tuple[str, ...], np.ndarray]]:
    """Where a node is outside along axes that are read at places of their own by every phase and tap."""
    found = []
    for axis, position in zip(node.along, node.positions, strict=True):
        if not position.axes or not set(position.axes) <= few:
            continue
        places = everywhere(position, layout.windows.known)
        if places is not None and np.unique(places).size == places.size:
            found.append((position.axes, (places < 0) | (places >= layout.windows.known[base(axis)])))
    return found


def _plain(node: Node) -> Node:
    """A value without the casts around it."""
    while isinstance(node, Cast):
        node = node.arg
    return node
