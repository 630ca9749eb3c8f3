"""Runs that are passed over: one side of a register block is outside of its operand, and so all zeros.

Zeros take part, as 0 · ∞ is NaN. Beside numbers that are all finite they add nothing, and need not be
multiplied: a window of 5×5 on an image of 28×28 has one in 23 of its taps above or below it, and of the taps
of a stride's phase half do not exist. So the other side is looked through once it is in the cache, packed or
row by row, which costs next to nothing.

Passing over a zero may leave a sum of -0 (numbers too small to be told from it) that would have become +0.
So all sums end with + 0, which makes that the one answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tilewright.compiler.targets.cpu.builder import I64, PTR, Builder, Type, Value
from tilewright.compiler.targets.cpu.contractions.groups import Run

VECTORS = 8  # looked at in a step: their additions overlap


class Finite:
    """Writes whether a side is all finite, in a word of its own, and the runs that are passed over then."""

    def __init__(self, b: Builder, type: Type, lanes: int):
        self.b = b
        self.type = type
        self.vector = type.vector(lanes)
        self.word = b.alloca(I64.bytes)
        self.begin()

    def begin(self) -> None:
        """Nothing that is not finite was found so far."""
        self.b.store(self.b.constant(1, I64), self.word)

    @property
    def holds(self) -> Value:
        """Whether all that was looked at is finite."""
        return self.b.cmp("ne", self.b.load(self.word, I64), 0)

    def look_through(self, start: Value, elements: Value) -> None:
        """Look at so many elements that lie side by side, a multiple of the lanes."""
        if not self.type.is_float:
            return
        b, lanes = self.b, self.vector.lanes
        whole = b.mul(b.div(elements, b.constant(VECTORS * lanes, I64), signed=False), VECTORS * lanes)
        found = [b.constant(0, self.vector)] * VECTORS
        for low, high, by in ((b.constant(0, I64), whole, VECTORS), (whole, elements, 1)):
            with b.loop(low, high, by * lanes, found, unroll=False) as loop:
                at = b.offset(start, b.mul(loop.index, self.type.bytes))
                values = [b.load(b.offset(at, n * lanes * self.type.bytes), self.vector) for n in range(by)]
                sums = [self._seen(x, total) for x, total in zip(values, loop.carried, strict=False)]
                loop.yield_(*sums, *loop.carried[by:])
            found = loop.results
        self._found(found)

    def look_along(self, addresses: Value, count: int, span: Value) -> None:
        """Look at so many rows, whose addresses lie side by side, each of `span` elements: several at a time,
        some of the last ones twice.
        """
        if not self.type.is_float:
            return
        b, lanes = self.b, self.vector.lanes
        zero = b.constant(0, self.vector)
        together = -(-count // -(-count // VECTORS))
        with b.loop(0, count, together, [zero] * together, unroll=False) as rows:
            first = b.minimum(rows.index, count - together)
            starts = [
                b.load(b.offset(addresses, b.mul(b.add(first, n), I64.bytes)), PTR) for n in range(together)
            ]
            with b.loop(0, span, lanes, rows.carried, unroll=False) as loop:
                mask = b.first_lanes(b.sub(span, loop.index), lanes)
                at = b.mul(loop.index, self.type.bytes)
                values = [b.load_masked(b.offset(row, at), mask, zero, self.vector) for row in starts]
                loop.yield_(*map(self._seen, values, loop.carried))
            rows.yield_(*loop.results)
        self._found(rows.results)

    def _seen(self, value: Value, total: Value) -> Value:
        """0 times each number that is finite is 0."""
        return self.b.fma(value, self.b.constant(0, self.vector), total)

    def _found(self, totals: Sequence[Value]) -> None:
        b, nan = self.b, totals[0]
        for other in totals[1:]:
            nan = b.add(nan, other)
        finite = b.convert(b.not_(b.any(b.is_nan(nan))), I64.kind, signed=False)
        b.store(b.and_(b.load(self.word, I64), finite), self.word)

    def passed_over(self, run: Run, zeros: Value) -> Run:
        """A run without its positions if all of it is `zeros` on the other side."""
        b = self.b
        nothing = b.and_(zeros, self.holds)
        return replace(run, count=b.select(nothing, b.constant(0, I64), run.count))

    def settled(self, sums: Sequence[Value]) -> list[Value]:
        """Sums of which those that are -0 became +0."""
        return [self.b.add(value, self.b.constant(0, value.type)) for value in sums]
