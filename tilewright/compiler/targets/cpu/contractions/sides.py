"""What can be said of a contraction's sides in a call: how long they are, and how their operands lie."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tilewright.compiler.nest import Contraction, Kernel, indexed_reads
from tilewright.compiler.targets.cpu.toolchain import WIDEST, caches
from tilewright.dsl.affine import affine
from tilewright.dsl.axes import base
from tilewright.dsl.positions import everywhere
from tilewright.dsl.program import At, Read

SKINNY = 16  # positions of a side
SLIM = (4, 16)  # the same: half a register block's rows; those of two register blocks
DEEP = 256  # summed positions: their lanes are added up once
DEEPEST = 1024  # the same: with more, the rows of a register block do not stay in the first cache
FEW = 128  # summed positions: what is done for each register block, and writing the results, decides
OFTEN = (1 / 32, 1 / 8)  # of the positions along an axis: from here on they are often outside, or very often
COUNTED = 1 << 16  # positions of an axis, at most: where there are more, few are outside
NEAR = 16  # elements from one summed position of a row to the next: a cache line of float32 numbers
FARTHEST = 1024  # the same beside one vector of columns: where rows lie evenly, they fill the lines
SHORTEST = 8  # rows of a line that lie evenly: fewer are too few sums to hide the time of a multiply-add
MOST = 28  # the most rows of a register block, if they lie evenly: four of 32 registers have no sums
ONCE_A_BLOCK = 1.5  # what a register block costs beside its rows, in rows


@dataclass(frozen=True)
class Even:
    """Rows that lie evenly along lines: how many of the last axes of their side that move are a line, the
    elements from row to row, the rows of register blocks that fill a line best, and whether the operand does
    not fit into the second cache.
    """

    axes: int
    apart: int
    rows: int
    far: bool

    @property
    def text(self) -> str:
        return f"{self.axes}:{self.apart}:{self.rows}" + self.far * ":far"


@dataclass(frozen=True)
class Sides:
    """outside: the axes along which an operand read at computed positions is left often, and how often.
    chains: the dimensions of operands and results that go on in the one behind them where that ends. steps:
    the elements from one position to the next along the summed axes of windows that never leave their
    operand, if few. even: windows of which a register block of rows lies evenly, beside as few columns as one
    vector has.

    The last axes of sides, narrow: of those that have no more positions than the widest vector; halved: of
    those that have more, and an odd number of vectors; slim: of those that have few, and how many at most.
    skinny: whether one side has few positions, and its sums have enough. known: the extents of the summed
    axes of windows, if their positions are few.
    """

    outside: Mapping[At, Mapping[str, int]] = field(default_factory=dict)
    chains: Mapping[str, frozenset[int]] = field(default_factory=dict)
    steps: Mapping[At, Mapping[str, int]] = field(default_factory=dict)
    even: Mapping[At, Even] = field(default_factory=dict)
    narrow: frozenset[str] = frozenset()
    halved: frozenset[str] = frozenset()
    slim: Mapping[str, int] = field(default_factory=dict)
    skinny: bool = False
    known: Mapping[str, int] = field(default_factory=dict)

    def text(self) -> str:
        parts = [f"outside {found}" for found in self.outside.values() if found]
        chains = sorted((name, sorted(found)) for name, found in self.chains.items() if found)
        parts += [f"{name} goes on at {found}" for name, found in chains]
        parts += [f"steps of {steps}" for steps in self.steps.values()]
        parts += [f"even {even.text}" for even in self.even.values()]
        parts += [f"narrow {axis}" for axis in sorted(self.narrow)]
        parts += [f"halved {axis}" for axis in sorted(self.halved)]
        parts += [f"at most {count} {axis}" for axis, count in sorted(self.slim.items())]
        parts += [f"{axis} is {extent}" for axis, extent in sorted(self.known.items())]
        return " ".join([*parts, *["skinny"] * self.skinny])


def sides_of(
    kernel: Kernel,
    shapes: Mapping[str, Sequence[int]],
    strides: Mapping[str, Sequence[int]],
    inside: Mapping[At, frozenset[str]],
    extents: Mapping[str, int],
) -> Sides:
    """Those of a kernel that is a contraction; strides are in bytes."""
    if kernel.contraction is None:
        return Sides()
    reads, contraction = indexed_reads(kernel), kernel.contraction
    sides = [side for side in (contraction.m, contraction.n) if side]
    counts = {side[-1]: math.prod(extents[base(axis)] for axis in side) for side in sides}
    bounds = {axis: next((most for most in SLIM if count <= most), 0) for axis, count in counts.items()}
    within = [node for node in reads if inside[node] == frozenset(node.along)]
    even = _even(contraction, strides, extents, within)
    return Sides(
        {node: _outside(node, extents) for node in reads},
        {name: _chains(shapes[name], strides[name]) for name in _names(kernel)},
        {node: _steps(kernel, node, strides, FARTHEST if node in even else NEAR) for node in within},
        even,
        frozenset(axis for axis, count in counts.items() if count <= WIDEST),
        frozenset(a for a, count in counts.items() if count > WIDEST and -(-count // WIDEST) % 2),
        {axis: most for axis, most in bounds.items() if most},
        _skinny(kernel, extents),
        _known(contraction, extents) if reads else {},
    )


def _names(kernel: Kernel) -> list[str]:
    """Those of the operands and of the results."""
    return [*(p.name for p in kernel.tiles), *(o.buffer.name for o in kernel.outputs)]


def _skinny(kernel: Kernel, extents: Mapping[str, int]) -> bool:
    c = kernel.contraction
    if c is None:
        return False
    m, n, k = (math.prod(extents[base(axis)] for axis in side) for side in (c.m, c.n, c.k))
    return k >= DEEP and min(m, n) <= (SKINNY if k <= DEEPEST else SLIM[0])


def _known(contraction: Contraction, extents: Mapping[str, int]) -> dict[str, int]:
    few = math.prod(extents[base(axis)] for axis in contraction.k) <= FEW
    return {base(axis): extents[base(axis)] for axis in contraction.k} if few else {}


def _chains(shape: Sequence[int], strides: Sequence[int]) -> frozenset[int]:
    pairs = range(len(shape) - 1)
    return frozenset(d for d in pairs if strides[d] == strides[d + 1] * shape[d + 1])


def _steps(kernel: Kernel, node: At, strides: Mapping[str, Sequence[int]], most: int) -> dict[str, int]:
    """The elements from one position to the next along summed axes, where they are few and always as many."""
    assert kernel.contraction is not None
    if node not in (kernel.contraction.left, kernel.contraction.right):
        return {}
    found = {axis: _apart(node, axis, strides) for axis in kernel.contraction.k}
    return {axis: apart for axis, apart in found.items() if apart is not None and 2 <= apart <= most}


def _apart(node: At, axis: str, strides: Mapping[str, Sequence[int]]) -> int | None:
    """The elements of its operand from one position along an axis to the next, if always as many."""
    if not isinstance(node.arg, Read):
        return None
    places = {name: affine(p) for name, p in zip(node.along, node.positions, strict=True)}
    total = 0
    for name, stride in zip(node.arg.names, strides[node.arg.param], strict=True):
        step = places[name].step(axis) if name in places else int(name == axis)
        if step is None:
            return None
        total += step * stride
    return total // node.dtype.itemsize if total % node.dtype.itemsize == 0 else None


def _even(
    contraction: Contraction,
    strides: Mapping[str, Sequence[int]],
    extents: Mapping[str, int],
    within: Sequence[At],
) -> dict[At, Even]:
    """The sides of which rows lie evenly, if the other has as few positions as one vector."""
    c, found = contraction, dict[At, Even]()
    for node, own, others in ((c.left, c.m, c.n), (c.right, c.n, c.m)):
        few = math.prod(extents[base(axis)] for axis in others) <= WIDEST
        if not few or not isinstance(node, At):
            continue
        if any(_apart(node, axis, strides) is None for axis in (*own, *c.k)):
            continue
        lines = _lines(node, own, strides, extents)
        lines = (line for line in lines if line[1].axes == 1 or node in within)
        best = min(lines, key=lambda line: line[0], default=None)
        if best is not None:
            found[node] = best[1]
    return found


def _lines(
    node: At, own: Sequence[str], strides: Mapping[str, Sequence[int]], extents: Mapping[str, int]
) -> Iterator[tuple[float, Even]]:
    """The lines along which rows lie evenly, of one axis and more, and before each what a row takes."""
    moving = [axis for axis in own if extents[base(axis)] > 1]
    apart = _apart(node, moving[-1], strides) if moving else None
    far = math.prod(extents[base(axis)] for axis in node.arg.axes) * node.dtype.itemsize > caches().l2
    length = 1
    for count, axis in enumerate(reversed(moving), 1):
        if not apart or _apart(node, axis, strides) != apart * length:
            return
        length *= extents[base(axis)]
        if length >= SHORTEST:
            cost, rows = min((_cost(length, r), -r) for r in range(SHORTEST, min(length, MOST) + 1))
            yield cost, Even(count, apart, -rows, far)


def _cost(length: int, rows: int) -> float:
    """What a row of a line takes with blocks of so many, in rows."""
    return -(-length // rows) * (rows + ONCE_A_BLOCK) / length


def _outside(node: At, extents: Mapping[str, int]) -> dict[str, int]:
    """The axes along which a good part of the positions is outside of the operand, and how good: 1 or 2.

    Those alone along which every position is another place: the taps of a stride's phases, some of which do
    not exist. Beside an image lie zeros, which take part: 0 · ∞ is NaN there.
    """
    parts = {axis: _part_outside(node, axis, extents) for axis in node.along}
    found = {axis: sum(part > least for least in OFTEN) for axis, part in parts.items()}
    return {axis: often for axis, often in found.items() if often}


def _part_outside(node: At, axis: str, extents: Mapping[str, int]) -> float:
    """The part of its positions along an axis that are outside; 0 where windows overlap."""
    position = dict(zip(node.along, node.positions, strict=True))[axis]
    places = everywhere(position, extents, COUNTED)
    if places is None or np.unique(places).size < places.size:
        return 0.0
    return float(np.mean((places < 0) | (places >= extents[base(axis)])))
