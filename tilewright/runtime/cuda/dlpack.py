"""Sharing device memory with other libraries without a copy: DLPack capsules, and the CUDA array interface.

A capsule holds a pointer to a struct of C's; `capsule` writes one, `array_of` reads one. Whoever takes a
capsule renames it, so that it is taken once, and calls the struct's deleter when it needs the memory no more.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from tilewright.errors import ArgumentError, DTypeError
from tilewright.runtime.cuda import cards
from tilewright.runtime.cuda.arrays import Borrowed, DeviceArray, array_type, contiguous_strides
from tilewright.runtime.cuda.streams import Stream, stream_of
from tilewright.runtime.dlpack import CODES, narrow_float

CUDA = 2
"""DLPack's number of the kind of device."""
LEGACY_DEFAULT, NO_STREAM = 1, -1
FRESH, TAKEN = b"dltensor", b"used_dltensor"
INT, UINT, FLOAT, COMPLEX, BOOL = 0, 1, 2, 5, 6
_CODES = {"i": INT, "u": UINT, "f": FLOAT, "c": COMPLEX, "b": BOOL}


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("ordinal", ctypes.c_int32))


class _DType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("rank", ctypes.c_int32),
        ("dtype", _DType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))
_Destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

_api = ctypes.PyDLL(None)
_new = _api.PyCapsule_New
_new.restype, _new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, _Destructor)
_pointer = _api.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
_is_valid = _api.PyCapsule_IsValid
_is_valid.restype, _is_valid.argtypes = ctypes.c_int, (ctypes.py_object, ctypes.c_char_p)
_rename = _api.PyCapsule_SetName
_rename.restype, _rename.argtypes = ctypes.c_int, (ctypes.py_object, ctypes.c_char_p)
# The same functions for a capsule that is being destroyed, which must not be counted again.
_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_valid_of = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)

_lent: dict[int, Any] = {}
"""What capsules point to, and the memory that it describes, by the struct's address."""


# --- giving -----------------------------------------------------------------------------------------------


def capsule(array: DeviceArray, stream: int | None) -> Any:
    """A DLPack capsule over an array's memory, ready for work on the consumer's stream."""
    if stream != NO_STREAM:
        handle = 0 if stream in (None, LEGACY_DEFAULT) else stream
        array.allocation.read_on(Stream.of(handle, array.ordinal))
    rank = array.ndim
    extents, steps = ctypes.c_int64 * rank, ctypes.c_int64 * rank
    shape = extents(*array.shape)
    strides = steps(*(stride // array.itemsize for stride in array.strides))
    managed = _Managed()
    described = managed.tensor
    described.data = array.address if array.size else None
    described.device = _Device(CUDA, array.ordinal)
    described.rank = rank
    code = CODES.get(array.dtype.name)
    described.dtype = _DType(_CODES[array.dtype.kind] if code is None else code, 8 * array.itemsize, 1)
    described.shape = ctypes.cast(shape, ctypes.POINTER(ctypes.c_int64))
    described.strides = ctypes.cast(strides, ctypes.POINTER(ctypes.c_int64))
    managed.deleter = _forget
    address = ctypes.addressof(managed)
    _lent[address] = (managed, shape, strides, array)
    return _new(address, FRESH, _drop)


@_Deleter
def _forget(managed: Any) -> None:
    """The consumer needs the memory no more."""
    _lent.pop(ctypes.addressof(managed.contents), None)


@_Destructor
def _drop(address: int) -> None:
    """A capsule dies; if nobody took it, what it points to does as well."""
    if _valid_of(address, FRESH):
        _lent.pop(_pointer_of(address, FRESH), None)


# --- taking -----------------------------------------------------------------------------------------------


def array_of(source: Any) -> DeviceArray:
    """Another library's array on a device, sharing memory. Raises `ArgumentError` or `DTypeError`."""
    if hasattr(source, "__dlpack__") and hasattr(source, "__dlpack_device__"):
        return _from_dlpack(source)
    return _from_interface(source)


def _from_dlpack(source: Any) -> DeviceArray:
    kind, ordinal = (int(part) for part in source.__dlpack_device__())
    if kind != CUDA:
        raise ArgumentError(f"this memory is on a device of DLPack's kind {kind}; only CUDA's is shared")
    stream = stream_of(cards.card(ordinal))
    taken = source.__dlpack__(stream=stream.handle or LEGACY_DEFAULT)
    if not _is_valid(taken, FRESH):
        raise ArgumentError("this DLPack capsule was used before, or is of a version that is not known here")
    managed = ctypes.cast(_pointer(taken, FRESH), ctypes.POINTER(_Managed))
    _rename(taken, TAKEN)
    found = managed.contents.tensor
    shape = tuple(found.shape[n] for n in range(found.rank))
    dtype = _dtype(found.dtype.code, found.dtype.bits, found.dtype.lanes)
    strides = contiguous_strides(shape, dtype.itemsize)
    if found.strides:
        strides = tuple(found.strides[n] * dtype.itemsize for n in range(found.rank))

    def release() -> None:
        if managed.contents.deleter:
            managed.contents.deleter(managed)

    return _array((found.data or 0) + found.offset, shape, dtype, strides, stream, release)


def _dtype(code: int, bits: int, lanes: int) -> np.dtype:
    """NumPy's dtype for one of DLPack's. Raises `DTypeError`."""
    narrow = narrow_float(code, bits)
    if lanes == 1 and narrow is not None:
        return narrow
    if lanes == 1 and (code, bits) == (BOOL, 8):
        return np.dtype(np.bool_)
    letter = {INT: "i", UINT: "u", FLOAT: "f", COMPLEX: "c"}.get(code)
    try:
        if lanes == 1 and letter is not None:
            return np.dtype(f"{letter}{bits // 8}")
    except TypeError:
        pass
    raise DTypeError(f"an array of DLPack's dtype ({code}, {bits} bits, {lanes} lanes) cannot be a tensor")


def _from_interface(source: Any) -> DeviceArray:
    told = source.__cuda_array_interface__
    if told.get("mask") is not None:
        raise ArgumentError("an array with a mask cannot be a tensor, which would not see it")
    address, readonly = told["data"]
    shape, dtype = tuple(told["shape"]), np.dtype(told["typestr"])
    strides = tuple(told.get("strides") or contiguous_strides(shape, dtype.itemsize))
    stream = stream_of(cards.card(_ordinal_of_address(address)))
    writer = told.get("stream")
    if writer is not None:
        other = Stream.of(0 if writer == LEGACY_DEFAULT else writer, stream.card.ordinal)
        if other is not stream:
            stream.wait(other)
    made = _array(address, shape, dtype, strides, stream, lambda: source)  # which keeps the source alive
    made.writeable = not readonly
    return made


def _ordinal_of_address(address: int) -> int:
    """The device that an address is of."""
    from tilewright.runtime.cuda.driver import bindings, check

    driver = bindings()
    cards.card(cards.current_device()).activate()
    attribute = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    return int(check(driver.cuPointerGetAttribute(attribute, address), "asking whose an address is"))


def _array(
    address: int,
    shape: tuple[int, ...],
    dtype: np.dtype,
    strides: tuple[int, ...],
    stream: Stream,
    release: Any,
) -> DeviceArray:
    """Another library's memory as an array; strides that are no whole elements are refused."""
    if any(stride % dtype.itemsize for stride in strides):
        raise ArgumentError(f"an array of {dtype} with the strides {strides} in bytes cannot be a tensor")
    ordinal = stream.card.ordinal
    seen = array_type(ordinal)(None, address, shape, dtype, strides)  # type: ignore[arg-type]
    low, high = seen.bounds
    seen.allocation = Borrowed(low, high - low, stream, release)
    return seen
