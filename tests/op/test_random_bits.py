"""Random numbers have the same bits on every target, for every layout and number of threads."""

import numpy as np
import pytest
import scipy.stats

import tilewright as tw
from tests.support import threads
from tests.support.checks import targets
from tilewright.compiler.pipeline import compile_program
from tilewright.dsl.scalars import normal_quantile


@tw.op
def draws(x: tw.Tile["... d"], seed: tw.Tile[""]):
    """Every kind of draw."""
    return (
        tw.rand(seed, "... d"),
        tw.rand(seed, "... d", dtype=tw.float64),
        tw.rand(seed, "... d", dtype=tw.float16),
        tw.rand(seed, "... d", dtype=tw.bfloat16),
        tw.rand(seed, "... d", dtype=tw.float8_e4m3fn),
        tw.rand(seed, "... d", dtype=tw.float8_e5m2),
        tw.randn(seed, "... d"),
        tw.randn(seed, "... d", dtype=tw.float64),
        tw.truncated_randn(seed, -1.5, 2.5, "... d"),
        tw.bernoulli(seed, 0.3, "... d"),
        tw.bernoulli(seed, tw.abs(x) / 4, "... d"),
        tw.randint(seed, -7, 2**40, "... d"),
        tw.rand(seed, "d", stream=3),
    )


@tw.op
def noisy_rows(x: tw.Tile["... d"], seed: tw.Tile[""]):
    """Draws inside of a reduction, and after it."""
    noise = tw.randint(seed, 0, 1000, "... d")
    return tw.sum(noise, "d") + tw.max(noise, "d") * tw.randint(seed, 0, 3, "...")


@tw.op
def quantiles(bits: tw.Tile["..."]):
    z = normal_quantile(bits)
    return z, tw.cast(z, tw.float32)


@tw.op
def parts(x: tw.Tile["..."]):
    return tw.frexp(x)


def results(op, target, *operands):
    call = op.bind(op.arguments(operands, {}))
    return compile_program(call.program, target).run(call.arrays, call.scalars)


def assert_same_bits(op, target, *operands):
    expected = op.reference(*operands)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for found, right in zip(results(op, target, *operands), expected, strict=True):
        rounded = right.astype(found.dtype).reshape(found.shape)
        np.testing.assert_array_equal(found, rounded)
        if found.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(found), np.signbit(rounded))


def layouts(shape):
    """Arrays of one shape that lie in memory in different ways."""
    x = np.linspace(-3, 3, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    wide = np.zeros((*shape[:-1], 2 * shape[-1]), np.float32)
    wide[..., ::2] = x
    return {
        "contiguous": x,
        "fortran": np.asfortranarray(x),
        "strided": wide[..., ::2],
        "reversed": x[..., ::-1].copy()[..., ::-1],
    }


@pytest.mark.parametrize("layout", ["contiguous", "fortran", "strided", "reversed"])
@pytest.mark.parametrize("target", targets())
def test_every_draw(target, layout):
    for shape, seed in (((3, 5, 37), 11), ((1, 70), -(2**63)), ((257,), 2**62 + 1)):
        assert_same_bits(draws, target, layouts(shape)[layout], np.int64(seed))


@pytest.mark.parametrize("target", targets())
def test_draws_in_rows(target):
    for shape in ((3, 5, 37), (40, 300), (1, 5000)):
        assert_same_bits(noisy_rows, target, np.zeros(shape, np.float32), 5)


@pytest.mark.parametrize("target", targets())
def test_the_normal_quantile(target):
    random = np.random.default_rng(3)
    near = np.exp(random.uniform(0, 43.6, 3000)).astype(np.int64)
    edges = np.int64([0, -1, 1, 2**63 - 1, -(2**63), 2**62, -(2**62), 2**53 + 1, 2**63 - 2**52])
    uniform = random.integers(-(2**63), 2**63 - 1, 20_000)
    assert_same_bits(quantiles, target, np.concatenate([edges, near, ~near, 2**63 - 1 - near, uniform]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("target", targets())
def test_mantissa_and_exponent(target, dtype):
    limits = np.finfo(dtype)
    special = [0, -0.0, 1, -1, 2, 0.75, np.inf, -np.inf, np.nan, limits.tiny, -limits.tiny, limits.max]
    special += [limits.smallest_subnormal, -limits.smallest_subnormal, limits.tiny / 3, 1 - limits.epsneg]
    wide = np.ldexp(np.random.default_rng(0).uniform(-2, 2, 4000), np.arange(4000) % 250 - 140)
    x = np.concatenate([special, wide]).astype(dtype)
    mantissa, exponent = results(parts, target, x)
    assert_same_bits(parts, target, x)
    finite = np.isfinite(x)
    np.testing.assert_array_equal(np.ldexp(mantissa[finite].astype(np.float64), exponent[finite]), x[finite])


def test_the_number_of_threads_changes_nothing():
    x = np.zeros((1500, 1100), np.float32)
    threads.assert_same_bits(lambda: draws(x, 7), (1, 3))


def test_the_machine_code_contracts_nothing():
    code = quantiles.code(np.zeros(64, np.int64), target="asm")
    assert "div" in code and "vfm" not in code and "vfnm" not in code


@pytest.mark.exhaustive
def test_a_hundred_million_numbers():
    """Moments, extremes and the distribution of 10⁸ normal numbers; and pairs of neighbours."""
    count, parts = 10**7, 10
    edges = np.concatenate([[-np.inf], np.linspace(-5.5, 5.5, 400), [np.inf]])
    counts, total, largest, product = np.zeros(401), np.zeros(4), 0.0, 0.0

    @tw.op
    def noise(like: tw.Tile["n"], seed: tw.Tile[""]):
        return tw.randn(seed, "n", dtype=tw.float64)

    like = np.broadcast_to(np.zeros((), bool), (count,))
    for seed in range(parts):
        z = noise(like, seed)
        counts += np.histogram(z, edges)[0]
        total += [np.sum(z**k) for k in (1, 2, 3, 4)]
        largest = max(largest, float(np.abs(z).max()))
        product += float(np.dot(z[1:], z[:-1]))
    n = count * parts
    expected = np.diff(scipy.stats.norm.cdf(edges)) * n
    assert scipy.stats.chisquare(counts, expected).pvalue > 1e-4
    deviations = np.sqrt(np.array([1, 2, 15, 96]) / n)
    assert (np.abs(total / n - [0, 1, 0, 3]) < 4.5 * deviations).all()
    assert abs(product / n) < 4.5 / np.sqrt(n)
    assert 5.3 < largest < 6.8
