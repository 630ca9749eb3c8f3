"""One kernel as one MLIR module: the entry, its parallel region, and the loops of a range of work items.

name(frame)                        runs all items, on `threads` threads where there is an OpenMP runtime
name_range(frame, begin, end, thread)   a range of items on the calling thread
name_direct(template, workspace, arrays…, scalars…)   all items, for NumPy's arrays as Python has them: their
                                   addresses, and the scalars, go to a copy of the template of a frame
"""

from __future__ import annotations

from tilewright.compiler.nest import Kernel, indexed_reads
from tilewright.compiler.targets.cpu.builder import F64, I64, PTR, Builder
from tilewright.compiler.targets.cpu.contractions.blocks import Blocks
from tilewright.compiler.targets.cpu.frame import WORDS_COPIED, WORKSPACE, Frame
from tilewright.compiler.targets.cpu.functions import entry_function, worker_function, workspace_of
from tilewright.compiler.targets.cpu.layout import Layout
from tilewright.compiler.targets.cpu.rows.brief import BriefRows
from tilewright.compiler.targets.cpu.rows.columns import ColumnLoops, lies_across
from tilewright.compiler.targets.cpu.rows.flat import FlatLoops
from tilewright.compiler.targets.cpu.rows.loops import RowLoops
from tilewright.compiler.targets.cpu.rows.narrow_scans import NarrowScans
from tilewright.compiler.targets.cpu.rows.orders import Orders
from tilewright.compiler.targets.cpu.rows.records import RecordLoops
from tilewright.compiler.targets.cpu.rows.scans import ScanLoops
from tilewright.compiler.targets.cpu.rows.scatters import Scatters
from tilewright.compiler.targets.cpu.rows.short_rows import ShortRows
from tilewright.compiler.targets.cpu.rows.transposed import TransposedTiles
from tilewright.compiler.targets.cpu.schedule import Schedule
from tilewright.compiler.targets.cpu.scope import Scope, load_frame
from tilewright.compiler.targets.cpu.toolchain import CpuTarget
from tilewright.compiler.targets.cpu.windows.strips import WindowTiles, slides
from tilewright.compiler.targets.cpu.windows.taps import TapSums, sums_by_tap
from tilewright.runtime.addresses import HEAD


def emit(
    kernel: Kernel, layout: Layout, schedule: Schedule, target: CpuTarget, openmp: bool, name: str = ""
) -> str:
    """The MLIR text of a kernel, with the kernel's own name as the entry's if none is given.

    Nothing else in the text is the kernel's own: under one name, kernels that do the same have one text.
    """
    b = Builder(target, schedule.accuracy)
    name = name or symbol(kernel)
    _range_function(b, name, kernel, layout, schedule)
    if openmp:
        worker_function(b, name, shared=kernel.contraction is None)
    entry_function(b, name, openmp)
    _direct(b, name, Frame(kernel))
    return b.module()


def is_plain(kernel: Kernel, schedule: Schedule) -> bool:
    """Whether a kernel's code is loops over vectors and little else: no blocks, no windows, nothing read at
    computed positions, no rows that are finished together. Few of LLVM's passes find anything to do in it.
    """
    return not (kernel.contraction or indexed_reads(kernel) or schedule.brief)


def symbol(kernel: Kernel) -> str:
    """The kernel's name as a linker symbol."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in kernel.name)
    return f"tw_{plain}"


def _range_function(b: Builder, name: str, kernel: Kernel, layout: Layout, schedule: Schedule) -> None:
    arguments = [("frame", PTR), ("begin", I64), ("end", I64), ("thread", I64)]
    with b.function(f"{name}_range", args=arguments) as (frame, begin, end, thread):
        workspace = workspace_of(b, frame, thread)
        loaded = load_frame(b, frame, Frame(kernel), layout)
        top = Scope(b, loaded, layout, schedule.lanes if schedule.lane_axis else 0, stream=schedule.stream)
        top = top.child(dict.fromkeys(kernel.single, b.constant(0, I64)))
        if kernel.contraction:
            body = Blocks(b, kernel, schedule, top, workspace, frame)
        elif kernel.scatter:
            body = Scatters(b, kernel, schedule, top)
        elif kernel.order:
            body = Orders(b, kernel, top, workspace)
        elif schedule.short:
            body = ShortRows(b, kernel, schedule, top, workspace)
        elif schedule.beside:
            body = NarrowScans(b, kernel, schedule, top, workspace)
        elif kernel.scans:
            body = ScanLoops(b, kernel, schedule, top, workspace)
        elif schedule.outer:
            body = FlatLoops(b, kernel, schedule, top, workspace, frame)
        elif schedule.fields:
            body = RecordLoops(b, kernel, schedule, top, workspace)
        elif schedule.across:
            body = TransposedTiles(b, kernel, schedule, top, workspace)
        elif slides(kernel, layout, schedule):
            body = WindowTiles(b, kernel, schedule, top, workspace)
        elif sums_by_tap(kernel, layout, schedule):
            body = TapSums(b, kernel, schedule, top, workspace)
        elif lies_across(kernel, schedule):
            body = ColumnLoops(b, kernel, schedule, top, workspace, frame)
        elif schedule.brief:
            body = BriefRows(b, kernel, schedule, top, workspace)
        else:
            body = RowLoops(b, kernel, schedule, top, workspace)
        with b.loop(begin, end) as items:
            body.item(items.index)
        if schedule.stream:
            b.fence()


def _direct(b: Builder, name: str, frame: Frame) -> None:
    """The kernel as Python calls it: one call instead of a look at every array."""
    arrays = [(f"array{n}", PTR) for n in range(len(frame.operand_slot))]
    scalars = [(f"scalar{n}", F64 if p.dtype.is_float else I64) for n, p in enumerate(frame.kernel.scalars)]
    arguments = [("template", PTR), ("workspace", PTR), *arrays, *scalars]
    with b.function(f"{name}_direct", args=arguments) as (template, workspace, *given):
        words = b.alloca(8 * frame.padded_size)
        for start in range(0, frame.padded_size, WORDS_COPIED):
            part = b.load(b.offset(template, 8 * start), I64.vector(WORDS_COPIED))
            b.store(part, b.offset(words, 8 * start))
        slots = [WORKSPACE, *frame.operand_slot.values()]
        for slot, array in zip(slots, [workspace, *given[: len(arrays)]], strict=True):
            b.store(b.load(b.offset(array, HEAD), PTR), b.offset(words, 8 * slot))
        for slot, scalar in zip(frame.scalar_slot.values(), given[len(arrays) :], strict=True):
            b.store(scalar, b.offset(words, 8 * slot))
        b.call(name, [words])
