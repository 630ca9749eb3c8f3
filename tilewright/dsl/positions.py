"""Positions and extents as numbers: what an expression is at every place, for known sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from tilewright.dsl.axes import base
from tilewright.dsl.dtypes import DType
from tilewright.dsl.program import Cast, Const, Index, Map, Node, Size, topological
from tilewright.dsl.scalars import SCALARS

Extents = Mapping[str, int]


def everywhere(root: Node, extents: Extents, most: int | None = None) -> np.ndarray | None:
    """The values of a node, a dimension for each of its axes; floats are computed in float64.

    None where it is made of anything but indices, sizes and constants, or has more than `most` values.
    """
    if most is not None and math.prod(extents[base(axis)] for axis in root.axes) > most:
        return None
    values: dict[Node, np.ndarray] = {}
    with np.errstate(all="ignore"):
        for node in topological([root]):
            if not isinstance(node, (Const, Size, Index, Cast, Map)):
                return None
            values[node] = _value(node, root.axes, values, extents)
    return values[root]


def _value(
    node: Node, axes: tuple[str, ...], values: Mapping[Node, np.ndarray], extents: Extents
) -> np.ndarray:
    match node:
        case Const():
            return np.full([1] * len(axes), node.value, _kind(node.dtype))
        case Size():
            return np.full([1] * len(axes), extents[base(node.axis)], np.int64)
        case Index():
            own = [-1 if axis == node.axis else 1 for axis in axes]
            return np.arange(extents[base(node.axis)], dtype=np.int64).reshape(own)
        case Cast():
            return values[node.arg].astype(_kind(node.dtype))
    assert isinstance(node, Map)
    return np.asarray(SCALARS[node.function].numpy(*(values[a] for a in node.operands)))


def _kind(dtype: DType) -> np.dtype:
    return np.dtype(np.float64) if dtype.is_float else dtype.numpy
