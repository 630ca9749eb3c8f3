"""Triton's interpreter on NumPy arrays: results, memory checks, and a process left as it was."""

from __future__ import annotations

import warnings

import ml_dtypes
import numpy as np
import pytest

from tests.compiler.triton.triton_samples import ADD, HEADER, MATMUL, SOFTMAX
from tilewright.compiler.targets.triton.interpreter import interpret
from tilewright.compiler.targets.triton.memory_guard import Region
from tilewright.compiler.targets.triton.toolchain import compile_source
from tilewright.errors import InternalError, LaunchError

FLOATS = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


def run_add(x, y, scale, block=64):
    out = np.full_like(x, 7)
    blocks = -(-x.size // block)
    kinds = {"scale": "fp64"} if x.dtype == np.float64 else {}
    interpret(ADD, "add", (blocks,), [x, y, out, x.size, scale], {"BLOCK": block}, signature=kinds)
    return out


@pytest.mark.parametrize("dtype", FLOATS)
def test_masked_addition(dtype):
    generator = np.random.default_rng(0)
    x, y = (generator.standard_normal(150).astype(dtype) for _ in range(2))
    expected = x.astype(np.float64) + 0.5 * y.astype(np.float64)
    out = run_add(x, y, 0.5)
    np.testing.assert_allclose(
        out.astype(np.float64), expected, rtol=float(2 * ml_dtypes.finfo(dtype).eps), atol=0.02
    )


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint32])
def test_integers_wrap(dtype):
    x = np.array([np.iinfo(dtype).max, 1, 2], dtype)
    out = run_add(x, np.ones_like(x), 1)
    np.testing.assert_array_equal(out, x + np.ones_like(x))


def test_booleans():
    source = HEADER + (
        "@triton.jit\ndef both(x, y, out, N: tl.constexpr):\n    i = tl.arange(0, N)\n"
        "    tl.store(out + i, tl.load(x + i) & ~tl.load(y + i))\n"
    )
    x, y = np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool)
    out = np.zeros(4, bool)
    interpret(source, "both", (1,), [x, y, out], {"N": 4})
    np.testing.assert_array_equal(out, x & ~y)


@pytest.mark.parametrize("dtype", FLOATS)
def test_softmax_of_strided_rows(dtype):
    base = np.random.default_rng(1).standard_normal((40, 6)).astype(dtype)
    x = base[3:33:2, ::-1].T  # an offset, a step, a negative stride
    out = np.empty(x.shape, dtype)
    strides = [stride // x.itemsize for stride in x.strides]
    interpret(SOFTMAX, "softmax", (x.shape[0],), [x, out, x.shape[1], *strides], {"BLOCK": 16})
    e = np.exp(x.astype(np.float64) - x.astype(np.float64).max(1, keepdims=True))
    tolerance = max(float(2 * ml_dtypes.finfo(dtype).eps), 1e-6)
    np.testing.assert_allclose(out.astype(np.float64), e / e.sum(1, keepdims=True), rtol=tolerance)


def test_a_custom_combine_lets_nan_through():
    x = np.zeros((2, 5), np.float32)
    x[1, 2] = np.nan
    out = np.empty_like(x)
    interpret(SOFTMAX, "softmax", (2,), [x, out, 5, 5, 1], {"BLOCK": 8})
    np.testing.assert_array_equal(np.isnan(out).all(1), [False, True])


@pytest.mark.parametrize("dtype", FLOATS)
def test_matmul_accumulates_widely(dtype):
    import triton.language as tl

    generator = np.random.default_rng(2)
    a, b = (
        generator.standard_normal((17, 70)).astype(dtype),
        generator.standard_normal((70, 19)).astype(dtype),
    )
    c = np.zeros((17, 19), np.float64 if dtype == np.float64 else np.float32)
    accumulator = tl.float64 if dtype == np.float64 else tl.float32
    constexprs = {"BM": 16, "BN": 16, "BK": 16, "ACC": accumulator}
    interpret(MATMUL, "matmul", (2, 2), [a, b, c, 17, 19, 70], constexprs)
    expected = a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(c, expected, rtol=1e-4, atol=1e-4 if dtype != np.float64 else 1e-12)


def run_elementwise(expression, *inputs, out, helpers=""):
    """`expression` of the values a, b, … of the inputs, over one block."""
    names = "abc"[: len(inputs)]
    loads = "".join(f"    {name} = tl.load(p{name} + i, mask=i < n)\n" for name in names)
    parameters = "".join(f"p{name}, " for name in names)
    source = (
        f"{HEADER}{helpers}@triton.jit\ndef kernel({parameters}out, n, N: tl.constexpr):\n"
        f"    i = tl.arange(0, N)\n{loads}    tl.store(out + i, {expression}, mask=i < n)\n"
    )
    size = 1 << (inputs[0].size - 1).bit_length()
    interpret(source, "kernel", (1,), [*inputs, out, inputs[0].size], {"N": size})
    return out


def test_bfloat16_rounds_to_nearest_even():
    x = np.array([1.00390625, 1.01171875, 1e-40, -3.4e38, np.inf, np.nan, 3.3895314e38], np.float32)
    out = run_elementwise("a.to(tl.bfloat16)", x, out=np.empty(x.shape, ml_dtypes.bfloat16))
    with np.errstate(over="ignore"):
        expected = x.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(out.astype(np.float32), expected.astype(np.float32))


@pytest.mark.parametrize("operation", ["a + b", "a * b", "tl.where(a < b, a, b)", "-a", "tl.fma(a, b, a)"])
def test_bfloat16_arithmetic(operation):
    generator = np.random.default_rng(3)
    a, b = (generator.standard_normal(64).astype(ml_dtypes.bfloat16) for _ in range(2))
    out = run_elementwise(operation, a, b, out=np.empty_like(a))
    wide = {"a": a.astype(np.float32), "b": b.astype(np.float32), "np": np}
    python = operation.replace("tl.where", "np.where").replace("tl.fma(a, b, a)", "a * b + a")
    expected = eval(python, wide).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(out, expected)


def test_fma_rounds_once():
    x = np.float32(1 + 2**-12) * np.ones(8, np.float32)
    out = run_elementwise("tl.fma(a, a, b)", x, -(x * x), out=np.empty_like(x))
    np.testing.assert_array_equal(out, np.float32(2**-24))
    y = x.astype(np.float64) * (1 + 2**-30)
    exact = [float(int(v * 2**52) ** 2 - int(v * v * 2**52) * 2**52) / 2.0**104 for v in y]
    out = run_elementwise("tl.fma(a, a, b)", y, -(y * y), out=np.empty_like(y))
    np.testing.assert_array_equal(out, exact)


COMBINE = "@triton.jit\ndef second(a, b):\n    return b + 0 * a\n\n\n"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("tl.reduce(a, 0, second)", 31.0),  # not commutative: the order of operands counts
        ("tl.associative_scan(a, 0, second)", np.arange(32.0)),
        ("tl.associative_scan(a, 0, second, reverse=True)", np.zeros(32)),
        ("tl.sum(a, 0)", 496.0),
        ("tl.max(a, 0)", 31.0),
        ("tl.cumsum(a, 0)", np.cumsum(np.arange(32.0))),
    ],
)
def test_reductions_and_scans(call, expected):
    if "reverse" in call:
        # a reverse scan meets its operands from the end
        expected = np.arange(32.0) * 0 + np.arange(32.0)
    out = run_elementwise(
        call, np.arange(32, dtype=np.float32), out=np.zeros(32, np.float32), helpers=COMBINE
    )
    np.testing.assert_array_equal(out, np.broadcast_to(expected, 32))


def test_reductions_along_an_axis_with_tuples():
    source = (
        HEADER
        + """@triton.jit
def best(v1, i1, v2, i2):
    first = (v1 > v2) | ((v1 == v2) & (i1 < i2))
    return tl.where(first, v1, v2), tl.where(first, i1, i2)


@triton.jit
def kernel(x, values, places, R: tl.constexpr, C: tl.constexpr):
    row = tl.arange(0, R)
    column = tl.arange(0, C)
    v = tl.load(x + row[:, None] * C + column[None, :])
    i = tl.broadcast_to(column[None, :], (R, C))
    value, place = tl.reduce((v, i), 1, best)
    tl.store(values + row, value)
    tl.store(places + row, place)
"""
    )
    x = np.random.default_rng(4).integers(0, 5, (8, 16)).astype(np.float32)
    values, places = np.empty(8, np.float32), np.empty(8, np.int32)
    interpret(source, "kernel", (1,), [x, values, places], {"R": 8, "C": 16})
    np.testing.assert_array_equal(values, x.max(1))
    np.testing.assert_array_equal(places, x.argmax(1))


def test_a_scalar_comparison_meets_a_block():
    helper = "@triton.jit\ndef helper(a):\n    top = tl.max(a, 0)\n    return (top == 3.0) & (a < top)\n\n\n"
    x = np.arange(4, dtype=np.float32)
    out = run_elementwise("helper(a)", x, out=np.zeros(4, bool), helpers=helper)
    np.testing.assert_array_equal(out, x < 3)


def test_positions_of_a_loop_are_tensors():
    source = HEADER + (
        "@triton.jit\ndef kernel(out, low, high):\n"
        "    for place in range(low, high, 2):\n"
        "        tl.store(out + place, place.to(tl.int64) + place * 2147483647)\n"
    )
    out = np.zeros(6, np.int64)
    interpret(source, "kernel", (1,), [out, 1, 6])
    np.testing.assert_array_equal(out, [0, 2**31, 0, 2**31, 0, 2**31])  # the products wrap in 32 bits
    interpret(source, "kernel", (1,), [out, 1, 6], signature={"high": "i64"})
    np.testing.assert_array_equal(out[1::2], [n + n * (2**31 - 1) for n in (1, 3, 5)])


def test_atomics_and_grids_of_three_axes():
    source = HEADER + (
        "@triton.jit\ndef kernel(out):\n"
        "    where = tl.program_id(0) * 100 + tl.program_id(1) * 10 + tl.program_id(2)\n"
        "    tl.atomic_add(out, where)\n"
    )
    out = np.zeros(1, np.int32)
    interpret(source, "kernel", (2, 3, 4), [out])
    assert out[0] == sum(100 * i + 10 * j + k for i in range(2) for j in range(3) for k in range(4))


@pytest.mark.parametrize("grid", [(0,), (0, 3), ()])
def test_empty_arrays_and_grids(grid):
    empty = np.empty(0, np.float32)
    interpret(ADD, "add", grid, [empty, empty, empty, 0, 1.0], {"BLOCK": 16})


def test_numpy_scalars_keep_their_type():
    source = HEADER + "@triton.jit\ndef kernel(out, value):\n    tl.store(out, value)\n"
    out = np.zeros(1, np.float64)
    interpret(source, "kernel", (1,), [out, np.float64(0.1)])
    assert out[0] == 0.1
    interpret(source, "kernel", (1,), [out, 0.1])
    assert out[0] == np.float32(0.1)


# Memory checks: each must be able to fail.


def test_a_load_past_the_end_is_refused():
    x = np.zeros(100, np.float32)
    with pytest.raises(
        LaunchError, match=r"'add', program \(1, 0, 0\): load .* byte 400 .*'x', which has 400 bytes"
    ):
        interpret(
            ADD,
            "add",
            (2,),
            [x, np.zeros(101, np.float32), np.zeros(101, np.float32), 101, 1.0],
            {"BLOCK": 64},
        )


def test_a_store_past_the_end_is_refused():
    x = np.zeros(101, np.float32)
    with pytest.raises(
        LaunchError, match=r"store of 4 bytes out of bounds: byte 400 .*'out'.*\(1 of 37 lanes\).*line"
    ):
        interpret(ADD, "add", (2,), [x, x, np.zeros(100, np.float32), 101, 1.0], {"BLOCK": 64})


def test_the_gaps_of_a_view_are_out_of_bounds():
    x = np.zeros(200, np.float32)
    with pytest.raises(LaunchError, match="load of 4 bytes out of bounds: byte 4 "):
        interpret(ADD, "add", (2,), [x[::2], x.copy(), x.copy(), 100, 1.0], {"BLOCK": 64})


def test_unaligned_access_is_refused():
    source = HEADER + (
        "@triton.jit\ndef kernel(x):\n"
        "    address = x.to(tl.int64) + 2\n    tl.store(address.to(tl.pointer_type(tl.float32)), 1.0)\n"
    )
    with pytest.raises(LaunchError, match="byte 2 from the start"):
        interpret(source, "kernel", (1,), [np.zeros(4, np.float32)])


def test_read_only_arrays_cannot_be_written():
    x = np.zeros(8, np.float32)
    out = np.zeros(8, np.float32)
    out.setflags(write=False)
    with pytest.raises(LaunchError, match="argument 'out' is read-only"):
        interpret(ADD, "add", (1,), [x, x, out, 8, 1.0], {"BLOCK": 8})


def test_atomics_are_checked():
    source = HEADER + "@triton.jit\ndef kernel(out):\n    tl.atomic_add(out + 1, 1)\n"
    with pytest.raises(LaunchError, match="atomic of 4 bytes out of bounds"):
        interpret(source, "kernel", (1,), [np.zeros(1, np.int32)])


def test_masked_lanes_may_point_anywhere():
    x = np.ones(3, np.float32)
    np.testing.assert_array_equal(run_add(x, x, 1.0, block=64), [2, 2, 2])


def test_regions_of_views():
    base = np.zeros((4, 6), np.float32)
    region = Region.of("x", base[1:3, ::2])
    start = base.__array_interface__["data"][0]
    inside = region.contains(np.arange(24) * 4 + start, 4)
    expected = np.zeros((4, 6), bool)
    expected[1:3, ::2] = True
    np.testing.assert_array_equal(inside, expected.ravel())
    assert not Region.of("e", np.empty((0, 3))).contains(np.array([start]), 4).any()


# What goes wrong, and what must stay right.


def test_failures_name_the_program_and_the_line():
    source = HEADER + "@triton.jit\ndef kernel(x):\n    tl.store(x, tl.load(x) + undefined)\n"
    with pytest.raises(LaunchError, match=r"'kernel', program \(0, 0, 0\): NameError.*at line 7: tl.store"):
        interpret(source, "kernel", (1,), [np.zeros(1, np.float32)])


def test_wrong_calls_are_our_bug():
    x = np.zeros(4, np.float32)
    with pytest.raises(InternalError, match="no kernel 'sub'"):
        interpret(ADD, "sub", (1,), [x])
    with pytest.raises(InternalError, match="6 arguments were given"):
        interpret(ADD, "add", (1,), [x, x, x, 4, 1.0, 2.0], {"BLOCK": 4})
    with pytest.raises(InternalError, match="no Triton type for the dtype complex64"):
        interpret(ADD, "add", (1,), [x.astype(np.complex64), x, x, 4, 1.0], {"BLOCK": 4})


def language_state():
    import triton.language as tl
    from triton import knobs
    from triton.runtime import interpreter

    places = [tl, tl.core, tl.math, tl.standard, tl.random, tl.tensor, tl.dtype, knobs.runtime]
    places += [interpreter.ReduceOps, interpreter.ScanOps, interpreter.interpreter_builder]
    places += [interpreter, interpreter.interpreter_semantic, tl.core.block_type]
    return [dict(vars(place)) for place in places]


def test_the_process_is_left_as_it_was():
    x = np.ones(3, np.float32)
    run_add(x, x, 1.0)  # builder state such as the grid exists from the first run on
    before = language_state()
    run_add(x, x, 1.0)
    with pytest.raises(LaunchError):
        interpret(ADD, "add", (2,), [x, x, x.copy(), 99, 1.0], {"BLOCK": 64})
    after = language_state()
    for old, new in zip(before, after, strict=True):
        changed = {name for name in old.keys() | new.keys() if old.get(name) is not new.get(name)}
        assert changed <= {"grid_dim", "grid_idx"}


def test_what_triton_became_in_between_is_interpreted(monkeypatch):
    import triton.language as tl

    x, y = np.array([1.0, 5.0], np.float32), np.array([2.0, 3.0], np.float32)
    np.testing.assert_array_equal(run_elementwise("tl.maximum(a, b)", x, y, out=np.empty_like(x)), [2, 5])
    monkeypatch.setattr(tl, "maximum", tl.minimum)
    np.testing.assert_array_equal(run_elementwise("tl.maximum(a, b)", x, y, out=np.empty_like(x)), [1, 3])


def test_tiles_of_one_shape_and_many_types():
    """Types are remembered by shape and element: of integers, floats and pointers to each."""
    x, n = np.arange(8.0, dtype=np.float32), np.arange(8)
    pairs = "tl.reshape({}, (2, 4))"
    products = f"{pairs.format('a')} * {pairs.format('b')} + {pairs.format('i')}"
    for out in (np.empty(8, np.float32), np.empty(8, np.float64), np.empty(8, np.int64)):
        run_elementwise(f"tl.reshape({products}, (8,))", x, n, out=out)
        np.testing.assert_array_equal(out, n * n + n)
    transposed = f"tl.reshape(tl.trans({pairs.format('i')}), (8,))"
    read = run_elementwise(f"tl.load(pb + {transposed})", x, n, out=np.empty_like(n))
    np.testing.assert_array_equal(read, n.reshape(2, 4).T.reshape(8))


def test_compiling_works_after_interpreting():
    x = np.zeros((2, 5), np.float32)
    interpret(SOFTMAX, "softmax", (2,), [x, x.copy(), 5, 5, 1], {"BLOCK": 8})
    signature = {"x": "*fp32", "out": "*fp32", "columns": "i32", "stride_row": "i32", "stride_column": "i32"}
    assert compile_source(
        SOFTMAX, "softmax", signature=signature, constexprs={"BLOCK": 64}, target="cuda:90"
    ).binary


def test_overflow_and_nan_warn_nobody():
    x = np.array([1e38, np.inf, -np.inf, np.nan, 0.0], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = run_add(x, x, 10.0)
        run_elementwise("tl.log(a) / (a - a)", x, out=np.empty_like(x))
        run_elementwise("a.to(tl.int32)", x, out=np.empty(5, np.int32))
    assert out[0] == np.inf
