"""Schedule spaces, inferred from kernels.

A `Space` names the choices that a kernel leaves open and the values that each may take; every combination
is legal: it changes the speed of the kernel and never its meaning. The default schedule is always in it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from tilewright.compiler.nest import Kernel
from tilewright.compiler.targets.cpu.layout import Layout
from tilewright.compiler.targets.cpu.registers import Registers
from tilewright.compiler.targets.cpu.schedule import (
    Schedule,
    default_schedule,
    fits,
    lane_axes,
    panel_widths,
)
from tilewright.compiler.targets.cpu.toolchain import CpuTarget
from tilewright.compiler.targets.triton import schedule as triton
from tilewright.compiler.targets.triton.toolchain import Target


@dataclass(frozen=True)
class Space:
    """The open choices of one kernel: the name of each schedule field and its values, around a default."""

    default: Schedule
    choices: Mapping[str, tuple]
    fits: Callable[[Schedule], bool] = lambda schedule: True

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Schedule]:
        """Every schedule, the default first."""
        yield self.default
        for values in itertools.product(*self.choices.values()):
            schedule = replace(self.default, **dict(zip(self.choices, values, strict=True)))
            if schedule != self.default and self.fits(schedule):
                yield schedule


def cpu_space(kernel: Kernel, layout: Layout, target: CpuTarget) -> Space:
    """What a CPU kernel leaves open: the axis of the vectors, how many a step, tile sizes, the register
    block.
    """
    default = default_schedule(kernel, layout, target)
    if default.lane_axis is None:
        return Space(default, {})
    if kernel.contraction:
        rows = (4, Registers(target.registers, default.lanes).sums // 2)
        choices = {"lane_axis": lane_axes(kernel), "block_rows": rows, "block_columns": panel_widths(kernel)}
        return Space(default, choices, lambda schedule: fits(kernel, schedule, layout))
    tiles = (256, 1024, 4096) if not kernel.row else (default.tile,)
    axes = (default.lane_axis,) if default.fields else lane_axes(kernel)
    return Space(default, {"lane_axis": axes, "unroll": (1, 2, 4, 8), "tile": tiles})


# --- contractions on a GPU ----------------------------------------------------------------------------------

TILES = ((64, 64), (64, 128), (128, 64), (128, 128), (128, 256), (256, 128))
DEPTHS, STAGES = (32, 64, 128), (2, 3, 4)
FEWEST_ELEMENTS, MOST_ELEMENTS = 32, 256  # of a tile's sums that a thread holds
SUBTILES = (1, 2, 4)
SMALLEST_SUBTILED = 128 * 128  # sums of a tile: what follows fewer has registers and memory enough
LARGEST_PART = 4  # times as many parts, and as few, as the default has


def triton_contractions(
    kernel: Kernel, layout: triton.Layout, extents: Mapping[str, int], target: Target
) -> Iterator[triton.Schedule]:
    """Schedules of a contraction that fit a GPU, the default first: all give the same product.

    Left out by arithmetic are those whose stages exceed a block's shared memory, whose tiles are too few or
    too many for their threads, and tiles larger than the whole product.
    """
    default = triton.default_schedule(kernel, layout, extents, target)
    yield default
    contraction = kernel.contraction
    if contraction is None or not triton.uses_dot(kernel):
        return
    itemsize = 2 if triton.common_type(contraction) is not None else 4
    parts = sorted({1, default.parts, max(1, default.parts // LARGEST_PART), default.parts * LARGEST_PART})
    if default.parts == 1:
        parts = [1]
    most_rows, most_columns = (
        triton.power_of_two(triton.total(axes, extents)) for axes in (default.rows, default.columns)
    )
    choices = itertools.product(TILES, DEPTHS, STAGES, (4, 8), (0, triton.FEW_TILES), (False, True), parts)
    for (rows, columns), depth, stages, warps, persistent, descriptors, count in choices:
        staged = (rows + columns) * depth * itemsize * stages
        each = rows * columns // (warps * target.warp_size)
        fits = staged <= target.shared_memory_limit and FEWEST_ELEMENTS <= each <= MOST_ELEMENTS
        if not fits or ((rows, columns) != TILES[0] and (rows > most_rows or columns > most_columns)):
            continue
        schedule = replace(
            triton.with_blocks(default, extents, rows, columns, depth),
            num_stages=stages, num_warps=warps, persistent=persistent, descriptors=descriptors, parts=count,
        )  # fmt: skip
        for subtiles in SUBTILES if rows * columns >= SMALLEST_SUBTILED else SUBTILES[:1]:
            part = replace(schedule, subtiles=subtiles)
            if part != default:
                yield part
