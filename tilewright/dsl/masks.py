"""Masks: values that are 0 where a condition does not hold, whichever way round they are written."""

from __future__ import annotations

from tilewright.dsl.program import Const, Map, Node


def is_zero(node: Node) -> bool:
    return isinstance(node, Const) and node.value == 0


def without_mask(node: Node) -> tuple[Node, Node] | None:
    """The condition and the value of `where(c, v, 0)`, ~c and v of `where(c, 0, v)`; None of others."""
    if not isinstance(node, Map) or node.function != "where":
        return None
    condition, first, second = node.operands
    if is_zero(second):
        return condition, first
    return (Map("not", (condition,)), second) if is_zero(first) else None
