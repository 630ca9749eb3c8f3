"""The zero test proves what it should and nothing false; collecting changes the form and not the value."""

from __future__ import annotations

import random

import numpy as np
import pytest
from random_expressions import arguments, program_of, random_expression, value_of

from tilewright.dsl import language as tw
from tilewright.dsl.algebra import Polynomials, collect
from tilewright.dsl.dtypes import bool_, float64
from tilewright.dsl.expression import Expr, cast
from tilewright.dsl.formula import formula
from tilewright.dsl.program import Map, Node, Param, Program, Read, Result, rewrite, topological
from tilewright.dsl.reference import reference
from tilewright.dsl.verify import verify

X = Expr(Read("x", ("i", "d"), float64))
Y = Expr(Read("y", ("i", "d"), float64))
A = Expr(Read("a", ("i", "k"), float64))
B = Expr(Read("b", ("k", "d"), float64))
S = Expr(Read("s", ("i",), float64))
W = Expr(Read("w", ("d",), float64))
C = Expr(Read("c", ("i", "d"), bool_))
N = cast(tw.size("d"), float64)

TOTAL = tw.sum(tw.exp(X), "d")
MEAN = tw.mean(X, "d")
CENTRED = X - MEAN
VARIANCE = tw.mean(CENTRED * CENTRED, "d") + 1e-5
MAXIMUM = tw.max(X, "d")
SHIFT = tw.where(tw.isfinite(MAXIMUM), MAXIMUM, 0)

ZERO = {
    "x - x": X - X,
    "(x + y)² - x² - 2xy - y²": (X + Y) * (X + Y) - X * X - 2 * X * Y - Y * Y,
    "x / x - 1": X / X - 1,
    "√x·√x - x": tw.sqrt(X) * tw.sqrt(X) - X,
    "1/√x - √x/x": tw.rsqrt(X) - tw.sqrt(X) / X,
    "(x+y)^1.5 - (x+y)·√(x+y)": tw.pow(X + Y, 1.5) - (X + Y) * tw.sqrt(X + Y),
    "a/(x+y) + b/(x+y) over one denominator": X / (X + Y) + Y / (X + Y) - 1,
    "two denominators": 1 / (X + 1) - 1 / (X - 1) + 2 / (X * X - 1),
    "√(4x) - 2√x": tw.sqrt(4 * X) - 2 * tw.sqrt(X),
    "Σ(s·x) - s·Σx": tw.sum(S * X, "d") - S * tw.sum(X, "d"),
    "Σ s = size·s": tw.sum(S + 0 * X, "d") - N * S,
    "Σ(x - mean)": tw.sum(CENTRED, "d"),
    "Σ(e/Σe) - 1": tw.sum(tw.exp(X) / TOTAL, "d") - 1,
    "Σᵢ Σ_d = Σ_d Σᵢ": tw.sum(tw.sum(X, "d"), "i") - tw.sum(tw.sum(X, "i"), "d"),
    "sums change places": tw.sum(W * tw.sum(A * B, "k"), "d") - tw.sum(A * tw.sum(W * B, "d"), "k"),
    "Σᵢ s · Σ_d w = Σᵢ Σ_d s·w": tw.sum(S) * tw.sum(W) - tw.sum(S * W),
    "exp(x - y) = exp(x)/exp(y)": tw.exp(X - Y) - tw.exp(X) / tw.exp(Y),
    "exp(log x)": tw.exp(tw.log(X)) - X,
    "exp(x - log Σe) = e/Σe": tw.exp(X - tw.log(TOTAL)) - tw.exp(X) / TOTAL,
    "the shift of a softmax": tw.exp(X - MAXIMUM) / tw.sum(tw.exp(X - MAXIMUM), "d") - tw.exp(X) / TOTAL,
    "the guarded shift": tw.exp(X - SHIFT) / tw.sum(tw.exp(X - SHIFT), "d") - tw.exp(X) / TOTAL,
    "where": tw.where(C, X, Y) - tw.where(C, X, 0) - tw.where(C, 0, Y),
    "where twice": tw.where(C, tw.where(C, X, Y), Y) - tw.where(C, X, Y),
    "conversions": cast(cast(X, "float32"), "float64") - X,
    "mean of squares": tw.mean(CENTRED * CENTRED, "d") - (tw.mean(X * X, "d") - MEAN * MEAN),
    "maximum of two": tw.maximum(X, Y) - tw.maximum(Y, X),
    "expm1, log1p": tw.expm1(X) + 1 - tw.exp(X) + tw.log1p(Y) - tw.log(1 + Y),
}  # fmt: skip

NOT_ZERO = {
    "√x² is |x|": tw.sqrt(X * X) - X,
    "Σx² is not (Σx)²": tw.sum(X * X, "d") - tw.sum(X, "d") * tw.sum(X, "d"),
    "sums over different axes": tw.sum(X * S, "i") - tw.sum(X * S, "d"),
    "transposed sums": tw.sum(X * X["d i"], "d") - tw.sum(X["d i"] * X["d i"], "d"),
    "the other branch": tw.where(C, X, Y) - tw.where(C, Y, X),
    "a stopped value": tw.stop_gradient(X) - X,
    "log of a product": tw.log(X * Y) - tw.log(X),
    "power of a power": tw.pow(X * X, 1.5) - X * X * X,
    "max over other axes": tw.max(X, "d") - tw.max(X, "i"),
    "a variance and an epsilon": VARIANCE - tw.mean(CENTRED * CENTRED, "d"),
}  # fmt: skip


@pytest.mark.parametrize("value", ZERO.values(), ids=ZERO)
def test_proven_zero(value: Expr):
    assert Polynomials().is_zero(value.node)


@pytest.mark.parametrize("value", NOT_ZERO.values(), ids=NOT_ZERO)
def test_not_zero(value: Expr):
    assert not Polynomials().is_zero(value.node)


def test_axes_of_one_extent_are_interchangeable_under_a_sum():
    other = tw.sum(X["j d"], "j") - tw.sum(X, "i")
    assert not Polynomials().is_zero(other.node)
    assert Polynomials({"j": "i", "i": "i"}).is_zero(other.node)


def test_a_polynomial_that_grows_too_large_is_opaque():
    value = X
    for n in range(12):
        value = value * (value + n) + Y
    assert not Polynomials().is_zero((value - X).node)
    assert Polynomials().is_zero((value - value).node)


COLLECTED = {
    "x * y / x": (X * Y / X, "y"),
    "common factor": (X * S + Y * S, "s * (x + y)"),
    "constant out of a sum": (tw.sum(S * X, "d"), "s * sum(x, d)"),
    "nothing is expanded": (CENTRED * CENTRED, "z * z"),
    "a constant part": (tw.sum(X + S, "d"), "s * size(d) + sum(x, d)"),
    "one sum stays one": (tw.sum(X * W + Y, "d"), "sum(x * w + y, d)"),
    "two contractions stay two": (tw.sum(A * B + A * S * W, "k"), None),
    "choices join": (tw.where(C, X, 0) + tw.where(C, 0, Y), "where(c, x, y)"),
    "choices of one condition": (tw.where(C, X, 0) * Y, "where(c, x * y, 0)"),
    "contradiction": (tw.where(C, X, 0) * tw.where(C, 0, Y), "0"),
    "powers": (X * tw.rsqrt(S) * tw.rsqrt(S), "x / s"),
    "sign": (-(X * -Y), "x * y"),
    "numbers": (2 * X * 3 + X, "7 * x"),
    "difference": (Y * -1 + X, "x - y"),
}  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), COLLECTED.values(), ids=COLLECTED)
def test_collected(value: Expr, expected: str | None):
    (node,) = collect([value.node])
    lines = formula(Program("p", (), (Result("y", node, node.axes),))).splitlines()
    assert expected is None or lines[-1] == f"y = {expected}" or formula(node) == expected


E1 = tw.exp(X - MAXIMUM)
TOTAL1 = tw.sum(E1, "d")
P1 = E1 / TOTAL1


def test_a_known_quotient_is_recognised_and_absorbed():
    given = list(topological([P1.node]))
    value = E1 * (Y / TOTAL1 - tw.sum(Y * E1, "d") / (TOTAL1 * TOTAL1))
    (node,) = collect([value.node], given)
    assert formula(node, {P1.node: "p"}) == "p * (y - sum(y * p, d))"


def test_a_part_of_a_sum_that_vanishes_is_split_off():
    given = list(topological([CENTRED.node]))
    (node,) = collect([tw.sum(S * (CENTRED * S + Y), "d").node], given)
    assert formula(node) == "s * sum(y, d)"


def test_a_known_sum_that_shares_a_factor_is_not_divided_by_it():
    """x·s + y·s is known, but (x + y) is not written as (x·s + y·s) / s, which is NaN where s is 0."""
    known = X * S + Y * S
    (node,) = collect([((X + Y) * W).node], list(topological([known.node])))
    assert formula(node) == "w * (x + y)"


def test_a_factor_of_choices_under_other_conditions_stays_inside():
    """Where neither holds the value is 0, even if the shared factor is infinite."""
    other = Expr(Read("c2", ("i", "d"), bool_))
    value = tw.where(C, X * S, 0) + tw.where(other, Y * S, 0)
    (node,) = collect([value.node])
    given = {"x": 1.0, "y": 1.0, "s": np.inf, "c": False, "c2": False}
    params = tuple(Param(n, (), bool_ if n in ("c", "c2") else float64) for n in given)
    flat = rewrite([node], lambda n: Read(n.param, (), n.type) if isinstance(n, Read) else n)
    assert reference(Program("p", params, (Result("y", flat[0], ()),)), given)[0] == 0


# --- fuzz ---------------------------------------------------------------------------------------------------

SEEDS = 400


def aligned(node: Node, axes: tuple[str, ...], given: dict[str, np.ndarray]) -> np.ndarray:
    """The value of a node that may lack some of `axes`, broadcast to them."""
    value = value_of(node, given)
    shape = [{"i": 3, "d": 4}[a] for a in ("i", "d") if a in axes]
    kept = [
        e if a in node.axes else 1 for a, e in zip([a for a in ("i", "d") if a in axes], shape, strict=True)
    ]
    return np.broadcast_to(value.reshape(kept), shape)


def disagrees(before: Node, after: Node, seed: int) -> bool:
    """Whether two expressions differ by more than rounding, where the first is finite."""
    given = arguments(seed)
    value, other = value_of(before, given), aligned(after, before.axes, given)
    largest = np.max(np.abs(value), initial=0)
    if not np.all(np.isfinite(value)) or largest > 1e10:
        return False
    return not np.max(np.abs(value - other) / (np.abs(value) + 1e-3 * largest + 1e-3), initial=0) < 1e-6


def test_collecting_keeps_the_value_of_random_expressions():
    for seed in range(SEEDS):
        rng = random.Random(seed)
        before = random_expression(rng, rng.randint(3, 16)).node
        (after,) = collect([before])
        verify(program_of(after), "collect")
        assert not disagrees(before, after, seed), f"seed {seed}: {formula(before)} -> {formula(after)}"


def test_collecting_in_terms_of_known_values_keeps_the_value():
    for seed in range(SEEDS):
        rng = random.Random(seed)
        before = random_expression(rng, rng.randint(5, 16)).node
        given = topological([before])[: rng.randint(1, 12)]
        (after,) = collect([before], given)
        assert not disagrees(before, after, seed), f"seed {seed}: {formula(before)} -> {formula(after)}"


def test_what_is_proven_zero_is_zero():
    proven = 0
    for seed in range(SEEDS // 2):
        rng = random.Random(seed)
        nodes = [n for n in topological([random_expression(rng).node]) if n.dtype.is_float]
        polynomials = Polynomials()
        for _ in range(20):
            difference = (Expr(rng.choice(nodes)) - Expr(rng.choice(nodes))).node
            if not polynomials.is_zero(difference):
                continue
            proven += 1
            given = arguments(seed)
            value = value_of(difference, given)
            scale = max(np.max(np.abs(value_of(a, given)), initial=0) for a in difference.args)
            assert not np.all(np.isfinite(value)) or np.max(np.abs(value), initial=0) <= 1e-9 * (1 + scale)
    assert proven > 100


def test_most_collected_expressions_are_proven_equal():
    proven = 0
    for seed in range(100):
        before = random_expression(random.Random(seed)).node
        (after,) = collect([before])
        proven += Polynomials().is_zero((Expr(before) - Expr(after)).node)
    assert proven >= 60


def test_the_fuzz_sees_a_slip():
    """One operation exchanged for another is found in nearly all expressions that have it."""
    found = tried = 0
    for seed in range(60):
        before = random_expression(random.Random(seed)).node
        swapped = rewrite([before], lambda n: Map("add", n.operands) if is_map(n, "sub") else n)[0]
        if swapped is not before:
            tried += 1
            found += disagrees(before, swapped, seed)
    assert tried > 20 and found > 0.8 * tried


def is_map(node: Node, function: str) -> bool:
    return isinstance(node, Map) and node.function == function
