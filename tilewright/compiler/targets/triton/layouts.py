"""How the operands of a call lie: strides in elements, and the `Layout` that a kernel's text depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tilewright.compiler.nest import Kernel
from tilewright.compiler.targets.triton.facts import facts_of
from tilewright.compiler.targets.triton.schedule import (
    APART,
    JOINED,
    STRIDED,
    UNIT,
    ZERO,
    Layout,
    loop_axes,
    total,
)

Shapes = Mapping[str, tuple[int, ...]]

NARROW_LIMIT = 2**31 - 2**20  # positions and offsets below this, and those of masked lanes, fit int32


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(step)
        step *= max(1, extent)
    return tuple(reversed(strides))


def normal_strides(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """Strides in which a dimension of one element has the stride that joins it to the dimension after it.

    Of an operand without elements no stride is zero: its reads must stay masked.
    """
    strides = strides if 0 not in shape else contiguous_strides(shape)
    normal: list[int] = []
    following = 1
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        normal.append(following if extent == 1 else stride)
        following = normal[-1] * max(1, extent)
    return tuple(reversed(normal))


def layout_of(kernel: Kernel, shapes: Shapes, strides: Shapes, extents: Mapping[str, int]) -> Layout:
    classes, joins = [], []
    reach = max(total(loop_axes(kernel), extents), total(kernel.row, extents))
    if kernel.scatter:
        reach = max(reach, total(kernel.scatter.along, extents))
    if kernel.contraction:
        reach = max(reach, total(kernel.contraction.k, extents))
    for name, shape in shapes.items():
        steps = strides[name]
        classes.append((name, "".join(UNIT if s == 1 else ZERO if s == 0 else STRIDED for s in steps)))
        follows = [a == b * extent for a, b, extent in zip(steps, steps[1:], shape[1:], strict=False)]
        joins.append((name, "".join(JOINED if f else APART for f in follows)))
        reach = max(reach, sum(abs(s) * max(0, e - 1) for s, e in zip(steps, shape, strict=True)))
    wide = reach >= NARROW_LIMIT
    return Layout(tuple(classes), tuple(joins), wide, facts_of(kernel, extents, wide))
