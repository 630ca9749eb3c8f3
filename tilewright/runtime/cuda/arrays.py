"""Arrays on a device: memory that streams take turns with, and shapes and strides over it.

A `DeviceArray` has NumPy's names for what the layers above ask of an array: shape, strides in bytes, flags,
basic indexing, `transpose`, `reshape`. What they compute is left to NumPy, on a *ghost*: an array with the
device's address, whose elements nobody touches.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from tilewright.errors import InternalError, TargetError
from tilewright.runtime import capturing
from tilewright.runtime.addresses import address as host_address
from tilewright.runtime.cuda import cards, pinned
from tilewright.runtime.cuda.driver import check, import_bindings
from tilewright.runtime.cuda.streams import DEFAULT_STREAM, Stream, quietly, stream_of
from tilewright.runtime.devices import Array, Device

NOWHERE = 512
"""An address for arrays without elements."""


class Allocation:
    """Bytes on a device, given back when the last array that looks into them dies.

    It knows which stream wrote to it last and which have read it since. A stream that comes new waits for
    the writer; one that writes, for the readers as well. So any order of ops on any streams is right.
    """

    __slots__ = ("__weakref__", "address", "card", "pool", "readers", "size", "writer")

    def __init__(self, size: int, stream: Stream):
        self.card = stream.card
        self.size = size
        self.writer = stream
        """The stream that wrote last."""
        self.readers: tuple[Stream, ...] = ()
        self.pool = None
        self.address = NOWHERE
        if size:
            self.address = stream.pool.allocate(size, stream.handle)
            self.pool = stream.pool
            """What the memory goes back to."""
            if stream.recording is not None:
                stream.recording.makes(self)

    def __del__(self) -> None:
        """The memory goes to its writer's list, once that stream has waited for the readers."""
        if self.pool is None:
            return
        for reader in self.readers:
            quietly(self.card.process, self.writer.wait, reader)
        self.pool.give_back(self.address, self.size, self.writer.handle)

    def read_on(self, stream: Stream) -> None:
        """A stream is about to read: what was written is waited for."""
        if stream is self.writer or stream in self.readers:
            return
        if stream.recording is not None:
            stream.recording.reads(self)
            return
        stream.wait(self.writer)
        self.readers = (*self.readers, stream)

    def write_on(self, stream: Stream) -> None:
        """A stream is about to write: whatever used the memory is waited for."""
        if stream is self.writer and not self.readers:
            return
        if stream.recording is not None:
            stream.recording.writes(self)
            return
        for other in (self.writer, *self.readers):
            if other is not stream:
                stream.wait(other)
        self.readers = ()
        self.writer = stream


class Borrowed(Allocation):
    """Memory of another library, ready on a stream; `release` is called when it is used no more."""

    __slots__ = ("origin", "release")

    def __init__(self, address: int, size: int, stream: Stream, release: Callable[[], Any]):
        self.card, self.size, self.address, self.pool = stream.card, size, address, None
        self.writer = self.origin = stream
        self.readers = ()
        self.release = release

    def __del__(self) -> None:
        """Other libraries know nothing of our streams, but for the one that the memory came on."""
        for stream in (self.writer, *self.readers):
            if stream is not self.origin:
                quietly(self.card.process, stream.synchronize)
        quietly(self.card.process, self.release)


class DeviceArray(Array):
    """An array on a device; `array_type(ordinal)` is the class of those on one device."""

    __slots__ = ("__weakref__", "address", "allocation", "dtype", "shape", "size", "strides", "writeable")

    ordinal = 0

    def __init__(
        self, allocation: Allocation, address: int, shape: tuple[int, ...], dtype: np.dtype,
        strides: tuple[int, ...], writeable: bool = True,
    ):  # fmt: skip
        self.allocation = allocation
        self.address = address
        self.shape = shape
        self.dtype = dtype
        self.strides = strides
        self.size = math.prod(shape)
        self.writeable = writeable

    # --- what it is -----------------------------------------------------------------------------------------

    @property
    def device(self) -> Device:
        return device_of(self.ordinal)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def is_contiguous(self) -> bool:
        return _in_order(self.shape, self.strides, self.dtype.itemsize)

    @property
    def flags(self) -> Any:
        """NumPy's `flags`, those that are asked for."""
        return SimpleNamespace(c_contiguous=self.is_contiguous, writeable=self.writeable)

    def data_ptr(self) -> int:
        """The address of the first element, under the name that torch gave it."""
        return self.address

    @property
    def bounds(self) -> tuple[int, int]:
        """The first byte of the elements, and one past the last."""
        if not self.size:
            return self.address, self.address
        reach = [(extent - 1) * stride for extent, stride in zip(self.shape, self.strides, strict=True)]
        low, high = sum(min(0, r) for r in reach), sum(max(0, r) for r in reach)
        return self.address + low, self.address + high + self.dtype.itemsize

    def may_share_memory(self, other: Any) -> bool:
        """Whether the bytes of two arrays meet."""
        if not isinstance(other, DeviceArray) or self.allocation is not other.allocation:
            return False
        (low, high), (first, last) = self.bounds, other.bounds
        return low < last and first < high

    # --- other views of the same memory ---------------------------------------------------------------------

    def ghost(self) -> np.ndarray:
        """An array of NumPy's that lies where this one does. Its elements must not be touched."""
        if not self.size:
            return np.lib.stride_tricks.as_strided(np.empty(0, self.dtype), self.shape, self.strides)
        place = {"data": (self.address, not self.writeable), "shape": self.shape, "strides": self.strides}
        seen = _Place({**place, "typestr": f"|V{self.dtype.itemsize}", "version": 3})
        return np.asarray(seen).view(self.dtype)

    def _like(self, ghost: np.ndarray) -> DeviceArray:
        where = host_address(ghost) if ghost.size else self.address
        return type(self)(
            self.allocation, where, ghost.shape, ghost.dtype, ghost.strides, ghost.flags.writeable
        )

    def __getitem__(self, index: Any) -> DeviceArray:
        """Basic indexing alone: integers, slices, None and `...`."""
        parts = index if isinstance(index, tuple) else (index,)
        return self._like(self.ghost()[parts if Ellipsis in parts else (*parts, ...)])

    def transpose(self, axes: Sequence[int]) -> DeviceArray:
        return self._like(self.ghost().transpose(axes))

    def broadcast_to(self, shape: Sequence[int]) -> DeviceArray:
        """Repeated as NumPy broadcasts; not to be written to."""
        return self._like(np.broadcast_to(self.ghost(), tuple(shape)))

    def reshape(self, *shape: Any) -> DeviceArray:
        """The same elements in order under another shape; InternalError where that needs a copy."""
        wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        if self.shape == wanted:
            return self
        found = self.reshaped(tuple(wanted))
        if found is None:
            raise InternalError(f"{self!r} has no view of shape {wanted}")
        return found

    def reshaped(self, shape: tuple[int, ...]) -> DeviceArray | None:
        """`reshape`, or None where that needs a copy."""
        if self.shape == shape:
            return self
        strides = view_strides(self.shape, self.strides, shape, self.dtype.itemsize)
        if strides is None:
            return None
        return type(self)(self.allocation, self.address, shape, self.dtype, strides, self.writeable)

    def laid_out(self, shape: Sequence[int], strides: Sequence[int], dtype: Any = None) -> DeviceArray:
        """Other extents, strides and dtype over the same memory, from the same address."""
        kind = self.dtype if dtype is None else np.dtype(dtype)
        view = type(self)(self.allocation, self.address, tuple(shape), kind, tuple(strides), self.writeable)
        start = self.allocation.address
        low, high = view.bounds
        if view.size and not start <= low <= high <= start + self.allocation.size:
            raise TargetError(f"a view of shape {tuple(shape)} reaches outside of its memory")
        return view

    # --- copies ---------------------------------------------------------------------------------------------

    def to_numpy(self, stream: Stream | None = None) -> np.ndarray:
        """A copy on the host in C order, after everything that was written to the array."""
        return self.download(stream or stream_of(self.allocation.card), np.empty)

    def download(self, stream: Stream, empty: Callable[..., np.ndarray], wait: bool = True) -> np.ndarray:
        """A copy in host memory that `empty` makes; without `wait` it is there when the stream is."""
        array = self.as_it_lies(stream, empty, wait)
        return array if self.is_contiguous or not wait else np.ascontiguousarray(array)

    def as_it_lies(self, stream: Stream, empty: Callable[..., np.ndarray], wait: bool = True) -> np.ndarray:
        """`download`, with the strides that the array has, and what lies between its elements."""
        capturing.refuse(
            "it reads a Tensor's values on the CPU (as item(), tolist(), numpy(), print and if do)",
            "have it give the Tensor, and read that",
        )
        if not self.size:
            return empty(self.shape, self.dtype)
        low, high = self.bounds
        host = empty((high - low,), np.dtype(np.uint8))
        self.allocation.card.activate()
        self.allocation.read_on(stream)
        copied = import_bindings().cuMemcpyDtoHAsync(host_address(host), low, host.nbytes, stream.handle)
        check(copied, "copying from the device")
        pinned.used(host, stream)
        if wait:
            stream.synchronize()
        return np.ndarray(self.shape, self.dtype, host, self.address - low, self.strides)

    def write(self, array: np.ndarray, stream: Stream | None = None, wait: bool = True) -> None:
        """Copy a NumPy array of the same shape and dtype into a contiguous array.

        What NumPy writes to `array` afterwards is not seen; without `wait`, that holds for memory that is not
        page-locked alone.
        """
        if array.shape != self.shape or array.dtype != self.dtype or not self.is_contiguous:
            given, wanted = f"{array.dtype}{list(array.shape)}", f"{self.dtype}{list(self.shape)}"
            raise TargetError(f"cannot copy an array {given} into a contiguous array {wanted}")
        if not self.size:
            return
        capturing.refuse(
            f"it copies {array.dtype}{list(array.shape)} from the CPU", "pass it as a Tensor on the device"
        )
        stream = stream or stream_of(self.allocation.card)
        host = np.ascontiguousarray(array)
        self.allocation.card.activate()
        self.allocation.write_on(stream)
        # The driver has taken the contents of memory that is not page-locked when this returns.
        copied = import_bindings().cuMemcpyHtoDAsync(
            self.address, host_address(host), host.nbytes, stream.handle
        )
        check(copied, "copying to the device")
        if pinned.used(host, stream) and wait:
            stream.synchronize()

    def copy_bytes(self, source: DeviceArray, stream: Stream | None = None) -> None:
        """Copy a contiguous array of as many bytes, perhaps of another device, into a contiguous one."""
        if not (self.is_contiguous and source.is_contiguous and self.nbytes == source.nbytes):
            raise InternalError(f"{source!r} cannot be copied byte by byte into {self!r}")
        if not self.size:
            return
        card, other = self.allocation.card, source.allocation.card
        stream = stream or stream_of(card)
        source.allocation.read_on(stream)
        self.allocation.write_on(stream)
        card.activate()
        driver = import_bindings()
        if card is other:
            copied = driver.cuMemcpyDtoDAsync(self.address, source.address, self.nbytes, stream.handle)
        else:
            copied = driver.cuMemcpyPeerAsync(
                self.address, card.context, source.address, other.context, self.nbytes, stream.handle
            )
        check(copied, "copying between devices")

    def fill_bytes(self, value: int, stream: Stream | None = None) -> None:
        """Set every byte of a contiguous array: 0 clears it, 255 poisons floats with NaN."""
        if not self.is_contiguous:
            raise TargetError("only a contiguous array can be filled")
        if self.size:
            stream = stream or stream_of(self.allocation.card)
            self.allocation.card.activate()
            self.allocation.write_on(stream)
            filled = import_bindings().cuMemsetD8Async(self.address, value, self.nbytes, stream.handle)
            check(filled, "filling memory")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        writer = self.allocation.writer.handle
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address if self.size else 0, not self.writeable),
            "strides": None if self.is_contiguous else self.strides,
            "version": 3,
            "stream": writer or 1,
        }

    def __array__(self, *arguments: Any, **keywords: Any) -> np.ndarray:
        raise InternalError(f"{self!r} was taken for an array of NumPy's")

    def __repr__(self) -> str:
        return f"DeviceArray({self.dtype}{list(self.shape)} on {self.allocation.card})"


class _Place:
    """What NumPy makes an array of, without looking into it."""

    def __init__(self, interface: dict[str, Any]):
        self.__array_interface__ = interface


@functools.cache
def device_of(ordinal: int) -> Device:
    return Device("cuda", ordinal)


@functools.cache
def array_type(ordinal: int) -> type[DeviceArray]:
    """The class of the arrays on a device: one each, so that a call is known by its operands' types."""
    return type("DeviceArray", (DeviceArray,), {"__slots__": (), "ordinal": ordinal})


# --- making them ------------------------------------------------------------------------------------------


def empty(shape: Sequence[int], dtype: Any, *, ordinal: int = 0, stream: Stream | None = None) -> DeviceArray:
    """A contiguous array with undefined contents. Raises `MemoryLimitError`."""
    queue = stream or stream_of(cards.card(ordinal))
    extents, kind = tuple(shape), np.dtype(dtype)
    allocation = Allocation(math.prod(extents) * kind.itemsize, queue)
    strides = contiguous_strides(extents, kind.itemsize)
    return array_type(ordinal)(allocation, allocation.address, extents, kind, strides)


class Fresh:
    """What arrays of one kind that are made again and again have in common."""

    def __init__(self, shape: Sequence[int], dtype: Any, ordinal: int):
        self.kind = array_type(ordinal)
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.strides = contiguous_strides(self.shape, self.dtype.itemsize)
        self.size = math.prod(self.shape)
        self.bytes = self.size * self.dtype.itemsize

    def make(self, stream: Stream) -> DeviceArray:
        """One more, with undefined contents. Raises `MemoryLimitError`."""
        allocation = Allocation(self.bytes, stream)
        made = object.__new__(self.kind)
        made.allocation, made.address = allocation, allocation.address
        made.shape, made.strides, made.dtype = self.shape, self.strides, self.dtype
        made.size, made.writeable = self.size, True
        return made


def from_numpy(
    array: np.ndarray, *, ordinal: int = 0, stream: Stream | None = None, wait: bool = True
) -> DeviceArray:
    """A contiguous copy of a NumPy array."""
    made = empty(array.shape, array.dtype, ordinal=ordinal, stream=stream)
    made.write(array, stream, wait)
    return made


def constant(array: np.ndarray, ordinal: int) -> DeviceArray:
    """A NumPy array of one element on a device, not to be written to; those used before are kept there."""
    card = cards.card(ordinal)
    key = (array.tobytes(), array.dtype)
    found = card.constants.get(key)
    function = capturing.running()
    if function is not None:
        function.note("a number", array.item())
    if found is None:
        with capturing.run(None):  # it is there before any graph that reads it
            there = Stream.of(DEFAULT_STREAM, ordinal) if function else None
            found = from_numpy(np.asarray(array).reshape(()), ordinal=ordinal, stream=there)
        found.writeable = False
        card.constants[key] = found
    return found


# --- strides ----------------------------------------------------------------------------------------------


def contiguous_strides(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Strides in bytes of an array in C order.

    >>> contiguous_strides((2, 3), 4)
    (12, 4)
    """
    strides = []
    step = itemsize
    for extent in reversed(shape):
        strides.append(step)
        step *= max(1, extent)
    return tuple(reversed(strides))


@functools.lru_cache(maxsize=4096)
def _in_order(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> bool:
    """Whether an array lies in C order without gaps."""
    step = itemsize
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent == 0:
            return True
        if extent != 1 and stride != step:
            return 0 in shape
        step *= extent
    return True


def view_strides(
    shape: Sequence[int], strides: Sequence[int], wanted: Sequence[int], itemsize: int
) -> tuple[int, ...] | None:
    """The strides in which an array has another shape without a copy; None where there are none.

    Dimensions of both shapes are walked in groups of as many elements; those of the array in a group must lie
    in memory as one.

    >>> view_strides((4, 6), (24, 4), (2, 2, 6), 4)
    (48, 24, 4)
    """
    if 0 in shape:
        return contiguous_strides(wanted, itemsize)
    have = [(extent, stride) for extent, stride in zip(shape, strides, strict=True) if extent != 1]
    found: list[int] = []
    position = 0
    while position < len(wanted):
        if wanted[position] == 1:
            found.append(0)
            position += 1
            continue
        if not have:
            return None
        extent, stride = have.pop(0)
        end, product = position + 1, wanted[position]
        while product != extent:
            if product < extent:
                if end == len(wanted):
                    return None
                product *= wanted[end]
                end += 1
            else:
                if not have or stride != have[0][0] * have[0][1]:
                    return None
                more, stride = have.pop(0)
                extent *= more
        found.extend(contiguous_strides(wanted[position:end], stride))
        position = end
    if have:
        return None
    return _with_units(wanted, found, itemsize)


def _with_units(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Strides in which a dimension of one element has the stride that joins it to the one after it."""
    whole: list[int] = []
    following = itemsize
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        whole.append(following if extent == 1 else stride)
        following = whole[-1] * extent
    return tuple(reversed(whole))
