"""Threads share a kernel's work items in pieces: each piece is taken once, by whoever comes first."""

from __future__ import annotations

import functools
from array import array

import numpy as np
import pytest

import tilewright as tw
from tests.support.threads import assert_same_bits, on_threads
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu import frame, loading
from tilewright.compiler.targets.cpu.executable import CpuExecutable
from tilewright.compiler.targets.cpu.functions import MOST_SHARING, PIECES
from tilewright.compiler.targets.cpu.launch import has_openmp
from tilewright.compiler.targets.cpu.recipe import Step
from tilewright.runtime.addresses import address

ROWS, COLUMNS = 1280, 1024

pytestmark = pytest.mark.skipif(loading.openmp() is None, reason="there is no OpenMP runtime")


@tw.op
def doubled(x: tw.Tile["n d"]):
    return x * 2


@tw.op
def row_total(x: tw.Tile["n d"]):
    return tw.sum(x, "d")


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((ROWS, COLUMNS)).astype(np.float32)


def prepared(op: tw.Op, x: np.ndarray, threads: int) -> tuple[Step, array, np.ndarray]:
    """The only step of a call, its frame, and where its result goes: NaN so far."""
    with on_threads(threads):
        call = op.bind(op.arguments((x,), {}))
        (step,) = CpuExecutable(lower(call.program)).recipe([x], fresh=False).steps
    result = np.full(ROWS if op is row_total else x.shape, np.nan, np.float32)
    words = step.template[:]
    for slot, operand in zip(step.slots, (x, result), strict=True):
        words[slot] = address(operand)
    assert words[frame.THREADS] == threads and words[frame.TAKEN] == 0
    return step, words, result


def run(step: Step, words: array) -> None:
    if not has_openmp():
        pytest.skip("this process was forked from one with threads")
    step.compiled.entry(words.buffer_info()[0])


@pytest.mark.parametrize("threads", [2, 3, MOST_SHARING])
@pytest.mark.parametrize("op", [doubled, row_total], ids=lambda op: op.name)
def test_every_piece_is_taken(op: tw.Op, threads: int, x: np.ndarray):
    step, words, result = prepared(op, x, threads)
    run(step, words)
    assert words[frame.TAKEN] == -1, "a bit for each of 64 pieces"
    np.testing.assert_array_equal(result, op(x))


@pytest.mark.parametrize("threads", [2, 5])
@pytest.mark.parametrize("piece", [0, 17, PIECES - 1])
def test_what_another_thread_has_taken_is_left_to_it(piece: int, threads: int, x: np.ndarray):
    step, words, result = prepared(row_total, x, threads)
    words[frame.TAKEN] = 1 << piece if piece < 63 else -(1 << 63)
    run(step, words)
    each = ROWS // PIECES
    theirs = np.arange(ROWS) // each == piece
    assert np.isnan(result[theirs]).all()
    np.testing.assert_array_equal(result[~theirs], row_total(x)[~theirs])


def test_where_there_are_many_threads_each_has_a_piece_of_its_own(x: np.ndarray):
    step, words, result = prepared(row_total, x, MOST_SHARING + 1)
    run(step, words)
    np.testing.assert_array_equal(result, row_total(x))


def test_fewer_items_than_pieces():
    x = np.random.default_rng(1).standard_normal((5, 400_000)).astype(np.float32)
    call = row_total.bind(row_total.arguments((x,), {}))
    run = functools.partial(CpuExecutable(lower(call.program)).run, call.arrays)
    assert_same_bits(run, (1, 2, 3, 5))
    np.testing.assert_allclose(run()[0], x.sum(1, dtype=np.float64), rtol=1e-4)
