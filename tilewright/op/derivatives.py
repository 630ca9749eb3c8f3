"""The derivatives of a Program at a call's shapes, derived once."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from tilewright.autograd import derive
from tilewright.autograd.derive import Derivative
from tilewright.dsl.empty import without_empty_axes
from tilewright.dsl.extents import bind_extents
from tilewright.dsl.program import Program


def at_call(program: Program, arrays: Mapping[str, np.ndarray]) -> Program:
    """The Program that a call with these operands differentiates and runs: no value in it has an empty axis.

    A sum over nothing is 0 whatever is summed, so its gradient is 0; that of the general Program could be
    0 / 0.
    """
    shapes = {param.name: arrays[param.name].shape for param in program.tiles}
    return without_empty_axes(program, bind_extents(program, shapes))


@functools.lru_cache(maxsize=2048)
def vjp(program: Program, wrt: tuple[str, ...] | None = None) -> Derivative:
    """`autograd.derive.vjp`, remembered."""
    return derive.vjp(program, wrt)


@functools.lru_cache(maxsize=2048)
def jvp(program: Program, wrt: tuple[str, ...] | None = None) -> Program:
    """`autograd.derive.jvp`, remembered."""
    return derive.jvp(program, wrt)
