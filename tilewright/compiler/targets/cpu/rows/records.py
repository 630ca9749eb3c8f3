"""Records of a few fields beside planes: pixels of three colours, made of three images or taken apart.

    y[c, h, w] = f(x[h, w, c])        y[h, w, c] = f(x[c, h, w])

    for vectors of w:
        read the records of a vector: as many vectors as fields; pick each field's lanes from them
        for each field: evaluate, along w; store it, unless results are records
        lanes of all fields in turns: store the records

Memory is read and written as it lies, once. Field after field, records would be read as often as they have
fields; along the fields, vectors would be full to a part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from tilewright.compiler.nest import Kernel, reads_of
from tilewright.compiler.targets.cpu.builder import I64, STORAGE_FLOATS, Builder, Value
from tilewright.compiler.targets.cpu.coordinates import Flat, Lanes
from tilewright.compiler.targets.cpu.rows.loops import RowLoops
from tilewright.compiler.targets.cpu.schedule import Schedule, runs_on
from tilewright.compiler.targets.cpu.scope import Scope
from tilewright.dsl.axes import base

RECORDS = 1024  # of a work item


def work_items(kernel: Kernel, schedule: Schedule, extents: Mapping[str, int]) -> int:
    """Stretches of records at all other positions."""
    others = (axis for axis in kernel.parallel if axis not in (schedule.lane_axis, schedule.fields))
    records = extents[base(schedule.lane_axis or "")]
    return -(-records // RECORDS) * math.prod(extents[base(axis)] for axis in others)


class RecordLoops(RowLoops):
    """Writes the body of a pointwise kernel of records and planes."""

    def __init__(self, b: Builder, kernel: Kernel, schedule: Schedule, scope: Scope, workspace: Value):
        super().__init__(b, kernel, schedule, scope, workspace)
        assert schedule.lane_axis is not None and schedule.fields is not None
        self.lane, self.field, self.lanes = schedule.lane_axis, schedule.fields, schedule.lanes
        self.count = int(scope.layout.length(self.field))
        self.records = runs_on(kernel, scope.layout, self.lane, self.field)
        self.reads = [r for r in reads_of(kernel) if (r.param, r.names) in self.records]
        self.stores = kernel.phases[0].stores

    def item(self, index: Value) -> None:
        b = self.b
        extent = self.top.extent(self.lane)
        stretches = b.div(b.add(extent, RECORDS - 1), b.constant(RECORDS, I64), signed=False)
        low = b.mul(b.rem(index, stretches, signed=False), RECORDS)
        high = b.minimum(b.add(low, RECORDS), extent)
        others = [axis for axis in self.kernel.parallel if axis not in (self.lane, self.field)]
        scope = self.top.child(self._decode(b.div(index, stretches, signed=False), others))
        scope.hoist([output.node for output in self.stores], frozenset({self.lane, self.field}))
        rest = b.rem(b.sub(high, low), self.lanes, signed=False)
        whole = b.sub(high, rest)
        with b.loop(low, whole, self.lanes) as loop:
            self._vector(scope, loop.index, None)
        with b.if_(b.cmp("lt", whole, high)):
            self._vector(scope, whole, rest)

    def _vector(self, scope: Scope, first: Value, count: Value | None) -> None:
        """A vector of records, or so many of its lanes."""
        b = self.b
        mask = None if count is None else b.first_lanes(count, self.lanes)
        fields = [
            scope.child({self.lane: Lanes(first), self.field: b.constant(number, I64)}, mask)
            for number in range(self.count)
        ]
        parts = [self._part(scope, first, number, count) for number in range(self.count)]
        for read in self.reads:
            values = [self._as_bits(part.read(read)) for part in parts]
            kind = parts[0].read(read).type.kind
            for field, value in zip(fields, b.picked(values), strict=True):
                field.values[read] = b.bitcast(value, kind)
        for output in self.stores:
            name, dtype, axes = output.buffer.name, output.buffer.dtype, output.buffer.axes
            values = [field.full(field.evaluate(output.node)) for field in fields]
            if (name, axes) not in self.records:
                for field, value in zip(fields, values, strict=True):
                    field.write(name, dtype, axes, value)
                continue
            kind = values[0].type.kind
            for part, value in zip(parts, b.alternating([self._as_bits(v) for v in values]), strict=True):
                part.write(name, dtype, axes, b.bitcast(value, kind))

    def _part(self, scope: Scope, first: Value, number: int, count: Value | None) -> Scope:
        """The vector with this number of those that records lie in, from the first one on."""
        b = self.b
        mask = None
        if count is not None:
            left = b.sub(b.mul(count, self.count), number * self.lanes)
            mask = b.first_lanes(left, self.lanes)
        at = b.constant(number * self.lanes, I64)
        return replace(scope.child({}, mask), flat=Flat(self.lane, self.field, first, at, self.records))

    def _as_bits(self, value: Value) -> Value:
        """Numbers that are only stored have lanes of integers."""
        narrow = value.type.kind in STORAGE_FLOATS
        return self.b.bitcast(value, value.type.integer.kind) if narrow else value
