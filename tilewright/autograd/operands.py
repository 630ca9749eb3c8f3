"""Which operands a derivative Program takes, and how its axes get their extents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tilewright.dsl.axes import base, fresh
from tilewright.dsl.extents import axis_sites, declared_axes, known_axes, needed_axes, used_extents
from tilewright.dsl.program import Node, Param, Program, Reduce, Result, Size, axes_within, rewrite
from tilewright.dsl.program import reads as reads_of
from tilewright.dsl.renaming import rename


def fresh_name(name: str, taken: set[str]) -> str:
    """`name`, or with the first number from 2 that makes it new; it is added to `taken`."""
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate


def close(
    original: Program, name: str, params: tuple[Param, ...], keep: set[str], results: tuple[Result, ...]
) -> Program:
    """A Program of those `params` that are read, that are in `keep`, or that an axis extent is known from.

    An axis that only a read of the original named (`x["j d"]` gives j the extent of x's first dimension)
    takes the declared name when that read is gone: mean(x["j d"], "j") divides by size(j), its gradient by
    size(i).
    """
    read = {r.param for r in reads_of(r.node for r in results)} | keep
    declared = declared_axes(original)
    program = Program(name, tuple(p for p in params if p.name in read), results)
    program = _without_idle_equations(_with_extents(program, original, declared))
    unknown = needed_axes(program) - known_axes(program)
    if not unknown:
        return program
    program = _under_declared_names(program, {a: declared[a] for a in unknown if declared[a] != a})
    missing = needed_axes(program) - known_axes(program)
    for param in params:
        if missing & set(param.axes):
            read.add(param.name)
            missing -= set(param.axes)
    return replace(program, params=tuple(p for p in params if p.name in read))


def _with_extents(program: Program, original: Program, declared: Mapping[str, str]) -> Program:
    """`program` with the extents of the original that it needs, written with the sizes of declared axes."""
    sizes = {e.axis: _declared_sizes(e.size, declared) for e in original.extents}
    return replace(program, extents=used_extents(program.results, sizes))


def _without_idle_equations(program: Program) -> Program:
    """`program` without those equations for extents that would keep an operand alive for their sake alone."""
    own = set(axis_sites(program))
    kept = []
    for declared in program.extents:
        if declared.axis not in own or set(map(base, axes_within([declared.size]))) <= own:
            kept.append(declared)
            own.add(declared.axis)
    return replace(program, extents=tuple(kept))


def _declared_sizes(size: Node, declared: Mapping[str, str]) -> Node:
    def step(node: Node) -> Node:
        return Size(declared.get(node.axis, node.axis)) if isinstance(node, Size) else node

    return rewrite([size], step)[0]


def _under_declared_names(program: Program, names: dict[str, str]) -> Program:
    """`program` with the axes in `names`, which occur only in sizes and under sums, renamed."""

    def step(node: Node) -> Node:
        if isinstance(node, Size) and base(node.axis) in names:
            return Size(names[base(node.axis)])
        if isinstance(node, Reduce) and any(base(a) in names for a in node.over):
            return _rename_bound(node, names)
        return node

    return program.with_results(rewrite((r.node for r in program.results), step))


def _rename_bound(node: Reduce, names: dict[str, str]) -> Node:
    taken = set(node.arg.axes)
    bound: dict[str, str] = {}
    for axis in node.over:
        if base(axis) in names:
            bound[axis] = fresh(names[base(axis)], taken)
            taken.add(bound[axis])
    return Reduce(node.combine, tuple(bound.get(a, a) for a in node.over), rename(node.arg, bound))
