"""Running a Plan on a CUDA device: its kernels queued on the current stream, one after the other.

Operands are arrays on the device (`runtime.cuda.DeviceArray`); NumPy's, which are numbers for the most part,
are copied there. Results are arrays on the device where an operand is one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tilewright.compiler.in_place import Out, deliver
from tilewright.compiler.nest import Plan
from tilewright.compiler.pipeline import Run
from tilewright.compiler.targets.triton.binaries import compile_step
from tilewright.compiler.targets.triton.executable import MAX_RECIPES, Arrays, TritonExecutable
from tilewright.compiler.targets.triton.launch import Recipe, element_strides, whole_elements
from tilewright.compiler.targets.triton.queues import Numbers, Queue, loader
from tilewright.runtime import cuda
from tilewright.runtime.cuda import arrays as device_arrays
from tilewright.runtime.cuda import cards
from tilewright.runtime.cuda.arrays import DeviceArray, Fresh
from tilewright.runtime.cuda.streams import stream_of
from tilewright.runtime.precision import get_matmul_precision
from tilewright.runtime.recent import Recent

NOTHING: Mapping[str, Any] = {}
MAX_OUTS = 16  # ways in which results are wanted that a prepared call remembers


class CudaExecutable(TritonExecutable):
    """A Program on a CUDA device; kernels are compiled for it once and kept in the build cache."""

    def __init__(self, plan: Plan, device: str):
        self.ordinal = int(device.partition(":")[2] or 0)
        super().__init__(plan, cuda.card(self.ordinal).properties.target)
        self._names = tuple(p.name for p in plan.program.tiles)
        self._results = tuple(b.name for b in plan.results)
        self._loaded_into: Any = None
        self._queues: Recent[tuple, Queue] = Recent(MAX_RECIPES)
        """Those whose kernels were loaded into the card's context."""

    def run(
        self, arguments: Arrays, scalars: Numbers | None = None, out: Out | None = None
    ) -> tuple[Any, ...]:
        """The results on the device; for operands that are all NumPy's, as arrays of NumPy's."""
        operands = [arguments[name] for name in self._names]
        if _on_device(operands) or _on_device(out or ()):
            return self._run(self._queue(operands, out), operands, scalars or NOTHING, out)
        results = self._run(self._queue(operands, None), operands, scalars or NOTHING, None)
        copies = tuple(result.to_numpy() for result in results)
        return copies if out is None else deliver(copies, out)

    def prepared(self, operands: Sequence[Any], shapes: Sequence[tuple[int, ...]] | None = None) -> Run:
        """`run` for operands that lie as these do, in the order of the Program's."""
        if not _on_device(operands):
            return super().prepared(operands, shapes)
        return PreparedCall(self, operands, shapes)

    # --- one call -------------------------------------------------------------------------------------------

    def _queue(self, operands: Sequence[Any], out: Out | None) -> Queue:
        """What to launch for operands that lie so, and results that are wanted so."""
        card = cuda.card(self.ordinal)
        if self._loaded_into is not card:
            self._loaded_into = card
            self._queues.clear()
            self._load = loader(self.target, self.ordinal, compile_step)
        _, shapes, strides = whole_elements(dict(zip(self._names, operands, strict=True)))
        places = {
            name: steps
            for name, given in zip(self._results, out or (), strict=False)
            if isinstance(given, DeviceArray)
            and not given.is_contiguous
            and (steps := element_strides(given)) is not None  # type: ignore[arg-type]
        }
        key = (get_matmul_precision(), *shapes.values(), *strides.values(), *places.items())
        found = self._queues.get(key)
        if found is None:
            recipe = self._recipes.recipe(shapes, strides, places)
            found = self._queues[key] = Queue(recipe, self._names, self.plan.program.name, self._load, card)
        return found

    def _run(
        self, queue: Queue, operands: Sequence[Any], scalars: Numbers, out: Out | None
    ) -> tuple[Any, ...]:
        """The results, new ones where `out` has none."""
        stream = stream_of(queue.card)
        recipe = queue.recipe
        wanted: dict[str, Any] = dict(zip(self._results, out or (), strict=False))
        places = []
        for name, operand in zip(self._names, operands, strict=True):
            array = _beside(recipe, name, self.placed(operand), wanted)
            array.allocation.read_on(stream)
            places.append(array)
        buffers = {}
        for buffer, shape in recipe.buffers:
            made = wanted.get(buffer.name)
            if made is None:
                made = device_arrays.empty(shape, buffer.dtype.numpy, ordinal=self.ordinal, stream=stream)
            made.allocation.write_on(stream)
            buffers[buffer.name] = made
        held = [*buffers.values()]
        held += [held[number] for number in queue.inside]
        queue.launch([array.address for array in (*places, *held)], scalars, stream)
        return tuple(buffers[name] for name in self._results)

    def placed(self, operand: Any) -> DeviceArray:
        """An operand on the device. Numbers that were there before are there still."""
        if isinstance(operand, DeviceArray):
            return operand
        if operand.size and not any(s for s, e in zip(operand.strides, operand.shape, strict=True) if e > 1):
            return device_arrays.constant(operand[(0,) * operand.ndim], self.ordinal)
        return with_gaps(operand, self.ordinal)


class PreparedCall:
    """`CudaExecutable.run` for operands that lie as some did: launches are found by a look-up.

    Fresh results have the shapes that are wanted, and need no stride worked out.
    """

    def __init__(
        self, executable: CudaExecutable, operands: Sequence[Any], shapes: Sequence[tuple[int, ...]] | None
    ):
        self._executable = executable
        self._like = [_Layout(operand) for operand in operands]
        self._shapes = shapes
        self._results = len(executable._results)
        self._elsewhere = not all(isinstance(operand, DeviceArray) for operand in operands)
        self._known: dict[str, tuple[Queue, tuple[Fresh, ...]]] = {}
        """By the precision of products."""
        self._into: Recent[tuple, Queue] = Recent(MAX_OUTS)

    def __call__(
        self, operands: Sequence[Any], scalars: Numbers | None = None, out: Out | None = None
    ) -> tuple[Any, ...]:
        executable = self._executable
        if out is not None:
            return executable._run(self._queue_into(out), operands, scalars or NOTHING, out)
        known = self._known.get(get_matmul_precision())
        if known is None or known[0].card.generation != cards.generation:
            known = self._prepare()
        queue, buffers = known
        stream = stream_of(queue.card)
        if self._elsewhere:
            operands = [executable.placed(operand) for operand in operands]
        addresses = []
        for operand in operands:
            allocation = operand.allocation
            if allocation.writer is not stream:
                allocation.read_on(stream)
            addresses.append(operand.address)
        made = [buffer.make(stream) for buffer in buffers]
        for array in made:
            addresses.append(array.address)
        for number in queue.inside:
            addresses.append(made[number].address)
        queue.launch(addresses, scalars or NOTHING, stream)
        return tuple(made[: self._results])

    def _queue_into(self, out: Out) -> Queue:
        """What to launch for results that are wanted so."""
        lies = [None if given is None else given.strides for given in out]
        key = (get_matmul_precision(), *lies)
        found = self._into.get(key)
        if found is None or found.card.generation != cards.generation:
            found = self._into[key] = self._executable._queue(self._like, out)
        return found

    def _prepare(self) -> tuple[Queue, tuple[Fresh, ...]]:
        executable = self._executable
        queue = executable._queue(self._like, None)
        shapes = [shape for _, shape in queue.recipe.buffers]
        shapes[: len(self._shapes or ())] = self._shapes or ()
        made = tuple(
            Fresh(shape, buffer.dtype.numpy, executable.ordinal)
            for (buffer, _), shape in zip(queue.recipe.buffers, shapes, strict=True)
        )
        found = self._known[get_matmul_precision()] = (queue, made)
        return found


def _on_device(arrays: Sequence[Any]) -> bool:
    """Whether one of some arrays lies on a device."""
    return any(isinstance(array, DeviceArray) for array in arrays)


def _beside(recipe: Recipe, name: str, array: DeviceArray, wanted: Mapping[str, Any]) -> DeviceArray:
    """An operand where no result that is written to what was wanted spoils it."""
    spoiled = any(_in_the_way(recipe, result, given, name, array) for result, given in wanted.items())
    return _copied(array) if spoiled else array


def _in_the_way(recipe: Recipe, result: str, given: Any, operand: str, array: DeviceArray) -> bool:
    """Whether a result that is written straight to `given` would spoil an operand before it is read."""
    if given is None or not given.may_share_memory(array):
        return False
    alike = (given.address, given.shape, given.strides) == (array.address, array.shape, array.strides)
    return not (alike and (result, operand) in recipe.replaceable)


def _copied(array: DeviceArray) -> DeviceArray:
    """The bytes of an array elsewhere, gaps included, so that it lies there as it did."""
    low, high = array.bounds
    kind = np.dtype(np.uint8)
    whole = type(array)(array.allocation, low, (high - low,), kind, (1,))
    copy = device_arrays.empty(whole.shape, kind, ordinal=array.ordinal)
    copy.copy_bytes(whole)
    first = copy.address + array.address - low
    return type(array)(copy.allocation, first, array.shape, array.dtype, array.strides)


def with_gaps(array: np.ndarray, ordinal: int) -> DeviceArray:
    """A NumPy array on a device, with the strides that it has."""
    if not array.size:
        return device_arrays.empty(array.shape, array.dtype, ordinal=ordinal)
    low, high = np.lib.array_utils.byte_bounds(array)
    span = np.ctypeslib.as_array((ctypes.c_uint8 * (high - low)).from_address(low))
    held = device_arrays.from_numpy(span, ordinal=ordinal)
    first = held.address + array.__array_interface__["data"][0] - low
    return type(held)(held.allocation, first, array.shape, array.dtype, array.strides)


class _Layout:
    """How an array lies, without its memory."""

    def __init__(self, array: Any):
        self.shape, self.strides, self.itemsize = array.shape, array.strides, array.itemsize
