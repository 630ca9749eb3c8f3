"""From a call's arguments to a Program's operands, and from its results back to the shapes a user expects.

Leading batch axes are broadcast as NumPy broadcasts them. An operand that is repeated along a batch axis
is read without that axis (so its gradient is summed by the kernel), and neighbouring batch axes that lie
in memory as one are merged, so that one kernel serves every rank. A dimension that runs along several axes,
`(g c)`, is split into them (`dimensions`), which is a view of any array.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tilewright.dsl.axes import PAIR, TileSpec, is_batch_axis
from tilewright.dsl.dtypes import ALL, DType, float32, of_array, promote
from tilewright.dsl.expression import Expr
from tilewright.dsl.grouped import stated_extents
from tilewright.dsl.location import users_line
from tilewright.dsl.trace import TileParameter
from tilewright.errors import ArgumentError, DTypeError, ShapeError
from tilewright.op import dimensions

NONE: Mapping[str, Any] = {}


@dataclass(frozen=True)
class BoundOperand:
    """How one argument is read: its dtype, the batch axes it has, and its shape in the Program."""

    dtype: DType
    batch: tuple[str, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Binding:
    """The operands of one call. `groups` holds, for each batch axis of the Program, the dimensions merged
    into it. `units` are the axes that the Program is without, since the call says that they are 1 long;
    `joined` has the axes of each dimension of a result, by its named axes, where some share one.
    """

    operands: Mapping[str, BoundOperand | None]
    groups: Mapping[str, tuple[int, ...]]
    units: frozenset[str] = frozenset()
    joined: Mapping[tuple[str, ...], tuple[tuple[str, ...], ...]] = field(default_factory=dict)

    @property
    def key(self) -> tuple:
        return tuple((name, o and (o.dtype, o.batch)) for name, o in self.operands.items())

    def user_shape(self, axes: Sequence[str], shape: Sequence[int]) -> tuple[int, ...]:
        """The shape a user expects for a value with these axes and this shape in the Program.

        Batch axes align from the right: one that the value lacks is a dimension of 1 behind one that it has.
        """
        lead: list[int] = []
        for axis, dims in self.groups.items():
            if axis in axes:
                lead.extend(dims)
            elif lead:
                lead.extend((1,) * len(dims))
        named = {a: e for a, e in zip(axes, shape, strict=True) if not is_batch_axis(a)}
        pair = (PAIR,) if PAIR in named else ()
        plain = tuple(a for a in named if a != PAIR)
        alone = tuple((a,) for a in plain)
        grouped = (*self.joined.get(plain, alone), *(pair,) * len(pair))
        return (*lead, *(math.prod(named[a] for a in group) for group in grouped))


def where(op_name: str) -> str:
    """The start of an error message about a call: the user's line and the op."""
    line = users_line()
    return f"{line}: op {op_name!r}" if line else f"op {op_name!r}"


def as_operands(values: Mapping[str, Any], op_name: str) -> Mapping[str, np.ndarray | None]:
    """Every operand that is given as an array; a Python float takes the dtype of the floats that it meets.

    Of arrays only the kind is looked at; `check_dtype` has the rest. Raises `ArgumentError` or `DTypeError`.
    """
    if all(type(value) is np.ndarray or value is None for value in values.values()):
        return values  # type: ignore[return-value]
    weak = [name for name, value in values.items() if type(value) is float]
    arrays = {
        name: None if value is None else as_operand(value, name, op_name) for name, value in values.items()
    }
    if weak:
        strong = [of_array(a) for name, a in arrays.items() if a is not None and name not in weak]
        floats = [dtype for dtype in strong if dtype is not None and dtype.is_float]
        common = functools.reduce(promote, floats) if floats else float32
        arrays.update({name: np.asarray(values[name], common.numpy) for name in weak})
    return arrays


def as_operand(value: Any, name: str, op_name: str) -> np.ndarray:
    """`value` as an array of a dtype that the language has. Raises `ArgumentError` or `DTypeError`."""
    if isinstance(value, (bool, int, float, np.generic)):
        value = np.asarray(
            value, np.float32 if isinstance(value, float) and not isinstance(value, np.generic) else None
        )
    if isinstance(value, Expr):
        raise ArgumentError(
            f"{where(op_name)}: operand {name!r} is the tile {value!r} of an op that is being traced, beside "
            f"an array; pass the array to that op as a Tile parameter"
        )
    if not isinstance(value, np.ndarray):
        raise ArgumentError(
            f"{where(op_name)}: operand {name!r} is a {type(value).__module__}.{type(value).__qualname__}; "
            f"pass a NumPy array or a tilewright Tensor, as in np.asarray(value, np.float32)"
        )
    if type(value) is not np.ndarray and isinstance(value, np.ma.MaskedArray):
        raise ArgumentError(
            f"{where(op_name)}: operand {name!r} is a masked array, whose mask would not be seen; pass "
            f"value.filled(0), or its data and its mask as two operands and choose with tw.where"
        )
    check_dtype(value, name, op_name)
    return value if type(value) is np.ndarray else np.asarray(value)


def check_dtype(array: np.ndarray | None, name: str, op_name: str) -> None:
    """Raises `DTypeError` for an array of a dtype that the language does not have."""
    if array is not None and of_array(array) is None:
        raise DTypeError(
            f"{where(op_name)}: operand {name!r} has dtype {array.dtype}, which the language "
            f"does not compute with; convert it with .astype(...) to one of {', '.join(d.name for d in ALL)}"
        )


def bind(
    op_name: str,
    tiles: Sequence[TileParameter],
    arrays: Mapping[str, np.ndarray | None],
    constants: Mapping[str, Any] = NONE,
    results: Sequence[TileSpec] = (),
) -> Binding:
    """Check ranks and extents and work out how each argument is read. Raises `ShapeError`.

    `results` are the annotated axes of the results; `constants` state extents of axes that share a dimension.
    """
    present = [(t, array) for t in tiles if (array := arrays.get(t.name)) is not None]
    for tile, array in present:
        _check_rank(op_name, tile, array)
    stated = stated_extents(where(op_name), (*(t.spec for t in tiles), *results), constants)
    units = frozenset(axis for axis, extent in stated.items() if extent == 1)
    known = dimensions.named_extents(where(op_name), present, stated)
    batches = {t.name: array.shape[: array.ndim - t.spec.rank] for t, array in present}
    extents = _broadcast(op_name, batches)
    groups = _merge(extents, {t.name: _batch_layout(array, batches[t.name], extents) for t, array in present})
    names = {
        position: f"_{len(groups) - 1 - number}" for number, group in enumerate(groups) for position in group
    }
    operands: dict[str, BoundOperand | None] = {t.name: None for t in tiles}
    for tile, array in present:
        batch = _batch_axes_of(batches[tile.name], extents, groups, names)
        lead = tuple(math.prod(extents[p] for p in g) for g in groups if names[g[0]] in batch)
        named = tuple(known[a] for a in tile.spec.without(units).axes)
        operands[tile.name] = BoundOperand(_dtype(array), batch, lead + named)
    merged = {names[g[0]]: tuple(extents[p] for p in g) for g in groups}
    return Binding(operands, merged, units, dimensions.joined(results, units))


def _dtype(array: np.ndarray) -> DType:
    dtype = of_array(array)
    assert dtype is not None
    return dtype


def _check_rank(op_name: str, tile: TileParameter, array: np.ndarray) -> None:
    named = tile.spec.rank
    if array.ndim == named or (tile.spec.batched and array.ndim > named):
        return
    needs = f"at least {named}" if tile.spec.batched else str(named)
    raise ShapeError(
        f'{where(op_name)}: {tile.name} is Tile["{tile.spec}"] and needs {needs} '
        f"dimension{'s' * (named != 1)}, but has shape {array.shape}"
    )


def _broadcast(op_name: str, batches: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    rank = max((len(shape) for shape in batches.values()), default=0)
    extents = [1] * rank
    owner = [""] * rank
    for name, shape in batches.items():
        for position, extent in enumerate(shape, start=rank - len(shape)):
            if extent == 1 or extent == extents[position]:
                continue
            if extents[position] != 1:
                other = owner[position]
                raise ShapeError(
                    f"{where(op_name)}: the batch axes of {other} {batches[other]} and {name} {shape} do "
                    f"not broadcast: {extents[position]} against {extent}"
                )
            extents[position], owner[position] = extent, name
    return tuple(extents)


@dataclass(frozen=True)
class _BatchLayout:
    """Of one operand, for each batch position: is it there (None: either way, the extent is 1), and its
    stride.
    """

    present: tuple[bool | None, ...]
    strides: tuple[int, ...]


def _batch_layout(array: np.ndarray, batch: tuple[int, ...], extents: tuple[int, ...]) -> _BatchLayout:
    missing = len(extents) - len(batch)
    present: list[bool | None] = []
    for position, extent in enumerate(extents):
        own = batch[position - missing] if position >= missing else 1
        present.append(None if extent == 1 else own == extent)
    strides = (0,) * missing + array.strides[: len(batch)]
    return _BatchLayout(tuple(present), strides if array.size else (0,) * len(extents))


def _merge(extents: tuple[int, ...], layouts: Mapping[str, _BatchLayout]) -> list[list[int]]:
    """Neighbouring batch positions that are one axis in every operand."""
    groups: list[list[int]] = []
    for position in range(len(extents)):
        if groups and all(_joins(groups[-1], position, extents, layout) for layout in layouts.values()):
            groups[-1].append(position)
        else:
            groups.append([position])
    return groups


def _joins(group: list[int], position: int, extents: tuple[int, ...], layout: _BatchLayout) -> bool:
    wide = [p for p in group if extents[p] != 1]
    if not wide or extents[position] == 1:
        return True
    before = wide[-1]
    if layout.present[before] != layout.present[position]:
        return False
    return (
        not layout.present[position] or layout.strides[before] == layout.strides[position] * extents[position]
    )


def _batch_axes_of(
    batch: tuple[int, ...], extents: tuple[int, ...], groups: list[list[int]], names: Mapping[int, str]
) -> tuple[str, ...]:
    """The batch axes that an operand has: those along which it is not repeated, unit axes where its rank has
    them.
    """
    missing = len(extents) - len(batch)
    axes = []
    for group in groups:
        wide = [p for p in group if extents[p] != 1]
        if wide:
            has = wide[0] >= missing and batch[wide[0] - missing] == extents[wide[0]]
        else:
            has = group[-1] >= missing
        if has:
            axes.append(names[group[0]])
    return tuple(axes)
