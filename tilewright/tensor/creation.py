"""Tensors from data and numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.dsl.dtypes import ALL, COMPLEX, as_stored_dtype, float32, stored
from tilewright.errors import ArgumentError, DTypeError
from tilewright.op import storage
from tilewright.runtime import dlpack, memory
from tilewright.runtime.devices import CPU
from tilewright.tensor.record import Value
from tilewright.tensor.tensor import Tensor, _shape

_WIDE = {np.dtype(np.float64): np.float32, np.dtype(np.complex128): np.complex64}  # and what Python's become

# --- from data --------------------------------------------------------------------------------------------


def as_array(data: Any, dtype: Any = None, copy: bool = False) -> np.ndarray:
    """`data` as an array of a dtype that the library has; Python floats become float32, complex numbers
    complex64, integers int64.
    """
    wanted = None if dtype is None else as_stored_dtype(dtype).numpy
    if isinstance(data, Value):
        array = storage.host(data._array)
    elif isinstance(data, (np.ndarray, np.generic)):
        array = np.asarray(data)
    else:
        array = _from_python(data, wanted)
    if wanted is None and stored(array) is None:
        raise DTypeError(
            f"data of dtype {array.dtype} cannot be a tensor; convert it with .astype(...) to one of "
            f"{', '.join(d.name for d in (*ALL, *COMPLEX))}"
        )
    if wanted is not None and array.dtype != wanted:
        if array.dtype.kind == "c" and wanted.kind != "c":
            raise DTypeError(
                f"data of dtype {array.dtype} cannot be {wanted}; pass data.real or np.abs(data)"
            )
        return memory.copy(array, wanted)
    return memory.copy(array) if copy else array


def _from_python(data: Any, wanted: np.dtype | None) -> np.ndarray:
    if hasattr(data, "__dlpack__") and not isinstance(data, (bool, int, float, list, tuple)):
        return dlpack.array_of(data)
    try:
        array = np.asarray(_plain(data))
    except ValueError as error:
        raise ArgumentError(f"the lists are not of one shape: {error}") from None
    if wanted is None and array.dtype in _WIDE and not _holds_wide(data):
        return array.astype(_WIDE[array.dtype])
    return array


def _plain(data: Any) -> Any:
    """Lists of Tensors as lists of arrays."""
    if isinstance(data, (list, tuple)):
        return [_plain(item) for item in data]
    return storage.host(data._array) if isinstance(data, Value) else data


def _holds_wide(data: Any) -> bool:
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    array = data._array if isinstance(data, Value) else data
    return isinstance(array, (np.ndarray, np.generic)) and array.dtype in _WIDE


def copied_to(data: Any, dtype: Any, device: Any) -> Any:
    """A copy of `data` as an array on a device: where it lies, or where new Tensors do, unless told."""
    source = _on_device(data)
    if source is None:
        place = storage.wanted_device(device)
        return storage.moved(as_array(data, dtype, copy=place is CPU), place)
    there = source if dtype is None else source.to(dtype)
    place = there.device if device is None else storage.wanted_device(device)
    moved = storage.moved(there._array, place)
    return storage.copied(moved) if moved is source._array else moved


def _on_device(data: Any) -> Tensor | None:
    """`data` as a Tensor, if it lies on a device: one, or another library's array."""
    if isinstance(data, Tensor):
        return data.detach() if data.is_cuda else None
    if isinstance(data, (np.ndarray, np.generic, bool, int, float, complex, list, tuple)):
        return None
    if hasattr(data, "__cuda_array_interface__") or _lies_on_cuda(data):
        from tilewright.runtime.cuda import dlpack as shared

        return Tensor._make(shared.array_of(data))
    return None


def _lies_on_cuda(data: Any) -> bool:
    return hasattr(data, "__dlpack_device__") and int(data.__dlpack_device__()[0]) == 2


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False, device: Any = None) -> Tensor:
    """A Tensor with a copy of `data`: an array, nested lists, or a number.

    It lies where `device` says, else where `data` does, if that is a device, else where new Tensors do.
    """
    return Tensor(data, dtype, requires_grad, device)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """`data` as a Tensor, sharing memory where dtype and device allow; Tensors that are so already are
    returned as they are.
    """
    found = data if isinstance(data, Tensor) else _on_device(data)
    if found is None:
        array = as_array(data, dtype)
        return Tensor._make(storage.moved(array, storage.wanted_device(device)))
    return found.to(device=device, dtype=dtype)


def beside(data: Any, other: Tensor) -> Tensor:
    """`data` as a Tensor to compute with beside another: lists and arrays are brought to where that lies."""
    return data if isinstance(data, Tensor) else as_tensor(data, device=other.device)


def from_numpy(array: np.ndarray) -> Tensor:
    """A Tensor that shares the array's memory; what NumPy writes there later is not seen by the tape."""
    if not isinstance(array, np.ndarray):
        raise ArgumentError(
            f"from_numpy takes a NumPy array, not a {type(array).__qualname__}; use tw.tensor(data)"
        )
    return Tensor._make(as_array(array))


def from_dlpack(source: Any) -> Tensor:
    """A Tensor that shares the memory of another library's array or tensor, on the CPU or a CUDA device."""
    found = _on_device(source)
    return Tensor._make(as_array(dlpack.array_of(source))) if found is None else found


# --- filled -----------------------------------------------------------------------------------------------
# `device` says where the Tensor lies; without it where new Tensors do (`tw.set_default_device`).


def _made(array: Any, requires_grad: bool) -> Tensor:
    made = Tensor._make(array)
    return made.requires_grad_() if requires_grad else made


def _filled(shape: Any, value: Any, dtype: Any, device: Any, requires_grad: bool) -> Tensor:
    kind = as_stored_dtype(dtype).numpy
    return _made(storage.filled(shape, value, kind, storage.wanted_device(device)), requires_grad)


def empty(*shape: Any, dtype: Any = float32, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A Tensor whose elements are whatever the memory held."""
    kind = as_stored_dtype(dtype).numpy
    return _made(storage.empty(_shape(shape), kind, storage.wanted_device(device)), requires_grad)


def zeros(*shape: Any, dtype: Any = float32, device: Any = None, requires_grad: bool = False) -> Tensor:
    return _filled(_shape(shape), 0, dtype, device, requires_grad)


def ones(*shape: Any, dtype: Any = float32, device: Any = None, requires_grad: bool = False) -> Tensor:
    return _filled(_shape(shape), 1, dtype, device, requires_grad)


def full(
    shape: Any, value: Any, dtype: Any = None, requires_grad: bool = False, device: Any = None
) -> Tensor:
    """A Tensor of one value; without `dtype`, of the dtype that `tw.tensor(value)` has."""
    element = as_array(value, dtype)
    return _filled(_shape((shape,)), element, element.dtype, device, requires_grad)


# As another Tensor is, and where it is, unless told.


def zeros_like(other: Tensor, dtype: Any = None, requires_grad: bool = False, device: Any = None) -> Tensor:
    return _filled(other.shape, 0, dtype or other.dtype, device or other.device, requires_grad)


def ones_like(other: Tensor, dtype: Any = None, requires_grad: bool = False, device: Any = None) -> Tensor:
    return _filled(other.shape, 1, dtype or other.dtype, device or other.device, requires_grad)


def empty_like(other: Tensor, dtype: Any = None, requires_grad: bool = False, device: Any = None) -> Tensor:
    kind, place = dtype or other.dtype, device or other.device
    return empty(other.shape, dtype=kind, device=place, requires_grad=requires_grad)


def full_like(
    other: Tensor, value: Any, dtype: Any = None, requires_grad: bool = False, device: Any = None
) -> Tensor:
    return _filled(other.shape, value, dtype or other.dtype, device or other.device, requires_grad)


def _brought(array: np.ndarray, device: Any) -> Tensor:
    return Tensor._make(storage.moved(array, storage.wanted_device(device)))


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None, device: Any = None) -> Tensor:
    """start, start + step, … below stop: int64 for integers, float32 otherwise."""
    first, last = (0, start) if stop is None else (start, stop)
    if dtype is None and any(isinstance(v, float) for v in (first, last, step)):
        dtype = float32
    array = np.arange(first, last, step)
    return _brought(array.astype(as_stored_dtype(dtype or "int64").numpy, copy=False), device)


def linspace(start: float, stop: float, count: int, dtype: Any = float32, device: Any = None) -> Tensor:
    """`count` evenly spaced values from `start` to `stop`, both included."""
    return _brought(np.linspace(start, stop, count).astype(as_stored_dtype(dtype).numpy), device)


def eye(rows: int, columns: int | None = None, dtype: Any = float32, device: Any = None) -> Tensor:
    return _brought(np.eye(rows, columns, dtype=as_stored_dtype(dtype).numpy), device)


__all__ = [
    "arange", "as_tensor", "empty", "empty_like", "eye", "from_dlpack", "from_numpy", "full", "full_like",
    "linspace", "ones", "ones_like", "tensor", "zeros", "zeros_like",
]  # fmt: skip
