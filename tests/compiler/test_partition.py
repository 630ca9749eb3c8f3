"""How Programs are cut into kernels: one test a rule of `compiler/partition.py`, read off the plan."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support.checks import targets
from tilewright.autograd.derive import vjp
from tilewright.compiler.contraction import factorise, recognise
from tilewright.compiler.nest import Plan
from tilewright.compiler.pipeline import compile_program, lower
from tilewright.dsl.program import Map, Reduce
from tilewright.dsl.reference import reference
from tilewright.dsl.scalars import DEAR


def plan_of(op: tw.Op, *shapes: tuple[int, ...], **keywords: object) -> Plan:
    arrays = [np.ones(shape, np.float32) for shape in shapes]
    return lower(op.bind(op.arguments(tuple(arrays), keywords)).program)


def kinds(plan: Plan) -> list[str]:
    return [kernel.kind for kernel in plan.kernels]


@tw.op
def soften(x: tw.Tile["... d"]):
    e = tw.exp(x - tw.max(x, "d"))
    return e / tw.sum(e, "d")


@tw.op
def product(a: tw.Tile["... m k"], b: tw.Tile["... k n"]):
    return tw.sum(a * b, "k")


def test_phases_of_one_row_share_a_kernel():
    (kernel,) = plan_of(soften, (4, 8)).kernels
    assert [len(phase.reductions) for phase in kernel.phases] == [1, 1, 0]
    assert [len(phase.stores) for phase in kernel.phases] == [0, 0, 1]


def test_reductions_of_one_phase_share_its_loop():
    @tw.op
    def moments(x: tw.Tile["n d"]):
        return tw.sum(x, "d"), tw.sum(x * x, "d"), tw.max(x, "d")

    (kernel,) = plan_of(moments, (4, 8)).kernels
    assert [len(phase.reductions) for phase in kernel.phases] == [3]


def test_a_product_and_a_sum_is_a_contraction():
    (kernel,) = plan_of(product, (3, 4, 8), (3, 8, 5)).kernels
    assert kernel.contraction is not None
    contraction = kernel.contraction
    assert (contraction.batch, contraction.m, contraction.n, contraction.k) == (
        ("_0",),
        ("m",),
        ("n",),
        ("k",),
    )


@pytest.mark.parametrize("count", [2, 3])
def test_epilogue_joins_the_contraction(count: int):
    @tw.op
    def layer(x: tw.Tile["m k"], w: tw.Tile["n k"], b: tw.Tile["n"]):
        z = tw.sum(x * w, "k") + b
        return (z, tw.tanh(z)) if count == 2 else (z, tw.tanh(z), z * z)

    plan = plan_of(layer, (4, 8), (5, 8), (5,))
    assert kinds(plan) == ["contraction"]
    assert len(plan.kernels[0].outputs) == count
    assert not plan.intermediates


def test_prologue_stays_in_the_contraction():
    @tw.op
    def scaled(x: tw.Tile["m k"], w: tw.Tile["k n"], s: tw.Tile["k"]):
        return tw.sum(tw.exp(x) * s * w, "k")

    assert kinds(plan_of(scaled, (4, 8), (8, 5), (8,))) == ["contraction"]


def test_sums_without_two_sides_are_rows():
    @tw.op
    def weigh(x: tw.Tile["m k"], w: tw.Tile["k"]):
        return tw.sum(x * w, "k")

    assert kinds(plan_of(weigh, (4, 8), (8,))) == ["row"]


def test_masked_product_is_a_contraction():
    @tw.op
    def masked(p: tw.Tile["i j"], v: tw.Tile["j e"]):
        return tw.sum(tw.where(tw.index("i") >= tw.index("j"), p * v, 0), "j")

    assert kinds(plan_of(masked, (4, 4), (4, 5))) == ["contraction"]


@pytest.mark.parametrize("target", targets())
def test_a_mask_hides_every_factor_that_has_its_axes(target: str):
    @tw.op
    def masked(p: tw.Tile["i j"], q: tw.Tile["i j"], v: tw.Tile["j e"]):
        return tw.sum(tw.where(tw.index("i") >= tw.index("j"), p * v * q, 0), "j")

    p, q, v = np.ones((3, 3), np.float32), np.ones((3, 3), np.float32), np.ones((3, 2), np.float32)
    p[0, 1], q[1, 2] = np.nan, np.inf
    call = masked.bind(masked.arguments((p, q, v), {}))
    assert kinds(lower(call.program)) == ["contraction"]
    (y,) = compile_program(call.program, target).run(call.arrays)
    np.testing.assert_array_equal(y, [[1, 1], [2, 2], [3, 3]])


def test_a_mask_that_is_told_the_other_way_round_is_one():
    @tw.op
    def masked(p: tw.Tile["i j"], v: tw.Tile["j e"]):
        return tw.sum(tw.where(p <= 0, 0, p * v), "j")

    assert kinds(plan_of(masked, (4, 4), (4, 5))) == ["contraction"]


@pytest.mark.parametrize("target", targets())
def test_a_divided_product_is_a_contraction(target: str):
    """The divisor has the axes of one side or the other, of what is summed alone, or is a side."""

    @tw.op
    def divided(p: tw.Tile["i j"], v: tw.Tile["j e"], a: tw.Tile["i j"], b: tw.Tile["j e"], c: tw.Tile["j"]):
        alone = tw.sum((p + 1) * v / (1 + c), "j"), tw.sum(p / b, "j")
        return tw.sum(p * v / a, "j"), tw.sum(p * v / b, "j"), *alone

    rng = np.random.default_rng(0)
    operands = [rng.uniform(1, 2, shape) for shape in ((5, 7), (7, 6), (5, 7), (7, 6), (7,))]
    call = divided.bind(divided.arguments(tuple(operands), {}))
    assert kinds(lower(call.program)) == ["contraction"] * 4
    expected = reference(call.program, call.arrays)
    for found, wanted in zip(compile_program(call.program, target).run(call.arrays), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize("target", targets())
def test_a_mask_guards_against_a_division_by_zero(target: str):
    """By something that the factor which a divisor would go to does not know."""

    @tw.op
    def guarded(x: tw.Tile["m k"], w: tw.Tile["k n"], d: tw.Tile["k"], c: tw.Tile["m k"]):
        computed = tw.sum(tw.where(c * d > 0, x * (w + 1) / d, 0), "k")
        alone = tw.sum(tw.where(c <= 0, 0, x / w), "k")
        both = tw.sum(tw.where(c > 0, tw.where(d > 0, x * tw.exp(w) / d, 0), 0), "k")
        return computed, alone, both, tw.sum(tw.where(c * d > 0, x * w * tw.rsqrt(d), 0), "k")

    rng = np.random.default_rng(0)
    x, w, d, c = (rng.uniform(1, 2, shape) for shape in ((5, 7), (7, 6), (7,), (5, 7)))
    d[3], w[4], c[:, 4] = 0, 0, 0
    call = guarded.bind(guarded.arguments((x, w, d, c), {}))
    expected = reference(call.program, call.arrays)
    assert all(np.isfinite(wanted).all() for wanted in expected)
    for found, wanted in zip(compile_program(call.program, target).run(call.arrays), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
    assert kinds(lower(call.program)) == ["contraction", "row", *["contraction"] * 2]


def test_every_factor_under_a_mask_counts():
    """Among them one twice, and one that the other sides' factors have the axes of."""

    @tw.op
    def squares(x: tw.Tile["m k"], w: tw.Tile["k n"], d: tw.Tile["k"], c: tw.Tile["m k"]):
        return tw.sum(tw.where(c > 0, d * x * w * x * d, 0), "k")

    rng = np.random.default_rng(0)
    operands = tuple(rng.standard_normal(shape) for shape in ((5, 7), (7, 6), (7,), (5, 7)))
    call = squares.bind(squares.arguments(operands, {}))
    assert kinds(lower(call.program)) == ["contraction"]
    (expected,) = reference(call.program, call.arrays)
    (found,) = compile_program(call.program).run(call.arrays)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_what_every_factor_lacks_divides_the_sum_as_it_stands():
    """A divisor that has the axes of no factor makes rows of a product."""

    @tw.op
    def divided(p: tw.Tile["i j"], v: tw.Tile["j e"], a: tw.Tile["i j e"]):
        return tw.sum(p * v / a, "j")

    assert kinds(plan_of(divided, (4, 5), (5, 6), (4, 5, 6))) == ["row"]


FORMULAS = {
    "relu": lambda y: tw.where(y <= 0, 0, y),
    "maximum": lambda y: tw.maximum(y, 0),
    "softsign": lambda y: y / (1 + tw.abs(y)),
    "bell": lambda y: y / (1 + y * y),
    "log of exp": lambda y: tw.log(1 + tw.exp(-y)),
    "log of abs": lambda y: tw.log(tw.abs(y) + 1),
    "root": lambda y: tw.sqrt(1 + y * y),
    "clipped": lambda y: tw.minimum(tw.maximum(y, -1), 1),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_of_what_follows_a_product_are_contractions(name: str):
    @tw.op
    def product(x: tw.Tile["m k"], w: tw.Tile["k n"], s: tw.Tile["n"]):
        return FORMULAS[name](tw.sum(x * w, "k")) / s

    @tw.op
    def windows(x: tw.Tile["n t c"], w: tw.Tile["o r c"], s: tw.Tile["o"]):
        return FORMULAS[name](tw.sum(x.at(t=tw.index("t") + tw.index("r") - 1) * w, "r c")) / s

    for op, shapes in ((product, ((9, 5), (5, 7), (7,))), (windows, ((2, 9, 5), (7, 3, 5), (7,)))):
        call = op.bind(op.arguments(tuple(np.ones(shape, np.float32) for shape in shapes), {}))
        backward = vjp(call.program, wrt=("x", "w")).backward
        assert kinds(lower(backward)).count("contraction") == 2
        assert "row" not in kinds(lower(backward))


@tw.op
def activated(x: tw.Tile["m k"], w: tw.Tile["k n"], v: tw.Tile["k p"], s: tw.Tile["k"]):
    h = tw.sigmoid(x) * tw.exp(s)
    return tw.sum(h * w, "k"), tw.sum(h * v, "k")


@tw.op
def crossed(x: tw.Tile["m k"], w: tw.Tile["k n"], v: tw.Tile["m p"]):
    h = tw.tanh(x)
    return tw.sum(h * w, "k"), tw.sum(h * v, "m")


@tw.op
def cheap(x: tw.Tile["m k"], w: tw.Tile["k n"], v: tw.Tile["k p"]):
    h = tw.maximum(2 * x, 1) / 3
    return tw.sum(h * w, "k"), tw.sum(h * v, "k")


@tw.op
def alone(x: tw.Tile["m k"], w: tw.Tile["k n"]):
    return tw.sum(tw.exp(x) * tw.exp(w), "k")


SHARING = {
    "outermost": (activated, ((9, 20), (20, 17), (20, 3), (20,)), ["pointwise", *["contraction"] * 2]),
    "sums of both axes": (crossed, ((9, 20), (20, 17), (9, 3)), ["pointwise", *["contraction"] * 2]),
    "cheap": (cheap, ((9, 20), (20, 17), (20, 3)), ["contraction"] * 2),
    "one contraction": (alone, ((9, 20), (20, 17)), ["contraction"]),
}


@pytest.mark.parametrize("target", targets())
@pytest.mark.parametrize("name", SHARING)
def test_what_several_contractions_compute_is_computed_once_if_it_is_dear(name: str, target: str):
    op, shapes, expected = SHARING[name]
    rng = np.random.default_rng(0)
    call = op.bind(op.arguments(tuple(rng.standard_normal(shape) for shape in shapes), {}))
    plan = lower(call.program)
    assert sorted(kinds(plan), reverse=True) == expected
    computed = {p.name for k in plan.kernels for p in k.tiles} - {p.name for p in call.program.tiles}
    assert computed == {o.buffer.name for k in plan.kernels if k.kind == "pointwise" for o in k.outputs}
    wanted = reference(call.program, call.arrays)
    for found, value in zip(compile_program(call.program, target).run(call.arrays), wanted, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["linear", "masked"])
def test_gradients_of_a_product_share_the_slope_of_what_follows(name: str):
    """And the sum of a bias's gradient reads it, too: no kernel computes what another has."""

    @tw.op
    def linear(x: tw.Tile["m k"], w: tw.Tile["n k"], b: tw.Tile["n"]):
        y = tw.sum(x * w, "k") + b
        return y * tw.sigmoid(y)

    @tw.op
    def masked(x: tw.Tile["m k"], w: tw.Tile["n k"], b: tw.Tile["n"]):
        y = tw.sum(x * w, "k") + b
        return tw.where(tw.index("m") > tw.index("n"), tw.softplus(y), 0)

    op = {"linear": linear, "masked": masked}[name]
    call = op.bind(op.arguments(tuple(np.ones(s, np.float32) for s in ((9, 5), (7, 5), (7,))), {}))
    plan = lower(vjp(call.program).backward)
    assert sorted(kinds(plan)) == ["contraction", "contraction", "row"]
    elementary = [
        k.name for k in plan.kernels for n in k.nodes() if isinstance(n, Map) and n.function in DEAR
    ]
    assert set(elementary) == {k.name for k in plan.kernels if k.kind == "row"}


def test_three_factors_become_two_contractions_with_the_same_meaning():
    @tw.op
    def chain(a: tw.Tile["i k"], b: tw.Tile["k l"], c: tw.Tile["l j"]):
        return tw.sum(a * b * c, "k l")

    assert kinds(plan_of(chain, (3, 4), (4, 5), (5, 2))) == ["contraction", "contraction"]
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s) for s in ((3, 4), (4, 5), (5, 2))]
    call = chain.bind(chain.arguments(tuple(arrays), {}))
    factored = call.program.with_results(factorise(tuple(r.node for r in call.program.results)))
    (expected,), (actual,) = reference(call.program, call.arrays), reference(factored, call.arrays)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_reduction_of_everything_is_split_and_finished():
    @tw.op
    def total(x: tw.Tile["..."]):
        return tw.sum(x, "...")

    first, second = plan_of(total, (100,)).kernels
    assert first.split is not None and first.split.of == "row"
    assert second.parallel == () and second.row == (first.split.axis,)


def test_reduction_across_rows_joins_the_kernel_that_reads_them():
    @tw.op
    def both(x: tw.Tile["n d"], g: tw.Tile["n d"]):
        return g * x - tw.mean(g * x, "d"), tw.sum(g * x, "n")

    plan = plan_of(both, (6, 8), (6, 8))
    first = plan.kernels[0]
    assert first.split is not None and first.split.of == "parallel"
    assert [bool(o.accumulate) for o in first.outputs] == [False, True]
    assert len(plan.kernels) == 2, "one pass over the data and one finishing kernel"


def test_a_divisor_leaves_a_sum_so_that_the_sum_need_not_wait_for_it():
    @tw.op
    def capped(x: tw.Tile["n d"]):
        s = 30 * tw.tanh(x / 30)
        e = tw.exp(s - tw.max(s, "d"))
        return e / tw.sum(e, "d")

    forward = capped.bind(capped.arguments((np.ones((4, 8), np.float32),), {})).program
    (kernel,) = lower(vjp(forward).backward).kernels
    assert len(kernel.phases) == 3, "the maximum, both sums, the gradient"


def test_independent_rows_of_another_shape_are_another_kernel():
    @tw.op
    def two_ways(x: tw.Tile["n d"]):
        return tw.max(x, "d"), tw.max(x, "n")

    assert len(plan_of(two_ways, (6, 8)).kernels) >= 2


def test_row_values_go_through_memory_whole():
    @tw.op
    def loss(x: tw.Tile["b c"], t: tw.Tile["b c"]):
        return tw.sum(tw.logsumexp(x, "c") - tw.sum(x * t, "c"), "b")

    plan = plan_of(loss, (6, 8), (6, 8))
    assert next(b.axes for b in plan.intermediates) == ("b",)
    assert len(plan.kernels[0].outputs) == 1


def test_pointwise_results_of_one_shape_share_a_kernel():
    @tw.op
    def step(p: tw.Tile["..."], g: tw.Tile["..."], m: tw.Tile["..."]):
        m2 = 0.9 * m + 0.1 * g
        return p - 0.1 * m2, m2

    (kernel,) = plan_of(step, (7,), (7,), (7,)).kernels
    assert len(kernel.outputs) == 2


def test_unrelated_pointwise_results_stay_apart():
    @tw.op
    def apart(a: tw.Tile["n"], b: tw.Tile["m"]):
        return a * 2, b * 3

    assert len(plan_of(apart, (7,), (5,)).kernels) == 2


def test_recognise_wants_both_sides_along_every_summed_axis():
    @tw.op
    def partial(a: tw.Tile["i k l"], b: tw.Tile["k j"]):
        return tw.sum(a * b, "k l")

    program = partial.bind(partial.arguments((np.ones((2, 3, 4)), np.ones((3, 5))), {})).program
    (result,) = program.results
    assert isinstance(result.node, Reduce) and recognise(result.node) is None
    assert "contraction" in kinds(lower(program))


def test_a_reduction_across_rows_that_holds_a_reduction_of_everything():
    """The second one is replaced inside the first: both are found once, and the partition ends."""

    @tw.op
    def both(x: tw.Tile["n k"], w: tw.Tile["k"]):
        p = tw.exp(x - tw.max(w))
        row = tw.sum(p, "k")
        return p / row, tw.sum(p / row, "n")

    program = both.bind(both.arguments((np.ones((5, 3)), np.ones(3)), {})).program
    plan = lower(program)
    assert sum(k.split is not None for k in plan.kernels) == 2
    x, w = np.random.default_rng(0).standard_normal((5, 3)), np.arange(3.0)
    for found, right in zip(both(x, w), both.reference(x, w), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-14)
