"""Rows of millions of positions are cut into chunks (`row_chunks`), which threads share, where there are one
or two of them.

The extents of a call decide, and say how many chunks there are: bits depend on neither the machine nor the
number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tilewright.compiler.chunks import chunks_axis
from tilewright.compiler.nest import Kernel, reads_of
from tilewright.compiler.row_chunks import Cut, can_be_cut, in_chunks
from tilewright.dsl.axes import base

FEWEST = 1 << 22  # positions of a row whose later phases find little of it in any cache
MOST_ROWS = 2  # more of them are work enough to share


def cut(kernel: Kernel, strides: Mapping[str, Sequence[int]], extents: Mapping[str, int]) -> Cut | None:
    """The kernel in chunks of its rows, if those are reduced, few and long, and lie along in memory."""
    if not can_be_cut(kernel) or kernel.scans or not kernel.parallel:
        return None
    rows, positions = (_count(axes, extents) for axes in (kernel.parallel, kernel.row))
    if rows > MOST_ROWS or positions < FEWEST or not _lies_along(kernel, strides, extents):
        return None
    if kernel.split and extents[kernel.split.axis] > 1:
        return None
    return in_chunks(kernel, chunks_axis(tuple(base(axis) for axis in kernel.row)), extents)


def _count(axes: Sequence[str], extents: Mapping[str, int]) -> int:
    return math.prod(extents[base(axis)] for axis in axes)


def _lies_along(kernel: Kernel, strides: Mapping[str, Sequence[int]], extents: Mapping[str, int]) -> bool:
    """Whether operands that are as long as a row are contiguous along it."""
    last = kernel.row[-1]
    long = [read for read in reads_of(kernel) if last in read.names]
    steps = [strides[read.param][read.names.index(last)] for read in long]
    return bool(long) and all(step == read.dtype.itemsize for read, step in zip(long, steps, strict=True))
