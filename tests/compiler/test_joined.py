"""Axes that lie as one: when a kernel joins them, and that what it computes stays the same."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tilewright.compiler.joined import Call, joined
from tilewright.compiler.pipeline import lower


@tw.op
def middle(x: tw.Tile["a b c d"]):
    """A reduction between other axes."""
    return tw.sum(x, "b")


@tw.op
def everything(x: tw.Tile["a b c"]):
    """A mean, which knows how many values there are, and a ratio of extents."""
    return tw.mean(x, ("a", "b", "c")) * tw.size("a") / tw.size("c")


@tw.op
def placed(x: tw.Tile["a b"]):
    """Positions are asked for: the axes stay."""
    return x + tw.cast(tw.index("b"), x.dtype)


@tw.op
def turned(x: tw.Tile["a b"]):
    """One operand, read along both axes."""
    return x * x["b a"]


def call_of(op: tw.Op, *arrays: np.ndarray) -> Call:
    """The first kernel of an op as a call runs it."""
    bound = op.bind(op.arguments(arrays, {}))
    plan = lower(bound.program)
    kernel = plan.kernels[0]
    given = {p.name: bound.arrays[p.name] for p in plan.program.tiles}
    extents = {a: n for p in plan.program.tiles for a, n in zip(p.axes, given[p.name].shape, strict=True)}
    shapes = {name: array.shape for name, array in given.items()}
    strides = {name: array.strides for name, array in given.items()}
    for output in kernel.outputs:
        extents |= {axis: 1 for axis in output.buffer.axes if axis.startswith("#")}
        made = np.empty([extents[axis] for axis in output.buffer.axes], output.buffer.dtype.numpy)
        shapes[output.buffer.name], strides[output.buffer.name] = made.shape, made.strides
    return Call(kernel, shapes, strides, extents)


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def test_neighbours_that_lie_as_one_are_one():
    call = joined(call_of(middle, draw(2, 3, 4, 5)))
    assert call.kernel.parallel == ("a", "d") and call.kernel.row == ("b",)
    assert call.kernel.single == ("c",)
    assert call.extents == {"a": 2, "b": 3, "c": 1, "d": 20}
    assert call.shapes["x"] == (2, 3, 1, 20)


def test_a_row_of_several_axes_is_one_and_sizes_stay():
    call = joined(call_of(everything, draw(2, 3, 4)))
    assert call.kernel.row == ("c",) and call.extents["c"] == 24
    whole = draw(70, 3, 5)
    for x in (whole, whole[:, :, ::-1], whole[::2], np.asfortranarray(whole)):
        np.testing.assert_allclose(everything(x), everything.reference(x), rtol=1e-5)


@pytest.mark.parametrize(
    ("op", "array"), [(placed, draw(6, 7)), (turned, draw(6, 6)), (middle, draw(2, 3, 4, 6)[..., :5])]
)
def test_axes_that_differ_stay(op: tw.Op, array: np.ndarray):
    call = call_of(op, array)
    assert joined(call) == call
    np.testing.assert_allclose(op(array), op.reference(array), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (2, 300, 1, 3), (64, 2, 3, 20)])
def test_reductions_between_other_axes(shape: tuple[int, ...]):
    x = draw(*shape)
    for laid in (x, np.asfortranarray(x), x[:, ::-1], x[..., ::-1]):
        np.testing.assert_allclose(middle(laid), middle.reference(laid), rtol=1e-5, atol=1e-5)


@tw.op
def product_of_rows(a: tw.Tile["b i j c d"], b: tw.Tile["b e c d"]):
    """Rows i and j lie as one, sums over c and d too."""
    return tw.sum(a * b, ("c", "d"))


def test_sides_and_sums_of_contractions():
    call = joined(call_of(product_of_rows, draw(2, 3, 4, 5, 6), draw(2, 7, 5, 6)))
    assert call.extents | {"b": 2, "i": 1, "j": 12, "c": 1, "d": 30, "e": 7} == call.extents
    a = draw(2, 3, 4, 5, 6)[:, :, :3]
    call = joined(call_of(product_of_rows, a, draw(2, 7, 5, 6)))
    assert call.extents["j"] == 3 and call.extents["d"] == 30


@pytest.mark.parametrize("step", [1, 2])
def test_values_of_joined_contractions(step: int):
    rng = np.random.default_rng(0)
    a = rng.integers(-4, 5, (2, 3, 8, 5, 6)).astype(np.float32)[:, :, ::step]
    b = rng.integers(-4, 5, (2, 7, 5, 6)).astype(np.float32)[..., ::step, :]
    a = a[..., : b.shape[2], :]
    np.testing.assert_array_equal(product_of_rows(a, b), np.einsum("bijcd,becd->bije", a, b))
