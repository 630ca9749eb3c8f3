"""DLPack for floats that NumPy's own lacks: handed over as integers, the dtype in the capsule rewritten.

A capsule holds a pointer to a struct of C's, behind whose head there is

    void *data; {int32 type, ordinal} device; int32 rank; {uint8 code, uint8 bits, uint16 lanes} dtype; …
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from tilewright.errors import DTypeError

UINT = 1
CODES = {"bfloat16": 4, "float8_e4m3fn": 10, "float8_e5m2": 12}
"""DLPack's numbers of the floats that NumPy has no letter for, by name."""
_HEADS = {b"dltensor": 0, b"dltensor_versioned": 32}
"""Capsules by name, and the bytes that their structs begin with."""
_DTYPE_AT = 20

_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)


def narrow_float(code: int, bits: int) -> np.dtype | None:
    """NumPy's dtype of one of DLPack's floats that NumPy lacks, None of another."""
    name = next((name for name, number in CODES.items() if number == code), None)
    if name is None:
        return None
    import ml_dtypes

    found = np.dtype(getattr(ml_dtypes, name))
    return found if 8 * found.itemsize == bits else None


def capsule(array: np.ndarray, **keywords: Any) -> Any:
    """A DLPack capsule over the memory of an array on the CPU."""
    code = CODES.get(array.dtype.name)
    if code is None:
        return array.__dlpack__(**keywords)
    made = array.view(f"u{array.itemsize}").__dlpack__(**keywords)
    _dtype_of(made)[0] = code
    return made


def array_of(source: Any) -> np.ndarray:
    """Another library's array on the CPU, sharing memory. Raises `DTypeError`."""
    shared = _AsIntegers(source)
    try:
        array = np.from_dlpack(shared)
    except RuntimeError:  # NumPy's, for a dtype that it lacks
        code, bits = shared.told
        raise DTypeError(f"an array of DLPack's dtype ({code}, {bits} bits) cannot be a tensor") from None
    return array if shared.dtype is None else array.view(shared.dtype)


class _AsIntegers:
    """An array whose floats, where NumPy lacks them, are the integers of their bits."""

    def __init__(self, source: Any):
        self.source = source
        self.dtype: np.dtype | None = None
        self.told = (UINT, 8)

    def __dlpack_device__(self) -> Any:
        return self.source.__dlpack_device__()

    def __dlpack__(self, **keywords: Any) -> Any:
        given = self.source.__dlpack__(**keywords)
        place = _dtype_of(given)
        self.told = place[0], place[1]
        self.dtype = narrow_float(*self.told)
        if self.dtype is not None:
            place[0] = UINT
        return given


def _dtype_of(given: Any) -> Any:
    """The bytes of a fresh capsule that say the dtype: its code and its bits."""
    name = next((name for name in _HEADS if _is_valid(given, name)), None)
    if name is None:
        raise BufferError("this DLPack capsule was used before, or is of a version that is not known here")
    return (ctypes.c_uint8 * 2).from_address(_pointer(given, name) + _HEADS[name] + _DTYPE_AT)
