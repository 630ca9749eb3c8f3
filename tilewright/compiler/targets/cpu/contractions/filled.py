"""Rows of windows over few channels that leave their operand in the middle of a run.

    y[h, w, o] = Σ_rsc k[o, r, s, c] · x[h + r - 1, w + s - 1, c]        c has three positions

A row's taps along s lie one after the other in memory, channel by channel: a run of 3 · 3 elements. At w = 0
the first three of them are outside, and what lies in their place belongs to the line before. The rows of a
register block lie evenly (`even`), and together read one stretch of a line. Where all of it is inside, as it
mostly is, they read it where it lies; else they read a copy, with zeros for what is outside.
"""

from __future__ import annotations

from tilewright.compiler.targets.cpu.builder import I1, PTR, Builder, Type, Value
from tilewright.compiler.targets.cpu.contractions.groups import scalar
from tilewright.compiler.targets.cpu.scope import Scope
from tilewright.dsl.program import At, Read


class Filled:
    """Writes where a stretch of `elements` of a line begins, with zeros for what is outside."""

    def __init__(self, b: Builder, node: At, elements: int, vector: Type):
        assert isinstance(node.arg, Read)
        self.b = b
        self.node = node
        self.elements = elements
        self.vector = vector
        self.line, self.channel = node.arg.names[-2:]
        self.position = dict(zip(node.along, node.positions, strict=True))[self.line]
        self.copy = b.alloca(-(-elements // vector.lanes) * vector.lanes * vector.bytes)

    def start(self, first: Scope) -> Value:
        """The stretch that begins where the node is read in a scope."""
        b = self.b
        place, _ = first.start_of(self.node)
        channels = first.extent(self.channel)
        first.evaluate(self.position)
        position = scalar(first.walk(self.position))
        # Of these elements, the first and the last that the line has.
        low = b.mul(b.sub(0, position), channels)
        high = b.mul(b.sub(first.extent(self.line), position), channels)
        others = [axis for axis in self.node.along if axis != self.line]
        beside = first.inside(self.node, others) if others else b.constant(True, I1)
        inside = b.and_(beside, b.and_(b.cmp("le", low, 0), b.cmp("ge", high, self.elements)))
        with b.if_(inside, [PTR]) as choice:
            choice.yield_(place)
            choice.otherwise()
            self._fill(place, low, b.select(beside, high, b.constant(0, high.type)))
            choice.yield_(self.copy)
        return choice.results[0]

    def _fill(self, place: Value, low: Value, high: Value) -> None:
        """The copy: elements from `low` to `high`, and zeros."""
        b, lanes = self.b, self.vector.lanes
        zero = b.constant(0, self.vector)
        with b.loop(0, self.elements, lanes) as loop:
            before = b.first_lanes(b.sub(low, loop.index), lanes)
            until = b.first_lanes(b.sub(high, loop.index), lanes)
            at = b.mul(loop.index, self.vector.bytes)
            found = b.load_masked(b.offset(place, at), b.and_(b.not_(before), until), zero, self.vector)
            b.store(found, b.offset(self.copy, at))
