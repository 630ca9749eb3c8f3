"""Each operation of the Builder, run on this machine and compared with NumPy."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from tilewright.compiler.targets.cpu import loading, toolchain
from tilewright.compiler.targets.cpu.builder import (
    F32,
    F64,
    I1,
    I32,
    I64,
    PTR,
    Builder,
    Type,
    Value,
    float_bits,
)
from tilewright.errors import InternalError

TARGETS = [target for target in (toolchain.host(), toolchain.avx2()) if target.is_host]
NUMPY = {"f64": np.float64, "f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
NUMPY |= {"f8e4m3fn": ml_dtypes.float8_e4m3fn, "f8e5m2": ml_dtypes.float8_e5m2}
NUMPY |= {"i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64, "i1": np.bool_}
NAN, INFINITY = math.nan, math.inf


def execute(body: Callable[..., None], *arrays: np.ndarray, target=None) -> None:
    """Compiles `body(builder, *pointers)` as one function and calls it on the arrays."""
    target = target or toolchain.host()
    b = Builder(target)
    with b.function("kernel", args=[("frame", PTR)]) as (frame,):
        body(b, *[b.load(b.offset(frame, 8 * n), PTR) for n in range(len(arrays))])
    loaded = loading.load(toolchain.compile_object(b.module(), target))
    pointers = (ctypes.c_void_p * len(arrays))(*[array.ctypes.data for array in arrays])
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(loaded.address("kernel"))(ctypes.addressof(pointers))


def elementwise(op: Callable[..., Value], kind: str, *inputs: np.ndarray, result: str = "", target=None):
    """op on whole vectors: every input is one vector of its length (the last result kind may differ)."""
    out = np.zeros(len(inputs[0]), NUMPY[result or kind])
    lanes = len(out)

    def body(b: Builder, *pointers: Value) -> None:
        values = [b.load(p, Type(kind, lanes)) for p in pointers[:-1]]
        y = op(b, *values)
        b.store(b.convert(y, "i8") if y.type.kind == "i1" else y, pointers[-1])

    execute(body, *inputs, out, target=target)
    return out


FLOATS = [0.0, -0.0, 1.5, -2.25, 3.0, INFINITY, -INFINITY, NAN, 0.1, -7.5, 2.5, -0.5, 1e30, -1e-30, 4.0, 5.5]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_float_arithmetic(name, kind, target):
    x = np.array(FLOATS, NUMPY[kind])
    y = np.roll(x, 3)
    got = elementwise(lambda b, p, q: getattr(b, name)(p, q), kind, x, y, target=target)
    operation = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}[name]
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(got, operation(x, y))


@pytest.mark.parametrize("kind", ["i8", "i16", "i32", "i64"])
def test_integer_arithmetic(kind):
    x = np.array([7, -7, 100, -128, 0, 1, 55, -3], NUMPY[kind])
    y = np.array([2, 2, -3, 5, 9, -1, 7, -2], NUMPY[kind])
    unsigned = np.dtype(NUMPY[kind].__name__.replace("int", "uint"))
    wide_x, wide_y = x.astype(object), y.astype(object)
    truncated = np.array([int(a / b) for a, b in zip(wide_x, wide_y, strict=True)])
    np.testing.assert_array_equal(elementwise(Builder.div, kind, x, y), truncated.astype(x.dtype))
    np.testing.assert_array_equal(
        elementwise(Builder.rem, kind, x, y), (wide_x - truncated * wide_y).astype(x.dtype)
    )
    got = elementwise(lambda b, p, q: b.div(p, q, signed=False), kind, x, y)
    np.testing.assert_array_equal(got.view(unsigned), x.view(unsigned) // y.view(unsigned))
    np.testing.assert_array_equal(elementwise(Builder.xor, kind, x, y), x ^ y)
    np.testing.assert_array_equal(elementwise(lambda b, p: b.shr(p, 2, signed=True), kind, x), x >> 2)
    got = elementwise(lambda b, p: b.shr(p, 2, signed=False), kind, x)
    np.testing.assert_array_equal(got.view(unsigned), x.view(unsigned) >> 2)
    np.testing.assert_array_equal(elementwise(lambda b, p: b.not_(p), kind, x), ~x)
    np.testing.assert_array_equal(elementwise(Builder.maximum, kind, x, y), np.maximum(x, y))


def test_one_operation_names_that_are_single_instructions():
    x = np.array(FLOATS, np.float32)
    with np.errstate(all="ignore"):
        cases = {
            "floor": np.floor(x),
            "ceil": np.ceil(x),
            "trunc": np.trunc(x),
            "round_even": np.rint(x),
            "abs": np.abs(x),
            "sqrt": np.sqrt(x),
            "neg": -x,
        }
    for name, expected in cases.items():
        np.testing.assert_array_equal(elementwise(getattr(Builder, name), "f32", x), expected, err_msg=name)
    np.testing.assert_array_equal(
        elementwise(Builder.copysign, "f32", x, np.roll(x, 1)), np.copysign(x, np.roll(x, 1))
    )


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize("zeros", [True, False])
def test_extrema_propagate_nan(target, zeros):
    x = np.array(FLOATS, np.float32)
    for shift in range(len(x)):
        y = np.roll(x, shift)
        high = elementwise(lambda b, p, q: b.maximum(p, q, zeros=zeros), "f32", x, y, target=target)
        low = elementwise(lambda b, p, q: b.minimum(p, q, zeros=zeros), "f32", x, y, target=target)
        np.testing.assert_array_equal(high, np.maximum(x, y))
        np.testing.assert_array_equal(low, np.minimum(x, y))


@pytest.mark.parametrize("lanes", [4, 16])
def test_first_lanes(lanes: int):
    """Counts that do not fit 32 bits are none or all."""
    counts = np.array([-(1 << 31) - 1, -1, 0, 1, 3, 4, 15, 16, 17, 1 << 40], np.int64)
    out = np.zeros((counts.size, lanes), np.int8)

    def body(b: Builder, given: Value, result: Value) -> None:
        for n in range(counts.size):
            mask = b.first_lanes(b.load(b.offset(given, 8 * n), I64), lanes)
            b.store(b.convert(mask, "i8", signed=False), b.offset(result, n * lanes))

    execute(body, counts, out)
    np.testing.assert_array_equal(out, np.arange(lanes) < counts[:, None])


def test_zeros_are_ordered_and_numbers_win():
    x = np.array([0.0, -0.0, -0.0, NAN, 1.0, NAN, 2.0, -1.0], np.float32)
    y = np.array([-0.0, 0.0, -0.0, 1.0, NAN, NAN, 3.0, -2.0], np.float32)
    assert list(np.signbit(elementwise(Builder.maximum, "f32", x, y)[:3])) == [False, False, True]
    assert list(np.signbit(elementwise(Builder.minimum, "f32", x, y)[:3])) == [True, True, True]
    np.testing.assert_array_equal(elementwise(Builder.max_number, "f32", x, y)[3:], np.fmax(x, y)[3:])
    np.testing.assert_array_equal(elementwise(Builder.min_number, "f32", x, y)[3:], np.fmin(x, y)[3:])


@pytest.mark.parametrize("op", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_comparisons(op):
    ufunc = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal}
    ufunc |= {"gt": np.greater, "ge": np.greater_equal}
    x = np.array(FLOATS, np.float32)
    y = np.roll(x, 1)
    expected = ufunc[op](x, y)
    np.testing.assert_array_equal(
        elementwise(lambda b, p, q: b.cmp(op, p, q), "f32", x, y, result="i1"), expected
    )
    nan = np.isnan(x) | np.isnan(y)
    got = elementwise(lambda b, p, q: b.cmp(op, p, q, unordered=True), "f32", x, y, result="i1")
    np.testing.assert_array_equal(got, expected | nan)
    i, j = np.array([1, -1, 5, 7], np.int32), np.array([-1, 1, 5, 8], np.int32)
    got = elementwise(lambda b, p, q: b.cmp(op, p, q), "i32", i, j, result="i1")
    np.testing.assert_array_equal(got, ufunc[op](i, j))
    got = elementwise(lambda b, p, q: b.cmp(op, p, q, signed=False), "i32", i, j, result="i1")
    np.testing.assert_array_equal(got, ufunc[op](i.view(np.uint32), j.view(np.uint32)))


@pytest.mark.parametrize("kind", ["f64", "f32", "f16", "bf16", "f8e4m3fn", "f8e5m2"])
def test_constants_keep_every_special(kind):
    specials = [NAN, INFINITY, -INFINITY, -0.0, 0.1, 1e-40, 65504.0, 1e300]
    out = np.zeros((2, len(specials)), NUMPY[kind])

    def body(b: Builder, pointer: Value) -> None:
        for n, x in enumerate(specials):
            b.store(b.constant(x, Type(kind)), b.offset(pointer, n * Type(kind).bytes))
        row = b.lane_constant(specials, Type(kind, len(specials)))
        b.store(row, b.offset(pointer, len(specials) * Type(kind).bytes))

    execute(body, out)
    with np.errstate(all="ignore"):
        expected = np.array(specials).astype(NUMPY[kind])
    for row in out:
        np.testing.assert_array_equal(row.astype(np.float64), expected.astype(np.float64))
        np.testing.assert_array_equal(np.signbit(row)[1:], np.signbit(expected)[1:])


def test_bits_of_bfloat16_round_to_nearest_even():
    for x in (1.0 + 2**-8, 1.0 + 3 * 2**-8, 3.4e38, 1e39, -1e39, 1e-41):
        with np.errstate(all="ignore"):
            expected = np.float32(x).astype(ml_dtypes.bfloat16).view(np.uint16)
        assert float_bits(x, "bf16") == expected


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_storage_floats_round_trip_and_narrow(kind, target):
    """All 65536 patterns widen exactly; midpoints and their neighbours narrow to nearest even."""
    patterns = np.arange(1 << 16, dtype=np.uint16).view(NUMPY[kind])
    with np.errstate(all="ignore"):
        exact = patterns.astype(np.float64)
        upper = np.nextafter(patterns, np.array(INFINITY, NUMPY[kind])).astype(np.float64)
        middle = np.where(np.isfinite(exact + upper), (exact + upper) / 2, exact)
        wide = np.concatenate([exact, middle, middle * (1 + 2**-40), middle * (1 - 2**-40)])
        single = wide.astype(np.float32)
        expected_widened = patterns.astype(np.float32)
        expected_single = narrow_exactly(single.astype(np.float64), kind)
        expected_double = narrow_exactly(wide, kind)
    widened = np.zeros(1 << 16, np.float32)
    from_single, from_double = np.zeros(wide.size, NUMPY[kind]), np.zeros(wide.size, NUMPY[kind])

    def body(b: Builder, source: Value, x32: Value, x64: Value, to32: Value, y32: Value, y64: Value) -> None:
        with b.loop(0, 1 << 16, 16) as loop:
            half = b.load(b.offset(source, b.mul(loop.index, 2)), Type(kind, 16))
            b.store(b.convert(half, "f32"), b.offset(to32, b.mul(loop.index, 4)))
        with b.loop(0, wide.size, 16) as loop:
            x = b.load(b.offset(x32, b.mul(loop.index, 4)), F32.vector(16))
            b.store(b.convert(x, kind), b.offset(y32, b.mul(loop.index, 2)))
            x = b.load(b.offset(x64, b.mul(loop.index, 8)), F64.vector(16))
            b.store(b.convert(x, kind), b.offset(y64, b.mul(loop.index, 2)))

    execute(body, patterns, single, wide, widened, from_single, from_double, target=target)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(widened, expected_widened)
        np.testing.assert_array_equal(from_single.astype(np.float64), expected_single)
        np.testing.assert_array_equal(from_double.astype(np.float64), expected_double)


def narrow_exactly(x: np.ndarray, kind: str) -> np.ndarray:
    """Nearest value of the format, ties to even, by scaling to integers (ml_dtypes rounds f64 twice)."""
    bits, lowest, largest = {
        "f16": (11, -24, 65504.0), "bf16": (8, -133, float.fromhex("0x1.fep127")),
        "f8e4m3fn": (4, -9, 448.0), "f8e5m2": (3, -16, 57344.0),
    }[kind]  # fmt: skip
    exponent = np.maximum(np.frexp(x)[1] - bits, lowest)
    y = np.ldexp(np.rint(np.ldexp(x, -exponent)), exponent)
    return np.where(np.abs(y) > largest, np.copysign(NAN if kind == "f8e4m3fn" else INFINITY, y), y)


def test_number_conversions():
    x = np.array([-3, 0, 7, 2**31 - 1], np.int32)
    np.testing.assert_array_equal(elementwise(lambda b, p: b.convert(p, "f64"), "i32", x, result="f64"), x)
    got = elementwise(lambda b, p: b.convert(p, "f64", signed=False), "i32", x, result="f64")
    np.testing.assert_array_equal(got, x.view(np.uint32))
    np.testing.assert_array_equal(elementwise(lambda b, p: b.convert(p, "i64"), "i32", x, result="i64"), x)
    y = np.array([-2.7, 2.7, 0.0, 1e6], np.float32)
    np.testing.assert_array_equal(
        elementwise(lambda b, p: b.convert(p, "i32"), "f32", y, result="i32"), y.astype(int)
    )
    got = elementwise(lambda b, p: b.convert(p, "i1"), "f32", np.array([0, -0.0, NAN, 3], "f"), result="i1")
    assert list(got) == [False, False, True, True]
    got = elementwise(lambda b, p: b.convert(b.cmp("gt", p, 0.0), "f32"), "f32", y, result="f32")
    assert list(got) == [0, 1, 0, 1]


def test_masked_memory_leaves_other_lanes_alone():
    source = np.arange(16, dtype=np.float32)
    out = np.full((3, 16), -1, np.float32)

    def body(b: Builder, x: Value, y: Value) -> None:
        mask = b.cmp("lt", b.iota(I32.vector(16)), 5)
        v = b.load_masked(x, mask, 9.0, F32.vector(16))
        b.store(v, y)
        b.store_masked(v, b.offset(y, 64), mask)
        backwards = b.mul(b.sub(15, b.iota(I64.vector(16))), 4)
        b.scatter(b.gather(x, backwards, F32.vector(16), mask, 7.0), b.offset(y, 128), backwards)

    execute(body, source, out)
    np.testing.assert_array_equal(out[0], np.where(source < 5, source, 9))
    np.testing.assert_array_equal(out[1], np.where(source < 5, source, -1))
    np.testing.assert_array_equal(out[2][::-1], np.where(source < 5, 15 - source, 7))


def test_nontemporal_stores_and_prefetch_do_no_harm():
    storage = np.zeros(64, np.float32)
    start = -storage.ctypes.data // 4 % 16

    def body(b: Builder, y: Value) -> None:
        b.prefetch(y)
        b.prefetch(y, write=True, locality=0)
        b.store(b.constant(2.0, F32.vector(16)), y, nontemporal=True)

    execute(body, storage[start:])
    assert storage.sum() == 32


@pytest.mark.parametrize(("at", "loads"), [(lambda b, x: x, 1), (lambda b, x: b.another(x), 2)])
def test_what_is_read_at_another_address_is_read_again(at: Callable[..., Value], loads: int):
    b = Builder(toolchain.host())
    with b.function("kernel", args=[("x", PTR), ("y", PTR)]) as (x, y):
        first, second = b.load(x, I64), b.load(at(b, x), I64)
        b.store(b.mul(first, second), y)
    text = toolchain.optimised_ir(b.module(), toolchain.host())
    assert text.count("load i64") == loads


@pytest.mark.parametrize("lanes", [1, 2, 8, 16, 32])
def test_sum_is_the_tree_of_halves(lanes):
    x = np.random.default_rng(lanes).normal(size=lanes).astype(np.float32)
    out = np.zeros(1, np.float32)
    execute(lambda b, p, q: b.store(b.reduce("add", b.load(p, F32.vector(lanes))), q), x, out)
    expected = x
    while expected.size > 1:
        expected = expected[: expected.size // 2] + expected[expected.size // 2 :]
    assert out[0] == expected[0]


def test_other_reductions():
    x = np.array([3, 1, -2, NAN, 5, 6, 7, 8], np.float32)
    out = np.zeros(4, np.float32)

    def body(b: Builder, p: Value, q: Value) -> None:
        v = b.load(p, F32.vector(8))
        b.store(b.reduce("max", v), q)
        b.store(b.reduce("min", b.select(b.is_nan(v), 0.0, v)), b.offset(q, 4))
        b.store(b.reduce("mul", b.select(b.is_nan(v), 1.0, v)), b.offset(q, 8))
        anywhere = b.any(b.is_nan(v))
        b.store(b.select(anywhere, b.constant(1.0, F32), 0.0), b.offset(q, 12))

    execute(body, x, out)
    np.testing.assert_array_equal(out, np.array([NAN, -2, -10080, 1], np.float32))
    bits = np.array([0b1100, 0b0110, 0b1111, 0b0101], np.int32)
    result = np.zeros(3, np.int32)

    def logic(b: Builder, p: Value, q: Value) -> None:
        for n, op in enumerate(("and", "or", "xor")):
            b.store(b.reduce(op, b.load(p, I32.vector(4))), b.offset(q, 4 * n))

    execute(logic, bits, result)
    assert list(result) == [0b0100, 0b1111, 0b0000]


@pytest.mark.parametrize(("kind", "size"), [("f32", 16), ("f32", 8), ("f64", 8), ("f32", 4)])
def test_transpose(kind, size):
    x = np.arange(size * size, dtype=NUMPY[kind]).reshape(size, size)
    out = np.zeros_like(x)
    step = x.strides[0]

    def body(b: Builder, p: Value, q: Value) -> None:
        rows = [b.load(b.offset(p, n * step), Type(kind, size)) for n in range(size)]
        for n, row in enumerate(b.transpose(rows)):
            b.store(row, b.offset(q, n * step))

    execute(body, x, out)
    np.testing.assert_array_equal(out, x.T)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("kind", ["f32", "f64", "i8"])
def test_picked_and_alternating_lanes(kind, count):
    lanes = 8
    x = np.arange(lanes * count, dtype=NUMPY[kind]).reshape(count, lanes)
    picked, whole = np.zeros_like(x), np.zeros_like(x)
    step = x.strides[0]

    def body(b: Builder, p: Value, q: Value, r: Value) -> None:
        found = b.picked([b.load(b.offset(p, n * step), Type(kind, lanes)) for n in range(count)])
        for n, value in enumerate(found):
            b.store(value, b.offset(q, n * step))
        for n, value in enumerate(b.alternating(found)):
            b.store(value, b.offset(r, n * step))

    execute(body, x, picked, whole)
    np.testing.assert_array_equal(picked, x.reshape(lanes, count).T)
    np.testing.assert_array_equal(whole, x)


def test_lanes():
    x = np.arange(8, dtype=np.float32)
    out = np.zeros(8, np.float32)

    def body(b: Builder, p: Value, q: Value) -> None:
        v = b.load(p, F32.vector(8))
        low, high = b.slice(v, 0, 4), b.slice(v, 4, 4)
        b.store(b.insert(b.concat(high, low), b.extract(v, 3), 0), q)

    execute(body, x, out)
    assert list(out) == [3, 5, 6, 7, 0, 1, 2, 3]


def test_control_flow():
    out = np.zeros(4, np.int64)

    def body(b: Builder, q: Value) -> None:
        zero = b.constant(0, I64)
        with b.loop(0, 10, 3, carried=[zero, b.constant(1, I64)]) as loop:
            loop.yield_(b.add(loop.carried[0], loop.index), b.mul(loop.carried[1], 2))
        b.store(loop.results[0], q)
        b.store(loop.results[1], b.offset(q, 8))
        with b.if_(b.cmp("gt", loop.results[0], 100), [I64]) as choice:
            choice.yield_(1)
            choice.otherwise()
            choice.yield_(loop.results[1])
        b.store(choice.results[0], b.offset(q, 16))
        with b.while_([b.constant(1, I64)]) as turn:
            (n,) = turn.go_on_if(b.cmp("lt", turn.carried[0], 1000))
            turn.yield_(b.mul(n, 3))
        b.store(turn.results[0], b.offset(q, 24))

    execute(body, out)
    assert list(out) == [0 + 3 + 6 + 9, 16, 16, 2187]


def test_calls_inside_and_outside_the_module():
    b = Builder(toolchain.host())
    with b.function("kernel", args=[("frame", PTR)]) as (frame,):
        doubled = b.call("double", [b.load(frame, F64)], F64)
        assert doubled
        b.store(b.call("hypot", [doubled, b.constant(3.0, F64)], F64) or doubled, frame)
        stack = b.alloca(16)
        b.store(b.constant(5.0, F64), stack)
        b.store(b.load(stack, F64), b.offset(frame, 8))
        b.store(b.address_of("double"), b.offset(frame, 16))
    with b.function("double", args=[("x", F64)], result=F64, private=True) as (x,):
        b.return_(b.mul(x, 2.0))
    loaded = loading.load(toolchain.compile_object(b.module(), toolchain.host()))
    frame = np.array([2.0, 0.0, 0.0])
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(loaded.address("kernel"))(frame.ctypes.data)
    assert frame[0] == 5.0
    assert frame[1] == 5.0
    double = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(int(frame.view(np.int64)[2]))
    assert double(4.0) == 8.0


@pytest.mark.parametrize(
    "target", [toolchain.host(), toolchain.avx2(), toolchain.neon()], ids=lambda t: t.name
)
def test_nothing_is_contracted_unless_asked(target):
    def assembly(body):
        b = Builder(target)
        with b.function("kernel", args=[("p", PTR)]) as (p,):
            x = b.load(p, F32.vector(target.lanes("f32")))
            b.store(body(b, x), p)
        return toolchain.assembly(b.module(), target)

    fused = "vfmadd" if target.is_x86 else "fmla"
    assert fused not in assembly(lambda b, x: b.add(b.mul(x, 3.0), x))
    assert fused in assembly(lambda b, x: b.fma(x, 3.0, x))


def test_text_is_one_readable_operation_a_line():
    b = Builder(toolchain.neon())
    with b.function("scale", args=[("frame", PTR)]) as (frame,), b.loop(0, 8, 4) as loop:
        b.comment("twice")
        at = b.offset(frame, b.mul(loop.index, 4))
        b.store(b.mul(b.load(at, F32.vector(4)), 2.0), at)
    assert b.module() == (
        "module {\n"
        '  llvm.func @scale(%frame: !llvm.ptr) attributes {passthrough = ["nounwind"]} {\n'
        "    %c1 = arith.constant 0 : i64\n"
        "    %c2 = arith.constant 8 : i64\n"
        "    %c3 = arith.constant 4 : i64\n"
        "    %c8 = arith.constant dense<0x40000000> : vector<4xf32>\n"
        "    scf.for %i4 = %c1 to %c2 step %c3 : i64 {\n"
        "      // twice\n"
        "      %v5 = arith.muli %i4, %c3 : i64\n"
        "      %v6 = llvm.getelementptr %frame[%v5] : (!llvm.ptr, i64) -> !llvm.ptr, i8\n"
        "      %v7 = llvm.load %v6 {alignment = 4 : i64} : !llvm.ptr -> vector<4xf32>\n"
        "      %v9 = arith.mulf %v7, %c8 : vector<4xf32>\n"
        "      llvm.store %v9, %v6 {alignment = 4 : i64} : vector<4xf32>, !llvm.ptr\n"
        "    }\n"
        "    llvm.return\n"
        "  }\n"
        "}\n"
    )


def test_misuse_is_an_internal_error():
    b = Builder(toolchain.host())
    with pytest.raises(InternalError, match="outside a function"):
        b.constant(1, I64)
    with b.function("kernel", args=[("p", PTR)]) as (p,):
        x = b.load(p, F32)
        with pytest.raises(InternalError, match="f32 was given where i64"):
            b.store(b.load(p, I64), b.add(b.load(p, I64), x))
        with pytest.raises(InternalError, match="no meaning"):
            b.and_(x, x)
        with pytest.raises(InternalError, match="unknown comparison"):
            b.cmp("less", x, x)
        with pytest.raises(InternalError, match="were yielded where 1"), b.loop(0, 4, carried=[x]) as loop:
            loop.yield_(x, x)
        assert b.any(b.constant(True, I1)).type == I1
