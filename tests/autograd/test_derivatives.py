"""Derivatives of many small programs against finite differences, and against each other."""

from __future__ import annotations

import numpy as np
import pytest
from derivative_cases import CASES, Case

from tilewright.autograd.check import check_jvp, check_vjp, run_backward, tangent_arguments, widened
from tilewright.autograd.derive import Derivative, jvp, vjp
from tilewright.dsl.program import Node, Program, Read, rewrite
from tilewright.dsl.reference import reference
from tilewright.dsl.renaming import rename
from tilewright.dsl.verify import verify

SYMMETRIC = {
    "softmax",
    "logsumexp",
    "log_softmax",
    "gelu",
    "layer_norm",
    "rms_norm",
    "attention",
    "product",
    "gram",
}
THIRD = {"softmax", "logsumexp", "tanh", "rms_norm", "product", "matmul", "several"}


def without_saved(derivative: Derivative) -> Program:
    """The backward as a function of the operands and cotangents alone: saved values are computed again."""
    forward = {r.name: r for r in derivative.forward.results}

    def again(node: Node) -> Node:
        if not isinstance(node, Read) or node.param not in derivative.saved:
            return node
        result = forward[node.param]
        return rename(result.node, dict(zip(result.axes, node.names, strict=True)))

    backward = derivative.backward
    nodes = rewrite((r.node for r in backward.results), again)
    params = (*derivative.forward.params, *(p for p in backward.params if p.name not in derivative.saved))
    return Program("closed", tuple(dict.fromkeys(params)), backward.with_results(nodes).results)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp_agrees_with_finite_differences(case: Case):
    program = case.program()
    derivative = vjp(program, case.wrt)
    verify(derivative.forward, "vjp")
    verify(derivative.backward, "vjp")
    report = check_vjp(program, case.arguments(), case.wrt, derivative=derivative, directions=2, entries=3)
    assert report.error < 1e-6, report


@pytest.mark.parametrize("case", CASES, ids=str)
def test_jvp_agrees_with_finite_differences(case: Case):
    program = case.program()
    verify(jvp(program, case.wrt), "jvp")
    report = check_jvp(program, case.arguments(), case.wrt, directions=2)
    assert report.error < 1e-6, report


@pytest.mark.parametrize("case", CASES, ids=str)
def test_jvp_and_vjp_are_transposes(case: Case):
    """<u, J v> = <Jᵀ u, v>"""
    program = case.program()
    derivative = vjp(program, case.wrt)
    arguments = widened(program, case.arguments())
    rng = np.random.default_rng(1)
    names = tuple(operand for operand, _ in derivative.gradients)
    steps = {name: rng.standard_normal(np.shape(arguments[name])) for name in names}
    tangent_program = jvp(program, names)
    given = arguments | tangent_arguments(program, tangent_program, names, steps)
    tangents = reference(tangent_program, {p.name: given[p.name] for p in tangent_program.params})
    cotangents = {
        param: rng.standard_normal(value.shape)
        for (_, param), value in zip(derivative.cotangents, tangents, strict=True)
    }
    gradients = run_backward(derivative, arguments, cotangents)
    forward = sum(
        np.sum(cotangents[p] * t) for (_, p), t in zip(derivative.cotangents, tangents, strict=True)
    )
    backward = sum(np.sum(gradients[result] * steps[operand]) for operand, result in derivative.gradients)
    assert forward == pytest.approx(backward, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.everyday(30)
def test_second_derivative_agrees_with_finite_differences(case: Case):
    first = vjp(case.program(), case.wrt)
    arguments = widened(case.program(), case.arguments())
    rng = np.random.default_rng(2)
    outputs = dict(
        zip((r.name for r in first.forward.results), reference(first.forward, arguments), strict=True)
    )
    given = arguments | {name: outputs[name] for name in first.saved}
    given |= {param: rng.standard_normal(outputs[name].shape) for name, param in first.cotangents}
    backward = first.backward
    second = vjp(backward)
    verify(second.forward, "vjp of vjp")
    verify(second.backward, "vjp of vjp")
    given = {p.name: given[p.name] for p in backward.params}
    report = check_vjp(backward, given, derivative=second, directions=2, entries=2)
    assert report.error < 1e-6, report


def hessian_vector_by_two_roads(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """∂(d_x · u)/∂x as a vjp of the vjp and, for a symmetric Hessian, as a jvp of the vjp."""
    first = vjp(case.program(), case.wrt)
    closed = without_saved(first)
    arguments = widened(case.program(), case.arguments())
    rng = np.random.default_rng(4)
    outputs = reference(first.forward, arguments)
    given = arguments | {
        param: rng.standard_normal(value.shape)
        for (_, param), value in zip(first.cotangents, outputs, strict=False)
    }
    operand, result = first.gradients[0]
    direction = rng.standard_normal(np.shape(arguments[operand]))
    tangents = jvp(closed, (operand,))
    added = [p.name for p in tangents.params if p.name not in {q.name for q in closed.params}]
    pushed = dict(
        zip(
            (r.name for r in closed.results),
            reference(tangents, {**given, added[0]: direction}),
            strict=True,
        )
    )
    second = vjp(closed, (operand,))
    cotangents = {
        param: direction if name == result else np.zeros_like(pushed[name])
        for name, param in second.cotangents
    }
    pulled = run_backward(second, given, cotangents)[second.gradients[0][1]]
    return pushed[result], pulled


@pytest.mark.parametrize("case", [c for c in CASES if str(c) in SYMMETRIC], ids=str)
def test_forward_over_reverse_equals_reverse_over_reverse(case: Case):
    pushed, pulled = hessian_vector_by_two_roads(case)
    np.testing.assert_allclose(pushed, pulled, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("case", [c for c in CASES if str(c) in THIRD], ids=str)
def test_third_derivative_agrees_with_finite_differences(case: Case):
    arguments = widened(case.program(), case.arguments())
    program = case.program()
    rng = np.random.default_rng(5)
    for _ in range(2):
        derivative = vjp(program)
        outputs = dict(
            zip(
                (r.name for r in derivative.forward.results),
                reference(derivative.forward, arguments),
                strict=True,
            )
        )
        arguments |= {name: outputs[name] for name in derivative.saved}
        arguments |= {p: rng.standard_normal(outputs[name].shape) for name, p in derivative.cotangents}
        program = derivative.backward
        arguments = {p.name: arguments[p.name] for p in program.params}
    third = vjp(program)
    verify(third.backward, "vjp of vjp of vjp")
    report = check_vjp(program, arguments, derivative=third, directions=1, entries=1)
    assert report.error < 1e-6, report
