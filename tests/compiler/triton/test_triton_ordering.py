"""Orders on the Triton target: by counting, in the interpreter, and as binaries."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tilewright.compiler.pipeline import compile_program, lower
from tilewright.compiler.ranking import without_orders
from tilewright.compiler.targets.triton.binaries import compile_plan


@tw.op
def ordered(x: tw.Tile["... n"], *, descending=False):
    return tw.argsort(tw.abs(x) if descending else x, "n", descending=descending)


def program_of(x: np.ndarray, descending: bool):
    return ordered.bind(ordered.arguments([x], {"descending": descending})).program


@pytest.mark.parametrize("descending", (False, True))
@pytest.mark.parametrize("dtype", ("float32", "float64", "float16", "int64", "uint8"))
def test_order(dtype: str, descending: bool):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((3, 19)) * 20).astype(dtype)
    if x.dtype.kind == "f":
        x[0, 3], x[0, 5], x[1, 2], x[1, 4], x[2, 1] = np.nan, -np.nan, -0.0, 0.0, np.inf
    x[2] = np.round(x[2] / 16)
    program = program_of(x, descending)
    (found,) = compile_program(program, "interpreter").run({"x": x})
    assert np.array_equal(found, ordered.reference(x, descending=descending))


def test_binary():
    plan = lower(program_of(np.zeros((4, 128), np.float32), False))
    assert any(kernel.order for kernel in plan.kernels)
    assert not any(kernel.order for kernel in without_orders(plan).kernels)
    assert len(compile_plan(plan, "cuda:90", {"x": (4, 128)})) == len(without_orders(plan).kernels)
