"""Streams and events: queues of work on a device, points in them, and which queue this thread works in."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from typing import Any

from tilewright.errors import CaptureError
from tilewright.runtime import capturing
from tilewright.runtime.cuda import cards
from tilewright.runtime.cuda.driver import bindings, check, import_bindings

DEFAULT_STREAM = 0
"""The legacy default stream, which is ordered with every blocking stream of the device."""
NON_BLOCKING = 1
WITHOUT_TIME = 2


class Stream:
    """A queue of work beside the default one; `with tw.cuda.stream(s):` has ops of this thread join it.

    `handle` is what launches take, and what other libraries call a stream by: `Stream.of(handle)`. Memory
    that another stream used last is waited for by the stream that uses it next, so no order of ops can read
    what is not written yet. Raises `TargetError` where there is no such device.
    """

    recording: Any = None
    """What notes the memory that is used while the stream is recorded for a graph (`graphs`)."""

    def __init__(self, device: Any = None):
        driver = bindings()
        self.card = cards.card(cards.ordinal_of(device))
        self.card.activate()
        # Memory is kept in the order of a stream, so streams are not destroyed but used again.
        spare = self.card.spare_streams
        created = spare.pop() if spare else check(driver.cuStreamCreate(NON_BLOCKING), "making a stream")
        self.handle = int(created)
        self.pool: Any = self.card.pool
        """Where the memory of its arrays comes from."""
        weakref.finalize(self, spare.append, created)

    @classmethod
    def of(cls, handle: int, device: Any = None) -> Stream:
        """A stream that something else owns, the default one (0) among them."""
        return _known(cards.card(cards.ordinal_of(device)), int(handle))

    def synchronize(self) -> None:
        """Wait for all work in the queue; what failed meanwhile is raised here."""
        capturing.refuse("it waits for a stream", "wait after the graph's call")
        self.card.activate()
        check(import_bindings().cuStreamSynchronize(self.handle), "waiting for a stream")

    def record(self, event: Event | None = None) -> Event:
        """The point that the queue ends at now, as an event (a new one, or the one given)."""
        event = event or Event(self.card.ordinal)
        event.record(self.handle)
        return event

    def wait(self, other: Stream | Event) -> None:
        """Have later work here wait for an event, or for all that another stream holds now."""
        if self.recording or (isinstance(other, Stream) and other.recording):
            capturing.refuse("it has streams wait for each other", "all its ops run on one stream")
        event = other if isinstance(other, Event) else other.record(Event(other.card.ordinal, timed=False))
        self.card.activate()
        check(import_bindings().cuStreamWaitEvent(self.handle, event.handle, 0), "waiting for an event")

    def __repr__(self) -> str:
        return f"<Stream {self.handle:#x} of cuda:{self.card.ordinal}>"


class Event:
    """A point in a stream, with its time.

    >>> begin, end = Event(), Event()                              # doctest: +SKIP
    >>> begin.record(); launch(); end.record(); end.milliseconds_since(begin)    # doctest: +SKIP
    """

    def __init__(self, device: Any = None, *, timed: bool = True):
        driver = bindings()
        self.card = cards.card(cards.ordinal_of(device))
        self.card.activate()
        self.handle = check(driver.cuEventCreate(0 if timed else WITHOUT_TIME), "making an event")
        weakref.finalize(self, quietly, os.getpid(), driver.cuEventDestroy, self.handle)

    def record(self, stream: Stream | int | None = None) -> None:
        """Put the event behind what a stream holds now: the current one unless told."""
        self.card.activate()
        queue = current_stream(self.card.ordinal) if stream is None else stream
        handle = queue.handle if isinstance(queue, Stream) else queue
        check(import_bindings().cuEventRecord(self.handle, handle), "recording an event")

    def synchronize(self) -> None:
        """Wait until the stream has come here."""
        capturing.refuse("it waits for an event", "wait after the graph's call")
        self.card.activate()
        check(import_bindings().cuEventSynchronize(self.handle), "waiting for an event")

    def milliseconds_since(self, earlier: Event) -> float:
        """The time between two recorded events; waits for this one."""
        self.synchronize()
        elapsed = import_bindings().cuEventElapsedTime(earlier.handle, self.handle)
        return float(check(elapsed, "reading an event's time"))


def quietly(process: int, call: Any, *arguments: Any) -> None:
    """Release a handle; at the end of the process the driver may be gone already, a child never had it."""
    if process == os.getpid():
        with contextlib.suppress(Exception):
            call(*arguments)


# --- the queue that this thread works in ------------------------------------------------------------------


class _Chosen(threading.local):
    streams: tuple[Stream, ...] = ()
    """What this thread's `with stream(...)` say, the innermost first."""


_chosen = _Chosen()


def current_stream(device: Any = None) -> Stream:
    """The stream that ops of this thread join on a device.

    It is what `with tw.cuda.stream(s)` says; else torch's current one, if torch is in the process and uses
    CUDA; else the default stream.
    """
    return stream_of(cards.card(cards.ordinal_of(device)))


def stream_of(card: Any) -> Stream:
    """`current_stream` of an open device."""
    for stream in _chosen.streams:
        if stream.card is card:
            return stream
    function = capturing.running()
    if function is not None:
        raise CaptureError(
            f"graph of {function.function}: it runs ops on {card} beside those on {_chosen.streams[0].card}; "
            "a graph is of one device: make one for each"
        )
    handle = torch_stream(card.ordinal) if "torch" in sys.modules else DEFAULT_STREAM
    return card.streams.get(handle) or _known(card, handle)


def torch_stream(ordinal: int) -> int:
    """The handle of torch's current stream on a device, or of the default one where torch has none."""
    torch = sys.modules.get("torch")
    if torch is None:
        return DEFAULT_STREAM
    try:
        if not torch.cuda.is_initialized():
            return DEFAULT_STREAM
        quick = getattr(getattr(torch, "_C", None), "_cuda_getCurrentRawStream", None)
        if quick is not None:  # without an object made for each answer
            return int(quick(ordinal))
        return int(torch.cuda.current_stream(ordinal).cuda_stream)
    except AttributeError:  # a torch without CUDA, or one that is being imported
        return DEFAULT_STREAM


@contextlib.contextmanager
def stream(queue: Stream | None) -> Any:
    """`with tw.cuda.stream(s):` has ops of this thread on that device join `s`; None changes nothing."""
    if capturing.running() and _chosen.streams:
        capturing.refuse("it chooses a stream", "all its ops run on one: choose it around the graph's call")
    before = _chosen.streams
    _chosen.streams = before if queue is None else (queue, *before)
    try:
        yield queue
    finally:
        _chosen.streams = before


def _known(card: Any, handle: int) -> Stream:
    """The one object for a stream that something else owns."""
    found = card.streams.get(handle)
    if found is None:
        found = object.__new__(Stream)
        found.card, found.handle, found.pool = card, handle, card.pool
        card.streams[handle] = found
    return found
