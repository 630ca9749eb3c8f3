"""The two float formats: their numbers, and the polynomials that have one form for both.

The coefficients of this package were fitted for it by the Remez exchange in 200-bit arithmetic on the
interval written beside them, with the error weighted to be relative to the value of the function, and then
rounded to the format.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

from tilewright.compiler.targets.cpu.builder import Value

T = TypeVar("T")

INFINITY, NAN = math.inf, math.nan
LOG2_E = 1.4426950408889634
LN2 = 0.6931471805599453


def hexes(*lines: str) -> tuple[float, ...]:
    return tuple(float.fromhex(word) for line in lines for word in line.split())


@dataclass(frozen=True)
class Format:
    """The constants of one float format. Constants in parts are sums of floats, largest first."""

    mantissa: int  # stored bits
    bias: int
    smallest_normal: float
    magic: float  # 1.5 * 2^mantissa: adding it rounds to an integer, which stands in the low bits
    ln2: tuple[float, ...]
    log2_e: tuple[float, ...]
    pi: tuple[float, ...]
    trig_limit: float  # up to it the three parts of pi are enough
    exp_range: tuple[float, float]  # beyond it exp is 0 or infinite
    expm1_range: tuple[float, float]  # beyond it expm1 is -1 or infinite
    tanh_limit: float  # above it tanh is 1
    exp: tuple[float, ...]  # e^r = 1 + r + r^2 P(r), |r| <= ln 2 / 2
    log1p: tuple[float, ...]  # P of log1p_reduced, 1 + f in [1/sqrt 2, sqrt 2]
    sin: tuple[float, ...]  # r + r^3 P(r^2), |r| <= pi / 2
    tanh: tuple[float, ...]  # r + r^3 P(r^2), |r| <= 0.56
    erf: tuple[float, ...]  # r + r P(r^2), |r| <= 0.93 (f32), 1 (f64)


F32_FORMAT = Format(
    mantissa=23,
    bias=127,
    smallest_normal=2.0**-126,
    magic=1.5 * 2.0**23,
    ln2=hexes("0x1.62e400p-1 0x1.7f7d1cp-20"),
    log2_e=hexes("0x1.715476p+0 0x1.4ae0cp-26"),
    pi=hexes("0x1.921fb6p+1 -0x1.777a5cp-24 -0x1.ee59dap-49"),
    trig_limit=1e5,
    exp_range=(-104.0, 90.0),
    expm1_range=(-18.0, 89.0),
    tanh_limit=9.5,
    exp=hexes(
        "0x1.fffffcp-2 0x1.555492p-3 0x1.5558f2p-5 0x1.123a1ep-7 0x1.6a23e8p-10",
    ),
    log1p=hexes(
        "0x1.55554ap-2 -0x1.00022p-2 0x1.99a596p-3 -0x1.547888p-3 0x1.226e58p-3 -0x1.0ce09ap-3",
        "0x1.07d0b8p-3 -0x1.41ed06p-4",
    ),
    sin=hexes(  # moved by 2 and 1 units in the middle, so that cos 0 is 1
        "-0x1.55554cp-3 0x1.110ec2p-7 -0x1.9f6bd6p-13 0x1.5d802p-19",
    ),
    tanh=hexes(
        "-0x1.55554ap-2 0x1.110cb2p-3 -0x1.b91370p-5 0x1.588286p-6 -0x1.96cf3cp-8",
    ),
    erf=hexes(
        "0x1.06eba8p-3 -0x1.812742p-2 0x1.ce2e0ap-4 -0x1.b80e9p-6 0x1.54c7f6p-8 -0x1.aa3f3p-11",
        "0x1.5cd4b8p-14",
    ),
)
F64_FORMAT = Format(
    mantissa=52,
    bias=1023,
    smallest_normal=2.0**-1022,
    magic=1.5 * 2.0**52,
    ln2=hexes("0x1.62e42fefa3800p-1 0x1.ef35793c76730p-45"),
    log2_e=hexes("0x1.71547652b82fep+0 0x1.777d0ffda0d24p-56"),
    pi=hexes("0x1.921fb54442d18p+1 0x1.1a62633145c07p-53 -0x1.f1976b7ed8fbcp-109"),
    trig_limit=2.0**30,
    exp_range=(-746.0, 711.0),
    expm1_range=(-38.0, 710.0),
    tanh_limit=20.0,
    exp=hexes(
        "0x1.0p-1 0x1.5555555555555p-3 0x1.5555555555559p-5 0x1.1111111111105p-7",
        "0x1.6c16c16c14e24p-10 0x1.a01a01a0209a1p-13 0x1.a01a01ad9638ep-16 0x1.71de3a3d62ed3p-19",
        "0x1.27e4cc69fa183p-22 0x1.ae64997775a2ep-26 0x1.1f8ad4568da77p-29 0x1.61282701eaf6ap-33",
    ),
    log1p=hexes(
        "0x1.5555555555555p-1 0x1.9999999999dffp-2 0x1.249249242b38fp-2 0x1.c71c725909402p-3",
        "0x1.745cde3197ebfp-3 0x1.3b20ac4d76d81p-3 0x1.0f5cb7517ac1fp-3 0x1.0f63ba2a85728p-3",
    ),
    sin=hexes(
        "-0x1.5555555555555p-3 0x1.1111111111111p-7 -0x1.a01a01a01a01ap-13 0x1.71de3a556c716p-19",
        "-0x1.ae64567f52938p-26 0x1.6124613981a1ep-33 -0x1.ae7f3dadd4c62p-41",
        "0x1.952c174425adap-49 -0x1.2f2cdd208cc0cp-57 0x1.67e2984dad372p-66",
    ),
    tanh=hexes(
        "-0x1.5555555555555p-2 0x1.111111111108bp-3 -0x1.ba1ba1ba119c0p-5 0x1.664f487fbf88dp-6",
        "-0x1.226e34d6f8bccp-7 0x1.d6d3b274ab2dcp-9 -0x1.7da11b177a2b1p-10 0x1.3539fb722e5a9p-11",
        "-0x1.f35785b876c53p-13 0x1.8914f6e6c7a29p-14 -0x1.11cf5d62dd3f9p-15 0x1.e77433cb2359ep-18",
    ),
    erf=hexes(
        "0x1.06eba8214db69p-3 -0x1.812746b0379e6p-2 0x1.ce2f21a042b2p-4 -0x1.b82ce3128498fp-6",
        "0x1.565bcd0db00cbp-8 -0x1.c02db3d8e6c98p-11 0x1.f9a321a05b445p-14 -0x1.f4d1df2a060b1p-17",
        "0x1.b9def0d1d721dp-20 -0x1.5f1d2fbd42386p-23 0x1.f7a3c3ff7f9bbp-27 -0x1.3869c73f4fcd9p-30",
        "0x1.0576f36ab14b5p-34",
    ),
)

# expm1 in f32 wants more than exp does: (e^r - 1 - r) / r^2, |r| <= ln 2 / 2, relative to e^r - 1.


def format_of(x: Value) -> Format:
    return of_format(x, F32_FORMAT, F64_FORMAT)


def of_format(x: Value, f32: T, f64: T) -> T:
    """What is for the format of x."""
    return f32 if x.type.kind == "f32" else f64
