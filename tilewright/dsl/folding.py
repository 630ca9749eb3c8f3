"""Constant folding of small expressions: what a generated formula needs before anything looks at it."""

from __future__ import annotations

from collections.abc import Set

import numpy as np

from tilewright.dsl.program import Const, Map, Node, topological
from tilewright.dsl.scalars import SCALARS


def fold(root: Node, known: Set[Node] = frozenset()) -> Node:
    """`root` with functions of numbers evaluated and decided choices taken; `known` nodes stay as they are.

    where(1 == 0, a, b) → b;  2 - 1 → 1;  1 · x → x;  x / 1 → x;  x + 0 → x
    """
    done: dict[Node, Node] = {node: node for node in known}
    for node in topological([root], known=(known,)):
        rebuilt = node.with_args(tuple(done[a] for a in node.args)) if node.args else node
        done[node] = _fold_one(rebuilt)
    return done[root]


def _fold_one(node: Node) -> Node:
    if not isinstance(node, Map):
        return node
    if node.function == "where" and isinstance(node.operands[0], Const):
        return node.operands[1] if node.operands[0].value else node.operands[2]
    if all(isinstance(a, Const) for a in node.operands) and node.function != "stop_gradient":
        return evaluate(node)
    if len(node.operands) == 2:
        return _neutral(node)
    return node


def evaluate(node: Map) -> Const:
    """A function of numbers as a number."""
    kinds = [np.float64 if a.dtype.is_float else a.dtype.numpy for a in node.operands]
    values = [np.asarray(a.value, kind) for a, kind in zip(node.operands, kinds, strict=True)]  # type: ignore
    with np.errstate(all="ignore"):
        return Const(np.asarray(SCALARS[node.function].numpy(*values)).item(), node.dtype)


def _neutral(node: Map) -> Node:
    a, b = node.operands
    if node.function in ("mul", "div") and isinstance(b, Const) and b.value == 1:
        return a
    if node.function == "mul" and isinstance(a, Const) and a.value == 1:
        return b
    if node.function in ("add", "sub") and isinstance(b, Const) and b.value == 0:
        return a
    if node.function == "add" and isinstance(a, Const) and a.value == 0:
        return b
    return node
