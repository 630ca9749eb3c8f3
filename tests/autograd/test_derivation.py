"""The derivation that `explain` prints: its steps, put together, are the gradient."""

from __future__ import annotations

import numpy as np
import pytest
from derivative_cases import (
    Case,
    cross_entropy,
    gelu,
    hadamard_sum,
    labels,
    largest,
    layer_norm,
    linear_gelu,
    linear_recurrence,
    matmul,
    running_sum,
    same_branch_twice,
    several,
    softmax,
)

import tilewright as tw
from tilewright import kernels
from tilewright.autograd.derivation import Derivation, derivation
from tilewright.autograd.derive import vjp
from tilewright.dsl.dtypes import int64
from tilewright.dsl.expression import Expr
from tilewright.dsl.program import Node, Param, Program, Read, Result, replace, topological
from tilewright.dsl.reference import reference
from tilewright.op.derived import without_saved

CASES = [
    Case(f)
    for f in (
        same_branch_twice, several, matmul, linear_gelu, hadamard_sum, largest, softmax, gelu,
        layer_norm, running_sum, linear_recurrence,
    )
] + [Case(cross_entropy, draw={"t": labels(4)}, dtypes={"t": int64})]  # fmt: skip


def put_together(program: Program, found: Derivation) -> Program:
    """operands, d_<result> ↦ gradients, by inserting every step into the next ones."""
    arrived: dict[str, Expr] = {}
    seeds = []
    for result in program.results:
        if result.dtype.is_float:
            name = found.names[result.node]
            seeds.append(Param(f"d_{result.name}", result.axes, result.dtype))
            given = Expr(Read(f"d_{result.name}", result.axes, result.dtype))
            arrived[name] = arrived[name] + given if name in arrived else given
    for step in found.steps:
        here = {Read(f"d_{step.name}", step.node.axes, step.node.dtype): arrived[step.name].node}
        for operand, back in step.gives:
            part = Expr(replace(back, here))
            arrived[operand] = arrived[operand] + part if operand in arrived else part
    operands = [p for p in program.tiles if p.dtype.is_float]
    results = tuple(Result(f"d_{p.name}", arrived[p.name].node, p.axes) for p in operands)
    return Program("together", (*program.params, *seeds), results, program.extents)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_steps_put_together_are_the_gradient(case: Case):
    program = case.program()
    arguments = case.arguments()
    whole = without_saved(vjp(program))
    together = put_together(program, derivation(program))
    rng = np.random.default_rng(3)
    sizes = {a: n for p in program.tiles for a, n in zip(p.axes, arguments[p.name].shape, strict=True)}
    for param in together.tiles:
        if param.name not in arguments:
            arguments[param.name] = rng.standard_normal([sizes[a] for a in param.axes])
    expected = dict(zip((r.name for r in whole.results), reference(whole, arguments), strict=True))
    for result, found in zip(together.results, reference(together, arguments), strict=True):
        np.testing.assert_allclose(found, expected[result.name], rtol=1e-10, atol=1e-12)


def test_a_value_whose_gradient_cancels_is_a_step_that_says_so():
    """Nothing goes back through the maximum that stabilises a softmax."""
    steps = derivation(Case(softmax).program()).steps
    assert [s.name for s in steps if s.vanishes] == ["m"]


def test_conversions_are_no_steps():
    def names(dtype: type) -> list[str]:
        call = kernels.gelu.bind(kernels.gelu.arguments([np.ones(3, dtype)], {}))
        return [s.name for s in derivation(call.program).steps]

    assert names(np.float16) == names(np.float32)


def test_explain_prints_the_steps():
    text = kernels.softmax.explain(np.ones((4, 8), np.float32))
    steps = text[text.index("Derivation") : text.index("Gradient, derived")].splitlines()
    assert steps[1:4] == ["  y = e / s", "      d_e = d_y * (1 / s)", "      d_s = sum(d_y * -(y / s), d)"]
    assert "  m = max(x, d): what arrives cancels, so nothing goes back from here" in steps


def test_a_long_derivation_is_cut_with_a_word():
    @tw.op
    def deep(x: tw.Tile["n"]):
        for _ in range(40):
            x = tw.sin(x) * x
        return x

    text = deep.explain(np.ones(3))
    assert "… and 20 further steps" in text


def is_placeholder(node: Node) -> bool:
    return isinstance(node, Read) and node.param.startswith("d_")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_step_speaks_of_one_arriving_gradient(case: Case):
    for step in derivation(case.program()).steps:
        for _, back in step.gives:
            assert {n.param for n in topological([back]) if is_placeholder(n)} <= {f"d_{step.name}"}
