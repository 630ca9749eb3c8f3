"""How a contraction is walked: which side vectors run along, the order of the sums, what is read in place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tilewright.compiler.nest import Contraction, Kernel
from tilewright.compiler.targets.cpu.contractions.direct import in_words, is_operand, readable, step_along
from tilewright.compiler.targets.cpu.contractions.lines import lies_in_lines
from tilewright.compiler.targets.cpu.contractions.live import Sparse, sparse_side
from tilewright.compiler.targets.cpu.contractions.panels import Side, joined, lane_order, summed_order
from tilewright.compiler.targets.cpu.contractions.reading.even import Even
from tilewright.compiler.targets.cpu.contractions.reading.grouped import Grouped
from tilewright.compiler.targets.cpu.contractions.reading.overrun import Overrun, image_extents
from tilewright.compiler.targets.cpu.contractions.reading.steps import are_read_again, groups_among
from tilewright.compiler.targets.cpu.contractions.reading.tapped import Tapped
from tilewright.compiler.targets.cpu.layout import Layout
from tilewright.dsl.axes import base
from tilewright.dsl.program import At, Read
from tilewright.errors import InternalError

if TYPE_CHECKING:
    from tilewright.compiler.targets.cpu.schedule import Schedule


@dataclass(frozen=True)
class Walk:
    """Which side the vectors run along, the order of the sums, whether rows are read where they lie, and
    along how many of the last summed axes at once; whether both sides are, with vectors along those axes;
    which side is outside of its operand for whole runs; the elements from one summed position to the next in
    rows that are read where they lie; whether the columns are read where they lie; how those rows lie
    evenly, if they do; how columns that are windows run on over the ends of lines, or are read along their
    channels, if they are; how rows are read for columns of several groups; the axes that rows have last, as
    they leave their operand together so.
    """

    left: Side
    right: Side
    summed: tuple[str, ...]
    direct: bool
    joined: int
    inner: bool = False
    sparse: Sparse | None = None
    step: int = 1
    in_lines: bool = False
    even: Even | None = None
    overrun: Overrun | None = None
    tapped: Tapped | None = None
    grouped: Grouped | None = None
    together: tuple[str, ...] = ()

    @classmethod
    def of(cls, kernel: Kernel, schedule: Schedule, layout: Layout) -> Walk:
        assert kernel.contraction is not None
        return cls.along(schedule.lane_axis, kernel.contraction, schedule.dot_product, layout)

    @classmethod
    def along(
        cls, lane_axis: str | None, contraction: Contraction, dot_product: str | None, layout: Layout
    ) -> Walk:
        """That of vectors along an axis."""
        walk = cls._along(lane_axis, contraction, dot_product, layout)
        if groups_among(contraction) and not walk.reads_groups:
            raise InternalError("groups are among the columns of a contraction that does not read them so")
        return walk

    @property
    def reads_groups(self) -> bool:
        """Whether rows are read for columns of several groups."""
        return self.grouped is not None or (self.tapped is not None and self.tapped.beside is not None)

    @classmethod
    def _along(
        cls, lane_axis: str | None, contraction: Contraction, dot_product: str | None, layout: Layout
    ) -> Walk:
        left, right = Side(contraction.left, contraction.m), Side(contraction.right, contraction.n)
        if lane_axis in contraction.m:
            left, right = right, left
        if not dot_product and lane_axis == layout.moving(right.own)[-1]:
            overrun = layout.sides.overrun.get(right.node) if isinstance(right.node, At) else None
            if overrun is not None and is_operand(right.node, contraction.root.dtype, layout):
                return cls._over_lines(left, right, contraction, overrun, layout)
            tapped = layout.sides.tapped.get(right.node) if isinstance(right.node, At) else None
            if tapped is not None and is_operand(right.node, contraction.root.dtype, layout):
                summed = (*(axis for axis in contraction.k if axis != tapped.along), tapped.along)
                return cls(left, right, summed, False, 1, tapped=tapped)
        grouped = layout.sides.grouped.get(left.node) if isinstance(left.node, At) else None
        if grouped is not None:
            summed = (*(axis for axis in contraction.k if axis != grouped.channel), grouped.channel)
            return cls(left, right, summed, True, 1, even=grouped.even, grouped=grouped)
        right = Side(right.node, lane_order(right.own, layout))
        summed = summed_order(contraction.k, (left.node, right.node), layout)
        moving = layout.moving(summed)
        if dot_product:
            return cls._of_words(left, right, summed, moving, layout)
        dtype = contraction.root.dtype
        few = bool(left.own) and left.own[-1] in layout.sides.slim
        even = layout.sides.even.get(left.node) if isinstance(left.node, At) and not few else None
        runs = range(joined(left.node, summed, layout), 0, -1)
        together = next((n for n in runs if readable(left.node, moving[-n:], dtype, layout, even)), 0)
        direct, together = together > 0, max(together, 1)
        whole = direct and together == len(moving) and readable(right.node, moving[-1:], dtype, layout)
        if layout.sides.skinny and whole and _is_one_run(right, summed, moving, layout):
            return cls(left, right, summed, True, together, True)
        step = 0 if direct else step_along(left.node, moving[-1], dtype, layout)
        if direct and not few and layout.sides.conflict(left.own, right.own):
            direct, together = False, 1
        one = right.own[-1] in layout.sides.narrow  # its lines are as they would be packed
        brief = bool(step) and (one or even is not None)
        in_lines = (few or brief) and lies_in_lines(right, summed, dtype, layout)
        if step:
            return cls(left, right, summed, True, 1, step=step, in_lines=in_lines, even=even)
        by_runs = Side(left.node, lane_order(left.own, layout))
        filled = even is not None and even.filled
        sparse = None if filled else sparse_side(by_runs, right, summed, together, layout)
        if sparse and sparse.on_the_left:
            left, even = by_runs, None
        in_lines, even = in_lines and not sparse, even if direct else None
        last = tuple[str, ...]()
        if direct and isinstance(left.node, At) and not (sparse or even or in_lines):
            last = layout.sides.together.get(left.node, ())
            left = left.with_last(last)
        return cls(
            left, right, summed, direct, together, sparse=sparse, in_lines=in_lines, even=even, together=last
        )

    @classmethod
    def _over_lines(
        cls, left: Side, right: Side, contraction: Contraction, overrun: Overrun, layout: Layout
    ) -> Walk:
        """That of columns which are read where they lie: sums go along the axis that moves least there."""
        summed = (*(axis for axis in contraction.k if axis != overrun.along), overrun.along)
        direct = readable(left.node, (overrun.along,), contraction.root.dtype, layout)
        return cls(left, right, summed, direct, 1, overrun=overrun)

    @classmethod
    def _of_words(
        cls, left: Side, right: Side, summed: tuple[str, ...], moving: Sequence[str], layout: Layout
    ) -> Walk:
        """That of a dot-product instruction, to which words of memory are as good as packed ones."""
        read, other = (in_words(side.node, moving[-1], layout) for side in (left, right))
        if read is None or joined(read, summed, layout) < len(moving):
            return cls(left, right, summed, False, 1)
        left = Side(read, left.own)
        if layout.sides.skinny and other and _is_one_run(Side(other, right.own), summed, moving, layout):
            return cls(left, Side(other, right.own), summed, True, len(moving), True)
        return cls(left, right, summed, True, len(moving))

    def rows(self, extents: Mapping[str, int], block: int) -> int:
        """How many rows there are, as they are numbered for register blocks of so many."""
        if self.even is None:
            return positions(extents, self.left.own)
        moving = [a for a in self.left.own if extents[base(a)] > 1]
        outer, line = (
            positions(extents, part) for part in (moving[: -self.even.axes], moving[-self.even.axes :])
        )
        return outer * -(-line // block) * block

    def columns(self, extents: Mapping[str, int], block: int) -> int:
        """How many columns there are, as they are numbered for register blocks of so many."""
        if self.overrun is None:
            return positions(extents, self.right.own)
        moving = [a for a in self.right.own if extents[base(a)] > 1]
        axes = self.overrun.axes
        lines = positions(extents, moving[-axes:-1])
        span = (lines - 1) * self.overrun.pitch + positions(extents, moving[-1:])
        return positions(extents, moving[:-axes]) * -(-span // block) * block

    def image(self, extents: Mapping[str, int]) -> int:
        """The elements of a copy of what columns read for one image, if there is one."""
        if self.overrun is None or not self.overrun.ends:
            return 0
        assert isinstance(self.right.node, At)
        return math.prod(image_extents(self.right.node, self.overrun.ends, self.summed, extents).values())

    @property
    def words_a_run(self) -> int:
        """What is noted of a run of tapped columns: an address, and a position for each axis."""
        assert isinstance(self.right.node, At)
        return 1 + len(self.right.node.along)

    def runs(self, extents: Mapping[str, int]) -> int:
        """How many runs the summed positions are."""
        return positions(extents, self.summed) // max(1, self.span(extents))

    def span(self, extents: Mapping[str, int]) -> int:
        """How many summed positions a run has."""
        moving = [a for a in self.summed if extents[base(a)] > 1]
        return positions(extents, moving[-self.joined :])

    def known_span(self, layout: Layout) -> int | None:
        """The same, if all of their extents are known to the code."""
        moving = layout.moving(self.summed)[-self.joined :]
        known = layout.sides.known
        return positions(known, moving) if {base(axis) for axis in moving} <= set(known) else None

    def known_runs(self, layout: Layout) -> int | None:
        """How many runs there are, if all extents are known to the code."""
        known, moving = layout.sides.known, layout.moving(self.summed)
        if not {base(axis) for axis in moving} <= set(known):
            return None
        return positions(known, moving) // max(1, positions(known, moving[-self.joined :]))

    def passes(self, extents: Mapping[str, int]) -> bool:
        """Whether the left side's rows pass by each panel of the right side, all of them: they are read in
        place, and bring few elements that the rows before did not.
        """
        node, axes = self.left.node, (*self.left.own, *self.summed)
        if not self.direct or not isinstance(node, At):
            return False
        return are_read_again(node, axes, lambda *some: positions(extents, some))


def _is_one_run(side: Side, summed: tuple[str, ...], moving: Sequence[str], layout: Layout) -> bool:
    """Whether all summed positions of a side are one stretch of memory, for each position of its one axis."""
    one = len(side.own) == 1 and isinstance(side.node, Read)
    return one and joined(side.node, summed, layout) == len(moving)


def positions(extents: Mapping[str, int], axes: Sequence[str]) -> int:
    """How many there are along these axes."""
    total = 1
    for axis in axes:
        total *= extents[base(axis)]
    return total
