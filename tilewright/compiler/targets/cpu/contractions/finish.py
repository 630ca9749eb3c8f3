"""The epilogue of a contraction: what follows the sum, on register blocks, and the stores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from tilewright.compiler.nest import ACCUMULATOR, Kernel
from tilewright.compiler.targets.cpu.builder import I1, I64, Value
from tilewright.compiler.targets.cpu.contractions.groups import Coordinates, RowBlock
from tilewright.compiler.targets.cpu.contractions.panels import Range
from tilewright.compiler.targets.cpu.layout import Layout
from tilewright.compiler.targets.cpu.scope import Scope
from tilewright.compiler.targets.cpu.spelling import cost
from tilewright.compiler.targets.cpu.toolchain import FREE_MASKS
from tilewright.dsl.program import At, Index, Node, Read, topological

if TYPE_CHECKING:
    from tilewright.compiler.targets.cpu.contractions.blocks import Blocks

UNROLLED = 12.0  # the cost of an epilogue that is written out for every vector of the register block


def going_on(kernel: Kernel, own: Sequence[str], layout: Layout) -> int:
    """Of how many of the last axes of a side the results, and all that they are finished with, go on in the
    next line where one ends.
    """
    nodes = topological(output.node for output in kernel.outputs)
    moving, count = layout.moving(own), 1
    while count < len(moving):
        pair = moving[-count - 1], moving[-count]
        written = all(_goes_on(o.buffer.name, o.buffer.axes, *pair, layout) for o in kernel.outputs)
        if not written or any(o.places for o in kernel.outputs):
            break
        if not all(_stays_whole(node, *pair, layout) for node in nodes):
            break
        count += 1
    return count


def _stays_whole(node: Node, outer: str, inner: str, layout: Layout) -> bool:
    """Whether a vector of a node's values may run on over the end of the inner axis."""
    if isinstance(node, Read) and node.param != ACCUMULATOR:
        without = outer not in node.names and inner not in node.names
        return without or _goes_on(node.param, node.names, outer, inner, layout)
    return not isinstance(node, At | Index) or not {outer, inner} & set(node.axes)


def _goes_on(name: str, axes: Sequence[str], outer: str, inner: str, layout: Layout) -> bool:
    both = outer in axes and inner in axes
    return both and layout.goes_on(name, axes.index(outer), axes.index(inner))


class Finish:
    """The epilogue of a panel's register blocks, and the stores.

    Whole blocks whose columns lie on one stretch each are stored from registers. Others, and those whose
    epilogue is too long to be written out for every vector, wait in memory and are taken from there row by
    row, stretch by stretch. A stretch goes on from line to line of an image where the results do.
    """

    def __init__(self, blocks: Blocks, scope: Scope, column: Value, high: Value, rows: Range):
        self.blocks = blocks
        self.b = b = blocks.b
        self.rows = rows
        self.outputs = blocks.kernel.outputs
        root = blocks.contraction.root
        self.accumulator = Read(ACCUMULATOR, root.axes, root.dtype)
        work = sum(cost(node) for node in topological(o.node for o in self.outputs))
        self.short = work <= UNROLLED
        firsts = [b.add(column, v * blocks.lanes) for v in range(blocks.columns)]
        columns = blocks.finished
        self.steady = b.constant(True, I1)
        for first in firsts:
            self.steady = b.and_(self.steady, columns.steady(first, blocks.lanes, high))
        inside = [b.minimum(first, b.sub(high, 1)) for first in firsts]
        whole = b.splat(self.steady, blocks.lanes)  # else lanes may be past the end of what is read
        self.whole = [
            replace(self._columns(scope, columns.along(first), whole), mask=None) for first in inside
        ]
        self.pieces = [
            [self._columns(scope, at, mask) for at, mask in columns.stretches(first, blocks.lanes, high)]
            for first in firsts
        ]

    def _columns(self, scope: Scope, coordinates: Coordinates, mask: Value) -> Scope:
        """Some columns, with all of the epilogue that is the same for every row."""
        found = scope.child(coordinates, mask)
        found.hoist([o.node for o in self.outputs], frozenset(self.blocks.left.axes))
        return found

    def store(self, sums: list[Value], row: Value) -> None:
        b = self.b
        block = self.blocks.row_block(row, self.rows)
        if not self.short:
            self._from_memory(sums, block)
            return
        with b.if_(b.and_(self.steady, block.whole)) as choice:
            for number in range(self.blocks.rows):
                at = block.at(number)
                for column, place in enumerate(self.whole):
                    self._write(place.child(at), sums[number * self.blocks.columns + column])
            choice.otherwise()
            self._from_memory(sums, block)

    def _from_memory(self, sums: list[Value], block: RowBlock) -> None:
        b, blocks = self.b, self.blocks
        blocks.sums.store(sums, blocks.tile, b.constant(blocks.width, I64))
        with b.loop(block.first, block.stop) as loop:
            line = b.offset(blocks.tile, b.mul(loop.index, blocks.width * blocks.size))
            at = block.at(loop.index)
            for column, pieces in enumerate(self.pieces):
                place = b.offset(line, column * blocks.lanes * blocks.size)
                value = b.load(place, blocks.type.vector(blocks.lanes))
                self._write(pieces[0].child(at), value)
                for piece in pieces[1:]:
                    with self._unless_empty(piece):
                        self._write(piece.child(at), value)

    @contextmanager
    def _unless_empty(self, piece: Scope) -> Iterator[None]:
        """What is written of a piece, if it has any lanes where masks are dear."""
        b = self.b
        if b.target.vector_bits >= FREE_MASKS or piece.mask is None:
            yield
            return
        with b.if_(b.any(piece.mask)):
            yield

    def _write(self, place: Scope, value: Value) -> None:
        place.values[self.accumulator] = value
        values = [place.evaluate(output.node) for output in self.outputs]
        for output, found in zip(self.outputs, values, strict=True):
            place.write(output.buffer.name, output.buffer.dtype, output.buffer.axes, found)
