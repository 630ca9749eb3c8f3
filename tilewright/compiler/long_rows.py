"""Rows of millions of positions are cut into chunks, which threads share, where there are one or two.

    y[i, j] = x[i, j] / Σ_j x[i, j]            one kernel, and two pieces of work if i has two positions

    part[i, c] = Σ_{j in chunk c} x[i, j]      a row kernel, split
    total[i]   = Σ_c part[i, c]                a row kernel
    y[i, j]    = x[i, j] / total[i]            pointwise

Every phase that reduces becomes a kernel of partial results and one that finishes them. What is stored
behind the last reduction is pointwise; where a sum across the rows goes with it, as for a weight's gradient,
both are a kernel whose rows are the few positions across, or chunks of these if the sum is kept in parts. The
extents of a call decide, and say how many chunks there are: bits depend on neither the machine nor the number
of threads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tilewright.compiler.chunks import chunks_axis, is_chunk_axis
from tilewright.compiler.nest import Buffer, Kernel, Output, Phase, Split, reads_of
from tilewright.compiler.phases import write_phases
from tilewright.dsl.axes import base
from tilewright.dsl.program import Node, Param, Read, Reduce, topological
from tilewright.dsl.program import replace as replace_nodes

FEWEST = 1 << 22  # positions of a row whose later phases find little of it in any cache
MOST_ROWS = 2  # more of them are work enough to share


@dataclass(frozen=True)
class Cut:
    """The kernels that stand for one, in order, what lies between them, and the axis of the chunks."""

    kernels: tuple[Kernel, ...]
    between: tuple[Buffer, ...]
    axis: str


def cut(kernel: Kernel, strides: Mapping[str, Sequence[int]], extents: Mapping[str, int]) -> Cut | None:
    """The kernel in chunks of its rows, if those are few and long and lie along in memory."""
    if not can_be_cut(kernel):
        return None
    rows, positions = (_count(axes, extents) for axes in (kernel.parallel, kernel.row))
    if rows > MOST_ROWS or positions < FEWEST or not _lies_along(kernel, strides, extents):
        return None
    if kernel.split and extents[kernel.split.axis] > 1:
        return None
    return in_chunks(kernel, chunks_axis(tuple(base(axis) for axis in kernel.row)), extents)


def can_be_cut(kernel: Kernel) -> bool:
    """Whether a kernel has rows that are reduced and may be cut, however long they are."""
    if kernel.kind != "row" or not kernel.phases[0].reductions or not kernel.parallel:
        return False
    if kernel.split and kernel.split.of == "row":
        return False
    return not any(is_chunk_axis(axis) for axis in kernel.row)  # of partial results, which are few


def in_chunks(kernel: Kernel, axis: str, extents: Mapping[str, int]) -> Cut:
    """The kernel in chunks along an axis of that name, which begins with `#`."""
    return _Cutter(kernel, axis, extents).cut()


def _count(axes: Sequence[str], extents: Mapping[str, int]) -> int:
    return math.prod(extents[base(axis)] for axis in axes)


def _lies_along(kernel: Kernel, strides: Mapping[str, Sequence[int]], extents: Mapping[str, int]) -> bool:
    """Whether operands that are as long as a row are contiguous along it."""
    last = kernel.row[-1]
    long = [read for read in reads_of(kernel) if last in read.names]
    steps = [strides[read.param][read.names.index(last)] for read in long]
    return bool(long) and all(step == read.dtype.itemsize for read, step in zip(long, steps, strict=True))


class _Cutter:
    """Writes the kernels of one. `finished` are its reductions so far, read from memory."""

    def __init__(self, kernel: Kernel, axis: str, extents: Mapping[str, int]):
        self.kernel = kernel
        self.axis = axis
        self.extents = extents
        self.finished: dict[Node, Node] = {}
        self.between: list[Buffer] = []
        self.kernels: list[Kernel] = []

    def cut(self) -> Cut:
        across: list[Output] = []
        for number, phase in enumerate(self.kernel.phases):
            across += [output for output in phase.stores if output.accumulate]
            stores = [output for output in phase.stores if not output.accumulate]
            if phase.reductions:
                self._reduce(number, phase, stores)
            else:
                across += stores
        self._store(across)
        return Cut(tuple(self.kernels), tuple(self.between), self.axis)

    def _reduce(self, number: int, phase: Phase, stores: Sequence[Output]) -> None:
        """The two kernels of a phase: partial results of its reductions, then these, and what is left."""
        parallel, axes = self.kernel.parallel, (*self.kernel.parallel, self.axis)
        parts = [self._buffer(f"part {number}.{n}", axes, r) for n, r in enumerate(phase.reductions)]
        pieces = [
            Output(part, Reduce(r.combine, r.over, self._known(r.arg)))
            for part, r in zip(parts, phase.reductions, strict=True)
        ]
        pieces += [replace(output, node=self._known(output.node)) for output in stores]
        self._add(axes, self.kernel.row, pieces, split=Split(self.axis, "row"))

        whole: dict[Node, Node] = {
            r: Reduce(r.combine, (self.axis,), Read(part.name, part.axes, part.dtype))
            for part, r in zip(parts, phase.reductions, strict=True)
        }
        ends = [replace(o, node=replace_nodes(o.node, {**self.finished, **whole})) for o in phase.finals]
        for n, reduction in enumerate(phase.reductions):
            if self._is_needed_after(number, reduction):
                total = self._buffer(f"total {number}.{n}", parallel, reduction)
                ends.append(Output(total, whole[reduction]))
                self.finished[reduction] = Read(total.name, total.axes, total.dtype)
        self._add(parallel, (self.axis,), ends)

    def _store(self, outputs: Sequence[Output]) -> None:
        """The kernel of what is stored behind the last reduction, and of sums across the rows."""
        parallel, row = self.kernel.parallel, self.kernel.row
        known = [replace(output, node=self._known(output.node), accumulate=None) for output in outputs]
        sums = [output.accumulate for output in outputs]
        if not any(sums):
            self._add((*parallel, *row), (), known)
            return
        known = [
            replace(output, node=Reduce(combine, parallel, output.node)) if combine else output
            for output, combine in zip(known, sums, strict=True)
        ]
        parts = self.kernel.split.axis if self.kernel.split else ""
        if parts and self.extents[parts] > 1:
            self._add((*row, parts), parallel, known, split=Split(parts, "row"))
            return
        self._add(row, parallel, known, single=(parts,) if parts else ())

    def _known(self, node: Node) -> Node:
        return replace_nodes(node, self.finished) if self.finished else node

    def _is_needed_after(self, number: int, reduction: Reduce) -> bool:
        later = self.kernel.phases[number + 1 :]
        nodes = [n for phase in later for n in (*phase.roots, *(o.node for o in phase.finals))]
        return reduction in topological(nodes)

    def _buffer(self, name: str, axes: tuple[str, ...], of: Reduce) -> Buffer:
        buffer = Buffer(f"{self.kernel.name} {name}", axes, of.dtype)
        self.between.append(buffer)
        return buffer

    def _add(
        self,
        parallel: tuple[str, ...],
        row: tuple[str, ...],
        outputs: Sequence[Output],
        split: Split | None = None,
        single: tuple[str, ...] = (),
    ) -> None:
        if not outputs:
            return
        kernel = replace(
            self.kernel,
            name=f"{self.kernel.name}_{len(self.kernels)}",
            parallel=parallel,
            row=row,
            outputs=tuple(outputs),
            phases=write_phases(list(outputs), row),
            split=split,
            single=(*self.kernel.single, *single),
        )
        params = {p.name: p for p in self.kernel.inputs}
        params |= {b.name: Param(b.name, b.axes, b.dtype) for b in self.between}
        names = dict.fromkeys(n.param for n in kernel.nodes() if isinstance(n, Read))
        self.kernels.append(replace(kernel, inputs=tuple(params[name] for name in names)))
