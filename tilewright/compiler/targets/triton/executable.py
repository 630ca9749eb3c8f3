"""Running and compiling a Plan with Triton: interpreted on NumPy arrays, on a CUDA device, or ahead of time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tilewright.compiler.nest import Plan
from tilewright.compiler.targets.triton.interpreter import interpret
from tilewright.compiler.targets.triton.launch import (
    POINTER,
    SCALAR,
    Recipe,
    Recipes,
    Step,
    element_strides,
)
from tilewright.compiler.targets.triton.toolchain import Target

DEFAULT_TARGET = "cuda:90"

Arrays = Mapping[str, np.ndarray]


class _Executable:
    """What interpreted and launched Plans share: recipes by shapes and strides."""

    def __init__(self, plan: Plan, target: Target | str = DEFAULT_TARGET):
        self.plan = plan
        self.target = Target.parse(target) if isinstance(target, str) else target
        self._recipes = Recipes(plan, self.target)
        self._found: dict[tuple, Recipe] = {}

    def recipe(self, arguments: Arrays) -> tuple[dict[str, np.ndarray], Recipe]:
        """The operands with strides of whole elements, and what to launch for them."""
        arrays = {name: a if element_strides(a) is not None else np.ascontiguousarray(a) for name, a in arguments.items()}
        key = tuple((a.shape, a.strides) for a in arrays.values())
        if key not in self._found:
            strides = {name: element_strides(a) or () for name, a in arrays.items()}
            self._found[key] = self._recipes.recipe({name: a.shape for name, a in arrays.items()}, strides)
        return arrays, self._found[key]


class InterpreterExecutable(_Executable):
    """A Program in Triton's interpreter: the same text as for a GPU, on NumPy arrays, every access checked."""

    def run(self, arguments: Arrays, scalars: Mapping[str, float | int] | None = None) -> tuple[np.ndarray, ...]:
        arrays, recipe = self.recipe(arguments)
        for buffer, shape in recipe.buffers:
            arrays[buffer.name] = _poisoned(shape, buffer.dtype.numpy)
        for step in recipe.steps:
            values = [_argument(p, step, arrays, scalars or {}) for p in step.parameters]
            interpret(
                step.emitted.text, step.emitted.name, (step.grid,), values, step.emitted.constexprs,
                signature={p.name: p.type for p in step.parameters if p.kind != POINTER},
            )  # fmt: skip
        return tuple(arrays[b.name] for b in self.plan.results)


def _poisoned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Memory in which an element that no kernel writes is seen: NaN, or a large integer."""
    array = np.empty(shape, dtype)
    array.reshape(-1).view(np.uint8)[...] = 1 if dtype == np.bool_ else 0xFF if dtype.kind == "f" else 0x7F
    return array


def _argument(parameter: Any, step: Step, arrays: Arrays, scalars: Mapping[str, float | int]) -> Any:
    if parameter.kind == POINTER:
        array = arrays[parameter.of]
        return array.view(np.int8) if array.dtype == np.bool_ else array
    if parameter.kind == SCALAR:
        return scalars[parameter.of]
    return step.integers[parameter.name]
