"""What decides how the sides of a contraction are read in a call."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tilewright.compiler.targets.cpu.registers import Registers
from tilewright.dsl.axes import base

Strides = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Setting:
    """Where operands lie (the bytes from one position to the next, of each dimension), how many positions
    axes have, and which registers there are.
    """

    strides: Strides
    extents: Mapping[str, int]
    registers: Registers

    def extent(self, axis: str) -> int:
        """How many positions an axis has."""
        return self.extents[base(axis)]

    def count(self, *axes: str) -> int:
        """How many positions there are along these axes."""
        return math.prod(map(self.extent, axes))

    def moving(self, axes: Sequence[str]) -> list[str]:
        """Those that have more than one position."""
        return [axis for axis in axes if self.extent(axis) > 1]

    def vectors(self, *axes: str) -> int:
        """The vectors that have room for all positions along these axes."""
        return -(-self.count(*axes) // self.registers.lanes)

    def lying(self, strides: Strides) -> Setting:
        """The same with operands that lie otherwise."""
        return replace(self, strides=strides)
