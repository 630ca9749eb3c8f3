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
from tilewright.compiler.targets.triton.driver import LoadedKernel
from tilewright.compiler.targets.triton.executable import Arrays, TritonExecutable
from tilewright.compiler.targets.triton.launch import (
    POINTER,
    SCALAR,
    Recipe,
    Step,
    element_strides,
    whole_elements,
)
from tilewright.compiler.targets.triton.parameters import Parameter
from tilewright.runtime import cuda
from tilewright.runtime.cuda import arrays as device_arrays
from tilewright.runtime.cuda import launches
from tilewright.runtime.cuda.arrays import DeviceArray
from tilewright.runtime.cuda.streams import Stream, stream_of
from tilewright.runtime.precision import get_matmul_precision

NOTHING: Mapping[str, Any] = {}
ALIGNMENT = 16  # bytes: Triton loads wider vectors from addresses that are multiples of it


class CudaExecutable(TritonExecutable):
    """A Program on a CUDA device; kernels are compiled for it once and kept in the build cache."""

    def __init__(self, plan: Plan, device: str):
        self.ordinal = int(device.partition(":")[2] or 0)
        super().__init__(plan, cuda.card(self.ordinal).properties.target)
        self._names = tuple(p.name for p in plan.program.tiles)
        self._results = tuple(b.name for b in plan.results)
        self._card: Any = None
        self._kernels: dict[tuple, LoadedKernel] = {}
        """Those that were loaded into the card's context."""

    def run(
        self, arguments: Arrays, scalars: Mapping[str, float | int] | None = None, out: Out | None = None
    ) -> tuple[Any, ...]:
        """The results on the device; for operands that are all NumPy's, as arrays of NumPy's."""
        operands = [arguments[name] for name in self._names]
        if _on_device(operands) or _on_device(out or ()):
            return self._run(self._recipe_for(operands, out), operands, scalars or NOTHING, out)
        results = self._run(self._recipe_for(operands, None), operands, scalars or NOTHING, None)
        copies = tuple(result.to_numpy() for result in results)
        return copies if out is None else deliver(copies, out)

    def prepared(self, operands: Sequence[Any], shapes: Sequence[tuple[int, ...]] | None = None) -> Run:
        """`run` for operands that lie as these do, in the order of the Program's."""
        if not _on_device(operands):
            return super().prepared(operands, shapes)
        like = [_layout_alone(operand) for operand in operands]
        known: dict[Any, Recipe] = {}

        def run(
            operands: Sequence[Any],
            scalars: Mapping[str, float | int] | None = None,
            out: Out | None = None,
        ) -> tuple[Any, ...]:
            precision = get_matmul_precision()
            recipe = known.get(precision) if out is None else self._recipe_for(like, out)
            if recipe is None:
                recipe = known[precision] = self._recipe_for(like, None)
            results = self._run(recipe, operands, scalars or NOTHING, out)
            if shapes is None or out is not None:
                return results
            return tuple(result.reshape(shape) for result, shape in zip(results, shapes, strict=True))

        return run

    # --- one call -------------------------------------------------------------------------------------------

    def _recipe_for(self, operands: Sequence[Any], out: Out | None) -> Recipe:
        """What to launch for operands that lie so, and results that are wanted so."""
        _, shapes, strides = whole_elements(dict(zip(self._names, operands, strict=True)))
        places = {
            name: steps
            for name, given in zip(self._results, out or (), strict=False)
            if isinstance(given, DeviceArray)
            and not given.is_contiguous
            and (steps := element_strides(given)) is not None  # type: ignore[arg-type]
        }
        key = (get_matmul_precision(), *shapes.values(), *strides.values(), *places.items())
        recipe = self._found.get(key)
        if recipe is None:
            recipe = self._found[key] = self._recipes.recipe(shapes, strides, places)
        return recipe

    def _run(
        self, recipe: Recipe, operands: Sequence[Any], scalars: Mapping[str, float | int], out: Out | None
    ) -> tuple[Any, ...]:
        held = {n: self._placed(operand) for n, operand in zip(self._names, operands, strict=True)}
        wanted = dict(zip(self._results, out or (), strict=False))
        beside = {name: _beside(recipe, name, array, wanted) for name, array in held.items()}
        buffers = self.launch(recipe, beside, scalars, wanted)
        return tuple(buffers[name] for name in self._results)

    def launch(
        self, recipe: Recipe, operands: Mapping[str, DeviceArray], scalars: Mapping[str, float | int],
        results: Mapping[str, Any] = NOTHING,
    ) -> dict[str, DeviceArray]:  # fmt: skip
        """Queue all kernels on the current stream; its buffers, new ones where `results` has none."""
        card = cuda.card(self.ordinal)
        stream = stream_of(card)
        places = dict(operands)
        for array in operands.values():
            array.allocation.read_on(stream)
        for buffer, shape in recipe.buffers:
            given = results.get(buffer.name)
            if given is None:
                given = device_arrays.empty(shape, buffer.dtype.numpy, ordinal=self.ordinal, stream=stream)
            given.allocation.write_on(stream)
            places[buffer.name] = given
        number = card.progress.begin(self.plan.program.name, stream.handle)
        self._queue(recipe, places, scalars, stream)
        card.progress.finish(number, stream.handle)
        if launches.is_blocking():
            stream.synchronize()
        return places

    def _queue(
        self, recipe: Recipe, places: Mapping[str, DeviceArray], scalars: Mapping[str, float | int],
        stream: Stream,
    ) -> None:  # fmt: skip
        addresses = {name: array.address for name, array in places.items()}
        for step in recipe.steps:
            values = [_value(p, step, addresses, scalars) for p in step.parameters]
            self._kernel(step, addresses).launch((step.grid,), values, stream.handle)

    def _kernel(self, step: Step, addresses: Mapping[str, int]) -> LoadedKernel:
        aligned = frozenset(name for name in step.operands if addresses[name] % ALIGNMENT == 0)
        card = cuda.card(self.ordinal)
        if self._card is not card:
            self._card, self._kernels = card, {}
        kernels = self._kernels
        key = (step.emitted.text, step.schedule, step.divisible_by_16(aligned))
        found = kernels.get(key)
        if found is None:
            found = kernels[key] = LoadedKernel(compile_step(step, self.target, aligned), self.ordinal)
        return found

    def _placed(self, operand: Any) -> DeviceArray:
        """An operand on the device. Numbers that were there before are there still."""
        if isinstance(operand, DeviceArray):
            return operand
        if operand.size and not any(s for s, e in zip(operand.strides, operand.shape, strict=True) if e > 1):
            return device_arrays.constant(operand[(0,) * operand.ndim], self.ordinal)
        return _with_gaps(operand, self.ordinal)


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


def _with_gaps(array: np.ndarray, ordinal: int) -> DeviceArray:
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


def _layout_alone(array: Any) -> Any:
    return _Layout(array)


def _value(
    parameter: Parameter, step: Step, addresses: Mapping[str, int], scalars: Mapping[str, float | int]
) -> float | int:
    if parameter.kind == POINTER:
        return addresses[parameter.of]
    return scalars[parameter.of] if parameter.kind == SCALAR else step.integers[parameter.name]
