"""Columns of windows that are read where they lie: vectors run on over the ends of an image's lines.

    y[o, p] = Σ_crs k[o, c, r, s] · x[c, p + pitch · r + s]        p = pitch · oh + ow

From a column to the next is one element within a line, and from line to line `pitch` of them: numbered so,
all columns of an image are one stretch of memory, for every tap. Nothing is packed. Columns between lines,
where windows would reach over the end, are computed and not stored. An image begins with a panel of its own.

What a run of the summed axes adds to an address is in a table: the same for all columns.
"""

from __future__ import annotations

from dataclasses import replace

from tilewright.compiler.targets.cpu.builder import I64, Builder, Value
from tilewright.compiler.targets.cpu.contractions.groups import Coordinates, Group
from tilewright.compiler.targets.cpu.contractions.lines import AHEAD, Lines
from tilewright.compiler.targets.cpu.contractions.panels import Range, Side
from tilewright.compiler.targets.cpu.contractions.sides import Overrun
from tilewright.compiler.targets.cpu.contractions.sizes import ADDRESS, LINE
from tilewright.compiler.targets.cpu.scope import Lanes, Scope
from tilewright.dsl.program import At


class OverrunColumns:
    """Writes where the panels of a side's columns are, their lines, and which of their lanes are stored.

    `width` is the columns of a panel; `summed` are runs, and `table` has room for a word of each.
    """

    def __init__(
        self, b: Builder, scope: Scope, side: Side, overrun: Overrun, summed: Group, table: Value, width: int
    ):
        assert isinstance(side.node, At)
        self.b = b
        self.node = side.node
        self.overrun = overrun
        self.summed = summed
        self.table = table
        self.images = images = Group(b, scope, side.own, scope.layout, overrun.axes)
        self.line = images.extents[images.last]
        before = b.sub(images.extents[images.joined[0]], 1) if overrun.axes > 1 else b.constant(0, I64)
        self.span = b.add(b.mul(before, overrun.pitch), self.line)
        panels = b.div(b.add(self.span, width - 1), b.constant(width, I64), signed=False)
        self.room = b.mul(panels, width)  # columns of an image, as they are numbered

    def size(self) -> Value:
        """How many columns there are, as they are numbered."""
        b = self.b
        return b.mul(b.div(self.images.size(), self.images.span, signed=False), self.room)

    # --- what is read -----------------------------------------------------------------------------

    def note(self, scope: Scope, k: Range) -> None:
        """Write down what the runs add to addresses."""
        b = self.b
        nowhere = dict.fromkeys((*self.images.axes, *self.summed.axes), b.constant(0, I64))
        first = b.integer(scope.child(nowhere).start_of(self.node)[0])
        with self.summed.runs(*k) as run:
            here = {**nowhere, **run.coordinates, **self.summed.inner(run.first)}
            place = b.integer(scope.child(here).start_of(self.node)[0])
            b.store(b.sub(place, first), self._entry(run.number))

    def lines(self, scope: Scope, column: Value, size: int, lanes: int, vectors: int) -> Lines:
        """Those of the panel that begins with a column, before anything of a run is added; `size` is the
        bytes of an element.
        """
        b = self.b
        image, place = self._place(column)
        zero = b.constant(0, I64)
        here = dict.fromkeys((*self.images.joined, *self.summed.axes), zero)
        start, _ = scope.child({**self.images.outer_of(image), **here}).start_of(self.node)
        left = b.sub(self.span, place)
        masks = [b.first_lanes(b.sub(left, number * lanes), lanes) for number in range(vectors)]
        start = b.offset(start, b.mul(place, size))
        return Lines(start, self.overrun.step * size, near=True).under(masks)

    def is_whole(self, column: Value, width: int) -> Value:
        """Whether a panel ends before the image does."""
        return self.b.cmp("le", self.b.add(self._place(column)[1], width), self.span)

    def of_run(self, lines: Lines, run: Value) -> Lines:
        """The lines of a panel from the first summed position of a run on. The caches are asked for what
        comes after them: operands jump from page to page, which no machine foresees.
        """
        b = self.b
        start = b.offset(lines.start, b.load(self._entry(run), I64))
        for number in range(len(lines.masks)):
            b.prefetch(b.offset(start, AHEAD + number * LINE))
        return replace(lines, start=start)

    def _entry(self, run: Value) -> Value:
        return self.b.offset(self.table, self.b.mul(run, ADDRESS))

    def _place(self, column: Value) -> tuple[Value, Value]:
        """The number of a column's image, and its own number there."""
        b = self.b
        return b.div(column, self.room, signed=False), b.rem(column, self.room, signed=False)

    # --- what is stored ---------------------------------------------------------------------------

    def steady(self, first: Value, lanes: int, high: Value) -> Value:
        """Whether `lanes` columns from `first` are of one line."""
        b = self.b
        along = self._in_line(self._place(first)[1])[1]
        return b.cmp("le", b.add(along, lanes), self.line)

    def along(self, first: Value) -> Coordinates:
        """Lanes from `first` on one line."""
        image, place = self._place(first)
        number, along = self._in_line(place)
        return self._at(image, number, along)

    def stretches(self, first: Value, lanes: int, high: Value) -> list[tuple[Coordinates, Value]]:
        """The parts of lines that `lanes` columns from `first` are, each with the mask of its lanes."""
        b = self.b
        image, place = self._place(first)
        left = b.sub(self.span, place)
        iota = b.iota(I64.vector(lanes))
        begin = b.constant(0, I64)
        found: list[tuple[Coordinates, Value]] = []
        for part in range(1 + (lanes - 2 + self.overrun.pitch) // self.overrun.pitch):
            number, along = self._in_line(b.minimum(b.add(place, begin), b.sub(self.span, 1)))
            end = b.minimum(b.add(begin, b.sub(self.line, along)), left)
            mask = b.cmp("lt", iota, b.splat(end, lanes))
            if part:
                mask = b.and_(mask, b.cmp("ge", iota, b.splat(begin, lanes)))
            found.append((self._at(image, number, b.sub(along, begin)), mask))
            begin = b.add(begin, b.sub(self.overrun.pitch, along))
        return found

    def _in_line(self, place: Value) -> tuple[Value, Value]:
        """The line of an image's column, and the place in it: at `line` and behind, it is none."""
        b = self.b
        if self.overrun.axes == 1:
            return b.constant(0, I64), place
        pitch = b.constant(self.overrun.pitch, I64)
        return b.div(place, pitch, signed=False), b.rem(place, pitch, signed=False)

    def _at(self, image: Value, line: Value, along: Value) -> Coordinates:
        lines = dict.fromkeys(self.images.joined[:-1], line)
        return {**self.images.outer_of(image), **lines, self.images.last: Lanes(along)}
