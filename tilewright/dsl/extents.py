"""Where the extent of each axis comes from, and whether the operands of a call agree on it."""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.dsl.axes import base
from tilewright.dsl.program import Program, reads
from tilewright.errors import ShapeError

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


def extent_sources(program: Program) -> dict[str, Source]:
    """One (operand, dimension) for each axis, from which its extent is read at run time."""
    return {axis: sites[0] for axis, sites in axis_sites(program).items()}


def bind_extents(program: Program, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The extent of every axis for operands of these shapes; raises `ShapeError` where two disagree."""
    extents: dict[str, int] = {}
    for axis, sites in axis_sites(program).items():
        first, *others = sites
        extent = shapes[first[0]][first[1]]
        for name, dimension in others:
            if shapes[name][dimension] != extent:
                raise ShapeError(
                    f"op {program.name!r}: axis {axis!r} is {extent} in {first[0]} (shape "
                    f"{shapes[first[0]]}) but "
                    f"{shapes[name][dimension]} in {name} (shape {shapes[name]}); they must be equal"
                )
        extents[axis] = extent
    return extents
