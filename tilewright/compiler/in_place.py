"""Which results may be written over which operands, read off the loops of the kernels.

A result may take the memory of an operand that lies there alike (same address, shape and strides) if no
element of the operand is read once it is overwritten. Within one kernel that holds if every read of the
operand stands at the position that the result is written at, in the phase of that write or an earlier one:
a position belongs to one piece of work, which evaluates all it needs there before it stores. Kernels
that run earlier may read the operand as they like, later ones not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from tilewright.compiler.nest import Kernel, Output, Plan
from tilewright.dsl.program import Cast, Const, Index, Map, Node, Read, Reduce, Size, topological

POSITION_BY_POSITION = ("pointwise", "row", "contraction")  # the kinds of kernels that this holds for

Out = Sequence[np.ndarray | None]
"""For each result None, or the array that it is to be written to."""


def replaceable(plan: Plan) -> frozenset[tuple[str, str]]:
    """(result, operand) for every result that may be written over an operand that lies in memory alike."""
    writers = {
        output.buffer.name: (position, kernel, output)
        for position, kernel in enumerate(plan.kernels)
        for output in kernel.outputs
    }
    pairs = set()
    for result in plan.results:
        position, kernel, output = writers[result.name]
        forbidden = {p.name for later in plan.kernels[position + 1 :] for p in later.tiles}
        forbidden |= _read_elsewhere(kernel, output)
        pairs |= {(result.name, p.name) for p in plan.program.tiles if p.name not in forbidden}
    return frozenset(pairs)


def _read_elsewhere(kernel: Kernel, output: Output) -> set[str]:
    """The operands that a kernel may read at other positions, or later, than it writes an output there."""
    if kernel.kind not in POSITION_BY_POSITION or kernel.split or not _writes_once(kernel, output):
        return {p.name for p in kernel.tiles}
    before, after = _around(kernel, output)
    here, elsewhere = _reads(before)
    here_later, elsewhere_later = _reads(after)
    moved = {read.param for read in here if read.names != output.buffer.axes}
    return moved | elsewhere | elsewhere_later | {read.param for read in here_later}


def _writes_once(kernel: Kernel, output: Output) -> bool:
    """Whether the output has one element for each piece of work, or for each position of its row."""
    axes = output.buffer.axes
    every = frozenset(kernel.parallel)
    return len(set(axes)) == len(axes) and set(axes) in (every, every | set(kernel.row))


def _around(kernel: Kernel, output: Output) -> tuple[list[Node], list[Node]]:
    """What a kernel computes up to the phase that stores an output, and in the phases after it.

    A contraction goes through its sides again and again while it stores.
    """
    if kernel.contraction:
        return list(kernel.roots), [kernel.contraction.left, kernel.contraction.right]
    before: list[Node] = []
    after: list[Node] = []
    stored = False
    for phase in kernel.phases:
        roots = [*(r.arg for r in phase.reductions), *(o.node for o in (*phase.stores, *phase.finals))]
        (after if stored else before).extend(roots)
        stored = stored or output in phase.stores or output in phase.finals
    return before, after


def _reads(roots: Iterable[Node]) -> tuple[set[Read], set[str]]:
    """What is read at the position that is computed, and the operands that are read anywhere.

    What finished reductions have read below them does not count.
    """
    here: set[Read] = set()
    elsewhere: set[str] = set()
    stack, seen = list(roots), set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        match node:
            case Read():
                here.add(node)
            case Const() | Index() | Size() | Reduce():
                pass
            case Map() | Cast():
                stack.extend(node.args)
            case _:
                elsewhere |= {n.param for n in topological([node]) if isinstance(n, Read)}
    return here, elsewhere


def deliver(results: Iterable[np.ndarray], out: Out) -> tuple[np.ndarray, ...]:
    """The results in the arrays that are wanted: those that lie elsewhere are copied there."""
    delivered = []
    for result, wanted in zip(results, out, strict=True):
        if wanted is not None and wanted is not result:
            np.copyto(wanted, result)
        delivered.append(result if wanted is None else wanted)
    return tuple(delivered)
