"""What a kernel is specialised by: how its operands lie in memory, and what can be said of its extents.

Extents themselves stay symbolic: a kernel serves all calls of one layout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tilewright.compiler.nest import Kernel, indexed_reads, reads_of
from tilewright.compiler.targets.cpu.contractions.reading.setting import Setting
from tilewright.compiler.targets.cpu.contractions.sides import Sides, sides_of
from tilewright.compiler.targets.cpu.lengths import ENDLESS, LEAST, LONG, ONE, WHOLE, length_class
from tilewright.compiler.targets.cpu.registers import registers_of
from tilewright.compiler.targets.cpu.toolchain import WIDEST, CpuTarget, caches
from tilewright.compiler.targets.cpu.windows.slides import Windows, windows_of
from tilewright.dsl.axes import base
from tilewright.dsl.bounds import stays_inside
from tilewright.dsl.dtypes import DType
from tilewright.dsl.program import At

UNIT, ZERO, STRIDED, CONTINUED = "1", "0", "s", "c"

NARROW, VECTOR = "n", "v"
FEWEST = 16384  # positions of a scanned row from which on it is endless: walked in parts
SHORTEST, LONGEST = 2, 12  # positions of a short row, whose length is known to its kernel
FEWEST_SHORT = 64  # short rows side by side
MOST_FIELDS = 8  # of a record, each of which is written out
FEWEST_RECORDS = 32
BRIEF = {"b": 24, "c": 48, "d": 112}  # classes of reduced rows whose end costs as much as the rest: positions
MANY = 1 << 62
MOST_NARROW = 64  # elements of a last axis that is narrow: lanes run on over its ends
MOST_COLUMNS = 48  # that are reduced so
FEWEST_NARROW = 128  # positions of the axis outside of it
WIDEST_GAP = 8  # elements from lane to lane: so many vectors are read and their lanes picked, else a gather


@dataclass(frozen=True)
class Layout:
    """classes: the stride of every dimension of every operand that is read: `1` element, `0`, or else `s`; up
    to `8` of a pointwise or row kernel's operand that has no dimension of single elements (every other
    column, a field of records); `c` where a last axis is narrow and this dimension steps from one end of its
    elements to the next.

    lengths: how long the axes of a contraction are, roughly: one element, tiny (2 to 4), short (5 to 7),
    medium (8 to 14), long, or whole vectors; that of a scan, if it is endless; that of a reduced row, if
    it is brief and there are many; the number of positions of a short row, reduced or scanned, of few scanned
    rows, and of the fields of records; that of a narrow last axis, shorter than a vector or not; and axes
    outside of a row that have one position. inside: the axes along which an operand read at computed
    positions is never left. sides: of a contraction (`contractions.sides`). windows: of a kernel's rows, if
    they are few taps (`windows.slides`). far: whether what a pointwise kernel reads and writes is more than
    the last cache holds. lanes: of which whole vectors of an axis are multiples.
    """

    classes: Mapping[str, str]
    lengths: Mapping[str, str] = field(default_factory=dict)
    inside: Mapping[At, frozenset[str]] = field(default_factory=dict)
    sides: Sides = field(default_factory=Sides)
    windows: Windows = field(default_factory=Windows)
    far: bool = False
    lanes: int = WIDEST

    def of(self, name: str, dimension: int) -> str:
        return self.classes[name][dimension]

    def is_unit(self, name: str, dimension: int) -> bool:
        return self.of(name, dimension) == UNIT

    def goes_on(self, name: str, outer: int, inner: int) -> bool:
        """Whether the position after the last along `inner` is the next one along `outer`."""
        return inner == outer + 1 and outer in self.sides.chains.get(name, ())

    def length(self, axis: str) -> str:
        return self.lengths.get(base(axis), LONG)

    def moving(self, axes: Sequence[str]) -> tuple[str, ...]:
        """Those of more than one position, or the last if there are none."""
        return tuple(axis for axis in axes if self.length(axis) != ONE) or tuple(axes[-1:])

    def is_short(self, axes: Sequence[str]) -> bool:
        """Whether these are rows with a known number of positions."""
        return any(self.length(axis).isdigit() and self.length(axis) != ONE for axis in axes)

    def positions(self, axis: str) -> int:
        """The most positions that a reduced row can have: those that it has, if it is short."""
        length = self.length(axis)
        return int(length) if self.is_short((axis,)) else BRIEF.get(length, MANY)

    def stretches(self, axes: Sequence[str], lanes: int) -> int:
        """The most pieces into which the ends of these axes, walked as one, can cut a vector that runs on
        through them.
        """
        lengths = [self.length(axis) for axis in axes]
        if WHOLE in lengths and self.lanes % lanes == 0:
            return 1
        fewest = {ONE: 1, **LEAST, WHOLE: LEAST[LONG]}
        return 1 + -(-(lanes - 1) // math.prod(fewest.get(length, 1) for length in lengths))

    def text(self) -> str:
        parts = [f"{name}:{text}" for name, text in sorted(self.classes.items())]
        parts += [f"{axis}={length}" for axis, length in sorted(self.lengths.items())]
        parts += [f"inside {','.join(sorted(axes))}" for axes in self.inside.values()]
        parts += ["far"] * self.far
        return " ".join((*parts, self.sides.text(), self.windows.text()))


def layout_of(
    kernel: Kernel,
    shapes: Mapping[str, Sequence[int]],
    strides: Mapping[str, Sequence[int]],
    extents: Mapping[str, int],
    target: CpuTarget,
) -> Layout:
    """The layout of a call; strides are in bytes."""
    registers = registers_of(kernel, target)
    lengths = _records(kernel, strides, extents) or _lengths(kernel, extents, registers.lanes)
    narrow = any(length in (NARROW, VECTOR) or length.isdigit() for length in lengths.values())
    spaced = kernel.kind in ("pointwise", "row", "scan")
    classes = {
        p.name: _classes(shapes[p.name], strides[p.name], p.dtype, narrow, spaced) for p in kernel.tiles
    }
    inside = {
        node: frozenset(axis for axis in node.along if stays_inside(node, axis, extents))
        for node in indexed_reads(kernel)
    }
    lengths |= _single_axes(kernel, extents, classes)
    sides = sides_of(kernel, shapes, Setting(strides, extents, registers), inside)
    far = kernel.kind == "pointwise" and bytes_passed(kernel, shapes) > caches().l3
    return Layout(classes, lengths, inside, sides, windows_of(kernel, extents), far, registers.lanes)


def bytes_passed(kernel: Kernel, shapes: Mapping[str, Sequence[int]]) -> int:
    """All that a kernel reads and writes."""
    buffers = (*kernel.tiles, *(output.buffer for output in kernel.outputs))
    return sum(bytes_of(shapes[buffer.name], buffer.dtype) for buffer in buffers)


def _lengths(kernel: Kernel, extents: Mapping[str, int], lanes: int) -> dict[str, str]:
    """Those of axes that a contraction walks together with others, and of an endless row that is scanned."""
    short = _short_row(kernel, extents)
    if kernel.scans:
        return short | {base(axis): ENDLESS for axis in kernel.row if extents[base(axis)] >= FEWEST}
    if short:
        return short
    if kernel.kind in ("row", "pointwise") and not kernel.split:
        return _brief_rows(kernel, extents) | _narrow_axis(kernel, extents)
    if not kernel.contraction:
        return {}
    c = kernel.contraction
    groups = [group for group in (c.m, c.n, c.k) if len(group) > 1]
    return {base(axis): length_class(extents[base(axis)], lanes) for group in groups for axis in group}


def _records(
    kernel: Kernel, strides: Mapping[str, Sequence[int]], extents: Mapping[str, int]
) -> dict[str, str]:
    """That of the fields of records, of a pointwise kernel that has their fields as planes too."""
    stored = [(output.buffer.axes, output.buffer.dtype) for output in kernel.outputs]
    plain = not any(o.places or o.accumulate for o in kernel.outputs) and not indexed_reads(kernel)
    if kernel.kind != "pointwise" or kernel.split or not plain:
        return {}
    lying = [(read.names, strides[read.param], read.dtype) for read in reads_of(kernel) if read.names]
    for axes, dtype in stored:
        shape = tuple(extents[base(axis)] for axis in axes)
        lying.append((axes, contiguous_strides(shape, dtype), dtype))
    if any(dtype.is_bool for _, _, dtype in lying):
        return {}
    found = {axes[-2:] for axes, steps, dtype in lying if _are_records(axes, steps, dtype, extents)}
    if len(found) != 1 or not set(*found) <= set(kernel.parallel):
        return {}
    ((records, fields),) = found
    planes = (
        dict(zip(axes, steps, strict=True)).get(records) == dtype.itemsize and fields in axes
        for axes, steps, dtype in lying
    )
    return {base(fields): str(extents[base(fields)])} if any(planes) else {}


def _are_records(
    axes: Sequence[str], strides: Sequence[int], dtype: DType, extents: Mapping[str, int]
) -> bool:
    """Whether an operand's last axis has few positions, and lies record by record along the one before."""
    if len(axes) < 2 or axes[-1] == axes[-2]:
        return False
    count = extents[base(axes[-1])]
    few = 1 < count <= MOST_FIELDS and extents[base(axes[-2])] >= FEWEST_RECORDS
    return few and list(strides[-2:]) == [count * dtype.itemsize, dtype.itemsize]


def _short_row(kernel: Kernel, extents: Mapping[str, int]) -> dict[str, str]:
    """That of the row, if it has few positions and there are many side by side; that of the axis of scanned
    rows, if they are few and have many positions.
    """
    if kernel.kind not in ("row", "scan") or kernel.split or len(kernel.row) != 1 or not kernel.parallel:
        return {}
    row, rows = (base(axis) for axis in (*kernel.row, kernel.parallel[-1]))
    if SHORTEST <= extents[row] <= LONGEST and extents[rows] >= FEWEST_SHORT:
        return {row: str(extents[row])}
    if kernel.scans and SHORTEST <= extents[rows] <= LONGEST and extents[row] >= FEWEST_SHORT:
        return {rows: str(extents[rows])}
    return {}


def _brief_rows(kernel: Kernel, extents: Mapping[str, int]) -> dict[str, str]:
    """Those of the row, if it is brief and there are enough side by side to fill vectors."""
    if not kernel.row or not kernel.parallel or extents[base(kernel.parallel[-1])] < WIDEST:
        return {}
    positions = math.prod(extents[base(axis)] for axis in kernel.row)
    found = next((name for name, most in BRIEF.items() if positions <= most), None)
    return {base(kernel.row[0]): found} if found else {}


def _single_axes(kernel: Kernel, extents: Mapping[str, int], classes: Mapping[str, str]) -> dict[str, str]:
    """Those of axes outside of a row that have one position, and along which an operand seems to lie."""
    if kernel.kind != "row":
        return {}
    return {
        base(axis): ONE
        for param in kernel.tiles
        for axis, kind in zip(param.axes, classes[param.name], strict=True)
        if axis in kernel.parallel and extents[base(axis)] == 1 and kind == UNIT
    }


def _narrow_axis(kernel: Kernel, extents: Mapping[str, int]) -> dict[str, str]:
    """That of the last axis of results, if it is narrow and the one outside of it is not short."""
    found = last_axes(kernel)
    if found is None:
        return {}
    outer, inner = (base(axis) for axis in found)
    most = MOST_COLUMNS if kernel.row else MOST_NARROW
    if not 1 < extents[inner] <= most or extents[outer] < FEWEST_NARROW:
        return {}
    return {inner: VECTOR if extents[inner] >= WIDEST else NARROW}


def last_axes(kernel: Kernel) -> tuple[str, str] | None:
    """The last axis of results, and the one outside of it: the row's, which they need not have, if any."""
    axes = [axis for axis in kernel.outputs[0].buffer.axes if axis in kernel.parallel]
    axes = [*kernel.row, *axes[-1:]] if kernel.row else axes
    if len(axes) < 2 or len(kernel.row) > 1 or axes[-1] in kernel.row:
        return None
    return axes[-2], axes[-1]


def contiguous_strides(shape: Sequence[int], dtype: DType) -> tuple[int, ...]:
    strides = []
    step = dtype.itemsize
    for extent in reversed(shape):
        strides.append(step)
        step *= max(1, extent)
    return tuple(reversed(strides))


def bytes_of(shape: Sequence[int], dtype: DType) -> int:
    return math.prod(shape) * dtype.itemsize


def normal_strides(shape: Sequence[int], strides: Sequence[int], dtype: DType) -> tuple[int, ...]:
    """The strides; a dimension of one element has the one that it would have if contiguous, where that is 1.

    Such a dimension counts as contiguous, so that vectors may begin beside its element.
    """
    contiguous = contiguous_strides(shape, dtype)
    return tuple(
        natural if extent <= 1 and natural == dtype.itemsize else stride
        for extent, stride, natural in zip(shape, strides, contiguous, strict=True)
    )


def elements_apart(kind: str) -> int:
    """The elements from one position to the next along a dimension; 0 if there are none, or many."""
    return int(kind) if kind.isdigit() else 0


def _classes(shape: Sequence[int], strides: Sequence[int], dtype: DType, narrow: bool, spaced: bool) -> str:
    """The stride class of each dimension."""
    normal = normal_strides(shape, strides, dtype)
    classes = [UNIT if s == dtype.itemsize else ZERO if s == 0 else STRIDED for s in normal]
    if narrow and classes.count(UNIT) == 1:
        end = shape[classes.index(UNIT)] * dtype.itemsize
        classes = [
            CONTINUED if s == end and c == STRIDED else c for s, c in zip(normal, classes, strict=True)
        ]
    if spaced and UNIT not in classes:
        near = {apart * dtype.itemsize: str(apart) for apart in range(2, WIDEST_GAP + 1)}
        classes = [near.get(s, c) for s, c in zip(normal, classes, strict=True)]
    return "".join(classes)
