"""Rows of windows that lie evenly along lines, beside few columns (`contractions.even`)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from tilewright.compiler.nest import Contraction
from tilewright.compiler.targets.cpu.contractions.reading.costs import TO_HIDE
from tilewright.compiler.targets.cpu.contractions.reading.phases import Phases, phases_of
from tilewright.compiler.targets.cpu.contractions.reading.setting import Setting
from tilewright.compiler.targets.cpu.contractions.reading.steps import apart, both_sides, ends_of
from tilewright.compiler.targets.cpu.toolchain import caches
from tilewright.dsl.affine import affine
from tilewright.dsl.program import At

SHORTEST = 8  # rows of a line that lie evenly: fewer are too few sums to hide the time of a multiply-add
LOWER = 2  # rows by which blocks may be lower than registers allow, where these allow no more
MOST_COLUMNS = 32  # of a phase, beside rows that lie evenly
MOST_VECTORS = 3  # of a panel of them
FEW_VECTORS = 2  # of all columns beside rows that leave their operand together
ONCE_A_BLOCK = 1.5  # what a register block costs beside its rows, in rows


@dataclass(frozen=True)
class Even:
    """Rows that lie evenly along lines: how many of the last axes of their side that move are a line, the
    elements from row to row, the rows of register blocks that fill a line best, whether the operand does not
    fit into the second cache, the vectors of a panel of columns, and the rows at each end of a line that may
    be outside of the operand. filled: whether rows are outside in the middle of runs (`filled`). cost:
    multiply-adds of a vector for each row and summed position.
    """

    axes: int
    apart: int
    rows: int
    far: bool
    vectors: int = 1
    edges: int = 0
    filled: bool = False
    cost: float = field(default=0.0, compare=False)

    @property
    def text(self) -> str:
        block = f"{self.axes}:{self.apart}:{self.rows}x{self.vectors}:{self.edges}"
        return block + self.filled * ":filled" + self.far * ":far"


def even_sides(
    contraction: Contraction, setting: Setting, within: Collection[At], together: Collection[At]
) -> dict[At, Even]:
    """The sides of which rows lie evenly, if the other has few positions. Rows that leave their operand
    `together` pass by one panel, or come so.
    """
    found: dict[At, Even] = {}
    for node, own, others in both_sides(contraction):
        phases = phases_of(contraction.beside(node), others, setting)
        if isinstance(node, At) and (
            node not in together or phases.columns <= FEW_VECTORS * setting.registers.lanes
        ):
            even = even_side(node, own, others, phases, contraction.k, setting, node in within)
            found |= {node: even} if even else {}
    return found


def even_side(
    node: At,
    own: Sequence[str],
    others: Sequence[str],
    phases: Phases,
    summed: Sequence[str],
    setting: Setting,
    within: bool,
) -> Even | None:
    """How rows of windows lie evenly, all `within` their operand or not, beside columns of phases."""
    if phases.columns > MOST_COLUMNS:
        return None
    lanes = setting.registers.lanes
    vectors = -(-phases.columns // lanes)
    panel = max(n for n in range(1, MOST_VECTORS + 1) if vectors % n == 0)
    most = setting.registers.rows_beside(panel)
    least = max(most - LOWER, -(-TO_HIDE // panel))
    blocks = range(min(SHORTEST, least), most + 1)
    found = even_rows(node, own, summed, panel, setting, within, blocks)
    panels = setting.vectors(*others) // panel
    return replace(found, cost=found.cost * panels * phases.inside) if found else None


def even_rows(
    node: At,
    own: Sequence[str],
    summed: Sequence[str],
    vectors: int,
    setting: Setting,
    within: bool,
    blocks: range,
) -> Even | None:
    """The same beside so many vectors, with `blocks` of so many rows."""
    if any(apart(node, axis, setting.strides) is None for axis in (*own, *summed)):
        return None
    lines = _lines(node, own, setting, vectors, blocks)
    lines = [line for line in lines if line.axes == 1 or within]
    if not lines:
        return None
    return replace(min(lines, key=lambda line: line.cost), edges=_edges(node, own, setting))


def _edges(node: At, own: Sequence[str], setting: Setting) -> int:
    """The rows at each end of a line that may be outside of the operand, if that is known."""
    line = setting.moving(own)[-1]
    ends = ends_of(node, setting.extents) or {}
    found = [0]
    for axis, position in zip(node.along, node.positions, strict=True):
        pace = abs(affine(position).step(line) or 0)
        found += [-(-reach // pace) for reach in ends.get(axis, ()) if pace]
    return max(found)


def _lines(
    node: At,
    own: Sequence[str],
    setting: Setting,
    vectors: int,
    blocks: range,
) -> Iterator[Even]:
    """The lines along which rows lie evenly, of one axis and more."""
    moving = setting.moving(own)
    pace = apart(node, moving[-1], setting.strides) if moving else None
    far = setting.count(*node.arg.axes) * node.dtype.itemsize > caches().l2
    length = 1
    for count, axis in enumerate(reversed(moving), 1):
        if not pace or apart(node, axis, setting.strides) != pace * length:
            return
        length *= setting.extent(axis)
        if length in blocks or length >= blocks.stop:
            cost, rows = min((_cost(length, r), -r) for r in blocks if r <= length)
            yield Even(count, pace, -rows, far, vectors, cost=cost * vectors)


def _cost(length: int, rows: int) -> float:
    """What a row of a line takes with blocks of so many, in rows."""
    return -(-length // rows) * (rows + ONCE_A_BLOCK) / length
