"""The sums of one register block: some rows, a panel of columns, a block of the summed positions.

Both sides are packed, or either is read where it lies: rows that begin at addresses of their own (`direct`),
or evenly (`even`), and columns over the ends of lines (`overrun`) or along the channels of taps (`tapped`).
What lies so is walked run by run.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING

from tilewright.compiler.targets.cpu.builder import I64, PTR, Value
from tilewright.compiler.targets.cpu.contractions.direct import Addresses
from tilewright.compiler.targets.cpu.contractions.even import EvenRows
from tilewright.compiler.targets.cpu.contractions.groups import Run
from tilewright.compiler.targets.cpu.contractions.lines import Lines
from tilewright.compiler.targets.cpu.contractions.live import Runs
from tilewright.compiler.targets.cpu.contractions.overrun import OverrunColumns
from tilewright.compiler.targets.cpu.contractions.panels import Range
from tilewright.compiler.targets.cpu.contractions.picked import Picked
from tilewright.compiler.targets.cpu.contractions.sizes import ADDRESS
from tilewright.compiler.targets.cpu.contractions.tapped import Panel, TappedColumns
from tilewright.compiler.targets.cpu.scope import Scope
from tilewright.dsl.program import At, Read

if TYPE_CHECKING:
    from tilewright.compiler.targets.cpu.contractions.blocks import Blocks


def multiplied(
    blocks: Blocks,
    scope: Scope,
    left: tuple[Value, Range],
    right: tuple[Value, Lines | Panel],
    k: Range,
    start: list[Value],
) -> list[Value]:
    """The sums after these positions: of the rows from one on, of those of a chunk, and of the panel of
    columns with that number.
    """
    b, (row, rows), (number, lines) = blocks.b, left, right
    panel = blocks.number(row, rows)
    if blocks.tapped:
        assert isinstance(lines, Panel)
        return _tapped(blocks, blocks.tapped, scope, panel, lines, k, start)
    assert isinstance(lines, Lines)
    if blocks.overrun:
        return _over_lines(blocks, blocks.overrun, panel, lines, k, start)
    runs = blocks.live.of(panel, number, k) if blocks.live else None
    runs = Runs(blocks.runs.run_numbers(*k)) if runs is None and blocks.walk.direct else runs
    if blocks.even:
        assert runs is not None
        return _evenly(blocks, blocks.even, scope, lines, row, k, runs, start)
    if blocks.direct:
        assert runs is not None
        last = blocks.number(b.sub(rows[1], 1), rows)
        return _direct(blocks, blocks.direct, (panel, last), lines, k, runs, start)
    depth = blocks.pack_right.lines(b.sub(k[1], k[0]))
    place = b.mul(b.mul(b.sub(row, rows[0]), depth), blocks.packed.bytes)
    return _packed(blocks, b.offset(blocks.left_panels, place), lines, k, runs, start)


def _evenly(
    blocks: Blocks,
    even: EvenRows,
    scope: Scope,
    right: Lines,
    row: Value,
    k: Range,
    runs: Runs,
    start: list[Value],
) -> list[Value]:
    """Rows that lie evenly, from one on, and one panel of the right side."""
    b, known = blocks.b, blocks.walk.known_runs(scope.layout)
    if known and runs.listed is None and even.written_out(known):
        for number in range(known):
            run = blocks.runs.run(b.constant(number, I64), *k)
            start = even.multiply(scope, right, row, run, k, start)
        return start
    with b.loop(*runs.range, 1, start) as turns:
        run = blocks.runs.run(runs.number(b, turns.index), *k)
        turns.yield_(*even.multiply(scope, right, row, run, k, turns.carried))
    return turns.results


def _packed(
    blocks: Blocks, left: Value, right: Lines, k: Range, runs: Runs | None, start: list[Value]
) -> list[Value]:
    """One panel of each side."""
    b, kind = blocks.b, blocks.block_type
    if runs:
        with b.loop(*runs.range, 1, start) as turns:
            run = blocks.summed.run(runs.number(b, turns.index), *k)
            part = run.offset, b.add(run.offset, run.count)
            turns.yield_(*_lines(blocks, left, right, part, turns.carried))
        return turns.results
    depth = b.constant(0, I64), blocks.pack_right.lines(b.sub(k[1], k[0]))
    if kind == blocks.type:
        return _lines(blocks, left, right, depth, start)
    found = _lines(blocks, left, right, depth, [b.constant(0, kind.vector(blocks.lanes))] * len(start))
    return [b.add(a, b.convert(s, blocks.type.kind)) for a, s in zip(start, found, strict=True)]


def _lines(blocks: Blocks, left: Value, right: Lines, lines: Range, start: list[Value]) -> list[Value]:
    """Some lines of two panels."""
    b = blocks.b
    with b.loop(*lines, 1, start, unroll=False) as loop:
        rows = _rows_of(blocks, b.offset(left, b.mul(loop.index, blocks.pack_left.line)))
        loop.yield_(*blocks.products.step(rows, right, loop.index, loop.carried))
    return loop.results


def _rows_of(blocks: Blocks, line: Value) -> list[Value]:
    """Where the rows of a panel are in one of its lines."""
    return [blocks.b.offset(line, row * blocks.packed.bytes) for row in range(blocks.rows)]


def _direct(
    blocks: Blocks,
    direct: Addresses,
    panels: tuple[Value, Value],
    right: Lines,
    k: Range,
    runs: Runs,
    start: list[Value],
) -> list[Value]:
    """One panel of the right side, and rows that begin at the addresses of each run: those of this panel, and
    the number of the last one. The caches are asked for rows that follow, unless those are foreseen.
    """
    b, (panel, last) = blocks.b, panels
    foreseen = not blocks.top.layout.sides.foreseen.isdisjoint(blocks.walk.left.own)
    with b.loop(*runs.range, 1, start) as turns:
        number = runs.number(b, turns.index)
        line = direct.line(blocks.left_panels, panel, number, k)
        places = direct.in_line(line)
        following = direct.line(blocks.left_panels, b.minimum(b.add(panel, 1), last), number, k)
        ask = blocks.walk.step == 1 and not foreseen
        rows = functools.partial(_starts_in, blocks, following) if ask else None
        run = blocks.runs.run(number, *k)
        if blocks.right_finite:
            run = blocks.right_finite.passed_over(run, direct.all_outside(line))
        turns.yield_(*blocks.products.run(right, run, places, turns.carried, rows))
    return turns.results


def _starts_in(blocks: Blocks, line: Value, first: Value, count: int) -> list[Value]:
    """Some of the addresses in a line of the table."""
    b = blocks.b
    at = b.offset(line, b.mul(b.minimum(first, blocks.rows - count), ADDRESS))
    return [b.load(b.offset(at, ADDRESS * row), PTR) for row in range(count)]


def _over_lines(
    blocks: Blocks, overrun: OverrunColumns, panel: Value, right: Lines, k: Range, start: list[Value]
) -> list[Value]:
    """One panel of columns that are not packed, and of rows that may be."""
    b = blocks.b
    products = blocks.products if blocks.direct else replace(blocks.products, apart=blocks.rows)
    with b.loop(*blocks.runs.run_numbers(*k), 1, start) as turns:
        run = blocks.runs.run(turns.index, *k)
        if blocks.direct:
            places = blocks.direct.of_run(blocks.left_panels, panel, run.number, k)
        else:
            places = _packed_rows(blocks, panel, run, k)
        here = overrun.of_run(right, run.number)
        run = replace(run, offset=b.constant(0, I64))
        turns.yield_(*products.run(here, run, places, turns.carried))
    return turns.results


def _tapped(
    blocks: Blocks,
    tapped: TappedColumns,
    scope: Scope,
    panel: Value,
    right: Panel,
    k: Range,
    start: list[Value],
) -> list[Value]:
    """One panel of columns that lie along channels, and of rows that are packed, or filters of its groups."""
    beside = blocks.beside
    products = replace(blocks.products, apart=blocks.rows)
    if beside:
        filters = Picked.of(blocks.b, beside.channels, beside.filters, blocks.lanes)
        products = replace(blocks.products, apart=beside.step, filters=filters)
    with blocks.b.loop(*blocks.runs.run_numbers(*k), 1, start) as turns:
        run = blocks.runs.run(turns.index, *k)
        rows = [_first_filter(blocks, scope, run)] if beside else _packed_rows(blocks, panel, run, k)
        turns.yield_(*tapped.multiply(products, right, rows, run, turns.carried))
    return turns.results


def _first_filter(blocks: Blocks, scope: Scope, run: Run) -> Value:
    """Where the first filter of a group is read when a run begins."""
    node = blocks.walk.left.node
    assert isinstance(node, Read | At)
    first = dict.fromkeys(blocks.left.axes, blocks.b.constant(0, I64))
    return scope.child({**first, **run.coordinates, **blocks.runs.inner(run.first)}).start_of(node)[0]


def _packed_rows(blocks: Blocks, panel: Value, run: Run, k: Range) -> list[Value]:
    """Where the rows of a panel begin in a run, if they are packed."""
    b = blocks.b
    number = b.add(b.mul(panel, b.sub(k[1], k[0])), run.offset)
    return _rows_of(blocks, b.offset(blocks.left_panels, b.mul(number, blocks.pack_left.line)))
