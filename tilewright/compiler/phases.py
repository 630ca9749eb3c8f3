"""Phases: which loop over a row computes what."""

from __future__ import annotations

from dataclasses import replace

from tilewright.compiler.nest import Output, Phase, evaluated
from tilewright.dsl.program import Node, Reduce, Scan, topological


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
        in_loop = output.accumulate is not None or bool(rows & set(output.buffer.axes)) or not rows
        if in_loop:
            stores.setdefault(level[output.node], []).append(output)
        else:
            finals.setdefault(min(max(level[output.node] - 1, 0), max(last_loop, 0)), []).append(output)
    count = max([0, *stores, *reductions, *finals]) + 1
    return tuple(
        _phase(tuple(reductions.get(p, ())), tuple(stores.get(p, ())), tuple(finals.get(p, ())))
        for p in range(count)
    )


def _phase(reductions: tuple[Reduce, ...], stores: tuple[Output, ...], finals: tuple[Output, ...]) -> Phase:
    phase = Phase(reductions, stores, finals)
    scans = {node for node in evaluated(phase.roots, finished=Reduce) if isinstance(node, Scan)}
    return replace(phase, scans=tuple(n for n in topological(phase.roots) if n in scans))
