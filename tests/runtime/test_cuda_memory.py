"""Device memory: the pool, its limit, streams that take turns, and page-locked memory, on a fake driver."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import tilewright as tw
from tests.support.fake_cuda import FakeCuda, installed
from tilewright.errors import ArgumentError, MemoryLimitError
from tilewright.runtime.cuda import arrays, pinned
from tilewright.runtime.cuda.pool import PAGE, block_size

MIB = 2**20


@pytest.fixture
def fake():
    with installed(FakeCuda(devices=2, total=64 * MIB)) as made:
        yield made


def floats(count: int, device: str = "cuda:0") -> tw.Tensor:
    return tw.empty(count // 4, device=device)


# --- the pool ---------------------------------------------------------------------------------------------


def test_blocks_are_an_eighth_larger_at_most():
    for size in (1, 511, 513, 4097, 100_000, 3 * MIB, 100 * MIB + 1):
        assert size <= block_size(size) <= max(512, size * 9 / 8, size + PAGE)


def test_freed_memory_is_used_again(fake):
    x = floats(MIB)
    address = x.__cuda_array_interface__["data"][0]
    del x
    assert tw.cuda.memory_stats().live_bytes == 0
    assert tw.cuda.memory_stats().cached_bytes == MIB
    y = floats(MIB)
    assert y.__cuda_array_interface__["data"][0] == address
    stats = tw.cuda.memory_stats()
    assert (stats.live_bytes, stats.cached_bytes, stats.reused, stats.allocated) == (MIB, 0, 1, 1)
    assert stats.peak_live_bytes == MIB


def test_the_cache_is_given_back(fake):
    del_me = floats(MIB)
    del del_me
    assert fake.memory
    tw.cuda.empty_cache()
    assert not fake.memory
    assert tw.cuda.memory_stats().cached_bytes == 0
    x = floats(2 * MIB)
    tw.cuda.reset_peak_memory_stats()
    assert tw.cuda.memory_stats().peak_live_bytes == x.numel() * 4


def test_each_device_has_a_pool(fake):
    x, y = floats(MIB), floats(2 * MIB, "cuda:1")
    assert tw.cuda.memory_stats("cuda:0").live_bytes == MIB
    assert tw.cuda.memory_stats(1).live_bytes == 2 * MIB
    assert x.device != y.device


def test_memory_is_found_by_giving_the_cache_back(fake):
    kept = floats(40 * MIB)
    del kept
    assert floats(50 * MIB).numel() == 50 * MIB // 4  # 40 + 50 would not fit
    assert tw.cuda.memory_stats().out_of_memory == 1


def test_memory_is_found_by_collecting_cycles(fake):
    cycle = [floats(40 * MIB)]
    cycle.append(cycle)
    gc.disable()
    try:
        del cycle
        assert floats(50 * MIB).numel() == 50 * MIB // 4
    finally:
        gc.enable()


def test_no_memory_is_explained(fake):
    held = floats(40 * MIB)
    with pytest.raises(MemoryLimitError) as raised:
        floats(50 * MIB)
    text = str(raised.value)
    assert "cannot allocate 50.0 MiB on cuda:0: arrays of this process hold 40.0 MiB there" in text
    assert "24.0 MiB of the device's 64.0 MiB are free" in text
    assert "Delete Tensors" in text
    assert held.numel()
    assert floats(20 * MIB).numel()  # the device can still be used


def test_the_limit_is_kept_and_named(fake):
    tw.cuda.set_memory_limit(10 * MIB)
    x, y = floats(4 * MIB), floats(4 * MIB)
    del y
    assert tw.cuda.memory_stats().cached_bytes == 4 * MIB
    y = floats(6 * MIB)
    assert tw.cuda.memory_stats().cached_bytes == 0, "what was kept made room"
    with pytest.raises(MemoryLimitError, match=r"set_memory_limit .* allows 10\.0 MiB"):
        floats(6 * MIB)
    assert x.numel() < y.numel()
    tw.cuda.set_memory_limit(None)
    assert floats(20 * MIB).numel()
    with pytest.raises(ArgumentError, match="pass a number of bytes"):
        tw.cuda.set_memory_limit(-1)


def test_the_limit_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_CUDA_MEMORY_LIMIT", "8M")
    with installed(FakeCuda()):
        assert tw.cuda.memory_stats().limit == 8 * MIB


def test_an_op_without_memory_is_named(fake):
    x = tw.ones(4 * MIB // 4, device="cuda")
    tw.cuda.set_memory_limit(6 * MIB)
    with pytest.raises(MemoryLimitError, match=r"test_cuda_memory.py:\d+: op 'add': cannot allocate 4.0 MiB"):
        x + x


# --- streams ----------------------------------------------------------------------------------------------


def test_a_stream_waits_for_what_another_one_writes(fake):
    side = tw.cuda.Stream()
    x = tw.ones(4, device="cuda") * 3  # on the default stream, which nobody has waited for
    with tw.cuda.stream(side):
        assert tw.cuda.current_stream() is side
        y = x + 1
    assert (y * 2).tolist() == [8.0] * 4


def test_memory_is_not_overwritten_while_another_stream_reads(fake):
    side = tw.cuda.Stream()
    x = tw.ones(256, device="cuda")
    with tw.cuda.stream(side):
        y = x * 5
    x.zero_()  # on the default stream
    tw.cuda.current_stream().synchronize()
    assert y.tolist() == [5.0] * 256


def test_freed_memory_waits_for_its_readers(fake):
    side = tw.cuda.Stream()
    x = tw.ones(256, device="cuda")
    address = x.__cuda_array_interface__["data"][0]
    with tw.cuda.stream(side):
        y = x * 5
    del x
    z = tw.full((256,), 7.0, device="cuda")
    assert z.__cuda_array_interface__["data"][0] == address
    tw.cuda.current_stream().synchronize()
    assert y.tolist() == [5.0] * 256


def test_events_are_points_in_a_stream(fake):
    side, begin, end = tw.cuda.Stream(), tw.cuda.Event(), tw.cuda.Event()
    begin.record(side)
    with tw.cuda.stream(side):
        x = tw.full((3,), 2.0, device="cuda")
    end = side.record(end)
    end.synchronize()
    assert end.milliseconds_since(begin) > 0
    tw.cuda.current_stream().wait(end)
    assert x.tolist() == [2.0] * 3


def test_streams_are_used_again(fake):
    first = tw.cuda.Stream().handle
    gc.collect()
    assert tw.cuda.Stream().handle == first


def test_torchs_stream_is_shared(fake, monkeypatch):
    """A torch that is in the process and uses CUDA says which stream is current."""
    import types

    queue = types.SimpleNamespace(cuda_stream=4711)
    torch = types.SimpleNamespace(
        cuda=types.SimpleNamespace(is_initialized=lambda: True, current_stream=lambda ordinal: queue)
    )
    monkeypatch.setitem(__import__("sys").modules, "torch", torch)
    x = tw.ones(4, device="cuda") + 1
    assert fake.launches[-1].stream == 4711
    assert tw.cuda.current_stream().handle == 4711
    torch.cuda.is_initialized = lambda: False
    assert tw.cuda.current_stream().handle == 0
    assert (x + 1).tolist() == [3.0] * 4, "the default stream waits for the other"
    torch.cuda = None
    assert tw.cuda.current_stream().handle == 0


# --- page-locked memory -----------------------------------------------------------------------------------


def test_copies_from_pinned_memory_go_on_by_themselves(fake):
    x = tw.tensor([1.0, 2.0]).pin_memory()
    assert x.is_pinned()
    assert not tw.ones(2).is_pinned()
    there = x.to("cuda", non_blocking=True)
    back = there.to("cpu", non_blocking=True)
    assert back.is_pinned()
    tw.cuda.synchronize()
    assert back.tolist() == [1.0, 2.0]
    assert x.to("cuda").tolist() == [1.0, 2.0]


def test_pinned_memory_is_used_again_when_it_is_free(fake):
    x = tw.tensor(np.arange(100.0)).pin_memory()
    address = x.numpy().ctypes.data
    there = x.to("cuda", non_blocking=True)
    del x
    again = pinned.empty((100,), np.float64)  # waits for the copy
    again[...] = -1
    assert again.ctypes.data == address
    assert there.tolist() == list(range(100))


def test_memory_that_is_not_pinned_is_read_at_once(fake):
    x = np.ones(4, np.float32)
    there = arrays.from_numpy(x, wait=False)
    x[:] = 9
    assert there.to_numpy().tolist() == [1.0] * 4
