"""Rows of windows beside columns that are filters of several groups (`contractions.grouped`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.compiler.nest import Contraction
from tilewright.compiler.targets.cpu.contractions.reading.even import Even, even_rows
from tilewright.compiler.targets.cpu.contractions.reading.setting import Setting
from tilewright.compiler.targets.cpu.contractions.reading.steps import apart, both_sides, groups_among
from tilewright.dsl.program import At, Read

SHORTEST = 4  # rows of a line


@dataclass(frozen=True)
class Grouped:
    """Rows that are read for filters of several groups at once: the axis of the groups, and that of a group's
    channels; the filters and the channels of each; whether vectors are full to the last; how rows lie evenly.
    """

    groups: str
    channel: str
    filters: int
    channels: int
    whole: bool
    even: Even

    @property
    def text(self) -> str:
        sizes = f"{self.filters}x{self.channels}" + self.whole * ":whole"
        return f"{self.groups}:{self.channel}:{sizes}:{self.even.text}"


def grouped_sides(contraction: Contraction, setting: Setting, within: Sequence[At]) -> dict[At, Grouped]:
    """The side that is read for several groups, of a contraction that has them among its columns."""
    found = groups_among(contraction)
    for node, own, others in both_sides(contraction) if found else ():
        columns, groups = found or ((), "")
        if isinstance(node, At) and others == columns:
            left = tuple(axis for axis in others if axis != groups)
            side = grouped_side(node, own, left, groups, contraction.k, setting, node in within)
            return {node: side} if side else {}
    return {}


def grouped_side(
    node: At,
    own: Sequence[str],
    others: Sequence[str],
    groups: str,
    summed: Sequence[str],
    setting: Setting,
    within: bool,
) -> Grouped | None:
    """How rows are read for the groups of a vector, if one has room for several, and the channels of those
    are one vector too.
    """
    moving, lanes = setting.moving(others), setting.registers.lanes
    filters = setting.extent(moving[-1]) if moving else 1
    if not 1 < filters < lanes or lanes % filters or not isinstance(node.arg, Read):
        return None
    channel = next((axis for axis in summed if apart(node, axis, setting.strides) == 1), None)
    channels = setting.extent(channel) if channel else 0
    if channel is None or not 1 < channels <= filters or apart(node, groups, setting.strides) != channels:
        return None
    columns = setting.extent(groups) * filters
    if len(moving) > 1 and columns % lanes:
        return None
    blocks = range(SHORTEST, setting.registers.most // 2 + 1)  # channels wait in registers as well
    even = even_rows(node, own, summed, 1, setting, within, blocks)
    return Grouped(groups, channel, filters, channels, columns % lanes == 0, even) if even else None
