"""What can be said of a contraction's sides in a call: how long they are, and how their operands lie."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tilewright.compiler.nest import Contraction, Kernel, indexed_reads
from tilewright.compiler.targets.cpu.contractions.borders import rows_together
from tilewright.compiler.targets.cpu.toolchain import WIDEST, caches
from tilewright.dsl.affine import affine
from tilewright.dsl.axes import base
from tilewright.dsl.bounds import bounds
from tilewright.dsl.positions import everywhere
from tilewright.dsl.program import At, Node, Read

SKINNY = 16  # positions of a side
SLIM = (4, 16)  # the same: half a register block's rows; those of two register blocks
DEEP = 256  # summed positions: their lanes are added up once
DEEPEST = 1024  # the same: with more, the rows of a register block do not stay in the first cache
FEW = 128  # summed positions: what is done for each register block, and writing the results, decides
OFTEN = (1 / 32, 1 / 8)  # of the positions along an axis: from here on they are often outside, or very often
COUNTED = 1 << 16  # positions of an axis, at most: where there are more, few are outside
NEAR = 16  # elements from one summed position of a row to the next: a cache line of float32 numbers
FARTHEST = 1024  # the same beside few vectors of columns: where rows lie evenly, they fill the lines
SHORTEST = 8  # rows of a line that lie evenly: fewer are too few sums to hide the time of a multiply-add
MOST = 28  # the most rows of a register block, if they lie evenly: four of 32 registers have no sums
MOST_VECTORS = 2  # of columns beside rows that lie evenly
ONCE_A_BLOCK = 1.5  # what a register block costs beside its rows, in rows
PASSING = 32  # rows, at most, for which columns of windows are not packed
WASTED = 2.0  # columns with those between lines, to those without, at most
TO_HIDE = 8  # sums of a register block that hide the time of a multiply-add
ONCE_A_STEP = 1.0  # what a step of a register block takes beside
LEAST_RUN = 7  # summed positions of a line of taps
MOST_ROWS = 128  # beside taps that are not packed: of more, packing is the lesser cost
MOST_REGISTERS = 31  # that hold sums and columns: one is left for rows
A_LINE = 0.4  # what a cache line that is read from the second cache takes beside, in sums
HALF = 16  # of the registers: sums of blocks beside which columns and addresses wait
CROSSED = (0.45, 1.25)  # vectors along one side for one along the other, if that is read as it lies, and else
WRITTEN_OUT = 16  # summed positions of a run, at most, that are known to the code


@dataclass(frozen=True)
class Even:
    """Rows that lie evenly along lines: how many of the last axes of their side that move are a line, the
    elements from row to row, the rows of register blocks that fill a line best, whether the operand does not
    fit into the second cache, the vectors that have room for all columns, and the rows at each end of a line
    that may be outside of the operand.
    """

    axes: int
    apart: int
    rows: int
    far: bool
    vectors: int = 1
    edges: int = 0

    @property
    def text(self) -> str:
        return f"{self.axes}:{self.apart}:{self.rows}x{self.vectors}:{self.edges}" + self.far * ":far"


@dataclass(frozen=True)
class Overrun:
    """Columns that lie line by line, so that vectors may run on over the ends of lines: how many of the last
    axes of their side that move that is, the elements from line to line, the rows and vectors of register
    blocks; the nearest of the summed axes, and the elements from one of its positions to the next. ends: how
    far windows reach outside of their operand along each axis, if they do: they read a copy of an image then,
    with zeros around it.
    """

    axes: int
    pitch: int
    rows: int
    vectors: int
    along: str
    step: int
    ends: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def text(self) -> str:
        around = "".join(f":{axis}{before}+{behind}" for axis, (before, behind) in self.ends.items())
        return f"{self.axes}:{self.pitch}:{self.rows}x{self.vectors}:{self.along}:{self.step}{around}"


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


@dataclass(frozen=True)
class Sides:
    """outside: the axes along which an operand read at computed positions is left often, and how often.
    chains: the dimensions of operands and results that go on in the one behind them where that ends. steps:
    the elements from one position to the next along the summed axes of windows that never leave their
    operand, if few. even: windows of which a register block of rows lies evenly, beside as few columns as two
    vectors have. overrun: windows of which vectors of columns run on over the ends of lines, beside few rows.
    tapped: windows of which vectors of columns run along the channels.

    The last axes of sides, narrow: of those that have no more positions than the widest vector; halved: of
    those that have more, and an odd number of vectors; slim: of those that have few, and how many at most.
    skinny: whether one side has few positions, and its sums have enough. known: the extents of the summed
    axes of windows, if their positions are few, or that of the axis along which runs of an overrun go.
    crossed: whether vectors run along the side that results do not lie along. few: the number of positions of
    sides, if a register block has all of them; where windows have long sums. together: the axes that rows of
    windows have last, as they leave their operand together so.
    """

    outside: Mapping[At, Mapping[str, int]] = field(default_factory=dict)
    chains: Mapping[str, frozenset[int]] = field(default_factory=dict)
    steps: Mapping[At, Mapping[str, int]] = field(default_factory=dict)
    even: Mapping[At, Even] = field(default_factory=dict)
    overrun: Mapping[At, Overrun] = field(default_factory=dict)
    tapped: Mapping[At, Tapped] = field(default_factory=dict)
    narrow: frozenset[str] = frozenset()
    halved: frozenset[str] = frozenset()
    slim: Mapping[str, int] = field(default_factory=dict)
    skinny: bool = False
    known: Mapping[str, int] = field(default_factory=dict)
    crossed: bool = False
    few: Mapping[str, int] = field(default_factory=dict)
    together: Mapping[At, tuple[str, ...]] = field(default_factory=dict)

    def text(self) -> str:
        parts = [f"outside {found}" for found in self.outside.values() if found]
        chains = sorted((name, sorted(found)) for name, found in self.chains.items() if found)
        parts += [f"{name} goes on at {found}" for name, found in chains]
        parts += [f"steps of {steps}" for steps in self.steps.values()]
        parts += [f"even {even.text}" for even in self.even.values()]
        parts += [f"overrun {overrun.text}" for overrun in self.overrun.values()]
        parts += [f"tapped {tapped.text}" for tapped in self.tapped.values()]
        parts += [f"narrow {axis}" for axis in sorted(self.narrow)]
        parts += [f"halved {axis}" for axis in sorted(self.halved)]
        parts += [f"at most {count} {axis}" for axis, count in sorted(self.slim.items())]
        parts += [f"{count} {axis}" for axis, count in sorted(self.few.items())]
        parts += ["crossed"] * self.crossed
        parts += [f"{' '.join(axes)} last" for axes in self.together.values()]
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
    most = {axis: next((n for n in SLIM if count <= n), 0) for axis, count in counts.items()}
    within = [node for node in reads if inside[node] == frozenset(node.along)]
    even = _even(contraction, strides, extents, within)
    overrun = overruns(kernel, strides, extents)
    long = bool(reads) and _has_long_sums(contraction, extents)
    return Sides(
        {node: _outside(node, extents) for node in reads},
        {name: _chains(shapes[name], strides[name]) for name in _names(kernel)},
        {node: _steps(kernel, node, strides, FARTHEST if node in even else NEAR) for node in within},
        even,
        overrun,
        tapped_sides(kernel, strides, extents),
        frozenset(axis for axis, count in counts.items() if count <= WIDEST),
        frozenset(a for a, count in counts.items() if count > WIDEST and -(-count // WIDEST) % 2),
        {axis: count for axis, count in most.items() if count},
        _skinny(kernel, extents),
        _known(contraction, overrun, extents) if reads else {},
        long and _is_crossed(kernel, strides, extents),
        {axis: count for axis, count in counts.items() if long and count <= MOST},
        rows_together(contraction, extents),
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


def _has_long_sums(contraction: Contraction, extents: Mapping[str, int]) -> bool:
    """Whether there are more summed positions than results, as of a filter's gradient."""
    m, n, k = (_count(side, extents) for side in (contraction.m, contraction.n, contraction.k))
    return k >= max(DEEPEST, m * n)


def _is_crossed(kernel: Kernel, strides: Mapping[str, Sequence[int]], extents: Mapping[str, int]) -> bool:
    """Whether vectors run along the side that results do not lie along, if they would run along the taps of
    windows: these fill them to a part, and each is packed from many pieces.
    """
    c = kernel.contraction
    assert c is not None
    along = kernel.outputs[0].buffer.axes[-1]
    sides = list(both_sides(c))
    (node, own, others), (other, *_) = sides if along in c.m else sides[::-1]
    here, there = _count(own, extents), _count(others, extents)
    worth = CROSSED[not _lies_along(other, others[-1], strides)]
    return isinstance(node, At) and there * -(-here // WIDEST) >= worth * here * -(-there // WIDEST)


def _lies_along(node: Node, axis: str, strides: Mapping[str, Sequence[int]]) -> bool:
    """Whether an operand that is read as it is lies along an axis."""
    if not isinstance(node, Read) or axis not in node.names:
        return False
    return strides[node.param][node.names.index(axis)] == node.dtype.itemsize


def _count(axes: Sequence[str], extents: Mapping[str, int]) -> int:
    return math.prod(extents[base(axis)] for axis in axes)


def _known(
    contraction: Contraction, overrun: Mapping[At, Overrun], extents: Mapping[str, int]
) -> dict[str, int]:
    few = math.prod(extents[base(axis)] for axis in contraction.k) <= FEW
    axes = contraction.k if few else tuple(found.along for found in overrun.values())
    return {base(a): extents[base(a)] for a in axes if few or extents[base(a)] <= WRITTEN_OUT}


def slid_along(node: At) -> set[str]:
    """The axes along which what a node reads slides."""
    return {axis for position in node.positions for axis in position.axes}


def both_sides(contraction: Contraction) -> Iterator[tuple[Node, Sequence[str], Sequence[str]]]:
    """Both sides, each with its own positions and those of the other."""
    yield contraction.left, contraction.m, contraction.n
    yield contraction.right, contraction.n, contraction.m


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
    """The sides of which rows lie evenly, if the other has as few positions as two vectors."""
    found: dict[At, Even] = {}
    for node, own, others in both_sides(contraction):
        vectors = -(-math.prod(extents[base(axis)] for axis in others) // WIDEST)
        if vectors > MOST_VECTORS or not isinstance(node, At):
            continue
        if any(_apart(node, axis, strides) is None for axis in (*own, *contraction.k)):
            continue
        lines = _lines(node, own, strides, extents, vectors)
        lines = (line for line in lines if line[1].axes == 1 or node in within)
        best = min(lines, key=lambda line: line[0], default=None)
        if best is not None:
            found[node] = replace(best[1], edges=_edges(node, own, extents))
    return found


def _edges(node: At, own: Sequence[str], extents: Mapping[str, int]) -> int:
    """The rows at each end of a line that may be outside of the operand, if that is known."""
    line = next(axis for axis in reversed(own) if extents[base(axis)] > 1)
    ends = ends_of(node, extents) or {}
    found = [0]
    for axis, position in zip(node.along, node.positions, strict=True):
        pace = abs(affine(position).step(line) or 0)
        found += [-(-reach // pace) for reach in ends.get(axis, ()) if pace]
    return max(found)


def _lines(
    node: At,
    own: Sequence[str],
    strides: Mapping[str, Sequence[int]],
    extents: Mapping[str, int],
    vectors: int,
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
            cost, rows = min(
                (_cost(length, r), -r) for r in range(SHORTEST, min(length, MOST // vectors) + 1)
            )
            yield cost, Even(count, apart, -rows, far, vectors)


def _cost(length: int, rows: int) -> float:
    """What a row of a line takes with blocks of so many, in rows."""
    return -(-length // rows) * (rows + ONCE_A_BLOCK) / length


def overruns(
    kernel: Kernel, strides: Mapping[str, Sequence[int]], extents: Mapping[str, int]
) -> dict[At, Overrun]:
    """The side of which vectors of columns run on over the ends of lines, if results lie along it."""
    found: dict[At, Overrun] = {}
    if kernel.contraction is None:
        return found
    for node, own, others in both_sides(kernel.contraction):
        if isinstance(node, At) and kernel.outputs[0].buffer.axes[-1] in own:
            overrun = overrun_side(node, own, others, kernel.contraction.k, strides, extents)
            found |= {node: overrun} if overrun else {}
    return found


def overrun_side(
    node: At,
    own: Sequence[str],
    others: Sequence[str],
    summed: Sequence[str],
    strides: Mapping[str, Sequence[int]],
    extents: Mapping[str, int],
) -> Overrun | None:
    """How vectors of columns run on over the ends of lines, if rows are few and little is wasted."""
    rows = math.prod(extents[base(axis)] for axis in others)
    moving = [axis for axis in own if extents[base(axis)] > 1]
    slides = slid_along(node)
    ends = ends_of(node, extents)
    if rows > PASSING or not slides & {*moving[-1:]} or ends is None or not isinstance(node.arg, Read):
        return None
    if any(map(any, ends.values())):
        image = image_extents(node, ends, summed, extents)
        if slides & {*moving[:-2]} or not _is_one_image(node, image, strides):
            return None
        strides = {node.arg.param: image_strides(node, image)}
    else:
        ends = {}
    known = {axis: apart for axis in (*own, *summed) if (apart := _apart(node, axis, strides)) is not None}
    if len(known) < len({*own, *summed}) or known[moving[-1]] != 1:
        return None
    pitch = line = span = extents[base(moving[-1])]
    axes = 1
    if len(moving) > 1 and line <= known[moving[-2]] <= WASTED * line:
        axes, pitch = 2, known[moving[-2]]
        span += pitch * (extents[base(moving[-2])] - 1)
    lines = math.prod(extents[base(axis)] for axis in moving[-axes:])
    best = min(_blocks(rows, span, WASTED * lines), default=None)
    if best is None or (ends and axes < 2):
        return None
    along = min(summed, key=lambda axis: abs(known[axis]) if extents[base(axis)] > 1 else math.inf)
    return Overrun(axes, pitch, best[1], best[2], along, known[along], ends)


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
    steps = {axis: _apart(node, axis, strides) for axis in (*own, *summed)}
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


def ends_of(node: At, extents: Mapping[str, int]) -> dict[str, tuple[int, int]] | None:
    """How far positions reach outside of an operand along each axis; None where nothing is known."""
    found: dict[str, tuple[int, int]] = {}
    for axis, position in zip(node.along, node.positions, strict=True):
        within = bounds(position, extents)
        if within is None:
            return None
        found[axis] = max(0, -within[0]), max(0, within[1] - extents[base(axis)] + 1)
    return found


def image_extents(
    node: At, ends: Mapping[str, tuple[int, int]], summed: Sequence[str], extents: Mapping[str, int]
) -> dict[str, int]:
    """Those of what windows read for one of the other positions, with what they reach outside."""
    assert isinstance(node.arg, Read)
    axes = [axis for axis in node.arg.names if axis in node.along or axis in summed]
    return {axis: extents[base(axis)] + sum(ends.get(axis, (0, 0))) for axis in axes}


def image_strides(node: At, image: Mapping[str, int]) -> list[int]:
    """Those of the operand's dimensions in a copy of an image, in bytes; 0 of the others."""
    assert isinstance(node.arg, Read)
    steps, size = dict[str, int](), node.dtype.itemsize
    for axis, extent in reversed(list(image.items())):
        steps[axis] = size
        size *= extent
    return [steps.get(axis, 0) for axis in node.arg.names]


def _is_one_image(node: At, image: Mapping[str, int], strides: Mapping[str, Sequence[int]]) -> bool:
    """Whether an image lies line by line, and fits into half of the second cache."""
    assert isinstance(node.arg, Read)
    lying = dict(zip(node.arg.names, strides[node.arg.param], strict=True))
    last = list(image)[-1]
    small = math.prod(image.values()) * node.dtype.itemsize <= caches().l2 // 2
    return lying[last] == node.dtype.itemsize and small


def _blocks(rows: int, span: int, most: float) -> Iterator[tuple[float, int, int]]:
    """Register blocks (rows, vectors), with at most so many columns in all, and what each takes before it: an
    instruction for each sum, or else for what it reads. A vector between lines of the cache is read twice.
    """
    for vectors in range(1, HALF + 1):
        columns = -(-span // (vectors * WIDEST))
        for height in range(1, min(rows, HALF // vectors) + 1):
            if columns * vectors * WIDEST <= most:
                step = max(height * vectors, height + 2 * vectors, TO_HIDE) + ONCE_A_STEP
                yield -(-rows // height) * columns * step, height, vectors


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
