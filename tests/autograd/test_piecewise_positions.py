"""Gradients of reads at clipped and mirrored positions: sums of reads, the same as NumPy's additions."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support import checks
from tilewright.autograd.derive import vjp
from tilewright.autograd.pieces import pieces
from tilewright.autograd.solving import Axes
from tilewright.compiler.pipeline import compile_program, lower
from tilewright.dsl.expression import Expr
from tilewright.dsl.program import Index, Size
from tilewright.op.derived import without_saved

# Positions by i in 0 … 2 n + 4, for n places: formulas that NumPy can evaluate as well.
POSITIONS = {
    "clip": lambda i, n, m: m.minimum(m.maximum(i - 2, 0), n - 1),
    "clip the other way": lambda i, n, m: m.maximum(m.minimum(n - i, n - 1), 0),
    "mirror": lambda i, n, m: (n - 1) - m.abs((n - 1) - m.abs(i - 2)),
    "where": lambda i, n, m: m.where(i < 3, 2 - i, m.where(i >= n + 3, 2 * n + 1 - i, i - 3)),
    "where of both": lambda i, n, m: m.where((i > 1) & (i <= n), i - 2, n - 1),
    "where not of both": lambda i, n, m: m.where((i > 1) & (i <= n), 0, i - 2),
    "half": lambda i, n, m: m.minimum(m.maximum((2 * i - 5) // 4, 0), n - 1),
    "a third": lambda i, n, m: m.minimum(i // 3, n - 1),
    "ends only": lambda i, n, m: m.where(i < n, 0, n - 1),
    "even": lambda i, n, m: m.minimum(2 * i, n - 1),
    "remainder": lambda i, n, m: m.minimum(i % 4, n - 1),
    "one of two": lambda i, n, m: m.maximum(i - n, n - i - 1),
}
SIZES = (1, 2, 3, 7, 20)


class Language:
    minimum, maximum, abs, where = tw.minimum, tw.maximum, tw.abs, tw.where


def reader(name: str):
    @tw.op
    def read(x: tw.Tile["... n"]) -> tw.Tile["... i"]:
        n = tw.size("n")
        return x.at(n=POSITIONS[name](tw.axis("i", 2 * n + 5), n, Language))

    return read


def expected(name: str, gradient: np.ndarray, size: int) -> np.ndarray:
    place = POSITIONS[name](np.arange(2 * size + 5), size, np)
    total = np.zeros((size, *gradient.shape[:-1]))
    inside = (place >= 0) & (place < size)
    np.add.at(total, place[inside], np.moveaxis(gradient, -1, 0)[inside])
    return np.moveaxis(total, 0, -1)


def backward_of(op, x):
    call = op.bind(op.arguments((x,), {}))
    return without_saved(vjp(call.program))


def check_gradient(name, backward, target):
    """Exact sums of whole numbers, for every size."""
    compiled = compile_program(backward, target)
    rng = np.random.default_rng(0)
    for size in SIZES:
        x, g = rng.standard_normal((3, size)), rng.integers(-9, 9, (3, 2 * size + 5)).astype(float)
        given = dict(zip((p.name for p in backward.params), (x, g)[-len(backward.params) :], strict=True))
        np.testing.assert_array_equal(compiled.run(given)[0], expected(name, g, size), err_msg=f"{size}")


@pytest.mark.parametrize("name", POSITIONS)
def test_gradients_are_sums_of_reads(name):
    backward = backward_of(reader(name), np.zeros((2, 7)))
    assert all(kernel.kind != "scatter" for kernel in lower(backward).kernels)
    check_gradient(name, backward, "cpu")


@pytest.mark.exhaustive
@pytest.mark.skipif("interpreter" not in checks.targets(), reason="Triton is not installed")
@pytest.mark.parametrize("name", POSITIONS)
def test_gradients_in_the_interpreter(name):
    check_gradient(name, backward_of(reader(name), np.zeros((2, 7))), "interpreter")


@pytest.mark.exhaustive
@pytest.mark.parametrize("first", POSITIONS)
@pytest.mark.parametrize("second", ["clip", "mirror", "half"])
def test_two_axes_at_once_and_positions_that_share_one(first, second):
    @tw.op
    def read(x: tw.Tile["n m"]) -> tw.Tile["i j"]:
        n, m = tw.size("n"), tw.size("m")
        i, j = tw.axis("i", 2 * n + 5), tw.axis("j", 2 * m + 5)
        return x.at(n=POSITIONS[first](i, n, Language), m=POSITIONS[second](j, m, Language))

    @tw.op
    def diagonal(x: tw.Tile["n m"]) -> tw.Tile["i"]:
        n, m = tw.size("n"), tw.size("m")
        i = tw.axis("i", 2 * n + 5)
        return x.at(n=POSITIONS[first](i, n, Language), m=POSITIONS[second](i, m, Language))

    rng = np.random.default_rng(0)
    for n, m in ((1, 3), (4, 7), (9, 2)):
        x = rng.standard_normal((n, m))
        g = rng.integers(-9, 9, (2 * n + 5, 2 * m + 5)).astype(float)
        along = expected(second, g, m)
        np.testing.assert_array_equal(read.vjp(x, g), expected(first, along.T, n).T)
        rows, columns = (
            POSITIONS[name](np.arange(2 * n + 5), size, np) for name, size in ((first, n), (second, m))
        )
        inside = (rows >= 0) & (rows < n) & (columns >= 0) & (columns < m)
        total = np.zeros((n, m))
        np.add.at(total, (rows[inside], columns[inside]), g[inside, 0])
        np.testing.assert_array_equal(diagonal.vjp(x, np.ascontiguousarray(g[:, 0])), total)


def test_scatters_at_clipped_positions_are_reads():
    @tw.op
    def add(x: tw.Tile["... i"]) -> tw.Tile["... n"]:
        return tw.scatter_add(x, {"n": tw.clip(tw.index("i") - 3, 0, 5)}, 6)

    x = np.random.default_rng(0).integers(-9, 9, (4, 13)).astype(float)
    program = add.bind(add.arguments((x,), {})).program
    assert all(kernel.kind != "scatter" for kernel in lower(program).kernels)
    total = np.zeros((6, 4))
    np.add.at(total, np.clip(np.arange(13) - 3, 0, 5), x.T)
    np.testing.assert_array_equal(add(x), total.T)


def test_the_pieces_of_a_clip():
    n = Expr(Size("n"))
    axes = Axes({"i": (n + 4).node}, set())
    found = pieces(tw.clip(Expr(Index("i")) - 2, 0, n - 1).node, ("i",), axes)
    assert sorted((len(p.bounds), len(p.others)) for p in found) == [(1, 0), (1, 0), (2, 0)]


def test_positions_that_are_read_stay_scatters():
    @tw.op
    def read(x: tw.Tile["n"], ids: tw.Tile["i"]):
        return x.at(n=tw.clip(ids, 0, tw.size("n") - 1))

    x, ids = np.zeros(5), np.array([-3, 0, 2, 9, 2])
    np.testing.assert_array_equal(read.vjp(x, ids, np.arange(1.0, 6.0)), [3, 0, 8, 0, 4])
