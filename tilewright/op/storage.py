"""Arrays wherever they lie: NumPy's on the CPU, `DeviceArray`s elsewhere, made, moved, copied and seen alike.

The layers above ask arrays for shapes, strides and views under NumPy's names. What differs between places is
here. Nothing of a device is imported before there is an array on one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright.errors import DeviceError, ShapeError
from tilewright.op.binding import where
from tilewright.runtime import memory
from tilewright.runtime.devices import CPU, Array, Device, get_default_device

Shape = tuple[int, ...]


# --- places -----------------------------------------------------------------------------------------------


def wanted_device(device: Any) -> Device:
    """The device that `device=` names, with its number; None for where new Tensors lie.

    Raises `ArgumentError` for what is none, `TargetError` where this machine has none.
    """
    place = get_default_device() if device is None else Device(device)
    if place.type == "cpu":
        return CPU
    from tilewright.runtime.cuda import cards

    ordinal = cards.ordinal_of(place)
    cards.card(ordinal)
    return Device(place.type, ordinal)


def device_of(array: Any) -> Device:
    return array.device if isinstance(array, Array) else CPU


def target_of(array: Any) -> str:
    """The target that kernels on such arrays are compiled for."""
    return str(device_of(array))


def common_target(op_name: str, operands: Sequence[tuple[str, Any, bool]]) -> str:
    """The target of an op on operands (name, array, whether it is a Tensor). Raises `DeviceError`.

    Operands lie on one device; beside those of a device, single numbers may come from the CPU.
    """
    devices = [(name, array, kind) for name, array, kind in operands if isinstance(array, Array)]
    if not devices:
        return "cpu"
    first, leader, _ = devices[0]
    for name, array, is_tensor in operands:
        if (
            array is None
            or device_of(array) == leader.device
            or (array.ndim == 0 and not isinstance(array, Array))
        ):
            continue
        told = f"{where(op_name)}: {first} lies on {leader.device}, {name} on {device_of(array)}; "
        remedy = f'{name}.to("{leader.device}")'
        if not is_tensor:
            remedy = f'tw.tensor({name}, device="{leader.device}")'
        raise DeviceError(f"{told}an op runs on one device: write {remedy}")
    return str(leader.device)


def behind(value: Any) -> Any:
    """The array that a Tensor looks into; anything else as it is."""
    return getattr(value, "_array", value)


# --- making -----------------------------------------------------------------------------------------------


def empty(shape: Shape, dtype: np.dtype, device: Device) -> Any:
    """An array with undefined contents. Raises `MemoryLimitError`."""
    if device is CPU:
        return memory.empty(shape, dtype)
    from tilewright.runtime.cuda import arrays

    return arrays.empty(shape, dtype, ordinal=device.index or 0)


def filled(shape: Shape, value: Any, dtype: np.dtype, device: Device) -> Any:
    """An array of one value."""
    if device is CPU:
        return memory.filled(shape, value, dtype)
    made = empty(shape, dtype, device)
    element = np.asarray(value, dtype)
    if element.tobytes().count(0) == element.nbytes:
        made.fill_bytes(0)
    else:
        write(made, element)
    return made


def repeated(value: Any, shape: Shape, dtype: np.dtype, device: Device) -> Any:
    """One element that is seen at every position, not to be written to."""
    element = np.asarray(value, dtype)
    if device is CPU:
        return np.broadcast_to(element, shape)
    from tilewright.runtime.cuda import arrays

    return arrays.constant(element, device.index or 0).broadcast_to(shape)


# --- moving -----------------------------------------------------------------------------------------------


def moved(array: Any, device: Device, non_blocking: bool = False) -> Any:
    """A copy of an array on another device; itself where it lies there.

    `non_blocking` copies go on while Python does: from page-locked memory, and into such memory.
    """
    if device_of(array) == device:
        return array
    if device is CPU:
        return _downloaded(array, non_blocking)
    from tilewright.runtime.cuda import arrays

    ordinal = device.index or 0
    if not isinstance(array, Array):
        return arrays.from_numpy(array, ordinal=ordinal, wait=not non_blocking)
    copy = arrays.empty(array.shape, array.dtype, ordinal=ordinal)
    copy.copy_bytes(in_order(array))
    return copy


def _downloaded(array: Any, non_blocking: bool) -> np.ndarray:
    from tilewright.runtime.cuda import pinned, streams

    if not non_blocking:
        return array.download(streams.stream_of(array.allocation.card), memory.empty)
    ordered = array if array.flags.c_contiguous else in_order(array)
    return ordered.download(streams.stream_of(array.allocation.card), pinned.empty, wait=False)


def host(array: Any) -> np.ndarray:
    """The array on the CPU: itself, or a copy."""
    return moved(array, CPU)


def on_host(value: Any) -> Any:
    """What somebody asks about, perhaps a Tensor on a device, as an array of NumPy's that lies alike."""
    array = behind(value)
    if isinstance(array, np.ndarray):
        return array
    if isinstance(array, Array):
        from tilewright.runtime.cuda import streams

        there: Any = array
        return there.as_it_lies(streams.stream_of(there.allocation.card), np.empty)
    to_cpu = getattr(value, "cpu", None)
    here = to_cpu() if callable(to_cpu) else value
    to_numpy = getattr(here, "numpy", None)
    return to_numpy() if callable(to_numpy) else here


def lying_on(array: np.ndarray, target: str) -> Any:
    """A NumPy array on a target, "cpu" or a device such as "cuda:1", with the strides that it has."""
    if target == "cpu":
        return array
    from tilewright.compiler.targets.triton import on_device

    return on_device.with_gaps(array, wanted_device(target).index or 0)


# --- copying ----------------------------------------------------------------------------------------------


def in_order(array: Any) -> Any:
    """A C-contiguous array with the same elements, in memory of its own unless it is in order."""
    if array.flags.c_contiguous:
        return array
    return copied(array)


def copied(array: Any) -> Any:
    """A C-contiguous copy."""
    if not isinstance(array, Array):
        return memory.copy(array)
    from tilewright.compiler.targets.triton import copies

    there: Any = array
    return copies.in_order(there)


def write(target: Any, source: Any) -> None:
    """The elements of `source`, wherever it lies, over those of `target`, broadcast.

    On a device dtypes are equal. Raises `ShapeError`.
    """
    if not isinstance(target, Array):
        _write_numpy(target, host(source))
        return
    from tilewright.compiler.targets.triton import copies

    if source.shape != target.shape and not _broadcasts(source.shape, target.shape):
        raise ShapeError(f"copy_: shape {source.shape} does not broadcast to {target.shape}")
    if not isinstance(source, Array) and source.size == 1:
        source = repeated(source.reshape(()), (), target.dtype, target.device)
    source = moved(source, target.device)
    there: Any = target
    copies.copy(there, broadcast(source, target.shape))


def _write_numpy(target: np.ndarray, source: np.ndarray) -> None:
    try:
        np.copyto(target, source, casting="unsafe")
    except ValueError:
        raise ShapeError(f"copy_: shape {source.shape} does not broadcast to {target.shape}") from None


def _broadcasts(small: Shape, large: Shape) -> bool:
    missing = len(large) - len(small)
    return missing >= 0 and all(e in (1, s) for e, s in zip(small, large[missing:], strict=True))


# --- seeing -----------------------------------------------------------------------------------------------


def broadcast(array: Any, shape: Shape) -> Any:
    """The array repeated as NumPy broadcasts, without a copy."""
    if array.shape == shape:
        return array
    return array.broadcast_to(shape) if isinstance(array, Array) else np.broadcast_to(array, shape)


def stand_in(array: Any) -> Any:
    """An array of NumPy's with the same shape, strides and dtype, whose elements mean nothing.

    Its memory is there, but as nobody touches it, it costs nothing.
    """
    if not isinstance(array, Array):
        return array
    low, high = array.bounds
    span = np.empty(high - low, np.uint8)
    return np.ndarray(array.shape, array.dtype, span, array.address - low, array.strides)


def reshaped(array: Any, shape: Shape) -> Any:
    """The elements in order under another shape: a view where strides allow one."""
    if not isinstance(array, Array):
        return array.reshape(shape)
    view = array.reshaped(shape)
    return copied(array).reshape(shape) if view is None else view


def may_share_memory(first: Any, second: Any) -> bool:
    if isinstance(first, Array):
        return first.may_share_memory(second)
    return not isinstance(second, Array) and np.may_share_memory(first, second)
