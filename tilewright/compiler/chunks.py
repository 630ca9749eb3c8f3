"""Chunk axes: how many partial results a reduction in two steps has.

The number depends on the extents of the call alone, never on the number of threads or the machine, so
that the order of every sum, and with it every bit of the result, is the same wherever and however a
kernel runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tilewright.dsl.axes import base

ELEMENTS_A_CHUNK = 16384
ROWS_A_CHUNK = 4
MAX_CHUNKS = 128
MAX_ROW_CHUNKS = 64


def chunks_axis(over: tuple[str, ...]) -> str:
    """The axis of partial results of a reduction of everything along `over`."""
    return "#chunks:" + ",".join(over)


def rows_axis(over: tuple[str, ...]) -> str:
    """The axis of partial results of a reduction across the rows at `over`."""
    return "#rows:" + ",".join(over)


def is_chunk_axis(axis: str) -> bool:
    return axis.startswith("#")


def chunk_extent(
    axis: str, extents: Mapping[str, int], most: int = MAX_CHUNKS, most_rows: int = MAX_ROW_CHUNKS
) -> int:
    """The number of chunks along a chunk axis, at least 1; a wider target may want more of them."""
    kind, names = axis[1:].split(":")
    total = math.prod(extents[base(name)] for name in names.split(","))
    if kind == "rows":
        return min(most_rows, max(1, -(-total // ROWS_A_CHUNK)))
    return min(most, max(1, -(-total // ELEMENTS_A_CHUNK)))
