"""The innermost loops: a register block's rows, each where it begins, times lines of the right side.

for k in run:
    for row:  for vector:  sums[row, vector] += rows[row][step · k] · right[k][vector]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tilewright.compiler.targets.cpu.builder import I16, I64, Builder, Type, Value
from tilewright.compiler.targets.cpu.contractions.dot_products import TOGETHER, multiply_add
from tilewright.compiler.targets.cpu.contractions.groups import Run
from tilewright.compiler.targets.cpu.contractions.lines import Lines
from tilewright.compiler.targets.cpu.contractions.panels import Range
from tilewright.compiler.targets.cpu.contractions.picked import Picked
from tilewright.compiler.targets.cpu.contractions.sizes import LINE

Starts = Callable[[Value, int], list[Value]]  # where some rows begin: the number of the first, how many
STEPS = 4  # summed positions a step, where a run may be short
UNROLLED = 16  # the most of a run that are written out, if it is known how many it has


@dataclass(frozen=True)
class Products:
    """Writes them for register blocks of `rows` × `columns` vectors.

    packed: the type of elements as they are multiplied, words of two numbers for a `dot_product` of that
    kind. total: that of sums. apart: elements from one summed position of a row to the next. span: summed
    positions of a run, if known. channels, filters: how elements of rows
    differ from lane to lane, if they do: those of a run, or of one summed position.
    """

    b: Builder
    rows: int
    columns: int
    lanes: int
    packed: Type
    total: Type
    dot_product: str | None
    apart: int
    span: int | None
    channels: Picked | None = None
    filters: Picked | None = None

    @property
    def written_out(self) -> bool:
        """Whether a run has no loop."""
        return self.span is not None and self.span <= UNROLLED and not self.dot_product

    @property
    def steps(self) -> int:
        """How many summed positions are written out."""
        return self.span if self.written_out and self.span else STEPS

    def run(
        self, right: Lines, run: Run, places: list[Value], sums: list[Value], following: Starts | None = None
    ) -> list[Value]:
        """The sums after a run in which the rows begin at these places. Meanwhile the caches are asked for
        rows that follow.
        """
        b = self.b
        right = right.behind(b, run.offset)
        if self.written_out:
            if following is not None and self.channels:
                for start in following(b.constant(0, I64), self.rows):
                    b.prefetch(start)
            return self._steps(places, right, b.constant(0, I64), self.steps, sums)
        count = b.shr(run.count, TOGETHER.bit_length() - 1, signed=False) if self.dot_product else run.count
        whole = b.and_(count, -STEPS)
        sums = self._along(places, right, (b.constant(0, I64), whole), STEPS, sums, following)
        sums = self._along(places, right, (whole, count), 1, sums, None)
        return self._half_word(places, right, run.count, sums) if self.dot_product else sums

    def step(
        self, rows: list[Value], right: Lines, k: Value, sums: list[Value], stored: Type | None = None
    ) -> list[Value]:
        """One summed position: each row's element times the vectors of the right side's line.

        Elements are `stored` as they are multiplied, or are a narrower type's, above which is 0.
        """
        b = self.b
        columns = right.vectors(b, k, self.columns, self.packed.vector(self.lanes))
        if self.filters:
            return self._filters(self.filters, rows[0], columns, sums)
        results = []
        for row, place in enumerate(rows):
            value = b.load(place, stored or self.packed)
            value = b.splat(b.convert(value, self.packed.kind, signed=False), self.lanes)
            for column, other in enumerate(columns):
                results.append(self._multiply_add(value, other, sums[row * self.columns + column]))
        return results

    def _along(
        self,
        places: list[Value],
        right: Lines,
        k: Range,
        steps: int,
        sums: list[Value],
        following: Starts | None,
    ) -> list[Value]:
        """Part of a run, so many summed positions at a time."""
        with self.b.loop(*k, steps, sums, unroll=False) as loop:
            found = loop.carried
            if following is not None:
                self._ask_for(following, loop.index)
            loop.yield_(*self._steps(places, right, loop.index, steps, found))
        return loop.results

    def _steps(
        self, places: list[Value], right: Lines, first: Value, count: int, sums: list[Value]
    ) -> list[Value]:
        """So many summed positions from the first on."""
        if self.channels:
            return self._channels(self.channels, places, right, sums)
        b = self.b
        for number in range(count):
            at = b.add(first, number)
            along = b.mul(at, self.apart * self.packed.bytes)
            sums = self.step([b.offset(place, along) for place in places], right, at, sums)
        return sums

    def _channels(self, picked: Picked, places: list[Value], right: Lines, sums: list[Value]) -> list[Value]:
        """All channels of a group: those of several groups are read at once, row by row."""
        b, vector = self.b, self.packed.vector(self.lanes)
        channels = [b.constant(number, I64) for number in range(picked.elements)]
        lines = picked.in_turns(b, [right.vectors(b, k, self.columns, vector)[0] for k in channels])
        results: list[Value] = []
        for place, total in zip(places, sums, strict=True):
            for value, line in zip(picked.all(b, picked.read(b, place, vector)), lines, strict=True):
                total = self._multiply_add(value, line, total)
            results.append(total)
        return results

    def _filters(self, picked: Picked, place: Value, columns: list[Value], sums: list[Value]) -> list[Value]:
        """All filters of a group: those of several groups are read at once, a vector for each of columns."""
        b, vector = self.b, self.packed.vector(self.lanes)
        results = list(sums)
        apart = self.lanes // picked.each * picked.elements * vector.bytes
        for column, other in enumerate(columns):
            found = picked.read(b, b.offset(place, column * apart), vector)
            for row in range(self.rows):
                at = row * self.columns + column
                results[at] = self._multiply_add(picked.one(b, found, row), other, sums[at])
        return results

    def _half_word(self, places: list[Value], right: Lines, count: Value, sums: list[Value]) -> list[Value]:
        """The last summed position, if it has a word of its own."""
        b = self.b
        with b.if_(b.cmp("ne", b.and_(count, 1), 0), [v.type for v in sums]) as choice:
            line = b.shr(count, 1, signed=False)
            rows = [b.offset(place, b.mul(line, self.packed.bytes)) for place in places]
            choice.yield_(*self.step(rows, right, line, sums, I16))
            choice.otherwise()
            choice.yield_(*sums)
        return choice.results

    def _ask_for(self, following: Starts, k: Value) -> None:
        """A share of the rows that follow: all of them before their next cache lines."""
        b = self.b
        turns = LINE // self.packed.bytes // STEPS
        share = -(-self.rows // turns)
        turn = b.and_(b.shr(k, STEPS.bit_length() - 1, signed=False), turns - 1)
        for start in following(b.mul(turn, share), share):
            b.prefetch(b.offset(start, b.mul(k, self.packed.bytes)))

    def _multiply_add(self, x: Value, y: Value, total: Value) -> Value:
        if self.dot_product:
            return multiply_add(self.b, x, y, total)
        return self.b.fma(x, y, total) if self.total.is_float else self.b.add(self.b.mul(x, y), total)
