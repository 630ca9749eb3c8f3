"""vmap: an op over one more axis of its operands, by giving the operands' tiles one more name.

    per_example = tw.vmap(op.grad)               every operand has a leading axis
    tw.vmap(op, in_axes={"x": 1, "w": None})     x along its second dimension, w the same for all

A Program's nodes combine by axis name, so the mapped Program is the op's own with a name more in the operands
that are mapped: nothing else changes, and it is differentiated, compiled and mapped again like any other.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tilewright.dsl.axes import base
from tilewright.dsl.dtypes import int64
from tilewright.dsl.extents import bind_extents
from tilewright.dsl.program import AxisExtent, Const, Param, Program, Read, Result, axes_within, rewrite
from tilewright.errors import ArgumentError, AxisError, ShapeError
from tilewright.op.binding import Binding, as_operands, where
from tilewright.op.op import MAX_PROGRAMS, Arguments, Call, Op
from tilewright.runtime.recent import Recent

InAxes = int | Mapping[str, int | None]


def vmap(op: Op, in_axes: InAxes = 0) -> MappedOp:
    """The op applied to every position along one dimension of its operands; results get it first.

    `in_axes` is that dimension, for all operands or by name (None: the operand is the same for all
    positions). Raises `ArgumentError` where it names no operand.
    """
    if not isinstance(op, Op):
        raise ArgumentError(f"tw.vmap maps an op (a function with @tw.op), got {type(op).__name__}")
    return MappedOp(op, in_axes)


class MappedOp(Op):
    """An op over one more axis."""

    def __init__(self, of: Op, in_axes: InAxes):
        super().__init__()
        self.of = of
        self.in_axes = in_axes
        self.name = f"{of.name}.vmap"
        self.tiles = of.tiles
        self.scalars = of.scalars
        self.constants = of.constants
        self._mapped: Recent[tuple, Program] = Recent(MAX_PROGRAMS)
        self.leads = all(self.axis(t.name) in (None, 0) for t in self.tiles)
        unknown = set(in_axes) - {t.name for t in of.tiles} if isinstance(in_axes, Mapping) else set()
        if unknown and not hasattr(of, "of"):
            raise ArgumentError(
                f"tw.vmap of {of.usage()}: in_axes names {sorted(unknown)[0]!r}, no operand of it"
            )

    def with_pairs(self, names: frozenset[str]) -> Op:
        """The halves come last, behind a dimension that is counted from the end."""
        axes = {t.name: self.axis(t.name) for t in self.tiles}
        moved = {n: a - 1 if a is not None and a < 0 and n in names else a for n, a in axes.items()}
        return MappedOp(self.of.with_pairs(names), moved)

    def arguments(self, tiles: tuple[Any, ...], keywords: Mapping[str, Any]) -> Arguments:
        return self.of.arguments(tiles, keywords)

    def bind(self, arguments: Arguments) -> Call:
        arrays = as_operands(arguments.tiles, self.name)
        mapped = {
            name: array for name, array in arrays.items() if array is not None and self.axis(name) is not None
        }
        extent = self._extent(mapped)
        moved = {name: np.moveaxis(array, self.axis(name) or 0, 0) for name, array in mapped.items()}
        one = {name: _first(moved[name]) if name in moved else array for name, array in arrays.items()}
        inner = self.of.bind(Arguments(one, arguments.scalars, arguments.constants))
        owners = {p.name: inner.owners.get(p.name, p.name) for p in inner.program.tiles}
        over = frozenset(name for name, owner in owners.items() if owner in moved)
        program, axis = self._program(inner.program, over, extent)
        views = {
            name: _like(moved[owners[name]], view) if name in over else view
            for name, view in inner.arrays.items()
        }
        extents = bind_extents(program, {p.name: views[p.name].shape for p in program.tiles})
        shapes = {}
        for position, result in enumerate(inner.program.results):
            shape = tuple(extents[base(a)] for a in result.axes)
            shapes[result.name] = (extent, *inner.result_shape(position, shape))
        asked = {name: inner.owners.get(name, name) for name in inner.given}
        given = {n: array.shape for n, key in asked.items() if (array := arrays.get(key)) is not None}
        return Call(
            program,
            views,
            inner.scalars,
            MappedBinding.of(inner.binding, axis),
            given,
            dict(inner.owners),
            shapes,
        )

    def axis(self, name: str) -> int | None:
        """The dimension of an operand that is mapped over."""
        return self.in_axes.get(name, 0) if isinstance(self.in_axes, Mapping) else self.in_axes

    @functools.cached_property
    def leading(self) -> MappedOp:
        """The same over the first dimension of the operands that are mapped."""
        axes = {t.name: None if self.axis(t.name) is None else 0 for t in self.tiles}
        return MappedOp(self.of, axes)

    def _extent(self, mapped: Mapping[str, np.ndarray]) -> int:
        """The extent of the mapped dimension, which all operands must agree on."""
        extents: dict[int, str] = {}
        for name, array in mapped.items():
            axis = self.axis(name)
            assert axis is not None
            if not -array.ndim <= axis < array.ndim:
                raise ShapeError(
                    f"{where(self.name)}: {name} of shape {array.shape} has no dimension {axis} to map over; "
                    f"write in_axes={{{name!r}: None}} where it is the same for all"
                )
            extents.setdefault(array.shape[axis], name)
        if len(extents) > 1:
            (one, first), (two, second) = list(extents.items())[:2]
            raise ShapeError(
                f"{where(self.name)}: the mapped dimension is {one} in {first} but {two} in {second}"
            )
        if not extents:
            raise ShapeError(f"{where(self.name)}: no operand is mapped; give one an axis in in_axes")
        return next(iter(extents))

    def _program(self, program: Program, over: frozenset[str], extent: int) -> tuple[Program, str]:
        carried = bool(over)
        key = (program, over, None if carried else extent)
        axis = new_axis(program)
        mapped = self._mapped.get(key)
        if mapped is None:
            mapped = self._mapped[key] = with_axis(program, over, axis, None if carried else extent)
        return mapped, axis

    def inline(self, arguments: Arguments) -> Any:
        raise ArgumentError(f"{where(self.name)}: inside an op, give the operands one more axis name instead")


def new_axis(program: Program) -> str:
    """A name that no axis of the Program has."""
    roots = (*(r.node for r in program.results), *(e.size for e in program.extents))
    declared = (a for p in (*program.params, *program.results) for a in p.axes)
    taken = set(map(base, axes_within(roots, declared)))
    number = 0
    while f"v{number}" in taken:
        number += 1
    return f"v{number}"


def with_axis(program: Program, over: frozenset[str], axis: str, extent: int | None = None) -> Program:
    """`program` with one more, leading axis in the operands `over` and in every result."""

    def step(node: Any) -> Any:
        if isinstance(node, Read) and node.param in over:
            return Read(node.param, (axis, *node.names), node.type)
        return node

    nodes = rewrite((r.node for r in program.results), step)
    params = tuple(
        Param(p.name, (axis, *p.axes), p.dtype, p.scalar) if p.name in over else p for p in program.params
    )
    results = tuple(
        Result(r.name, node, (axis, *r.axes)) for r, node in zip(program.results, nodes, strict=True)
    )
    extents = (
        program.extents if extent is None else (AxisExtent(axis, Const(extent, int64)), *program.extents)
    )
    return replace(program, name=f"{program.name}_vmap", params=params, results=results, extents=extents)


def _first(array: np.ndarray) -> np.ndarray:
    """What one position along the leading dimension looks like; its contents do not matter."""
    return array[0] if len(array) else np.broadcast_to(np.zeros((), array.dtype), array.shape[1:])


def _like(array: np.ndarray, view: np.ndarray) -> np.ndarray:
    """All positions in the shape and dtype in which the op reads one."""
    return array.reshape((len(array), *view.shape)).astype(view.dtype, copy=False)


@dataclass(frozen=True)
class MappedBinding(Binding):
    """How one position's operands are read, under one more leading axis."""

    inner: Binding | None = None
    axis: str = ""

    @classmethod
    def of(cls, inner: Binding, axis: str) -> MappedBinding:
        return cls(inner.operands, inner.groups, inner=inner, axis=axis)

    def user_shape(self, axes: Any, shape: Any) -> tuple[int, ...]:
        assert self.inner is not None
        if self.axis not in axes:
            return self.inner.user_shape(axes, shape)
        at = tuple(axes).index(self.axis)
        if at:
            raise AxisError(f"the mapped axis {self.axis!r} is not the first of {tuple(axes)}")
        return (shape[0], *self.inner.user_shape(axes[1:], shape[1:]))
