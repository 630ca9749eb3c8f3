"""Rows of windows that leave their operand in the middle of a run (`contractions.filled`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tilewright.compiler.nest import Contraction
from tilewright.compiler.targets.cpu.contractions.reading.costs import FEW
from tilewright.compiler.targets.cpu.contractions.reading.even import Even, even_side
from tilewright.compiler.targets.cpu.contractions.reading.phases import phases_of
from tilewright.compiler.targets.cpu.contractions.reading.setting import Setting
from tilewright.compiler.targets.cpu.contractions.reading.steps import both_sides, ends_of
from tilewright.compiler.targets.cpu.lengths import LEAST, MEDIUM
from tilewright.dsl.affine import affine
from tilewright.dsl.axes import base
from tilewright.dsl.program import At, Read

WORTH = 1 / 2  # elements that register blocks at the ends of lines copy, at most, for one of the operand


def filled_sides(contraction: Contraction, setting: Setting) -> dict[At, Even]:
    """The sides of which that is so."""
    found: dict[At, Even] = {}
    for node, own, others in both_sides(contraction):
        if isinstance(node, At):
            even = filled_side(node, own, others, contraction, setting)
            found |= {node: even} if even else {}
    return found


def filled_side(
    node: At, own: Sequence[str], others: Sequence[str], contraction: Contraction, setting: Setting
) -> Even | None:
    """How the rows of a side lie that is outside in the middle of runs, if they lie evenly beside few columns
    and most register blocks are inside.
    """
    extents, moving = setting.extents, setting.moving(own)
    if setting.count(*contraction.k) > FEW or not moving or not isinstance(node.arg, Read):
        return None
    steps = setting.strides[node.arg.param]
    if not is_of_whole_lines(node, steps, extents) or not taps_go_on(node, contraction.k, extents):
        return None
    ends = ends_of(node, extents)
    if ends is None or not any(map(any, ends.values())) or not _moves_along_the_line(node, moving[-1]):
        return None
    phases = phases_of(contraction.beside(node), others, setting)
    even = even_side(node, own, others, phases, contraction.k, setting, within=False)
    if even is None or even.apart <= 0:
        return None
    *_, line, channel = node.arg.names
    taps = {axis for axis in contraction.k if _slides_by_one(node, axis, line)}
    stretch = (even.rows - 1) * even.apart + setting.count(*taps, channel)
    panels = setting.vectors(*others) // even.vectors
    lines = setting.count(*moving[:-1], *({*contraction.k} - {*taps, channel}))
    copied = sum(map(bool, ends[line])) * lines * panels * stretch
    return replace(even, filled=True) if copied <= WORTH * setting.count(*node.arg.axes) else None


def is_of_whole_lines(node: At, steps: Sequence[int], extents: Mapping[str, int]) -> bool:
    """Whether an operand lies contiguous along its last axis, and line by line: windows slide along the axis
    before.
    """
    assert isinstance(node.arg, Read)
    names, size = node.arg.names, node.dtype.itemsize
    if len(names) < 2 or names[-1] in node.along or names[-2] not in node.along:
        return False
    return steps[-1] == size and steps[-2] == size * extents[base(names[-1])]


def taps_go_on(node: At, summed: Sequence[str], extents: Mapping[str, int]) -> bool:
    """Whether channels are summed, and taps go on where those of the one before end."""
    assert isinstance(node.arg, Read)
    line, channel = node.arg.names[-2:]
    few = channel in summed and extents[base(channel)] < LEAST[MEDIUM]
    return few and any(_slides_by_one(node, tap, line) for tap in summed)


def _slides_by_one(node: At, axis: str, line: str) -> bool:
    """Whether a step along an axis moves by one position of the line, and nothing else."""
    moved = {name: p for name, p in zip(node.along, node.positions, strict=True) if axis in p.axes}
    return [*moved] == [line] and affine(moved[line]).step(axis) == 1


def _moves_along_the_line(node: At, axis: str) -> bool:
    """Whether rows next to each other along an axis differ by their position along the line alone."""
    assert isinstance(node.arg, Read)
    moved = [name for name, p in zip(node.along, node.positions, strict=True) if axis in p.axes]
    return moved == [node.arg.names[-2]] and axis not in {*node.arg.names} - {*node.along}
