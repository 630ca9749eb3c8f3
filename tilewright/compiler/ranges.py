"""Between which bounds whole numbers lie, for the extents of a call: what index arithmetic may rely on.

A position `oh + r` of a convolution without padding is never outside; one of `oh · 2 + r - 1` may be below
zero but is far below 2³¹. Such facts let a target leave out tests and use narrow arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tilewright.dsl.axes import base
from tilewright.dsl.dtypes import DType, bool_
from tilewright.dsl.program import Cast, Const, Index, Map, Node, Size, topological

Extents = Mapping[str, int]

ARITHMETIC = frozenset({"add", "sub", "mul", "neg", "abs", "minimum", "maximum", "floordiv", "mod"})
UNKNOWN = 2**62  # an extent that no array has
COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})


@dataclass(frozen=True)
class Range:
    """All whole numbers from `low` to `high`."""

    low: int
    high: int

    @staticmethod
    def around(values: Iterable[int]) -> Range:
        values = tuple(values)
        return Range(min(values), max(values))

    def within(self, other: Range) -> bool:
        return other.low <= self.low and self.high <= other.high

    def times(self, other: Range) -> Range:
        """The products of one number of each."""
        return Range.around(x * y for x in (self.low, self.high) for y in (other.low, other.high))


def everything(dtype: DType) -> Range:
    return Range(0, 1) if dtype == bool_ else Range(*dtype.range)


def ranges(roots: Iterable[Node], extents: Extents) -> dict[Node, Range]:
    """The range of every whole number and bool under `roots`."""
    found: dict[Node, Range] = {}
    for node in topological(roots):
        if not node.dtype.is_float:
            value, whole = _range(node, found, extents), everything(node.dtype)
            found[node] = value if value.within(whole) else whole
    return found


def range_for_any_extents(root: Node) -> Range:
    """The range of a whole number or bool, whatever the extents of the call."""
    return ranges([root], _Unknown())[root]


class _Unknown(dict[str, int]):
    """Extents that may be anything."""

    def __missing__(self, axis: str) -> int:
        return UNKNOWN


def _range(node: Node, known: Mapping[Node, Range], extents: Extents) -> Range:
    match node:
        case Const():
            return Range(int(node.value), int(node.value))
        case Index():
            return Range(0, max(0, extents[base(node.axis)] - 1))
        case Size():
            return Range(extents[base(node.axis)], extents[base(node.axis)])
        case Cast() if node.arg in known:
            return known[node.arg]
        case Map() if node.function == "where":
            one, other = (known[a] for a in node.operands[1:])
            return Range.around((one.low, one.high, other.low, other.high))
        case Map() if node.function in ARITHMETIC:
            return _arithmetic(node.function, [known[a] for a in node.operands])
        case Map() if node.function in COMPARISONS and all(a in known for a in node.operands):
            return _comparison(node.function, *(known[a] for a in node.operands))
        case Map() if node.function in ("and", "or") and node.dtype == bool_:
            one, other = (known[a] for a in node.operands)
            choose = min if node.function == "and" else max
            return Range(choose(one.low, other.low), choose(one.high, other.high))
    return everything(node.dtype)


def _arithmetic(function: str, operands: list[Range]) -> Range:
    a, b = operands[0], operands[-1]
    match function:
        case "add":
            return Range(a.low + b.low, a.high + b.high)
        case "sub":
            return Range(a.low - b.high, a.high - b.low)
        case "neg":
            return Range(-a.high, -a.low)
        case "abs":
            least = 0 if a.low <= 0 <= a.high else min(abs(a.low), abs(a.high))
            return Range(least, max(abs(a.low), abs(a.high)))
        case "minimum":
            return Range(min(a.low, b.low), min(a.high, b.high))
        case "maximum":
            return Range(max(a.low, b.low), max(a.high, b.high))
        case "mul":
            return a.times(b)
        case "floordiv":
            return _quotient(a, b)
    return _remainder(a, b)


def _quotient(a: Range, b: Range) -> Range:
    """x // y, which is 0 where y is."""
    if b.low <= 0 <= b.high:
        largest = max(abs(a.low), abs(a.high))
        return Range(-largest, largest)
    return Range.around(x // y for x in (a.low, a.high) for y in (b.low, b.high))


def _remainder(a: Range, b: Range) -> Range:
    """x % y, which has the sign of y and is 0 where y is."""
    if b.low > 0 and a.low >= 0:
        return Range(0, min(a.high, b.high - 1))
    return Range(min(0, b.low + 1), max(0, b.high - 1))


def _comparison(function: str, a: Range, b: Range) -> Range:
    """1 where it always holds, 0 where it never does, else both."""
    match function:
        case "gt":
            return _comparison("lt", b, a)
        case "ge":
            return _comparison("le", b, a)
        case "ne":
            equal = _comparison("eq", a, b)
            return Range(1 - equal.high, 1 - equal.low)
        case "lt":
            return Range(int(a.high < b.low), int(a.low < b.high))
        case "le":
            return Range(int(a.high <= b.low), int(a.low <= b.high))
    return Range(int(a.low == a.high == b.low == b.high), int(a.low <= b.high and b.low <= a.high))
