"""Programs as text and as mathematics."""

import os
import subprocess
import sys

import pytest

from tests.support.tracing import traced
from tilewright.dsl import language as tw
from tilewright.dsl import scalars
from tilewright.dsl.axes import Tile
from tilewright.dsl.dtypes import bfloat16, bool_, float16, float32, float64, int8, int64
from tilewright.dsl.expression import Expr, cast, constant
from tilewright.dsl.formula import formula
from tilewright.dsl.program import Cast, Const, Map, Param, Program, Read, Result
from tilewright.dsl.text import from_text, to_text
from tilewright.errors import LanguageError


def softmax(x: Tile["... d"]):
    e = tw.exp(x - tw.max(x, "d"))
    return e / tw.sum(e, "d")


SOFTMAX = """\
program softmax
param x f16 [_0 d]
%0 = read x [_0 d]
%1 = cast f32 %0
%2 = max [d] %1
%3 = sub %1 %2
%4 = exp %3
%5 = sum [d] %4
%6 = div %4 %5
%7 = cast f16 %6
result y [_0 d] %7
"""


def test_the_text_of_softmax():
    program = traced(softmax, float16, ranks={"x": 1})
    assert to_text(program) == SOFTMAX
    assert from_text(SOFTMAX) == program


def test_the_text_is_the_same_in_another_process():
    script = (
        "from tests.dsl.test_text_and_formula import *\n"
        "print(to_text(traced(softmax, float16, ranks={'x': 1})), end='')"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout == SOFTMAX, done.stderr


@pytest.mark.parametrize(
    "value",
    [0.1, -0.0, 0.0, 5e-324, 1.7976931348623157e308, float("inf"), float("-inf"), float("nan"), 1 / 3],
)
@pytest.mark.parametrize("dtype", [float64, float32, float16, bfloat16], ids=str)
def test_every_bit_of_a_constant_is_kept(value, dtype):
    node = Const(value, dtype)
    program = Program("f", (), (Result("y", node, ()),))
    assert from_text(to_text(program)).results[0].node is node


@pytest.mark.parametrize(
    ("value", "dtype"), [(2**63 - 1, int64), (-128, int8), (True, bool_), (False, bool_)]
)
def test_other_constants(value, dtype):
    program = Program("f", (), (Result("y", Const(value, dtype), ()),))
    assert from_text(to_text(program)) == program


def test_there_is_one_nan_and_two_zeros():
    assert Const(float("nan"), float32) is Const(-float("nan"), float32)
    assert Const(0.0, float32) is not Const(-0.0, float32)
    assert Const(1, float32) is Const(1.0, float32)
    assert Const(1, float32) is not Const(1, int64)


@pytest.mark.parametrize("name", ["größe", "Δ", "<lambda>", "a b", "back\\slash", "", "line\nbreak", "%1"])
def test_any_name_is_written_in_ascii(name):
    node = Read(name, ("d'",), float32)
    program = Program(name, (Param(name, ("d",), float32),), (Result(name, node, ("d'",)),))
    text = to_text(program)
    assert text.isascii()
    assert from_text(text) == program


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ("program softmax", "softmax", 1),
        ("param x f16", "param x f17", 2),
        ("read x", "read z", 3),
        ("%3 = sub", "%4 = sub", 6),
        ("exp %3", "exp %9", 7),
        ("exp %3", "exp %3 %3", 7),
        ("exp %3", "expo %3", 7),
        ("exp %3", "exp %-1", 7),
        ("sum [d] %4", "sum [e] %4", 8),
        ("div %4 %5", "div %4 %0", 9),
        ("cast f16", "cast", 10),
        ("result y [_0 d] %7", "result y %7", 11),
        ("result y [_0 d] %7", "what is this", 11),
    ],
)
def test_a_text_that_is_no_program_is_refused(before, after, line):
    with pytest.raises(LanguageError, match=rf"^line {line} of a program's text"):
        from_text(SOFTMAX.replace(before, after))


@pytest.mark.parametrize("text", ["", "program f\n", SOFTMAX.rsplit("result")[0]])
def test_a_text_that_ends_early_is_refused(text):
    with pytest.raises(LanguageError, match="at least one `result` line"):
        from_text(text)


# --- formulas ---------------------------------------------------------------------------------------------

X = Expr(Read("x", ("n", "d"), float32))
Y = Expr(Read("y", ("n", "d"), float32))
K = Expr(Read("k", ("n", "d"), int64))
P, Q = X > 0, Y > 0


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (X + Y * X, "x + y * x"),
        ((X + Y) * X, "(x + y) * x"),
        (X - (Y - X), "x - (y - x)"),
        (X - Y - X, "x - y - x"),
        (X + (Y + X), "x + (y + x)"),
        (X / (Y * X), "x / (y * x)"),
        (X / Y * X, "x / y * x"),
        (X + -Y, "x - y"),
        (X - -Y, "x - -y"),
        (-(X * Y), "-(x * y)"),
        (-X * Y, "-x * y"),
        (-(X + Y), "-(x + y)"),
        (-X, "-x"),
        (scalars.power(X, 2.5), "x ** 2.5"),
        (scalars.power(X, -Y), "x ** -y"),
        (scalars.power(-X, 2.5), "(-x) ** 2.5"),
        (-scalars.power(X, Y), "-x ** y"),
        (scalars.power(X, scalars.power(Y, X)), "x ** y ** x"),
        (scalars.power(scalars.power(X, Y), X), "(x ** y) ** x"),
        (P & Q, "(x > 0) & (y > 0)"),
        (P == Q, "(x > 0) == (y > 0)"),
        (~P | Q, "~(x > 0) | (y > 0)"),
        ((K << 2) + 1, "(k << 2) + 1"),
        (K // 2 % 3, "k // 2 % 3"),
        (tw.where(tw.index("n") >= tw.index("d"), X, -tw.inf), "where(index(n) >= index(d), x, -inf)"),
        (Y * (X - tw.sum(X * Y, "d")), "y * (x - sum(x * y, d))"),
        (tw.sum(X, "n d"), "sum(x, n d)"),
        (tw.any(P, "d"), "any(x > 0, d)"),
        (X / tw.size("d"), "x / size(d)"),
        (X * 1.5 + 2.0, "x * 1.5 + 2"),
        (X * -2, "x * -2"),
        (X - -0.0, "x - -0.0"),
        (X + 1e-6, "x + 1e-06"),
        (cast(X, int64), "cast(x, i64)"),
        (cast(K, float32), "k"),
        (tw.sum(P, "d"), "sum(x > 0, d)"),
        (tw.maximum(X, tw.nan), "maximum(x, nan)"),
        (constant(True, bool_), "True"),
    ],
    ids=str,
)
def test_parentheses_stand_where_precedence_asks_for_them(expression, text):
    assert formula(expression.node) == text


def test_shared_values_get_a_line():
    assert formula(traced(softmax, float32)) == "e = exp(x - max(x, d))\ny = e / sum(e, d)"
    assert formula(traced(softmax, float16)) == "e = exp(x - max(x, d))\ny = e / sum(e, d)"


def test_casts_are_shown_when_asked_for():
    text = formula(traced(softmax, float16), casts=True)
    assert text == "e = exp(cast(x, f32) - max(cast(x, f32), d))\ny = cast(e / sum(e, d), f16)"


def test_results_that_use_each_other():
    def f(x: Tile["d"]):
        y = tw.exp(x)
        return y * 2, y, x, y

    assert formula(traced(f, float32)) == "y1 = exp(x)\ny0 = y1 * 2\ny2 = x\ny3 = y1"


def test_names_that_are_known_already():
    def f(y: Tile["d"], dy: Tile["d"], x: Tile["d"]):
        return tw.exp(x) * (dy - tw.sum(tw.exp(x) * dy, "d"))

    program = traced(f, float32)
    known = next(n for n in program.nodes() if isinstance(n, Map) and n.function == "exp")
    assert formula(program, {known: "y"}) == "z = y * (dy - sum(y * dy, d))"
    assert formula(program.results[0].node, {known: "p"}) == "p * (dy - sum(p * dy, d))"


def test_an_operand_under_other_names_shows_them():
    def gram(x: Tile["i d"]):
        return tw.sum(x * x["j d"], "d")

    assert formula(traced(gram, float32)) == "y = sum(x[i d] * x[j d], d)"


def test_names_keep_clear_of_axes_and_operands():
    def f(e: Tile["e2"], x: Tile["e2"]):
        y = tw.exp(x)
        return y * tw.sum(y) + e

    assert formula(traced(f, float32)) == "e3 = exp(x)\ny = e3 * sum(e3, e2) + e"


def test_a_formula_that_would_explode_is_cut():
    node = X.node
    for _ in range(64):
        node = Map("add", (node, node))
    assert len(formula(node, longest=500)) < 1100
    assert "..." in formula(node)
    assert len(repr(Expr(node))) < 50_000
    program = Program("f", (Param("x", ("n", "d"), float32),), (Result("y", node, ("n", "d")),))
    assert len(formula(program).splitlines()) == 64


def test_deep_graphs_have_texts_and_formulas():
    node = X.node
    for step in range(20_000):
        node = Map("add", (node, Const(step, float32)))
    program = Program("f", (Param("x", ("n", "d"), float32),), (Result("y", node, ("n", "d")),))
    assert from_text(to_text(program)) == program
    assert "..." in formula(program)
    assert isinstance(Cast(node, float16), Cast)
