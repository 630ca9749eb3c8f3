"""A narrow last axis: vectors run on over its ends, into the next position of the axis outside of it.

    x(a, c), c = 0 … 2, in memory:    00 01 02 10 11 12 20 21 22 30 31 32 …       sixteen lanes, all at work

As many positions of the outer axis as there are lanes are a *block*: whole vectors, as many as the narrow
axis has positions, whatever that number is. What lies in memory like this is read and written as it lies;
what has only one of the axes is computed once, for a work item or a block, and spread over the lanes from the
stack.

    pointwise      for block: for vector of the block:           evaluate, store
    columns        for block: for vector of the block:           take the block's values into its states
                   for each column:                              join its states, finish, store what is left
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from tilewright.compiler.nest import Kernel, Phase, outermost, reads_of
from tilewright.compiler.targets.cpu.builder import I32, I64, Builder, Type, Value
from tilewright.compiler.targets.cpu.coordinates import Flat, Lanes
from tilewright.compiler.targets.cpu.frame import BLOCK_N
from tilewright.compiler.targets.cpu.layout import MOST_NARROW, VECTOR
from tilewright.compiler.targets.cpu.rows.folds import Totals
from tilewright.compiler.targets.cpu.rows.loops import RowLoops, loop_roots
from tilewright.compiler.targets.cpu.schedule import Schedule, runs_on
from tilewright.compiler.targets.cpu.scope import Scope
from tilewright.compiler.targets.cpu.spelling import value_type
from tilewright.dsl.axes import base
from tilewright.dsl.program import Index, Node, Reduce

ELEMENTS_AN_ITEM = 16384
BLOCKS_A_STEP = 8  # that states are taken from memory for
FRACTION = 16  # bits: positions of a block divide by the narrow extent as f · (2^16 / extent + 1) >> 16

Visit = Callable[[Scope, Value], None]
"""(scope of a vector, its first element counted from the block's) → nothing."""


def rows_an_item(schedule: Schedule, extents: Mapping[str, int]) -> int:
    """Positions of the outer axis in one work item of a pointwise kernel: whole blocks."""
    narrow = extents[base(schedule.lane_axis or "")]
    return max(1, ELEMENTS_AN_ITEM // (narrow * schedule.lanes)) * schedule.lanes


def work_items(kernel: Kernel, schedule: Schedule, extents: Mapping[str, int]) -> int:
    """Those of a pointwise kernel are pieces of the outer axis; columns are walked as a whole."""
    others = [a for a in kernel.parallel if a not in (schedule.outer, schedule.lane_axis)]
    items = math.prod(extents[base(axis)] for axis in others)
    if kernel.row:
        return items
    return items * -(-extents[base(schedule.outer or "")] // rows_an_item(schedule, extents))


class FlatLoops(RowLoops):
    """Writes the body of a pointwise or row kernel whose lane axis is narrow."""

    def __init__(
        self, b: Builder, kernel: Kernel, schedule: Schedule, scope: Scope, workspace: Value, frame: Value
    ):
        super().__init__(b, kernel, schedule, scope, workspace)
        assert schedule.lane_axis is not None and schedule.outer is not None
        self.inner, self.outer = schedule.lane_axis, schedule.outer
        self.lanes = schedule.lanes
        self.operands = runs_on(kernel, scope.layout, self.outer, self.inner)
        self.rows = b.load(b.offset(frame, 8 * BLOCK_N), I64)
        self.narrow = self.top.extent(self.inner)
        self.elements = b.mul(self.narrow, self.lanes)  # of a block
        self.steps: Value | None = None  # of each lane of a block along both axes, on the stack
        self.finished: dict[Reduce, Value] = {}  # results of earlier phases, on the stack
        self.spread: dict[Node, Value] = {}  # values without the outer axis, at each element of a block
        if self._needs_positions():
            self._write_steps()

    def item(self, index: Value) -> None:
        b = self.b
        others = [a for a in self.kernel.parallel if a not in (self.inner, self.outer)]
        if self.kernel.row:
            self._columns(self.top.child(self._decode(index, others)))
            return
        extent = self.top.extent(self.outer)
        pieces = b.div(b.add(extent, b.sub(self.rows, 1)), self.rows, signed=False)
        low = b.mul(b.rem(index, pieces, signed=False), self.rows)
        high = b.minimum(b.add(low, self.rows), extent)
        scope = self.top.child(self._decode(b.div(index, pieces, signed=False), others))
        roots = [output.node for output in self.kernel.outputs]
        scope.hoist(roots, frozenset({self.inner, self.outer}))
        self._spread_inner(scope, roots)
        with b.loop(low, high, self.lanes) as loop:
            self._vectors(scope, loop.index, high, roots, lambda inner, _: self._store_all(inner))

    def _store_all(self, scope: Scope) -> None:
        self._store(scope, self.kernel.phases[0].stores)

    # --- where lanes are --------------------------------------------------------------------------

    def _needs_positions(self) -> bool:
        """Whether anything is looked at that does not lie as the lanes run."""
        axes = {self.inner, self.outer}
        lying = all((r.param, r.names) in self.operands for r in reads_of(self.kernel) if axes & set(r.names))
        asked = len(self.kernel.phases) > 1 or any(isinstance(n, Index) for n in self.kernel.nodes())
        return not lying or asked

    def _write_steps(self) -> None:
        """How far each element of a block is along the outer axis, and along the inner one."""
        b, lanes = self.b, self.lanes
        size = 8 * MOST_NARROW * lanes
        self.steps = b.alloca(2 * size)
        one = b.add(b.div(b.constant(1 << FRACTION, I64), self.narrow, signed=False), 1)
        reciprocal = b.splat(b.convert(one, "i32"), lanes)
        extent = b.splat(b.convert(self.narrow, "i32"), lanes)
        with b.loop(0, self.elements, lanes) as loop:
            element = b.add(b.splat(b.convert(loop.index, "i32"), lanes), b.iota(I32.vector(lanes)))
            row = b.shr(b.mul(element, reciprocal), FRACTION, signed=False)
            column = b.sub(element, b.mul(row, extent))
            at = b.offset(self.steps, b.mul(loop.index, 8))
            b.store(b.convert(row, "i64"), at)
            b.store(b.convert(column, "i64"), b.offset(at, size))

    def _step(self, at: Value, along: str) -> Value:
        """How far the lanes of the vector at an element of a block are along an axis."""
        b = self.b
        assert self.steps is not None
        start = 0 if along == self.outer else 8 * MOST_NARROW * self.lanes
        return b.load(b.offset(self.steps, b.add(b.mul(at, 8), start)), I64.vector(self.lanes))

    def _place(self, scope: Scope, row: Value, at: Value, mask: Value | None) -> Scope:
        """The scope of the vector at an element of the block that begins at a row."""
        b = self.b
        coordinates = {}
        if self.steps is not None:
            steps = self._step(at, self.outer)
            coordinates[self.outer] = Lanes(positions=b.add(b.splat(row, self.lanes), steps))
            coordinates[self.inner] = Lanes(positions=self._step(at, self.inner))
        else:
            coordinates[self.outer], coordinates[self.inner] = row, Lanes(at)
        inner = scope.child(coordinates, mask)
        inner.flat = Flat(self.outer, self.inner, row, at, self.operands)
        return inner

    def _vectors(self, scope: Scope, row: Value, high: Value, roots: Sequence[Node], visit: Visit) -> None:
        """The vectors of the block at a row, of which no more than up to `high` is there."""
        b, lanes = self.b, self.lanes
        count = b.mul(b.minimum(b.sub(high, row), lanes), self.narrow)
        whole = b.sub(count, b.rem(count, lanes, signed=False))
        outside = self._spread_outer(scope, row, high, roots)
        for low, end, ragged in ((b.constant(0, I64), whole, False), (whole, count, True)):
            with b.loop(low, end, lanes) as loop:
                mask = b.first_lanes(b.sub(count, loop.index), lanes) if ragged else None
                inner = self._place(scope, row, loop.index, mask)
                self._recall(inner, loop.index, outside)
                visit(inner, loop.index)

    # --- values with one of the axes --------------------------------------------------------------

    def _spread_inner(self, scope: Scope, roots: Sequence[Node]) -> None:
        """Compute what has no outer axis once, at each element of a block."""
        b = self.b
        nodes = [n for n in self._with_one(roots, self.inner, self.outer) if n not in self.spread]
        for node in nodes:
            self.spread[node] = b.alloca(MOST_NARROW * self.lanes * value_type(node.dtype).bytes)
        if not nodes:
            return
        zero = b.constant(0, I64)
        with b.loop(0, self.elements, self.lanes) as loop:
            inner = self._place(scope, zero, loop.index, None)
            self._recall_finished(inner, loop.index)
            for node in nodes:
                value = inner.full(inner.evaluate(node))
                b.store(value, b.offset(self.spread[node], b.mul(loop.index, value.type.bytes)))

    def _recall_finished(self, scope: Scope, at: Value) -> None:
        """Results of finished phases, which lie a column each."""
        for node, place in self.finished.items():
            type = value_type(node.dtype, self.lanes)
            scope.values[node] = self.b.gather(
                place, self.b.mul(self._step(at, self.inner), type.bytes), type
            )

    def _spread_outer(
        self, scope: Scope, row: Value, high: Value, roots: Sequence[Node]
    ) -> dict[Node, Value]:
        """Compute what has no inner axis at each row of a block; where on the stack it lies."""
        b = self.b
        places = {}
        together = scope.child({self.outer: Lanes(row)}, b.first_lanes(b.sub(high, row), self.lanes))
        for node in self._with_one(roots, self.outer, self.inner):
            value = together.full(together.evaluate(node))
            places[node] = b.alloca((self.lanes + 1) * value.type.bytes)
            b.store(value, places[node])
        return places

    def _with_one(self, roots: Sequence[Node], axis: str, other: str) -> list[Node]:
        """The values that have one of the two axes, the last ones of each."""

        def is_one(node: Node) -> bool:
            return axis in node.axes and other not in node.axes and not node.dtype.is_bool

        return outermost(roots, is_one, Reduce)

    def _recall(self, scope: Scope, at: Value, outside: Mapping[Node, Value]) -> None:
        b = self.b
        for node, place in self.spread.items():
            type = value_type(node.dtype, self.lanes)
            scope.values[node] = b.load(b.offset(place, b.mul(at, type.bytes)), type)
        for node, place in outside.items():
            scope.values[node] = self._at_rows(place, value_type(node.dtype, self.lanes), at)

    def _at_rows(self, place: Value, type: Type, at: Value) -> Value:
        """To each lane of the vector at an element of a block the value of its row."""
        b = self.b
        steps = self._step(at, self.outer)
        if self.top.layout.length(self.inner) == VECTOR:  # at most two rows
            first = b.extract(steps, 0)
            low, high = (
                b.load(b.offset(place, b.mul(n, type.bytes)), type.scalar) for n in (first, b.add(first, 1))
            )
            return b.select(b.cmp("eq", steps, b.splat(first, self.lanes)), b.splat(low, self.lanes), high)
        if b.target.has_avx512 and type.bits * self.lanes == b.target.vector_bits:
            kind = f"{'s' if type.bits == 32 else 'd'}{'f' if type.is_float else 'i'}"
            index = b.convert(steps, f"i{type.bits}")
            return b.intrinsic(f"llvm.x86.avx512.permvar.{kind}.512", [b.load(place, type), index], type)
        return b.gather(place, b.mul(steps, type.bytes), type)

    # --- columns ------------------------------------------------------------------------------------

    def _columns(self, scope: Scope) -> None:
        for phase in self.kernel.phases:
            totals = Totals(self.b, phase.reductions, self.lanes)
            roots = loop_roots(phase)
            scope.hoist(roots, frozenset({self.inner, self.outer}))
            self._spread_inner(scope, roots)
            states = States(self, totals)
            if roots:
                states.start()
                self._all_rows(scope, phase, roots, states)
            self._finish_columns(scope, phase, states)

    def _all_rows(self, scope: Scope, phase: Phase, roots: Sequence[Node], states: States) -> None:
        """All blocks of the row, several a step where there are as many."""
        b, lanes = self.b, self.lanes
        extent = self.top.extent(self.outer)
        several = BLOCKS_A_STEP * lanes
        whole = b.sub(extent, b.rem(extent, several, signed=False))
        with b.loop(0, whole, several) as loop:
            rows = [b.add(loop.index, n * lanes) for n in range(BLOCKS_A_STEP)]
            outside = [self._spread_outer(scope, row, extent, roots) for row in rows]
            with b.loop(0, self.elements, lanes) as inner:
                carried = states.at(inner.index)
                for row, places in zip(rows, outside, strict=True):
                    place = self._place(scope, row, inner.index, None)
                    self._recall(place, inner.index, places)
                    carried = self._accumulate(place, phase, states.totals, carried)
                states.put(carried, inner.index)

        def visit(place: Scope, at: Value) -> None:
            states.put(self._accumulate(place, phase, states.totals, states.at(at)), at)

        with b.loop(whole, extent, lanes) as rest:
            self._vectors(scope, rest.index, extent, roots, visit)

    def _finish_columns(self, scope: Scope, phase: Phase, states: States) -> None:
        b = self.b
        with b.loop(0, self.narrow, self.lanes) as loop:
            column = scope.child(
                {self.inner: Lanes(loop.index)}, b.first_lanes(b.sub(self.narrow, loop.index), self.lanes)
            )
            for node, place in self.finished.items():
                type = value_type(node.dtype, self.lanes)
                column.values[node] = b.load(b.offset(place, b.mul(loop.index, type.bytes)), type)
            states.totals.finish(column, states.joined(loop.index), across=False)
            for reduction in phase.reductions:
                value = column.values[reduction]
                place = self.finished[reduction] = b.alloca((MOST_NARROW + self.lanes) * value.type.bytes)
                b.store(value, b.offset(place, b.mul(loop.index, value.type.bytes)))
            self._store(column, phase.finals)


class States:
    """The states of a phase's reductions at each element of a block, on the stack."""

    def __init__(self, loops: FlatLoops, totals: Totals):
        self.b, self.loops, self.totals = loops.b, loops, totals
        size = (MOST_NARROW + 1) * loops.lanes  # a vector may begin at the last element
        self.places = [(self.b.alloca(size * v.type.bytes), v.type) for v in totals.start()]

    def start(self) -> None:
        with self.b.loop(0, self.loops.elements, self.loops.lanes) as loop:
            self.put(self.totals.start(), loop.index)

    def at(self, element: Value) -> list[Value]:
        return [
            self.b.load(self.b.offset(place, self.b.mul(element, type.bytes)), type)
            for place, type in self.places
        ]

    def put(self, values: Sequence[Value], element: Value) -> None:
        for value, (place, type) in zip(values, self.places, strict=True):
            self.b.store(value, self.b.offset(place, self.b.mul(element, type.bytes)))

    def joined(self, column: Value) -> list[Value]:
        """Those of some columns, of all rows of the block."""
        b = self.b
        with b.loop(1, self.loops.lanes, 1, self.at(column)) as rows:
            other = self.at(b.add(b.mul(rows.index, self.loops.narrow), column))
            rows.yield_(*self.totals.join(rows.carried, other))
        return rows.results
