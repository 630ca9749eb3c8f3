"""Positions that go around from an axis' end to its beginning: whole vectors where no lane does."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support.guarded import on_guard_pages


@tw.op
def rolled(x: tw.Tile["n w"], *, by=3) -> tw.Tile["n w"]:
    return x.at(w=(tw.index("w") - by) % tw.size("w"))


@tw.op
def rolled_both(x: tw.Tile["h w"], *, down=2, right=5) -> tw.Tile["h w"]:
    h, w = (tw.index("h") - down) % tw.size("h"), (tw.index("w") - right) % tw.size("w")
    return x.at(h=h, w=w)


@tw.op
def around(x: tw.Tile["n c w"], k: tw.Tile["o c r"]) -> tw.Tile["n o w"]:
    """A convolution with circular padding."""
    return tw.sum(x.at(w=(tw.index("w") + tw.index("r") - 1) % tw.size("w")) * k, "c r")


@tw.op
def periodic(x: tw.Tile["n w"], *, period=7) -> tw.Tile["n v"]:
    """The first of its positions, again and again."""
    return x.at(w=tw.axis("v", 3 * tw.size("w")) % period)


@tw.op
def towards(x: tw.Tile["n w"], shift: tw.Tile["n"]) -> tw.Tile["n w"]:
    """Each row by its own number."""
    return x.at(w=(tw.index("w") + tw.cast(shift, tw.int64)) % tw.size("w"))


def drawn(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


@pytest.mark.parametrize("width", [1, 5, 16, 33, 100])
@pytest.mark.parametrize("by", [0, 1, -1, 3, 16, 40, -250])
def test_rolled(width: int, by: int):
    x = drawn(3, width)
    np.testing.assert_array_equal(rolled(x, by=by), np.roll(x, by, 1))


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "uint8", "int64", "bool"])
def test_other_types(dtype: str):
    x = drawn(3, 77, dtype=dtype)
    np.testing.assert_array_equal(rolled(x), np.roll(x, 3, 1))


@pytest.mark.parametrize(
    ("op", "shapes"),
    [
        (rolled_both, [(9, 70)]),
        (around, [(2, 3, 50), (4, 3, 3)]),
        (periodic, [(2, 40)]),
        (towards, [(5, 70), (5,)]),
    ],
)
def test_ops_that_go_around(op: tw.Op, shapes: list[tuple[int, ...]]):
    operands = [drawn(*shape) for shape in shapes]
    np.testing.assert_array_equal(op(*operands), op.reference(*operands))


def test_no_byte_beside_the_operands():
    on_guard_pages(rolled, (3, 61))
    on_guard_pages(rolled_both, (9, 61))
    on_guard_pages(periodic, (2, 40))
    on_guard_pages(around, (2, 3, 50), (4, 3, 3))
