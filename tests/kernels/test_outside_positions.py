"""What ops give for positions outside of their operands, and for bags of nothing: the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support import checks
from tests.support.cases import Case, labels
from tilewright import kernels as K
from tilewright.errors import ArgumentError

OUTSIDE = {"draw": {"ids": labels(-3, 10)}, "dtypes": {"ids": np.int64}}
TABLE = {"row": 7, "d": 5}
CASES = [
    Case(K.embedding, {"...": (2, 9), **TABLE}, absent=("padding",), **OUTSIDE),
    Case(K.embedding_bag, {"...": (5,), "n": 3, **TABLE}, absent=("weight",), **OUTSIDE),
    Case(K.index_add, {"n": 9, **TABLE}, scalars={"alpha": 1.0}, **OUTSIDE),
    Case(K.take_along, {"...": (2,), "d": 7, "k": 9}, **OUTSIDE),
]


@pytest.mark.parametrize("target", checks.targets())
@pytest.mark.parametrize("case", CASES, ids=str)
def test_targets_agree_outside(case: Case, target: str):
    checks.check_value(case, np.float32, target)
    checks.check_backward(case, np.float32, target)


def test_what_is_read_outside_is_nan_and_what_is_added_is_lost():
    table, ids = np.arange(6.0).reshape(3, 2), np.array([1, 3, -1])
    np.testing.assert_array_equal(K.embedding(table, ids), [[2, 3], [np.nan] * 2, [np.nan] * 2])
    np.testing.assert_array_equal(K.index_select(table.astype(np.int64), ids), [[2, 3], [0, 0], [0, 0]])
    np.testing.assert_array_equal(K.take_along(table[:, 0], ids), [2, np.nan, np.nan])
    np.testing.assert_array_equal(K.one_hot(ids, classes=3), [[0, 1, 0], [0, 0, 0], [0, 0, 0]])
    added = K.index_add(table, ids, np.ones((3, 2)))
    np.testing.assert_array_equal(added, [[0, 1], [3, 4], [4, 5]])
    gradient = K.embedding.vjp(table, ids, d_y=np.ones((3, 2)))
    np.testing.assert_array_equal(gradient, [[0, 0], [1, 1], [0, 0]])


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_a_bag_of_nothing_is_0_and_has_no_gradient(mode: str):
    table = np.arange(6.0).reshape(3, 2)
    ids = np.array([[1, 1], [0, 2]])
    found = K.embedding_bag(table, ids, mode=mode, padding_idx=1)
    assert not found[0].any() and found[1].any()
    gradient = K.embedding_bag.vjp(table, ids, d_y=np.ones((2, 2)), mode=mode, padding_idx=1)
    assert not gradient[1].any() and gradient[2].any()
    ragged = K.embedding_bag_ragged(table, np.array([2]), np.array([0, 0, 1]), mode=mode)
    np.testing.assert_array_equal(ragged, [[0, 0], [4, 5], [0, 0]])


def test_points_that_are_equal_have_distance_0_and_no_gradient():
    x = np.array([[1.0, 2.0], [0.0, 0.0]])
    for p in (0.5, 1.0, 2.0, 3.0, np.inf):
        assert not np.diag(K.cdist(x, x, p=p)).any()
        assert not K.pairwise_distance.grad(x[:1, None], x[:1, None], p=p, eps=0.0)[0].any(), p
    assert not K.normalize(x)[1].any() and np.isfinite(K.normalize.vjp(x, x)).all()
    assert np.isfinite(K.cosine_similarity.grad(x, x)[0]).all()


@pytest.mark.parametrize("op", [K.embedding_bag, K.embedding_bag_ragged], ids=lambda op: op.name)
def test_wrong_modes_are_refused(op):
    ids = np.zeros((1, 2), int) if op is K.embedding_bag else np.zeros(2, int)
    operands = (ids,) if op is K.embedding_bag else (ids, np.zeros(1, int))
    with pytest.raises(ArgumentError, match="mode is"):
        op(np.ones((2, 2)), *operands, mode="median")
    with pytest.raises(ArgumentError, match='weights with mode "sum" alone'):
        op(np.ones((2, 2)), *operands, np.ones(ids.shape), mode="max")
