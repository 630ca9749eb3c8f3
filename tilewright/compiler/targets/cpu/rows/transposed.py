"""Operands that lie across: consecutive along another axis than the results.

    for each tile, a square of some vectors:
        for each square block of as many positions as lanes:
            load such an operand as it lies, a vector for each position of the lane axis; transpose it
            for each position of the other axis:            evaluate, store vectors along the lane axis

A gather would touch as many cache lines as lanes for each vector, and all of them again for the next one.
What is left over at the end of either axis (the nine taps of a filter, the three colours of an image) is a
block of its own, read and written under a mask where masks are free. Else it is gathered, and so are the last
one to three positions of the other axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tilewright.compiler.nest import Kernel
from tilewright.compiler.targets.cpu.builder import I64, STORAGE_FLOATS, Builder, Type, Value
from tilewright.compiler.targets.cpu.coordinates import Lanes
from tilewright.compiler.targets.cpu.rows.loops import Carried, RowLoops
from tilewright.compiler.targets.cpu.schedule import Schedule, lying_across
from tilewright.compiler.targets.cpu.scope import Scope
from tilewright.compiler.targets.cpu.toolchain import FREE_MASKS
from tilewright.dsl.axes import base
from tilewright.dsl.program import Read

VECTORS = 4  # along each side of a tile
GATHERED = 3  # positions of the other axis, at most, that are not worth a block


def work_items(kernel: Kernel, schedule: Schedule, extents: Mapping[str, int]) -> int:
    """Tiles of all other positions."""
    side = VECTORS * schedule.lanes
    both = (schedule.across, schedule.lane_axis)
    return math.prod(
        -(-extents[base(axis)] // side) if axis in both else extents[base(axis)] for axis in kernel.parallel
    )


class TransposedTiles(RowLoops):
    """Writes the body of a pointwise kernel with operands that lie across."""

    def __init__(self, b: Builder, kernel: Kernel, schedule: Schedule, scope: Scope, workspace: Value):
        super().__init__(b, kernel, schedule, scope, workspace)
        assert schedule.across is not None and schedule.lane_axis is not None
        self.across, self.lane, self.lanes = schedule.across, schedule.lane_axis, schedule.lanes
        self.reads = lying_across(kernel, scope.layout, self.across, self.lane)
        self.places = {read: b.alloca(self.lanes * self.lanes * 8) for read in self.reads}
        self._kinds: dict[Read, Type] = {}  # of values in registers
        self.stores = kernel.phases[0].stores

    def item(self, index: Value) -> None:
        b, side = self.b, VECTORS * self.lanes
        ranges = {}
        for axis in (self.lane, self.across):
            extent = self.top.extent(axis)
            tiles = b.div(b.add(extent, side - 1), b.constant(side, I64), signed=False)
            low = b.mul(b.rem(index, tiles, signed=False), side)
            ranges[axis] = low, b.minimum(b.add(low, side), extent)
            index = b.div(index, tiles, signed=False)
        others = [a for a in self.kernel.parallel if a not in ranges]
        scope = self.top.child(self._decode(index, others))
        scope.hoist([o.node for o in self.stores], frozenset(ranges))
        low, high = ranges[self.across]
        rest = b.rem(b.sub(high, low), self.lanes, signed=False)
        in_blocks = b.sub(high, rest)
        if self.masks_are_free:
            in_blocks = b.select(b.cmp("gt", rest, GATHERED), high, in_blocks)
        with b.loop(low, in_blocks, self.lanes) as loop:
            count = b.minimum(b.sub(in_blocks, loop.index), self.lanes)
            self._strip(scope, loop.index, count, *ranges[self.lane])
        with b.loop(in_blocks, high) as last:
            self._ordinary(scope, last.index, *ranges[self.lane])

    @property
    def masks_are_free(self) -> bool:
        return all(8 * read.dtype.itemsize * self.lanes >= FREE_MASKS for read in self.reads)

    def _strip(self, scope: Scope, first: Value, count: Value, low: Value, high: Value) -> None:
        """So many positions of the other axis, along a side of the tile."""
        b = self.b
        whole = b.sub(high, b.rem(b.sub(high, low), self.lanes, signed=False))
        with b.loop(low, whole, self.lanes) as loop:
            self._block(scope, first, count, loop.index, None)
        with b.if_(b.cmp("lt", whole, high)):
            if self.masks_are_free:
                self._block(scope, first, count, whole, high)
                return
            with b.loop(0, count) as rows:
                self._ordinary(scope, b.add(first, rows.index), whole, high)

    def _block(self, scope: Scope, first: Value, count: Value, lane: Value, high: Value | None) -> None:
        """So many positions of the other axis, and those of the lane axis that are below `high`, if told."""
        b = self.b
        for read in self.reads:
            self._transpose(scope, read, first, count, lane, high)
        mask = None if high is None else b.first_lanes(b.sub(high, lane), self.lanes)
        with b.loop(0, count) as rows:
            inner = scope.child({self.across: b.add(first, rows.index), self.lane: Lanes(lane)}, mask)
            for read, place in self.places.items():
                type = self._kinds[read]
                stored = type.integer if type.kind in STORAGE_FLOATS else type
                at = b.offset(place, b.mul(rows.index, self.lanes * stored.bytes))
                inner.values[read] = b.bitcast(b.load(at, stored), type.kind)
            self._store(inner, self.stores)

    def _transpose(
        self, scope: Scope, read: Read, first: Value, count: Value, lane: Value, high: Value | None
    ) -> None:
        """Leave a block of an operand on the stack, a vector along the lane axis for each position; from
        `high` on there is the one before again.

        Of whole blocks the caches are asked for the next one: no machine foresees lines that lie far apart.
        """
        b = self.b
        columns = []
        mask = b.first_lanes(count, self.lanes) if self.masks_are_free else None
        for number in range(self.lanes):
            place = b.add(lane, number)
            place = place if high is None else b.minimum(place, b.sub(high, 1))
            if high is None:
                ahead = scope.child({self.across: b.add(first, self.lanes), self.lane: place})
                b.prefetch(ahead.start_of(read)[0])
            column = scope.child({self.across: Lanes(first), self.lane: place}, mask)
            value = column.read(read)
            self._kinds[read] = value.type
            narrow = value.type.kind in STORAGE_FLOATS
            columns.append(b.bitcast(value, value.type.integer.kind) if narrow else value)
        for number, row in enumerate(b.transpose(columns)):
            b.store(row, b.offset(self.places[read], number * self.lanes * row.type.bytes))

    def _ordinary(self, scope: Scope, position: Value, low: Value, high: Value) -> None:
        """One position of the other axis, along the lane axis."""

        def leaf(inner: Scope, carried: Carried, _: int | None) -> Carried:
            self._store(inner, self.stores)
            return carried

        self._lane_steps(scope.child({self.across: position}), low, high, [], 0, leaf)
