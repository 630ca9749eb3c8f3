"""Running a Plan with Triton, interpreted on NumPy arrays; and its source.

`on_device` runs it on a device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tilewright.compiler.in_place import Out, deliver
from tilewright.compiler.nest import Plan
from tilewright.compiler.pipeline import Run
from tilewright.compiler.ranking import without_orders
from tilewright.compiler.targets.triton.binaries import compile_step
from tilewright.compiler.targets.triton.interpreter import interpret
from tilewright.compiler.targets.triton.launch import (
    DESCRIPTOR_ALIGNMENT,
    POINTER,
    SCALAR,
    Recipe,
    Recipes,
    Step,
    whole_elements,
)
from tilewright.compiler.targets.triton.parameters import Parameter
from tilewright.compiler.targets.triton.schedule import Schedule, default_schedule
from tilewright.compiler.targets.triton.toolchain import Target
from tilewright.dsl.dtypes import FLOAT8, of_array
from tilewright.runtime.precision import get_matmul_precision
from tilewright.runtime.recent import Recent

DEFAULT_TARGET = "cuda:90"
MAX_RECIPES = 256

Arrays = Mapping[str, np.ndarray]


class TritonExecutable:
    """What interpreted and launched Plans share: recipes by shapes and strides."""

    def __init__(
        self, plan: Plan, target: Target | str = DEFAULT_TARGET,
        choose: Callable[..., Schedule] = default_schedule,
    ):  # fmt: skip
        self.plan = without_orders(plan)
        self.target = Target.parse(target) if isinstance(target, str) else target
        self._recipes = Recipes(plan, self.target, choose)
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


class InterpreterExecutable(TritonExecutable):
    """A Program in Triton's interpreter: the same text as for a GPU, on NumPy arrays, accesses checked."""

    def run(
        self, arguments: Arrays, scalars: Mapping[str, float | int] | None = None, out: Out | None = None
    ) -> tuple[np.ndarray, ...]:
        arrays, recipe = self.recipe(arguments)
        for buffer, shape in recipe.buffers:
            arrays[buffer.name] = _poisoned(shape, buffer.dtype.numpy)
        arrays |= {name: arrays[result] for name, result in recipe.inside}
        aligned = frozenset(name for name, array in arrays.items() if _lies_aligned(array))
        for step in (step.suited(aligned) for step in recipe.steps):
            values = [_argument(p, step, arrays, scalars or {}) for p in step.parameters]
            interpret(
                step.emitted.text, step.emitted.name, (step.grid,), values, step.emitted.constexprs,
                signature={p.name: p.type for p in step.parameters if p.kind != POINTER},
            )  # fmt: skip
        results = tuple(arrays[b.name] for b in self.plan.results)
        return results if out is None else deliver(results, out)


def source(
    plan: Plan, arrays: Arrays, target: str = DEFAULT_TARGET, language: str = "triton"
) -> dict[str, str]:
    """The text of every kernel that operands like these launch, by its name.

    `language` is "triton", or a stage of the compiler: "ttir", "ttgir", "llir", "ptx" or "amdgcn".
    """
    executable = TritonExecutable(plan, target)
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


def _lies_aligned(array: np.ndarray) -> bool:
    return array.__array_interface__["data"][0] % DESCRIPTOR_ALIGNMENT == 0


def _argument(parameter: Parameter, step: Step, arrays: Arrays, scalars: Mapping[str, float | int]) -> Any:
    if parameter.kind == POINTER:
        array = arrays[parameter.of]
        if of_array(array) in FLOAT8:
            return array.view(np.uint8)
        return array.view(np.int8) if array.dtype == np.bool_ else array
    if parameter.kind == SCALAR:
        return scalars[parameter.of]
    return step.integers[parameter.name]
