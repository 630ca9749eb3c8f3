"""Columns of windows, beside few rows: vectors run on over the ends of lines (`contractions.overrun`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tilewright.compiler.nest import Kernel
from tilewright.compiler.targets.cpu.contractions.reading.costs import ONCE_A_STEP, TO_HIDE
from tilewright.compiler.targets.cpu.contractions.reading.setting import Setting, Strides
from tilewright.compiler.targets.cpu.contractions.reading.steps import apart, both_sides, ends_of, slid_along
from tilewright.compiler.targets.cpu.registers import Registers
from tilewright.compiler.targets.cpu.toolchain import caches
from tilewright.dsl.axes import base
from tilewright.dsl.program import At, Read

PASSING = 32  # rows, at most, for which columns of windows are not packed
WASTED = 2.0  # columns with those between lines, to those without, at most


@dataclass(frozen=True)
class Overrun:
    """Columns that lie line by line, so that vectors may run on over the ends of lines: how many of the last
    axes of their side that move that is, the elements from line to line, the rows and vectors of register
    blocks; the nearest of the summed axes, and the elements from one of its positions to the next. ends: how
    far windows reach outside of their operand along each axis, if they do: they read a copy of an image then,
    with zeros around it. cost: multiply-adds of a vector for each column and summed position, those between
    lines and what a step takes beside counted.
    """

    axes: int
    pitch: int
    rows: int
    vectors: int
    along: str
    step: int
    ends: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    cost: float = field(default=0.0, compare=False)

    @property
    def text(self) -> str:
        around = "".join(f":{axis}{before}+{behind}" for axis, (before, behind) in self.ends.items())
        return f"{self.axes}:{self.pitch}:{self.rows}x{self.vectors}:{self.along}:{self.step}{around}"


def overruns(kernel: Kernel, setting: Setting) -> dict[At, Overrun]:
    """The side of which vectors of columns run on over the ends of lines, if results lie along it."""
    found: dict[At, Overrun] = {}
    if kernel.contraction is None:
        return found
    for node, own, others in both_sides(kernel.contraction):
        if isinstance(node, At) and kernel.outputs[0].buffer.axes[-1] in own:
            overrun = overrun_side(node, own, others, kernel.contraction.k, setting)
            found |= {node: overrun} if overrun else {}
    return found


def overrun_side(
    node: At,
    own: Sequence[str],
    others: Sequence[str],
    summed: Sequence[str],
    setting: Setting,
) -> Overrun | None:
    """How vectors of columns run on over the ends of lines, if rows are few and little is wasted."""
    rows, moving, strides = setting.count(*others), setting.moving(own), setting.strides
    slides = slid_along(node)
    ends = ends_of(node, setting.extents)
    if rows > PASSING or not slides & {*moving[-1:]} or ends is None or not isinstance(node.arg, Read):
        return None
    if any(map(any, ends.values())):
        image = image_extents(node, ends, summed, setting.extents)
        if slides & {*moving[:-2]} or not _is_one_image(node, image, strides):
            return None
        strides = {node.arg.param: image_strides(node, image)}
    else:
        ends = {}
    steps = {axis: apart(node, axis, strides) for axis in (*own, *summed)}
    known = {axis: step for axis, step in steps.items() if step is not None}
    if len(known) < len({*own, *summed}) or known[moving[-1]] != 1:
        return None
    pitch = line = span = setting.extent(moving[-1])
    axes = 1
    if len(moving) > 1 and line <= known[moving[-2]] <= WASTED * line:
        axes, pitch = 2, known[moving[-2]]
        span += pitch * (setting.extent(moving[-2]) - 1)
    lines = setting.count(*moving[-axes:])
    best = min(_blocks(rows, span, WASTED * lines, setting.registers), default=None)
    if best is None or (ends and axes < 2):
        return None
    along = min(summed, key=lambda axis: abs(known[axis]) if setting.extent(axis) > 1 else math.inf)
    return Overrun(axes, pitch, best[1], best[2], along, known[along], ends, best[0] / lines)


def image_extents(
    node: At, ends: Mapping[str, tuple[int, int]], summed: Sequence[str], extents: Mapping[str, int]
) -> dict[str, int]:
    """Those of what windows read for one of the other positions, with what they reach outside."""
    assert isinstance(node.arg, Read)
    axes = [axis for axis in node.arg.names if axis in node.along or axis in summed]
    return {axis: extents[base(axis)] + sum(ends.get(axis, (0, 0))) for axis in axes}


def image_strides(node: At, image: Mapping[str, int]) -> list[int]:
    """Those of the operand's dimensions in a copy of an image, in bytes; 0 of the others."""
    assert isinstance(node.arg, Read)
    steps, size = dict[str, int](), node.dtype.itemsize
    for axis, extent in reversed(list(image.items())):
        steps[axis] = size
        size *= extent
    return [steps.get(axis, 0) for axis in node.arg.names]


def _is_one_image(node: At, image: Mapping[str, int], strides: Strides) -> bool:
    """Whether an image lies line by line, and fits into half of the second cache."""
    assert isinstance(node.arg, Read)
    lying = dict(zip(node.arg.names, strides[node.arg.param], strict=True))
    last = list(image)[-1]
    small = math.prod(image.values()) * node.dtype.itemsize <= caches().l2 // 2
    return lying[last] == node.dtype.itemsize and small


def _blocks(rows: int, span: int, most: float, registers: Registers) -> Iterator[tuple[float, int, int]]:
    """Register blocks (rows, vectors), with at most so many columns in all, and what each takes before it: an
    instruction for each sum, or else for what it reads. A vector between lines of the cache is read twice.
    """
    for vectors in range(1, registers.sums + 1):
        columns = -(-span // (vectors * registers.lanes))
        for height in range(1, min(rows, registers.sums // vectors) + 1):
            if columns * vectors * registers.lanes <= most and registers.hold(height, vectors):
                step = max(height * vectors, height + 2 * vectors, TO_HIDE) + ONCE_A_STEP
                yield -(-rows // height) * columns * step, height, vectors
