"""What a backward is run on when an op is checked or timed: random cotangents, and what its forward saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tilewright.autograd.derivative import Derivative
from tilewright.compiler.pipeline import compile_program
from tilewright.dsl.extents import result_shapes

Arrays = Mapping[str, np.ndarray]


def random_cotangents(derivative: Derivative, operands: Arrays, seed: int = 1) -> dict[str, np.ndarray]:
    """A normally distributed cotangent for each floating-point result."""
    forward = derivative.forward
    given = result_shapes(forward, {p.name: operands[p.name].shape for p in forward.tiles})
    shapes = dict(zip((r.name for r in forward.results), given, strict=True))
    dtypes = {p.name: p.dtype.numpy for p in derivative.backward.tiles}
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal(shapes[result]).astype(dtypes.get(name, np.float32))
        for result, name in derivative.cotangents
    }


def saved_values(
    derivative: Derivative, operands: Arrays, scalars: Mapping[str, Any], target: str
) -> dict[str, np.ndarray]:
    """What the forward leaves to the backward, computed on a target: the backward compares with just these.

    max(|x·g|) = |x·g| is true of the values that one kernel computed, and of no others.
    """
    if not derivative.saved:
        return {}
    forward = derivative.forward
    numbers = {p.name: scalars[p.name] for p in forward.scalars}
    results = compile_program(forward, target).run({p.name: operands[p.name] for p in forward.tiles}, numbers)
    named = {r.name: np.asarray(a) for r, a in zip(forward.results, results, strict=True)}
    return {name: named[name] for name in derivative.saved}
