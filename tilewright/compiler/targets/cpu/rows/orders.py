"""Orders: the positions of a row, sorted by value, as MLIR.

    for each row:
        keys = values as integers in the same order; places = 0 … n - 1
        for width = 1, 2, 4 … < n:        merge neighbouring runs, the left one first where keys are equal
        out[row] = places

Floats become integers that compare as they do (the other bits of negative ones are flipped), with one zero
and one NaN, which is the largest. A descending order sorts the complements of the keys.
"""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.compiler.nest import Kernel
from tilewright.compiler.targets.cpu.builder import I64, Builder, Value
from tilewright.compiler.targets.cpu.scope import Scope
from tilewright.dsl.axes import base
from tilewright.dsl.dtypes import DType
from tilewright.dsl.program import Order

WORD = 8
ARRAYS = 4  # keys and places, and the runs that they are merged into


def workspace_bytes(kernel: Kernel, extents: Mapping[str, int]) -> int:
    """What one thread needs to sort a row."""
    (axis,) = kernel.row
    return ARRAYS * WORD * extents[base(axis)] + 64


class Orders:
    """Writes the body of an order kernel for a range of rows."""

    def __init__(self, b: Builder, kernel: Kernel, scope: Scope, workspace: Value):
        assert kernel.order is not None
        self.b = b
        self.kernel = kernel
        self.order: Order = kernel.order
        self.top = scope
        self.count = scope.extent(self.order.axis)
        self.bytes = b.mul(self.count, WORD)
        self.workspace = workspace

    def item(self, index: Value) -> None:
        b, axis = self.b, self.order.axis
        scope = self.top.child(self._decode(index))
        scope.hoist([self.order.arg], frozenset({axis}))
        with b.loop(0, self.count) as loop:
            value = scope.child({axis: loop.index}).evaluate(self.order.arg)
            self._store(self.workspace, loop.index, self._key(value, self.order.arg.dtype), loop.index)
        places = self._merged()
        with b.loop(0, self.count) as loop:
            place = b.load(b.offset(places, b.mul(loop.index, WORD)), I64)
            there = scope.child({axis: loop.index})
            for output in self.kernel.outputs:
                there.write(output.buffer.name, output.buffer.dtype, output.buffer.axes, place)

    def _decode(self, index: Value) -> dict[str, Value]:
        coordinates = {}
        axes = self.kernel.parallel
        for axis in reversed(axes[1:]):
            extent = self.top.extent(axis)
            coordinates[axis] = self.b.rem(index, extent, signed=False)
            index = self.b.div(index, extent, signed=False)
        if axes:
            coordinates[axes[0]] = index
        return coordinates

    def _key(self, value: Value, dtype: DType) -> Value:
        """The value as an int64 that compares as it does."""
        b = self.b
        if dtype.is_float:
            value = b.convert(value, dtype.compute.short)
            value = b.select(b.is_nan(value), float("nan"), b.add(value, 0.0))
            bits = b.bitcast(value, value.type.integer.kind)
            flipped = b.xor(bits, (1 << (bits.type.bits - 1)) - 1)
            value = b.select(b.cmp("lt", bits, 0), flipped, bits)
            key = b.convert(value, "i64")
        else:
            key = b.convert(value, "i64", signed=dtype.kind == "int")
        return b.not_(key) if self.order.descending else key

    # --- runs -------------------------------------------------------------------------------------

    def _store(self, start: Value, at: Value, key: Value, place: Value) -> None:
        b = self.b
        there = b.offset(start, b.mul(at, WORD))
        b.store(key, there)
        b.store(place, b.offset(there, self.bytes))

    def _merged(self) -> Value:
        """Where the sorted places are, after all rounds."""
        b = self.b
        other = b.offset(self.workspace, b.mul(self.bytes, 2))
        one = b.constant(1, I64)
        with b.while_([one, self.workspace, other]) as rounds:
            width, source, target = rounds.go_on_if(b.cmp("lt", rounds.carried[0], self.count))
            with b.loop(0, self.count, b.mul(width, 2)) as runs:
                middle = b.minimum(b.add(runs.index, width), self.count)
                high = b.minimum(b.add(middle, width), self.count)
                self._merge(source, target, runs.index, middle, high)
            rounds.yield_(b.mul(width, 2), target, source)
        return b.offset(rounds.results[1], self.bytes)

    def _merge(self, source: Value, target: Value, low: Value, middle: Value, high: Value) -> None:
        """Two sorted runs into one; reads stay inside them."""
        b = self.b
        with b.loop(low, high, 1, [low, middle]) as loop:
            left, right = loop.carried
            left_at = b.offset(source, b.mul(b.minimum(left, b.sub(middle, 1)), WORD))
            right_at = b.offset(source, b.mul(b.minimum(right, b.sub(high, 1)), WORD))
            left_key, right_key = b.load(left_at, I64), b.load(right_at, I64)
            first = b.or_(b.cmp("ge", right, high), b.cmp("le", left_key, right_key))
            first = b.and_(first, b.cmp("lt", left, middle))
            taken = b.select(first, left_at, right_at)
            place = b.load(b.offset(taken, self.bytes), I64)
            self._store(target, loop.index, b.select(first, left_key, right_key), place)
            step = b.convert(first, "i64", signed=False)
            loop.yield_(b.add(left, step), b.add(right, b.sub(1, step)))
