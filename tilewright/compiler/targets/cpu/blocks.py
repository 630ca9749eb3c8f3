"""Blocks: contraction kernels as MLIR, the loops of Goto and van de Geijn (BLIS).

    for item in the thread's range:                a block of BLOCK_M × BLOCK_N results
        for each BLOCK_K of the summed axes:
            pack the right side  k × n  into panels of n-vectors          (prologue applied here, once)
            for MIDDLE rows of the block:
                pack the left side m × k into panels of `rows` values     (prologue applied here, once)
                for each panel pair: rows × columns accumulators in registers, one fused multiply-add an
                element
                    last BLOCK_K: epilogue on the finished sums, and store; else: keep the sums

The side that owns the lane axis is the right one (the sides are swapped if need be). Each side is packed
along its own contiguous axis: straight copies if that is m or n, transposed in registers if it is a
summed axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tilewright.compiler.nest import ACCUMULATOR, Contraction, Kernel, evaluated
from tilewright.compiler.targets.cpu.builder import I64, Builder, Value
from tilewright.compiler.targets.cpu.frame import BLOCK_K, BLOCK_M, BLOCK_N
from tilewright.compiler.targets.cpu.schedule import UNIT, Layout, Schedule, walked_by_one
from tilewright.compiler.targets.cpu.scope import Coordinate, Lanes, Scope
from tilewright.compiler.targets.cpu.spelling import value_type
from tilewright.dsl.axes import base
from tilewright.dsl.program import At, Node, Read

MIDDLE = 128  # rows of the left side that are packed at a time; a multiple of every register block


@dataclass(frozen=True)
class Side:
    """One factor of the product: its expression, and the axes that it alone has."""

    node: Node
    own: tuple[str, ...]


class Blocks:
    """Writes the body of a contraction kernel for a range of work items."""

    def __init__(
        self, b: Builder, kernel: Kernel, schedule: Schedule, scope: Scope, workspace: Value, frame: Value
    ):
        assert kernel.contraction is not None
        self.b = b
        self.kernel = kernel
        self.layout = scope.layout
        self.contraction = kernel.contraction
        self.left, self.right = oriented(kernel.contraction, schedule)
        self.top = scope
        self.workspace = workspace
        self.rows = schedule.block_rows
        self.lanes = schedule.lanes
        self.columns = schedule.block_columns
        self.width = self.lanes * self.columns
        self.type = value_type(self.contraction.root.dtype)
        self.size = self.type.bytes
        self.block_m, self.block_n, self.block_k = (
            b.load(b.offset(frame, 8 * slot), I64) for slot in (BLOCK_M, BLOCK_N, BLOCK_K)
        )
        self.m = self._extent(self.left.own)
        self.n = self._extent(self.right.own)
        self.k = self._extent(self.contraction.k)
        self.tile = b.alloca(self.rows * self.width * self.size)

    def _extent(self, axes: Sequence[str]) -> Value:
        total = self.b.constant(1, I64)
        for axis in axes:
            total = self.b.mul(total, self.top.extent(axis))
        return total

    def _blocks(self, extent: Value, size: Value) -> Value:
        return self.b.div(self.b.add(extent, self.b.sub(size, 1)), size, signed=False)

    # --- one work item ----------------------------------------------------------------------------

    def item(self, index: Value) -> None:
        b = self.b
        blocks_n = self._blocks(self.n, self.block_n)
        blocks_m = self._blocks(self.m, self.block_m)
        n_low = b.mul(b.rem(index, blocks_n, signed=False), self.block_n)
        rest = b.div(index, blocks_n, signed=False)
        m_low = b.mul(b.rem(rest, blocks_m, signed=False), self.block_m)
        batch = b.div(rest, blocks_m, signed=False)
        scope = self.top.child(self._decode(batch, self.contraction.batch))
        n_high = b.minimum(b.add(n_low, self.block_n), self.n)
        m_high = b.minimum(b.add(m_low, self.block_m), self.m)
        scope.hoist(
            (self.left.node, self.right.node), frozenset(self.left.own + self.right.own + self.contraction.k)
        )
        with b.loop(0, b.maximum(self.k, self.b.constant(1, I64)), self.block_k) as sums:
            k_low = sums.index
            k_high = b.minimum(b.add(k_low, self.block_k), self.k)
            self._pack_right(scope, n_low, n_high, k_low, k_high)
            with b.loop(m_low, m_high, MIDDLE) as middle:
                top = b.minimum(b.add(middle.index, MIDDLE), m_high)
                self._pack_left(scope, middle.index, top, k_low, k_high)
                self._panels(scope, (m_low, middle.index, top), (n_low, n_high), (k_low, k_high))

    # --- workspace: right panels, left panels, sums of earlier blocks -----------------------------

    def _right_panels(self) -> Value:
        return self.workspace

    def _left_panels(self) -> Value:
        b = self.b
        right = b.mul(b.add(b.mul(self.block_k, self.block_n), self.lanes * self.width), self.size)
        return b.offset(self.workspace, right)

    def _sums(self, row: Value, column: Value) -> Value:
        b = self.b
        left = b.mul(b.add(b.mul(self.block_k, MIDDLE), self.rows * self.rows), self.size)
        start = b.offset(self._left_panels(), left)
        return b.offset(start, b.mul(b.add(b.mul(row, self.block_n), column), self.size))

    # --- packing ----------------------------------------------------------------------------------

    def _pack_right(self, scope: Scope, low: Value, high: Value, k_low: Value, k_high: Value) -> None:
        self._pack(
            scope, self.right, self._right_panels(), (low, high), (k_low, k_high), self.lanes, self.columns
        )

    def _pack_left(self, scope: Scope, low: Value, high: Value, k_low: Value, k_high: Value) -> None:
        self._pack(scope, self.left, self._left_panels(), (low, high), (k_low, k_high), self.rows, 1)

    def _pack(
        self,
        scope: Scope,
        side: Side,
        panels: Value,
        own: tuple[Value, Value],
        k: tuple[Value, Value],
        lanes: int,
        vectors: int,
    ) -> None:
        """Panels of `vectors · lanes` positions of the side's own axes, all of k within each."""
        b = self.b
        width = lanes * vectors
        depth = b.sub(k[1], k[0])
        scope = Scope(b, scope.loaded, scope.layout, lanes, scope.coordinates, values=dict(scope.values))
        along_k = contiguous_along_k(side, self.contraction, self.layout)
        with b.loop(own[0], own[1], width) as panel:
            number = b.div(b.sub(panel.index, own[0]), b.constant(width, I64), signed=False)
            start = b.offset(panels, b.mul(b.mul(number, depth), width * self.size))
            pack = self._pack_transposed if along_k else self._pack_straight
            pack(scope, side, start, panel.index, own[1], k, lanes, vectors)

    def _pack_straight(
        self,
        scope: Scope,
        side: Side,
        start: Value,
        first: Value,
        high: Value,
        k: tuple[Value, Value],
        lanes: int,
        vectors: int,
    ) -> None:
        b = self.b
        whole = b.cmp("le", b.add(first, lanes * vectors), high)
        with b.if_(whole) as choice:
            self._straight_panel(scope, side, start, first, None, k, lanes, vectors)
            choice.otherwise()
            self._straight_panel(scope, side, start, first, high, k, lanes, vectors)

    def _straight_panel(
        self,
        scope: Scope,
        side: Side,
        start: Value,
        first: Value,
        high: Value | None,
        k: tuple[Value, Value],
        lanes: int,
        vectors: int,
    ) -> None:
        b = self.b
        columns = []
        for vector in range(vectors):
            at = b.add(first, vector * lanes)
            columns.append(self._lane_scope(scope, side.own, at, high, lanes))
        with b.loop(k[0], k[1]) as loop:
            summed = self._decode(loop.index, self.contraction.k)
            row = b.offset(start, b.mul(b.sub(loop.index, k[0]), lanes * vectors * self.size))
            for vector, column in enumerate(columns):
                inner = column.child(summed)
                value = inner.full(inner.evaluate(side.node))
                b.store(value, b.offset(row, vector * lanes * self.size))

    def _pack_transposed(
        self,
        scope: Scope,
        side: Side,
        start: Value,
        first: Value,
        high: Value,
        k: tuple[Value, Value],
        lanes: int,
        vectors: int,
    ) -> None:
        b = self.b
        inside = b.cmp("le", b.add(first, lanes * vectors), high)
        depth = b.sub(k[1], k[0])
        middle = b.add(k[0], b.mul(b.div(depth, b.constant(lanes, I64), signed=False), lanes))
        middle = b.select(inside, middle, k[0])
        with b.loop(k[0], middle, lanes) as loop:
            self._transposed_tile(scope, side, start, first, None, (loop.index, k[0], None), lanes, vectors)
        with b.loop(middle, k[1], lanes) as loop:
            self._transposed_tile(scope, side, start, first, high, (loop.index, k[0], k[1]), lanes, vectors)

    def _transposed_tile(
        self,
        scope: Scope,
        side: Side,
        start: Value,
        first: Value,
        high: Value | None,
        k: tuple[Value, Value, Value | None],
        lanes: int,
        vectors: int,
    ) -> None:
        """A square of `lanes` positions × `lanes` of k.

        Rows past the end of k fall into the next panel, which is packed later, or into the padding behind the
        last one.
        """
        b = self.b
        at, k_low, k_high = k
        for vector in range(vectors):
            rows = []
            for lane in range(lanes):
                position = b.add(first, vector * lanes + lane)
                mask = None
                if high is not None and k_high is not None:
                    left = b.splat(b.sub(k_high, at), lanes)
                    mask = b.cmp("lt", b.iota(I64.vector(lanes)), left)
                    mask = b.and_(mask, b.splat(b.cmp("lt", position, high), lanes))
                    position = b.minimum(position, b.sub(high, 1))
                fixed = scope.child(self._decode(position, side.own))
                inner = self._lane_scope(fixed, self.contraction.k, at, None, lanes)
                inner.mask = mask
                rows.append(inner.full(inner.evaluate(side.node)))
            target = b.offset(start, b.mul(b.sub(at, k_low), lanes * vectors * self.size))
            for step, row in enumerate(b.transpose(rows)):
                b.store(row, b.offset(target, (step * vectors + vector) * lanes * self.size))

    # --- register blocks --------------------------------------------------------------------------

    def _panels(
        self, scope: Scope, m: tuple[Value, Value, Value], n: tuple[Value, Value], k: tuple[Value, Value]
    ) -> None:
        b = self.b
        depth = b.sub(k[1], k[0])
        m_start, m_low, m_high = m
        with b.loop(n[0], n[1], self.width) as column:
            number = b.div(b.sub(column.index, n[0]), b.constant(self.width, I64), signed=False)
            right = b.offset(self._right_panels(), b.mul(b.mul(number, depth), self.width * self.size))
            with b.loop(m_low, m_high, self.rows) as row:
                left = b.offset(self._left_panels(), b.mul(b.mul(b.sub(row.index, m_low), depth), self.size))
                kept = self._sums(b.sub(row.index, m_start), b.sub(column.index, n[0]))
                sums = self._multiply(left, right, depth, self._start(kept, k[0]))
                last = b.cmp("ge", k[1], self.k)
                with b.if_(last) as choice:
                    self._finish(scope, sums, row.index, m_high, column.index, n[1])
                    choice.otherwise()
                    self._each(kept, self.block_n, lambda place, at: b.store(sums[place], at))

    def _each(self, start: Value, row_elements: Value, visit) -> None:
        for row in range(self.rows):
            line = self.b.offset(start, self.b.mul(row_elements, row * self.size))
            for column in range(self.columns):
                visit(row * self.columns + column, self.b.offset(line, column * self.lanes * self.size))

    def _start(self, kept: Value, k_low: Value) -> list[Value]:
        """Zero, or the sums of the earlier blocks of k."""
        b = self.b
        type = self.type.vector(self.lanes)
        count = self.rows * self.columns
        with b.if_(b.cmp("eq", k_low, 0), [type] * count) as choice:
            zero = b.constant(0, type)
            choice.yield_(*[zero] * count)
            choice.otherwise()
            loaded: list[Value] = []
            self._each(kept, self.block_n, lambda place, at: loaded.append(b.load(at, type)))
            choice.yield_(*loaded)
        return choice.results

    def _multiply(self, left: Value, right: Value, depth: Value, start: list[Value]) -> list[Value]:
        b = self.b
        with b.loop(0, depth, 1, start) as loop:
            a = b.offset(left, b.mul(loop.index, self.rows * self.size))
            c = b.offset(right, b.mul(loop.index, self.width * self.size))
            columns = [
                b.load(b.offset(c, v * self.lanes * self.size), self.type.vector(self.lanes))
                for v in range(self.columns)
            ]
            results = []
            for row in range(self.rows):
                value = b.splat(b.load(b.offset(a, row * self.size), self.type), self.lanes)
                for column in range(self.columns):
                    old = loop.carried[row * self.columns + column]
                    results.append(self._multiply_add(value, columns[column], old))
            loop.yield_(*results)
        return loop.results

    def _multiply_add(self, x: Value, y: Value, total: Value) -> Value:
        return self.b.fma(x, y, total) if self.type.is_float else self.b.add(self.b.mul(x, y), total)

    def _finish(
        self, scope: Scope, sums: list[Value], row: Value, row_high: Value, column: Value, column_high: Value
    ) -> None:
        """The epilogue, row by row of the register block, and the stores."""
        b = self.b
        width = b.constant(self.width, I64)
        self._each(self.tile, width, lambda place, at: b.store(sums[place], at))
        stop = b.minimum(b.add(row, self.rows), row_high)
        root = self.contraction.root
        accumulator = Read(ACCUMULATOR, root.axes, root.dtype)
        columns = [
            self._lane_scope(scope, self.right.own, b.add(column, v * self.lanes), column_high, self.lanes)
            for v in range(self.columns)
        ]
        roots = [o.node for o in self.kernel.outputs]
        for inner in columns:
            inner.values[accumulator] = b.constant(0, self.type.vector(self.lanes))
            inner.hoist(roots, frozenset(self.left.own))
        with b.loop(row, stop) as loop:
            line = b.offset(self.tile, b.mul(b.sub(loop.index, row), self.width * self.size))
            coordinates = self._decode(loop.index, self.left.own)
            for position, outer in enumerate(columns):
                inner = outer.child(coordinates)
                at = b.offset(line, position * self.lanes * self.size)
                inner.values[accumulator] = b.load(at, self.type.vector(self.lanes))
                values = [inner.evaluate(output.node) for output in self.kernel.outputs]
                for output, value in zip(self.kernel.outputs, values, strict=True):
                    inner.write(output.buffer.name, output.buffer.dtype, output.buffer.axes, value)

    # --- positions in a group of axes -------------------------------------------------------------

    def _decode(self, index: Value, axes: Sequence[str]) -> dict[str, Coordinate]:
        coordinates: dict[str, Coordinate] = {}
        for axis in reversed(axes[1:]):
            extent = self.top.extent(axis)
            coordinates[axis] = self.b.rem(index, extent, signed=False)
            index = self.b.div(index, extent, signed=False)
        if axes:
            coordinates[axes[0]] = index
        return coordinates

    def _lane_scope(
        self, scope: Scope, axes: Sequence[str], first: Value, high: Value | None, lanes: int
    ) -> Scope:
        """A scope whose lanes stand at consecutive positions of a group of axes from `first`; masked at
        `high`.
        """
        b = self.b
        iota = b.iota(I64.vector(lanes))
        mask = None
        if high is not None:
            mask = b.cmp("lt", iota, b.splat(b.sub(high, first), lanes))
        if len(axes) == 1:
            return scope.child({axes[0]: Lanes(first)}, mask)
        coordinates: dict[str, Coordinate] = {}
        flat = b.add(b.splat(first, lanes), iota)
        for axis in reversed(axes[1:]):
            extent = b.splat(self.top.extent(axis), lanes)
            coordinates[axis] = Lanes(positions=b.rem(flat, extent, signed=False))
            flat = b.div(flat, extent, signed=False)
        coordinates[axes[0]] = Lanes(positions=flat)
        return scope.child(coordinates, mask)


def oriented(contraction: Contraction, schedule: Schedule) -> tuple[Side, Side]:
    """(left, right) such that the lane axis is the right side's own."""
    left, right = Side(contraction.left, contraction.m), Side(contraction.right, contraction.n)
    return (right, left) if schedule.lane_axis in contraction.m else (left, right)


def contiguous_along_k(side: Side, contraction: Contraction, layout: Layout) -> bool:
    """Whether most of what a side reads lies contiguous along the last summed axis, not along the side's
    own.
    """
    score = 0
    for node in evaluated([side.node]):
        if isinstance(node, At):
            axes, rank = walked_by_one(node, layout), len(node.arg.axes)
        elif isinstance(node, Read) and node.param in layout.classes:
            steps = enumerate(node.names)
            axes = tuple(axis for dimension, axis in steps if layout.of(node.param, dimension) == UNIT)
            rank = len(node.names)
        else:
            continue
        score += rank * ((contraction.k[-1] in axes) - (side.own[-1] in axes))
    return score > 0 and len(contraction.k) == 1


def block_sizes(
    kernel: Kernel, schedule: Schedule, extents: Mapping[str, int], threads: int
) -> tuple[int, int, int, int]:
    """(work items, BLOCK_M, BLOCK_N, BLOCK_K) for these extents; BLOCK_K, which orders the sums, knows no
    threads.
    """
    contraction = kernel.contraction
    assert contraction is not None
    left, right = oriented(contraction, schedule)
    m, n, k, batch = (
        _product(extents, axes) for axes in (left.own, right.own, contraction.k, contraction.batch)
    )
    width = schedule.lanes * schedule.block_columns
    passes = max(1, -(-k // 1024))
    block_k = max(1, -(-k // passes))
    block_n = _round_up(max(1, min(n, 1024)), width)
    block_m = _round_up(max(1, min(m, 1024)), schedule.block_rows)
    if threads > 1 and batch * -(-m // block_m) * -(-n // block_n) < 2 * threads:
        block_m = _round_up(max(1, min(block_m, -(-m // threads))), schedule.block_rows)
    items = batch * -(-m // block_m) * -(-n // block_n) if m and n and batch else 0
    return items, block_m, block_n, block_k


def workspace_bytes(schedule: Schedule, item_bytes: int, blocks: tuple[int, int, int]) -> int:
    """What one thread needs for its panels and sums."""
    block_m, block_n, block_k = blocks
    width = schedule.lanes * schedule.block_columns
    right = block_k * block_n + schedule.lanes * width
    left = block_k * MIDDLE + schedule.block_rows * schedule.block_rows
    sums = (block_m + schedule.block_rows) * block_n + width
    return (right + left + sums) * item_bytes + 4096


def _product(extents: Mapping[str, int], axes: Sequence[str]) -> int:
    total = 1
    for axis in axes:
        total *= extents[base(axis)]
    return total


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
