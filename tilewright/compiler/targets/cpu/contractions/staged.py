"""Operands of windows, copied into the order in which a contraction sums them.

    y[n, o, h, w] = Σ_rsc k[o, r, s, c] · x[n, c, h + r, w + s]        x lies along w

Rows of windows are read where they lie, with nothing packed, if their operand is contiguous along the last
summed axis (`direct`). Where it is not, and its lines are short, vectors are packed from pieces of several
lines, for every tap again. A copy of the operand, contiguous along c, costs less: the contraction reads that.
So it does for a filter's gradient, whose sums step over several elements of a line where there is a stride.

Vectors run along the filters then, and so do the results in memory: they are turned at the end, once.

    t[n, h, w, o] = …        y[n, o, h, w] = t[n, h, w, o]

A filter's gradient is read along the channels of its taps (`tapped`), from such a copy if the operand does
not lie along them, and turned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tilewright.compiler.nest import Buffer, Contraction, Kernel, Output, indexed_reads
from tilewright.compiler.phases import with_nodes, write_phases
from tilewright.compiler.targets.cpu.contractions.panels import lane_order
from tilewright.compiler.targets.cpu.contractions.reading.borders import rows_together
from tilewright.compiler.targets.cpu.contractions.reading.overrun import overruns
from tilewright.compiler.targets.cpu.contractions.reading.setting import Setting
from tilewright.compiler.targets.cpu.contractions.reading.steps import (
    both_sides,
    slid_along,
    sums_for_taps,
)
from tilewright.compiler.targets.cpu.contractions.reading.tapped import tapped_side
from tilewright.compiler.targets.cpu.layout import Layout
from tilewright.compiler.targets.cpu.lengths import LEAST, LONG, length_class
from tilewright.compiler.targets.cpu.spelling import memory_kind, value_type
from tilewright.compiler.targets.cpu.toolchain import caches
from tilewright.dsl.affine import affine
from tilewright.dsl.axes import base
from tilewright.dsl.program import At, Node, Param, Read

REPEATED = 2  # how often each element of an operand is packed at least, so that a copy of it pays
DEAR = 2  # to copy an element, or to turn a result, against packing one from two pieces
SLICED = 3  # the same against packing any, if the second cache holds what belongs to one image
EMPTY = 4  # of so many lanes of the last vector of filters one, at most: else those take what packing does
SKIPPED = 4  # the same, if taps that are outside are passed over for many images at once


@dataclass(frozen=True)
class Staged:
    """An operand and the order of its dimensions in the copy, which it is made for the last ones of."""

    param: Param
    order: tuple[int, ...]
    last: int = 1

    @property
    def buffer(self) -> Buffer:
        axes = tuple(self.param.axes[dimension] for dimension in self.order)
        return Buffer(f"{self.param.name} along {' '.join(axes[-self.last :])}", axes, self.param.dtype)

    def kernel(self, of: str) -> Kernel:
        """The kernel that makes the copy."""
        value = Read(self.param.name, self.param.axes, self.param.dtype)
        outputs = (Output(self.buffer, value),)
        phases = write_phases(list(outputs), ())
        return Kernel(f"{of}_{self.param.name}", self.buffer.axes, (), outputs, phases, inputs=(self.param,))


@dataclass(frozen=True)
class Turned:
    """What a kernel writes, and where it lies instead until the end: along the axis that its vectors run."""

    buffer: Buffer
    along: Buffer

    def written_by(self, kernel: Kernel) -> Kernel:
        outputs = tuple(replace(output, buffer=self.along) for output in kernel.outputs)
        contraction = kernel.contraction
        assert contraction is not None
        m, n = (
            tuple(sorted(side, key=lambda axis: axis == self.along.axes[-1]))
            for side in (contraction.m, contraction.n)
        )
        return replace(kernel, outputs=outputs, contraction=replace(contraction, m=m, n=n))

    def read_by(self, kernel: Kernel) -> Kernel:
        """A kernel that reads it, or itself."""
        table: dict[Node, Node] = {}
        for node in kernel.nodes():
            if isinstance(node, Read) and node.param == self.buffer.name:
                names = dict(zip(self.buffer.axes, node.names, strict=True))
                table[node] = Read(self.along.name, tuple(names[a] for a in self.along.axes), node.dtype)
        if not table:
            return kernel
        param = Param(self.along.name, self.along.axes, self.along.dtype)
        inputs = tuple(param if p.name == self.buffer.name else p for p in kernel.inputs)
        return replace(with_nodes(kernel, table), inputs=inputs)

    def kernel(self, of: str) -> Kernel:
        """The kernel that puts it where it belongs."""
        param = Param(self.along.name, self.along.axes, self.along.dtype)
        outputs = (Output(self.buffer, Read(param.name, param.axes, param.dtype)),)
        phases = write_phases(list(outputs), ())
        return Kernel(f"{of}_turned", self.buffer.axes, (), outputs, phases, inputs=(param,))


def turned(kernel: Kernel, copies: Sequence[Staged], setting: Setting) -> Turned | None:
    """What a contraction writes across its vectors, which run along the filters where windows are copied, or
    along the channels of a filter's gradient.
    """
    contraction = kernel.contraction
    if contraction is None or not copies or len(kernel.outputs) != 1:
        return None
    along = copies[0].buffer.axes[-1]
    tapped = any(_is_tapped(kernel, *side, along, setting) for side in both_sides(contraction))
    sides = (contraction.left, contraction.n), (contraction.right, contraction.m)
    others = next(o for node, o in sides if isinstance(node, At) and _reads(node) == copies[0].param.name)
    lanes = _lane_axis(others, setting) if along in contraction.k else along if tapped else None
    buffer = kernel.outputs[0].buffer
    if lanes is None or lanes not in buffer.axes or buffer.axes[-1] == lanes:
        return None
    axes = (*(axis for axis in buffer.axes if axis != lanes), lanes)
    return Turned(buffer, Buffer(f"{buffer.name} along {lanes}", axes, buffer.dtype))


def _reads(node: At) -> str | None:
    return node.arg.param if isinstance(node.arg, Read) else None


def staged(kernel: Kernel, setting: Setting) -> tuple[Staged, ...]:
    """The operands of a contraction that are worth copies: that of windows, and then that of the other side,
    which vectors run along instead, if its positions along them lie apart and are windows too. Columns over
    the ends of lines need none.
    """
    contraction = kernel.contraction
    if contraction is None or overruns(kernel, setting):
        return ()
    strides, extents = setting.strides, setting.extents
    sides = (contraction.left, contraction.m), (contraction.right, contraction.n)
    for (node, own), (other, others) in (sides, sides[::-1]):
        if not is_plain(kernel, node, contraction):
            continue
        assert isinstance(node, At)
        axis = _long_axis(node, contraction.k, extents)
        if axis is None or _slides_far(node, contraction.k, extents):
            continue
        if not _pays(kernel, node, own, others, setting):
            continue
        found = _along(kernel, node, axis, strides)
        if found and is_plain(kernel, other, contraction):
            assert isinstance(other, At)
            lanes = _long_axis(other, others, extents)
            return (*found, *(_along(kernel, other, lanes, strides) if lanes else ()))
        if found:
            return found
    for node, own in sides:
        if is_plain(kernel, node, contraction):
            assert isinstance(node, At)
            lanes = _lanes(node, own, setting)
            repeated = setting.count(*own, *contraction.k) >= REPEATED * setting.count(*node.arg.axes)
            apart = _lies_apart(node, contraction.k, strides)
            if lanes and repeated and apart and (found := _along(kernel, node, lanes, strides)):
                return found
    for node, own, others in both_sides(contraction):
        if not is_plain(kernel, node, contraction) or len(kernel.outputs) > 1:  # which are not turned
            continue
        assert isinstance(node, At)
        of_taps = sums_for_taps(node, own, contraction.k, extents)  # their channels may fill one vector
        least = min(LEAST[LONG], setting.registers.lanes) if of_taps else LEAST[LONG]
        channel = _long_axis(node, own, extents, least)
        if channel and _is_tapped(kernel, node, own, others, channel, setting):
            return _along(kernel, node, channel, strides)
    return ()


def _is_tapped(
    kernel: Kernel,
    node: Node,
    own: Sequence[str],
    others: Sequence[str],
    channel: str,
    setting: Setting,
) -> bool:
    """Whether columns are read along the channels of their taps where the operand lies along those."""
    assert kernel.contraction is not None
    if not is_plain(kernel, node, kernel.contraction) or channel not in own:
        return False
    assert isinstance(node, At) and isinstance(node.arg, Read)
    step = node.dtype.itemsize
    lying = dict[str, int]()
    for axis in (channel, *(a for a in reversed(node.arg.names) if a != channel)):
        lying[axis] = step
        step *= setting.extent(axis)
    copy = {**setting.strides, node.arg.param: [lying[axis] for axis in node.arg.names]}
    last = (*(axis for axis in own if axis != channel), channel)
    return tapped_side(node, last, others, kernel.contraction, setting.lying(copy), copied=True) is not None


def _lanes(node: At, own: Sequence[str], setting: Setting) -> str | None:
    """The axis that vectors would run along, if it is one that windows do not slide along, and long."""
    last = _lane_axis(own, setting)
    return last if _long_axis(node, (last,), setting.extents) else None


def _lane_axis(own: Sequence[str], setting: Setting) -> str:
    """The axis of a side that vectors run along."""
    return walked(own, setting)[-1]


def walked(own: Sequence[str], setting: Setting) -> tuple[str, ...]:
    """The axes of a side that vectors run along, in the order in which they are walked."""
    lengths = {base(axis): length_class(setting.extent(axis), setting.registers.lanes) for axis in own}
    return lane_order(tuple(own), Layout({}, lengths))


def _lies_apart(node: At, summed: Sequence[str], strides: Mapping[str, Sequence[int]]) -> bool:
    """Whether a step along the summed axes is several elements where the operand is contiguous: elements are
    packed one by one then, and else turned in registers.
    """
    assert isinstance(node.arg, Read)
    places = dict(zip(node.along, node.positions, strict=True))
    steps = strides[node.arg.param]
    contiguous = [a for a, s in zip(node.arg.names, steps, strict=True) if s == node.dtype.itemsize]
    found = [affine(places[a]).step(k) for a in contiguous if a in places for k in summed]
    return any(step is None or abs(step) > 1 for step in found)


def _along(kernel: Kernel, node: At, axis: str, strides: Mapping[str, Sequence[int]]) -> tuple[Staged, ...]:
    """A copy that lies along the axis, if the operand does not."""
    assert isinstance(node.arg, Read)
    name, place = node.arg.param, node.arg.names.index(axis)
    param = next(p for p in kernel.tiles if p.name == name)
    if strides[name][place] == param.dtype.itemsize:
        return ()
    return (Staged(param, (*(d for d in range(len(param.axes)) if d != place), place)),)


def is_plain(kernel: Kernel, node: Node, contraction: Contraction) -> bool:
    """Whether a side is an operand of the sum's own type, read at computed positions and nowhere else."""
    if not isinstance(node, At) or not isinstance(node.arg, Read):
        return False
    name, dtype = node.arg.param, node.dtype
    once = [n for n in kernel.nodes() if isinstance(n, Read) and n.param == name] == [node.arg]
    alone = [n for n in indexed_reads(kernel) if n.arg == node.arg] == [node]
    return once and alone and dtype == contraction.root.dtype and memory_kind(dtype) == value_type(dtype).kind


def _slides_far(node: At, summed: Sequence[str], extents: Mapping[str, int]) -> bool:
    """Whether windows slide a long way along one of the summed axes: sums go along it then, whatever axis a
    copy lies along.
    """
    slides = slid_along(node)
    return any(extents[base(axis)] >= LEAST[LONG] for axis in summed if axis in slides)


def _long_axis(
    node: At, axes: Sequence[str], extents: Mapping[str, int], least: int = LEAST[LONG]
) -> str | None:
    """The longest of these axes that windows do not slide along, if it is long."""
    slides = slid_along(node)
    plain = [a for a in axes if a in node.arg.axes and a not in slides and a not in node.along]
    longest = max(plain, key=lambda axis: extents[base(axis)], default=None)
    return longest if longest and extents[base(longest)] >= least else None


def _pays(kernel: Kernel, node: At, own: Sequence[str], others: Sequence[str], setting: Setting) -> bool:
    """Whether a copy, and results that may have to be turned, cost less than to pack windows.

    That costs as much as the square of the ends of lines in a vector, its pieces, each read under a mask; and
    something in any case.
    """
    assert kernel.contraction is not None
    line, lanes = setting.count(*setting.moving(own)[-1:]), setting.registers.lanes
    ends = (lanes - 1) / line
    packed = setting.count(*own, *kernel.contraction.k)
    copied = setting.count(*node.arg.axes) + setting.count(*own, *others)
    if packed * ends**2 >= DEAR * copied:
        return True
    if -setting.count(*others) % lanes > lanes // EMPTY:
        return False
    near = packed >= SLICED * copied and _is_near(kernel, node, own, others, setting)
    return near or (packed >= SKIPPED * copied and node in rows_together(kernel.contraction, setting.extents))


def _is_near(kernel: Kernel, node: At, own: Sequence[str], others: Sequence[str], setting: Setting) -> bool:
    """Whether the second cache holds what belongs to one position of the first axis: the copy and the results
    before they are turned, which wait there (`slices`), and the other side.
    """
    assert kernel.contraction is not None
    first = next((a for a in kernel.outputs[0].buffer.axes if setting.extent(a) > 1), None)
    if first not in own or first not in node.arg.axes or first in (*node.along, *slid_along(node)):
        return False
    one = replace(setting, extents={**setting.extents, first: 1})
    passing = one.count(*node.arg.axes) + one.count(*own, *others)
    staying = one.count(*others, *kernel.contraction.k)
    return (passing + staying) * node.dtype.itemsize <= caches().l2
