"""Order: sorting along an axis, and what is read at sorted positions.

The order itself (`argsort`) is a constant of the derivative; values are read at its positions, so their
gradients go back to where they came from.

Equal values keep their order. NaN counts as larger than everything: it is last, or first when descending.
"""

from __future__ import annotations

from typing import Any

from tilewright.dsl import scalars
from tilewright.dsl.dtypes import float32
from tilewright.dsl.expression import Expr, apply, cast, lift, reduce_over, resolve_axes
from tilewright.dsl.indexing import at_positions
from tilewright.dsl.indexing import axis as declare_axis
from tilewright.dsl.program import Const, Order, Size, indexed
from tilewright.errors import AxisError, LanguageError


def argsort(value: Any, axis: Any, *, descending: bool = False) -> Expr:
    """The positions along `axis` in the order of their values, int64.

    `x.at(i=tw.argsort(x, "i"))` is sorted.
    """
    value = lift(value)
    name = _one_axis(value, axis, "argsort")
    return Expr(Order(name, bool(descending), value.node), value.axes)


def sort(value: Any, axis: Any, *, descending: bool = False) -> Expr:
    """The values along `axis` in order."""
    value = lift(value)
    name = _one_axis(value, axis, "sort")
    order = Order(name, bool(descending), value.node)
    return Expr(indexed(value.node, {name: order}), value.axes)


def topk(
    value: Any, k: int | None = None, axis: Any = None, *, largest: bool = True, into: str | None = None
) -> tuple[Expr, Expr]:
    """The `k` largest values along `axis` (smallest if not `largest`), best first, and their positions.

    Both run along the new axis `into` (`<axis>_top` if omitted) in place of `axis`. Where k is beyond the
    extent, 0 at position -1 follows the last. Raises `LanguageError` for a k that is no whole number.
    """
    if not isinstance(k, int) or isinstance(k, bool) or k < 0:
        raise LanguageError(f"tw.topk takes how many values to keep, a whole number, got {k!r}")
    value = lift(value)
    name = _one_axis(value, axis, "topk")
    rank = declare_axis(into or f"{name}_top", k)
    order = tuple(rank.axes[0] if a == name else a for a in value.axes)
    place = at_positions(Expr(Order(name, largest, value.node)), {name: rank}, -1).node
    return Expr(indexed(value.node, {name: place}), order), Expr(place, order)


def median(value: Any, axis: Any) -> Expr:
    """The middle value along `axis`, the lower of two; NaN if there is one."""
    value = lift(value)
    name = _one_axis(value, axis, "median")
    return _unless_nan(value, name, _ranked(value, name, (Expr(Size(name)) - 1) // 2))


def quantile(value: Any, q: Any, axis: Any) -> Expr:
    """The value below which the part `q` of those along `axis` lie, interpolated; NaN if there is one.

    Of a tile q, NaN where it is not from 0 to 1. Raises `LanguageError` for a number q that is not.
    """
    if isinstance(q, (int, float)) and not 0 <= q <= 1:
        raise LanguageError(f"tw.quantile takes a part of the values, from 0 to 1, got {q!r}")
    value = lift(value)
    if not value.dtype.is_float:
        value = cast(value, float32)
    name = _one_axis(value, axis, "quantile")
    last = Expr(Size(name)) - 1
    q = lift(q, value.dtype.compute)
    place = q * cast(last, value.dtype.compute)
    below = cast(scalars.floor(place), "int64")
    low = _ranked(value, name, below)
    high = _ranked(value, name, apply(scalars.minimum, (below + 1, last)))
    part = place - cast(below, place.dtype)
    result = _unless_nan(value, name, low + (high - low) * part)
    if isinstance(q.node, Const):
        return result
    return scalars.where((q >= 0) & (q <= 1), result, float("nan"))


def _ranked(value: Expr, axis: str, rank: Expr) -> Expr:
    """The value at a rank along `axis`."""
    place = indexed(Order(axis, False, value.node), {axis: rank.node})
    return Expr(indexed(value.node, {axis: place}), tuple(a for a in value.axes if a != axis))


def _unless_nan(value: Expr, axis: str, result: Expr) -> Expr:
    if not value.dtype.is_float:
        return result
    missing = reduce_over("any", scalars.isnan(value), (axis,))
    return scalars.where(missing, float("nan"), result)


def _one_axis(value: Expr, axis: Any, what: str) -> str:
    names = resolve_axes(value, axis, what) if isinstance(axis, str) else ()
    if len(names) != 1:
        raise AxisError(f"tw.{what} takes one axis name, as in tw.{what}(x, 'i'); got {axis!r}")
    return names[0]
