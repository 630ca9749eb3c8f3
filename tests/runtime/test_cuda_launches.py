"""Warm calls on a device: what they ask the driver for, and that each passes its own arguments."""

from __future__ import annotations

import sys
import threading
import types
from dataclasses import replace

import numpy as np
import pytest

import tilewright as tw
from tests.support.fake_cuda import FakeCuda, installed
from tilewright.compiler.targets.triton import on_device
from tilewright.compiler.targets.triton.driver import LoadedKernel

X = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def fake():
    with installed(FakeCuda(devices=2)) as made:
        yield made


@tw.op
def scaled(x: tw.Tile["... d"], *, factor: tw.Scalar = 1.0):
    """y = factor · x - mean(x)."""
    return x * factor - tw.mean(x, "d")


@pytest.mark.parametrize("with_out", [False, True])
def test_a_warm_call_is_one_launch_and_the_word_that_it_is_done(fake, with_out):
    x = tw.tensor(X, device="cuda")
    out = tw.empty(3, 4, device="cuda") if with_out else None
    call = tw.kernels.softmax
    for _ in range(3):
        y = call(x, out=out) if with_out else call(x)
        before = len(fake.calls)
    y = call(x, out=out) if with_out else call(x)
    assert fake.calls[before:] == ["cuLaunchKernel", "cuStreamWriteValue32"]
    np.testing.assert_allclose(y.cpu().numpy(), tw.kernels.softmax(X), rtol=1e-6)


def test_a_warm_call_works_nothing_out_again(fake, monkeypatch):
    x = tw.tensor(X, device="cuda")
    tw.kernels.softmax(x)
    for name in ("whole_elements", "Queue"):
        monkeypatch.delattr(on_device, name)
    monkeypatch.delattr(LoadedKernel, "head")
    assert tw.kernels.softmax(x).shape == (3, 4)


def test_each_call_has_its_own_scalars_and_addresses(fake):
    x, y = tw.tensor(X, device="cuda"), tw.tensor(X[::-1].copy(), device="cuda")
    results = [(scaled(t, factor=f), a, f) for f in (2.0, -0.5, 3.25) for t, a in ((x, X), (y, X[::-1]))]
    for result, array, factor in results:
        np.testing.assert_allclose(result.cpu().numpy(), scaled.reference(array, factor=factor), rtol=1e-6)


def test_operands_that_lie_otherwise_get_kernels_of_their_own(fake):
    x = tw.tensor(np.arange(40, dtype=np.float32), device="cuda")
    compiled = len(fake.images)
    for start in (0, 1, 4, 5):  # multiples of 16 bytes, and not
        np.testing.assert_array_equal(
            (x[start : start + 8] * 2).cpu().numpy(), 2.0 * np.arange(start, start + 8)
        )
    assert len(fake.images) == compiled + 2


def test_another_thread_has_no_context_and_gets_one(fake):
    x = tw.tensor(X, device="cuda")
    tw.kernels.softmax(x)
    found = []
    thread = threading.Thread(target=lambda: found.append(tw.kernels.softmax(x)))
    thread.start()
    thread.join()
    np.testing.assert_allclose(found[0].cpu().numpy(), tw.kernels.softmax(X), rtol=1e-6)


def test_devices_take_turns(fake):
    there = [tw.tensor(X + n, device=f"cuda:{n}") for n in range(2)]
    for _ in range(2):
        results = [tw.kernels.softmax(x * 0.5) for x in there]
    for n, result in enumerate(results):
        assert result.device == f"cuda:{n}"
        expected = tw.kernels.softmax((X + n) * 0.5)
        np.testing.assert_allclose(result.cpu().numpy(), expected, rtol=1e-6)


def test_threads_do_not_share_arguments(fake):
    """Each thread packs into a row of its own: all launches are queued at once, and each has its operand."""
    operands = [tw.tensor(X + n, device="cuda") for n in range(4)]
    scaled(operands[0], factor=1.0)
    results: dict[int, list[tw.Tensor]] = {}
    barrier = threading.Barrier(len(operands))

    def work(n: int) -> None:
        barrier.wait()
        results[n] = [scaled(operands[n], factor=float(f)) for f in range(5)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(operands))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, found in results.items():
        for f, result in enumerate(found):
            expected = scaled.reference(X + n, factor=float(f))
            np.testing.assert_allclose(result.cpu().numpy(), expected, rtol=1e-6)


def test_scratch_memory_is_passed_and_kept_in_the_order_of_the_stream(fake, monkeypatch):
    compiled = fake.compiled
    monkeypatch.setattr(
        on_device, "compile_step", lambda *given: replace(compiled(*given), global_scratch_bytes=64)
    )
    x = tw.tensor(X, device="cuda")
    tw.kernels.softmax(x)
    live = tw.cuda.memory_stats().live_bytes
    y = tw.kernels.softmax(x)
    launch = fake.launches[-1]
    scratch, profile = launch.slots[-2:]
    fake.find(scratch, 64 * launch.grid[0])
    assert profile == 0
    assert tw.cuda.memory_stats().live_bytes == live + 512, "the result's alone"
    del y


def test_results_of_a_call_are_where_they_are_wanted(fake):
    x = tw.tensor(X, device="cuda")
    whole = tw.zeros(3, 8, device="cuda")
    for part in (whole[:, :4], whole[:, 4:], x):
        tw.kernels.silu(x, out=part)
    expected = tw.kernels.silu(X)
    np.testing.assert_allclose(whole.cpu().numpy(), np.concatenate([expected, expected], 1), rtol=1e-6)
    np.testing.assert_allclose(x.cpu().numpy(), expected, rtol=1e-6)


def test_torch_is_asked_for_its_stream_without_an_object(fake, monkeypatch):
    """The quick way, where torch has it."""
    torch = types.SimpleNamespace(
        cuda=types.SimpleNamespace(is_initialized=lambda: True),
        _C=types.SimpleNamespace(_cuda_getCurrentRawStream=lambda ordinal: 4000 + ordinal),
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert tw.cuda.current_stream("cuda:1").handle == 4001
