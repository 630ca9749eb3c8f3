"""What times a call where it runs, and measures the limits of the same place beside it.

HostMachine      Python's clock around several calls in a row; multiply-adds and a copy by all threads
DeviceMachine    two events around each call, before which the second cache is written full, so that what
                 Python takes to launch is hidden behind that; a copy by the driver
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Protocol

from tilewright.op import limits
from tilewright.runtime import threads
from tilewright.runtime.devices import Device

SHORTEST_SAMPLE = 1e-3  # seconds
FEWEST_CALLS, MOST_CALLS = 3, 20  # of a sample on a device
SMALLEST_FLUSH = 2**20
DEVICE_COPY_BYTES = 512 * 2**20


class Machine(Protocol):
    """A place where calls run."""

    name: str

    def sample(self, run: Callable[[], Any], calls: int) -> float:
        """Seconds of a call, from some in a row."""
        ...

    def calls(self, seconds: float) -> int:
        """How many calls of so many seconds are a sample."""
        ...

    def probe(self) -> None:
        """Measure the limits once more."""
        ...

    def limits(self) -> limits.Limits:
        """The medians of what was measured."""
        ...


def machine(target: str) -> Machine:
    """That of operands on "cpu" or on a device such as "cuda:0"."""
    return HostMachine() if target == "cpu" else DeviceMachine(target)


def sample_on_host(run: Callable[[], Any], calls: int) -> float:
    """Seconds of a call by Python's clock."""
    began = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - began) / calls


class HostMachine:
    """This machine's CPU, with as many threads as are set."""

    def __init__(self) -> None:
        self._workers = threads.get_num_threads()
        self.name = f"{self._workers} thread{'s' * (self._workers != 1)}"
        self._peaks: list[float] = []
        self._copies: list[float] = []

    def sample(self, run: Callable[[], Any], calls: int) -> float:
        return sample_on_host(run, calls)

    def calls(self, seconds: float) -> int:
        return max(1, round(SHORTEST_SAMPLE / seconds))

    def probe(self) -> None:
        self._peaks.extend(p for p in [limits.peak(self._workers)] if p)
        self._copies.append(limits.copy(self._workers))

    def limits(self) -> limits.Limits:
        peak = statistics.median(self._peaks) if self._peaks else None
        return limits.Limits(peak, statistics.median(self._copies))


class DeviceClock:
    """Seconds of a call on a device, its second cache holding nothing of use."""

    def __init__(self, ordinal: int = 0):
        from tilewright.runtime.cuda import arrays, cards, streams

        self.properties = cards.card(ordinal).properties
        flushed = max(4 * self.properties.l2_bytes, SMALLEST_FLUSH)
        self._cache = arrays.empty((flushed,), "uint8", ordinal=ordinal)
        self._events = [(streams.Event(ordinal), streams.Event(ordinal)) for _ in range(MOST_CALLS)]

    def sample(self, run: Callable[[], Any], calls: int) -> float:
        """The median of some calls."""
        used = self._events[:calls]
        for begin, end in used:
            self._cache.fill_bytes(0)
            begin.record()
            run()
            end.record()
        return statistics.median(end.milliseconds_since(begin) for begin, end in used) * 1e-3


class DeviceMachine:
    """A device such as "cuda:0". Its multiply-adds are not measured: there is no probe of them."""

    def __init__(self, device: str):
        from tilewright.runtime.cuda import arrays, cards

        ordinal = cards.ordinal_of(Device(device))
        self._clock = DeviceClock(ordinal)
        self.name = f"{self._clock.properties.name} ({device}), its second cache emptied before each call"
        self._source, self._target = (
            arrays.empty((DEVICE_COPY_BYTES,), "uint8", ordinal=ordinal) for _ in range(2)
        )
        self._source.fill_bytes(1)
        self._copies: list[float] = []

    def sample(self, run: Callable[[], Any], calls: int) -> float:
        return self._clock.sample(run, calls)

    def calls(self, seconds: float) -> int:
        return min(MOST_CALLS, max(FEWEST_CALLS, round(SHORTEST_SAMPLE / max(seconds, 1e-9))))

    def probe(self) -> None:
        seconds = self.sample(lambda: self._target.copy_bytes(self._source), FEWEST_CALLS)
        self._copies.append(2 * DEVICE_COPY_BYTES / seconds)

    def limits(self) -> limits.Limits:
        return limits.Limits(None, statistics.median(self._copies))
