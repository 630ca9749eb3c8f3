"""Rows of windows that lie evenly: from each to the next are as many elements, which the code knows.

    for each run of the summed axes:  place = where the first row begins
        for k in run:  sums[row] += place[apart · row + step · k] · right[k]

The positions along a line of an image lie so, and so do the taps and channels of a filter's gradient. One
address serves all rows of a register block then, and no register holds any other: where vectors of columns
are few, a block has as many rows as there are registers for sums. Rows that are outside of the operand (an
image's border) have addresses of their own, those of zeros: the first and last few, or else all.

A register block never leaves its line. Lines are numbered as if they were whole blocks long; the last block
of a line ends where the line does, and begins with rows that the one before has stored already. It stores
them again, unless what follows the sums reads anything of theirs, over which results may have been written.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace

from tilewright.compiler.targets.cpu.builder import I1, I64, Builder, Value
from tilewright.compiler.targets.cpu.contractions.direct import Addresses
from tilewright.compiler.targets.cpu.contractions.filled import Filled
from tilewright.compiler.targets.cpu.contractions.finite import Finite
from tilewright.compiler.targets.cpu.contractions.groups import (
    Coordinates,
    Group,
    Noted,
    RowBlock,
    Run,
    scalar,
)
from tilewright.compiler.targets.cpu.contractions.lines import Lines
from tilewright.compiler.targets.cpu.contractions.panels import Range, Side
from tilewright.compiler.targets.cpu.contractions.picked import Picked
from tilewright.compiler.targets.cpu.contractions.products import Products, Starts
from tilewright.compiler.targets.cpu.contractions.reading.even import Even
from tilewright.compiler.targets.cpu.contractions.reading.grouped import Grouped
from tilewright.compiler.targets.cpu.contractions.sizes import ADDRESS
from tilewright.compiler.targets.cpu.coordinates import Lanes
from tilewright.compiler.targets.cpu.scope import Scope
from tilewright.dsl.program import At

MOST_EDGES = 4  # rows at each end of a register block that may be outside without all having addresses
WRITTEN_OUT = 32  # summed positions of all runs that are written out, at most
MOST_ADDRESSES = 8  # half of the registers that may hold them


class EvenRows:
    """Writes where the register blocks of a side's rows are, their sums, and which of them are stored."""

    def __init__(
        self,
        b: Builder,
        scope: Scope,
        side: Side,
        even: Even,
        summed: Group,
        products: Products,
        table: Value,
        runs: Value,
        grouped: Grouped | None = None,
        again: bool = False,
    ):
        assert isinstance(side.node, At)
        self.b = b
        self.node = side.node
        self.grouped = grouped
        self.again = again
        self.lines = Group(b, scope, side.own, scope.layout, even.axes)
        self.summed = summed
        self.products = products
        self.rows = rows = products.rows
        self.even = even
        size = products.packed.bytes
        self.row_bytes = even.apart * size
        outer = Group(b, scope, summed.outer, scope.layout)
        self.runs = Noted(b, outer, table, runs)
        zeros = b.offset(table, b.mul(runs, ADDRESS * len(summed.outer)))
        zero_elements = None if grouped is None else b.constant(products.lanes, I64)
        self.addresses = Addresses(b, side.node, summed, rows, size, zeros, zero_elements)
        self.addresses.clear()
        self.line = b.alloca(ADDRESS * rows)
        proven = scope.layout.inside.get(side.node, frozenset())
        self.unproven = tuple(axis for axis in side.node.along if axis not in proven)
        self.filled: Filled | None = None
        if even.filled:
            assert products.span is not None
            elements = (rows - 1) * even.apart + products.span
            self.filled = Filled(b, side.node, elements, products.packed.vector(products.lanes))
        self.others: Finite | None = None
        blocks = b.div(b.add(self.lines.span, rows - 1), b.constant(rows, I64), signed=False)
        self.room = b.mul(blocks, rows)  # rows of a line, as they are numbered

    def size(self) -> Value:
        """How many rows there are, as they are numbered."""
        b = self.b
        return b.mul(b.div(self.lines.size(), self.lines.span, signed=False), self.room)

    def block(self, row: Value) -> RowBlock:
        """The register block with this number of a row."""
        b = self.b
        line, place = b.div(row, self.room, signed=False), b.rem(row, self.room, signed=False)
        first = b.minimum(place, b.sub(self.lines.span, self.rows))
        done = b.sub(place, first)
        outer = self.lines.outer_of(line)

        def at(number: Value | int) -> Coordinates:
            return {**outer, **self.lines.inner(b.add(first, number))}

        whole = b.constant(True, I1) if self.again else b.cmp("eq", done, 0)
        return RowBlock(whole, done, b.constant(self.rows, I64), at)

    def note(self, k: Range) -> None:
        """Write down the coordinates of the runs."""
        if self.summed.outer:
            self.runs.note(*self.summed.run_numbers(*k), 1)

    def _coordinates(self, run: Value, k: Range) -> Coordinates:
        """Those of a run, along the axes that it does not go along."""
        if not self.summed.outer:
            return self.summed.still
        return {**self.summed.still, **self.runs.one(run, self.summed.run_numbers(*k)[0])}

    def multiply(
        self, scope: Scope, right: Lines, row: Value, run: Run, k: Range, start: list[Value]
    ) -> list[Value]:
        """The sums of the register block with this number of a row after a run."""
        block = self.block(row)
        products = self._products(scope)
        here = {**self._coordinates(run.number, k), **self.summed.inner(run.first)}
        b = self.b

        def at(number: int) -> Scope:
            return scope.child({**block.at(number), **here})

        first = at(0)
        if self.filled:
            return products.run(right, run, self._evenly(self.filled.start(first)), start)
        places = self._evenly(first.start_of(self.node)[0])
        if not self.unproven:
            return products.run(right, run, places, start, self._following(first))
        edges = min(self.even.edges, MOST_EDGES, self.rows // 2)
        inside = [self._is_inside(at(number)) for number in {edges, self.rows - 1 - edges}]
        with b.if_(functools.reduce(b.and_, inside), [value.type for value in start]) as choice:
            for number in (*range(edges), *range(self.rows - edges, self.rows)):
                places[number] = b.select(self._is_inside(at(number)), places[number], self.addresses.zeros)
            choice.yield_(*products.run(right, run, places, start, self._following(first)))
            choice.otherwise()
            places = self._each_apart(scope, block, here)
            choice.yield_(*products.run(right, self._passed_over(run), places, start))
        return choice.results

    def _products(self, scope: Scope) -> Products:
        """What multiplies rows with columns; of several groups, those from one on."""
        b, grouped = self.b, self.grouped
        if grouped is None:
            return self.products
        left = None
        if not grouped.whole:
            left = b.sub(scope.extent(grouped.groups), scalar(scope.coordinates[grouped.groups]))
        channels = Picked.of(b, grouped.filters, grouped.channels, self.products.lanes, left)
        return replace(self.products, channels=channels)

    def look_along(self, scope: Scope, finite: Finite, rows: Range, k: Range) -> None:
        """Find out whether these rows are finite."""
        finite.begin()
        with self.b.loop(*rows, self.rows) as row:
            block = self.block(row.index)
            with self.summed.runs(*k) as run:
                self._each_apart(scope, block, {**run.coordinates, **self.summed.inner(run.first)})
                finite.look_along(self.line, self.rows, run.count)

    def _passed_over(self, run: Run) -> Run:
        """A run of rows that have addresses of their own, with no positions where all are outside."""
        if not self.others:
            return run
        return self.others.passed_over(run, self.addresses.all_outside(self.line))

    def _each_apart(self, scope: Scope, block: RowBlock, run: Coordinates) -> list[Value]:
        """Where rows begin of which each may be outside."""
        b = self.b
        first = block.at(0)
        (axis,) = self.lines.joined
        position = b.add(b.splat(scalar(first[axis]), self.rows), b.iota(I64.vector(self.rows)))
        lanes = {**first, **run, axis: Lanes(positions=position)}
        return self.addresses.of_places(scope, self.line, lanes)

    def _is_inside(self, row: Scope) -> Value:
        return row.inside(self.node, self.unproven)

    def _evenly(self, place: Value) -> list[Value]:
        """Where rows begin that are all inside, the first of them at a place.

        What several rows read (neighbours read the same taps) is read for each of them: a compiler that knows
        of it keeps it in registers, of which there are no more. So it sees several addresses.
        """
        count, together = self._shared()
        places = [place, *(self.b.another(place) for _ in range(count - 1))]
        rows = [places[number // together % count] for number in range(self.rows)]
        return [self.b.offset(start, number * self.row_bytes) for number, start in enumerate(rows)]

    def written_out(self, runs: int) -> bool:
        """Whether so many runs need no loop: they are brief, and registers hold the addresses of all."""
        brief = self.products.written_out and runs * self.products.steps <= WRITTEN_OUT
        return brief and runs * self._shared()[0] <= MOST_ADDRESSES

    def _shared(self) -> tuple[int, int]:
        """How many rows may read the same element in the steps that are written out, and how many rows lie
        between two that do.
        """
        step = self.products.apart
        common = math.gcd(self.even.apart, step)
        together = step // common
        shared = -(-self.products.steps * common // abs(self.even.apart))
        return min(shared, -(-self.rows // together)), together

    def _following(self, first: Scope) -> Starts | None:
        """Where the rows of the next block begin, most of the time, if they come from afar."""
        if not self.even.far:
            return None
        b = self.b
        place = b.offset(first.start_of(self.node)[0], self.rows * self.row_bytes)
        return lambda row, count: self._rows_from(b.offset(place, b.mul(row, self.row_bytes)), count)

    def _rows_from(self, place: Value, count: int) -> list[Value]:
        return [self.b.offset(place, number * self.row_bytes) for number in range(count)]
