"""Memory for results: the right arrays, reused when nobody looks into them, an error that teaches."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tilewright.errors import ArgumentError, MemoryLimitError, ShapeError
from tilewright.runtime import memory
from tilewright.runtime.guard import run_forked
from tilewright.runtime.memory import (
    ALIGNMENT,
    POOLED_FROM,
    empty,
    empty_cache,
    failing_allocation,
    maker,
    scratch,
    set_limit,
    size_class,
    statistics,
)

BIG = (256, 1024)  # of float32: 1 MiB
needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")


@pytest.fixture(autouse=True, scope="module")
def no_garbage() -> Iterator[None]:
    """What other modules' tests have left is collected, and what lives is not looked through every time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def fresh_pool() -> Iterator[None]:
    """An empty pool, and its limit afterwards as before."""
    limit = statistics().limit
    gc.collect()
    empty_cache()
    yield
    set_limit(limit)
    empty_cache()


DTYPES = ["?", "i1", "u8", "f2", "f4", "f8", "c16", "M8[ns]", "S5", [("a", "f4"), ("b", "i8")]]
SMALL_TYPES = [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.int4]


@pytest.mark.parametrize("dtype", DTYPES + SMALL_TYPES, ids=str)
@pytest.mark.parametrize(
    "shape", [(), (0,), (3,), (2, 0, 5), (7, 9), (1, 300_001), (513, 1025), [4, 5]], ids=str
)
def test_an_array_like_numpys(shape, dtype):
    array = empty(shape, dtype)
    expected = np.empty(shape, dtype)
    assert type(array) is np.ndarray
    assert (array.shape, array.dtype, array.strides) == (expected.shape, expected.dtype, expected.strides)
    assert array.flags.writeable
    assert array.flags.c_contiguous
    array[...] = np.zeros((), dtype)
    assert array.tobytes() == b"\0" * array.nbytes
    if array.nbytes >= POOLED_FROM:
        assert array.ctypes.data % ALIGNMENT == 0


def test_any_whole_number_is_a_shape():
    assert empty(5, "f4").shape == (5,)
    assert empty(np.int32(5), "f4").shape == (5,)
    assert empty((np.int8(100), np.int8(100)), "f8").shape == (100, 100)
    assert empty(range(2, 4), "f4").shape == (2, 3)


def test_objects_are_initialised():
    empty((POOLED_FROM,), "u8")[...] = 1
    array = empty((POOLED_FROM,), object)
    assert array.flags.owndata, "old bytes of the pool are no objects"
    assert array[0] is None
    assert array[-1] is None


@pytest.mark.parametrize("shape", [(-1,), (-300, -3000), (3, -1), (1,) * 70, (1,) * 69 + (POOLED_FROM,)])
def test_a_shape_without_a_meaning(shape):
    with pytest.raises(ShapeError, match="there is no array of shape"):
        empty(shape, "f4")
    assert statistics().live_bytes == 0


def test_the_next_result_of_that_size_gets_the_same_memory():
    address = empty(BIG, "f4").ctypes.data
    again = empty((512, 256), "f8")
    assert again.ctypes.data == address
    assert statistics().reused >= 1


def test_two_arrays_that_live_share_nothing():
    arrays = [empty(BIG, "f4") for _ in range(20)]
    for number, array in enumerate(arrays):
        array[...] = number
    for number, array in enumerate(arrays):
        assert (array == number).all()
    assert statistics().live_bytes == 20 * size_class(2**20)


VIEWS = {
    "slice": lambda array: array[5:9],
    "transpose": lambda array: array.T,
    "reshape": lambda array: array.reshape(-1)[::2],
    "dtype": lambda array: array.view(np.uint8),
    "element": lambda array: array[3:4, 3:4][0],
    "memoryview": lambda array: memoryview(array),
    "broadcast": lambda array: np.broadcast_to(array, (3, *array.shape)),
    "window": lambda array: np.lib.stride_tricks.sliding_window_view(array, (3, 3)),
    "interface": lambda array: np.asarray(Wrapper(array)),
    "dlpack": lambda array: np.from_dlpack(array),
    "flat": lambda array: array.flat,
    "frombuffer": lambda array: np.frombuffer(array, np.uint8),
    "ctypes": lambda array: array.ctypes.data_as(memory_pointer()),
}


class Wrapper:
    """Somebody who hands the memory on."""

    def __init__(self, array: np.ndarray):
        self.array = array
        self.__array_interface__ = array.__array_interface__


def memory_pointer() -> type:
    import ctypes

    return ctypes.POINTER(ctypes.c_char)


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_keeps_the_memory(name):
    array = empty(BIG, "f4")
    address = array.ctypes.data
    view = VIEWS[name](array)
    del array
    other = empty(BIG, "f4")
    assert other.ctypes.data != address
    assert statistics().live_bytes == 2 * 2**20
    del view
    gc.collect()
    assert statistics().live_bytes == 2**20
    assert empty(BIG, "f4").ctypes.data == address


def test_an_array_in_a_cycle_comes_back():
    cycle: list = [empty(BIG, "f4")]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert statistics().live_bytes == 0
    assert statistics().cached_bytes == 2**20


@pytest.mark.parametrize(
    "size", [POOLED_FROM, POOLED_FROM + 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20 + 5, 2**40 + 1]
)
def test_size_classes_fit_and_waste_little(size):
    block = size_class(size)
    assert size <= block <= size + size // 8 + 1
    assert block % 4096 == 0
    assert size_class(block) == block


def test_there_are_eight_size_classes_for_a_doubling():
    assert len({size_class(size) for size in range(2**20 + 1, 2**21 + 1, 1000)} | {2**21}) == 8


def test_the_limit_bounds_what_is_kept():
    set_limit(3 * 2**20)
    arrays = [empty(BIG, "f4") for _ in range(5)]
    addresses = [array.ctypes.data for array in arrays]
    assert statistics().live_bytes == 5 * 2**20
    while arrays:
        arrays.pop(0)
    assert statistics().cached_bytes == 3 * 2**20
    assert [empty(BIG, "f4").ctypes.data for _ in range(1)] == addresses[-1:]
    set_limit(2**20)
    assert statistics().cached_bytes == 2**20
    set_limit(0)
    assert statistics().cached_bytes == 0
    del arrays
    empty(BIG, "f4")
    assert statistics().cached_bytes == 0


def test_the_block_used_first_goes_first():
    set_limit(2**21)
    small, big = empty(BIG, "f4"), empty((2, *BIG), "f4")
    small_address = small.ctypes.data
    del big
    del small
    assert statistics().cached_bytes == 2**20
    assert empty(BIG, "f4").ctypes.data == small_address


@needs_proc
def test_memory_over_the_limit_goes_back_to_the_system():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    set_limit(0)
    before = resident()
    array = empty((64, *BIG), "f4")
    array[...] = 1
    assert resident() - before > 60 * 2**20
    del array
    assert resident() - before < 10 * 2**20


def test_users_reach_it_by_the_packages_name():
    assert tw.memory.statistics is statistics and tw.memory.empty_cache is empty_cache


def test_statistics():
    before = statistics()
    kept = empty(BIG, "f4")
    empty(BIG, "f4")
    empty(BIG, "f4")
    empty((3,), "f4")
    after = statistics()
    assert after.allocated - before.allocated == 2
    assert after.reused - before.reused == 1
    assert (after.live_bytes, after.cached_bytes) == (kept.nbytes, kept.nbytes)
    assert after.peak_live_bytes >= 2 * kept.nbytes
    empty_cache()
    assert statistics().cached_bytes == 0


@pytest.mark.parametrize("limit", [-1, 1.5, "1G", [1]])
def test_a_limit_that_is_no_number_of_bytes(limit):
    with pytest.raises(ArgumentError, match="pass a number of bytes"):
        set_limit(limit)


def test_the_limit_comes_from_the_environment():
    code = (
        "from tilewright.runtime import memory\n"
        "assert memory.statistics().limit == 3 << 20\n"
        "memory.set_limit(1)\n"
        "memory.set_limit(None)\n"
        "assert memory.statistics().limit == 3 << 20\n"
        "kept = memory.empty((1 << 20,), 'f4')\n"  # and one more dies with the interpreter
    )
    environment = {
        **os.environ,
        "TILEWRIGHT_MEMORY_POOL_LIMIT": "3M",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shape", [(3,), BIG])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_chosen_allocation_fails_and_the_next_works(shape, number):
    empty(BIG, "f4")
    done = []
    with failing_allocation(number), pytest.raises(MemoryLimitError):
        for _ in range(4):
            done.append(empty(shape, "f4"))
    assert len(done) == number - 1
    assert empty(shape, "f4").shape == shape
    with failing_allocation(number):
        for _ in range(number - 1):
            empty(shape, "f4")
        with pytest.raises(MemoryLimitError):
            empty(shape, "f4")
        assert empty(shape, "f4").shape == shape
    del done
    assert statistics().live_bytes == 0


@pytest.mark.parametrize("shape", [(3,), BIG])
def test_one_failure_is_made_up_for_by_freeing_what_is_kept(shape):
    empty((3, *BIG), "f4")
    assert statistics().cached_bytes == 3 * 2**20
    with failing_allocation(1, attempts=1):
        array = empty(shape, "f4")
    assert array.shape == shape
    assert statistics().cached_bytes == 0


def test_the_error_names_what_was_asked_what_is_held_and_the_remedy():
    kept = empty(BIG, "f4")
    with failing_allocation(1), pytest.raises(MemoryLimitError) as caught:
        empty((4, *BIG), "f4")
    message = str(caught.value)
    assert "cannot allocate 4194304 bytes (4.0 MiB)" in message
    assert f"hold {kept.nbytes} bytes (1.0 MiB)" in message
    assert "Delete arrays" in message
    assert isinstance(caught.value, MemoryError)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("shape", [(2**61,), (2**40, 2**40), (2**62, 2, 2), (10**30,)])
def test_more_than_any_machine_has(shape):
    with pytest.raises((MemoryLimitError, ShapeError)) as caught:
        empty(shape, "f8")
    assert isinstance(caught.value, MemoryLimitError)
    assert statistics().live_bytes == 0
    assert empty(BIG, "f4").shape == BIG


@needs_proc
def test_a_real_limit_of_the_system():
    """RLIMIT_AS: what is kept is given up; when that does not help there is an error, and then it goes on."""

    def work():
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20, resource.RLIM_INFINITY))
        set_limit(2**40)
        empty((150, *BIG), "f4")
        assert statistics().cached_bytes > 149 * 2**20
        kept = empty((100, *BIG), "f4")  # fits only without what is kept
        assert statistics().cached_bytes == 0
        with pytest.raises(MemoryLimitError, match="cannot allocate"):
            empty((150, *BIG), "f4")
        del kept
        assert empty((150, *BIG), "f4").shape == (150, *BIG)

    outcome = run_forked(work)
    assert outcome.kind == "returned", outcome.report


def test_many_threads():
    failures = []

    def work(seed):
        draw = np.random.default_rng(seed)
        held: list[tuple[np.ndarray, int]] = []
        for step in range(300):
            array = empty((int(draw.integers(1, 5)) * POOLED_FROM,), "u1")
            mark = (seed * 300 + step) % 251
            array[::4096] = mark
            held.append((array, mark))
            if len(held) > 4:
                old, mark = held.pop(int(draw.integers(len(held))))
                if not (old[::4096] == mark).all():
                    failures.append((seed, step))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert statistics().live_bytes == 0


def test_an_array_that_dies_while_the_pool_is_locked():
    """The garbage collector may run inside of the pool: it must neither wait nor lose the block."""
    array = empty(BIG, "f4")
    with memory._pool._lock:
        del array
    assert statistics().live_bytes == 0
    assert statistics().cached_bytes == 2**20


def test_a_fork_while_the_pool_is_locked():
    kept = empty(BIG, "f4")
    kept[...] = 7

    def work():
        array = empty(BIG, "f4")
        array[...] = 8
        assert (kept == 7).all()
        assert statistics().live_bytes == 2 * 2**20

    with memory._pool._lock:
        outcome = run_forked(work)
    assert outcome.kind == "returned", outcome.report
    assert (kept == 7).all()


def test_children_and_parents_share_nothing():
    array = empty(BIG, "f4")
    array[...] = 1

    def work():
        array[...] = 2

    assert run_forked(work).kind == "returned"
    assert (array == 1).all()


def test_a_small_result_costs_little_more_than_numpys():
    """Calls are counted, not timed: a size, and NumPy's own memory; the pool and its lock are not entered."""
    shape, dtype, calls = (16, 16), np.dtype("f4"), []

    def profile(frame, event, argument):
        if event in ("call", "c_call"):
            calls.append(frame.f_code.co_name if event == "call" else argument.__name__)

    sys.setprofile(profile)
    try:
        empty(shape, dtype)
    finally:
        sys.setprofile(None)
    assert calls.count("empty") == 2, "ours, and NumPy's"
    assert set(calls) <= {"empty", "isinstance", "prod", "_from_numpy", "setprofile"}


def test_a_reused_result_has_no_page_faults():
    def fill():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        empty((64, *BIG), "f4")[...] = 1
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    set_limit(2**30)
    first, second = fill(), fill()
    assert first >= 32, "64 MiB of fresh memory, even in huge pages"
    assert second < 16


def test_scratch_is_one_piece_of_memory_for_each_thread():
    mine = scratch(1000)
    assert mine.size >= 1000 and mine.ctypes.data % 64 == 0
    assert scratch(200) is mine
    larger = scratch(300_000)
    assert larger.size >= 300_000 and scratch(1000) is larger
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(scratch, 1000).result()
    assert not np.shares_memory(larger, other)


def test_much_scratch_is_not_kept():
    before = statistics().live_bytes
    array = scratch(memory.SCRATCH + 1)
    assert statistics().live_bytes > before
    del array
    assert statistics().live_bytes == before


@pytest.mark.parametrize("shape", [(3,), BIG])
def test_makers_and_scratch_ask_what_stands_in_the_place_of_empty(shape, monkeypatch):
    make = maker(shape, np.dtype("f4"))
    scratch(100)
    monkeypatch.setattr(memory, "empty", lambda shape, dtype: np.full(shape, 7, dtype))
    assert make().shape == shape and np.all(make() == 7)
    assert np.all(scratch(100) == 7)


def test_makers_fail_as_empty_does():
    make = maker((3,), np.dtype("f4"))
    with failing_allocation(1), pytest.raises(MemoryLimitError):
        make()
    assert make().shape == (3,)
