"""`op.explain`: what must be on the page, for each kind of kernel."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tilewright as tw
from tilewright.op.costs import Amount, quantity


@tw.op
def softmax(x: tw.Tile["... d"]):
    """e^x / Σ e^x, along d."""
    e = tw.exp(x - tw.max(x, "d"))
    return e / tw.sum(e, "d")


@tw.op
def scaled(x: tw.Tile["... d"], weight: tw.Tile["d"], *, eps: float = 1e-6):
    return x * tw.rsqrt(tw.mean(x * x, "d") + eps) * weight


@tw.op
def linear_gelu(x: tw.Tile["... k"], w: tw.Tile["n k"], b: tw.Tile["n"]):
    h = tw.sum(x * w, "k") + b
    return 0.5 * h * (1 + tw.erf(h / math.sqrt(2)))


@tw.op
def linear_relu(x: tw.Tile["... k"], w: tw.Tile["n k"], b: tw.Tile["n"]):
    return tw.maximum(tw.sum(x * w, "k") + b, 0)


@tw.op
def positions(x: tw.Tile["n"]):
    return tw.argmax(x, "n")


@tw.op
def total(x: tw.Tile["n"]):
    return tw.sum(x * x)


@tw.op
def embedding(table: tw.Tile["row d"], ids: tw.Tile["n"]):
    return table.at(row=ids)


def test_the_page_has_signature_mathematics_gradient_and_kernels():
    text = softmax.explain((64, 128))
    for line in (
        "softmax(x: [... d])",
        "e^x / Σ e^x, along d.",
        "x: float32 [_0=64 d=128]",
        "y = e / sum(e, d)",
        "d_x = y * (d_y - sum(d_y * y, d))",
        "The backward reads the result y",
        "Forward: 1 kernel, 65.5 kB moved (1.00 × the fewest possible)",
        "for each row _0=64: 3 phases over d=128",
        "max1 = max(x, d)",
        "Backward: 1 kernel",
    ):
        assert line in text


def test_values_kept_between_phases_are_named():
    lines = [line.strip() for line in softmax.explain((64, 128)).splitlines()]
    assert "2     kept1 = exp(x - max1)" in lines
    assert "3     y = kept1 / sum1" in lines
    assert any("kept… values stay in the thread's own memory" in line for line in lines)


def test_a_contraction_names_its_groups_of_axes_and_its_epilogue():
    text = " ".join(linear_gelu.explain((128, 64), (256, 64), (256,)).split())
    assert "tiles of _0=128 by n=256, each summed over k=64" in text
    assert "_0 (m) is on the left alone and n (n) on the right alone" in text
    assert "what follows the sum (y) is applied to the finished tile in registers" in text
    assert "keeps saved_0 = sum(x * w, k) + b, which is dearer to compute again" in text
    assert "2·_0·n·k" in text


def test_what_is_dear_is_computed_once_and_what_is_not_while_it_is_packed():
    text = " ".join(linear_gelu.explain((128, 64), (256, 64), (256,)).split())
    assert "linear_gelu_backward_0: d_y, saved_0 → d_b, t3" in text
    assert "computes t3 for linear_gelu_backward_1 and linear_gelu_backward_2" in text
    assert "is computed while it is packed" not in text
    text = " ".join(linear_relu.explain((128, 64), (256, 64), (256,)).split())
    assert "the right factor is computed while it is packed" in text


def test_a_sum_across_rows_is_partial_results_and_a_finishing_kernel():
    text = " ".join(scaled.explain((512, 64), (64,)).split())
    assert "partial0 +=" in text
    assert "each of the 64 row groups of _0 adds up its own" in text
    assert "d_weight = sum(partial0, row groups of _0)" in text
    assert "reads partial0, which scaled_backward_0 leaves in memory" in text


def test_a_reduction_of_everything_is_cut_into_chunks():
    text = " ".join(total.explain((1_000_000,)).split())
    assert "a reduction of everything, cut into 62 chunks of n" in text
    assert "one pass over 62 chunks of n" in text


def test_leading_axes_that_are_merged_are_explained():
    assert "_0 is 2 leading axes (4, 16) as one" in softmax.explain((4, 16, 32))


def test_an_op_without_a_gradient_says_why():
    assert "Gradient: none" in positions.explain((64,))
    assert "no floating-point result" in positions.explain((64,))


def test_arrays_and_shapes_explain_alike():
    assert softmax.explain(np.zeros((8, 32), np.float32)) == softmax.explain((8, 32))


def test_run_time_scalars_are_no_tiles():
    @tw.op
    def shifted(x: tw.Tile["n"], *, by: tw.Scalar = 1.0):
        return x + by

    assert "by: float32 a number, passed at run time" in shifted.explain((16,))


def test_lines_are_not_wider_than_a_page():
    assert max(map(len, linear_gelu.explain((128, 64), (256, 64), (256,)).splitlines())) <= 110


def test_a_wrong_call_fails_as_a_call_does():
    with pytest.raises(tw.errors.ShapeError, match="axis 'k' is 64 in x"):
        linear_gelu.explain((128, 64), (256, 65), (256,))


def test_amounts_are_formulas_and_numbers():
    amount = Amount.of([(4, ("m", "k")), (4, ("k", "n")), (4, ("m", "k"))])
    assert str(amount) == "8·m·k + 4·k·n"
    assert amount.number({"m": 2, "k": 3, "n": 5}) == 48 + 60
    assert str(Amount.of([(4, ())])) == "4"
    assert str(Amount.of([])) == "0"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (123_456, "123 kB"), (2.5e12, "2.5 TB")],
)
def test_quantities(number: float, text: str):
    assert quantity(number, "B") == text


def test_a_scatter_says_who_adds_up_what_and_in_which_order():
    text = " ".join(embedding.explain((50, 8), np.zeros((6,), np.int64)).split())
    assert "scatter kernel embedding_backward_0: ids, d_y → d_table" in text
    assert "for each d=8: row=50 start at 0, then one pass over n=6 adds each value at its place" in text
    assert "d_table = scatter_add(d_y, row=ids)" in text
    assert "in the order of n (no atomics)" in text
    assert "cost 8·n + 4·n·d + 4·row·d = 1.84 kB, n·d = 48 FLOP" in text
    assert "every lane adds to places of its own" in text


def test_an_operand_that_is_read_where_another_says_costs_what_is_read():
    text = " ".join(embedding.explain((50, 8), np.zeros((6,), np.int64)).split())
    assert "reads table at computed positions along row; outside it is 0, and not touched" in text
    assert "cost 8·n·d + 8·n = 432 B, no arithmetic" in text
    assert "Forward: 1 kernel, 432 B moved (1.00 × the fewest possible)" in text
