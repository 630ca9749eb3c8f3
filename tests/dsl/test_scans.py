"""Scans in the language: their meaning, against NumPy written by hand; text, formulas, renaming, algebra."""

import numpy as np
import pytest

from tests.support.tracing import inlined, meaning, traced
from tilewright.dsl import language as tw
from tilewright.dsl.algebra import Polynomials, collect
from tilewright.dsl.axes import Tile
from tilewright.dsl.dtypes import bool_, float16, float32, float64, int8, int32, int64
from tilewright.dsl.expression import Expr
from tilewright.dsl.formula import formula
from tilewright.dsl.program import Const, Index, Map, Param, Program, Read, Reduce, Result, Scan
from tilewright.dsl.reference import reference
from tilewright.dsl.renaming import rename
from tilewright.dsl.scans import left, name_of, named_body, needed, pruned, right
from tilewright.dsl.simplify import simplify
from tilewright.dsl.text import from_text, to_text
from tilewright.dsl.verify import verify
from tilewright.errors import InternalError, LanguageError

RANDOM = np.random.default_rng(0)
X = Read("x", ("i", "d"), float64)
Y = Read("y", ("i", "d"), float64)
C = Read("c", ("d",), float64)

ACCUMULATE = {
    "cumsum": np.add.accumulate,
    "cumprod": np.multiply.accumulate,
    "cummax": np.maximum.accumulate,
    "cummin": np.minimum.accumulate,
    "logcumsumexp": np.logaddexp.accumulate,
}
IDENTITY = {"cumsum": 0.0, "cumprod": 1.0, "cummax": -np.inf, "cummin": np.inf, "logcumsumexp": -np.inf}


def by_numpy(name, x, axis, reverse, exclusive):
    x = np.flip(x, axis) if reverse else x
    y = ACCUMULATE[name](x, axis=axis)
    if exclusive:
        first = np.full_like(np.take(y, [0], axis) if y.shape[axis] else y, IDENTITY[name])
        y = np.concatenate([first, np.delete(y, -1, axis) if y.shape[axis] else y], axis)
    return np.flip(y, axis) if reverse else y


# --- the scans that have names ----------------------------------------------------------------------------


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("axis", ["i", "d"])
@pytest.mark.parametrize("name", ACCUMULATE)
def test_a_named_scan_is_what_numpy_accumulates(name, axis, reverse, exclusive):
    def scan(x: Tile["i d"]):
        return getattr(tw, name)(x, axis, reverse=reverse, exclusive=exclusive)

    for shape in [(3, 5), (1, 1), (7, 2), (0, 3), (3, 0)]:
        x = RANDOM.normal(size=shape)
        expected = by_numpy(name, x, "id".index(axis), reverse, exclusive)
        np.testing.assert_allclose(meaning(scan, x), expected, rtol=1e-13, atol=1e-13)


SPECIAL = np.array([[1, np.nan, 2, -np.inf], [-np.inf, -np.inf, 1, np.inf], [0.0, -0.0, np.inf, -np.inf]])


@pytest.mark.parametrize("name", ACCUMULATE)
def test_nan_and_infinities_are_numpys(name):
    def scan(x: Tile["i d"]):
        return getattr(tw, name)(x, "d")

    with np.errstate(all="ignore"):
        expected = ACCUMULATE[name](SPECIAL, axis=1)
    np.testing.assert_array_equal(meaning(scan, SPECIAL), expected)


def test_integers_and_bool_add_up_in_int64():
    def scans(x: Tile["d"]):
        return tw.cumsum(x, "d"), tw.cumprod(x, "d"), tw.cummax(x, "d")

    for x in (np.array([100, 100, -7], np.int8), np.array([True, True, False])):
        total, product, largest = meaning(scans, x)
        np.testing.assert_array_equal(total, np.cumsum(x, dtype=np.int64))
        np.testing.assert_array_equal(product, np.cumprod(x, dtype=np.int64))
        np.testing.assert_array_equal(largest, np.maximum.accumulate(x))
        assert [total.dtype, product.dtype, largest.dtype] == [np.int64, np.int64, x.dtype]


def test_half_precision_is_carried_in_float32():
    def scan(x: Tile["d"]):
        return tw.cumsum(x, "d")

    nodes = [n for n in traced(scan, float16).nodes() if isinstance(n, Scan)]
    assert [n.dtype for n in nodes] == [float32]


def test_positions_of_extremes_are_the_newest():
    def scans(x: Tile["d"]):
        return tw.argcummax(x, "d"), tw.argcummin(x, "d"), tw.argcummax(x, "d", reverse=True)

    largest, smallest, backwards = meaning(scans, np.array([1.0, 1.0, 0.0, 2.0, np.nan, 3.0, np.nan]))
    np.testing.assert_array_equal(largest, [0, 1, 1, 3, 4, 4, 6])
    np.testing.assert_array_equal(smallest, [0, 1, 2, 2, 4, 4, 6])
    np.testing.assert_array_equal(backwards, [4, 4, 4, 4, 4, 6, 6])


# --- combines that are written by hand --------------------------------------------------------------------


def recurrence(l, r):
    """h[t] = a[t] · h[t - 1] + b[t]"""
    return l[0] * r[0], l[1] * r[0] + r[1]


def welford(l, r):
    """Count, mean and sum of squared deviations of what both sides have seen (Chan, Golub, LeVeque)."""
    n = l[0] + r[0]
    delta = r[1] - l[1]
    return n, l[1] + delta * (r[0] / n), l[2] + r[2] + delta * delta * (l[0] * r[0] / n)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_linear_recurrence(reverse):
    def scan(a: Tile["t"], b: Tile["n t"]):
        return tw.scan(recurrence, (a, b), "t", reverse=reverse)[1]

    a, b = RANDOM.normal(size=6), RANDOM.normal(size=(3, 6))
    h, expected = np.zeros(3), np.zeros((3, 6))
    for t in range(6)[:: -1 if reverse else 1]:
        h = a[t] * h + b[:, t]
        expected[:, t] = h
    np.testing.assert_allclose(meaning(scan, a, b), expected, rtol=1e-13)


def test_running_mean_and_variance():
    def scan(x: Tile["n t"]):
        n, mean, squares = tw.scan(welford, (1.0, x, 0.0), "t")
        return mean, squares / n

    x = RANDOM.normal(size=(2, 9)) + 1e3
    mean, variance = meaning(scan, x)
    for t in range(9):
        np.testing.assert_allclose(mean[:, t], x[:, : t + 1].mean(1), rtol=1e-14)
        np.testing.assert_allclose(variance[:, t], x[:, : t + 1].var(1), rtol=1e-7, atol=1e-9)


def test_a_selective_state_space():
    def scan(a: Tile["t s"], b: Tile["t s"], x: Tile["n t"]):
        h = tw.scan(recurrence, (tw.exp(-tw.softplus(a)), b * x), "t")[1]
        return tw.sum(h, "s")

    a, b, x = RANDOM.normal(size=(7, 4)), RANDOM.normal(size=(7, 4)), RANDOM.normal(size=(2, 7))
    h, expected = np.zeros((2, 4)), np.zeros((2, 7))
    for t in range(7):
        h = np.exp(-np.logaddexp(0, a[t])) * h + b[t] * x[:, t, None]
        expected[:, t] = h.sum(1)
    np.testing.assert_allclose(meaning(scan, a, b, x), expected, rtol=1e-12)


def test_a_scan_begins_with_what_it_is_given():
    def numbers(x: Tile["t"]):
        return tw.scan(lambda l, r: l * r, x, "t", initial=3.0)

    def tiles(h: Tile["n"], a: Tile["t"], b: Tile["n t"]):
        return tw.scan(recurrence, (a, b), "t", initial=(1, h))[1]

    def backwards(h: Tile["n"], a: Tile["t"], b: Tile["n t"]):
        return tw.scan(recurrence, (a, b), "t", initial=(1, h), reverse=True)[1]

    def before(x: Tile["t"]):
        return tw.scan(lambda l, r: l * r, x, "t", initial=3.0, exclusive=True)

    x = RANDOM.normal(size=4)
    np.testing.assert_allclose(meaning(numbers, x), 3 * np.cumprod(x))
    np.testing.assert_allclose(meaning(before, x), [3, *(3 * np.cumprod(x)[:-1])])
    h, a, b = RANDOM.normal(size=2), RANDOM.normal(size=3), RANDOM.normal(size=(2, 3))
    state, expected = h, np.zeros((2, 3))
    for t in range(3):
        state = a[t] * state + b[:, t]
        expected[:, t] = state
    np.testing.assert_allclose(meaning(tiles, h, a, b), expected)
    mirrored = meaning(backwards, h, a[::-1], b[:, ::-1])
    np.testing.assert_allclose(mirrored, expected[:, ::-1])


def test_the_values_of_one_scan_share_a_loop():
    def scan(x: Tile["t"]):
        return tuple(tw.scan(welford, (1.0, x, 0.0), "t"))

    scans = [r.node for r in traced(scan, float64).results]
    assert len({s.loop for s in scans}) == 1 and [s.which for s in scans] == [0, 1, 2]
    assert scans[0].value(2) is scans[2]


def test_values_that_a_scan_does_not_need_can_be_left_out():
    body = (
        Map("mul", (left(0, float64), right(0, float64))),
        Map("add", (left(1, float64), right(1, float64))),
        Map("mul", (left(2, float64), right(1, float64))),
    )
    assert needed(body, [2]) == (1, 2)
    assert needed(body, [2], both_sides=False) == (2,)
    scan = pruned(Scan(2, body, (X, Y, C), "d", initial=tuple(Const(n, float64) for n in range(3))))
    assert scan.operands == (Y, C) and scan.which == 1 and [c.value for c in scan.initial] == [1, 2]
    assert needed(scan.body, [1]) == (0, 1)


def test_a_scan_inside_an_op_inside_an_op():
    @inlined
    def inner(x: Tile["... d"]):
        return tw.cumsum(x, "d")

    def outer(x: Tile["n m"]):
        return inner(x["m n"]), tw.sum(inner(x), "m")

    x = RANDOM.normal(size=(3, 3))
    transposed, total = meaning(outer, x)
    np.testing.assert_allclose(transposed, np.cumsum(x, axis=1).T)
    np.testing.assert_allclose(total, np.cumsum(x, axis=1).sum(1))


# --- renaming ---------------------------------------------------------------------------------------------


def cumulated(node, axis):
    return Scan(0, named_body("cumsum", float64), (node,), axis)


def test_rename_of_a_scan():
    scan = cumulated(X, "d")
    assert rename(scan, {"i": "a"}) is cumulated(Read("x", ("a", "d"), float64), "d")
    assert rename(scan, {"d": "a"}) is cumulated(Read("x", ("i", "a"), float64), "a")
    assert rename(scan, {"d": "i", "i": "d"}) is cumulated(Read("x", ("d", "i"), float64), "i")
    assert rename(scan, {"z": "a"}) is scan


@pytest.mark.parametrize("names", [{"i": "d"}, {"d": "i"}])
def test_a_scan_whose_axes_become_one_is_its_diagonal(names):
    x = RANDOM.normal(size=(4, 4))
    (axis,) = names.values()
    renamed = rename(cumulated(X, "d"), names)
    assert renamed.axes == (axis,)
    params = (Param("x", ("i", "d"), float64),)
    (result,) = reference(Program("f", params, (Result("r", renamed, (axis,)),)), {"x": x})
    np.testing.assert_allclose(result, np.diag(np.cumsum(x, axis=1)))


def test_a_reduction_of_a_scan_does_not_capture_an_axis():
    node = Reduce("max", ("d",), Map("mul", (cumulated(X, "d"), C)))
    renamed = rename(node, {"i": "d"})
    assert renamed.axes == ("d",)
    x, c = RANDOM.normal(size=(4, 4)), RANDOM.normal(size=4)
    params = (Param("x", ("i", "d"), float64), Param("c", ("d",), float64))
    (result,) = reference(Program("f", params, (Result("r", renamed, ("d",)),)), {"x": x, "c": c})
    np.testing.assert_allclose(result, (np.cumsum(x, axis=1) * c).max(1))


# --- text, formulas, verify -------------------------------------------------------------------------------


def several(x: Tile["n t"], a: Tile["t"]):
    h = tw.scan(recurrence, (a, x), "t", reverse=True, exclusive=True, initial=(1.0, 0.5))[1]
    return h, tw.cummax(x, "n", reverse=True, exclusive=True), tw.cumprod(x, "t")


TEXT = """\
program several
param x f32 [n t]
param a f32 [t]
%0 = read a [t]
%1 = read x [n t]
%2 = left 0 f32
%3 = right 0 f32
%4 = mul %2 %3
%5 = left 1 f32
%6 = mul %5 %3
%7 = right 1 f32
%8 = add %6 %7
%9 = scan 1 [t] reverse from 1.0 0.5 (%4 %8) (%0 %1)
%10 = ge %3 %2
%11 = isnan %3
%12 = or %10 %11
%13 = where %12 %3 %2
%14 = scan 0 [n] reverse from -inf (%13) (%1)
%15 = scan 0 [t] forward (%4) (%1)
result y0 [n t] %9
result y1 [n t] %14
result y2 [n t] %15
"""


def test_the_text_of_scans():
    program = traced(several, float32)
    assert to_text(program) == TEXT
    assert from_text(TEXT) == program


@pytest.mark.parametrize(
    "line",
    [
        "%5 = scan 0 [t] sideways (%4) (%1)",
        "%5 = scan 0 [t] forward (%4) (%1 %1)",
        "%5 = scan 0 [t] forward from 1.0 2.0 (%4) (%1)",
        "%5 = scan 3 [t] forward (%4) (%1)",
        "%5 = scan 0 [t] forward () ()",
    ],
)
def test_text_that_is_no_scan(line):
    head = "program f\nparam x f32 [n t]\n%0 = left 0 f32\n%1 = read x [n t]\n%2 = right 0 f32\n"
    body = "%3 = neg %2\n%4 = add %0 %3\n"
    good = head + body + "%5 = scan 0 [t] forward (%4) (%1)\nresult y [n t] %5\n"
    assert to_text(from_text(good))
    with pytest.raises(LanguageError, match="line 8"):
        from_text(head + body + line + "\nresult y [n t] %5\n")


def test_the_formulas_of_scans():
    assert formula(traced(several, float32)).splitlines() == [
        "y0 = scan(l0 * r0, l1 * r0 + r1; a, x; t, reverse, exclusive from (1, 0.5))[1]",
        "y1 = cummax(x, n, reverse, exclusive)",
        "y2 = cumprod(x, t)",
    ]

    def used_twice(x: Tile["t"]):
        s = tw.scan(lambda l, r: l * r + l + r, x, "t")
        return s + tw.logcumsumexp(s, "t")

    assert formula(traced(used_twice, float32)) == (
        "s = scan(l * r + l + r; x; t)\ny = s + logcumsumexp(s, t)"
    )


@pytest.mark.parametrize(
    ("scan", "problem"),
    [
        (Scan(0, named_body("cumsum", float32), (X,), "d"), "dtypes of its operands"),
        (Scan(0, named_body("cumsum", float64), (X,), "z"), "unknown extent"),
        (Scan(0, (X,), (X,), "d"), "not made of its two sides"),
        (Scan(0, (left(1, float64),), (X,), "d"), "a side that it does not have"),
        (
            Scan(0, named_body("cumsum", float64), (X,), "d", initial=(Const(0, int64),)),
            "begins with other dtypes",
        ),
    ],
)
def test_verify_finds_what_is_wrong_with_a_scan(scan, problem):
    params = (Param("x", ("i", "d"), float64),)
    with pytest.raises(InternalError, match=problem):
        verify(Program("f", params, (Result("y", scan, scan.axes),)))


def test_simplify_goes_below_scans_and_keeps_extents():
    def doubled(x: Tile["t"]):
        return tw.cumsum(x - 0, "t")

    def constant(x: Tile["n t"]):
        return tw.sum(tw.cumsum(tw.where(True, 1.0, x), "t"), "t")

    assert formula(simplify(traced(doubled, float32))) == "y = cumsum(x, t)"
    program = verify(simplify(traced(constant, float64)))
    (result,) = reference(program, {"x": np.zeros((2, 4))})
    np.testing.assert_array_equal(result, [10, 10])


# --- algebra ----------------------------------------------------------------------------------------------

x, y, c = Expr(X), Expr(Y), Expr(C)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (tw.cumsum(x + y, "d"), tw.cumsum(x, "d") + tw.cumsum(y, "d"), True),
        (tw.cumsum(c * x, "i"), c * tw.cumsum(x, "i"), True),
        (tw.cumsum(c * x, "d"), c * tw.cumsum(x, "d"), False),
        (tw.cumsum(x, "d"), tw.cumsum(x, "d", reverse=True), False),
        (tw.cumsum(x, "d"), tw.cumsum(x, "i"), False),
        (tw.cumsum(x, "d"), tw.cumsum(x, "d", exclusive=True), False),
        (tw.cumprod(x * y, "d"), tw.cumprod(y * x, "d"), True),
        (tw.cumprod(x + y, "d"), tw.cumprod(x, "d") + tw.cumprod(y, "d"), False),
        (tw.cummax(x - x, "d"), tw.cummax(y - y, "d"), True),
        (tw.sum(tw.cumsum(x, "d") * y, "i"), tw.sum(y * tw.cumsum(x, "d"), "i"), True),
        (tw.sum(tw.cumsum(x, "d") * y, "d"), tw.sum(tw.cumsum(y, "d", reverse=True) * x, "d"), True),
        (tw.sum(tw.cumsum(x, "d") * y, "d"), tw.sum(tw.cumsum(y, "d") * x, "d"), False),
        (tw.cumsum(x, "d", exclusive=True) + x, tw.cumsum(x, "d", exclusive=True, reverse=True), False),
        (tw.cumsum(x, "d"), tw.sum(tw.where(tw.index("e") <= tw.index("d"), x["i e"], 0), "e"), True),
        (tw.cumsum(x, "d"), tw.sum(tw.where(tw.index("d") >= tw.index("e"), x["i e"], 0), "e"), True),
        (tw.cumsum(tw.cumsum(x, "d"), "d"), tw.cumsum(tw.cumsum(x, "d"), "d", reverse=True), False),
        (tw.cumsum(tw.cumsum(x, "i"), "d"), tw.cumsum(tw.cumsum(x, "d"), "i"), True),
    ],
)
def test_scans_that_are_equal_by_algebra(one, other, same):
    of_one_extent = {"e": "d"}
    assert Polynomials(of_one_extent).is_zero((one - other).node) == same


def test_scans_are_collected_below_and_above():
    def emitted(value, *given):
        (node,) = collect([value.node], [g.node for g in given])
        return formula(node)

    assert emitted(tw.cumsum(x * y / x, "d")) == "cumsum(y, d)"
    assert emitted(tw.cumsum(c * x, "i")) == "c * cumsum(x, i)"
    assert emitted(tw.cumsum(x - x, "d")) == "0"
    assert emitted(tw.cumprod(x * y / x, "d") * x / x) == "cumprod(y, d)"
    known = tw.cumprod(x, "d")
    assert emitted(known * y + known * x, known) == "cumprod(x, d) * (y + x)"


def test_named_bodies_are_found_by_name():
    for name in ("cumsum", "cumprod", "cummax", "cummin"):
        for dtype in (float32, float64, int64, int32, int8):
            assert name_of(named_body(name, dtype)) == name
    assert name_of(named_body("cummax", bool_)) == "cummax"
    assert name_of((Map("sub", (left(0, float64), right(0, float64))),)) is None


def test_positions_can_be_scanned():
    def scan(x: Tile["t"]):
        return tw.cumsum(tw.index("t"), "t"), x

    assert isinstance(traced(scan, float64).results[0].node.operands[0], Index)
    np.testing.assert_array_equal(meaning(scan, np.zeros(5))[0], [0, 1, 3, 6, 10])
