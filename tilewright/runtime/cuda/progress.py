"""How far a device's streams have come, told by the streams themselves.

Behind an op's kernels the stream writes the op's number to a word of page-locked host memory. That memory
stays readable when a kernel fails and takes the device's context with it, and then says which op was last.
Where the driver cannot do that, the message of a failure names the ops launched last instead.
"""

from __future__ import annotations

import ctypes
from typing import Any

from tilewright.runtime.cuda import launches
from tilewright.runtime.cuda.driver import import_bindings

STREAMS = 64
"""Of a device, that are followed at a time."""
_WORD_BYTES = 4
_WORD = 2**32


class Progress:
    """The words that a device's streams write to."""

    def __init__(self, card: Any):
        self._card = card
        self._words = self._allocate()
        self._write = getattr(import_bindings(), "cuStreamWriteValue32", None)
        self._places: dict[int, int] = {}

    def _allocate(self) -> int:
        """The address of the words; 0 where the driver has none."""
        try:
            code, address = import_bindings().cuMemHostAlloc(STREAMS * _WORD_BYTES, 0)
        except Exception:
            return 0
        return 0 if code else int(address)

    def finish(self, number: int, stream: int) -> None:
        """Have the stream say, when it comes here, that the op of that number is done."""
        place = self._places.get(stream) or self._follow(stream)
        if not place:
            return
        try:
            code = self._write(stream, place, number % _WORD, 0)[0]  # type: ignore[misc]
        except Exception:  # the bindings, or the driver, lack the function
            code = -1
        if code:  # this driver has no such operations: go without
            self._words = 0
            self._places.clear()
            launches.unwatch(self._card.ordinal)

    def _follow(self, stream: int) -> int:
        """Where a stream that comes new writes to; 0 where there is no room for it."""
        if not self._words or len(self._places) == STREAMS:
            return 0
        place = self._places[stream] = self._words + _WORD_BYTES * len(self._places)
        word = ctypes.c_uint32.from_address(place)
        word.value = 0
        launches.watch(self._card.ordinal, stream, lambda: word.value)
        return place
