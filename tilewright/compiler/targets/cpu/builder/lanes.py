"""What moves between the lanes of vectors, and reductions over them."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.compiler.targets.cpu.builder.conversions import Conversions
from tilewright.compiler.targets.cpu.builder.values import I32, I64, PTR, Operand, Value
from tilewright.errors import InternalError


class Lanes(Conversions):
    """Lanes taken out, put in, moved and folded."""

    def first_lanes(self, count: Value, lanes: int) -> Value:
        """The mask of the first `count` lanes (i64; all from `lanes` on, none from 0 down)."""
        type = I32.vector(lanes)
        narrow = self.convert(self.maximum(self.minimum(count, lanes), 0), "i32")
        return self.cmp("lt", self.iota(type), self.splat(narrow, lanes))

    def extract(self, x: Value, lane: int) -> Value:
        if x.type.kind == "ptr":
            at = self.constant(lane, I64)
            return self._pure(PTR, f"llvm.extractelement {x}[{at} : i64] : {x.type}")
        return self._pure(x.type.scalar, f"vector.extract {x}[{lane}] : {x.type.scalar} from {x.type}")

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """Lane i is lane lanes[i] of a followed by b."""
        result = a.type.vector(len(lanes))
        order = ", ".join(map(str, lanes))
        return self._pure(result, f"vector.shuffle {a}, {b} [{order}] : {a.type}, {b.type}")

    def slice(self, x: Value, start: int, lanes: int) -> Value:
        """`lanes` lanes from `start`; one lane gives a vector of one lane."""
        return self.shuffle(x, x, range(start, start + lanes))

    def concat(self, a: Value, b: Value) -> Value:
        """The lanes of a, then those of b."""
        return self.shuffle(a, b, range(a.lanes + b.lanes))

    def reduce(self, op: str, x: Value, signed: bool = True) -> Value:
        """add mul min max and or xor over the lanes: (lower half) op (upper half), down to one lane.

        The order is fixed, so sums are the same on every run; float min and max give NaN if a lane is NaN.
        """
        if x.lanes & (x.lanes - 1):
            raise InternalError(f"a reduction needs a power of two of lanes, not {x.lanes}")
        if not x.lanes:
            return x
        while x.lanes > 1:
            half = x.lanes // 2
            x = self.combine(op, self.slice(x, 0, half), self.slice(x, half, half), signed)
        return self.extract(x, 0)

    def combine(self, op: str, a: Operand, b: Operand, signed: bool = True) -> Value:
        """One step of a reduction by name."""
        if op in ("min", "max"):
            return self._extremum(op, a, b, signed, zeros=True)
        steps = {"add": self.add, "mul": self.mul, "and": self.and_, "or": self.or_, "xor": self.xor}
        return steps[op](a, b)

    def picked(self, vectors: Sequence[Value]) -> list[Value]:
        """Of n vectors end to end every n-th lane, from each of the first n: vectors of as many lanes.

        Even numbers go by halves: every second lane of neighbours, and of those again.
        """
        count, lanes = len(vectors), vectors[0].lanes
        if count == lanes:
            return self.transpose(vectors)
        if count == 1:
            return list(vectors)
        if count % 2 == 0:
            pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
            halves = [
                self.picked([self.shuffle(a, b, range(side, 2 * lanes, 2)) for a, b in pairs])
                for side in (0, 1)
            ]
            return [one for both in zip(*halves, strict=True) for one in both]
        return [
            self.merged(vectors, [divmod(lane * count + first, lanes) for lane in range(lanes)])
            for first in range(count)
        ]

    def alternating(self, vectors: Sequence[Value]) -> list[Value]:
        """The opposite of `picked`: lane 0 of each of n vectors, then lane 1 of each, …"""
        count, lanes = len(vectors), vectors[0].lanes
        if count == lanes:
            return self.transpose(vectors)
        if count == 1:
            return list(vectors)
        if count % 2 == 0:
            pairs = zip(self.alternating(vectors[::2]), self.alternating(vectors[1::2]), strict=True)
            both = [lane + side for lane in range(lanes) for side in (0, lanes)]
            return [self.shuffle(a, b, half) for a, b in pairs for half in (both[:lanes], both[lanes:])]
        places = [(element % count, element // count) for element in range(count * lanes)]
        return [self.merged(vectors, places[n * lanes : (n + 1) * lanes]) for n in range(count)]

    def merged(self, vectors: Sequence[Value], places: Sequence[tuple[int, int]]) -> Value:
        """The vector whose lanes lie at `places`: (which of the vectors, which lane of it)."""
        lanes = len(places)
        taken = sorted({vector for vector, _ in places})
        merged = vectors[taken[0]]
        order = [lane if vector == taken[0] else 0 for vector, lane in places]
        for number in taken[1:]:
            order = [
                lanes + lane if vector == number else at
                for (vector, lane), at in zip(places, order, strict=True)
            ]
            merged = self.shuffle(merged, vectors[number], order)
            order = list(range(lanes))
        return merged if len(taken) > 1 else self.shuffle(merged, merged, order)

    def transpose(self, rows: Sequence[Value]) -> list[Value]:
        """n vectors of n lanes, n a power of two, transposed in registers by log2(n) rounds of interleaving.

        Round k swaps the off-diagonal blocks of size k of every 2k × 2k block.
        """
        size = len(rows)
        if size & (size - 1) or any(row.lanes != size for row in rows):
            raise InternalError("transpose needs n vectors of n lanes, n a power of two")
        rows = list(rows)
        block = 1
        while block < size:
            low = [i if not i & block else i - block + size for i in range(size)]
            high = [i + block if not i & block else i + size for i in range(size)]
            for first in (i for i in range(size) if not i & block):
                a, b = rows[first], rows[first + block]
                rows[first], rows[first + block] = self.shuffle(a, b, low), self.shuffle(a, b, high)
            block *= 2
        return rows
