"""Lanes that read each element several times: it is loaded once, and spread."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support.guarded import on_guard_pages


@tw.op
def repeated(x: tw.Tile["n w"], *, times=2) -> tw.Tile["n v"]:
    return x.at(w=tw.axis("v", times * tw.size("w")) // times)


@tw.op
def nearest(x: tw.Tile["n h w"], *, times=2) -> tw.Tile["n a b"]:
    a, b = tw.axis("a", times * tw.size("h")), tw.axis("b", times * tw.size("w"))
    return x.at(h=a // times, w=b // times)


@tw.op
def shifted(x: tw.Tile["n w"], *, times=3, start=1) -> tw.Tile["n v"]:
    """From the middle of an element on."""
    return x.at(w=(tw.axis("v", times * (tw.size("w") - 1)) + start) // times)


@tw.op
def beyond(x: tw.Tile["n w"]) -> tw.Tile["n v"]:
    """What is outside is 0."""
    return x.at(w=(tw.axis("v", 2 * tw.size("w") + 6) - 3) // 2)


@tw.op
def blocks(x: tw.Tile["n w"], scale: tw.Tile["n b"]) -> tw.Tile["n w"]:
    """A scale for each block of four."""
    return x * scale.at(b=tw.index("w") // 4)


def drawn(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


@pytest.mark.parametrize("width", [1, 5, 16, 33, 100])
@pytest.mark.parametrize("times", [2, 3, 4, 5])
def test_repeated(width: int, times: int):
    x = drawn(3, width)
    np.testing.assert_array_equal(repeated(x, times=times), np.repeat(x, times, 1))


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "uint8", "int64", "bool"])
def test_other_types(dtype: str):
    x = drawn(3, 77, dtype=dtype)
    np.testing.assert_array_equal(repeated(x), np.repeat(x, 2, 1))


@pytest.mark.parametrize(
    ("op", "shapes", "constants"),
    [
        (nearest, [(2, 9, 35)], {"times": 2}),
        (nearest, [(2, 9, 35)], {"times": 3}),
        (shifted, [(3, 50)], {}),
        (shifted, [(3, 50)], {"times": 4, "start": 3}),
        (shifted, [(3, 50)], {"times": 2, "start": 1}),
        (beyond, [(3, 50)], {}),
        (blocks, [(3, 132), (3, 33)], {}),
    ],
)
def test_values_and_memory(op: tw.Op, shapes: list[tuple[int, ...]], constants: dict[str, int]):
    operands = [drawn(*shape) for shape in shapes]
    np.testing.assert_array_equal(op(*operands, **constants), op.reference(*operands, **constants))
    on_guard_pages(op, *shapes, **constants)


def test_nothing_is_gathered():
    assert "gather" not in repeated.code(drawn(3, 100), target="asm")
