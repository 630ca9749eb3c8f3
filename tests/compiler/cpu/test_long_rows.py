"""Long rows in chunks: what a kernel becomes, that it is right, the same bits on any number of threads."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tests.support.campaigns import KINDS, campaign, derivatives, on
from tests.support.threads import assert_same_bits
from tilewright.compiler import chunks, long_rows
from tilewright.compiler.long_rows import cut
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu.executable import CpuExecutable
from tilewright.compiler.targets.cpu.layout import contiguous_strides
from tilewright.op.op import Call


@tw.op
def soften(x: tw.Tile["n d"]):
    e = tw.exp(x - tw.max(x, "d"))
    return e / tw.sum(e, "d")


@tw.op
def moments(x: tw.Tile["n d"]):
    """Results of a row beside results in it."""
    mean = tw.mean(x, "d")
    return mean, tw.mean((x - mean) ** 2, "d"), 2 * x - mean, tw.any(x > 2.5, "d")


@tw.op
def norm_gradient(x: tw.Tile["n d"], w: tw.Tile["d"], dy: tw.Tile["n d"]):
    """A sum across the rows beside those along them."""
    scale = tw.rsqrt(tw.mean(x * x, "d") + 1e-5)
    return (
        dy * w * scale - x * tw.mean(dy * w * x, "d") * scale**3,
        tw.sum(dy * x * scale, "n"),
        tw.sum(dy, "n"),
    )


@tw.op
def product(a: tw.Tile["m k"], b: tw.Tile["k"]):
    return tw.sum(a * b, "k")


@tw.op
def total_of_three(x: tw.Tile["n a b c"]):
    return tw.sum(x, ("a", "b", "c")), tw.max(x, ("a", "b", "c"))


@tw.op
def top(x: tw.Tile["n d"]):
    return tw.max(x, "d")


@tw.op
def neighbours(x: tw.Tile["n d"]):
    after = x.at(d=tw.index("d") + 1, fill=0)
    return tw.sum(tw.abs(x - after), "d")


SHAPES: dict[tw.Op, Callable[[int, int], list[tuple[int, ...]]]] = {
    soften: lambda n, d: [(n, d)],
    moments: lambda n, d: [(n, d)],
    norm_gradient: lambda n, d: [(n, d), (d,), (n, d)],
    product: lambda n, d: [(n, d), (d,)],
    total_of_three: lambda n, d: [(n, 2, 3, d)],
    neighbours: lambda n, d: [(n, d)],
}
OPS = sorted(SHAPES, key=lambda op: op.name)
EXTENTS = [(1, 300), (2, 64), (3, 333), (4, 1025), (5, 400), (16, 65)]


@pytest.fixture
def short_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a test's length are long, and have many chunks."""
    monkeypatch.setattr(long_rows, "FEWEST", 50)
    monkeypatch.setattr(long_rows, "MOST_ROWS", 16)
    monkeypatch.setattr(chunks, "ELEMENTS_A_CHUNK", 24)


def draw(op: tw.Op, n: int, d: int, dtype: type = np.float32) -> list[np.ndarray]:
    rng = np.random.default_rng(n * 1000 + d)
    return [rng.standard_normal(shape).astype(dtype) for shape in SHAPES[op](n, d)]


def bound(op: tw.Op, arrays: list[np.ndarray]) -> Call:
    return op.bind(op.arguments(tuple(arrays), {}))


def results(op: tw.Op, arrays: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Of an executable of its own: the op's may know these shapes from another test."""
    call = bound(op, arrays)
    return CpuExecutable(lower(call.program)).run(call.arrays)


def assert_right(op: tw.Op, arrays: list[np.ndarray], tolerance: float = 2e-5) -> None:
    expected = op.reference(*arrays)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for mine, right in zip(results(op, arrays), expected, strict=True):
        np.testing.assert_allclose(mine.astype(np.float64), right, rtol=tolerance, atol=50 * tolerance)


def kernels_of(op: tw.Op, *shapes: tuple[int, ...]) -> list[tuple[str, bool]]:
    """The kind of each kernel of a call, and whether its rows are in chunks."""
    call = bound(op, [np.zeros(shape, np.float32) for shape in shapes])
    compiled = CpuExecutable(lower(call.program)).compiled(call.arrays)
    return [(c.kernel.kind, c.kernel.split is not None) for c in compiled]


@pytest.mark.parametrize("extents", EXTENTS, ids=str)
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_chunks_of_rows(op: tw.Op, extents: tuple[int, int], short_enough: None):
    assert_right(op, draw(op, *extents))


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_operands_that_lie_otherwise(op: tw.Op, short_enough: None):
    arrays = draw(op, 3, 130)
    assert_right(op, [np.asfortranarray(a) for a in arrays])
    assert_right(op, [np.repeat(a, 2, -1)[..., ::2] for a in arrays])
    assert_right(op, [a[..., ::-1] for a in arrays])
    assert_right(op, [np.broadcast_to(a[:1], a.shape) for a in arrays])


@pytest.mark.parametrize(
    "dtype", [np.float64, np.float16, ml_dtypes.bfloat16, np.int32], ids=lambda d: d.__name__
)
def test_other_dtypes(dtype: type, short_enough: None):
    for op in (total_of_three, moments) if dtype != np.int32 else (total_of_three,):
        arrays = [(4 * a).astype(dtype) for a in draw(op, 3, 200)]
        assert_right(op, arrays, {np.float16: 2e-3, ml_dtypes.bfloat16: 2e-2}.get(dtype, 1e-5))


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_same_bits_for_every_thread_count(op: tw.Op, monkeypatch: pytest.MonkeyPatch):
    """At sizes that threads share."""
    monkeypatch.setattr(long_rows, "FEWEST", 50)
    monkeypatch.setattr(long_rows, "MOST_ROWS", 3)
    arrays = draw(op, 3, 150_001)
    assert_same_bits(lambda: results(op, arrays), (1, 2, 3, 7))


def test_the_largest_is_equal_to_an_element(short_enough: None):
    """A gradient that asks `x == max(x)` finds where."""
    (array,) = draw(soften, 3, 300)
    x = tw.Tensor(array, requires_grad=True)
    top(x).backward(tw.Tensor(np.ones(3, np.float32)))
    np.testing.assert_array_equal(x.grad.numpy(), array == array.max(1, keepdims=True))


def test_results_over_operands(short_enough: None):
    x = draw(soften, 3, 300)[0]
    expected = results(soften, [x])[0]
    given = x.copy()
    assert soften(given, out=given) is given
    np.testing.assert_array_equal(given, expected)


def test_what_a_kernel_becomes():
    long, pieces = (2, long_rows.FEWEST), [("row", True), ("row", False)]
    assert kernels_of(soften, long) == [*pieces, *pieces, ("pointwise", False)]
    ends = [("row", False)] * 2  # of the sums across the rows, which begin in the kernel before
    assert kernels_of(norm_gradient, long, long[1:], long) == [*pieces, ("row", False), *ends]
    assert kernels_of(product, long, long[1:]) == pieces


def test_what_stays_one_kernel():
    assert kernels_of(soften, (2, long_rows.FEWEST - 1)) == [("row", False)]
    assert kernels_of(soften, (long_rows.MOST_ROWS + 1, long_rows.FEWEST)) == [("row", False)]
    x = np.zeros((long_rows.FEWEST, 2), np.float32).T
    compiled = CpuExecutable(lower(bound(soften, [x]).program)).compiled({"x": x})
    assert [c.kernel.split for c in compiled] == [None]


def test_cutting_is_for_rows_alone():
    (kernel,) = lower(bound(product, draw(product, 3, 64)).program).kernels
    extents = {"m": 2, "k": long_rows.FEWEST}
    strides = {p.name: contiguous_strides([extents[a] for a in p.axes], p.dtype) for p in kernel.tiles}
    found = cut(kernel, strides, extents)
    assert found is not None
    assert [k.row for k in found.kernels] == [("k",), (found.axis,)]
    assert cut(found.kernels[0], strides, extents) is None  # once is enough


@tw.op
def weights(a: tw.Tile["n i"], b: tw.Tile["n j"]):
    return tw.sum(tw.exp(b), "j") + tw.sum(tw.sin(a * tw.max(b, "j")), "i")


@tw.op
def weighted_by_itself(x: tw.Tile["n d"]):
    """The inner op's second operand has a second name of the axis."""
    return weights(x, x)


def test_a_row_under_another_name(short_enough: None):
    (x,) = draw(soften, 3, 60)
    call = bound(weighted_by_itself, [x])
    extents = {"n": 3, "d": 60}
    strides = {"x": contiguous_strides(x.shape, call.program.tiles[0].dtype)}
    rows = {k.row: cut(k, strides, extents) for k in lower(call.program).kernels if k.kind == "row"}
    assert ("d'",) in rows and rows["d'",] is not None
    assert_right(weighted_by_itself, [x])


check = on(CpuExecutable)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ("mixed", "special floats", "halves"))
def test_many_random_programs_of_long_rows(kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(long_rows, "FEWEST", 2)
    monkeypatch.setattr(long_rows, "MOST_ROWS", 16)
    monkeypatch.setattr(chunks, "ELEMENTS_A_CHUNK", 3)
    campaign(check, 400, **KINDS[kind])()


@pytest.mark.exhaustive
def test_many_random_derivatives_of_long_rows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(long_rows, "FEWEST", 2)
    monkeypatch.setattr(long_rows, "MOST_ROWS", 16)
    monkeypatch.setattr(chunks, "ELEMENTS_A_CHUNK", 3)
    derivatives(check, 200)()
