"""Operands between guard pages, and the child that may crash."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

import ml_dtypes
import numpy as np
import pytest

from tilewright.errors import ArgumentError
from tilewright.runtime.guard import PAGE, fork, guarded, poisoned, run_forked

SIDES = ("end", "start")
ARRAYS = {
    "vector": np.arange(7, dtype=np.float32),
    "page": np.arange(PAGE, dtype=np.uint8),
    "pages": np.arange(3 * PAGE + 5, dtype=np.uint8),
    "matrix": np.arange(12, dtype=np.int64).reshape(3, 4),
    "transposed": np.arange(12, dtype=np.float64).reshape(3, 4).T,
    "reversed": np.arange(12, dtype=np.int16).reshape(3, 4)[::-1, ::-2],
    "broadcast": np.broadcast_to(np.arange(3, dtype=np.int32), (4, 3)),
    "every other": np.arange(20, dtype=np.complex128)[::2],
    "overlapping": np.lib.stride_tricks.sliding_window_view(np.arange(9, dtype=np.float32), 3),
    "scalar": np.array(3.5),
    "empty": np.zeros((0, 3), np.float32),
    "empty inside": np.zeros((3, 0, 2), np.float32)[::-1],
    "bfloat16": np.arange(5).astype(ml_dtypes.bfloat16),
    "float8": np.arange(5).astype(ml_dtypes.float8_e4m3fn),
    "bool": np.array([True, False, True]),
}


def extent_in_memory(array: np.ndarray) -> tuple[int, int]:
    """Addresses of the first byte and of the one after the last."""
    low, high = np.lib.array_utils.byte_bounds(array)
    return (low, low) if array.size == 0 else (low, high)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", ARRAYS)
def test_a_guarded_copy_is_the_same_array_next_to_a_page_boundary(name, side):
    array = ARRAYS[name]
    copy = guarded(array, side)
    assert copy.dtype == array.dtype
    assert copy.strides == array.strides
    assert copy.tobytes() == array.tobytes()
    assert copy.flags.writeable
    assert not np.shares_memory(copy, array)
    low, high = extent_in_memory(copy)
    assert (high if side == "end" else low) % PAGE == 0


@pytest.mark.parametrize("name", ARRAYS)
def test_without_strides_the_copy_is_contiguous(name):
    copy = guarded(ARRAYS[name], keep_strides=False)
    assert copy.flags.c_contiguous
    assert copy.tobytes() == ARRAYS[name].tobytes()


def touch(address: int) -> bytes:
    return ctypes.c_char.from_address(address).value


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize(("side", "beyond"), [("end", 0), ("start", -1), ("end", PAGE - 1), ("start", -PAGE)])
def test_one_byte_beyond_is_a_crash(name, side, beyond):
    low, high = extent_in_memory(copy := guarded(ARRAYS[name], side))
    address = (high if side == "end" else low) + beyond
    outcome = run_forked(lambda: touch(address))
    assert outcome.segfault, (outcome, copy)


@pytest.mark.parametrize("side", SIDES)
def test_the_data_itself_can_be_read_and_written(side):
    copy = guarded(ARRAYS["pages"], side)

    def work():
        copy[...] = 1
        assert copy.sum() == copy.size

    assert run_forked(work).kind == "returned"


def test_between_elements_there_is_the_pattern():
    copy = guarded(ARRAYS["every other"])
    low, high = extent_in_memory(copy)
    memory = np.frombuffer((ctypes.c_uint8 * (high - low)).from_address(low), np.complex128)
    assert memory[1::2].tobytes() == b"\xa5" * 16 * 9


@pytest.mark.parametrize(
    "dtype", ["f2", "f4", "f8", "c8", "c16", ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn]
)
def test_a_poisoned_float_is_nan(dtype):
    array = poisoned((3, 5), dtype)
    assert array.shape == (3, 5)
    assert (array != array).all()


@pytest.mark.parametrize(
    "dtype", ["i1", "u2", "i4", "i8", "?", ml_dtypes.float4_e2m1fn, ml_dtypes.int4, "M8[s]", "V3"]
)
def test_poisoned_bytes_are_the_pattern_where_there_is_no_nan(dtype):
    array = poisoned((4,), dtype)
    assert array.view(np.uint8).tolist() == [0xA5] * array.nbytes


def test_poisoned_takes_strides():
    array = poisoned((2, 3), "f4", "start", strides=(4, 16))
    assert array.strides == (4, 16)
    assert np.isnan(array).all()
    low, _ = extent_in_memory(array)
    assert low % PAGE == 0


def test_a_guarded_array_keeps_its_memory():
    views = [guarded(np.full(1000, number))[::2][1:] for number in range(50)]
    for number, view in enumerate(views):
        assert (view == number).all()


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs Linux's /proc")
def test_guards_go_with_their_arrays():
    def mappings():
        with open("/proc/self/maps") as lines:
            return len(lines.readlines())

    kept = guarded(ARRAYS["page"])
    before = mappings()
    for _ in range(50):
        guarded(ARRAYS["pages"])
    assert mappings() <= before + 5
    assert kept[0] == 0


@pytest.mark.parametrize("side", ["both", "", None])
def test_there_are_two_sides(side):
    with pytest.raises(ArgumentError, match="write 'end' or 'start'"):
        guarded(ARRAYS["vector"], side)


def test_objects_are_refused():
    with pytest.raises(ArgumentError, match="Python objects"):
        guarded(np.array([None]))


def test_a_child_that_returns():
    outcome = run_forked(lambda: 5)
    assert (outcome.kind, outcome.signal_number, outcome.report) == ("returned", None, "")
    assert not outcome.segfault


def test_a_child_that_raises_tells():
    def work():
        raise ValueError("é" * 100_000 + "the end")

    outcome = run_forked(work)
    assert outcome.kind == "raised"
    assert "the end" in outcome.report


@pytest.mark.parametrize("code", [0, 1, 77])
def test_a_child_that_exits(code):
    outcome = run_forked(lambda: os._exit(code))
    assert outcome.kind == ("raised" if code else "returned")
    assert run_forked(lambda: sys.exit(code)).kind == "raised"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGKILL])
def test_a_child_that_is_killed(number):
    outcome = run_forked(lambda: os.kill(os.getpid(), number))
    assert (outcome.kind, outcome.signal_number) == ("crashed", number)
    assert outcome.segfault == (number in (signal.SIGSEGV, signal.SIGBUS))


def test_a_child_that_hangs_is_ended():
    ended, held = os.pipe()

    def hang():
        os.close(ended)
        time.sleep(600)

    assert run_forked(hang, timeout=0.1).kind == "hung"
    os.close(held)
    assert os.read(ended, 1) == b"", "nobody holds the pipe any more: the child has ended"
    os.close(ended)


def test_a_child_with_a_child_of_its_own_does_not_hang():
    """The grandchild goes on until it is told to end, which is after the child's outcome is known."""
    told, tell = os.pipe()

    def work():
        if fork() == 0:
            os.close(tell)
            os.read(told, 1)
            os._exit(0)

    assert run_forked(work).kind == "returned"
    os.close(tell)
    os.close(told)


def test_children_leave_no_descriptors():
    before = sorted(os.listdir("/dev/fd"))
    for _ in range(5):
        run_forked(lambda: None)
    assert sorted(os.listdir("/dev/fd")) == before
