"""Elementary functions as Builder operations on vectors and scalars of f32 and f64.

`VECTOR_MATH[name](b, x)` writes the operations of one call: polynomials and selects, no branch except around
rare lanes. The hot functions are computed in their own precision; the rare ones of f32 go through the f64
vector and are rounded once; the few that say so call the C library lane by lane. NaN gives NaN; -0,
infinities, subnormals and overflow give what C99 Annex F asks for. Bounds on the error are in the tests.

The coefficients were fitted for this file by the Remez exchange in 200-bit arithmetic on the interval written
beside them, with the error weighted to be relative to the function's value, and then rounded to the format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps

from tilewright.compiler.targets.cpu.builder import F64, Builder, Type, Value

INFINITY, NAN = math.inf, math.nan
LOG2_E = 1.4426950408889634
LN2 = 0.6931471805599453
PI_LOW = 1.2246467991473532e-16  # what math.pi lacks


def _hex(*lines: str) -> tuple[float, ...]:
    return tuple(float.fromhex(word) for line in lines for word in line.split())


@dataclass(frozen=True)
class _Format:
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
    log1p: tuple[float, ...]  # P of _log1p_reduced, 1 + f in [1/sqrt 2, sqrt 2]
    sin: tuple[float, ...]  # r + r^3 P(r^2), |r| <= pi / 2
    tanh: tuple[float, ...]  # r + r^3 P(r^2), |r| <= 0.56
    erf: tuple[float, ...]  # r + r P(r^2), |r| <= 0.93 (f32), 1 (f64)


_F32 = _Format(
    mantissa=23,
    bias=127,
    smallest_normal=2.0**-126,
    magic=1.5 * 2.0**23,
    ln2=_hex("0x1.62e400p-1 0x1.7f7d1cp-20"),
    log2_e=_hex("0x1.715476p+0 0x1.4ae0cp-26"),
    pi=_hex("0x1.921fb6p+1 -0x1.777a5cp-24 -0x1.ee59dap-49"),
    trig_limit=1e5,
    exp_range=(-104.0, 89.0),
    expm1_range=(-18.0, 89.0),
    tanh_limit=9.5,
    exp=_hex(
        "0x1.fffffcp-2 0x1.555492p-3 0x1.5558f2p-5 0x1.123a1ep-7 0x1.6a23e8p-10",
    ),
    log1p=_hex(
        "0x1.55554ap-2 -0x1.00022p-2 0x1.99a596p-3 -0x1.547888p-3 0x1.226e58p-3 -0x1.0ce09ap-3",
        "0x1.07d0b8p-3 -0x1.41ed06p-4",
    ),
    sin=_hex(  # moved by 2 and 1 units in the middle, so that cos 0 is 1
        "-0x1.55554cp-3 0x1.110ec2p-7 -0x1.9f6bd6p-13 0x1.5d802p-19",
    ),
    tanh=_hex(
        "-0x1.55554ap-2 0x1.110cb2p-3 -0x1.b91370p-5 0x1.588286p-6 -0x1.96cf3cp-8",
    ),
    erf=_hex(
        "0x1.06eba8p-3 -0x1.812742p-2 0x1.ce2e0ap-4 -0x1.b80e9p-6 0x1.54c7f6p-8 -0x1.aa3f3p-11",
        "0x1.5cd4b8p-14",
    ),
)
_F64 = _Format(
    mantissa=52,
    bias=1023,
    smallest_normal=2.0**-1022,
    magic=1.5 * 2.0**52,
    ln2=_hex("0x1.62e42fefa3800p-1 0x1.ef35793c76730p-45"),
    log2_e=_hex("0x1.71547652b82fep+0 0x1.777d0ffda0d24p-56"),
    pi=_hex("0x1.921fb54442d18p+1 0x1.1a62633145c07p-53 -0x1.f1976b7ed8fbcp-109"),
    trig_limit=2.0**30,
    exp_range=(-746.0, 711.0),
    expm1_range=(-38.0, 710.0),
    tanh_limit=20.0,
    exp=_hex(
        "0x1.0p-1 0x1.5555555555555p-3 0x1.5555555555559p-5 0x1.1111111111105p-7",
        "0x1.6c16c16c14e24p-10 0x1.a01a01a0209a1p-13 0x1.a01a01ad9638ep-16 0x1.71de3a3d62ed3p-19",
        "0x1.27e4cc69fa183p-22 0x1.ae64997775a2ep-26 0x1.1f8ad4568da77p-29 0x1.61282701eaf6ap-33",
    ),
    log1p=_hex(
        "0x1.5555555555555p-1 0x1.9999999999dffp-2 0x1.249249242b38fp-2 0x1.c71c725909402p-3",
        "0x1.745cde3197ebfp-3 0x1.3b20ac4d76d81p-3 0x1.0f5cb7517ac1fp-3 0x1.0f63ba2a85728p-3",
    ),
    sin=_hex(
        "-0x1.5555555555555p-3 0x1.1111111111111p-7 -0x1.a01a01a01a01ap-13 0x1.71de3a556c716p-19",
        "-0x1.ae64567f52938p-26 0x1.6124613981a1ep-33 -0x1.ae7f3dadd4c62p-41",
        "0x1.952c174425adap-49 -0x1.2f2cdd208cc0cp-57 0x1.67e2984dad372p-66",
    ),
    tanh=_hex(
        "-0x1.5555555555555p-2 0x1.111111111108bp-3 -0x1.ba1ba1ba119c0p-5 0x1.664f487fbf88dp-6",
        "-0x1.226e34d6f8bccp-7 0x1.d6d3b274ab2dcp-9 -0x1.7da11b177a2b1p-10 0x1.3539fb722e5a9p-11",
        "-0x1.f35785b876c53p-13 0x1.8914f6e6c7a29p-14 -0x1.11cf5d62dd3f9p-15 0x1.e77433cb2359ep-18",
    ),
    erf=_hex(
        "0x1.06eba8214db69p-3 -0x1.812746b0379e6p-2 0x1.ce2f21a042b2p-4 -0x1.b82ce3128498fp-6",
        "0x1.565bcd0db00cbp-8 -0x1.c02db3d8e6c98p-11 0x1.f9a321a05b445p-14 -0x1.f4d1df2a060b1p-17",
        "0x1.b9def0d1d721dp-20 -0x1.5f1d2fbd42386p-23 0x1.f7a3c3ff7f9bbp-27 -0x1.3869c73f4fcd9p-30",
        "0x1.0576f36ab14b5p-34",
    ),
)

# expm1 in f32 wants more than exp does: (e^r - 1 - r) / r^2, |r| <= ln 2 / 2, relative to e^r - 1.
_EXPM1_F32 = _hex(
    "0x1.0p-1 0x1.555554p-3 0x1.5554bp-5 0x1.11118ap-7 0x1.6d723ep-10 0x1.a032aep-13",
)
# ln erfc(x), 0.91 <= x <= 4, f32.
_LOG_ERFC_F32 = _hex(
    "-0x1.7b06b4p-13 -0x1.20b36ap+0 -0x1.462f08p-1 -0x1.aa14d8p-4 0x1.6ce568p-6",
    "-0x1.9059acp-9 0x1.9d504ep-13",
)
# (1 + 2x) e^(x^2) erfc(x) in q = (x - 4) / (x + 4), 0 <= x <= 28.
_ERFC = _hex(
    "0x1.3ba5916e9fd7fp+0 -0x1.1df1ad154a28fp-3 0x1.f7f5df66fd6ccp-7 0x1.16ecefcfa54a5p-4",
    "-0x1.9ddb23c3e8957p-4 0x1.7fee004e0fdefp-4 -0x1.0fb06dfe55349p-4 0x1.3079edf6d4dadp-5",
    "-0x1.096238829b4efp-6 0x1.49c6726f00383p-8 -0x1.8d4a9c4dc5141p-11",
    "-0x1.a1df1613ad5dfp-13 0x1.3be06c0a62a84p-13 -0x1.995aceb11cb36p-16",
    "-0x1.788dd17557e04p-17 0x1.7f34714381464p-18 0x1.3bdaa4ae744b2p-22",
    "-0x1.bb700f7676db5p-21 0x1.3e4722167957dp-24 0x1.d9e0cc774df88p-24",
    "-0x1.2c1e33729bfc6p-26 -0x1.e3765595c3165p-27 0x1.ccfe16e1814f6p-30",
    "0x1.495304f0b770ep-30",
)
# (sin(r) - r) / r^3 in r^2, |r| <= pi / 4.
_SIN_QUARTER = _hex(
    "-0x1.5555555555555p-3 0x1.111111111110bp-7 -0x1.a01a01a018a67p-13 0x1.71de3a5330106p-19",
    "-0x1.ae64528cdbd0cp-26 0x1.61208bdee7bfap-33 -0x1.aaa2126c0d19dp-41",
)
# (cos(r) - 1 + r^2/2) / r^4 in r^2, |r| <= pi / 4.
_COS_QUARTER = _hex(
    "0x1.5555555555555p-5 -0x1.6c16c16c16c1p-10 0x1.a01a01a018de9p-16 -0x1.27e4fb75fd741p-22",
    "0x1.1eed8ca3a7bf9p-29 -0x1.9393383f65b6fp-37 0x1.aac5ac0a2338p-45",
)
# (atan(r) - r) / r^3 in r^2, |r| <= tan(pi / 8).
_ATAN = _hex(
    "-0x1.5555555555554p-2 0x1.999999999965ap-3 -0x1.2492492475d91p-3 0x1.c71c71b77a978p-4",
    "-0x1.745d14c01141dp-4 0x1.3b136eb4cc65fp-4 -0x1.110c7a32b150dp-4 0x1.e1728a3ec49adp-5",
    "-0x1.ab80d60f4f6a1p-5 0x1.70fa5931fddb2p-5 -0x1.12552ce301921p-5 0x1.f25cc09c635cp-7",
)
# (asin(r) - r) / r^3 in r^2, r^2 <= 1/4.
_ASIN = _hex(
    "0x1.5555555555578p-3 0x1.333333332df0fp-4 0x1.6db6db722b9f4p-5 0x1.f1c71a8b8ca61p-6",
    "0x1.6e8bdfe7ef75p-6 0x1.1c49ddeedde61p-6 0x1.ca2145a7a2c81p-7 0x1.7577848832394p-7",
    "0x1.618adf3f5873ap-7 0x1.e159a880f9b2cp-9 0x1.6502598188653p-6 -0x1.59f6d52f791d3p-6",
    "0x1.0be474a91a2f7p-5",
)
# digamma(x) / (x - root) in x - 3/2, 1 <= x <= 2, and its root in two parts.
_DIGAMMA = _hex(
    "0x1.e6f0cbb873616p-1 -0x1.b1cb63005ee98p-2 0x1.eca189b8e6f76p-3 -0x1.2feeeb98a78d3p-3",
    "0x1.8512e590384ccp-4 -0x1.fb44202a24f0cp-5 0x1.4de9aa17d3627p-5 -0x1.b9f8b11b64f28p-6",
    "0x1.25647162205c5p-6 -0x1.8635640e4d76ep-7 0x1.03c0b0f8babf7p-7 -0x1.5a06a32c0ab49p-8",
    "0x1.cd1f77f128455p-9 -0x1.336dea3d2541ap-9 0x1.99dceeb6d8484p-10 -0x1.0fb1c5fba9756p-10",
    "0x1.69e823d47bc8cp-11 -0x1.fda4f1d839b4ep-12 0x1.55b5bef730b4ap-12",
    "-0x1.2f5dc6805649bp-13 0x1.874ff8eb74a23p-14 -0x1.75fe01519951dp-13",
    "0x1.fc3c38684b776p-14",
)
_DIGAMMA_ROOT = _hex("0x1.762d86356be3fp+0 0x1.b86a722197829p-54")
# Bernoulli numbers B_2k / 2k: digamma(x) ~ ln x - 1/2x - sum_k B_2k / (2k x^2k)  (DLMF 5.11.2).
_DIGAMMA_TAIL = _hex(
    "0x1.5555555555555p-4 -0x1.1111111111111p-7 0x1.041041041041p-8 -0x1.1111111111111p-8",
    "0x1.f07c1f07c1f08p-8 -0x1.5995995995996p-6 0x1.5555555555555p-4 -0x1.c5e5e5e5e5e5ep-2",
    "0x1.86e7f9b9fe6e8p+1 -0x1.a74ca514ca515p+4",
)


def _format(x: Value) -> _Format:
    return _F32 if x.type.kind == "f32" else _F64


# ---- parts ----


def horner(b: Builder, x: Value, coefficients: Sequence[float]) -> Value:
    """c0 + x (c1 + x (c2 + …)) by fused steps."""
    result: Value | float = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        result = b.fma(x, result, c)
    assert isinstance(result, Value)
    return result


def _keep_zero(b: Builder, x: Value, y: Value) -> Value:
    """x itself where it is ±0, else y."""
    return b.select(b.cmp("eq", x, 0.0), x, y)


def _magic_bits(form: _Format) -> int:
    """The bits of `magic` as an integer: magic + n has the bits of magic plus n."""
    return (form.bias + form.mantissa) << form.mantissa | 1 << (form.mantissa - 1)


def _power(b: Builder, n: Value, form: _Format, like: Value) -> Value:
    """2^n for an integer n in the normal range."""
    return b.bitcast(b.shl(b.add(n, form.bias), form.mantissa), like.type.kind)


def _scale(b: Builder, y: Value, shifted: Value) -> Value:
    """y * 2^n with one rounding, n = shifted - magic, over- and underflow included."""
    form = _format(y)
    if b.target.has_avx512 and y.lanes and y.lanes * y.type.bits % 128 == 0:
        return _scale_avx512(b, y, b.sub(shifted, form.magic))
    n = b.sub(b.bitcast(shifted, y.type.integer.kind), _magic_bits(form))
    half = b.shr(n, 1, signed=True)
    return b.mul(b.mul(y, _power(b, half, form, y)), _power(b, b.sub(n, half), form, y))


def _scale_avx512(b: Builder, y: Value, n: Value) -> Value:
    """y * 2^n by the instruction `vscalef`, register by register."""
    bits = y.lanes * y.type.bits
    if bits > 512:
        half = y.lanes // 2
        parts = [_scale_avx512(b, b.slice(y, at, half), b.slice(n, at, half)) for at in (0, half)]
        return b.concat(*parts)
    mask = b.constant(-1, Type(f"i{max(8, y.lanes)}"))
    arguments = [y, n, y, mask]
    if bits == 512:
        arguments.append(b.constant(4, Type("i32")))  # the rounding mode in force
    suffix = "ps" if y.type.kind == "f32" else "pd"
    return b.intrinsic(f"llvm.x86.avx512.mask.scalef.{suffix}.{bits}", arguments, y.type)


def _split_exp(b: Builder, x: Value, extra: int = 0) -> tuple[Value, Value]:
    """(r, shifted): x = n ln 2 + r with |r| <= ln 2 / 2, and shifted = magic + extra + n."""
    form = _format(x)
    shifted = b.fma(x, LOG2_E, form.magic + extra)
    n = b.sub(shifted, form.magic + extra)
    high, low = form.ln2
    return b.fma(n, -low, b.fma(n, -high, x)), shifted


def _bits_to_power(b: Builder, shifted: Value, form: _Format) -> Value:
    """2^n from shifted = magic + bias + n, n in the normal range: the low bits become the exponent."""
    return b.bitcast(b.shl(b.bitcast(shifted, shifted.type.integer.kind), form.mantissa), shifted.type.kind)


def _expm1_polynomial(b: Builder, r: Value) -> Value:
    """e^r - 1 = r + r^2 P(r)."""
    coefficients = _EXPM1_F32 if r.type.kind == "f32" else _F64.exp
    return b.fma(b.mul(r, r), horner(b, r, coefficients), r)


def _split_log(b: Builder, x: Value) -> tuple[Value, Value, Value]:
    """(k, m, biased): x = 2^k m with m in [1/sqrt 2, sqrt 2), x normal; biased is the integer k + bias."""
    form = _format(x)
    root = _float_bits_of_root_half(form)
    one = form.bias << form.mantissa
    moved = b.add(b.bitcast(x, x.type.integer.kind), one - root)
    biased = b.shr(moved, form.mantissa, signed=False)
    k = b.sub(b.bitcast(b.add(biased, _magic_bits(form)), x.type.kind), form.magic + form.bias)
    m = b.add(b.and_(moved, (1 << form.mantissa) - 1), root)
    return k, b.bitcast(m, x.type.kind), biased


def _float_bits_of_root_half(form: _Format) -> int:
    return 0x3F3504F3 if form.mantissa == 23 else 0x3FE6A09E667F3BCD


def _log1p_reduced(b: Builder, f: Value, k: Value | None) -> Value:
    """k ln 2 + ln(1 + f), 1 + f in [1/sqrt 2, sqrt 2].

    f32: ln(1+f) = f - f^2/2 + f^3 P(f).
    f64: ln(1+f) = f - (f^2/2 - s (f^2/2 + s^2 P(s^2))) with s = f / (2+f).
    """
    form = _format(f)
    square = b.mul(f, f)
    if f.type.kind == "f32":
        small = b.mul(b.mul(f, square), horner(b, f, form.log1p))
        if k is not None:
            small = b.fma(k, form.ln2[1], small)
        total = b.add(b.fma(square, -0.5, small), f)
    else:
        s = b.div(f, b.add(f, 2.0))
        z = b.mul(s, s)
        half = b.mul(square, 0.5)
        small = b.mul(s, b.fma(z, horner(b, z, form.log1p), half))
        if k is not None:
            small = b.fma(k, form.ln2[1], small)
        total = b.add(b.sub(small, half), f)
    return total if k is None else b.fma(k, form.ln2[0], total)


def _log_specials(b: Builder, x: Value, y: Value) -> Value:
    """y, except: 0 gives -inf, inf gives inf, a negative x or NaN gives NaN."""
    y = b.select(b.cmp("eq", x, INFINITY), x, y)
    y = b.select(b.cmp("ge", x, 0.0), y, NAN)
    return b.select(b.cmp("eq", x, 0.0), -INFINITY, y)


def _lift_subnormal(b: Builder, x: Value) -> tuple[Value, Value, float]:
    """(subnormal?, x made normal, exponent taken away where it was subnormal)."""
    form = _format(x)
    tiny = b.cmp("lt", x, form.smallest_normal)
    power = form.mantissa + 2
    return tiny, b.select(tiny, b.mul(x, 2.0**power), x), float(power)


def _reduce_trig(b: Builder, x: Value, n: Value) -> Value:
    """x - n pi by three fused steps; the first is exact where |x| <= trig_limit and 2n is an integer."""
    for part in _format(x).pi:
        x = b.fma(n, -part, x)
    return x


def _sin_reduced(b: Builder, r: Value, parity: Value) -> Value:
    """(-1)^parity sin r for |r| <= pi / 2; parity is the lowest bit of an integer."""
    form = _format(r)
    z = b.mul(r, r)
    y = b.fma(b.mul(r, z), horner(b, z, form.sin), r)
    y = b.max_second(-1.0, b.min_second(1.0, y))  # rounding may reach beyond at pi / 2
    sign = b.shl(parity, r.type.bits - 1)
    return b.bitcast(b.xor(b.bitcast(y, sign.type.kind), sign), r.type.kind)


def _per_lane(b: Builder, name: str, *xs: Value) -> Value:
    """The C library's double function `name` in every lane, rounded to the lanes' format."""
    kind, lanes = xs[0].type.kind, xs[0].lanes
    wide = [b.convert(x, "f64") for x in xs]
    if not lanes:
        return b.convert(_call(b, name, wide), kind)
    buffers = [b.alloca(lanes * 8) for _ in wide]
    for buffer, x in zip(buffers, wide, strict=True):
        b.store(x, buffer)
    with b.loop(0, lanes * 8, 8) as loop:
        places = [b.offset(buffer, loop.index) for buffer in buffers]
        b.store(_call(b, name, [b.load(place, F64) for place in places]), places[0])
    return b.convert(b.load(buffers[0], F64.vector(lanes)), kind)


def _call(b: Builder, name: str, xs: Sequence[Value]) -> Value:
    result = b.call(name, xs, F64)
    assert result is not None
    return result


def _where_rare(b: Builder, rare: Value, common: Value, name: str, *xs: Value) -> Value:
    """`common`, but the C library's answer in the lanes where `rare` holds; skipped if there are none."""
    with b.if_(b.any(rare), [common.type]) as choice:
        choice.yield_(b.select(rare, _per_lane(b, name, *xs), common))
        choice.otherwise()
        choice.yield_(common)
    return choice.results[0]


def _through_f64(function: Callable[..., Value]) -> Callable[..., Value]:
    """f32 arguments are evaluated in f64 and rounded once."""

    @wraps(function)
    def widened(b: Builder, *xs: Value) -> Value:
        if xs[0].type.kind == "f64":
            return function(b, *xs)
        return b.convert(function(b, *(b.convert(x, "f64") for x in xs)), "f32")

    return widened


# ---- exponentials ----


def exp(b: Builder, x: Value) -> Value:
    """e^x = 2^n e^r, n the integer nearest x / ln 2."""
    return _exp(b, x, halvings=0)


def _exp(b: Builder, x: Value, halvings: int) -> Value:
    """e^x / 2^halvings without overflow on the way."""
    form = _format(x)
    low, high = form.exp_range
    x = b.max_second(low, b.min_second(high, x))  # NaN passes through
    r, shifted = _split_exp(b, x)
    y = horner(b, r, (1.0, 1.0, *form.exp))
    return _scale(b, y, b.sub(shifted, float(halvings)) if halvings else shifted)


def _exp_negative(b: Builder, x: Value) -> Value:
    """e^x for x <= 0."""
    form = _format(x)
    r, shifted = _split_exp(b, b.max_second(form.exp_range[0], x))
    return _scale(b, horner(b, r, (1.0, 1.0, *form.exp)), shifted)


def exp2(b: Builder, x: Value) -> Value:
    """2^x = 2^n e^(r ln 2), n the integer nearest x; r is exact."""
    form = _format(x)
    lowest = -float(form.bias + form.mantissa + 2)
    x = b.max_second(lowest, b.min_second(float(form.bias + 2), x))
    shifted = b.add(x, form.magic)
    r = b.sub(x, b.sub(shifted, form.magic))
    high = b.mul(r, LN2)
    low = b.fma(r, LN2, b.neg(high))  # what the rounding of the product took away
    y = horner(b, high, (1.0, 1.0, *form.exp))
    return _scale(b, b.fma(y, low, y), shifted)


def expm1(b: Builder, x: Value) -> Value:
    """e^x - 1 = 2 (2^(n-1) (e^r - 1) + 2^(n-1) - 1/2); halved so that the largest n has a 2^n."""
    low, high = _format(x).expm1_range
    half = _expm1_halved(b, b.max_second(low, b.min_second(high, x)), halvings=1)
    return b.copysign(b.mul(half, 2.0), x)


def _expm1_halved(b: Builder, x: Value, halvings: int) -> Value:
    """(e^x - 1) / 2^halvings for an x with n - halvings in the normal range."""
    form = _format(x)
    r, shifted = _split_exp(b, x, extra=form.bias - halvings)
    scale = _bits_to_power(b, shifted, form)
    return b.fma(scale, _expm1_polynomial(b, r), b.sub(scale, 0.5**halvings))


def sigmoid(b: Builder, x: Value) -> Value:
    """1 / (1 + e^-x), for a negative x as e^-|x| / (1 + e^-|x|): small results keep their bits."""
    e = _exp_negative(b, b.neg(b.abs(x)))
    numerator = b.select(b.cmp("lt", x, 0.0), e, 1.0)
    return b.div(numerator, b.add(e, 1.0))


def softplus(b: Builder, x: Value) -> Value:
    """ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|)."""
    e = _exp_negative(b, b.neg(b.abs(x)))
    above = b.cmp("gt", e, 0.41421356)
    f = b.select(above, b.fma(e, 0.5, -0.5), e)
    k = b.select(above, b.constant(1.0, x.type), 0.0)
    return b.add(b.max_second(x, 0.0), _log1p_reduced(b, f, k))


def tanh(b: Builder, x: Value) -> Value:
    """1 - 2 / (e^2|x| + 1), or |x| + |x|^3 P(x^2) up to 0.55, with the sign of x."""
    form = _format(x)
    size = b.min_second(form.tanh_limit, b.abs(x))
    square = b.mul(size, size)
    near = b.fma(b.mul(size, square), horner(b, square, form.tanh), size)
    r, shifted = _split_exp(b, b.mul(size, 2.0), extra=form.bias)
    power = _bits_to_power(b, shifted, form)
    denominator = b.fma(power, horner(b, r, (1.0, 1.0, *form.exp)), 1.0)
    far = b.sub(1.0, b.div(2.0, denominator))
    return b.copysign(b.select(b.cmp("lt", size, 0.55), near, far), x)


@_through_f64
def sinh(b: Builder, x: Value) -> Value:
    """h + h / (2h + 1) for h = (e^|x| - 1) / 2, with the sign of x."""
    quarter = _expm1_halved(b, b.min_second(710.6, b.abs(x)), halvings=2)  # sinh overflows above 710.47
    h = b.mul(quarter, 2.0)
    denominator = b.min_second(1.7976931348623157e308, b.fma(h, 2.0, 1.0))
    return b.copysign(b.add(h, b.div(h, denominator)), x)


@_through_f64
def cosh(b: Builder, x: Value) -> Value:
    """h + 1 / 4h for h = e^|x| / 2."""
    h = _exp(b, b.abs(x), halvings=1)
    return b.add(h, b.div(0.25, h))


# ---- logarithms ----


def log(b: Builder, x: Value) -> Value:
    """ln x = k ln 2 + ln m, m in [1/sqrt 2, sqrt 2)."""
    tiny, lifted, power = _lift_subnormal(b, x)
    k, m, _ = _split_log(b, lifted)
    k = b.select(tiny, b.sub(k, power), k)
    return _log_specials(b, x, _log1p_reduced(b, b.sub(m, 1.0), k))


def log2(b: Builder, x: Value) -> Value:
    """k + log2(e) ln m, with log2(e) in two parts."""
    tiny, lifted, power = _lift_subnormal(b, x)
    k, m, _ = _split_log(b, lifted)
    k = b.select(tiny, b.sub(k, power), k)
    y = _log1p_reduced(b, b.sub(m, 1.0), None)
    high, low = _format(x).log2_e
    return _log_specials(b, x, b.add(b.fma(y, high, k), b.mul(y, low)))


def log1p(b: Builder, x: Value) -> Value:
    """ln(1 + x): k and m are those of 1 + x, but f = 2^-k x + (2^-k - 1) is rounded once from x itself."""
    form = _format(x)
    u = b.add(x, 1.0)
    k, m, biased = _split_log(b, u)
    inverse = b.bitcast(b.shl(b.sub(2 * form.bias, biased), form.mantissa), x.type.kind)
    exact = b.fma(x, inverse, b.sub(inverse, 1.0))
    large = b.cmp("gt", u, 2.0 ** (form.mantissa + 2))  # 2^-k may underflow there, and 1 no longer matters
    y = _log1p_reduced(b, b.select(large, b.sub(m, 1.0), exact), k)
    return b.copysign(_log_specials(b, u, y), x)


@_through_f64
def asinh(b: Builder, x: Value) -> Value:
    """ln(|x| + sqrt(x^2 + 1)) as log1p(|x| + x^2 / (1 + sqrt(x^2 + 1))); ln |x| + ln 2 above 2^54."""
    size = b.abs(x)
    large = b.cmp("gt", size, 2.0**54)
    square = b.mul(size, size)
    small = b.add(size, b.div(square, b.add(b.sqrt(b.add(square, 1.0)), 1.0)))
    return b.copysign(_log1p_or_log_twice(b, large, small, size), x)


@_through_f64
def acosh(b: Builder, x: Value) -> Value:
    """log1p(t + sqrt(2t + t^2)) for t = x - 1; ln x + ln 2 above 2^54; NaN below 1."""
    t = b.sub(x, 1.0)
    large = b.cmp("gt", x, 2.0**54)
    small = b.add(t, b.sqrt(b.fma(t, t, b.mul(t, 2.0))))
    y = _log1p_or_log_twice(b, large, small, x)
    return b.select(b.cmp("ge", x, 1.0), y, NAN)


def _log1p_or_log_twice(b: Builder, large: Value, small: Value, size: Value) -> Value:
    """log1p(small), or ln(2 size) where size is large."""
    y = log1p(b, b.select(large, size, small))
    return b.select(large, b.add(y, LN2), y)


@_through_f64
def atanh(b: Builder, x: Value) -> Value:
    """log1p(2|x| + 2|x| |x| / (1 - |x|)) / 2 with the sign of x."""
    size = b.abs(x)
    twice = b.mul(size, 2.0)
    ratio = b.div(size, b.sub(1.0, size))
    argument = b.select(b.cmp("lt", size, 0.5), b.fma(twice, ratio, twice), b.mul(ratio, 2.0))
    return b.copysign(b.mul(log1p(b, argument), 0.5), x)


# ---- circles ----


def sin(b: Builder, x: Value) -> Value:
    """(-1)^n sin(x - n pi), n the integer nearest x / pi; a huge x asks the C library."""
    form = _format(x)
    shifted = b.fma(x, 1 / math.pi, form.magic)
    r = _reduce_trig(b, x, b.sub(shifted, form.magic))
    y = _keep_zero(b, x, _sin_reduced(b, r, b.bitcast(shifted, x.type.integer.kind)))
    return _where_rare(b, b.cmp("gt", b.abs(x), form.trig_limit), y, "sin", x)


def cos(b: Builder, x: Value) -> Value:
    """(-1)^n sin(x - (n - 1/2) pi), n the integer nearest x / pi + 1/2; a huge x asks the C library."""
    form = _format(x)
    shifted = b.add(b.fma(x, 1 / math.pi, 0.5), form.magic)
    n = b.sub(shifted, form.magic)
    y = _sin_reduced(b, _reduce_trig(b, x, b.sub(n, 0.5)), b.bitcast(shifted, x.type.integer.kind))
    return _where_rare(b, b.cmp("gt", b.abs(x), form.trig_limit), y, "cos", x)


@_through_f64
def tan(b: Builder, x: Value) -> Value:
    """sin r / cos r or -cos r / sin r for r = x - n pi/2; the quotient is corrected by its residual."""
    form = _format(x)
    shifted = b.fma(x, 2 / math.pi, form.magic)
    n = b.sub(shifted, form.magic)
    middle, last = (-part / 2 for part in form.pi[1:])
    first = b.fma(n, -form.pi[0] / 2, x)
    second = b.fma(n, middle, first)
    r = b.fma(n, last, second)
    quotient = _tan_quotient(b, r, _lost(b, n, middle, last, first, r), shifted)
    y = _keep_zero(b, x, quotient)
    return _where_rare(b, b.cmp("gt", b.abs(x), form.trig_limit), y, "tan", x)


def _lost(b: Builder, n: Value, middle: float, last: float, first: Value, r: Value) -> Value:
    """first + n middle + n last - r: what rounding took from r."""
    return b.fma(n, last, b.fma(n, middle, b.sub(first, r)))


def _tan_quotient(b: Builder, r: Value, low: Value, shifted: Value) -> Value:
    """tan(r + low + n pi/2), |r| <= pi/4, with numerator and denominator as unevaluated sums."""
    z = b.mul(r, r)
    sine_low = b.fma(b.mul(r, z), horner(b, z, _SIN_QUARTER), low)
    half = b.mul(z, 0.5)
    cosine = b.sub(1.0, half)
    rest = b.sub(b.sub(1.0, cosine), half)
    residue = b.fma(r, b.mul(r, -0.5), half)  # z was rounded
    cosine_low = b.fma(b.mul(z, z), horner(b, z, _COS_QUARTER), b.add(rest, b.fma(r, b.neg(low), residue)))
    odd = b.convert(b.and_(b.bitcast(shifted, "i64"), 1), "i1")
    top, top_low = b.select(odd, b.neg(cosine), r), b.select(odd, b.neg(cosine_low), sine_low)
    bottom, bottom_low = b.select(odd, r, cosine), b.select(odd, sine_low, cosine_low)
    inverse = b.div(1.0, b.add(bottom, bottom_low))
    q = b.mul(b.add(top, top_low), inverse)
    error = b.add(b.fma(b.neg(q), bottom, top), b.fma(b.neg(q), bottom_low, top_low))
    return b.fma(error, inverse, q)


@_through_f64
def atan(b: Builder, x: Value) -> Value:
    """The angle of (1, x)."""
    size = b.abs(x)
    return b.copysign(_atan_ratio(b, size, b.constant(1.0, x.type)), x)


def _atan_ratio(b: Builder, top: Value, bottom: Value) -> Value:
    """atan(top / bottom) in [0, pi/2] for top, bottom >= 0, reduced to |t| <= tan(pi/8) by multiples of pi/4.

    atan(y/x) = pi/4 + atan((y-x) / (y+x)) = pi/2 - atan(x/y).
    """
    one_eighth, three_eighths = math.tan(math.pi / 8), math.tan(3 * math.pi / 8)
    ratio = b.div(top, bottom)
    middle = b.cmp("gt", ratio, one_eighth)
    steep = b.cmp("gt", ratio, three_eighths)
    t_middle = b.div(b.sub(ratio, 1.0), b.add(ratio, 1.0))
    t_steep = b.neg(b.div(bottom, top))
    t = b.select(steep, t_steep, b.select(middle, t_middle, ratio))
    base = b.select(steep, math.pi / 2, b.select(middle, b.constant(math.pi / 4, t.type), 0.0))
    low = b.select(middle, b.constant(PI_LOW / 4, t.type), 0.0)
    low = b.select(steep, PI_LOW / 2, low)
    z = b.mul(t, t)
    return b.add(base, b.add(b.fma(b.mul(t, z), horner(b, z, _ATAN), low), t))


@_through_f64
def atan2(b: Builder, y: Value, x: Value) -> Value:
    """The angle of (x, y) in [-pi, pi], with C99's answers for zeros and infinities."""
    height, width = b.abs(y), b.abs(x)
    both_infinite = b.and_(b.cmp("eq", height, INFINITY), b.cmp("eq", width, INFINITY))
    both_zero = b.cmp("eq", b.max_second(height, width), 0.0)
    top = b.select(both_infinite, 1.0, height)
    bottom = b.select(b.or_(both_infinite, both_zero), 1.0, width)
    angle = _atan_ratio(b, top, bottom)
    negative = b.cmp("lt", b.bitcast(x, "i64"), 0)
    reflected = b.add(b.sub(math.pi, angle), PI_LOW)
    angle = b.copysign(b.select(negative, reflected, angle), y)
    angle = b.select(b.is_nan(x), x, angle)
    return b.select(b.is_nan(y), y, angle)


def _asin_polynomial(b: Builder, z: Value) -> Value:
    """(asin(r) - r) / r for z = r^2 <= 1/4."""
    return b.mul(z, horner(b, z, _ASIN))


def _root_parts(b: Builder, z: Value) -> tuple[Value, Value]:
    """sqrt(z) as high + low."""
    s = b.sqrt(z)
    low = b.div(b.fma(b.neg(s), s, z), b.mul(s, 2.0))
    return s, b.select(b.cmp("gt", s, 0.0), low, 0.0)


@_through_f64
def asin(b: Builder, x: Value) -> Value:
    """x + x P(x^2) up to 1/2; pi/2 - 2 asin(sqrt((1 - |x|) / 2)) above; NaN beyond 1."""
    size = b.abs(x)
    large = b.cmp("gt", size, 0.5)
    z = b.select(large, b.mul(b.sub(1.0, size), 0.5), b.mul(size, size))
    p = _asin_polynomial(b, z)
    s, low = _root_parts(b, z)
    twice = b.mul(b.add(b.fma(s, p, low), s), 2.0)
    outer = b.add(b.sub(math.pi / 2, twice), PI_LOW / 2)
    return b.copysign(b.select(large, outer, b.fma(size, p, size)), x)


@_through_f64
def acos(b: Builder, x: Value) -> Value:
    """pi/2 - asin x up to 1/2 in size; 2 asin(sqrt((1 - |x|) / 2)) above, from pi for a negative x."""
    size = b.abs(x)
    large = b.cmp("gt", size, 0.5)
    z = b.select(large, b.mul(b.sub(1.0, size), 0.5), b.mul(size, size))
    p = _asin_polynomial(b, z)
    s, low = _root_parts(b, z)
    twice = b.mul(b.add(b.fma(s, p, low), s), 2.0)
    reflected = b.add(b.sub(math.pi, twice), PI_LOW)
    outer = b.select(b.cmp("lt", x, 0.0), reflected, twice)
    inner = b.sub(math.pi / 2, b.sub(x, b.fma(b.neg(x), p, PI_LOW / 2)))
    return b.select(large, outer, inner)


# ---- error function and gamma ----


def erf(b: Builder, x: Value) -> Value:
    """x + x P(x^2) near zero; 1 - erfc(|x|) with the sign of x beyond."""
    if x.type.kind == "f64":
        return _erf_f64(b, x)
    size = b.min_second(4.0, b.abs(x))
    near = b.fma(size, horner(b, b.mul(size, size), _F32.erf), size)
    r, shifted = _split_exp(b, horner(b, size, _LOG_ERFC_F32), extra=_F32.bias)
    scale = b.neg(_bits_to_power(b, shifted, _F32))
    far = b.fma(scale, horner(b, r, (1.0, 1.0, *_F32.exp)), 1.0)
    return b.copysign(b.select(b.cmp("lt", size, 0.92), near, far), x)


def _erf_f64(b: Builder, x: Value) -> Value:
    size = b.abs(x)
    near = b.fma(size, horner(b, b.mul(size, size), _F64.erf), size)
    far = b.sub(1.0, _erfc_positive(b, size))
    return b.copysign(b.select(b.cmp("lt", size, 1.0), near, far), x)


def _erfc_positive(b: Builder, x: Value) -> Value:
    """erfc(x) = P(q) e^(-x^2) / (1 + 2x) for x >= 0, q = (x - 4) / (x + 4); x^2 is kept in two parts.

    The form of M. M. Shepherd and J. G. Laframboise, Math. Comp. 36 (1981) 249.
    """
    x = b.min_second(28.0, x)
    q = b.div(b.sub(x, 4.0), b.add(x, 4.0))
    square = b.mul(x, x)
    lost = b.fma(x, x, b.neg(square))
    y = b.div(horner(b, q, _ERFC), b.fma(x, 2.0, 1.0))
    return b.mul(b.fma(y, b.neg(lost), y), _exp_negative(b, b.neg(square)))


@_through_f64
def erfc(b: Builder, x: Value) -> Value:
    """1 - erf(x) where |x| < 1/2; 2 - erfc(-x) below."""
    size = b.abs(x)
    tail = _erfc_positive(b, size)
    outer = b.select(b.cmp("lt", x, 0.0), b.sub(2.0, tail), tail)
    inner = b.sub(1.0, b.fma(x, horner(b, b.mul(x, x), _F64.erf), x))
    return b.select(b.cmp("lt", size, 0.5), inner, outer)


def lgamma(b: Builder, x: Value) -> Value:
    """ln |Gamma(x)|, from the C library."""
    return _per_lane(b, "lgamma", x)


@_through_f64
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


# ---- powers and remainders ----


def pow_(b: Builder, x: Value, y: Value) -> Value:
    """x^y. f32: 2^(y log2 |x|) in f64 with C99's special cases; f64: the C library."""
    if x.type.kind == "f64":
        return _per_lane(b, "pow", x, y)
    x, y = b.convert(x, "f64"), b.convert(y, "f64")
    size = b.abs(x)
    magnitude = exp2(b, b.mul(y, log2(b, size)))
    # y beyond 2^53 is an even integer, and so is an infinity.
    whole = b.cmp("eq", b.trunc(y), y)
    half = b.mul(y, 0.5)
    odd = b.and_(whole, b.cmp("ne", b.trunc(half), half))
    negative = b.cmp("lt", b.bitcast(x, "i64"), 0)
    result = b.select(b.and_(odd, negative), b.neg(magnitude), magnitude)
    finite_negative = b.and_(b.cmp("lt", x, 0.0), b.cmp("gt", x, -INFINITY))
    result = b.select(b.and_(finite_negative, b.not_(whole)), NAN, result)
    infinite_turn = b.and_(b.cmp("eq", size, 1.0), b.cmp("eq", b.abs(y), INFINITY))
    always_one = b.or_(b.cmp("eq", y, 0.0), b.or_(b.cmp("eq", x, 1.0), infinite_turn))
    return b.convert(b.select(always_one, 1.0, result), "f32")


@_through_f64
def fmod(b: Builder, x: Value, y: Value) -> Value:
    """x - y trunc(x / y), exact; a quotient beyond 2^52 asks the C library.

    The rounded quotient may be one too far: the remainder then has the wrong sign, and |y| is given back.
    """
    size, modulus = b.abs(x), b.abs(y)
    quotient = b.trunc(b.div(size, modulus))
    r = b.fma(b.neg(quotient), modulus, size)
    r = b.select(b.cmp("lt", r, 0.0), b.add(r, modulus), r)
    r = b.select(b.cmp("lt", size, modulus), size, r)
    rare = b.cmp("lt", quotient, 2.0**52)
    rare = b.not_(b.and_(rare, b.cmp("gt", modulus, 0.0)))
    return _where_rare(b, rare, b.copysign(r, x), "fmod", x, y)


def rsqrt(b: Builder, x: Value) -> Value:
    """1 / sqrt(x) by the exact square root and division."""
    return b.div(1.0, b.sqrt(x))


def round_half_even(b: Builder, x: Value) -> Value:
    """The nearest integer, ties to even."""
    return b.round_even(x)


VECTOR_MATH: dict[str, Callable[..., Value]] = {
    "exp": exp,
    "exp2": exp2,
    "expm1": expm1,
    "log": log,
    "log2": log2,
    "log1p": log1p,
    "sin": sin,
    "cos": cos,
    "tan": tan,
    "asin": asin,
    "acos": acos,
    "atan": atan,
    "atan2": atan2,
    "sinh": sinh,
    "cosh": cosh,
    "tanh": tanh,
    "asinh": asinh,
    "acosh": acosh,
    "atanh": atanh,
    "erf": erf,
    "erfc": erfc,
    "lgamma": lgamma,
    "digamma": digamma,
    "sigmoid": sigmoid,
    "softplus": softplus,
    "pow": pow_,
    "fmod": fmod,
    "rsqrt": rsqrt,
    "round": round_half_even,
}
