"""Memory for the results of CPU kernels: small ones from NumPy, big ones from a pool.

A fresh buffer of 64 MB costs ten times the op that fills it, in page faults. So a big buffer comes back
to the pool when the last array that looks into it dies, views included, and the next result of that size
gets it again, pages and all. Buffers of the pool start at a page, hence at a cache line; NumPy's small
ones may not.

    array ──base──▶ _Lease, a buffer of the block's bytes ──dies──▶ pool
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import mmap
import operator
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.errors import ArgumentError, MemoryLimitError, ShapeError
from tilewright.runtime.sizes import bytes_from_environment, format_bytes

LIMIT_VARIABLE = "TILEWRIGHT_MEMORY_POOL_LIMIT"
ALIGNMENT = 64
POOLED_FROM = 128 * 2**10  # bytes; below, malloc reuses its memory itself
SCRATCH = 2**20  # bytes that a thread keeps for its kernels to work in
BYTE = np.dtype(np.uint8)
HUGE_PAGES_FROM = 4 * 2**20
CLASSES_PER_DOUBLING = 8  # at most 1/8 of a block is unused (and unused pages are never touched)
SHARE_OF_MACHINE = 8  # the default limit is this part of the machine's memory
QUEUED = 8  # blocks that may wait to be sorted in


@dataclass(frozen=True)
class MemoryStatistics:
    """Bytes and events of the pool; small results are not counted."""

    live_bytes: int
    peak_live_bytes: int
    cached_bytes: int
    limit: int
    reused: int
    allocated: int


def empty(shape: int | Sequence[int], dtype: npt.DTypeLike) -> np.ndarray:
    """An array with undefined contents, aligned to `ALIGNMENT` bytes from a size of `POOLED_FROM` on."""
    kind = dtype if isinstance(dtype, np.dtype) else np.dtype(dtype)
    extents = shape if type(shape) is tuple else _as_tuple(shape)
    for extent in extents:
        if type(extent) is not int:  # NumPy's integers overflow
            extents = tuple(map(operator.index, extents))
            break
    size = math.prod(extents) * kind.itemsize
    if _fault is not None:
        _fault.begin_call()
    try:
        if size < POOLED_FROM or kind.hasobject:
            return _from_numpy(extents, kind, size)
        return np.ndarray(extents, kind, _pool.bytes(size, size_class(size)))
    except ValueError as error:
        raise ShapeError(f"there is no array of shape {extents} and dtype {kind}: {error}") from None


def scratch(size: int) -> np.ndarray:
    """At least `size` bytes, aligned to `ALIGNMENT`, whose contents mean nothing from one call to the next.

    A thread runs one kernel at a time, so all of its kernels may have the same memory to work in: up to
    `SCRATCH` bytes, more are as `empty` gives them. Where another function stands in the place of `empty`,
    it is asked (arrays between pages without access must not share any).
    """
    if size > SCRATCH or empty is not _given_out:
        return empty((size,), BYTE)
    held = getattr(_of_thread, "scratch", None)
    if held is None or held.size < size:
        whole = _from_numpy((max(size, POOLED_FROM) + ALIGNMENT,), BYTE, size)
        first = -whole.__array_interface__["data"][0] % ALIGNMENT
        held = _of_thread.scratch = whole[first : first + max(size, POOLED_FROM)]
    return held


def maker(shape: tuple[int, ...], dtype: np.dtype) -> Callable[[], np.ndarray]:
    """A way to make such arrays again and again: `empty` with its decisions taken."""
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        return lambda: empty(shape, dtype)
    return _maker_of_small(shape, dtype) if size < POOLED_FROM else _maker_of_big(shape, dtype, size)


def _maker_of_small(shape: tuple[int, ...], dtype: np.dtype) -> Callable[[], np.ndarray]:
    numpy_empty = np.empty

    def small() -> np.ndarray:
        if _fault is None and empty is _given_out:
            try:
                return numpy_empty(shape, dtype)
            except MemoryError:
                pass
        return empty(shape, dtype)

    return small


def _maker_of_big(shape: tuple[int, ...], dtype: np.dtype, size: int) -> Callable[[], np.ndarray]:
    array, wanted = np.ndarray, size_class(size)

    def big() -> np.ndarray:
        if _fault is None and empty is _given_out:
            return array(shape, dtype, _pool.bytes(size, wanted))
        return empty(shape, dtype)

    return big


_given_out = empty
_of_thread = threading.local()


def copy(array: np.ndarray, dtype: npt.DTypeLike = None) -> np.ndarray:
    """A C-contiguous copy in memory as `empty` gives it, converted if `dtype` is given."""
    result = empty(array.shape, array.dtype if dtype is None else dtype)
    np.copyto(result, array, casting="unsafe")
    return result


def filled(shape: int | Sequence[int], value: Any, dtype: npt.DTypeLike) -> np.ndarray:
    """An array of one value, in memory as `empty` gives it."""
    result = empty(shape, dtype)
    result[...] = value
    return result


def _as_tuple(shape: int | Sequence[int]) -> tuple[int, ...]:
    return (shape,) if hasattr(shape, "__index__") else tuple(shape)  # type: ignore[arg-type, return-value]


def statistics() -> MemoryStatistics:
    """What the pool holds and has done in this process."""
    return _pool.statistics()


def empty_cache() -> None:
    """Give the memory that no array uses back to the system."""
    _pool.trim(0)


def set_limit(limit: int | None) -> None:
    """Bytes that the pool may keep for later (arrays in use are not limited).

    None: ``TILEWRIGHT_MEMORY_POOL_LIMIT`` or an eighth of the machine's memory. 0 keeps nothing.
    """
    _pool.set_limit(_default_limit() if limit is None else limit)


@contextlib.contextmanager
def failing_allocation(number: int, attempts: int = 2) -> Iterator[None]:
    """For tests: in the `number`-th call of `empty` from here on (the first is 1) there is no memory.

    `empty` tries twice, freeing what the pool keeps in between: ``attempts=1`` fails the first try only.
    """
    global _fault
    before = _fault
    _fault = _Fault(number, attempts)
    try:
        yield
    finally:
        _fault = before


class _Fault:
    """Says when an allocation is to fail."""

    def __init__(self, number: int, attempts: int):
        self._number = number
        self._attempts = attempts
        self._calls = 0
        self._failures_left = 0

    def begin_call(self) -> None:
        self._calls += 1
        self._failures_left = 0
        if self._calls == self._number:
            _pool.trim(0)  # so that it has to allocate
            self._failures_left = self._attempts

    def strike(self) -> None:
        if self._failures_left > 0:
            self._failures_left -= 1
            raise MemoryError("an injected failure")


_fault: _Fault | None = None


def _from_numpy(extents: tuple[int, ...], kind: np.dtype, size: int) -> np.ndarray:
    """NumPy's own memory: for small results, and for Python objects, which must not start as old bytes."""
    try:
        if _fault is None:
            return np.empty(extents, kind)
        return _numpy_empty(extents, kind)
    except MemoryError:
        _pool.trim(0)
    try:
        return _numpy_empty(extents, kind)
    except MemoryError:
        raise _pool.out_of_memory(size) from None


def _numpy_empty(extents: tuple[int, ...], kind: np.dtype) -> np.ndarray:
    if _fault is not None:
        _fault.strike()
    return np.empty(extents, kind)


class _Block:
    """Pages of their own, so that dropping the object gives them back to the system at once."""

    __slots__ = ("_memory", "address", "lease", "size", "stamp")

    def __init__(self, size: int):
        self._memory = _fresh_pages(size)
        self.address = np.frombuffer(self._memory, np.uint8).__array_interface__["data"][0]
        self.lease = _lease_type(size).from_address
        self.size = size
        self.stamp = 0


class _Lease:
    """Owner of a block as long as arrays use it: NumPy keeps it alive as their base."""

    __slots__ = ()

    _block: _Block
    _give_back: Callable[[_Block], None]

    def __del__(self) -> None:
        self._give_back(self._block)


@functools.lru_cache(maxsize=1024)
def _lease_type(size: int) -> Any:
    """Leases of so many bytes, which are a buffer as NumPy takes them."""
    return type("_Lease", (_Lease, ctypes.c_char * size), {"__slots__": ("_block", "_give_back")})


class _Pool:
    """Blocks that no array uses, by size class: the one used last is taken, the one used first is dropped.

    Blocks come back at any moment, even while this thread holds the lock (the garbage collector runs where it
    likes). So coming back never waits: the block goes to a queue, and whoever has the lock next may take it
    from there. A few blocks, too small to exceed the limit together, wait for that; else the queue is sorted.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._free: dict[int, list[_Block]] = {}
        self._queue: deque[_Block] = deque()
        self._live = self._peak = self._cached = 0  # a block in the queue still counts as live
        self._reused = self._allocated = self._clock = 0
        self._lock = threading.Lock()

    def reset_lock(self) -> None:
        """In a forked child the thread that held the lock does not exist."""
        self._lock = threading.Lock()

    def bytes(self, size: int, wanted: int) -> Any:
        """A buffer of `size` bytes in a block of the class `wanted`: when it and all its views die, they go
        back.
        """
        block = self._queued(wanted) if self._queue else None
        if block is None:
            block = self._take(wanted, size)
        lease = block.lease(block.address)
        lease._give_back = self.give_back
        lease._block = block
        return lease

    def _queued(self, wanted: int) -> _Block | None:
        """The block of a size class that came back last, if it was not sorted in yet."""
        queue = self._queue
        with self._lock:
            for place in range(len(queue) - 1, -1, -1):
                block = queue[place]
                if block.size == wanted:
                    del queue[place]
                    self._reused += 1
                    return block
        return None

    def _take(self, wanted: int, size: int) -> _Block:
        with self._lock:
            dropped = self._sort_in()
            self._live += wanted
            self._peak = max(self._peak, self._live)
            blocks = self._free.get(wanted)
            if blocks:
                self._cached -= wanted
                self._reused += 1
                return blocks.pop()
            self._allocated += 1
        del dropped
        try:
            return self._allocate(wanted)
        except MemoryError:
            with self._lock:
                self._live -= wanted
                self._allocated -= 1
            raise self.out_of_memory(size) from None

    def _allocate(self, wanted: int) -> _Block:
        """A fresh block, for which everything that is kept is given up if it must be."""
        try:
            return _Block(wanted)
        except MemoryError:
            self.trim(0)
        return _Block(wanted)

    def give_back(self, block: _Block) -> None:
        """Take a block back; never waits."""
        self._queue.append(block)
        if len(self._queue) <= QUEUED and QUEUED * block.size <= self._limit - self._cached:
            return
        while self._queue and self._lock.acquire(blocking=False):
            try:
                dropped = self._sort_in()
            finally:
                self._lock.release()
            del dropped

    def _sort_in(self) -> list[_Block]:
        """Sort in what came back. Returns the blocks over the limit, to be freed without the lock."""
        while self._queue:
            block = self._queue.popleft()
            self._clock += 1
            block.stamp = self._clock
            self._live -= block.size
            self._cached += block.size
            self._free.setdefault(block.size, []).append(block)
        return self._drop_over(self._limit) if self._cached > self._limit else []

    def _drop_over(self, limit: int) -> list[_Block]:
        dropped = []
        while self._cached > limit:
            oldest = min(filter(None, self._free.values()), key=lambda blocks: blocks[0].stamp)
            dropped.append(oldest.pop(0))
            self._cached -= dropped[-1].size
        return dropped

    def trim(self, limit: int) -> None:
        """Give back to the system what is kept over `limit` bytes."""
        with self._lock:
            dropped = self._sort_in() + self._drop_over(limit)
        del dropped

    def set_limit(self, limit: int) -> None:
        self._limit = _checked_limit(limit)
        self.trim(self._limit)

    def statistics(self) -> MemoryStatistics:
        self.trim(self._limit)
        with self._lock:
            return MemoryStatistics(
                live_bytes=self._live,
                peak_live_bytes=self._peak,
                cached_bytes=self._cached,
                limit=self._limit,
                reused=self._reused,
                allocated=self._allocated,
            )

    def out_of_memory(self, size: int) -> MemoryLimitError:
        """The error for a result of `size` bytes, with what the pool knows."""
        live = self.statistics().live_bytes
        return MemoryLimitError(
            f"cannot allocate {size} bytes ({format_bytes(size)}) for a result: big results still in use "
            f"hold {live} bytes ({format_bytes(live)}), and what the pool kept was given up in vain. Delete "
            "arrays that are no longer needed (a view keeps its whole array), or use smaller batches or a "
            "smaller dtype."
        )


@functools.lru_cache(maxsize=4096)
def size_class(size: int) -> int:
    """The size of the block for `size` bytes: `CLASSES_PER_DOUBLING` sizes for each power of two.

    128 KiB → 128 KiB      130 KiB → 144 KiB      1.9 MiB → 2 MiB
    """
    step = (1 << (size - 1).bit_length() - 1) // CLASSES_PER_DOUBLING
    return -(-size // step) * step


def _fresh_pages(size: int) -> mmap.mmap:
    """Zeroed pages; raises MemoryError."""
    if _fault is not None:
        _fault.strike()
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    try:
        memory = mmap.mmap(-1, size, **private)
    except (OSError, OverflowError, ValueError) as error:
        raise MemoryError(str(error)) from None
    if size >= HUGE_PAGES_FROM and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # it is advice, and some systems take none
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _checked_limit(limit: int) -> int:
    remedy = "pass a number of bytes, 0 to keep nothing, or None for the default"
    try:
        whole = operator.index(limit)
    except TypeError:
        raise ArgumentError(f"set_limit({limit!r}): this is not a whole number; {remedy}") from None
    if whole < 0:
        raise ArgumentError(f"set_limit({whole}): memory cannot be less than nothing; {remedy}")
    return whole


def _default_limit() -> int:
    return bytes_from_environment(LIMIT_VARIABLE, _machine_memory() // SHARE_OF_MACHINE)


def _machine_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 * 2**30


_pool = _Pool(_default_limit())

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.reset_lock)
