"""Windows over few channels, read from a copy that has what lies outside of the operand: zeros.

    y[h, w, o] = Σ_rsc k[o, r, s, c] · x[h + r - 1, w + s - 1, c]        c has three positions

A row's taps along s lie one after the other in memory, channel by channel: a run of 3 · 3 elements, which is
read where it lies (`direct`) if no tap of it is outside. With zeros around the image none is. Nor is any of
the filter's gradient, whose rows (r, s, c) are read along a line w, from channel c to channel c:

    dk[o, r, s, c] = Σ_nhw dy[n, h, w, o] · x[n, h + r - 1, w + s - 1, c]

Where two vectors have room for all filters, rows of more channels are read so too: they lie evenly (`even`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tilewright.compiler.nest import Buffer, Contraction, Kernel, Output
from tilewright.compiler.phases import with_nodes, write_phases
from tilewright.compiler.targets.cpu.contractions.reading.costs import REUSED
from tilewright.compiler.targets.cpu.contractions.reading.even import MOST_COLUMNS
from tilewright.compiler.targets.cpu.contractions.reading.filled import (
    filled_side,
    is_of_whole_lines,
    taps_go_on,
)
from tilewright.compiler.targets.cpu.contractions.reading.setting import Setting
from tilewright.compiler.targets.cpu.contractions.reading.steps import ends_of
from tilewright.compiler.targets.cpu.contractions.reading.tapped import tapped_sides
from tilewright.compiler.targets.cpu.contractions.sides import FARTHEST, NEAR
from tilewright.compiler.targets.cpu.contractions.staged import is_plain
from tilewright.compiler.targets.cpu.lengths import LEAST, LONG, MEDIUM
from tilewright.compiler.targets.cpu.recipe import Places
from tilewright.compiler.targets.cpu.toolchain import caches
from tilewright.dsl.affine import affine
from tilewright.dsl.axes import base
from tilewright.dsl.dtypes import int64
from tilewright.dsl.program import At, Const, Index, Map, Node, Param, Read, Size, indexed

LINE, WIDE_LINE = "the line", "the wide line"  # names that no axis of a user's has


@dataclass(frozen=True)
class Padded:
    """What a contraction reads at computed positions, and how far these reach outside, before and behind."""

    param: Param
    node: At
    ends: Mapping[str, tuple[int, int]]

    @property
    def buffer(self) -> Buffer:
        around = " ".join(f"{axis}{before}+{behind}" for axis, (before, behind) in self.ends.items())
        axes = tuple(self._wider(axis) for axis in self.param.axes)
        return Buffer(f"{self.param.name} padded {around}", axes, self.param.dtype)

    def _wider(self, axis: str) -> str:
        return f"{axis} {self.ends[axis]}" if axis in self.ends else axis

    def extents(self, extents: Mapping[str, int]) -> dict[str, int]:
        """Those of the copy's own axes."""
        found = {self._wider(a): extents[base(a)] + sum(ends) for a, ends in self.ends.items()}
        line, channels = self.param.axes[-2], extents[base(self.param.axes[-1])]
        return found | {
            LINE: extents[base(line)] * channels,
            WIDE_LINE: found[self._wider(line)] * channels,
        }

    def kernel(self, of: str) -> Kernel:
        """The kernel that makes the copy, line by line: the last two axes are walked as one."""
        line, wide = self.param.axes[-2], self.buffer.axes
        source = Param(self.param.name, (*self.param.axes[:-2], LINE), self.param.dtype)
        lines = Buffer(self.buffer.name, (*wide[:-2], WIDE_LINE), self.buffer.dtype)
        places: dict[str, Node] = {}
        for axis, (before, _) in self.ends.items():
            if axis != line:
                places[axis] = _plus(Index(self._wider(axis)), -before)
        before = Map("mul", (Size(self.param.axes[-1]), Const(self.ends[line][0], int64)))
        places[LINE] = Map("sub", (Index(WIDE_LINE), before))
        outputs = (Output(lines, indexed(Read(source.name, source.axes, source.dtype), places)),)
        phases = write_phases(list(outputs), ())
        return Kernel(f"{of}_{self.param.name}", lines.axes, (), outputs, phases, inputs=(source,))

    def in_lines(self, places: Places) -> Places:
        """Where that kernel reads and writes."""
        shapes, strides = dict(places.shapes), dict(places.strides)
        for name in (self.param.name, self.buffer.name):
            *outer, width, channels = shapes[name]
            shapes[name] = (*outer, width * channels)
            strides[name] = (*strides[name][:-2], strides[name][-1])
        return replace(places, shapes=shapes, strides=strides)

    def read_by(self, kernel: Kernel) -> Kernel:
        """The kernel, reading the copy instead."""
        buffer = self.buffer
        wide = Read(buffer.name, buffer.axes, buffer.dtype)
        along = zip(self.node.along, self.node.positions, strict=True)
        places = {self._wider(axis): _plus(position, self.ends[axis][0]) for axis, position in along}
        param = Param(buffer.name, buffer.axes, buffer.dtype)
        inputs = tuple(param if p == self.param else p for p in kernel.inputs)
        return replace(with_nodes(kernel, {self.node: indexed(wide, places)}), inputs=inputs)


def padded(kernel: Kernel, setting: Setting) -> Padded | None:
    """The operand of windows that is worth a copy with zeros around it: one that vectors do not run along."""
    if kernel.contraction is None or tapped_sides(kernel, setting):
        return None
    extents = setting.extents
    contraction = c = kernel.contraction
    last = kernel.outputs[0].buffer.axes[-1:]
    for node, own, others in ((c.left, c.m, c.n), (c.right, c.n, c.m)):
        if not isinstance(node, At) or not is_plain(kernel, node, contraction):
            continue
        assert isinstance(node.arg, Read)
        read = node.arg
        param = next(p for p in kernel.tiles if p.name == read.param)
        steps = setting.strides[param.name]
        if read.names != param.axes or not is_of_whole_lines(node, steps, extents):
            continue
        even = _passes_few(node, own, others, contraction, setting)
        few = 1 < extents[base(read.names[-1])] <= NEAR
        along_lines = _steps_along_lines(node, contraction, extents, even)
        is_run = few and not set(last) & set(own) and taps_go_on(node, contraction.k, extents)
        if not along_lines and (not is_run or filled_side(node, own, others, contraction, setting)):
            continue
        ends = ends_of(node, extents)
        if ends is None or not any(map(any, ends.values())):
            continue
        found = Padded(param, node, ends)
        copied = math.prod(({**extents, **found.extents(extents)})[base(a)] for a in found.buffer.axes)
        if copied <= math.prod(extents[base(a)] for a in (*own, *contraction.k)):
            return found
    return None


def _passes_few(
    node: At, own: Sequence[str], others: Sequence[str], contraction: Contraction, setting: Setting
) -> bool:
    """Whether rows pass by one or two vectors of columns, and so often that a copy pays, which stays in the
    second cache.
    """
    products, elements = setting.count(*own, *contraction.k), setting.count(*node.arg.axes)
    near = elements * node.dtype.itemsize <= caches().l2
    return setting.count(*others) <= MOST_COLUMNS and products >= REUSED * elements and near


def _steps_along_lines(node: At, contraction: Contraction, extents: Mapping[str, int], even: bool) -> bool:
    """Whether channels are not summed, but positions of a line that are few elements apart, and many."""
    assert isinstance(node.arg, Read)
    line, channel = node.arg.names[-2:]
    if channel in contraction.k:
        return False
    position = affine(dict(zip(node.along, node.positions, strict=True))[line])
    steps = {axis: position.step(axis) for axis in contraction.k}
    channels = extents[base(channel)]
    most, least = (FARTHEST, LEAST[MEDIUM]) if even else (NEAR, LEAST[LONG])
    return any(
        step is not None and 0 < step * channels <= most and extents[base(axis)] >= least
        for axis, step in steps.items()
    )


def _plus(position: Node, shift: int) -> Node:
    return Map("add", (position, Const(shift, int64))) if shift else position
