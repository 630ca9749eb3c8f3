"""Graphs: what a thread queues on a stream of its own, recorded once and queued again as one piece.

What is recorded uses memory of a pool that the graph keeps. What it uses beside that (weights, operands) is
noted, kept alive, and waited for before each run, so a graph takes its turn on arrays like any op.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any

from tilewright.errors import CaptureError, TargetError
from tilewright.runtime.cuda import launches
from tilewright.runtime.cuda.driver import bindings, check
from tilewright.runtime.cuda.pool import block_size
from tilewright.runtime.cuda.streams import Stream, quietly, stream, stream_of


class GraphPool:
    """Memory of one graph: blocks of the device's pool that go back when neither graph nor array holds them.

    Allocated in the order of `origin`, a stream that is not recorded; used in the order of the graph's own.
    """

    def __init__(self, origin: Stream, own: Stream):
        self._origin = origin
        self._free: dict[int, list[int]] = {}
        self._blocks: list[tuple[int, int]] = []
        weakref.finalize(self, _returned, os.getpid(), self._blocks, origin, own)

    def allocate(self, size: int, stream: int) -> int:
        """The address of `size` bytes. Raises `MemoryLimitError`."""
        wanted = block_size(size)
        free = self._free.get(wanted)
        if free:
            return free.pop()
        address = self._origin.pool.allocate(wanted, self._origin.handle)
        self._blocks.append((address, wanted))
        return address

    def give_back(self, address: int, size: int, stream: int) -> None:
        self._free.setdefault(block_size(size), []).append(address)

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self._blocks)


def _returned(process: int, blocks: list[tuple[int, int]], origin: Stream, own: Stream) -> None:
    """The memory of a graph goes back, once `origin` has waited for the graph's last run."""
    quietly(process, origin.wait, own)
    for address, size in blocks:
        origin.pool.give_back(address, size, origin.handle)


class Recording:
    """What a stream that is being recorded has used of the memory that was there before."""

    def __init__(self) -> None:
        self.read: dict[int, Any] = {}
        self.written: dict[int, Any] = {}
        self.made: list[weakref.ref[Any]] = []
        """Memory of the graph's own that something may hold when the recording is over."""
        self.kernels: list[str] = []

    def reads(self, allocation: Any) -> None:
        self.read[id(allocation)] = allocation

    def writes(self, allocation: Any) -> None:
        self.written[id(allocation)] = allocation

    def makes(self, allocation: Any) -> None:
        self.made.append(weakref.ref(allocation))


class CudaGraph:
    """The kernels and copies that `function` queues, recorded without running them.

    `results` is what the function gave: arrays of the graph's own memory have their values after each
    `replay`. Raises what the function raises, and `CaptureError` for what no graph can hold.
    """

    def __init__(self, name: str, card: Any, function: Callable[[], Any]):
        self.name = name
        self.card = card
        origin = stream_of(card)
        self.stream = Stream(card.ordinal)
        card.pool.empty_cache()  # while a stream is recorded, nothing can be given back to the driver
        pool = GraphPool(origin, self.stream)
        recording = Recording()
        self.results, graph = self._record(pool, recording, function)
        self.bytes = pool.bytes
        self.written = list(recording.written.values())
        """The memory beside its own that it writes to."""
        self._read = [a for key, a in recording.read.items() if key not in recording.written]
        self._made = [made for made in recording.made if made() is not None]
        self._kernels = tuple(recording.kernels[-launches.SHOWN :])
        driver = bindings()
        made = driver.cuGraphInstantiate(graph, 0)
        quietly(card.process, driver.cuGraphDestroy, graph)
        self._graph = check(made, f"making a graph of {name}")
        self._launch = driver.cuGraphLaunch
        self.stream.wait(origin)  # its memory may still be in use there
        destroy = driver.cuGraphExecDestroy  # at the end of the process the driver may not be found again
        weakref.finalize(self, _destroyed, os.getpid(), pool, self.stream, destroy, self._graph)

    def _record(self, pool: GraphPool, recording: Recording, function: Callable[[], Any]) -> tuple[Any, Any]:
        """What the function gave, and the driver's graph."""
        driver, own = bindings(), self.stream
        self.card.activate()
        relaxed = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        check(driver.cuStreamBeginCapture(own.handle, relaxed), f"recording {self.name}")
        own.pool, own.recording = pool, recording
        ended = None
        try:
            with stream(own):
                results = function()
        finally:
            own.pool, own.recording = self.card.pool, None
            self.card.activate()
            ended = driver.cuStreamEndCapture(own.handle)
        try:
            return results, check(ended, f"recording {self.name}")
        except TargetError as error:
            raise CaptureError(
                f"graph of {self.name}: {error}. Something that no graph can hold was done on the device, by "
                "another library perhaps: leave it outside of the function"
            ) from None

    def replay(self) -> None:
        """Queue everything once more, after what was queued on the same memory before."""
        own, card = self.stream, self.card
        for allocation in self._read:
            allocation.read_on(own)
        for allocation in self.written:
            allocation.write_on(own)
        for made in self._made:
            allocation = made()
            if allocation is not None and allocation.readers:
                allocation.write_on(own)
        card.activate()
        number = launches.begin(f"graph of {self.name}", card.ordinal, own.handle, self._kernels)
        check(self._launch(self._graph, own.handle), f"launching the graph of {self.name}")
        card.progress.finish(number, own.handle)
        if card.is_blocking:
            own.synchronize()


def _destroyed(process: int, pool: GraphPool, own: Stream, destroy: Callable[[Any], Any], graph: Any) -> None:
    """Once its last run is over; the memory goes when no array holds it either."""
    quietly(process, own.synchronize)
    quietly(process, destroy, graph)
