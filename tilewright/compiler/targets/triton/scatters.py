"""Scatters as Triton text: sums whose places are computed, without atomics and in one order.

A program owns a tile of places × columns (the axes that places do not depend on) and walks all summed
positions in blocks.

    for start in range(0, size_n, BLOCK_N):
        here = in_n & (ids >= first) & (ids < first + BLOCK_ROW)

        for _ in range(tl.sum(here)):                       few of a block are here: one after the other
            picked = tl.min(tl.where(here & (n > picked), n, size_n))
            acc = acc + tl.where(row[:, None] == ids, value, 0.0)

        if tl.max(here) > 0:                                many are: all of them at once
            acc = acc + tl.sum(tl.where((row[:, None] == ids[None, :]) & here[None, :], value, 0.0), axis=1)

One after the other the sums have the order of the positions; all at once, of blocks of them. Which of both a
kernel does is the schedule's choice.
"""

from __future__ import annotations

from tilewright.compiler.targets.triton import spelling
from tilewright.compiler.targets.triton.facts import flat_place, scattered_inside
from tilewright.compiler.targets.triton.places import Place, Writer, group_name, positions, program_id
from tilewright.compiler.targets.triton.schedule import Schedule, moving_axes
from tilewright.compiler.targets.triton.scope import Scope, both, conjunction
from tilewright.compiler.targets.triton.writer import ATOM, LEVEL, Block, Value
from tilewright.dsl.program import Scatter

_COMPARISON = LEVEL["=="]


class Scatters:
    """Writes the body of a scatter kernel into the writer's top block."""

    def __init__(self, writer: Writer, schedule: Schedule):
        assert writer.kernel.scatter is not None
        self.writer = writer
        self.schedule = schedule
        self.scatter: Scatter = writer.kernel.scatter
        self.top = writer.top
        self.names = writer.names
        self.block_places = self._block(schedule.rows, schedule.block_rows)
        self.block_columns = self._block(schedule.columns, schedule.block_columns) if schedule.columns else ""
        self.block_summed = self._block(schedule.depth, schedule.block_depth)

    def _block(self, axes: tuple[str, ...], size: int) -> str:
        return self.writer.parameters.block("BLOCK_" + group_name(axes).upper(), size)

    def write(self) -> None:
        batch, first, places, columns = self._tile()
        top = Scope(self.writer, self.top, None, [batch] if batch else [])
        tile = [p for p in (places, columns) if p]
        acc = self.names.fresh("acc")
        shape = ", ".join(b for b in (self.block_places, self.block_columns) if b)
        kind = spelling.TYPES[self.scatter.dtype.compute.short]
        self.top.add(f"{acc} = tl.zeros(({shape}{',' * (len(tile) == 1)}), {kind})")
        self._walk(top, first, places, columns, acc)
        final = Scope(self.writer, self.top, top, tile, {id(p): d for d, p in enumerate(tile)}, len(tile))
        total = Value(acc, ATOM, frozenset(range(len(tile))))
        for output in self.writer.kernel.outputs:
            final.write(output.buffer.name, output.buffer.axes, output.node, total)

    def _tile(self) -> tuple[Place | None, str, Place, Place | None]:
        """The position of the axes that places depend on, the first place, the places and the columns."""
        schedule, add, fresh = self.schedule, self.top.add, self.names.fresh
        pid = program_id(self.writer)
        columns, batch = None, None
        if schedule.columns:
            tiles = fresh("tiles_" + group_name(schedule.columns))
            add(f"{tiles} = tl.cdiv({self.writer.size(schedule.columns)}, {self.block_columns})")
            bound = "" if schedule.even_columns else self.writer.size(schedule.columns)
            start = f"{pid} % {tiles} * {self.block_columns}"
            columns = positions(self.writer, self.top, schedule.columns, start, self.block_columns, bound)
            add(f"{pid} = {pid} // {tiles}")
        if moving := moving_axes(self.writer.kernel):
            tiles = fresh("tiles_" + group_name(schedule.rows))
            add(f"{tiles} = tl.cdiv({self.writer.size(schedule.rows)}, {self.block_places})")
            batch = positions(self.writer, self.top, moving, f"{pid} // {tiles}", "", "")
            add(f"{pid} = {pid} % {tiles}")
        first = fresh("first")
        add(f"{first} = {pid} * {self.block_places}")
        bound = "" if schedule.even_rows else self.writer.size(schedule.rows)
        places = positions(self.writer, self.top, schedule.rows, first, self.block_places, bound)
        return batch, first, places, columns

    # --- the summed positions --------------------------------------------------------------------------

    def _walk(self, top: Scope, first: str, places: Place, columns: Place | None, acc: str) -> None:
        size = self.writer.size(self.schedule.depth)
        start = self.names.fresh("start")
        loop = Block(f"for {start} in range(0, {size}, {self.block_summed}):")
        bound = "" if self.schedule.even_depth else size
        summed = positions(self.writer, loop, self.schedule.depth, start, self.block_summed, bound)
        scan = Scope(self.writer, loop, top, [summed], {id(summed): 0}, 1)
        here = self.names.fresh("here", loop)
        loop.add(f"{here} = {self._here(scan, first, summed)}")
        if self.schedule.sparse:
            self._one_by_one(top, loop, (start, size), places, columns, summed, here, acc)
        else:
            self._all_at_once(top, scan, loop, places, columns, summed, here, acc)
        self.top.add(loop)
        self.names.release(loop)

    def _here(self, scan: Scope, first: str, summed: Place) -> str:
        """Which summed positions fall into this program's places."""
        scatter = self.scatter
        place = self._place(scan)
        tests = [
            Value(f"{place.at(_COMPARISON + 1)} >= {first}", _COMPARISON, place.dims),
            Value(f"{place.at(_COMPARISON + 1)} < {first} + {self.block_places}", _COMPARISON, place.dims),
        ]
        if len(scatter.along) > 1:
            each = conjunction(scattered_inside(scatter))
            known = self.writer.layout.facts.true
            tests = [*(scan.evaluate(test) for test in each if test not in known), *tests]
        here = both(scan.mask(frozenset({0})), *tests)
        assert here is not None
        if 0 not in here.dims:
            here = both(here, Value(f"{summed.flat} >= 0", _COMPARISON, frozenset({0})))
            assert here is not None
        return here.text

    def _place(self, scope: Scope) -> Value:
        return scope.named(flat_place(self.scatter))

    def _value(self, scope: Scope) -> Value:
        value = scope.typed(self.scatter.arg)
        return spelling.cast(value, self.scatter.arg.dtype, self.scatter.dtype.compute)

    def _one_by_one(
        self, top: Scope, loop: Block, bounds: tuple[str, str], places: Place, columns: Place | None,
        summed: Place, here: str, acc: str,
    ) -> None:  # fmt: skip
        """The positions that are here in turn, in their order."""
        start, size = bounds
        picked = self.names.fresh("picked", loop)
        loop.add(f"{picked} = {start} - 1")
        turn = Block(f"for _ in range(tl.sum({here}.to(tl.int32), axis=0)):")
        later = f"{here} & ({summed.flat} > {picked})"
        turn.add(f"{picked} = tl.min(tl.where({later}, {summed.flat}, {size}), axis=0)")
        one = Place(self.writer, turn, summed.axes, picked)
        dims = {id(columns): 1} if columns else {}
        whole = Scope(self.writer, self.top, top, [columns] if columns else [], dims, 2)
        scope = Scope(self.writer, turn, whole, [one], {}, 2)
        place, value = self._place(scope), self._value(scope)
        chosen = (
            f"tl.where({places.flat}[:, None] == {place.at(_COMPARISON + 1)}, {value.text}, {self._zero})"
        )
        turn.add(f"{acc} = {acc} + {chosen}")
        loop.add(turn)
        self.names.release(turn)

    def _all_at_once(
        self, top: Scope, scan: Scope, loop: Block, places: Place, columns: Place | None, summed: Place,
        here: str, acc: str,
    ) -> None:  # fmt: skip
        """Every place compared with every position of the block, where there is any for this tile."""
        rank = 3 if columns else 2
        some = Block(f"if tl.max({here}.to(tl.int32), axis=0) > 0:")
        dims = {id(columns): 2} if columns else {}
        whole = Scope(self.writer, self.top, top, [columns] if columns else [], dims, rank)
        scope = Scope(self.writer, some, whole, [summed], {id(summed): 1}, rank)
        place, value = self._place(scan), self._value(scope)
        more = ", None" * (rank - 2)
        target = f"{place.text}[None, :{more}]" if place.dims else place.at(_COMPARISON + 1)
        matches = f"({places.flat}[:, None{more}] == {target}) & {here}[None, :{more}]"
        chosen = self.names.fresh("chosen", some)
        some.add(f"{chosen} = tl.where({matches}, {value.text}, {self._zero})")
        some.add(f"{acc} = {acc} + tl.sum({chosen}, axis=1)")
        loop.add(some)
        self.names.release(some)

    @property
    def _zero(self) -> str:
        return spelling.number(0, self.scatter.dtype.compute)
