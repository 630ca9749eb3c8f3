"""Derivatives of many small programs against finite differences, and against each other."""

from __future__ import annotations

import numpy as np
import pytest
from derivative_cases import CASES, Case

from tilewright.autograd.check import check_jvp, check_vjp, run_backward, tangent_arguments, widened
from tilewright.autograd.derive import jvp, vjp
from tilewright.dsl.reference import reference
from tilewright.dsl.verify import verify


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
