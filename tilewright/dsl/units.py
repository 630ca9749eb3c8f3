"""Programs without axes that are known to be 1 long: a convolution of one group has no axis of groups."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from tilewright.dsl.axes import base
from tilewright.dsl.dtypes import int64
from tilewright.dsl.program import (
    AxisExtent,
    Const,
    Index,
    Node,
    Program,
    Read,
    Result,
    Size,
    axes_within,
    indexed,
    rewrite,
)

FIRST = Const(0, int64)
ONE = Const(1, int64)


def without_unit_axes(program: Program, units: Collection[str]) -> Program:
    """`program` with operands and results that lack the axes `units`, each of which has one position."""
    if not units:
        return program

    def is_unit(axis: str) -> bool:
        return base(axis) in units

    def kept(axes: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(a for a in axes if not is_unit(a))

    def lacking(node: Node) -> Node:
        if isinstance(node, Read):
            return Read(node.param, kept(node.names), node.type)
        if isinstance(node, Index):
            return FIRST if is_unit(node.axis) else node
        return indexed(node, {a: FIRST for a in node.axes if is_unit(a)})  # a scan or an order makes its axis

    def counted(node: Node) -> Node:
        return ONE if isinstance(node, Size) and is_unit(node.axis) else node

    roots = (*(r.node for r in program.results), *(e.size for e in program.extents))
    nodes = rewrite(rewrite(roots, lacking), counted)
    count = len(program.results)
    results = tuple(Result(r.name, n, kept(r.axes)) for r, n in zip(program.results, nodes, strict=False))
    sizes = zip(program.extents, nodes[count:], strict=True)
    extents = (AxisExtent(e.axis, size) for e, size in sizes if not is_unit(e.axis))
    left = sorted(set(map(base, axes_within(nodes))) & set(units))
    return replace(
        program,
        params=tuple(replace(p, axes=kept(p.axes)) for p in program.params),
        results=results,
        extents=(*(AxisExtent(axis, ONE) for axis in left), *extents),
    )
