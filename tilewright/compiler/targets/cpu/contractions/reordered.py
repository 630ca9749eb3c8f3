"""Images copied into the order in which register blocks are full, and results turned back from it.

Groups of few filters whose channels lie side by side are computed along the lines of images:

    y[n, h, w, g, o] = Σ_rsc k[g, o, r, s, c] · x[n, h + r, w + s, g, c]        o and c have six positions
    x along h w [n, g, c, h, w] = x        t[n, g, o, h, w] = …        y[n, h, w, g, o] = t

Vectors along the filters of a group would be full to a third, and its channels are too few to be read where
they lie. Along the lines of an image vectors are full (`overrun`), if its operand lies so: of a copy they do.

Where filters of several groups fill a vector (`grouped`), images that lie along their lines are copied along
the channels of all groups, if their windows step over elements of a line.

The other way round, one or two vectors of filters of images that lie along their lines:

    y[n, o, h, w] = Σ_crs k[o, c, r, s] · x[n, c, h + r, w + s]        o has 16 or 32 positions
    x along c [n, h, w, c] = x        t[n, h, w, o] = …        y[n, o, h, w] = t

Vectors over the ends of lines would be full but for these ends, and each load of them lies across two lines
of the cache; along the filters they are full, and one address serves the rows of a line (`even`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tilewright.compiler.nest import Buffer, Contraction, Kernel, Output, evaluated
from tilewright.compiler.phases import with_nodes, write_phases
from tilewright.compiler.targets.cpu.contractions.reading.even import even_side
from tilewright.compiler.targets.cpu.contractions.reading.grouped import grouped_side
from tilewright.compiler.targets.cpu.contractions.reading.overrun import overrun_side
from tilewright.compiler.targets.cpu.contractions.reading.phases import phases_of
from tilewright.compiler.targets.cpu.contractions.reading.setting import Setting
from tilewright.compiler.targets.cpu.contractions.reading.steps import (
    both_sides,
    ends_of,
    slid_along,
    sums_for_taps,
)
from tilewright.compiler.targets.cpu.contractions.staged import Turned, is_plain, walked
from tilewright.compiler.targets.cpu.layout import contiguous_strides
from tilewright.compiler.targets.cpu.lengths import LEAST, MEDIUM
from tilewright.compiler.targets.cpu.toolchain import caches
from tilewright.dsl.axes import base
from tilewright.dsl.program import At, Node, Param, Read, Reduce, indexed

WORTH = 2  # products of each element that is copied or turned, at least, where vectors are full to a half
ACROSS = 1.2  # what vectors take that lie across lines of the cache, to those that do not
COPIED = 1.5  # what an element takes that is copied or turned, in multiply-adds of a vector


@dataclass(frozen=True)
class Reordered:
    """What a contraction reads at computed positions, which its copy has along these axes last; and the axes
    that its results have last until they are turned.
    """

    param: Param
    node: At
    last: tuple[str, ...]
    results: tuple[str, ...]

    @property
    def buffer(self) -> Buffer:
        axes = (*(axis for axis in self.param.axes if axis not in self.last), *self.last)
        return Buffer(f"{self.param.name} along {' '.join(self.last)}", axes, self.param.dtype)

    def kernel(self, of: str) -> Kernel:
        """The kernel that makes the copy."""
        outputs = (Output(self.buffer, Read(self.param.name, self.param.axes, self.param.dtype)),)
        phases = write_phases(list(outputs), ())
        return Kernel(f"{of}_{self.param.name}", self.buffer.axes, (), outputs, phases, inputs=(self.param,))

    @property
    def read(self) -> At:
        """What the contraction reads, in the copy."""
        buffer = self.buffer
        places = dict(zip(self.node.along, self.node.positions, strict=True))
        found = indexed(Read(buffer.name, buffer.axes, buffer.dtype), places)
        assert isinstance(found, At)
        return found

    def strides(self, extents: Mapping[str, int]) -> dict[str, Sequence[int]]:
        """Those of the copy."""
        shape = tuple(extents[base(axis)] for axis in self.buffer.axes)
        return {self.buffer.name: contiguous_strides(shape, self.param.dtype)}

    def read_by(self, kernel: Kernel) -> Kernel:
        """The kernel, reading the copy instead."""
        buffer = self.buffer
        param = Param(buffer.name, buffer.axes, buffer.dtype)
        inputs = tuple(param if p == self.param else p for p in kernel.inputs)
        return replace(with_nodes(kernel, {self.node: self.read}), inputs=inputs)

    def turned(self, buffer: Buffer, order: Sequence[str]) -> Turned:
        """What the contraction writes, along those axes; others in the order in which the result has them."""
        axes = (*(axis for axis in order if axis not in self.results), *self.results)
        return Turned(buffer, Buffer(f"{buffer.name} along {' '.join(self.results)}", axes, buffer.dtype))


@dataclass(frozen=True)
class _Images:
    """A side of a contraction: windows of an operand, which is read nowhere else; its own positions and those
    of the other side.
    """

    kernel: Kernel
    contraction: Contraction
    param: Param
    node: At
    own: Sequence[str]
    others: Sequence[str]
    setting: Setting

    @property
    def copied(self) -> int:
        """The elements that are copied and turned."""
        results = self.setting.count(*self.own, *self.others, *self.contraction.batch)
        return self.setting.count(*self.param.axes) + results


def reordered(kernel: Kernel, setting: Setting) -> Reordered | None:
    """The operand of windows that is worth a copy in another order."""
    c = kernel.contraction
    if c is None or len(kernel.outputs) > 1:
        return None
    for node, own, others in both_sides(c):
        if not is_plain(kernel, node, c):
            continue
        assert isinstance(node, At) and isinstance(node.arg, Read)
        name = node.arg.param
        param = next(p for p in kernel.tiles if p.name == name)
        if node.arg.names != param.axes:
            continue
        images = _Images(kernel, c, param, node, own, others, setting)
        found = (_of_groups if setting.count(*c.batch) > 1 else _along_channels)(images)
        if found is not None:
            return found
    return None


def _of_groups(images: _Images) -> Reordered | None:
    """A copy along the channels of all groups, or along the lines."""
    return _along_groups(images) or _along_lines(images) or _along_channels(images)


def _along_groups(images: _Images) -> Reordered | None:
    """A copy along the channels of all groups, if the filters of several share a vector with that, the second
    cache holds an image of it, and vectors cannot run over the ends of lines.
    """
    c, param, setting, own = images.contraction, images.param, images.setting, images.own
    groups = setting.moving(c.batch)
    channels = [axis for axis in c.k if axis in param.axes and axis not in images.node.along]
    lines = {*images.kernel.outputs[0].buffer.axes[-1:]} & {*own} & slid_along(images.node)
    if sums_for_taps(images.node, own, c.k, setting.extents):
        return None
    if not lines or len(groups) != 1 or len(channels) != 1:
        return None
    (group,) = groups
    first = setting.moving(images.kernel.outputs[0].buffer.axes)[0]
    one = setting.count(*param.axes) // (setting.extent(first) if first in param.axes else 1)
    far = one * param.dtype.itemsize > caches().l2
    if far or overrun_side(images.node, own, images.others, c.k, setting) is not None:
        return None
    found = Reordered(param, images.node, (group, *channels), (group, *images.others))
    lying = setting.lying(found.strides(setting.extents))
    side = grouped_side(found.read, own, images.others, group, c.k, lying, False)
    return found if side is not None else None


def _along_lines(images: _Images) -> Reordered | None:
    """A copy along the lines, if filters fill a vector to half at most, vectors may run along the lines of
    that instead, and there are many products for each element that is copied, there and back.
    """
    param, node, k, setting = images.param, images.node, images.contraction.k, images.setting
    buffer = images.kernel.outputs[0].buffer
    if {*buffer.axes[-1:]} & {*images.own} or {*param.axes[-1:]} & {*node.along}:
        return None
    slides = slid_along(node)
    lines = tuple(axis for axis in param.axes if axis in node.along)
    found = Reordered(param, node, lines, tuple(axis for axis in buffer.axes if axis in slides))
    results = (*images.own, *images.others, *images.contraction.batch)
    few = 2 * setting.count(*images.others) <= setting.registers.lanes
    if not few or setting.count(*results, *k) < WORTH * images.copied:
        return None
    lying = setting.lying(found.strides(setting.extents))
    overrun = overrun_side(found.read, images.own, images.others, k, lying)
    return found if overrun is not None else None


def _along_channels(images: _Images) -> Reordered | None:
    """A copy along the channels, if vectors that run on over the ends of lines take longer than vectors of
    filters, copying and turning included. What is read beside them must not lie along the lines.
    """
    kernel, node, own, others = images.kernel, images.node, images.own, images.others
    k, setting = images.contraction.k, images.setting
    channels = tuple(axis for axis in images.param.axes if axis in k and axis not in node.along)
    ends = ends_of(node, setting.extents)
    if not {*kernel.outputs[0].buffer.axes[-1:]} & {*own} or ends is None:
        return None
    inside = not any(map(any, ends.values()))
    if setting.count(*channels) < (2 if inside else LEAST[MEDIUM]):
        return None
    beside = (n for n in evaluated(kernel.roots, Reduce) if _is_of(n, kernel))
    overrun = overrun_side(node, own, others, k, setting)
    if overrun is None or any({*n.axes} & {*own} for n in beside):
        return None
    c = images.contraction
    others = walked(others, setting)
    phases = phases_of(c.beside(node), others, setting)
    found = Reordered(images.param, node, channels, others[-1:])
    lying = setting.lying(found.strides(setting.extents))
    even = even_side(found.read, own, others, phases, k, lying, inside)
    if even is None:
        return None
    gained = setting.count(*c.batch, *own, *k) * (ACROSS * overrun.cost - even.cost)
    return found if gained > COPIED * images.copied else None


def _is_of(node: Node, kernel: Kernel) -> bool:
    """Whether a node reads an operand of the kernel."""
    read = node.arg if isinstance(node, At) else node
    return isinstance(read, Read) and any(p.name == read.param for p in kernel.tiles)
