"""Shapes, dtypes and costs without running anything."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support import indexing_ops as ops
from tilewright import kernels
from tilewright.dsl.dtypes import float16, float32, int64
from tilewright.errors import ShapeError


def test_shapes_of_results():
    assert tw.shapes(kernels.matmul, (7, 128, 64), (64, 32)) == tw.Typed((7, 128, 32), float32)
    assert tw.shapes(ops.conv2d, (2, 3, 224, 224), (64, 3, 7, 7), stride=2, pad=3).shape == (2, 64, 112, 112)
    assert tw.shapes(ops.embedding, tw.Typed((10, 4), float16), tw.Typed((7,), int64)) == tw.Typed(
        (7, 4), float16
    )
    assert str(tw.shapes(kernels.softmax, (3, 5))) == "float32(3, 5)"


@pytest.mark.parametrize("case", ops.CASES, ids=str)
def test_shapes_are_those_of_a_call(case):
    arguments = case.arguments()
    result = case.op.reference(*arguments, **case.constants)
    given = [tw.Typed(a.shape, a.dtype) for a in arguments]
    assert tw.shapes(case.op, *given, **case.constants).shape == result.shape


def test_nothing_is_allocated():
    huge = tw.shapes(kernels.matmul, (1 << 20, 1 << 20), (1 << 20, 1 << 20))
    assert huge.shape == (1 << 20, 1 << 20)


def test_a_mismatch_names_both_operands_and_the_line():
    with pytest.raises(ShapeError, match=r"test_shapes.py:\d+: op 'matmul'.*64 in a .*65 in b"):
        tw.shapes(kernels.matmul, (128, 64), (65, 32))
    with pytest.raises(ShapeError, match=r"axis 'oh' would have -1 positions.*size\(h\) = 3"):
        tw.shapes(ops.conv2d, (1, 3, 3, 9), (2, 3, 5, 5))


def test_cost():
    cost = kernels.matmul.cost((128, 64), (64, 32))
    assert cost.forward.operations == 2 * 128 * 64 * 32
    assert cost.forward.moved == 4 * (128 * 64 + 64 * 32 + 128 * 32)
    assert cost.gradient.operations == 2 * cost.forward.operations
    assert "flops  2·" in str(cost) and np.isclose(cost.forward.intensity, 524288 / cost.forward.moved)
    convolution = ops.conv2d.cost((8, 64, 56, 56), (64, 64, 3, 3), pad=1)
    assert convolution.forward.operations == 2 * 8 * 64 * 64 * 9 * 56 * 56
    assert "where oh = " in str(convolution)
