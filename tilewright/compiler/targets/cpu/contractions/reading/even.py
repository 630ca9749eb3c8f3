"""Rows of windows that lie evenly along lines, beside few columns (`contractions.even`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tilewright.compiler.nest import Contraction
from tilewright.compiler.targets.cpu.contractions.reading.costs import MOST
from tilewright.compiler.targets.cpu.contractions.reading.steps import apart, both_sides, ends_of
from tilewright.compiler.targets.cpu.toolchain import WIDEST, caches
from tilewright.dsl.affine import affine
from tilewright.dsl.axes import base
from tilewright.dsl.program import At

SHORTEST = 8  # rows of a line that lie evenly: fewer are too few sums to hide the time of a multiply-add
MOST_VECTORS = 2  # of columns beside rows that lie evenly
ONCE_A_BLOCK = 1.5  # what a register block costs beside its rows, in rows


@dataclass(frozen=True)
class Even:
    """Rows that lie evenly along lines: how many of the last axes of their side that move are a line, the
    elements from row to row, the rows of register blocks that fill a line best, whether the operand does not
    fit into the second cache, the vectors that have room for all columns, and the rows at each end of a line
    that may be outside of the operand. cost: multiply-adds of a vector for each row and summed position.
    """

    axes: int
    apart: int
    rows: int
    far: bool
    vectors: int = 1
    edges: int = 0
    cost: float = field(default=0.0, compare=False)

    @property
    def text(self) -> str:
        return f"{self.axes}:{self.apart}:{self.rows}x{self.vectors}:{self.edges}" + self.far * ":far"


def even_sides(
    contraction: Contraction,
    strides: Mapping[str, Sequence[int]],
    extents: Mapping[str, int],
    within: Sequence[At],
) -> dict[At, Even]:
    """The sides of which rows lie evenly, if the other has as few positions as two vectors."""
    found: dict[At, Even] = {}
    for node, own, others in both_sides(contraction):
        if isinstance(node, At):
            even = even_side(node, own, others, contraction.k, strides, extents, node in within)
            found |= {node: even} if even else {}
    return found


def even_side(
    node: At,
    own: Sequence[str],
    others: Sequence[str],
    summed: Sequence[str],
    strides: Mapping[str, Sequence[int]],
    extents: Mapping[str, int],
    within: bool,
) -> Even | None:
    """How rows of windows lie evenly, which are all `within` their operand or not."""
    vectors = -(-math.prod(extents[base(axis)] for axis in others) // WIDEST)
    if vectors > MOST_VECTORS:
        return None
    blocks = range(SHORTEST, MOST // vectors + 1)
    return even_rows(node, own, summed, vectors, strides, extents, within, blocks)


def even_rows(
    node: At,
    own: Sequence[str],
    summed: Sequence[str],
    vectors: int,
    strides: Mapping[str, Sequence[int]],
    extents: Mapping[str, int],
    within: bool,
    blocks: range,
) -> Even | None:
    """The same beside so many vectors, with `blocks` of so many rows."""
    if any(apart(node, axis, strides) is None for axis in (*own, *summed)):
        return None
    lines = _lines(node, own, strides, extents, vectors, blocks)
    lines = [line for line in lines if line.axes == 1 or within]
    if not lines:
        return None
    return replace(min(lines, key=lambda line: line.cost), edges=_edges(node, own, extents))


def _edges(node: At, own: Sequence[str], extents: Mapping[str, int]) -> int:
    """The rows at each end of a line that may be outside of the operand, if that is known."""
    line = next(axis for axis in reversed(own) if extents[base(axis)] > 1)
    ends = ends_of(node, extents) or {}
    found = [0]
    for axis, position in zip(node.along, node.positions, strict=True):
        pace = abs(affine(position).step(line) or 0)
        found += [-(-reach // pace) for reach in ends.get(axis, ()) if pace]
    return max(found)


def _lines(
    node: At,
    own: Sequence[str],
    strides: Mapping[str, Sequence[int]],
    extents: Mapping[str, int],
    vectors: int,
    blocks: range,
) -> Iterator[Even]:
    """The lines along which rows lie evenly, of one axis and more."""
    moving = [axis for axis in own if extents[base(axis)] > 1]
    pace = apart(node, moving[-1], strides) if moving else None
    far = math.prod(extents[base(axis)] for axis in node.arg.axes) * node.dtype.itemsize > caches().l2
    length = 1
    for count, axis in enumerate(reversed(moving), 1):
        if not pace or apart(node, axis, strides) != pace * length:
            return
        length *= extents[base(axis)]
        if length in blocks or length >= blocks.stop:
            cost, rows = min((_cost(length, r), -r) for r in blocks if r <= length)
            yield Even(count, pace, -rows, far, vectors, cost=cost * vectors)


def _cost(length: int, rows: int) -> float:
    """What a row of a line takes with blocks of so many, in rows."""
    return -(-length // rows) * (rows + ONCE_A_BLOCK) / length
