"""Scatters: sums whose places are computed, as MLIR.

    for item in the thread's range:                 a position of the other axes, or a tile of the lane axis
        out[:, item] = 0
        for the summed positions, in order:         out[positions, item] += value, where the places are inside

A thread owns all places of its item, so nothing is added twice at once, and every sum has one order: that
of the positions. Vectors run along an axis on which the places do not depend; where there is none, one
element is added at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.compiler.nest import Kernel
from tilewright.compiler.targets.cpu.builder import I64, Builder, Value
from tilewright.compiler.targets.cpu.coordinates import Lanes
from tilewright.compiler.targets.cpu.schedule import Schedule
from tilewright.compiler.targets.cpu.scope import Scope
from tilewright.compiler.targets.cpu.spelling import value_type
from tilewright.dsl.program import Scatter


class Scatters:
    """Writes the body of a scatter kernel for a range of work items."""

    def __init__(self, b: Builder, kernel: Kernel, schedule: Schedule, scope: Scope):
        assert kernel.scatter is not None
        self.b = b
        self.kernel = kernel
        self.scatter: Scatter = kernel.scatter
        self.schedule = schedule
        self.top = scope

    def item(self, index: Value) -> None:
        b, lane = self.b, self.schedule.lane_axis
        if lane is None:
            self._piece(self.top.child(self._decode(index, self.kernel.parallel)))
            return
        tile = self.schedule.tile
        extent = self.top.extent(lane)
        tiles = b.div(b.add(extent, tile - 1), b.constant(tile, I64), signed=False)
        others = [a for a in self.kernel.parallel if a != lane]
        scope = self.top.child(self._decode(b.div(index, tiles, signed=False), others))
        low = b.mul(b.rem(index, tiles, signed=False), tile)
        with b.if_(b.cmp("le", b.add(low, tile), extent)) as choice:
            self._piece(scope.child({lane: Lanes(low)}))
            choice.otherwise()
            mask = b.first_lanes(b.sub(extent, low), tile)
            self._piece(scope.child({lane: Lanes(low)}, mask))

    def _decode(self, index: Value, axes: Sequence[str]) -> dict[str, Value]:
        coordinates = {}
        for axis in reversed(axes[1:]):
            extent = self.top.extent(axis)
            coordinates[axis] = self.b.rem(index, extent, signed=False)
            index = self.b.div(index, extent, signed=False)
        if axes:
            coordinates[axes[0]] = index
        return coordinates

    def _piece(self, scope: Scope) -> None:
        zero = self.b.constant(0, value_type(self.scatter.dtype))
        self._everywhere(scope, list(self.scatter.along), zero)
        scope.hoist((*self.scatter.positions, self.scatter.arg), frozenset(self.scatter.over))
        self._positions(scope, list(self.scatter.over))

    def _everywhere(self, scope: Scope, axes: list[str], zero: Value) -> None:
        if not axes:
            for output in self.kernel.outputs:
                scope.write(output.buffer.name, output.buffer.dtype, output.buffer.axes, zero)
            return
        with self.b.loop(0, self.top.extent(axes[0])) as loop:
            self._everywhere(scope.child({axes[0]: loop.index}), axes[1:], zero)

    def _positions(self, scope: Scope, axes: list[str]) -> None:
        if not axes:
            self._add(scope)
            return
        with self.b.loop(0, self.top.extent(axes[0])) as loop:
            inner = scope.child({axes[0]: loop.index})
            inner.hoist((*self.scatter.positions, self.scatter.arg), frozenset(axes[1:]))
            self._positions(inner, axes[1:])

    def _add(self, scope: Scope) -> None:
        b = self.b
        places = {
            a: scope.evaluate(p) for a, p in zip(self.scatter.along, self.scatter.positions, strict=True)
        }
        inside: Value | None = None
        for axis, place in places.items():
            one = b.cmp("lt", place, self.top.extent(axis), signed=False)
            inside = one if inside is None else b.and_(inside, one)
        assert inside is not None
        with b.if_(inside):
            there = scope.child(places)
            value = scope.evaluate(self.scatter.arg)
            for output in self.kernel.outputs:
                buffer = output.buffer
                there.accumulate(buffer.name, buffer.dtype, buffer.axes, "add", value)
