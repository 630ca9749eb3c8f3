"""Python numbers as operands and as constants of a call."""

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tests.support.checks import assert_gradients_right, assert_right, run, targets
from tilewright.dsl.dtypes import as_dtype


@tw.op
def add(x: tw.Tile["..."], y: tw.Tile["..."]):
    return x + y


@tw.op
def scaled(x: tw.Tile["..."], *, factor=1, table=(1,)):
    return x * factor * table[0]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_a_float_operand_takes_the_dtype_that_it_meets(dtype):
    x = np.zeros(2, dtype)
    for y in (add(x, 0.1), add(0.1, x)):
        assert y.dtype == dtype and y[0] == np.asarray(0.1, dtype)
    assert add(0.1, np.zeros(2, np.int32)).dtype == np.float32


def test_constants_that_compare_equal_are_told_apart():
    x = np.arange(3)
    assert scaled(x, factor=2).dtype == np.int64 and scaled(x, factor=2.0).dtype == np.float32
    assert scaled(x, table=(2,)).dtype == np.int64 and scaled(x, table=(2.0,)).dtype == np.float32
    ones = np.ones(2, np.float32)
    assert not np.signbit(scaled(ones, factor=0.0)).any() and np.signbit(scaled(ones, factor=-0.0)).all()


@tw.op
def thresholds(x: tw.Tile["n d"]):
    """Numbers that no half-precision type holds: chosen, compared with, and outside."""
    chosen = tw.where(x > 0.3, x, -1.7581)
    shifted = x.at(d=tw.index("d") - 1, fill=0.7)
    return (chosen + 1.7) * 3, tw.sum(tw.where(x < 0.1, shifted - 0.7, 0.6), "d"), tw.mean(chosen, "d")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=lambda d: np.dtype(d).name)
def test_no_number_is_rounded_to_half_precision(dtype):
    x = np.random.default_rng(0).standard_normal((7, 33)).astype(dtype)
    x[0, :3] = 0.1, 0.3, -0.1  # rounded to the type: the last bits decide
    call = thresholds.bind(thresholds.arguments([x], {}))
    for target in targets():
        assert_right(call.program, call.arrays, target, 16, f"{dtype} on {target}")
        assert_gradients_right(call.program, call.arrays, target, 64, f"gradient of {dtype} on {target}")


@pytest.mark.parametrize("target", targets())
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_positions_are_compared_as_they_are(dtype: str, target: str):
    """Narrow floats do not hold them: 257 is no bfloat16 number, 500 no float8_e4m3fn one."""

    @tw.op
    def beside(x: tw.Tile["n"]):
        return x >= tw.index("n"), x == tw.index("n"), tw.index("n") < x

    x = np.resize([1, 256, 257, 448, 2048, np.inf, np.nan, -1], 70_000).astype(as_dtype(dtype).numpy)
    call = beside.bind(beside.arguments((x,), {}))
    wide, position = x.astype(np.float64), np.arange(len(x))
    expected = wide >= position, wide == position, position < wide
    for found, right in zip(run(call.program, call.arrays, target), expected, strict=True):
        np.testing.assert_array_equal(found, right)
