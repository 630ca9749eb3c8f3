"""Memory for the results of CPU kernels: small ones from NumPy, big ones from a pool.

A fresh buffer of 64 MB costs ten times the op that fills it, in page faults. So a big buffer comes back to the pool
when the last array that looks into it dies, views included, and the next result of that size gets it again, pages and
all. Buffers of the pool start at a page, hence at a cache line; NumPy's small ones may not.

    array ──base──▶ bytes of the block ──base──▶ _Lease ──dies──▶ pool
"""

from __future__ import annotations

import contextlib
import math
import mmap
import operator
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilewright.errors import ArgumentError, MemoryLimitError, ShapeError
from tilewright.runtime.sizes import bytes_from_environment, format_bytes

LIMIT_VARIABLE = "TILEWRIGHT_MEMORY_POOL_LIMIT"
ALIGNMENT = 64
POOLED_FROM = 128 * 2**10  # bytes; below, malloc reuses its memory itself
HUGE_PAGES_FROM = 4 * 2**20
CLASSES_PER_DOUBLING = 8  # at most 1/8 of a block is unused (and unused pages are never touched)
SHARE_OF_MACHINE = 8  # the default limit is this part of the machine's memory


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
    """An array with undefined contents. From `POOLED_FROM` bytes on it starts at a multiple of `ALIGNMENT`."""
    kind = np.dtype(dtype)
    extents = (shape,) if isinstance(shape, int) else tuple(shape)
    size = math.prod(extents) * kind.itemsize
    if size >= POOLED_FROM and not kind.hasobject and min(extents) > 0:
        return np.ndarray(extents, kind, _POOL.bytes(size))
    return _small(extents, kind, size)


def statistics() -> MemoryStatistics:
    """What the pool holds and has done in this process."""
    return _POOL.statistics()


def empty_cache() -> None:
    """Give the memory that no array uses back to the system."""
    _POOL.trim(0)


def set_limit(limit: int | None) -> None:
    """Bytes that the pool may keep for later; what arrays use is not limited. None: the default; 0: keep nothing."""
    _POOL.set_limit(_default_limit() if limit is None else limit)


@contextlib.contextmanager
def failing_allocation(number: int, attempts: int = 2) -> Iterator[None]:
    """For tests: the `number`-th allocation from here on (the first is 1), and as many after it, fails.

    The pool tries twice, freeing what it keeps in between; ``attempts=1`` fails only the first try. A result that the
    pool has a buffer for does not allocate.
    """
    global _fault
    before = _fault
    _fault = _Fault(range(number, number + attempts))
    try:
        yield
    finally:
        _fault = before


@dataclass
class _Fault:
    failing: range
    count: int = 0

    def strike(self) -> None:
        self.count += 1
        if self.count in self.failing:
            raise MemoryError("an injected failure")


_fault: _Fault | None = None


def _small(extents: tuple[int, ...], kind: np.dtype, size: int) -> np.ndarray:
    """NumPy's own memory; also where shapes end up that have no meaning, for NumPy to say so."""
    try:
        if _fault is not None:
            _fault.strike()
        return np.empty(extents, kind)
    except ValueError as error:
        raise ShapeError(f"an array of shape {extents} cannot be made: {error}") from None
    except MemoryError:
        _POOL.trim(0)
    try:
        if _fault is not None:
            _fault.strike()
        return np.empty(extents, kind)
    except MemoryError:
        raise _POOL.out_of_memory(size) from None


class _Block:
    """Pages of their own, so that dropping the object gives them back to the system at once."""

    __slots__ = ("_memory", "address", "size", "stamp")

    def __init__(self, size: int):
        self._memory = _mapped(size)
        self.address = np.frombuffer(self._memory, np.uint8).__array_interface__["data"][0]
        self.size = size
        self.stamp = 0


class _Lease:
    """Owner of a block as long as arrays use it: NumPy keeps it alive as their base."""

    __slots__ = ("__array_interface__", "_block", "_pool")

    def __init__(self, pool: _Pool, block: _Block, size: int):
        self._pool = pool
        self._block = block
        self.__array_interface__ = {
            "version": 3,
            "shape": (size,),
            "typestr": "|u1",
            "data": (block.address, False),
        }

    def __del__(self) -> None:
        self._pool.give_back(self._block)


class _Pool:
    """Blocks that no array uses, by size class; the one used last is taken first, the one used first dropped first."""

    def __init__(self, limit: int):
        self._limit = limit
        self._free: dict[int, list[_Block]] = {}
        self._live = self._peak = self._cached = self._reused = self._allocated = self._clock = 0
        self._returned: deque[_Block] = deque()
        self.reset_lock()

    def reset_lock(self) -> None:
        self._lock = threading.Lock()

    def bytes(self, size: int) -> np.ndarray:
        """`size` bytes as an array whose death, and that of all its views, gives them back."""
        block = self._take(size_class(size), size)
        return np.asarray(_Lease(self, block, size))

    def _take(self, wanted: int, size: int) -> _Block:
        with self._held():
            block = self._pop(wanted)
            if block is not None:
                self._reused += 1
        if block is None:
            block = self._allocate(wanted, size)
        with self._held():
            self._live += wanted
            self._peak = max(self._peak, self._live)
        return block

    def _pop(self, wanted: int) -> _Block | None:
        blocks = self._free.get(wanted)
        if not blocks:
            return None
        self._cached -= wanted
        return blocks.pop()

    def _allocate(self, wanted: int, size: int) -> _Block:
        try:
            block = _Block(wanted)
        except MemoryError:
            self.trim(0)
            block = self._allocate_exactly(wanted, size)
        with self._held():
            self._allocated += 1
        return block

    def _allocate_exactly(self, wanted: int, size: int) -> _Block:
        try:
            return _Block(wanted)
        except MemoryError:
            raise self.out_of_memory(size) from None

    def give_back(self, block: _Block) -> None:
        """Called when a lease dies: at any point of the program, even inside of the pool, so it never waits."""
        self._returned.append(block)
        while self._returned and self._lock.acquire(blocking=False):
            try:
                dropped = self._settle()
            finally:
                self._lock.release()
            del dropped

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        with self._lock:
            dropped = self._settle()
            yield
        del dropped
        if self._returned:  # came back while the lock was held
            with self._lock:
                dropped = self._settle()

    def _settle(self) -> list[_Block]:
        """Sort the returned blocks in, and take out what is over the limit (to be freed without the lock)."""
        while self._returned:
            block = self._returned.popleft()
            self._clock += 1
            block.stamp = self._clock
            self._live -= block.size
            self._cached += block.size
            self._free.setdefault(block.size, []).append(block)
        return self._over(self._limit)

    def _over(self, limit: int) -> list[_Block]:
        dropped = []
        while self._cached > limit:
            oldest = min(
                (blocks for blocks in self._free.values() if blocks), key=lambda blocks: blocks[0].stamp
            )
            dropped.append(oldest.pop(0))
            self._cached -= dropped[-1].size
        return dropped

    def trim(self, limit: int) -> None:
        """Give back to the system what is kept over `limit` bytes."""
        with self._held():
            dropped = self._over(limit)
        del dropped

    def set_limit(self, limit: int) -> None:
        self._limit = _checked_limit(limit)
        self.trim(self._limit)

    def statistics(self) -> MemoryStatistics:
        with self._held():
            return MemoryStatistics(
                self._live, self._peak, self._cached, self._limit, self._reused, self._allocated
            )

    def out_of_memory(self, size: int) -> MemoryLimitError:
        """The error for a result of `size` bytes, with what the pool knows."""
        live = self.statistics().live_bytes
        return MemoryLimitError(
            f"cannot allocate {size} bytes ({format_bytes(size)}) for a result: big results that are still in use hold "
            f"{live} bytes ({format_bytes(live)}), and nothing is left in the pool. Delete arrays that are no longer "
            "needed (a view keeps the whole array), or compute in smaller batches or a smaller dtype."
        )


def size_class(size: int) -> int:
    """The size of the block for `size` bytes: `CLASSES_PER_DOUBLING` sizes for each power of two.

    128 KiB → 128 KiB      130 KiB → 144 KiB      1.9 MiB → 2 MiB
    """
    step = (1 << (size - 1).bit_length() - 1) // CLASSES_PER_DOUBLING
    return -(-size // step) * step


def _mapped(size: int) -> mmap.mmap:
    """Fresh zeroed pages; raises MemoryError."""
    if _fault is not None:
        _fault.strike()
    try:
        if not hasattr(mmap, "MAP_PRIVATE"):
            return mmap.mmap(-1, size)
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError, ValueError) as error:
        raise MemoryError(str(error)) from None
    if size >= HUGE_PAGES_FROM and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # advice only: some kernels have none
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _checked_limit(limit: int) -> int:
    try:
        whole = operator.index(limit)
    except TypeError:
        whole = -1
    if whole < 0:
        raise ArgumentError(
            f"set_limit({limit!r}): pass a number of bytes, 0 to keep nothing, or None for the default"
        )
    return whole


def _default_limit() -> int:
    return bytes_from_environment(LIMIT_VARIABLE, _machine_memory() // SHARE_OF_MACHINE)


def _machine_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 * 2**30


_POOL = _Pool(_default_limit())

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_POOL.reset_lock)
