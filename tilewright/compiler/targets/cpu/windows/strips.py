"""Windows of a few taps: taps are written out, and masks are for the borders alone.

    for strips of some positions of one axis:                  (rows of an image)
        strip inside?   no position of a window is outside, whatever the lane
        for vectors of the lane axis:
            inside?     none is outside: whole vectors, no masks
            else:       masks of the lanes that are inside; of a strip inside, the same for all its positions
            for each tap: for each position of the strip:      evaluate, accumulate, in registers
            finish, store

Positions of a strip share what they read, and all loads of a tile are in one stretch of code, so that each is
made once. Where there are many taps, those along other axes than the strip's are a loop around the rest; what
is reduced besides (the channels of a filter that has one result) is a loop around all taps. The order of
every sum is fixed. What is certain inside of a tile is told in `claims`.

The gradient of windows with a stride comes in phases, which are written out as well: each has its own of the
taps, and they lie in turns in the result (`placed`), lane after lane where vectors run along it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

from tilewright.compiler.nest import Kernel, Output, Phase, indexed_reads
from tilewright.compiler.targets.cpu.builder import I1, I64, Builder, Value
from tilewright.compiler.targets.cpu.claims import claims, hold, where_certain
from tilewright.compiler.targets.cpu.coordinates import Coordinate, Lanes
from tilewright.compiler.targets.cpu.layout import Layout
from tilewright.compiler.targets.cpu.rows.folds import Totals
from tilewright.compiler.targets.cpu.rows.loops import Carried, RowLoops, loop_roots, shared_out
from tilewright.compiler.targets.cpu.schedule import Schedule
from tilewright.compiler.targets.cpu.scope import Scope
from tilewright.compiler.targets.cpu.windows.absent import Absent
from tilewright.compiler.targets.cpu.windows.slides import is_window, sliding_axes, written_out
from tilewright.dsl.affine import affine
from tilewright.dsl.axes import base
from tilewright.dsl.program import Node

STRIPS_AHEAD = 1  # that are asked for


def slides(kernel: Kernel, layout: Layout, schedule: Schedule) -> bool:
    """Whether a kernel is of this kind: reductions over a few taps, and whatever axes besides, whose vectors
    run along another one.
    """
    across = schedule.lane_axis in kernel.parallel
    return kernel.kind == "row" and across and is_window(kernel, layout.windows.taps)


def strip_axis(kernel: Kernel, layout: Layout, schedule: Schedule) -> str | None:
    """The last axis along which windows slide that vectors do not run along."""
    fixed = {schedule.lane_axis, *(a for a in kernel.parallel if base(a) in layout.windows.phases)}
    return next((a for a in reversed(sliding_axes(kernel)) if a not in fixed), None)


def strip_length(kernel: Kernel, layout: Layout, schedule: Schedule) -> int:
    """How many positions of the strip's axis are worked on together."""
    axis = strip_axis(kernel, layout, schedule)
    return layout.windows.strips[base(axis)] if axis else 1


def work_items(kernel: Kernel, layout: Layout, schedule: Schedule, extents: Mapping[str, int]) -> int:
    """Strips of all other positions."""
    axis, length = strip_axis(kernel, layout, schedule), strip_length(kernel, layout, schedule)
    others = (a for a in kernel.parallel if a != schedule.lane_axis and base(a) not in layout.windows.phases)
    return math.prod(-(-extents[base(a)] // (length if a == axis else 1)) for a in others)


class WindowTiles(RowLoops):
    """Writes the body of a kernel of windows."""

    def __init__(self, b: Builder, kernel: Kernel, schedule: Schedule, scope: Scope, workspace: Value):
        super().__init__(b, kernel, schedule, scope, workspace)
        assert schedule.lane_axis is not None
        self.lane, self.lanes = schedule.lane_axis, schedule.lanes
        layout = scope.layout
        self.axis = strip_axis(kernel, layout, schedule)
        self.length = strip_length(kernel, layout, schedule)
        windows = layout.windows
        self.taps = {axis: windows.taps[base(axis)] for axis in kernel.row if base(axis) in windows.taps}
        self.deep = tuple(axis for axis in kernel.row if axis not in self.taps)
        self.phases = {a: windows.phases[base(a)] for a in kernel.parallel if base(a) in windows.phases}
        whole = windows.known.get(base(self.axis or "")) == self.length
        self.written_out = written_out(kernel, windows.taps, self.axis, whole)
        self.few = frozenset({*self.taps, *self.phases})
        self.absent = Absent(kernel, layout, self.few)
        self.turns = _turns(kernel, self.phases, self.lane)
        strip = self.few | {self.axis or "", *self.deep}
        asked = [c for c in claims(kernel, layout, strip | {self.lane}) if not set(c.value.axes) <= self.few]
        self.of_strips = tuple(c for c in asked if self.lane not in c.value.axes)
        self.of_vectors = tuple(c for c in asked if self.lane in c.value.axes)

    def item(self, index: Value) -> None:
        b = self.b
        others = [a for a in self.kernel.parallel if a != self.lane and a not in self.phases]
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
        scope.hoist(self._roots(), self.few | {self.lane, self.axis or "", *self.deep})
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
        """A vector for each position of the strip's axis and each phase."""
        b = self.b
        here: list[dict[str, Coordinate]] = [{self.lane: lanes}]
        if first is not None:
            here = [{self.lane: lanes, self.axis or "": b.add(first, n)} for n in range(length)]
        for axis, count in self.phases.items():
            here = [place | {axis: b.constant(phase, I64)} for place in here for phase in range(count)]
        scopes = [scope.child(coordinates, mask) for coordinates in here]
        if first is not None and length > 1 and not self.deep:
            self._ask_ahead(scope.child({self.lane: lanes}), first)
        for phase in self.kernel.phases:
            self._phase_across(scopes, phase)

    def _ask_ahead(self, scope: Scope, first: Value) -> None:
        """Ask for what a strip further on will read that the strips before it have not: tiles jump from line
        to line, which no machine foresees.
        """
        b, axis = self.b, self.axis or ""
        last = {tap: b.constant(count - 1, I64) for tap, count in (*self.taps.items(), *self.phases.items())}
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
        """The taps one after the other: loops, and what is written out, of each phase those that it has."""
        looped = [axis for axis in axes if axis not in self.written_out]
        if looped:
            return self._looped(looped[0], axes, scopes, carried, phase, totals)
        parts = shared_out(carried, len(scopes))
        phases = list(_all_of(self.phases))
        for tap in _all_of({axis: self.taps[axis] for axis in axes}):
            at = {axis: self.b.constant(position, I64) for axis, position in tap.items()}
            for n, scope in enumerate(scopes):
                if not self.absent.holds(phase, tap | phases[n % len(phases)]):
                    parts[n] = self._accumulate(scope.child(at), phase, totals, parts[n])
        return [value for part in parts for value in part]

    def _looped(
        self,
        axis: str,
        axes: list[str],
        scopes: list[Scope],
        carried: Carried,
        phase: Phase,
        totals: Totals,
    ) -> Carried:
        """A loop over an axis, around the taps along the others."""
        rest = [other for other in axes if other != axis]
        extent = self.taps[axis] if axis in self.taps else self.top.extent(axis)
        with self.b.loop(0, extent, 1, carried, unroll=False) as loop:
            inner = [scope.child({axis: loop.index}) for scope in scopes]
            results = self._scalar_rows(rest, inner, loop.carried, phase, totals)
            if carried:
                loop.yield_(*results)
        return loop.results

    def _store_each(self, scopes: Sequence[Scope], outputs: Sequence[Output]) -> None:
        if self.turns is None:
            return super()._store_each(scopes, outputs)
        count = self.phases[self.turns]
        for first in range(0, len(scopes), count):
            for output in outputs:
                self._store_in_turns(scopes[first : first + count], output)
        return None

    def _store_in_turns(self, scopes: Sequence[Scope], output: Output) -> None:
        """Vectors of all phases, whose lanes lie in turns in the result."""
        b, buffer = self.b, output.buffer
        last, position = buffer.axes[-1], affine(output.places[-1])
        vectors = b.alternating([scope.full(scope.evaluate(output.node)) for scope in scopes])
        place, inside = scopes[0].in_place(output)
        start = place.coordinates[last]
        assert isinstance(start, Lanes) and start.first is not None
        certain = scopes[0].mask is None and last in place.layout.windows.within[buffer.name]
        aligned = len(position.terms) == 2 and not position.constant
        place = replace(place, mask=None, stream=place.stream and aligned)
        with b.if_(b.constant(True, I1) if inside is None else inside):
            for n, vector in enumerate(vectors):
                lanes = Lanes(b.add(start.first, n * self.lanes))
                mask = None if certain else place.lanes_inside(last, lanes)
                place.child({last: lanes}, mask).write(buffer.name, buffer.dtype, buffer.axes, vector)

    # --- what is certain --------------------------------------------------------------------------

    def _ends(self, first: Value | None, length: int) -> dict[str, tuple[Value, Value]]:
        """The first and the last position along each axis that a strip moves along."""
        b = self.b
        few = {**self.taps, **self.phases}
        ends = {axis: (b.constant(0, I64), b.constant(count - 1, I64)) for axis, count in few.items()}
        ends |= {axis: (b.constant(0, I64), b.sub(self.top.extent(axis), 1)) for axis in self.deep}
        if first is not None and self.axis is not None:
            ends[self.axis] = first, b.add(first, length - 1)
        return ends

    def _roots(self) -> list[Node]:
        return [root for phase in self.kernel.phases for root in loop_roots(phase)]


def _all_of(counts: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Every position along some axes, the last axis fastest."""
    for place in product(*(range(count) for count in counts.values())):
        yield dict(zip(counts, place, strict=True))


def _turns(kernel: Kernel, phases: dict[str, int], lane: str) -> str | None:
    """The axis of phases that take turns where lanes belong: y[…, s·lane + phase], the last of all phases."""
    forms = [affine(output.places[-1]) for output in kernel.outputs if output.places]
    axis = next(reversed(phases), None)
    fits = all(f.step(lane) == phases[axis] and f.step(axis) == 1 for f in forms) if axis else False
    return axis if fits and len(forms) == len(kernel.outputs) else None
