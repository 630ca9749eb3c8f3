"""Where an array's first element lies, without NumPy's detour: its array interface costs a microsecond.

NumPy's C interface fixes that the pointer to the data is the first field of an array, behind the object's
head. Interpreters where that is not so are found out once, and asked by the array interface.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

import numpy as np

HEAD = object.__basicsize__
"""Bytes of an object before its own fields."""

_word_at = ctypes.c_size_t.from_address


def _slowly(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def _quickly(array: np.ndarray) -> int:
    return _word_at(id(array) + HEAD).value


def _agree() -> bool:
    """Whether both ways give the same for arrays of several kinds."""
    if sys.implementation.name != "cpython":
        return False
    whole = np.arange(6.0).reshape(2, 3)
    samples = (whole, whole[1], whole[:, ::-1], np.empty(()), np.empty((0, 3)), whole.view(np.int8))
    return all(_quickly(a) == _slowly(a) for a in samples)


LIES_IN_FIELD = _agree()
"""Whether the address of an array's elements lies `HEAD` bytes behind where the array does."""

address: Callable[[np.ndarray], int] = _quickly if LIES_IN_FIELD else _slowly
"""The address of an array's first element (the one with index 0, 0, …)."""
