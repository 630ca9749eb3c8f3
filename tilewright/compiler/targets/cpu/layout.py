"""What a kernel is specialised by: how its operands lie in memory, and what can be said of its extents.

Extents themselves stay symbolic: a kernel serves all calls of one layout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tilewright.compiler.nest import Kernel, Output, indexed_reads
from tilewright.compiler.slender import as_row
from tilewright.dsl.affine import affine
from tilewright.dsl.axes import base
from tilewright.dsl.bounds import bounds, stays_inside
from tilewright.dsl.dtypes import DType
from tilewright.dsl.positions import everywhere
from tilewright.dsl.program import At, Index, Read, Size, topological

UNIT, ZERO, STRIDED, CONTINUED = "1", "0", "s", "c"

ONE, TINY, SHORT, MEDIUM, LONG, WHOLE, ENDLESS = "1", "t", "s", "m", "l", "w", "e"
NARROW, VECTOR = "n", "v"
LEAST = {TINY: 2, SHORT: 5, MEDIUM: 8, LONG: 15}  # the fewest elements of each class of extents
FEWEST = 16384  # positions of a scanned row from which on it is endless: walked in parts
SHORTEST, LONGEST = 2, 12  # positions of a short row, whose length is known to its kernel
FEWEST_SHORT = 64  # short rows side by side
BRIEF = {"b": 24, "c": 48, "d": 112}  # classes of reduced rows whose end costs as much as the rest: positions
MANY = 1 << 62
MOST_NARROW = 64  # elements of a last axis that is narrow: lanes run on over its ends
MOST_COLUMNS = 48  # that are reduced so
FEWEST_NARROW = 128  # positions of the axis outside of it
SKINNY = 16  # positions of a side
SLIM = (4, 16)  # the same: half a register block's rows; those of two register blocks
DEEP = 256  # summed positions: their lanes are added up once
DEEPEST = 1024  # the same: with more, the rows of a register block do not stay in the first cache
WIDEST_GAP = 8  # elements from lane to lane: so many vectors are read and their lanes picked, else a gather
OFTEN = (1 / 32, 1 / 8)  # of the positions along an axis: from here on they are often outside, or very often
COUNTED = 1 << 16  # positions of an axis, at most: where there are more, few are outside
MOST_TAPS = 11  # along an axis
MOST_SUMS = 27  # that are carried together, one for each tap
WRITTEN_OUT = 64  # taps of windows that are worked on together
LONGEST_STRIP = 7  # windows, if there are no others
STRIPS = (4, 3)  # windows, else
FEWEST_TOGETHER = 4  # windows of a strip: where there are more taps, those that they do not share are a loop
SMALL = 32  # positions of an axis: code is for images of this very size
MOST_PHASES = 4  # along an axis
WIDEST = 16  # no vector is a fraction of more than this many elements
NEAR = 16  # elements from one summed position of a row to the next: a cache line of float32 numbers


@dataclass(frozen=True)
class Layout:
    """classes: the stride of every dimension of every operand that is read: `1` element, `0`, or else `s`; up
    to `8` of a pointwise or row kernel's operand that has no dimension of single elements (every other
    column, a field of records); `c` where a last axis is narrow and this dimension steps from one end of its
    elements to the next.

    lengths: how long the axes of a contraction are, roughly: one element, tiny (2 to 4), short (5 to 7),
    medium (8 to 14), long, or whole vectors; that of a scan, if it is endless; that of a reduced row, if
    it is brief and there are many; the number of positions of a short row, reduced or scanned, and of few
    scanned rows; that of a narrow last axis, shorter than a vector or not; and axes outside of a row that
    have one position. inside: the axes along which an operand read at computed positions is never left.
    outside: those along which it is left often, if a contraction reads it. chains: the dimensions of a
    contraction's operands that go on in the one behind them where that ends. narrow: the last axes of
    those sides of a contraction that have no more positions than the widest vector; halved: of those that
    have more, and an odd number of vectors; slim: of those that have few, and how many at most. skinny:
    whether a contraction's one side has few positions, and its sums have enough. steps: the elements from
    one position to the next along the summed axes of a contraction's windows that never leave their operand,
    if they are few. taps: the extents of a window's axes. strips: how many positions of the axes that windows
    slide along are worked on together. phases: the extents of the axes of phases along which a window's
    results take their places. known: all extents that a kernel of windows is for. within: the axes along
    which a result's places are all inside.
    """

    classes: Mapping[str, str]
    lengths: Mapping[str, str] = field(default_factory=dict)
    inside: Mapping[At, frozenset[str]] = field(default_factory=dict)
    outside: Mapping[At, Mapping[str, int]] = field(default_factory=dict)
    chains: Mapping[str, frozenset[int]] = field(default_factory=dict)
    narrow: frozenset[str] = frozenset()
    halved: frozenset[str] = frozenset()
    slim: Mapping[str, int] = field(default_factory=dict)
    skinny: bool = False
    steps: Mapping[At, Mapping[str, int]] = field(default_factory=dict)
    taps: Mapping[str, int] = field(default_factory=dict)
    strips: Mapping[str, int] = field(default_factory=dict)
    phases: Mapping[str, int] = field(default_factory=dict)
    known: Mapping[str, int] = field(default_factory=dict)
    within: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def of(self, name: str, dimension: int) -> str:
        return self.classes[name][dimension]

    def is_unit(self, name: str, dimension: int) -> bool:
        return self.of(name, dimension) == UNIT

    def goes_on(self, name: str, outer: int, inner: int) -> bool:
        """Whether the position after the last along `inner` is the next one along `outer`."""
        return inner == outer + 1 and outer in self.chains.get(name, ())

    def length(self, axis: str) -> str:
        return self.lengths.get(base(axis), LONG)

    def is_short(self, axes: Sequence[str]) -> bool:
        """Whether these are rows with a known number of positions."""
        return any(self.length(axis).isdigit() and self.length(axis) != ONE for axis in axes)

    def positions(self, axis: str) -> int:
        """The most positions that a reduced row can have: those that it has, if it is short."""
        length = self.length(axis)
        return int(length) if self.is_short((axis,)) else BRIEF.get(length, MANY)

    def stretches(self, axis: str, lanes: int) -> int:
        """The most pieces into which the ends of `axis` can cut a vector that runs on through them."""
        length = self.length(axis)
        if length == WHOLE:
            return 1
        return 1 + -(-(lanes - 1) // LEAST.get(length, 1))

    def text(self) -> str:
        parts = [f"{name}:{text}" for name, text in sorted(self.classes.items())]
        parts += [f"{axis}={length}" for axis, length in sorted(self.lengths.items())]
        parts += [f"inside {','.join(sorted(axes))}" for axes in self.inside.values()]
        parts += [f"outside {found}" for found in self.outside.values() if found]
        parts += [
            f"{name} goes on at {sorted(found)}" for name, found in sorted(self.chains.items()) if found
        ]
        parts += [f"narrow {axis}" for axis in sorted(self.narrow)]
        parts += [f"halved {axis}" for axis in sorted(self.halved)]
        parts += [f"at most {count} {axis}" for axis, count in sorted(self.slim.items())]
        parts += ["skinny"] * self.skinny
        parts += [f"steps of {steps}" for steps in self.steps.values()]
        parts += [f"{count} taps {axis}" for axis, count in sorted(self.taps.items())]
        parts += [f"strips of {count} {axis}" for axis, count in sorted(self.strips.items())]
        parts += [f"{count} phases {axis}" for axis, count in sorted(self.phases.items())]
        parts += [f"{axis} is {extent}" for axis, extent in sorted(self.known.items())]
        parts += [f"{name} within {','.join(sorted(axes))}" for name, axes in sorted(self.within.items())]
        return " ".join(parts)


def layout_of(
    kernel: Kernel,
    shapes: Mapping[str, Sequence[int]],
    strides: Mapping[str, Sequence[int]],
    extents: Mapping[str, int],
) -> Layout:
    """The layout of a call; strides are in bytes."""
    lengths = _lengths(kernel, extents)
    narrow = any(length in (NARROW, VECTOR) or length.isdigit() for length in lengths.values())
    spaced = kernel.kind in ("pointwise", "row", "scan")
    classes = {
        p.name: _classes(shapes[p.name], strides[p.name], p.dtype, narrow, spaced) for p in kernel.tiles
    }
    inside = {
        node: frozenset(axis for axis in node.along if stays_inside(node, axis, extents))
        for node in indexed_reads(kernel)
    }
    read = indexed_reads(kernel) if kernel.contraction else ()
    outside = {node: _outside(node, extents) for node in read}
    lengths |= _single_axes(kernel, extents, classes)
    chained = kernel.tiles if kernel.contraction else ()
    chains = {p.name: _chains(shapes[p.name], strides[p.name]) for p in chained}
    taps = _taps(kernel, extents)
    sliding = sliding_axes(kernel) if is_window(kernel, extents) else ()
    phases = _phases(kernel, extents, math.prod(taps.values())) if _in_phases(kernel, extents) else {}
    strips = {base(a): _strip(kernel, extents, taps, phases, a) for a in sliding if base(a) not in phases}
    known = taps | phases | _sizes(kernel, extents, {*taps, *phases}) if phases else {}
    known |= _small(kernel, extents) if taps else {}
    within = {o.buffer.name: _within(o, extents) for o in kernel.outputs if o.places}
    skinny = _skinny(kernel, extents)
    steps = {node: _steps(kernel, node, strides) for node in read if inside[node] == frozenset(node.along)}
    vectors = _vectors_of_sides(kernel, extents)
    narrow = frozenset(axis for axis, count in vectors.items() if count <= 1)
    halved = frozenset(axis for axis, count in vectors.items() if count % 2) - narrow
    slim = _slim_sides(kernel, extents)
    return Layout(
        classes,
        lengths,
        inside,
        outside,
        chains,
        narrow,
        halved,
        slim,
        skinny,
        steps,
        taps,
        strips,
        phases,
        known,
        within,
    )


def _skinny(kernel: Kernel, extents: Mapping[str, int]) -> bool:
    c = kernel.contraction
    if c is None:
        return False
    m, n, k = (math.prod(extents[base(axis)] for axis in side) for side in (c.m, c.n, c.k))
    return k >= DEEP and min(m, n) <= (SKINNY if k <= DEEPEST else SLIM[0])


def _slim_sides(kernel: Kernel, extents: Mapping[str, int]) -> dict[str, int]:
    """The last axes of a contraction's sides that have few positions, and the most that this stands for."""
    sides = (kernel.contraction.m, kernel.contraction.n) if kernel.contraction else ()
    found = {side[-1]: math.prod(extents[base(axis)] for axis in side) for side in sides if side}
    bounds = {axis: next((most for most in SLIM if count <= most), 0) for axis, count in found.items()}
    return {axis: most for axis, most in bounds.items() if most}


def _vectors_of_sides(kernel: Kernel, extents: Mapping[str, int]) -> dict[str, int]:
    """How many of the widest vectors the positions of a contraction's sides are, by their last axes."""
    sides = (kernel.contraction.m, kernel.contraction.n) if kernel.contraction else ()
    return {side[-1]: -(-math.prod(extents[base(axis)] for axis in side) // WIDEST) for side in sides if side}


def _taps(kernel: Kernel, extents: Mapping[str, int]) -> dict[str, int]:
    """The extents of a row's axes, if it is a window: its few positions are read at those of others. Or those
    of parallel axes of few positions, at which the many of a row are read.
    """
    if kernel.kind != "row" or kernel.split or not sliding_axes(kernel):
        return {}
    taps = {base(axis): extents[base(axis)] for axis in kernel.row}
    if math.prod(taps.values()) <= WRITTEN_OUT:
        return taps
    alone = len(kernel.phases) == 1 and not kernel.phases[0].stores
    found = {base(a): extents[base(a)] for a in sliding_axes(kernel) if extents[base(a)] <= MOST_TAPS}
    while math.prod(found.values()) > MOST_SUMS:
        del found[next(iter(found))]  # a pass for each of its positions
    return found if alone else {}


def is_window(kernel: Kernel, extents: Mapping[str, int]) -> bool:
    """Whether all rows of a kernel are the few taps of windows."""
    taps = _taps(kernel, extents)
    return bool(taps) and {base(axis) for axis in kernel.row} <= set(taps)


def as_window(kernel: Kernel, extents: Mapping[str, int]) -> Kernel | None:
    """The kernel as one of windows whose results take their places in few phases; None if it is none.

    Where every channel is alone, the taps and phases of a stride make a contraction: as a product of matrices
    it would have four columns, and four summed positions.
    """
    c = kernel.contraction
    if c is not None:
        if math.prod(extents[base(axis)] for axis in c.k) > WRITTEN_OUT:
            return None
        kernel = as_row(kernel, (*kernel.parallel, *c.k))
    return kernel if _in_phases(kernel, extents) else None


def _in_phases(kernel: Kernel, extents: Mapping[str, int]) -> bool:
    """Whether a kernel is one of windows, few enough in all phases, whose results take their places."""
    taps = math.prod(_taps(kernel, extents).values())
    return is_window(kernel, extents) and bool(_phases(kernel, extents, taps))


def _phases(kernel: Kernel, extents: Mapping[str, int], taps: int) -> dict[str, int]:
    """The extents of the axes whose positions follow each other where results belong, if they are few."""
    forms = [affine(place) for output in kernel.outputs for place in output.places]
    terms = [one for form in forms if len(form.terms) > 1 for one in form.terms.items()]
    axes = [term.axis for term, step in terms if isinstance(term, Index) and step == 1]
    found = {base(axis): extents[base(axis)] for axis in axes}
    few = all(extent <= MOST_PHASES for extent in found.values()) and set(axes) <= set(kernel.parallel)
    return found if few and taps * math.prod(found.values()) <= WRITTEN_OUT else {}


def _sizes(kernel: Kernel, extents: Mapping[str, int], few: set[str]) -> dict[str, int]:
    """The extents of axes that are read along taps and phases alone, and those that positions there need."""
    found: dict[str, int] = {}
    for node in indexed_reads(kernel):
        for axis, position in zip(node.along, node.positions, strict=True):
            if position.axes and {base(a) for a in position.axes} <= few:
                sizes = [n.axis for n in topological([position]) if isinstance(n, Size)]
                found |= {base(a): extents[base(a)] for a in (axis, *sizes)}
    return found


def _small(kernel: Kernel, extents: Mapping[str, int]) -> dict[str, int]:
    """The extents of small images, along the axes that windows are read along: masks are constants then."""
    nodes = indexed_reads(kernel)
    axes = (a for node in nodes for p in node.positions for a in p.axes)
    found = {base(a): extents[base(a)] for a in (*axes, *(a for node in nodes for a in node.along))}
    return {axis: extent for axis, extent in found.items() if extent <= SMALL}


def _within(output: Output, extents: Mapping[str, int]) -> frozenset[str]:
    """The axes along which an output's places never leave its buffer."""
    found = {axis: bounds(p, extents) for axis, p in zip(output.buffer.axes, output.places, strict=True)}
    return frozenset(
        axis for axis, ends in found.items() if ends and ends[0] >= 0 and ends[1] < extents[base(axis)]
    )


def sliding_axes(kernel: Kernel) -> tuple[str, ...]:
    """The parallel axes along which windows slide whose taps are the kernel's rows."""
    row = set(kernel.row)
    windows = [p for node in indexed_reads(kernel) for p in node.positions if row & set(p.axes)]
    return tuple(axis for axis in kernel.parallel if any(axis in p.axes for p in windows))


def written_out(kernel: Kernel, taps: Mapping[str, int], axis: str | None, whole: bool) -> tuple[str, ...]:
    """The taps that are written out for strips along an axis: all, or those that its windows share, if they
    are many and a strip is not the `whole` axis. If it is, what is outside is known.
    """
    if axis is None or whole or math.prod(taps.values()) * FEWEST_TOGETHER <= WRITTEN_OUT:
        return kernel.row
    windows = [p for node in indexed_reads(kernel) for p in node.positions if axis in p.axes]
    return tuple(tap for tap in kernel.row if any(tap in p.axes for p in windows))


def _strip(
    kernel: Kernel, extents: Mapping[str, int], taps: Mapping[str, int], phases: Mapping[str, int], axis: str
) -> int:
    """How many positions along an axis that windows slide along are worked on together."""
    extent = extents[base(axis)]
    if extent <= LONGEST_STRIP and not phases:
        return extent
    out = written_out(kernel, taps, axis, False)
    count = math.prod((*(taps[base(tap)] for tap in out), *phases.values()))
    most = max(1, WRITTEN_OUT // count)
    if extent <= min(LONGEST_STRIP, most):
        return extent
    lengths = STRIPS if len(out) == len(kernel.row) else (LONGEST_STRIP, *STRIPS)
    return next(
        (length for length in lengths if length <= most and not extent % length), min(STRIPS[0], most)
    )


def _lengths(kernel: Kernel, extents: Mapping[str, int]) -> dict[str, str]:
    """Those of axes that a contraction walks together with others, and of an endless row that is scanned."""
    short = _short_row(kernel, extents)
    if kernel.scans:
        return short | {base(axis): ENDLESS for axis in kernel.row if extents[base(axis)] >= FEWEST}
    if short:
        return short
    if kernel.kind in ("row", "pointwise") and not kernel.split:
        return _brief_rows(kernel, extents) | _narrow_axis(kernel, extents)
    if not kernel.contraction:
        return {}
    c = kernel.contraction
    groups = [group for group in (c.m, c.n, c.k) if len(group) > 1]
    return {base(axis): length_class(extents[base(axis)]) for group in groups for axis in group}


def _short_row(kernel: Kernel, extents: Mapping[str, int]) -> dict[str, str]:
    """That of the row, if it has few positions and there are many side by side; that of the axis of scanned
    rows, if they are few and have many positions.
    """
    if kernel.kind not in ("row", "scan") or kernel.split or len(kernel.row) != 1 or not kernel.parallel:
        return {}
    row, rows = (base(axis) for axis in (*kernel.row, kernel.parallel[-1]))
    if SHORTEST <= extents[row] <= LONGEST and extents[rows] >= FEWEST_SHORT:
        return {row: str(extents[row])}
    if kernel.scans and SHORTEST <= extents[rows] <= LONGEST and extents[row] >= FEWEST_SHORT:
        return {rows: str(extents[rows])}
    return {}


def _brief_rows(kernel: Kernel, extents: Mapping[str, int]) -> dict[str, str]:
    """Those of the row, if it is brief and there are enough side by side to fill vectors."""
    if not kernel.row or not kernel.parallel or extents[base(kernel.parallel[-1])] < WIDEST:
        return {}
    positions = math.prod(extents[base(axis)] for axis in kernel.row)
    found = next((name for name, most in BRIEF.items() if positions <= most), None)
    return {base(kernel.row[0]): found} if found else {}


def _single_axes(kernel: Kernel, extents: Mapping[str, int], classes: Mapping[str, str]) -> dict[str, str]:
    """Those of axes outside of a row that have one position, and along which an operand seems to lie."""
    if kernel.kind != "row":
        return {}
    return {
        base(axis): ONE
        for param in kernel.tiles
        for axis, kind in zip(param.axes, classes[param.name], strict=True)
        if axis in kernel.parallel and extents[base(axis)] == 1 and kind == UNIT
    }


def _narrow_axis(kernel: Kernel, extents: Mapping[str, int]) -> dict[str, str]:
    """That of the last axis of results, if it is narrow and the one outside of it is not short."""
    found = last_axes(kernel)
    if found is None:
        return {}
    outer, inner = (base(axis) for axis in found)
    most = MOST_COLUMNS if kernel.row else MOST_NARROW
    if not 1 < extents[inner] <= most or extents[outer] < FEWEST_NARROW:
        return {}
    return {inner: VECTOR if extents[inner] >= WIDEST else NARROW}


def last_axes(kernel: Kernel) -> tuple[str, str] | None:
    """The last axis of results, and the one outside of it: the row's, which they need not have, if any."""
    axes = [axis for axis in kernel.outputs[0].buffer.axes if axis in kernel.parallel]
    axes = [*kernel.row, *axes[-1:]] if kernel.row else axes
    if len(axes) < 2 or len(kernel.row) > 1 or axes[-1] in kernel.row:
        return None
    return axes[-2], axes[-1]


def length_class(extent: int) -> str:
    if extent == 1:
        return ONE
    if extent % WIDEST == 0:
        return WHOLE
    return next((name for name, least in reversed(LEAST.items()) if extent >= least), TINY)


def contiguous_strides(shape: Sequence[int], dtype: DType) -> tuple[int, ...]:
    strides = []
    step = dtype.itemsize
    for extent in reversed(shape):
        strides.append(step)
        step *= max(1, extent)
    return tuple(reversed(strides))


def _outside(node: At, extents: Mapping[str, int]) -> dict[str, int]:
    """The axes along which a good part of the positions is outside of the operand, and how good: 1 or 2.

    Those alone along which every position is another place: the taps of a stride's phases, some of which do
    not exist. Beside an image lie zeros, which take part: 0 · ∞ is NaN there.
    """
    parts = {axis: _part_outside(node, axis, extents) for axis in node.along}
    found = {axis: sum(part > least for least in OFTEN) for axis, part in parts.items()}
    return {axis: often for axis, often in found.items() if often}


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


def _part_outside(node: At, axis: str, extents: Mapping[str, int]) -> float:
    """The part of its positions along an axis that are outside; 0 where windows overlap."""
    position = dict(zip(node.along, node.positions, strict=True))[axis]
    places = everywhere(position, extents, COUNTED)
    if places is None or np.unique(places).size < places.size:
        return 0.0
    return float(np.mean((places < 0) | (places >= extents[base(axis)])))


def bytes_of(shape: Sequence[int], dtype: DType) -> int:
    return math.prod(shape) * dtype.itemsize


def normal_strides(shape: Sequence[int], strides: Sequence[int], dtype: DType) -> tuple[int, ...]:
    """The strides; a dimension of one element has the one that it would have if contiguous, where that is 1.

    Such a dimension counts as contiguous, so that vectors may begin beside its element.
    """
    contiguous = contiguous_strides(shape, dtype)
    return tuple(
        natural if extent <= 1 and natural == dtype.itemsize else stride
        for extent, stride, natural in zip(shape, strides, contiguous, strict=True)
    )


def _chains(shape: Sequence[int], strides: Sequence[int]) -> frozenset[int]:
    pairs = range(len(shape) - 1)
    return frozenset(d for d in pairs if strides[d] == strides[d + 1] * shape[d + 1])


def elements_apart(kind: str) -> int:
    """The elements from one position to the next along a dimension; 0 if there are none, or many."""
    return int(kind) if kind.isdigit() else 0


def _classes(shape: Sequence[int], strides: Sequence[int], dtype: DType, narrow: bool, spaced: bool) -> str:
    """The stride class of each dimension."""
    normal = normal_strides(shape, strides, dtype)
    classes = [UNIT if s == dtype.itemsize else ZERO if s == 0 else STRIDED for s in normal]
    if narrow and classes.count(UNIT) == 1:
        end = shape[classes.index(UNIT)] * dtype.itemsize
        classes = [
            CONTINUED if s == end and c == STRIDED else c for s, c in zip(normal, classes, strict=True)
        ]
    if spaced and UNIT not in classes:
        near = {apart * dtype.itemsize: str(apart) for apart in range(2, WIDEST_GAP + 1)}
        classes = [near.get(s, c) for s, c in zip(normal, classes, strict=True)]
    return "".join(classes)
