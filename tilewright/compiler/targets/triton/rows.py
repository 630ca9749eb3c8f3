"""Pointwise and row kernels as Triton text.

pointwise          one tile of rows × columns of the parallel axes
row that fits      rows × all of the row axes, loaded once; every phase works on values in registers
row that does not  rows; each phase walks the row in blocks and carries accumulators
chunk of rows      a loop over rows; results across them are accumulated in registers, or in memory if the row
                   does not fit
chunk of a row     one program for each part of one long row
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tilewright.compiler.nest import Kernel, Output, Phase
from tilewright.compiler.targets.triton import spelling
from tilewright.compiler.targets.triton.places import Place, Writer, group_name, positions, program_id
from tilewright.compiler.targets.triton.schedule import Schedule
from tilewright.compiler.targets.triton.scope import Scope, Walk
from tilewright.compiler.targets.triton.writer import ATOM, Block, Value
from tilewright.dsl.dtypes import DType
from tilewright.dsl.program import Reduce, Scan, combine_identity


class Rows:
    """Writes the body of a pointwise or row kernel into the writer's top block."""

    def __init__(self, writer: Writer, schedule: Schedule):
        self.writer = writer
        self.kernel: Kernel = writer.kernel
        self.schedule = schedule
        self.top = writer.top
        self.names = writer.names
        self.block_rows = self._block(schedule.rows, schedule.block_rows)
        self.block_columns = self._block(schedule.columns, schedule.block_columns)
        self.shape = [b for b in (self.block_rows, self.block_columns) if b]

    def _block(self, axes: Sequence[str], size: int) -> str:
        if not axes or (size == 1 and axes == self.schedule.rows):
            return ""
        return self.writer.parameters.block("BLOCK_" + group_name(axes).upper(), size)

    @property
    def rank(self) -> int:
        return len(self.shape)

    def write(self) -> None:
        split = self.kernel.split
        if split and split.of == "row":
            self._chunk_of_a_row()
        elif split:
            self._chunk_of_rows()
        elif self.kernel.row:
            self._row()
        else:
            self._pointwise()

    # --- places ----------------------------------------------------------------------------------------

    def _scope(self, block: Block, parent: Scope | None, rows: Place | None, columns: Place | None) -> Scope:
        """A scope whose tile has the rows first and the columns last."""
        places = [p for p in (rows, columns) if p is not None]
        dims = {}
        if rows is not None and rows.vector:
            dims[id(rows)] = 0
        if columns is not None and columns.vector:
            dims[id(columns)] = self.rank - 1
        return Scope(self.writer, block, parent, places, dims, self.rank)

    def _rows_bound(self) -> str:
        return "" if self.schedule.even_rows else self.writer.size(self.schedule.rows)

    def _columns_bound(self) -> str:
        return "" if self.schedule.even_columns else self.writer.size(self.schedule.columns)

    def _tile_of_rows(self, index: str) -> Place | None:
        if not self.schedule.rows:
            return None
        start = f"{index} * {self.block_rows}" if self.block_rows else index
        return positions(
            self.writer, self.top, self.schedule.rows, start, self.block_rows, self._rows_bound()
        )

    def _along(self, block: Block, start: str, bound: str) -> Place:
        """A block of positions along the row, the columns of a tile."""
        return positions(self.writer, block, self.schedule.columns, start, self.block_columns, bound)

    def _walks(self, scope: Scope, scans: Sequence[Scan]) -> Mapping[Scan, Walk]:
        """What computes some scans in a scope inside of this one; only scan kernels have any."""
        return {}

    # --- kinds of kernels ------------------------------------------------------------------------------

    def _pointwise(self) -> None:
        schedule = self.schedule
        if not schedule.columns:
            self._store(Scope(self.writer, self.top), self.kernel.phases[0].stores)
            return
        pid = program_id(self.writer)
        tile_rows, tile_columns = pid, pid
        if schedule.rows:
            tiles, tile_rows, tile_columns = (
                self.names.fresh(n) for n in ("tiles", "tile_row", "tile_column")
            )
            self.top.add(f"{tiles} = tl.cdiv({self.writer.size(schedule.columns)}, {self.block_columns})")
            self.top.add(f"{tile_rows} = {pid} // {tiles}")
            self.top.add(f"{tile_columns} = {pid} % {tiles}")
        rows = self._tile_of_rows(tile_rows)
        start = f"{tile_columns} * {self.block_columns}"
        columns = positions(
            self.writer, self.top, schedule.columns, start, self.block_columns, self._columns_bound()
        )
        self._store(self._scope(self.top, None, rows, columns), self.kernel.phases[0].stores)

    def _row(self) -> None:
        rows = self._tile_of_rows(program_id(self.writer)) if self.schedule.rows else None
        if self.schedule.looped:
            self._looped_phases(
                self._scope(self.top, None, rows, None), "0", self.writer.size(self.schedule.columns)
            )
            return
        scope = self._scope(self.top, None, rows, self._along(self.top, "", self._columns_bound()))
        scope.reduce = self._reduced
        scope.walks = self._walks(scope, self.kernel.scans)
        self._store(scope, [o for phase in self.kernel.phases for o in (*phase.stores, *phase.finals)])

    def _chunk_of_a_row(self) -> None:
        assert self.kernel.split is not None
        tile = self.names.fresh("tile") if self.schedule.rows else ""
        part, low, high = self._bounds(self.writer.size(self.schedule.columns), tile)
        outer = Scope(self.writer, self.top, None, [part], {}, self.rank)
        scope = self._scope(self.top, outer, self._tile_of_rows(tile), None)
        self._looped_phases(scope, low, high)

    def _bounds(self, size: str, tile: str = "") -> tuple[Place, str, str]:
        """This program's part and the positions that belong to it; `tile` is to be the number of its rows."""
        assert self.kernel.split is not None
        part = Place(self.writer, self.top, (self.kernel.split.axis,), self.names.fresh("part"))
        number = "tl.program_id(0)" + (".to(tl.int64)" if self.writer.layout.wide else "")
        if tile:
            parts = self.writer.size((self.kernel.split.axis,))
            self.top.add(f"{tile} = {number} // {parts}")
            number = f"{number} % {parts}"
        self.top.add(f"{part.flat} = {number}")
        low, high = self.names.fresh("low"), self.names.fresh("high")
        chunk = self.writer.parameters.chunk()
        self.top.add(f"{low} = {part.flat} * {chunk}")
        self.top.add(f"{high} = tl.minimum({low} + {chunk}, {size})")
        return part, low, high

    def _chunk_of_rows(self) -> None:
        part, low, high = self._bounds(self.writer.size(self.schedule.rows))
        chunk = Scope(self.writer, self.top, None, [part], {}, self.rank)
        outputs = [o for o in self.kernel.outputs if o.accumulate]
        if self.schedule.looped:
            self._chunk_in_memory(chunk, outputs, low, high)
            return
        columns = positions(
            self.writer, self.top, self.schedule.columns, "", self.block_columns, self._columns_bound()
        )
        whole = self._scope(self.top, chunk, None, columns)
        carried = {o.buffer.name: self.names.fresh(f"{o.buffer.name}_sum") for o in outputs}
        for output in outputs:
            text = self._filled(output.accumulate or "", output.buffer.dtype)
            self.top.add(f"{carried[output.buffer.name]} = {text}")
        loop, rows = self._loop_of_rows(low, high)
        scope = self._scope(loop, whole, rows, None)
        scope.reduce = self._reduced
        self._store(
            scope, [o for phase in self.kernel.phases for o in (*phase.stores, *phase.finals)], carried
        )
        self._close(self.top, loop)
        self._finish_partial(part, columns, outputs, carried)

    def _loop_of_rows(self, low: str, high: str) -> tuple[Block, Place]:
        if not self.block_rows:
            flat = self.names.fresh(group_name(self.schedule.rows))
            loop = Block(f"for {flat} in range({low}, {high}):")
            return loop, Place(self.writer, loop, self.schedule.rows, flat)
        start = self.names.fresh("start")
        loop = Block(f"for {start} in range({low}, {high}, {self.block_rows}):")
        return loop, positions(self.writer, loop, self.schedule.rows, start, self.block_rows, high)

    def _finish_partial(
        self, part: Place, columns: Place, outputs: Sequence[Output], carried: dict[str, str]
    ) -> None:
        """Store what a program accumulated over its rows."""
        final = Scope(self.writer, self.top, None, [part, columns], {id(columns): 0}, 1)
        for output in outputs:
            name = carried[output.buffer.name]
            if self.block_rows:
                text = spelling.reduction(output.accumulate or "", name, output.buffer.dtype, 0, 1)
                self.top.add(f"{name} = {text}")
            final.write(
                output.buffer.name, output.buffer.axes, output.node, Value(name, ATOM, frozenset({0}))
            )

    def _chunk_in_memory(self, chunk: Scope, outputs: Sequence[Output], low: str, high: str) -> None:
        """The row does not fit: this program's partial results live in its own row of the buffer."""
        fill = self._loop("0", self.writer.size(self.schedule.columns))
        columns = positions(
            self.writer, fill, self.schedule.columns, self._start, self.block_columns, self._columns_bound()
        )
        scope = self._scope(fill, chunk, None, columns)
        for output in outputs:
            value = Value(
                self._filled(output.accumulate or "", output.buffer.dtype), ATOM, frozenset({self.rank - 1})
            )
            scope.write(output.buffer.name, output.buffer.axes, output.node, value)
        self._close(self.top, fill)
        self.top.add("tl.debug_barrier()")
        loop, rows = self._loop_of_rows(low, high)
        self._looped_phases(
            self._scope(loop, chunk, rows, None), "0", self.writer.size(self.schedule.columns)
        )
        loop.add("tl.debug_barrier()")
        self._close(self.top, loop)

    # --- phases ----------------------------------------------------------------------------------------

    def _loop(self, low: str, high: str) -> Block:
        """A loop over blocks of columns, from `self._start` on each time."""
        loop = Block("for")
        self._low = low
        self._start = self.names.fresh("start", loop)
        loop.head = f"for {self._start} in range({low}, {high}, {self.block_columns}):"
        return loop

    def _close(self, outer: Block, loop: Block) -> None:
        """Put a finished loop where it belongs."""
        outer.add(loop)
        self.names.release(loop)

    def _looped_phases(self, scope: Scope, low: str, high: str) -> None:
        """Each phase walks the row in blocks, and finishes its reductions after the walk."""
        for phase in self.kernel.phases:
            if phase.roots:
                self._looped_phase(scope, phase, low, high)
            self._store(scope, phase.finals)

    def _looped_phase(self, scope: Scope, phase: Phase, low: str, high: str) -> None:
        carried: dict[Reduce, str] = {}
        for reduction in phase.reductions:
            carried[reduction] = self.names.fresh(scope.wish(reduction))
            scope.block.add(f"{carried[reduction]} = {self._filled(reduction.combine, reduction.dtype)}")
        walks = self._walks(scope, phase.scans)
        loop = self._loop(low, high)
        bound = "" if self.schedule.even_columns else high
        inner = self._scope(loop, scope, None, self._along(loop, self._start, bound))
        inner.walks = walks
        for reduction, name in carried.items():
            value = self._argument(inner, reduction)
            loop.add(f"{name} = {spelling.step(reduction.combine, Value(name), value, reduction.dtype).text}")
        for scan in phase.ends:
            inner.evaluate(scan)
        self._store(inner, phase.stores)
        self._close(scope.block, loop)
        for walk in dict.fromkeys(walks[scan] for scan in phase.ends):
            walk.end(scope)
        for reduction, name in carried.items():
            text = spelling.reduction(reduction.combine, name, reduction.dtype, self.rank - 1, self.rank)
            scope.block.add(f"{name} = {text}")
            scope.values[reduction] = Value(name, ATOM, frozenset({0}) if self.rank > 1 else frozenset())

    def _filled(self, combine: str, dtype: DType) -> str:
        identity = spelling.identity_text(combine, dtype)
        shape = ", ".join(self.shape) + ("," if self.rank == 1 else "")
        return f"tl.full(({shape}), {identity}, {spelling.TYPES[dtype.short]})"

    def _inside(
        self, scope: Scope, combine: str, dtype: DType, value: Value, dim: int | None = None
    ) -> Value:
        """A value whose positions outside along the reduced dimension are the identity of the combine."""
        dim = self.rank - 1 if dim is None else dim
        mask = scope.mask(frozenset({dim}))
        if mask is not None:
            identity = spelling.identity_text(combine, dtype)
            value = spelling.typed(value, dtype)
            return Value(f"tl.where({mask.text}, {value.text}, {identity})", ATOM, value.dims | {dim})
        if dim in value.dims:
            return value
        shape = ", ".join(self.shape) + ("," if self.rank == 1 else "")
        value = spelling.typed(value, dtype)
        return Value(f"tl.broadcast_to({value.text}, ({shape}))", ATOM, frozenset(range(self.rank)))

    def _argument(self, scope: Scope, node: Reduce) -> Value:
        """What a reduction is over, the identity of its combine outside of the row."""
        value = scope.typed(node.arg)
        outside = scope.outside(node.arg)
        if self.rank - 1 in value.dims and outside == combine_identity(node.combine, node.dtype):
            return value
        return self._inside(scope, node.combine, node.dtype, value)

    def _reduced(self, scope: Scope, node: Reduce) -> str:
        """A reduction of a row that is held in registers."""
        value = self._argument(scope, node)
        return spelling.reduction(node.combine, value.text, node.dtype, self.rank - 1, self.rank)

    # --- stores ----------------------------------------------------------------------------------------

    def _store(self, scope: Scope, outputs: Sequence[Output], carried: dict[str, str] | None = None) -> None:
        """Evaluate outputs, then store them: a result may share the memory of an operand."""
        values = [scope.typed(o.node) if o.accumulate else scope.evaluate(o.node) for o in outputs]
        for output, value in zip(outputs, values, strict=True):
            buffer = output.buffer
            if not output.accumulate:
                scope.store(output, value)
            elif carried:
                self._carry(scope, output, value, carried[buffer.name])
            else:
                self._accumulate_in_memory(scope, output, value)

    def _carry(self, scope: Scope, output: Output, value: Value, name: str) -> None:
        combine, dtype = output.accumulate or "", output.buffer.dtype
        if self.block_rows:
            value = self._inside(scope, combine, dtype, value, dim=0)
        scope.block.add(f"{name} = {spelling.step(combine, Value(name), value, dtype).text}")

    def _accumulate_in_memory(self, scope: Scope, output: Output, value: Value) -> None:
        buffer, combine = output.buffer, output.accumulate or ""
        pointer = scope.address(buffer.name, buffer.axes)
        mask = scope.mask(pointer.dims)
        name = self.names.fresh(buffer.name, scope.block)
        arguments = [pointer.text] + ([f"mask={mask.text}"] if mask else [])
        text = f"tl.load({', '.join(arguments)})" + (" != 0" if buffer.dtype.is_bool else "")
        scope.block.add(f"{name} = {text}")
        combined = spelling.step(combine, Value(name, ATOM, pointer.dims), value, buffer.dtype)
        scope.write(buffer.name, buffer.axes, output.node, combined)
