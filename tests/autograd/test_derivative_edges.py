"""Gradients where arithmetic is delicate: zeros, ties, infinities, masks, absent dependencies, many reads."""

from __future__ import annotations

import numpy as np
import pytest
from derivative_cases import Case, attention, cross_entropy, log_softmax, logsumexp, product, softmax

from tilewright.autograd.check import run_backward
from tilewright.autograd.derive import Derivative, vjp
from tilewright.dsl import language as tw
from tilewright.dsl.axes import Tile
from tilewright.dsl.dtypes import bfloat16, float16, float32, int64
from tilewright.dsl.verify import verify
from tilewright.op import op
from tilewright.op.derived import without_saved

inf = np.inf


def gradients(
    case: Case, cotangent: float | np.ndarray = 1.0, **arguments: np.ndarray
) -> dict[str, np.ndarray]:
    derivative = vjp(case.program())
    given = {name: np.asarray(value) for name, value in arguments.items()}
    shapes = {r.name: shape_of(derivative, r.axes, given) for r in derivative.forward.results}
    cotangents = {
        param: np.broadcast_to(np.asarray(cotangent, float), shapes[name])
        for name, param in derivative.cotangents
    }
    return run_backward(derivative, given, cotangents)


def shape_of(derivative: Derivative, axes: tuple[str, ...], given: dict[str, np.ndarray]) -> tuple[int, ...]:
    extents = {}
    for param in derivative.forward.tiles:
        extents |= dict(zip(param.axes, given[param.name].shape, strict=True))
    return tuple(extents[a] for a in axes)


# --- ties and kinks -----------------------------------------------------------------------------------------


def largest(x: Tile["... d"]):
    return tw.max(x, "d")


def smallest_of_all(x: Tile["m d"]):
    return tw.min(x)


def test_a_maximum_shares_among_ties():
    got = gradients(Case(largest), 3.0, x=[[1.0, 2.0, 2.0, 2.0], [5.0, 1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(got["d_x"], [[0, 1, 1, 1], [3, 0, 0, 0]])


def test_a_minimum_over_two_axes_shares_among_ties():
    got = gradients(Case(smallest_of_all), 1.0, x=[[0.0, 2.0], [0.0, 1.0]])
    np.testing.assert_array_equal(got["d_x"], [[0.5, 0], [0.5, 0]])


def test_a_nan_maximum_has_no_gradient():
    got = gradients(Case(largest), 1.0, x=[[1.0, np.nan, 2.0]])
    np.testing.assert_array_equal(got["d_x"], [[0, 0, 0]])


def relu_by_choice(x: Tile["d"]):
    return tw.where(x > 0, x, 0)


def relu_by_maximum(x: Tile["d"]):
    return tw.maximum(x, 0)


def test_relu_at_zero():
    points = [-1.0, 0.0, 1.0]
    np.testing.assert_array_equal(gradients(Case(relu_by_choice), x=points)["d_x"], [0, 0, 1])
    np.testing.assert_array_equal(gradients(Case(relu_by_maximum), x=points)["d_x"], [0, 0.5, 1])


def clipped(x: Tile["d"]):
    return tw.clip(x, -1, 1)


def test_clip_at_its_bounds():
    got = gradients(Case(clipped), x=[-inf, -1.0, 0.0, 1.0, 3.0, np.nan])["d_x"]
    np.testing.assert_array_equal(got, [0, 0.5, 1, 0.5, 0, 0])


@pytest.mark.parametrize("zeros", [0, 1, 2, 3])
def test_a_product_is_right_with_zeros(zeros: int):
    x = np.array([[2.0, 3.0, 5.0]])
    x[0, :zeros] = 0
    expected = [np.prod(np.delete(x[0], k)) for k in range(3)]
    np.testing.assert_array_equal(gradients(Case(product), x=x)["d_x"], [expected])


# --- nothing leaks from the branch that was not chosen ------------------------------------------------------


def safe_log(x: Tile["d"]):
    return tw.where(x > 0, tw.log(x), 0)


def safe_root(x: Tile["d"]):
    return tw.where(x > 0, tw.sqrt(x), 0) * 2


def safe_norm(x: Tile["m d"]):
    squares = tw.sum(x * x, "d")
    safe = tw.where(squares > 0, squares, 1)
    return tw.where(squares > 0, x * tw.rsqrt(safe), 0)


def test_masked_infinities_do_not_leak():
    np.testing.assert_array_equal(gradients(Case(safe_log), x=[0.0, -1.0, 2.0])["d_x"], [0, 0, 0.5])
    np.testing.assert_array_equal(gradients(Case(safe_root), x=[0.0, -1.0, 4.0])["d_x"], [0, 0, 0.5])


def test_a_safe_norm_has_a_zero_gradient_at_zero():
    got = gradients(Case(safe_norm), x=[[0.0, 0.0], [3.0, 4.0]])["d_x"]
    assert np.all(np.isfinite(got))
    np.testing.assert_array_equal(got[0], [0, 0])


def test_masked_entries_of_a_softmax_get_zero():
    x = np.array([[0.0, -inf, 1.0], [2.0, 2.0, -inf]])
    cotangent = np.array([[1.0, 2.0, 3.0], [1.0, -1.0, 5.0]])
    got = gradients(Case(softmax), cotangent, x=x)["d_x"]
    assert np.all(np.isfinite(got))
    np.testing.assert_array_equal(got[np.isinf(x)], 0)
    y = np.exp([0.0, 1.0]) / np.sum(np.exp([0.0, 1.0]))
    np.testing.assert_allclose(got[0, [0, 2]], y * ([1, 3] - np.sum([1, 3] * y)), rtol=1e-12)


def test_masked_entries_of_a_logsumexp_and_a_cross_entropy_get_zero():
    x = np.array([[0.0, -inf, 0.0]])
    np.testing.assert_allclose(gradients(Case(logsumexp), x=x)["d_x"], [[0.5, 0, 0.5]])
    labels = Case(cross_entropy, dtypes={"t": int64})
    np.testing.assert_allclose(gradients(labels, x=x, t=np.array([2]))["d_x"], [[0.5, 0, -0.5]])


def test_large_logits_stay_finite():
    x = np.array([[1e4, -1e4, 0.0]])
    np.testing.assert_array_equal(gradients(Case(logsumexp), x=x)["d_x"], [[1, 0, 0]])
    np.testing.assert_array_equal(gradients(Case(log_softmax), [[1.0, 0, 0]], x=x)["d_x"], [[0, 0, 0]])


def test_a_row_with_nothing_in_it_is_nan():
    """As torch has it: log Σ exp over -inf alone is -inf, and its gradient is NaN."""
    assert np.all(np.isnan(gradients(Case(logsumexp), x=[[-inf, -inf]])["d_x"]))


def test_a_causal_mask_gives_zeros_not_nans():
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((2, 3, 4)) for _ in range(3))
    got = gradients(Case(attention, {"causal": True}), q=q, k=k, v=v)
    assert all(np.all(np.isfinite(g)) for g in got.values())
    only_last = np.zeros((2, 3, 4))
    only_last[:, 0] = 1
    first = gradients(Case(attention, {"causal": True}), only_last, q=q, k=k, v=v)
    np.testing.assert_array_equal(first["d_k"][:, 1:], 0)


# --- what does not depend, what is read often ---------------------------------------------------------------


def ignores(x: Tile["m d"], z: Tile["k"]):
    return tw.sum(x, "d")


def counts(x: Tile["m d"]):
    return tw.sum(tw.where(x > 0, 1.0, 0.0), "d")


def cancels(x: Tile["m d"], z: Tile["m d"]):
    return (x + z) - x


def test_an_absent_dependency_gives_zeros_of_the_right_shape():
    got = gradients(Case(ignores), x=np.ones((2, 3)), z=np.ones(5))
    np.testing.assert_array_equal(got["d_z"], np.zeros(5))
    np.testing.assert_array_equal(gradients(Case(counts), x=np.ones((2, 3)))["d_x"], np.zeros((2, 3)))


def test_a_dependency_that_cancels_is_dropped():
    derivative = vjp(Case(cancels).program())
    assert derivative.backward.results[0].node.axes == ()
    np.testing.assert_array_equal(gradients(Case(cancels), x=np.ones((2, 3)), z=np.ones((2, 3)))["d_x"], 0)


def many_reads(x: Tile["i j"]):
    return tw.sum(x * x["j i"], "j") + x["i i"] + tw.sum(x["k i"], "k")


def test_several_reads_add_up():
    x = np.arange(9.0).reshape(3, 3)
    g = np.array([1.0, 2.0, 4.0])
    expected = (g[:, None] + g[None, :]) * x.T + np.diag(g) + g[None, :]
    np.testing.assert_allclose(gradients(Case(many_reads, extents={"j": 3}), g, x=x)["d_x"], expected)


def wider_result(x: Tile["d"], z: Tile["m d"]) -> Tile["m d"]:
    return x * 2


def test_a_result_broadcast_by_its_annotation():
    got = gradients(Case(wider_result), x=np.ones(3), z=np.ones((4, 3)))
    np.testing.assert_array_equal(got["d_x"], np.full(3, 8.0))


def operand_named_like_a_cotangent(x: Tile["m d"], d_y: Tile["m d"]):
    return tw.tanh(x) * d_y


def test_names_that_are_taken_get_a_number():
    derivative = vjp(Case(operand_named_like_a_cotangent).program())
    verify(derivative.backward)
    assert derivative.cotangents == (("y", "d_y_2"),)
    got = gradients(Case(operand_named_like_a_cotangent), 2.0, x=np.zeros((1, 2)), d_y=np.full((1, 2), 3.0))
    np.testing.assert_array_equal(got["d_x"], [[6, 6]])
    np.testing.assert_array_equal(got["d_d_y"], [[0, 0]])


@pytest.mark.parametrize("dtype", [float16, bfloat16, float32])
def test_gradients_have_the_operands_dtype_and_axes(dtype):
    program = Case(attention).program(dtype)
    backward = vjp(program).backward
    verify(backward)
    for param, result in zip(program.params, backward.results, strict=True):
        assert (result.axes, result.dtype) == (param.axes, param.dtype)


def mixed_precision(x: Tile["m k"], w: Tile["k n"], b: Tile["n"]):
    return tw.sum(x * w, "k") + b


def test_operands_of_several_dtypes():
    case = Case(mixed_precision, dtypes={"x": float16, "w": bfloat16, "b": float32})
    backward = vjp(case.program()).backward
    verify(backward)
    assert [r.dtype for r in backward.results] == [float16, bfloat16, float32]


def test_the_largest_over_batch_axes_has_a_gradient():
    @op
    def peak(x: Tile["... d"]):
        return tw.max(x, "... d")

    x = np.arange(12.0).reshape(2, 2, 3).transpose(1, 0, 2)
    gradient = np.zeros(12)
    gradient[11] = 1
    np.testing.assert_array_equal(peak.grad(x), gradient.reshape(2, 2, 3).transpose(1, 0, 2))


# --- positions that are computed ----------------------------------------------------------------------------


def dispatched(x: Tile["n d"], expert: Tile["n"], *, experts: int = 3):
    """Tokens in the order of their experts: how many came before is a sum along an axis that only it has."""
    chosen = tw.cast(expert == tw.axis("e", experts), int64)
    place = tw.sum((tw.cumsum(chosen, "n") - chosen) * chosen, "e")
    return tw.scatter_add(x, {"slot": expert * 4 + place}, 12)


def test_saved_positions_bring_the_extents_of_their_axes():
    derivative = vjp(Case(dispatched, dtypes={"expert": int64}).program())
    verify(without_saved(derivative), "the backward without saved values")


def mixture(x: Tile["n d"], gate: Tile["d e"], weight: Tile["e d f"]):
    value, place = tw.topk(tw.sum(x * gate, "d"), 2, "e", into="s")
    share = tw.exp(value - tw.logsumexp(value, "s"))
    return tw.sum(tw.sum(x * weight.at(e=place), "d") * share, "s")


def test_positions_are_saved_beside_values():
    derivative = vjp(Case(mixture).program())
    assert any(p.dtype == int64 for p in derivative.backward.tiles)
