"""Lanes of several groups, each of which has an element of its own.

    lanes            (g, 0) (g, 1) (g, 2) (g, 3) (g + 1, 0) …     `each` lanes a group
    a vector read    [g, 0] [g, 1] [g, 2] [g, 3] [g + 1, 0] …     `elements` a group, side by side
    number 2         [g, 2] [g, 2] [g, 2] [g, 2] [g + 1, 2] …     picked from it

Within 16 bytes of a vector that is the cheapest of shuffles. Where a group has twice as much, lanes take
turns instead: those of its first half begin with the first half of the elements, the others with the second
half, and both exchange them. What is multiplied with that takes the same turns: a blend for all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.compiler.targets.cpu.builder import I64, Builder, Type, Value

CLOSE = 16  # bytes of a vector within which elements move at twice the pace


@dataclass(frozen=True)
class Picked:
    """Vectors of groups with `each` lanes and `elements` elements. mask: of the elements that there are."""

    each: int
    elements: int
    mask: Value | None = None

    @classmethod
    def of(cls, b: Builder, each: int, elements: int, lanes: int, groups: Value | None = None) -> Picked:
        """Those of vectors of so many lanes, with room for more `groups` than there are if that is told."""
        room = lanes // each
        if groups is None and room * elements == lanes:
            return cls(each, elements)
        count = b.constant(room, I64) if groups is None else b.minimum(groups, room)
        return cls(each, elements, b.first_lanes(b.mul(count, elements), lanes))

    def read(self, b: Builder, place: Value, vector: Type) -> Value:
        """The elements of all groups of a vector."""
        if self.mask is None:
            return b.load(place, vector)
        return b.load_masked(place, self.mask, b.constant(0, vector), vector)

    def one(self, b: Builder, vector: Value, number: int) -> Value:
        """The element with this number of each lane's group."""
        order = [lane // self.each * self.elements + number for lane in range(vector.lanes)]
        return b.shuffle(vector, vector, order)

    def all(self, b: Builder, vector: Value) -> list[Value]:
        """All elements of each lane's group, in turns."""
        if not self._in_turns(vector.type):
            return [self.one(b, vector, number) for number in range(self.elements)]
        half = self.elements // 2
        lanes = range(vector.lanes)
        exchanged = b.shuffle(vector, vector, [lane ^ half for lane in lanes])
        return [
            b.shuffle(part, part, [lane // half * half + number for lane in lanes])
            for part in (vector, exchanged)
            for number in range(half)
        ]

    def in_turns(self, b: Builder, vectors: Sequence[Value]) -> list[Value]:
        """Vectors that belong to the elements by number, in the turns in which those come."""
        if not self._in_turns(vectors[0].type):
            return list(vectors)
        half, lanes = self.elements // 2, vectors[0].lanes
        order = [lane + lanes if lane & half else lane for lane in range(lanes)]
        return [b.shuffle(x, vectors[number ^ half], order) for number, x in enumerate(vectors)]

    def _in_turns(self, vector: Type) -> bool:
        return self.each == self.elements and self.elements * vector.scalar.bytes == 2 * CLOSE
