"""Blocks: contraction kernels as MLIR, the loops of Goto and van de Geijn (BLIS).

    for item in the thread's range:                a block of BLOCK_M × BLOCK_N results
        for each BLOCK_K of the summed axes:
            for each CHUNK_N columns of the block:
                pack the right side  k × n  into panels of n-vectors      (prologue applied here, once)
                for each CHUNK_M rows of the block:
                    pack the left side m × k into panels of `rows` values (prologue applied here, once)
                    for each panel pair: rows × columns accumulators in registers, one fused multiply-add an
                    element
                        last BLOCK_K: epilogue on the finished sums, and store; else: keep the sums

The side that owns the lane axis is the right one (the sides are swapped if need be). A left side of one chunk
is packed once for all chunks of columns; rows of windows that are read where they lie are one chunk, and each
panel of columns is used up while it is in the second cache. How a side is packed is told in `panels`, how it
is read where it lies in `direct` and `even` (rows), `lines`, `overrun` and `tapped` (columns) and
`inner_products` (both, with vectors along the sums). Vectors that belong to several groups are told of in
`grouped`. `multiply` makes the sums of a register block of that, `products` has the innermost loops, and
`finish` stores what is finished. `walk` says which of all that is done and in which order sums go, `sizes`
how large blocks and chunks are.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace

from tilewright.compiler.nest import ACCUMULATOR, Kernel, evaluated
from tilewright.compiler.targets.cpu.builder import I64, Builder, Value
from tilewright.compiler.targets.cpu.contractions.direct import Addresses
from tilewright.compiler.targets.cpu.contractions.dot_products import (
    TOGETHER,
    WORD,
    sums_type,
)
from tilewright.compiler.targets.cpu.contractions.even import EvenRows
from tilewright.compiler.targets.cpu.contractions.finish import Finish, going_on
from tilewright.compiler.targets.cpu.contractions.finite import Finite
from tilewright.compiler.targets.cpu.contractions.groups import Group, Noted, RowBlock
from tilewright.compiler.targets.cpu.contractions.inner_products import InnerProducts
from tilewright.compiler.targets.cpu.contractions.lines import Lines
from tilewright.compiler.targets.cpu.contractions.live import Live
from tilewright.compiler.targets.cpu.contractions.multiply import multiplied
from tilewright.compiler.targets.cpu.contractions.overrun import OverrunColumns
from tilewright.compiler.targets.cpu.contractions.panels import Packing, Range, square_of
from tilewright.compiler.targets.cpu.contractions.products import Products
from tilewright.compiler.targets.cpu.contractions.reading.tapped import Beside
from tilewright.compiler.targets.cpu.contractions.sizes import ADDRESS, LINE, MARGIN
from tilewright.compiler.targets.cpu.contractions.sums import Sums
from tilewright.compiler.targets.cpu.contractions.tapped import Panel, TappedColumns
from tilewright.compiler.targets.cpu.contractions.walk import Walk
from tilewright.compiler.targets.cpu.frame import BLOCK_K, BLOCK_M, BLOCK_N, CHUNK_M, CHUNK_N, PACKED
from tilewright.compiler.targets.cpu.registers import Registers
from tilewright.compiler.targets.cpu.schedule import Schedule
from tilewright.compiler.targets.cpu.scope import Scope
from tilewright.compiler.targets.cpu.spelling import value_type
from tilewright.compiler.targets.cpu.toolchain import FREE_MASKS
from tilewright.dsl.program import At, Read

PAIR = 2  # vectors of a panel, to the last of which a third is added where their number is odd


class Blocks:
    """Writes the body of a contraction kernel for a range of work items."""

    def __init__(
        self, b: Builder, kernel: Kernel, schedule: Schedule, scope: Scope, workspace: Value, frame: Value
    ):
        assert kernel.contraction is not None
        self.b = b
        self.kernel = kernel
        self.contraction = kernel.contraction
        self.top = scope
        self.rows = schedule.block_rows
        self.lanes = schedule.lanes
        self.columns = schedule.block_columns
        self.width = self.lanes * self.columns
        self.type = value_type(self.contraction.root.dtype)
        self.size = self.type.bytes
        self.dot_product = schedule.dot_product
        self.block_type = sums_type(self.dot_product, self.type)
        self.packed = WORD if self.dot_product else self.type
        self.together = together = TOGETHER if self.dot_product else 1
        self.block_m, self.block_n, self.block_k, self.chunk_m, self.chunk_n = (
            b.load(b.offset(frame, 8 * slot), I64) for slot in (BLOCK_M, BLOCK_N, BLOCK_K, CHUNK_M, CHUNK_N)
        )
        self.walk = walk = Walk.of(kernel, schedule, scope.layout)
        self.left, self.right, self.summed, self.batch = (
            Group(b, scope, axes, scope.layout)
            for axes in (walk.left.own, walk.right.own, walk.summed, self.contraction.batch)
        )
        own = walk.right.own
        self.finished: Group | OverrunColumns = Group(
            b, scope, own, scope.layout, going_on(kernel, own, scope.layout)
        )
        self.m, self.n, self.k = self.left.size(), self.right.size(), self.summed.size()
        self.block_k = self.k if scope.layout.sides.known else self.block_k  # they are one block
        self.tile = b.alloca(self.rows * (self.width + self.lanes * schedule.odd) * self.size)
        size = self.packed.bytes
        self.pack_left = Packing(b, walk.left, self.left, self.summed, self.rows, 1, size, together)
        self.pack_right = Packing(
            b, walk.right, self.right, self.summed, self.lanes, self.columns, size, together
        )
        self._divide(workspace)
        self.is_packed = self._is_packed(b.load(b.offset(frame, 8 * PACKED), I64))
        self.sums = Sums(b, self.rows, self.columns, self.type.vector(self.lanes))
        whole = self.inner or walk.in_lines or walk.overrun or walk.tapped
        odd = schedule.odd and not whole
        listed = bool(walk.sparse and not walk.sparse.on_the_left)  # runs, for each panel of columns
        room = self.rows * (PAIR + 1) <= Registers(b.target.registers, self.lanes).most
        self.triple = self._of(PAIR + 1) if odd and self.columns == PAIR and room and not listed else None
        self.half = self._of(1) if odd and not self.triple else None

    def _of(self, vectors: int) -> Blocks:
        """These blocks for a last panel of another number of vectors."""
        found = copy(self)
        found.columns, found.width = vectors, vectors * self.lanes
        found.products = replace(self.products, columns=vectors)
        found.sums = replace(self.sums, columns=vectors)
        return found

    @property
    def beside(self) -> Beside | None:
        """How rows are read beside tapped columns of several groups."""
        return self.walk.tapped.beside if self.walk.tapped else None

    def _divide(self, workspace: Value) -> None:
        """The workspace: coordinates of rows, zeros, right panels, left panels or addresses, waiting sums."""
        b = self.b
        self.places = Noted(b, self.left, workspace, self.chunk_m)
        noted = b.mul(self.chunk_m, 0 if self.walk.even else ADDRESS * len(self.walk.left.own))
        at = self._after(workspace, noted)
        self.runs = runs = Group(b, self.top, self.walk.summed, self.top.layout, self.walk.joined)
        _, count = runs.run_numbers(b.constant(0, I64), self.k)
        self.products = Products(
            b,
            self.rows,
            self.columns,
            self.lanes,
            self.packed,
            self.type,
            self.dot_product,
            self.walk.step,
            self.walk.known_span(self.top.layout),
        )
        self.direct = self.even = None
        row_bytes = b.mul(b.add(self.block_k, MARGIN), self.size)
        if self.walk.even:
            side, even = self.walk.left, self.walk.even
            grouped = self.walk.grouped
            again = self._may_store_again() and self.rows <= even.rows
            self.even = EvenRows(b, self.top, side, even, runs, self.products, at, count, grouped, again)
            self.m = self.even.size()
            row_bytes = b.constant(0, I64)
            at = self._after(at, b.mul(count, ADDRESS * len(runs.outer)))
            at = self._after(at, b.mul(b.add(runs.span, 8 + self.lanes), self.size))
        elif self.walk.direct:
            self.direct = Addresses(b, self.walk.left.node, runs, self.rows, self.size, at)
            self.direct.clear()
            row_bytes = b.mul(count, ADDRESS)
            at = self._after(at, b.mul(b.add(runs.span, 8), self.size))
        self.right_panels = at
        right = b.mul(b.add(b.mul(self.block_k, self.chunk_n), self.lanes * self.width), self.size)
        self.inner = self.overrun = self.tapped = None
        if self.walk.overrun:
            side, overrun = self.walk.right, self.walk.overrun
            self.overrun = OverrunColumns(b, self.top, side, overrun, runs, at, self.lanes, self.columns)
            self.finished, self.n = self.overrun, self.overrun.size_of_side()
            right = self.overrun.bytes
        elif self.walk.tapped:
            side, tapped = self.walk.right, self.walk.tapped
            self.tapped = TappedColumns(b, self.top, side, tapped, runs, at, self.lanes, self.columns)
            right = self.tapped.bytes
        elif self.walk.inner:
            self.columns_at = Addresses(b, self.walk.right.node, runs, self.width, self.size, at)
            sums = self.rows * self.columns
            self.inner = InnerProducts(b, self.lanes, self.packed, self.type, self.together, self.rows, sums)
            right = b.constant(ADDRESS * self.width, I64)
        elif self.walk.in_lines:
            right = b.constant(0, I64)
        self.left_panels = self._after(at, right)
        left = b.add(b.mul(row_bytes, self.chunk_m), square_of(self.rows) ** 2 * self.size)
        at = self._after(self.left_panels, left)
        self.live = None
        if self.walk.sparse:
            others = Finite(b, self.packed, self.lanes)
            self.live = Live(b, self.walk.sparse, others, runs, count, at)
            on_the_left = self.walk.sparse.on_the_left
            chunk, size = (self.chunk_m, self.rows) if on_the_left else (self.chunk_n, self.width)
            panels = b.add(b.div(chunk, b.constant(size, I64), signed=False), 1)
            at = self._after(at, b.mul(panels, self.live.line_bytes))
        self.waiting = at
        self.left_finite, self.right_finite = self._looked_at()

    def _may_store_again(self) -> bool:
        """Whether rows that are stored twice are the same both times: nothing else of theirs is read then."""
        outputs, rows = self.kernel.outputs, set(self.walk.left.own)
        read = [node for node in evaluated(o.node for o in outputs) if isinstance(node, At | Read)]
        own = [node for node in read if rows & set(node.axes)]
        sums_alone = all(isinstance(node, Read) and node.param == ACCUMULATOR for node in own)
        return sums_alone and all(output.accumulate is None for output in outputs)

    def _looked_at(self) -> tuple[Finite | None, Finite | None]:
        """The sides of which it matters whether they are finite: runs are passed over on the other one."""
        left = right = None
        if self.live and self.live.sparse.on_the_left:
            right = self.live.others
        elif self.live:
            left = self.live.others
        if self.tapped and self.tapped.left and not self.beside:
            left = self.tapped.others = Finite(self.b, self.packed, self.lanes)
        packed = not (self.inner or self.overrun or self.tapped or self.walk.in_lines)
        addresses = self.even.addresses if self.even and not self.even.filled else self.direct
        if packed and addresses and not addresses.is_inside and not self.products.written_out:
            right = right or Finite(self.b, self.packed, self.lanes)
        if self.even:
            self.even.others = right
        return left, right

    def _is_packed(self, before: Value) -> Value:
        """Whether the right side lies in the workspace since an item `before`: all of it, for all items."""
        b = self.b
        one = b.and_(b.cmp("le", self.n, self.chunk_n), b.cmp("le", self.k, self.block_k))
        one = b.and_(one, b.cmp("le", self.batch.size(), 1))
        return b.and_(one, b.cmp("ne", before, 0))

    def _after(self, start: Value, size: Value) -> Value:
        """The first cache line behind `size` bytes."""
        b = self.b
        lines = b.div(b.add(size, LINE - 1), b.constant(LINE, I64), signed=False)
        return b.offset(start, b.mul(lines, LINE))

    # --- one work item ----------------------------------------------------------------------------

    def item(self, index: Value) -> None:
        b = self.b
        blocks_n = _blocks(b, self.n, self.block_n)
        n_low = b.mul(b.rem(index, blocks_n, signed=False), self.block_n)
        rest = b.div(index, blocks_n, signed=False)
        mixed = self.top.layout.sides.mixed  # all of the batch for some rows, else all rows for each
        inner = self.batch.size() if mixed else _blocks(b, self.m, self.block_m)
        parts = b.div(rest, inner, signed=False), b.rem(rest, inner, signed=False)
        rows, batch = parts if mixed else parts[::-1]
        m_low = b.mul(rows, self.block_m)
        scope = self.top.child(self.batch.decode(batch))
        n = n_low, b.minimum(b.add(n_low, self.block_n), self.n)
        m = m_low, b.minimum(b.add(m_low, self.block_m), self.m)
        moving = (*self.left.axes, *self.right.axes, *self.summed.axes)
        scope.hoist((self.walk.left.node, self.walk.right.node), frozenset(moving))
        with b.loop(0, b.maximum(self.k, 1), self.block_k) as sums:
            k = sums.index, b.minimum(b.add(sums.index, self.block_k), self.k)
            with b.loop(*n, self.chunk_n) as chunk:
                columns = chunk.index, b.minimum(b.add(chunk.index, self.chunk_n), n[1])
                if self.overrun:
                    self.overrun.note(scope, k)
                elif self.tapped:
                    self.tapped.note(scope, k)
                elif not self.inner and not self.walk.in_lines:
                    with b.if_(b.not_(self.is_packed)):
                        self.pack_right.pack(scope, self.right_panels, columns, k)
                    self._look_through(self.right_finite, self.right_panels, columns, self.width, k)
                self._note_columns(scope, columns, k)
                self._rows(scope, m, n, columns, k)
        if self.walk.in_lines:
            self._finish_all(scope, m, n)

    def _look_through(self, finite: Finite | None, start: Value, own: Range, width: int, k: Range) -> None:
        """Find out whether panels that were packed are finite, if that matters."""
        if finite is None:
            return
        b = self.b
        panels = _blocks(b, b.sub(own[1], own[0]), b.constant(width, I64))
        depth = self.pack_right.lines(b.sub(k[1], k[0]))
        finite.begin()
        finite.look_through(start, b.mul(b.mul(panels, depth), width))

    def _finish_all(self, scope: Scope, m: Range, n: Range) -> None:
        """The end of all sums of a block, which wait."""
        b = self.b
        with b.loop(*n, self.width) as column:
            finish = Finish(self, scope, column.index, n[1], m)
            with b.loop(*m, self.rows) as row:
                kept = self._kept(b.sub(row.index, m[0]), b.sub(column.index, n[0]))
                finish.store(self.sums.load(kept, self.block_n), row.index)

    def _rows(self, scope: Scope, m: Range, n: Range, columns: Range, k: Range) -> None:
        """All rows of a block for some of its columns."""
        b = self.b
        several = b.cmp("lt", self.chunk_m, b.sub(m[1], m[0]))
        missing = b.or_(several, b.cmp("eq", columns[0], n[0]))
        with b.loop(*m, self.chunk_m) as chunk:
            rows = chunk.index, b.minimum(b.add(chunk.index, self.chunk_m), m[1])
            with b.if_(missing):
                if self.even:
                    self.even.note(k)
                    if self.left_finite:
                        self.even.look_along(scope, self.left_finite, rows, k)
                else:
                    self._note_rows(scope, rows, k)
            self._panels(scope, (m[0], n[0]), rows, columns, k)

    def _note_rows(self, scope: Scope, rows: Range, k: Range) -> None:
        """Where rows are, and what they are if they are packed."""
        self.places.note(*rows, self.rows)
        if self.beside:
            return
        if self.direct:
            self._note_addresses(self.direct, scope, rows, k)
        else:
            self.pack_left.pack(scope, self.left_panels, rows, k)
            self._look_through(self.left_finite, self.left_panels, rows, self.rows, k)
        self._note_live_rows(scope, rows, k)

    def row_block(self, row: Value, rows: Range) -> RowBlock:
        """Which rows of a register block are stored, and where they are, of some rows."""
        return self.even.block(row) if self.even else self.places.block(row, *rows, self.rows)

    def _note_addresses(self, direct: Addresses, scope: Scope, rows: Range, k: Range) -> None:
        b = self.b
        if self.left_finite:
            self.left_finite.begin()
        with b.loop(*rows, self.rows) as panel:
            places = self.places.several(panel.index, *rows, self.rows)
            number = self.number(panel.index, rows)
            direct.note(scope, self.left_panels, number, places, k)
            if self.left_finite:
                with self.runs.runs(*k) as run:
                    line = direct.line(self.left_panels, number, run.number, k)
                    self.left_finite.look_along(line, self.rows, run.count)

    def _note_live_rows(self, scope: Scope, rows: Range, k: Range) -> None:
        """Which runs the panels of rows take part in."""
        if not self.live or not self.live.sparse.on_the_left:
            return
        with self.b.loop(*rows, self.rows) as panel:
            places = self.places.several(panel.index, *rows, self.rows)
            self.live.note(scope, self.number(panel.index, rows), [places], self.rows, k)

    def _note_columns(self, scope: Scope, columns: Range, k: Range) -> None:
        """Which runs the panels of columns take part in."""
        b = self.b
        if not self.live or self.live.sparse.on_the_left:
            return
        with b.loop(*columns, self.width) as panel:
            firsts = [b.add(panel.index, vector * self.lanes) for vector in range(self.columns)]
            places = [self.right.inside(first, self.lanes, columns[1]) for first in firsts]
            self.live.note(scope, self._column_number(panel.index, columns), places, self.lanes, k)

    def number(self, row: Value, rows: Range) -> Value:
        """The number of a row's panel in its chunk."""
        return self.b.div(self.b.sub(row, rows[0]), self.b.constant(self.rows, I64), signed=False)

    def _column_number(self, column: Value, columns: Range) -> Value:
        """The number of a column's panel in its chunk."""
        b = self.b
        return b.div(b.sub(column, columns[0]), b.constant(self.width, I64), signed=False)

    # --- register blocks --------------------------------------------------------------------------

    def _panels(
        self, scope: Scope, origin: tuple[Value, Value], rows: Range, columns: Range, k: Range
    ) -> None:
        b = self.b
        last = self._before_three(columns) if self.triple else columns[1]
        with b.loop(columns[0], last, self.width) as column:
            here = column.index, columns[1]
            number = self._column_number(column.index, columns)
            if self.half is None:
                self._column_panel(scope, origin, rows, here, number, columns, k)
            else:
                with b.if_(b.cmp("le", b.sub(columns[1], column.index), self.lanes)) as choice:
                    self.half._column_panel(scope, origin, rows, here, number, columns, k)
                    choice.otherwise()
                    self._column_panel(scope, origin, rows, here, number, columns, k)
        if self.triple:
            with b.if_(b.cmp("lt", last, columns[1])):
                number = self._column_number(last, columns)
                self.triple._column_panel(scope, origin, rows, (last, columns[1]), number, columns, k)

    def _before_three(self, columns: Range) -> Value:
        """Where the last three vectors begin, if columns are an odd number of vectors and more than one."""
        b, three = self.b, (PAIR + 1) * self.lanes
        vectors = _blocks(b, b.sub(columns[1], columns[0]), b.constant(self.lanes, I64))
        odd = b.cmp("ne", b.and_(vectors, 1), 0)
        before = b.add(columns[0], b.sub(b.mul(vectors, self.lanes), three))
        return b.select(b.and_(odd, b.cmp("gt", vectors, 1)), before, columns[1])

    def _column_panel(
        self,
        scope: Scope,
        origin: tuple[Value, Value],
        rows: Range,
        here: Range,
        number: Value,
        columns: Range,
        k: Range,
    ) -> None:
        """All rows of a chunk for the first panel of columns `here`, which has this number in its chunk."""
        b = self.b
        place = b.sub(here[0], origin[1])
        if self.walk.in_lines:
            right, masks = self._lines(scope, here, k)
            start = origin[0], place
            if self.lanes * self.type.bits >= FREE_MASKS:
                self._register_blocks(scope, None, number, right.under(masks), start, rows, k)
                return
            with b.if_(b.cmp("le", b.add(here[0], self.width), here[1])) as choice:
                self._register_blocks(scope, None, number, right, start, rows, k)
                choice.otherwise()
                self._register_blocks(scope, None, number, right.under(masks), start, rows, k)
            return
        if self.tapped:
            finish, panel = Finish(self, scope, here[0], here[1], rows), self.tapped.panel(scope, here[0])
            if self.beside:
                scope = self._of_group(scope, self.beside.groups, here[0])
            self._register_blocks(scope, finish, b.constant(0, I64), panel, (origin[0], place), rows, k)
            return
        if self.overrun:
            finish = Finish(self, scope, here[0], here[1], rows)
            self._over_lines(self.overrun, scope, finish, (origin[0], place), rows, here[0], columns[0], k)
            return
        depth = self.pack_right.lines(b.sub(k[1], k[0]))
        panel = b.offset(self.right_panels, b.mul(b.mul(number, depth), self.pack_right.line))
        finish = Finish(self, scope, here[0], here[1], rows)
        if self.direct and self.inner:
            self._inner_products(self.inner, self.direct, scope, finish, (origin[0], place), rows, here, k)
        else:
            right = Lines(panel, self.pack_right.line, near=True)
            if self.columns > PAIR and self.columns > self.pack_right.vectors:
                right = right.with_panel(b, b.mul(depth, self.pack_right.line), PAIR)
            if self.walk.grouped:
                scope = self._of_group(scope, self.walk.grouped.groups, here[0])
            self._register_blocks(scope, finish, number, right, (origin[0], place), rows, k)

    def _of_group(self, scope: Scope, groups: str, column: Value) -> Scope:
        """The scope of rows beside columns of several groups: it is at the first of them."""
        return scope.child({groups: self.right.decode(column)[groups]})

    def _over_lines(
        self,
        overrun: OverrunColumns,
        scope: Scope,
        finish: Finish,
        origin: tuple[Value, Value],
        rows: Range,
        column: Value,
        first: Value,
        k: Range,
    ) -> None:
        """All rows of a chunk for the panel of columns that begins with one, of those from the `first` on,
        which is not packed.
        """
        b = self.b
        zero = b.constant(0, I64)
        lines = overrun.lines(scope, column, first)
        if self.lanes * self.type.bits >= FREE_MASKS:
            self._register_blocks(scope, finish, zero, lines, origin, rows, k)
            return
        with b.if_(overrun.is_whole(column)) as choice:
            self._register_blocks(scope, finish, zero, lines.under(()), origin, rows, k)
            choice.otherwise()
            self._register_blocks(scope, finish, zero, lines, origin, rows, k)

    def _lines(self, scope: Scope, columns: Range, k: Range) -> tuple[Lines, list[Value]]:
        """The lines of a panel of columns where they lie, from the first of some summed positions on, and the
        lanes that may be read.
        """
        b, node = self.b, self.walk.right.node
        assert isinstance(node, Read)
        here = scope.child({**self.right.decode(columns[0]), **self.summed.decode(k[0])})
        start, strides = here.start_of(node)
        count = b.sub(columns[1], columns[0])
        masks = [b.first_lanes(b.sub(count, v * self.lanes), self.lanes) for v in range(self.columns)]
        return Lines(start, strides[self.summed.last], near=False), masks

    def _register_blocks(
        self,
        scope: Scope,
        finish: Finish | None,
        number: Value,
        right: Lines | Panel,
        origin: tuple[Value, Value],
        rows: Range,
        k: Range,
    ) -> None:
        """All rows of a chunk with one panel of the right side, which has that number."""
        b = self.b
        with b.loop(*rows, self.rows) as row:
            kept = self._kept(b.sub(row.index, origin[0]), origin[1])
            start = self.sums.begun(kept, self.block_n, k[0])
            sums = multiplied(self, scope, (row.index, rows), (number, right), k, start)
            self._finish_or_wait(finish, sums, row.index, kept, k)

    def _finish_or_wait(
        self, finish: Finish | None, sums: list[Value], row: Value, kept: Value, k: Range
    ) -> None:
        """Sums wait unless these are the last summed positions and somebody is to `finish` them."""
        b = self.b
        if finish is None:
            self.sums.store(sums, kept, self.block_n)
            return
        with b.if_(b.cmp("ge", k[1], self.k)) as choice:
            finish.store(self._settled(sums), row)
            choice.otherwise()
            self.sums.store(sums, kept, self.block_n)

    def _settled(self, sums: list[Value]) -> list[Value]:
        """Sums that are the same whether runs were passed over or not."""
        finite = self.left_finite or self.right_finite
        return finite.settled(sums) if finite else sums

    def _inner_products(
        self,
        inner: InnerProducts,
        direct: Addresses,
        scope: Scope,
        finish: Finish,
        origin: tuple[Value, Value],
        rows: Range,
        columns: Range,
        k: Range,
    ) -> None:
        """All rows of a chunk for one panel of columns, with nothing packed."""
        b = self.b
        zero = b.constant(0, I64)
        noted = Noted(b, self.right, self.right_panels, zero)
        self.columns_at.note(
            scope, self.right_panels, zero, noted.several(columns[0], *columns, self.width), k
        )
        count = b.minimum(b.sub(columns[1], columns[0]), self.width)
        with b.loop(*rows, self.rows) as row:
            places = direct.of_run(self.left_panels, self.number(row.index, rows), zero, k)
            depth, line = b.sub(k[1], k[0]), self.width * self.size
            inner.write(places, self.right_panels, count, depth, self.tile, line)
            kept = self._kept(b.sub(row.index, origin[0]), origin[1])
            added = self.sums.load(self.tile, b.constant(self.width, I64))
            start = self.sums.begun(kept, self.block_n, k[0])
            sums = [b.add(s, found) for s, found in zip(start, added, strict=True)]
            self._finish_or_wait(finish, sums, row.index, kept, k)

    def _kept(self, row: Value, column: Value) -> Value:
        """Where the sums of a register block wait for the next block of k."""
        b = self.b
        return b.offset(self.waiting, b.mul(b.add(b.mul(row, self.block_n), column), self.size))


def _blocks(b: Builder, extent: Value, size: Value) -> Value:
    return b.div(b.add(extent, b.sub(size, 1)), size, signed=False)
