"""Derivatives of scans where arithmetic is delicate, what they are made of, and the partials of a combine."""

from __future__ import annotations

import numpy as np
import pytest
from derivative_cases import Case

from tilewright.autograd.check import run_backward
from tilewright.autograd.derive import jvp, vjp
from tilewright.autograd.scans import identity, jacobian
from tilewright.dsl import language as tw
from tilewright.dsl.axes import Tile
from tilewright.dsl.dtypes import float64, int64
from tilewright.dsl.formula import formula
from tilewright.dsl.program import Program, Scan
from tilewright.dsl.scans import left, named_body, right
from tilewright.dsl.verify import verify

inf, nan = np.inf, np.nan


def gradient(function, x, cotangent=1.0):
    derivative = vjp(Case(function).program())
    x = np.asarray(x, float)
    given = np.broadcast_to(np.asarray(cotangent, float), x.shape)
    return run_backward(derivative, {"x": x}, {"d_y": given})["d_x"]


def scans(program: Program) -> list[Scan]:
    return [n for n in program.nodes() if isinstance(n, Scan)]


def largest(x: Tile["d"]):
    return tw.cummax(x, "d")


def product(x: Tile["d"]):
    return tw.cumprod(x, "d")


def log_sum(x: Tile["d"]):
    return tw.logcumsumexp(x, "d")


# --- points where something is special ----------------------------------------------------------------------


def test_a_running_maximum_gives_to_the_newest_of_equals():
    np.testing.assert_array_equal(gradient(largest, [1, 1, 0, 2, 2, 1]), [1, 2, 0, 1, 2, 0])


def test_an_infinite_gradient_stays_with_its_maximum():
    np.testing.assert_array_equal(gradient(largest, [1, 0, 2, 1], [1, 1, inf, 1]), [2, 0, inf, 0])
    np.testing.assert_array_equal(gradient(largest, [1, 0, 2, 1], [nan, 1, 1, 1]), [nan, 0, 2, 0])


def test_a_running_maximum_that_begins_at_minus_infinity():
    np.testing.assert_array_equal(gradient(largest, [-inf, -inf, 3]), [1, 1, 1])


@pytest.mark.parametrize("zeros", [(0,), (2,), (1, 3), (0, 1, 2, 3, 4)])
def test_a_running_product_with_zeros(zeros):
    x = np.array([2.0, -3.0, 0.5, 4.0, -1.0])
    x[list(zeros)] = 0
    g = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    expected = np.zeros(5)
    for place in range(5):
        others = np.where(np.arange(5) == place, 1, x)
        expected[place] = np.sum((g * np.cumprod(others))[place:])
    np.testing.assert_allclose(gradient(product, x, g), expected, rtol=1e-14)


def test_log_sums_of_nothing_yet_have_the_gradient_0():
    found = gradient(log_sum, [-inf, -inf, 0.0, 2.0, -inf])
    np.testing.assert_allclose(found[[0, 1, 4]], 0)
    assert np.isfinite(found).all() and found.sum() == pytest.approx(3)


def test_log_sums_far_apart_do_not_overflow():
    found = gradient(log_sum, [1000.0, 0.0, -1000.0, 1001.0])
    share = 1 / (1 + np.e)
    np.testing.assert_allclose(found, [3 + share, 0, 0, 1 - share], rtol=1e-12, atol=1e-12)


def test_an_empty_axis_has_an_empty_gradient():
    for function in (largest, product, log_sum):
        assert gradient(function, np.zeros(0)).shape == (0,)


# --- what derivatives are made of ---------------------------------------------------------------------------


def test_the_backward_of_a_running_sum_is_one_from_the_other_end_to_any_order():
    def total(x: Tile["n d"]):
        return tw.cumsum(x, "d")

    first = vjp(Case(total).program()).backward
    assert formula(first) == "d_x = cumsum(d_y, d, reverse)"
    assert formula(vjp(first).backward) == "d_d_y = cumsum(d_d_x, d)"
    assert formula(jvp(first)) == "t_d_x = cumsum(t_d_y, d, reverse)"


def test_values_of_one_loop_go_back_together():
    """Two results of a matrix product go back through one loop that has both of their cotangents."""

    def rows(x: Tile["d"], y: Tile["d"]):
        def times(l, r):
            (a, b, c), (d, e, f) = l, r
            return a * d, a * e + b * f, c * f

        return tw.scan(times, (x, y, x), "d")[:2]

    backward = vjp(Case(rows).program()).backward
    verify(backward)
    assert len({s.loop for s in scans(backward)}) == 2  # of a with b, and of b alone


def test_tangents_of_one_value_do_not_carry_the_others():
    def second(a: Tile["d"], b: Tile["d"]):
        return tw.scan(lambda l, r: (l[0] * r[0], l[1] + r[1]), (a, b), "d")[1]

    assert formula(jvp(Case(second).program())) == "t_y = cumsum(t_b, d)"


def test_positions_carry_no_gradient():
    def place(x: Tile["d"]):
        return tw.cast(tw.argcummax(x, "d"), float64) * x

    np.testing.assert_array_equal(gradient(place, [1.0, 0.0, 3.0, 2.0]), [0, 0, 2, 2])


# --- partials and neutral numbers ---------------------------------------------------------------------------


def body_of(*values):
    return tuple(v.node for v in values)


def test_the_partials_of_a_combine():
    found = jacobian(named_body("cumprod", float64))
    assert {k: formula(e.node, {left(0, float64): "l"}) for k, e in found.right.items()} == {(0, 0): "l"}
    assert {k: e.constant_value() for k, e in jacobian(named_body("cumsum", float64)).left.items()} == {
        (0, 0): 1
    }


def test_numbers_that_change_nothing():
    from tilewright.dsl.expression import Expr

    l, r = (Expr(side(0, float64)) for side in (left, right))
    n, m = (Expr(side(0, int64)) for side in (left, right))
    assert [c.value for c in identity(body_of(l + r)) or ()] == [0]
    assert [c.value for c in identity(body_of(l * r)) or ()] == [1]
    assert [c.value for c in identity(body_of(tw.minimum(l, r))) or ()] == [inf]
    assert [c.value for c in identity(body_of(tw.maximum(l, r))) or ()] == [-inf]
    assert [c.value for c in identity(body_of(n * m)) or ()] == [1]
    assert identity(body_of(tw.sqrt(l * l + r * r + 1))) is None
