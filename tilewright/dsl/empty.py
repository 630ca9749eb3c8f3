"""Programs for calls in which an axis has no positions.

    sum(x / z, j), j empty    → 0
    max(x, j), j empty        → -inf
    x.at(j=p)                 → 0            every position is outside
    a result over j           → 0            it has no elements

Every other pass may take each axis to have a position. That is what lets a factor leave a sum: where z is 0,
sum(x, j) / z is 0 / 0 over an empty axis, of which the sum is 0. A call knows its extents, and runs (and
differentiates) the Program that is written here, in which no value has an empty axis any more.
"""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.dsl.axes import base
from tilewright.dsl.extents import with_extents_of
from tilewright.dsl.program import At, Const, Node, Program, Reduce, Scatter, combine_identity, rewrite


def without_empty_axes(program: Program, extents: Mapping[str, int]) -> Program:
    """What `program` computes where axes have these extents; the program itself where none is 0."""
    if all(extents.values()):
        return program
    empty = {axis for axis, extent in extents.items() if extent == 0}

    def is_empty(axes: tuple[str, ...]) -> bool:
        return any(base(axis) in empty for axis in axes)

    def identity(node: Node) -> Node:
        match node:
            case Reduce() if is_empty(node.over):
                return Const(combine_identity(node.combine, node.dtype), node.dtype)
            case At() if is_empty(node.along):
                return Const(0, node.dtype)
            case Scatter() if is_empty(node.over):
                return Const(0, node.dtype)
        return node

    nodes = rewrite((result.node for result in program.results), identity)
    nonempty = program.with_results(
        Const(0, node.dtype) if is_empty(result.axes) else node
        for node, result in zip(nodes, program.results, strict=True)
    )
    return with_extents_of(program, nonempty)
