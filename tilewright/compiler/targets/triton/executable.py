"""Running a Plan with Triton: interpreted on NumPy arrays, or on a CUDA device; and its source."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tilewright.compiler.in_place import Out, deliver
from tilewright.compiler.nest import Plan
from tilewright.compiler.pipeline import Run
from tilewright.compiler.ranking import without_orders
from tilewright.compiler.targets.triton.binaries import compile_step
from tilewright.compiler.targets.triton.driver import LoadedKernel
from tilewright.compiler.targets.triton.interpreter import interpret
from tilewright.compiler.targets.triton.launch import (
    POINTER,
    SCALAR,
    Recipe,
    Recipes,
    Step,
    whole_elements,
)
from tilewright.compiler.targets.triton.parameters import Parameter
from tilewright.compiler.targets.triton.toolchain import Target
from tilewright.runtime import cuda
from tilewright.runtime.precision import get_matmul_precision
from tilewright.runtime.recent import Recent

DEFAULT_TARGET = "cuda:90"
MAX_RECIPES = 256

Arrays = Mapping[str, np.ndarray]


class _Executable:
    """What interpreted and launched Plans share: recipes by shapes and strides."""

    def __init__(self, plan: Plan, target: Target | str = DEFAULT_TARGET):
        self.plan = without_orders(plan)
        self.target = Target.parse(target) if isinstance(target, str) else target
        self._recipes = Recipes(plan, self.target)
        self._found: Recent[tuple, Recipe] = Recent(MAX_RECIPES)

    def run(
        self, arguments: Arrays, scalars: Mapping[str, float | int] | None = None, out: Out | None = None
    ) -> tuple[np.ndarray, ...]:
        raise NotImplementedError

    def prepared(
        self, operands: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...]] | None = None
    ) -> Run:
        """`run` for operands that lie as these do, in the order of the Program's."""
        names = [p.name for p in self.plan.program.tiles]
        inside = [operand.shape for operand in operands]

        def run(
            operands: Sequence[np.ndarray],
            scalars: Mapping[str, float | int] | None = None,
            out: Out | None = None,
        ) -> tuple[np.ndarray, ...]:
            arrays = [o.reshape(shape) for o, shape in zip(operands, inside, strict=True)]
            results = self.run(dict(zip(names, arrays, strict=True)), scalars, out)
            if shapes is None or out is not None:
                return results
            return tuple(result.reshape(shape) for result, shape in zip(results, shapes, strict=True))

        return run

    def recipe(self, arguments: Arrays) -> tuple[dict[str, np.ndarray], Recipe]:
        """The operands with strides of whole elements, and what to launch for them."""
        arrays, shapes, strides = whole_elements(arguments)
        key = (get_matmul_precision(), *shapes.values(), *strides.values())
        recipe = self._found.get(key)
        if recipe is None:
            recipe = self._found[key] = self._recipes.recipe(shapes, strides)
        return arrays, recipe


class InterpreterExecutable(_Executable):
    """A Program in Triton's interpreter: the same text as for a GPU, on NumPy arrays, accesses checked."""

    def run(
        self, arguments: Arrays, scalars: Mapping[str, float | int] | None = None, out: Out | None = None
    ) -> tuple[np.ndarray, ...]:
        arrays, recipe = self.recipe(arguments)
        for buffer, shape in recipe.buffers:
            arrays[buffer.name] = _poisoned(shape, buffer.dtype.numpy)
        for step in recipe.steps:
            values = [_argument(p, step, arrays, scalars or {}) for p in step.parameters]
            interpret(
                step.emitted.text, step.emitted.name, (step.grid,), values, step.emitted.constexprs,
                signature={p.name: p.type for p in step.parameters if p.kind != POINTER},
            )  # fmt: skip
        results = tuple(arrays[b.name] for b in self.plan.results)
        return results if out is None else deliver(results, out)


class CudaExecutable(_Executable):
    """A Program on a CUDA device; kernels are compiled for it once and kept in the build cache."""

    def __init__(self, plan: Plan, device: str):
        self.ordinal = int(device.partition(":")[2] or 0)
        super().__init__(plan, cuda.device(self.ordinal).properties.target)
        self._loaded: dict[tuple, LoadedKernel] = {}

    def run(
        self, arguments: Arrays, scalars: Mapping[str, float | int] | None = None, out: Out | None = None
    ) -> tuple[np.ndarray, ...]:
        """The results for NumPy operands, which are copied to the device with the strides that they have."""
        arrays, recipe = self.recipe(arguments)
        held = {name: _on_device(a, self.ordinal) for name, a in arrays.items()}
        addresses = {name: address for name, (_, address) in held.items()}
        results = self.launch(recipe, addresses, scalars or {})
        arrays = tuple(r.to_numpy() for r in results)
        return arrays if out is None else deliver(arrays, out)

    def launch(
        self, recipe: Recipe, addresses: Mapping[str, int], scalars: Mapping[str, float | int],
        stream: int = cuda.DEFAULT_STREAM,
    ) -> tuple[cuda.DeviceBuffer, ...]:  # fmt: skip
        """Queue all kernels on a stream for operands at these addresses; the results are new buffers."""
        places = dict(addresses)
        buffers = {}
        for buffer, shape in recipe.buffers:
            held = cuda.DeviceBuffer.empty(shape, buffer.dtype.numpy, ordinal=self.ordinal, stream=stream)
            buffers[buffer.name] = held
            places[buffer.name] = held.address
        for step in recipe.steps:
            values = [_value(p, step, places, scalars) for p in step.parameters]
            self._kernel(step, places).launch((step.grid,), values, stream)
        return tuple(buffers[b.name] for b in self.plan.results)

    def _kernel(self, step: Step, places: Mapping[str, int]) -> LoadedKernel:
        aligned = frozenset(name for name in step.operands if places[name] % 16 == 0)
        key = (step.emitted.text, step.schedule, step.divisible_by_16(aligned))
        found = self._loaded.get(key)
        if found is None:
            artefact = compile_step(step, self.target, aligned)
            found = self._loaded[key] = LoadedKernel(artefact, self.ordinal)
        return found


def _on_device(array: np.ndarray, ordinal: int) -> tuple[cuda.DeviceBuffer, int]:
    """The memory of an array on a device, gaps included, and where its first element lies there."""
    if not array.size:
        empty = cuda.DeviceBuffer.empty((1,), np.uint8, ordinal=ordinal)
        return empty, empty.address
    low, high = np.lib.array_utils.byte_bounds(array)
    span = np.ctypeslib.as_array((ctypes.c_uint8 * (high - low)).from_address(low))
    held = cuda.DeviceBuffer.from_numpy(span, ordinal=ordinal)
    return held, held.address + array.__array_interface__["data"][0] - low


def _value(
    parameter: Parameter, step: Step, places: Mapping[str, int], scalars: Mapping[str, float | int]
) -> float | int:
    if parameter.kind == POINTER:
        return places[parameter.of]
    return scalars[parameter.of] if parameter.kind == SCALAR else step.integers[parameter.name]


def source(
    plan: Plan, arrays: Arrays, target: str = DEFAULT_TARGET, language: str = "triton"
) -> dict[str, str]:
    """The text of every kernel that operands like these launch, by its name.

    `language` is "triton", or a stage of the compiler: "ttir", "ttgir", "llir", "ptx" or "amdgcn".
    """
    executable = _Executable(plan, target)
    _, recipe = executable.recipe(arrays)
    if language == "triton":
        return {step.kernel.name: step.emitted.text for step in recipe.steps}
    artefacts = {s.kernel.name: compile_step(s, executable.target, s.operands) for s in recipe.steps}
    return {name: artefact.texts[language] for name, artefact in artefacts.items()}


def _poisoned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Memory in which an element that no kernel writes is seen: NaN, or a large integer."""
    array = np.empty(shape, dtype)
    array.reshape(-1).view(np.uint8)[...] = 1 if dtype == np.bool_ else 0xFF if dtype.kind == "f" else 0x7F
    return array


def _argument(parameter: Parameter, step: Step, arrays: Arrays, scalars: Mapping[str, float | int]) -> Any:
    if parameter.kind == POINTER:
        array = arrays[parameter.of]
        return array.view(np.int8) if array.dtype == np.bool_ else array
    if parameter.kind == SCALAR:
        return scalars[parameter.of]
    return step.integers[parameter.name]
