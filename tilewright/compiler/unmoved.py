"""Copies that move nothing: values of which every element lies where the result wants it.

    y[n, h] = t[n, h // 2, h % 2]        t is (n, block, phase), and size(h) is even: y is t

The gradient of what has a stride is computed along blocks and phases, and so is what a user splits an axis
for. Where the extents of a call have it so, the kernel before writes the result itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from tilewright.compiler.nest import Kernel, Plan
from tilewright.dsl.axes import base
from tilewright.dsl.positions import everywhere
from tilewright.dsl.program import At, Index, Node, Read

MOST = 1 << 20  # positions of an axis that are looked at


def unmoved(plan: Plan, extents: Mapping[str, int]) -> dict[str, str]:
    """The intermediates that lie in memory as the results that are copies of them, and those results."""
    between = {buffer.name for buffer in plan.intermediates}
    results = {buffer.name for buffer in plan.results}
    found: dict[str, str] = {}
    for kernel in plan.kernels:
        source, result = _unmoved(kernel, extents) or ("", "")
        if source in between and result in results:
            found.setdefault(source, result)
    return found


def _unmoved(kernel: Kernel, extents: Mapping[str, int]) -> tuple[str, str] | None:
    """What a kernel reads and what it writes, if that is all and both lie in memory alike."""
    if kernel.kind != "pointwise" or kernel.split or len(kernel.outputs) != 1:
        return None
    buffer, node = kernel.outputs[0].buffer, kernel.outputs[0].node
    if not isinstance(node, At) or not isinstance(node.arg, Read) or node.dtype != buffer.dtype:
        return None
    positions = dict(zip(node.along, node.positions, strict=True))
    source = node.arg.names
    shapes = [[extents[base(axis)] for axis in axes] for axes in (source, buffer.axes)]
    if math.prod(shapes[0]) != math.prod(shapes[1]) or len(set(buffer.axes)) < len(buffer.axes):
        return None
    steps = {axis: np.zeros(1, np.int64) for axis in buffer.axes}
    for axis, extent, step in zip(source, shapes[0], _steps(shapes[0]), strict=True):
        position = positions.get(axis) or Index(axis)
        places = _places(position, extents)
        if places is None or position.axes[0] not in steps or places.min() < 0 or places.max() >= extent:
            return None
        steps[position.axes[0]] = steps[position.axes[0]] + step * places
    wanted = zip(buffer.axes, shapes[1], _steps(shapes[1]), strict=True)
    still = all(np.array_equal(steps[axis], step * np.arange(extent)) for axis, extent, step in wanted)
    return (node.arg.param, buffer.name) if still else None


def _places(position: Node, extents: Mapping[str, int]) -> np.ndarray | None:
    """A position that runs along one axis, along it."""
    return everywhere(position, extents, MOST) if len(position.axes) == 1 else None


def _steps(shape: list[int]) -> list[int]:
    return [math.prod(shape[n + 1 :]) for n in range(len(shape))]
