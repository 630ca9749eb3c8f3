"""Schedule spaces, inferred from kernels.

A `Space` names the choices that a kernel leaves open and the values that each may take; every combination
is legal: it changes the speed of the kernel and never its meaning. The default schedule is always in it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tilewright.compiler.nest import Kernel
from tilewright.compiler.targets.cpu.layout import Layout
from tilewright.compiler.targets.cpu.schedule import Schedule, default_schedule, lane_axes
from tilewright.compiler.targets.cpu.toolchain import CpuTarget


@dataclass(frozen=True)
class Space:
    """The open choices of one kernel: the name of each schedule field and its values, around a default."""

    default: Schedule
    choices: Mapping[str, tuple]

    def __len__(self) -> int:
        return math.prod(len(values) for values in self.choices.values())

    def __iter__(self) -> Iterator[Schedule]:
        """Every schedule, the default first."""
        yield self.default
        for values in itertools.product(*self.choices.values()):
            schedule = replace(self.default, **dict(zip(self.choices, values, strict=True)))
            if schedule != self.default:
                yield schedule


def cpu_space(kernel: Kernel, layout: Layout, target: CpuTarget) -> Space:
    """What a CPU kernel leaves open: the axis of the vectors, how many a step, tile sizes, the register
    block.
    """
    default = default_schedule(kernel, layout, target)
    if default.lane_axis is None:
        return Space(default, {})
    if kernel.contraction:
        return Space(
            default, {"lane_axis": lane_axes(kernel), "block_rows": (4, 8), "block_columns": (1, 2, 3)}
        )
    tiles = (256, 1024, 4096) if not kernel.row else (default.tile,)
    return Space(default, {"lane_axis": lane_axes(kernel), "unroll": (1, 2, 4, 8), "tile": tiles})
