"""Sums over images for a few taps, such as the gradient of a filter: all of them in one pass.

for the row axes but the inner one:
    for vectors of the inner axis, or some of its positions:    no masks where nothing is outside (`claims`)
        read what is the same for all taps
        for each tap: evaluate, accumulate                      every tap has sums of its own, in registers
for each tap: finish, across the lanes where they run along the inner axis; store

Where vectors run along channels, which are no row, each has a pass of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

from tilewright.compiler.nest import Kernel
from tilewright.compiler.targets.cpu.builder import I64, Builder, Value
from tilewright.compiler.targets.cpu.claims import claims, hold, where_certain
from tilewright.compiler.targets.cpu.coordinates import Coordinate, Lanes
from tilewright.compiler.targets.cpu.layout import Layout
from tilewright.compiler.targets.cpu.rows.folds import Totals
from tilewright.compiler.targets.cpu.rows.loops import Carried, RowLoops, loop_roots, shared_out
from tilewright.compiler.targets.cpu.schedule import Schedule
from tilewright.compiler.targets.cpu.scope import Scope
from tilewright.compiler.targets.cpu.windows.slides import sliding_axes
from tilewright.dsl.axes import base

POSITIONS = 4  # of the inner axis a step, where vectors run along another one


def sums_by_tap(kernel: Kernel, layout: Layout, schedule: Schedule) -> bool:
    """Whether a kernel is of this kind: the taps are parallel axes, and vectors run along its long row, or
    along an axis that no window slides along.
    """
    taps = {a for a in kernel.parallel if base(a) in layout.windows.taps}
    long = not {base(a) for a in kernel.row} <= set(layout.windows.taps)
    beside = schedule.lane_axis not in {*sliding_axes(kernel), None}
    return kernel.kind == "row" and bool(taps) and long and beside


def work_items(kernel: Kernel, layout: Layout, schedule: Schedule, extents: Mapping[str, int]) -> int:
    """All positions of the parallel axes that are no taps; vectors, of the lane axis."""
    others = [a for a in kernel.parallel if base(a) not in layout.windows.taps]
    widths = {schedule.lane_axis: schedule.lanes}
    return math.prod(-(-extents[base(a)] // widths.get(a, 1)) for a in others)


class TapSums(RowLoops):
    """Writes the body of a kernel of such sums."""

    def __init__(self, b: Builder, kernel: Kernel, schedule: Schedule, scope: Scope, workspace: Value):
        super().__init__(b, kernel, schedule, scope, workspace)
        assert schedule.lane_axis is not None
        self.lane, self.lanes = schedule.lane_axis, schedule.lanes
        self.inner = self.lane if self.lane_in_row else kernel.row[-1]
        self.outer = [axis for axis in kernel.row if axis != self.inner]
        (self.phase,) = kernel.phases
        self.roots = loop_roots(self.phase)
        self.totals = Totals(b, self.phase.reductions, self.lanes)
        taps = scope.layout.windows.taps
        self.taps = {a: taps[base(a)] for a in kernel.parallel if base(a) in taps}
        places = product(*(range(count) for count in self.taps.values()))
        self.places: list[dict[str, Coordinate]] = [
            {axis: b.constant(at, I64) for axis, at in zip(self.taps, place, strict=True)} for place in places
        ]
        self.ends = {a: (b.constant(0, I64), b.constant(count - 1, I64)) for a, count in self.taps.items()}
        asked = claims(kernel, scope.layout, frozenset({*self.taps, self.inner}))
        self.of_rows = tuple(c for c in asked if self.inner not in c.value.axes)
        self.of_steps = tuple(c for c in asked if self.inner in c.value.axes)

    def item(self, index: Value) -> None:
        b = self.b
        others = [a for a in self.kernel.parallel if a not in self.taps and a != self.lane]
        if self.lane_in_row:
            self._sums(self.top.child(self._decode(index, others)))
            return
        extent = self.top.extent(self.lane)
        vectors = b.div(b.add(extent, self.lanes - 1), b.constant(self.lanes, I64), signed=False)
        scope = self.top.child(self._decode(b.div(index, vectors, signed=False), others))
        first = b.mul(b.rem(index, vectors, signed=False), self.lanes)
        column: dict[str, Coordinate] = {self.lane: Lanes(first)}
        left = b.sub(extent, first)
        with b.if_(b.cmp("ge", left, self.lanes)) as choice:
            self._sums(scope.child(column))
            choice.otherwise()
            self._sums(scope.child(column, b.first_lanes(left, self.lanes)))

    def _sums(self, scope: Scope) -> None:
        """Those of all taps."""
        scope.hoist(self.roots, frozenset((*self.kernel.row, *self.taps)))
        start = self.totals.start() * len(self.places)
        results = self._over_rows(self.outer, scope, start)
        for place, own in zip(self.places, shared_out(results, len(self.places)), strict=True):
            tap = scope.child(place)
            self.totals.finish(tap, own, across=self.lane_in_row)
            self._store(tap, self.phase.finals)

    def _over_rows(self, axes: Sequence[str], scope: Scope, carried: Carried) -> Carried:
        b = self.b
        if not axes:
            inside = hold(b, scope, self.of_rows, self.ends)
            with b.if_(inside, [value.type for value in carried]) as choice:
                choice.yield_(*self._steps(where_certain(b, scope, self.of_rows), carried))
                choice.otherwise()
                choice.yield_(*self._steps(scope, carried))
            return choice.results
        with b.loop(0, self.top.extent(axes[0]), 1, carried) as loop:
            inner = scope.child({axes[0]: loop.index})
            inner.hoist(self.roots, frozenset((*axes[1:], self.inner, *self.taps)))
            loop.yield_(*self._over_rows(axes[1:], inner, loop.carried))
        return loop.results

    def _steps(self, scope: Scope, carried: Carried) -> Carried:
        """All of the inner axis: vectors of it, or some positions and then single ones."""
        b, extent = self.b, self.top.extent(self.inner)
        scope = replace(scope, straight=True, values=dict(scope.values))
        if self.lane_in_row:
            with b.loop(0, extent, self.lanes, carried) as loop:
                loop.yield_(*self._step(scope, loop.index, self.lanes, loop.carried))
            return loop.results
        whole = b.sub(extent, b.rem(extent, POSITIONS, signed=False))
        with b.loop(0, whole, POSITIONS, carried) as loop:
            loop.yield_(*self._step(scope, loop.index, POSITIONS, loop.carried))
        with b.loop(whole, extent, 1, loop.results) as rest:
            rest.yield_(*self._step(scope, rest.index, 1, rest.carried))
        return rest.results

    def _step(self, scope: Scope, first: Value, count: int, carried: Carried) -> Carried:
        """A vector along the inner axis, or so many of its positions."""
        b, extent = self.b, self.top.extent(self.inner)
        ends = self.ends | {self.inner: (first, b.add(first, count - 1))}
        inside = hold(b, scope, self.of_steps, ends)
        if self.lane_in_row:
            inside = b.and_(b.cmp("le", b.add(first, count), extent), inside)
        with b.if_(inside, [value.type for value in carried]) as choice:
            choice.yield_(
                *self._positions(where_certain(b, scope, self.of_steps), first, count, None, carried)
            )
            choice.otherwise()
            mask = b.first_lanes(b.sub(extent, first), self.lanes) if self.lane_in_row else None
            choice.yield_(*self._positions(scope, first, count, mask, carried))
        return choice.results

    def _positions(
        self, scope: Scope, first: Value, count: int, mask: Value | None, carried: Carried
    ) -> Carried:
        if self.lane_in_row:
            return self._each_tap(scope.child({self.inner: Lanes(first)}, mask), carried)
        for n in range(count):
            carried = self._each_tap(scope.child({self.inner: self.b.add(first, n)}), carried)
        return carried

    def _each_tap(self, scope: Scope, carried: Carried) -> Carried:
        scope.hoist(self.roots, frozenset(self.taps))
        results: Carried = []
        for place, own in zip(self.places, shared_out(carried, len(self.places)), strict=True):
            results.extend(self._accumulate(scope.child(place), self.phase, self.totals, own))
        return results
