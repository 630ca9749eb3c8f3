"""Rows that lie beside each other in memory: vectors run across them, and memory is read as it lies.

    for each strip of the lane axis:                             thousands of elements, or a thread's share
        for each phase:
            for the row axes, eight positions a step:
                for vectors of the strip:
                    load the states of its reductions; take eight positions; store the states
            for vectors of the strip:                            finish the reductions, store what is left

(of a row of fewer than eight positions:   for vectors of the strip: all phases, in registers)

A strip of a few vectors could keep its states in registers, but each of its loads would be on another page
than the one before. Here loads run along eight streams, and the states, in the first cache, are touched once
for eight of them. The order of each sum is that of its positions, whatever the width of the strips.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tilewright.compiler.nest import Kernel, Phase
from tilewright.compiler.targets.cpu.builder import I64, Builder, Value
from tilewright.compiler.targets.cpu.coordinates import Lanes
from tilewright.compiler.targets.cpu.frame import BLOCK_N
from tilewright.compiler.targets.cpu.rows.folds import Totals, fold_of
from tilewright.compiler.targets.cpu.rows.loops import RowLoops
from tilewright.compiler.targets.cpu.schedule import Schedule
from tilewright.compiler.targets.cpu.scope import Scope
from tilewright.compiler.targets.cpu.toolchain import CpuTarget
from tilewright.dsl.axes import base
from tilewright.dsl.program import Reduce

POSITIONS = 8  # of the row a step
STATE_BYTES = 16 << 10  # of a strip: most of the first cache is left for what streams by
WORKING_SET = 512 << 10  # bytes that later phases find in the second cache, if the strip is not too narrow
NARROWEST = 16  # vectors, unless threads want a share

Strip = tuple[Value, Value]
Visit = Callable[[Scope, Value], object]
"""(scope of a vector, its first element counted from the strip's) → anything."""


def lies_across(kernel: Kernel, schedule: Schedule) -> bool:
    """Whether a kernel is of this kind: a reduction whose vectors run along a parallel axis."""
    across = schedule.lane_axis in kernel.parallel and not kernel.split
    return kernel.kind == "row" and across


def widest_strip(kernel: Kernel, schedule: Schedule, target: CpuTarget) -> int:
    """Elements of the lane axis whose states fit."""
    states = Storage.of(kernel, schedule, target).bytes_an_element
    vectors = max(NARROWEST, STATE_BYTES // (states * schedule.lanes))
    return vectors * schedule.lanes


def strip_width(
    kernel: Kernel, schedule: Schedule, target: CpuTarget, extents: Mapping[str, int], workers: int
) -> int:
    """Elements of the lane axis in one work item of a call."""
    lanes = schedule.lanes
    width = widest_strip(kernel, schedule, target)
    if len(kernel.phases) > 1:
        positions = math.prod(extents[base(axis)] for axis in kernel.row)
        resident = WORKING_SET // max(1, 4 * positions)
        if resident >= NARROWEST * lanes:
            width = min(width, resident // lanes * lanes)
    others = math.prod(extents[base(a)] for a in kernel.parallel if a != schedule.lane_axis)
    share = -(-extents[base(schedule.lane_axis or "")] * others // workers)
    while width > 4 * lanes and workers > 1 and width * others > share:
        width = max(4, width // lanes // 2) * lanes
    return width


@dataclass(frozen=True)
class Storage:
    """Where a strip's states and results lie: offsets in bytes for one element of its width."""

    offsets: Mapping[Reduce, tuple[int, ...]]
    bytes_an_element: int

    @classmethod
    def of(cls, kernel: Kernel, schedule: Schedule, target: CpuTarget) -> Storage:
        offsets: dict[Reduce, tuple[int, ...]] = {}
        total = 0
        for phase in kernel.phases:
            for reduction in phase.reductions:
                fold = fold_of(Builder(target), reduction, schedule.lanes)
                size = fold.type.bytes
                offsets[reduction] = tuple(total + n * size for n in range(fold.size))
                total += fold.size * size
        return cls(offsets, max(1, total))


class ColumnLoops(RowLoops):
    """Writes the body of a kernel whose rows lie beside each other."""

    def __init__(
        self, b: Builder, kernel: Kernel, schedule: Schedule, scope: Scope, workspace: Value, frame: Value
    ):
        super().__init__(b, kernel, schedule, scope, workspace)
        assert schedule.lane_axis is not None
        self.axis = schedule.lane_axis
        self.width = b.load(b.offset(frame, 8 * BLOCK_N), I64)
        self.storage = Storage.of(kernel, schedule, b.target)
        self.widest = widest_strip(kernel, schedule, b.target)
        self.states = b.alloca(self.widest * self.storage.bytes_an_element)

    def item(self, index: Value) -> None:
        b = self.b
        extent = self.top.extent(self.axis)
        strips = b.div(b.add(extent, b.sub(self.width, 1)), self.width, signed=False)
        others = [a for a in self.kernel.parallel if a != self.axis]
        scope = self.top.child(self._decode(b.div(index, strips, signed=False), others))
        low = b.mul(b.rem(index, strips, signed=False), self.width)
        strip = low, b.minimum(b.add(low, self.width), extent)
        positions = b.constant(1, I64)
        for axis in self.kernel.row:
            positions = b.mul(positions, self.top.extent(axis))
        with b.if_(b.cmp("lt", positions, POSITIONS)) as choice:
            self._each_vector(scope, strip, lambda column, _: self._all_phases(column))
            choice.otherwise()
            finished: list[Reduce] = []
            for phase in self.kernel.phases:
                self._phase(scope, strip, phase, finished)
                finished.extend(phase.reductions)

    def _all_phases(self, column: Scope) -> None:
        """A vector whose few positions are in the first cache: its states stay in registers."""
        for phase in self.kernel.phases:
            self._phase_across([column], phase)

    def _phase(self, scope: Scope, strip: Strip, phase: Phase, finished: Sequence[Reduce]) -> None:
        totals = Totals(self.b, phase.reductions, self.schedule.lanes)
        self._each_vector(scope, strip, lambda _, at: self._save(totals, totals.start(), at))
        if phase.roots:
            self._positions(scope, list(self.kernel.row), strip, phase, totals, finished)

        def finish(column: Scope, at: Value) -> None:
            self._recall(column, finished, at)
            totals.finish(column, self._saved(totals, at), across=False)
            for reduction in phase.reductions:
                self.b.store(column.values[reduction], self._place(reduction, 0, at))
            self._store(column, phase.finals)

        self._each_vector(scope, strip, finish)

    def _positions(
        self,
        scope: Scope,
        axes: list[str],
        strip: Strip,
        phase: Phase,
        totals: Totals,
        finished: Sequence[Reduce],
    ) -> None:
        """All positions of the row, several of its last axis a step."""
        b, extent = self.b, self.top.extent(axes[0])
        scope.hoist(phase.roots, frozenset((*axes, self.axis)))
        if len(axes) > 1:
            with b.loop(0, extent) as loop:
                inner = scope.child({axes[0]: loop.index})
                self._positions(inner, axes[1:], strip, phase, totals, finished)
            return
        whole = b.sub(extent, b.rem(extent, POSITIONS, signed=False))
        for low, high, count in ((b.constant(0, I64), whole, POSITIONS), (whole, extent, 1)):
            with b.loop(low, high, count) as loop:
                rows = [scope.child({axes[0]: b.add(loop.index, n)}) for n in range(count)]
                self._step(scope, rows, strip, phase, totals, finished)

    def _step(
        self,
        scope: Scope,
        rows: list[Scope],
        strip: Strip,
        phase: Phase,
        totals: Totals,
        finished: Sequence[Reduce],
    ) -> None:
        """Some positions of the row, along the strip."""
        for row in rows:
            row.hoist(phase.roots, frozenset({self.axis}))

        def visit(column: Scope, at: Value) -> None:
            self._recall(column, finished, at)
            column.hoist(phase.roots, frozenset(self.kernel.row))
            states = self._saved(totals, at)
            for row in rows:
                place = row.child({self.axis: column.coordinates[self.axis]}, column.mask)
                place.values.update(column.values)
                states = self._accumulate(place, phase, totals, states)
            self._save(totals, states, at)

        self._each_vector(scope, strip, visit)

    def _each_vector(self, scope: Scope, strip: Strip, visit: Visit) -> None:
        """Whole vectors of a strip, then a masked one if it is ragged."""
        b, lanes, (low, high) = self.b, self.schedule.lanes, strip
        whole = b.sub(high, b.rem(b.sub(high, low), lanes, signed=False))
        with b.loop(low, whole, lanes) as loop:
            visit(scope.child({self.axis: Lanes(loop.index)}), b.sub(loop.index, low))
        with b.loop(whole, high, lanes) as rest:
            mask = b.first_lanes(b.sub(high, rest.index), lanes)
            visit(scope.child({self.axis: Lanes(rest.index)}, mask), b.sub(rest.index, low))

    # --- states in memory -------------------------------------------------------------------------

    def _place(self, reduction: Reduce, number: int, at: Value) -> Value:
        offset = self.storage.offsets[reduction][number] * self.widest
        size = fold_of(self.b, reduction, self.schedule.lanes).type.bytes
        return self.b.offset(self.states, self.b.add(self.b.mul(at, size), offset))

    def _saved(self, totals: Totals, at: Value) -> list[Value]:
        return [
            self.b.load(self._place(fold.reduction, n, at), value.type)
            for fold in totals.folds
            for n, value in enumerate(fold.start())
        ]

    def _save(self, totals: Totals, states: Sequence[Value], at: Value) -> None:
        places = [self._place(fold.reduction, n, at) for fold in totals.folds for n in range(fold.size)]
        for place, state in zip(places, states, strict=True):
            self.b.store(state, place)

    def _recall(self, column: Scope, finished: Sequence[Reduce], at: Value) -> None:
        """The results of earlier phases; they lie where their first states did."""
        for reduction in finished:
            type = fold_of(self.b, reduction, self.schedule.lanes).type
            column.values[reduction] = self.b.load(self._place(reduction, 0, at), type)
