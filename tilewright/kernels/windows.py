"""Windows that slide along several axes: what convolutions and pools read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tilewright as tw
from tilewright.errors import ArgumentError

Steps = int | Sequence[int]
Pads = int | str | Sequence[int | tuple[int, int]]


@dataclass(frozen=True)
class Sliding:
    """Positions along the axis `over`: out·stride + tap·dilation - before for every window and tap.

    `before` and `after` are how many positions there are outside at either end. With `ceil` a last window may
    reach beyond them if it starts before the end.
    """

    over: str
    out: str
    tap: str
    stride: int
    before: Any
    after: Any
    dilation: int
    ceil: bool = False

    def extent(self) -> Any:
        """How many windows there are: ⌊(size + before + after - dilation·(taps - 1) - 1) / stride⌋ + 1."""
        size, reach = tw.size(self.over), self.dilation * (tw.size(self.tap) - 1)
        left = size + self.before + self.after - reach - 1
        if not self.ceil:
            return left // self.stride + 1
        count = (left + self.stride - 1) // self.stride + 1
        starts = (size + self.before + self.stride - 1) // self.stride
        return tw.minimum(count, starts)

    def start(self) -> Any:
        """The first position of each window, before 0 where padding is read."""
        return tw.axis(self.out, self.extent()) * self.stride - self.before

    def positions(self) -> Any:
        return self.start() + tw.index(self.tap) * self.dilation


def sliding(
    over: str, out: str, taps: str, stride: Steps, padding: Pads, dilation: Steps, ceil: bool = False
) -> tuple[Sliding, ...]:
    """One window an axis: names in the order of the axes, a number for all of them or one for each."""
    names = tuple(zip(over.split(), out.split(), taps.split(), strict=True))
    strides, dilations = each("stride", stride, len(names), 1), each("dilation", dilation, len(names), 1)
    found = []
    pads = _pads(padding, names, strides, dilations)
    for name, step, pad, wide in zip(names, strides, pads, dilations, strict=True):
        found.append(Sliding(*name, step, *pad, wide, ceil))
    return tuple(found)


def _pads(
    padding: Pads, names: Sequence[tuple[str, str, str]], strides: Sequence[int], dilations: Sequence[int]
) -> Sequence[tuple[Any, Any]]:
    """(before, after) for each axis; "same" has as many windows as there are positions."""
    if padding == "valid":
        return [(0, 0)] * len(names)
    if padding != "same":
        return ends("padding", padding, len(names), 0)
    if any(stride != 1 for stride in strides):
        raise ArgumentError('padding="same" is for a stride of 1; state the padding as numbers')
    reaches = [wide * (tw.size(tap) - 1) for (_, _, tap), wide in zip(names, dilations, strict=True)]
    return [(reach // 2, reach - reach // 2) for reach in reaches]


def ends(what: str, value: Any, count: int, least: int) -> tuple[tuple[int, int], ...]:
    """(before, after) for each axis, from one number, one for each axis, or pairs. Raises `ArgumentError`."""
    values = (value,) * count if isinstance(value, int) else value
    pairs = [(v, v) if isinstance(v, int) else v for v in values]
    whole = all(isinstance(v, tuple) and len(v) == 2 and min(map(_checked, v)) >= least for v in pairs)
    if isinstance(value, str) or len(pairs) != count or not whole:
        raise ArgumentError(
            f"{what} is a whole number from {least} on, or {count} of them, one an axis (a pair has the "
            f"number before and the one after); got {value!r}"
        )
    return tuple(pairs)


def _checked(number: Any) -> float:
    return number if isinstance(number, int) else float("-inf")


def each(what: str, value: Any, count: int, least: int) -> tuple[int, ...]:
    """One number an axis. Raises `ArgumentError` for another count or a number that is too small."""
    numbers = (value,) * count if isinstance(value, int) else tuple(value)
    if len(numbers) != count or any(_checked(number) < least for number in numbers):
        raise ArgumentError(
            f"{what} is a whole number from {least} on, or {count} of them, one an axis; got {value!r}"
        )
    return numbers


def windows(x: Any, slides: Sequence[Sliding], fill: float = 0) -> Any:
    """`x` at every tap of every window, `fill` outside."""
    return x.at(fill=fill, **{s.over: s.positions() for s in slides})
