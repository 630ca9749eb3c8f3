"""Elementary functions: error in units of the last place over the whole range, special values, both widths.

f32 is compared with float64 functions of NumPy and SciPy, f64 with 140-bit mpmath.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache

import mpmath
import numpy as np
import pytest
import scipy.special

import tilewright as tw
from tilewright.compiler.targets.cpu import loading, toolchain
from tilewright.compiler.targets.cpu.builder import I64, PTR, Builder, Type
from tilewright.compiler.targets.cpu.vector_math import EXPANDED_ULP, FAST_ULP, MEASURED_ULP, VECTOR_MATH

TARGETS = {"avx2": toolchain.avx2, "host": toolchain.host}
NUMPY = {"f32": np.float32, "f64": np.float64}
NAN, INFINITY = math.nan, math.inf


@cache
def kernel(
    name: str, kind: str, target_name: str, arguments: int, lanes: int, accuracy: str = "exact"
) -> tuple[Callable, object]:
    target = TARGETS[target_name]()
    b = Builder(target, accuracy)
    type = Type(kind, lanes)
    with b.function("kernel", args=[("frame", PTR)]) as (frame,):
        pointers = [b.load(b.offset(frame, 8 * n), PTR) for n in range(arguments + 1)]
        count = b.load(b.offset(frame, 8 * arguments + 8), I64)
        with b.loop(0, count, max(1, lanes)) as loop:
            places = [b.offset(p, b.mul(loop.index, type.bytes)) for p in pointers]
            b.store(VECTOR_MATH[name](b, *[b.load(p, type) for p in places[:-1]]), places[-1])
    loaded = loading.load(toolchain.compile_object(b.module(), target))
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(loaded.address("kernel")), loaded


def evaluate(
    name: str, *xs: np.ndarray, target: str = "host", scalar: bool = False, accuracy: str = "exact"
) -> np.ndarray:
    kind = {4: "f32", 8: "f64"}[xs[0].itemsize]
    lanes = 0 if scalar else TARGETS[target]().lanes(kind)
    function, _ = kernel(name, kind, target, len(xs), lanes, accuracy)
    pad = -len(xs[0]) % max(1, lanes)
    xs = tuple(np.concatenate([x, x[:1].repeat(pad)]) for x in xs)
    out = np.empty_like(xs[0])
    frame = (ctypes.c_int64 * (len(xs) + 2))(*[x.ctypes.data for x in xs], out.ctypes.data, out.size)
    function(ctypes.addressof(frame))
    return out[: out.size - pad]


def ulp_error(y: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """|y - exact| in units of the last place of f32 at `exact`; infinite where a special value is wrong.

    Zero results must have the right sign, and overflow must come where the exact value rounds to infinity.
    """
    with np.errstate(all="ignore"):
        nearest = exact.astype(np.float32)
        exponent = np.maximum(np.frexp(exact)[1] - 24, -149)
        error = np.abs(y.astype(np.float64) - exact) / np.ldexp(1.0, exponent)
        special = ~np.isfinite(nearest)
        same = (np.isnan(y) & np.isnan(nearest)) | (y == nearest)
        # Within half a unit of the largest number either neighbour is a fair answer.
        same |= np.isinf(nearest) & (np.abs(y) == np.finfo(np.float32).max) & (np.abs(exact) < 3.4028237e38)
    error[special] = np.where(same[special], 0, INFINITY)
    error[np.isinf(y) & ~special] = INFINITY
    zero = (nearest == 0) & (exact == 0)
    error[zero & (np.signbit(y) != np.signbit(nearest))] = INFINITY
    error[np.isnan(error)] = INFINITY
    return error


def _sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(np.isnan(x), x, np.where(x < 0, e, 1) / (1 + e))


def _lgamma(x):
    tiny = np.where(np.abs(x) < 1e-300, -np.log(np.abs(x)), scipy.special.gammaln(x))
    return np.where(np.isinf(x), INFINITY, tiny)


def _digamma(x):
    poles = np.where((x < 0) & (np.floor(x) == x), NAN, scipy.special.psi(x))
    return np.where(x == 0, np.copysign(INFINITY, -x), poles)


# name: reference in float64; the bounds are MEASURED_ULP's
UNARY = {
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log2": np.log2,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "erf": scipy.special.erf,
    "erfc": scipy.special.erfc,
    "lgamma": _lgamma,
    "digamma": _digamma,
    "sigmoid": _sigmoid,
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "round": np.rint,
}
BY_TABLE = {"erf", "tanh", "log", "log1p"}  # computed otherwise where AVX-512 has tables in registers
WORST = (-126.43665, 1.4138616, 1.3550149)  # of all f32 numbers, for exp2 and for log2


def everyday_points() -> np.ndarray:
    """Patterns of every exponent and sign, all specials and their neighbours, and a dense middle."""
    stride = 2003
    patterns = np.arange(0, 1 << 32, stride, dtype=np.uint64).astype(np.uint32)
    edges = [
        0,
        0x80000000,
        0x7F800000,
        0xFF800000,
        0x00800000,
        0x3F800000,
        0xBF800000,
        0x7F7FFFFF,
        0xFF7FFFFF,
    ]
    near = np.array([(edge + step) % 2**32 for edge in edges for step in range(-3, 4)], np.uint32)
    middle = np.random.default_rng(7).uniform(-20, 20, 1 << 20).astype(np.float32)
    return np.concatenate([patterns.view(np.float32), near.view(np.float32), np.float32(WORST), middle])


BOUNDS = [
    *((name, "exact", accuracy.f32) for name, accuracy in MEASURED_ULP.items()),
    *((name, "fast", accuracy.f32) for name, accuracy in FAST_ULP.items()),
]
EVERY_BOUND = pytest.mark.parametrize(
    ("name", "accuracy", "bound"), [each for each in BOUNDS if each[0] in UNARY]
)


@pytest.mark.parametrize("target", TARGETS)
@EVERY_BOUND
def test_f32_error(name, accuracy, bound, target):
    if not TARGETS[target]().is_host:
        pytest.skip("another architecture")
    x = everyday_points()
    with np.errstate(all="ignore"):
        exact = UNARY[name](x.astype(np.float64))
    error = ulp_error(evaluate(name, x, target=target, accuracy=accuracy), exact)
    worst = int(np.argmax(error))
    assert error[worst] <= bound, f"{name}({x[worst]!r}) is off by {error[worst]} ULP"


@pytest.mark.exhaustive
@EVERY_BOUND
def test_f32_error_of_every_pattern(name, accuracy, bound):
    """Two to five minutes a function; small pieces stay in the cache."""
    reference, tables = UNARY[name], name in BY_TABLE or accuracy == "fast"
    targets = [t for t in TARGETS if TARGETS[t]().is_host] if tables else ["host"]
    piece = np.arange(1 << 16, dtype=np.uint32)
    for start in range(0, 1 << 32, len(piece)):
        x = (piece + np.uint32(start)).view(np.float32)
        with np.errstate(all="ignore"):
            exact = reference(x.astype(np.float64))
        for target in targets:
            error = ulp_error(evaluate(name, x, target=target, accuracy=accuracy), exact)
            worst = int(np.argmax(error))
            assert error[worst] <= bound, f"{name}({x[worst]!r}) is off by {error[worst]} ULP, {target}"


def test_the_table_of_errors_is_whole_and_keeps_two_units():
    assert MEASURED_ULP.keys() == VECTOR_MATH.keys()
    assert max(max(accuracy.f32, accuracy.f64) for accuracy in MEASURED_ULP.values()) <= 2


@pytest.mark.parametrize("kind", NUMPY)
@pytest.mark.parametrize("name", VECTOR_MATH)
def test_fast_functions_are_those_of_the_table_and_no_others(name, kind):
    def text(accuracy: str) -> str:
        b = Builder(toolchain.host(), accuracy)
        with b.function("f", args=[("p", PTR)]) as (p,):
            x = b.load(p, Type(kind, 16))
            b.store(VECTOR_MATH[name](b, *([x, x] if name in BINARY else [x])), p)
        return b.module()

    assert (text("fast") != text("exact")) == (kind == "f32" and name in FAST_ULP)


def test_ulp_error_sees_wrong_answers():
    exact = np.array([1.0, 0.0, 1e300, NAN, -INFINITY, 1.0])
    wrong = np.array([np.nextafter(np.float32(1), np.float32(2)), -0.0, 1.0, 1.0, INFINITY, NAN], np.float32)
    assert list(ulp_error(wrong, exact)) == [1.0] + [INFINITY] * 5 or ulp_error(wrong, exact)[0] == 2.0
    assert np.all(np.isinf(ulp_error(wrong, exact)[1:]))
    with np.errstate(all="ignore"):
        assert not np.any(ulp_error(exact.astype(np.float32), exact))


# ---- f64 ----

MP = {
    "exp2": lambda x: mpmath.power(2, x),
    "log2": lambda x: mpmath.log(x, 2),
    "lgamma": lambda x: mpmath.log(abs(mpmath.gamma(x))),
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "softplus": lambda x: mpmath.log1p(mpmath.exp(-abs(x))) + max(x, 0),
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "round": mpmath.nint,
}
REACH = {"exp": 745, "exp2": 1075, "expm1": 709, "sinh": 710, "cosh": 710, "sigmoid": 745, "softplus": 745}
REACH |= {"erf": 7, "erfc": 27, "tanh": 22, "digamma": 40, "lgamma": 40}
POSITIVE = ("log", "log2", "rsqrt", "digamma", "lgamma")


def f64_points(name: str) -> np.ndarray:
    draw = np.random.default_rng(len(name))
    reach, count = REACH.get(name, 100), 250
    sign = draw.choice([-1, 1], count)
    wide = sign * np.exp(draw.uniform(-60, math.log(reach) if name in REACH else 60, count))
    parts = [draw.uniform(-1, 1, count), draw.uniform(-3, 3, count), draw.uniform(-reach, reach, count), wide]
    parts.append(1 + draw.uniform(-1e-3, 1e-3, count))
    if name == "digamma":
        parts.append(float.fromhex("0x1.762d86356be3fp+0") + draw.uniform(-1e-8, 1e-8, count))
    x = np.concatenate(parts)
    if name in POSITIVE:
        return x[x > 0]
    if name in ("asin", "acos", "atanh"):
        return x[np.abs(x) < 1]
    if name == "acosh":
        return x[x >= 1]
    return x[x > -1] if name == "log1p" else x


def f64_error(y: float, exact: mpmath.mpf) -> float:
    if exact == 0 or not math.isfinite(y):
        return 0.0 if y == float(exact) else INFINITY
    unit = mpmath.ldexp(1, max(mpmath.frexp(abs(exact))[1] - 53, -1074))
    return float(abs(mpmath.mpf(y) - exact) / unit)


@pytest.mark.parametrize("name", UNARY)
def test_f64_error(name):
    bound = MEASURED_ULP[name].f64
    x = f64_points(name)
    y = evaluate(name, x)
    names = {"asin": "asin", "acos": "acos"}
    reference = MP.get(name) or getattr(mpmath, names.get(name, name))
    with mpmath.workprec(140):
        errors = [f64_error(float(b), reference(mpmath.mpf(float(a)))) for a, b in zip(x, y, strict=True)]
    worst = int(np.argmax(errors))
    assert errors[worst] <= bound, f"{name}({x[worst]!r}) is off by {errors[worst]} ULP"


@pytest.mark.parametrize("name", UNARY)
def test_f64_special_values_and_thresholds(name):
    """Where float64 libraries answer with nan, infinity or a signed zero, so do these."""
    edges = [
        0.0,
        -0.0,
        INFINITY,
        -INFINITY,
        NAN,
        5e-324,
        -5e-324,
        1.7976931348623157e308,
        -1.7976931348623157e308,
    ]
    edges += [
        1.0,
        -1.0,
        709.7,
        709.8,
        710.4,
        710.5,
        -745.1,
        -745.2,
        -746.5,
        -708.5,
        1024.0,
        1023.9,
        -1074.9,
        -1076.0,
    ]
    x = np.array([*edges, 2.0, -2.0, -37.0, -3.0, 1e22, -1e22])
    with np.errstate(all="ignore"):
        expected = UNARY[name](x)
    y = evaluate(name, x)
    np.testing.assert_allclose(y, expected, rtol=4e-15, atol=5e-324)
    zero = expected == 0
    np.testing.assert_array_equal(np.signbit(y[zero]), np.signbit(expected[zero]))


@pytest.mark.parametrize("name", ["exp", "log", "sin", "erf", "tanh", "log1p", "digamma", "lgamma"])
def test_scalar_lanes_and_odd_widths_agree(name):
    x = np.linspace(0.01, 9, 64).astype(np.float32)
    vector = evaluate(name, x)
    np.testing.assert_array_equal(evaluate(name, x, scalar=True), vector)
    np.testing.assert_allclose(evaluate(name, x, target="avx2"), vector, rtol=3e-7 if name in BY_TABLE else 0)


@pytest.mark.parametrize("lanes", [2, 8, 16, 24, 32, 40, 64])
@pytest.mark.parametrize("name", sorted(BY_TABLE))
def test_any_number_of_lanes_gives_the_same(name, lanes):
    x = np.linspace(0.01, 9, 960).astype(np.float32)
    function, _ = kernel(name, "f32", "host", 1, lanes)
    y = np.empty_like(x)
    frame = (ctypes.c_int64 * 3)(x.ctypes.data, y.ctypes.data, x.size)
    function(ctypes.addressof(frame))
    np.testing.assert_array_equal(y, evaluate(name, x, scalar=True))


def test_cosine_of_nothing_is_one_and_none_exceeds_it():
    x = np.concatenate([[0.0, 1e-10, 1e-5], np.arange(1000) * math.pi])
    for kind in NUMPY.values():
        y = evaluate("cos", x.astype(kind))
        assert y[0] == 1
        assert np.all(np.abs(y) <= 1)


# ---- two arguments ----

EDGES = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    2.0,
    -2.0,
    0.5,
    -0.5,
    3.0,
    -3.0,
    INFINITY,
    -INFINITY,
    NAN,
    1e-40,
    -1e-40,
    1e30,
    2.5,
]
BINARY = {"pow": np.power, "atan2": np.arctan2, "fmod": np.fmod}


def pairs(name: str, kind: type) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(3)
    x, y = (grid.ravel() for grid in np.meshgrid(EDGES, EDGES))
    count = 20000
    random_x = np.exp(draw.uniform(-8, 8, count)) * (1 if name == "pow" else draw.choice([-1, 1], count))
    random_y = draw.uniform(-9, 9, count)
    far = draw.choice([-1, 1], 2000) * np.exp(draw.uniform(-80, 80, 2000))
    x = np.concatenate([x, random_x, far])
    y = np.concatenate([y, random_y, draw.permutation(far)])
    return x.astype(kind), y.astype(kind)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("name", "accuracy", "bound"), [each for each in BOUNDS if each[0] in BINARY])
def test_f32_pairs(name, accuracy, bound, target):
    if not TARGETS[target]().is_host:
        pytest.skip("another architecture")
    x, y = pairs(name, np.float32)
    with np.errstate(all="ignore"):
        exact = BINARY[name](x.astype(np.float64), y.astype(np.float64))
    error = ulp_error(evaluate(name, x, y, target=target, accuracy=accuracy), exact)
    if (name, accuracy) == ("pow", "fast"):
        error = error / (1 + np.abs(np.nan_to_num(y)))
    worst = int(np.argmax(error))
    assert error[worst] <= bound, f"{name}({x[worst]!r}, {y[worst]!r}) is off by {error[worst]} ULP"


@pytest.mark.parametrize("name", BINARY)
def test_f64_pairs(name):
    x, y = pairs(name, np.float64)
    with np.errstate(all="ignore"):
        expected = BINARY[name](x, y)
    got = evaluate(name, x, y)
    np.testing.assert_allclose(got, expected, rtol=0 if name == "fmod" else 5e-16, atol=0)
    zero = expected == 0
    np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(expected[zero]))


@pytest.mark.parametrize("name", ["pow", "atan2"])
def test_f64_pairs_error(name):
    draw = np.random.default_rng(8)
    x = np.exp(draw.uniform(-8, 8, 1000)) * (1 if name == "pow" else draw.choice([-1, 1], 1000))
    y = draw.uniform(-9, 9, 1000)
    reference = {"pow": mpmath.power, "atan2": mpmath.atan2}[name]
    with mpmath.workprec(140):
        triples = zip(x, y, evaluate(name, x, y), strict=True)
        errors = [f64_error(float(r), reference(mpmath.mpf(float(a)), float(c))) for a, c, r in triples]
    worst = int(np.argmax(errors))
    assert errors[worst] <= MEASURED_ULP[name].f64, f"{name}({x[worst]!r}, {y[worst]!r}): {errors[worst]} ULP"


def test_f64_powers_of_every_size():
    """Results near overflow and among the subnormals, bases next to 1, powers that are exact."""
    draw = np.random.default_rng(9)
    count = 300
    base = np.exp(draw.uniform(-700, 700, count))
    small = np.exp(draw.uniform(-8, -1, count))
    near = 1 + draw.uniform(-1e-3, 1e-3, count)
    tiny = 5e-324 * draw.integers(1, 2**40, count)
    integer, degree = draw.integers(1, 200, count).astype(float), draw.integers(0, 7, count).astype(float)
    x = np.concatenate([base, small, near, tiny, integer, integer**2])
    y = np.concatenate(
        [
            draw.uniform(-1, 1, count) * 709 / np.log(base),
            draw.uniform(-745, -708, count) / np.log(small),
            draw.uniform(-3e5, 3e5, count),
            draw.uniform(-1, 1, count),
            degree,
            np.full(count, 0.5),
        ]
    )
    z = evaluate("pow", x, y)
    with mpmath.workprec(200):
        exact = [mpmath.power(mpmath.mpf(float(a)), mpmath.mpf(float(c))) for a, c in zip(x, y, strict=True)]
        errors = np.array([f64_error(float(r), value) for r, value in zip(z, exact, strict=True)])
    worst = int(np.argmax(errors))
    assert errors[worst] <= MEASURED_ULP["pow"].f64, f"{x[worst]!r} ** {y[worst]!r}: {errors[worst]} ULP"
    np.testing.assert_array_equal(errors[-2 * count :], 0)


@tw.op
def added_logarithms(x: tw.Tile["n"], y: tw.Tile["n"]):
    return tw.logaddexp(x, y)


@pytest.mark.parametrize(("dtype", "wide"), [("float32", np.float64), ("float64", np.longdouble)])
def test_logaddexp_where_it_cancels_and_elsewhere(dtype, wide):
    """About the curve e^x + e^y = 1, whose results are as small as one likes, and anywhere."""
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [-2 * rng.random(100_000) - 1e-6, *(rng.standard_normal((4, 50_000)) * [[0.01], [1], [9], [300]])]
    )
    y = np.concatenate([np.log(-np.expm1(x[:100_000])), rng.permutation(x[100_000:])])
    x, y = x.astype(dtype), y.astype(dtype)
    exact = np.logaddexp(x.astype(wide), y.astype(wide))
    unit = np.spacing(np.maximum(np.abs(exact), 1).astype(dtype))
    accuracy = EXPANDED_ULP["logaddexp"]
    bound = accuracy.f32 if dtype == "float32" else accuracy.f64
    assert np.abs((added_logarithms(x, y) - exact) / unit).max() <= bound


@pytest.mark.parametrize("kind", NUMPY.values())
def test_lgamma_has_two_exact_zeros(kind):
    y = evaluate("lgamma", np.array([1.0, 2.0] * 16, kind))
    assert not np.any(y)
    assert not np.any(np.signbit(y))


def test_f64_lgamma_below_zero():
    """Relative to the result, or to 1 where that is smaller: next to the zeros as well."""
    draw = np.random.default_rng(10)
    zero = -2.457024738220800587
    x = np.concatenate(
        [-draw.uniform(0, 8, 400), -draw.uniform(8, 170, 200), zero + draw.uniform(-1e-8, 1e-8, 50)]
    )
    with mpmath.workprec(160):
        exact = [mpmath.re(mpmath.loggamma(mpmath.mpf(float(v)))) for v in x]
        errors = [
            float(abs(mpmath.mpf(float(y)) - value) / max(abs(value), 1))
            for y, value in zip(evaluate("lgamma", x), exact, strict=True)
        ]
    worst = int(np.argmax(errors))
    assert errors[worst] < 3 * 2.0**-53, f"lgamma({x[worst]!r}): {errors[worst]}"


@pytest.mark.parametrize("name", VECTOR_MATH)
def test_every_function_lowers_for_arm(name):
    target = toolchain.neon()
    b = Builder(target)
    with b.function("kernel", args=[("p", PTR)]) as (p,):
        x = b.load(p, Type("f64", 2))
        b.store(VECTOR_MATH[name](b, *([x, x] if name in BINARY else [x])), p)
    assert "kernel:" in toolchain.assembly(b.module(), target)


@pytest.mark.parametrize("name", ["exp", "tanh", "erf", "sin"])
def test_neon_code_is_vector_code(name):
    target = toolchain.neon()
    b = Builder(target)
    with b.function("kernel", args=[("p", PTR)]) as (p,):
        b.store(VECTOR_MATH[name](b, b.load(p, Type("f32", 4))), p)
    text = toolchain.assembly(b.module(), target)
    assert "fmla\tv" in text
    assert "fmaf" not in text


@pytest.mark.skipif(not toolchain.host().has_avx512, reason="no AVX-512 here")
def test_exp_uses_the_scaling_instruction():
    b = Builder(toolchain.host())
    with b.function("kernel", args=[("p", PTR)]) as (p,):
        b.store(VECTOR_MATH["exp"](b, b.load(p, Type("f32", 32))), p)
    text = toolchain.assembly(b.module(), toolchain.host())
    assert text.count("vscalefps") == 2
    assert "zmm" in text
