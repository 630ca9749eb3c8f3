"""Windows of a few taps: every tap is written out, and masks are for the borders alone.

    for strips of some positions of one axis:                  (rows of an image)
        strip inside?   no position of a window is outside, whatever the lane
        for vectors of the lane axis:
            inside?     none is outside: whole vectors, no masks
            else:       masks of the lanes that are inside; of a strip inside, the same for all its positions
            for each tap: for each position of the strip:      evaluate, accumulate, in registers
            finish, store

Positions of a strip share what they read, and all loads of a tile are in one stretch of code, so that each is
made once. The order of every sum is that of its taps. What is certain inside of a tile is told in `claims`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from tilewright.compiler.nest import Kernel, Phase, indexed_reads
from tilewright.compiler.targets.cpu.builder import I64, Builder, Value
from tilewright.compiler.targets.cpu.layout import Layout, sliding_axes
from tilewright.compiler.targets.cpu.rows.folds import Totals
from tilewright.compiler.targets.cpu.rows.loops import Carried, RowLoops, loop_roots
from tilewright.compiler.targets.cpu.schedule import Schedule
from tilewright.compiler.targets.cpu.scope import Coordinate, Lanes, Scope
from tilewright.compiler.targets.cpu.windows.claims import claims, hold, where_certain
from tilewright.dsl.affine import affine
from tilewright.dsl.axes import base
from tilewright.dsl.program import Node

STRIPS_AHEAD = 1  # that are asked for


def slides(kernel: Kernel, layout: Layout, schedule: Schedule) -> bool:
    """Whether a kernel is of this kind: reductions over a few taps, whose vectors run along another axis."""
    across = schedule.lane_axis in kernel.parallel
    return kernel.kind == "row" and across and {base(a) for a in kernel.row} <= set(layout.taps)


def strip_axis(kernel: Kernel, schedule: Schedule) -> str | None:
    """The last axis along which windows slide that vectors do not run along."""
    return next((a for a in reversed(sliding_axes(kernel)) if a != schedule.lane_axis), None)


def strip_length(kernel: Kernel, layout: Layout, schedule: Schedule) -> int:
    """How many positions of the strip's axis are worked on together."""
    axis = strip_axis(kernel, schedule)
    return layout.strips[base(axis)] if axis else 1


def work_items(kernel: Kernel, layout: Layout, schedule: Schedule, extents: Mapping[str, int]) -> int:
    """Strips of all other positions."""
    axis, length = strip_axis(kernel, schedule), strip_length(kernel, layout, schedule)
    others = (a for a in kernel.parallel if a != schedule.lane_axis)
    return math.prod(-(-extents[base(a)] // (length if a == axis else 1)) for a in others)


class WindowTiles(RowLoops):
    """Writes the body of a kernel of windows."""

    def __init__(self, b: Builder, kernel: Kernel, schedule: Schedule, scope: Scope, workspace: Value):
        super().__init__(b, kernel, schedule, scope, workspace)
        assert schedule.lane_axis is not None
        self.lane, self.lanes = schedule.lane_axis, schedule.lanes
        self.axis = strip_axis(kernel, schedule)
        self.length = strip_length(kernel, scope.layout, schedule)
        self.taps = {axis: scope.layout.taps[base(axis)] for axis in kernel.row}
        strip = frozenset({*kernel.row, self.axis or ""})
        asked = claims(kernel, scope.layout, strip | {self.lane})
        self.of_strips = tuple(c for c in asked if self.lane not in c.value.axes)
        self.of_vectors = tuple(c for c in asked if self.lane in c.value.axes)

    def item(self, index: Value) -> None:
        b = self.b
        others = [a for a in self.kernel.parallel if a != self.lane]
        if self.axis is None:
            self._strip(self.top.child(self._decode(index, others)), None, 1)
            return
        extent = self.top.extent(self.axis)
        strips = b.div(b.add(extent, self.length - 1), b.constant(self.length, I64), signed=False)
        scope = self.top.child(
            self._decode(b.div(index, strips, signed=False), [a for a in others if a != self.axis])
        )
        first = b.mul(b.rem(index, strips, signed=False), self.length)
        with b.if_(b.cmp("le", b.add(first, self.length), extent)) as choice:
            self._strip(scope, first, self.length)
            choice.otherwise()
            if self.length > 1:
                with b.loop(first, extent) as rest:
                    self._strip(scope, rest.index, 1)

    def _strip(self, scope: Scope, first: Value | None, length: int) -> None:
        """Some positions of the strip's axis, whole vectors of the lane axis and what is left."""
        b = self.b
        inside = hold(b, scope, self.of_strips, self._ends(first, length))
        with b.if_(inside) as choice:
            sure = where_certain(b, scope, self.of_strips)
            self._vectors(sure, first, length)
            choice.otherwise()
            self._vectors(scope, first, length)

    def _vectors(self, scope: Scope, first: Value | None, length: int) -> None:
        b, extent = self.b, self.top.extent(self.lane)
        scope = replace(scope, straight=True, values=dict(scope.values))
        scope.hoist(self._roots(), frozenset((*self.kernel.row, self.lane, self.axis or "")))
        around = self._ends(first, length)
        with b.loop(0, extent, self.lanes) as loop:
            ends = around | {self.lane: (loop.index, b.add(loop.index, self.lanes - 1))}
            whole = b.cmp("le", b.add(loop.index, self.lanes), extent)
            inside = b.and_(whole, hold(b, scope, self.of_vectors, ends))
            with b.if_(inside) as choice:
                self._tile(where_certain(b, scope, self.of_vectors), first, length, Lanes(loop.index), None)
                choice.otherwise()
                mask = b.first_lanes(b.sub(extent, loop.index), self.lanes)
                self._tile(scope, first, length, Lanes(loop.index), mask)

    def _tile(self, scope: Scope, first: Value | None, length: int, lanes: Lanes, mask: Value | None) -> None:
        """A vector for each position of the strip's axis: all phases."""
        here: list[dict[str, Coordinate]] = [{self.lane: lanes}]
        if first is not None:
            here = [{self.lane: lanes, self.axis or "": self.b.add(first, n)} for n in range(length)]
        scopes = [scope.child(coordinates, mask) for coordinates in here]
        if first is not None and length > 1:
            self._ask_ahead(scope.child({self.lane: lanes}), first)
        for phase in self.kernel.phases:
            self._phase_across(scopes, phase)

    def _ask_ahead(self, scope: Scope, first: Value) -> None:
        """Ask for what a strip further on will read that the strips before it have not: tiles jump from line
        to line, which no machine foresees.
        """
        b, axis = self.b, self.axis or ""
        last = {tap: b.constant(count - 1, I64) for tap, count in self.taps.items()}
        for node in dict.fromkeys(indexed_reads(self.kernel)):
            steps = [(a, affine(p).step(axis)) for a, p in zip(node.along, node.positions, strict=True)]
            moving = [(a, abs(step)) for a, step in steps if step]
            if len(moving) != 1:
                continue
            along, step = moving[0]
            for n in range(self.length):
                there = b.add(first, STRIPS_AHEAD * self.length + n)
                place = scope.child({**last, axis: there})
                for back in range(step):
                    place.ask_for(node, along, -back)

    def _scalar_rows(
        self, axes: list[str], scopes: list[Scope], carried: Carried, phase: Phase, totals: Totals
    ) -> Carried:
        """The taps along the first axis one after the other, written out."""
        if not axes:
            return super()._scalar_rows(axes, scopes, carried, phase, totals)
        for tap in range(self.taps[axes[0]]):
            inner = [scope.child({axes[0]: self.b.constant(tap, I64)}) for scope in scopes]
            carried = self._scalar_rows(axes[1:], inner, carried, phase, totals)
        return carried

    # --- what is certain --------------------------------------------------------------------------

    def _ends(self, first: Value | None, length: int) -> dict[str, tuple[Value, Value]]:
        """The first and the last position along each axis that a strip moves along."""
        b = self.b
        ends = {axis: (b.constant(0, I64), b.constant(count - 1, I64)) for axis, count in self.taps.items()}
        if first is not None and self.axis is not None:
            ends[self.axis] = first, b.add(first, length - 1)
        return ends

    def _roots(self) -> list[Node]:
        return [root for phase in self.kernel.phases for root in loop_roots(phase)]
