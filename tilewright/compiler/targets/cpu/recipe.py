"""Recipes: what a Plan does for operands of certain shapes and strides, worked out once.

A warm call allocates the results, copies a few words for each kernel, and enters it.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tilewright.compiler.in_place import Out, deliver
from tilewright.compiler.nest import Kernel
from tilewright.compiler.targets.cpu import frame
from tilewright.compiler.targets.cpu.launch import Entry, Range, enter
from tilewright.compiler.targets.cpu.layout import Layout
from tilewright.compiler.targets.cpu.schedule import Schedule
from tilewright.dsl.dtypes import DType
from tilewright.runtime import memory
from tilewright.runtime.addresses import address

Scalars = Mapping[str, float | int]
NOTHING: Scalars = {}
BYTE = np.dtype(np.uint8)


@dataclass(frozen=True)
class CompiledKernel:
    """Machine code of one kernel for one layout."""

    kernel: Kernel
    layout: Layout
    schedule: Schedule
    frame: frame.Frame
    entry: Entry
    part: Range
    keepalive: object


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel of a recipe: its frame without addresses, and where they go.

    An address is that of an array by its number: operands first, then buffers.
    """

    compiled: CompiledKernel
    template: array
    addresses: tuple[tuple[int, int], ...]
    scalars: tuple[tuple[int, str, DType], ...]
    workspace: int
    workers: int

    def launch(self, addresses: Sequence[int], scalars: Scalars) -> None:
        words = self.template[:]
        for slot, number in self.addresses:
            words[slot] = addresses[number]
        for slot, name, dtype in self.scalars:
            words[slot] = _scalar_bits(scalars[name], dtype)
        workspace = memory.empty((self.workspace,), BYTE) if self.workspace else None
        if workspace is not None:
            words[frame.WORKSPACE] = address(workspace)
        if self.workers == 1:
            self.compiled.entry(words.buffer_info()[0])
        else:
            enter(self.compiled.entry, self.compiled.part, words)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A Plan for operands of certain shapes and strides.

    buffers: shape and dtype of the `results`, then of what lies between kernels. spans: where the bytes of
    each operand and buffer begin and end, counted from its first element. replaceable: (result, operand)
    where the result may be written over the operand if both begin at one address.
    """

    steps: tuple[Step, ...]
    buffers: tuple[tuple[tuple[int, ...], np.dtype], ...]
    results: int
    spans: tuple[tuple[int, int], ...]
    replaceable: frozenset[tuple[int, int]]

    def run(self, operands: Sequence[np.ndarray], scalars: Scalars) -> tuple[np.ndarray, ...]:
        """The results, in memory of their own."""
        arrays = [memory.empty(shape, dtype) for shape, dtype in self.buffers]
        addresses = [*map(address, operands), *map(address, arrays)]
        for step in self.steps:
            step.launch(addresses, scalars)
        return tuple(arrays[: self.results])

    def run_into(self, operands: Sequence[np.ndarray], scalars: Scalars, out: Out) -> tuple[np.ndarray, ...]:
        """The results, those that `out` has an array for in it."""
        addresses = [*map(address, operands)]
        arrays = []
        for number, (shape, dtype) in enumerate(self.buffers):
            given = out[number] if number < self.results else None
            if given is None or not self._may_write(given, addresses):
                given = memory.empty(shape, dtype)
            arrays.append(given)
            addresses.append(address(given))
        for step in self.steps:
            step.launch(addresses, scalars)
        return deliver(arrays[: self.results], out)

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


def span(array: np.ndarray) -> tuple[int, int]:
    """The bytes that an array's elements lie in, counted from its first."""
    if not array.size:
        return 0, 0
    steps = [(extent - 1) * stride for extent, stride in zip(array.shape, array.strides, strict=True)]
    return sum(s for s in steps if s < 0), sum(s for s in steps if s > 0) + array.itemsize


def lies_as(operand: np.ndarray, shape: tuple[int, ...], dtype: DType) -> bool:
    """Whether an operand's elements lie where those of a result would that begins at the same address."""
    return operand.flags.c_contiguous and operand.shape == shape and operand.itemsize == dtype.numpy.itemsize


def _scalar_bits(value: float | int, dtype: DType) -> int:
    if not dtype.is_float:
        return int(value)
    return array("q", array("d", [float(value)]).tobytes())[0]
