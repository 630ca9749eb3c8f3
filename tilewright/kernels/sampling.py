"""Images read at places that are data: grids of coordinates, and the grids of affine maps.

Along each axis -1 and 1 are the two ends of the image: its outer borders, half a position beyond the first
and the last one, or with `align_corners` those positions themselves. A grid has its last axis's coordinate
first: (x, y) of a plane, (x, y, z) of a volume.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import tilewright as tw
from tilewright.errors import ArgumentError
from tilewright.kernels.interpolation import CUBIC, keys
from tilewright.kernels.spaces import Space, in_every_space
from tilewright.kernels.windows import Steps, each

Inside = Callable[[Any], Any]  # where a place is read that may lie outside


def grid_sample(
    space: Space, x: tw.Tile["... c {over}"], grid: tw.Tile["... {out} k"], *, mode: str = "linear",
    padding: str = "zeros", align_corners: bool = False,
) -> tw.Tile["... c {out}"]:  # fmt: skip
    """x between its n positions at the places p = ((grid + 1)·n - 1) / 2, along each axis.

    linear   Σ_t (1 - |t - p|)·x[t] over the two t around p
    nearest  x[p rounded, halves to the even number]
    cubic    Σ_t k(t - p)·x[t] over the four t around p, k the kernel of Keys, 1981, for a = -0.75

    With `align_corners` p = (grid + 1)·(n - 1) / 2. Beyond the ends stand zeros, the last values ("border")
    or the image mirrored at its ends ("reflection"). NaN and infinite places give NaN. Source: Jaderberg et
    al., Spatial transformer networks, 2015. The gradient by `grid` of "nearest" is 0.
    """
    if mode not in TAPS:
        raise ArgumentError(f"a mode of grid_sample is one of {', '.join(TAPS)}; got {mode!r}")
    if padding not in PADDINGS:
        raise ArgumentError(f"a padding of grid_sample is one of {', '.join(PADDINGS)}; got {padding!r}")
    places, weights = {}, []
    for number, (over, tap) in enumerate(zip(space.over.split(), space.taps.split(), strict=True)):
        size, coordinate = tw.size(over), grid.at(k=space.rank - 1 - number)
        extent = tw.cast(size, grid.dtype.compute)
        place = (coordinate + 1) * (extent - 1) / 2 if align_corners else ((coordinate + 1) * extent - 1) / 2
        inside = functools.partial(PADDINGS[padding], size=size, corners=align_corners)
        places[over], weight = TAPS[mode](place, inside, tap)
        weights.append(weight)
    read = x.at(**places) * math.prod(weights)
    return read if mode == "nearest" else tw.sum(read, space.taps)


def _nearest(place: Any, inside: Inside, tap: str) -> tuple[Any, Any]:
    return _whole(tw.round(inside(place))), tw.where(tw.isfinite(place), 1, tw.nan)


def _linear(place: Any, inside: Inside, tap: str) -> tuple[Any, Any]:
    place, step = inside(place), tw.axis(tap, 2)
    before = tw.floor(place)
    part = place - before
    return _whole(before) + step, tw.where(step == 0, 1 - part, part)


def _cubic(place: Any, inside: Inside, tap: str) -> tuple[Any, Any]:
    before, step = tw.floor(place), tw.axis(tap, 4) - 1
    return inside(_whole(before) + step), keys(tw.abs(step - (place - before)), CUBIC)


def _whole(number: Any) -> Any:
    return tw.cast(number, tw.int64)


def _zeros(place: Any, size: Any, corners: bool) -> Any:
    return place  # what is read outside is 0


def _border(place: Any, size: Any, corners: bool) -> Any:
    """The place, or the end that it lies beyond; no slope at the ends, as torch has it."""
    last = tw.cast(size - 1, place.dtype)
    return tw.where(place <= 0, 0, tw.where(place >= last, last, place))


def _reflection(place: Any, size: Any, corners: bool) -> Any:
    """The place in the image mirrored at its ends, which are whole positions or lie half a one beyond.

    Twice the distance from an end is a whole number for whole places: nothing is rounded.
    """
    first = 0 if corners else 1
    period = tw.cast(2 * tw.maximum(2 * (size - 1) + 2 * first, 1), place.dtype)
    far = 2 * place + first
    far = tw.where(far < 0, -far, far) % period
    near = tw.where(2 * far > period, period - far, far) - first
    return _border(near // 2 if place.dtype.is_integer else near / 2, size, corners)


PADDINGS = {"zeros": _zeros, "border": _border, "reflection": _reflection}
TAPS = {
    "nearest": _nearest,
    "linear": _linear,
    "cubic": _cubic,
}  # of a place: what is read, with which weights
grid_sample1d, grid_sample2d, grid_sample3d = in_every_space(grid_sample)


def affine_grid(
    space: Space, theta: tw.Tile["... k j"], *, size: Steps, align_corners: bool = False
) -> tw.Tile["... {out} k"]:
    """theta · (x, y, 1) for the places (x, y) of an image of the extents `size`: what `grid_sample` reads."""
    moved: Any = theta.at(j=space.rank)
    for number, (out, extent) in enumerate(
        zip(space.out.split(), each("size", size, space.rank, 1), strict=True)
    ):
        twice = 2 * tw.axis(out, extent) - extent + 1  # 0 in the middle
        spread = max(extent - 1, 1) if align_corners else extent
        place = tw.cast(twice, theta.dtype.compute) / spread
        moved = moved + theta.at(j=space.rank - 1 - number) * place
    return moved


affine_grid1d, affine_grid2d, affine_grid3d = in_every_space(affine_grid)
