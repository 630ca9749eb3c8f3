"""Nodes, renaming, verification; and the reference, against NumPy written by hand."""

import threading
import warnings

import mpmath
import numpy as np
import pytest

from tests.support.tracing import meaning, traced
from tilewright.dsl import language as tw
from tilewright.dsl.axes import Tile
from tilewright.dsl.dtypes import bool_, float32, float64, int8, int32, int64, uint8
from tilewright.dsl.expression import Expr, cast
from tilewright.dsl.extents import bind_extents
from tilewright.dsl.program import (
    Cast,
    Const,
    Index,
    Map,
    Param,
    Program,
    Read,
    Reduce,
    Result,
    Size,
    replace,
    topological,
)
from tilewright.dsl.reference import reference
from tilewright.dsl.renaming import rename
from tilewright.dsl.rules import RuleSet, rewrite
from tilewright.dsl.simplify import EXACT_RULES
from tilewright.dsl.verify import verify
from tilewright.errors import InternalError, ShapeError

X = Read("x", ("i", "d"), float64)
W = Read("w", ("d", "e"), float64)


# --- nodes ------------------------------------------------------------------------------------------------


def test_equal_nodes_are_one_object():
    assert Map("add", (X, X)) is Map("add", (X, X))
    assert Reduce("sum", ("i", "d"), X) is Reduce("sum", ("d", "i"), X)
    assert Map("add", (X, X)) is not Map("mul", (X, X))


def test_nodes_are_one_object_in_all_threads():
    found: list[list[Map]] = []
    start = threading.Barrier(4)

    def build():
        start.wait()
        found.append([Map("add", (Const(n, float32), Const(n + 1, float32))) for n in range(2000)])

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(a is b for others in found[1:] for a, b in zip(found[0], others, strict=True))


def test_deep_graphs_can_be_built_walked_and_dropped():
    node = X
    for step in range(100_000):
        node = Map("add", (node, Const(float(step), float64)))
    assert len(topological([node])) == 200_001
    del node


def test_a_reduction_over_an_axis_that_is_not_there_is_a_bug():
    with pytest.raises(InternalError, match="sum over"):
        Reduce("sum", ("k",), X)


def test_replace_takes_the_topmost_match():
    total = Map("add", (Map("neg", (X,)), X))
    assert replace(total, {Map("neg", (X,)): X}) is Map("add", (X, X))
    assert replace(total, {total: X, X: W}) is X


# --- renaming ---------------------------------------------------------------------------------------------


def test_rename_changes_free_axes_only():
    assert rename(X, {"i": "a"}) is Read("x", ("a", "d"), float64)
    assert rename(Reduce("sum", ("i",), X), {"i": "a"}) is Reduce("sum", ("i",), X)
    assert rename(Size("i"), {"i": "a"}) is Size("i")
    assert rename(Index("i"), {"i": "a"}) is Index("a")
    assert rename(X, {"i": "d", "d": "i"}) is Read("x", ("d", "i"), float64)
    assert rename(X, {"i": "i", "z": "q"}) is X


def test_rename_does_not_let_a_reduction_capture_an_axis():
    renamed = rename(Reduce("sum", ("d",), X), {"i": "d"})
    assert isinstance(renamed, Reduce)
    assert renamed.axes == ("d",) and renamed.over == ("d'",)
    nested = Reduce("sum", ("e",), Map("mul", (W, Reduce("max", ("d",), X))))
    renamed = rename(nested, {"i": "e", "d": "i"})
    assert set(renamed.axes) == {"i", "e"}
    x, w = np.random.default_rng(0).normal(size=(2, 5, 5))
    params = (Param("x", ("i", "d"), float64), Param("w", ("d", "e"), float64))
    before = reference(Program("f", params, (Result("y", nested, ("i", "d")),)), {"x": x, "w": w})
    after = reference(Program("f", params, (Result("y", renamed, ("e", "i")),)), {"x": x, "w": w})
    np.testing.assert_array_equal(before, after)


# --- verify -----------------------------------------------------------------------------------------------

PARAMS = (Param("x", ("i", "d"), float64),)


def broken(node, axes, params=PARAMS):
    return Program("f", params, (Result("y", node, axes),))


def test_verify_passes_what_is_right():
    program = broken(X, ("d", "i"))
    assert verify(program) is program


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (broken(X, ("i", "d"), (*PARAMS, *PARAMS)), "two params of one name"),
        (broken(Read("z", ("i", "d"), float64), ("i", "d")), "reads an unknown param"),
        (broken(Read("x", ("i", "d"), float32), ("i", "d")), "another dtype or rank"),
        (broken(Read("x", ("i",), float64), ("i",)), "another dtype or rank"),
        (broken(Size("q"), ()), "an axis of unknown extent"),
        (broken(Index("q"), ("q",)), "an axis of unknown extent"),
        (broken(X, ("i",)), "has axes"),
        (broken(X, ("i", "d", "d")), "repeats an axis"),
        (broken(X, ("i", "d", "q")), "an axis of unknown extent"),
        (broken(Reduce("sum", (), X), ("i", "d")), "a reduction over no axis"),
        (broken(Reduce("mean", ("d",), X), ("i",)), "an unknown combine"),
        (broken(Map("isnan", (X, X)), ("i", "d")), "a wrong number of operands"),
        (broken(Const(300, int8), ()), "a constant that its dtype cannot hold"),
        (broken(Reduce("any", ("d",), X), ("i",)), "any of something that is not bool"),
    ],
)
def test_verify_names_the_pass_and_the_fault(program, message):
    with pytest.raises(InternalError, match=f"after folding: .*{message}"):
        verify(program, after="folding")


# --- extents ----------------------------------------------------------------------------------------------


def test_extents_come_from_operands_and_the_names_they_are_read_under():
    def gram(x: Tile["i d"]):
        return tw.sum(x * x["j d"], "d")

    assert bind_extents(traced(gram), {"x": (3, 4)}) == {"i": 3, "d": 4, "j": 3}


def test_extents_that_disagree_are_an_error_that_names_both():
    def product(a: Tile["m k"], b: Tile["k n"]):
        return tw.sum(a * b, "k")

    with pytest.raises(
        ShapeError, match=r"axis 'k' is 3 in a \(shape \(2, 3\)\) but 4 in b \(shape \(4, 5\)\)"
    ):
        bind_extents(traced(product), {"a": (2, 3), "b": (4, 5)})


# --- the reference ----------------------------------------------------------------------------------------

RANDOM = np.random.default_rng(1)
A = RANDOM.normal(size=(3, 4))


def same(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_common_formulas():
    def f(x: Tile["n d"]):
        return (
            tw.mean(x, "d"),
            tw.var(x, "d", correction=1),
            tw.logsumexp(x, "d"),
            tw.prod(x),
            tw.clip(x, -1, 1),
        )

    mean, var, logsumexp, product, clipped = meaning(f, A)
    same(mean, A.mean(1))
    same(var, A.var(1, ddof=1))
    same(logsumexp, np.log(np.exp(A).sum(1)))
    same(product, A.prod())
    same(clipped, A.clip(-1, 1))


def test_attention():
    def attention(q: Tile["... i d"], k: Tile["... j d"], v: Tile["... j e"], *, causal: bool):
        s = tw.sum(q * k, "d") * tw.rsqrt(tw.size("d"))
        if causal:
            s = tw.where(tw.index("i") >= tw.index("j"), s, -tw.inf)
        p = tw.exp(s - tw.max(s, "j"))
        return tw.sum(p / tw.sum(p, "j") * v, "j")

    q, k, v = RANDOM.normal(size=(2, 5, 4)), RANDOM.normal(size=(2, 5, 4)), RANDOM.normal(size=(2, 5, 3))
    scores = q @ k.swapaxes(1, 2) / 2
    scores = np.where(np.tri(5, dtype=bool), scores, -np.inf)
    p = np.exp(scores)
    same(meaning(attention, q, k, v, causal=True), p / p.sum(-1, keepdims=True) @ v)


def test_batch_axes_broadcast_as_numpy_has_it():
    def product(a: Tile["... m k"], b: Tile["... k n"]):
        return tw.sum(a * b, "k")

    a, b = RANDOM.normal(size=(2, 1, 3, 4)), RANDOM.normal(size=(2, 4, 5))
    same(meaning(product, a, RANDOM.normal(size=(4, 5)) * 0 + b[0]), a @ b[0])


def test_argmax_takes_the_first_of_ties_and_of_nans():
    def f(x: Tile["n d"]):
        return tw.argmax(x, "d"), tw.argmin(x, "d")

    x = np.array([[1.0, 3, 3, 1], [np.nan, 1, np.nan, 2], [5, np.nan, 7, 7], [-np.inf] * 4])
    largest, smallest = meaning(f, x)
    np.testing.assert_array_equal(largest, x.argmax(1))
    np.testing.assert_array_equal(smallest, x.argmin(1))


def test_nan_goes_through_max_and_min():
    def f(x: Tile["d"], y: Tile["d"]):
        return tw.max(x), tw.min(x), tw.maximum(x, y), tw.minimum(x, y), tw.clip(x, 0, 1)

    x, y = np.array([1.0, np.nan]), np.array([np.nan, 1.0])
    for value in meaning(f, x, y)[:4]:
        assert np.isnan(value).all()
    np.testing.assert_array_equal(meaning(f, x, y)[4], [1, np.nan])


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)])
def test_empty_axes(shape):
    def f(x: Tile["n d"]):
        return (tw.sum(x, "d"), tw.prod(x, "d"), tw.max(x, "d"), tw.min(x, "d"), tw.any(x > 0, "d"),
                tw.all(x > 0, "d"), tw.mean(x, "d"), tw.logsumexp(x, "d"), x * 2)  # fmt: skip

    x = np.zeros(shape)
    total, product, largest, smallest, some, every, mean, logsumexp, doubled = meaning(f, x)
    empty = shape[1] == 0
    np.testing.assert_array_equal(total, np.zeros(shape[0]))
    np.testing.assert_array_equal(product, np.full(shape[0], 1.0 if empty else 0.0))
    np.testing.assert_array_equal(largest, np.full(shape[0], -np.inf if empty else 0))
    np.testing.assert_array_equal(smallest, np.full(shape[0], np.inf if empty else 0))
    np.testing.assert_array_equal(some, np.zeros(shape[0], bool))
    np.testing.assert_array_equal(every, np.full(shape[0], empty))
    np.testing.assert_array_equal(mean, np.full(shape[0], np.nan if empty else 0))
    np.testing.assert_array_equal(np.isneginf(logsumexp), np.full(shape[0], empty))
    assert doubled.shape == shape


# --- integers: what the documentation of the language promises --------------------------------------------


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint8])
def test_integer_division_rounds_down_and_division_by_zero_gives_zero(dtype):
    def f(x: Tile["i"], y: Tile["j"]):
        return x // y, x % y

    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    values = np.array([0, 1, 2, 3, 7, high] + ([-1, -2, -3, -7, low] if low else []), dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quotients, remainders = meaning(f, values, values)
    assert quotients.dtype == remainders.dtype == dtype
    for i, x in enumerate(map(int, values)):
        for j, y in enumerate(map(int, values)):
            quotient, remainder = (x // y, x % y) if y else (0, 0)
            wrapped = int(np.array(quotient).astype(dtype))
            assert (int(quotients[i, j]), int(remainders[i, j])) == (wrapped, remainder), (x, y)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint8])
def test_shifts_beyond_the_width_leave_the_sign(dtype):
    def f(x: Tile["i"], y: Tile["j"]):
        return x << y, x >> y

    bits = np.dtype(dtype).itemsize * 8
    signed = np.iinfo(dtype).min < 0
    values = np.array([1, 5, 100] + [-1, -100] * signed, dtype)
    counts = np.array([0, 1, bits - 1, bits, bits + 1, 100] + [-1] * signed, dtype)
    left, right = meaning(f, values, counts)
    for i, x in enumerate(map(int, values)):
        for j, count in enumerate(map(int, counts)):
            inside = 0 <= count < bits
            shifted = int(np.array(x << count if inside else 0, object) & (2**bits - 1))
            assert int(left[i, j]) == int(np.array([shifted], np.uint64).astype(dtype)[0]), (x, count)
            assert int(right[i, j]) == (x >> count if inside else -int(x < 0)), (x, count)


def test_integers_wrap():
    def f(x: Tile["d"]):
        return x + 1, x * 2, -x, abs(x), tw.sum(x), tw.prod(x)

    x = np.array([127, -128, 64], np.int8)
    plus, twice, minus, magnitude, total, product = meaning(f, x)
    np.testing.assert_array_equal(plus, np.array([-128, -127, 65], np.int8))
    np.testing.assert_array_equal(twice, np.array([-2, 0, -128], np.int8))
    np.testing.assert_array_equal(minus, np.array([-127, -128, -64], np.int8))
    np.testing.assert_array_equal(magnitude, np.array([127, -128, 64], np.int8))
    assert (total.dtype, int(total), int(product)) == (np.int64, 63, 127 * -128 * 64)


def test_floating_division_remainders_and_rounding():
    def f(x: Tile["i"], y: Tile["j"]):
        return x // y, x % y, tw.fmod(x, y), tw.round(x), tw.trunc(x), cast(x, int64)

    x, y = np.array([2.5, -2.5, 3.5, -0.5]), np.array([2.0, -2.0])
    floor, mod, fmod, nearest, towards_zero, integer = meaning(f, x, y)
    same(floor, np.floor(x[:, None] / y))
    same(mod, np.mod(x[:, None], y))
    same(fmod, np.fmod(x[:, None], y))
    np.testing.assert_array_equal(nearest, [2, -2, 4, -0.0])
    np.testing.assert_array_equal(towards_zero, [2, -2, 3, -0.0])
    np.testing.assert_array_equal(integer, [2, -2, 3, 0])


def test_lgamma_near_its_zeros():
    """Against 40 digits; Python's own is off by up to thousands of roundings where the result is small."""

    def f(x: Tile["i"]):
        return tw.lgamma(x)

    x = np.array(
        [0.77097347, 1 + 2.0**-30, 1.4616321, 1.9999, 2 + 2.0**-40, 3.2, -2.4570247, -3.5, 0.1, 40.0]
    )
    with mpmath.workdps(40):
        exact = np.array([float(mpmath.log(abs(mpmath.gamma(mpmath.mpf(float(v)))))) for v in x])
    np.testing.assert_allclose(meaning(f, x), exact, rtol=1e-15)


@pytest.mark.parametrize("dtype", [int8, uint8, int32, int64], ids=str)
def test_floats_out_of_range_become_the_nearest_integer(dtype):
    def f(x: Tile["d"]):
        return cast(x, dtype)

    low, high = dtype.range
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 2.0**63, -(2.0**63), 3.9, -3.9, 127.5, -128.5, -0.5])
    right = [0, high, low, high, low, high, low, 3, max(low, -3), 127, max(low, -128), 0]
    found = meaning(f, x)
    assert found.dtype == dtype.numpy
    assert [int(v) for v in found] == right
    folded = rewrite([Cast(Const(float(v), float64), dtype) for v in x], RuleSet(EXACT_RULES))
    assert [node.value for node in folded if isinstance(node, Const)] == right


def test_conversions():
    def f(x: Tile["d"], k: Tile["d"]):
        return cast(x, bool_), cast(k, uint8), cast(k, float32), cast(k, bool_)

    x, k = np.array([0.0, -0.0, np.nan, 0.5]), np.array([0, -1, 300, 2], np.int32)
    truth, wrapped, widened, nonzero = meaning(f, x, k)
    np.testing.assert_array_equal(truth, [False, False, True, True])
    np.testing.assert_array_equal(wrapped, np.array([0, 255, 44, 2], np.uint8))
    np.testing.assert_array_equal(widened, [0.0, -1, 300, 2])
    np.testing.assert_array_equal(nonzero, [False, True, True, True])
    assert isinstance(Expr(X), Expr) and int32.bits == 32
