"""What functions that jump look at is one value, however many kernels and Programs have to do with it."""

from __future__ import annotations

from collections import Counter

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tests.support.checks import assert_close, assert_gradients_right, backward_of, targets
from tilewright.autograd.derive import vjp
from tilewright.compiler.nest import Plan, evaluated
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.triton.binaries import may_contract
from tilewright.dsl.jumps import chooses, depends_on_order, jumps
from tilewright.dsl.program import Node

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


@tw.op
def largest_scaled(x: tw.Tile["b n"]):
    return tw.max(x * 0.3, "n")


@tw.op
def largest_of_sums(x: tw.Tile["b n r"], k: tw.Tile["r"]):
    return tw.max(tw.sum(x * k, "r"), "n")


@tw.op
def largest_of_products(x: tw.Tile["b n r"], k: tw.Tile["r m"]):
    return tw.max(tw.abs(tw.sum(x * k, "r")), "n")


@tw.op
def scaled_and_largest(x: tw.Tile["b n"]):
    """In half precision several elements of y may round to the largest one."""
    y = x * 0.3 + 1
    return y, tw.max(y, "n")


@tw.op
def window_energy(x: tw.Tile["... t"], k: tw.Tile["r"]):
    y = tw.sum(x.at(t=tw.index("t") + tw.index("r")) * k, "r")
    return y * y / (1 + tw.max(tw.abs(y), "t"))


@tw.op
def largest_of_steps(x: tw.Tile["n t c"], k: tw.Tile["o r c"], b: tw.Tile["n o"]):
    """The gradient of x looks at y at other positions: where it is not to be added up anew."""
    u = tw.axis("u", tw.size("t") // 2 + 3)
    return tw.max(tw.sum(x.at(t=2 * u + 3 * tw.index("r") - 4) * k, "r c") + b, "u")


@tw.op
def additive_scores(q: tw.Tile["b n d"], v: tw.Tile["d"]):
    score = tw.sum(tw.tanh(q) * v, "d")
    return score / tw.max(score, "n"), tw.min(score, "n")


@tw.op
def winners(x: tw.Tile["b n d"], v: tw.Tile["d"]):
    """Which rows are the largest: a comparison in the op itself."""
    score = tw.sum(tw.exp(x) * v, "d")
    return tw.where(score == tw.max(score, "n"), score * score, 0)


@tw.op
def shared_ranks(x: tw.Tile["n d"]):
    """How many rows are no larger, the row itself counted: a value under two names for its axis."""
    y = tw.sum(x * x, "d")
    return tw.sum(tw.where(y["m"] <= y, y["m"], 0), "m")


@tw.op
def levels(x: tw.Tile["b n d"], *, count: int = 7):
    y = tw.sum(tw.abs(x), "d")
    return tw.floor(y / tw.max(y, "n") * count) * y


OPS = [
    (largest_scaled, ((4, 37),)),
    (largest_of_sums, ((4, 37, 19), (19,))),
    (largest_of_products, ((4, 37, 19), (19, 5))),
    (scaled_and_largest, ((4, 37),)),
    (window_energy, ((3, 21), (5,))),
    (largest_of_steps, ((3, 29, 5), (17, 4, 5), (3, 17))),
    (additive_scores, ((3, 21, 17), (17,))),
    (winners, ((3, 21, 17), (17,))),
    (shared_ranks, ((29, 33),)),
    (levels, ((3, 21, 33),)),
]
CASES = [pytest.param(op, shapes, id=op.name) for op, shapes in OPS]


def arguments(shapes, dtype) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def check_gradients(op, shapes, dtype, target: str) -> None:
    call = op.bind(op.arguments(arguments(shapes, dtype), {}))
    narrow = np.dtype(dtype).itemsize == 2
    tolerance = (2.0**10 if dtype == np.float16 else 2.0**13) if narrow else 64
    assert_gradients_right(call.program, call.arrays, target, tolerance, f"{op.name} on {target}")


@pytest.mark.parametrize(("op", "shapes"), CASES)
@pytest.mark.everyday(5)
def test_gradients_find_what_was_chosen(op, shapes):
    for dtype in (np.float16, np.float64):
        check_gradients(op, shapes, dtype, "cpu")


@pytest.mark.parametrize(("op", "shapes"), CASES)
def test_gradients_find_what_was_chosen_in_the_interpreter(op, shapes):
    check_gradients(op, shapes, np.float32, targets()[-1])


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", targets())
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize(("op", "shapes"), CASES)
def test_gradients_find_what_was_chosen_everywhere(op, shapes, dtype, target):
    check_gradients(op, shapes, dtype, target)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_gradients_of_tensors_find_what_was_chosen(dtype):
    x, k = arguments(((4, 37, 19), (19,)), dtype)
    tensor = tw.tensor(x, requires_grad=True)
    tw.sum(largest_of_sums(tensor, tw.tensor(k))).backward()
    score = (x.astype(np.float64) * k.astype(np.float64)).sum(-1)
    chosen = score == score.max(1, keepdims=True)
    expected = chosen[..., None] * k.astype(np.float64)
    assert_close(tensor.grad.numpy(), expected, 2, "gradient of the largest sum")


def makers(plan: Plan) -> Counter[Node]:
    """How many kernels compute each value below a jump whose last bits depend on the kernel."""
    found = [set(evaluated(kernel.leading)) for kernel in plan.kernels]
    looking = [n for nodes in found for n in nodes if jumps(n) or chooses(n)]
    watched = {n for n in evaluated(a for n in looking for a in n.args) if depends_on_order(n)}
    return Counter(n for nodes in found for n in nodes & watched)


@pytest.mark.parametrize(("op", "shapes"), CASES)
def test_one_kernel_computes_what_a_jump_looks_at(op, shapes):
    call = op.bind(op.arguments(arguments(shapes, np.float32), {}))
    backward = backward_of(call.program)
    for program in (call.program, backward, backward_of(backward)):
        assert set(makers(lower(program)).values()) <= {1}


def test_a_narrowed_result_is_not_compared_with_what_it_came_from():
    call = largest_scaled.bind(largest_scaled.arguments([np.ones((4, 37), np.float16)], {}))
    assert vjp(call.program).saved == ()


def test_a_mask_of_a_narrowed_result_is_read_from_it():
    """relu's derivative looks at its result alone: there is nothing to disagree with."""

    @tw.op
    def dense_relu(x: tw.Tile["m k"], w: tw.Tile["k n"]):
        return tw.maximum(tw.sum(x * w, "k"), 0)

    x, w = np.ones((4, 37), np.float16), np.ones((37, 3), np.float16)
    derivative = vjp(dense_relu.bind(dense_relu.arguments([x, w], {})).program)
    assert derivative.saved


def test_kernels_that_choose_or_look_for_the_chosen_round_every_product():
    def contracting(op, *shapes) -> list[bool]:
        call = op.bind(op.arguments(arguments(shapes, np.float32), {}))
        return [may_contract(k) for p in (call.program, backward_of(call.program)) for k in lower(p).kernels]

    @tw.op
    def squared(x: tw.Tile["n"]):
        return tw.where(x > 0, x * x + x, 0)

    assert not any(contracting(largest_scaled, (4, 37)))
    assert all(contracting(squared, (37,)))
