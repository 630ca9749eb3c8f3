"""Sums over images for a few taps, such as the gradient of a filter: all of them in one pass.

for the row axes but the lane one:
    for vectors of the lane axis:                         no masks where nothing is outside (`claims`)
        read what is the same for all taps
        for each tap: evaluate, accumulate                every tap has sums of its own, in registers
for each tap: finish across the lanes, store
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

from tilewright.compiler.nest import Kernel
from tilewright.compiler.targets.cpu.builder import I64, Builder, Value
from tilewright.compiler.targets.cpu.layout import Layout
from tilewright.compiler.targets.cpu.rows.folds import Totals
from tilewright.compiler.targets.cpu.rows.loops import Carried, RowLoops, loop_roots, shared_out
from tilewright.compiler.targets.cpu.schedule import Schedule
from tilewright.compiler.targets.cpu.scope import Coordinate, Lanes, Scope
from tilewright.compiler.targets.cpu.windows.claims import claims, hold, where_certain
from tilewright.dsl.axes import base


def sums_by_tap(kernel: Kernel, layout: Layout, schedule: Schedule) -> bool:
    """Whether a kernel is of this kind: the taps are parallel axes, and vectors run along its row."""
    taps = {a for a in kernel.parallel if base(a) in layout.taps}
    long = not {base(a) for a in kernel.row} <= set(layout.taps)
    return kernel.kind == "row" and bool(taps) and long and schedule.lane_axis in kernel.row


def work_items(kernel: Kernel, layout: Layout, extents: Mapping[str, int]) -> int:
    """All positions of the parallel axes that are no taps."""
    return math.prod(extents[base(a)] for a in kernel.parallel if base(a) not in layout.taps)


class TapSums(RowLoops):
    """Writes the body of a kernel of such sums."""

    def __init__(self, b: Builder, kernel: Kernel, schedule: Schedule, scope: Scope, workspace: Value):
        super().__init__(b, kernel, schedule, scope, workspace)
        assert schedule.lane_axis is not None
        self.lane, self.lanes = schedule.lane_axis, schedule.lanes
        (self.phase,) = kernel.phases
        self.roots = loop_roots(self.phase)
        self.totals = Totals(b, self.phase.reductions, self.lanes)
        self.taps = {a: scope.layout.taps[base(a)] for a in kernel.parallel if base(a) in scope.layout.taps}
        places = product(*(range(count) for count in self.taps.values()))
        self.places: list[dict[str, Coordinate]] = [
            {axis: b.constant(at, I64) for axis, at in zip(self.taps, place, strict=True)} for place in places
        ]
        self.ends = {a: (b.constant(0, I64), b.constant(count - 1, I64)) for a, count in self.taps.items()}
        asked = claims(kernel, scope.layout, frozenset({*self.taps, self.lane}))
        self.of_rows = tuple(c for c in asked if self.lane not in c.value.axes)
        self.of_vectors = tuple(c for c in asked if self.lane in c.value.axes)

    def item(self, index: Value) -> None:
        others = [a for a in self.kernel.parallel if a not in self.taps]
        scope = self.top.child(self._decode(index, others))
        scope.hoist(self.roots, frozenset((*self.kernel.row, *self.taps)))
        start = self.totals.start() * len(self.places)
        results = self._over_rows(list(self.row), scope, start)
        for place, own in zip(self.places, shared_out(results, len(self.places)), strict=True):
            tap = scope.child(place)
            self.totals.finish(tap, own, across=True)
            self._store(tap, self.phase.finals)

    def _over_rows(self, axes: Sequence[str], scope: Scope, carried: Carried) -> Carried:
        b = self.b
        if not axes:
            inside = hold(b, scope, self.of_rows, self.ends)
            with b.if_(inside, [value.type for value in carried]) as choice:
                choice.yield_(*self._over_vectors(where_certain(b, scope, self.of_rows), carried))
                choice.otherwise()
                choice.yield_(*self._over_vectors(scope, carried))
            return choice.results
        with b.loop(0, self.top.extent(axes[0]), 1, carried) as loop:
            inner = scope.child({axes[0]: loop.index})
            inner.hoist(self.roots, frozenset((*axes[1:], self.lane, *self.taps)))
            loop.yield_(*self._over_rows(axes[1:], inner, loop.carried))
        return loop.results

    def _over_vectors(self, scope: Scope, carried: Carried) -> Carried:
        b, extent = self.b, self.top.extent(self.lane)
        scope = replace(scope, straight=True, values=dict(scope.values))
        with b.loop(0, extent, self.lanes, carried) as loop:
            ends = self.ends | {self.lane: (loop.index, b.add(loop.index, self.lanes - 1))}
            whole = b.cmp("le", b.add(loop.index, self.lanes), extent)
            inside = b.and_(whole, hold(b, scope, self.of_vectors, ends))
            vector: dict[str, Coordinate] = {self.lane: Lanes(loop.index)}
            with b.if_(inside, [value.type for value in carried]) as choice:
                certain = where_certain(b, scope, self.of_vectors).child(vector)
                choice.yield_(*self._each_tap(certain, loop.carried))
                choice.otherwise()
                mask = b.first_lanes(b.sub(extent, loop.index), self.lanes)
                choice.yield_(*self._each_tap(scope.child(vector, mask), loop.carried))
            loop.yield_(*choice.results)
        return loop.results

    def _each_tap(self, scope: Scope, carried: Carried) -> Carried:
        scope.hoist(self.roots, frozenset(self.taps))
        results: Carried = []
        for place, own in zip(self.places, shared_out(carried, len(self.places)), strict=True):
            results.extend(self._accumulate(scope.child(place), self.phase, self.totals, own))
        return results
