"""Brief rows: as many as a vector has lanes are one work item, and are finished together.

    for each phase:
        for each row of the block:                vectors along the row; its states go to the stack
        join the states of all rows               one vector: a lane a row
        finish, store what is left                on that vector

The end of a row (the lanes of its states are joined, the result is stored, what follows it is computed) costs
a hundred cycles, as much as a thousand elements. Of sixteen rows together it costs little more than of one.
The numbers are those of rows one by one: lanes are joined in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.compiler.nest import Kernel, Phase, outermost
from tilewright.compiler.targets.cpu.builder import I64, Builder, Value
from tilewright.compiler.targets.cpu.coordinates import Lanes
from tilewright.compiler.targets.cpu.rows.folds import Totals
from tilewright.compiler.targets.cpu.rows.loops import Carried, RowLoops, loop_roots
from tilewright.compiler.targets.cpu.schedule import Schedule
from tilewright.compiler.targets.cpu.scope import Scope
from tilewright.compiler.targets.cpu.spelling import value_type
from tilewright.dsl.program import Node, Reduce, topological

PLACE = 128  # bytes of a vector on the stack: as many lanes of float32 may hold int64


@dataclass(frozen=True)
class Block:
    """Rows of one work item: the first, how many, the scope of what they share, and of all, a lane each."""

    first: Value
    count: Value
    shared: Scope
    lanes: Scope


class BriefRows(RowLoops):
    """Writes the body of a row kernel whose rows are brief."""

    def __init__(self, b: Builder, kernel: Kernel, schedule: Schedule, scope: Scope, workspace: Value):
        super().__init__(b, kernel, schedule, scope, workspace)
        self.axis = kernel.parallel[-1]
        self.places: dict[Node, Value] = {}  # of values of all rows, on the stack

    def item(self, index: Value) -> None:
        b, lanes = self.b, self.schedule.lanes
        extent = self.top.extent(self.axis)
        blocks = b.div(b.add(extent, lanes - 1), b.constant(lanes, I64), signed=False)
        shared = self.top.child(self._decode(b.div(index, blocks, signed=False), self.kernel.parallel[:-1]))
        first = b.mul(b.rem(index, blocks, signed=False), lanes)
        left = b.sub(extent, first)
        together = shared.child({self.axis: Lanes(first)}, b.first_lanes(left, lanes))
        block = Block(first, b.minimum(left, lanes), shared, together)
        for number, phase in enumerate(self.kernel.phases):
            self._phase_of(block, number, phase)

    def _phase_of(self, block: Block, number: int, phase: Phase) -> None:
        if phase.reductions or phase.stores:
            self._keep_for_rows(block, phase)
            totals = Totals(self.b, phase.reductions, self.schedule.lanes)
            states = self.b.alloca(max(1, totals.size) * self.schedule.lanes * PLACE)
            self._each_row(block, number, phase, totals, states)
            rows = [self._states(totals, states, row) for row in range(self.schedule.lanes)]
            totals.finish_each(block.lanes, rows)
        self._store(block.lanes, phase.finals)

    def _each_row(self, block: Block, number: int, phase: Phase, totals: Totals, states: Value) -> None:
        b = self.b
        with b.loop(0, block.count, unroll=False) as rows:
            scope = block.shared.child({self.axis: b.add(block.first, rows.index)})
            self._recall(scope, rows.index)
            self.keep.row = rows.index
            results = self._walk(scope, number, phase, totals)
            for n, state in enumerate(results):
                b.store(state, b.offset(states, b.add(b.mul(rows.index, totals.size * PLACE), n * PLACE)))

    def _walk(self, scope: Scope, number: int, phase: Phase, totals: Totals) -> Carried:
        """One row: the states of its reductions."""
        roots = loop_roots(phase)
        scope.hoist(roots, frozenset(self.kernel.row))
        if number == 0:
            self._ask_ahead(scope)

        streamed = self._streamed(number)

        def leaf(inner: Scope, carried: Carried, vector: int | None) -> Carried:
            self.keep.recall(inner, number)
            results = self._accumulate(inner, phase, totals, carried)
            self.keep.store(inner, number)
            self._ask_further_on(inner, streamed, vector or 0)
            return results

        return self._lane_loops(scope, self._whole_row(), totals, leaf, roots)

    def _ask_ahead(self, scope: Scope) -> None:
        """Ask for memory that is needed soon: masked loads, often all of a brief row, foresee nothing."""
        zero = self.b.constant(0, I64)
        start = scope.child({**dict.fromkeys(self.row, zero), self.schedule.lane_axis or "": Lanes(zero)})
        for read in self._row_reads:
            start.prefetch(read, self.axis)

    def _states(self, totals: Totals, states: Value, row: int) -> Carried:
        b = self.b
        return [
            b.load(b.offset(states, (row * totals.size + n) * PLACE), value.type)
            for n, value in enumerate(totals.start())
        ]

    # --- what later phases need of earlier ones -----------------------------------------------------

    def _keep_for_rows(self, block: Block, phase: Phase) -> None:
        """Compute on all rows at once what this phase needs of finished reductions, and leave it for each."""
        for node in self._finished(loop_roots(phase)):
            if node not in self.places:
                value = block.lanes.full(block.lanes.evaluate(node))
                self.places[node] = self.b.alloca(self.schedule.lanes * PLACE)
                self.b.store(value, self.places[node])

    def _finished(self, roots: Sequence[Node]) -> list[Node]:
        """The values without row axes that come from finished reductions; the last ones of each."""
        rows = set(self.kernel.row)

        def is_one(node: Node) -> bool:
            whole = self.axis in node.axes and not rows & set(node.axes) and not node.dtype.is_bool
            return whole and any(isinstance(n, Reduce) for n in topological([node]))

        return outermost(roots, is_one, Reduce)

    def _recall(self, scope: Scope, row: Value) -> None:
        b = self.b
        for node, place in self.places.items():
            type = value_type(node.dtype)
            scope.values[node] = b.load(b.offset(place, b.mul(row, type.bytes)), type)
