"""What can be said of a contraction's sides in a call: how long they are, and how their operands lie."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tilewright.compiler.nest import Kernel, indexed_reads
from tilewright.compiler.targets.cpu.toolchain import WIDEST
from tilewright.dsl.affine import affine
from tilewright.dsl.axes import base
from tilewright.dsl.positions import everywhere
from tilewright.dsl.program import At, Read

SKINNY = 16  # positions of a side
SLIM = (4, 16)  # the same: half a register block's rows; those of two register blocks
DEEP = 256  # summed positions: their lanes are added up once
DEEPEST = 1024  # the same: with more, the rows of a register block do not stay in the first cache
OFTEN = (1 / 32, 1 / 8)  # of the positions along an axis: from here on they are often outside, or very often
COUNTED = 1 << 16  # positions of an axis, at most: where there are more, few are outside
NEAR = 16  # elements from one summed position of a row to the next: a cache line of float32 numbers


@dataclass(frozen=True)
class Sides:
    """outside: the axes along which an operand read at computed positions is left often, and how often.
    chains: the dimensions of operands that go on in the one behind them where that ends. steps: the elements
    from one position to the next along the summed axes of windows that never leave their operand, if few.

    The last axes of sides, narrow: of those that have no more positions than the widest vector; halved: of
    those that have more, and an odd number of vectors; slim: of those that have few, and how many at most.
    skinny: whether one side has few positions, and its sums have enough.
    """

    outside: Mapping[At, Mapping[str, int]] = field(default_factory=dict)
    chains: Mapping[str, frozenset[int]] = field(default_factory=dict)
    steps: Mapping[At, Mapping[str, int]] = field(default_factory=dict)
    narrow: frozenset[str] = frozenset()
    halved: frozenset[str] = frozenset()
    slim: Mapping[str, int] = field(default_factory=dict)
    skinny: bool = False

    def text(self) -> str:
        parts = [f"outside {found}" for found in self.outside.values() if found]
        chains = sorted((name, sorted(found)) for name, found in self.chains.items() if found)
        parts += [f"{name} goes on at {found}" for name, found in chains]
        parts += [f"steps of {steps}" for steps in self.steps.values()]
        parts += [f"narrow {axis}" for axis in sorted(self.narrow)]
        parts += [f"halved {axis}" for axis in sorted(self.halved)]
        parts += [f"at most {count} {axis}" for axis, count in sorted(self.slim.items())]
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
    return Sides(
        {node: _outside(node, extents) for node in reads},
        {p.name: _chains(shapes[p.name], strides[p.name]) for p in kernel.tiles},
        {node: _steps(kernel, node, strides) for node in reads if inside[node] == frozenset(node.along)},
        frozenset(axis for axis, count in counts.items() if count <= WIDEST),
        frozenset(a for a, count in counts.items() if count > WIDEST and -(-count // WIDEST) % 2),
        {axis: most for axis, most in bounds.items() if most},
        _skinny(kernel, extents),
    )


def _skinny(kernel: Kernel, extents: Mapping[str, int]) -> bool:
    c = kernel.contraction
    if c is None:
        return False
    m, n, k = (math.prod(extents[base(axis)] for axis in side) for side in (c.m, c.n, c.k))
    return k >= DEEP and min(m, n) <= (SKINNY if k <= DEEPEST else SLIM[0])


def _chains(shape: Sequence[int], strides: Sequence[int]) -> frozenset[int]:
    pairs = range(len(shape) - 1)
    return frozenset(d for d in pairs if strides[d] == strides[d + 1] * shape[d + 1])


def _steps(kernel: Kernel, node: At, strides: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The elements from one position to the next along summed axes, where they are few and always as many."""
    assert kernel.contraction is not None
    sides = (kernel.contraction.left, kernel.contraction.right)
    if node not in sides or not isinstance(node.arg, Read):
        return {}
    places = {axis: affine(p) for axis, p in zip(node.along, node.positions, strict=True)}
    dimensions = list(zip(node.arg.names, strides[node.arg.param], strict=True))
    found: dict[str, int] = {}
    for axis in kernel.contraction.k:
        moved = [(places[n].step(axis) if n in places else n == axis, stride) for n, stride in dimensions]
        apart = sum(step * stride for step, stride in moved if step is not None)
        known = all(step is not None for step, _ in moved)
        if known and apart in range(
            2 * node.dtype.itemsize, NEAR * node.dtype.itemsize + 1, node.dtype.itemsize
        ):
            found[axis] = apart // node.dtype.itemsize
    return found


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
