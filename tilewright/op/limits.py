"""The machine's own limits, measured: multiply-adds a second in registers, and bytes a second through memory.

    peak    fused multiply-adds on independent registers, in a generated kernel: 2 operations an element
    copy    an array that no cache holds to another: bytes read and bytes written both count

Both are probes to be run beside whatever is timed, again and again: shared machines change their speed.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np

from tilewright.errors import TargetError
from tilewright.runtime import threads

ACCUMULATORS = 12
PEAK_ITERATIONS = 1_000_000
COPY_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Limits:
    """operations: float32 operations a second; None without a CPU target. bandwidth: bytes a second."""

    operations: float | None
    bandwidth: float

    def seconds(self, operations: float, moved: float) -> float:
        """The least time for so many operations and bytes."""
        compute = operations / self.operations if self.operations else 0.0
        return max(compute, moved / self.bandwidth)


@cache
def _peak_kernel() -> tuple[Callable[[int, int], None], int, object]:
    """The kernel (address of 64 bytes, iterations) ↦ None, its operations an iteration, its code's owner."""
    from tilewright.compiler.targets.cpu import loading, toolchain
    from tilewright.compiler.targets.cpu.builder import F32, I64, PTR, Builder

    target = toolchain.host()
    lanes = target.lanes("f32")
    b = Builder(target)
    with b.function("tw_peak", args=[("out", PTR), ("count", I64)]) as (out, count):
        start = [b.constant(0.5 + n / 64, F32.vector(lanes)) for n in range(ACCUMULATORS)]
        with b.loop(0, count, 1, start) as loop:
            loop.yield_(*(b.fma(value, 0.999, 0.001) for value in loop.carried))
        total = loop.results[0]
        for value in loop.results[1:]:
            total = b.add(total, value)
        b.store(total, out)
    loaded = loading.load(toolchain.compile_object(b.module(), target))
    entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(loaded.address("tw_peak"))
    return entry, 2 * lanes * ACCUMULATORS, loaded


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="tilewright-probe")


def _together(work: Callable[[int], None], workers: int) -> float:
    """Seconds until every worker has done its part."""
    if workers == 1:
        began = time.perf_counter()
        work(0)
        return time.perf_counter() - began
    pool = _pool(workers)
    began = time.perf_counter()
    list(pool.map(work, range(workers)))
    return time.perf_counter() - began


def peak(workers: int) -> float | None:
    """Float32 operations a second of fused multiply-adds; None where there is no CPU target."""
    try:
        entry, operations, _ = _peak_kernel()
    except TargetError:
        return None
    results = np.zeros((workers, 64), np.float32)

    def work(worker: int) -> None:
        entry(results[worker].ctypes.data, PEAK_ITERATIONS)

    seconds = _together(work, workers)
    return workers * PEAK_ITERATIONS * operations / seconds


@cache
def _copy_arrays() -> tuple[np.ndarray, np.ndarray]:
    source = np.arange(COPY_BYTES // 4, dtype=np.float32)
    return source, np.zeros_like(source)


def copy(workers: int) -> float:
    """Bytes a second, read and written, of a copy that exceeds the caches."""
    source, target = _copy_arrays()
    bounds = np.linspace(0, source.size, workers + 1).astype(int)

    def work(worker: int) -> None:
        part = slice(bounds[worker], bounds[worker + 1])
        np.copyto(target[part], source[part])

    return 2 * COPY_BYTES / _together(work, workers)


def measure(workers: int | None = None, rounds: int = 5) -> Limits:
    """The best of a few rounds of both probes."""
    workers = workers or threads.get_num_threads()
    peaks = [peak(workers) for _ in range(rounds)]
    return Limits(max((p for p in peaks if p), default=None), max(copy(workers) for _ in range(rounds)))
