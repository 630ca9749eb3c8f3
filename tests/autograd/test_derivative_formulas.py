"""The derived gradients as formulas: what an expert would write, and nothing else is read."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
from derivative_cases import (
    Case,
    attention,
    chain,
    cross_entropy,
    distances,
    exp,
    gelu,
    group_norm,
    layer_norm,
    linear_gelu,
    linear_recurrence,
    log_softmax,
    logsumexp,
    matmul,
    product,
    relu,
    rms_norm,
    row_sum,
    running_product,
    running_softmax,
    running_sum,
    sigmoid,
    softmax,
    stopped,
    tanh,
)

from tilewright.autograd.derive import jvp, vjp
from tilewright.dsl import language as tw
from tilewright.dsl.axes import Tile
from tilewright.dsl.dtypes import float16, float32, int64
from tilewright.dsl.formula import formula
from tilewright.dsl.program import Program, Reduce

LABELS = {"t": int64}
ROOT_2 = math.sqrt(2)

BACKWARD = [
    (Case(sigmoid), "y d_y", ["d_x = d_y * y * (1 - y)"]),
    (Case(tanh), "y d_y", ["d_x = d_y * (1 - y * y)"]),
    (Case(exp), "y d_y", ["d_x = d_y * y"]),
    (
        Case(running_sum),
        "x w d_y",
        [
            "c = cumsum(d_y * x, d, reverse)",
            "d_x = d_y * cumsum(x * w, d) + w * c",
            "d_w = sum(x * c, _0)",
        ],
    ),
    (
        Case(running_product),
        "x y d_y",
        [
            "t = d_y + scan(l0 * r0, l1 * r0 + r1; x, d_y * x; d, reverse, exclusive from (0, 0))[1]",
            "d_x = where(index(d) == 0, t, y.at(d=index(d) - 1) * t)",
        ],
    ),
    (
        Case(running_softmax),
        "x y d_y",
        [
            "e = exp(x - max(x, d))",
            "d_x = e * (cumsum(d_y, d, reverse) - sum(d_y * y, d)) / sum(e, d)",
        ],
    ),
    (
        Case(linear_recurrence),
        "a y d_y",
        [
            "d_b = d_y + scan(l0 * r0, l1 * r0 + r1; a, d_y * a; d, reverse, exclusive from (0, 0))[1]",
            "d_a = sum(y.at(d=index(d) - 1) * d_b, _0)",
        ],
    ),
    (Case(relu), "x d_y", ["d_x = where(x > 0, d_y, 0)"]),
    (Case(stopped), "x d_y", ["d_x = d_y * stop_gradient(exp(x))"]),
    (Case(row_sum), "a d_y", ["d_a = d_y"]),
    (Case(product), "x d_y", ["d_x = d_y * prod(where(index(d') == index(d), 1, x[m d']), d')"]),
    (
        Case(gelu),
        "x d_y",
        [
            f"d_x = d_y * (0.39894228040143265 * (x * exp(-0.5 * (x * x))) + 0.5 * (1 + erf(x / {ROOT_2})))",
        ],
    ),
    (Case(matmul), "a b d_y", ["d_a = sum(d_y * b, n)", "d_b = sum(d_y * a, m)"]),
    (
        Case(chain),
        "a b c d_y",
        [
            "d_a = sum(d_y * sum(b * c, k), l)",
            "s = sum(d_y * a, i)",
            "d_b = sum(c * s, l)",
            "d_c = sum(b * s, j)",
        ],
    ),
    (
        Case(linear_gelu),
        "x w saved_0 d_y",
        [
            "p = d_y * (0.39894228040143265 * (saved_0 * exp(-0.5 * (saved_0 * saved_0))) + "
            f"0.5 * (1 + erf(saved_0 / {ROOT_2})))",
            "d_x = sum(p * w, n)",
            "d_w = sum(p * x, m)",
            "d_b = sum(p, m)",
        ],
    ),
    (
        Case(distances),
        "x z y d_y",
        ["q = d_y * (x - z) / y", "d_x = sum(q, j)", "d_z = -sum(q, i)"],
    ),
    (Case(softmax), "y d_y", ["d_x = y * (d_y - sum(d_y * y, d))"]),
    (Case(log_softmax), "y d_y", ["d_x = d_y - exp(y) * sum(d_y, d)"]),
    (Case(logsumexp), "x y d_y", ["d_x = d_y * exp(x - y)"]),
    (
        Case(cross_entropy, dtypes=LABELS),
        "x t d_y",
        [
            "m = max(x, c)",
            "e = exp(x - where(isfinite(m), m, 0))",
            "d_x = d_y * (e / sum(e, c) - where(index(c) == t, 1, 0))",
        ],
    ),
    (
        Case(layer_norm),
        "x w d_y",
        [
            "z = x - sum(x, d) / size(d)",
            "r = rsqrt(sum(z * z, d) / size(d) + 1e-05)",
            "p = d_y * w",
            "p2 = z * r",
            "d_x = r * (p - p2 * sum(p * p2, d) / size(d) - sum(p, d) / size(d))",
            "d_w = sum(d_y * p2, _0)",
            "d_b = sum(d_y, _0)",
        ],
    ),
    (
        Case(rms_norm),
        "x w d_y",
        [
            "r = rsqrt(sum(x * x, d) / size(d) + 1e-06)",
            "p = d_y * w",
            "p2 = x * r",
            "d_x = r * (p - p2 * sum(p * p2, d) / size(d))",
            "d_w = sum(d_y * p2, _0)",
        ],
    ),
    (
        Case(group_norm),
        "x w d_y",
        [
            "p = d_y * w",
            "p2 = size(c) * size(d)",
            "z = x - sum(x, c d) / p2",
            "r = sqrt(sum(z * z, c d) / p2 + 1e-05)",
            "q = z / r",
            "d_x = (p - q * sum(p * q, c d) / p2 - sum(p, c d) / p2) / r",
            "d_w = sum(d_y * q, b d)",
            "d_v = sum(d_y, b d)",
        ],
    ),
    (
        Case(attention),
        "q k v y saved_0 d_y",
        [
            "r = rsqrt(size(d))",
            "e2 = exp(sum(q * k, d) * r - saved_0)",
            "p = e2 * (sum(d_y * v, e) - sum(d_y * y, e))",
            "d_q = r * sum(k * p, j)",
            "d_k = r * sum(q * p, i)",
            "d_v = sum(d_y * e2, i)",
        ],
    ),
]

TANGENTS = [
    (Case(matmul), ["t_y = sum(t_a * b, k) + sum(t_b * a, k)"]),
    (
        Case(softmax),
        ["e = exp(x - max(x, d))", "q = e / sum(e, d)", "t_y = q * (t_x - sum(t_x * q, d))"],
    ),
    (
        Case(logsumexp),
        [
            "m = max(x, d)",
            "e = exp(x - where(isfinite(m), m, 0))",
            "t_y = sum(t_x * e, d) / sum(e, d)",
        ],
    ),
]


def lines(program: Program) -> list[str]:
    return formula(program).splitlines()


@pytest.mark.parametrize(
    ("case", "reads", "expected"), BACKWARD, ids=lambda v: str(v) if isinstance(v, Case) else ""
)
def test_gradient(case: Case, reads: str, expected: list[str]):
    backward = vjp(case.program(float32)).backward
    assert lines(backward) == expected
    assert [p.name for p in backward.params] == reads.split()


@pytest.mark.parametrize(("case", "expected"), TANGENTS, ids=lambda v: str(v) if isinstance(v, Case) else "")
def test_tangent(case: Case, expected: list[str]):
    assert lines(jvp(case.program(float32))) == expected


def test_the_gradient_of_softmax_has_one_reduction():
    backward = vjp(Case(softmax).program(float32)).backward
    assert sum(isinstance(node, Reduce) for node in backward.nodes()) == 1


def test_the_second_derivative_of_softmax():
    second = vjp(vjp(Case(softmax).program(float32)).backward).backward
    assert lines(second) == [
        "s = sum(d_d_x * y, d)",
        "d_y_2 = d_d_x * (d_y - sum(d_y * y, d)) - d_y * s",
        "d_d_y = y * (d_d_x - s)",
    ]


def test_a_result_rounded_to_half_precision_is_not_used_where_the_operand_costs_no_more():
    backward = vjp(Case(tanh).program(float16)).backward
    assert [p.name for p in backward.params] == ["x", "d_y"]
    assert backward.results[0].dtype == float16


def test_what_is_stopped_stays_constant_in_the_second_derivative():
    second = vjp(vjp(Case(stopped).program(float32)).backward).backward
    assert lines(second) == ["d_d_y = d_d_x * stop_gradient(exp(x))", "d_x_2 = 0"]


def deep(x: Tile["d"]):
    for _ in range(150):
        x = tw.sin(x) * x + 1
    return x


def test_a_deep_expression_needs_no_deep_stack():
    assert len(vjp(Case(deep).program(float32)).backward.nodes()) > 300


def test_common_derivations_do_not_import_sympy():
    script = (
        "import sys, derivative_cases as d, tilewright.autograd.derive as a\n"
        "for f in (d.softmax, d.layer_norm, d.attention, d.gelu, d.matmul): a.vjp(d.Case(f).program())\n"
        "sys.exit('sympy' in sys.modules)"
    )
    path = os.pathsep.join(p for p in sys.path if p)
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONPATH": path})
