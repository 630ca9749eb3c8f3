"""Kernels in words: what one does in each phase, and why it is a kernel of its own.

row kernel softmax_0
  for each _0, on all threads: the row d, in 3 phases
    1  max1 = max(x, d)
    2  sum1 = sum(exp(x - max1), d)
    3  y = exp(x - max1) / sum1
  why: …
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from tilewright.compiler.chunks import is_chunk_axis
from tilewright.compiler.nest import ACCUMULATOR, Contraction, Kernel, Phase, indexed_reads
from tilewright.dsl.formula import formula, word
from tilewright.dsl.program import Node, Program, Read, Reduce, Result, Scan, Scatter, topological
from tilewright.op.costs import axis_label

Extents = Mapping[str, int]
FINISHED_SUM = "acc"


def heading(kernel: Kernel) -> str:
    return f"{kernel.kind} kernel {kernel.name}"


def loops(kernel: Kernel, extents: Extents) -> str:
    """The loops, outermost first, with their extents."""
    parallel = _axes(kernel.parallel, extents)
    if kernel.contraction:
        return _contraction_loops(kernel.contraction, extents)
    if kernel.scatter:
        places, summed = _axes(kernel.scatter.along, extents), _axes(kernel.row, extents)
        each = f"for each {parallel}: " if parallel else ""
        return f"{each}{places} start at 0, then one pass over {summed} adds each value at its place"
    if not kernel.row:
        return f"for each of {parallel}, in any order" if parallel else "once"
    count = len(kernel.phases)
    times = "one pass" if count == 1 else f"{count} phases"
    row = _axes(kernel.row, extents)
    if any(scan.reverse for scan in kernel.scans):
        row += " from its end"
    if kernel.split and kernel.split.of == "parallel":
        return f"for each group of rows {parallel}: for each row, {times} over {row}"
    if kernel.split:
        return f"for each of {_axes((kernel.split.axis,), extents)}: {times} over its part of {row}"
    return f"for each row {parallel}: {times} over {row}" if parallel else f"{times} over {row}"


def _axes(axes: Iterable[str], extents: Extents) -> str:
    return " × ".join(_axis(a, extents) for a in axes)


def _axis(axis: str, extents: Extents) -> str:
    extent = extents.get(axis.rstrip("'"))
    label = axis_label(axis)
    if extent is None:
        return label
    return f"{extent} {label}" if is_chunk_axis(axis) else f"{label}={extent}"


def _contraction_loops(contraction: Contraction, extents: Extents) -> str:
    batch = f"for each of {_axes(contraction.batch, extents)}: " if contraction.batch else ""
    m, n, k = (_axes(axes, extents) for axes in (contraction.m, contraction.n, contraction.k))
    return f"{batch}tiles of {m} by {n}, each summed over {k}"


# --- the mathematics of a kernel --------------------------------------------------------------------------


def steps(kernel: Kernel, kept: Mapping[Node, int] | None = None) -> Iterator[tuple[str, list[str]]]:
    """Each phase with its formulas; values in `kept` are named where they are computed and known later."""
    if kernel.contraction:
        yield from _contraction_steps(kernel, kernel.contraction)
        return
    if kernel.scatter:
        results = [Result(o.buffer.name, kernel.scatter, o.buffer.axes) for o in kernel.outputs]
        yield "add", _lines(kernel, results, {})
        return
    names: dict[Node, str] = {}
    taken = {p.name for p in kernel.inputs} | {o.buffer.name for o in kernel.outputs}
    results = {o.node: o.buffer.name for o in kernel.outputs}
    order = kernel.nodes()
    for number, phase in enumerate(kernel.phases):
        inside: dict[Node, str] = {s: results.get(s) or _new_name(word(s), taken) for s in phase.scans}
        inside |= {r: results.get(r) or _new_name(r.combine, taken) for r in phase.reductions}
        inside |= {n: _new_name("kept", taken) for n in order if (kept or {}).get(n) == number}
        lines = _lines(kernel, [Result(name, node, node.axes) for node, name in inside.items()], names)
        names |= inside
        yield str(number + 1), [*lines, *_output_lines(kernel, phase, names)]


def _output_lines(kernel: Kernel, phase: Phase, names: Mapping[Node, str]) -> list[str]:
    outputs = [*phase.stores, *phase.finals]
    known = [o for o in outputs if o.node in names]
    lines = _lines(
        kernel, [Result(o.buffer.name, o.node, o.buffer.axes) for o in outputs if o not in known], names
    )
    lines += [f"{o.buffer.name} = {names[o.node]}" for o in known if o.buffer.name != names[o.node]]
    partial = {o.buffer.name: _STEPS[o.accumulate] for o in outputs if o.accumulate}
    return [_accumulating(line, partial) for line in lines]


_STEPS = {"sum": "+=", "prod": "*=", "max": "max=", "min": "min=", "any": "|=", "all": "&="}


def _accumulating(line: str, partial: Mapping[str, str]) -> str:
    name, _, value = line.partition(" = ")
    return f"{name} {partial[name]} {value}" if name in partial else line


def _lines(kernel: Kernel, results: list[Result], names: Mapping[Node, str]) -> list[str]:
    if not results:
        return []
    text = formula(Program(kernel.name, kernel.inputs, tuple(results)), names)
    for axis in filter(is_chunk_axis, kernel.axes()):
        text = text.replace(axis, axis_label(axis))
    return text.split("\n")


def _new_name(word: str, taken: set[str]) -> str:
    number = 1
    while f"{word}{number}" in taken:
        number += 1
    taken.add(f"{word}{number}")
    return f"{word}{number}"


def _contraction_steps(kernel: Kernel, contraction: Contraction) -> Iterator[tuple[str, list[str]]]:
    sides = {"left": contraction.left, "right": contraction.right}
    computed = [Result(name, node, node.axes) for name, node in sides.items() if not isinstance(node, Read)]
    if computed:
        yield "pack", _lines(kernel, computed, {})
    left, right = (formula(node) if isinstance(node, Read) else name for name, node in sides.items())
    yield "sum", [f"{FINISHED_SUM} = sum({left} * {right}, {' '.join(contraction.k)})"]
    accumulator = Read(ACCUMULATOR, contraction.root.axes, contraction.root.dtype)
    results = [Result(o.buffer.name, o.node, o.buffer.axes) for o in kernel.outputs]
    yield "end", _lines(kernel, results, {accumulator: FINISHED_SUM})


# --- why --------------------------------------------------------------------------------------------------


def reasons(kernel: Kernel, extents: Extents, around: Sequence[Kernel]) -> Iterator[str]:
    """Why the kernel is what it is. around: all kernels of its plan."""
    if kernel.contraction:
        yield from _contraction_reasons(kernel, kernel.contraction)
    elif kernel.scatter:
        yield from _scatter_reasons(kernel, kernel.scatter)
    elif kernel.split:
        yield from _split_reasons(kernel, extents)
    elif any(is_chunk_axis(a) for a in kernel.row):
        yield (
            f"finishes a reduction in two steps: adds up the {_axes(kernel.row, extents)} in their order, so "
            f"that the result has the same bits for every number of threads"
        )
    elif kernel.scans:
        yield from _scan_reasons(kernel)
    elif kernel.row:
        yield from _row_reasons(kernel)
    else:
        yield "no reduction: every position is computed on its own, in one pass over memory"
    yield from _indexing_reasons(kernel)
    yield from _memory_reasons(kernel, around)


def _contraction_reasons(kernel: Kernel, contraction: Contraction) -> Iterator[str]:
    yield (
        f"a contraction: both factors run along the summed {_names(contraction.k)} (k); "
        f"{_names(contraction.m)} (m) is on the left alone and {_names(contraction.n)} (n) on the right alone"
        + (f", {_names(contraction.batch)} (batch) on both" if contraction.batch else "")
    )
    for side, node in (("left", contraction.left), ("right", contraction.right)):
        if not isinstance(node, Read):
            yield f"the {side} factor is computed while it is packed, and never written to memory"
    stored = [o for o in kernel.outputs if o.node is not Read(ACCUMULATOR, o.node.axes, o.node.dtype)]
    if stored:
        names = ", ".join(o.buffer.name for o in stored)
        yield f"what follows the sum ({names}) is applied to the finished tile in registers, then stored"


def _scatter_reasons(kernel: Kernel, scatter: Scatter) -> Iterator[str]:
    yield (
        f"where a value is added along {_names(scatter.along)} is computed, so no formula says what a place "
        f"is made of: every place belongs to one thread or program, which adds up what falls there in the "
        f"order of {_names(kernel.row)} (no atomics); positions outside add nothing"
    )


def _indexing_reasons(kernel: Kernel) -> Iterator[str]:
    """What is read at computed positions."""
    found: dict[str, dict[str, None]] = {}
    for node in indexed_reads(kernel):
        for read in (n for n in (node.arg,) if isinstance(n, Read)):
            found.setdefault(read.param, {}).update(dict.fromkeys(node.along))
    for name, axes in found.items():
        yield f"reads {name} at computed positions along {_names(axes)}; outside it is 0, and not touched"


def _memory_reasons(kernel: Kernel, around: Sequence[Kernel]) -> Iterator[str]:
    """What comes from other kernels, and what is computed for several that could compute it themselves."""
    writers = {o.buffer.name: k.name for k in around for o in k.outputs}
    for name in dict.fromkeys(p.name for p in kernel.tiles if p.name in writers):
        yield f"reads {name}, which {writers[name]} leaves in memory"
    for output in kernel.outputs:
        name = output.buffer.name
        readers = [k.name for k in around if k.contraction and name in {p.name for p in k.tiles}]
        loops = any(isinstance(node, (Reduce, Scan)) for node in topological([output.node]))
        if len(readers) > 1 and not (kernel.contraction or kernel.own or loops):
            yield f"computes {name} for {' and '.join(readers)}, which would each compute it again"


def _split_reasons(kernel: Kernel, extents: Extents) -> Iterator[str]:
    assert kernel.split is not None
    chunks = _axes((kernel.split.axis,), extents)
    if kernel.split.of == "row":
        yield (
            f"a reduction of everything, cut into {chunks} so that all threads work; a second kernel "
            f"finishes it. The number depends on the shapes alone, not on threads: the same bits every time"
        )
        return
    partial = ", ".join(o.buffer.name for o in kernel.outputs if o.accumulate)
    yield (
        f"{partial} adds up across the rows, which other threads have: each of the {chunks} adds up its own, "
        f"next to the rows' own results, so that the data is read once; a second kernel finishes (no atomics)"
    )


def _row_reasons(kernel: Kernel) -> Iterator[str]:
    waiting = sum(1 for phase in kernel.phases if phase.reductions)
    yield (
        f"its reductions run along {_names(kernel.row)} and everything else has the same rows, so one thread "
        f"finishes a row while it is in the cache: memory is read once"
    )
    if len(kernel.phases) > 1:
        ends = f"{waiting} reduction{'s' * (waiting > 1)}"
        count = len(kernel.phases)
        yield f"a new phase begins where a value needs a finished reduction: {ends} in turn, {count} phases"


def _scan_reasons(kernel: Kernel) -> Iterator[str]:
    carried = len({scan.loop for scan in kernel.scans})
    yield (
        f"a scan: what stands at a position of {_names(kernel.row)} depends on all before it, so one thread "
        f"or program walks a row{'' if carried == 1 else f', {carried} scans at a time'}, and whatever "
        f"follows at the same position is stored in the same walk; on a GPU many programs share a long row "
        f"if there are few, each its own part, which it walks once more when the parts before are known"
    )
    if len(kernel.phases) > 1:
        yield f"a new phase begins where a value needs a finished reduction: {len(kernel.phases)} phases"


def _names(axes: Iterable[str]) -> str:
    return " ".join(axis_label(a) for a in axes)


def operands(kernel: Kernel) -> tuple[str, str]:
    """What is read and what is written, by name."""
    read = ", ".join(p.name for p in kernel.inputs) or "nothing"
    return read, ", ".join(o.buffer.name for o in kernel.outputs)
