"""Scans: row loops that carry states from position to position, as MLIR.

lanes across rows (a parallel axis is contiguous): every lane carries the state of its own row

    for position of the row:     state = combine(state, x); …

lanes along the row: `lanes` rows go together. What a scan takes is computed in vectors along each row; a
square block of it is transposed in registers, so that a vector has one position of all rows, and back

    for block of positions:      columns = transpose(x of each row);  state = combine(state, column); …

Rows that are left over go alone: a vector is taken apart and put together again. In all cases a row is
combined position by position, in order, with the same operations: equal bits, however many rows there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tilewright.compiler.nest import Kernel, Phase
from tilewright.compiler.targets.cpu.builder import I64, Builder, Value
from tilewright.compiler.targets.cpu.loops import RowLoops
from tilewright.compiler.targets.cpu.schedule import Schedule
from tilewright.compiler.targets.cpu.scope import Lanes, Scope
from tilewright.compiler.targets.cpu.spelling import from_memory, to_memory, value_type
from tilewright.dsl.program import Reduce, Scan, topological
from tilewright.dsl.scans import RIGHT, needed, placeholder, sides

States = list[Value]


@dataclass(frozen=True)
class Walk:
    """The scans of one loop that a phase needs: the values that are carried, the operands that are taken."""

    scans: tuple[Scan, ...]
    states: tuple[int, ...]
    taken: tuple[int, ...]

    @property
    def scan(self) -> Scan:
        return self.scans[0]

    @staticmethod
    def all_of(phase: Phase) -> tuple[Walk, ...]:
        """Operands before users: a scan may take what another one gives."""
        loops: dict[tuple, list[Scan]] = {}
        for scan in phase.scans:
            loops.setdefault(scan.loop, []).append(scan)
        return tuple(Walk.of(scans) for scans in loops.values())

    @staticmethod
    def of(scans: Sequence[Scan]) -> Walk:
        body = scans[0].body
        states = needed(body, [s.which for s in scans], both_sides=False)
        marks = [placeholder(node) for node in topological(body[n] for n in states)]
        taken = {mark[1] for mark in marks if mark and mark[0] == RIGHT}
        if not scans[0].exclusive:
            taken |= set(states)  # the first position is the state as it is
        return Walk(tuple(scans), states, tuple(sorted(taken)))

    def begin(self, b: Builder, lanes: int) -> States:
        """The states before the first position; an inclusive scan has none, any number does."""
        scan = self.scan
        numbers = [scan.initial[n].value if scan.exclusive else 0 for n in self.states]
        types = [value_type(scan.body[n].dtype, lanes) for n in self.states]
        return [b.constant(number, type) for number, type in zip(numbers, types, strict=True)]

    def step(self, scope: Scope, states: States, here: dict[int, Value], first: Value | None) -> States:
        """The states after one position. `first` says whether it is the first one, None that it is not."""
        scan = self.scan
        lefts, rights = sides(scan.body)
        values = {lefts[n]: state for n, state in zip(self.states, states, strict=True)}
        values |= {rights[n]: value for n, value in here.items()}
        inside = replace(scope, values=values)
        after = [inside.full(inside.evaluate(scan.body[n])) for n in self.states]
        if scan.exclusive or first is None:
            return after
        return [scope.b.select(first, here[n], value) for n, value in zip(self.states, after, strict=True)]

    def seen(self, scan: Scan, before: States, after: States) -> Value:
        """What a scan has at a position between two states."""
        return (before if scan.exclusive else after)[self.states.index(scan.which)]


class ScanLoops(RowLoops):
    """Writes the body of a scan kernel for a range of work items."""

    def __init__(self, b: Builder, kernel: Kernel, schedule: Schedule, scope: Scope, workspace: Value):
        super().__init__(b, kernel, schedule, scope, workspace)
        (self.axis,) = kernel.row
        self.reverse = kernel.scans[0].reverse
        self.reductions = [r for phase in kernel.phases for r in phase.reductions]
        self.tile_rows = schedule.lanes
        self.scratch = b.alloca(max(1, len(self.reductions)) * self.tile_rows * 8)

    def item(self, index: Value) -> None:
        if not self.lane_in_row:
            self._tile(index)
            return
        b = self.b
        rows = b.constant(1, I64)
        for axis in self.kernel.parallel:
            rows = b.mul(rows, self.top.extent(axis))
        low = b.mul(index, self.tile_rows)
        high = b.minimum(b.add(low, self.tile_rows), rows)
        with b.if_(b.cmp("eq", b.sub(high, low), self.tile_rows)) as choice:
            self._rows_together(low)
            choice.otherwise()
            with b.loop(low, high) as rest:
                self._row_alone(self._row_scope(rest.index))

    def _row_scope(self, row: Value) -> Scope:
        return self.top.child(self._decode(row, self.kernel.parallel))

    def _place(self, step: Value) -> Value:
        """The position that the walk comes to after `step` others."""
        if not self.reverse:
            return step
        return self.b.sub(self.b.sub(self.top.extent(self.axis), 1), step)

    # --- lanes across rows ------------------------------------------------------------------------

    def _phase_across(self, scopes: list[Scope], phase: Phase) -> None:
        if not phase.scans:
            super()._phase_across(scopes, phase)
            return
        b, walks = self.b, Walk.all_of(phase)
        for scope in scopes:
            scope.hoist(phase.roots, frozenset(self.kernel.row))
        totals = [self._identity(r, wide=True) for _ in scopes for r in phase.reductions]
        states = [state for _ in scopes for walk in walks for state in walk.begin(b, self.schedule.lanes)]
        with b.loop(0, self.top.extent(self.axis), 1, [*totals, *states]) as loop:
            first = b.cmp("eq", loop.index, 0)
            place = self._place(loop.index)
            own = _shared_out(loop.carried[: len(totals)], len(scopes))
            carried = _shared_out(loop.carried[len(totals) :], len(scopes))
            ends: tuple[list[Value], list[Value]] = ([], [])
            for scope, sums, state in zip(scopes, own, carried, strict=True):
                inner = scope.child({self.axis: place})
                ends[1].extend(self._one_position(inner, walks, state, first))
                ends[0].extend(self._accumulate(inner, phase, sums))
            loop.yield_(*ends[0], *ends[1])
        for scope, sums in zip(scopes, _shared_out(loop.results[: len(totals)], len(scopes)), strict=True):
            scope.values.update(zip(phase.reductions, sums, strict=True))
            self._store(scope, phase.finals)

    def _one_position(
        self, scope: Scope, walks: Iterable[Walk], states: States, first: Value | None
    ) -> States:
        """The states after one position; what the scans have there is known in the scope from now on."""
        after_all: States = []
        for walk in walks:
            before, states = states[: len(walk.states)], states[len(walk.states) :]
            here = {n: scope.full(scope.evaluate(walk.scan.operands[n])) for n in walk.taken}
            after = walk.step(scope, before, here, first)
            for scan in walk.scans:
                scope.values[scan] = walk.seen(scan, before, after)
            after_all.extend(after)
        return after_all

    # --- lanes along the row ----------------------------------------------------------------------

    def _row_alone(self, scope: Scope) -> None:
        for number, phase in enumerate(self.kernel.phases):
            if phase.scans:
                self._blocks([scope], phase)
            else:
                self._phase_along(scope, number, phase, self._whole_row())

    def _rows_together(self, low: Value) -> None:
        """A phase without scans goes row by row; what it reduces to waits in `scratch`."""
        b = self.b
        scopes = [self._row_scope(b.add(low, row)) for row in range(self.tile_rows)]
        done: list[Reduce] = []
        for number, phase in enumerate(self.kernel.phases):
            if phase.scans:
                for row, scope in enumerate(scopes):
                    self._recall(scope, done, b.constant(row, I64))
                self._blocks(scopes, phase)
                for row, scope in enumerate(scopes):
                    self._keep(scope, phase.reductions, b.constant(row, I64))
            else:
                with b.loop(0, self.tile_rows) as loop:
                    scope = self._row_scope(b.add(low, loop.index))
                    self._recall(scope, done, loop.index)
                    self._phase_along(scope, number, phase, self._whole_row())
                    self._keep(scope, phase.reductions, loop.index)
            done.extend(phase.reductions)

    def _slot(self, reduction: Reduce, row: Value) -> Value:
        start = 8 * self.tile_rows * self.reductions.index(reduction)
        return self.b.offset(self.scratch, self.b.add(self.b.mul(row, 8), start))

    def _keep(self, scope: Scope, reductions: Iterable[Reduce], row: Value) -> None:
        for reduction in reductions:
            value = to_memory(self.b, scope.values[reduction], reduction.dtype)
            self.b.store(value, self._slot(reduction, row))

    def _recall(self, scope: Scope, reductions: Iterable[Reduce], row: Value) -> None:
        for reduction in reductions:
            type = value_type(reduction.dtype)
            memory = type.of("i8") if reduction.dtype.is_bool else type
            value = self.b.load(self._slot(reduction, row), memory)
            scope.values[reduction] = from_memory(self.b, value, reduction.dtype)

    def _blocks(self, scopes: list[Scope], phase: Phase) -> None:
        """One row, or as many as there are lanes: whole blocks from the walk's start, then a masked one."""
        b, lanes = self.b, self.schedule.lanes
        walks = Walk.all_of(phase)
        for scope in scopes:
            scope.hoist(phase.roots, frozenset(self.kernel.row))
        wide = lanes if len(scopes) > 1 else 0
        totals = [self._identity(r, wide=True) for _ in scopes for r in phase.reductions]
        states = [state for walk in walks for state in walk.begin(b, wide)]
        carried = [*totals, *states]
        extent = self.top.extent(self.axis)
        whole = b.sub(extent, b.rem(extent, lanes, signed=False))
        for low, high, ragged in ((b.constant(0, I64), whole, False), (whole, extent, True)):
            with b.loop(low, high, lanes, carried) as loop:
                place = loop.index
                if self.reverse:
                    place = b.sub(b.sub(extent, lanes), loop.index)
                mask = self._inside(place, extent) if ragged else None
                inner = [scope.child({self.axis: Lanes(place)}, mask) for scope in scopes]
                first = b.cmp("eq", loop.index, 0)
                results = self._block(inner, phase, walks, loop.carried, first)
                loop.yield_(*results)
            carried = loop.results
        for scope, sums in zip(scopes, _shared_out(carried[: len(totals)], len(scopes)), strict=True):
            for reduction, value in zip(phase.reductions, sums, strict=True):
                scope.values[reduction] = self._horizontal(reduction, value)
            self._store(scope, phase.finals)

    def _inside(self, place: Value, extent: Value) -> Value:
        """The lanes of the last block that have a position: below the extent, in reverse from 0 on."""
        b, lanes = self.b, self.schedule.lanes
        positions = b.add(place, b.iota(I64.vector(lanes)))
        return b.cmp("lt", positions, b.splat(extent, lanes), signed=False)

    def _block(
        self, scopes: list[Scope], phase: Phase, walks: Sequence[Walk], carried: States, first: Value
    ) -> States:
        count = len(scopes) * len(phase.reductions)
        own, states = _shared_out(carried[:count], len(scopes)), carried[count:]
        after: States = []
        for walk in walks:
            before, states = states[: len(walk.states)], states[len(walk.states) :]
            after.extend(self._through_block(scopes, walk, before, first))
        results = [self._accumulate(scope, phase, sums) for scope, sums in zip(scopes, own, strict=True)]
        return [*(value for sums in results for value in sums), *after]

    def _through_block(self, scopes: list[Scope], walk: Walk, states: States, first: Value) -> States:
        """A block of positions, one after the other; the scans' values go back to the rows' scopes."""
        lanes = self.schedule.lanes
        columns = {n: self._columns([s.evaluate(walk.scan.operands[n]) for s in scopes]) for n in walk.taken}
        found: dict[Scan, list[Value]] = {scan: [] for scan in walk.scans}
        place = scopes[0] if len(scopes) > 1 else replace(scopes[0], lanes=0)
        order = list(range(lanes))[:: -1 if self.reverse else 1]
        for lane in order:
            here = {n: column[lane] for n, column in columns.items()}
            before, states = states, walk.step(place, states, here, first if lane == order[0] else None)
            for scan in walk.scans:
                found[scan].append(walk.seen(scan, before, states))
        for scan, values in found.items():
            in_order = values[::-1] if self.reverse else values
            for scope, value in zip(scopes, self._rows(in_order, len(scopes)), strict=True):
                scope.values[scan] = value
        return states

    def _columns(self, rows: list[Value]) -> list[Value]:
        """The values of each position: of one row as numbers, of several as vectors across them."""
        b, lanes = self.b, self.schedule.lanes
        if len(rows) == 1:
            (row,) = rows
            return [b.extract(row, lane) if row.lanes else row for lane in range(lanes)]
        if all(row.lanes for row in rows):
            return self._transposed(rows)
        return [self._together(rows)] * lanes  # a number for each row, the same at all positions

    def _together(self, numbers: list[Value]) -> Value:
        """Numbers as a vector, one a lane."""
        vector = self.b.splat(numbers[0], self.schedule.lanes)
        for lane, number in enumerate(numbers[1:], start=1):
            vector = self.b.insert(vector, number, lane)
        return vector

    def _rows(self, columns: list[Value], count: int) -> list[Value]:
        """The vectors along each row of what was combined position by position."""
        return self._transposed(columns) if count > 1 else [self._together(columns)]

    def _transposed(self, vectors: list[Value]) -> list[Value]:
        b = self.b
        if vectors[0].type.kind != "i1":
            return b.transpose(vectors)
        wide = b.transpose([b.convert(v, "i32", signed=False) for v in vectors])
        return [b.cmp("ne", v, 0) for v in wide]


def _shared_out(values: Sequence[Value], parts: int) -> list[list[Value]]:
    """Values in equal parts, one for each row."""
    size = len(values) // parts
    return [list(values[part * size : (part + 1) * size]) for part in range(parts)]
