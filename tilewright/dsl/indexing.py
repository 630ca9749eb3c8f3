"""Indexing: tiles at computed positions, the axes that such positions run along, and their transpose.

oh = tw.axis("oh", tw.size("h") - tw.size("r") + 1)
tw.sum(x.at(h=oh + tw.index("r")) * weight, "r")          a convolution
table.at(row=ids)                                         an embedding
tw.scatter_add(g, {"row": ids}, rows)                     what its gradient is
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tilewright.dsl import scalars
from tilewright.dsl.affine import shortest
from tilewright.dsl.axes import ELLIPSIS, split_names, union
from tilewright.dsl.dtypes import float32, int64
from tilewright.dsl.expression import Expr, apply, cast, lift, merged, resolve_axes
from tilewright.dsl.program import (
    Cast,
    Const,
    Index,
    Map,
    Node,
    Size,
    indexed,
    scattered,
    topological,
    within,
)
from tilewright.dsl.scope import axis_names, caller_name, scope
from tilewright.errors import AxisError, DTypeError, LanguageError


def at_positions(value: Expr, positions: Mapping[str, Any], fill: Any) -> Expr:
    """`value.at(fill=fill, **positions)`. Raises `AxisError` or `DTypeError`."""
    if not positions:
        raise AxisError("x.at() needs a position along an axis, as in x.at(h=tw.index('i') + 1)")
    at = {_axis_of(value, axis): position_of(position, axis) for axis, position in positions.items()}
    nodes = {axis: position.node for axis, position in at.items()}
    order = merged(*(at[a].axes if a in at else (a,) for a in value.axes))
    read = Expr(indexed(value.node, nodes), order)
    _remember_order(value, at)
    typed = cast(lift(fill, value.dtype), value.dtype)
    if isinstance(typed.node, Const) and typed.node.value == 0:
        return read
    if not (value.dtype.is_float and isinstance(fill, float)):
        fill = typed
    return apply(scalars.where, (Expr(within(nodes)), read, fill))


def _remember_order(value: Expr, at: Mapping[str, Expr]) -> None:
    current = scope.get()
    if current is None:
        return
    for axis, position in at.items():
        new = tuple(a for a in position.axes if a not in value.axes)
        current.beside[axis] = union(current.beside.get(axis, ()), new)


def _axis_of(value: Expr, axis: str) -> str:
    name = caller_name(axis)
    if name not in value.axes:
        raise AxisError(
            f"x.at({axis}=…) names an axis that the tile lacks; "
            f"its axes are ({' '.join(value.axes) or 'none'})"
        )
    return name


def position_of(value: Any, axis: str) -> Expr:
    """A position as an int64 expression; raises `AxisError` or `DTypeError` where it is none."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value < 0:
        raise AxisError(
            f"the position {value} along {axis!r} is before the first one; count from the end as in "
            f"tw.size({axis!r}) - {-value}"
        )
    position = lift(value, int64)
    if not position.dtype.is_integer:
        raise DTypeError(
            f"the position along {axis!r} has dtype {position.dtype.name}; positions are integers: write "
            f"tw.cast(tw.floor(p), tw.int64)"
        )
    position = cast(position, int64)
    return Expr(shortest(position.node), position.axes)


def axis(name: str, extent: Any) -> Expr:
    """Declares an axis that no operand has, `extent` long, and gives the position along it.

        i = tw.axis("i", tw.size("t") - tw.size("k") + 1)
        tw.sum(x.at(t=i + tw.index("k")) * weight, "k")

    The extent is an integer expression of constants and `tw.size`. Raises `AxisError` where the name is
    taken or the extent depends on a value.
    """
    current = scope.get()
    if current is None:
        raise LanguageError("tw.axis declares an axis of an op; call it in the op's body")
    own = _declared_name(name)
    size = lift(extent, int64)
    if not size.dtype.is_integer:
        raise AxisError(f"the extent of {name!r} is {extent!r}; extents are whole numbers: use // to divide")
    size = cast(size, int64)
    parts = topological([size.node])
    if any(not isinstance(part, (Const, Size, Map, Cast)) for part in parts):
        raise AxisError(
            f"the extent of {name!r} depends on a value; extents are expressions of numbers and "
            f"tw.size, so that shapes are known before anything runs"
        )
    if isinstance(size.node, Const) and size.node.value < 0:
        raise AxisError(f"the axis {name!r} cannot have {size.node.value} positions")
    return Expr(Index(declare(own, shortest(size.node))))


def _declared_name(name: Any) -> str:
    names = split_names(name) if isinstance(name, str) else ()
    if len(names) != 1 or names[0] == ELLIPSIS:
        raise AxisError(f"tw.axis takes one new name and its extent, as in tw.axis('i', 10); got {name!r}")
    return names[0]


def scatter_add(value: Any, positions: Any, size: Any, over: Any = None) -> Any:
    """out[row, …] = Σ_n value[n, …] where ids[n] == row: `tw.scatter_add(g, {"row": ids}, rows)`.

    The transpose of `table.at(row=ids)`. `positions` maps new axes to integer expressions, `size` is
    their extent (a mapping from axis to extent if there are several), `over` names the axes that are
    summed (those of the positions if omitted). Positions outside add nothing; duplicates add up, in the
    order of the positions. Raises `AxisError`.
    """
    if not isinstance(positions, dict) or not positions:
        raise AxisError('tw.scatter_add takes new axes and their positions, as in {"row": ids}')
    value = lift(value, float32)
    value = cast(value, int64 if not value.dtype.is_float else value.dtype.compute)
    sizes = size if isinstance(size, dict) else dict.fromkeys(positions, size)
    at = {name: position_of(position, name) for name, position in positions.items()}
    given = merged(value.axes, *(p.axes for p in at.values()))
    summed = merged(*(p.axes for p in at.values()))
    if over is not None:
        summed = resolve_axes(Expr(value.node, given), over, "scatter_add")
    for name in at:
        if lift(sizes[name], int64).node is not Size(caller_name(name)):
            axis(name, sizes[name])
    along = axis_names(" ".join(at))
    clash = next((name for name in along if name in given and name not in summed), None)
    if clash:
        raise AxisError(f"scatter_add makes an axis {clash!r}, which its operands have; give it a new name")
    if (current := scope.get()) is not None:
        for name in summed[:1]:
            current.beside[name] = union(current.beside.get(name, ()), along)
    node = scattered(along, summed, value.node, tuple(p.node for p in at.values()))
    return Expr(node, merged(along, tuple(a for a in given if a not in summed)))


def declare(axis: str, size: Node) -> str:
    """Makes `axis` one of the op whose body runs, with this extent; gives the name that it has there.

    Raises `AxisError` where an operand has that axis or it was declared with another extent.
    """
    current = scope.get()
    assert current is not None
    shared = axis not in current.operand_axes and current.extents.get(axis) is size
    name = axis if shared else current.caller_name(axis)
    known = current.extents.get(name)
    if name in current.operand_axes or (known is not None and known is not size):
        raise AxisError(
            f"the axis {axis!r} has an extent already; give the new one another name, as in "
            f"tw.axis({axis + '2'!r}, …)"
        )
    current.names[axis] = name
    current.seen.add(name)
    current.extents[name] = size
    return name
