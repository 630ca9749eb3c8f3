"""Views: Tensors that show another one's memory under another shape.

A view and its transpose (how its gradient returns) are views again, or the sum that undoes a repetition, so
that the set is closed: Reshape ↔ Reshape, Permute ↔ Permute, Repeat ↔ SumTo, Slice ↔ Place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.autograd.tape import Node, Source, mode
from tilewright.dsl.dtypes import of_array
from tilewright.op import storage
from tilewright.runtime.devices import Array, Device
from tilewright.tensor.families import copied, over_last_axes
from tilewright.tensor.record import Shape, Value, Version, on_array

LARGE = 64 << 10  # bytes: from here on a kernel copies faster than NumPy what does not lie in order


def in_order(array: np.ndarray) -> np.ndarray:
    """A C-contiguous copy."""
    on_device = isinstance(array, Array)
    if on_device or array.flags.c_contiguous or not _is_large(array) or of_array(array) is None:
        return storage.copied(array)
    return copied(array)


def _is_large(array: np.ndarray) -> bool:
    return array.size * array.itemsize >= LARGE


class View:
    """A linear map that moves or repeats elements."""

    def array(self, array: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def transposed(self, shape: Shape) -> View:
        """The map that brings gradients back to an operand of this shape."""
        raise NotImplementedError

    def shares_memory(self, before: np.ndarray, after: np.ndarray) -> bool:
        return True


@dataclass(frozen=True)
class Reshape(View):
    shape: Shape

    def array(self, array: np.ndarray) -> np.ndarray:
        if array.flags.c_contiguous or not _is_large(array) or isinstance(array, Array):
            return storage.reshaped(array, self.shape)
        try:
            return np.reshape(array, self.shape, copy=False)
        except (ValueError, TypeError):  # no view has this shape, or NumPy is too old to say so
            return in_order(array).reshape(self.shape)

    def transposed(self, shape: Shape) -> View:
        return Reshape(shape)

    def shares_memory(self, before: np.ndarray, after: np.ndarray) -> bool:
        return before.flags.c_contiguous or storage.may_share_memory(before, after)


@dataclass(frozen=True)
class Permute(View):
    axes: tuple[int, ...]

    def array(self, array: np.ndarray) -> np.ndarray:
        return array.transpose(self.axes)

    def transposed(self, shape: Shape) -> View:
        inverse = [0] * len(self.axes)
        for position, axis in enumerate(self.axes):
            inverse[axis] = position
        return Permute(tuple(inverse))


@dataclass(frozen=True)
class Repeat(View):
    """Repeated as NumPy broadcasts."""

    shape: Shape

    def array(self, array: np.ndarray) -> np.ndarray:
        return storage.broadcast(array, self.shape)

    def transposed(self, shape: Shape) -> View:
        return SumTo(shape)


@dataclass(frozen=True)
class SumTo(View):
    """Summed along the axes that `shape` lacks or has with extent 1."""

    shape: Shape

    def array(self, array: np.ndarray) -> np.ndarray:
        over = repeated_axes(self.shape, array.shape)
        if not over:
            return storage.reshaped(array, self.shape)
        kept = tuple(a for a in range(array.ndim) if a not in over)
        return on_array(over_last_axes("sum", len(over)), array.transpose(kept + over)).reshape(self.shape)

    def transposed(self, shape: Shape) -> View:
        return Repeat(shape)

    def shares_memory(self, before: np.ndarray, after: np.ndarray) -> bool:
        return before.size == after.size


@dataclass(frozen=True)
class Slice(View):
    """Basic indexing: integers, slices, None, and one `...` (so that an element is a 0-d view as well)."""

    index: tuple[Any, ...]

    def array(self, array: np.ndarray) -> np.ndarray:
        return array[self.index]

    def transposed(self, shape: Shape) -> View:
        return Place(self.index, shape)


@dataclass(frozen=True)
class Place(View):
    """Zeros of `shape` with the elements put where `index` points."""

    index: tuple[Any, ...]
    shape: Shape

    def array(self, array: np.ndarray) -> np.ndarray:
        placed = storage.filled(self.shape, 0, array.dtype, storage.device_of(array))
        storage.write(placed[self.index], array)
        return placed

    def transposed(self, shape: Shape) -> View:
        return Slice(self.index)

    def shares_memory(self, before: np.ndarray, after: np.ndarray) -> bool:
        return False


@dataclass(frozen=True)
class Copy(View):
    """The same elements in memory of their own."""

    def array(self, array: np.ndarray) -> np.ndarray:
        return in_order(array)

    def transposed(self, shape: Shape) -> View:
        return Reshape(shape)

    def shares_memory(self, before: np.ndarray, after: np.ndarray) -> bool:
        return False


@dataclass(frozen=True)
class Move(View):
    """The same elements on another device."""

    target: Device
    source: Device
    non_blocking: bool = False

    def array(self, array: np.ndarray) -> np.ndarray:
        return storage.moved(array, self.target, self.non_blocking)

    def transposed(self, shape: Shape) -> View:
        return Move(self.source, self.target)

    def shares_memory(self, before: np.ndarray, after: np.ndarray) -> bool:
        return False


def repeated_axes(small: Shape, large: Shape) -> tuple[int, ...]:
    """The axes of `large` along which a tile of the shape `small` is repeated."""
    missing = len(large) - len(small)
    return tuple(
        axis
        for axis, extent in enumerate(large)
        if axis < missing or (small[axis - missing] == 1 and extent != 1)
    )


class ViewNode(Node):
    """A recorded view; `back` brings its gradient to the operand."""

    __slots__ = ("back",)

    def __init__(self, source: Source, back: View):
        super().__init__((source,))
        self.back = back

    @property
    def name(self) -> str:
        return f"the transpose of {type(self.back).__name__.lower()}"

    def backward(self, cotangents: Mapping[int, Any], record: bool) -> Sequence[Any]:
        if record:
            return (apply_view(cotangents[0], self.back),)
        return (self.back.array(cotangents[0]),)

    def is_fresh(self, position: int) -> bool:
        return isinstance(self.back, (Place, Move))


def apply_view(value: Value, view: View) -> Any:
    """A view of a Tensor, recorded where the Tensor is."""
    before = value._array
    after = view.array(before)
    version = value._version if view.shares_memory(before, after) else Version()
    origin = value._origin
    if origin is None or not mode.recording:
        return Value.kind._make(after, version)
    node = ViewNode((origin, value._result), view.transposed(before.shape))
    return Value.kind._make(after, version, node)
