"""Positions as numbers: what a whole-number expression is at every place, for known extents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tilewright.dsl.axes import base
from tilewright.dsl.dtypes import int64
from tilewright.dsl.program import Const, Index, Map, Node, Size, topological
from tilewright.dsl.scalars import SCALARS


def everywhere(
    root: Node, axes: Sequence[str], extents: Mapping[str, int], most: int | None = None
) -> np.ndarray | None:
    """The values of a node, a dimension for each of `axes`, of extent 1 along those that it does not have.

    None where it is made of anything but indices, sizes and constants, or has other axes, or more than
    `most` values.
    """
    if not set(root.axes) <= set(axes):
        return None
    if most is not None and math.prod(extents[base(axis)] for axis in root.axes) > most:
        return None
    values: dict[Node, np.ndarray] = {}
    with np.errstate(all="ignore"):
        for node in topological([root]):
            match node:
                case Const() if node.dtype == int64:
                    values[node] = np.full([1] * len(axes), node.value, np.int64)
                case Size():
                    values[node] = np.full([1] * len(axes), extents[base(node.axis)], np.int64)
                case Index():
                    own = [-1 if axis == node.axis else 1 for axis in axes]
                    values[node] = np.arange(extents[base(node.axis)], dtype=np.int64).reshape(own)
                case Map():
                    function = SCALARS[node.function].numpy
                    values[node] = np.asarray(function(*(values[a] for a in node.operands)))
                case _:
                    return None
    return values[root]
