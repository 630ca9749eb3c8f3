"""NVIDIA devices without torch: properties, memory, streams and events, over the package `cuda-bindings`.

    if cuda.is_available():
        x = cuda.DeviceBuffer.from_numpy(array)     # on the current device, stream-ordered
        ...
        cuda.synchronize()
        y = x.to_numpy()

Nothing is imported and no context is made before the first use. Every call works in the device's primary
context, the one that torch, JAX and CuPy use as well, so pointers and streams can be shared with them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import math
import os
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.errors import LaunchError, MemoryLimitError, ResourceError, TargetError
from tilewright.runtime.sizes import format_bytes

ADVICE = "or use the CPU"
INSTALL = '`pip install "tilewright[cuda]"` (cuda-core and cuda-bindings)'

DEFAULT_STREAM = 0
"""The legacy default stream, which is ordered with every blocking stream of the device."""


# --- the driver and its errors ----------------------------------------------------------------------------


def is_available() -> bool:
    """Whether a CUDA device can be used here; never raises, and asks the driver only once."""
    return unavailable_reason() is None


def unavailable_reason() -> str | None:
    """Why no CUDA device can be used, in words, or None when one can."""
    return _probe(os.getpid())


@functools.lru_cache(maxsize=4)
def _probe(process: int) -> str | None:
    """The answer for one process: a forked child must not trust its parent's."""
    if _bindings_override is None and importlib.util.find_spec("cuda") is None:
        return f"the package cuda-bindings is not installed; install {INSTALL}"
    try:
        driver = _import_bindings()
    except Exception as error:
        return f"the package cuda-bindings cannot be imported ({error}); install {INSTALL}"
    try:
        code = driver.cuInit(0)[0]
    except Exception as error:
        return f"there is no NVIDIA driver on this machine ({_first_line(error)})"
    if int(code) != 0:
        return f"the NVIDIA driver does not start: {_describe(driver, code)}"
    code, count = driver.cuDeviceGetCount()
    if int(code) != 0 or count == 0:
        return "the NVIDIA driver finds no device (CUDA_VISIBLE_DEVICES hides devices that there are)"
    return None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


_bindings_override: Any = None
"""Takes the place of `cuda.bindings.driver` in tests."""


def _import_bindings() -> Any:
    if _bindings_override is not None:
        return _bindings_override
    from cuda.bindings import driver

    return driver


def bindings() -> Any:
    """The module `cuda.bindings.driver`, initialised; `TargetError` where there is no device."""
    reason = unavailable_reason()
    if reason is not None:
        raise TargetError(f"no CUDA device: {reason}, {ADVICE}")
    return _import_bindings()


def _describe(driver: Any, code: Any) -> str:
    try:
        _, name = driver.cuGetErrorName(code)
        _, text = driver.cuGetErrorString(code)
        return f"{name.decode()}: {text.decode()}"
    except Exception:
        return f"error {int(code)}"


# By the driver's numbers, which are part of its ABI.
_OUT_OF_MEMORY = 2
_WRONG_BINARY = {200, 209, 218, 222, 223}
_TOO_LARGE = {701, 720}
_KERNEL_FAILED = {700, 702, 710, 714, 715, 716, 717, 718, 719}


class LaunchLog:
    """Names of the kernels launched last, for the message of a failure that shows only later."""

    def __init__(self, length: int = 4):
        self.names: deque[str] = deque(maxlen=length)

    def __str__(self) -> str:
        return ", ".join(self.names) or "none"


launches = LaunchLog()


def check(result: Sequence[Any], doing: str) -> Any:
    """The value of a driver call's result (code, value…), or the library's exception for its error."""
    code, *values = result
    if not code:
        return values[0] if len(values) == 1 else None
    number = int(code)
    if number == 0:
        return values[0] if len(values) == 1 else None
    message = f"{doing}: {_describe(_import_bindings(), code)}"
    if number == _OUT_OF_MEMORY:
        raise MemoryLimitError(f"{message}; free arrays on the device or use smaller ones")
    if number in _WRONG_BINARY:
        raise TargetError(f"{message}; the kernel was compiled for another architecture than this device's")
    if number in _TOO_LARGE:
        raise ResourceError(
            f"{message}; the kernel needs more registers, threads or shared memory than there are"
        )
    if number in _KERNEL_FAILED:
        raise LaunchError(
            f"{message}; a kernel failed on the device (kernels launched last: {launches}), and this process "
            "cannot use the device any more"
        )
    raise TargetError(message)


# --- devices ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DeviceProperties:
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


class Device:
    """One device and its primary context; `device()` gives it."""

    def __init__(self, ordinal: int):
        driver = bindings()
        self.ordinal = ordinal
        count = check(driver.cuDeviceGetCount(), "counting devices")
        if not 0 <= ordinal < count:
            raise TargetError(f"no CUDA device {ordinal}: there are {count}, counted from 0")
        self.handle = check(driver.cuDeviceGet(ordinal), f"opening device {ordinal}")
        context = driver.cuDevicePrimaryCtxRetain(self.handle)
        self.context = check(context, f"making a context on device {ordinal}")
        self.activate()
        self._pooled = bool(self._attribute("MEMORY_POOLS_SUPPORTED")) and self._keep_pool()

    def activate(self) -> None:
        """Make the context current in this thread; other libraries may have changed it."""
        check(_import_bindings().cuCtxSetCurrent(self.context), "choosing the context")

    @functools.cached_property
    def properties(self) -> DeviceProperties:
        driver = _import_bindings()
        name = check(driver.cuDeviceGetName(256, self.handle), "reading the device's name")
        kilohertz = self._attribute("MEMORY_CLOCK_RATE")
        bus_bytes = self._attribute("GLOBAL_MEMORY_BUS_WIDTH") // 8
        return DeviceProperties(
            ordinal=self.ordinal,
            name=name.split(b"\0")[0].decode().strip(),
            capability=(
                self._attribute("COMPUTE_CAPABILITY_MAJOR"),
                self._attribute("COMPUTE_CAPABILITY_MINOR"),
            ),
            multiprocessors=self._attribute("MULTIPROCESSOR_COUNT"),
            memory_bytes=check(driver.cuDeviceTotalMem(self.handle), "reading the device's memory"),
            shared_bytes_per_block=self._attribute("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"),
            shared_bytes_per_multiprocessor=self._attribute("MAX_SHARED_MEMORY_PER_MULTIPROCESSOR"),
            registers_per_block=self._attribute("MAX_REGISTERS_PER_BLOCK"),
            threads_per_block=self._attribute("MAX_THREADS_PER_BLOCK"),
            l2_bytes=self._attribute("L2_CACHE_SIZE"),
            warp_size=self._attribute("WARP_SIZE"),
            clock_hertz=self._attribute("CLOCK_RATE") * 1e3,
            memory_bytes_per_second=2.0 * kilohertz * 1e3 * bus_bytes,
            driver_version=check(driver.cuDriverGetVersion(), "reading the driver's version"),
        )

    def _attribute(self, name: str) -> int:
        driver = _import_bindings()
        attribute = getattr(driver.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(check(driver.cuDeviceGetAttribute(attribute, self.handle), f"reading {name}"))

    def _keep_pool(self) -> bool:
        """Let the driver's pool keep what is freed: the next result of that size comes for nothing."""
        driver = _import_bindings()
        pool = check(driver.cuDeviceGetDefaultMemPool(self.handle), "opening the memory pool")
        threshold = driver.CUmemPool_attribute.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
        everything = driver.cuuint64_t(2**64 - 1)
        check(driver.cuMemPoolSetAttribute(pool, threshold, everything), "setting up the memory pool")
        return True

    def allocate(self, size: int, stream: int = DEFAULT_STREAM) -> int:
        """The address of `size` bytes, ordered on a stream; aligned to 256 bytes at least."""
        driver = _import_bindings()
        self.activate()
        doing = f"allocating {format_bytes(size)} on {self}"
        if self._pooled:
            return int(check(driver.cuMemAllocAsync(size, stream), doing))
        return int(check(driver.cuMemAlloc(size), doing))

    def free(self, address: int, stream: int = DEFAULT_STREAM) -> None:
        driver = _import_bindings()
        self.activate()
        if self._pooled:
            check(driver.cuMemFreeAsync(address, stream), "freeing memory")
        else:
            check(driver.cuMemFree(address), "freeing memory")

    def synchronize(self) -> None:
        """Wait for everything on the device; what failed meanwhile is raised here."""
        self.activate()
        check(_import_bindings().cuCtxSynchronize(), f"waiting for {self}")

    def memory_info(self) -> tuple[int, int]:
        """Free bytes and all bytes of the device, the pool's reserve counted as used."""
        self.activate()
        code, free, total = _import_bindings().cuMemGetInfo()
        check((code,), "reading the device's memory")
        return int(free), int(total)

    def __str__(self) -> str:
        return f"CUDA device {self.ordinal}"


_devices: dict[tuple[int, int], Device] = {}
_devices_lock = threading.Lock()
_initialised_in: int | None = None


def device(ordinal: int = 0) -> Device:
    """The device of that number, opened on first use; `TargetError` where there is none."""
    global _initialised_in
    process = os.getpid()
    known = _devices.get((process, ordinal))
    if known is not None:
        return known
    if _initialised_in not in (None, process):
        raise TargetError(
            "no CUDA device: this process was forked from one that had used CUDA, which no driver allows; "
            'start processes with multiprocessing.get_context("spawn")'
        )
    with _devices_lock:
        if (process, ordinal) not in _devices:
            _devices[process, ordinal] = Device(ordinal)
            _initialised_in = process
        return _devices[process, ordinal]


def device_count() -> int:
    """How many devices there are; 0 where CUDA cannot be used."""
    if not is_available():
        return 0
    return int(check(_import_bindings().cuDeviceGetCount(), "counting devices"))


def synchronize(ordinal: int = 0) -> None:
    """Wait for everything on a device."""
    device(ordinal).synchronize()


# --- streams and events -----------------------------------------------------------------------------------


class Stream:
    """A queue of work beside the default one; `handle` is what launches take."""

    def __init__(self, ordinal: int = 0):
        driver = bindings()
        self.device = device(ordinal)
        self.device.activate()
        non_blocking = 1
        created = check(driver.cuStreamCreate(non_blocking), "making a stream")
        self.handle = int(created)
        self._owner = created
        weakref.finalize(self, _quietly, driver.cuStreamDestroy, created)

    def synchronize(self) -> None:
        self.device.activate()
        check(_import_bindings().cuStreamSynchronize(self.handle), "waiting for a stream")


class Event:
    """A point in a stream, with its time.

    >>> begin, end = Event(), Event()                              # doctest: +SKIP
    >>> begin.record(); launch(); end.record(); end.milliseconds_since(begin)    # doctest: +SKIP
    """

    def __init__(self, ordinal: int = 0):
        driver = bindings()
        self.device = device(ordinal)
        self.device.activate()
        self.handle = check(driver.cuEventCreate(0), "making an event")
        weakref.finalize(self, _quietly, driver.cuEventDestroy, self.handle)

    def record(self, stream: int = DEFAULT_STREAM) -> None:
        check(_import_bindings().cuEventRecord(self.handle, stream), "recording an event")

    def synchronize(self) -> None:
        check(_import_bindings().cuEventSynchronize(self.handle), "waiting for an event")

    def milliseconds_since(self, earlier: Event) -> float:
        """The time between two recorded events; waits for this one."""
        self.synchronize()
        elapsed = _import_bindings().cuEventElapsedTime(earlier.handle, self.handle)
        return float(check(elapsed, "reading an event's time"))


def _quietly(call: Any, *arguments: Any) -> None:
    """Release a handle; at the end of the process the driver may be gone already."""
    with contextlib.suppress(Exception):
        call(*arguments)


# --- memory -----------------------------------------------------------------------------------------------


class Allocation:
    """Bytes on a device, freed when the last buffer that looks into them dies."""

    def __init__(self, size: int, ordinal: int = 0, stream: int = DEFAULT_STREAM):
        self.device = device(ordinal)
        self.size = size
        self.address = self.device.allocate(size, stream) if size else 0
        if size:
            weakref.finalize(self, _quietly, self.device.free, self.address, stream)


class DeviceBuffer:
    """An array on a device: an address with shape, dtype and strides in bytes, as NumPy has them."""

    __slots__ = ("__weakref__", "address", "allocation", "dtype", "shape", "strides")

    def __init__(
        self,
        allocation: Allocation,
        shape: Sequence[int],
        dtype: Any,
        strides: Sequence[int] | None = None,
        offset: int = 0,
    ):
        self.allocation = allocation
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.strides = (
            contiguous_strides(self.shape, self.dtype.itemsize) if strides is None else tuple(strides)
        )
        self.address = allocation.address + offset

    @classmethod
    def empty(
        cls, shape: Sequence[int], dtype: Any, *, ordinal: int = 0, stream: int = DEFAULT_STREAM
    ) -> DeviceBuffer:
        """A contiguous array with undefined contents."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        return cls(Allocation(size, ordinal, stream), shape, dtype)

    @classmethod
    def from_numpy(cls, array: np.ndarray, *, ordinal: int = 0, stream: int = DEFAULT_STREAM) -> DeviceBuffer:
        """A contiguous copy of a NumPy array."""
        buffer = cls.empty(array.shape, array.dtype, ordinal=ordinal, stream=stream)
        buffer.write(array, stream)
        return buffer

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_contiguous(self) -> bool:
        return not self.size or self.strides == contiguous_strides(self.shape, self.dtype.itemsize)

    @property
    def device(self) -> Device:
        return self.allocation.device

    def data_ptr(self) -> int:
        """The address of the first element, under the name that torch gave it."""
        return self.address

    def view(self, shape: Sequence[int], strides: Sequence[int], offset: int = 0) -> DeviceBuffer:
        """Other extents, strides and offset (in bytes) over the same memory."""
        at = self.address - self.allocation.address + offset
        view = DeviceBuffer(self.allocation, shape, self.dtype, strides, at)
        low, high = byte_bounds(view.shape, view.strides, self.dtype.itemsize)
        if view.size and (at + low < 0 or at + high > self.allocation.size):
            raise TargetError(f"a view of shape {tuple(shape)} reaches outside of its buffer")
        return view

    def write(self, array: np.ndarray, stream: int = DEFAULT_STREAM) -> None:
        """Copy a NumPy array of the same shape and dtype into a contiguous buffer; done when it returns."""
        if array.shape != self.shape or array.dtype != self.dtype or not self.is_contiguous:
            given, wanted = f"{array.dtype}{list(array.shape)}", f"{self.dtype}{list(self.shape)}"
            raise TargetError(f"cannot copy an array {given} into a contiguous buffer {wanted}")
        if not self.size:
            return
        host = np.ascontiguousarray(array)
        driver = _import_bindings()
        self.device.activate()
        copied = driver.cuMemcpyHtoDAsync(self.address, _address(host), host.nbytes, stream)
        check(copied, "copying to the device")
        check(driver.cuStreamSynchronize(stream), "copying to the device")

    def to_numpy(self, stream: int = DEFAULT_STREAM) -> np.ndarray:
        """A copy on the host, in C order, after everything that the stream holds so far."""
        if not self.size:
            return np.empty(self.shape, self.dtype)
        low, high = byte_bounds(self.shape, self.strides, self.dtype.itemsize)
        host = np.empty(high - low, np.uint8)
        driver = _import_bindings()
        self.device.activate()
        copied = driver.cuMemcpyDtoHAsync(_address(host), self.address + low, host.nbytes, stream)
        check(copied, "copying from the device")
        check(driver.cuStreamSynchronize(stream), "copying from the device")
        array = np.ndarray(self.shape, self.dtype, host.data, -low, self.strides)
        return array if self.is_contiguous else np.ascontiguousarray(array)

    def fill_bytes(self, value: int, stream: int = DEFAULT_STREAM) -> None:
        """Set every byte of a contiguous buffer: 0 clears it, 255 poisons floats with NaN."""
        if not self.is_contiguous:
            raise TargetError("only a contiguous buffer can be filled")
        if self.size:
            self.device.activate()
            size = self.size * self.dtype.itemsize
            filled = _import_bindings().cuMemsetD8Async(self.address, value, size, stream)
            check(filled, "filling memory")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None if self.is_contiguous else self.strides,
            "version": 3,
            "stream": 1,
        }

    def __repr__(self) -> str:
        return f"DeviceBuffer({self.dtype}{list(self.shape)} on {self.device})"


def contiguous_strides(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Strides in bytes of an array in C order.

    >>> contiguous_strides((2, 3), 4)
    (12, 4)
    """
    strides = []
    step = itemsize
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


def byte_bounds(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> tuple[int, int]:
    """First and one-past-last byte of an array, counted from its first element.

    >>> byte_bounds((3,), (-4,), 4)
    (-8, 4)
    """
    reach = [(extent - 1) * stride for extent, stride in zip(shape, strides, strict=True)]
    return sum(min(0, r) for r in reach), sum(max(0, r) for r in reach) + itemsize


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


@contextlib.contextmanager
def scratch(size: int, ordinal: int, stream: int) -> Iterator[int]:
    """Memory for one launch, given back in stream order; address 0 where nothing is needed."""
    if not size:
        yield 0
        return
    owner = device(ordinal)
    address = owner.allocate(size, stream)
    try:
        yield address
    finally:
        owner.free(address, stream)
