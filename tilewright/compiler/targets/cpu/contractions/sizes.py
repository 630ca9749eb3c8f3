"""How much of a contraction is worked on at a time: blocks, chunks and memory for the extents of a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from tilewright.compiler.nest import Kernel, indexed_reads
from tilewright.compiler.targets.cpu.contractions.dot_products import DEEPEST
from tilewright.compiler.targets.cpu.contractions.lines import CLOSE, SIDE_BY_SIDE
from tilewright.compiler.targets.cpu.contractions.live import ENTRY, MORE
from tilewright.compiler.targets.cpu.contractions.panels import AT_A_TIME, square_of
from tilewright.compiler.targets.cpu.contractions.reading.costs import FEW, HIDING
from tilewright.compiler.targets.cpu.contractions.reading.tapped import Tapped
from tilewright.compiler.targets.cpu.contractions.walk import Walk, positions
from tilewright.compiler.targets.cpu.layout import Layout
from tilewright.compiler.targets.cpu.schedule import Schedule
from tilewright.compiler.targets.cpu.toolchain import caches
from tilewright.dsl.program import At

UNCUT = 2304  # the most summed positions that are one block: nothing is packed twice, no sums wait
SHALLOW = 512  # the same beside few rows, or many sums: more would drive what passes by out of a cache
UNCUT_WINDOWS = 4608  # the same of windows, which are dear to pack, and filters, if not in their own order
MIDDLE = 256  # the fewest rows of a chunk, if there are that many
MOST_COLUMNS = 1024  # of a chunk beside one of several chunks of rows
RESIDENT = Fraction(3, 4)  # of the second cache: the left side that is packed at a time, and stays there
STREAMED = Fraction(1, 8)  # of the same: the right side that is packed at a time beside all of the left
AT_HAND = Fraction(1, 2)  # of the same: the right side that is packed at a time for few summed positions
WAITING = Fraction(1, 2)  # of the same: sums that wait between many blocks of summed positions
ONCE = Fraction(2, 3)  # of the first cache, for all rows at a time, so that what is packed is read once
SMALLEST = 4  # bytes of an element, at least, as it is packed
LARGEST = 1 << 14  # rows and columns of a block
SUMMED = 1024  # the same, if its sums wait between blocks of k
LINE = 64  # bytes: what lies in the workspace begins at a cache line
ADDRESS = 8  # bytes
IMAGE_MARGIN = 64  # elements around a copy of an image: a cache line, and a vector that runs on over its end
MARGIN = 4  # elements a row: its addresses need more room than a panel of very few summed positions


@dataclass(frozen=True)
class Sizes:
    """Work items; how many rows, columns and summed positions are worked on at a time; how many sums wait."""

    items: int
    block_m: int
    block_n: int
    block_k: int
    chunk_m: int
    chunk_n: int
    waiting: int

    def slots(self) -> tuple[int, ...]:
        """What a frame holds of them, in its order."""
        return self.block_m, self.block_n, self.block_k, self.chunk_m, self.chunk_n


def block_sizes(
    kernel: Kernel, schedule: Schedule, layout: Layout, extents: Mapping[str, int], threads: int
) -> Sizes:
    """The sizes for these extents; BLOCK_K, which orders the sums, knows no threads."""
    assert kernel.contraction is not None
    walk = Walk.of(kernel, schedule, layout)
    k, batch = (positions(extents, axes) for axes in (walk.summed, kernel.contraction.batch))
    width, rows = schedule.lanes * schedule.block_columns, schedule.block_rows
    m, n = walk.rows(extents, rows), walk.columns(extents, width)
    size = max(SMALLEST, kernel.contraction.root.dtype.itemsize)
    first, second = caches().l1d // size, caches().l2 // size
    uncut = UNCUT_WINDOWS if indexed_reads(kernel) else UNCUT
    uncut = uncut if schedule.dot_product is None else DEEPEST  # words may hold no larger sums
    uncut = DEEPEST if walk.inner else uncut  # the rows of a register block stay in the first cache
    few_rows = not indexed_reads(kernel) and m <= MIDDLE and k * n > second
    passes = -(-k // SHALLOW) if few_rows else 1 if k <= uncut else -(-k // DEEPEST)
    passes = -(-k // max(SIDE_BY_SIDE, CLOSE // max(1, n))) if walk.in_lines else passes
    passes = -(-k // _deepest(walk.tapped, m * n)) if walk.tapped else passes
    passes = 1 if layout.sides.known or walk.overrun else passes
    block_k = max(1, -(-k // max(1, passes)))
    block_k = _round_up(block_k, LINE) if walk.inner else block_k
    limit = LARGEST if passes == 1 and not walk.in_lines else SUMMED
    block_m = _round_up(max(1, min(m, limit)), rows)
    block_n = _round_up(max(1, min(n, limit)), width)
    if threads > 1 and batch * -(-m // block_m) * -(-n // block_n) < 2 * threads:
        if m >= n:
            block_m = _round_up(max(1, min(block_m, -(-m // threads))), rows)
        else:
            block_n = _round_up(max(1, min(block_n, -(-n // threads))), width)
    if layout.sides.mixed and m > 0:
        block_m = min(block_m, _round_up(_rows_at_hand(kernel, walk, extents, m), rows))
    passing = walk.passes(extents)
    if walk.in_lines or walk.overrun or walk.tapped:
        chunk_m, chunk_n = block_m, block_n
    elif block_k <= FEW and not passing and len(walk.right.own) == 1:
        chunk_m = min(block_m, 2 * rows)
        held = AT_HAND * second if block_m > chunk_m else ONCE * first
        chunk_n = min(block_n, _round_up(int(held) // block_k, width))
    else:
        most = block_m if passing else max(MIDDLE, int(RESIDENT * second) // block_k)
        chunk_m = min(block_m, _round_up(most, rows))
        columns = MOST_COLUMNS if chunk_m < block_m else max(1, int(STREAMED * second) // block_k)
        columns = max(columns, AT_A_TIME // size) if few_rows else columns
        chunk_n = min(block_n, _round_up(columns, width))
    if schedule.odd and not walk.in_lines:
        while 0 < n % chunk_n <= schedule.lanes and chunk_n < block_n:  # of an odd number no vector is alone
            chunk_n += width
    items = batch * -(-m // block_m) * -(-n // block_n) if m and n and batch else 0
    waiting = 0 if passes == 1 and not walk.in_lines else (block_m + rows) * block_n + width
    return Sizes(items, block_m, block_n, block_k, chunk_m, chunk_n, waiting)


def workspace_bytes(
    kernel: Kernel, schedule: Schedule, layout: Layout, extents: Mapping[str, int], sizes: Sizes
) -> int:
    """What one thread needs for its panels and sums."""
    assert kernel.contraction is not None
    walk = Walk.of(kernel, schedule, layout)
    item_bytes = max(1, kernel.contraction.root.dtype.itemsize)
    width, rows = schedule.lanes * schedule.block_columns, schedule.block_rows
    panels = sizes.block_k * sizes.chunk_n + schedule.lanes * width
    addresses = width if walk.inner else walk.runs(extents) if walk.overrun else 0
    addresses = walk.runs(extents) * walk.words_a_run if walk.tapped else addresses
    right = -(-ADDRESS * addresses // item_bytes) if addresses else 0 if walk.in_lines else panels
    right += walk.image(extents) + IMAGE_MARGIN * bool(walk.overrun)
    row_bytes = ADDRESS * walk.runs(extents) if walk.direct else (sizes.block_k + MARGIN) * item_bytes
    noted = 8 * sizes.chunk_m * len(walk.left.own)
    if walk.even:
        row_bytes, noted = 0, ADDRESS * walk.runs(extents) * len(walk.summed)
    zeros = walk.span(extents) + 8 + schedule.lanes if walk.direct else 0
    elements = zeros + right + square_of(rows) ** 2 + sizes.waiting
    panels = sizes.chunk_m // rows + sizes.chunk_n // width + 1 if walk.sparse else 0
    noted += panels * (walk.runs(extents) + MORE) * ENTRY
    return _round_up(noted + row_bytes * sizes.chunk_m + elements * item_bytes + 4096, LINE)


def _rows_at_hand(kernel: Kernel, walk: Walk, extents: Mapping[str, int], m: int) -> int:
    """So many rows that the second cache holds what all positions of a batch read and write for them."""
    rows = walk.left.node.arg if isinstance(walk.left.node, At) else walk.left.node
    touched = [(rows.axes, rows.dtype), *((o.buffer.axes, o.buffer.dtype) for o in kernel.outputs)]
    total = sum(positions(extents, axes) * dtype.itemsize for axes, dtype in touched)
    return max(FEW, m * caches().l2 // max(1, total))


def _deepest(tapped: Tapped, sums: int) -> int:
    """The summed positions of a block for columns that are read where they lie. What register blocks of few
    sums read of them should stay in the first cache for the next rows, and all sums in the second.
    """
    if tapped.rows * tapped.vectors >= HIDING:
        return DEEPEST
    if SMALLEST * sums > WAITING * caches().l2:
        return SHALLOW
    return min(DEEPEST, max(FEW, caches().l1d // (SMALLEST * max(1, abs(tapped.step)))))


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
