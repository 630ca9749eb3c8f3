"""What calls remember does not grow for ever."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import tilewright as tw
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu import spelling as cpu
from tilewright.compiler.targets.triton import executable, spelling
from tilewright.op import direct, traced
from tilewright.runtime.recent import Recent


def test_one_entry_too_many_begins_anew():
    recent = Recent(2)
    recent["a"], recent["b"] = 1, 2
    recent["a"] = 3
    assert recent == {"a": 3, "b": 2}
    recent["c"] = 4
    assert recent == {"c": 4}


def test_extents_and_constants_that_change_with_every_call(monkeypatch):
    """Calls, Tensors, derivatives and maps keep no more than they are allowed to, and stay right."""
    monkeypatch.setattr(direct, "MAX_LAYOUTS", 3)
    monkeypatch.setattr(importlib.import_module("tilewright.op.op"), "MAX_SITES", 3)
    monkeypatch.setattr(traced, "MAX_PROGRAMS", 3)

    @tw.op
    def scaled(x: tw.Tile["n"], *, factor: float):
        return x * factor

    for n in range(1, 9):
        x = np.arange(n, dtype=np.float32)
        np.testing.assert_array_equal(scaled(x, factor=float(n)), n * x)
        np.testing.assert_array_equal(scaled(tw.tensor(x), factor=float(n)).numpy(), n * x)
        np.testing.assert_array_equal(scaled.vjp(x, x, factor=2.0), 2 * x)
    kept = (scaled._layouts, scaled._programs, scaled.sites)
    assert all(0 < len(recent) <= 3 for recent in kept)


def test_recipes_of_the_interpreter(monkeypatch):
    monkeypatch.setattr(executable, "MAX_RECIPES", 2)

    @tw.op
    def double(x: tw.Tile["n"]):
        return 2 * x

    program = double.bind(double.arguments((np.zeros(3, np.float32),), {})).program
    interpreted = executable.InterpreterExecutable(lower(program))
    for n in range(1, 6):
        x = np.arange(n, dtype=np.float32)
        np.testing.assert_array_equal(interpreted.run({"x": x})[0], 2 * x)
    assert 0 < len(interpreted._found) <= 2


@pytest.mark.parametrize("module", [cpu, spelling], ids=["cpu", "triton"])
def test_expansions_do_not_hold_all_graphs_there_ever_were(module):
    assert module.expansion.cache_info().maxsize is not None
