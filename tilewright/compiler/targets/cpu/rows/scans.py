"""Scans: row loops that carry states from position to position, as MLIR.

lanes across rows (a parallel axis is contiguous): every lane carries the state of its own row

    for position of the row:     state = combine(state, x); …

lanes along the row: `lanes` rows go together. What a scan takes is computed in vectors along each row; a
square block of it is transposed in registers, so that a vector has one position of all rows, and back

    for block of positions:      columns = transpose(x of each row);  state = combine(state, column); …

Rows that are left over go alone: a vector is taken apart and put together again. In all cases a row is
combined position by position, in order, with the same operations: equal bits, however many rows there are.

An endless row (`layout.FEWEST` positions) always goes alone, in blocks of as many segments as there are
lanes, which go together as rows do: first every lane folds its segment, then what the folds add up to is
where the lanes begin to walk. How a row is cut depends on its extent alone, so these bits are equal, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tilewright.compiler.nest import Kernel, Phase
from tilewright.compiler.targets.cpu.builder import I64, Builder, Value
from tilewright.compiler.targets.cpu.coordinates import Lanes
from tilewright.compiler.targets.cpu.rows.folds import Totals
from tilewright.compiler.targets.cpu.rows.loops import RowLoops, shared_out
from tilewright.compiler.targets.cpu.schedule import Schedule
from tilewright.compiler.targets.cpu.scope import Scope
from tilewright.compiler.targets.cpu.spelling import from_memory, to_memory, value_type
from tilewright.dsl.dtypes import DType
from tilewright.dsl.program import Reduce, Scan, topological
from tilewright.dsl.scans import RIGHT, needed, placeholder, sides

States = list[Value]


@dataclass(frozen=True)
class Walk:
    """The scans of one loop that a phase needs: the values that are carried, the operands that are taken.

    bare: nothing comes before the first position, whose values are the state there. scan: any of the loop's.
    """

    scans: tuple[Scan, ...]
    states: tuple[int, ...]
    taken: tuple[int, ...]
    bare: bool
    scan: Scan

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
        return Walk(tuple(scans), states, tuple(sorted(taken)), not scans[0].exclusive, scans[0])

    def fold(self) -> Walk:
        """The walk of a part of the row by itself, whose end can stand on the right of a combine."""
        states = needed(self.scan.body, self.states)
        return Walk((), states, states, True, self.scan)

    def begin(self, b: Builder, lanes: int) -> States:
        """The states before the first position; a bare walk has none, any number does."""
        scan = self.scan
        numbers = [0 if self.bare else scan.initial[n].value for n in self.states]
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
        if not self.bare or first is None:
            return after
        return [scope.b.select(first, here[n], value) for n, value in zip(self.states, after, strict=True)]

    def seen(self, scan: Scan, before: States, after: States) -> Value:
        """What a scan has at a position between two states."""
        return (before if scan.exclusive else after)[self.states.index(scan.which)]


def one_position(scope: Scope, walks: Iterable[Walk], states: States, first: Value | None) -> States:
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


class ScanLoops(RowLoops):
    """Writes the body of a scan kernel for a range of work items."""

    def __init__(self, b: Builder, kernel: Kernel, schedule: Schedule, scope: Scope, workspace: Value):
        super().__init__(b, kernel, schedule, scope, workspace)
        (self.axis,) = kernel.row
        self.reverse = kernel.scans[0].reverse
        self.reductions = [r for phase in kernel.phases for r in phase.reductions]
        self.tile_rows = schedule.lanes
        self.scratch = b.alloca(max(1, len(self.reductions)) * self.tile_rows * 8)
        self.folds = b.alloca(max(len(scan.body) for scan in kernel.scans) * schedule.lanes * 8)

    def item(self, index: Value) -> None:
        if not self.lane_in_row:
            self._tile(index)
            return
        if self.schedule.segment:
            self._row_alone(self._row_scope(index))
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
        totals = Totals(b, phase.reductions, self.schedule.lanes)
        sums_so_far = totals.start() * len(scopes)
        states = [state for _ in scopes for walk in walks for state in walk.begin(b, self.schedule.lanes)]
        with b.loop(0, self.top.extent(self.axis), 1, [*sums_so_far, *states]) as loop:
            first = b.cmp("eq", loop.index, 0)
            place = self._place(loop.index)
            own = shared_out(loop.carried[: len(sums_so_far)], len(scopes))
            carried = shared_out(loop.carried[len(sums_so_far) :], len(scopes))
            ends: tuple[list[Value], list[Value]] = ([], [])
            for scope, sums, state in zip(scopes, own, carried, strict=True):
                inner = scope.child({self.axis: place})
                ends[1].extend(one_position(inner, walks, state, first))
                ends[0].extend(self._accumulate(inner, phase, totals, sums))
            loop.yield_(*ends[0], *ends[1])
        for scope, sums in zip(
            scopes, shared_out(loop.results[: len(sums_so_far)], len(scopes)), strict=True
        ):
            totals.finish(scope, sums, across=False)
            self._store(scope, phase.finals)

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
            scope.values[reduction] = self._load(self._slot(reduction, row), reduction.dtype)

    def _blocks(self, scopes: list[Scope], phase: Phase) -> None:
        """One row, or as many as there are lanes: whole blocks from the walk's start, then a masked one."""
        b, lanes = self.b, self.schedule.lanes
        walks = Walk.all_of(phase)
        for scope in scopes:
            scope.hoist(phase.roots, frozenset(self.kernel.row))
        wide = lanes if len(scopes) > 1 else 0
        totals = Totals(b, phase.reductions, lanes)
        states = [state for walk in walks for state in walk.begin(b, wide)]
        carried = [*(totals.start() * len(scopes)), *states]
        done = b.constant(0, I64)
        if self.schedule.segment:
            done, carried = self._segments(scopes[0], phase, walks, totals, carried)
        extent = self.top.extent(self.axis)
        whole = b.sub(extent, b.rem(extent, lanes, signed=False))
        for low, high, ragged in ((done, whole, False), (whole, extent, True)):
            with b.loop(low, high, lanes, carried) as loop:
                place = self._block_at(loop.index)
                mask = self._inside(place, extent) if ragged else None
                inner = [scope.child({self.axis: Lanes(place)}, mask) for scope in scopes]
                first = b.cmp("eq", loop.index, 0)
                results = self._block(inner, phase, walks, totals, loop.carried, first)
                loop.yield_(*results)
            carried = loop.results
        sums_at_end = carried[: totals.size * len(scopes)]
        for scope, sums in zip(scopes, shared_out(sums_at_end, len(scopes)), strict=True):
            totals.finish(scope, sums, across=True)
            self._store(scope, phase.finals)

    def _inside(self, place: Value, extent: Value) -> Value:
        """The lanes of the last block that have a position: below the extent, in reverse from 0 on."""
        b, lanes = self.b, self.schedule.lanes
        positions = b.add(place, b.iota(I64.vector(lanes)))
        return b.cmp("lt", positions, b.splat(extent, lanes), signed=False)

    def _block(
        self,
        scopes: list[Scope],
        phase: Phase,
        walks: Sequence[Walk],
        totals: Totals,
        carried: States,
        first: Value,
    ) -> States:
        count = len(scopes) * totals.size
        own, states = shared_out(carried[:count], len(scopes)), carried[count:]
        after: States = []
        for walk in walks:
            before, states = states[: len(walk.states)], states[len(walk.states) :]
            after.extend(self._through_block(scopes, walk, before, first))
        results = [
            self._accumulate(scope, phase, totals, sums) for scope, sums in zip(scopes, own, strict=True)
        ]
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
        for scan, values in found.items():  # a fold has none
            in_order = values[::-1] if self.reverse else values
            for scope, value in zip(scopes, self._rows(in_order, len(scopes)), strict=True):
                scope.values[scan] = value
        return states

    # --- lanes along parts of a long row ----------------------------------------------------------

    def _segments(
        self, scope: Scope, phase: Phase, walks: Sequence[Walk], totals: Totals, carried: States
    ) -> tuple[Value, States]:
        """Walk most of a row in blocks of `lanes` segments, a lane each; how far, and what is carried there.

        Each lane folds its segment by itself; what the folds add up to is where the lanes begin when they
        walk their segments once more, by then in the cache. The last block has shorter segments.
        """
        b, lanes, count = self.b, self.schedule.lanes, totals.size
        block, least = b.constant(self.schedule.segment * lanes, I64), b.constant(lanes * lanes, I64)
        extent = self.top.extent(self.axis)
        full = b.div(extent, block, signed=False)
        last = b.div(b.rem(extent, block, signed=False), least, signed=False)
        blocks = b.add(full, b.minimum(last, b.constant(1, I64)))
        with b.loop(0, blocks, 1, carried) as loop:
            start = b.mul(loop.index, block)
            is_full = b.cmp("lt", loop.index, full)
            segment = b.select(is_full, b.constant(self.schedule.segment, I64), b.mul(last, lanes))
            first = b.cmp("eq", loop.index, 0)
            states, begun, ends = loop.carried[count:], [], []
            for position, walk in enumerate(walks):
                before, states = states[: len(walk.states)], states[len(walk.states) :]
                fold = walk.fold()
                known = walks[:position]
                folds = self._walk_segments(scope, start, segment, known, begun, fold=fold)
                lane_states, end = self._lane_starts(scope, walk, fold, folds, before, first)
                begun.extend(lane_states)
                ends.extend(end)
            visit = partial(self._accumulate, phase=phase, totals=totals)
            sums = self._walk_segments(
                scope, start, segment, walks, begun, visit=visit, sums=loop.carried[:count]
            )
            loop.yield_(*sums, *ends)
        return b.add(b.mul(full, block), b.mul(last, least)), loop.results

    def _walk_segments(
        self,
        scope: Scope,
        start: Value,
        segment: Value,
        walks: Sequence[Walk],
        begun: States,
        fold: Walk | None = None,
        visit: Callable[..., States] | None = None,
        sums: Sequence[Value] = (),
    ) -> States:
        """Walk a block from where its lanes begin: the ends of a fold, or the sums that `visit` adds to."""
        b, lanes = self.b, self.schedule.lanes
        own = fold.begin(b, lanes) if fold else list(sums)
        with b.loop(0, segment, lanes, [*begun, *own]) as loop:
            steps = [b.add(b.add(start, b.mul(segment, lane)), loop.index) for lane in range(lanes)]
            scopes = [scope.child({self.axis: Lanes(self._block_at(step))}) for step in steps]
            offsets = b.mul(b.iota(I64.vector(lanes)), b.splat(segment, lanes))
            first = b.cmp("eq", b.add(offsets, b.splat(steps[0], lanes)), 0)
            states, own = loop.carried[: len(begun)], loop.carried[len(begun) :]
            ends: States = []
            for walk in walks:
                before, states = states[: len(walk.states)], states[len(walk.states) :]
                ends.extend(self._through_block(scopes, walk, before, first))
            if fold:
                own = self._through_block(scopes, fold, own, b.cmp("eq", loop.index, 0))
            if visit:
                for inner in scopes:
                    own = visit(inner, carried=own)
            loop.yield_(*ends, *own)
        return loop.results[len(begun) :]

    def _block_at(self, step: Value) -> Value:
        """The lowest position of the vector that the walk comes to after `step` positions."""
        if not self.reverse:
            return step
        return self.b.sub(self.b.sub(self.top.extent(self.axis), self.schedule.lanes), step)

    def _lane_starts(
        self, scope: Scope, walk: Walk, fold: Walk, folds: States, before: States, first: Value
    ) -> tuple[States, States]:
        """The states that each lane begins with, where the lane before it ends; and the last one's end."""
        b, lanes = self.b, self.schedule.lanes
        dtypes = {n: value.dtype for n, value in enumerate(walk.scan.body)}
        for n, value in zip(fold.states, folds, strict=True):
            b.store(to_memory(b, value, dtypes[n]), self._fold_of(n, 0, dtypes[n]))
        with b.loop(0, lanes, 1, before) as loop:
            places = {n: self._fold_of(n, loop.index, dtypes[n]) for n in fold.states}
            here = {n: self._load(place, dtypes[n]) for n, place in places.items()}
            for n, state in zip(walk.states, loop.carried, strict=True):
                b.store(to_memory(b, state, dtypes[n]), places[n])
            begins_row = b.select(b.cmp("eq", loop.index, 0), first, b.constant(False, first.type))
            loop.yield_(*walk.step(replace(scope, lanes=0), loop.carried, here, begins_row))
        starts = [self._load(self._fold_of(n, 0, dtypes[n]), dtypes[n], lanes) for n in walk.states]
        return starts, loop.results

    def _fold_of(self, value: int, lane: Value | int, dtype: DType) -> Value:
        """Where the fold of one value in one lane is kept, and then the state that the lane begins with."""
        b = self.b
        row = b.offset(self.folds, 8 * self.schedule.lanes * value)
        return b.offset(row, lane * dtype.itemsize if isinstance(lane, int) else b.mul(lane, dtype.itemsize))

    def _load(self, place: Value, dtype: DType, lanes: int = 0) -> Value:
        type = value_type(dtype, lanes)
        memory = type.of("i8") if dtype.is_bool else type
        return from_memory(self.b, self.b.load(place, memory), dtype)

    # --- rows and columns -------------------------------------------------------------------------

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
