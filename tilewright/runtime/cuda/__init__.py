"""NVIDIA devices without torch, over the package `cuda-bindings`; as users see it, `tw.cuda`.

    if tw.cuda.is_available():
        x = tw.randn(1024, 1024, device="cuda")
        y = (x @ x).sum()
        tw.cuda.synchronize()
        print(y.item(), tw.cuda.memory_stats())

Nothing is imported and no context is made before the first use. `driver` finds the driver's functions and
puts its errors in words, `cards` opens devices, `streams` has queues and points in them, `pool` memory in
their order, `arrays` shapes and strides over it, `pinned` page-locked host memory, `launches` and `progress`
which op it was that failed.
"""

from __future__ import annotations

from typing import Any

from tilewright.runtime.cuda import cards as _cards
from tilewright.runtime.cuda import driver as _driver
from tilewright.runtime.cuda import pinned as _pinned
from tilewright.runtime.cuda.arrays import DeviceArray as DeviceArray
from tilewright.runtime.cuda.cards import CardProperties as CardProperties
from tilewright.runtime.cuda.cards import card as card
from tilewright.runtime.cuda.cards import current_device as current_device
from tilewright.runtime.cuda.cards import device_count as device_count
from tilewright.runtime.cuda.cards import set_device as set_device
from tilewright.runtime.cuda.driver import bindings as bindings
from tilewright.runtime.cuda.driver import check as check
from tilewright.runtime.cuda.driver import is_available as is_available
from tilewright.runtime.cuda.driver import unavailable_reason as unavailable_reason
from tilewright.runtime.cuda.pool import CudaMemoryStatistics as CudaMemoryStatistics
from tilewright.runtime.cuda.streams import Event as Event
from tilewright.runtime.cuda.streams import Stream as Stream
from tilewright.runtime.cuda.streams import current_stream as current_stream
from tilewright.runtime.cuda.streams import stream as stream


def get_device_properties(device: Any = None) -> CardProperties:
    """A device's name, capability, memory and limits. Raises `TargetError` where there is none."""
    return card(_cards.ordinal_of(device)).properties


def synchronize(device: Any = None) -> None:
    """Wait for everything on a device (the current one unless told); what failed meanwhile is raised here.

    Raises `LaunchError`, naming the op that failed, or `TargetError` where there is no device.
    """
    card(_cards.ordinal_of(device)).synchronize()


def memory_stats(device: Any = None) -> CudaMemoryStatistics:
    """What a device's pool holds and has done in this process."""
    return card(_cards.ordinal_of(device)).pool.statistics()


def memory_info(device: Any = None) -> tuple[int, int]:
    """Free bytes and all bytes of a device, those that this process keeps for later counted as used."""
    return card(_cards.ordinal_of(device)).memory_info()


def reset_peak_memory_stats(device: Any = None) -> None:
    """Count `memory_stats().peak_live_bytes` from here on."""
    card(_cards.ordinal_of(device)).pool.reset_peak()


def empty_cache(device: Any = None) -> None:
    """Give the device memory that no Tensor uses back to the system: of one device, or of all in use."""
    for each in _cards.opened() if device is None else [card(_cards.ordinal_of(device))]:
        each.pool.empty_cache()


def set_memory_limit(limit: int | None, device: Any = None) -> None:
    """Bytes of a device that this process may have, Tensors and what is kept for later together.

    None: all that the device has. The variable TILEWRIGHT_CUDA_MEMORY_LIMIT (`512M`, `20G`) sets it at the
    start. Beyond it `MemoryLimitError` is raised, as where the device has no more. Raises `ArgumentError`.
    """
    card(_cards.ordinal_of(device)).pool.set_limit(limit)


def use_bindings(bindings: Any) -> None:
    """For tests: a module in the place of `cuda.bindings.driver` (None puts it back), and nothing opened."""
    _driver.override(bindings)
    _cards.forget()
    _pinned.forget()


__all__ = [
    "CardProperties", "CudaMemoryStatistics", "Event", "Stream", "current_device", "current_stream",
    "device_count", "empty_cache", "get_device_properties", "is_available", "memory_info", "memory_stats",
    "reset_peak_memory_stats", "set_device", "set_memory_limit", "stream", "synchronize",
    "unavailable_reason",
]  # fmt: skip
