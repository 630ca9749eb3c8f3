"""`out=`: results in given memory, which may be an operand's, whole or in part."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import tilewright as tw
from tests.support.threads import on_threads
from tilewright import kernels
from tilewright.errors import ArgumentError, DerivativeError, DTypeError, OverlapError, ShapeError
from tilewright.runtime import memory
from tilewright.runtime.guard import guarded, run_forked

N = 300  # rows and columns: several threads' worth, and no whole number of vectors


@tw.op
def blend(x: tw.Tile["n d"], y: tw.Tile["n d"]):
    return x * tw.sigmoid(y) + y


@tw.op
def both(x: tw.Tile["n d"], y: tw.Tile["n d"]):
    return x + 2 * y, x * y


@tw.op
def soften(x: tw.Tile["n d"], y: tw.Tile["n d"]):
    e = tw.exp(x - tw.max(x, "d"))
    return e / tw.sum(e, "d") + y


@tw.op
def centred_twice(x: tw.Tile["n d"], y: tw.Tile["n d"]):
    return x * 2 + y, x - tw.mean(x, "d")


@tw.op
def symmetric(x: tw.Tile["i j"], y: tw.Tile["i j"]):
    return x + x["j i"] * y


@tw.op
def product(x: tw.Tile["m k"], y: tw.Tile["k n"]):
    return tw.sum(x * y, "k")


@tw.op
def product_and_more(x: tw.Tile["m n"], y: tw.Tile["m n"]):
    return tw.tanh(tw.sum(y["m k"] * tw.sin(y["k n"]), "k")) + x, x * 3


@tw.op
def columns(x: tw.Tile["n d"], y: tw.Tile["n d"]):
    return x - tw.mean(x, "n") + y


@tw.op
def backward(x: tw.Tile["n d"], y: tw.Tile["n d"]):
    scale = tw.rsqrt(tw.mean(x * x, "d") + 1)
    return y * scale, tw.sum(y * x * scale, "n")


@tw.op
def from_the_row_above(x: tw.Tile["n d"], y: tw.Tile["n d"]):
    return x.at(n=tw.index("n") - 1) + x * y


OPS = [
    blend, both, soften, centred_twice, symmetric, product, product_and_more, columns, backward,
    from_the_row_above,
]  # fmt: skip

# Where the first result goes, in a block of memory of which x is the middle N × N.
PLACES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "the operand": lambda block: block[1 : N + 1],
    "a row further": lambda block: block[2 : N + 2],
    "a row before": lambda block: block[:N],
    "an element further": lambda block: block.reshape(-1)[N + 1 : N + 1 + N * N].reshape(N, N),
    "an element before": lambda block: block.reshape(-1)[N - 1 : N - 1 + N * N].reshape(N, N),
    "a vector further": lambda block: block.reshape(-1)[N + 16 : N + 16 + N * N].reshape(N, N),
    "the operand's rows backwards": lambda block: block[N:0:-1],
    "the operand transposed": lambda block: block[1 : N + 1].T,
}


def draw(count: int, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, N)).astype(dtype)


def as_tuple(value: object) -> tuple:
    return value if isinstance(value, tuple) else (value,)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_a_result_over_an_operand(op: tw.Op, place: str, threads: int):
    block, y = draw(N + 2), draw(N)
    x, target = block[1 : N + 1], PLACES[place](block)
    with on_threads(threads):
        expected = as_tuple(op(x.copy(), y))
        out = (target, *(None for _ in expected[1:]))
        actual = as_tuple(op(x, y, out=out if len(out) > 1 else target))
    assert actual[0] is target
    for mine, right in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(mine, right)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_memory_around_out_stays(op: tw.Op):
    """Out is the middle of a block, and lies at no cache line."""
    x, y = draw(N), draw(N)
    expected = as_tuple(op(x, y))
    blocks = [np.full(e.size + 7, 3, e.dtype) for e in expected]
    places = [block[3:-4].reshape(e.shape) for block, e in zip(blocks, expected, strict=True)]
    op(x, y, out=tuple(places))
    for block, place, right in zip(blocks, places, expected, strict=True):
        np.testing.assert_array_equal(place, right)
        assert (block[:3] == 3).all() and (block[-4:] == 3).all()


@pytest.mark.parametrize("side", ["start", "end"])
def test_no_byte_beside_an_operand_that_is_replaced(side):
    cases = [draw(N)[:n, :d].copy() for n, d in ((1, 1), (3, 17), (5, 64), (0, 3))]
    expected = [as_tuple(op(x, x)) for op in (blend, soften) for x in cases]

    def touch() -> None:
        tw.set_num_threads(1)
        results = []
        for op in (blend, soften):
            for x in cases:
                place = guarded(x, side)
                results.append((op(place, x, out=place),))
        for mine, right in zip(results, expected, strict=True):
            np.testing.assert_array_equal(mine[0], right[0])

    outcome = run_forked(touch)
    assert outcome.kind == "returned", outcome.report


def allocations(monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> list[tuple[int, ...]]:
    allocate, shapes = memory.empty, []

    def noted(shape, dtype):
        shapes.append(tuple(shape))
        return allocate(shape, dtype)

    with monkeypatch.context() as patch:
        patch.setattr(memory, "empty", noted)
        run()
    return shapes


def test_what_is_safe_needs_no_memory(monkeypatch):
    x, y, place = draw(N), draw(N), draw(N)
    assert allocations(monkeypatch, lambda: blend(x, y)) == [(N, N)]
    assert allocations(monkeypatch, lambda: blend(x, y, out=place)) == []
    assert allocations(monkeypatch, lambda: blend(x, y, out=x)) == []
    assert allocations(monkeypatch, lambda: blend(x, x, out=x)) == []
    assert (N, N) not in allocations(monkeypatch, lambda: soften(x, y, out=y))
    assert allocations(monkeypatch, lambda: symmetric(x, y, out=x)) == [(N, N)]


def test_results_that_share_memory_with_each_other():
    x, y = draw(N), draw(N)
    right = both(x, y)[1]
    place = draw(N)
    both(x, y, out=(None, place))
    np.testing.assert_array_equal(place, right)
    block = np.zeros((N + 1, N), np.float32)
    first, second = block[:N], block[1:]
    expected = both(x, y)
    both(x, y, out=(first, second))
    np.testing.assert_array_equal(second, expected[1])  # the later one is whole
    np.testing.assert_array_equal(first[0], expected[0][0])


def test_both_operands_are_replaced_at_once():
    x, y = draw(N), draw(N + 1)[:N]
    expected = both(x, y)
    x2, y2 = both(x, y, out=(y, x))
    assert x2 is y and y2 is x
    np.testing.assert_array_equal(y, expected[0])
    np.testing.assert_array_equal(x, expected[1])


def test_batch_axes_and_empty_operands():
    x = draw(24).reshape(2, 3, 4, N)
    expected = kernels.softmax(x)
    assert kernels.softmax(x, out=x) is x
    np.testing.assert_array_equal(x, expected)
    empty = np.zeros((0, N), np.float32)
    assert blend(empty, empty, out=empty) is empty


def test_a_derivative_in_given_memory():
    x, y, cotangent = draw(N), draw(N), draw(N)
    expected = blend.vjp(x, y, cotangent)
    blend.vjp(x, y, cotangent, out=(x, cotangent))
    np.testing.assert_array_equal(x, expected[0])
    np.testing.assert_array_equal(cotangent, expected[1])


@pytest.mark.parametrize("op", [blend, soften, product, columns], ids=lambda op: op.name)
def test_calls_like_ones_before_write_where_they_are_told(op: tw.Op):
    """Places that are in order, a column of another array, rows backwards, bytes in the other order."""
    x, y = draw(N), draw(N)
    expected = op(x, y)
    column, backwards, swapped = np.zeros((N, 2 * N), "f"), np.zeros((N, N), "f"), np.zeros((N, N), ">f4")
    for _ in range(2):
        for place in (np.empty_like(x), column[:, ::2], backwards[::-1]):
            place[...] = 7
            assert op(x, y, out=place) is place
            np.testing.assert_array_equal(place, expected)
        with pytest.raises(DTypeError, match="out= is >f4"):
            op(x, y, out=swapped)
    assert not column[:, 1::2].any() and not swapped.any()


def test_a_complex_result_has_no_out_however_often():
    z = np.ones((3, 4), np.complex64)
    turned = tw.op(_turned)
    for _ in range(2):
        np.testing.assert_array_equal(turned(z), z * 1j)
        with pytest.raises(ArgumentError, match="a complex result has no out="):
            turned(z, out=np.empty_like(z))


def _turned(z: tw.Tile["n d"]):
    return z * 1j


def test_an_op_that_has_an_argument_out():
    @tw.op
    def scaled(x: tw.Tile["n"], *, out: float = 1.0):
        return x * out

    np.testing.assert_array_equal(scaled(np.ones(3, np.float32), out=2.0), [2, 2, 2])


# --- Tensors ----------------------------------------------------------------------------------------------


def test_tensors_are_written_and_count_it():
    x, y = tw.Tensor(draw(N)), tw.Tensor(draw(N))
    expected = blend(x, y).numpy()
    seen, memory_of = x.version, x.numpy()
    assert blend(x, y, out=x) is x
    assert x.version == seen + 1 and x.numpy() is memory_of
    np.testing.assert_array_equal(x.numpy(), expected)
    first, second = both(x, y, out=(None, y))
    assert second is y and first is not x


def test_a_view_of_a_tensor_is_written():
    block = tw.Tensor(draw(N + 2))
    x, target = block[1 : N + 1], block[2 : N + 2]
    expected = blend(x.clone(), x.clone()).numpy()
    blend(x, x, out=target)
    np.testing.assert_array_equal(target.numpy(), expected)
    np.testing.assert_array_equal(block[2 : N + 2].numpy(), expected)
    assert block.version == 1


def test_what_the_tape_saved_is_not_overwritten_unseen():
    x = tw.Tensor(draw(N), requires_grad=True)
    y = tw.Tensor(draw(N))
    loss = blend(x, y).sum()
    with tw.no_grad():
        blend(x, y, out=y)
    with pytest.raises(DerivativeError, match="modified in place"):
        loss.backward()


def test_recorded_calls_have_no_out():
    x, y = tw.Tensor(draw(N), requires_grad=True), tw.Tensor(draw(N))
    with pytest.raises(DerivativeError, match="out= would overwrite what the gradient may need"):
        blend(x, y, out=y)
    with pytest.raises(DerivativeError, match="behind the tape's back"):
        blend(y, y, out=x)
    with tw.no_grad():
        assert blend(x, y, out=x) is x


# --- mistakes ---------------------------------------------------------------------------------------------

X = np.ones((2, 3), np.float32)
FROZEN = np.broadcast_to(np.float32(1), (2, 3))
REPEATED = np.lib.stride_tricks.as_strided(np.zeros(8, np.float32), (2, 3), (4, 4))
MISTAKES = {
    "shape": (lambda: blend(X, X, out=X[:1]), ShapeError, r"has shape \(2, 3\), out= has \(1, 3\)"),
    "dtype": (lambda: blend(X, X, out=X.astype(np.float64)), DTypeError, "is float32, out= is float64"),
    "count": (lambda: both(X, X, out=X), ArgumentError, "has 2 results, out= names 1; pass a tuple of 2"),
    "too many": (lambda: blend(X, X, out=(X, X)), ArgumentError, "has 1 result, out= names 2; pass an array"),
    "kind": (lambda: blend(X, X, out=[1.0]), ArgumentError, "not a float"),
    "Tensor for arrays": (lambda: blend(X, X, out=tw.Tensor(X)), ArgumentError, "not a Tensor"),
    "array for Tensors": (lambda: blend(tw.Tensor(X), X, out=X), ArgumentError, "not a ndarray"),
    "read-only": (lambda: blend(X, X, out=FROZEN), OverlapError, "is read-only; pass an array of its own"),
    "repeated": (lambda: blend(X, X, out=REPEATED), OverlapError, "several elements at one address"),
}  # fmt: skip


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes(case: str, known: bool):
    """Whether or not a call like it went well before."""
    call, error, message = MISTAKES[case]
    if known:
        blend(X, X, out=np.empty_like(X))
        both(X, X, out=(np.empty_like(X), None))
    with pytest.raises(error, match=message) as raised:
        call()
    assert "test_out.py" in str(raised.value)


def test_inside_an_op():
    @tw.op
    def outer(x: tw.Tile["n d"]):
        return blend(x, x, out=x)

    with pytest.raises(ArgumentError, match="out= belongs to calls on arrays"):
        outer(X)
