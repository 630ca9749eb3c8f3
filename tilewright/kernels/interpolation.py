"""Images of another size. Positions are whole numbers and exact fractions: no rounding decides a place."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import tilewright as tw
from tilewright.errors import ArgumentError
from tilewright.kernels.spaces import Space, in_every_space
from tilewright.kernels.windows import Steps, each

CUBIC = -0.75  # Keys' free parameter, as torch has it


def interpolate(
    space: Space, x: tw.Tile["... {over}"], *, size: Steps | None = None, scale: Any = None,
    mode: str = "nearest", align_corners: bool = False, antialias: bool = False,
) -> tw.Tile["... {out}"]:  # fmt: skip
    """x between its n positions, at m = `size` (or ⌊n · `scale`⌋) places p, along each axis in turn.

    nearest  x[⌊i·n / m⌋]; nearest-exact  x[⌊(i + ½)·n / m⌋]
    linear   (1 - f)·x[⌊p⌋] + f·x[⌊p⌋ + 1], f = p - ⌊p⌋
    cubic    Σ_t k(t - f)·x[⌊p⌋ + t] over t = -1 … 2, k the kernel of Keys, 1981, for a = -0.75

    p = (i + ½)·n / m - ½, or i·(n - 1) / (m - 1) with `align_corners`; beyond the ends stands the last value.
    With `scale` it takes the place of m / n. `antialias` (linear, cubic) widens the kernels by n / m where
    that is more than 1, so that every position counts when an image is made smaller:
    y[i] = Σ_j x[j]·k((j - p) / s) / Σ_j k((j - p) / s), s = max(1, n / m), with a = -0.5 for cubic.
    """
    if mode not in MODES:
        raise ArgumentError(f"an interpolation mode is one of {', '.join(MODES)}; got {mode!r}")
    if (size is None) == (scale is None):
        raise ArgumentError("interpolate takes either the size of the result or the scale")
    if antialias and mode not in KERNELS:
        raise ArgumentError(f"antialias is for the modes {' and '.join(KERNELS)}, not for {mode!r}")
    for number, (over, out) in enumerate(zip(space.over.split(), space.out.split(), strict=True)):
        if size is not None:
            extent = each("size", size, space.rank, 1)[number]
            ratio = tw.size(over), extent
        else:
            wanted: Any = scale[number] if isinstance(scale, tuple) else scale
            by = Fraction(wanted).limit_denominator(1 << 20)
            extent, ratio = tw.size(over) * by.numerator // by.denominator, (by.denominator, by.numerator)
        if antialias:
            tap = space.taps.split()[number]
            x = _averaged(x, (over, out, tap), extent, ratio, align_corners, *KERNELS[mode])
        else:
            x = MODES[mode](x, (over, out), extent, ratio, align_corners)
    return x


def keys(d: Any, a: float) -> Any:
    """Keys' kernel at the distance d, 0 … 2, for his free parameter a."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = a * (((d - 5) * d + 8) * d - 4)
    return tw.where(d <= 1, near, far)


def _nearest(x: Any, names: tuple[str, str], extent: Any, ratio: tuple[Any, Any], corners: bool) -> Any:
    over, out = names
    return x.at(**{over: tw.axis(out, extent) * ratio[0] // ratio[1]})


def _nearest_exact(x: Any, names: tuple[str, str], extent: Any, ratio: tuple[Any, Any], corners: bool) -> Any:
    over, out = names
    return x.at(**{over: (2 * tw.axis(out, extent) + 1) * ratio[0] // (2 * ratio[1])})


def _linear(x: Any, names: tuple[str, str], extent: Any, ratio: tuple[Any, Any], corners: bool) -> Any:
    return _between(x, names, extent, ratio, corners, 1, lambda distance: 1 - distance)


def _cubic(x: Any, names: tuple[str, str], extent: Any, ratio: tuple[Any, Any], corners: bool) -> Any:
    return _between(x, names, extent, ratio, corners, 2, lambda distance: keys(distance, CUBIC))


def _between(
    x: Any, names: tuple[str, str], extent: Any, ratio: tuple[Any, Any], corners: bool, reach: int,
    weight: Callable[[Any], Any],
) -> Any:  # fmt: skip
    """Σ_t weight(|t - f|) · x[⌊p⌋ + t] over the 2·reach positions around p."""
    over, out = names
    number, size = tw.axis(out, extent), tw.size(over)
    above, below = (number * 2 + 1) * ratio[0] - ratio[1], 2 * ratio[1]
    if corners:
        # of one position alone any step will do: whatever lies between is that position
        above, below = number * tw.maximum(size - 1, 1), tw.maximum(tw.size(out) - 1, 1)
    part = tw.cast(above % below, x.dtype.compute) / tw.cast(below, x.dtype.compute)
    total: Any = 0
    for tap in range(1 - reach, reach + 1):
        near = x.at(**{over: tw.clip(above // below + tap, 0, size - 1)})
        total = total + near * weight(tw.abs(tap - part))
    return total


def _averaged(
    x: Any, names: tuple[str, str, str], extent: Any, ratio: tuple[Any, Any], corners: bool, reach: int,
    weight: Callable[[Any], Any],
) -> Any:  # fmt: skip
    """Σ_j weight(|j - p| / s) · x[j] over all j nearer to p than reach · s, divided by the weights' sum."""
    over, out, tap = names
    number, size = tw.axis(out, extent), tw.size(over)
    step, whole = ratio
    if corners:
        step, whole = (size - 1) * tw.minimum(tw.size(out) - 1, 1), tw.maximum(tw.size(out) - 1, 1)
    # in units of 1 / (2 · whole), from the border of the first position: the place, and s
    middle, wide = (2 * number + 1) * step, 2 * tw.maximum(step, whole)
    near = (middle - reach * wide + whole) // (2 * whole) + tw.axis(tap, (reach * wide - 1) // whole + 1)
    apart = tw.abs((2 * near + 1) * whole - middle)
    inside = (apart < reach * wide) & (near >= 0) & (near < size)
    share = tw.where(inside, weight(tw.cast(apart, x.dtype.compute) / tw.cast(wide, x.dtype.compute)), 0)
    return tw.sum(x.at(**{over: near}) * (share / tw.sum(share, tap)), tap)


KERNELS = {
    "linear": (1, lambda distance: 1 - distance),
    "cubic": (2, lambda distance: keys(distance, -0.5)),
}  # reach, and the weight at a distance
MODES = {"nearest": _nearest, "nearest-exact": _nearest_exact, "linear": _linear, "cubic": _cubic}
interpolate1d, interpolate2d, interpolate3d = in_every_space(interpolate)
