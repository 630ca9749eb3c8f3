"""Dimensions that run along several axes, `Tile["... (g c) w"]`: how long each of them is.

Axes that have a dimension of their own somewhere are as long as it, a keyword of the call with an axis's name
(`groups=4` for `(groups c)`) states its extent, and what is left over of a dimension is that of its last
unknown axis: size(c) = size(dimension) / groups, which must be whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tilewright.dsl.axes import TileSpec, grouped
from tilewright.errors import ShapeError

if TYPE_CHECKING:
    from tilewright.dsl.trace import TileParameter

Present = Sequence[tuple["TileParameter", np.ndarray]]


def joined(
    results: Sequence[TileSpec], units: frozenset[str]
) -> dict[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """The axes of each dimension of a result, by its axes, where any of its dimensions has several."""
    shortened = [spec.without(units) for spec in results if spec.factors]
    return {spec.axes: spec.dimensions for spec in shortened}


def named_extents(where: str, present: Present, stated: Mapping[str, int]) -> dict[str, int]:
    """The extent of every named axis. Raises `ShapeError` where dimensions do not agree."""
    known = _Known(where, stated)
    pending = []
    for tile, array in present:
        first = array.ndim - tile.spec.rank
        for axes, extent in zip(tile.spec.dimensions, array.shape[first:], strict=True):
            source = f"{tile.name} (shape {array.shape})"
            if len(axes) == 1:
                known.alone(axes[0], extent, source)
            else:
                pending.append((axes, extent, source))
    while pending:
        later = [given for given in pending if not known.shared(*given)]
        if len(later) == len(pending):
            raise known.cannot_tell(*later[0])
        pending = later
    return known.extents


class _Known:
    """The extents found so far, each with the words for where it comes from."""

    def __init__(self, where: str, stated: Mapping[str, int]):
        self.where = where
        self.extents = dict(stated)
        self.source = {axis: f"{axis}={extent}" for axis, extent in stated.items()}

    def alone(self, axis: str, extent: int, source: str) -> None:
        known = self.extents.setdefault(axis, extent)
        first = self.source.setdefault(axis, source)
        if known != extent:
            raise ShapeError(
                f"{self.where}: axis {axis!r} is {known} in {first} but "
                f"{extent} in {source}; named axes must agree "
                f"(only the batch axes of '...' broadcast)"
            )

    def shared(self, axes: tuple[str, ...], extent: int, source: str) -> bool:
        """Whether at most one of the axes was unknown; it is known then."""
        unknown = [axis for axis in axes if axis not in self.extents]
        others = math.prod(self.extents[axis] for axis in axes if axis not in unknown)
        if len(unknown) > 1 or (unknown and not others and not extent):
            return False
        whole = others and not extent % others if unknown else others == extent
        if not whole:
            given = " and ".join(f"{a} = {self.extents[a]}" for a in axes if a not in unknown)
            wanted = f"a multiple of {others}" if unknown else f"their product, {others}"
            raise ShapeError(
                f"{self.where}: the dimension {grouped(axes)} is {extent} in {source}, but {given}; "
                f"it must be {wanted}"
            )
        if unknown:
            self.extents[unknown[0]] = extent // others
            self.source[unknown[0]] = source
        return True

    def cannot_tell(self, axes: tuple[str, ...], extent: int, source: str) -> ShapeError:
        unknown = [axis for axis in axes if axis not in self.extents]
        return ShapeError(
            f"{self.where}: nothing says how long {' and '.join(unknown)} in {grouped(axes)} are, {extent} "
            f"together in {source}; give the op a keyword-only number called {unknown[0]!r}"
        )
