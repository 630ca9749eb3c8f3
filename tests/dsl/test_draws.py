"""Random numbers inside ops: what they depend on, how they are distributed, what is refused."""

import numpy as np
import pytest
import scipy.stats

import tilewright as tw
from tests.support.tracing import inlined, meaning, traced
from tilewright.autograd.derive import vjp
from tilewright.dsl.dtypes import float32, float64, int32, int64
from tilewright.dsl.philox import word_of_block
from tilewright.dsl.program import Map, Read, reads
from tilewright.dsl.reference import reference
from tilewright.errors import ArgumentError, AxisError, DTypeError, LanguageError

SEED = np.int64(20260)


def drawn(draw, shape=(1000,), seed=SEED, axes="..."):
    """What `draw(seed, axes)` gives as a body over one operand of this shape."""

    def body(x: tw.Tile["..."], seed: tw.Tile[""]) -> tw.Tile["..."]:
        return draw(seed, axes)

    return meaning(body, np.broadcast_to(np.float32(0), shape), seed)


# --- what a draw depends on -------------------------------------------------------------------------------


def test_a_draw_is_a_function_of_seed_stream_and_linear_index():
    found = drawn(lambda seed, axes: tw.rand(seed, axes, stream=5), (3, 4, 7))
    words = word_of_block(0, SEED, np.arange(84).reshape(3, 4, 7), np.int64(5))
    np.testing.assert_array_equal(found, (words.view(np.uint32) >> 8) * 2.0**-24)


def test_axes_are_counted_in_the_order_in_which_they_are_named():
    def body(x: tw.Tile["i j"], seed: tw.Tile[""]):
        return tw.rand(seed, "i j", stream=0), tw.rand(seed, "j i", stream=0), tw.rand(seed, "j", stream=0)

    rows, columns, last = meaning(body, np.zeros((4, 6)), SEED)
    flat = drawn(lambda seed, axes: tw.rand(seed, axes, stream=0), (24,))
    np.testing.assert_array_equal(rows.reshape(-1), flat)
    np.testing.assert_array_equal(columns.T.reshape(-1), flat)
    np.testing.assert_array_equal(last, flat[:6])


def test_batch_axes_are_counted_from_the_outermost():
    def body(x: tw.Tile["..."], y: tw.Tile["... d"], seed: tw.Tile[""]):
        return tw.rand(seed, "... d", stream=0) + 0 * tw.sum(x)

    program = traced(body, float64, float64, int64, ranks={"x": 1, "y": 2})
    (found,) = reference(program, {"x": np.zeros(3), "y": np.zeros((2, 3, 4)), "seed": SEED})
    flat = drawn(lambda seed, axes: tw.rand(seed, axes, stream=0), (24,))
    np.testing.assert_array_equal(found.reshape(-1), flat)


def test_every_call_has_a_stream_of_its_own():
    def body(x: tw.Tile["d"], seed: tw.Tile[""]):
        return tuple(tw.rand(seed, "d") for _ in range(9))

    found = np.stack(meaning(body, np.zeros(4000), SEED))
    assert np.abs(np.corrcoef(found) - np.eye(9)).max() < 0.06
    np.testing.assert_array_equal(found, np.stack(meaning(body, np.zeros(4000), SEED)))


def test_an_op_that_is_inlined_twice_draws_twice():
    def half(x: tw.Tile["..."], seed: tw.Tile[""]):
        return tw.where(tw.bernoulli(seed, 0.5, "..."), x, 0)

    def body(x: tw.Tile["... d"], seed: tw.Tile[""]):
        return inlined(half)(x, seed), inlined(half)(x, seed)

    first, second = meaning(body, np.ones((50, 40)), SEED)
    assert 0.4 < np.mean(first != second) < 0.6


def test_streams_given_by_hand_never_meet_automatic_ones():
    def body(x: tw.Tile["d"], seed: tw.Tile[""]):
        return (*(tw.rand(seed, "d") for _ in range(6)), *(tw.rand(seed, "d", stream=n) for n in range(6)))

    found = meaning(body, np.zeros(2), SEED)
    assert len({value.tobytes() for value in found}) == 12


def test_equal_streams_are_equal_and_shared():
    def body(x: tw.Tile["d"], seed: tw.Tile[""]):
        return tw.rand(seed, "d", stream=1) - tw.rand(seed, "d", stream=1)

    assert not meaning(body, np.zeros(9), SEED).any()


def test_a_number_drawn_for_every_row_has_the_batch_axes_alone():
    def body(x: tw.Tile["... c d"], seed: tw.Tile[""]):
        return x * tw.rand(seed, "... c")

    found = meaning(body, np.ones((2, 3, 5)), SEED)
    assert (found == found[..., :1]).all() and len(np.unique(found)) == 6


def test_no_axes_draw_one_number():
    def body(x: tw.Tile["d"], seed: tw.Tile[""]):
        return x * tw.rand(seed, "")

    assert len(np.unique(meaning(body, np.ones(5), SEED))) == 1


def test_seeds_of_any_integer_dtype_and_one_for_each_row():
    def body(x: tw.Tile["n d"], seed: tw.Tile["n"]):
        return tw.rand(seed, "d", stream=0)

    found = meaning(body, np.zeros((2, 8)), np.int32([-3, 7]))
    for row, seed in enumerate((-3, 7)):
        expected = drawn(lambda seed, axes: tw.rand(seed, axes, stream=0), (8,), np.int64(seed))
        np.testing.assert_array_equal(found[row], expected)


def test_a_compile_time_seed_and_a_run_time_number():
    constant = drawn(lambda seed, axes: tw.rand(int(SEED), axes, stream=0))
    np.testing.assert_array_equal(constant, drawn(lambda seed, axes: tw.rand(seed, axes, stream=0)))

    @tw.op
    def body(x: tw.Tile["d"], *, seed: tw.Scalar[tw.int64]):
        return tw.rand(seed, "d", stream=0)

    large = 2**62 + 12345
    expected = drawn(lambda seed, axes: tw.rand(seed, axes, stream=0), (9,), np.int64(large))
    np.testing.assert_array_equal(body(np.zeros(9, np.float32), seed=large), expected.astype(np.float32))
    with pytest.raises(ArgumentError, match=r"'seed' is a whole number of int64, got 0\.5"):
        body(np.zeros(9, np.float32), seed=0.5)


# --- distributions ----------------------------------------------------------------------------------------

COUNT = (100_000,)


@pytest.mark.parametrize(
    ("dtype", "step"), [("f32", 2**-24), ("f64", 2**-53), ("f16", 2**-11), ("bf16", 2**-8)]
)
def test_rand_is_uniform_in_steps(dtype, step):
    found = drawn(lambda seed, axes: tw.rand(seed, axes, dtype=dtype), COUNT)
    assert found.min() >= 0 and found.max() <= 1 - step
    np.testing.assert_array_equal(found, np.round(found / step) * step)
    counts = np.bincount((found * 64).astype(int), minlength=64)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    assert step > 2**-20 or scipy.stats.kstest(found, "uniform").pvalue > 1e-3


def test_randn_is_normal():
    found = drawn(lambda seed, axes: tw.randn(seed, axes), COUNT)
    assert scipy.stats.kstest(found, "norm").pvalue > 1e-3
    assert scipy.stats.skewtest(found).pvalue > 1e-3 and scipy.stats.kurtosistest(found).pvalue > 1e-3


def test_truncated_randn_is_normal_between_its_bounds():
    for low, high in ((-2.0, 2.0), (0.5, 3.0), (4.0, 6.0), (-0.1, 0.1)):
        found = drawn(lambda seed, axes, a=low, b=high: tw.truncated_randn(seed, a, b, axes), (20_000,))
        assert found.min() >= low and found.max() <= high
        assert scipy.stats.kstest(found, scipy.stats.truncnorm(low, high).cdf).pvalue > 1e-3
    with pytest.raises(ArgumentError, match=r"hardly anything of the normal distribution lies in 40 … 41"):
        drawn(lambda seed, axes: tw.truncated_randn(seed, 40, 41, axes))


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("of", ["number", "float32", "float64"])
def test_bernoulli_has_its_probability(p, of):
    def body(x: tw.Tile["d"], p: tw.Tile[""], seed: tw.Tile[""]):
        return tw.where(tw.bernoulli(seed, p if of != "number" else float(P), "d"), 1.0, 0.0) + 0 * x

    P = p
    found = meaning(body, np.zeros(COUNT), np.asarray(p, None if of == "number" else of), SEED)
    assert abs(found.mean() - p) <= 5 * np.sqrt(p * (1 - p) / found.size)


def test_a_probability_is_exact_to_32_bits():
    def body(x: tw.Tile["d"], seed: tw.Tile[""]):
        return tw.bernoulli(seed, 0.25, "d")

    program = traced(body, float32, int64)
    numbers = [n.value for n in program.nodes() if type(n).__name__ == "Const"]
    assert 2**30 in numbers


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 6), (-3, 4), (0, 1), (-(2**63), 2**63 - 1), (2**62, 2**62 + 3), (-5, 2**33), (0, 2**32)],
    ids=str,
)
def test_randint_covers_its_range_evenly(low, high):
    found = drawn(lambda seed, axes: tw.randint(seed, low, high, axes), COUNT)
    assert found.dtype == np.int64 and low <= found.min() and found.max() < high
    bins = min(high - low, 50)
    place = np.array([(int(v) - low) * bins // (high - low) for v in found])
    assert (
        scipy.stats.chisquare(np.bincount(place, minlength=bins)).pvalue > 1e-3
        if bins > 1
        else not place.any()
    )


def test_randint_is_the_upper_half_of_a_product():
    def body(x: tw.Tile["d"], seed: tw.Tile[""]):
        return tw.randint(seed, -(2**40), 2**61 + 17, "d", stream=3)

    found = meaning(body, np.zeros(500), SEED)
    low, high = (word_of_block(n, SEED, np.arange(500), np.int64(3)).view(np.uint32) for n in (0, 1))
    count = 2**61 + 17 + 2**40
    expected = [-(2**40) + (((int(b) << 32) + int(a)) * count >> 64) for a, b in zip(low, high, strict=True)]
    np.testing.assert_array_equal(found, expected)


# --- derivatives ------------------------------------------------------------------------------------------


def test_the_backward_draws_again_and_saves_nothing():
    def body(x: tw.Tile["... d"], seed: tw.Tile[""]):
        return tw.where(tw.bernoulli(seed, 0.8, "... d"), x / 0.8, 0)

    derivative = vjp(traced(body, float32, int64, ranks={"x": 1}))
    assert not derivative.saved and len(derivative.forward.results) == 1
    backward = derivative.backward
    assert {r.param for r in reads(r.node for r in backward.results)} == {"seed", "d_y"}
    words = {n.function for n in backward.nodes() if isinstance(n, Map)}
    assert "philox0" in words


def test_noise_is_a_constant_to_the_derivative():
    def body(x: tw.Tile["d"], scale: tw.Tile["d"], seed: tw.Tile[""]):
        return x + scale * tw.randn(seed, "d")

    derivative = vjp(traced(body, float64, float64, int64))
    (y,) = reference(derivative.forward, {"x": np.zeros(50), "scale": np.ones(50), "seed": SEED})
    arrays = {"x": np.zeros(50), "scale": np.ones(50), "seed": SEED, "d_y": np.full(50, 2.0), "y": y}
    given = {p.name: arrays[p.name] for p in derivative.backward.params}
    d_x, d_scale = reference(derivative.backward, given)
    np.testing.assert_array_equal(d_x, 2)
    np.testing.assert_allclose(d_scale, 2 * y, rtol=1e-15)


# --- refusals ---------------------------------------------------------------------------------------------


def refuse(draw):
    def body(x: tw.Tile["n d"], k: tw.Tile["n"], seed: tw.Tile[""]):
        return draw(x, seed)

    traced(body, float32, int32, int64)


REFUSED = [
    (lambda x, seed: tw.rand(seed, "cols"), AxisError, "names an axis that no operand has"),
    (lambda x, seed: tw.rand(seed, "d d"), AxisError, "tw.rand draws over 'd' twice; name each axis once"),
    (lambda x, seed: tw.rand(3, 4), AxisError, "inside an op tw.rand draws for every position along"),
    (lambda x, seed: tw.rand(x, "d"), DTypeError, "the seed of tw.rand is an integer, got float32; declare"),
    (lambda x, seed: tw.rand("d", seed), LanguageError, "tw.rand needs a seed: an int64 operand, or an int;"),
    (lambda x, seed: tw.rand(2**64, "d"), ArgumentError, "does not fit int64"),
    (lambda x, seed: tw.rand(seed, "d", dtype="int32"), DTypeError, "not int32; use tw.randint"),
    (lambda x, seed: tw.rand(seed, "d", stream=-1), ArgumentError, "streams are numbered from 0"),
    (lambda x, seed: tw.rand(seed, "d", stream=0.5), DTypeError, "stream of tw.rand is an integer, got"),
    (lambda x, seed: tw.bernoulli(seed, 1.5, "d"), ArgumentError, "a probability between 0 and 1, got 1.5"),
    (lambda x, seed: tw.bernoulli(seed, seed, "d"), DTypeError, "a floating-point probability, got int64"),
    (lambda x, seed: tw.randint(seed, 0, x, "d"), DTypeError, "tw.randint needs integer bounds, got float32"),
]  # fmt: skip


@pytest.mark.parametrize(("draw", "error", "message"), REFUSED, ids=[m[:40] for _, _, m in REFUSED])
def test_refused(draw, error, message):
    with pytest.raises(error) as caught:
        refuse(draw)
    assert message in str(caught.value)
    assert "test_draws.py" in str(caught.value)


def test_every_read_of_a_seed_is_the_operand():
    def body(x: tw.Tile["d"], seed: tw.Tile[""]):
        return tw.rand(seed, "d")

    program = traced(body, float32, int64)
    assert [n.param for n in program.nodes() if isinstance(n, Read)] == ["seed"]
