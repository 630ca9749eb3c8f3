"""`x[index]`: slices are views; arrays, lists and masks of indices select copies, and so do their gradients.

What arrays of indices select is found by NumPy once, on the numbers of the elements (or of the rows, if one
array indexes the first dimension); reading there is an op, so its gradient adds up where an index repeats.
Indices that lie on a device come to the CPU for that, and are waited for.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from tilewright.dsl import language
from tilewright.dsl.axes import TileSpec
from tilewright.dsl.dtypes import stored
from tilewright.errors import ShapeError
from tilewright.op import storage
from tilewright.op.traced import TracedOp
from tilewright.runtime.devices import Array
from tilewright.tensor.families import convert, made_op
from tilewright.tensor.record import Shape, Value, call
from tilewright.tensor.views import Reshape, Slice, View, apply_view


class OutOfRange(ShapeError, IndexError):
    """An index out of range, or of another shape than what it indexes."""


def basic_index(index: Any, rank: int) -> tuple[Any, ...] | None:
    """The index as a tuple with one `...`, or None if it holds arrays, lists or masks."""
    parts = index if isinstance(index, tuple) else (index,)
    for part in parts:
        integer = isinstance(part, (int, np.integer)) and not isinstance(part, bool)
        if not (integer or part is None or part is Ellipsis or isinstance(part, slice)):
            return None
    count = sum(part is not None and part is not Ellipsis for part in parts)
    if count > rank or sum(part is Ellipsis for part in parts) > 1:
        raise ShapeError(f"index {index!r} does not fit a tensor of {rank} dimensions")
    return parts if any(part is Ellipsis for part in parts) else (*parts, ...)


def sliced(index: tuple[Any, ...], shape: Shape) -> View:
    """The view that a basic index is. Raises `OutOfRange`."""
    before = [p for p in index[: index.index(Ellipsis)] if p is not None]
    after = [p for p in index[index.index(Ellipsis) + 1 :] if p is not None]
    pairs = [*enumerate(before), *((d - len(after) + len(shape), p) for d, p in enumerate(after))]
    for dimension, part in pairs:
        if not isinstance(part, slice) and not -shape[dimension] <= part < shape[dimension]:
            error = ShapeError(f"index {part} is out of range for dimension {dimension} of shape {shape}")
            raise OutOfRange(str(error))
    return Slice(index)


def as_arrays(index: Any) -> Any:
    """An index with arrays in the place of Tensors."""
    if isinstance(index, tuple):
        return tuple(as_arrays(part) for part in index)
    return storage.host(index._array) if isinstance(index, Value) else index


def taken(array: np.ndarray, index: Any) -> np.ndarray:
    """`array[index]` for arrays, lists and masks. Raises `OutOfRange`."""
    try:
        return np.asarray(array[index])
    except IndexError as error:
        raise OutOfRange(f"x[index] of a tensor of shape {array.shape}: {error}") from None


def selected(value: Value, index: Any) -> Any:
    """The elements of a Tensor at an index of arrays, lists or masks, by an op that the tape records."""
    shape, index = value._array.shape, as_arrays(index)
    first = index[0] if isinstance(index, tuple) and len(index) == 1 else index
    if not isinstance(first, tuple) and np.asarray(first).dtype.kind in "iu":
        numbers = taken(np.arange(shape[0] if shape else 0), first)
        rest = shape[1:]
        rows = apply_view(value, Reshape((shape[0], math.prod(rest))))
        found = call(reading(("n", "d")), (rows, _beside(value._array, numbers)))[0]
        return apply_view(found, Reshape((*numbers.shape, *rest)))
    numbers = taken(np.arange(value._array.size).reshape(shape), index)
    elements = apply_view(value, Reshape((value._array.size,)))
    found = call(reading(("n",)), (elements, _beside(value._array, numbers)))[0]
    return apply_view(found, Reshape(numbers.shape))


def _beside(array: Any, numbers: np.ndarray) -> Any:
    """Numbers of elements, in one dimension, on the device of the array that they are of."""
    return storage.moved(numbers.reshape(-1), storage.device_of(array))


@functools.cache
def reading(axes: tuple[str, ...]) -> TracedOp:
    """The op that reads an operand of these axes at computed positions along n."""

    def read(x: Any, i: Any) -> Any:
        return x.at(n=i)

    return made_op(read, "read", {"x": TileSpec(axes, False), "i": TileSpec(("m",), False)})


# --- writing ----------------------------------------------------------------------------------------------


def write(array: Any, value: Any) -> None:
    """`array[...] = value`, wherever both lie: broadcast and converted. Raises `ShapeError`."""
    if not isinstance(array, Array):
        storage.write(array, value if isinstance(value, Array) else np.asarray(value))
        return
    if not isinstance(value, Array):
        value = np.asarray(value).astype(array.dtype, copy=False)
    elif value.dtype != array.dtype:
        there = Value.kind._make(storage.moved(value, array.device))
        value = call(convert, (there,), constants={"dtype": stored(there._array)})[0]._array
    storage.write(array, value)


def assign(array: Any, index: Any, value: Any) -> None:
    """`array[index] = value`: basic indices, arrays, lists and masks of them."""
    if not isinstance(array, Array):
        value, places = storage.host(value) if isinstance(value, Array) else value, as_arrays(index)
        whole = isinstance(value, np.ndarray) and value.size == 1
        array[places] = value.reshape(()) if whole else value  # for one element, ml_dtypes takes no other
        return
    plain = basic_index(index, array.ndim)
    if plain is not None:
        there: Any = array
        write(sliced(plain, array.shape).array(there), value)
        return
    # Where each element comes from: the last value that is written there, or -1 for itself.
    sources = np.full(math.prod(array.shape), -1)
    numbers = taken(np.arange(sources.size).reshape(array.shape), as_arrays(index))
    sources[numbers.reshape(-1)] = np.arange(numbers.size)
    values = storage.empty(numbers.shape, array.dtype, array.device)
    write(values, value)
    given = (storage.in_order(array), values, storage.moved(sources.reshape(array.shape), array.device))
    flat = tuple(Value.kind._make(each.reshape(each.size)) for each in given)
    storage.write(array, call(replacing(), flat)[0]._array.reshape(array.shape))


@functools.cache
def replacing() -> TracedOp:
    """The op that gives x, with v at the positions s where those are not negative."""

    def replace(x: Any, v: Any, s: Any) -> Any:
        return language.where(s >= 0, v.at(m=s), x)

    axes = {"x": ("n",), "v": ("m",), "s": ("n",)}
    return made_op(replace, "replace", {name: TileSpec(axis, False) for name, axis in axes.items()})
