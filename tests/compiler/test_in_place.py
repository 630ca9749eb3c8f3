"""Which results may be written over which operands: one test a rule of `compiler/in_place.py`."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tilewright.compiler.in_place import deliver, replaceable
from tilewright.compiler.pipeline import lower


def pairs_of(op: tw.Op, *shapes: tuple[int, ...]) -> set[tuple[str, str]]:
    arrays = tuple(np.ones(shape, np.float32) for shape in shapes)
    return set(replaceable(lower(op.bind(op.arguments(arrays, {})).program)))


def test_pointwise_results_replace_what_is_read_at_their_positions():
    @tw.op
    def blend(x: tw.Tile["n d"], y: tw.Tile["n d"], w: tw.Tile["d"]):
        return x * y * w, x + y

    (first, second) = ("y0", "y1")
    pairs = pairs_of(blend, (4, 8), (4, 8), (8,))
    assert pairs == {(r, o) for r in (first, second) for o in ("x", "y")}


def test_an_operand_that_is_read_elsewhere_stays():
    @tw.op
    def symmetric(x: tw.Tile["i j"], y: tw.Tile["i j"]):
        return x + x["j i"] + y

    assert {operand for _, operand in pairs_of(symmetric, (8, 8), (8, 8))} == {"y"}


def test_a_transposed_result_does_not_replace_the_operand():
    @tw.op
    def transposed(x: tw.Tile["i j"]) -> tw.Tile["j i"]:
        return x * 2

    assert pairs_of(transposed, (8, 8)) == set()


def test_a_row_is_replaced_in_the_last_phase_that_reads_it():
    @tw.op
    def soften(x: tw.Tile["n d"]):
        e = tw.exp(x - tw.max(x, "d"))
        return e / tw.sum(e, "d")

    @tw.op
    def doubled_and_normalised(x: tw.Tile["n d"]):
        return x * 2, x - tw.mean(x, "d")

    assert {operand for _, operand in pairs_of(soften, (4, 8))} == {"x"}
    doubled, normalised = pairs_by_result(doubled_and_normalised, (4, 8))
    assert normalised == {"x"}
    assert doubled == set()  # stored while the mean is still being read for the next phase


def pairs_by_result(op: tw.Op, *shapes: tuple[int, ...]) -> list[set[str]]:
    pairs = pairs_of(op, *shapes)
    arrays = tuple(np.ones(shape, np.float32) for shape in shapes)
    results = op.bind(op.arguments(arrays, {})).program.results
    return [{operand for name, operand in pairs if name == r.name} for r in results]


def test_one_value_a_row_replaces_what_is_read_once_a_row():
    @tw.op
    def shifted_sum(x: tw.Tile["n d"], shift: tw.Tile["n"]):
        return tw.sum(x, "d") + shift

    assert {operand for _, operand in pairs_of(shifted_sum, (4, 8), (4,))} == {"shift"}


def test_a_product_replaces_what_its_epilogue_reads_and_no_side():
    @tw.op
    def add_product(a: tw.Tile["m k"], b: tw.Tile["k n"], c: tw.Tile["m n"]):
        return tw.sum(a * b, "k") + c

    assert {operand for _, operand in pairs_of(add_product, (8, 8), (8, 8), (8, 8))} == {"c"}


def test_a_side_that_the_epilogue_reads_too_stays():
    @tw.op
    def power_step(a: tw.Tile["m k"]):
        return tw.sum(a * a["k n"], "k") + a["m n"]

    assert pairs_of(power_step, (8, 8)) == set()


def test_what_a_later_kernel_reads_stays():
    @tw.op
    def two(x: tw.Tile["i j"], y: tw.Tile["i j"], w: tw.Tile["j k"]):
        scaled = x * y
        return scaled, tw.sum((x + 1) * w, "j")

    scaled, _ = pairs_by_result(two, (8, 8), (8, 8), (8, 8))
    assert "x" not in scaled


def test_what_is_read_at_computed_positions_stays():
    @tw.op
    def smoothed(x: tw.Tile["n"], y: tw.Tile["n"]):
        return x.at(n=tw.maximum(tw.index("n") - 1, 0)) + x + y

    assert {operand for _, operand in pairs_of(smoothed, (8,), (8,))} == {"y"}


def test_a_scatter_replaces_nothing():
    @tw.op
    def gathered_sums(x: tw.Tile["n d"], base: tw.Tile["n d"], ids: tw.Tile["n"]):
        return tw.scatter_add(x + base, {"n": tw.cast(ids, tw.int64)}, tw.size("n"))

    assert pairs_of(gathered_sums, (8, 4), (8, 4), (8,)) == set()


def test_a_kernel_that_keeps_partial_sums_replaces_nothing():
    @tw.op
    def weight_gradient(x: tw.Tile["n d"], dy: tw.Tile["n d"]):
        scale = tw.rsqrt(tw.mean(x * x, "d"))
        return dy * scale, tw.sum(dy * x * scale, "n")

    rows, _ = pairs_by_result(weight_gradient, (64, 8), (64, 8))
    assert rows == set()


def test_what_only_earlier_kernels_read_can_be_replaced():
    @tw.op
    def chain(a: tw.Tile["m k"], b: tw.Tile["k n"], w: tw.Tile["n j"]):
        return tw.sum(tw.exp(tw.sum(a * b, "k")) * w, "n")

    assert {operand for _, operand in pairs_of(chain, (8, 8), (8, 8), (8, 8))} == {"a", "b"}


@pytest.mark.parametrize("wanted", [None, "same", "other"])
def test_delivery(wanted: str | None):
    result = np.arange(3.0)
    place = {None: None, "same": result, "other": np.zeros(3)}[wanted]
    (delivered,) = deliver([result], [place])
    assert delivered is (result if place is None else place)
    np.testing.assert_array_equal(delivered, [0, 1, 2])
