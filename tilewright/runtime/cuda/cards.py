"""Cards: the CUDA devices of this machine, opened on first use, each in its primary context.

The primary context is the one that torch, JAX and CuPy use as well, so pointers and streams can be shared
with them.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tilewright.errors import ArgumentError, TargetError
from tilewright.runtime import capturing
from tilewright.runtime.cuda import launches
from tilewright.runtime.cuda.driver import bindings, check, import_bindings, is_available
from tilewright.runtime.cuda.pool import Pool
from tilewright.runtime.cuda.progress import Progress
from tilewright.runtime.devices import Device, get_default_device
from tilewright.runtime.recent import Recent

MAX_CONSTANTS = 1024


@dataclass(frozen=True)
class CardProperties:
    """What a schedule or a cost model asks about a device."""

    ordinal: int
    name: str
    capability: tuple[int, int]
    multiprocessors: int
    memory_bytes: int
    shared_bytes_per_block: int
    """With the opt-in that the launcher makes."""
    shared_bytes_per_multiprocessor: int
    registers_per_block: int
    threads_per_block: int
    l2_bytes: int
    warp_size: int
    clock_hertz: float
    memory_bytes_per_second: float
    """Peak, from memory clock and bus width; 0 where the driver does not tell."""
    driver_version: int

    @property
    def target(self) -> str:
        """The compilation target, such as `"cuda:90"`."""
        major, minor = self.capability
        return f"cuda:{major}{minor}"


class Card:
    """One device and its primary context; `card()` gives it."""

    def __init__(self, ordinal: int):
        driver = bindings()
        self.ordinal = ordinal
        count = check(driver.cuDeviceGetCount(), "counting devices")
        if not 0 <= ordinal < count:
            raise TargetError(f"no CUDA device {ordinal}: there are {count}, counted from 0")
        self.handle = check(driver.cuDeviceGet(ordinal), f"opening device {ordinal}")
        context = driver.cuDevicePrimaryCtxRetain(self.handle)
        self.context = check(context, f"making a context on device {ordinal}")
        self.process = os.getpid()
        self.generation = generation
        self.is_blocking = launches.is_blocking()
        self.activate()
        self.streams: dict[int, Any] = {}
        """By their handles, those that something else owns."""
        self.spare_streams: list[Any] = []
        """Those that nothing uses any more."""
        self.constants: Recent[Any, Any] = Recent(MAX_CONSTANTS)
        """Numbers that lie on the device, by their bytes."""
        self.pool = Pool(self)
        self.progress = Progress(self)

    def activate(self) -> None:
        """Make the context current in this thread; other libraries may have changed it."""
        check(import_bindings().cuCtxSetCurrent(self.context), "choosing the context")

    @functools.cached_property
    def properties(self) -> CardProperties:
        driver = import_bindings()
        name = check(driver.cuDeviceGetName(256, self.handle), "reading the device's name")
        kilohertz = self.attribute("MEMORY_CLOCK_RATE")
        bus_bytes = self.attribute("GLOBAL_MEMORY_BUS_WIDTH") // 8
        return CardProperties(
            ordinal=self.ordinal,
            name=name.split(b"\0")[0].decode().strip(),
            capability=(
                self.attribute("COMPUTE_CAPABILITY_MAJOR"),
                self.attribute("COMPUTE_CAPABILITY_MINOR"),
            ),
            multiprocessors=self.attribute("MULTIPROCESSOR_COUNT"),
            memory_bytes=check(driver.cuDeviceTotalMem(self.handle), "reading the device's memory"),
            shared_bytes_per_block=self.attribute("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"),
            shared_bytes_per_multiprocessor=self.attribute("MAX_SHARED_MEMORY_PER_MULTIPROCESSOR"),
            registers_per_block=self.attribute("MAX_REGISTERS_PER_BLOCK"),
            threads_per_block=self.attribute("MAX_THREADS_PER_BLOCK"),
            l2_bytes=self.attribute("L2_CACHE_SIZE"),
            warp_size=self.attribute("WARP_SIZE"),
            clock_hertz=self.attribute("CLOCK_RATE") * 1e3,
            memory_bytes_per_second=2.0 * kilohertz * 1e3 * bus_bytes,
            driver_version=check(driver.cuDriverGetVersion(), "reading the driver's version"),
        )

    def attribute(self, name: str) -> int:
        """What the driver says of the device under a name of `CUdevice_attribute`."""
        driver = import_bindings()
        attribute = getattr(driver.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(check(driver.cuDeviceGetAttribute(attribute, self.handle), f"reading {name}"))

    def synchronize(self) -> None:
        """Wait for everything on the device; what failed meanwhile is raised here."""
        capturing.refuse("it waits for the device", "wait after the graph's call")
        self.activate()
        check(import_bindings().cuCtxSynchronize(), f"waiting for {self}")
        launches.finished(self.ordinal)

    def memory_info(self) -> tuple[int, int]:
        """Free bytes and all bytes of the device, the pools' reserves counted as used."""
        self.activate()
        code, free, total = import_bindings().cuMemGetInfo()
        check((code,), "reading the device's memory")
        return int(free), int(total)

    def __str__(self) -> str:
        return f"cuda:{self.ordinal}"


generation = 0
"""Counts up where cards that were opened can no longer be used: in a forked child."""


def _next_generation() -> None:
    global generation
    generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_next_generation)

_cards: dict[tuple[int, int], Card] = {}
_lock = threading.Lock()
_initialised_in: int | None = None
_current = threading.local()


def card(ordinal: int = 0) -> Card:
    """The device of that number, opened on first use; `TargetError` where there is none."""
    global _initialised_in
    process = os.getpid()
    known = _cards.get((process, ordinal))
    if known is not None:
        return known
    if _initialised_in not in (None, process):
        raise TargetError(
            "no CUDA device: this process was forked from one that had used CUDA, which no driver allows; "
            'start processes with multiprocessing.get_context("spawn")'
        )
    with _lock:
        if (process, ordinal) not in _cards:
            _cards[process, ordinal] = Card(ordinal)
            _initialised_in = process
        return _cards[process, ordinal]


def forget() -> None:
    """For tests: as if no device had been opened."""
    global _initialised_in
    _cards.clear()
    _next_generation()
    _initialised_in = None
    _current.ordinal = 0
    launches.forget()


def device_count() -> int:
    """How many devices there are; 0 where CUDA cannot be used."""
    if not is_available():
        return 0
    return int(check(import_bindings().cuDeviceGetCount(), "counting devices"))


def current_device() -> int:
    """The number of the device that "cuda" means in this thread."""
    chosen = get_default_device()
    return chosen.index if chosen.index is not None else getattr(_current, "ordinal", 0)


def set_device(device: Any) -> None:
    """Choose the device that "cuda" means in this thread; `TargetError` where there is none."""
    ordinal = ordinal_of(device)
    card(ordinal)
    _current.ordinal = ordinal


def ordinal_of(device: Any) -> int:
    """The number of a device: None for the current one, a number, "cuda:1", or `tw.device("cuda:1")`.

    Raises `ArgumentError` for what is no CUDA device.
    """
    if device is None:
        return current_device()
    if isinstance(device, int):
        return device
    place = Device(device)
    if place.type != "cuda":
        raise ArgumentError(f'{place} is no CUDA device; those are "cuda", "cuda:0", "cuda:1", …')
    return current_device() if place.index is None else place.index


def opened() -> Sequence[Card]:
    """The devices that this process has used."""
    return [card for (process, _), card in _cards.items() if process == os.getpid()]
