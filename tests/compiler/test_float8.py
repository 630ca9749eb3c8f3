"""Floats of 8 bits on every target: conversions bit by bit against ml_dtypes, and ops over them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tests.support.cases import Case
from tests.support.checks import backward_of, check_compiles, run, targets, with_cotangents
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.triton.executable import source
from tilewright.dsl.dtypes import FLOAT8, DType
from tilewright.errors import DTypeError
from tilewright.op.op import Op

each_target = pytest.mark.parametrize("target", targets())
each_dtype = pytest.mark.parametrize("dtype", FLOAT8, ids=str)
GPUS = ("cuda:80", "cuda:90", "cuda:100", "hip:gfx942")
needs_triton = pytest.mark.skipif("interpreter" not in targets(), reason="Triton is not installed")


def rare(*values: Any) -> Any:
    """A case that is tried in long campaigns only."""
    return pytest.param(*values, marks=pytest.mark.exhaustive)


def called(op: Op, target: str, *operands: np.ndarray) -> Any:
    """An op's result, or results, on a target."""
    call = op.bind(op.arguments(operands, {}))
    results = run(call.program, call.arrays, target)
    return results if len(results) > 1 else results[0]


def every(dtype: DType) -> np.ndarray:
    """All values of a dtype of 8 bits."""
    return np.arange(256, dtype=np.uint8).view(dtype.numpy)


def rounded(x: np.ndarray, dtype: DType) -> np.ndarray:
    with np.errstate(all="ignore"):
        return x.astype(dtype.numpy)


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    """To the bit, but for those of NaN."""
    assert found.dtype == expected.dtype
    bits = np.dtype(f"u{found.dtype.itemsize}")
    same = found.view(bits) == expected.view(bits)
    with np.errstate(invalid="ignore"):
        same |= np.isnan(found.astype(np.float64)) & np.isnan(expected.astype(np.float64))
    assert same.all(), f"{found[~same][:5]} instead of {expected[~same][:5]}"


def converts(*dtypes: DType) -> Op:
    @tw.op
    def convert(x: tw.Tile["n"]):
        return tuple(tw.cast(x, dtype) for dtype in dtypes)

    return convert


# --- conversions ------------------------------------------------------------------------------------------


@each_target
@each_dtype
def test_all_values_are_widened(dtype: DType, target: str):
    wider = (tw.float64, tw.float32, tw.float16, tw.bfloat16)
    for wide, found in zip(wider, called(converts(*wider), target, every(dtype)), strict=True):
        assert_same(found, every(dtype).astype(wide.numpy))


@each_target
@each_dtype
@pytest.mark.parametrize("wide", [np.float16, ml_dtypes.bfloat16], ids=lambda kind: kind.__name__)
def test_all_values_of_16_bits_are_narrowed(dtype: DType, wide: type, target: str):
    x = np.arange(1 << 16, dtype=np.uint16).view(wide)
    assert_same(called(converts(dtype), target, x), rounded(x, dtype))


def upper_halves(low: int) -> np.ndarray:
    """float32 with all upper halves and one lower one."""
    return (np.arange(1 << 16, dtype=np.uint32) << 16 | low).view(np.float32)


@each_target
@each_dtype
def test_float32_is_narrowed_as_ml_dtypes_has_it(dtype: DType, target: str):
    """With all upper halves; lower ones at, below and above ties."""
    x = np.concatenate([upper_halves(low) for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)])
    assert_same(called(converts(dtype), target, x), rounded(x, dtype))


def neighbours(dtype: DType) -> tuple[np.ndarray, np.ndarray]:
    """float64 at ties between values of a dtype and as near to them as can be, and what they round to."""
    values = np.unique(every(dtype).astype(np.float64)[:127])
    values = values[np.isfinite(values)]
    step = values[-1] - values[-2]
    ends = np.append(values, values[-1] + step)
    ties = (ends[:-1] + ends[1:]) / 2
    beyond = np.inf if dtype == tw.float8_e5m2 else np.nan
    above = np.append(values[1:], beyond)
    even = np.where(np.arange(len(ties)) % 2 == 0, values, above)
    x = np.concatenate([np.nextafter(ties, 0), ties, np.nextafter(ties, np.inf), values])
    right = np.concatenate([values, even, above, values])
    return np.concatenate([x, -x]), np.concatenate([right, -right])


@each_target
@each_dtype
def test_float64_is_rounded_once(dtype: DType, target: str):
    x, right = neighbours(dtype)
    assert_same(called(converts(dtype), target, x), rounded(right, dtype))


@pytest.mark.exhaustive
@each_target
@each_dtype
@pytest.mark.parametrize("kind", ["int64", "int32", "int16", "int8", "uint8", "bool"])
def test_integers_are_narrowed(dtype: DType, kind: str, target: str):
    near = np.array([*range(-600, 600), 57344, 61439, 61440, 65536, 2**24 + 1, 2**31 - 1, -(2**31), 2**62])
    x = np.unique(near.astype(kind))
    assert_same(called(converts(dtype), target, x), rounded(x.astype(np.float64), dtype))


@pytest.mark.exhaustive
@each_target
@each_dtype
@pytest.mark.parametrize("kind", [tw.int64, tw.int32, tw.int16, tw.int8, tw.uint8], ids=str)
def test_integers_of_all_values_saturate(dtype: DType, kind: DType, target: str):
    x, (low, high) = every(dtype).astype(np.float64), kind.range
    expected = [0 if v != v else high if v >= high else low if v <= low else int(v) for v in x]
    assert called(converts(kind), target, every(dtype)).tolist() == expected


@each_target
@each_dtype
def test_a_cast_that_saturates_is_a_clip_before_it(dtype: DType, target: str):
    largest = float(ml_dtypes.finfo(dtype.numpy).max)

    @tw.op
    def saturated(x: tw.Tile["n"]):
        return tw.cast(tw.clip(x, -largest, largest), dtype)

    x = np.array([1e9, -1e9, np.inf, -np.inf, np.nan, 465, 1, -0.0] * 5, np.float32)
    assert_same(called(saturated, target, x), rounded(np.clip(x, -largest, largest), dtype))


@tw.op
def questions(x: tw.Tile["n"]):
    """What special values answer, and what gives them."""
    ask = (tw.isnan(x), tw.isinf(x), tw.isfinite(x), x == x, x < 0.1, x >= 0, tw.cast(x, tw.bool_))
    give = (-x, abs(x), tw.sign(x), tw.round(x), x % 2, x // 2, tw.maximum(x, 0.5), tw.sqrt(x), 1 / x, x * 2)
    return *ask, *give, tw.where(x > 0, x, 0.3), tw.minimum(x, -1.5)


@each_target
@each_dtype
def test_special_values_are_those_of_float32(dtype: DType, target: str):
    narrow = called(questions, target, every(dtype))
    wide = called(questions, "cpu", every(dtype).astype(np.float32))
    for found, right in zip(narrow, wide, strict=True):
        assert_same(found, right if right.dtype == np.bool_ else rounded(right, dtype))


# --- ops --------------------------------------------------------------------------------------------------


@tw.op
def product(a: tw.Tile["... m k"], b: tw.Tile["... k n"]):
    return tw.cast(tw.sum(tw.cast(a, tw.float32) * tw.cast(b, tw.float32), "k"), tw.float32)


@tw.op
def narrow_product(a: tw.Tile["... m k"], b: tw.Tile["... k n"]):
    return tw.sum(a * b, "k")


@tw.op
def soften(x: tw.Tile["... d"]):
    e = tw.exp(x - tw.max(x, "d"))
    return e / tw.sum(e, "d")


@tw.op
def totals(x: tw.Tile["... d"]):
    return tw.cast(tw.sum(x, "d"), tw.float32)


@tw.op
def running(x: tw.Tile["... d"]):
    return tw.cast(tw.cumsum(x, "d"), tw.float32)


@tw.op
def turned(x: tw.Tile["... a b"]) -> tw.Tile["... b a"]:
    return x


@tw.op
def ordered(x: tw.Tile["... d"]):
    return tw.sort(x, "d")


@tw.op
def largest(x: tw.Tile["... d"]):
    return tw.max(x, "d")


@tw.op
def looked_up(x: tw.Tile["... d"]):
    return x.at(d=tw.index("d") - 1)


@tw.op
def chosen(x: tw.Tile["... d"]):
    return tw.where(tw.index("d") % 2 == 0, x, -tw.inf)


def draw(shape: tuple[int, ...], dtype: DType, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype.numpy)


def lying(array: np.ndarray) -> Iterator[np.ndarray]:
    """A matrix in every way that memory has."""
    yield array
    yield np.ascontiguousarray(array.T).T
    yield np.repeat(array, 2, -1)[..., ::2]
    yield np.ascontiguousarray(array[:, ::-1])[:, ::-1]
    yield np.broadcast_to(array[:1], array.shape)
    shifted = np.zeros(array.size + 3, array.dtype)[3:]
    shifted[:] = array.ravel()
    yield shifted.reshape(array.shape)


def assert_near(found: np.ndarray, expected: np.ndarray, relative: float) -> None:
    """Of float32 sums: up to a part of the largest."""
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=relative * np.abs(expected).max(initial=1e-9))


def assert_rounded(found: np.ndarray, expected: np.ndarray, dtype: DType) -> None:
    """The neighbour of what is right: it may have been on the other side of a tie by a rounding before."""
    assert found.dtype == dtype.numpy
    below, above = (rounded(expected * (1 + e), dtype).astype(np.float64) for e in (-1e-5, 1e-5))
    wide = found.astype(np.float64)
    low, high = np.minimum(below, above), np.maximum(below, above)
    assert ((low <= wide) & (wide <= high) | (wide == expected)).all()


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@each_target
@each_dtype
@pytest.mark.parametrize("shape", [(7, 13), rare((33, 65)), rare((16, 1))])
def test_rows_in_every_memory_order(shape: tuple[int, int], dtype: DType, target: str):
    for x in lying(draw(shape, dtype)):
        wide = x.astype(np.float64)
        assert_rounded(called(soften, target, x), softmax(wide), dtype)
        assert_near(called(totals, target, x), wide.sum(-1), 1e-6)
        assert_same(called(largest, target, x), x.max(-1))
        assert_same(called(turned, target, x), np.ascontiguousarray(x.T))


@each_target
@each_dtype
def test_scans_orders_and_reads(dtype: DType, target: str):
    x = draw((5, 37), dtype)
    wide = x.astype(np.float64)
    assert_near(called(running, target, x), wide.cumsum(-1), 1e-6)
    assert_same(called(ordered, target, x), rounded(np.sort(wide, -1), dtype))
    assert_same(called(looked_up, target, x), np.pad(x, ((0, 0), (1, 0)))[:, :-1])
    right = np.where(np.arange(37) % 2 == 0, x.astype(np.float32), -np.inf)
    assert_same(called(chosen, target, x), rounded(right, dtype))


@each_target
@each_dtype
@pytest.mark.parametrize(
    "other", [FLOAT8[0], rare(FLOAT8[1]), rare(tw.float16), tw.bfloat16, rare(tw.float32)], ids=str
)
def test_products_are_summed_in_float32(dtype: DType, other: DType, target: str):
    a, b = draw((17, 33), dtype), draw((33, 20), other, 1)
    right = a.astype(np.float64) @ b.astype(np.float64)
    assert_near(called(product, target, a, b), right, 1e-6)
    assert_near(called(product, target, b.T, a.T), right.T, 1e-6)


@pytest.mark.exhaustive
@each_dtype
@pytest.mark.parametrize(
    "extents", [(7, 13, 5), (1, 40, 9), (40, 1, 3), (3, 500, 2), (64, 64, 64), (2, 0, 3)]
)
def test_products_of_other_extents(extents: tuple[int, int, int], dtype: DType):
    m, k, n = extents
    a, b = draw((m, k), dtype), draw((k, n), dtype, 1)
    assert_near(called(product, "cpu", a, b), a.astype(np.float64) @ b.astype(np.float64), 1e-6)


@pytest.mark.exhaustive
@each_dtype
def test_products_in_every_memory_order(dtype: DType):
    for a in lying(draw((9, 70), dtype)):
        for b in lying(draw((70, 40), dtype, 1)):
            right = a.astype(np.float64) @ b.astype(np.float64)
            assert_near(called(product, "cpu", a, b), right, 1e-6)


@each_target
@each_dtype
def test_results_are_narrowed_and_overflow(dtype: DType, target: str):
    """A product of ones beyond the largest number: no infinity in float8_e4m3fn."""
    x = np.full((3, 40), 4, dtype.numpy)
    assert_same(called(narrow_product, target, x, x.T.copy()), rounded(np.full((3, 3), 640.0), dtype))


@each_target
@each_dtype
@pytest.mark.parametrize("op", [narrow_product, soften], ids=lambda op: op.name)
def test_gradients(op: Op, dtype: DType, target: str):
    """Those of float32 on the widened operands, narrowed."""
    operands = [draw((6, 20), dtype), draw((20, 7), dtype, 1)][: len(op.tiles)]
    call = op.bind(op.arguments(operands, {}))
    backward = backward_of(call.program)
    shapes = {
        a: e for p in call.program.tiles for a, e in zip(p.axes, call.arrays[p.name].shape, strict=True)
    }
    arrays = with_cotangents(backward, call.arrays, shapes)
    assert {r.dtype for r in backward.results} == {dtype}
    wide = op.bind(op.arguments([x.astype(np.float64) for x in operands], {}))
    right = run(backward_of(wide.program), {n: a.astype(np.float64) for n, a in arrays.items()}, "cpu")
    for found, expected in zip(run(backward, arrays, target), right, strict=True):
        assert_rounded(found, expected, dtype)


@each_dtype
def test_gradients_pass_through_casts(dtype: DType):
    x = tw.tensor(np.linspace(-3, 3, 20, dtype=np.float32), requires_grad=True)
    y = x.to(dtype)
    (y.to(tw.float32) * np.arange(20, dtype=np.float32)).sum().backward()
    assert y.dtype == dtype and x.grad is not None and x.grad.dtype == tw.float32
    np.testing.assert_array_equal(x.grad.numpy(), rounded(np.arange(20.0), dtype).astype(np.float32))


@tw.op
def length(x: tw.Tile["... d"]):
    return tw.sqrt(tw.sum(x * x, "d"))


@each_dtype
def test_gradients_do_not_read_what_became_nan(dtype: DType):
    """The length is beyond the largest float8_e4m3fn, its gradient is not."""
    x = (draw((4, 64), tw.float32) * 100).astype(dtype.numpy)
    wide = x.astype(np.float64)
    given = tw.tensor(x, requires_grad=True)
    length(given).backward(tw.ones(4, dtype=dtype))
    assert given.grad is not None
    assert_rounded(given.grad.numpy(), wide / np.linalg.norm(wide, axis=-1, keepdims=True), dtype)


# --- what is refused --------------------------------------------------------------------------------------


def test_both_dtypes_do_not_meet():
    a, b = draw((3, 4), tw.float8_e4m3fn), draw((4, 5), tw.float8_e5m2)
    with pytest.raises(DTypeError, match=r"float8_e4m3fn and float8_e5m2 have no dtype .* tw\.cast"):
        narrow_product(a, b)
    with pytest.raises(DTypeError, match="have no dtype in which they meet"):
        _ = tw.tensor(a) + tw.tensor(b[:3, :4])
    assert product(a, b).dtype == np.float32


# --- ahead of time ----------------------------------------------------------------------------------------

PRODUCT, SOFTEN = (
    Case(narrow_product, {"...": (), "m": 128, "k": 256, "n": 128}),
    Case(soften, {"...": (64,), "d": 512}),
)


def operations(target: str, language: str) -> str:
    """A text of the product of a float8_e4m3fn and a float8_e5m2 matrix for a GPU."""
    operands = np.empty((256, 512), tw.float8_e4m3fn.numpy), np.empty((512, 256), tw.float8_e5m2.numpy)
    call = product.bind(product.arguments(operands, {}))
    return "".join(source(lower(call.program), call.arrays, target, language).values())


@pytest.fixture
def lower_precision() -> Iterator[None]:
    before = tw.get_matmul_precision()
    tw.set_matmul_precision("tf32")
    yield
    tw.set_matmul_precision(before)


@needs_triton
@pytest.mark.parametrize(
    ("target", "language", "wanted"),
    [
        rare("cuda:80", "ptx", "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"),
        rare("cuda:90", "ptx", "f32.f16.f16"),
        ("cuda:100", "ptx", "kind::f8f6f4"),
        rare("hip:gfx942", "amdgcn", "v_mfma_f32_32x32x8_f16"),
    ],
)
def test_products_are_of_float16_where_those_of_8_bits_lose_bits(target: str, language: str, wanted: str):
    assert wanted in operations(target, language)


@needs_triton
@pytest.mark.exhaustive
def test_products_of_8_bits_where_a_lower_precision_is_allowed(lower_precision: None):
    assert "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e5m2" in operations("cuda:90", "ptx")
    assert "f16.f16" in operations("cuda:80", "ptx")


@needs_triton
@each_dtype
@pytest.mark.parametrize("extents", [(17, 33, 20), rare((64, 64, 64)), rare((5, 100, 40))])
def test_tiles_that_are_multiplied_as_they_lie(
    extents: tuple[int, int, int], dtype: DType, lower_precision: None
):
    m, k, n = extents
    b = draw((k, n), FLOAT8[1], 1)
    a = draw((m, k), dtype)
    assert "float8e4nv" in operations("cuda:90", "triton")
    for left in (a, a.T.copy().T, np.broadcast_to(a[:1], a.shape), np.broadcast_to(a[:, :1], a.shape)):
        right = left.astype(np.float64) @ b.astype(np.float64)
        assert_near(called(product, "interpreter", left, b), right, 1e-6)


@needs_triton
@pytest.mark.exhaustive
@each_dtype
@pytest.mark.parametrize("target", GPUS)
@pytest.mark.parametrize("case", [PRODUCT, SOFTEN], ids=str)
def test_ops_compile_for_every_architecture(case: Case, target: str, dtype: DType):
    check_compiles(case, dtype.numpy, target)
