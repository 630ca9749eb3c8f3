"""Conversions of floats of 8 bits in the MLIR text, on every kind of machine that this one can be."""

import numpy as np
import pytest

from tests.compiler.cpu.test_builder import INFINITY, NAN, NUMPY, TARGETS, execute, narrow_exactly
from tilewright.compiler.targets.cpu.builder import F32, F64, Builder, Type, Value


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize("kind", ["f8e4m3fn", "f8e5m2"])
def test_floats_of_8_bits_widen_and_narrow(kind, target):
    """All 256 patterns, as scalars too; midpoints and their neighbours, subnormal ones among them."""
    patterns = np.arange(256, dtype=np.uint8).view(NUMPY[kind])
    values = np.unique(patterns.astype(np.float64)[:127])
    values = values[np.isfinite(values)]
    middle = np.append((values[1:] + values[:-1]) / 2, values[-1] + (values[-1] - values[-2]) / 2)
    x = np.concatenate([values, *(middle * (1 + e) for e in (0, 2**-20, -(2**-20), 2**-45, -(2**-45)))])
    x = np.resize(np.concatenate([x, -x, [NAN, INFINITY, -INFINITY, 1e30, -1e30, 1e-30, 1e-300]]), 1280)
    single, widened, one_by_one = x.astype(np.float32), np.zeros(256, np.float32), np.zeros(256, np.float32)
    from_single, from_double = np.zeros(x.size, NUMPY[kind]), np.zeros(x.size, NUMPY[kind])

    def body(b: Builder, source: Value, x32: Value, x64: Value, *to: Value) -> None:
        with b.loop(0, 256, 16) as loop:
            bits = b.bitcast(b.load(b.offset(source, loop.index), Type("i8", 16)), kind)
            b.store(b.convert(bits, "f32"), b.offset(to[0], b.mul(loop.index, 4)))
        with b.loop(0, 256, 1) as loop:
            bits = b.load(b.offset(source, loop.index), Type(kind))
            b.store(b.convert(bits, "f32"), b.offset(to[1], b.mul(loop.index, 4)))
        with b.loop(0, x.size, 16) as loop:
            wide = b.load(b.offset(x32, b.mul(loop.index, 4)), F32.vector(16))
            b.store(b.convert(wide, kind), b.offset(to[2], loop.index))
            wide = b.load(b.offset(x64, b.mul(loop.index, 8)), F64.vector(16))
            b.store(b.convert(wide, kind), b.offset(to[3], loop.index))

    execute(body, patterns, single, x, widened, one_by_one, from_single, from_double, target=target)
    for found in (widened, one_by_one):
        np.testing.assert_array_equal(found, patterns.astype(np.float32))
    with np.errstate(all="ignore"):
        for found, given in ((from_single, single.astype(np.float64)), (from_double, x)):
            np.testing.assert_array_equal(found.astype(np.float64), narrow_exactly(given, kind))
            np.testing.assert_array_equal(np.signbit(found.view(np.int8)), np.signbit(given))
