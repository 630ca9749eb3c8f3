"""Register blocks whose vectors run along the summed axis: both sides are read where they lie.

    for each few columns:
        for each vector of summed positions:  sums[row][column] += left[row][k] · right[column][k]
        the lanes of each sum are added up

What is packed of a side is read once for every register block of the other. Where that other side is skinny,
that is once or twice, and packing would cost as much as the product.
"""

from __future__ import annotations

from tilewright.compiler.targets.cpu.builder import I16, PTR, Builder, Type, Value
from tilewright.compiler.targets.cpu.contractions.dot_products import TOGETHER, multiply_add

POINTER = 8  # bytes


class InnerProducts:
    """Writes the sums of `rows` and any number of columns, given where each begins."""

    def __init__(
        self, b: Builder, lanes: int, packed: Type, total: Type, together: int, rows: int, sums: int
    ):
        self.b = b
        self.lanes = lanes
        self.type = packed.vector(lanes)
        self.total = total
        self.together = together
        self.positions = lanes * together  # of a vector
        self.position_bytes = packed.bytes // together
        self.some = sums // rows  # columns
        self.place = b.alloca(-(-sums // lanes) * lanes * total.bytes)

    def write(
        self, rows: list[Value], table: Value, columns: Value, count: Value, tile: Value, line: int
    ) -> None:
        """The sums over `count` positions of the rows and so many columns, whose addresses are in the table,
        to the lines of a tile.
        """
        b, size = self.b, self.total.bytes
        with b.loop(0, columns, self.some) as loop:
            first = b.offset(table, b.mul(loop.index, POINTER))
            places = [b.load(b.offset(first, POINTER * column), PTR) for column in range(self.some)]
            for number, found in enumerate(self._folded(self._multiply(rows, places, count))):
                b.store(found, b.offset(self.place, number * self.lanes * size))
            at = b.offset(tile, b.mul(loop.index, size))
            for row in range(len(rows)):
                for column in range(self.some):
                    value = b.load(b.offset(self.place, (row * self.some + column) * size), self.total)
                    b.store(value, b.offset(at, row * line + column * size))

    def _multiply(self, rows: list[Value], columns: list[Value], count: Value) -> list[Value]:
        """The sums, lane by lane."""
        b = self.b
        zeros = [b.constant(0, self.total.vector(self.lanes))] * (len(rows) * len(columns))
        whole = b.and_(count, -self.positions)
        with b.loop(0, whole, self.positions, zeros, unroll=False) as loop:
            loop.yield_(*self._step(rows, columns, loop.index, None, loop.carried))
        rest = b.sub(count, whole)
        with b.if_(b.cmp("ne", rest, 0), [v.type for v in zeros]) as choice:
            choice.yield_(*self._step(rows, columns, whole, rest, loop.results))
            choice.otherwise()
            choice.yield_(*loop.results)
        return choice.results

    def _step(
        self, rows: list[Value], columns: list[Value], k: Value, count: Value | None, sums: list[Value]
    ) -> list[Value]:
        """One vector of summed positions, or `count` of them."""
        right = [self._load(column, k, count) for column in columns]
        results = []
        for row, place in enumerate(rows):
            left = self._load(place, k, count)
            for column, other in enumerate(right):
                results.append(self._multiply_add(left, other, sums[row * len(columns) + column]))
        return results

    def _load(self, start: Value, k: Value, count: Value | None) -> Value:
        b = self.b
        place = b.offset(start, b.mul(k, self.position_bytes))
        if count is None:
            return b.load(place, self.type)
        stored = I16.vector(self.positions) if self.together == TOGETHER else self.type
        mask = b.first_lanes(count, self.positions)
        value = b.load_masked(place, mask, b.constant(0, stored), stored)
        return b.bitcast_lanes(value, self.type) if stored != self.type else value

    def _multiply_add(self, x: Value, y: Value, total: Value) -> Value:
        if self.together == TOGETHER:
            return multiply_add(self.b, x, y, total)
        return self.b.fma(x, y, total) if self.total.is_float else self.b.add(self.b.mul(x, y), total)

    def _folded(self, vectors: list[Value]) -> list[Value]:
        """The sum of each vector's lanes as a lane of a few vectors, in their order.

        Halves of two vectors are added in one vector, quarters of two such, and so on. The last of these few
        is filled up with what nobody reads.
        """
        b, lanes = self.b, self.lanes
        vectors = vectors + vectors[-1:] * (-len(vectors) % lanes)
        width = lanes
        while width > 1:
            half = width // 2
            low = [lane for lane in range(2 * lanes) if lane % width < half]
            high = [lane + half for lane in low]
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [b.add(b.shuffle(x, y, low), b.shuffle(x, y, high)) for x, y in pairs]
            width = half
        return vectors
