"""Phases: which loop over a row computes what. They are written again for a kernel that is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tilewright.compiler.nest import Kernel, Output, Phase, evaluated
from tilewright.dsl.program import Node, Order, Reduce, Scan, Scatter, topological
from tilewright.dsl.program import replace as replace_nodes


def write_phases(outputs: list[Output], row: tuple[str, ...]) -> tuple[Phase, ...]:
    """Which loop over the row computes what: a node's phase is the number of reductions it waits for."""
    rows = set(row)
    level: dict[Node, int] = {}
    reductions: dict[int, list[Reduce]] = {}
    for node in topological(o.node for o in outputs):
        below = max((level[a] for a in node.args), default=0)
        if isinstance(node, Reduce):
            reductions.setdefault(below, []).append(node)
            below += 1
        level[node] = below
    stores: dict[int, list[Output]] = {}
    finals: dict[int, list[Output]] = {}
    last_loop = max(reductions, default=-1)
    for output in outputs:
        in_loop = output.accumulate is not None or bool(rows & set(output.axes)) or not rows
        if in_loop:
            stores.setdefault(level[output.node], []).append(output)
        else:
            finals.setdefault(min(max(level[output.node] - 1, 0), max(last_loop, 0)), []).append(output)
    count = max([0, *stores, *reductions, *finals]) + 1
    return tuple(
        _phase(tuple(reductions.get(p, ())), tuple(stores.get(p, ())), tuple(finals.get(p, ())))
        for p in range(count)
    )


def with_nodes(kernel: Kernel, table: Mapping[Node, Node]) -> Kernel:
    """A kernel with other nodes in the place of some that it computes with; its inputs are as they were."""
    outputs = [replace(output, node=replace_nodes(output.node, table)) for output in kernel.outputs]
    contraction, own = kernel.contraction, kernel.own
    if contraction:
        left, right = (replace_nodes(side, table) for side in (contraction.left, contraction.right))
        contraction = replace(contraction, left=left, right=right)
    if own:
        own = replace_nodes(own, table)
        assert isinstance(own, (Scatter, Order))
    phases = () if contraction or own else write_phases(outputs, kernel.row)
    return replace(kernel, outputs=tuple(outputs), phases=phases, contraction=contraction, own=own)


def _phase(reductions: tuple[Reduce, ...], stores: tuple[Output, ...], finals: tuple[Output, ...]) -> Phase:
    phase = Phase(reductions, stores, finals)
    scans = {node for node in evaluated(phase.roots, finished=Reduce) if isinstance(node, Scan)}
    return replace(phase, scans=tuple(n for n in topological(phase.roots) if n in scans))
