"""Columns of windows that are read where they lie: vectors run on over the ends of an image's lines.

    y[o, p] = Σ_crs k[o, c, r, s] · x[c, p + pitch · r + s]        p = pitch · oh + ow

From a column to the next is one element within a line, and from line to line `pitch` of them: numbered so,
all columns of an image are one stretch of memory, for every tap. Nothing is packed. Columns between lines,
where windows would reach over the end, are computed and not stored. An image begins with a panel of its own.

Where windows reach outside, an image is copied to the workspace before its first panel, with zeros around.
What a run of the summed axes adds to an address is in a table: the same for all columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tilewright.compiler.targets.cpu.builder import I64, Builder, Value
from tilewright.compiler.targets.cpu.contractions.groups import Coordinates, Group, scalar
from tilewright.compiler.targets.cpu.contractions.lines import AHEAD, Lines
from tilewright.compiler.targets.cpu.contractions.panels import Range, Side
from tilewright.compiler.targets.cpu.contractions.reading.overrun import Overrun
from tilewright.compiler.targets.cpu.contractions.sizes import ADDRESS, IMAGE_MARGIN, LINE
from tilewright.compiler.targets.cpu.coordinates import Lanes
from tilewright.compiler.targets.cpu.scope import Operand, Scope
from tilewright.compiler.targets.cpu.spelling import value_type
from tilewright.dsl.program import At, Read


class OverrunColumns:
    """Writes where the panels of a side's columns are, their lines, and which of their lanes are stored.

    A panel has so many `vectors` of `lanes`; `summed` are runs. The `workspace` has a word for each, and room
    for an image.
    """

    def __init__(
        self,
        b: Builder,
        scope: Scope,
        side: Side,
        overrun: Overrun,
        summed: Group,
        workspace: Value,
        lanes: int,
        vectors: int,
    ):
        assert isinstance(side.node, At)
        self.b = b
        self.node = side.node
        self.overrun = overrun
        self.summed = summed
        self.table = workspace
        self.lanes = lanes
        self.vectors = vectors
        self.size = value_type(side.node.dtype).bytes
        self.images = images = Group(b, scope, side.own, scope.layout, overrun.axes)
        self.line = images.extents[images.last]
        before = b.sub(images.extents[images.joined[0]], 1) if overrun.axes > 1 else b.constant(0, I64)
        self.span = b.add(b.mul(before, overrun.pitch), self.line)
        width = lanes * vectors
        panels = b.div(b.add(self.span, width - 1), b.constant(width, I64), signed=False)
        self.room = b.mul(panels, width)  # columns of an image, as they are numbered
        _, runs = summed.run_numbers(b.constant(0, I64), summed.size())
        self.bytes = b.add(b.mul(runs, ADDRESS), IMAGE_MARGIN * self.size)
        self.image: Image | None = None
        if overrun.ends:
            at = b.offset(workspace, b.add(b.mul(runs, ADDRESS), LINE))
            self.image = Image(b, scope, side.node, overrun, summed.axes, at, lanes)
            self.bytes = b.add(self.bytes, self.image.bytes)

    def size_of_side(self) -> Value:
        """How many columns there are, as they are numbered."""
        b = self.b
        return b.mul(b.div(self.images.size(), self.images.span, signed=False), self.room)

    # --- what is read -----------------------------------------------------------------------------

    def note(self, scope: Scope, k: Range) -> None:
        """Write down what the runs add to addresses."""
        b = self.b
        nowhere = dict.fromkeys((*self.images.axes, *self.summed.axes), b.constant(0, I64))
        first = b.integer(self._start(scope.child(nowhere)))
        with self.summed.runs(*k) as run:
            here = {**nowhere, **run.coordinates, **self.summed.inner(run.first)}
            place = b.integer(self._start(scope.child(here)))
            b.store(b.sub(place, first), self._entry(run.number))

    def lines(self, scope: Scope, column: Value, first: Value) -> Lines:
        """Those of the panel that begins with a column, before anything of a run is added; `first` is that of
        the panels which are walked together.
        """
        b = self.b
        image, place = self._place(column)
        outer = self.images.outer_of(image)
        if self.image:
            with b.if_(b.or_(b.cmp("eq", place, 0), b.cmp("eq", column, first))):
                self.image.copy(scope.child(outer))
        here = dict.fromkeys((*self.images.joined, *self.summed.axes), b.constant(0, I64))
        start = self._start(scope.child({**outer, **here}))
        left = b.sub(self.span, place)
        masks = [b.first_lanes(b.sub(left, v * self.lanes), self.lanes) for v in range(self.vectors)]
        start = b.offset(start, b.mul(place, self.size))
        return Lines(start, self.overrun.step * self.size, near=True).under(masks)

    def is_whole(self, column: Value) -> Value:
        """Whether a panel ends before the image does."""
        return self.b.cmp("le", self.b.add(self._place(column)[1], self.lanes * self.vectors), self.span)

    def of_run(self, lines: Lines, run: Value) -> Lines:
        """The lines of a panel from the first summed position of a run on. The caches are asked for what
        comes after them: operands jump from page to page, which no machine foresees.
        """
        b = self.b
        start = b.offset(lines.start, b.load(self._entry(run), I64))
        for number in range(self.vectors):
            b.prefetch(b.offset(start, AHEAD + number * LINE))
        return replace(lines, start=start)

    def _start(self, scope: Scope) -> Value:
        return scope.start_in(self.node, self.image.memory) if self.image else scope.start_of(self.node)[0]

    def _entry(self, run: Value) -> Value:
        return self.b.offset(self.table, self.b.mul(run, ADDRESS))

    def _place(self, column: Value) -> tuple[Value, Value]:
        """The number of a column's image, and its own number there."""
        b = self.b
        return b.div(column, self.room, signed=False), b.rem(column, self.room, signed=False)

    # --- what is stored ---------------------------------------------------------------------------

    def steady(self, first: Value, lanes: int, high: Value) -> Value:
        """Whether `lanes` columns from `first` are of one line of the image: more may be numbered."""
        b = self.b
        place = self._place(first)[1]
        on_a_line = b.cmp("le", b.add(self._in_line(place)[1], lanes), self.line)
        return b.and_(on_a_line, b.cmp("le", b.add(place, lanes), self.span))

    def along(self, first: Value) -> Coordinates:
        """Lanes from `first` on one line."""
        image, place = self._place(first)
        return self._at(image, *self._in_line(place))

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
        """The line of an image's column, and the place in it: from `line` on, it is none."""
        b = self.b
        if self.overrun.axes == 1:
            return b.constant(0, I64), place
        pitch = b.constant(self.overrun.pitch, I64)
        return b.div(place, pitch, signed=False), b.rem(place, pitch, signed=False)

    def _at(self, image: Value, line: Value, along: Value) -> Coordinates:
        lines = dict.fromkeys(self.images.joined[:-1], line)
        return {**self.images.outer_of(image), **lines, self.images.last: Lanes(along)}


@dataclass(frozen=True)
class Dimension:
    """One of an image: its axis, positions in the operand, zeros before them, positions in the copy, and the
    bytes from one to the next in both.
    """

    axis: str
    extent: Value
    before: int
    wide: Value
    apart: Value
    step: Value


class Image:
    """Writes the copy of what windows read for one image, with zeros around it."""

    def __init__(
        self,
        b: Builder,
        scope: Scope,
        node: At,
        overrun: Overrun,
        summed: Sequence[str],
        start: Value,
        lanes: int,
    ):
        assert isinstance(node.arg, Read)
        self.b = b
        self.start = start
        self.lanes = lanes
        self.type = value_type(node.dtype)
        self.names = node.arg.names
        self.operand = scope.loaded.operands[node.arg.param, False]
        apart = dict(zip(self.names, self.operand.strides, strict=True))
        step, first = b.constant(self.type.bytes, I64), b.constant(0, I64)
        self.dimensions: list[Dimension] = []
        for axis in reversed([a for a in self.names if a in node.along or a in summed]):
            before, behind = overrun.ends.get(axis, (0, 0))
            extent = scope.extent(axis)
            wide = b.add(extent, before + behind)
            self.dimensions.insert(0, Dimension(axis, extent, before, wide, apart[axis], step))
            first = b.add(first, b.mul(step, before))
            step = b.mul(step, wide)
        self.bytes = step
        steps = {dimension.axis: dimension.step for dimension in self.dimensions}
        strides = tuple(steps.get(axis, b.constant(0, I64)) for axis in self.names)
        self.memory = Operand(b.offset(start, first), strides, self.operand.classes)

    def copy(self, scope: Scope) -> None:
        """Copy the image here."""
        b = self.b
        within = {dimension.axis for dimension in self.dimensions}
        source = self.operand.pointer
        for axis, stride in zip(self.names, self.operand.strides, strict=True):
            if axis not in within:
                source = b.offset(source, b.mul(scalar(scope.coordinates[axis]), stride))
        self._copy(self.dimensions, source, self.start, None)

    def _copy(
        self, dimensions: Sequence[Dimension], source: Value, target: Value, inside: Value | None
    ) -> None:
        """What is left of an image: zeros if this is outside of it."""
        b, (dimension, *rest) = self.b, dimensions
        if not rest:
            self._line(dimension, source, target, inside)
            return
        with b.loop(0, dimension.wide) as loop:
            place = b.sub(loop.index, dimension.before)
            here = b.cmp("lt", place, dimension.extent, signed=False)
            self._copy(
                rest,
                b.offset(source, b.mul(place, dimension.apart)),
                b.offset(target, b.mul(loop.index, dimension.step)),
                here if inside is None else b.and_(inside, here),
            )

    def _line(self, dimension: Dimension, source: Value, target: Value, inside: Value | None) -> None:
        """A line, and perhaps the beginning of the next, which is written after it."""
        b, type = self.b, self.type.vector(self.lanes)
        extent = dimension.extent if inside is None else b.select(inside, dimension.extent, 0)
        with b.loop(0, dimension.wide, self.lanes) as loop:
            first = b.sub(loop.index, dimension.before)
            places = b.add(b.splat(first, self.lanes), b.iota(I64.vector(self.lanes)))
            mask = b.cmp("lt", places, b.splat(extent, self.lanes), signed=False)
            at = b.offset(source, b.mul(first, self.type.bytes))
            value = b.load_masked(at, mask, b.constant(0, type), type)
            b.store(value, b.offset(target, b.mul(loop.index, self.type.bytes)))
