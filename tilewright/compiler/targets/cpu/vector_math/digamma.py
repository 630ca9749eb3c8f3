"""The derivative of ln Gamma."""

from __future__ import annotations

import math

from tilewright.compiler.targets.cpu.builder import Builder, Value
from tilewright.compiler.targets.cpu.vector_math.formats import F64_FORMAT, INFINITY, NAN, hexes
from tilewright.compiler.targets.cpu.vector_math.logarithm import log_in_two_parts
from tilewright.compiler.targets.cpu.vector_math.parts import fast_two_sum, horner, through_f64, two_product
from tilewright.compiler.targets.cpu.vector_math.trigonometric import tan

# In u, |u| <= 1/2: digamma(x) / (x - root) for x = 3/2 + u, digamma(3 + 2u), digamma(6 + 4u); and the root in
# two parts.
_DIGAMMA = (
    hexes(
        "0x1.e6f0cbb873616p-1 -0x1.b1cb63005ee96p-2 0x1.eca189b8e6f6bp-3 -0x1.2feeeb98a7e3bp-3",
        "0x1.8512e59039755p-4 -0x1.fb44202998421p-5 0x1.4de9aa171d4f1p-5 -0x1.b9f8b150319bep-6",
        "0x1.2564719b647f6p-6 -0x1.8635590c51b36p-7 0x1.03c0a66a51d79p-7 -0x1.5a080a0c910c7p-8",
        "0x1.cd21ec3822247p-9 -0x1.33509143e91d9p-9 0x1.99ad0ee9dc8efp-10 -0x1.114473f891255p-10",
        "0x1.6c54ff0d1eadcp-11 -0x1.e180e42b99c3fp-12 0x1.40fe975bfeb32p-12 -0x1.cd69c63d3128dp-13",
        "0x1.339b353c4e40cp-13 -0x1.e41a00b3ac2a3p-15 0x1.42bb9b1ed47b3p-15 -0x1.6011fd68d65bp-14",
        "0x1.d56d3c442d62ap-15",
    ),
    hexes(
        "0x1.d8773039049e7p-1 0x1.94699894c1f4dp-1 -0x1.3ba004f006213p-2 0x1.44c8ab1f61232p-3",
        "-0x1.7418eca7ccde8p-4 0x1.c26130248cc99p-5 -0x1.196d0a6799601p-5 0x1.66d5f0c91d332p-6",
        "-0x1.cf9ec0b83ff25p-7 0x1.2e33a5408029cp-7 -0x1.8c6f9188af55dp-8 0x1.052da946251a1p-8",
        "-0x1.593a2a9d41d04p-9 0x1.c95a93088ae7bp-10 -0x1.2f76fbd227724p-10 0x1.9377fd49fd0fdp-11",
        "-0x1.0c47b97280532p-11 0x1.61e7c2a2cedbdp-12 -0x1.d72ff30ce2c32p-13 0x1.5238f76828d07p-13",
        "-0x1.c29edbd23aa34p-14 0x1.62b39095bf747p-15 -0x1.d8a0d6bf0062fp-16 0x1.017c45371e82bp-14",
        "-0x1.57405729ec9ep-15",
    ),
    hexes(
        "0x1.b4c420a50ad7cp+0 0x1.735973273d5ecp-1 -0x1.0c9d0d746547fp-2 0x1.0262026c6c768p-3",
        "-0x1.16e2c95f50949p-4 0x1.40454efd5305ep-5 -0x1.7e2cdc7bb114p-6 0x1.d3f2595c0be8ap-7",
        "-0x1.23c4c9ee4de5bp-7 0x1.70c71d8a864a7p-8 -0x1.d6e72fec7be89p-9 0x1.2f0c3951fdeap-9",
        "-0x1.887eaeb28a61ep-10 0x1.fedf36852db19p-11 -0x1.4dd446052eab9p-11 0x1.b5fc4cad9271cp-12",
        "-0x1.1febdbe237e73p-12 0x1.783bbfd14db79p-13 -0x1.f0a42b13835aap-14 0x1.611a965adfbddp-14",
        "-0x1.d39a53ec94a76p-15 0x1.726c75685b9b4p-16 -0x1.ea9401d8a6b21p-17 0x1.06b66236bd3c4p-15",
        "-0x1.5d38f21fa84c4p-16",
    ),
)
_DIGAMMA_FACTOR_LOW = float.fromhex("0x1.8f70c7a125e6ap-55")  # what the first coefficient lacks
_DIGAMMA_ROOT = hexes("0x1.762d86356be3fp+0 0x1.b86a722197829p-54")
# Bernoulli numbers B_2k / 2k: digamma(x) ~ ln x - 1/2x - sum_k B_2k / (2k x^2k)  (DLMF 5.11.2).
_DIGAMMA_TAIL = hexes(
    "0x1.5555555555555p-4 -0x1.1111111111111p-7 0x1.041041041041p-8 -0x1.1111111111111p-8",
    "0x1.f07c1f07c1f08p-8 -0x1.5995995995996p-6 0x1.5555555555555p-4 -0x1.c5e5e5e5e5e5ep-2",
    "0x1.86e7f9b9fe6e8p+1 -0x1.a74ca514ca515p+4",
)


@through_f64
def digamma(b: Builder, x: Value) -> Value:
    """The derivative of ln Gamma.

    x > 0: up to 8 polynomials for [1, 2], with the factor (x - root), for (2, 4] and (4, 8], below 1
    psi(x + 1) - 1/x; from 8 on the asymptotic series. x < 0: psi(1 - x) - pi / tan(pi x), whose error near
    the roots of psi is small beside 1, not beside the result. ∓0 gives ±inf, the other poles NaN.
    """
    negative = b.cmp("lt", x, 0.0)
    y, y_low = _digamma_positive(b, b.select(negative, b.sub(1.0, x), x))
    distance = b.sub(x, b.round_even(x))
    turn, turn_low = two_product(b, distance, b.constant(math.pi, x.type))
    cotangent = b.div(math.pi, tan(b, turn))
    slope = b.fma(b.mul(cotangent, cotangent), 1 / math.pi, math.pi)
    moved = b.fma(b.fma(distance, F64_FORMAT.pi[1], turn_low), slope, y_low)
    reflected = b.add(b.sub(y, cotangent), b.select(b.cmp("lt", b.abs(cotangent), 1e6), moved, 0.0))
    pole = b.and_(negative, b.cmp("eq", b.floor(x), x))
    result = b.select(pole, NAN, b.select(negative, reflected, b.add(y, y_low)))
    return b.select(b.cmp("eq", x, 0.0), b.copysign(INFINITY, b.neg(x)), result)


def _digamma_positive(b: Builder, x: Value) -> tuple[Value, Value]:
    """As the sum of two numbers, the second what the series from 8 on has beyond the first."""
    tiny = b.cmp("lt", x, 1.0)
    t = b.select(tiny, b.add(x, 1.0), x)
    lost = b.select(tiny, b.sub(x, b.sub(t, 1.0)), 0.0)
    above2, above4 = b.cmp("gt", t, 2.0), b.cmp("gt", t, 4.0)
    unit = b.select(above4, 0.25, b.select(above2, 0.5, b.constant(1.0, x.type)))
    u = b.fma(t, unit, -1.5)
    constant, *slopes = (
        b.select(above4, up_to_8, b.select(above2, up_to_4, b.constant(up_to_2, x.type)))
        for up_to_2, up_to_4, up_to_8 in zip(*_DIGAMMA, strict=True)
    )
    y = b.fma(u, horner(b, u, slopes), constant)
    high, low = _DIGAMMA_ROOT
    distance = b.sub(b.sub(t, high), b.sub(low, lost))
    factor_low = b.mul(distance, _DIGAMMA_FACTOR_LOW)
    inverse = b.div(1.0, x)
    error = b.mul(inverse, b.fma(b.neg(inverse), x, 1.0))  # of the inverse
    near = b.fma(distance, y, b.select(b.cmp("gt", x, 0.125), b.neg(error), 0.0))
    y = b.select(tiny, b.sub(near, inverse), b.select(above2, y, b.fma(distance, y, factor_low)))
    far = b.cmp("ge", x, 8.0)
    high, low = _digamma_series(b, x)
    return b.select(far, high, y), b.select(far, low, 0.0)


def _digamma_series(b: Builder, x: Value) -> tuple[Value, Value]:
    inverse = b.div(1.0, x)
    z = b.mul(inverse, inverse)
    tail = b.mul(z, horner(b, z, _DIGAMMA_TAIL))
    log_high, log_low = log_in_two_parts(b, x)
    high, low = fast_two_sum(b, log_high, b.neg(b.fma(inverse, 0.5, tail)))
    finite = b.cmp("lt", x, INFINITY)
    return b.select(finite, high, x), b.select(finite, b.add(low, log_low), 0.0)
