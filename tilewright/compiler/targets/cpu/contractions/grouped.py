"""Vectors of filters or channels that belong to several groups, of which each has few.

    y[n, h, w, g, o] = Σ_rsc k[g, o, r, s, c] · x[n, h + r, w + s, g, c]        o and c have four positions

Vectors along the filters of one group would be full to a quarter. Filters of four groups fill them; what they
are multiplied with is no longer one element for a row, but one for each group, and those are one vector of x,
read once for all c (`picked`). So the groups become an axis of the columns, and rows are read at the first
group of a panel of columns.

    dk[g, o, r, s, c] = Σ_nhw dy[n, h, w, g, o] · x[n, h + r, w + s, g, c]

Here vectors run along the channels of several groups, from tap to tap (`tapped`), and rows are the filters of
a group. Operands that do not lie so are copied, and the result is turned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tilewright.compiler.nest import Buffer, Contraction, Kernel
from tilewright.compiler.targets.cpu.contractions.reading.grouped import grouped_side
from tilewright.compiler.targets.cpu.contractions.reading.setting import Setting
from tilewright.compiler.targets.cpu.contractions.reading.steps import both_sides, slid_along, sums_for_taps
from tilewright.compiler.targets.cpu.contractions.reading.tapped import tapped_side
from tilewright.compiler.targets.cpu.contractions.staged import Staged, Turned, is_plain
from tilewright.compiler.targets.cpu.layout import contiguous_strides
from tilewright.dsl.axes import base
from tilewright.dsl.program import At, Node, Read

FEWEST_COPIED = 4  # filters of a group, at least, for which operands are copied


def grouped(kernel: Kernel, setting: Setting) -> Kernel:
    """The kernel, with groups among its columns if results lie along those."""
    found = _groups_of(kernel, setting)
    if found is None:
        return kernel
    c, groups = found
    last = [setting.moving(o.buffer.axes)[-2:] for o in kernel.outputs]
    for node, own, others in both_sides(c):
        if not is_plain(kernel, node, c) or not others:
            continue
        assert isinstance(node, At)
        rows = grouped_side(node, own, others, groups, c.k, setting, False)
        if rows and all(axes == [groups, others[-1]] for axes in last):
            return _with_columns(kernel, others, groups)
        if own and all(axes == [groups, own[-1]] for axes in last):
            wide = _with_columns(kernel, own, groups)
            assert wide.contraction is not None
            columns = _columns_of(groups, own)
            if tapped_side(node, columns, others, wide.contraction, setting):
                return wide
    return kernel


def _groups_of(kernel: Kernel, setting: Setting) -> tuple[Contraction, str] | None:
    """The axis of the groups of a contraction, if it is one."""
    c = kernel.contraction
    groups = setting.moving(c.batch) if c is not None else []
    return (c, groups[0]) if c is not None and len(groups) == 1 else None


def _with_columns(kernel: Kernel, side: Sequence[str], groups: str) -> Kernel:
    """The kernel, with the groups among the axes of one side."""
    c = kernel.contraction
    assert c is not None
    columns = _columns_of(groups, side)
    m, n = (columns if axes is side else axes for axes in (c.m, c.n))
    batch = tuple(axis for axis in c.batch if axis != groups)
    return replace(kernel, contraction=replace(c, batch=batch, m=m, n=n))


def _columns_of(groups: str, side: Sequence[str]) -> tuple[str, ...]:
    return (*side[:-1], groups, *side[-1:])


@dataclass(frozen=True)
class OfTaps:
    """What a filter's gradient is computed from and to, channels of all groups side by side: the copies of
    operands that do not lie so, and the result before it is turned.
    """

    copies: tuple[Staged, ...]
    turned: Turned | None


def of_taps(kernel: Kernel, setting: Setting) -> OfTaps | None:
    """The gradient of filters of groups, as a contraction with groups among the taps and channels."""
    found = _groups_of(kernel, setting)
    if found is None or len(kernel.outputs) != 1:
        return None
    c, groups = found
    buffer = kernel.outputs[0].buffer
    for node, own, others in both_sides(c):
        other = c.beside(node)
        if not is_plain(kernel, node, c) or not _is_plain_read(kernel, other, c):
            continue
        assert isinstance(node, At) and isinstance(other, Read)
        slides = slid_along(node)
        channels, filters = ([a for a in setting.moving(axes) if a not in slides] for axes in (own, others))
        if len(channels) != 1 or len(filters) != 1 or not sums_for_taps(node, own, c.k, setting.extents):
            continue
        last = groups, channels[0]
        lying = dict(setting.strides)
        copies = list[Staged]()
        for read, axes in ((node.arg, last), (other, (groups, filters[0]))):
            copy = _copy(kernel, read, axes, setting)
            if copy is not None and setting.extent(filters[0]) < FEWEST_COPIED:
                return None
            if copy is not None:
                copies.append(copy)
                lying[copy.param.name] = _strides_in(copy, setting.extents)
        axes = (*(axis for axis in buffer.axes if axis not in last), *last)
        along = Buffer(f"{buffer.name} along {' '.join(last)}", axes, buffer.dtype)
        turned = Turned(buffer, along) if buffer.axes != along.axes else None
        sides = turned.written_by(kernel) if turned else kernel
        if grouped(sides, setting.lying(lying)) is not sides:
            return OfTaps(tuple(copies), turned)
    return None


def _is_plain_read(kernel: Kernel, node: Node, contraction: Contraction) -> bool:
    """Whether a side is an operand of the sum's own type, and is read nowhere else."""
    if not isinstance(node, Read) or not any(p.name == node.param for p in kernel.tiles):
        return False
    reads = [n for n in kernel.nodes() if isinstance(n, Read) and n.param == node.param]
    return reads == [node] and node.dtype == contraction.root.dtype


def _copy(kernel: Kernel, read: Node, last: Sequence[str], setting: Setting) -> Staged | None:
    """A copy that has these axes last, if the operand does not."""
    assert isinstance(read, Read)
    param = next(p for p in kernel.tiles if p.name == read.param)
    lying = dict(zip(read.names, setting.strides[param.name], strict=True))
    size = param.dtype.itemsize
    if [lying[a] for a in last] == [setting.extent(last[-1]) * size, size]:
        return None
    dimensions = [read.names.index(axis) for axis in last]
    order = (*(d for d in range(len(param.axes)) if d not in dimensions), *dimensions)
    return Staged(param, order, len(last))


def _strides_in(copy: Staged, extents: Mapping[str, int]) -> Sequence[int]:
    """Those of the operand's dimensions in the copy, in bytes."""
    shape = tuple(extents[base(axis)] for axis in copy.buffer.axes)
    steps = contiguous_strides(shape, copy.param.dtype)
    return [steps[copy.order.index(d)] for d in range(len(copy.order))]
