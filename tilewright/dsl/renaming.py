"""Axes under other names; one that a reduction or indexing binds steps aside for a new name like its own."""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.dsl.axes import fresh, union
from tilewright.dsl.dtypes import bool_
from tilewright.dsl.program import At, Const, Index, Map, Node, Order, Read, Reduce, Scan, Scatter


def rename(root: Node, names: Mapping[str, str]) -> Node:
    """`root` with free axes renamed; axes bound by a reduction inside step aside where they would clash."""
    names = {old: new for old, new in names.items() if old != new}
    return _rename(root, names, {}) if names else root


def _rename(node: Node, names: Mapping[str, str], memo: dict[tuple, Node]) -> Node:
    relevant = {old: new for old, new in names.items() if old in node.axes}
    if not relevant:
        return node
    key = (node, tuple(sorted(relevant.items())))
    if key in memo:
        return memo[key]
    if isinstance(node, Read):
        result: Node = Read(node.param, tuple(relevant.get(a, a) for a in node.names), node.type)
    elif isinstance(node, Index):
        result = Index(relevant[node.axis])
    elif isinstance(node, Reduce):
        result = _rename_reduce(node, relevant, memo)
    elif isinstance(node, Order):
        arg = _rename(node.arg, relevant, memo)
        result = Order(relevant.get(node.axis, node.axis), node.descending, arg)
    elif isinstance(node, At):
        result = _rename_at(node, relevant, memo)
    elif isinstance(node, Scatter):
        result = _rename_scatter(node, relevant, memo)
    elif isinstance(node, Scan):
        result = _rename_scan(node, relevant, memo)
    else:
        result = node.with_args(tuple(_rename(a, relevant, memo) for a in node.args))
    memo[key] = result
    return result


def _rename_reduce(node: Reduce, names: Mapping[str, str], memo: dict[tuple, Node]) -> Node:
    bound = _stepping_aside(node.over, names, node.arg.axes)
    arg = _rename(node.arg, {**names, **bound}, memo)
    return Reduce(node.combine, tuple(bound.get(a, a) for a in node.over), arg)


def _rename_at(node: At, names: Mapping[str, str], memo: dict[tuple, Node]) -> Node:
    bound = _stepping_aside(node.along, names, node.arg.axes)
    inner = {old: new for old, new in names.items() if old not in node.along}
    arg = _rename(node.arg, {**inner, **bound}, memo)
    positions = tuple(_rename(p, names, memo) for p in node.positions)
    return At(tuple(bound.get(a, a) for a in node.along), arg, positions)


def _rename_scatter(node: Scatter, names: Mapping[str, str], memo: dict[tuple, Node]) -> Node:
    inside = union(node.arg.axes, *(p.axes for p in node.positions))
    bound = _stepping_aside(node.over, names, inside)
    inner = {**{old: new for old, new in names.items() if old not in node.along}, **bound}
    along = tuple(names.get(a, a) for a in node.along)
    over = tuple(bound.get(a, a) for a in node.over)
    arg, *positions = (_rename(part, inner, memo) for part in node.args)
    return Scatter(along, over, arg, tuple(positions))


def _rename_scan(node: Scan, names: Mapping[str, str], memo: dict[tuple, Node]) -> Node:
    """A scan's axis that takes the name of another of its axes: the diagonal of the scan, by a sum."""
    axis = names.get(node.axis, node.axis)
    others = {names.get(a, a) for a in node.axes if a != node.axis}
    if axis in others:
        apart = fresh(axis, {*node.axes, *names.values()})
        scan = _rename_scan(node, {**names, node.axis: apart}, memo)
        return diagonal(scan, axis, apart)
    operands = tuple(_rename(a, names, memo) for a in node.operands)
    return Scan(node.which, node.body, operands, axis, node.reverse, node.initial)


def _stepping_aside(
    bound: tuple[str, ...], names: Mapping[str, str], inside: tuple[str, ...]
) -> dict[str, str]:
    """New names for bound axes where one that arrives has theirs."""
    arrivals = set(names.values())
    taken = set(inside) | arrivals
    table = {}
    for axis in bound:
        if axis in arrivals:
            table[axis] = fresh(axis, taken)
            taken.add(table[axis])
    return table


def diagonal(node: Node, axis: str, other: str) -> Node:
    """The values of `node` where its position along `other` is that along `axis`."""
    here = Map("eq", (Index(axis), Index(other)))
    chosen = Map("where", (here, node, Const(0, node.dtype)))
    return Reduce("any" if node.dtype == bool_ else "sum", (other,), chosen)
