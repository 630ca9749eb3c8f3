"""Columns that are taps and channels of windows, read where they lie: those of a filter's gradient.

    dk[o, r, s, c] = Σ_nhw dy[n, h, w, o] · x[n, h + r - 1, w + s - 1, c]

Vectors run along the channels, and a panel's vectors lie one after the other. Sums go along a line: in a run
of w each summed position is as far from the one before, for every tap. Nothing is packed, and nothing copied.

    for each run (n, h):  line = place of the panel + what the run adds
        for w in run:  sums[row, vector] += left[row, w] · line[w][vector]

Where windows reach outside, vectors at the ends of a run are read under masks: zeros take part. A run that is
above or below the image is all zeros, and is passed over where the other side is finite (`finite`). What a
run adds to an address, and to the positions that may be outside, is in a table: the same for all columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tilewright.compiler.targets.cpu.builder import I1, I64, Builder, Value
from tilewright.compiler.targets.cpu.contractions.finite import Finite
from tilewright.compiler.targets.cpu.contractions.groups import Group, Run
from tilewright.compiler.targets.cpu.contractions.lines import Lines
from tilewright.compiler.targets.cpu.contractions.panels import Range, Side
from tilewright.compiler.targets.cpu.contractions.products import Products
from tilewright.compiler.targets.cpu.contractions.reading.tapped import Tapped
from tilewright.compiler.targets.cpu.contractions.sizes import ADDRESS
from tilewright.compiler.targets.cpu.scope import Scope
from tilewright.compiler.targets.cpu.spelling import value_type
from tilewright.dsl.affine import affine
from tilewright.dsl.program import At


@dataclass(frozen=True)
class Panel:
    """Where the lines of a panel are, before anything of a run is added: the first one's start, the positions
    of its windows along the axes that a run may leave, and for each vector from which summed position of a
    line to which it is inside.
    """

    lines: Lines
    positions: tuple[Value, ...]
    inside: tuple[Range, ...]


class TappedColumns:
    """Writes where the panels of a side's columns are, and their sums. `summed` are runs; the table in the
    workspace has a line for each.
    """

    def __init__(
        self,
        b: Builder,
        scope: Scope,
        side: Side,
        tapped: Tapped,
        summed: Group,
        table: Value,
        lanes: int,
        vectors: int,
    ):
        assert isinstance(side.node, At)
        self.b = b
        self.node = node = side.node
        self.summed = summed
        self.columns = Group(b, scope, side.own, scope.layout)
        self.table = table
        self.lanes = lanes
        self.vectors = vectors
        self.size = value_type(node.dtype).bytes
        self.step = tapped.step * self.size
        proven = scope.layout.inside.get(node, frozenset())
        places = dict(zip(node.along, node.positions, strict=True))
        self.line = next(axis for axis, position in places.items() if tapped.along in position.axes)
        self.pace = affine(places[self.line]).step(tapped.along) or 1
        self.leaves_line = self.line not in proven
        self.extents = {axis: scope.extent(axis) for axis in node.along}
        self.left = {a: p for a, p in places.items() if a not in proven and a != self.line}
        self.entry = ADDRESS * (1 + len(self.left))
        _, runs = summed.run_numbers(b.constant(0, I64), summed.size())
        self.bytes = b.mul(runs, self.entry)
        self.others: Finite | None = None

    # --- what is read -----------------------------------------------------------------------------

    def note(self, scope: Scope, k: Range) -> None:
        """Write down what the runs add to addresses and positions."""
        b = self.b
        origin = {**self._first_of(self.columns), **self._first_of(self.summed)}
        start, *firsts = self._place(scope.child(origin))
        with self.summed.runs(*k) as run:
            start_here, *found = self._place(scope.child({**origin, **run.coordinates}))
            line = self._line_of(run.number)
            b.store(b.sub(b.integer(start_here), b.integer(start)), line)
            for number, (position, first) in enumerate(zip(found, firsts, strict=True), 1):
                b.store(b.sub(position, first), b.offset(line, ADDRESS * number))

    def panel(self, scope: Scope, column: Value) -> Panel:
        """The panel that begins with a column."""
        b = self.b
        here = [self._at(scope, b.add(column, v * self.lanes)) for v in range(self.vectors)]
        start, *positions = self._place(here[0])
        inside = tuple(self._inside(place) for place in here) if self.leaves_line else ()
        return Panel(Lines(start, self.step, near=True), tuple(positions), inside)

    def _at(self, scope: Scope, column: Value) -> Scope:
        return scope.child({**self._first_of(self.summed), **self.columns.decode(column)})

    def _first_of(self, group: Group) -> dict[str, Value]:
        return dict.fromkeys(group.axes, self.b.constant(0, I64))

    def _place(self, scope: Scope) -> list[Value]:
        """Where the operand is read, and the positions along the axes that may be left."""
        return [scope.start_of(self.node)[0], *(scope.evaluate(p) for p in self.left.values())]

    def _inside(self, scope: Scope) -> Range:
        """From which position of a line a vector's window is inside of the operand, and up to which."""
        b = self.b
        positions = dict(zip(self.node.along, self.node.positions, strict=True))
        first = scope.evaluate(positions[self.line])
        left = b.sub(b.sub(scope.extent(self.line), 1), first)
        pace = b.constant(self.pace, I64)
        low = b.div(b.maximum(b.sub(self.pace - 1, first), 0), pace, signed=False)
        behind = b.add(b.div(b.maximum(left, 0), pace, signed=False), 1)
        return low, b.select(b.cmp("ge", left, 0), behind, b.constant(0, I64))

    def _line_of(self, run: Value) -> Value:
        return self.b.offset(self.table, self.b.mul(run, self.entry))

    # --- sums -------------------------------------------------------------------------------------

    def multiply(
        self, products: Products, panel: Panel, rows: list[Value], run: Run, sums: list[Value]
    ) -> list[Value]:
        """The sums after a run, beside rows that are packed, which begin at these places."""
        b = self.b
        noted, zero = self._line_of(run.number), b.constant(0, I64)
        lines = replace(panel.lines, start=b.offset(panel.lines.start, b.load(noted, I64)))
        lines = lines.behind(b, run.first)
        part = _Part(products, lines, rows)
        if not panel.inside and not self.left:
            return part.whole((zero, run.count), sums)
        here = self._is_inside(panel, noted)
        if self.others:
            run = self.others.passed_over(run, b.not_(here))
        inside = [(b.sub(low, run.first), b.sub(high, run.first)) for low, high in panel.inside]
        low, high = zero, run.count
        for first, end in inside:
            low, high = b.maximum(low, first), b.minimum(high, end)
        low = b.select(here, b.minimum(low, run.count), run.count)
        high = b.maximum(high, low)
        sums = part.masked((zero, low), here, inside, sums)
        sums = part.whole((low, high), sums)
        return part.masked((high, run.count), here, inside, sums)

    def _is_inside(self, panel: Panel, noted: Value) -> Value:
        """Whether a run is inside along all axes but its line's."""
        b = self.b
        here = b.constant(True, I1)
        for number, (axis, position) in enumerate(zip(self.left, panel.positions, strict=True), 1):
            place = b.add(position, b.load(b.offset(noted, ADDRESS * number), I64))
            here = b.and_(here, b.cmp("lt", place, self.extents[axis], signed=False))
        return here


@dataclass(frozen=True)
class _Part:
    """Writes the sums of parts of a run, whose lines and rows begin here."""

    products: Products
    lines: Lines
    rows: list[Value]

    def whole(self, part: Range, sums: list[Value]) -> list[Value]:
        """Those of positions at which every vector is inside."""
        b, products = self.products.b, self.products
        low, high = part
        along = b.mul(low, products.apart * products.packed.bytes)
        rows = [b.offset(row, along) for row in self.rows]
        run = Run(low, {}, low, b.sub(high, low), low)
        return products.run(self.lines, run, rows, sums)

    def masked(self, part: Range, here: Value, inside: Sequence[Range], sums: list[Value]) -> list[Value]:
        """Those of positions at which each vector may be outside: it is all zeros then."""
        b, products = self.products.b, self.products
        with b.loop(*part, 1, sums, unroll=False) as loop:
            k = loop.index
            within = [b.and_(b.cmp("ge", k, low), b.cmp("lt", k, high)) for low, high in inside]
            within = [b.and_(here, one) for one in within] or [here] * products.columns
            lines = self.lines.under([b.splat(one, products.lanes) for one in within])
            along = b.mul(k, products.apart * products.packed.bytes)
            rows = [b.offset(row, along) for row in self.rows]
            loop.yield_(*products.step(rows, lines, k, loop.carried))
        return loop.results
