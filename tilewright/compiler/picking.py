"""A sum of which one term is left is a read at its position.

    Σ_c where(index(c) = p, v, 0)    →  v.at(c=p), which is 0 where p is no position along c

A row is not walked for one of its values.
"""

from __future__ import annotations

from tilewright.dsl.program import (
    At,
    Cast,
    Const,
    Index,
    Map,
    Node,
    Program,
    Read,
    Reduce,
    Size,
    reduced,
    rewrite,
)

_CHEAP = (Read, Index, Const, Size, Map, Cast, At)


def pick(program: Program) -> Program:
    """`program` with such sums as reads; where the value would have to be stored first, the sum stays."""
    roots = tuple(r.node for r in program.results)
    picked = rewrite(roots, _picked)
    return program if picked == roots else program.with_results(picked)


def _picked(node: Node) -> Node:
    if not isinstance(node, Reduce) or node.combine != "sum":
        return node
    match node.arg:
        case Map(function="where", operands=(Map(function="eq", operands=sides), value, Const(value=0))):
            for one, other in (sides, sides[::-1]):
                if isinstance(one, Index) and one.axis in node.over and _is_read(value, one.axis, other):
                    rest = tuple(a for a in node.over if a != one.axis)
                    found = At((one.axis,), value, (other,))
                    return reduced("sum", rest, found) if rest else found
    return node


def _is_read(value: Node, axis: str, position: Node) -> bool:
    """Whether `value` is computed from operands one by one, and `position` the same all along the axis."""
    if axis not in value.axes or axis in position.axes:
        return False
    stack = [value]
    while stack:
        node = stack.pop()
        if axis in node.axes:
            if not isinstance(node, _CHEAP) or (isinstance(node, At) and not isinstance(node.arg, Read)):
                return False
            stack.extend(node.args)
    return True
