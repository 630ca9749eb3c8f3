"""Columns that are taps and channels of windows, read along the channels (`contractions.tapped`)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tilewright.compiler.nest import Contraction, Kernel
from tilewright.compiler.targets.cpu.contractions.reading.costs import FEW, MOST, ONCE_A_STEP, TO_HIDE
from tilewright.compiler.targets.cpu.contractions.reading.steps import (
    apart,
    both_sides,
    groups_among,
    slid_along,
)
from tilewright.compiler.targets.cpu.toolchain import WIDEST
from tilewright.dsl.affine import affine
from tilewright.dsl.axes import base
from tilewright.dsl.program import At, Node

LEAST_RUN = 7  # summed positions of a line of taps
MOST_ROWS = 128  # beside taps that are not packed: of more, packing is the lesser cost
MOST_PICKED = 24  # sums of a register block beside filters of several groups
MOST_REGISTERS = 31  # that hold sums and columns: one is left for rows
A_LINE = 0.4  # what a cache line that is read from the second cache takes beside, in sums


@dataclass(frozen=True)
class Beside:
    """Rows that are the filters of a group, read where they lie: the axis of the groups, the filters and the
    channels of each, the elements from one summed position of a run to the next.
    """

    groups: str
    filters: int
    channels: int
    step: int

    @property
    def text(self) -> str:
        return f"{self.groups}:{self.filters}x{self.channels}:{self.step}"


@dataclass(frozen=True)
class Tapped:
    """Columns that are taps and channels of windows, read where they lie: the summed axis that runs go along,
    the elements from one of its positions to the next, the rows and vectors of register blocks; how
    the other side is read, if columns are of several groups.
    """

    along: str
    step: int
    rows: int
    vectors: int
    beside: Beside | None = None

    @property
    def text(self) -> str:
        text = f"{self.along}:{self.step}:{self.rows}x{self.vectors}"
        return text if self.beside is None else f"{text}:{self.beside.text}"


def tapped_sides(
    kernel: Kernel, strides: Mapping[str, Sequence[int]], extents: Mapping[str, int]
) -> dict[At, Tapped]:
    """The side that is read along the channels of its taps, if results lie along those."""
    found: dict[At, Tapped] = {}
    if kernel.contraction is None:
        return found
    for node, own, others in both_sides(kernel.contraction):
        if isinstance(node, At) and kernel.outputs[0].buffer.axes[-1:] == tuple(own)[-1:]:
            tapped = tapped_side(node, own, others, kernel.contraction, strides, extents)
            found |= {node: tapped} if tapped else {}
    return found


def tapped_side(
    node: At,
    own: Sequence[str],
    others: Sequence[str],
    contraction: Contraction,
    strides: Mapping[str, Sequence[int]],
    extents: Mapping[str, int],
) -> Tapped | None:
    """How columns are read along channels, if those fill vectors and sums go a good way along a line."""
    summed, channel = contraction.k, own[-1]
    slides = slid_along(node)
    steps = {axis: apart(node, axis, strides) for axis in (*own, *summed)}
    if node.dtype != contraction.root.dtype or None in steps.values() or steps[channel] != 1:
        return None
    along = min(
        (axis for axis in summed if axis in slides and extents[base(axis)] >= LEAST_RUN),
        key=lambda axis: abs(steps[axis] or 0),
        default=None,
    )
    if along is None:
        return None
    lines = [position for position in node.positions if along in position.axes]
    pace = affine(lines[0]).step(along) or 0
    if len(lines) > 1 or pace < 1 or {*lines[0].axes} & {*summed} != {along}:
        return None
    rows = math.prod(extents[base(axis)] for axis in others)
    if rows > MOST_ROWS or math.prod(extents[base(axis)] for axis in summed) <= FEW:
        return None
    grouped = groups_among(contraction)
    lying = _together(steps, own, slides, extents)
    if lying % WIDEST or (not grouped and extents[base(channel)] % WIDEST):
        return None
    left = {axis for position in node.positions if position is not lines[0] for axis in position.axes}
    vectors = _together(steps, own, left, extents) // WIDEST
    if grouped:
        other = contraction.right if node == contraction.left else contraction.left
        beside = _beside(other, own, others, along, strides, extents)
        if beside is None or grouped != (own, beside.groups):
            return None
        width = max(n for n in range(1, MOST_PICKED // rows + 1) if lying // WIDEST % n == 0)
        return Tapped(along, steps[along] or 0, rows, width, beside)
    _, height, width = min(_panels(rows, vectors))
    return Tapped(along, steps[along] or 0, height, width)


def _together(
    steps: Mapping[str, int | None], own: Sequence[str], but: Collection[str], extents: Mapping[str, int]
) -> int:
    """The positions along the last axes of a side, up to certain ones, that lie one after the other."""
    together = 1
    for axis in reversed(own):
        if extents[base(axis)] > 1 and (axis in but or steps[axis] != together):
            break
        together *= extents[base(axis)]
    return together


def _beside(
    node: Node,
    own: Sequence[str],
    others: Sequence[str],
    along: str,
    strides: Mapping[str, Sequence[int]],
    extents: Mapping[str, int],
) -> Beside | None:
    """How the filters of several groups are read at once, if a vector has room for those of as many groups as
    have their channels in one.
    """
    filters = [axis for axis in others if extents[base(axis)] > 1]
    if len(filters) != 1 or len(own) < 2:
        return None
    groups, channel = own[-2:]
    count, channels = extents[base(filters[0])], extents[base(channel)]
    if not 1 < channels < WIDEST or WIDEST % channels or count > channels:
        return None
    steps = [apart(node, axis, strides) for axis in (*filters, groups, along)]
    if steps[:2] != [1, count] or not steps[2]:
        return None
    return Beside(groups, count, channels, steps[2])


def _panels(rows: int, vectors: int) -> Iterator[tuple[float, int, int]]:
    """Register blocks (rows, vectors), a whole number of which is so many vectors, and before each what a
    vector takes.
    """
    for width in range(1, MOST // 2):
        for height in range(1, min(rows, MOST // width) + 1):
            if vectors % width == 0 and width * height + width < MOST_REGISTERS:
                lines = width + height / WIDEST
                step = max(height * width, height + width, TO_HIDE) + ONCE_A_STEP + A_LINE * lines
                yield -(-rows // height) * step / width, height, width
