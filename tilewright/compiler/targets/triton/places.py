"""What a kernel's text is written with, and where groups of axes are bound to positions.

m = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)     a `Place`; `in_m = m < size_m` is its mask
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from tilewright.compiler.nest import Kernel
from tilewright.compiler.targets.triton.parameters import Parameters
from tilewright.compiler.targets.triton.schedule import Layout
from tilewright.compiler.targets.triton.writer import Block, Names, axis_name
from tilewright.dsl.program import Node


@dataclass
class Writer:
    """What all scopes of one kernel share.

    small: int64 values that are held in 32 bits. tests: comparisons of positions, too short for a name.
    wishes: what some values should be called. functions: what the kernel calls besides the helpers.
    """

    kernel: Kernel
    layout: Layout
    names: Names
    parameters: Parameters
    uses: Counter[Node]
    cast_alone: Mapping[Node, bool]
    top: Block
    small: set[Node] = field(default_factory=set)
    tests: Collection[Node] = ()
    wishes: dict[Node, str] = field(default_factory=dict)
    sizes: dict[tuple[str, ...], str] = field(default_factory=dict)
    functions: list[str] = field(default_factory=list)

    def size(self, axes: Sequence[str]) -> str:
        """The number of positions along a group of axes."""
        if len(axes) == 1:
            return self.parameters.size(axes[0])
        key = tuple(axes)
        if key not in self.sizes:
            name = self.names.fresh("size_" + group_name(axes))
            self.sizes[key] = name
            self.top.add(f"{name} = " + (" * ".join(self.parameters.size(a) for a in axes) or "1"))
        return self.sizes[key]


def group_name(axes: Sequence[str]) -> str:
    return "_".join(axis_name(a) for a in axes) or "one"


@dataclass(eq=False)
class Place:
    """A group of axes at flattened positions `flat`; coordinates of its axes are worked out when asked for.

    `mask` says which positions are inside (None: all). `vector`: a tile dimension, not one position. `only`:
    there is one position, 0.
    """

    writer: Writer
    block: Block
    axes: tuple[str, ...]
    flat: str
    mask: str | None = None
    vector: bool = False
    only: bool = False
    coordinates: dict[str, str] = field(default_factory=dict)

    def coordinate(self, axis: str) -> str:
        if len(self.axes) == 1:
            return self.flat
        if axis not in self.coordinates:
            self._decode(axis)
        return self.coordinates[axis]

    def _decode(self, axis: str) -> None:
        position = self.axes.index(axis)
        text = self.flat
        inner = self.axes[position + 1 :]
        if inner:
            text = f"{text} // {self.writer.size(inner)}"
        if position:
            size = self.writer.size((axis,))
            text = f"{text} % {size}"
        name = self.writer.names.fresh(axis_name(axis), self.block)
        self.block.add(f"{name} = {text}")
        self.coordinates[axis] = name


def program_id(writer: Writer) -> str:
    """The name of this program's number, as wide as positions are."""
    name = writer.names.fresh("pid")
    writer.top.add(f"{name} = tl.program_id(0)" + (".to(tl.int64)" if writer.layout.wide else ""))
    return name


def positions(
    writer: Writer, block: Block, axes: Sequence[str], start: str, size: str, bound: str
) -> Place:  # fmt: skip
    """Positions from `start` on along a group of axes: a vector of `size`, or one where it is empty.

    `bound` is what positions must be below; empty when all are inside.
    """
    flat = writer.names.fresh(group_name(axes), block)
    if not size:
        block.add(f"{flat} = {start or '0'}")
        return Place(writer, block, tuple(axes), flat)
    lanes = f"tl.arange(0, {size})"
    block.add(f"{flat} = {start} + {lanes}" if start else f"{flat} = {lanes}")
    mask = None
    if bound:
        mask = writer.names.fresh(f"in_{group_name(axes)}", block)
        block.add(f"{mask} = {flat} < {bound}")
    return Place(writer, block, tuple(axes), flat, mask, vector=True)
