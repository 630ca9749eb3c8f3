"""Functions that jump, and what must be the same to the last bit below them.

    where(x == max(x), 1, 0)        x = Σ_r a·b, added up in another order, is another number: 0 everywhere

A value may differ in its last bits between two kernels that compute it, and by much more once it has been
stored in half precision. Below a continuous function that is rounding; below one that jumps it is a wrong
result, wherever two sides of the jump go back to one value of which each saw another version.
"""

from __future__ import annotations

from tilewright.dsl.program import Cast, Map, Node, Order, Reduce, Scan
from tilewright.dsl.scalars import SCALARS


def jumps(node: Node) -> bool:
    """Whether `node` may change altogether when an operand changes in its last bit."""
    if isinstance(node, Map):
        return SCALARS[node.function].jumps and any(o.dtype.is_float for o in node.operands)
    if isinstance(node, Cast):
        return node.arg.dtype.is_float and not node.dtype.is_float
    return isinstance(node, Order)


def chooses(node: Node) -> bool:
    """Whether `node` is one of the numbers below it, with which others may be compared later."""
    return isinstance(node, Reduce) and node.combine in ("max", "min") and node.dtype.is_float


def depends_on_order(node: Node) -> bool:
    """Whether the last bits of `node` depend on how a kernel goes through its positions."""
    return (isinstance(node, Reduce) and node.combine in ("sum", "prod") and node.dtype.is_float) or (
        isinstance(node, Scan) and node.dtype.is_float
    )
