"""Short rows that lie one after the other: every lane has a row of its own, all of it in registers.

    x(a, c), c = 0 … 2, in memory:    00 01 02 10 11 12 20 21 …
    as many vectors as a row is long, taken apart:    00 10 20 30 …    01 11 21 31 …    02 12 22 32 …

    for each block of as many rows as lanes:
        load whole vectors; pick the positions of the rows from them
        for each phase:    for each position, in order:    walk its scans, add to its reductions
                           finish the reductions; put the positions together again; store whole vectors

Reductions and scans alike, with the number of positions known: nothing is left of the loop over a row, and
what one phase computes the next one finds in registers. The numbers are those of rows one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.compiler.nest import Kernel, Output, Phase, reads_of
from tilewright.compiler.targets.cpu.builder import I1, I64, Builder, Type, Value
from tilewright.compiler.targets.cpu.coordinates import Lanes
from tilewright.compiler.targets.cpu.rows.folds import Totals
from tilewright.compiler.targets.cpu.rows.loops import RowLoops
from tilewright.compiler.targets.cpu.rows.scans import Walk, one_position
from tilewright.compiler.targets.cpu.schedule import Schedule, runs_on
from tilewright.compiler.targets.cpu.scope import Operand, Scope
from tilewright.dsl.program import Read


class ShortRows(RowLoops):
    """Writes the body of a row or scan kernel whose rows are short."""

    def __init__(self, b: Builder, kernel: Kernel, schedule: Schedule, scope: Scope, workspace: Value):
        super().__init__(b, kernel, schedule, scope, workspace)
        assert schedule.lane_axis is not None
        (self.axis,) = kernel.row
        self.outer, self.lanes = schedule.lane_axis, schedule.lanes
        self.count = schedule.short
        self.operands = runs_on(kernel, scope.layout, self.outer, self.axis)
        self.reads = [read for read in reads_of(kernel) if (read.param, read.names) in self.operands]
        self.reverse = bool(kernel.scans) and kernel.scans[0].reverse

    def item(self, index: Value) -> None:
        b, lanes = self.b, self.lanes
        extent = self.top.extent(self.outer)
        tile = b.constant(self.schedule.tile, I64)
        tiles = b.div(b.add(extent, b.sub(tile, 1)), tile, signed=False)
        others = [a for a in self.kernel.parallel if a != self.outer]
        scope = self.top.child(self._decode(b.div(index, tiles, signed=False), others))
        for phase in self.kernel.phases:
            scope.hoist(phase.roots, frozenset({self.outer, self.axis}))
        low = b.mul(b.rem(index, tiles, signed=False), tile)
        high = b.minimum(b.add(low, tile), extent)
        whole = b.sub(high, b.rem(b.sub(high, low), lanes, signed=False))
        with b.loop(low, whole, lanes) as loop:
            self._block(scope, loop.index, None)
        with b.loop(whole, high, lanes) as rest:
            self._block(scope, rest.index, b.sub(high, rest.index))

    def _block(self, scope: Scope, first: Value, left: Value | None) -> None:
        """As many rows as lanes from `first` on, or those that are `left`."""
        b = self.b
        mask = None if left is None else b.first_lanes(left, self.lanes)
        rows = scope.child({self.outer: Lanes(first)}, mask)
        places = [rows.child({self.axis: b.constant(n, I64)}) for n in range(self.count)]
        for read in self.reads:
            for place, value in zip(places, self._load_rows(scope, read, first, left), strict=True):
                place.values[read] = value
        for phase in self.kernel.phases:
            self._phase_of(rows, places, phase)
            for output in phase.stores:
                self._store_rows(output, places, first, left)
            self._store(rows, phase.finals)

    def _phase_of(self, rows: Scope, places: Sequence[Scope], phase: Phase) -> None:
        """All positions of the rows, in order."""
        b = self.b
        rows.hoist(phase.roots, frozenset({self.axis}))
        totals = Totals(b, phase.reductions, self.lanes)
        walks = Walk.all_of(phase)
        sums: dict[int, list[Value]] = {}
        states = [state for walk in walks for state in walk.begin(b, self.lanes)]
        order = range(self.count)[:: -1 if self.reverse else 1]
        for position in order:
            place = places[position]
            place.values.update(rows.values)
            first = b.constant(True, I1) if position == order[0] else None
            states = one_position(place, walks, states, first)
            lane = (position - self.count * self.reverse) % self.lanes
            sums[lane] = totals.step(place, sums.get(lane) or totals.start())
        totals.finish(rows, self._joined(totals, sums), across=False)
        for place in places:
            place.values.update({r: rows.values[r] for r in phase.reductions})

    def _joined(self, totals: Totals, sums: dict[int, list[Value]]) -> list[Value]:
        """The sums of positions that would be lanes of a vector along the row, in the order of `Fold.across`:
        a row has the same bits among many and alone.
        """
        half = self.lanes // 2
        while half:
            for lane in [lane for lane in sums if lane >= half]:
                upper = sums.pop(lane)
                lower = sums.get(lane - half)
                sums[lane - half] = totals.join(lower, upper) if lower else upper
            half //= 2
        return sums[0]

    # --- rows in memory -----------------------------------------------------------------------------

    def _start(self, scope: Scope, operand: Operand, axes: Sequence[str], first: Value) -> Value:
        """Where the row at `first` begins."""
        here = {**scope.coordinates, self.outer: first, self.axis: self.b.constant(0, I64)}
        return scope.address(operand, [here[axis] for axis in axes])[0]

    def _parts(self, start: Value, left: Value | None, type: Type) -> list[tuple[Value, Value | None]]:
        """The address of each whole vector of the rows, and the lanes that are there."""
        b, lanes = self.b, self.lanes
        elements = None if left is None else b.mul(left, self.count)
        return [
            (
                b.offset(start, part * lanes * type.bytes),
                None if elements is None else b.first_lanes(b.sub(elements, part * lanes), lanes),
            )
            for part in range(self.count)
        ]

    def _load_rows(self, scope: Scope, read: Read, first: Value, left: Value | None) -> list[Value]:
        """The values at each position of the rows."""
        b, operand = self.b, self.top.loaded.operands[read.param, False]
        type = scope.stored_type(read.dtype)
        vectors = [
            b.load(at, type) if mask is None else b.load_masked(at, mask, b.constant(0, type), type)
            for at, mask in self._parts(self._start(scope, operand, read.names, first), left, type)
        ]
        return [scope._from_memory(value, read.dtype) for value in b.picked(vectors)]

    def _store_rows(self, output: Output, places: Sequence[Scope], first: Value, left: Value | None) -> None:
        b, buffer = self.b, output.buffer
        values = [place.full(place.evaluate(output.node)) for place in places]
        if (buffer.name, buffer.axes) not in self.operands:
            for place, value in zip(places, values, strict=True):
                place.write(buffer.name, buffer.dtype, buffer.axes, value)
            return
        operand = self.top.loaded.operands[buffer.name, True]
        start = self._start(places[0], operand, buffer.axes, first)
        stored = [place._to_memory(value, buffer.dtype) for place, value in zip(places, values, strict=True)]
        parts = self._parts(start, left, stored[0].type)
        for vector, (at, mask) in zip(b.alternating(stored), parts, strict=True):
            if mask is None:
                b.store(vector, at, nontemporal=self.top.stream)
            else:
                b.store_masked(vector, at, mask)
