"""The right side of a contraction, line by line: the vectors of a summed position.

Lines are packed (`panels`), or are read where they lie if few rows pass by them: an element that is used for
a few rows is not worth a copy. The summed positions are cut into blocks then, of so many lines as are read
side by side, and the sums of all columns wait in the cache until the last block is done.

    for each block of summed positions:
        for each panel of columns:  sums[row, column] += left[row][k] · right[k][column]
    for each panel of columns:  the end of the sums
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tilewright.compiler.targets.cpu.builder import Builder, Type, Value
from tilewright.compiler.targets.cpu.contractions.direct import is_operand
from tilewright.compiler.targets.cpu.contractions.panels import Side, joined, unit_axes
from tilewright.compiler.targets.cpu.layout import Layout
from tilewright.dsl.dtypes import DType
from tilewright.dsl.program import Read

SIDE_BY_SIDE = 64  # lines of a block, each from another page of memory at worst
CLOSE = 16 << 10  # elements of all lines of a block: brief lines are in few pages
AHEAD = 512  # bytes along a line that are asked for before they are read


def lies_in_lines(side: Side, summed: Sequence[str], dtype: DType, layout: Layout) -> bool:
    """Whether a side can be read so: its own positions are one contiguous stretch, and a summed position is
    always as far from the one before.
    """
    node = side.node
    if not isinstance(node, Read) or not is_operand(node, dtype, layout):
        return False
    own, moving = layout.moving(side.own), layout.moving(summed)
    runs = joined(node, side.own, layout), joined(node, tuple(summed), layout)
    one = runs == (len(own), len(moving))
    return one and own[-1] in unit_axes(node, layout)[0] and moving[-1] in node.names


@dataclass(frozen=True)
class Lines:
    """Those of a panel of columns: where the first begins, the bytes from one to the next; whether they are
    in the near caches, as packed ones are. Others may end before their last vector does, and only lanes under
    the masks may be read.
    """

    start: Value
    step: Value | int
    near: bool
    masks: tuple[Value, ...] = ()

    def behind(self, b: Builder, position: Value) -> Lines:
        """Those from a summed position on."""
        return replace(self, start=b.offset(self.start, b.mul(position, self.step)))

    def under(self, masks: Sequence[Value]) -> Lines:
        """The same, of which only some lanes may be read, told for each vector."""
        return replace(self, masks=tuple(masks))

    def with_panel(self, b: Builder, apart: Value, count: int) -> PanelAndMore:
        """The same lines, of which `count` vectors are followed by one of the next panel's."""
        other = b.offset(self.start, apart)
        return PanelAndMore(self.start, self.step, self.near, other=other, count=count)

    def vectors(self, b: Builder, position: Value, count: int, type: Type) -> list[Value]:
        """The vectors of a summed position. What comes after them in far memory is asked for."""
        line = b.offset(self.start, b.mul(position, self.step))
        places = [b.offset(line, number * type.lanes * type.bytes) for number in range(count)]
        for place in () if self.near else places:
            b.prefetch(b.offset(place, AHEAD))
        if not self.masks:
            return [b.load(place, type) for place in places]
        zero = b.constant(0, type)
        return [b.load_masked(p, mask, zero, type) for p, mask in zip(places, self.masks, strict=True)]


@dataclass(frozen=True)
class PanelAndMore(Lines):
    """Lines of a panel of so many vectors, each with the first vector of another panel's."""

    other: Value = field(kw_only=True)
    count: int = field(kw_only=True)

    def behind(self, b: Builder, position: Value) -> PanelAndMore:
        apart = b.mul(position, self.step)
        return replace(self, start=b.offset(self.start, apart), other=b.offset(self.other, apart))

    def vectors(self, b: Builder, position: Value, count: int, type: Type) -> list[Value]:
        assert count == self.count + 1
        line = b.offset(self.other, b.mul(position, self.step))
        return [*super().vectors(b, position, self.count, type), b.load(line, type)]
