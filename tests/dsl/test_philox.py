"""Philox4x32-10 against its published vectors, and the normal quantile against the exact one."""

import mpmath
import numpy as np
import pytest
import scipy.stats

from tilewright.dsl.philox import WORD, philox, word_of_block
from tilewright.dsl.scalars import SCALARS

# From kat_vectors of Random123, the authors' library: counter, key, words.
PUBLISHED = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((WORD,) * 4, (WORD,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
quantile = SCALARS["normal_quantile"].numpy


def signed(low: int, high: int) -> np.int64:
    return np.uint64(high << 32 | low).view(np.int64)


@pytest.mark.parametrize(("counter", "key", "words"), PUBLISHED, ids=("zeros", "ones", "pi"))
def test_published_vectors(counter, key, words):
    assert philox(key, counter) == words
    seed, position, stream = signed(*key), signed(*counter[:2]), signed(*counter[2:])
    for number, word in enumerate(words):
        found = word_of_block(number, seed, position, stream)
        assert found.dtype == np.int32 and int(found) % 2**32 == word


def test_words_of_arrays_broadcast():
    seeds, positions = np.int64([3, -1])[:, None], np.arange(5) << 31
    found = word_of_block(2, seeds, positions, np.int64(-7))
    for row, seed in enumerate((3, -1)):
        for column, position in enumerate(positions):
            assert found[row, column] == word_of_block(2, np.int64(seed), position, np.int64(-7))


def exact_quantile(bits: int) -> mpmath.mpf:
    """-√2 erfcinv(2p) by Newton's method on log erfc, for the tail p of -|z|."""
    negative = bits < 0
    tail = (mpmath.mpf(2**63 - 1 - (~bits if negative else bits)) + 0.5) / 2**64
    z = -mpmath.mpf(scipy.stats.norm.ppf(float(tail)))
    for _ in range(5):
        share = mpmath.erfc(z / mpmath.sqrt(2)) / 2
        z += (mpmath.log(share) - mpmath.log(tail)) * share / mpmath.npdf(z)
    return -z if negative else z


def test_the_normal_quantile_is_exact_to_the_last_tail():
    random = np.random.default_rng(0)
    near = np.exp(random.uniform(0, 43, 150)).astype(np.int64)
    bits = np.concatenate(
        [random.integers(-(2**63), 2**63 - 1, 200), 2**63 - 1 - near, -(2**63) + near, near, ~near]
    )
    bits = np.concatenate([bits, [0, -1, 2**63 - 1, -(2**63), 2**62, -(2**62)]])
    found = quantile(bits)
    with mpmath.workdps(40):
        errors = [
            abs(mpmath.mpf(float(z)) / exact_quantile(int(n)) - 1) for n, z in zip(bits, found, strict=True)
        ]
    assert max(errors) < 4e-15


def test_the_normal_quantile_is_odd_and_increases():
    random = np.random.default_rng(1)
    bits = np.sort(random.integers(-(2**63), 2**63 - 1, 100_000))
    found = quantile(bits)
    np.testing.assert_array_equal(quantile(~bits), -found)
    assert (np.diff(found) >= -1e-14).all()
    assert 9.15 < quantile(np.int64(2**63 - 1)) < 9.16
