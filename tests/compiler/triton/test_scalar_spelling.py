"""Every scalar function as Triton spells it: accuracy and specials interpreted, compilation for GPUs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes
import mpmath
import numpy as np
import pytest

from tests.compiler.triton.triton_samples import HEADER
from tilewright.compiler.targets.triton.interpreter import interpret
from tilewright.compiler.targets.triton.scalar_math import PRELUDE
from tilewright.compiler.targets.triton.scalar_math.helpers import polynomial
from tilewright.compiler.targets.triton.scalar_spelling import (
    LIBDEVICE,
    SPELLINGS,
    TYPES,
    cast,
    literal,
    prelude_for,
    spell,
)
from tilewright.compiler.targets.triton.toolchain import compile_source
from tilewright.dsl.scalars import SCALARS
from tilewright.errors import InternalError

# Written in other rows where a target has no spelling.
EXPANDED = {"logaddexp", "normal_quantile", "polygamma"}
OF_INT64 = {"philox0", "philox1", "philox2", "philox3"}
KINDS = {"f32": np.float32, "f64": np.float64}
BLOCK = 4096


def kernel_source(expression: str, names: str) -> str:
    parameters = "".join(f"p{name}, " for name in names)
    loads = "".join(f"    {name} = tl.load(p{name} + i, mask=inside)\n" for name in names)
    return (
        f"{HEADER}{prelude_for(expression)}\n\n"
        f"@triton.jit\ndef kernel({parameters}out, n, BLOCK: tl.constexpr):\n"
        "    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)\n    inside = i < n\n"
        f"{loads}    tl.store(out + i, {expression}, mask=inside)\n"
    )


def run(function: str, kind: str, *operands: np.ndarray, out=None, fast: bool = False) -> np.ndarray:
    names = "abc"[: len(operands)]
    result = np.empty(operands[0].shape, out or operands[0].dtype)
    source = kernel_source(spell(function, kind, *names, fast=fast), names)
    blocks = -(-result.size // BLOCK)
    interpret(source, "kernel", (blocks,), [*operands, result, result.size], {"BLOCK": BLOCK})
    return result


def wide(dtype, count: int, seed: int) -> np.ndarray:
    """Numbers of either sign, their logarithms uniform over the whole range, subnormals included."""
    generator = np.random.default_rng(seed)
    limits = np.finfo(dtype)
    lowest = limits.minexp - limits.nmant
    exponents = generator.uniform(lowest, limits.maxexp - 0.01, count).astype(np.longdouble)
    return (np.exp2(exponents) * generator.choice([-1, 1], count)).astype(dtype)


def ordinary(dtype, count: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    reach = 120 if dtype == np.float32 else 760
    parts = [generator.uniform(-r, r, count // 3) for r in (1.5, 12, reach)]
    return np.concatenate(parts).astype(dtype)


def specials(dtype) -> np.ndarray:
    limits = np.finfo(dtype)
    positive = [0.0, 1.0, 0.5, 2.0, 3.0, 1.5, 2.5, 100.0, 0.625, 1e-20, 88.5, 89.0, 104.0, 709.5, np.inf]
    positive += [float(limits.smallest_subnormal), float(limits.tiny), float(limits.max)]
    near_one = [np.nextafter(dtype(1), dtype(2)), np.nextafter(dtype(1), dtype(0))]
    return np.array([*positive, *(-x for x in positive), np.nan, *near_one], dtype)


def units(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Distance in units of the last place of the expected value; both NaN, or both infinite, is none."""
    dtype = actual.dtype
    with np.errstate(all="ignore"):
        rounded = expected.astype(dtype)
        finite = np.where(np.isfinite(rounded), rounded, 1)
        distance = np.abs(actual.astype(np.longdouble) - expected) / np.spacing(np.abs(finite))
    same = (np.isnan(actual) & np.isnan(expected)) | (actual == rounded)
    distance = np.where(same, 0.0, distance)
    return np.where(np.isnan(distance), np.inf, distance)


def by_mpmath(function: Callable) -> Callable[[np.ndarray], np.ndarray]:
    def meaning(x: np.ndarray) -> np.ndarray:
        with mpmath.workdps(40):
            values = [function(mpmath.mpf(float(v))) for v in x]
            return np.array([np.longdouble(mpmath.nstr(v, 25)) for v in values])

    return meaning


def positive_logarithm_of_gamma(x: mpmath.mpf) -> mpmath.mpf:
    return mpmath.re(mpmath.loggamma(x))


def sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


@dataclass(frozen=True)
class Case:
    """A function of one operand: its meaning in extended precision and the units of error allowed."""

    name: str
    meaning: Callable[[np.ndarray], np.ndarray]
    f32: float
    f64: float


CASES = [
    Case("exp", np.exp, 3, 1),
    Case("exp2", np.exp2, 1.5, 1),
    Case("expm1", np.expm1, 2, 3),
    Case("log", np.log, 3, 1),
    Case("log2", np.log2, 2.5, 1),
    Case("log1p", np.log1p, 3, 2),
    Case("sqrt", np.sqrt, 0.6, 0.6),
    Case("rsqrt", lambda x: 1 / np.sqrt(x), 2, 2),
    Case("sin", np.sin, 2, 1),
    Case("cos", np.cos, 2, 1),
    Case("tan", np.tan, 3, 2.5),
    Case("asin", np.arcsin, 2.5, 2.5),
    Case("acos", np.arccos, 2, 2),
    Case("atan", np.arctan, 2.5, 2),
    Case("sinh", np.sinh, 4, 3),
    Case("cosh", np.cosh, 4, 3),
    Case("tanh", np.tanh, 2, 3),
    Case("asinh", np.arcsinh, 4, 2.5),
    Case("acosh", np.arccosh, 4, 2.5),
    Case("atanh", np.arctanh, 4, 2.5),
    Case("sigmoid", sigmoid, 4, 2.5),
    Case("softplus", lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), 4, 3),
    Case("floor", np.floor, 0, 0),
    Case("ceil", np.ceil, 0, 0),
    Case("round", np.rint, 0, 0),
    Case("trunc", np.trunc, 0, 0),
    Case("sign", np.sign, 0, 0),
    Case("abs", np.abs, 0, 0),
]


def assert_units(case_name: str, x: np.ndarray, actual: np.ndarray, expected: np.ndarray, limit: float):
    """Subnormal results may be off by the smallest number a few times over: a GPU flushes them anyway."""
    tiny = np.finfo(actual.dtype).tiny
    with np.errstate(all="ignore"):
        subnormal = (np.abs(expected) < tiny) & (np.abs(actual - expected) < tiny * 1e-5)
    distance = np.where(subnormal, 0, units(actual, expected))
    worst = int(np.argmax(distance))
    assert distance[worst] <= limit, (
        f"{case_name}({x[worst]!r}) = {actual[worst]!r}, not {expected[worst]!r}: {distance[worst]:.2f} units"
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_functions_of_one_operand(case, kind):
    dtype = KINDS[kind]
    for x in (wide(dtype, 8000, 1), ordinary(dtype, 9000, 2), specials(dtype)):
        actual = run(case.name, kind, x)
        with np.errstate(all="ignore"):
            expected = case.meaning(x.astype(np.longdouble))
        assert_units(case.name, x, actual, expected, getattr(case, kind))


def test_signs_of_zero_are_kept():
    x = np.array([0.0, -0.0], np.float32)
    odd = ["expm1", "log1p", "sin", "tan", "asin", "atan", "sinh", "tanh", "asinh", "atanh", "erf", "sqrt"]
    odd += ["floor", "ceil", "round", "trunc"]
    for kind, dtype in KINDS.items():
        for name in odd:
            actual = run(name, kind, x.astype(dtype))
            assert list(np.signbit(actual)) == [False, True], name
        assert list(np.signbit(run("neg", kind, x.astype(dtype)))) == [True, False]
        assert list(run("atan2", kind, x.astype(dtype), np.full(2, -0.0, dtype))) == pytest.approx(
            [np.pi, -np.pi]
        )


SPECIAL_FUNCTIONS = [
    ("erf", mpmath.erf, 1.5, 1.5, (-6, 6)),
    ("erfc", mpmath.erfc, 5, 5, (-6, 9)),
    # near 1.4 the float32 logarithm of NumPy, 2.5 units off, is three times the result
    ("lgamma", positive_logarithm_of_gamma, 10, 8, (0.001, 60)),
    ("digamma", mpmath.digamma, 5, 8, (0.001, 60)),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "meaning", "f32", "f64", "domain"), SPECIAL_FUNCTIONS, ids=lambda v: str(v)[:8]
)
def test_special_functions(name, meaning, f32, f64, domain, kind):
    generator = np.random.default_rng(3)
    x = np.concatenate([generator.uniform(*domain, 500), generator.uniform(0.9, 2.1, 300)]).astype(
        KINDS[kind]
    )
    assert_units(name, x, run(name, kind, x), by_mpmath(meaning)(x), f32 if kind == "f32" else f64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "meaning"), [s[:2] for s in SPECIAL_FUNCTIONS[2:]], ids=["lgamma", "digamma"]
)
def test_gamma_functions_of_negative_numbers(name, meaning, kind):
    """Between their poles they cross zero, where a reflection is accurate absolutely, not relatively."""
    x = np.random.default_rng(4).uniform(-20, 0, 500).astype(KINDS[kind])
    expected = by_mpmath(meaning)(x).astype(np.float64)
    # the operand's own rounding moves the cotangent by this much
    scale = 1 + np.abs(expected) + (np.pi * x / np.sin(np.pi * x.astype(np.float64))) ** 2
    error = np.abs(run(name, kind, x).astype(np.float64) - expected) / scale
    assert error.max() <= 8 * np.finfo(KINDS[kind]).eps


@pytest.mark.parametrize("kind", KINDS)
def test_special_values_of_special_functions(kind):
    dtype = KINDS[kind]
    x = np.array([0, -0.0, 1, 2, -1, -2, np.inf, -np.inf, np.nan], dtype)
    inf, nan = np.inf, np.nan
    euler = 0.5772156649015329
    rows = {
        "erf": [0, -0.0, None, None, None, None, 1, -1, nan],
        "erfc": [1, 1, None, None, None, None, 0, 2, nan],
        "lgamma": [inf, inf, 0, 0, inf, inf, inf, inf, nan],
        "digamma": [-inf, inf, -euler, 1 - euler, nan, nan, inf, nan, nan],
    }
    for name, expected in rows.items():
        actual = run(name, kind, x)
        for value, wanted in zip(actual, expected, strict=True):
            assert wanted is None or value == pytest.approx(wanted, rel=1e-6, nan_ok=True, abs=1e-12), name


def pairs(dtype) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.append(specials(dtype), [7, 1e5, -7]).astype(dtype), specials(dtype))
    return x.ravel(), y.ravel()


BINARY = [
    ("atan2", np.arctan2, 2.5),
    ("fmod", np.fmod, 0),
    ("mod", np.mod, 0),
    ("floordiv", lambda x, y: np.floor(np.true_divide(x, y)), 0),
    ("div", np.true_divide, 0),
    ("minimum", np.minimum, 0),
    ("maximum", np.maximum, 0),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "meaning", "limit"), BINARY, ids=lambda v: v if isinstance(v, str) else "")
def test_functions_of_two_operands(name, meaning, limit, kind):
    dtype = KINDS[kind]
    sets = [pairs(dtype), (wide(dtype, 4000, 5), wide(dtype, 4000, 6))]
    sets.append((ordinary(dtype, 4500, 7), ordinary(dtype, 4500, 8)))
    for x, y in sets:
        with np.errstate(all="ignore"):
            expected = (
                meaning(x, y) if limit == 0 else meaning(x.astype(np.longdouble), y.astype(np.longdouble))
            )
        actual = run(name, kind, np.ascontiguousarray(x), np.ascontiguousarray(y))
        assert_units(name, x, actual, np.asarray(expected, np.longdouble), limit)


@pytest.mark.parametrize("kind", KINDS)
def test_powers(kind):
    dtype = KINDS[kind]
    generator = np.random.default_rng(9)
    base = np.abs(wide(dtype, 400, 10))
    exponent = (
        generator.uniform(-1, 1, 400) * 0.99 * np.finfo(dtype).maxexp / np.log2(base.astype(float))
    ).astype(dtype)
    near_one = (1 + generator.uniform(-1e-3, 1e-3, 200)).astype(dtype)
    large = generator.uniform(-60000, 60000, 200).astype(dtype)
    negative, whole = (
        generator.uniform(-9, 0, 200).astype(dtype),
        generator.integers(-12, 12, 200).astype(dtype),
    )
    x = np.concatenate([base, near_one, negative])
    y = np.concatenate([exponent, large, whole])
    with mpmath.workdps(40):
        values = [mpmath.mpf(float(a)) ** mpmath.mpf(float(b)) for a, b in zip(x, y, strict=True)]
        expected = np.array([np.longdouble(mpmath.nstr(v, 25)) for v in values])
    assert_units("pow", x, run("pow", kind, x, y), expected, 1.5)


@pytest.mark.parametrize("kind", KINDS)
def test_special_powers(kind):
    dtype = KINDS[kind]
    x, y = (np.ascontiguousarray(v) for v in pairs(dtype))
    with np.errstate(all="ignore"):
        expected = np.power(x.astype(np.longdouble), y.astype(np.longdouble))
        actual = run("pow", kind, x, y)
        assert_units("pow", x, actual, expected, 1.5)
        zero = (actual == 0) & (expected.astype(dtype) == 0)
    np.testing.assert_array_equal(np.signbit(actual[zero]), np.signbit(expected[zero]))


INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]
ON_INTEGERS = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "floordiv": np.floor_divide,
    "mod": np.mod,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "eq": np.equal,
    "lt": np.less,
    "ge": np.greater_equal,
}


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers(dtype):
    limits = np.iinfo(dtype)
    values = np.array([limits.min, limits.min + 1, limits.max, limits.max - 1, 0, 1, 2, 3, 5, 100], dtype)
    if limits.min:
        values = np.append(values, np.array([-1, -2, -3, -7], dtype))
    x, y = (v.ravel() for v in np.meshgrid(values, values))
    fits = (x != limits.min) | (y + 1 != 0) if limits.min else np.ones(x.shape, bool)
    x, y = x[fits], y[fits]
    for name, meaning in ON_INTEGERS.items():
        operands = (x,) if name in ("neg", "abs", "sign", "not") else (x, y)
        with np.errstate(all="ignore"):
            expected = meaning(*operands)
        np.testing.assert_array_equal(run(name, "int", *operands, out=expected.dtype), expected, err_msg=name)


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64])
def test_shifts(dtype):
    x = np.array([1, 5, 1000, np.iinfo(dtype).max, np.iinfo(dtype).min], dtype)
    by = np.array([0, 3, 7, 30, 31], dtype)
    np.testing.assert_array_equal(run("shl", "int", x, by), x << by)
    np.testing.assert_array_equal(run("shr", "int", x, by), x >> by)


def test_predicates():
    for kind, dtype in KINDS.items():
        x = specials(dtype)
        for name, meaning in {"isnan": np.isnan, "isinf": np.isinf, "isfinite": np.isfinite}.items():
            np.testing.assert_array_equal(run(name, kind, x, out=bool), meaning(x))


@pytest.mark.parametrize("name", ["exp", "div", "sqrt", "rsqrt", "sigmoid"])
def test_fast_spellings_are_spellings(name):
    x = np.linspace(0.5, 4, 64, dtype=np.float32)
    operands = (x, x + 1) if name == "div" else (x,)
    np.testing.assert_allclose(run(name, "f32", *operands, fast=True), run(name, "f32", *operands), rtol=1e-6)
    assert spell(name, "f32", "x", "y", fast=True) != spell(name, "f32", "x", "y")


def test_casts():
    x = np.array([0.0, 1.5, -2.5, 300.0, np.nan], np.float32)
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float64, np.bool_):
        out = np.empty(5, dtype)
        expression = cast("a", "float32", out.dtype.name)
        interpret(kernel_source(expression, "a"), "kernel", (1,), [x, out, 5], {"BLOCK": 8})
        np.testing.assert_array_equal(out.astype(np.float64), x.astype(dtype).astype(np.float64))
    assert cast("a + b", "int32", "float32") == "(a + b).to(tl.float32)"
    assert cast("a", "int32", "int32") == "a"


SELDOM = [pytest.param(target, marks=pytest.mark.exhaustive) for target in ("cuda:80", "cuda:100")]


@pytest.mark.parametrize("target", ["cuda:90", "hip:gfx942", *SELDOM])
@pytest.mark.parametrize(
    ("kind", "pointer"), [("f32", "*fp32"), ("f64", "*fp64"), ("int", "*i64"), ("int", "*u32")]
)
def test_every_spelling_compiles(kind, pointer, target):
    """All of a kind in one kernel."""
    expressions = []
    for name, row in SPELLINGS.items():
        text = getattr(row, kind)
        if not text or name == "where" or (name in OF_INT64 and pointer != "*i64"):
            continue
        count = 1 + max(int(i) for i in re.findall(r"\{(\d)\}", text))
        expressions += {spell(name, kind, *"abc"[:count], fast=fast) for fast in (False, True)}
    body = "".join(f"    tl.store(o + {i} * n + i, {text})\n" for i, text in enumerate(expressions))
    loads = "".join(f"    {name} = tl.load(p{name} + i)\n" for name in "abc")
    source = (
        f"{HEADER}{prelude_for(body)}\n\n@triton.jit\ndef kernel(pa, pb, pc, o, n):\n"
        f"    i = tl.arange(0, 32)\n{loads}{body}"
    )
    signature = dict.fromkeys(("pa", "pb", "pc", "o"), pointer) | {"n": "i32"}
    assert compile_source(
        source, "kernel", signature=signature, target=target, options={"num_warps": 1}
    ).binary


def test_libdevice_compiles_for_both_makers():
    body = "".join(
        f"    tl.store(o + {i}, {name}({'a, b' if function in ('atan2', 'fmod', 'pow') else 'a'}))\n"
        for i, (function, name) in enumerate(LIBDEVICE.items())
        if function != "lgamma"
    )
    source = (
        "import triton\nimport triton.language as tl\nfrom triton.language.extra import libdevice\n\n\n"
        f"@triton.jit\ndef kernel(p, o):\n    a = tl.load(p)\n    b = tl.load(p + 1)\n{body}"
    )
    for target in ("cuda:90", "hip:gfx942"):
        assert compile_source(source, "kernel", signature={"p": "*fp32", "o": "*fp32"}, target=target).binary


def test_every_row_of_the_language_is_spelled():
    assert set(SCALARS) - EXPANDED <= set(SPELLINGS)


def test_the_prelude_is_complete_ordered_and_minimal():
    text = prelude_for("y = pow_f32(x, e) + sinh_f64(z)")
    defined = re.findall(r"^def (\w+)", text, re.MULTILINE)
    assert len(defined) == len(set(defined))
    assert defined.index("log2_pair_f32") < defined.index("pow_f32")
    assert defined.index("power_of_two_f64") < defined.index("expm1_f64") < defined.index("sinh_f64")
    assert not any(name.startswith(("lgamma", "erfc")) for name in defined)
    assert prelude_for("tl.exp(x)") == ""
    assert all("$" not in source and "POLYNOMIAL" not in source for source in PRELUDE.values())
    assert all(len(line) <= 110 for source in PRELUDE.values() for line in source.splitlines())


def test_operands_are_enclosed():
    assert spell("mul", "f32", "a + b", "c") == "(a + b) * c"
    assert spell("exp", "f64", "x") == "tl.exp(x)"
    assert spell("sub", "int", "x", "-1") == "x - (-1)"
    assert spell("add", "f32", "tl.exp(x)", "1.0") == "tl.exp(x) + 1.0"


def test_unknown_spellings_are_our_bug():
    with pytest.raises(InternalError, match="no spelling of 'exp' for operands of kind 'int'"):
        spell("exp", "int", "x")
    with pytest.raises(InternalError, match="no spelling of 'frobnicate'"):
        spell("frobnicate", "f32", "x")


def test_literals():
    assert [literal(v) for v in (1, True, 0.1, np.inf, -np.inf, np.nan)] == [
        "1", "True", "0.1", 'float("inf")', '-float("inf")', 'float("nan")',
    ]  # fmt: skip
    assert set(TYPES) >= {"bool", "bfloat16", "float64"}


def test_horner_writes_signs():
    assert polynomial("p", "x", (1.0, -2.0, 3.0)) == "p = 3.0 * x - 2.0\np = p * x + 1.0"


def test_units_see_an_error():
    x = np.ones(1, np.float32)
    assert units(np.nextafter(x, np.float32(2)), x.astype(np.longdouble))[0] == 1
    assert units(np.array([np.nan], np.float32), x.astype(np.longdouble))[0] == np.inf
