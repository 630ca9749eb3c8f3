"""Columns that are the phases of a stride: each has taps of its own.

    dx[2·h + p, c] = Σ_uo k[p + 2·u, c, o] · dy[h - u, o]        p has two positions, and k three: p + 2·u < 3

Where the columns of a phase are whole vectors, a panel of them goes through the taps that it has (`live`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tilewright.compiler.targets.cpu.contractions.reading.setting import Setting
from tilewright.compiler.targets.cpu.contractions.reading.steps import slid_along
from tilewright.dsl.axes import base
from tilewright.dsl.positions import everywhere
from tilewright.dsl.program import At, Node

COUNTED = 1 << 16  # positions of an axis, at most: where there are more, few are outside


@dataclass(frozen=True)
class Phases:
    """columns: of one phase; inside: the part of all taps that phases have. All columns, and 1, of one."""

    columns: int
    inside: float = 1.0


def phases_of(node: Node, own: Sequence[str], setting: Setting) -> Phases:
    """Those of a side, if each is whole vectors."""
    moving = setting.moving(own)
    slides = slid_along(node) & {*moving} if isinstance(node, At) else set[str]()
    columns = setting.count(*(axis for axis in moving if axis not in slides))
    if not isinstance(node, At) or not slides or moving[-1] in slides or columns % setting.registers.lanes:
        return Phases(setting.count(*own))
    outside = [part_outside(node, axis, setting.extents) for axis in node.along]
    return Phases(columns, float(np.prod(np.subtract(1, outside))))


def part_outside(node: At, axis: str, extents: Mapping[str, int]) -> float:
    """The part of its positions along an axis that are outside; 0 where windows overlap."""
    position = dict(zip(node.along, node.positions, strict=True))[axis]
    places = everywhere(position, extents, COUNTED)
    if places is None or np.unique(places).size < places.size:
        return 0.0
    return float(np.mean((places < 0) | (places >= extents[base(axis)])))
