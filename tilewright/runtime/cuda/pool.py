"""Memory of a device, from a pool in the order of its streams.

Memory that is freed goes to a list of the stream that used it last, and the next array of that size and
stream gets it: what still runs on the old contents is before whatever will write the new ones, so nobody
waits. Beneath is the driver's own pool, or plain allocation where a device has none.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import operator
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tilewright.errors import ArgumentError, MemoryLimitError
from tilewright.runtime import capturing
from tilewright.runtime.cuda.driver import check, import_bindings
from tilewright.runtime.memory import size_class
from tilewright.runtime.sizes import bytes_from_environment, format_bytes

LIMIT_VARIABLE = "TILEWRIGHT_CUDA_MEMORY_LIMIT"
SMALLEST = 512  # bytes: what the driver aligns to
PAGE = 2 * 2**20  # bytes: of this size large blocks are whole numbers
NO_LIMIT = 0


@dataclass(frozen=True)
class CudaMemoryStatistics:
    """Bytes and events of a device's pool in this process."""

    live_bytes: int
    """In arrays that something still holds."""
    peak_live_bytes: int
    cached_bytes: int
    """Kept for the next array."""
    limit: int
    """Of both together; 0 is the device's memory."""
    reused: int
    allocated: int
    """How often memory came from the pool, and from the driver."""
    out_of_memory: int
    """How often the driver had none, or the limit was reached, and everything kept was given back."""


class Pool:
    """The memory that a device gives to arrays."""

    def __init__(self, card: Any):
        self._card = card
        self._handle = self._drivers_pool() if card.attribute("MEMORY_POOLS_SUPPORTED") else None
        self._limit = bytes_from_environment(LIMIT_VARIABLE, NO_LIMIT)
        self._free: dict[tuple[int, int], list[int]] = {}  # by stream and size
        self._returned: deque[tuple[int, int, int]] = deque()  # still counted as live
        self._live = self._peak = self._cached = 0
        self._reused = self._allocated = self._failed = 0
        self._lock = threading.Lock()

    def _drivers_pool(self) -> Any:
        """The driver's pool, told to keep what it is given back."""
        driver = import_bindings()
        pool = check(driver.cuDeviceGetDefaultMemPool(self._card.handle), "opening the memory pool")
        threshold = driver.CUmemPool_attribute.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
        everything = driver.cuuint64_t(2**64 - 1)
        check(driver.cuMemPoolSetAttribute(pool, threshold, everything), "setting up the memory pool")
        return pool

    # --- giving and taking ----------------------------------------------------------------------------------

    def allocate(self, size: int, stream: int) -> int:
        """The address of `size` bytes, to be used in the order of a stream. Raises `MemoryLimitError`."""
        wanted = block_size(size)
        with self._lock:
            if self._returned:
                # What came back last is often what is wanted next: it stays counted as live.
                last = self._returned.pop()
                if last[1] == wanted and last[2] == stream:
                    self._reused += 1
                    return last[0]
                self._returned.append(last)
                self._sort_in()
            blocks = self._free.get((stream, wanted))
            if blocks:
                self._cached -= wanted
                self._reused += 1
                return self._count(blocks.pop(), wanted)
            address = self._fresh(wanted, stream)
        if address is None:
            gc.collect()  # what only a cycle of references holds comes back
            with self._lock:
                address = self._fresh(wanted, stream, last=True)
        if address is None:
            raise MemoryLimitError(self._explain(size))
        return address

    def give_back(self, address: int, size: int, stream: int) -> None:
        """Take memory back whose last use is on a stream; never waits, for it may be called at any moment."""
        self._returned.append((address, block_size(size), stream))

    def _count(self, address: int, size: int) -> int:
        self._live += size
        self._peak = max(self._peak, self._live)
        return address

    def _fresh(self, size: int, stream: int, last: bool = False) -> int | None:
        """Memory from the driver; None where there is none, or the limit is reached."""
        self._sort_in()
        if last or (self._limit and self._live + self._cached + size > self._limit):
            self._release()
        if not self._limit or self._live + size <= self._limit:
            with contextlib.suppress(MemoryLimitError):
                address = self._from_driver(size, stream)
                self._allocated += 1
                return self._count(address, size)
        self._failed += not last
        return None

    def _from_driver(self, size: int, stream: int) -> int:
        self._card.activate()
        driver = import_bindings()
        doing = f"allocating {format_bytes(size)} on {self._card}"
        if self._handle is None:
            return int(check(driver.cuMemAlloc(size), doing))
        return int(check(driver.cuMemAllocAsync(size, stream), doing))

    def _sort_in(self) -> None:
        """Sort in what came back."""
        while self._returned:
            address, size, stream = self._returned.popleft()
            self._live -= size
            self._cached += size
            self._free.setdefault((stream, size), []).append(address)

    def _release(self) -> None:
        """Give all that is kept to the driver, and have it give that to the system."""
        function = capturing.running()
        if function is not None and function.is_recorded:
            return  # the driver waits for nothing while a stream is recorded
        self._card.activate()
        driver = import_bindings()
        for (stream, size), blocks in self._free.items():
            while blocks:
                address = blocks.pop()
                self._cached -= size
                if self._handle is None:
                    check(driver.cuMemFree(address), "freeing memory")
                else:
                    check(driver.cuMemFreeAsync(address, stream), "freeing memory")
        self._free.clear()
        if self._handle is not None:
            check(driver.cuCtxSynchronize(), f"waiting for {self._card}")
            check(driver.cuMemPoolTrimTo(self._handle, 0), "trimming the memory pool")

    # --- as users ask for it --------------------------------------------------------------------------------

    def empty_cache(self) -> None:
        """Give back to the system what no array uses."""
        with self._lock:
            self._sort_in()
            self._release()

    def set_limit(self, limit: int | None) -> None:
        """Bytes that arrays and the pool may have together; None or 0: all that the device has."""
        self._limit = NO_LIMIT if limit is None else checked_limit(limit)
        with self._lock:
            self._sort_in()
            if self._limit and self._live + self._cached > self._limit:
                self._release()

    def statistics(self) -> CudaMemoryStatistics:
        with self._lock:
            self._sort_in()
            return CudaMemoryStatistics(
                live_bytes=self._live,
                peak_live_bytes=self._peak,
                cached_bytes=self._cached,
                limit=self._limit,
                reused=self._reused,
                allocated=self._allocated,
                out_of_memory=self._failed,
            )

    def reset_peak(self) -> None:
        """Count the peak from here on."""
        with self._lock:
            self._sort_in()
            self._peak = self._live

    def _explain(self, size: int) -> str:
        """The message for an array that there is no memory for."""
        live = self.statistics().live_bytes
        told = f"cannot allocate {format_bytes(size)} on {self._card}: arrays of this process hold "
        told += f"{format_bytes(live)} there, and what the pool kept was given up in vain"
        if self._limit and live + block_size(size) > self._limit:
            told += f"; tw.cuda.set_memory_limit or {LIMIT_VARIABLE} allows {format_bytes(self._limit)}"
        else:
            free, total = self._card.memory_info()
            told += f"; {format_bytes(free)} of the device's {format_bytes(total)} are free, the rest is in "
            told += "use here or by other processes"
        return (
            f"{told}. Delete Tensors that are no longer needed (a view keeps its whole Tensor, and a result "
            "that requires a gradient keeps what its gradient needs), use smaller batches, or a smaller dtype"
        )


@functools.lru_cache(maxsize=4096)
def block_size(size: int) -> int:
    """The bytes of the block for `size` bytes: an eighth more at most, or whole pages.

    >>> block_size(1), block_size(1000), block_size(3 * 2**20)
    (512, 1024, 4194304)
    """
    if size > PAGE:
        return -(-size // PAGE) * PAGE
    return size_class(max(size, SMALLEST))


def checked_limit(limit: int) -> int:
    """A number of bytes. Raises `ArgumentError`."""
    try:
        whole = operator.index(limit)
    except TypeError:
        whole = -1
    if whole < 0:
        raise ArgumentError(
            f"set_memory_limit({limit!r}): pass a number of bytes, or None for all that the device has"
        )
    return whole


@contextlib.contextmanager
def scratch(stream: Any, size: int) -> Iterator[int]:
    """Memory for launches on a stream, given back in its order; address 0 where nothing is needed."""
    if not size:
        yield 0
        return
    pool = stream.pool
    address = pool.allocate(size, stream.handle)
    try:
        yield address
    finally:
        pool.give_back(address, size, stream.handle)
