"""The sums of a register block in memory: where they wait between blocks of summed positions, and on
their way to what follows them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tilewright.compiler.targets.cpu.builder import Builder, Type, Value


@dataclass(frozen=True)
class Sums:
    """Writes and reads blocks of `rows` × `columns` vectors. A block begins at an address, and so many
    elements lie between its rows.
    """

    b: Builder
    rows: int
    columns: int
    vector: Type

    def store(self, sums: Sequence[Value], start: Value, apart: Value) -> None:
        for value, place in zip(sums, self._places(start, apart), strict=True):
            self.b.store(value, place)

    def load(self, start: Value, apart: Value) -> list[Value]:
        return [self.b.load(place, self.vector) for place in self._places(start, apart)]

    def begun(self, start: Value, apart: Value, first: Value) -> list[Value]:
        """Zeros before the `first` of the summed positions, or what waits since the ones before."""
        b = self.b
        count = self.rows * self.columns
        with b.if_(b.cmp("eq", first, 0), [self.vector] * count) as choice:
            zero = b.constant(0, self.vector)
            choice.yield_(*[zero] * count)
            choice.otherwise()
            choice.yield_(*self.load(start, apart))
        return choice.results

    def _places(self, start: Value, apart: Value) -> Iterator[Value]:
        b, size = self.b, self.vector.bytes
        for row in range(self.rows):
            line = b.offset(start, b.mul(apart, row * size))
            for column in range(self.columns):
                yield b.offset(line, column * self.vector.lanes * size)
