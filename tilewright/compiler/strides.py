"""How indexed operands are walked: what one step along an axis of a kernel is in memory."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.dsl.affine import affine
from tilewright.dsl.program import At, Read


def walked_by_one(node: At, is_unit: Callable[[str, int], bool], most: int = 1) -> tuple[str, ...]:
    """The axes along which one step moves an indexed operand by one element, or by at `most` so many.

    `is_unit` says of an operand's name and dimension whether its stride is one element.
    """
    assert isinstance(node.arg, Read)
    at = dict(zip(node.along, node.positions, strict=True))
    found = []
    for dimension, axis in enumerate(node.arg.names):
        if not is_unit(node.arg.param, dimension):
            continue
        if axis not in at:
            found.append(axis)
            continue
        form = affine(at[axis])
        found.extend(a for a in at[axis].axes if form.step(a) in range(1, most + 1))
    return tuple(found)
