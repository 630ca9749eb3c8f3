"""What the backward reads of the forward."""

from __future__ import annotations

import numpy as np
from derivative_cases import (
    Case,
    attention,
    distances,
    gelu,
    layer_norm,
    linear_gelu,
    linear_recurrence,
    matmul,
    mixture,
    pairwise_sum,
    running_sum,
    softmax,
    state_space,
)

import tilewright as tw
from tilewright.autograd.cut import is_contraction
from tilewright.autograd.derive import vjp
from tilewright.dsl.dtypes import float16, float32
from tilewright.dsl.program import At, Program, Read, Reduce, topological
from tilewright.dsl.reference import reference


def contractions(program: Program) -> list[Reduce]:
    return [n for n in program.nodes() if isinstance(n, Reduce) and is_contraction(n)]


def test_cheap_things_are_computed_again():
    for function in (gelu, layer_norm, matmul):
        derivative = vjp(Case(function).program(float32))
        assert derivative.saved == ()
        assert derivative.forward == Case(function).program(float32)


def test_a_result_is_read_where_that_is_cheaper():
    assert vjp(Case(softmax).program(float32)).saved == ("y",)
    assert vjp(Case(distances).program(float32)).saved == ("y",)


def test_a_pre_activation_is_saved_and_its_contraction_not_repeated():
    derivative = vjp(Case(linear_gelu).program(float32))
    assert derivative.saved == ("saved_0",)
    assert [r.name for r in derivative.forward.results] == ["y", "saved_0"]
    assert len(contractions(derivative.forward)) == 1
    assert len(contractions(derivative.backward)) == 2


def test_a_scan_that_is_a_result_is_read_and_any_other_runs_again():
    assert vjp(Case(linear_recurrence).program(float32)).saved == ("y",)
    for function in (running_sum, state_space):
        assert vjp(Case(function).program(float32)).saved == ()


def test_attention_saves_one_statistic_a_row_and_not_its_scores():
    derivative = vjp(Case(attention).program(float32))
    assert derivative.saved == ("y", "saved_0")
    assert derivative.forward.results[1].axes == ("_0", "i")


def test_attention_in_half_precision_saves_its_statistic_in_single():
    derivative = vjp(Case(attention).program(float16))
    (statistic,) = [r for r in derivative.forward.results if r.name == "saved_0"]
    assert statistic.dtype == float32


def test_values_larger_than_every_result_are_not_saved():
    for function in (pairwise_sum, mixture):
        derivative = vjp(Case(function).program(float32))
        sizes = [len(r.axes) for r in derivative.forward.results]
        assert max(sizes) == sizes[0]


def test_the_extended_forward_gives_the_same_results():
    case = Case(attention)
    derivative = vjp(case.program())
    (y,) = reference(case.program(), case.arguments())
    np.testing.assert_array_equal(reference(derivative.forward, case.arguments())[0], y)


def window_sums(x: tw.Tile["t"], k: tw.Tile["r"]):
    y = tw.sum(x.at(t=tw.index("t") + tw.index("r")) * k, "r")
    return y * y / (1 + tw.max(tw.abs(y), "t"))


def test_a_saved_value_is_read_under_every_name_of_its_axes():
    """The gradient of x needs the window sums at other positions than that of k does."""
    program = Case(window_sums).program(float32)
    for wrt in (None, ("x",)):
        derivative = vjp(program, wrt)
        (saved,) = derivative.saved
        names = {n.names for n in derivative.backward.nodes() if isinstance(n, Read) and n.param == saved}
        assert len(names) == 2
        sums = [n for n in derivative.backward.nodes() if isinstance(n, Reduce) and n.over == ("r",)]
        assert all(any(isinstance(m, At) and m.along == ("t'",) for m in topological([n])) for n in sums)
