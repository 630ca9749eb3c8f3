"""Fused multiply-adds of NumPy arrays against fractions."""

from __future__ import annotations

import sys
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from tilewright.compiler.targets.triton.rounded_once import float32_to_odd, fma64, fma_narrow

LARGEST = sys.float_info.max


def exact_fma(a: float, b: float, c: float) -> float:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    try:
        return float(exact)
    except OverflowError:
        return np.inf if exact > 0 else -np.inf


def test_any_float64():
    """Exponents from end to end, and addends that cancel the product to its last bits or further."""
    generator = np.random.default_rng(5)
    signs = generator.choice([-1.0, 1.0], (3, 4000))
    a, b, c = np.ldexp(
        generator.uniform(0.5, 1, (3, 4000)) * signs, generator.integers(-450, 1025, (3, 4000))
    )
    with np.errstate(over="ignore"):
        cancelling = np.clip(-a * b * (1 + generator.integers(-2, 3, 4000) * 2.0**-52), -LARGEST, LARGEST)
    c = np.where(generator.random(4000) < 0.6, cancelling, c)
    exact = np.array([exact_fma(*numbers) for numbers in np.stack([a, b, c], axis=1).tolist()])
    ordinary = np.abs(exact) > 1e-290
    assert ordinary.sum() > 2500 and np.isfinite(exact).sum() > 2500
    np.testing.assert_array_equal(fma64(a, b, c)[ordinary], exact[ordinary])


def test_values_at_the_ends():
    a = np.array([LARGEST, LARGEST, 0.0, 3.0, np.inf, -0.0, 5.0, 1e-200])
    b = np.array([2.0, 2.0, np.inf, 5.0, -1.0, 2.0, 0.0, 1e-200])
    c = np.array([-LARGEST, 0.0, 1.0, np.inf, np.inf, -0.0, 7.0, 1.0])
    expected = np.array([LARGEST, np.inf, np.nan, np.inf, np.nan, -0.0, 7.0, 1.0])
    actual = fma64(a, b, c)
    np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(np.signbit(actual[5]), True)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_narrow_floats(dtype):
    generator = np.random.default_rng(6)
    a, b, c = generator.standard_normal((3, 4000)).astype(dtype)
    cancelling = (
        -a.astype(np.float64) * b.astype(np.float64) * (1 + generator.integers(-2, 3, 4000) * 2.0**-9)
    )
    c = np.where(generator.random(4000) < 0.6, cancelling.astype(dtype), c * dtype(1e-3))
    odd = fma_narrow(a, b, c)
    result = (float32_to_odd(odd) if dtype is ml_dtypes.bfloat16 else odd).astype(dtype)
    step = np.nextafter(np.abs(result), dtype(np.inf)).astype(np.float64) - np.abs(result).astype(np.float64)
    for x, y, z, actual, spacing in np.stack([a, b, c, result, step], axis=1).astype(np.float64).tolist():
        assert abs(Fraction(x) * Fraction(y) + Fraction(z) - Fraction(actual)) * 2 <= Fraction(spacing)
