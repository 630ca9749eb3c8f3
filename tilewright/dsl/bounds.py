"""Where a whole-number expression can lie for known extents: interval arithmetic.

`x.at(h=oh + r)` never leaves the axis `h` when size(oh) + size(r) - 2 < size(h); a target that can prove so
for the extents of a call reads without asking.
"""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.dsl.affine import affine
from tilewright.dsl.axes import base
from tilewright.dsl.dtypes import int64
from tilewright.dsl.program import At, Cast, Const, Index, Map, Node, Size, topological

Extents = Mapping[str, int]
Interval = tuple[int, int]
WRAPS = 2**63


def stays_inside(node: At, axis: str, extents: Extents) -> bool:
    """Whether the position along `axis` is one that the operand has, wherever `node` is evaluated."""
    position = dict(zip(node.along, node.positions, strict=True))[axis]
    if any(extents[base(a)] == 0 for a in node.axes):
        return True
    found = bounds(position, extents)
    return found is not None and found[0] >= 0 and found[1] < extents[base(axis)]


def bounds(root: Node, extents: Extents) -> Interval | None:
    """The smallest and the largest value that an int64 node can have, both perhaps out of reach; None where
    nothing is known. No axis that it runs along is empty.
    """
    known: dict[Node, Interval | None] = {}
    for node in topological([root]):
        found = _bounds(node, known, extents)
        wraps = found is not None and not -WRAPS <= found[0] <= found[1] < WRAPS
        known[node] = None if wraps else found
    return known[root]


def largest(size: Node | None) -> int | None:
    """The largest number that a size can be in any call, if there is one."""
    if isinstance(size, Const):
        return int(size.value)
    if isinstance(size, Map) and size.function == "minimum":
        return min((n for n in map(largest, size.operands) if n is not None), default=None)
    return None


def _bounds(node: Node, known: Mapping[Node, Interval | None], extents: Extents) -> Interval | None:
    match node:
        case Const() if not node.dtype.is_float:
            return int(node.value), int(node.value)
        case Index():
            return 0, extents[base(node.axis)] - 1
        case Size():
            return extents[base(node.axis)], extents[base(node.axis)]
        case Cast() if node.dtype == int64 and not node.arg.dtype.is_float:
            return known[node.arg]
        case Map() if node.dtype == int64 and node.function in ("add", "sub", "neg", "mul"):
            return _of_sum(node, known, extents)
        case Map() if node.dtype == int64:
            return _of_function(node, [known[a] for a in node.operands])
    return None


def _of_sum(node: Map, known: Mapping[Node, Interval | None], extents: Extents) -> Interval | None:
    """Terms that cancel do so first: oh + r - oh is r."""
    form = affine(node)
    if node in form.terms:
        return _of_function(node, [known[a] for a in node.operands])
    low = high = form.constant
    for term, coefficient in form.terms.items():
        found = known.get(term) or bounds(term, extents)
        if found is None:
            return None
        ends = found[0] * coefficient, found[1] * coefficient
        low, high = low + min(ends), high + max(ends)
    return low, high


def _of_function(node: Map, operands: list[Interval | None]) -> Interval | None:
    match node.function, operands:
        case "mul", [(a, b), (c, d)]:
            products = (a * c, a * d, b * c, b * d)
            return min(products), max(products)
        case "minimum", [(a, b), (c, d)]:
            return min(a, c), min(b, d)
        case "maximum", [(a, b), (c, d)]:
            return max(a, c), max(b, d)
        case "abs", [(a, b)]:
            return (0 if a <= 0 <= b else min(abs(a), abs(b))), max(abs(a), abs(b))
        case "floordiv", [(a, b), (c, d)] if c > 0:
            quotients = (a // c, a // d, b // c, b // d)
            return min(quotients), max(quotients)
        case "mod", [(a, b), (c, d)] if c > 0:
            return (a, b) if a >= 0 and b < c else (0, d - 1)
        case "where", [_, (a, b), (c, d)]:
            return min(a, c), max(b, d)
    return None
