"""What a kernel becomes whose rows are cut into chunks.

    y[i, j] = x[i, j] / Σ_j x[i, j]            one kernel, and two pieces of work if i has two positions

    part[i, c] = Σ_{j in chunk c} x[i, j]      a row kernel, split
    total[i]   = Σ_c part[i, c]                a row kernel
    y[i, j]    = x[i, j] / total[i]            pointwise

    y[i, :]    = scan of x[i, :]

    end[i, c]  = the last value of a scan of chunk c alone         a scan kernel, split
    upto[i, :] = scan of end[i, :]                                 a scan kernel
    y[i, j]    = scan of chunk c, which upto[i, c - 1] comes before    a scan kernel, split

Every phase that reduces becomes a kernel of partial results and one that finishes them. What is stored
behind the last reduction is pointwise; where a sum across the rows goes with it, as for a weight's gradient,
both are a kernel whose rows are the few positions across, or chunks of these if the sum is kept in parts.

What needs a scan waits for a walk more, in which the ends of the chunks are found: that of an earlier
phase, if what is scanned is known there, or one of its own. Where one scans what another has found, there
are as many walks more. What a scan has found goes through memory to walks that need it again: kernels may
round differently, and a value that is compared must be the same in all. Chunks are counted in the order in
which the scans walk. No combine needs an element that changes nothing: nothing comes before the first
chunk, and what the last one ends with, which may be ragged, comes before none.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tilewright.compiler.chunks import is_chunk_axis
from tilewright.compiler.nest import Buffer, Kernel, Output, Phase, Split, Start, evaluated, outermost
from tilewright.compiler.phases import write_phases
from tilewright.dsl.dtypes import DType, int64
from tilewright.dsl.program import At, Const, Index, Map, Node, Param, Read, Reduce, Scan, topological
from tilewright.dsl.program import replace as replace_nodes
from tilewright.dsl.scans import needed, with_values


@dataclass(frozen=True)
class Cut:
    """The kernels that stand for one, in order, what lies between them, and the axis of the chunks."""

    kernels: tuple[Kernel, ...]
    between: tuple[Buffer, ...]
    axis: str


def can_be_cut(kernel: Kernel) -> bool:
    """Whether a kernel has rows that are reduced or scanned and may be cut, however long they are."""
    if kernel.split and (kernel.scans or kernel.split.of == "row"):
        return False
    if any(is_chunk_axis(axis) for axis in kernel.row):  # of partial results, which are few
        return False
    return kernel.kind == "scan" or (kernel.kind == "row" and bool(kernel.phases[0].reductions))


def in_chunks(kernel: Kernel, axis: str, extents: Mapping[str, int]) -> Cut:
    """The kernel in chunks along an axis of that name, which begins with `#`."""
    return _Cutter(kernel, axis, extents).cut()


def _anew(scan: Scan) -> Scan:
    """The scan of a chunk alone."""
    return Scan(scan.which, scan.body, scan.operands, scan.axis, scan.reverse)


@dataclass(frozen=True)
class _Walk:
    """A walk over the chunks: what it reduces, which scans it finds the ends of, and what it stores.

    `finals` are stored when its reductions are finished.
    """

    reductions: tuple[Reduce, ...]
    scans: tuple[Scan, ...]
    stores: tuple[Output, ...]
    finals: tuple[Output, ...]

    @property
    def roots(self) -> tuple[Node, ...]:
        """What it computes at each position."""
        operands = (operand for scan in self.scans for operand in scan.operands)
        return (*(r.arg for r in self.reductions), *operands, *(o.node for o in self.stores))


def _later(walks: Sequence[_Walk], phases: Sequence[Phase]) -> list[Node]:
    """What some walks of a phase and the phases behind it compute."""
    return [
        node
        for computed in (*walks, *phases)
        for node in (*computed.roots, *(output.node for output in computed.finals))
    ]


class _Cutter:
    """Writes the kernels of one. `finished` are its reductions so far, read from memory, and the scans that
    are; `started` scans know what comes before their chunks. `across` is stored by the last kernel.
    """

    def __init__(self, kernel: Kernel, axis: str, extents: Mapping[str, int]):
        self.kernel = kernel
        self.axis = axis
        self.extents = extents
        self.finished: dict[Node, Node] = {}
        self.started: dict[Scan, Node] = {}
        self.across: list[Output] = []
        self.between: list[Buffer] = []
        self.kernels: list[Kernel] = []
        self.walks = 0
        self.scanned: Counter[str] = Counter()
        self.alike: dict[tuple, list[Scan]] = {}
        for scan in kernel.scans:
            self.alike.setdefault(_anew(scan).loop, []).append(scan)

    def cut(self) -> Cut:
        for number, phase in enumerate(self.kernel.phases):
            self.across += [output for output in phase.stores if output.accumulate]
            stores = [output for output in phase.stores if not output.accumulate]
            if not phase.reductions and not phase.scans:
                self.across += stores
                continue
            walks = self._walks(phase, stores)
            for place, walk in enumerate(walks):
                self._walk(walk, _later(walks[place + 1 :], self.kernel.phases[number + 1 :]))
        self._store(self.across)
        return Cut(tuple(self.kernels), tuple(self.between), self.axis)

    def _walks(self, phase: Phase, stores: Sequence[Output]) -> list[_Walk]:
        """The walks of a phase: what needs a scan waits for what comes before the chunks, if it is not known.

        Ends of scans are found as early as their operands are known, for later phases as well.
        """
        started = {_anew(scan).loop for scan in self.started}
        waits: dict[Node, float] = {}
        for node in topological((*phase.roots, *self.kernel.scans)):
            waits[node] = max((waits[a] for a in node.args), default=0)
            if isinstance(node, Reduce):
                waits[node] = 0 if node in self.finished else math.inf
            elif isinstance(node, Scan) and _anew(node).loop not in started:
                waits[node] += 1
        last = max((waits[root] for root in phase.roots), default=0)
        finished = max((waits[r.arg] for r in phase.reductions), default=last)
        return [
            _Walk(
                tuple(r for r in phase.reductions if waits[r.arg] == n),
                tuple(scan for scan in self.kernel.scans if waits[scan] == n + 1),
                tuple(stores) if n == last else (),
                phase.finals if n == finished else (),
            )
            for n in range(int(last) + 1)
        ]

    def _walk(self, walk: _Walk, later: Sequence[Node]) -> None:
        """The two kernels of a walk: partial results, then these finished, and what is left."""
        parallel, axes = self.kernel.parallel, (*self.kernel.parallel, self.axis)
        values = self._values(walk, later)
        number, self.walks = self.walks, self.walks + 1
        parts = [self._buffer(f"part {number}.{n}", axes, r.dtype) for n, r in enumerate(walk.reductions)]
        pieces = [
            Output(part, Reduce(r.combine, r.over, self._known(r.arg)))
            for part, r in zip(parts, walk.reductions, strict=True)
        ]
        groups = [self.alike[loop] for loop in dict.fromkeys(_anew(scan).loop for scan in walk.scans)]
        found = [self._ends(group) for group in groups]
        pieces += [end for ends in found for end in ends.values()]
        stores = [replace(output, node=self._known(output.node)) for output in walk.stores]
        if any(isinstance(node, Scan) for node in evaluated(o.node for o in stores)) or pieces:
            pieces += stores
        else:
            self.across += stores
        pieces += [Output(value, self._known(scan)) for scan, value in values.items()]
        self._add(axes, self.kernel.row, pieces, split=Split(self.axis, "row"))
        self.finished |= {scan: _read(value) for scan, value in values.items()}

        whole: dict[Node, Node] = {
            r: Reduce(r.combine, (self.axis,), _read(part))
            for part, r in zip(parts, walk.reductions, strict=True)
        }
        ends = [replace(o, node=replace_nodes(o.node, {**self.finished, **whole})) for o in walk.finals]
        needed_later = set(topological(later))
        for n, reduction in enumerate(walk.reductions):
            if reduction in needed_later:
                total = self._buffer(f"total {number}.{n}", parallel, reduction.dtype)
                ends.append(Output(total, whole[reduction]))
                self.finished[reduction] = _read(total)
        for group, of_chunks in zip(groups, found, strict=True):
            ends += self._begin(group, of_chunks)
        self._add(parallel, (self.axis,) if whole or groups else (), ends)

    def _values(self, walk: _Walk, later: Sequence[Node]) -> dict[Scan, Buffer]:
        """Memory for the scans that a walk computes whole and later ones need: each has its bits from one."""
        now = set(evaluated(walk.roots, finished=Reduce))
        wanted = outermost(later, lambda node: node in self.started, finished=Reduce)
        again = [scan for scan in self.kernel.scans if scan in wanted and scan in now]
        axes = (*self.kernel.parallel, *self.kernel.row)
        new = [scan for scan in again if scan not in self.finished]
        return {scan: self._buffer(f"value {len(self.between)}", axes, scan.dtype) for scan in new}

    def _ends(self, scans: Sequence[Scan]) -> dict[int, Output]:
        """The last values of scans of each chunk alone, by their numbers in the tuple."""
        scan = _anew(scans[0])
        return {
            n: Output(self._of_chunks("end", scan.body[n].dtype), self._known(scan.value(n)))
            for n in needed(scan.body, [s.which for s in scans])
        }

    def _begin(self, scans: Sequence[Scan], ends: Mapping[int, Output]) -> list[Output]:
        """What comes before each chunk, by a scan of the ends of those before."""
        outputs: list[Output] = []
        kept = tuple(ends)
        for scan in dict.fromkeys(scan.value(kept[0]) for scan in scans):
            of_kept = with_values(scan, kept)
            operands = tuple(_read(end.buffer) for end in ends.values())
            for place, n in enumerate(kept):
                upto = Scan(place, of_kept.body, operands, self.axis, False, of_kept.initial)
                buffer = self._of_chunks("start", upto.dtype)
                outputs.append(Output(buffer, upto))
                self.started[scan.value(n)] = _read(buffer) if scan.exclusive else self._before(buffer)
        return outputs

    def _before(self, buffer: Buffer) -> Node:
        """What a buffer has for the chunk before."""
        before = Map("sub", (Index(self.axis), Const(1, int64)))
        return At((self.axis,), _read(buffer), (before,))

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

    def _of_chunks(self, what: str, dtype: DType) -> Buffer:
        """Memory for a number of each chunk."""
        number, self.scanned[what] = self.scanned[what], self.scanned[what] + 1
        return self._buffer(f"{what} {number}", (*self.kernel.parallel, self.axis), dtype)

    def _buffer(self, name: str, axes: tuple[str, ...], dtype: DType) -> Buffer:
        buffer = Buffer(f"{self.kernel.name} {name}", axes, dtype)
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
        loops = {scan.loop for scan in kernel.scans}
        starts = (Start(self._over_known(scan), state) for scan, state in self.started.items())
        kernel = replace(kernel, starts=tuple(start for start in starts if start.scan.loop in loops))
        params = {p.name: p for p in self.kernel.inputs}
        params |= {b.name: Param(b.name, b.axes, b.dtype) for b in self.between}
        names = dict.fromkeys(n.param for n in kernel.nodes() if isinstance(n, Read))
        self.kernels.append(replace(kernel, inputs=tuple(params[name] for name in names)))

    def _over_known(self, scan: Scan) -> Scan:
        """The scan of operands that are known, even if it is known itself."""
        operands = tuple(map(self._known, scan.operands))
        return Scan(scan.which, scan.body, operands, scan.axis, scan.reverse, scan.initial)


def _read(buffer: Buffer) -> Read:
    return Read(buffer.name, buffer.axes, buffer.dtype)
