"""Where the extent of each axis comes from, and whether the operands of a call agree on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tilewright.dsl.axes import base
from tilewright.dsl.positions import everywhere
from tilewright.dsl.program import (
    AxisExtent,
    Node,
    Program,
    Result,
    SecondName,
    Size,
    axes_within,
    reads,
    topological,
)
from tilewright.errors import InternalError, ShapeError

Source = tuple[str, int]


def axis_sites(program: Program) -> dict[str, tuple[Source, ...]]:
    """Every (operand, dimension) that an axis runs along; all of them must have one extent."""
    sites: dict[str, dict[Source, None]] = {}
    for param in program.tiles:
        for dimension, axis in enumerate(param.axes):
            sites.setdefault(base(axis), {})[param.name, dimension] = None
    for read in reads(r.node for r in program.results):
        for dimension, axis in enumerate(read.names):
            sites.setdefault(base(axis), {})[read.param, dimension] = None
    return {axis: tuple(found) for axis, found in sites.items()}


def known_axes(program: Program) -> set[str]:
    """The axes that have an extent: an operand's, or an expression of others."""
    return {*axis_sites(program), *(e.axis for e in program.extents)}


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
    return {axis: declared[find(axis)] for axis in parent} | {e.axis: e.axis for e in program.extents}


def needed_axes(program: Program) -> set[str]:
    """The axes whose extents the results' shapes, positions, sizes and sums need."""
    roots = (*(r.node for r in program.results), *(e.size for e in program.extents))
    return {base(a) for a in axes_within(roots, (a for r in program.results for a in r.axes))}


def with_extents_of(original: Program, program: Program) -> Program:
    """`program`, made of `original`, with an equation for each axis that lost what told its extent.

    Where x["j d"] is gone, j is still as long as the dimension of x that it named: size(j) = size(i). An axis
    that the original computes has the original's equation.
    """
    while lost := sorted(needed_axes(program) - known_axes(program)):
        declared = declared_axes(original)
        computed = {e.axis: e for e in original.extents}
        found = (computed.get(axis) or AxisExtent(axis, Size(declared[axis])) for axis in lost)
        program = replace(program, extents=_in_order((*found, *program.extents)))
    return program


def _in_order(equations: Sequence[AxisExtent]) -> tuple[AxisExtent, ...]:
    """Equations behind those for the axes that they name."""
    by_axis = {e.axis: e for e in equations}
    ordered: dict[str, AxisExtent] = {}

    def add(equation: AxisExtent) -> None:
        for axis in map(base, axes_within([equation.size])):
            if axis in by_axis and axis not in ordered:
                add(by_axis[axis])
        ordered.setdefault(equation.axis, equation)

    for equation in equations:
        add(equation)
    return tuple(ordered.values())


def used_extents(results: Sequence[Result], extents: Mapping[str, Node]) -> tuple[AxisExtent, ...]:
    """Those of the declared axes on which the results, or other extents that they need, depend."""
    needed: set[str] = set()
    pending = [base(a) for r in results for a in axes_within([r.node], r.axes)]
    while pending:
        axis = pending.pop()
        if axis in extents and axis not in needed:
            needed.add(axis)
            pending.extend(base(a) for a in axes_within([extents[axis]]))
    return tuple(AxisExtent(axis, size) for axis, size in extents.items() if axis in needed)


def bind_extents(program: Program, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The extent of every axis for operands of these shapes; raises `ShapeError` where two disagree."""
    extents: dict[str, int] = {}
    wrong: list[ShapeError] = []
    for axis, sites in axis_sites(program).items():
        first, *others = sites
        extent = shapes[first[0]][first[1]]
        for name, dimension in others:
            if shapes[name][dimension] != extent:
                told = (
                    f"op {program.name!r}: axis {axis!r} is {extent} in {first[0]} (shape "
                    f"{shapes[first[0]]}) but "
                    f"{shapes[name][dimension]} in {name} (shape {shapes[name]}); they must be equal"
                )
                wrong.append(ShapeError(told))
        extents[axis] = extent
    for declared in program.extents:
        extent = _computed(program, declared, extents)
        if extents.setdefault(declared.axis, extent) != extent:
            told = (
                f"op {program.name!r}: axis {declared.axis!r} is {extents[declared.axis]} in an operand but "
                f"{extent} positions are computed: {_in_words(declared, extents)}"
            )
            wrong.append(ShapeError(told))
            extents[declared.axis] = extent
    for second in program.second_names:  # they say the line, so they speak first
        _check_second_name(program, second, extents)
    if wrong:
        raise wrong[0]
    return extents


def _check_second_name(program: Program, second: SecondName, extents: Mapping[str, int]) -> None:
    """Whether an axis is as long as the one that a value was read along in its place."""
    axes = {base(axis) for axis in axes_within([second.size], (second.axis,))}
    if not axes <= extents.keys():
        return
    own, other = (
        _computed(program, AxisExtent(second.first, second.size), extents),
        extents[base(second.axis)],
    )
    if own != other:
        raise ShapeError(
            f"{second.line + ': ' if second.line else ''}op {program.name!r}: a tile along {second.first!r}, "
            f"which has {own} positions, is read along {second.axis!r}, which has {other}; they must be "
            f"equal. To read it at other positions write y.at({second.first}=…)"
        )


def _computed(program: Program, declared: AxisExtent, extents: Mapping[str, int]) -> int:
    value = everywhere(declared.size, extents)
    if value is None:
        raise InternalError(f"an extent cannot be computed from {declared.size!r}")
    extent = int(value)
    if extent >= 0:
        return extent
    raise ShapeError(
        f"op {program.name!r}: the axis {declared.axis!r} would have {extent} positions: "
        f"{_in_words(declared, extents)}; pass larger operands, or write the extent as tw.maximum(…, 0)"
    )


def _in_words(declared: AxisExtent, extents: Mapping[str, int]) -> str:
    from tilewright.dsl.formula import formula

    sizes = {n.axis for n in topological([declared.size]) if isinstance(n, Size)}
    given = ", ".join(f"size({axis}) = {extents[base(axis)]}" for axis in sorted(sizes))
    return f"{formula(declared.size)}" + (f" where {given}" if given else "")


def result_shapes(program: Program, shapes: Mapping[str, tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """The shape of each result for operands of these shapes."""
    extents = bind_extents(program, shapes)
    return tuple(tuple(extents[base(a)] for a in r.axes) for r in program.results)
