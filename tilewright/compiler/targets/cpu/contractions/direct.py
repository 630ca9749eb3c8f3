"""Reading the rows of a contraction where they lie, with no packing.

A row's elements for the innermost summed axis lie side by side, or a few elements apart: what the register
block needs to know of them is where they begin. A table holds that address for each row and each run of the
innermost axis, or of the last few where they lie in memory as one; where a window reaches outside of its
operand, the address is that of zeros.

    for each run of the summed axes:  addresses = table[panel][run]
        for k in run:  sums[row] += addresses[row][step · k] · right[k]

The words that a dot-product instruction takes lie in memory as they are where an operand of its own numbers
is one run.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from tilewright.compiler.targets.cpu.builder import I64, PTR, Builder, Value
from tilewright.compiler.targets.cpu.contractions.groups import Coordinates, Group
from tilewright.compiler.targets.cpu.contractions.panels import Range, unit_axes
from tilewright.compiler.targets.cpu.contractions.reading.even import Even
from tilewright.compiler.targets.cpu.layout import Layout
from tilewright.compiler.targets.cpu.lengths import SHORT, TINY
from tilewright.compiler.targets.cpu.scope import Scope
from tilewright.compiler.targets.cpu.spelling import memory_kind, value_type
from tilewright.compiler.targets.cpu.toolchain import FREE_MASKS
from tilewright.dsl.axes import base
from tilewright.dsl.dtypes import DType, bfloat16
from tilewright.dsl.program import At, Cast, Node, Read


def readable(
    node: Node, summed: Sequence[str], dtype: DType, layout: Layout, even: Even | None = None
) -> bool:
    """Whether a side can be read where it lies: an operand of the sum's own type, contiguous along the
    innermost summed axes that are one run, and never left in the middle of it, unless rows that lie evenly
    are filled. A run of one short axis is as good as packed if it is written out, as those rows have it.
    """
    if not is_operand(node, dtype, layout):
        return False
    written_out = even is not None and base(summed[0]) in layout.sides.known
    brief = len(summed) == 1 and layout.length(summed[0]) in (TINY, SHORT) and not written_out
    if summed[-1] not in unit_axes(node, layout)[0] or brief:
        return False
    if not isinstance(node, At) or (even is not None and even.filled):
        return True
    proven = layout.inside.get(node, frozenset())
    return all(
        axis in proven or not set(summed) & set(position.axes)
        for axis, position in zip(node.along, node.positions, strict=True)
    )


def step_along(node: Node, summed: str, dtype: DType, layout: Layout) -> int:
    """The elements from one position along the innermost summed axis to the next, of a side that can be read
    where it lies though there are others between them: few, and it is never left. 0 of other sides.
    """
    if not isinstance(node, At) or not is_operand(node, dtype, layout):
        return 0
    return 0 if layout.length(summed) in (TINY, SHORT) else layout.sides.steps.get(node, {}).get(summed, 0)


def is_operand(node: Node, dtype: DType, layout: Layout) -> bool:
    """Whether a side is an operand of the sum's own type, as it lies in memory."""
    operand = node.arg if isinstance(node, At) else node
    if not isinstance(operand, Read) or operand.param not in layout.classes:
        return False
    return operand.dtype == dtype and memory_kind(dtype) == value_type(dtype).kind


def in_words(node: Node, summed: str, layout: Layout) -> Read | None:
    """The operand that a side of bfloat16 numbers is, if contiguous along the innermost summed axis."""
    operand = node.arg if isinstance(node, Cast) else node
    if not isinstance(operand, Read) or operand.dtype != bfloat16 or operand.param not in layout.classes:
        return None
    contiguous = summed in unit_axes(operand, layout)[0] and layout.length(summed) not in (TINY, SHORT)
    return operand if contiguous else None


class Addresses:
    """Writes the table of a chunk's rows, and reads it."""

    def __init__(
        self,
        b: Builder,
        node: Node,
        summed: Group,
        rows: int,
        size: int,
        zeros: Value,
        count: Value | None = None,
    ):
        """`count`: of the zeros, if a row is read further than its run goes."""
        assert isinstance(node, (Read, At))
        self.b = b
        self.node = node
        self.layout = summed.layout
        self.summed = summed
        self.rows = rows
        self.size = size
        self.zeros = zeros
        self.zero_bytes = b.mul(b.add(summed.span, 1) if count is None else count, size)

    @property
    def is_inside(self) -> bool:
        """Whether no row is ever outside."""
        if not isinstance(self.node, At):
            return True
        return self.layout.inside.get(self.node, frozenset()) >= set(self.node.along)

    def clear(self) -> None:
        """Write the zeros that stand for what is outside."""
        b = self.b
        if self.is_inside:
            return
        zero = b.constant(0, I64)
        with b.loop(0, self.zero_bytes, 8) as loop:
            b.store(zero, b.offset(self.zeros, loop.index))

    def note(self, scope: Scope, table: Value, panel: Value, places: Coordinates, k: Range) -> None:
        """Write down the addresses of one panel of rows, whose coordinates differ from lane to lane."""
        rows = self._lanes(scope)
        with self.summed.runs(*k) as run:
            here = rows.child({**places, **run.coordinates, **self.summed.inner(run.first)})
            self._write(here, self.line(table, panel, run.number, k))

    def _lanes(self, scope: Scope) -> Scope:
        """A scope in which every row is a lane."""
        known = dict(scope.values)
        return Scope(self.b, scope.loaded, scope.layout, self.rows, scope.coordinates, values=known)

    def _write(self, here: Scope, line: Value) -> None:
        b = self.b
        addresses, inside = here.addresses(self.node)
        if inside is not None:
            outside = b.splat(b.integer(self.zeros), self.rows)
            addresses = b.select(here.full(inside), addresses, outside)
        b.store(addresses, line)

    def line(self, table: Value, panel: Value, run: Value, k: Range) -> Value:
        b = self.b
        first, end = self.summed.run_numbers(*k)
        line = b.add(b.mul(panel, b.sub(end, first)), b.sub(run, first))
        return b.offset(table, b.mul(line, 8 * self.rows))

    def of_run(self, table: Value, panel: Value, run: Value, k: Range) -> list[Value]:
        """Where the rows of a panel begin in a run."""
        return self.in_line(self.line(table, panel, run, k))

    def of_places(self, scope: Scope, line: Value, places: Coordinates) -> list[Value]:
        """Where some rows begin, each of which may be outside, by way of a line of memory."""
        self._write(self._lanes(scope).child(places), line)
        return self.in_line(line)

    def all_outside(self, line: Value) -> Value:
        """Whether all addresses in a line of a table are those of the zeros."""
        b = self.b
        if b.target.vector_bits >= FREE_MASKS:
            found = b.load(line, I64.vector(self.rows))
            return b.not_(b.any(b.cmp("ne", found, b.splat(b.integer(self.zeros), self.rows))))
        zeros = b.integer(self.zeros)  # of masks in vectors there would be an instruction a lane
        unequal = [b.xor(b.integer(place), zeros) for place in self.in_line(line)]
        return b.cmp("eq", functools.reduce(b.or_, unequal), 0)

    def in_line(self, line: Value) -> list[Value]:
        """The addresses in a line of a table."""
        return [self.b.load(self.b.offset(line, 8 * row), PTR) for row in range(self.rows)]
