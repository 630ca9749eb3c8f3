"""vmap: an op over one more axis of its operands, by giving the operands' tiles one more name.

    per_example = tw.vmap(op.grad)               every operand has a leading axis
    tw.vmap(op, in_axes={"x": 1, "w": None})     x along its second dimension, w the same for all
    tw.vmap(op, in_axes=(1, None), out_axes=-1)  the same by position, results along their last dimension

A Program's nodes combine by axis name, so the mapped Program is the op's own with a name more in the operands
that are mapped: nothing else changes, and it is differentiated, compiled and mapped again like any other. The
new axis is the first of every operand and result in the Program; where a user has it says `Seen`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tilewright.dsl.axes import PAIR, base
from tilewright.dsl.dtypes import int64
from tilewright.dsl.extents import bind_extents
from tilewright.dsl.program import AxisExtent, Const, Param, Program, Read, Result, axes_within, rewrite
from tilewright.errors import ArgumentError, ShapeError
from tilewright.op.binding import as_operands, where
from tilewright.op.op import MAX_PROGRAMS, Arguments, Call, Op
from tilewright.op.seen import Seen
from tilewright.runtime.recent import Recent

Place = int | None
InAxes = int | Mapping[str, Place] | Sequence[Place]
OutAxes = Place | Sequence[Place]


def vmap(op: Op, in_axes: InAxes = 0, out_axes: OutAxes = 0) -> MappedOp:
    """The op at every position along one dimension of its operands, its results along one dimension more.

    `in_axes` is that dimension, for all operands, by position or by name (None: the operand is the same for
    all positions), `out_axes` where it stands in the results, for all of them or by position (None: a result
    is the same for all positions, and is given once). Gradients lie as their operands do. Random numbers
    depend on the seed and the position within the op alone: map the seed to draw others at each position.
    Raises `ArgumentError` where `in_axes` or `out_axes` do not fit.
    """
    if not isinstance(op, Op):
        raise ArgumentError(f"tw.vmap maps an op (a function with @tw.op), got {type(op).__name__}")
    return MappedOp(op, _places(op, in_axes), _checked(op, "out_axes", out_axes))


@dataclass(frozen=True)
class Places:
    """Which dimension of each operand is mapped over: of those that are `named`, and of all others.

    Those that are `paired` have one dimension more, the halves of complex numbers, behind those that places
    are counted in.
    """

    named: Mapping[str, Place] = field(default_factory=dict)
    others: Place = 0
    paired: frozenset[str] = frozenset()

    def of(self, name: str) -> Place:
        place = self.named.get(name, self.others)
        return place - 1 if name in self.paired and place is not None and place < 0 else place


def _places(op: Op, in_axes: Any) -> Places:
    """`in_axes` by name; further operands of a derivative have the names `#0`, `#1` … by position."""
    names = [t.name for t in op.tiles]
    if isinstance(in_axes, Mapping):
        unknown = sorted(set(in_axes) - set(names)) if op.direct else ()
        if unknown:
            raise ArgumentError(f"tw.vmap of {op.usage()}: in_axes names {unknown[0]!r}, no operand of it")
        _checked(op, "in_axes", tuple(in_axes.values()))
        return Places(dict(in_axes))
    _checked(op, "in_axes", in_axes)
    if not isinstance(in_axes, (tuple, list)):
        return Places(others=in_axes)
    further = len(in_axes) - len(names)
    if further < 0 or (further and op.direct):
        raise ArgumentError(f"tw.vmap of {op.usage()}: in_axes has {len(in_axes)} entries")
    return Places(dict(zip((*names, *(f"#{n}" for n in range(further))), in_axes, strict=True)))


def _checked(op: Op, what: str, places: Any) -> Any:
    """What a caller gave as dimensions. Raises `ArgumentError` where something is none."""
    for place in places if isinstance(places, (tuple, list)) else (places,):
        whole = isinstance(place, (int, np.integer)) and not isinstance(place, bool)
        if not whole and place is not None:
            raise ArgumentError(f"tw.vmap of {op.usage()}: {what} are dimensions or None, got {place!r}")
    return places


class MappedOp(Op):
    """An op over one more axis."""

    def __init__(self, of: Op, in_axes: Places, out_axes: OutAxes = 0):
        super().__init__()
        self.of = of
        self.in_axes = in_axes
        self.out_axes = out_axes
        self.name = f"{of.name}.vmap"
        self.tiles = of.tiles
        self.scalars = of.scalars
        self.constants = of.constants
        self.direct = of.direct
        self._mapped: Recent[tuple, Program] = Recent(MAX_PROGRAMS)

    def with_pairs(self, names: frozenset[str]) -> Op:
        return MappedOp(self.of.with_pairs(names), replace(self.in_axes, paired=names), self.out_axes)

    def arguments(self, tiles: tuple[Any, ...], keywords: Mapping[str, Any]) -> Arguments:
        return self.of.arguments(tiles, keywords)

    def bind(self, arguments: Arguments) -> Call:
        self._check_named(arguments.tiles)
        self._extent(as_operands(arguments.tiles, self.name))
        return super().bind(arguments)

    def _bind(self, arguments: Arguments, further: dict[str, Any]) -> Call:
        if self.direct:
            self._extent(as_operands(arguments.tiles, self.name))
        arrays = as_operands({**arguments.tiles, **further}, self.name)
        one = {name: self._at_one(name, array) for name, array in arrays.items()}
        left = {name: one.pop(name) for name in further}
        inner = self.of._bind(Arguments(one, arguments.scalars, arguments.constants), left)
        taken = {name: array for name, array in arrays.items() if name not in left}
        for name in further.keys() - left.keys():
            del further[name]
        self._check_named(taken)
        return self._mapped_call(inner, taken, self._extent(taken))

    def _mapped_call(self, inner: Call, arrays: Mapping[str, np.ndarray | None], extent: int) -> Call:
        """The call of all positions, from that of one."""
        views, given = dict(inner.arrays), dict(inner.given)
        over = frozenset(n for n, owner in inner.owners.items() if self.in_axes.of(owner) is not None)
        for name in over:
            array, seen = arrays[inner.owners[name]], inner.given[name]
            place = self.in_axes.of(inner.owners[name])
            assert array is not None and place is not None
            given[name] = seen.under(place % (len(seen.shape) + 1), extent)
            if name in views:
                views[name] = _like(np.moveaxis(array, place, 0), seen.under(0, extent), views[name])
        program = self._program(inner.program, over, extent)
        extents = bind_extents(program, {p.name: views[p.name].shape for p in program.tiles})
        results = {}
        for position, result in enumerate(inner.program.results):
            seen = inner.seen(position, tuple(extents[base(a)] for a in result.axes))
            place = self._out_place(inner.program, position, len(seen.shape) + 1 - (PAIR in result.axes))
            results[result.name] = seen if place is None else seen.under(place, extent)
        return Call(program, views, inner.scalars, inner.binding, given, dict(inner.owners), results)

    def _at_one(self, name: str, array: np.ndarray | None) -> np.ndarray | None:
        """What one position has of an operand; its contents do not matter."""
        place = self.in_axes.of(name)
        if array is None or place is None or not -array.ndim <= place < array.ndim:
            return array
        first = np.moveaxis(array, place, 0)
        return first[0] if len(first) else np.broadcast_to(np.zeros((), array.dtype), first.shape[1:])

    def _check_named(self, taken: Mapping[str, Any]) -> None:
        for name in self.in_axes.named:
            if name not in taken:
                told = f"names {name!r}, which is not given"
                told = "has an entry too many" if name.startswith("#") else told
                raise ArgumentError(
                    f"{where(self.name)}: in_axes {told}; operands that a derivative adds are told either "
                    f"by position, in in_axes and in the call, or by name in both"
                )

    def _out_places(self, program: Program) -> tuple[Place, ...]:
        """`out_axes` of each result."""
        given, count = self.out_axes, len(program.results)
        places = tuple(given) if isinstance(given, Sequence) else (given,) * count
        if len(places) != count:
            raise ArgumentError(f"{where(self.name)}: out_axes has {len(places)} entries for {count} results")
        return places

    def _out_place(self, program: Program, position: int, rank: int) -> Place:
        """Where the mapped dimension stands in a result of so many dimensions, if it has it."""
        place = self._out_places(program)[position]
        if place is None:
            return None
        if not -rank <= place < rank:
            raise ShapeError(
                f"{where(self.name)}: out_axes asks for dimension {place} of the result "
                f"{program.results[position].name}, which has {rank} with the mapped one"
            )
        return place % rank

    def _extent(self, arrays: Mapping[str, np.ndarray | None]) -> int:
        """The extent of the mapped dimension, which all operands must agree on."""
        extents: dict[int, str] = {}
        for name, array in arrays.items():
            place = self.in_axes.of(name)
            if array is None or place is None:
                continue
            if not -array.ndim <= place < array.ndim:
                raise ShapeError(
                    f"{where(self.name)}: {name} of shape {array.shape} has no dimension {place} to map "
                    f"over; write in_axes={{{name!r}: None}} where it is the same for all"
                )
            extents.setdefault(array.shape[place], name)
        if len(extents) > 1:
            (one, first), (two, second) = list(extents.items())[:2]
            raise ShapeError(
                f"{where(self.name)}: the mapped dimension is {one} in {first} but {two} in {second}"
            )
        if not extents:
            raise ShapeError(f"{where(self.name)}: no operand is mapped; give one an axis in in_axes")
        return next(iter(extents))

    def _program(self, program: Program, over: frozenset[str], extent: int) -> Program:
        known = None if any(p.name in over for p in program.tiles) else extent
        key = (program, over, known)
        mapped = self._mapped.get(key)
        if mapped is None:
            axis, places = new_axis(program), self._out_places(program)
            mapped = with_axis(program, over, axis, known)
            once = [r.name for r, place in zip(program.results, places, strict=True) if place is None]
            mapped = self._mapped[key] = self._given_once(mapped, axis, once)
        return mapped

    def _given_once(self, program: Program, axis: str, names: Sequence[str]) -> Program:
        """The mapped Program, of which these results are without the new axis."""
        for result in program.results:
            if result.name in names and axis in result.node.axes:
                raise ArgumentError(
                    f"{where(self.name)}: out_axes is None for the result {result.name}, which differs from "
                    f"position to position; give the dimension where the mapped one shall stand"
                )
        results = tuple(
            replace(r, axes=tuple(a for a in r.axes if a != axis)) if r.name in names else r
            for r in program.results
        )
        return replace(program, results=results)

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


def _like(array: np.ndarray, seen: Seen, view: np.ndarray) -> np.ndarray:
    """All positions in the shape and dtype in which the op reads one."""
    whole = array if array.shape == seen.shape else _widened(array, seen.shape)
    return seen.to_front(whole).reshape((len(array), *view.shape)).astype(view.dtype, copy=False)


def _widened(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array broadcast at every position."""
    missing = len(shape) - array.ndim
    return np.broadcast_to(array.reshape((len(array), *(1,) * missing, *array.shape[1:])), shape)
