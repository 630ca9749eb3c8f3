"""Runs in which one side of a register block is outside of its operand: zeros, all of them.

Beside an image lie zeros, and they take part: 0 · ∞ is NaN. Beside numbers that are all finite such a run
adds nothing but zeros, and is passed over: a window of 5×5 on an image of 28×28 has one in 23 of its taps
above or below it. The other side is packed and in the cache, where looking through it costs next to nothing.

Passing over a zero may leave a sum of -0 (numbers too small to be told from it) that would have become +0.
So all sums end with + 0, which makes that the one answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tilewright.compiler.targets.cpu.builder import I64, Builder, Type, Value
from tilewright.compiler.targets.cpu.contractions.groups import Run

VECTORS = 8  # looked at in a step: their additions overlap


class Outside:
    """Writes whether what is packed is finite, in a word of its own, and the runs that it passes over."""

    def __init__(self, b: Builder, type: Type, lanes: int):
        self.b = b
        self.type = type
        self.lanes = lanes
        self.finite = b.alloca(I64.bytes)
        b.store(b.constant(int(not type.is_float), I64), self.finite)

    def look_through(self, start: Value, elements: Value) -> None:
        """Find out whether so many elements are finite: 0 times each is 0."""
        if not self.type.is_float:
            return
        b, vector = self.b, self.type.vector(self.lanes)
        zero = b.constant(0, vector)
        step = VECTORS * self.lanes
        whole = b.mul(b.div(elements, b.constant(step, I64), signed=False), step)
        found = [zero] * VECTORS
        for low, high, by in ((b.constant(0, I64), whole, VECTORS), (whole, elements, 1)):
            with b.loop(low, high, by * self.lanes, found, unroll=False) as loop:
                at = b.offset(start, b.mul(loop.index, self.type.bytes))
                values = [b.load(b.offset(at, n * self.lanes * self.type.bytes), vector) for n in range(by)]
                sums = [b.fma(x, zero, total) for x, total in zip(values, loop.carried, strict=False)]
                loop.yield_(*sums, *loop.carried[by:])
            found = loop.results
        nan = found[0]
        for other in found[1:]:
            nan = b.add(nan, other)
        finite = b.not_(b.any(b.is_nan(nan)))
        b.store(b.convert(finite, I64.kind, signed=False), self.finite)

    def passed_over(self, run: Run, zeros: Value) -> Run:
        """A run without its positions if all of it is `zeros`, and the other side finite."""
        b = self.b
        nothing = b.and_(zeros, b.cmp("ne", b.load(self.finite, I64), 0))
        return replace(run, count=b.select(nothing, b.constant(0, I64), run.count))

    def settled(self, sums: Sequence[Value]) -> list[Value]:
        """Sums of which those that are -0 became +0."""
        return [self.b.add(value, self.b.constant(0, value.type)) for value in sums]
