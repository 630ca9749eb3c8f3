"""What can be said of a contraction's sides in a call: how long they are, how they are read (`reading`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tilewright.compiler.nest import Contraction, Kernel, evaluated, indexed_reads
from tilewright.compiler.targets.cpu.contractions.reading.borders import rows_together
from tilewright.compiler.targets.cpu.contractions.reading.costs import FEW
from tilewright.compiler.targets.cpu.contractions.reading.even import Even, even_sides
from tilewright.compiler.targets.cpu.contractions.reading.filled import filled_sides
from tilewright.compiler.targets.cpu.contractions.reading.grouped import Grouped, grouped_sides
from tilewright.compiler.targets.cpu.contractions.reading.overrun import Overrun, overruns
from tilewright.compiler.targets.cpu.contractions.reading.phases import part_outside
from tilewright.compiler.targets.cpu.contractions.reading.setting import Setting, Strides
from tilewright.compiler.targets.cpu.contractions.reading.steps import apart, are_read_again, both_sides
from tilewright.compiler.targets.cpu.contractions.reading.tapped import Tapped, tapped_sides
from tilewright.compiler.targets.cpu.lengths import LEAST, LONG
from tilewright.compiler.targets.cpu.registers import COMMON
from tilewright.compiler.targets.cpu.toolchain import caches
from tilewright.dsl.affine import affine
from tilewright.dsl.axes import base
from tilewright.dsl.program import At, Node, Read

SKINNY = 16  # positions of a side
SLIM = (4, 16)  # the same: half a register block's rows; those of two register blocks
DEEP = 256  # summed positions: their lanes are added up once
DEEPEST = 1024  # the same: with more, the rows of a register block do not stay in the first cache
OFTEN = (1 / 32, 1 / 8)  # of the positions along an axis: from here on they are often outside, or very often
NEAR = 16  # elements from one summed position of a row to the next: a cache line of float32 numbers
FARTHEST = 1024  # the same beside few vectors of columns: where rows lie evenly, they fill the lines
CROSSED = (0.45, 1.25)  # vectors along one side for one along the other, if that is read as it lies, and else
PASSING = 3  # lines of a set of the first cache for what passes by rows
USUAL = 2  # vectors of a panel of columns
WIDER = 3  # the same, if fewer sums are empty so
WORTH = 0.98  # of the sums, at most, that is worth it
WRITTEN_OUT = 16  # summed positions of a run, at most, that are known to the code


@dataclass(frozen=True)
class Sides:
    """outside: the axes along which an operand read at computed positions is left often, and how often.
    chains: the dimensions of operands and results that go on in the one behind them where that ends. steps:
    the elements from one position to the next along the summed axes of windows that never leave their
    operand, if few. even: windows of which a register block of rows lies evenly, beside few
    columns. overrun: windows of which vectors of columns run on over the ends of lines, beside few rows.
    tapped: windows of which vectors of columns run along the channels.

    The last axes of sides, narrow: of those that have no more positions than a vector; odd: of those
    that have more, and an odd number of vectors; wider: of those that panels of three vectors suit; slim: of
    those that have few, and how many at most, unless the lines of the other side would be in each other's
    way.
    skinny: whether one side has few positions, and its sums have enough. known: the extents of the summed
    axes of windows, if their positions are few, or that of the axis along which runs of an overrun go.
    conflicting: sides whose rows would have too many lines of one set of the first cache. crossed: whether
    vectors run along the side that results do not lie along. few: the number of positions of sides, if a
    register block has all of them; where windows have long sums. together: the axes that rows of windows have
    last, as they leave their operand together so. grouped: rows of windows that are read for the filters of
    several groups at once. full: the short last axes of sides that are whole vectors all the same. mixed:
    whether positions of the batch share cache lines of a large operand of windows. foreseen: of windows that
    read what rows before have brought near, mostly.
    """

    outside: Mapping[At, Mapping[str, int]] = field(default_factory=dict)
    chains: Mapping[str, frozenset[int]] = field(default_factory=dict)
    steps: Mapping[At, Mapping[str, int]] = field(default_factory=dict)
    even: Mapping[At, Even] = field(default_factory=dict)
    overrun: Mapping[At, Overrun] = field(default_factory=dict)
    tapped: Mapping[At, Tapped] = field(default_factory=dict)
    narrow: frozenset[str] = frozenset()
    odd: frozenset[str] = frozenset()
    slim: Mapping[str, int] = field(default_factory=dict)
    skinny: bool = False
    known: Mapping[str, int] = field(default_factory=dict)
    conflicting: frozenset[str] = frozenset()
    crossed: bool = False
    few: Mapping[str, int] = field(default_factory=dict)
    together: Mapping[At, tuple[str, ...]] = field(default_factory=dict)
    grouped: Mapping[At, Grouped] = field(default_factory=dict)
    full: frozenset[str] = frozenset()
    mixed: bool = False
    wider: frozenset[str] = frozenset()
    foreseen: frozenset[str] = frozenset()

    def conflict(self, rows: Sequence[str], columns: Sequence[str]) -> bool:
        """Whether rows are better packed than read in place, beside more columns than a vector has."""
        return bool(rows) and rows[-1] in self.conflicting and columns[-1] not in self.narrow

    def text(self) -> str:
        parts = [f"outside {found}" for found in self.outside.values() if found]
        chains = sorted((name, sorted(found)) for name, found in self.chains.items() if found)
        parts += [f"{name} goes on at {found}" for name, found in chains]
        parts += [f"steps of {steps}" for steps in self.steps.values()]
        parts += [f"even {even.text}" for even in self.even.values()]
        parts += [f"overrun {overrun.text}" for overrun in self.overrun.values()]
        parts += [f"tapped {tapped.text}" for tapped in self.tapped.values()]
        parts += [f"grouped {grouped.text}" for grouped in self.grouped.values()]
        parts += [f"narrow {axis}" for axis in sorted(self.narrow)]
        parts += [f"odd {axis}" for axis in sorted(self.odd)]
        parts += [f"at most {count} {axis}" for axis, count in sorted(self.slim.items())]
        parts += [f"{count} {axis}" for axis, count in sorted(self.few.items())]
        parts += [f"full {axis}" for axis in sorted(self.full)]
        parts += [f"wider {axis}" for axis in sorted(self.wider)]
        parts += [f"rows of {axis} are foreseen" for axis in sorted(self.foreseen)]
        parts += [f"rows of {axis} conflict" for axis in sorted(self.conflicting)]
        parts += ["crossed"] * self.crossed + ["mixed"] * self.mixed
        parts += [f"{' '.join(axes)} last" for axes in self.together.values()]
        parts += [f"{axis} is {extent}" for axis, extent in sorted(self.known.items())]
        return " ".join([*parts, *["skinny"] * self.skinny])


def sides_of(
    kernel: Kernel,
    shapes: Mapping[str, Sequence[int]],
    setting: Setting,
    inside: Mapping[At, frozenset[str]],
) -> Sides:
    """Those of a kernel that is a contraction."""
    if kernel.contraction is None:
        return Sides()
    reads, contraction = indexed_reads(kernel), kernel.contraction
    strides, extents, registers = setting.strides, setting.extents, setting.registers
    sides = [side for side in (contraction.m, contraction.n) if side]
    counts = {side[-1]: setting.count(*side) for side in sides}
    most = {
        others[-1]: next((n for n in SLIM if setting.count(*others) <= n), 0)
        for node, _, others in both_sides(contraction)
        if others and not _lines_conflict(node, contraction.k, others, setting)
    }
    within = [node for node in reads if inside[node] == frozenset(node.along)]
    together = rows_together(contraction, extents)
    even = even_sides(contraction, setting, within, together) | filled_sides(contraction, setting)
    overrun = overruns(kernel, setting)
    grouped = grouped_sides(contraction, setting, within)
    long = bool(reads) and _has_long_sums(contraction, setting)
    return Sides(
        {node: _outside(node, extents) for node in reads},
        {name: _chains(shapes[name], strides[name]) for name in _names(kernel)},
        {node: _steps(kernel, node, strides, FARTHEST if node in even else NEAR) for node in within},
        even,
        overrun,
        tapped_sides(kernel, setting),
        frozenset(axis for axis, count in counts.items() if count <= registers.lanes),
        frozenset(side[-1] for side in sides if setting.vectors(*side) > 1 and setting.vectors(*side) % 2),
        {axis: count for axis, count in most.items() if count},
        _skinny(contraction, setting),
        _known(contraction, overrun, grouped, setting) if reads else {},
        frozenset(
            own[-1]
            for node, own, _ in both_sides(contraction)
            if isinstance(node, Read) and own and _conflict(node, own, setting)
        ),
        long and _is_crossed(kernel, setting),
        {axis: count for axis, count in counts.items() if long and count <= registers.most},
        together,
        grouped,
        frozenset(axis for side in sides for axis in setting.moving(side)[-1:] if _is_full(axis, setting)),
        any(_is_mixed(node, contraction.batch, setting) for node in reads),
        frozenset(
            own[-1]
            for node, own, others in both_sides(contraction)
            if own and others and _suit_three(node, own, others, setting)
        ),
        frozenset(
            own[-1]
            for node, own, _ in both_sides(contraction)
            if own and isinstance(node, At) and _are_foreseen(node, own, contraction.k, setting)
        ),
    )


def _names(kernel: Kernel) -> list[str]:
    """Those of the operands and of the results."""
    return [*(p.name for p in kernel.tiles), *(o.buffer.name for o in kernel.outputs)]


def _skinny(contraction: Contraction, setting: Setting) -> bool:
    m, n, k = _counts(contraction, setting)
    return k >= DEEP and min(m, n) <= (SKINNY if k <= DEEPEST else SLIM[0])


def _counts(contraction: Contraction, setting: Setting) -> tuple[int, int, int]:
    """The positions of both sides and of the sums."""
    return setting.count(*contraction.m), setting.count(*contraction.n), setting.count(*contraction.k)


def _conflict(node: Node, own: Sequence[str], setting: Setting) -> bool:
    """Whether the lines of a register block's rows would fill a set of the first cache, or nearly so."""
    alike = _alike(node, (setting.moving(own) or own)[-1], setting)
    return alike and setting.registers.sums // 2 > caches().l1d_ways - PASSING


def _alike(node: Node, axis: str, setting: Setting) -> bool:
    """Whether all positions along an axis are in one set of the first cache."""
    step = apart(node, axis, setting.strides)
    return bool(step) and step * node.dtype.itemsize % (caches().l1d // caches().l1d_ways) == 0


def _lines_conflict(node: Node, summed: Sequence[str], rows: Sequence[str], setting: Setting) -> bool:
    """Whether the lines of a side are in one set of the first cache, and passed by more than once."""
    moving = setting.moving(summed)
    again = setting.count(*rows) > setting.registers.sums // 2
    return again and bool(moving) and _alike(node, moving[-1], setting)


def _has_long_sums(contraction: Contraction, setting: Setting) -> bool:
    """Whether there are more summed positions than results, as of a filter's gradient."""
    m, n, k = _counts(contraction, setting)
    return k >= max(DEEPEST, m * n)


def _is_crossed(kernel: Kernel, setting: Setting) -> bool:
    """Whether vectors run along the side that results do not lie along, if they would run along the taps of
    windows: these fill them to a part, and each is packed from many pieces.
    """
    c = kernel.contraction
    assert c is not None
    along = kernel.outputs[0].buffer.axes[-1]
    sides = list(both_sides(c))
    (node, own, others), (other, *_) = sides if along in c.m else sides[::-1]
    worth = CROSSED[not _lies_along(other, others[-1], setting.strides)]
    here, there = (
        setting.count(*others) * setting.vectors(*own),
        setting.count(*own) * setting.vectors(*others),
    )
    return isinstance(node, At) and here >= worth * there


def _lies_along(node: Node, axis: str, strides: Strides) -> bool:
    """Whether an operand that is read as it is lies along an axis."""
    if not isinstance(node, Read) or axis not in node.names:
        return False
    return strides[node.param][node.names.index(axis)] == node.dtype.itemsize


def _known(
    contraction: Contraction,
    overrun: Mapping[At, Overrun],
    grouped: Mapping[At, Grouped],
    setting: Setting,
) -> dict[str, int]:
    few = setting.count(*contraction.k) <= FEW
    runs = (*(found.along for found in overrun.values()), *(found.channel for found in grouped.values()))
    axes = contraction.k if few else runs
    return {base(a): setting.extent(a) for a in axes if few or setting.extent(a) <= WRITTEN_OUT}


def _is_full(axis: str, setting: Setting) -> bool:
    """Whether a short axis is whole vectors."""
    return setting.extent(axis) < LEAST[LONG] and setting.extent(axis) % setting.registers.lanes == 0


def _suit_three(node: Node, own: Sequence[str], others: Sequence[str], setting: Setting) -> bool:
    """Whether register blocks of as many sums leave fewer of them empty if panels have three vectors, and not
    two: 64 rows are 16 times 4, and 11 times 6. Vectors end with their lines, or else with the last panel.
    """
    registers, moving = setting.registers, setting.moving(own)
    if registers.sums % WIDER:
        return False
    if any(isinstance(read, At) for read in evaluated([node])):
        whole = len(moving) < 2 or setting.extent(moving[-1]) % registers.lanes == 0
    else:
        whole = setting.vectors(*own) % WIDER == 0
    wider, usual = (
        _up(setting.count(*others), registers.sums // vectors) * _up(setting.vectors(*own), vectors)
        for vectors in (WIDER, USUAL)
    )
    return whole and wider < WORTH * usual


def _are_foreseen(node: At, own: Sequence[str], summed: Sequence[str], setting: Setting) -> bool:
    """Whether rows before have brought most of what windows read, and the rest follows upwards in memory from
    tap to tap. It does not where taps go down, as an image gradient's do. Where registers for sums are many
    steps are longer, and what is asked for in them costs less: not measured there, so nothing is foreseen.
    """
    steps = (affine(position).step(axis) for position in node.positions for axis in summed)
    upwards = all(step is not None and step >= 0 for step in steps)
    few = setting.registers.most < COMMON
    return few and upwards and are_read_again(node, (*own, *summed), setting.count)


def _up(count: int, step: int) -> int:
    return -(-count // step) * step


def _is_mixed(node: At, batch: Sequence[str], setting: Setting) -> bool:
    """Whether positions of a batch share cache lines of an operand which the second cache cannot hold."""
    size = node.dtype.itemsize
    steps = [apart(node, axis, setting.strides) or 0 for axis in setting.moving(batch)]
    near = any(0 < abs(step) * size < caches().line for step in steps)
    return near and setting.count(*node.arg.axes) * size > caches().l2


def _chains(shape: Sequence[int], strides: Sequence[int]) -> frozenset[int]:
    pairs = range(len(shape) - 1)
    return frozenset(d for d in pairs if strides[d] == strides[d + 1] * shape[d + 1])


def _steps(kernel: Kernel, node: At, strides: Strides, most: int) -> dict[str, int]:
    """The elements from one position to the next along summed axes, where they are few and always as many."""
    assert kernel.contraction is not None
    if node not in (kernel.contraction.left, kernel.contraction.right):
        return {}
    found = {axis: apart(node, axis, strides) for axis in kernel.contraction.k}
    return {axis: step for axis, step in found.items() if step is not None and 2 <= step <= most}


def _outside(node: At, extents: Mapping[str, int]) -> dict[str, int]:
    """The axes along which a good part of the positions is outside of the operand, and how good: 1 or 2.

    Those alone along which every position is another place: the taps of a stride's phases, some of which do
    not exist. Beside an image lie zeros, which take part: 0 · ∞ is NaN there.
    """
    parts = {axis: part_outside(node, axis, extents) for axis in node.along}
    found = {axis: sum(part > least for least in OFTEN) for axis, part in parts.items()}
    return {axis: often for axis, often in found.items() if often}
