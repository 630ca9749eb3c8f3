"""Groups of few filters whose channels lie side by side, computed along the lines of images.

    y[n, h, w, g, o] = Σ_rsc k[g, o, r, s, c] · x[n, h + r, w + s, g, c]        o and c have four positions

Vectors along the filters of a group would be full to a quarter, and its channels are too few to be read where
they lie. Along the lines of an image vectors are full (`overrun`), if its operand lies so: of a copy they do.

    x along h w [n, g, c, h, w] = x        t[n, g, o, h, w] = …        y[n, h, w, g, o] = t
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tilewright.compiler.nest import Buffer, Contraction, Kernel, Output
from tilewright.compiler.phases import with_nodes, write_phases
from tilewright.compiler.targets.cpu.contractions.reading.overrun import overrun_side
from tilewright.compiler.targets.cpu.contractions.reading.steps import both_sides, slid_along
from tilewright.compiler.targets.cpu.contractions.staged import Turned, is_plain
from tilewright.compiler.targets.cpu.layout import contiguous_strides
from tilewright.compiler.targets.cpu.toolchain import WIDEST
from tilewright.dsl.axes import base
from tilewright.dsl.program import At, Node, Param, Read, indexed

WORTH = 2  # products of each element that is copied or turned, at least


@dataclass(frozen=True)
class Lined:
    """What a contraction reads at computed positions, which its copy has along its last axes."""

    param: Param
    node: At

    @property
    def buffer(self) -> Buffer:
        lines = [axis for axis in self.param.axes if axis in self.node.along]
        axes = (*(axis for axis in self.param.axes if axis not in lines), *lines)
        return Buffer(f"{self.param.name} along {' '.join(lines)}", axes, self.param.dtype)

    def kernel(self, of: str) -> Kernel:
        """The kernel that makes the copy."""
        outputs = (Output(self.buffer, Read(self.param.name, self.param.axes, self.param.dtype)),)
        phases = write_phases(list(outputs), ())
        return Kernel(f"{of}_{self.param.name}", self.buffer.axes, (), outputs, phases, inputs=(self.param,))

    @property
    def read(self) -> Node:
        """What the contraction reads, in the copy."""
        buffer = self.buffer
        places = dict(zip(self.node.along, self.node.positions, strict=True))
        return indexed(Read(buffer.name, buffer.axes, buffer.dtype), places)

    def read_by(self, kernel: Kernel) -> Kernel:
        """The kernel, reading the copy instead."""
        buffer = self.buffer
        param = Param(buffer.name, buffer.axes, buffer.dtype)
        inputs = tuple(param if p == self.param else p for p in kernel.inputs)
        return replace(with_nodes(kernel, {self.node: self.read}), inputs=inputs)

    def turned(self, kernel: Kernel) -> Turned:
        """What the contraction writes, along the same lines."""
        buffer, slides = kernel.outputs[0].buffer, slid_along(self.node)
        axes = tuple(sorted(buffer.axes, key=lambda axis: axis in slides))
        return Turned(buffer, Buffer(f"{buffer.name} along lines", axes, buffer.dtype))


def lined(kernel: Kernel, extents: Mapping[str, int]) -> Lined | None:
    """The operand of windows that is worth a copy along its lines."""
    c = kernel.contraction
    output, *more = kernel.outputs
    if c is None or more or not c.batch:
        return None
    last = output.buffer.axes[-1:]
    for node, own, others in both_sides(c):
        if not is_plain(kernel, node, c) or {*last} & {*own}:
            continue
        assert isinstance(node, At) and isinstance(node.arg, Read)
        name = node.arg.param
        found = Lined(next(p for p in kernel.tiles if p.name == name), node)
        if node.arg.names != found.param.axes or {*found.param.axes[-1:]} & {*node.along}:
            continue
        if _pays(node, own, others, c, extents) and _goes_along(found, own, others, c, extents):
            return found
    return None


def _pays(
    node: At, own: Sequence[str], others: Sequence[str], contraction: Contraction, extents: Mapping[str, int]
) -> bool:
    """Whether filters fill a vector to half at most, and there are many products for each element that is
    copied, there and back.
    """
    results = (*own, *others, *contraction.batch)
    elements, made, products = (
        math.prod(extents[base(axis)] for axis in axes)
        for axes in (node.arg.axes, results, (*results, *contraction.k))
    )
    few = 2 * math.prod(extents[base(axis)] for axis in others) <= WIDEST
    return few and products >= WORTH * (elements + made)


def _goes_along(
    found: Lined,
    own: Sequence[str],
    others: Sequence[str],
    contraction: Contraction,
    extents: Mapping[str, int],
) -> bool:
    """Whether vectors run along the lines of the copy, on over their ends."""
    buffer, node = found.buffer, found.read
    shape = tuple(extents[base(axis)] for axis in buffer.axes)
    strides = {buffer.name: contiguous_strides(shape, buffer.dtype)}
    assert isinstance(node, At)
    return overrun_side(node, own, others, contraction.k, strides, extents) is not None
