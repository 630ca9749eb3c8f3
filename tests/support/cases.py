"""Cases: an op, the operands it is tried on, its peer elsewhere. One table a family, also for benchmarks.

    Case(softmax, {"...": (2, 3), "d": 7}, special=(-inf, 1e4), torch=lambda x: torch.softmax(x, -1))

The operands' shapes follow from the op's own annotations and the extents of the axes that they name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from tilewright.op.op import Call, Op

Shape = tuple[int, ...]
Draw = Callable[[np.random.Generator, Shape], Any]
Extents = Mapping[str, int | Shape]

FLOATS = {
    "f64": np.float64, "f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16,
    "f8e4m3fn": ml_dtypes.float8_e4m3fn, "f8e5m2": ml_dtypes.float8_e5m2,
}  # fmt: skip


def normal(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    return rng.standard_normal(shape)


def positive(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    return rng.uniform(0.5, 2.0, shape)


def probabilities(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Distributions along the last axis."""
    weights = rng.uniform(0.1, 1.0, shape)
    return weights / np.sum(weights, axis=-1, keepdims=True)


def log_probabilities(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    return np.log(probabilities(rng, shape))


def labels(low: int, high: int) -> Draw:
    """Whole numbers from low to high - 1."""
    return lambda rng, shape: rng.integers(low, high, shape)


def coin(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    return rng.random(shape) < 0.6


class Subject(Protocol):
    """A call of an op that tests draw operands for, whichever table it stands in."""

    op: Any
    tolerance: float
    differentiable: bool

    @property
    def keywords(self) -> dict[str, Any]:
        """What the call is given besides operands."""
        ...

    def arguments(self, dtype: Any = ...) -> dict[str, np.ndarray]:
        """The operands by name; floating ones in `dtype` unless the case says otherwise."""
        ...

    def call(self, arguments: Mapping[str, np.ndarray]) -> Call:
        """The call of the op on these operands: its Program, and the operands in the Program's shapes."""
        ...


@dataclass(frozen=True)
class Case:
    """One op with the extents of its axes (`...` is a shape) and what else a test or benchmark must know.

    `more` are further extents. `draw` says how operands are drawn, normal where it does not; `dtypes` which
    operands keep a dtype of their own; `batch` which have another shape for `...`. `tolerance` is in rounding
    errors of the dtype that is computed in, relative to the largest element. A `typical` case stands for its
    family in what is not tried on every case every day: memory orders, further dtypes and derivatives. A
    `heavy` one has many kernels and is spared the repetitions. A `rare` one is a further option of an op:
    every day it is tried only against its peer and against finite differences.
    """

    op: Op
    axes: Extents
    more: tuple[Extents, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    scalars: Mapping[str, float] = field(default_factory=dict)
    draw: Mapping[str, Draw] = field(default_factory=dict)
    dtypes: Mapping[str, Any] = field(default_factory=dict)
    batch: Mapping[str, Shape] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    special: tuple[float, ...] = ()
    torch: Callable[..., Any] | None = None
    tolerance: float = 16.0
    differentiable: bool = True
    typical: bool = False
    heavy: bool = False
    rare: bool = False

    def __str__(self) -> str:
        parts = [f"{name}={value}" for name, value in self.constants.items()]
        parts += [f"no {name}" for name in self.absent]
        return " ".join([self.op.name, *parts])

    @property
    def keywords(self) -> dict[str, Any]:
        return {**self.constants, **self.scalars}

    def arguments(
        self, dtype: Any = np.float64, seed: int = 0, axes: Extents | None = None
    ) -> dict[str, np.ndarray]:
        """The operands by name; floating ones in `dtype` unless the case says otherwise."""
        rng = np.random.default_rng(seed)
        extents = {**self.axes, **(axes or {})}
        found = {}
        for tile in self.op.tiles:
            if tile.name in self.absent:
                continue
            batch = self.batch.get(tile.name, extents.get("...", ())) if tile.spec.batched else ()
            named = (math.prod(extents[a] for a in axes) for axes in tile.spec.dimensions)
            shape = (*batch, *named)
            drawn = self.draw.get(tile.name, normal)(rng, shape)
            found[tile.name] = np.asarray(drawn).astype(self.dtypes.get(tile.name, dtype))
        return found

    def call(self, arguments: Mapping[str, np.ndarray]) -> Call:
        """The call of the op on these operands: its Program, and the operands in the Program's shapes."""
        return self.op.bind(self.op.arguments((), {**arguments, **self.keywords}))
