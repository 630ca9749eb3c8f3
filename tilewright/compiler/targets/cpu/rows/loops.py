"""Loops: pointwise and row kernels as MLIR.

    for item in the thread's range:                       a tile of the lane axis, a row, or a chunk of rows
        for each phase:
            for the row axes:                             vectors along the lane axis, `unroll` of them a step
                evaluate, accumulate, store
            finish the reductions, store what is left

The lane axis is a row axis (a row's elements lie side by side: reductions end in a horizontal step) or a
parallel one (neighbouring rows lie side by side: every lane reduces its own row). Ragged ends run masked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tilewright.compiler.nest import Kernel, Output, Phase, evaluated, reads_of
from tilewright.compiler.targets.cpu.builder import I64, Builder, Value
from tilewright.compiler.targets.cpu.coordinates import Lanes
from tilewright.compiler.targets.cpu.layout import BRIEF
from tilewright.compiler.targets.cpu.rows.folds import Totals
from tilewright.compiler.targets.cpu.rows.keep import Keep, kept_nodes
from tilewright.compiler.targets.cpu.schedule import Schedule
from tilewright.compiler.targets.cpu.scope import Scope
from tilewright.compiler.targets.cpu.spelling import COMBINE_STEPS, value_type
from tilewright.compiler.targets.cpu.toolchain import PAGE
from tilewright.dsl.program import Node, Read, Reduce, combine_identity

CACHE_LINE = 64

Carried = list[Value]
Leaf = Callable[[Scope, Carried, int | None], Carried]
"""(scope of a vector, what is carried, which vector of a step it is or None in a ragged end) → carried."""


class RowLoops:
    """Writes the body of a pointwise or row kernel for a range of work items."""

    def __init__(self, b: Builder, kernel: Kernel, schedule: Schedule, scope: Scope, workspace: Value):
        self.b = b
        self.kernel = kernel
        self.schedule = schedule
        self.top = scope
        self.workspace = workspace
        self.lane_in_row = schedule.lane_axis in kernel.row
        self.row = tuple(a for a in kernel.row if a != schedule.lane_axis)
        self._row_reads = [r for r in reads_of(kernel) if schedule.lane_axis in r.names]
        kept = kept_nodes(kernel) if self.lane_in_row else {}
        self.keep = Keep(b, (*self.row, schedule.lane_axis or ""), kept, workspace, scope)

    def item(self, index: Value) -> None:
        """Everything that one work item does."""
        split = self.kernel.split
        if split and split.of == "parallel":
            self._chunk_of_rows(index)
        elif split and split.of == "row":
            self._chunk_of_one_row(index)
        elif self.lane_in_row or self.schedule.lane_axis is None:
            coordinates = self._decode(index, self.kernel.parallel)
            self._phases(self.top.child(coordinates), self._whole_row())
        else:
            self._tile(index)

    # --- work items -------------------------------------------------------------------------------

    def _decode(self, index: Value, axes: Sequence[str]) -> dict[str, Value]:
        """The coordinates of a flat position, the last axis fastest."""
        coordinates = {}
        for axis in reversed(axes[1:]):
            extent = self.top.extent(axis)
            coordinates[axis] = self.b.rem(index, extent, signed=False)
            index = self.b.div(index, extent, signed=False)
        if axes:
            coordinates[axes[0]] = index
        return coordinates

    def _whole_row(self) -> dict[str, tuple[Value, Value]]:
        zero = self.b.constant(0, I64)
        return {axis: (zero, self.top.extent(axis)) for axis in self.kernel.row}

    def _chunk(self, index: Value, total: Value, chunks: Value) -> tuple[Value, Value]:
        low = self.b.div(self.b.mul(total, index), chunks, signed=False)
        high = self.b.div(self.b.mul(total, self.b.add(index, 1)), chunks, signed=False)
        return low, high

    def _chunk_of_one_row(self, index: Value) -> None:
        split = self.kernel.split
        assert split is not None
        axis = self.row[0] if self.row else self.kernel.row[0]
        ranges = self._whole_row()
        here = self._decode(index, self.kernel.parallel)
        low, high = self._chunk(here[split.axis], self.top.extent(axis), self.top.extent(split.axis))
        if axis == self.schedule.lane_axis:  # whole vectors of an operand at a cache line are whole lines
            low = self._whole_vectors(low)
            last = self.b.cmp("eq", high, self.top.extent(axis))
            high = self.b.select(last, high, self._whole_vectors(high))
        ranges[axis] = low, high
        self._phases(self.top.child(here), ranges)

    def _whole_vectors(self, position: Value) -> Value:
        return self.b.sub(position, self.b.rem(position, self.schedule.lanes, signed=False))

    def _chunk_of_rows(self, index: Value) -> None:
        split = self.kernel.split
        assert split is not None
        chunk = self.top.child({split.axis: index})
        partial = [o for o in self.kernel.outputs if o.accumulate]
        self._fill(chunk, partial)
        total = self.b.constant(1, I64)
        for axis in self.kernel.parallel:
            total = self.b.mul(total, self.top.extent(axis))
        low, high = self._chunk(index, total, self.top.extent(split.axis))
        with self.b.loop(low, high) as rows:
            coordinates = self._decode(rows.index, self.kernel.parallel)
            self._phases(chunk.child(coordinates), self._whole_row())

    def _fill(self, scope: Scope, outputs: list[Output]) -> None:
        """Start partial results at the identity of their combine."""

        def leaf(inner: Scope, carried: Carried, _: int | None) -> Carried:
            for output in outputs:
                buffer = output.buffer
                identity = combine_identity(output.accumulate or "sum", buffer.dtype)
                value = self.b.constant(identity, value_type(buffer.dtype))
                inner.cached().write(buffer.name, buffer.dtype, buffer.axes, value)
            return carried

        self._lane_loops(scope, self._whole_row(), Totals(self.b, (), 0), leaf)

    def _tile(self, index: Value) -> None:
        """A tile of the lane axis, which is a parallel axis."""
        b, axis, tile = self.b, self.schedule.lane_axis, self.schedule.tile
        assert axis is not None
        extent = self.top.extent(axis)
        tiles = b.div(b.add(extent, tile - 1), b.constant(tile, I64), signed=False)
        position = b.rem(index, tiles, signed=False)
        index = b.div(index, tiles, signed=False)
        others = [a for a in self.kernel.parallel if a != axis]
        low = b.mul(position, tile)
        high = b.minimum(b.add(low, tile), extent)
        if not self.kernel.row:
            self._pointwise(index, others, low, high)
            return
        scope = self.top.child(self._decode(index, others))
        full = b.cmp("eq", b.sub(high, low), tile)
        with b.if_(full) as choice:
            self._lane_rows(scope, low, None)
            choice.otherwise()
            self._lane_rows(scope, low, high)

    def _pointwise(self, index: Value, others: Sequence[str], low: Value, high: Value) -> None:
        """A tile of the lane axis, of as many positions of the next axis as fill it."""
        b, axis = self.b, self.schedule.lane_axis or ""
        stores = self.kernel.phases[0].stores
        roots = [o.node for o in stores]
        far = self.schedule.stream or self.top.layout.far  # else it may be in the last cache
        streamed = self._streamed(0) if far else []

        def leaf(inner: Scope, carried: Carried, vector: int | None) -> Carried:
            self._store(inner, stores)
            self._ask_further_on(inner, streamed, vector or 0)
            return carried

        if not others:
            scope = self.top.child({})
            scope.hoist(roots, frozenset({axis}))
            self._lane_steps(scope, low, high, [], 0, leaf)
            return
        *outer, last = others
        rows = b.maximum(b.div(b.constant(self.schedule.tile, I64), self.top.extent(axis), signed=False), 1)
        extent = self.top.extent(last)
        pieces = b.div(b.add(extent, b.sub(rows, 1)), rows, signed=False)
        first = b.mul(b.rem(index, pieces, signed=False), rows)
        scope = self.top.child(self._decode(b.div(index, pieces, signed=False), outer))
        scope.hoist(roots, frozenset({axis, last}))
        with b.loop(first, b.minimum(b.add(first, rows), extent)) as loop:
            inner = scope.child({last: loop.index})
            inner.hoist(roots, frozenset({axis}))
            self._lane_steps(inner, low, high, [], 0, leaf)

    def _lane_rows(self, scope: Scope, low: Value, high: Value | None) -> None:
        """Rows side by side: `unroll` vectors of them, all phases."""
        b, lanes = self.b, self.schedule.lanes
        scopes = []
        for step in range(self.schedule.unroll):
            first = b.add(low, step * lanes)
            mask = None
            if high is not None:
                mask = b.first_lanes(b.sub(high, first), lanes)
            scopes.append(scope.child({self.schedule.lane_axis or "": Lanes(first)}, mask))
        for phase in self.kernel.phases:
            self._phase_across(scopes, phase)

    def _phase_across(self, scopes: list[Scope], phase: Phase) -> None:
        roots = loop_roots(phase)
        for scope in scopes:
            scope.hoist(roots, frozenset(self.kernel.row))
        if phase.reductions or phase.stores:
            totals = Totals(self.b, phase.reductions, self.schedule.lanes)
            start = totals.start() * len(scopes)
            results = self._scalar_rows(list(self.kernel.row), scopes, start, phase, totals)
            for scope, own in zip(scopes, shared_out(results, len(scopes)), strict=True):
                totals.finish(scope, own, across=False)
        self._store_each(scopes, phase.finals)

    def _store_each(self, scopes: Sequence[Scope], outputs: Sequence[Output]) -> None:
        """What rows side by side leave."""
        for scope in scopes:
            self._store(scope, outputs)

    def _scalar_rows(
        self, axes: list[str], scopes: list[Scope], carried: Carried, phase: Phase, totals: Totals
    ) -> Carried:
        if not axes:
            results = []
            for scope, own in zip(scopes, shared_out(carried, len(scopes)), strict=True):
                results.extend(self._accumulate(scope, phase, totals, own))
            return results
        with self.b.loop(0, self.top.extent(axes[0]), 1, carried) as loop:
            inner = [s.child({axes[0]: loop.index}) for s in scopes]
            for scope in inner:
                scope.hoist(loop_roots(phase), frozenset(axes[1:]))
            results = self._scalar_rows(axes[1:], inner, loop.carried, phase, totals)
            if carried:
                loop.yield_(*results)
        return loop.results

    # --- phases with lanes along the row ----------------------------------------------------------

    def _phases(self, scope: Scope, ranges: dict[str, tuple[Value, Value]]) -> None:
        for number, phase in enumerate(self.kernel.phases):
            self._phase_along(scope, number, phase, ranges)

    def _phase_along(
        self, scope: Scope, number: int, phase: Phase, ranges: dict[str, tuple[Value, Value]]
    ) -> None:
        roots = loop_roots(phase)
        scope.hoist(roots, frozenset(self.kernel.row))
        if phase.reductions or phase.stores:
            totals = Totals(self.b, phase.reductions, self.schedule.lanes if self.lane_in_row else 0)
            streamed = self._streamed(number) if self.lane_in_row else []

            def leaf(inner: Scope, carried: Carried, vector: int | None) -> Carried:
                self.keep.recall(inner, number)
                results = self._accumulate(inner, phase, totals, carried)
                self.keep.store(inner, number)
                self._ask_further_on(inner, streamed, vector or 0)
                if vector is not None and self._prefetches(number, vector):
                    self._prefetch_next_row(inner)
                return results

            results = self._lane_loops(scope, ranges, totals, leaf, roots)
            totals.finish(scope, results, across=self.lane_in_row)
        self._store(scope, phase.finals)

    @property
    def lead(self) -> int:
        """How many bytes further on memory is asked for: of brief rows, several of them."""
        brief = any(self.top.layout.length(axis) in BRIEF for axis in self.kernel.row)
        return PAGE if brief else self.b.target.lead

    def _streamed(self, number: int) -> list[Read]:
        """What a phase is the first to read of memory: each position of it once."""
        rows = set(self.kernel.parallel) - ({self.kernel.split.axis} if self.kernel.split else set())
        earlier = {node for phase in self.kernel.phases[:number] for node in evaluated(phase.roots, Reduce)}
        here = evaluated(self.kernel.phases[number].roots, Reduce)
        own = (node for node in here if isinstance(node, Read) and node not in earlier)
        return [read for read in own if self.schedule.lane_axis in read.names and rows <= set(read.names)]

    def _ask_further_on(self, scope: Scope, reads: Sequence[Read], vector: int) -> None:
        """Ask for the cache lines that begin in this vector of a step, further on."""
        for read in reads:
            if vector * self.schedule.lanes * read.dtype.itemsize % CACHE_LINE == 0:
                scope.prefetch_along(read, self.lead)

    def _prefetches(self, phase: int, vector: int) -> bool:
        """Whether a phase asks for a vector of the next row. Those that work in cache share them."""
        later = len(self.kernel.phases) - 1
        return later > 0 and phase == 1 + vector * later // self.schedule.unroll

    def _prefetch_next_row(self, scope: Scope) -> None:
        """Ask for what the first phase of the next row reads: the machine foresees nothing beyond a page."""
        for axis in self.kernel.parallel[-1:]:
            for read in self._row_reads:
                scope.prefetch(read, axis)

    def _lane_loops(
        self,
        scope: Scope,
        ranges: dict[str, tuple[Value, Value]],
        totals: Totals,
        leaf: Leaf,
        roots: Sequence[Node] = (),
    ) -> Carried:
        """All row loops; the lane axis innermost, in `unroll` independent accumulators that are joined at
        the end.
        """
        unroll = self.schedule.unroll if self.lane_in_row else 1
        carried = totals.start() * unroll
        results = self._row_loops(list(self.row), scope, ranges, carried, totals.size, leaf, roots)
        parts = shared_out(results, unroll)
        while len(parts) > 1:
            half = len(parts) // 2
            parts = [totals.join(parts[n], parts[n + half]) for n in range(half)]
        return parts[0]

    def _row_loops(
        self,
        axes: list[str],
        scope: Scope,
        ranges: dict[str, tuple[Value, Value]],
        carried: Carried,
        count: int,
        leaf: Leaf,
        roots: Sequence[Node],
    ) -> Carried:
        lane = self.schedule.lane_axis
        if axes:
            low, high = ranges[axes[0]]
            with self.b.loop(low, high, 1, carried) as loop:
                inner = scope.child({axes[0]: loop.index})
                inner.hoist(roots, frozenset([*axes[1:], lane or ""]))
                results = self._row_loops(axes[1:], inner, ranges, loop.carried, count, leaf, roots)
                if carried:
                    loop.yield_(*results)
            return loop.results
        if not self.lane_in_row:
            return leaf(scope, carried, None)
        low, high = ranges[lane or ""]
        return self._lane_steps(scope, low, high, carried, count, leaf)

    def _lane_steps(
        self, scope: Scope, low: Value, high: Value, carried: Carried, count: int, leaf: Leaf
    ) -> Carried:
        """Whole steps of `unroll` vectors, then single vectors whose end is masked."""
        b, lanes, unroll = self.b, self.schedule.lanes, self.schedule.unroll
        axis = self.schedule.lane_axis or ""
        width = lanes * unroll
        steps = b.div(b.sub(high, low), b.constant(width, I64), signed=True)
        middle = b.add(low, b.mul(steps, width))
        with b.loop(low, middle, width, carried) as loop:
            results: Carried = []
            for step in range(unroll):
                inner = scope.child({axis: Lanes(b.add(loop.index, step * lanes))})
                results.extend(leaf(inner, loop.carried[step * count : (step + 1) * count], step))
            if carried:
                loop.yield_(*results)
        carried = loop.results
        with b.loop(middle, high, lanes, carried[:count]) as tail:
            mask = b.first_lanes(b.sub(high, tail.index), lanes)
            results = leaf(scope.child({axis: Lanes(tail.index)}, mask), tail.carried, None)
            if count:
                tail.yield_(*results)
        return [*tail.results, *carried[count:]]

    # --- one vector ---------------------------------------------------------------------------------

    def _accumulate(self, scope: Scope, phase: Phase, totals: Totals, carried: Carried) -> Carried:
        """One step of every reduction of a phase, and its stores."""
        results = totals.step(scope, carried)
        self._store(scope, phase.stores)
        return results

    def _store(self, scope: Scope, outputs: Sequence[Output]) -> None:
        values = [scope.evaluate(output.node) for output in outputs]
        for output, value in zip(outputs, values, strict=True):
            buffer = output.buffer
            if output.accumulate:
                step = COMBINE_STEPS[output.accumulate]
                scope.accumulate(buffer.name, buffer.dtype, buffer.axes, step, value)
            else:
                self._write(scope, output, value)

    def _write(self, scope: Scope, output: Output, value: Value) -> None:
        """Write a value where it belongs, if that is inside."""
        buffer = output.buffer
        place, inside = scope.in_place(output)
        if inside is None:
            place.write(buffer.name, buffer.dtype, buffer.axes, value)
            return
        with self.b.if_(inside):
            place.write(buffer.name, buffer.dtype, buffer.axes, value)


def loop_roots(phase: Phase) -> list[Node]:
    return [*(r.arg for r in phase.reductions), *(o.node for o in phase.stores)]


def shared_out(values: Sequence[Value], parts: int) -> list[list[Value]]:
    """Values in equal parts."""
    size = len(values) // parts
    return [list(values[part * size : (part + 1) * size]) for part in range(parts)]
