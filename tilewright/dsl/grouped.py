"""Ops with grouped dimensions, `Tile["(g c) w"]`, inside another op: tiles are split and joined by indexing.

    x[(g c)] → x.at(C=g · size(c) + c)              on the way in: C is the caller's axis
    y[g, o]  → y.at(g=O // size(o), o=O % size(o))  on the way out

On arrays the same is a view, and no Program has it (`op.dimensions`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tilewright.dsl.affine import shortest
from tilewright.dsl.axes import TileSpec, grouped, union
from tilewright.dsl.dtypes import int64
from tilewright.dsl.expression import Expr
from tilewright.dsl.program import Const, Index, Map, Node, Size, indexed
from tilewright.dsl.scope import Scope
from tilewright.errors import ArgumentError, AxisError

FIRST = Const(0, int64)
NEVER = Const(-1, int64)


def stated_extents(where: str, specs: Sequence[TileSpec], constants: Mapping[str, Any]) -> dict[str, int]:
    """The axes whose extents are constants of the call. Raises `ArgumentError` where one cannot be."""
    stated = {}
    for axis in sorted(frozenset().union(*(spec.factors for spec in specs)) & constants.keys()):
        extent = constants[axis]
        if isinstance(extent, bool) or not isinstance(extent, (int, np.integer)) or extent < 1:
            raise ArgumentError(
                f"{where}: {axis} is the extent of an axis, a whole number from 1 on; got {extent!r}"
            )
        stated[axis] = int(extent)
    return stated


class Splitter:
    """The tiles that an inner op is given, with one axis for each that its annotations name.

    `specs` are the annotations of those operands that are given, without axes that are 1 long; `stated` the
    extents that are constants. `whole` has the caller's axis for each group of axes that is split.
    """

    def __init__(
        self,
        specs: Mapping[str, TileSpec],
        values: Mapping[str, Expr],
        stated: Mapping[str, int],
        caller: Scope,
    ):
        self.specs = specs
        self.values = dict(values)
        self.caller = caller
        self.taken = {*caller.seen, *union(*(v.axes for v in values.values()))}
        self.sizes: dict[str, Node] = {a: Const(extent, int64) for a, extent in stated.items()}
        self.names: dict[str, str] = {}
        self.whole: dict[tuple[str, ...], str] = {}

    def split(self) -> dict[str, Expr]:
        """The tiles under the axes of their annotations' factors. Raises `AxisError`."""
        pending = []
        for name, spec in self.specs.items():
            own = self.values[name].axes
            for axes, outer in zip(spec.dimensions, own[len(own) - spec.rank :], strict=True):
                if len(axes) == 1:
                    self.sizes.setdefault(axes[0], Size(outer))
                    self.names.setdefault(axes[0], outer)
                else:
                    pending.append((name, axes, outer))
        while pending:
            later = [given for given in pending if not self._split_one(*given)]
            if len(later) == len(pending):
                unknown = [axis for axis in later[0][1] if axis not in self.sizes]
                raise AxisError(
                    f"nothing says how long {' and '.join(unknown)} in {grouped(later[0][1])} are; give the "
                    f"op a keyword-only number called {unknown[0]!r}"
                )
            pending = later
        return self.values

    def _split_one(self, name: str, axes: tuple[str, ...], outer: str) -> bool:
        unknown = [axis for axis in axes if axis not in self.sizes]
        if len(unknown) > 1:
            return False
        others = product([self.sizes[axis] for axis in axes if axis not in unknown])
        exact: Node = Map("eq", (others, Size(outer)))
        if unknown:
            exact = Map("eq", (Map("mod", (Size(outer), others)), FIRST))
            self.sizes[unknown[0]] = Map("floordiv", (Size(outer), others))
        value = self.values[name]
        here = [self._axis(axis, value, exact) for axis in axes]
        position = functools.reduce(_next_digit, here, FIRST)
        order = tuple(a for own in value.axes for a in (here if own == outer else (own,)))
        self.values[name] = Expr(indexed(value.node, {outer: position}), order)
        self.whole[axes] = outer
        return True

    def _axis(self, axis: str, value: Expr, exact: Node) -> str:
        """The caller's axis for a factor: one that a tile has alone, else a new one."""
        known = self.names.get(axis)
        if known is not None and known not in value.axes:
            return known
        name = unused(axis, self.taken)
        self.taken.add(name)
        size = self.sizes[axis]
        self.caller.extents[name] = Map("where", (exact, size, NEVER))
        self.caller.seen.add(name)
        self.names[axis] = name
        self.sizes[axis] = Size(name)
        return name


def _next_digit(position: Node, axis: str) -> Node:
    """position · size(axis) + index(axis)"""
    if position is FIRST:
        return Index(axis)
    return shortest(Map("add", (Map("mul", (position, Size(axis))), Index(axis))))


def join(
    node: Node,
    order: Sequence[str],
    dimensions: Sequence[tuple[str, ...]],
    whole: Mapping[tuple[str, ...], str],
    caller: Scope,
) -> tuple[Node, tuple[str, ...]]:
    """`node` with the axes of each of its last dimensions as one, and its order.

    `whole` has the caller's axis for groups that an operand has too; other groups become a new axis.
    """
    lead = tuple(order)[: len(order) - sum(map(len, dimensions))]
    joined = []
    for axes in dimensions:
        if len(axes) == 1:
            joined.append(axes[0])
            continue
        outer = whole.get(axes)
        if outer is None or outer in node.axes or outer in order:
            outer = unused("".join(axes) or "one", {*caller.seen, *node.axes, *order})
            caller.extents[outer] = product([Size(axis) for axis in axes])
            caller.seen.add(outer)
        node = indexed(node, digits(outer, axes)) if axes else node
        joined.append(outer)
    return node, (*lead, *joined)


def digits(outer: str, axes: Sequence[str]) -> dict[str, Node]:
    """The position along each of `axes` for a position along `outer`, the last one fastest."""
    found: dict[str, Node] = {}
    rest: Node = Index(outer)
    for axis in reversed(axes[1:]):
        found[axis] = Map("mod", (rest, Size(axis)))
        rest = Map("floordiv", (rest, Size(axis)))
    return {**found, axes[0]: rest}


def product(nodes: Sequence[Node]) -> Node:
    return functools.reduce(lambda one, two: Map("mul", (one, two)), nodes) if nodes else Const(1, int64)


def unused(axis: str, taken: set[str]) -> str:
    """`axis`, or `axis2`, `axis3` … where that name means something else already."""
    name, number = axis, 1
    while name in taken:
        number += 1
        name = f"{axis}{number}"
    return name
