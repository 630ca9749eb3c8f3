"""What can be said of a kernel's windows in a call: the extents of taps and phases, and how they are cut."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tilewright.compiler.nest import Contraction, Kernel, Output, indexed_reads
from tilewright.compiler.slender import as_row
from tilewright.dsl.affine import affine
from tilewright.dsl.axes import base
from tilewright.dsl.bounds import bounds
from tilewright.dsl.program import At, Index, Node, Size, topological

MOST_TAPS = 11  # along an axis
MOST_SUMS = 27  # that are carried together, one for each tap
WRITTEN_OUT = 64  # taps of windows that are worked on together
LONGEST_STRIP = 7  # windows, if there are no others
STRIPS = (4, 3)  # windows, else
FEWEST_TOGETHER = 4  # windows of a strip: where there are more taps, those that they do not share are a loop
SMALL = 32  # positions of an axis: code is for images of this very size
MOST_PHASES = 4  # along an axis
MOST_PAIRS = 32  # of a filter and a channel, in a group: each has taps of its own
LONG_SUMS = 4  # summed positions for each result of a group, at least


@dataclass(frozen=True)
class Windows:
    """taps: the extents of their axes. strips: how many positions of the axes that windows slide along are
    worked on together. phases: the extents of the axes of phases along which results take their places.
    known: all extents that a kernel is for. within: the axes along which a result's places are all inside.
    """

    taps: Mapping[str, int] = field(default_factory=dict)
    strips: Mapping[str, int] = field(default_factory=dict)
    phases: Mapping[str, int] = field(default_factory=dict)
    known: Mapping[str, int] = field(default_factory=dict)
    within: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def text(self) -> str:
        parts = [f"{count} taps {axis}" for axis, count in sorted(self.taps.items())]
        parts += [f"strips of {count} {axis}" for axis, count in sorted(self.strips.items())]
        parts += [f"{count} phases {axis}" for axis, count in sorted(self.phases.items())]
        parts += [f"{axis} is {extent}" for axis, extent in sorted(self.known.items())]
        parts += [f"{name} within {','.join(sorted(axes))}" for name, axes in sorted(self.within.items())]
        return " ".join(parts)


def windows_of(kernel: Kernel, extents: Mapping[str, int]) -> Windows:
    """Those of a kernel; nothing if it has none."""
    taps = _taps(kernel, extents)
    sliding = sliding_axes(kernel) if is_window(kernel, taps) else ()
    phases = _phases(kernel, extents, math.prod(taps.values())) if _in_phases(kernel, extents) else {}
    strips = {base(a): _strip(kernel, extents, taps, phases, a) for a in sliding if base(a) not in phases}
    known = taps | phases | _sizes(kernel, extents, {*taps, *phases}) if phases else {}
    known |= _small(kernel, extents) if taps else {}
    within = {o.buffer.name: _within(o, extents) for o in kernel.outputs if o.places}
    return Windows(taps, strips, phases, known, within)


def _taps(kernel: Kernel, extents: Mapping[str, int]) -> dict[str, int]:
    """The extents of a row's axes, if it is a window: its few positions are read at those of others. Of rows
    with many more positions, such as channels, those of the axes along which they are windows. Or those of
    parallel axes of few positions, at which the many of a row are read.
    """
    if kernel.kind != "row" or kernel.split or not sliding_axes(kernel):
        return {}
    taps = {base(axis): extents[base(axis)] for axis in kernel.row}
    if math.prod(taps.values()) <= WRITTEN_OUT:
        return taps
    beside = {base(axis): extents[base(axis)] for axis in sliding_axes(kernel)}
    taps = {base(a): extents[base(a)] for a in sliding_taps(kernel) if base(a) not in beside}
    if taps and math.prod(taps.values()) <= min(WRITTEN_OUT, math.prod(beside.values()) - 1):
        return taps
    alone = len(kernel.phases) == 1 and not kernel.phases[0].stores
    found = {axis: extent for axis, extent in beside.items() if extent <= MOST_TAPS}
    while math.prod(found.values()) > MOST_SUMS:
        del found[next(iter(found))]  # a pass for each of its positions
    return found if alone else {}


def is_window(kernel: Kernel, taps: Mapping[str, int]) -> bool:
    """Whether the rows of a kernel are windows, whatever else they are, rather than read at few positions."""
    return any(base(axis) in taps for axis in kernel.row)


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


def of_small_groups(kernel: Kernel, extents: Mapping[str, int], lanes: int) -> Kernel:
    """The kernel as one of rows, if it is a contraction whose groups have few filters and channels, beside
    the lanes of a vector: register blocks would be filled to a part, and each column of their panels packed
    from many pieces.

    So it is of a filter's gradient, whose sums of taps are made in one pass, and of windows that step over
    elements of a line. Others go along lines (`contractions.reordered`).
    """
    c = kernel.contraction
    if c is None or math.prod(extents[base(axis)] for axis in c.batch) < 2:
        return kernel
    sides = (c.left, c.m, c.n), (c.right, c.n, c.m)
    windows = [(side, own, others) for side, own, others in sides if isinstance(side, At)]
    if _has_sums_of_taps(c, windows, extents) or any(_steps(c, *each, extents, lanes) for each in windows):
        return as_row(kernel, [a for a in (*kernel.parallel, *c.k) if extents[base(a)] > 1])
    return kernel


def _has_sums_of_taps(
    c: Contraction, windows: Sequence[tuple[At, Sequence[str], Sequence[str]]], extents: Mapping[str, int]
) -> bool:
    """Whether sums are long, and results few but for the taps of windows."""
    slid = {axis for side, own, _ in windows for p in side.positions for axis in p.axes if axis in own}
    taps, results, summed = (
        math.prod(extents[base(axis)] for axis in axes) for axes in (slid, (*c.m, *c.n), c.k)
    )
    return bool(windows) and results <= MOST_PAIRS * taps and summed >= LONG_SUMS * results


def _steps(
    c: Contraction,
    side: At,
    own: Sequence[str],
    others: Sequence[str],
    extents: Mapping[str, int],
    lanes: int,
) -> bool:
    """Whether few filters read windows of few taps and channels that are several elements of a line apart."""
    filters, summed = (math.prod(extents[base(axis)] for axis in axes) for axes in (others, c.k))
    line = next((axis for axis in reversed(own) if extents[base(axis)] > 1), None)
    steps = [affine(position).step(line) for position in side.positions if line in position.axes]
    apart = any(step is not None and abs(step) > 1 for step in steps)
    return apart and 2 * filters <= lanes and summed <= WRITTEN_OUT


def _in_phases(kernel: Kernel, extents: Mapping[str, int]) -> bool:
    """Whether a kernel is one of nothing but windows, few enough in all phases, whose results take their
    places.
    """
    taps = _taps(kernel, extents)
    alone = {base(axis) for axis in kernel.row} <= set(taps)
    return bool(taps) and alone and bool(_phases(kernel, extents, math.prod(taps.values())))


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
    return tuple(axis for axis in kernel.parallel if any(axis in p.axes for p in _windows(kernel)))


def sliding_taps(kernel: Kernel) -> tuple[str, ...]:
    """The axes of a row that are taps of windows which slide along parallel axes."""
    sliding = set(sliding_axes(kernel))
    windows = [p for p in _windows(kernel) if sliding & set(p.axes)]
    return tuple(axis for axis in kernel.row if any(axis in p.axes for p in windows))


def _windows(kernel: Kernel) -> list[Node]:
    """The positions that a kernel's rows are read at."""
    row = set(kernel.row)
    return [p for node in indexed_reads(kernel) for p in node.positions if row & set(p.axes)]


def written_out(kernel: Kernel, taps: Mapping[str, int], axis: str | None, whole: bool) -> tuple[str, ...]:
    """The taps that are written out for strips along an axis: all, or those that its windows share, if they
    are many and a strip is not the `whole` axis. If it is, what is outside is known.
    """
    few = tuple(tap for tap in kernel.row if base(tap) in taps)
    if axis is None or whole or math.prod(taps.values()) * FEWEST_TOGETHER <= WRITTEN_OUT:
        return few
    windows = [p for node in indexed_reads(kernel) for p in node.positions if axis in p.axes]
    return tuple(tap for tap in few if any(tap in p.axes for p in windows))


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
