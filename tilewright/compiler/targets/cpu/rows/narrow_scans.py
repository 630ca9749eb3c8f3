"""Scans of few rows that lie beside each other: blocks of whole vectors, taken apart into positions.

    x(t, c), c = 0 … 2, in memory:    00 01 02 10 11 12 20 21 22 …

    for each block of as many positions as lanes:
        load whole vectors; pick from them, for each position, the vector of its few columns
        for each position, in order:    walk the scans, add to the reductions
        put the positions together again; store whole vectors
    what is left over goes position by position

A position alone is a masked load and a masked store of a few elements. The order of the positions, and with
it every bit, is that of rows one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.compiler.nest import Kernel, Output, Phase, reads_of
from tilewright.compiler.targets.cpu.builder import Builder, Value
from tilewright.compiler.targets.cpu.coordinates import Lanes
from tilewright.compiler.targets.cpu.rows.folds import Totals
from tilewright.compiler.targets.cpu.rows.loops import RowLoops
from tilewright.compiler.targets.cpu.rows.scans import Walk, one_position
from tilewright.compiler.targets.cpu.schedule import Schedule, runs_on
from tilewright.compiler.targets.cpu.scope import Operand, Scope
from tilewright.dsl.program import Read

Carried = list[Value]


class NarrowScans(RowLoops):
    """Writes the body of a scan kernel whose lane axis, a parallel one, has a few positions."""

    def __init__(self, b: Builder, kernel: Kernel, schedule: Schedule, scope: Scope, workspace: Value):
        super().__init__(b, kernel, schedule, scope, workspace)
        assert schedule.lane_axis is not None
        (self.axis,) = kernel.row
        self.inner, self.lanes = schedule.lane_axis, schedule.lanes
        self.columns = schedule.beside
        self.operands = runs_on(kernel, scope.layout, self.axis, self.inner)
        self.reads = [read for read in reads_of(kernel) if (read.param, read.names) in self.operands]
        self.reverse = kernel.scans[0].reverse

    def item(self, index: Value) -> None:
        b = self.b
        others = [a for a in self.kernel.parallel if a != self.inner]
        columns = {self.inner: Lanes(b.constant(0, index.type))}
        mask = b.first_lanes(b.constant(self.columns, index.type), self.lanes)
        scope = self.top.child({**self._decode(index, others), **columns}, mask)
        for phase in self.kernel.phases:
            self._phase_of(scope, phase)

    def _phase_of(self, scope: Scope, phase: Phase) -> None:
        """All positions: whole blocks from the walk's start, then those that are left."""
        b, lanes = self.b, self.lanes
        scope.hoist(phase.roots, frozenset({self.axis}))
        totals = Totals(b, phase.reductions, lanes)
        walks = Walk.all_of(phase)
        carried = [*totals.start(), *(state for walk in walks for state in walk.begin(b, lanes))]
        extent = self.top.extent(self.axis)
        whole = b.sub(extent, b.rem(extent, lanes, signed=False))
        for low, high, count in ((b.constant(0, extent.type), whole, lanes), (whole, extent, 1)):
            with b.loop(low, high, count, carried) as loop:
                results = self._positions(scope, phase, walks, totals, loop.index, count, loop.carried)
                loop.yield_(*results)
            carried = loop.results
        totals.finish(scope, carried[: totals.size], across=False)
        self._store(scope, phase.finals)

    def _positions(
        self,
        scope: Scope,
        phase: Phase,
        walks: Sequence[Walk],
        totals: Totals,
        step: Value,
        count: int,
        carried: Carried,
    ) -> Carried:
        """As many positions as lanes, or a single one, from `step` on as the walk goes."""
        b = self.b
        lowest = step
        if self.reverse:
            lowest = b.sub(b.sub(self.top.extent(self.axis), count), step)
        places = [scope.child({self.axis: b.add(lowest, n)}) for n in range(count)]
        if count > 1:
            for read in self.reads:
                for place, value in zip(places, self._load_block(scope, read, lowest), strict=True):
                    place.values[read] = value
        sums, states = carried[: totals.size], carried[totals.size :]
        first = b.cmp("eq", step, 0)
        for place in reversed(places) if self.reverse else places:
            states = one_position(place, walks, states, first)
            sums = totals.step(place, sums)
            first = None
        for output in phase.stores:
            self._store_block(output, places, lowest)
        return [*sums, *states]

    # --- blocks in memory ---------------------------------------------------------------------------

    def _start(self, scope: Scope, operand: Operand, axes: Sequence[str], lowest: Value) -> Value:
        """Where the position begins."""
        here = {**scope.coordinates, self.axis: lowest, self.inner: self.b.constant(0, lowest.type)}
        return scope.address(operand, [here[axis] for axis in axes])[0]

    def _load_block(self, scope: Scope, read: Read, lowest: Value) -> list[Value]:
        """The columns of each position of a block; lanes behind them have anything."""
        b, lanes = self.b, self.lanes
        type = scope.stored_type(read.dtype)
        start = self._start(scope, self.top.loaded.operands[read.param, False], read.names, lowest)
        vectors = [b.load(b.offset(start, n * lanes * type.bytes), type) for n in range(self.columns)]
        positions = []
        for position in range(lanes):
            part, lane = divmod(position * self.columns, lanes)
            behind = vectors[min(part + 1, self.columns - 1)]
            window = [lane + n if n < self.columns else lane for n in range(lanes)]
            positions.append(scope._from_memory(b.shuffle(vectors[part], behind, window), read.dtype))
        return positions

    def _store_block(self, output: Output, places: Sequence[Scope], lowest: Value) -> None:
        b, buffer, lanes = self.b, output.buffer, self.lanes
        values = [place.full(place.evaluate(output.node)) for place in places]
        if len(places) == 1 or (buffer.name, buffer.axes) not in self.operands:
            for place, value in zip(places, values, strict=True):
                place.write(buffer.name, buffer.dtype, buffer.axes, value)
            return
        operand = self.top.loaded.operands[buffer.name, True]
        start = self._start(places[0], operand, buffer.axes, lowest)
        stored = [place._to_memory(value, buffer.dtype) for place, value in zip(places, values, strict=True)]
        for part in range(self.columns):
            elements = [divmod(part * lanes + lane, self.columns) for lane in range(lanes)]
            vector = b.merged(stored, elements)
            there = b.offset(start, part * lanes * vector.type.bytes)
            b.store(
                vector, there, nontemporal=self.top.stream and not self.reverse
            )  # reversed ones lie anywhere
