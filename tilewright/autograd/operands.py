"""Which operands a derivative Program takes, and how its axes get their extents."""

from __future__ import annotations

from tilewright.dsl.axes import base, fresh
from tilewright.dsl.extents import axis_sites
from tilewright.dsl.program import (
    Index,
    Node,
    Param,
    Program,
    Reduce,
    Result,
    Size,
    rename,
    rewrite,
    topological,
)
from tilewright.dsl.program import reads as reads_of


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
    program = Program(name, tuple(p for p in params if p.name in read), results)
    unknown = _needed_axes(program) - set(axis_sites(program))
    if not unknown:
        return program
    declared = declared_axes(original)
    program = _under_declared_names(program, {a: declared[a] for a in unknown if declared[a] != a})
    missing = _needed_axes(program) - set(axis_sites(program))
    for param in params:
        if missing & set(param.axes):
            read.add(param.name)
            missing -= set(param.axes)
    return Program(name, tuple(p for p in params if p.name in read), program.results)


def declared_axes(program: Program) -> dict[str, str]:
    """Every axis with the first declared axis of the same extent: the axes of a dimension are one class."""
    by_site: dict[tuple[str, int], str] = {}
    parent: dict[str, str] = {}

    def find(axis: str) -> str:
        while parent[axis] != axis:
            axis = parent[axis]
        return axis

    for axis, sites in axis_sites(program).items():
        parent.setdefault(axis, axis)
        for site in sites:
            other = find(by_site.setdefault(site, axis))
            parent[find(axis)] = other
    declared: dict[str, str] = {}
    for param in program.tiles:
        for axis in param.axes:
            declared.setdefault(find(base(axis)), axis)
    return {axis: declared[find(axis)] for axis in parent}


def _needed_axes(program: Program) -> set[str]:
    """The axes whose extents the results' shapes, positions, sizes and sums need."""
    needed = {base(a) for r in program.results for a in r.axes}
    for node in topological(r.node for r in program.results):
        if isinstance(node, (Index, Size)):
            needed.add(base(node.axis))
    return needed


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
