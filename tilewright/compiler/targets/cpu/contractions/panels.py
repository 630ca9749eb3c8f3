"""Packing: one side of a contraction laid out as the register blocks read it.

A panel holds `vectors · lanes` positions of the side's own axes for each summed position in turn:

    panel[k][own]       straight      vectors along the side's own axes are read and written as they are
                        transposed    vectors along a summed axis, turned in registers, square by square
                        in order      so, but in the order in which the operand has the summed axes

For a dot-product instruction a panel has a line for every two summed positions (`dot_products`).

What is pointwise inside the side is applied here, once an element. Loops over summed axes are nested, so that
all that depends on the outer ones (where a window starts, which of its lanes are inside) is known before the
innermost one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tilewright.compiler.nest import evaluated
from tilewright.compiler.strides import walked_by_one
from tilewright.compiler.targets.cpu.builder import I1, I64, Builder, Value
from tilewright.compiler.targets.cpu.claims import Claim, claims_of_reads, hold, where_certain
from tilewright.compiler.targets.cpu.contractions.dot_products import TOGETHER, write_words
from tilewright.compiler.targets.cpu.contractions.groups import Coordinates, Group, Run, scalar
from tilewright.compiler.targets.cpu.coordinates import Lanes
from tilewright.compiler.targets.cpu.layout import UNIT, Layout
from tilewright.compiler.targets.cpu.lengths import LONG, MEDIUM, ONE, SHORT, TINY, WHOLE
from tilewright.compiler.targets.cpu.scope import WIDEST_WALK, Scope
from tilewright.dsl.affine import affine
from tilewright.dsl.program import At, Node, Read

Range = tuple[Value, Value]
Panel = Callable[[Scope, Value, Value, Range, Range], None]
TOGETHER_BITS = TOGETHER.bit_length() - 1
AT_A_TIME = 256  # bytes along a line of memory that are packed, into several panels if need be
FEWEST_TURNED = 3  # summed positions that are worth a square which is not whole
MERIT = {ONE: 0, TINY: 1, SHORT: 2, MEDIUM: 3, LONG: 4, WHOLE: 4}  # of a length as an inner loop


@dataclass(frozen=True)
class Side:
    """One factor of the product: its expression, and the axes that it alone has."""

    node: Node
    own: tuple[str, ...]

    def with_last(self, axes: Sequence[str]) -> Side:
        """The same, with some of its axes behind the others."""
        return Side(self.node, (*(axis for axis in self.own if axis not in axes), *axes))


@dataclass(frozen=True)
class Steps:
    """A part of a run, so many positions at a time; `odd`: they complete a line."""

    low: Value
    high: Value
    by: int
    odd: bool = False


class Packing:
    """Writes the code that packs a range of one side."""

    def __init__(
        self,
        b: Builder,
        side: Side,
        own: Group,
        summed: Group,
        lanes: int,
        vectors: int,
        size: int,
        together: int,
    ):
        self.b = b
        self.node = side.node
        self.own = own
        self.summed = summed
        self.lanes = lanes
        self.vectors = vectors
        self.width = lanes * vectors
        self.size = size
        self.line = self.width * size
        self.together = together
        self.square = square_of(lanes)
        self.turned = b.alloca(lanes * lanes * size)  # a square that is not whole

    def lines(self, positions: Value) -> Value:
        """How many lines of a panel hold these many summed positions."""
        if self.together == 1:
            return positions
        return self.b.shr(self.b.add(positions, self.together - 1), TOGETHER_BITS, signed=False)

    def pack(self, scope: Scope, panels: Value, own: Range, k: Range) -> None:
        """The positions `own` for the summed positions `k`, panel after panel."""
        b = self.b
        depth = self.lines(b.sub(k[1], k[0]))
        own_axis = "" if self.own.gathers(self.lanes) else self.own.last
        turned = contiguous_along(self.summed.last, self.node, own_axis, scope.layout)
        lanes = self.square if turned else self.lanes
        scope = Scope(b, scope.loaded, scope.layout, lanes, scope.coordinates, values=dict(scope.values))
        # Where masks are integers, they are made once, and a branch in the loop would have them made in it.
        windows = evaluated([self.node], At)
        scope.straight = b.target.masks_are_integers and all(w.dtype.itemsize >= 4 for w in windows)
        panel = self._transposed if turned else self._straight
        order = self._memory_order(scope)
        if order is not None:
            panel = self._whole_or(panel, order)

        def start_of(position: Value) -> Value:
            number = b.div(b.sub(position, own[0]), b.constant(self.width, I64), signed=False)
            return b.offset(panels, b.mul(b.mul(number, depth), self.line))

        several = 1 if turned or order is not None else self._at_a_time()
        rest = own[0]
        if several > 1:
            step = several * self.width
            whole = b.div(b.sub(own[1], own[0]), b.constant(step, I64), signed=False)
            rest = b.add(own[0], b.mul(whole, step))
            with b.loop(own[0], rest, step) as loop:
                starts = [start_of(b.add(loop.index, n * self.width)) for n in range(several)]
                self._whole(scope, starts, loop.index, own, k)
        with b.loop(rest, own[1], self.width) as loop:
            panel(scope, start_of(loop.index), loop.index, own, k)

    # --- straight ---------------------------------------------------------------------------------

    def _at_a_time(self) -> int:
        """How many panels are packed together: those of a piece of a line of memory, whose cache lines and
        pages would be looked up for each of them again.
        """
        plain = not self.own.breaks(self.lanes) and not any(isinstance(n, At) for n in evaluated([self.node]))
        return max(1, AT_A_TIME // self.line) if plain and self.together == 1 else 1

    def _whole(self, scope: Scope, starts: Sequence[Value], first: Value, own: Range, k: Range) -> None:
        """Panels that begin at these places, all of whose vectors are on one stretch each."""
        b = self.b
        ahead = b.mul(b.sub(own[1], own[0]), self.size)
        numbers = range(self.vectors * len(starts))
        vectors = [[(self.own.along(b.add(first, n * self.lanes)), None)] for n in numbers]
        places = [b.offset(at, n * self.lanes * self.size) for at in starts for n in range(self.vectors)]
        self._copied(scope, vectors, places, k, ahead)

    def _straight(self, scope: Scope, start: Value, first: Value, own: Range, k: Range) -> None:
        b, high = self.b, own[1]
        ahead = b.mul(b.sub(high, own[0]), self.size)
        firsts = [b.add(first, vector * self.lanes) for vector in range(self.vectors)]
        steady = self.own.steady(firsts[0], self.lanes, high)
        for position in firsts[1:]:
            steady = b.and_(steady, self.own.steady(position, self.lanes, high))
        with b.if_(steady) as choice:
            self._whole(scope, [start], first, own, k)
            choice.otherwise()
            with b.loop(0, self.vectors) as vector:
                position = b.add(first, b.mul(vector.index, self.lanes))
                pieces = self.own.stretches(position, self.lanes, high)
                at = b.offset(start, b.mul(vector.index, self.lanes * self.size))
                self._copied(scope, [pieces], [at], k, ahead)

    def _copied(
        self,
        scope: Scope,
        vectors: Sequence[Sequence[tuple[Coordinates, Value | None]]],
        starts: Sequence[Value],
        k: Range,
        ahead: Value,
    ) -> None:
        """Vectors, each of one or several stretches, to these places, one row of a panel a summed position.
        The caches are asked for what lies `ahead`: from one summed position to the next the machine foresees
        nothing.
        """
        places = [[scope.child(at, mask) for at, mask in pieces] for pieces in vectors]
        whole = all(mask is None for pieces in vectors for _, mask in pieces)
        self._hoist([place for pieces in places for place in pieces], frozenset(self.summed.axes))
        with self.summed.runs(*k) as run:
            inner = [[place.child(run.coordinates) for place in pieces] for pieces in places]
            self._hoist([place for pieces in inner for place in pieces], frozenset({self.summed.last}))
            asked = self._asked(scope.layout) if whole else ()
            if asked:
                self._copied_where_certain(inner, asked, run, starts, ahead)
            else:
                self._copied_run(inner, run, starts, ahead)

    def _copied_where_certain(
        self,
        vectors: Sequence[Sequence[Scope]],
        asked: Sequence[Claim],
        run: Run,
        starts: Sequence[Value],
        ahead: Value,
    ) -> None:
        """A run of vectors of one stretch each: without masks, if none is partly outside anywhere in it."""
        b = self.b
        certain = b.constant(True, I1)
        for (place,) in vectors:
            certain = b.and_(certain, self._hold(place, asked, run))
        with b.if_(certain) as choice:
            sure = [[where_certain(b, place, asked)] for (place,) in vectors]
            self._copied_run(sure, run, starts, ahead)
            choice.otherwise()
            self._copied_run(vectors, run, starts, ahead)

    def _asked(self, layout: Layout) -> tuple[Claim, ...]:
        """What may be outside along the vectors or a run, if masks would be made in the loop over the run."""
        reads = (node for node in evaluated([self.node], At) if isinstance(node, At))
        asked = claims_of_reads(reads, layout, frozenset({self.own.last, self.summed.last}))
        return asked if any(self.summed.last in claim.value.axes for claim in asked) else ()

    def _hold(self, place: Scope, asked: Sequence[Claim], run: Run) -> Value:
        """Whether a vector is inside all along a run."""
        b, lanes = self.b, place.coordinates[self.own.last]
        assert isinstance(lanes, Lanes) and lanes.first is not None
        ends = {
            self.own.last: (lanes.first, b.add(lanes.first, self.lanes - 1)),
            self.summed.last: (run.first, b.add(run.first, b.sub(run.count, 1))),
        }
        single = {n: v for n, v in place.values.items() if self.own.last not in n.axes and not v.lanes}
        return hold(b, replace(place, values=single), asked, ends)

    def _copied_run(
        self, vectors: Sequence[Sequence[Scope]], run: Run, starts: Sequence[Value], ahead: Value
    ) -> None:
        for steps in self._steps(run):
            with self.b.loop(steps.low, steps.high, steps.by) as step:
                self._copied_step(vectors, run, step.index, steps, starts, ahead)

    def _copied_step(
        self,
        vectors: Sequence[Sequence[Scope]],
        run: Run,
        step: Value,
        steps: Steps,
        starts: Sequence[Value],
        ahead: Value,
    ) -> None:
        b = self.b
        line = b.mul(self._line(b.add(run.offset, step)), self.line)
        for pieces, start in zip(vectors, starts, strict=True):
            values = []
            for position in range(steps.by):
                here: Coordinates = {self.summed.last: b.add(run.first, b.add(step, position))}
                found = [place.child(here) for place in pieces]
                values.append(self._joined(found))
                if isinstance(self.node, At):
                    found[0].ahead(self.node, ahead)
            self._write(values, steps.odd, b.offset(start, line))

    def _line(self, position: Value) -> Value:
        return position if self.together == 1 else self.b.shr(position, TOGETHER_BITS, signed=False)

    def _steps(self, run: Run) -> list[Steps]:
        """How a run is cut so that every step writes whole lines: one that completes a line that another
        run has begun, pairs, and the one that is left.
        """
        b = self.b
        zero = b.constant(0, I64)
        if self.together == 1:
            return [Steps(zero, run.count, 1)]
        head = b.minimum(b.and_(run.offset, 1), run.count)
        pairs = b.add(head, b.and_(b.sub(run.count, head), -TOGETHER))
        return [
            Steps(zero, head, 1, odd=True),
            Steps(head, pairs, TOGETHER),
            Steps(pairs, run.count, 1),
        ]

    def _write(self, values: Sequence[Value], odd: bool, line: Value) -> None:
        """Values of consecutive summed positions, from a line on."""
        b = self.b
        if self.together == TOGETHER:
            write_words(b, values, odd, line, self.line)
            return
        for number, value in enumerate(values):
            b.store(value, b.offset(line, number * self.line))

    def _hoist(self, scopes: list[Scope], varying: frozenset[str]) -> None:
        for scope in scopes:
            scope.hoist([self.node], varying)

    def _joined(self, pieces: list[Scope]) -> Value:
        """The lanes of each stretch from where it stands."""
        value = pieces[0].full(pieces[0].evaluate(self.node))
        for piece in pieces[1:]:
            assert piece.mask is not None
            value = self.b.select(piece.mask, piece.full(piece.evaluate(self.node)), value)
        return value

    # --- transposed -------------------------------------------------------------------------------

    def _transposed(self, scope: Scope, start: Value, first: Value, own: Range, k: Range) -> None:
        """Squares of `lanes` own positions × as many summed ones, or the next power of two.

        Positions past the end repeat the last one. Rows past the end of a run fall where the next run, or the
        next panel, is packed later, or into the padding behind the last one.
        """
        b, lanes, high = self.b, self.lanes, own[1]
        with b.loop(0, self.vectors) as vector:
            at = b.add(first, b.mul(vector.index, lanes))
            column = b.offset(start, b.mul(vector.index, lanes * self.size))
            places = [scope.child(place) for place in self.own.each(at, lanes, high)]
            self._hoist(places, frozenset(self.summed.axes))
            with self.summed.runs(*k) as run:
                self._squares([place.child(run.coordinates) for place in places], column, run)

    def _squares(self, places: list[Scope], start: Value, run: Run) -> None:
        b, lanes = self.b, self.square
        self._hoist(places, frozenset({self.summed.last}))
        whole = b.mul(b.div(run.count, b.constant(lanes, I64), signed=False), lanes)
        with b.loop(0, whole, lanes) as step:
            self._square(places, start, run, step.index, None)
        with b.if_(b.cmp("lt", whole, run.count)):
            self._square(places, start, run, whole, b.sub(run.count, whole))

    def _square(self, places: list[Scope], start: Value, run: Run, step: Value, count: Value | None) -> None:
        b, lanes = self.b, self.square
        mask = None
        if count is not None:
            mask = b.cmp("lt", b.iota(I64.vector(lanes)), b.splat(count, lanes))
        here: Coordinates = {self.summed.last: Lanes(b.add(run.first, step))}
        values = []
        for place in places:
            inner = place.child(here, mask)
            value = inner.full(inner.evaluate(self.node))
            if mask is not None and self.together > 1:  # it may share a word with what is not past the end
                value = b.select(mask, value, b.constant(0, value.type))
            values.append(value)
        values += values[-1:] * (lanes - self.lanes)
        rows = [b.slice(row, 0, self.lanes) if lanes > self.lanes else row for row in b.transpose(values)]
        line = b.offset(start, b.mul(self._line(b.add(run.offset, step)), self.line))
        if self.together == 1 or len(self.summed.moving) == 1:
            self._write(rows, False, line)
            return
        with b.if_(b.cmp("ne", b.and_(run.offset, 1), 0)) as choice:
            self._write(rows, True, line)
            choice.otherwise()
            self._write(rows, False, line)

    # --- in another order -------------------------------------------------------------------------

    def _memory_order(self, scope: Scope) -> Group | None:
        """The summed axes in the order in which the operand has them, if it lies contiguous along the last
        of them and the sums are walked in another order.
        """
        node, layout = self.node, scope.layout
        if not isinstance(node, Read) or self.together > 1 or self.square > self.lanes:
            return None
        if not set(self.summed.moving) <= set(node.names):
            return None
        order = tuple(sorted(self.summed.moving, key=node.names.index))
        if order == self.summed.moving or order[-1] not in unit_axes(node, layout)[0]:
            return None
        return Group(self.b, scope, order, layout, joined(node, order, layout))

    def _whole_or(self, other: Panel, order: Group) -> Panel:
        """A panel of all summed positions in the operand's order, one of some of them as the other has it."""
        b = self.b

        def panel(scope: Scope, start: Value, first: Value, own: Range, k: Range) -> None:
            with b.if_(b.cmp("eq", b.sub(k[1], k[0]), self.summed.size())) as choice:
                self._in_order(scope, order, start, first, own[1])
                choice.otherwise()
                other(scope, start, first, own, k)

        return panel

    def _in_order(self, scope: Scope, order: Group, start: Value, first: Value, high: Value) -> None:
        """All summed positions in the operand's order, each line where it belongs: squares, then what is
        left of a run.
        """
        b, lanes = self.b, self.lanes
        with b.loop(0, self.vectors) as vector:
            at = b.add(first, b.mul(vector.index, lanes))
            column = b.offset(start, b.mul(vector.index, lanes * self.size))
            pieces = [scope.child(*piece) for piece in self.own.stretches(at, lanes, high)]
            rows = [scope.child(place) for place in self.own.each(at, lanes, high)]
            with order.runs(b.constant(0, I64), order.size()) as run:
                whole = b.mul(b.div(run.count, b.constant(lanes, I64), signed=False), lanes)
                with b.loop(0, whole, lanes) as step:
                    here = {**self.summed.still, **run.coordinates, **order.inner(step.index)}
                    self._square_in_order(rows, order, here, column)
                rest = b.sub(run.count, whole)
                with b.if_(b.cmp("ge", rest, FEWEST_TURNED)) as choice:
                    here = {**self.summed.still, **run.coordinates, **order.inner(whole)}
                    self._square_in_order(rows, order, here, column, rest)
                    choice.otherwise()
                    with b.loop(whole, run.count) as step:
                        here = {**self.summed.still, **run.coordinates, **order.inner(step.index)}
                        value = self._joined([piece.child(here) for piece in pieces])
                        b.store(value, self._place(here, column))

    def _square_in_order(
        self, rows: list[Scope], order: Group, here: Coordinates, column: Value, count: Value | None = None
    ) -> None:
        """As many summed positions as lanes, or `count`, from `here` on."""
        b = self.b
        mask = None if count is None else b.first_lanes(count, self.lanes)
        first = scalar(here[order.last])
        places = [row.child({**here, order.last: Lanes(first)}, mask) for row in rows]
        lines = b.transpose([place.full(place.evaluate(self.node)) for place in places])
        if (
            isinstance(self.node, Read) and order.outer
        ):  # from one run to the next the machine foresees nothing
            for place in places if count is not None else ():
                place.prefetch(self.node, order.outer[-1])
        at = [scalar(here[axis]) for axis in order.moving]
        if count is None:
            for line in lines:
                self._store_in_order(line, order, at, here, column)
                at = order.next(at)
            return
        size = self.lanes * self.size
        for number, line in enumerate(lines):
            b.store(line, b.offset(self.turned, number * size))
        with b.loop(0, count, 1, at) as loop:
            line = b.load(b.offset(self.turned, b.mul(loop.index, size)), lines[0].type)
            self._store_in_order(line, order, loop.carried, here, column)
            loop.yield_(*order.next(loop.carried))

    def _store_in_order(
        self, line: Value, order: Group, at: Sequence[Value], here: Coordinates, column: Value
    ) -> None:
        here = {**here, **dict(zip(order.moving, at, strict=True))}
        self.b.store(line, self._place(here, column))

    def _place(self, coordinates: Coordinates, column: Value) -> Value:
        """Where the line of a summed position begins."""
        b = self.b
        line = b.constant(0, I64)
        for axis in self.summed.moving:
            line = b.add(b.mul(line, self.summed.extents[axis]), scalar(coordinates[axis]))
        return b.offset(column, b.mul(line, self.line))


def joined(node: Node, summed: tuple[str, ...], layout: Layout) -> int:
    """How many of the last summed axes a side walks as one, each row going on where the one before ends."""
    moving = layout.moving(summed)
    count = 1
    while count < len(moving) and _goes_on(node, moving[-count - 1], moving[-count], layout):
        count += 1
    return count


def _goes_on(node: Node, outer: str, inner: str, layout: Layout) -> bool:
    """Whether the position of an operand after the last along `inner` is the next one along `outer`.

    A window's tap goes on where the channels of the one before end: x.at(w=ow + s) along s, x being (w, c).
    """
    operand = node.arg if isinstance(node, At) else node
    if not isinstance(operand, Read) or operand.param not in layout.classes:
        return False
    along = slides(node, outer) if isinstance(node, At) else outer
    slid = node.along if isinstance(node, At) else ()
    if along not in operand.names or inner not in operand.names or inner in slid:
        return False
    return layout.goes_on(operand.param, operand.names.index(along), operand.names.index(inner))


def slides(node: At, axis: str) -> str:
    """The dimension along which a step along `axis`, and nothing else of it, moves by one position."""
    places = dict(zip(node.along, node.positions, strict=True))
    moved = [name for name, position in places.items() if axis in position.axes]
    if not moved:
        return axis
    return moved[0] if len(moved) == 1 and affine(places[moved[0]]).step(axis) == 1 else ""


def square_of(lanes: int) -> int:
    """The side of the squares in which so many own positions are turned."""
    return 1 << (lanes - 1).bit_length()


def contiguous_along(summed: str, side: Node, own: str, layout: Layout) -> bool:
    """Whether most of what a side reads lies contiguous along a summed axis, not along one of its own, for
    long enough to be turned in registers. Where vectors cannot run along its own (""), nearly is enough.
    """
    score = 0
    for node in evaluated([side]):
        axes, rank = unit_axes(node, layout, 1 if own else WIDEST_WALK)
        score += rank * ((summed in axes) - (own in axes))
    return score > 0 and layout.length(summed) not in (TINY, SHORT)


def unit_axes(node: Node, layout: Layout, most: int = 1) -> tuple[tuple[str, ...], int]:
    """The axes along which one step moves a read by one element, or a few, and the rank of what is read."""
    if isinstance(node, At):
        return walked_by_one(node, layout.is_unit, most), len(node.arg.axes)
    if isinstance(node, Read) and node.param in layout.classes:
        axes = (axis for n, axis in enumerate(node.names) if layout.of(node.param, n) == UNIT)
        return tuple(axes), len(node.names)
    return (), 0


def summed_order(axes: tuple[str, ...], sides: tuple[Node, ...], layout: Layout) -> tuple[str, ...]:
    """The summed axes in the order in which they are walked: innermost a long one that lies contiguous.

    Sums have one order for one layout. An axis of a few elements, as a window's is, makes a poor inner loop,
    unless the next one goes on where it ends. Of others, that along which windows step over fewest elements.
    """

    def merit(axis: str) -> tuple[int, int, float, int]:
        contiguous = sum(axis in unit_axes(n, layout)[0] for side in sides for n in evaluated([side]))
        windows = [side for side in sides if isinstance(side, At)]
        run = [a for a in axes if a == axis or any(_goes_on(w, a, axis, layout) for w in windows)]
        steps = [_step(w, axis, layout) for w in windows]
        nearest = -min(steps, default=math.inf)
        return max(MERIT[layout.length(a)] for a in run), contiguous, nearest, axes.index(axis)

    last = max(axes, key=merit)
    return (*(a for a in axes if a != last), last)


def _step(node: At, axis: str, layout: Layout) -> float:
    """The elements that a window moves over from one position along an axis to the next, if they are few."""
    return 1 if axis in unit_axes(node, layout)[0] else layout.sides.steps.get(node, {}).get(axis, math.inf)


def lane_order(own: tuple[str, ...], layout: Layout) -> tuple[str, ...]:
    """The axes of the side that vectors run along, in the order in which they are walked: as they are, but
    not with one of a few elements last. The taps of a window are all at one place for a vector of channels.
    """
    moving = layout.moving(own)
    if not moving or layout.length(moving[-1]) not in (TINY, SHORT):
        return own
    last = max(moving, key=lambda axis: (MERIT[layout.length(axis)], own.index(axis)))
    return (*(axis for axis in own if axis != last), last)
