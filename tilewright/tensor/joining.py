"""Tensors cut into parts along a dimension, and put together again.

Either is the other's transpose: the gradients of parts are put together, that of a whole is cut. Parts keep
the dimension (`split`, `cat`) or are one position each and lack it (`unbind`, `stack`).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.autograd.tape import Node, Source, mode
from tilewright.dsl.dtypes import DType, complex64, complex128, float64, promote, stored
from tilewright.errors import ArgumentError, ShapeError
from tilewright.op import storage
from tilewright.tensor.operators import convert
from tilewright.tensor.record import Shape, Value, Version


@dataclass(frozen=True)
class Cut:
    """How a whole of `shape` consists of parts along `dim`: their extents, None for positions alone."""

    shape: Shape
    dim: int
    sizes: tuple[int, ...] | None

    def part(self, array: np.ndarray, number: int) -> np.ndarray:
        """A part of a whole, in its memory."""
        before = (slice(None),) * self.dim
        if self.sizes is None:
            return array[(*before, number, ...)]
        first = self._begins[number]
        return array[(*before, slice(first, first + self.sizes[number]))]

    @property
    def count(self) -> int:
        return self.shape[self.dim] if self.sizes is None else len(self.sizes)

    @functools.cached_property
    def _begins(self) -> tuple[int, ...]:
        return (0, *itertools.accumulate(self.sizes or ()))

    def whole(self, parts: Mapping[int, np.ndarray], dtype: Any) -> np.ndarray:
        """The parts put together; 0 where one is missing."""
        device = storage.device_of(next(iter(parts.values())))
        made = storage.empty(self.shape, dtype, device)
        for number in range(self.count):
            part = self.part(made, number)
            storage.write(part, parts[number] if number in parts else np.zeros((), dtype))
        return made


class PartsNode(Node):
    """A recorded cut into parts."""

    __slots__ = ("cut", "dtype")

    def __init__(self, source: Source, cut: Cut, dtype: Any):
        super().__init__((source,))
        self.cut, self.dtype = cut, dtype

    @property
    def name(self) -> str:
        return "unbind" if self.cut.sizes is None else "split"

    def backward(self, cotangents: Mapping[int, Any], record: bool) -> Sequence[Any]:
        if not record:
            return (self.cut.whole(cotangents, self.dtype),)
        shapes = (self.cut.part(np.broadcast_to(0, self.cut.shape), n).shape for n in range(self.cut.count))
        device = storage.device_of(next(iter(cotangents.values()))._array)
        zeros = (Value.kind._make(storage.repeated(0, shape, self.dtype, device)) for shape in shapes)
        return (joined([cotangents.get(n, zero) for n, zero in enumerate(zeros)], self.cut),)

    def is_fresh(self, position: int) -> bool:
        return True


class JoinNode(Node):
    """A recorded whole of parts."""

    __slots__ = ("cut",)

    def __init__(self, sources: Sequence[Source | None], cut: Cut):
        super().__init__(sources)
        self.cut = cut

    @property
    def name(self) -> str:
        return "stack" if self.cut.sizes is None else "cat"

    def backward(self, cotangents: Mapping[int, Any], record: bool) -> Sequence[Any]:
        whole = cotangents[0]
        if record:
            return parts_of(whole, self.cut)
        return [self.cut.part(whole, n) for n in range(self.cut.count)]


def parts_of(value: Value, cut: Cut) -> tuple[Any, ...]:
    """The parts of a Tensor as views, recorded where the Tensor is."""
    array, version, source = value._array, value._version, value._source
    node = PartsNode(source, cut, array.dtype) if source is not None and mode.recording else None
    return tuple(Value.kind._make(cut.part(array, n), version, node, n) for n in range(cut.count))


def joined(values: Sequence[Value], cut: Cut) -> Any:
    """Tensors of one dtype put together, recorded where one of them is."""
    whole = cut.whole(dict(enumerate(v._array for v in values)), values[0]._array.dtype)
    sources = [value._source for value in values]
    recorded = mode.recording and any(source is not None for source in sources)
    return Value.kind._make(whole, Version(), JoinNode(sources, cut) if recorded else None)


# --- as users call it -----------------------------------------------------------------------------------


def unbind(value: Value, dim: int = 0) -> tuple[Any, ...]:
    """x[0], x[1], … along `dim`, as views: `tw.unbind(x)` is `tuple(x)` whose gradients are joined once."""
    return parts_of(value, Cut(value._array.shape, _dimension("unbind", dim, value._array.ndim), None))


def split(value: Value, split_size: int | Sequence[int], dim: int = 0) -> tuple[Any, ...]:
    """Views of so many positions each along `dim`, the last one shorter; or of the extents listed."""
    dim = _dimension("split", dim, value._array.ndim)
    extent = value._array.shape[dim]
    if isinstance(split_size, int):
        if split_size <= 0:
            raise ArgumentError(f"split: parts have 1 position or more, not {split_size}")
        begins = range(0, max(extent, 1), split_size)
        sizes = tuple(min(split_size, extent - begin) for begin in begins)
    else:
        sizes = tuple(split_size)
    if sum(sizes) != extent or min(sizes, default=0) < 0:
        raise ShapeError(f"split: parts of {list(sizes)} positions do not add up to the {extent} there are")
    return parts_of(value, Cut(value._array.shape, dim, sizes))


def cat(tensors: Sequence[Any], dim: int = 0) -> Any:
    """Tensors one after the other along `dim`, in the dtype in which they meet."""
    values = _values("cat", tensors)
    shapes = [value._array.shape for value in values]
    dim = _dimension("cat", dim, len(shapes[0]))
    if any(s[:dim] + s[dim + 1 :] != shapes[0][:dim] + shapes[0][dim + 1 :] for s in shapes):
        raise ShapeError(f"cat along dimension {dim}: the other extents differ in the shapes {shapes}")
    sizes = tuple(shape[dim] for shape in shapes)
    return joined(values, Cut((*shapes[0][:dim], sum(sizes), *shapes[0][dim + 1 :]), dim, sizes))


def stack(tensors: Sequence[Any], dim: int = 0) -> Any:
    """Tensors of one shape side by side along a new dimension `dim`."""
    values = _values("stack", tensors)
    shapes = [value._array.shape for value in values]
    if any(shape != shapes[0] for shape in shapes):
        raise ShapeError(f"stack: the tensors have one shape, not {sorted(set(shapes))}")
    dim = _dimension("stack", dim, len(shapes[0]) + 1)
    return joined(values, Cut((*shapes[0][:dim], len(values), *shapes[0][dim:]), dim, None))


def _values(what: str, tensors: Sequence[Any]) -> list[Any]:
    if not tensors:
        raise ArgumentError(f"{what} needs a tensor")
    for tensor in tensors:
        if not isinstance(tensor, Value):
            raise ArgumentError(f"{what} takes a list of Tensors, not of {type(tensor).__qualname__}")
    storage.common_target(what, [(f"tensor {n}", each._array, True) for n, each in enumerate(tensors)])
    dtypes = [dtype for tensor in tensors if (dtype := stored(tensor._array)) is not None]
    meeting = functools.reduce(_meeting, dtypes)
    return [convert(tensor, meeting) for tensor in tensors]


def _meeting(first: DType, second: DType) -> DType:
    if not (first.is_complex or second.is_complex):
        return promote(first, second)
    return complex128 if float64 in (first.real, second.real) else complex64


def _dimension(what: str, dim: int, rank: int) -> int:
    if not -rank <= dim < rank:
        raise ShapeError(f"{what}: there is no dimension {dim} in a tensor of {rank} dimensions")
    return dim % rank
