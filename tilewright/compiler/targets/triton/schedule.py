"""The Triton schedule: tiles, warps and loops of a kernel, chosen from extents and strides.

`Layout` is what the generated text depends on besides the kernel and the schedule: the stride classes of
operands and the width of index arithmetic. A schedule changes speed, never the meaning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tilewright.compiler.nest import Kernel, indexed_reads, reads_of
from tilewright.compiler.strides import walked_by_one
from tilewright.compiler.targets.triton.facts import Facts
from tilewright.compiler.targets.triton.sides import (
    LEAST_BYTES,
    are_bytes,
    common_type,
    multiplies_bytes,
    uses_dot,
)
from tilewright.compiler.targets.triton.toolchain import Target
from tilewright.dsl.axes import base
from tilewright.dsl.program import At, Read, Reduce
from tilewright.runtime.precision import FLOAT32, TF32, TF32X3

UNIT, ZERO, STRIDED = "1", "0", "s"
JOINED, APART = "+", "-"

LARGEST_ROW = 65536  # elements of a row, times the row values that live at once, that registers hold
LARGEST_SCAN = 16384  # the same of a row that is scanned: each element of a thread is a step of its text
LOOPED_BLOCK = 4096  # elements of a tile that walks a row
MOST_BESIDE = 128  # rows that lie side by side and are reduced together
SMALLEST_GRID = 264  # programs that fill a large GPU twice

_INPUT_PRECISIONS = {
    "cuda": {TF32X3: "tf32x3", TF32: "tf32"},
    "hip": {TF32X3: "bf16x6", TF32: "bf16x3"},
}


@dataclass(frozen=True)
class Layout:
    """Of every operand: each dimension's stride class (`1`, `0`, `s`), and which lie in memory as one (`+`).

    `wide`: addresses need 64 bits. `facts`: what the extents say about positions.
    """

    classes: tuple[tuple[str, str], ...]
    joins: tuple[tuple[str, str], ...]
    wide: bool
    facts: Facts = field(default_factory=Facts)

    def of(self, name: str, dimension: int) -> str:
        return dict(self.classes)[name][dimension]

    def is_unit(self, name: str, dimension: int) -> bool:
        return self.of(name, dimension) == UNIT

    def joined(self, name: str, dimension: int) -> bool:
        """Whether a step along `dimension` is as far as the whole of the dimension after it."""
        return dict(self.joins)[name][dimension] == JOINED


@dataclass(frozen=True)
class Schedule:
    """Tiles of `block_rows` × `block_columns` positions; groups of axes are flattened, the last the fastest.

    pointwise     rows and columns divide the parallel axes
    row           rows are the parallel axes, columns the row axes; `looped`: a row is walked in blocks
    contraction   rows are m, columns n, and `block_depth` positions of `depth` (k) are multiplied at a time;
                  `group` tiles of rows run before the next column of tiles; `parts` programs make the sum of
                  a tile; `input_precision` is Triton's word for how float32 sides are multiplied;
                  `persistent` programs take one tile after the other (0: there is one for each tile);
                  `descriptors`: tiles of operands that allow it are loaded as such, by the hardware's copies;
                  what follows the sum is computed and stored `subtiles` times, for a part of the columns;
                  `in_bytes`: operands of 8 bits are multiplied as they lie, not as float16 numbers
    scatter       rows are the places, columns the axes that places do not depend on; `block_depth` summed
                  positions of `depth` are looked at together, and added one by one if `sparse`

    `even_*`: the extent is a multiple of the block, so no mask is needed.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    block_rows: int = 1
    block_columns: int = 1
    block_depth: int = 0
    depth: tuple[str, ...] = ()
    looped: bool = False
    sparse: bool = False
    even_rows: bool = False
    even_columns: bool = False
    even_depth: bool = False
    group: int = 1
    parts: int = 1
    persistent: int = 0
    descriptors: bool = False
    in_bytes: bool = False
    subtiles: int = 1
    input_precision: str = "ieee"
    num_warps: int = 4
    num_stages: int = 2


def total(axes: Sequence[str], extents: Mapping[str, int]) -> int:
    return math.prod(extents[base(a)] for a in axes)


def ceiling(a: int, b: int) -> int:
    return -(-a // b)


def power_of_two(n: int) -> int:
    """The smallest power of two that is not below n."""
    return 1 << max(0, n - 1).bit_length()


def _even(extent: int, block: int) -> bool:
    return extent > 0 and extent % block == 0


def loop_axes(kernel: Kernel) -> tuple[str, ...]:
    """The parallel axes, and those that a result has beyond its value (it is repeated along them).

    They come in the order of the first result's dimensions, so that neighbours in memory are neighbours.
    """
    if kernel.split:
        return kernel.parallel
    written = dict.fromkeys(a for o in kernel.outputs for a in o.axes)
    return as_written(kernel, [a for a in (*kernel.parallel, *written) if a not in kernel.row])


def as_written(kernel: Kernel, axes: Sequence[str]) -> tuple[str, ...]:
    """Axes in the order of the first result's dimensions; those that it lacks come first."""
    order = kernel.outputs[0].axes
    found = dict.fromkeys(axes)
    return (*(a for a in found if a not in order), *(a for a in order if a in found))


def as_read(kernel: Kernel, layout: Layout, axes: tuple[str, ...]) -> tuple[str, ...]:
    """Axes in the order of the dimensions of the operand that has most of them, a contiguous one last."""
    most = max(reads_of(kernel), key=lambda r: len(set(axes) & set(r.names)), default=None)
    if most is None or most.param not in dict(layout.classes):
        return axes
    found = [d for d, axis in enumerate(most.names) if axis in axes and most.names.index(axis) == d]
    found.sort(key=lambda d: layout.is_unit(most.param, d))
    return (*(a for a in axes if a not in most.names), *(most.names[d] for d in found))


def default_schedule(
    kernel: Kernel, layout: Layout, extents: Mapping[str, int], target: Target, precision: str = FLOAT32
) -> Schedule:
    """A schedule from arithmetic alone; `precision` is that of float32 products."""
    schedule = _default(kernel, layout, extents, precision)
    most = target.thread_limit // target.warp_size
    schedule = replace(schedule, num_warps=min(schedule.num_warps, most))
    if not kernel.contraction:
        return schedule
    if multiplies_bytes(target, precision) and are_bytes(kernel) and schedule.block_depth >= LEAST_BYTES:
        schedule = replace(schedule, in_bytes=True)
    if precision != FLOAT32:
        schedule = replace(schedule, input_precision=_INPUT_PRECISIONS[target.backend][precision])
    return schedule


def _default(kernel: Kernel, layout: Layout, extents: Mapping[str, int], precision: str) -> Schedule:
    if kernel.contraction:
        return _contraction(kernel, layout, extents, precision)
    if kernel.scatter:
        return _scatter(kernel, layout, extents)
    if kernel.split and kernel.split.of == "row":
        return _row_chunks(kernel, layout, extents)
    if kernel.row:
        return _row(kernel, layout, extents)
    return _pointwise(kernel, layout, extents)


def _warps(elements: int, each: int = 8) -> int:
    """Warps that give a thread about `each` elements of a tile."""
    return min(32, max(1 if elements <= 256 else 4, power_of_two(ceiling(elements, 32 * each))))


def fast_axes(kernel: Kernel, layout: Layout, candidates: Sequence[str]) -> list[str]:
    """The candidates along which operands (and results, twice as much) are contiguous, the best first."""
    scores = dict.fromkeys(candidates, 0.0)
    for read in reads_of(kernel):
        if read.param not in dict(layout.classes):
            continue
        for dimension, axis in enumerate(read.names):
            if axis in scores and layout.of(read.param, dimension) == UNIT:
                scores[axis] += len(read.names)
    for node in indexed_reads(kernel):
        for axis in walked_by_one(node, layout.is_unit):
            if axis in scores:
                scores[axis] += len(node.arg.axes)
    for output in kernel.outputs:
        last = output.axes[-1:]
        if last and last[0] in scores:
            scores[last[0]] += 2 * len(output.axes)
    order = sorted(candidates, key=lambda a: (-scores[a], -list(candidates).index(a)))
    return [a for a in order if scores[a]] or order[:1]


# --- pointwise ----------------------------------------------------------------------------------------


def _pointwise(kernel: Kernel, layout: Layout, extents: Mapping[str, int]) -> Schedule:
    axes = loop_axes(kernel)
    if not axes:
        return Schedule((), (), num_warps=1)
    fast = fast_axes(kernel, layout, axes)
    columns = (fast[0],)
    others = [a for a in axes if a != fast[0]]
    if fast[0] == axes[-1]:
        while others and _joins(kernel, layout, others[-1], columns):
            columns = (others.pop(), *columns)
    second = fast[1] if len(fast) > 1 and fast[1] in others else None
    rows = tuple(a for a in others if a != second) + ((second,) if second else ())
    width, height = total(columns, extents), total(rows, extents)
    if second and extents[base(second)] > 1:
        block_columns = min(64, power_of_two(width))
        block_rows = min(64, power_of_two(height), max(1, 4096 // block_columns))
    else:
        block_columns = min(1024, power_of_two(width))
        block_rows = min(power_of_two(height), max(1, 1024 // block_columns))
    return Schedule(
        rows, columns, block_rows, block_columns,
        even_rows=_even(height, block_rows), even_columns=_even(width, block_columns),
        num_warps=_warps(block_rows * block_columns),
    )  # fmt: skip


def _joins(kernel: Kernel, layout: Layout, axis: str, columns: tuple[str, ...]) -> bool:
    """Whether all operands run along `axis` and `columns` as along one, no index telling them apart."""
    for node in kernel.nodes():
        if getattr(node, "axis", None) in (axis, *columns) and node.axes:
            return False
    known = dict(layout.classes)
    for read in reads_of(kernel):
        if read.param not in known or not {axis, columns[0]} & set(read.names):
            continue
        if not joined_run(layout, read.param, read.names, (axis, columns[0])):
            return False
    for node in indexed_reads(kernel):
        name, names = indexed_names(node)
        if {axis, columns[0]} & set(names) and not joined_run(layout, name, names, (axis, columns[0])):
            return False
    for output in kernel.outputs:
        if not joined_run(layout, output.buffer.name, output.buffer.axes, (axis, columns[0])):
            return False
    return True


def indexed_names(node: At) -> tuple[str, tuple[str, ...]]:
    """The operand of an indexed read and its dimensions' axes, nameless where a position is computed."""
    assert isinstance(node.arg, Read)
    return node.arg.param, tuple("" if axis in node.along else axis for axis in node.arg.names)


def joined_run(layout: Layout, name: str, names: Sequence[str], axes: Sequence[str]) -> bool:
    """Whether an operand with these dimensions runs along `axes`, in this order, as along a single axis."""
    if axes[0] not in names or any(list(names).count(a) != 1 for a in axes):
        return False
    first = list(names).index(axes[0])
    if tuple(names[first : first + len(axes)]) != tuple(axes):
        return False
    return all(layout.joined(name, first + step) for step in range(len(axes) - 1))


# --- rows ---------------------------------------------------------------------------------------------


def _row(kernel: Kernel, layout: Layout, extents: Mapping[str, int]) -> Schedule:
    parallel = loop_axes(kernel)
    fast = fast_axes(kernel, layout, (*parallel, *kernel.row))[0]
    width, height = total(kernel.row, extents), total(parallel, extents)
    live = _row_values(kernel)
    if fast in parallel and extents[base(fast)] > 1 and not kernel.split:
        return _columns(kernel, parallel, fast, (height, width, live), extents)
    padded = power_of_two(width)
    fits = padded * live <= (LARGEST_SCAN if kernel.scans else LARGEST_ROW)
    block_columns = padded if fits else min(LOOPED_BLOCK, padded)
    block_rows = 1
    if fits and padded < 1024:
        programs = 1 if height <= SMALLEST_GRID else height // SMALLEST_GRID
        block_rows = min(max(1, 1024 // padded), power_of_two(programs), power_of_two(height))
        block_rows = max(block_rows, min(power_of_two(height), max(1, 128 // padded)))
    if kernel.split:
        block_rows = min(block_rows, 4) if fits else 1
    return Schedule(
        parallel, kernel.row, block_rows, block_columns, looped=not fits,
        even_rows=_even(height, block_rows) and not kernel.split, even_columns=_even(width, block_columns),
        num_warps=_warps(block_rows * block_columns * (2 if live > 2 else 1)),
    )  # fmt: skip


def _columns(
    kernel: Kernel, parallel: tuple[str, ...], fast: str, sizes: tuple[int, int, int],
    extents: Mapping[str, int],
) -> Schedule:  # fmt: skip
    """Neighbouring parallel positions lie side by side: a tile of them, each reducing its own strided row."""
    height, width, live = sizes
    rows = (*(a for a in parallel if a != fast), fast)
    block_rows = min(power_of_two(height), MOST_BESIDE)
    while block_rows > 16 and ceiling(height, block_rows) < SMALLEST_GRID // 2:
        block_rows //= 2
    padded = power_of_two(width)
    fits = padded * block_rows * live <= LARGEST_ROW // 2 and padded <= 1024
    block_columns = padded if fits else min(padded, max(1, LOOPED_BLOCK // block_rows))
    return Schedule(
        rows, kernel.row, block_rows, block_columns, looped=not fits,
        even_rows=_even(height, block_rows), even_columns=_even(width, block_columns),
        num_warps=_warps(block_rows * block_columns),
    )  # fmt: skip


def _row_values(kernel: Kernel) -> int:
    """How many values of a whole row live at once, about: the operands read along it and partial results."""
    row = set(kernel.row)
    direct = {(r.param, r.names) for r in reads_of(kernel) if row & set(r.names)}
    read = direct | {node for node in indexed_reads(kernel) if row & set(node.axes)}
    partial = sum(o.accumulate is not None for o in kernel.outputs)
    return max(1, len(read) + partial)


def _row_chunks(kernel: Kernel, layout: Layout, extents: Mapping[str, int]) -> Schedule:
    assert kernel.split is not None
    rows = tuple(a for a in kernel.parallel if a != kernel.split.axis)
    beside, fast = rows_side_by_side(kernel, layout, rows, extents)
    if fast:
        rows = (*(a for a in rows if a != fast), fast)
    chunk = ceiling(total(kernel.row, extents), extents[kernel.split.axis])
    block = min(max(1, LOOPED_BLOCK // beside), max(ceiling(16, beside), power_of_two(chunk)))
    reductions = sum(isinstance(n, Reduce) for n in kernel.nodes())
    return Schedule(
        rows, kernel.row, beside, block, looped=True, even_rows=_even(total(rows, extents), beside),
        num_warps=_warps(block * beside * (2 if reductions > 2 else 1)),
    )  # fmt: skip


def _largest_block(chunk: int) -> int:
    """Positions of a chunk of one row that a program walks at a time; all others are a fraction of so many.

    The scans of several kernels begin at the same positions, whatever their blocks are.
    """
    return min(LOOPED_BLOCK, max(16, power_of_two(chunk)))


def rows_side_by_side(
    kernel: Kernel, layout: Layout, rows: Sequence[str], extents: Mapping[str, int]
) -> tuple[int, str]:
    """How many rows of chunks a program reduces together, and the axis along which they are neighbours."""
    fast = fast_axes(kernel, layout, (*rows, *kernel.row))[:1] if rows else []
    if not fast or fast[0] not in rows or extents[base(fast[0])] == 1:
        return 1, ""
    return min(MOST_BESIDE, power_of_two(total(rows, extents))), fast[0]


def chunk_length(kernel: Kernel, schedule: Schedule, extents: Mapping[str, int]) -> int:
    """Positions of one chunk of a split kernel: whole blocks, so that loads stay aligned."""
    assert kernel.split is not None
    parts = extents[kernel.split.axis]
    if kernel.contraction:
        blocks = ceiling(total(schedule.depth, extents), schedule.block_depth)
        return ceiling(blocks, parts) * schedule.block_depth
    if kernel.split.of == "row":
        each = ceiling(total(schedule.columns, extents), parts)
        block = _largest_block(each) if kernel.scans else schedule.block_columns
        return ceiling(each, block) * block
    return ceiling(ceiling(total(schedule.rows, extents), parts), schedule.block_rows) * schedule.block_rows


def rows_of_a_program(kernel: Kernel, schedule: Schedule, extents: Mapping[str, int]) -> int:
    """How many rows a program walks: those of its tile, or of its chunk of rows."""
    of_rows = kernel.split and kernel.split.of == "parallel"
    return chunk_length(kernel, schedule, extents) if of_rows else schedule.block_rows


# --- contractions -------------------------------------------------------------------------------------

LONG_SUM = 4096  # positions; a shorter one is over before a second kernel has begun
SHORTEST_PART = 1024  # positions of a sum that a program is started for
EXACT_DEPTH = 16  # of float32 products that no tensor core makes: the parts of more do not fit the registers
FEW_TILES = SMALLEST_GRID // 2  # so many leave a part of a large GPU idle


def _contraction(kernel: Kernel, layout: Layout, extents: Mapping[str, int], precision: str) -> Schedule:
    contraction = kernel.contraction
    assert contraction is not None
    m, n, k = (total(axes, extents) for axes in (contraction.m, contraction.n, contraction.k))
    half = common_type(contraction) is not None
    if not uses_dot(kernel):
        largest, depth = (32, 32), 8
    elif half:
        largest, depth = (128, 128), 64
    else:
        largest, depth = (64, 64), EXACT_DEPTH if precision == FLOAT32 else 32
    batch = total(contraction.batch, extents)
    block_m = min(largest[0], max(16, power_of_two(m)))
    block_n = min(largest[1], max(16, power_of_two(n)))
    if uses_dot(kernel):
        most = batch * _most_parts(kernel, k)
        while block_m * block_n > 64 * 64 and ceiling(m, block_m) * ceiling(n, block_n) * most < 128:
            block_m, block_n = (block_m // 2, block_n) if block_m >= block_n else (block_m, block_n // 2)
        depth = min(depth, max(16, power_of_two(k)))
    tiles = ceiling(m, block_m) * ceiling(n, block_n) * batch
    parts = max(1, min(FEW_TILES // max(1, tiles), _most_parts(kernel, k)))
    return Schedule(
        as_written(kernel, contraction.m), as_written(kernel, contraction.n), block_m, block_n, depth,
        as_read(kernel, layout, contraction.k), looped=True,
        even_rows=_even(m, block_m), even_columns=_even(n, block_n), even_depth=_even(k, depth),
        group=8, parts=parts, num_warps=8 if block_m * block_n >= 128 * 128 else 4,
        num_stages=3 if half else 2,
    )  # fmt: skip


def with_blocks(
    schedule: Schedule, extents: Mapping[str, int], rows: int, columns: int, depth: int
) -> Schedule:
    """A contraction's schedule with tiles of other sizes."""
    groups = (schedule.rows, schedule.columns, schedule.depth)
    even = [_even(total(g, extents), b) for g, b in zip(groups, (rows, columns, depth), strict=True)]
    return replace(
        schedule, block_rows=rows, block_columns=columns, block_depth=depth,
        even_rows=even[0], even_columns=even[1], even_depth=even[2],
    )  # fmt: skip


def _most_parts(kernel: Kernel, summed: int) -> int:
    """Into how many parts a sum may be cut: not at all where what follows it adds up across tiles."""
    whole = summed < LONG_SUM or any(output.accumulate for output in kernel.outputs)
    return 1 if whole else summed // SHORTEST_PART


# --- scatters -----------------------------------------------------------------------------------------

FEW_PLACES = 16  # up to so many, comparing all of them with all positions is less work than finding some
SCATTERED_TILE = 8192  # elements of a tile
MOST_SCATTERED = 1024  # positions that are looked at together


def moving_axes(kernel: Kernel) -> tuple[str, ...]:
    """The axes that are not summed and that the places of a scatter depend on."""
    assert kernel.scatter is not None
    moving = {axis for position in kernel.scatter.positions for axis in position.axes}
    return tuple(a for a in as_written(kernel, kernel.parallel) if a in moving)


def _scatter(kernel: Kernel, layout: Layout, extents: Mapping[str, int]) -> Schedule:
    scatter = kernel.scatter
    assert scatter is not None
    still = [a for a in as_written(kernel, kernel.parallel) if a not in moving_axes(kernel)]
    fast = fast_axes(kernel, layout, still)[:1]
    columns = (*(a for a in still if a not in fast), *fast)
    places, width, summed = (total(axes, extents) for axes in (scatter.along, columns, scatter.over))
    batch = total(moving_axes(kernel), extents)
    sparse = bool(columns) and places > FEW_PLACES
    widest = 1024 if sparse else 32
    block_columns = min(widest, power_of_two(width)) if columns else 1
    block_places = min(power_of_two(places), SCATTERED_TILE // block_columns if sparse else 64)
    tiles = batch * ceiling(width, block_columns)
    while block_places > 1 and tiles * ceiling(places, block_places) < SMALLEST_GRID:
        block_places //= 2
    most = MOST_SCATTERED if sparse else max(16, SCATTERED_TILE // (block_places * block_columns))
    depth = min(most, MOST_SCATTERED, max(16, power_of_two(summed)))
    return Schedule(
        scatter.along, columns, block_places, block_columns, depth, scatter.over, looped=True, sparse=sparse,
        even_rows=_even(places, block_places), even_columns=_even(width, block_columns),
        even_depth=_even(summed, depth), num_warps=4,
    )  # fmt: skip


# --- grids --------------------------------------------------------------------------------------------


def programs(kernel: Kernel, schedule: Schedule, extents: Mapping[str, int]) -> int:
    """How many programs run the kernel."""
    if kernel.split and not kernel.contraction:
        of_rows = kernel.split.of == "row"
        tiles = ceiling(total(schedule.rows, extents), schedule.block_rows) if of_rows else 1
        return extents[kernel.split.axis] * tiles
    tiles = ceiling(total(schedule.rows, extents), schedule.block_rows)
    if kernel.scatter:
        columns = ceiling(total(schedule.columns, extents), schedule.block_columns)
        return total(moving_axes(kernel), extents) * tiles * columns
    if kernel.contraction:
        tiles *= total(kernel.contraction.batch, extents) * schedule.parts
        tiles *= ceiling(total(schedule.columns, extents), schedule.block_columns)
        return min(tiles, schedule.persistent) if schedule.persistent else tiles
    if kernel.row:
        return tiles
    return tiles * ceiling(total(schedule.columns, extents), schedule.block_columns)
