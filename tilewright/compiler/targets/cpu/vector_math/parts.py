"""What several functions are made of: polynomials, reductions of the argument, scaling by powers of two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps

from tilewright.compiler.targets.cpu.builder import F64, Builder, Type, Value
from tilewright.compiler.targets.cpu.vector_math.formats import (
    F64_FORMAT,
    INFINITY,
    LOG2_E,
    NAN,
    Format,
    format_of,
    hexes,
)
from tilewright.runtime.precision import FAST

# expm1 in f32 wants more than exp does: (e^r - 1 - r) / r^2, |r| <= ln 2 / 2, relative to e^r - 1.
_EXPM1_F32 = hexes(
    "0x1.0p-1 0x1.555554p-3 0x1.5554bp-5 0x1.11118ap-7 0x1.6d723ep-10 0x1.a032aep-13",
)


def horner(b: Builder, x: Value, coefficients: Sequence[float | Value]) -> Value:
    """c0 + x (c1 + x (c2 + …)) by fused steps."""
    result = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        result = b.fma(x, result, c)
    assert isinstance(result, Value)
    return result


def fast_two_sum(b: Builder, x: Value, y: Value) -> tuple[Value, Value]:
    """(s, e): s is x + y rounded, s + e is x + y exactly, for |x| >= |y|."""
    total = b.add(x, y)
    return total, b.sub(y, b.sub(total, x))


def two_sum(b: Builder, x: Value, y: Value) -> tuple[Value, Value]:
    """fast_two_sum without a condition."""
    total = b.add(x, y)
    of_y = b.sub(total, x)
    return total, b.add(b.sub(x, b.sub(total, of_y)), b.sub(y, of_y))


def two_product(b: Builder, x: Value, y: Value) -> tuple[Value, Value]:
    """(p, e): p is x y rounded, p + e is x y exactly."""
    product = b.mul(x, y)
    return product, b.fma(x, y, b.neg(product))


def keep_zero(b: Builder, x: Value, y: Value) -> Value:
    """x itself where it is ±0, else y."""
    return b.select(b.cmp("eq", x, 0.0), x, y)


def magic_bits(form: Format) -> int:
    """The bits of `magic` as an integer: magic + n has the bits of magic plus n."""
    return (form.bias + form.mantissa) << form.mantissa | 1 << (form.mantissa - 1)


def power_of_two(b: Builder, n: Value, form: Format, like: Value) -> Value:
    """2^n for an integer n in the normal range."""
    return b.bitcast(b.shl(b.add(n, form.bias), form.mantissa), like.type.kind)


def scale(b: Builder, y: Value, shifted: Value) -> Value:
    """y * 2^n with one rounding, n = shifted - magic, over- and underflow included."""
    form = format_of(y)
    if b.target.has_avx512 and y.lanes and y.lanes * y.type.bits % 128 == 0:
        return scale_avx512(b, y, b.sub(shifted, form.magic))
    n = b.sub(b.bitcast(shifted, y.type.integer.kind), magic_bits(form))
    half = b.shr(n, 1, signed=True)
    return b.mul(b.mul(y, power_of_two(b, half, form, y)), power_of_two(b, b.sub(n, half), form, y))


def scale_avx512(b: Builder, y: Value, n: Value) -> Value:
    """y * 2^n by the instruction `vscalef`, register by register."""
    bits = y.lanes * y.type.bits
    if bits > 512:
        half = y.lanes // 2
        parts = [scale_avx512(b, b.slice(y, at, half), b.slice(n, at, half)) for at in (0, half)]
        return b.concat(*parts)
    mask = b.constant(-1, Type(f"i{max(8, y.lanes)}"))
    arguments = [y, n, y, mask]
    if bits == 512:
        arguments.append(b.constant(4, Type("i32")))  # the rounding mode in force
    suffix = "ps" if y.type.kind == "f32" else "pd"
    return b.intrinsic(f"llvm.x86.avx512.mask.scalef.{suffix}.{bits}", arguments, y.type)


def split_exp(b: Builder, x: Value, extra: int = 0) -> tuple[Value, Value]:
    """(r, shifted): x = n ln 2 + r with |r| <= ln 2 / 2, and shifted = magic + extra + n."""
    form = format_of(x)
    shifted = b.fma(x, LOG2_E, form.magic + extra)
    n = b.sub(shifted, form.magic + extra)
    high, low = form.ln2
    return b.fma(n, -low, b.fma(n, -high, x)), shifted


def bits_to_power(b: Builder, shifted: Value, form: Format) -> Value:
    """2^n from shifted = magic + bias + n, n in the normal range: the low bits become the exponent."""
    return b.bitcast(b.shl(b.bitcast(shifted, shifted.type.integer.kind), form.mantissa), shifted.type.kind)


def expm1_polynomial(b: Builder, r: Value) -> Value:
    """e^r - 1 = r + r^2 P(r)."""
    coefficients = _EXPM1_F32 if r.type.kind == "f32" else F64_FORMAT.exp
    return b.fma(b.mul(r, r), horner(b, r, coefficients), r)


def split_log(b: Builder, x: Value) -> tuple[Value, Value, Value]:
    """(k, m, biased): x = 2^k m with m in [1/sqrt 2, sqrt 2), x normal; biased is the integer k + bias."""
    form = format_of(x)
    root = _float_bits_of_root_half(form)
    one = form.bias << form.mantissa
    moved = b.add(b.bitcast(x, x.type.integer.kind), one - root)
    biased = b.shr(moved, form.mantissa, signed=False)
    k = b.sub(b.bitcast(b.add(biased, magic_bits(form)), x.type.kind), form.magic + form.bias)
    m = b.add(b.and_(moved, (1 << form.mantissa) - 1), root)
    return k, b.bitcast(m, x.type.kind), biased


def _float_bits_of_root_half(form: Format) -> int:
    return 0x3F3504F3 if form.mantissa == 23 else 0x3FE6A09E667F3BCD


def log1p_reduced(b: Builder, f: Value, k: Value | None) -> Value:
    """k ln 2 + ln(1 + f), 1 + f in [1/sqrt 2, sqrt 2].

    f32: ln(1+f) = f - f^2/2 + f^3 P(f).
    f64: ln(1+f) = f - (f^2/2 - s (f^2/2 + s^2 P(s^2))) with s = f / (2+f).
    """
    form = format_of(f)
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


def log_specials(b: Builder, x: Value, y: Value) -> Value:
    """y, except: 0 gives -inf, inf gives inf, a negative x or NaN gives NaN."""
    y = b.select(b.cmp("eq", x, INFINITY), x, y)
    y = b.select(b.cmp("ge", x, 0.0), y, NAN)
    return b.select(b.cmp("eq", x, 0.0), -INFINITY, y)


def lift_subnormal(b: Builder, x: Value) -> tuple[Value, Value, float]:
    """(subnormal?, x made normal, exponent taken away where it was subnormal)."""
    form = format_of(x)
    tiny = b.cmp("lt", x, form.smallest_normal)
    power = form.mantissa + 2
    return tiny, b.select(tiny, b.mul(x, 2.0**power), x), float(power)


def per_lane(b: Builder, name: str, *xs: Value) -> Value:
    """The C library's double function `name` in every lane, rounded to the lanes' format."""
    kind, lanes = xs[0].type.kind, max(x.lanes for x in xs)
    wide = [b.convert(x if x.lanes == lanes else b.splat(x, lanes), "f64") for x in xs]
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


def where_rare(b: Builder, rare: Value, common: Value, name: str, *xs: Value) -> Value:
    """`common`, but the C library's answer in the lanes where `rare` holds; skipped if there are none."""
    with b.if_(b.any(rare), [common.type]) as choice:
        choice.yield_(b.select(rare, per_lane(b, name, *xs), common))
        choice.otherwise()
        choice.yield_(common)
    return choice.results[0]


def through_f64(function: Callable[..., Value]) -> Callable[..., Value]:
    """f32 arguments are evaluated in f64 and rounded once."""

    @wraps(function)
    def widened(b: Builder, *xs: Value) -> Value:
        if xs[0].type.kind == "f64":
            return function(b, *xs)
        return b.convert(function(b, *(b.convert(x, "f64") for x in xs)), "f32")

    return widened


def through_f64_if_exact(function: Callable[..., Value]) -> Callable[..., Value]:
    """The same, unless fast functions are wanted: these are evaluated in f32."""
    widened = through_f64(function)

    @wraps(function)
    def either(b: Builder, *xs: Value) -> Value:
        return function(b, *xs) if b.accuracy == FAST else widened(b, *xs)

    return either
