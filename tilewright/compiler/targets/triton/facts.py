"""What the extents of a call say about the whole numbers of a kernel, and its text may rely on.

h = oh + r                     a position is 32 bits wide where it fits, and without a test of `h >= 0`
i // size_j                    Python's //, where Triton's rounds negative numbers towards zero
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tilewright.compiler.nest import Kernel, Output, indexed_reads
from tilewright.compiler.ranges import ARITHMETIC, Extents, Range, everything, ranges
from tilewright.dsl.dtypes import int32, int64
from tilewright.dsl.program import Cast, Const, Index, Map, Node, Scatter, Size, within


@dataclass(frozen=True)
class Facts:
    """Sets of nodes; an empty one claims nothing.

    true: conditions that always hold. small: int64 values made of positions and sizes that fit 32 bits, and
    are held so. natural: quotients and remainders of a number that is not negative by a positive one.
    """

    true: frozenset[Node] = frozenset()
    small: frozenset[Node] = frozenset()
    natural: frozenset[Node] = frozenset()


def facts_of(kernel: Kernel, extents: Extents, wide: bool) -> Facts:
    """The facts of a kernel at these extents; `wide`: its positions have 64 bits."""
    tests = [node.inside() for node in indexed_reads(kernel)]
    if kernel.scatter:
        tests += [scattered_inside(kernel.scatter), flat_place(kernel.scatter)]
    tests += [written_inside(output) for output in kernel.outputs if output.places]
    known = ranges((*kernel.leading, *tests), extents)
    small: set[Node] = set()
    for node, found in known.items():
        if not wide and found.within(everything(int32)) and _is_small(node, small):
            small.add(node)
    return Facts(
        frozenset(node for node, found in known.items() if node.dtype.is_bool and found == Range(1, 1)),
        frozenset(small),
        frozenset(node for node in known if _is_natural(node, known)),
    )


def scattered_inside(scatter: Scatter) -> Node:
    """Whether every place of a scatter is one along its axis."""
    return within(dict(zip(scatter.along, scatter.positions, strict=True)))


def written_inside(output: Output) -> Node:
    """Whether a result has the places at which it is written."""
    return within(dict(zip(output.buffer.axes, output.places, strict=True)))


def flat_place(scatter: Scatter) -> Node:
    """The place of a scatter along all its axes as one, the last the fastest."""
    flat = scatter.positions[0]
    for axis, position in zip(scatter.along[1:], scatter.positions[1:], strict=True):
        flat = Map("add", (Map("mul", (flat, Size(axis))), position))
    return flat


def _is_small(node: Node, small: Collection[Node]) -> bool:
    """Whether 32 bits are enough on the way to a value that fits them."""
    if node.dtype != int64:
        return False
    match node:
        case Const() | Index() | Size():
            return True
        case Cast():
            return node.arg.dtype.is_integer and node.arg.dtype.bits <= 32
        case Map() if node.function == "where":
            return all(a in small for a in node.operands[1:])
        case Map():
            return node.function in ARITHMETIC and all(a in small for a in node.operands)
    return False


def _is_natural(node: Node, known: dict[Node, Range]) -> bool:
    if not isinstance(node, Map) or node.function not in ("floordiv", "mod") or node.dtype != int64:
        return False
    number, divisor = (known[a] for a in node.operands)
    return number.low >= 0 and divisor.low > 0
