"""Kernels that pass values on, slice by slice: what one has written is in the second cache for the next.

A convolution whose operand is copied first (`contractions.staged`, `contractions.padded`), and whose results
are turned at the end, is three kernels. One image after the other goes through all of them:

    for slice of n:  x along c [slice] = x[slice];  y along o [slice] = …;  y[slice] = y along o [slice]

An axis is cut so if every kernel has it as it is: at each of its positions all of them read and write what
belongs to that position alone. Sums have the order that they have without; where there are too few slices for
the threads, nothing is cut, and bits are the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tilewright.compiler.nest import Kernel, Output
from tilewright.compiler.targets.cpu.contractions.reading.borders import FEWEST
from tilewright.compiler.targets.cpu.contractions.sizes import block_sizes
from tilewright.compiler.targets.cpu.contractions.walk import Walk
from tilewright.compiler.targets.cpu.frame import THREADS, WORKSPACE, WORKSPACE_BYTES
from tilewright.compiler.targets.cpu.launch import enter
from tilewright.compiler.targets.cpu.layout import Layout, bytes_of
from tilewright.compiler.targets.cpu.recipe import Buffer, Launchable, Places, Scalars, Step, scalar_bits
from tilewright.compiler.targets.cpu.schedule import Schedule
from tilewright.compiler.targets.cpu.slice_loop import LoopFrame, SliceLoop
from tilewright.compiler.targets.cpu.toolchain import caches
from tilewright.dsl.axes import base
from tilewright.dsl.program import At, Index, Read, Size, topological
from tilewright.runtime import memory
from tilewright.runtime.addresses import address

AGAIN = 1.5  # bytes that each slice reads from afar again, for each that waits in it, at most
WAITING = 2  # second caches, at most, of what waits in a slice: most of it is still there
UNEVEN = 1.25  # the time of slices that are shared out among threads, to that of even shares, at most


@dataclass(frozen=True)
class Planned:
    """A kernel that is to be a step, its name in the cache of kernels, and where it reads and writes."""

    kernel: Kernel
    position: str
    places: Places

    @property
    def operands(self) -> dict[str, tuple[str, ...]]:
        """The axes of all that it reads and writes, by name."""
        read = {p.name: p.axes for p in self.kernel.tiles}
        return read | {o.buffer.name: o.buffer.axes for o in self.kernel.outputs}

    def writes_along(self, axis: str) -> bool:
        return axis in self.kernel.outputs[0].buffer.axes

    def part(self, axis: str, length: int) -> Planned:
        """The same for so many positions along an axis."""
        shapes = dict(self.places.shapes)
        for name, axes in self.operands.items():
            shape = zip(axes, shapes[name], strict=True)
            shapes[name] = tuple(length if base(a) == axis else extent for a, extent in shape)
        return replace(self, places=replace(self.places, shapes=shapes))

    def apart(self, axis: str, length: int) -> dict[str, int]:
        """The bytes from one slice of so many positions to the next in each array; 0 without that axis."""
        strides = self.places.strides
        steps = {n: dict(zip(axes, strides[n], strict=True)) for n, axes in self.operands.items()}
        return {name: found.get(axis, 0) * length for name, found in steps.items()}


@dataclass(frozen=True)
class Slicing:
    """An axis that is cut into `count` slices of so many positions."""

    axis: str
    length: int
    count: int

    def suits(self, workers: int) -> bool:
        """Whether there are enough slices for so many threads, each of which takes some."""
        return -(-self.count // workers) * workers <= UNEVEN * self.count


def slicing(
    group: Sequence[Planned], extents: Mapping[str, int], together: Collection[str] = ()
) -> Slicing | None:
    """How kernels that follow each other are cut, if the second cache does not hold all that they read and
    write, but what waits between them in a slice: into slices of which it holds everything, or of one
    position; along an axis whose rows leave an operand `together`, of as many as that takes. Those that do
    not write along the axis come first, and are not cut.
    """
    axis = next((a for a in group[-1].kernel.outputs[0].buffer.axes if extents[base(a)] > 1), None)
    cut = [planned for planned in group if axis is not None and planned.writes_along(axis)]
    if axis is None or len(cut) < 2 or not all(_goes_along(planned.kernel, axis) for planned in cut):
        return None
    if not all(_is_first(planned.kernel.outputs[0].buffer.axes, axis, extents) for planned in cut[:-1]):
        return None
    waiting, along, rest = _sizes(cut, axis)
    whole, room = extents[axis], caches().l2
    if rest + along <= room or waiting > WAITING * room * whole:
        return None
    lengths = [n for n in range(FEWEST if axis in together else 1, whole) if whole % n == 0]
    fitting = [n for n in lengths if rest + n * along / whole <= room]
    if not lengths or (not fitting and rest > AGAIN * waiting * lengths[0] / whole):
        return None
    length = max(fitting, default=lengths[0])
    return Slicing(axis, length, whole // length)


def _is_first(axes: Sequence[str], axis: str, extents: Mapping[str, int]) -> bool:
    """Whether slices of a buffer lie one after the other: each is one stretch of memory."""
    return next(a for a in axes if extents[base(a)] > 1) == axis


def _goes_along(kernel: Kernel, axis: str) -> bool:
    """Whether a kernel has nothing to do with an axis but to go along it, in all that it writes."""
    if kernel.scans or kernel.scatter or kernel.order or kernel.split or kernel.starts:
        return False
    if not all(_writes_plainly(output, axis) for output in kernel.outputs):
        return False
    summed = kernel.contraction.k if kernel.contraction else ()
    named = {name for param in kernel.inputs for name in param.axes}
    for node in kernel.nodes():
        named.update(node.axes)
        if isinstance(node, Index | Size) and base(node.axis) == axis:
            return False
        if isinstance(node, Read) and not _reads_plainly(node, kernel, axis):
            return False
        if isinstance(node, At) and axis in (*node.along, *(a for p in node.positions for a in p.axes)):
            return False
    others = {name for name in named if base(name) == axis} - {axis}
    return not others and axis not in (*summed, *kernel.row)


def _writes_plainly(output: Output, axis: str) -> bool:
    """Whether there is one dimension for an axis, and each element of it is written once."""
    return output.buffer.axes.count(axis) == 1 and not output.places and output.accumulate is None


def _reads_plainly(node: Read, kernel: Kernel, axis: str) -> bool:
    """Whether an operand's own axis is read along this one, and no other."""
    param = next((p for p in kernel.tiles if p.name == node.param), None)
    return param is None or all(
        (own == axis) == (name == axis) for own, name in zip(param.axes, node.names, strict=True)
    )


def _sizes(group: Sequence[Planned], axis: str) -> tuple[int, int, int]:
    """The bytes of what one kernel writes and a later one reads, of all that lies along an axis, and of all
    that does not.
    """
    sizes: dict[int, int] = {}
    along: set[int] = set()
    written: set[int] = set()
    waiting: set[int] = set()
    for planned in group:
        number, kernel = planned.places.number, planned.kernel
        dtypes = {p.name: p.dtype for p in kernel.tiles} | {
            o.buffer.name: o.buffer.dtype for o in kernel.outputs
        }
        for name, axes in planned.operands.items():
            sizes[number[name]] = bytes_of(planned.places.shapes[name], dtypes[name])
            along |= {number[name]} if axis in axes else set()
        waiting |= written & {number[p.name] for p in kernel.tiles}
        written |= {number[output.buffer.name] for output in kernel.outputs}
    return (
        sum(sizes[n] for n in waiting),
        sum(sizes[n] for n in along),
        sum(size for n, size in sizes.items() if n not in along),
    )


def order_of_sums(
    kernel: Kernel, schedule: Schedule, layout: Layout, extents: Mapping[str, int]
) -> tuple[object, ...]:
    """What decides on the bits of a kernel's sums."""
    if kernel.contraction is None:
        return ()
    walk = Walk.of(kernel, schedule, layout)
    block = block_sizes(kernel, schedule, layout, extents, 1).block_k
    return walk.summed, walk.joined, walk.inner, walk.in_lines, walk.tapped, schedule.dot_product, block


@dataclass(frozen=True, slots=True)
class Sliced:
    """Steps of a recipe that are done for one slice after the other, of which each thread has its own.

    apart: for each array of each step, the bytes from one slice to the next.
    """

    slicing: Slicing
    steps: tuple[Step, ...]
    apart: tuple[tuple[int, ...], ...]
    workers: int
    loop: SliceLoop
    frame: LoopFrame

    @classmethod
    def of(
        cls,
        slicing: Slicing,
        steps: Sequence[Step],
        apart: Sequence[Mapping[str, int]],
        workers: int,
        loop: SliceLoop,
    ) -> Sliced:
        """Those of a slice's steps. `apart`: the same by the names of arrays."""
        slices = slicing.axis, slicing.count
        marked = tuple(replace(step, slices=slices) for step in steps)
        names = [[name for name, _ in step.compiled.frame.operand_slot] for step in steps]
        found = tuple(tuple(by[name] for name in own) for own, by in zip(names, apart, strict=True))
        workers = min(workers, slicing.count)
        return cls(slicing, marked, found, workers, loop, cls._frame(slicing, marked, found, workers, {}))

    def with_own(self, sizes: Mapping[int, int]) -> Sliced:
        """The same with arrays that nothing else has to do with, a slice of them, in the threads' workspaces.
        `sizes`: their bytes, by their numbers.
        """
        own = {number: size // self.slicing.count for number, size in sizes.items()}
        return replace(self, frame=self._frame(self.slicing, self.steps, self.apart, self.workers, own))

    @staticmethod
    def _frame(
        slicing: Slicing,
        steps: Sequence[Step],
        apart: Sequence[Sequence[int]],
        workers: int,
        own: Mapping[int, int],
    ) -> LoopFrame:
        kept = [packs_once(step, by) for step, by in zip(steps, apart, strict=True)]
        return LoopFrame.of(steps, apart, kept, own, slicing.count, workers)

    def launch(self, arrays: Sequence[np.ndarray], scalars: Scalars) -> None:
        words = self.frame.words[:]
        workspace = memory.scratch(words[THREADS] * words[WORKSPACE_BYTES])
        words[WORKSPACE] = address(workspace)
        for word, number in self.frame.arrays:
            words[word] = address(arrays[number])
        for word, name, dtype in self.frame.scalars:
            words[word] = scalar_bits(scalars[name], dtype)
        enter(self.loop.entry, self.loop.part, words)


def packs_once(step: Step, apart: Sequence[int]) -> bool:
    """Whether the side of a contraction that vectors run along is the same for all slices."""
    compiled = step.compiled
    if compiled.kernel.contraction is None:
        return False
    right = Walk.of(compiled.kernel, compiled.schedule, compiled.layout).right
    named = {node.param for node in topological([right.node]) if isinstance(node, Read)}
    by = dict(zip((name for name, _ in compiled.frame.operand_slot), apart, strict=True))
    return not any(by.get(name) for name in named)


def each_step(steps: Sequence[Launchable]) -> tuple[Step, ...]:
    """All steps, of slices those of one."""
    found: list[Step] = []
    for step in steps:
        found += step.steps if isinstance(step, Sliced) else [step] if isinstance(step, Step) else []
    return tuple(found)


def with_own(
    steps: Sequence[Step | Sliced], buffers: Sequence[Buffer], operands: int, results: int
) -> tuple[list[Step | Sliced], list[Buffer]]:
    """The steps of a recipe and its buffers: those that one step's slices alone have to do with are empty. So
    many operands are numbered before the buffers, of which the first are results.
    """
    uses = Counter(n for step in steps for n in {n for each in each_step([step]) for n in each.arrays})
    found, left = list[Step | Sliced](), list(buffers)
    for step in steps:
        if isinstance(step, Sliced):
            numbers = {n for each in step.steps for n in each.arrays if n >= operands + results}
            sizes = {n: _bytes(buffers[n - operands]) for n in numbers if uses[n] == 1}
            step = step.with_own(sizes)
            for number in sizes:
                left[number - operands] = ((0,), buffers[number - operands][1])
        found.append(step)
    return found, left


def _bytes(buffer: Buffer) -> int:
    shape, dtype = buffer
    return math.prod(shape) * dtype.itemsize
