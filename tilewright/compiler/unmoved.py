"""Copies that move nothing: values of which every element lies where the result wants it.

    y[n, h] = t[n, h // 2, h % 2]        t is (n, block, phase), and size(h) is even: y is t

The gradient of what has a stride is computed along blocks and phases, and so is what a user splits an axis
for. Where the extents of a call have it so, the kernel before writes the result itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tilewright.compiler.nest import Buffer, Kernel, Plan
from tilewright.compiler.phases import write_phases
from tilewright.dsl.axes import base
from tilewright.dsl.positions import everywhere
from tilewright.dsl.program import At, Index, Node, Param, Read

MOST = 1 << 20  # positions of an axis that are looked at


def unmoved(plan: Plan, extents: Mapping[str, int]) -> dict[str, str]:
    """The intermediates that lie in memory as the results that are copies of them, and those results."""
    between = {buffer.name for buffer in plan.intermediates}
    results = {buffer.name for buffer in plan.results}
    found: dict[str, str] = {}
    for kernel in plan.kernels:
        lying, result = _lying(kernel, extents), kernel.outputs[0].buffer
        if lying is None or lying.source not in between or result.name not in results:
            continue
        if _moving(lying.axes, extents) == _moving(result.axes, extents):
            found.setdefault(lying.source, result.name)
    return found


def read_as_it_lies(kernel: Kernel, extents: Mapping[str, int]) -> tuple[Kernel, Buffer, str] | None:
    """A kernel that only copies a value from computed positions, reading it along the axes of what it writes;
    the buffer that it reads then, and that in whose memory this lies. None if positions are not so.

        y[n, c, h] = t[n, h // 2, h % 2, c]        t is u (n, h, c) in memory: y[n, c, h] = u[n, h, c]
    """
    lying = _lying(kernel, extents)
    if lying is None:
        return None
    (output,) = kernel.outputs
    buffer = Buffer(f"{lying.source} as {' '.join(lying.axes)}", lying.axes, output.buffer.dtype)
    outputs = (replace(output, node=Read(buffer.name, buffer.axes, buffer.dtype)),)
    param = Param(buffer.name, buffer.axes, buffer.dtype)
    return (
        replace(kernel, outputs=outputs, phases=write_phases(list(outputs), ()), inputs=(param,)),
        buffer,
        lying.source,
    )


@dataclass(frozen=True)
class _Lying:
    """A copied value, and the axes of its copy in the order in which it lies in memory."""

    source: str
    axes: tuple[str, ...]


def _lying(kernel: Kernel, extents: Mapping[str, int]) -> _Lying | None:
    """What a kernel copies, if that is all that it does, and each element of it is copied once."""
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
    places = {axis: np.zeros(1, np.int64) for axis in buffer.axes}
    for axis, extent, step in zip(source, shapes[0], _steps(shapes[0]), strict=True):
        position = positions.get(axis) or Index(axis)
        found = _places(position, extents)
        if found is None or position.axes[0] not in places or found.min() < 0 or found.max() >= extent:
            return None
        places[position.axes[0]] = places[position.axes[0]] + step * found
    first = {axis: int(along[1]) if along.size > 1 else math.inf for axis, along in places.items()}
    order = tuple(sorted(buffer.axes, key=lambda axis: -first[axis]))
    shape = [extents[base(axis)] for axis in order]
    for axis, extent, step in zip(order, shape, _steps(shape), strict=True):
        if not np.array_equal(places[axis], step * np.arange(extent)):
            return None
    return _Lying(node.arg.param, order)


def _moving(axes: Sequence[str], extents: Mapping[str, int]) -> list[str]:
    return [axis for axis in axes if extents[base(axis)] > 1]


def _places(position: Node, extents: Mapping[str, int]) -> np.ndarray | None:
    """A position that runs along one axis, along it."""
    return everywhere(position, extents, MOST) if len(position.axes) == 1 else None


def _steps(shape: list[int]) -> list[int]:
    return [math.prod(shape[n + 1 :]) for n in range(len(shape))]
