"""Columns that are taps and channels of windows, read along the channels (`contractions.tapped`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tilewright.compiler.nest import Contraction, Kernel
from tilewright.compiler.targets.cpu.contractions.reading.costs import FEW, MOST, ONCE_A_STEP, TO_HIDE
from tilewright.compiler.targets.cpu.contractions.reading.steps import apart, both_sides, slid_along
from tilewright.compiler.targets.cpu.toolchain import WIDEST
from tilewright.dsl.affine import affine
from tilewright.dsl.axes import base
from tilewright.dsl.program import At

LEAST_RUN = 7  # summed positions of a line of taps
MOST_ROWS = 128  # beside taps that are not packed: of more, packing is the lesser cost
MOST_REGISTERS = 31  # that hold sums and columns: one is left for rows
A_LINE = 0.4  # what a cache line that is read from the second cache takes beside, in sums


@dataclass(frozen=True)
class Tapped:
    """Columns that are taps and channels of windows, read where they lie: the summed axis that runs go along,
    the elements from one of its positions to the next, the rows and vectors of register blocks.
    """

    along: str
    step: int
    rows: int
    vectors: int

    @property
    def text(self) -> str:
        return f"{self.along}:{self.step}:{self.rows}x{self.vectors}"


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
    if along is None or channel in slides or extents[base(channel)] % WIDEST:
        return None
    lines = [position for position in node.positions if along in position.axes]
    pace = affine(lines[0]).step(along) or 0
    if len(lines) > 1 or pace < 1 or {*lines[0].axes} & {*summed} != {along}:
        return None
    rows = math.prod(extents[base(axis)] for axis in others)
    if rows > MOST_ROWS or math.prod(extents[base(axis)] for axis in summed) <= FEW:
        return None
    left = {axis for position in node.positions if position is not lines[0] for axis in position.axes}
    together = 1
    for axis in reversed(own):
        if extents[base(axis)] > 1 and (axis in left or steps[axis] != together):
            break
        together *= extents[base(axis)]
    _, height, vectors = min(_panels(rows, together // WIDEST))
    return Tapped(along, steps[along] or 0, height, vectors)


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
