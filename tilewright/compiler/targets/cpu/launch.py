"""Entering a kernel: one C call, or Python threads where the OpenMP runtime cannot be used.

A process that was forked after its parent had started OpenMP threads must not enter a parallel region:
the runtime believes in threads that do not exist there, and waits for them for ever.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tilewright.compiler.targets.cpu import loading
from tilewright.compiler.targets.cpu.frame import ITEMS, THREADS

Entry = Callable[[int], None]
Range = Callable[[int, int, int, int], None]


class _State:
    """Of this process: whether OpenMP threads were started, whether by a parent, and the pool that replaces
    them.
    """

    started = False
    orphaned = False
    pool: ThreadPoolExecutor | None = None
    workers = 0


def has_openmp() -> bool:
    """Whether kernels may enter parallel regions here, on threads of their own."""
    if _State.orphaned or loading.openmp() is None:
        return False
    _State.started = True
    return True


def enter(entry: Entry, part: Range, words: array) -> None:
    """Run a kernel on a filled frame, on as many threads as the frame says."""
    address = words.buffer_info()[0]
    workers = words[THREADS]
    if workers == 1 or has_openmp():
        entry(address)
    else:
        _in_python_threads(part, address, words[ITEMS], workers)


def _in_python_threads(part: Range, address: int, items: int, workers: int) -> None:
    pool = _pool(workers)
    ranges = [(items * w // workers, items * (w + 1) // workers, w) for w in range(workers)]
    for future in [pool.submit(part, address, low, high, thread) for low, high, thread in ranges]:
        future.result()


def _pool(workers: int) -> ThreadPoolExecutor:
    if _State.pool is None or _State.workers < workers:
        _State.pool = ThreadPoolExecutor(workers, thread_name_prefix="tilewright")
        _State.workers = workers
    return _State.pool


def _after_fork_in_child() -> None:
    _State.orphaned = _State.orphaned or _State.started
    _State.pool = None
    _State.workers = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
