"""The CPU schedule: the axis of the vectors, how far loops are unrolled, how contractions are blocked.

A schedule may know a call's `Layout` besides the kernel; extents stay symbolic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.compiler.nest import Contraction, Kernel, indexed_reads, reads_of
from tilewright.compiler.strides import walked_by_one
from tilewright.compiler.targets.cpu.contractions.direct import readable, step_along
from tilewright.compiler.targets.cpu.contractions.dot_products import dot_product
from tilewright.compiler.targets.cpu.contractions.panels import summed_order
from tilewright.compiler.targets.cpu.contractions.reading.steps import groups_among
from tilewright.compiler.targets.cpu.contractions.sides import SLIM, USUAL, WIDER
from tilewright.compiler.targets.cpu.contractions.walk import Walk
from tilewright.compiler.targets.cpu.layout import (
    CONTINUED,
    NARROW,
    UNIT,
    VECTOR,
    ZERO,
    Layout,
    elements_apart,
    last_axes,
)
from tilewright.compiler.targets.cpu.lengths import ENDLESS, LEAST, LONG, MEDIUM, ONE, WHOLE
from tilewright.compiler.targets.cpu.registers import Registers, lanes_of
from tilewright.compiler.targets.cpu.rows.keep import kept_nodes
from tilewright.compiler.targets.cpu.spelling import cost
from tilewright.compiler.targets.cpu.toolchain import WIDEST, CpuTarget
from tilewright.dsl.axes import base
from tilewright.dsl.program import At, Read, topological
from tilewright.runtime.precision import EXACT

SEGMENT = 33  # vectors of a segment: an odd number of cache lines, so that lanes do not share cache sets
BLOCKS_A_TILE = 64  # of short rows, as many as lanes each
STREAMS = ("row", "pointwise", "scan", "contraction")  # kernels whose results may go past the caches
DEAR = 12  # the cost of one elementary function: from here on arithmetic, not latency, decides


@dataclass(frozen=True)
class Schedule:
    """How one kernel is written.

    lane_axis: the axis that vectors run along (None: scalar code). lanes: elements a vector.
    unroll: vectors a step.

    tile: elements of the lane axis in one work item of a pointwise kernel. stream: whether whole vectors
    of the results go past the caches. block_rows × (block_columns · lanes) is the register block of a
    contraction. segment: positions that a lane walks at a time of an endless row that is scanned; 0 where
    rows go together. dot_product: the kind of numbers of which a contraction multiplies and adds two in one
    instruction. brief: whether as many rows as lanes are one work item, and are finished together. outer: the
    axis into whose next position vectors run on where the lane axis, a narrow one, ends. across: the axis
    along which operands of a pointwise kernel lie that are transposed in registers. short: the positions of
    rows that lie one after the other and have a lane each; 0 of others. beside: the number of scanned rows
    that lie beside each other, if they are few. odd: whether the columns of a contraction are an odd
    number of vectors, and more than one. fields: the axis of few fields of records, which lie one after the
    other along the lane axis, where fields are planes elsewhere.
    """

    lane_axis: str | None
    lanes: int
    unroll: int
    tile: int
    block_rows: int
    block_columns: int
    stream: bool = False
    segment: int = 0
    dot_product: str | None = None
    brief: bool = False
    outer: str | None = None
    across: str | None = None
    short: int = 0
    beside: int = 0
    odd: bool = False
    fields: str | None = None
    accuracy: str = EXACT


def default_schedule(kernel: Kernel, layout: Layout, target: CpuTarget, stream: bool = False) -> Schedule:
    lanes = lanes_of(kernel, target)
    if kernel.kind == "pointwise" and not _lies_straight(kernel, layout):
        lanes = min(lanes, target.vector_bits // 32)
    short = _short(kernel, layout)
    beside = _beside(kernel, layout)
    lanes = WIDEST if beside > lanes else lanes
    records = _records(kernel, layout)
    axis = kernel.parallel[-1] if short or beside else _lane_axis(kernel, layout)
    axis, fields = records or (axis, None)
    unroll = _unroll(kernel)
    tile = lanes * BLOCKS_A_TILE if short else lanes * unroll if kernel.row else max(lanes * unroll, 1024)
    tile = lanes if kernel.scatter else tile
    pairs = dot_product(kernel, target)
    walk = Walk.along(axis, kernel.contraction, pairs, layout) if kernel.contraction else None
    rows, columns = _register_block(kernel, axis, walk, Registers(target.registers, lanes), layout)
    few = layout.is_short((*kernel.row, *kernel.parallel[-1:]))  # their vectors are whole in two forms only
    stream = stream and (bool(short or beside) if few else kernel.kind in STREAMS)
    stream = stream and not (walk and walk.overrun)  # whose vectors begin anywhere in a line
    brief = _is_brief(kernel, layout, axis, lanes)
    if brief and layout.positions(kernel.row[0]) < unroll * lanes:
        unroll = 1  # no row has a whole step
    outer = _outer(kernel, layout, axis)
    across = None if outer or fields else _across(kernel, layout, axis)
    long = bool(kernel.scans) and axis in kernel.row and layout.length(kernel.row[0]) == ENDLESS
    segment = SEGMENT * lanes if long else 0
    odd = columns == USUAL and axis in layout.sides.odd - layout.sides.wider
    return Schedule(
        axis,
        lanes,
        unroll,
        tile,
        rows,
        columns,
        stream,
        segment,
        pairs,
        brief,
        outer,
        across,
        short,
        beside,
        odd,
        fields,
    )


def _lies_straight(kernel: Kernel, layout: Layout) -> bool:
    """Whether vectors of any length run along what a kernel reads, or that is one number to them."""
    kinds = {layout.of(read.param, len(read.names) - 1) for read in reads_of(kernel) if read.names}
    narrow = any(layout.length(axis) in (NARROW, VECTOR) for axis in kernel.parallel)
    return kinds <= {UNIT, ZERO} and not narrow


def _short(kernel: Kernel, layout: Layout) -> int:
    """The positions of short rows, if what is read or written of them lies row after row."""
    if kernel.kind not in ("row", "scan") or not layout.is_short(kernel.row):
        return 0
    outer, (axis,) = kernel.parallel[-1], kernel.row
    lying = {name for name, _ in runs_on(kernel, layout, outer, axis)}
    large = [r for r in reads_of(kernel) if {outer, axis} <= set(r.names)]
    return int(layout.length(axis)) if large and all(r.param in lying for r in large) else 0


def _beside(kernel: Kernel, layout: Layout) -> int:
    """How many scanned rows lie beside each other, if they are few and nothing else is as large."""
    if kernel.kind != "scan" or not kernel.parallel or not layout.is_short(kernel.parallel[-1:]):
        return 0
    (axis,), inner = kernel.row, kernel.parallel[-1]
    lying = runs_on(kernel, layout, axis, inner)
    large = [(r.param, r.names) for r in reads_of(kernel) if {axis, inner} <= set(r.names)]
    return int(layout.length(inner)) if large and set(large) <= lying else 0


def _records(kernel: Kernel, layout: Layout) -> tuple[str, str] | None:
    """The axis of records and that of their fields, of a pointwise kernel."""
    fields = [axis for axis in kernel.parallel if layout.is_short((axis,))]
    if kernel.kind != "pointwise" or not fields:
        return None
    lying = [read.names for read in reads_of(kernel)] + [output.buffer.axes for output in kernel.outputs]
    pairs = {(axes[-2], axes[-1]) for axes in lying if len(axes) > 1 and axes[-1] == fields[0]}
    return next((pair for pair in pairs if runs_on(kernel, layout, *pair)), None)


def _is_brief(kernel: Kernel, layout: Layout, axis: str | None, lanes: int) -> bool:
    """Whether rows are finished together: those of three vectors; of seven, if no value of all is kept."""
    if kernel.kind != "row" or axis not in kernel.row:
        return False
    most = layout.positions(kernel.row[0])
    return most <= 3 * lanes or (most <= 7 * lanes and lanes >= 16 and not kept_nodes(kernel))


def _outer(kernel: Kernel, layout: Layout, lane: str | None) -> str | None:
    """The axis that goes together with a narrow lane axis, if something large lies so that vectors run on."""
    found = last_axes(kernel) if kernel.kind in ("row", "pointwise") else None
    if lane is None or layout.length(lane) not in (NARROW, VECTOR) or not found or found[1] != lane:
        return None
    outer, _ = found
    plain = not indexed_reads(kernel)
    folds = not any(r.dtype.is_bool for phase in kernel.phases for r in phase.reductions)
    lying = runs_on(kernel, layout, outer, lane)
    both = {(r.param, r.names) for r in reads_of(kernel) if {outer, lane} <= set(r.names)}
    return outer if plain and folds and lying and both <= lying else None


def _across(kernel: Kernel, layout: Layout, lane: str | None) -> str | None:
    """The axis along which most operands lie whose elements along the lane axis are apart."""
    if kernel.kind != "pointwise" or lane is None or lane not in kernel.parallel:
        return None
    found = {axis: len(lying_across(kernel, layout, axis, lane)) for axis in kernel.parallel if axis != lane}
    best = max(found, key=lambda axis: found[axis], default=None)
    return best if best and found[best] else None


def lying_across(kernel: Kernel, layout: Layout, axis: str, lane: str) -> tuple[Read, ...]:
    """The reads whose elements are consecutive along `axis` and apart along the lane axis."""

    def lies(read: Read) -> bool:
        classes = dict(zip(read.names, layout.classes.get(read.param, ""), strict=True))
        plain = len(classes) == len(read.names) and not read.dtype.is_bool
        return plain and classes.get(axis) == UNIT and classes.get(lane, ZERO) not in (UNIT, ZERO)

    return tuple(read for read in reads_of(kernel) if read.param in layout.classes and lies(read))


def runs_on(kernel: Kernel, layout: Layout, outer: str, inner: str) -> frozenset[tuple[str, tuple[str, ...]]]:
    """The operands, with the axes that they are read or written with, in which the two axes lie as one."""

    def lies(read: Read) -> bool:
        classes = dict(zip(read.names, layout.classes.get(read.param, ""), strict=True))
        plain = len(classes) == len(read.names)
        return plain and classes.get(inner) == UNIT and classes.get(outer) == CONTINUED

    reads = {(read.param, read.names) for read in reads_of(kernel) if lies(read)}
    writes = {(o.buffer.name, o.buffer.axes) for o in kernel.outputs if o.buffer.axes[-2:] == (outer, inner)}
    return frozenset(reads | writes)


def _register_block(
    kernel: Kernel, axis: str | None, walk: Walk | None, registers: Registers, layout: Layout
) -> tuple[int, int]:
    """(rows, vectors of columns), as many sums as registers hold beside columns: one vector if it has room
    for all columns, three if they suit, as many as may be beside few rows. Sums of nothing would cost as much
    as others. Beside rows that lie evenly, and of columns that are read where they lie, the call's extents
    decide.
    """
    sums = registers.sums
    if walk and (found := walk.overrun or walk.tapped or walk.even):
        return found.rows, found.vectors
    sides = (kernel.contraction.m, kernel.contraction.n) if kernel.contraction else ()
    rows = next((side[-1] for side in sides if side and axis not in side), None)
    vectors = 1 if axis in layout.sides.narrow else 2
    few = layout.sides.few.get(rows or "", 0)
    if SLIM[0] < few <= registers.most // vectors:
        return few, vectors
    if vectors == 1:
        return sums, 1
    if layout.sides.slim.get(rows or "") == SLIM[0]:
        return SLIM[0], sums // SLIM[0]
    if axis in layout.sides.wider:
        return sums // WIDER, WIDER
    return sums // USUAL, USUAL


def fits(kernel: Kernel, schedule: Schedule, layout: Layout) -> bool:
    """Whether the register block is one for the sides that are read where they lie: no higher than lines that
    rows lie along evenly, beside as many vectors at most, all alike; as wide as a part of the taps that lie
    together.
    """
    walk = Walk.of(kernel, schedule, layout) if kernel.contraction else None
    if walk is None:
        return True
    block = schedule.block_rows, schedule.block_columns
    if walk.reads_groups and (found := walk.tapped or walk.even):
        return block == (found.rows, found.vectors)
    if walk.even:
        alike = block[1] == 1 or not schedule.odd
        return alike and block[0] <= walk.even.rows and block[1] <= walk.even.vectors
    return walk.tapped is None or walk.tapped.vectors % block[1] == 0


def _unroll(kernel: Kernel) -> int:
    """Vectors a step: enough to hide the latency of a sum, few enough to stay in registers."""
    work = sum(cost(node) for node in topological(kernel.roots))
    return 4 if kernel.row or work < DEAR else 2


def lane_axes(kernel: Kernel) -> tuple[str, ...]:
    """The axes along which a kernel's vectors may run."""
    if kernel.contraction:
        grouped = groups_among(kernel.contraction)
        return (grouped[0][-1],) if grouped else (kernel.contraction.m[-1], kernel.contraction.n[-1])
    if kernel.split and kernel.split.of == "parallel":
        return kernel.row
    if kernel.order:
        return ()
    if kernel.scatter:
        moving = {axis for position in kernel.scatter.positions for axis in position.axes}
        return tuple(a for a in kernel.parallel if a not in moving)
    chunks = kernel.split.axis if kernel.split else None
    return tuple(a for a in (*kernel.parallel, *kernel.row) if a != chunks)


def panel_widths(kernel: Kernel) -> tuple[int, ...]:
    """The vectors that panels of a contraction's columns may have: of several groups, each has a panel."""
    assert kernel.contraction is not None
    return (1,) if groups_among(kernel.contraction) else (1, 2, 3)


LARGER_BY_AXIS = 16.0
OF_RESULTS = 64  # operands are transposed in registers, results are not


def _lane_axis(kernel: Kernel, layout: Layout) -> str | None:
    """The axis along which most elements lie contiguous, those of results counting twice; else the last.

    Extents are not known here, so an operand with one more axis is taken to be far larger.
    """
    if kernel.contraction:
        return _contraction_lane_axis(kernel.contraction, kernel.outputs[0].buffer.axes[-1], layout)
    candidates = lane_axes(kernel)
    candidates = tuple(a for a in candidates if layout.length(a) != ONE) or candidates
    taps = layout.windows.taps
    few = {*taps, *layout.windows.phases}
    alone = {base(axis) for axis in kernel.row} <= few  # windows, of which nothing but taps is reduced
    long = {axis for axis in kernel.row if alone and taps.get(base(axis), 0) >= LEAST[MEDIUM]}
    candidates = tuple(a for a in candidates if base(a) not in few or a in long) or candidates
    if not candidates:
        return None
    scores = dict.fromkeys(candidates, 0.0)
    for read in reads_of(kernel):
        for dimension, axis in enumerate(read.names):
            apart = elements_apart(layout.of(read.param, dimension))
            if axis in scores and apart:
                scores[axis] += _size(kernel, read.names) / apart
    for node in indexed_reads(kernel):
        for axis in walked_by_one(node, layout.is_unit):
            if axis in scores:
                scores[axis] += _size(kernel, node.arg.axes)
    weight = OF_RESULTS if kernel.kind == "pointwise" else 2
    for output in kernel.outputs:
        last = [a for a in output.buffer.axes if a not in kernel.single][-1:]
        for axis in output.places[-1].axes if output.places else last:
            if axis in scores:
                scores[axis] += weight * _size(kernel, output.buffer.axes)
    best = max(scores.values())
    return [a for a in candidates if scores[a] == best][-1]


def _size(kernel: Kernel, axes: Sequence[str]) -> float:
    """How large an operand with these axes is taken to be."""
    return LARGER_BY_AXIS ** sum(axis not in kernel.single for axis in axes)


def _contraction_lane_axis(contraction: Contraction, last: str, layout: Layout) -> str:
    """Vectors run along the last axis of the first result if a side of the product owns it, else along n; but
    along the other side if that one's rows are windows that are read where they lie. So are both sides of
    inner products, of which the skinny one has the rows: the other is read once.
    """
    sides = (contraction.left, contraction.m), (contraction.right, contraction.n)
    (other, others), (side, own) = sides if last not in contraction.m else sides[::-1]
    summed = summed_order(contraction.k, (other, side), layout)[-1]
    dtype = contraction.root.dtype
    if other in layout.sides.grouped:
        return layout.moving(own)[-1]
    if side in layout.sides.overrun or side in layout.sides.tapped:
        return layout.moving(own)[-1]
    if layout.sides.crossed:
        return others[-1]
    direct = readable(side, (summed,), dtype, layout) or step_along(side, summed, dtype, layout)
    turned = isinstance(side, At) and direct
    lane = last if last in own else own[-1]
    narrow, wide = own[-1] in layout.sides.narrow, others[-1] not in layout.sides.narrow
    if narrow and wide and Walk.along(others[-1], contraction, None, layout).inner:
        return others[-1]
    runs = (LONG, WHOLE, MEDIUM) if side in layout.sides.even else (LONG, WHOLE)
    return others[-1] if turned and layout.length(summed) in runs else lane
