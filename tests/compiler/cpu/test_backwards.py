"""Lanes that step backwards: whole vectors are read, and turned."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support.guarded import on_guard_pages


@tw.op
def turned(x: tw.Tile["n w"]) -> tw.Tile["n w"]:
    return x.at(w=tw.size("w") - 1 - tw.index("w"))


@tw.op
def stepping(x: tw.Tile["n w"], *, step=2, start=0) -> tw.Tile["n v"]:
    """From an end, or from before or behind it: what is outside is 0."""
    v = tw.axis("v", tw.size("w") // step)
    return x.at(w=tw.size("w") - 1 - step * v + start)


@tw.op
def convolved(x: tw.Tile["n t"], k: tw.Tile["r"]) -> tw.Tile["n t"]:
    """A convolution as mathematics has it."""
    return tw.sum(x.at(t=tw.index("t") - tw.index("r")) * k, "r")


@tw.op
def palindromes(x: tw.Tile["n w"]) -> tw.Tile["n"]:
    return tw.max(abs(x - x.at(w=tw.size("w") - 1 - tw.index("w"))), "w")


@tw.op
def mirrored(x: tw.Tile["n w c"]) -> tw.Tile["n w c"]:
    """Pixels, whose colours stay in order."""
    return x.at(w=tw.size("w") - 1 - tw.index("w"))


def drawn(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


@pytest.mark.parametrize("width", [1, 5, 16, 33, 100, 4099])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "uint8", "int64", "bool"])
def test_turned(width: int, dtype: str):
    x = drawn(3, width, dtype=dtype)
    np.testing.assert_array_equal(turned(x), x[:, ::-1])
    np.testing.assert_array_equal(turned(x[:, ::-1]), x)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("start", [-20, 0, 3])
def test_steps_and_what_is_outside(step: int, start: int):
    x = drawn(3, 133)
    found = stepping(x, step=step, start=start)
    np.testing.assert_array_equal(found, stepping.reference(x, step=step, start=start))


@pytest.mark.parametrize(
    ("op", "shapes"), [(convolved, [(3, 70), (5,)]), (palindromes, [(4, 77)]), (mirrored, [(3, 50, 3)])]
)
def test_ops_that_look_back(op: tw.Op, shapes: list[tuple[int, ...]]):
    operands = [drawn(*shape) for shape in shapes]
    np.testing.assert_array_equal(op(*operands), op.reference(*operands))


@pytest.mark.parametrize("constants", [{}, {"step": 1, "start": 7}, {"step": 3, "start": -9}, {"step": 4}])
def test_no_byte_beside_the_operands(constants: dict[str, int]):
    on_guard_pages(stepping, (3, 133), **constants)


def test_no_byte_beside_them_where_all_is_turned():
    on_guard_pages(turned, (5, 61))
    on_guard_pages(convolved, (3, 70), (5,))
    on_guard_pages(mirrored, (3, 50, 3))


def test_nothing_is_gathered():
    text = turned.code(drawn(3, 100), target="asm")
    assert "gather" not in text
