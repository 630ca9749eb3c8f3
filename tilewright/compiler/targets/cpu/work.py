"""How much a kernel has to do: its threads, its work items, and whether its results go past the caches."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tilewright.compiler.chunks import is_chunk_axis
from tilewright.compiler.nest import Kernel
from tilewright.compiler.targets.cpu import toolchain
from tilewright.compiler.targets.cpu.contractions.sizes import block_sizes, workspace_bytes
from tilewright.compiler.targets.cpu.layout import Layout, bytes_of, bytes_passed
from tilewright.compiler.targets.cpu.recipe import CompiledKernel
from tilewright.compiler.targets.cpu.rows import columns, flat, keep, orders, records, transposed
from tilewright.compiler.targets.cpu.spelling import cost
from tilewright.compiler.targets.cpu.windows import strips, taps
from tilewright.dsl.axes import base
from tilewright.dsl.program import topological
from tilewright.runtime import memory, threads

WORTH_THREADS = 1_000_000  # scalar operations: below this a parallel region costs more than it saves
CACHE_LINE = 64
STREAM_FROM = 0.5  # of the last cache: beyond it four ops on end are faster past it than through it
FEW_PLACES = 4  # of their pages that the rows of a product have, at most: they are in each other's way


def streams(
    kernel: Kernel,
    layout: Layout,
    target: toolchain.CpuTarget,
    shapes: Mapping[str, tuple[int, ...]],
    slices: int,
) -> bool:
    """Whether the results should go past the caches: too much for them, and vectors of whole cache lines.
    The shapes are those of one slice.

    Only blocks of the memory pool begin at a cache line, as such stores must. A single row may end anywhere,
    but not one that is walked from its end.
    """
    if _rows_alike(kernel, target, shapes):
        return False
    backwards = any(scan.reverse for scan in kernel.scans)
    for output in kernel.outputs:
        shape, dtype = shapes[output.buffer.name], output.buffer.dtype
        if output.accumulate is not None:
            continue
        inner = 2 if layout.is_short(output.buffer.axes[-1:]) else 1  # dimensions that vectors run on through
        piece = bytes_of(shape[-inner:], dtype)
        if (backwards or piece < bytes_of(shape, dtype)) and piece % CACHE_LINE:
            return False
        if bytes_of(shape, dtype) < memory.POOLED_FROM:
            return False
    return slices * bytes_passed(kernel, shapes) > STREAM_FROM * toolchain.caches().l3


def _rows_alike(kernel: Kernel, target: toolchain.CpuTarget, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the rows of a product lie at few places of their pages, and are written by half cache lines.

    A register block stores a cache line of each of its rows. Past the caches those of 2048 × 2048 results
    take 1.8 times as long as through them (Zen 3), those of 2048 × 2080 nine tenths.
    """
    if kernel.contraction is None or target.vector_bits >= 8 * CACHE_LINE:
        return False
    output = kernel.outputs[0].buffer
    extents = dict(zip(output.axes, shapes[output.name], strict=True))
    sides = kernel.contraction.m, kernel.contraction.n
    rows = next((side for side in sides if output.axes[-1] not in side), ())
    moving = [axis for axis in output.axes if axis in rows and extents[axis] > 1]
    if not moving:
        return False
    behind = output.axes[output.axes.index(moving[-1]) + 1 :]
    pitch = bytes_of([extents[axis] for axis in behind], output.dtype)
    return toolchain.PAGE // math.gcd(pitch, toolchain.PAGE) <= FEW_PLACES


def workers_for(kernel: Kernel, extents: Mapping[str, int]) -> int:
    """The threads that a kernel is worth."""
    return threads.get_num_threads() if _work(kernel, extents) > WORTH_THREADS else 1


def _work(kernel: Kernel, extents: Mapping[str, int]) -> float:
    """Scalar operations of a kernel, about."""
    total = 1.0
    summed = kernel.contraction.k if kernel.contraction else ()
    for axis in (*kernel.parallel, *kernel.row, *summed):
        if not is_chunk_axis(axis):
            total *= extents[base(axis)]
    return total * max(1.0, 0.25 * sum(cost(node) for node in topological(kernel.roots)))


def work_items(
    compiled: CompiledKernel, target: toolchain.CpuTarget, extents: Mapping[str, int], workers: int
) -> tuple[int, tuple[int, ...], int]:
    """(work items, block sizes, workspace bytes a thread)."""
    kernel, schedule, layout = compiled.kernel, compiled.schedule, compiled.layout
    if kernel.contraction:
        sizes = block_sizes(kernel, schedule, layout, extents, workers)
        return sizes.items, sizes.slots(), workspace_bytes(kernel, schedule, layout, extents, sizes)
    items = 1
    tile, sizes = schedule.tile, ()
    if schedule.outer:
        return flat.work_items(kernel, schedule, extents), (0, flat.rows_an_item(schedule, extents)), 0
    if schedule.fields:
        return records.work_items(kernel, schedule, extents), (), 0
    if schedule.across:
        return transposed.work_items(kernel, schedule, extents), (), 0
    if strips.slides(kernel, layout, schedule):
        return strips.work_items(kernel, layout, schedule, extents), (), 0
    if taps.sums_by_tap(kernel, layout, schedule):
        return taps.work_items(kernel, layout, schedule, extents), (), 0
    if columns.lies_across(kernel, schedule) and not schedule.short:
        tile = columns.strip_width(kernel, schedule, target, extents, workers)
        sizes = (0, tile)
    if kernel.split and kernel.split.of == "row":
        items = math.prod(extents[base(axis)] for axis in kernel.parallel)
    elif kernel.split:
        items = extents[kernel.split.axis]
    else:
        lane = schedule.lane_axis
        last = [a for a in kernel.parallel if a != lane][-1:] if kernel.kind == "pointwise" and lane else []
        rows = max(1, tile // max(1, extents[base(lane)])) if last and lane else 1
        for axis in kernel.parallel:
            extent = extents[base(axis)]
            items *= -(-extent // (tile if axis == lane else rows if axis in last else 1))
    if kernel.scans and schedule.lane_axis in kernel.row and not schedule.segment:
        items = -(-items // schedule.lanes)
    if kernel.order:
        return items, (), orders.workspace_bytes(kernel, extents)
    if schedule.brief:
        last = extents[base(kernel.parallel[-1])]
        items = items // last * -(-last // schedule.lanes)
    count = len(keep.kept_nodes(kernel)) if schedule.lane_axis in kernel.row else 0
    together = schedule.lanes if schedule.brief else 1
    return items, sizes, keep.workspace_bytes(kernel, count, extents, together) if count else 0
