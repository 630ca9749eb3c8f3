"""Several axes walked as one, the last the fastest: the rows, columns and summed axes of a contraction.

A vector that runs on past the end of the last axis stands on several *stretches* of it, each with coordinates
of its own: 16 columns of an image of width 14, from its column 9 on, are columns 9 to 13 of one line and 0 to
10 of the next. Each stretch is a scope whose lanes are consecutive along the last axis, so that what lies
contiguous is read as vectors, with the lanes of other stretches masked off. Where everything that is read or
written goes on with the next line at the end of one, axes are *joined*: a stretch goes along all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tilewright.compiler.targets.cpu.builder import I64, Builder, Value
from tilewright.compiler.targets.cpu.coordinates import Coordinate, Lanes
from tilewright.compiler.targets.cpu.layout import Layout
from tilewright.compiler.targets.cpu.scope import Scope

MOST_STRETCHES = 4  # from here on lanes have positions of their own, and operands are gathered

Coordinates = dict[str, Coordinate]


@dataclass(frozen=True)
class Run:
    """`count` positions of a group from `first` along its joined axes, at `coordinates` along the others.

    number: of the run among all. offset: how many positions lie between the start of the walk and the first.
    """

    number: Value
    coordinates: Coordinates
    first: Value
    count: Value
    offset: Value


@dataclass(frozen=True)
class RowBlock:
    """Which rows of a register block are stored: all if `whole`, else those from `first` to `stop`; and the
    coordinates of each.
    """

    whole: Value
    first: Value
    stop: Value
    at: Callable[[Value | int], Coordinates]


class Group:
    """Axes walked as one. Those of one element stand still. Runs and stretches go along the last `joined`."""

    def __init__(self, b: Builder, scope: Scope, axes: Sequence[str], layout: Layout, joined: int = 1):
        self.b = b
        self.layout = layout
        self.axes = tuple(axes)
        self.moving = layout.moving(axes)
        self.extents = {a: scope.extent(a) for a in self.moving}
        self.outer, self.joined = self.moving[:-joined], self.moving[-joined:]
        self.span = self._product(self.joined)
        zero = b.constant(0, I64)
        self.still: Coordinates = {a: zero for a in axes if a not in self.moving}

    @property
    def last(self) -> str:
        return self.moving[-1]

    def size(self) -> Value:
        return self._product(self.moving)

    def _product(self, axes: Sequence[str]) -> Value:
        total = self.b.constant(1, I64)
        for axis in axes:
            total = self.b.mul(total, self.extents[axis])
        return total

    def inner(self, first: Value) -> Coordinates:
        """The coordinates of a position of a run along the axes that it goes along."""
        return dict(_digits(self.b, first, self.joined, self.extents))

    def outer_of(self, run: Value) -> Coordinates:
        """The coordinates of all positions of a run, along the axes that it does not go along."""
        return {**self.still, **_digits(self.b, run, self.outer, self.extents)}

    def next(self, coordinates: Sequence[Value]) -> list[Value]:
        """The position after that with these coordinates along the moving axes."""
        b = self.b
        carry = b.constant(1, I64)
        found: list[Value] = []
        for axis, value in zip(reversed(self.moving), reversed(coordinates), strict=True):
            value = b.add(value, carry)
            over = b.cmp("ge", value, self.extents[axis])
            found.append(b.select(over, b.constant(0, I64), value))
            carry = b.convert(over, "i64", signed=False)
        return found[::-1]

    def decode(self, index: Value) -> Coordinates:
        """The coordinates of one position."""
        return {**self.still, **_digits(self.b, index, self.moving, self.extents)}

    # --- vectors of positions ---------------------------------------------------------------------

    def steady(self, first: Value, lanes: int, high: Value) -> Value:
        """Whether `lanes` positions from `first` are below `high` and on one stretch."""
        b = self.b
        below = b.cmp("le", b.add(first, lanes), high)
        if not self.breaks(lanes):
            return below
        start = b.rem(first, self.span, signed=False)
        return b.and_(below, b.cmp("le", b.add(start, lanes), self.span))

    def breaks(self, lanes: int) -> bool:
        """Whether a vector of positions may be on more than one stretch."""
        return bool(self.outer) and self.layout.stretches(self.joined, lanes) > 1

    def gathers(self, lanes: int) -> bool:
        """Whether vectors are cut into so many stretches that each lane has positions of its own."""
        return self.breaks(lanes) and self.layout.stretches(self.joined, lanes) > MOST_STRETCHES

    def along(self, first: Value) -> Coordinates:
        """Lanes from `first` on one stretch."""
        coordinates = self.decode(first)
        start = coordinates[self.last]
        assert isinstance(start, Value)
        return {**coordinates, self.last: Lanes(start)}

    def each(self, first: Value, lanes: int, high: Value) -> list[Coordinates]:
        """The coordinates of `lanes` positions from `first` on; past the end those of the last one."""
        b = self.b
        if self.breaks(lanes):
            return [self.decode(b.minimum(b.add(first, lane), b.sub(high, 1))) for lane in range(lanes)]
        here = self.decode(b.minimum(first, b.sub(high, 1)))
        start, end = scalar(here[self.last]), b.sub(self.extents[self.last], 1)
        return [{**here, self.last: b.minimum(b.add(start, lane), end)} for lane in range(lanes)]

    def stretches(self, first: Value, lanes: int, high: Value) -> list[tuple[Coordinates, Value]]:
        """The stretches of `lanes` positions from `first`, each with the mask of its lanes below `high`."""
        b = self.b
        iota = b.iota(I64.vector(lanes))
        valid = b.sub(high, first)
        if not self.breaks(lanes):
            inside = b.minimum(first, b.sub(high, 1))
            return [(self.along(inside), b.cmp("lt", iota, b.splat(valid, lanes)))]
        count = self.layout.stretches(self.joined, lanes)
        if self.gathers(lanes):
            return [(self._apart(first, lanes), b.cmp("lt", iota, b.splat(valid, lanes)))]
        found: list[tuple[Coordinates, Value]] = []
        begin = b.constant(0, I64)
        for number in range(count):
            position = b.minimum(b.add(first, begin), b.sub(high, 1))
            coordinates = self.decode(position)
            start = scalar(coordinates[self.last])
            left = b.sub(self.span, b.rem(position, self.span, signed=False))
            end = b.minimum(b.add(begin, left), valid)
            mask = b.cmp("lt", iota, b.splat(end, lanes))
            if number:
                mask = b.and_(mask, b.cmp("ge", iota, b.splat(begin, lanes)))
            found.append(({**coordinates, self.last: Lanes(b.sub(start, begin))}, mask))
            begin = end
        return found

    def inside(self, first: Value, lanes: int, high: Value) -> Coordinates:
        """Every lane with positions of its own, those past the end being the last."""
        b = self.b
        flat = b.add(b.splat(first, lanes), b.iota(I64.vector(lanes)))
        return self._digits_of(b.minimum(flat, b.splat(b.sub(high, 1), lanes)), lanes)

    def _apart(self, first: Value, lanes: int) -> Coordinates:
        """Every lane with positions of its own."""
        b = self.b
        return self._digits_of(b.add(b.splat(first, lanes), b.iota(I64.vector(lanes))), lanes)

    def _digits_of(self, flat: Value, lanes: int) -> Coordinates:
        b = self.b
        extents = {axis: b.splat(extent, lanes) for axis, extent in self.extents.items()}
        digits = _digits(b, flat, self.moving, extents)
        return {**self.still, **{axis: Lanes(positions=p) for axis, p in digits.items()}}

    # --- walks ------------------------------------------------------------------------------------

    @contextmanager
    def runs(self, low: Value, high: Value) -> Iterator[Run]:
        """A loop over the runs of the positions from `low` to `high`."""
        b = self.b
        if not self.outer:
            yield self.run(b.constant(0, I64), low, high)
            return
        first, end = self.run_numbers(low, high)
        with b.loop(first, end) as loop:
            yield self.run(loop.index, low, high)

    def run_numbers(self, low: Value, high: Value) -> tuple[Value, Value]:
        """The number of the first run and of the one after the last."""
        b = self.b
        if not self.outer:
            return b.constant(0, I64), b.constant(1, I64)
        extent = b.maximum(self.span, 1)
        return b.div(low, extent, signed=False), b.div(b.add(high, b.sub(extent, 1)), extent, signed=False)

    def run(self, number: Value, low: Value, high: Value) -> Run:
        b = self.b
        if not self.outer:
            return Run(number, dict(self.still), low, b.sub(high, low), b.constant(0, I64))
        base = b.mul(number, self.span)
        start = b.maximum(base, low)
        stop = b.minimum(b.add(base, self.span), high)
        outer = self.outer_of(number)
        return Run(number, outer, b.sub(start, base), b.sub(stop, start), b.sub(start, low))


class Noted:
    """The coordinates of a range of positions, written down: divisions are slow."""

    def __init__(self, b: Builder, group: Group, table: Value, capacity: Value):
        self.b = b
        self.group = group
        moving = group.moving if len(group.moving) > 1 else ()
        self.columns = {
            axis: b.offset(table, b.mul(capacity, 8 * number)) for number, axis in enumerate(moving)
        }

    def note(self, low: Value, high: Value, lanes: int) -> None:
        """The positions from `low` to `high`, the last one again up to whole vectors."""
        if not self.columns:
            return
        b = self.b
        count = b.sub(high, low)
        padded = b.mul(b.div(b.add(count, lanes - 1), b.constant(lanes, I64), signed=False), lanes)
        first = self.group.decode(low)
        with b.loop(0, padded, 1, [scalar(first[axis]) for axis in self.columns]) as loop:
            for column, value in zip(self.columns.values(), loop.carried, strict=True):
                b.store(value, b.offset(column, b.mul(loop.index, 8)))
            last = b.cmp("ge", b.add(loop.index, 1), count)
            following = self.group.next(loop.carried)
            loop.yield_(*(b.select(last, v, n) for v, n in zip(loop.carried, following, strict=True)))

    def one(self, position: Value, low: Value) -> Coordinates:
        b = self.b
        if not self.columns:
            return {**self.group.still, self.group.last: position}
        at = b.mul(b.sub(position, low), 8)
        return {**self.group.still, **{a: b.load(b.offset(c, at), I64) for a, c in self.columns.items()}}

    def block(self, row: Value, low: Value, high: Value, rows: int) -> RowBlock:
        """The register block of so many rows from one on, of those from `low` to `high`."""
        b = self.b
        left = b.sub(high, row)

        def at(number: Value | int) -> Coordinates:
            return self.one(b.add(row, number), low)

        return RowBlock(b.cmp("ge", left, rows), b.constant(0, I64), b.minimum(left, rows), at)

    def several(self, first: Value, low: Value, high: Value, lanes: int) -> Coordinates:
        """`lanes` positions from `first`, those past the end being the last."""
        b = self.b
        kind = I64.vector(lanes)
        if not self.columns:
            flat = b.minimum(b.add(b.splat(first, lanes), b.iota(kind)), b.splat(b.sub(high, 1), lanes))
            return {**self.group.still, self.group.last: Lanes(positions=flat)}
        at = b.mul(b.sub(first, low), 8)
        found = {a: Lanes(positions=b.load(b.offset(c, at), kind)) for a, c in self.columns.items()}
        return {**self.group.still, **found}


def scalar(coordinate: Coordinate) -> Value:
    assert isinstance(coordinate, Value)
    return coordinate


def _digits(b: Builder, index: Value, axes: Sequence[str], extents: dict[str, Value]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for axis in reversed(axes[1:]):
        found[axis] = b.rem(index, extents[axis], signed=False)
        index = b.div(index, extents[axis], signed=False)
    return {**found, axes[0]: index} if axes else {}
