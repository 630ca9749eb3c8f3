"""Page-locked host memory: what a device copies from and to by itself, while Python goes on.

Arrays are NumPy's; their memory comes from blocks that are kept, as the driver takes long to lock pages. A
block is used again when the streams that copied from or to it last have done so.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright.runtime.cuda import cards
from tilewright.runtime.cuda.driver import bindings, check
from tilewright.runtime.memory import size_class
from tilewright.runtime.sizes import format_bytes

PORTABLE = 1
"""Locked for all devices."""
SMALLEST = 512


class _Block:
    """Locked pages, and the points after which nothing copies from or to them."""

    def __init__(self, size: int):
        cards.card(cards.current_device()).activate()
        made = bindings().cuMemHostAlloc(size, PORTABLE)
        self.address = int(check(made, f"locking {format_bytes(size)} of host memory"))
        self.size = size
        self.events: dict[Any, Any] = {}


class _Lease:
    """Owner of a block as long as arrays use it: NumPy keeps it alive as their base."""

    __slots__ = ()

    _block: _Block
    _process: int

    def __del__(self) -> None:
        if self._process == os.getpid():
            _free.setdefault(self._block.size, []).append(self._block)


_free: dict[int, list[_Block]] = {}
_lock = threading.Lock()


@functools.lru_cache(maxsize=256)
def _lease_type(size: int) -> Any:
    """Leases of so many bytes, which are a buffer as NumPy takes them."""
    return type("_Lease", (_Lease, ctypes.c_char * size), {"__slots__": ("_block", "_process")})


def empty(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """A NumPy array in page-locked memory, with undefined contents."""
    kind = np.dtype(dtype)
    size = size_class(max(SMALLEST, math.prod(shape) * kind.itemsize))
    with _lock:
        blocks = _free.get(size)
        block = blocks.pop() if blocks else None
    if block is None:
        block = _Block(size)
    for event in block.events.values():
        event.synchronize()
    block.events.clear()
    lease = _lease_type(size).from_address(block.address)
    lease._block, lease._process = block, os.getpid()
    return np.ndarray(tuple(shape), kind, lease)


def used(array: np.ndarray, stream: Any) -> bool:
    """Note that a stream copies from or to an array; whether its memory is page-locked."""
    lease = _lease_of(array)
    if lease is None:
        return False
    lease._block.events[stream.handle] = stream.record()
    return True


def is_pinned(array: np.ndarray) -> bool:
    """Whether an array's memory is page-locked, by this library."""
    return _lease_of(array) is not None


def _lease_of(array: Any) -> Any:
    while isinstance(array, np.ndarray):
        array = array.base
    return array if isinstance(array, _Lease) else None


def forget() -> None:
    """For tests: as if nothing had been locked."""
    _free.clear()
