"""Operands given by name are those given by position, on the same short way."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tilewright.errors import ArgumentError
from tilewright.op.op import Op

X = np.arange(6, dtype=np.float32).reshape(2, 3)
Y = np.full((2, 3), 10, np.float32)


@tw.op
def difference(x: tw.Tile["..."], y: tw.Tile["..."]):
    return x - y


@tw.op
def shifted(x: tw.Tile["..."], by: tw.Tile["..."] = None, *, times: float = 1.0):
    return x if by is None else x + times * by


def test_any_order_and_any_number_of_names():
    for result in (difference(x=X, y=Y), difference(y=Y, x=X), difference(X, y=Y)):
        np.testing.assert_array_equal(result, X - Y)
    np.testing.assert_array_equal(shifted(by=Y, x=X), X + Y)
    np.testing.assert_array_equal(shifted(x=X), X)
    np.testing.assert_array_equal(shifted(X, times=2.0), X)
    np.testing.assert_array_equal(shifted(X, by=Y, times=2.0), X + 2 * Y)
    assert tw.Tensor(X).shape == difference(x=tw.Tensor(X), y=tw.Tensor(Y)).shape


def test_a_known_layout_is_not_bound_again(monkeypatch: pytest.MonkeyPatch):
    difference(X, Y)
    monkeypatch.setattr(Op, "arguments", lambda *_: pytest.fail("the arguments were sorted again"))
    np.testing.assert_array_equal(difference(y=Y, x=X), X - Y)


def test_what_is_wrong_with_names_is_still_said():
    with pytest.raises(ArgumentError, match=r"no argument 'z'"):
        difference(X, z=Y)
    with pytest.raises(ArgumentError, match=r"given 'x' twice"):
        difference(X, x=Y)
    with pytest.raises(ArgumentError, match=r"needs the operand 'y'"):
        difference(x=X)
    with pytest.raises(ArgumentError, match=r"needs the operand 'y'"):
        difference(x=X, y=None)
