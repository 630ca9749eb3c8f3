"""Columns that are taps and channels of windows, read along the channels (`contractions.tapped`)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tilewright.compiler.nest import Contraction, Kernel
from tilewright.compiler.targets.cpu.contractions.reading.costs import FEW, HIDING, ONCE_A_STEP, TO_HIDE
from tilewright.compiler.targets.cpu.contractions.reading.setting import Setting
from tilewright.compiler.targets.cpu.contractions.reading.steps import (
    apart,
    both_sides,
    groups_among,
    slid_along,
)
from tilewright.compiler.targets.cpu.registers import Registers
from tilewright.compiler.targets.cpu.toolchain import caches
from tilewright.dsl.affine import affine
from tilewright.dsl.program import At, Node

LEAST_RUN = 7  # summed positions of a line of taps
MOST_PASSES = 12  # times that columns which are not packed are read: of more, packing is the lesser cost
NEAR_PASSES = 16  # the same, if what a few positions read stays in the first cache
FOR_PICKED = 4  # registers more that have no sums, beside filters of several groups
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


def tapped_sides(kernel: Kernel, setting: Setting) -> dict[At, Tapped]:
    """The side that is read along the channels of its taps, if results lie along those."""
    found: dict[At, Tapped] = {}
    if kernel.contraction is None:
        return found
    for node, own, others in both_sides(kernel.contraction):
        if isinstance(node, At) and kernel.outputs[0].buffer.axes[-1:] == tuple(own)[-1:]:
            tapped = tapped_side(node, own, others, kernel.contraction, setting)
            found |= {node: tapped} if tapped else {}
    return found


def tapped_side(
    node: At,
    own: Sequence[str],
    others: Sequence[str],
    contraction: Contraction,
    setting: Setting,
    copied: bool = False,
) -> Tapped | None:
    """How columns are read along channels, if those fill vectors and sums go a good way along a line; a copy
    of them only if that pays, too.
    """
    summed, channel, registers = contraction.k, own[-1], setting.registers
    slides = slid_along(node)
    steps = {axis: apart(node, axis, setting.strides) for axis in (*own, *summed)}
    if node.dtype != contraction.root.dtype or None in steps.values() or steps[channel] != 1:
        return None
    along = min(
        (axis for axis in summed if axis in slides and setting.extent(axis) >= LEAST_RUN),
        key=lambda axis: abs(steps[axis] or 0),
        default=None,
    )
    if along is None:
        return None
    lines = [position for position in node.positions if along in position.axes]
    pace = affine(lines[0]).step(along) or 0
    if len(lines) > 1 or pace < 1 or {*lines[0].axes} & {*summed} != {along}:
        return None
    rows = setting.count(*others)
    if setting.count(*summed) <= FEW:
        return None
    grouped = groups_among(contraction)
    lying = _together(steps, own, slides, setting)
    if lying % registers.lanes or (not grouped and setting.extent(channel) % registers.lanes):
        return None
    left = {axis for position in node.positions if position is not lines[0] for axis in position.axes}
    vectors = _together(steps, own, left, setting) // registers.lanes
    if grouped:
        beside = _beside(contraction.beside(node), own, others, along, setting)
        if beside is None or grouped != (own, beside.groups):
            return None
        most = max(1, (registers.most - FOR_PICKED) // rows)
        width = max(n for n in range(1, most + 1) if lying // registers.lanes % n == 0)
        return Tapped(along, steps[along] or 0, rows, width, beside)
    _, height, width = min(_panels(rows, vectors, registers))
    step = steps[along] or 0
    fresh = min(1, abs(step) / (width * registers.lanes))  # of a panel, what the position before did not read
    near = height * width < HIDING and FEW * abs(step) * node.dtype.itemsize <= caches().l1d
    if -(-rows // height) * fresh > (NEAR_PASSES if near and not copied else MOST_PASSES):
        return None
    return Tapped(along, step, height, width)


def _together(
    steps: Mapping[str, int | None], own: Sequence[str], but: Collection[str], setting: Setting
) -> int:
    """The positions along the last axes of a side, up to certain ones, that lie one after the other."""
    together = 1
    for axis in reversed(own):
        if setting.extent(axis) > 1 and (axis in but or steps[axis] != together):
            break
        together *= setting.extent(axis)
    return together


def _beside(
    node: Node,
    own: Sequence[str],
    others: Sequence[str],
    along: str,
    setting: Setting,
) -> Beside | None:
    """How the filters of several groups are read at once, if a vector has room for those of as many groups as
    have their channels in one.
    """
    filters, lanes = setting.moving(others), setting.registers.lanes
    if len(filters) != 1 or len(own) < 2:
        return None
    groups, channel = own[-2:]
    count, channels = setting.extent(filters[0]), setting.extent(channel)
    if not 1 < channels < lanes or lanes % channels or count > channels:
        return None
    steps = [apart(node, axis, setting.strides) for axis in (*filters, groups, along)]
    if steps[:2] != [1, count] or not steps[2]:
        return None
    return Beside(groups, count, channels, steps[2])


def _panels(rows: int, vectors: int, registers: Registers) -> Iterator[tuple[float, int, int]]:
    """Register blocks (rows, vectors), a whole number of which is so many vectors, and before each what a
    vector takes.
    """
    for width in range(1, registers.most // 2):
        for height in range(1, min(rows, registers.most // width) + 1):
            if vectors % width == 0 and registers.hold(height, width):
                lines = width + height / registers.lanes
                step = max(height * width, height + width, TO_HIDE) + ONCE_A_STEP + A_LINE * lines
                yield -(-rows // height) * step / width, height, width
