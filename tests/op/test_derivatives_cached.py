"""Derived Programs in the build cache: the same as derived afresh, and found by whoever asks for the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tilewright as tw
from tilewright.autograd import derive
from tilewright.dsl.dtypes import float32, float64
from tilewright.errors import DerivativeError
from tilewright.op import derivatives
from tilewright.runtime import cache as build_cache


@tw.op
def layer(x: tw.Tile["... k"], weight: tw.Tile["n k"], *, gain: tw.Scalar = 2.0):
    s = tw.sum(x * weight, "k") * gain
    return s * tw.sigmoid(s), tw.logsumexp(s, "n")


@tw.op
def counted(n: tw.Tile["i"]):
    return tw.sum(n, "i")


def program_of(op: tw.Op, *arrays: np.ndarray):
    return op.bind(op.arguments(arrays, {})).program


PROGRAM = program_of(layer, np.ones((3, 4), np.float32), np.ones((5, 4), np.float32))


@pytest.fixture
def new_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], build_cache.BuildCache]:
    """Forgets what this process derived, and everything in the cache but the files."""

    def forget() -> build_cache.BuildCache:
        derivatives._vjp.cache_clear()
        derivatives._jvp.cache_clear()
        cache = build_cache.BuildCache(tmp_path)
        monkeypatch.setattr(derivatives, "shared_cache", lambda: cache)
        return cache

    return forget


@pytest.mark.parametrize("wrt", [None, ("x",), ("weight",), ("weight", "x")])
def test_what_is_read_is_what_was_derived(wrt, new_process):
    for _ in range(2):
        new_process()
        assert derivatives.vjp(PROGRAM, wrt) == derive.vjp(PROGRAM, wrt)
        assert derivatives.jvp(PROGRAM, wrt) == derive.jvp(PROGRAM, wrt)


def test_a_second_process_derives_nothing(new_process, monkeypatch: pytest.MonkeyPatch):
    assert new_process().statistics.builds == 0
    first = derivatives.vjp(PROGRAM), derivatives.vjp(PROGRAM, ("x",)), derivatives.jvp(PROGRAM)
    monkeypatch.setattr(derive, "vjp", None)
    monkeypatch.setattr(derive, "jvp", None)
    cache = new_process()
    assert (derivatives.vjp(PROGRAM), derivatives.vjp(PROGRAM, ("x",)), derivatives.jvp(PROGRAM)) == first
    assert (cache.statistics.hits, cache.statistics.builds) == (3, 0)


def test_by_all_operands_is_one_entry(new_process):
    cache = new_process()
    assert derivatives.vjp(PROGRAM) is derivatives.vjp(PROGRAM, ("x", "weight"))
    assert cache.statistics.builds == 1


def test_another_generator_derives_again(new_process, monkeypatch: pytest.MonkeyPatch):
    new_process()
    derivatives.vjp(PROGRAM)
    monkeypatch.setattr(derivatives, "derivative_version", lambda: "of another release")
    cache = new_process()
    derivatives.vjp(PROGRAM)
    assert (cache.statistics.hits, cache.statistics.builds) == (0, 1)


def test_what_has_no_derivative_is_not_kept(new_process):
    program = program_of(counted, np.ones(3, np.int64))
    for _ in range(2):
        cache = new_process()
        with pytest.raises(DerivativeError, match="no floating-point operand"):
            derivatives.vjp(program)
        with pytest.raises(DerivativeError, match="no floating-point operand"):
            derivatives.jvp(program)
        assert cache.statistics.builds == 0


def test_names_and_constants_survive(new_process):
    @tw.op
    def élan(x: tw.Tile["i"]):
        return tw.where(x > 0.1, x * 1e-300, tw.inf) + x * float(np.nextafter(1, 2))

    for dtype in (float32, float64):
        program = program_of(élan, np.ones(3, dtype.numpy))
        for _ in range(2):
            new_process()
            assert derivatives.vjp(program) == derive.vjp(program)
