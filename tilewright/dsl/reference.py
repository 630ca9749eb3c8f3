"""The float64 meaning of a Program, by NumPy: the oracle of every test.

Floating-point values are computed in float64 whatever their dtype says; integers and bool in their own dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tilewright.dsl.axes import base, union
from tilewright.dsl.dtypes import DType, as_dtype
from tilewright.dsl.expression import Expr
from tilewright.dsl.extents import bind_extents
from tilewright.dsl.program import (
    At,
    Cast,
    Const,
    Index,
    Map,
    Node,
    Order,
    Program,
    Read,
    Reduce,
    Scan,
    Scatter,
    Size,
    combine_identity,
    topological,
)
from tilewright.dsl.scalars import SCALARS, ScalarFunction
from tilewright.dsl.scans import LEFT, Body, placeholder
from tilewright.errors import InternalError

_UFUNCS = {
    "sum": np.add,
    "prod": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
    "any": np.logical_or,
    "all": np.logical_and,
}


Disturb = Callable[[Node, np.ndarray], np.ndarray]
"""Takes each value as it is computed and gives what to go on with: what rounding does can be seen with it."""


def reference(
    program: Program, arguments: Mapping[str, Any], disturb: Disturb | None = None
) -> tuple[np.ndarray, ...]:
    """The results of a Program for these operands, in float64 where they are floating-point.

    Exact up to float64 rounding; half-precision narrowing is not applied. What `disturb` changes in the steps
    of a scan goes on into all later ones. Raises `ShapeError` on extents that disagree.
    """
    arrays = {p.name: _widen(arguments[p.name], p.dtype) for p in program.params}
    extents = bind_extents(program, {p.name: arrays[p.name].shape for p in program.tiles})
    evaluator = _Evaluator(arrays, extents, disturb)
    with np.errstate(all="ignore"):
        return tuple(evaluator.result(r.node, r.axes) for r in program.results)


def value_of_expansion(row: ScalarFunction, operands: tuple[Any, ...]) -> np.ndarray:
    """What a row's `expand` gives for arrays of one dtype that broadcast."""
    assert row.expand is not None
    arrays = np.broadcast_arrays(*operands)
    dtype = as_dtype(arrays[0].dtype)
    reads = tuple(Read(f"x{n}", ("i",), dtype) for n in range(row.arity))
    flat = {f"x{n}": array.reshape(-1) for n, array in enumerate(arrays)}
    evaluator = _Evaluator(flat, {"i": arrays[0].size})
    return evaluator.evaluate(row.expand(*map(Expr, reads)).node).reshape(arrays[0].shape)


def _widen(value: Any, dtype: Any) -> np.ndarray:
    return np.asarray(value).astype(np.float64 if dtype.is_float else dtype.numpy)


class _Evaluator:
    """Evaluates nodes to arrays whose dimensions are the node's axes, in the node's order."""

    def __init__(
        self, arrays: Mapping[str, np.ndarray], extents: Mapping[str, int], disturb: Disturb | None = None
    ):
        self.arrays = arrays
        self.extents = extents
        self.disturb = disturb
        self.values: dict[Node, np.ndarray] = {}
        self.scans: dict[tuple, tuple[np.ndarray, ...]] = {}

    def result(self, node: Node, axes: tuple[str, ...]) -> np.ndarray:
        value = self._align(self.evaluate(node), node.axes, axes)
        return np.ascontiguousarray(np.broadcast_to(value, [self._extent(a) for a in axes])).reshape(
            [self._extent(a) for a in axes]
        )

    def evaluate(self, root: Node) -> np.ndarray:
        for node in topological([root]):
            if node not in self.values:
                value = self._evaluate(node)
                self.values[node] = self.disturb(node, value) if self.disturb else value
        return self.values[root]

    def _extent(self, axis: str) -> int:
        return self.extents[base(axis)]

    def _align(self, value: np.ndarray, axes: tuple[str, ...], target: tuple[str, ...]) -> np.ndarray:
        """`value` transposed and padded with unit dimensions to the axes of `target`."""
        present = [a for a in target if a in axes]
        value = np.transpose(value, [axes.index(a) for a in present])
        return value.reshape([self._extent(a) if a in axes else 1 for a in target])

    def _evaluate(self, node: Node) -> np.ndarray:
        match node:
            case Const():
                return np.asarray(node.value, np.float64 if node.dtype.is_float else node.dtype.numpy)
            case Read():
                return self._read(node)
            case Index():
                return np.arange(self._extent(node.axis), dtype=np.int64)
            case Size():
                return np.asarray(self._extent(node.axis), np.int64)
            case Cast():
                return _converted(self.values[node.arg], node.dtype)
            case Map():
                operands = [self._align(self.values[a], a.axes, node.axes) for a in node.operands]
                return self._map(node, operands)
            case Reduce():
                return self._reduce(node)
            case At():
                return self._at(node)
            case Scatter():
                return self._scatter(node)
            case Order():
                return _order(self.values[node.arg], node.arg.axes.index(node.axis), node.descending)
            case Scan():
                return self._scan(node)
        raise InternalError(f"the reference does not know the node {node!r}")

    def _read(self, node: Read) -> np.ndarray:
        value = self.arrays[node.param]
        if len(set(node.names)) == len(node.names):
            return value
        letters = {axis: chr(ord("a") + position) for position, axis in enumerate(node.axes)}
        subscripts = "".join(letters[a] for a in node.names)
        return np.einsum(f"{subscripts}->{''.join(letters[a] for a in node.axes)}", value)

    def _map(self, node: Map, operands: list[np.ndarray]) -> np.ndarray:
        value = SCALARS[node.function].numpy(*operands)
        dtype = np.float64 if node.dtype.is_float else node.dtype.numpy
        shape = [self._extent(a) for a in node.axes]
        return np.broadcast_to(np.asarray(value, dtype), shape)

    def _reduce(self, node: Reduce) -> np.ndarray:
        value = self.values[node.arg]
        positions = tuple(node.arg.axes.index(a) for a in node.over)
        identity = combine_identity(node.combine, node.dtype)
        return np.asarray(_UFUNCS[node.combine].reduce(value, axis=positions, initial=identity), value.dtype)

    def _at(self, node: At) -> np.ndarray:
        shape = [self._extent(a) for a in node.axes]
        value = self.values[node.arg]
        at = dict(zip(node.along, node.positions, strict=True))
        inside = np.ones(shape, np.bool_)
        places = []
        for axis, extent in zip(node.arg.axes, value.shape, strict=True):
            if axis not in at:
                places.append(self._align(np.arange(extent), (axis,), node.axes))
                continue
            position = self._align(self.values[at[axis]], at[axis].axes, node.axes)
            inside &= (position >= 0) & (position < extent)
            places.append(np.clip(position, 0, max(extent - 1, 0)))
        if not value.size:
            return np.zeros(shape, value.dtype)
        return np.where(inside, value[tuple(places)], value.dtype.type(0))

    def _scatter(self, node: Scatter) -> np.ndarray:
        inner = union(node.arg.axes, *(p.axes for p in node.positions))
        shape = [self._extent(a) for a in inner]
        total = np.zeros([self._extent(a) for a in node.axes], self.values[node.arg].dtype)
        inside = np.ones(shape, np.bool_)
        places = []
        for axis, extent in zip(node.axes, total.shape, strict=True):
            if axis in node.along:
                position = node.positions[node.along.index(axis)]
                place = self._align(self.values[position], position.axes, inner)
                inside &= (place >= 0) & (place < extent)
            else:
                place = self._align(np.arange(extent), (axis,), inner)
            places.append(np.broadcast_to(place, shape))
        value = np.broadcast_to(self._align(self.values[node.arg], node.arg.axes, inner), shape)
        np.add.at(total, tuple(place[inside] for place in places), value[inside])
        return total

    def _scan(self, node: Scan) -> np.ndarray:
        if node.loop not in self.scans:
            self.scans[node.loop] = self._walk(node)
        return self.scans[node.loop][node.which]

    def _walk(self, node: Scan) -> tuple[np.ndarray, ...]:
        """All values of a scan: position after position, on whole slices."""
        shape = [self._extent(a) for a in node.axes]
        along = node.axes.index(node.axis)
        operands = [
            np.moveaxis(np.broadcast_to(self._align(self.values[a], a.axes, node.axes), shape), along, 0)
            for a in node.operands
        ]
        results = [np.empty(o.shape, o.dtype) for o in operands]
        state = tuple(np.full(r.shape[1:], c.value, r.dtype) for r, c in zip(results, node.initial))  # noqa
        for position in range(shape[along])[:: -1 if node.reverse else 1]:
            before = state
            here = tuple(o[position] for o in operands)
            state = combine_arrays(node.body, state, here, self.disturb) if state else here
            for result, value in zip(results, before if node.exclusive else state, strict=True):
                result[position] = value
        return tuple(np.moveaxis(r, 0, along) for r in results)


def _order(value: np.ndarray, dimension: int, descending: bool) -> np.ndarray:
    """NumPy's stable order puts NaN last; reversed twice, equal values keep theirs when it descends."""
    if not descending:
        return np.argsort(value, axis=dimension, kind="stable").astype(np.int64)
    backwards = np.argsort(np.flip(value, dimension), axis=dimension, kind="stable")
    return np.flip(value.shape[dimension] - 1 - backwards, dimension).astype(np.int64)


def combine_arrays(
    body: Body, before: Sequence[np.ndarray], after: Sequence[np.ndarray], disturb: Disturb | None = None
) -> tuple[np.ndarray, ...]:
    """One step of a scan on arrays, floats in float64: the meaning of its combine."""
    values: dict[Node, np.ndarray] = {}
    for node in topological(body):
        value = _part_of_step(node, values, before, after)
        values[node] = disturb(node, value) if disturb else value
    return tuple(values[value] for value in body)


def _part_of_step(
    node: Node,
    values: Mapping[Node, np.ndarray],
    before: Sequence[np.ndarray],
    after: Sequence[np.ndarray],
) -> np.ndarray:
    stands_for = placeholder(node)
    if stands_for:
        side, position = stands_for
        return (before if side == LEFT else after)[position]
    kind = np.float64 if node.dtype.is_float else node.dtype.numpy
    match node:
        case Const():
            return np.asarray(node.value, kind)
        case Map():
            return np.asarray(SCALARS[node.function].numpy(*(values[a] for a in node.operands)), kind)
        case Cast():
            return _converted(values[node.arg], node.dtype)
    raise InternalError(f"{node!r} cannot stand in the combine of a scan")


def _converted(value: np.ndarray, dtype: DType) -> np.ndarray:
    if dtype.is_float:
        return value.astype(np.float64)
    if dtype.is_integer and value.dtype.kind == "f":
        return _saturated(value, dtype)
    return value.astype(dtype.numpy)


def _saturated(value: np.ndarray, dtype: DType) -> np.ndarray:
    """Floats as integers: truncated towards zero, the nearest limit where they are out of range, NaN as 0."""
    low, high = dtype.range
    inside = (value > low) & (value < high)
    whole = np.where(inside, value, 0.0).astype(dtype.numpy)
    limits = np.where(value >= high, dtype.numpy.type(high), dtype.numpy.type(low))
    return np.where(inside, whole, np.where(np.isnan(value), dtype.numpy.type(0), limits))
