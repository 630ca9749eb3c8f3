"""Runs of summed positions that take part: where a factor is read outside of its operand, products are 0.

The gradient of a convolution with a stride comes in phases: of a filter's taps 0, 1, 2 phase t has those at
t + 2·u, which are two or one. The positions of a run (`groups`) share their place along all summed axes
but the last few, so a panel of rows or of columns goes through those runs alone in which something of it is
inside:

    for each panel:  table[panel] = [run for run in runs if any(inside(own, run) for own in panel)]

Where the other side is not all finite, all runs take part: 0 · ∞ is NaN (`finite`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.compiler.contraction import factors
from tilewright.compiler.targets.cpu.builder import I1, I64, Builder, Value
from tilewright.compiler.targets.cpu.contractions.finite import Finite
from tilewright.compiler.targets.cpu.contractions.groups import Coordinates, Group
from tilewright.compiler.targets.cpu.contractions.panels import Range, Side
from tilewright.compiler.targets.cpu.layout import Layout
from tilewright.compiler.targets.cpu.lengths import MEDIUM, ONE, SHORT, TINY
from tilewright.compiler.targets.cpu.scope import Scope
from tilewright.dsl.program import At

ENTRY = 8  # bytes
MORE = 2  # entries of a line beside one for each run: how many there are, and one that is written in vain


@dataclass(frozen=True)
class Sparse:
    """A side of a contraction that is often outside of an operand, along axes where whole runs are."""

    on_the_left: bool
    node: At
    axes: tuple[str, ...]


def sparse_side(left: Side, right: Side, summed: Sequence[str], joined: int, layout: Layout) -> Sparse | None:
    """The side whose runs are worth noting; None if there is none, or runs are short."""
    moving = layout.moving(summed)
    inner = set(moving[-joined:])
    if layout.length(moving[-1]) in (ONE, TINY, SHORT):
        return None
    found: list[tuple[int, Sparse]] = []
    for on_the_left, side in ((False, right), (True, left)):
        last = [axis for axis in side.own if layout.length(axis) != ONE][-1:]
        short = (TINY, SHORT) if on_the_left else (TINY, SHORT, MEDIUM)
        full = not on_the_left and bool({*last} & layout.sides.full)
        if not last or (layout.length(last[0]) in short and not full):
            continue  # a panel has many positions along all of its axes
        for node in factors(side.node):
            if isinstance(node, At):
                often = _outside_for_runs(node, inner, layout)
                found.append((sum(often.values()), Sparse(on_the_left, node, tuple(often))))
    most, sparse = max(found, key=lambda one: one[0], default=(0, None))
    return sparse if most else None


def _outside_for_runs(node: At, inner: set[str], layout: Layout) -> dict[str, int]:
    """The axes along which a node is often outside, at a place that all positions of a run share."""
    places = dict(zip(node.along, node.positions, strict=True))
    outside = layout.sides.outside.get(node, {})
    return {a: often for a, often in outside.items() if not inner & set(places[a].axes)}


@dataclass(frozen=True)
class Listed:
    """A list of runs, where it counts; or else all from the first on."""

    numbers: Value
    counts: Value
    first: Value


@dataclass(frozen=True)
class Runs:
    """Runs with numbers in a range, or with those that are listed, in their order."""

    range: Range
    listed: Listed | None = None

    def number(self, b: Builder, index: Value) -> Value:
        if self.listed is None:
            return index
        number = b.load(b.offset(self.listed.numbers, b.mul(index, ENTRY)), I64)
        return b.select(self.listed.counts, number, b.add(self.listed.first, index))


class Live:
    """Writes the table of a chunk's panels, and reads it: of each panel how many runs, and their numbers.
    These count if the other side is finite.
    """

    def __init__(self, b: Builder, sparse: Sparse, others: Finite, runs: Group, most: Value, table: Value):
        self.b = b
        self.others = others
        self.sparse = sparse
        self.runs = runs
        self.table = table
        self.line_bytes = b.mul(b.add(most, MORE), ENTRY)

    def note(self, scope: Scope, panel: Value, own: Sequence[Coordinates], lanes: int, k: Range) -> None:
        """Write down the runs of a panel, whose positions are given as vectors."""
        b = self.b
        line = self._line(panel)
        scope = Scope(b, scope.loaded, scope.layout, lanes, scope.coordinates, values=dict(scope.values))
        places = [scope.child(coordinates) for coordinates in own]
        with b.loop(*self.runs.run_numbers(*k), 1, [b.constant(0, I64)]) as loop:
            coordinates = self.runs.run(loop.index, *k).coordinates
            some = b.constant(False, I1)
            for place in places:
                inside = place.child(coordinates).inside(self.sparse.node, self.sparse.axes)
                some = b.or_(some, b.any(inside) if inside.lanes else inside)
            count = b.add(loop.carried[0], 1)
            b.store(loop.index, b.offset(line, b.mul(count, ENTRY)))
            loop.yield_(b.select(some, count, loop.carried[0]))
        b.store(loop.results[0], line)

    def of(self, row_panel: Value, column_panel: Value, k: Range) -> Runs:
        """The runs that a pair of panels takes part in."""
        b = self.b
        line = self._line(row_panel if self.sparse.on_the_left else column_panel)
        first, end = self.runs.run_numbers(*k)
        counts = self.others.holds
        count = b.select(counts, b.load(line, I64), b.sub(end, first))
        return Runs((b.constant(0, I64), count), Listed(b.offset(line, ENTRY), counts, first))

    def _line(self, panel: Value) -> Value:
        return self.b.offset(self.table, self.b.mul(panel, self.line_bytes))
