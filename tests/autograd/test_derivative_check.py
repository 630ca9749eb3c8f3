"""The check finds a wrong gradient, and knows what it is uncertain by."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from derivative_cases import Case, layer_norm, matmul, softmax

import tilewright as tw
from tilewright.autograd.check import check_jvp, check_vjp, directional
from tilewright.autograd.derive import vjp
from tilewright.dsl.program import Map, Node, Program, rewrite


def windows_by_their_largest(x: tw.Tile["n t c"], g: tw.Tile["c"]):
    t = tw.axis("at", tw.size("t")) + tw.axis("r", 3) - 1
    p = x.at(t=t) * g
    return tw.sum(p, "r c") / (1 + tw.max(tw.abs(p), "r c"))


def with_slip(program: Program, before: str, after: str) -> Program:
    """The program with the first function `before` replaced."""
    found: list[Node] = []

    def step(node: Node) -> Node:
        if isinstance(node, Map) and node.function == before and not found:
            found.append(node)
            return Map(after, node.operands)
        return node

    changed = program.with_results(rewrite((r.node for r in program.results), step))
    assert found
    return changed


def test_a_right_gradient_passes():
    case = Case(layer_norm)
    assert check_vjp(case.program(), case.arguments()).error < 1e-9
    assert check_jvp(case.program(), case.arguments()).error < 1e-9


def test_a_wrong_gradient_fails():
    for function, before, after in (
        (softmax, "sub", "add"),
        (layer_norm, "sub", "add"),
        (matmul, "mul", "add"),
    ):
        case = Case(function)
        right = vjp(case.program())
        wrong = dataclasses.replace(right, backward=with_slip(right.backward, before, after))
        report = check_vjp(case.program(), case.arguments(), derivative=wrong)
        assert report.error > 1e-3
        assert "worst relative error" in str(report)


def test_infinite_results_are_left_out():
    @tw.op
    def half(x: tw.Tile["d"]):
        return tw.where(tw.index("d") < 3, x * x, -tw.inf)

    program = half.bind(half.arguments((np.arange(1.0, 7.0),), {})).program
    right = vjp(program)
    assert check_vjp(program, {"x": np.arange(1.0, 7.0)}).error < 1e-9
    assert check_jvp(program, {"x": np.arange(1.0, 7.0)}).error < 1e-9
    wrong = dataclasses.replace(right, backward=with_slip(right.backward, "mul", "add"))
    assert check_vjp(program, {"x": np.arange(1.0, 7.0)}, derivative=wrong).error > 1e-3


def test_large_operands_are_tried_in_random_directions():
    case = Case(softmax, extents={"_0": 20, "d": 50})
    report = check_vjp(case.program(), case.arguments(), entries=2, directions=2)
    assert [c.what.split()[0][:2] for c in report.comparisons] == ["x[", "x[", "x", "x"]
    assert report.error < 1e-8


def test_directional_derivative_and_its_uncertainty():
    value, uncertainty = directional(
        lambda at: float(np.exp(at["x"])), {"x": np.array(1.0)}, {"x": np.array(2.0)}
    )
    assert abs(value - 2 * np.e) < 1e-10
    assert abs(value - 2 * np.e) <= 10 * uncertainty + 1e-12


@pytest.mark.parametrize("distance", [0.02, 1e-3, 1e-4, 1e-5])
def test_a_kink_beside_the_point_is_no_wrong_slope(distance: float):
    def function(at):
        return float(np.abs(at["x"] - distance) + np.sin(3 * at["x"]))

    value, uncertainty = directional(function, {"x": np.array(0.0)}, {"x": np.array(1.0)})
    assert abs(value - 2) < 1e-8
    assert uncertainty < 1e-7


def test_at_a_kink_the_slopes_between_its_sides_are_right():
    def function(at):
        return float(3 * np.maximum(at["x"], 0) + np.sin(at["x"]))

    value, uncertainty = directional(function, {"x": np.array(0.0)}, {"x": np.array(1.0)})
    for slope in (1.0, 2.5, 4.0):
        assert abs(slope - value) <= 2 * uncertainty + 1e-8
    for slope in (-1.0, 6.0):
        assert abs(slope - value) > 2 * uncertainty + 0.1


@pytest.mark.parametrize("seed", [132, 225, 292])
def test_among_thousands_of_kinks_no_chance_agreement_is_believed(seed: int):
    """Σ |x|: draws whose differences over two of the longer steps agree, on a slope that is wrong."""
    at, step = np.random.default_rng(seed).standard_normal((2, 4000))
    measured, error = directional(lambda x: float(np.abs(x["x"]).sum()), {"x": at}, {"x": step})
    assert abs(measured - float((np.sign(at) * step).sum())) <= 2 * error
    assert error < 1


def test_rounding_that_the_value_does_not_show_is_taken_for_no_kink():
    """Σ (sin x + 10⁷) - 10⁷: the value is small, and steps of 10⁻⁹ are all that it can take."""
    at, step = np.random.default_rng(28).standard_normal((2, 20))
    measured, error = directional(lambda x: float((np.sin(x["x"]) + 1e7 - 1e7).sum()), {"x": at}, {"x": step})
    assert abs(measured - float((np.cos(at) * step).sum())) <= 2 * error
    assert error < 1e-2


def test_derivatives_of_many_maxima_are_measured_beside_their_kinks():
    case = Case(windows_by_their_largest, extents={"n": 2, "t": 9, "c": 3})
    for seed in range(20):
        rng = np.random.default_rng(seed)
        arguments = {name: rng.standard_normal(a.shape) for name, a in case.arguments().items()}
        report = check_vjp(case.program(), arguments, entries=3, directions=2)
        assert report.error < 1e-8, str(report)
