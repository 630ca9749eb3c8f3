"""Copies on a device between arrays of one dtype that lie in any way: a Program that reads and writes."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tilewright.compiler.pipeline import compile_program
from tilewright.dsl.dtypes import of_array
from tilewright.dsl.program import Param, Program, Read, Result
from tilewright.errors import InternalError
from tilewright.runtime.cuda import arrays as device_arrays
from tilewright.runtime.cuda.arrays import DeviceArray

HALVES = {np.dtype(np.complex64): np.dtype(np.float32), np.dtype(np.complex128): np.dtype(np.float64)}


def copy(target: DeviceArray, source: DeviceArray) -> None:
    """The elements of `source` into `target`, which has its shape, dtype and device.

    All of `source` is read as it was before.
    """
    if (target.shape, target.dtype, target.device) != (source.shape, source.dtype, source.device):
        raise InternalError(f"{source!r} cannot be copied into {target!r}")
    if not target.size or (target.address, target.strides) == (source.address, source.strides):
        return
    if target.is_contiguous and source.is_contiguous and not target.may_share_memory(source):
        target.copy_bytes(source)
        return
    if target.dtype in HALVES:
        target, source = _halves(target), _halves(source)
    shape, (to, of) = merged(target.shape, target.strides, source.strides)
    program = _program(len(shape), of_array(target))  # type: ignore[arg-type]
    executable: Any = compile_program(program, f"cuda:{target.ordinal}")
    executable.run({"x": source.laid_out(shape, of)}, None, (target.laid_out(shape, to),))


def in_order(array: DeviceArray) -> DeviceArray:
    """A C-contiguous copy."""
    made = device_arrays.empty(array.shape, array.dtype, ordinal=array.ordinal)
    copy(made, array)
    return made


def _halves(array: DeviceArray) -> DeviceArray:
    """Complex numbers as real ones along one dimension more."""
    real = HALVES[array.dtype]
    return array.laid_out((*array.shape, 2), (*array.strides, real.itemsize), real)


def merged(
    shape: tuple[int, ...], *strides: tuple[int, ...]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """The shape and the strides in which neighbouring dimensions that lie as one in all arrays are one.

    >>> merged((2, 3, 4), (48, 16, 4), (100, 16, 4))
    ((2, 12), [(48, 4), (100, 4)])
    """
    dims = [(e, steps) for e, *steps in zip(shape, *strides, strict=True) if e != 1]
    joined: list[tuple[int, list[int]]] = []
    for extent, steps in dims:
        if joined and all(a == b * extent for a, b in zip(joined[-1][1], steps, strict=True)):
            joined[-1] = (joined[-1][0] * extent, steps)
        else:
            joined.append((extent, steps))
    columns = [tuple(steps[n] for _, steps in joined) for n in range(len(strides))]
    return tuple(extent for extent, _ in joined), columns


@functools.cache
def _program(rank: int, dtype) -> Program:
    axes = tuple(f"a{position}" for position in range(rank))
    return Program("copy", (Param("x", axes, dtype),), (Result("y", Read("x", axes, dtype), axes),))
