"""Python numbers as operands and as constants of a call."""

import numpy as np
import pytest

import tilewright as tw


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
