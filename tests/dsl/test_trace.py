"""From functions to Programs: signatures, axes of results, dtypes, ops called inside ops."""

import numpy as np
import pytest

from tests.support.tracing import inlined, meaning, traced
from tilewright import op
from tilewright.dsl import language as tw
from tilewright.dsl.axes import Scalar, Tile
from tilewright.dsl.dtypes import bfloat16, bool_, float16, float32, float64, int8, int64
from tilewright.dsl.formula import formula
from tilewright.dsl.program import Cast, Const, Param, Read
from tilewright.dsl.trace import read_signature, trace
from tilewright.errors import AxisError

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(3, 4))
W = RANDOM.normal(size=(4, 5))
SQUARE = RANDOM.normal(size=(4, 4))


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


def np_softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# --- signatures and results -------------------------------------------------------------------------------


def test_a_signature_is_read():
    def f(x: Tile["... d"], b: Tile["d"] = None, *, eps: float = 1e-6, scale: Scalar = 1.0, flag=True):
        return x

    signature = read_signature(f)
    assert [(t.name, str(t.spec), t.optional) for t in signature.tiles] == [
        ("x", "... d", False),
        ("b", "d", True),
    ]
    assert (dict(signature.constants), dict(signature.scalars)) == (
        {"eps": 1e-6, "flag": True},
        {"scale": 1.0},
    )
    program = trace(signature, {"x": _operand(float32), "b": None}, {"scale": float32}, {"eps": 1.0})
    assert program.params == (
        Param("x", ("d",), float32),
        Param("scale", (), float32, scalar=True),
    )


def _operand(dtype, rank=0):
    from tilewright.dsl.trace import Operand

    return Operand(dtype, rank)


def test_axes_of_results_come_in_the_order_of_the_operands():
    def bias_first(b: Tile["d"], x: Tile["... n d"]):
        return b + x

    def swapped(b: Tile["k n"], a: Tile["m k"]):
        return tw.sum(b * a, "k")

    def annotated(a: Tile["m k"]) -> Tile["k m"]:
        return a + 1

    def broadcast(a: Tile["... m"], b: Tile["n"]) -> Tile["... n m"]:
        return a * 1.0

    assert traced(bias_first, ranks={"x": 2}).results[0].axes == ("_1", "_0", "n", "d")
    assert traced(swapped).results[0].axes == ("m", "n")
    assert traced(annotated).results[0].axes == ("k", "m")
    assert traced(broadcast, ranks={"a": 1}).results[0].axes == ("_0", "n", "m")
    close(meaning(broadcast, X[0], np.zeros(2)), np.broadcast_to(X[0], (2, 4)))


def test_several_results_are_named():
    def f(x: Tile["n"]):
        return x + 1, x * 2, 3.0

    program = traced(f, float32)
    assert [r.name for r in program.results] == ["y0", "y1", "y2"]
    assert isinstance(program.results[2].node, Const)


# --- dtypes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [float16, bfloat16], ids=str)
def test_half_precision_is_computed_in_float32_and_narrowed_at_the_end(dtype):
    def f(x: Tile["n d"]):
        return tw.sum(x * x, "d"), x > 0, x

    squares, comparison, same = traced(f, dtype).results
    assert (squares.dtype, comparison.dtype, same.dtype) == (dtype, bool_, dtype)
    assert isinstance(squares.node, Cast) and squares.node.arg.dtype == float32
    assert isinstance(same.node, Read)


def test_a_result_that_is_a_cast_is_not_narrowed():
    @op
    def widened(x: Tile["d"]):
        return tw.cast(x * x, float32)

    def f(x: Tile["d"]):
        return tw.cast(x, float32), widened(x), tw.cast(x, float32) + x, tw.cast(tw.exp(x), float32)

    assert [r.dtype for r in traced(f, float16).results] == [float32, float32, float16, float32]


def test_two_halves_give_float32_and_a_wide_operand_wins():
    def f(x: Tile["d"], y: Tile["d"]):
        return x * y

    assert traced(f, float16, bfloat16).results[0].dtype == float32
    assert traced(f, float16, float64).results[0].dtype == float64
    assert traced(f, float16, int64).results[0].dtype == float16
    assert traced(f, int8, int64).results[0].dtype == int64


def test_numbers_take_the_dtype_of_what_they_meet():
    def f(x: Tile["d"]):
        return x + 1, x * 0.5, x > 2, tw.where(x > 0, 1, 0), tw.where(x > 0, 1.0, x)

    assert [r.dtype for r in traced(f, int8).results] == [int8, float32, bool_, int64, float32]
    assert [r.dtype for r in traced(f, float64).results] == [float64, float64, bool_, int64, float64]
    assert [r.dtype for r in traced(f, float16).results] == [float16, float16, bool_, int64, float16]


def test_what_functions_and_reductions_give():
    def f(x: Tile["d"]):
        return tw.exp(x), tw.sum(x), tw.max(x), tw.mean(x), tw.any(x), tw.argmax(x, "d"), tw.sum(x > 0)

    integer = [float32, int64, int8, float32, bool_, int64, int64]
    assert [r.dtype for r in traced(f, int8).results] == integer
    assert [r.dtype for r in traced(f, float64).results] == [float64] * 4 + [bool_, int64, int64]


def test_bool_arithmetic_counts():
    def f(x: Tile["d"]):
        return (x > 0) + (x > 1), -(x > 0), (x > 0) & (x < 2), ~(x > 0)

    values = meaning(f, np.array([-1.0, 0.5, 1.5, 3.0]))
    for value, right in zip(values, ([0, 1, 2, 2], [0, -1, -1, -1], [0, 1, 1, 0], [1, 0, 0, 0]), strict=True):
        np.testing.assert_array_equal(value, right)
    assert [v.dtype for v in values] == [np.int64, np.int64, np.bool_, np.bool_]


def test_choosing_between_numbers_needs_no_conversion():
    def f(x: Tile["d"]):
        return x * tw.where(x > 0, 1, 0)

    program = traced(f, float32)
    assert not any(isinstance(node, Cast) for node in program.nodes())


def test_numbers_chosen_in_several_steps_take_the_dtype_that_they_meet():
    """0.1 of float32 is not 0.1 of float64."""

    def f(x: Tile["d"]):
        return x * tw.where(x > 0, 1.2, tw.where(x < -1, 0.1, 0.3))

    program = traced(f, float64)
    assert not any(isinstance(node, Cast) for node in program.nodes())


def test_numpy_numbers_are_numbers():
    def f(x: Tile["d"]):
        return np.float32(2) * x + np.int64(1), np.float64(1) < x

    program = traced(f, float32)
    assert [r.dtype for r in program.results] == [float32, bool_]
    assert formula(program) == "y0 = 2 * x + 1\ny1 = 1 < x"


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 7, -1, -2, 0.5, -0.5, 2.5])
def test_powers(exponent):
    def f(x: Tile["d"]):
        return x**exponent

    values = np.array([0.5, 1.0, 2.5])
    close(meaning(f, values), values**exponent)


def test_operators_from_the_right():
    def f(x: Tile["d"]):
        return 7 // x, 7 % x, 1 << x, 64 >> x, 2 ^ x, 2 - x, divmod(7, 2)[0] + x, divmod(x, 2)[1]

    x = np.array([1, 2, 3, 6])
    right = 7 // x, 7 % x, 1 << x, 64 >> x, 2 ^ x, 2 - x, 3 + x, x % 2
    for value, expected in zip(meaning(f, x), right, strict=True):
        np.testing.assert_array_equal(value, expected)


# --- renaming ---------------------------------------------------------------------------------------------


def test_an_operand_under_other_names():
    def gram(x: Tile["... i d"]):
        return tw.sum(x * x["... j d"], "d")

    close(meaning(gram, X), X @ X.T)
    close(meaning(gram, np.stack([X, 2 * X])), np.stack([X @ X.T, 4 * X @ X.T]))


def test_a_diagonal():
    def trace_of(x: Tile["i j"]):
        return tw.sum(x["k k"], "k")

    close(meaning(trace_of, SQUARE), np.trace(SQUARE))


def test_names_that_swap():
    def f(x: Tile["i j"]):
        return x + x["j i"], (x * 2)["j i"]  # results come as (i j), as x declares them

    both, doubled = meaning(f, SQUARE)
    close(both, SQUARE + SQUARE.T)
    close(doubled, 2 * SQUARE.T)


def test_renaming_keeps_clear_of_reduced_axes():
    def f(x: Tile["i d"], y: Tile["j d"]):
        product = tw.sum(x * y, "d")
        return product["d j"]

    close(meaning(f, SQUARE, X), X @ SQUARE.T)


# --- ops inside ops ---------------------------------------------------------------------------------------


@inlined
def softmax(x: Tile["... d"]):
    e = tw.exp(x - tw.max(x, "d"))
    return e / tw.sum(e, "d")


@inlined
def centred(x: Tile["... d"]):
    return x - tw.mean(x, "d")


@inlined
def matmul(a: Tile["... m k"], b: Tile["... k n"]):
    return tw.sum(a * b, "k")


@inlined
def flipped(a: Tile["m n"]) -> Tile["n m"]:
    return a + 0


@inlined
def gram(x: Tile["i d"]):
    return tw.sum(x * x["j d"], "d")


@inlined
def ramp(x: Tile["... d"], shift: Tile["d"] = None, *, slope: float = 1.0):
    y = x + tw.index("d") * slope
    return y if shift is None else y + shift


def test_the_inner_op_works_along_the_callers_axis():
    def f(x: Tile["n d"], w: Tile["d k"]):
        return centred(matmul(x, w)), softmax(matmul(x, w))

    product = X @ W
    centre, soft = meaning(f, X, W)
    close(centre, product - product.mean(-1, keepdims=True))
    close(soft, np_softmax(product))


def test_the_inner_ops_result_has_its_own_order_of_axes():
    def f(a: Tile["k m"]):
        return softmax(flipped(a) * 1)

    close(meaning(f, X), np_softmax(X.T).T)


def test_a_bias_before_its_tile_does_not_change_the_last_axis():
    def f(bias: Tile["d"], x: Tile["... d"]):
        return softmax(bias + x)

    close(meaning(f, X[0], X), np_softmax(X[0] + X))
    close(meaning(f, X[0], np.stack([X, X * 2])), np_softmax(X[0] + np.stack([X, X * 2])))


def test_a_new_axis_of_the_inner_op_keeps_clear_of_the_callers():
    def f(x: Tile["n j"]):
        return gram(x) * 2

    close(meaning(f, X), 2 * X @ X.T)


def test_an_axis_given_twice():
    def f(x: Tile["i j"], y: Tile["j i"]):
        return matmul(x, y["j k"])

    def twice(x: Tile["i j"], y: Tile["j i"]):
        return matmul(x, y)

    close(meaning(f, X, X.T), X @ X.T)
    with pytest.raises(AxisError, match="two axes that are both called 'i' here; rename one of the operands"):
        meaning(twice, X, X.T)


def test_constants_and_absent_operands_of_an_inner_op():
    def f(x: Tile["n d"], s: Tile["d"]):
        return ramp(x), ramp(x, s, slope=2.0)

    plain, shifted = meaning(f, X, X[0])
    close(plain, X + np.arange(4))
    close(shifted, X + 2 * np.arange(4) + X[0])


def test_inner_axes_that_are_called_alike_outside():
    def f(x: Tile["d k"], w: Tile["k n"]):
        return tw.sum(matmul(x, w), "d") + tw.size("d") * tw.sum(centred(w["k n"]), "k")

    close(meaning(f, X, W), (X @ W).sum(0) + 3 * (W - W.mean(-1, keepdims=True)).sum(0))


def test_ops_three_deep():
    @inlined
    def layer(x: Tile["... t d"], w: Tile["d e"]):
        return softmax(matmul(x, w))

    def f(x: Tile["b t d"], w: Tile["d e"]):
        return layer(layer(x, w), w["e2 e3"])

    w = RANDOM.normal(size=(4, 4))
    x = RANDOM.normal(size=(2, 3, 4))
    close(meaning(f, x, w), np_softmax(np_softmax(x @ w) @ w))


def test_reductions_over_the_batch_of_the_inner_op():
    @inlined
    def total(x: Tile["... d"]):
        return tw.sum(x, "...")

    def f(x: Tile["n t d"]):
        return total(x) + 1

    x = RANDOM.normal(size=(2, 3, 4))
    close(meaning(f, x), x.sum((0, 1)) + 1)


def test_expressions_print_as_formulas():
    def f(x: Tile["n d"]):
        assert repr(tw.exp(x - 1)) == "<exp(x - 1) : f32[n d]>"
        return x

    assert traced(f, float32).results[0].node.axes == ("n", "d")
