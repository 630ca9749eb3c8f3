"""Recipes: what a Plan does for operands of certain shapes and strides, worked out once.

A warm call allocates the results, and hands the arrays to each kernel, which copies a frame's template.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from tilewright.compiler import nest
from tilewright.compiler.in_place import Out, deliver
from tilewright.compiler.nest import Kernel
from tilewright.compiler.targets.cpu import frame
from tilewright.compiler.targets.cpu.launch import Entry, Range, enter, has_openmp
from tilewright.compiler.targets.cpu.layout import Layout, contiguous_strides
from tilewright.compiler.targets.cpu.schedule import Schedule
from tilewright.dsl.axes import base
from tilewright.dsl.dtypes import DType
from tilewright.runtime import memory
from tilewright.runtime.addresses import LIES_IN_FIELD, address

Scalars = Mapping[str, float | int]
NOTHING: Scalars = {}
Buffer = tuple[tuple[int, ...], np.dtype]  # shape, dtype
Plain = tuple[Callable[..., None], int, int, Callable[[], np.ndarray]]
"""A kernel's entry and template, the bytes of its workspace, and what makes its result."""


@dataclass(frozen=True)
class CompiledKernel:
    """Machine code of one kernel for one layout."""

    kernel: Kernel
    layout: Layout
    schedule: Schedule
    frame: frame.Frame
    entry: Entry
    direct: Callable[..., None]
    part: Range
    keepalive: object


def direct_type(kernel: Kernel) -> type:
    """The C type of a kernel's entry that takes arrays as Python has them (`emit`)."""
    arrays = len(kernel.tiles) + len(kernel.outputs)
    scalars = [ctypes.c_double if p.dtype.is_float else ctypes.c_int64 for p in kernel.scalars]
    objects = [ctypes.py_object] * (1 + arrays)
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p, *objects, *scalars)


@dataclass(frozen=True)
class Places:
    """Where the kernels of a recipe read and write: shapes and strides by name, and the numbers by which
    arrays are known, operands first, then buffers.
    """

    shapes: dict[str, tuple[int, ...]]
    strides: dict[str, tuple[int, ...]]
    number: dict[str, int]
    buffers: list[nest.Buffer]

    def add(self, name: str, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.number[name] = 1 + max(self.number.values(), default=-1)
        self.shapes[name], self.strides[name] = shape, strides

    def add_buffer(
        self, buffer: nest.Buffer, extents: Mapping[str, int], memory_of: str | None = None
    ) -> None:
        """A buffer with memory of its own, or in that of another one."""
        shape = tuple(extents[base(axis)] for axis in buffer.axes)
        self.add(buffer.name, shape, contiguous_strides(shape, buffer.dtype))
        if memory_of is None:
            self.buffers.append(buffer)
        else:
            self.number[buffer.name] = self.number[memory_of]

    def instead(self, name: str, copy: str, order: Sequence[int]) -> Places:
        """The same for a kernel that reads a copy, whose dimensions are the original's in that order."""
        lying = self.strides[copy]
        strides = tuple(lying[order.index(dimension)] for dimension in range(len(order)))
        changed = {**self.strides, name: strides}
        return replace(self, strides=changed, number={**self.number, name: self.number[copy]})


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel of a recipe: its frame without addresses, and where they go.

    An array is known by its number: operands first, then buffers. arrays: those of the kernel, in the order
    of the frame's `slots`. scalars: slot, name, dtype of each. workspace: its bytes. extents: of its axes.
    slices: the axis that it goes along slice by slice, and how many slices there are.
    """

    compiled: CompiledKernel
    template: array
    arrays: tuple[int, ...]
    slots: tuple[int, ...]
    scalars: tuple[tuple[int, str, DType], ...]
    workspace: int
    workers: int
    extents: Mapping[str, int]
    slices: tuple[str, int] | None = None

    def launch(self, arrays: Sequence[np.ndarray], scalars: Scalars) -> None:
        own = [arrays[number] for number in self.arrays]
        workspace = memory.scratch(self.workspace) if self.workspace else own[-1]
        if LIES_IN_FIELD and (self.workers == 1 or has_openmp()):
            values = [_scalar(scalars[name], dtype) for _, name, dtype in self.scalars]
            self.compiled.direct(self.template.buffer_info()[0], workspace, *own, *values)
        else:
            self._launch_on_frame(own, workspace, scalars)

    def _launch_on_frame(self, own: Sequence[np.ndarray], workspace: np.ndarray, scalars: Scalars) -> None:
        """With a frame that is filled here: for threads of Python's, which share one."""
        words = self.template[:]
        words[frame.WORKSPACE] = address(workspace)
        for slot, each in zip(self.slots, own, strict=True):
            words[slot] = address(each)
        for slot, name, dtype in self.scalars:
            words[slot] = scalar_bits(scalars[name], dtype)
        enter(self.compiled.entry, self.compiled.part, words)


class Launchable(Protocol):
    """A kernel, or several with something around them."""

    def launch(self, arrays: Sequence[np.ndarray], scalars: Scalars) -> None:
        """Run on arrays by their numbers: operands first, then buffers."""
        ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """A Plan for operands of certain shapes and strides.

    buffers: shape and dtype of the `results`, then of what lies between kernels. spans: where the bytes of
    each operand and buffer begin and end, counted from its first element. replaceable: (result, operand)
    where the result may be written over the operand if both begin at one address. plain: if there is but
    one kernel, which takes the operands in their order.
    """

    steps: tuple[Launchable, ...]
    buffers: tuple[Buffer, ...]
    results: int
    spans: tuple[tuple[int, int], ...]
    replaceable: frozenset[tuple[int, int]]
    plain: Plain | None = None

    def run(self, operands: Sequence[np.ndarray], scalars: Scalars) -> tuple[np.ndarray, ...]:
        """The results, in memory of their own."""
        if self.plain is not None:
            entry, template, size, fresh = self.plain
            result = fresh()
            entry(template, memory.scratch(size) if size else result, *operands, result)
            return (result,)
        arrays = [memory.empty(*buffer) for buffer in self.buffers]
        own = [*operands, *arrays]
        for step in self.steps:
            step.launch(own, scalars)
        return tuple(arrays[: self.results])

    def shaped(self, shapes: Sequence[tuple[int, ...]]) -> Recipe:
        """The same, whose fresh results have these shapes."""
        results = [(shape, dtype) for shape, (_, dtype) in zip(shapes, self.buffers, strict=False)]
        plain = self.plain
        if plain is not None:
            entry, template, size, _ = plain
            plain = entry, template, size, memory.maker(*results[0])
        return replace(self, buffers=(*results, *self.buffers[self.results :]), plain=plain)

    def run_into(self, operands: Sequence[np.ndarray], scalars: Scalars, out: Out) -> tuple[np.ndarray, ...]:
        """The results, those that `out` has an array for in it."""
        addresses = [*map(address, operands)]
        if self.plain is not None and out[0] is not None and self._may_write(out[0], addresses):
            entry, template, size, _ = self.plain
            entry(template, memory.scratch(size) if size else out[0], *operands, out[0])
            return (out[0],)
        arrays = []
        for number, buffer in enumerate(self.buffers):
            given = out[number] if number < self.results else None
            if given is None or not self._may_write(given, addresses):
                given = memory.empty(*buffer)
            arrays.append(given)
            addresses.append(address(given))
        own = [*operands, *arrays]
        for step in self.steps:
            step.launch(own, scalars)
        return deliver(arrays[: self.results], out)

    def repeated(self, operands: Sequence[np.ndarray], out: Out) -> Callable[..., None] | None:
        """`run_into` for operands that lie as these do, beside `out` or in the same arrays; None if it is
        more than one kernel that writes there.
        """
        if len(self.steps) != 1 or len(self.buffers) != len(out):
            return None
        addresses = [*map(address, operands)]
        for given in out:
            if given is None or not self._may_write(given, addresses):
                return None
            addresses.append(address(given))
        step, results = self.steps[0], [given for given in out if given is not None]
        return lambda arrays, scalars: step.launch([*arrays, *results], scalars)

    def _may_write(self, given: np.ndarray, addresses: Sequence[int]) -> bool:
        """Whether the result behind `addresses` can go straight to `given`: to the kernels a fresh buffer in
        every respect, or one over operands that it may replace.
        """
        if not given.flags.c_contiguous or not given.flags.aligned:
            return False
        start = address(given)
        stop = start + given.nbytes
        for position, place in enumerate(addresses):
            low, high = self.spans[position]
            apart = place + high <= start or stop <= place + low
            if not apart and (place != start or (len(addresses), position) not in self.replaceable):
                return False
        return True


def plain_entry(steps: Sequence[Launchable], operands: int, buffers: Sequence[Buffer]) -> Plain | None:
    """The `plain` of a recipe: what one call enters with its operands and one result, no questions asked."""
    step = steps[0] if len(steps) == 1 else None
    if not isinstance(step, Step) or len(buffers) != 1 or not LIES_IN_FIELD:
        return None
    if step.scalars or step.workers > 1 or step.arrays != tuple(range(operands + 1)):
        return None
    return step.compiled.direct, step.template.buffer_info()[0], step.workspace, memory.maker(*buffers[0])


def span(array: np.ndarray) -> tuple[int, int]:
    """The bytes that an array's elements lie in, counted from its first."""
    if not array.size:
        return 0, 0
    steps = [(extent - 1) * stride for extent, stride in zip(array.shape, array.strides, strict=True)]
    return sum(s for s in steps if s < 0), sum(s for s in steps if s > 0) + array.itemsize


def lies_as(operand: np.ndarray, shape: tuple[int, ...], dtype: DType) -> bool:
    """Whether an operand's elements lie where those of a result would that begins at the same address."""
    return operand.flags.c_contiguous and operand.shape == shape and operand.itemsize == dtype.numpy.itemsize


def _scalar(value: float | int, dtype: DType) -> float | int:
    return float(value) if dtype.is_float else int(value)


def scalar_bits(value: float | int, dtype: DType) -> int:
    """What a frame holds of a scalar."""
    if not dtype.is_float:
        return int(value)
    return array("q", array("d", [float(value)]).tobytes())[0]
