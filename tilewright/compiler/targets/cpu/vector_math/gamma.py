"""ln Gamma and its derivative."""

from __future__ import annotations

import math

from tilewright.compiler.targets.cpu.builder import Builder, Value
from tilewright.compiler.targets.cpu.vector_math.formats import INFINITY, NAN, hexes
from tilewright.compiler.targets.cpu.vector_math.logarithm import log
from tilewright.compiler.targets.cpu.vector_math.parts import horner, per_lane, through_f64
from tilewright.compiler.targets.cpu.vector_math.trigonometric import tan

# digamma(x) / (x - root) in x - 3/2, 1 <= x <= 2, and its root in two parts.
_DIGAMMA = hexes(
    "0x1.e6f0cbb873616p-1 -0x1.b1cb63005ee98p-2 0x1.eca189b8e6f76p-3 -0x1.2feeeb98a78d3p-3",
    "0x1.8512e590384ccp-4 -0x1.fb44202a24f0cp-5 0x1.4de9aa17d3627p-5 -0x1.b9f8b11b64f28p-6",
    "0x1.25647162205c5p-6 -0x1.8635640e4d76ep-7 0x1.03c0b0f8babf7p-7 -0x1.5a06a32c0ab49p-8",
    "0x1.cd1f77f128455p-9 -0x1.336dea3d2541ap-9 0x1.99dceeb6d8484p-10 -0x1.0fb1c5fba9756p-10",
    "0x1.69e823d47bc8cp-11 -0x1.fda4f1d839b4ep-12 0x1.55b5bef730b4ap-12",
    "-0x1.2f5dc6805649bp-13 0x1.874ff8eb74a23p-14 -0x1.75fe01519951dp-13",
    "0x1.fc3c38684b776p-14",
)
_DIGAMMA_ROOT = hexes("0x1.762d86356be3fp+0 0x1.b86a722197829p-54")
# Bernoulli numbers B_2k / 2k: digamma(x) ~ ln x - 1/2x - sum_k B_2k / (2k x^2k)  (DLMF 5.11.2).
_DIGAMMA_TAIL = hexes(
    "0x1.5555555555555p-4 -0x1.1111111111111p-7 0x1.041041041041p-8 -0x1.1111111111111p-8",
    "0x1.f07c1f07c1f08p-8 -0x1.5995995995996p-6 0x1.5555555555555p-4 -0x1.c5e5e5e5e5e5ep-2",
    "0x1.86e7f9b9fe6e8p+1 -0x1.a74ca514ca515p+4",
)


def lgamma(b: Builder, x: Value) -> Value:
    """ln |Gamma(x)|, from the C library."""
    return per_lane(b, "lgamma", x)


@through_f64
def digamma(b: Builder, x: Value) -> Value:
    """The derivative of ln Gamma.

    x > 0: up to 10 the recurrence psi(x + 1) = psi(x) + 1/x leads to [1, 2], where psi is a polynomial times
    (x - root); from 10 on the asymptotic series. x < 0: psi(1 - x) - pi / tan(pi x). ∓0 gives ±inf, the other
    poles NaN.
    """
    negative = b.cmp("lt", x, 0.0)
    y = _digamma_positive(b, b.select(negative, b.sub(1.0, x), x))
    turn = b.mul(b.sub(x, b.round_even(x)), math.pi)
    reflected = b.sub(y, b.div(math.pi, tan(b, turn)))
    pole = b.and_(negative, b.cmp("eq", b.floor(x), x))
    result = b.select(pole, NAN, b.select(negative, reflected, y))
    return b.select(b.cmp("eq", x, 0.0), b.copysign(INFINITY, b.neg(x)), result)


def _digamma_positive(b: Builder, x: Value) -> Value:
    tiny = b.cmp("lt", x, 1.0)
    large = b.cmp("ge", x, 10.0)
    series = _digamma_series(b, x)
    # The sum of 1/(x-1) + 1/(x-2) + … down to [1, 2] as one fraction: p/q + 1/t = (p t + q) / (q t).
    t = b.select(tiny, b.add(x, 1.0), x)
    p, q = b.constant(0.0, x.type), b.constant(1.0, x.type)
    for _ in range(8):
        above = b.cmp("gt", t, 2.0)
        lower = b.sub(t, 1.0)
        p = b.select(above, b.fma(p, lower, q), p)
        q = b.select(above, b.mul(q, lower), q)
        t = b.select(above, lower, t)
    p, q = b.select(tiny, -1.0, p), b.select(tiny, x, q)
    high, low = _DIGAMMA_ROOT
    distance = b.sub(b.sub(t, high), low)
    near = b.fma(distance, horner(b, b.sub(t, 1.5), _DIGAMMA), b.div(p, q))
    return b.select(large, series, near)


def _digamma_series(b: Builder, x: Value) -> Value:
    inverse = b.div(1.0, x)
    z = b.mul(inverse, inverse)
    tail = b.mul(z, horner(b, z, _DIGAMMA_TAIL))
    return b.sub(log(b, x), b.fma(inverse, 0.5, tail))
