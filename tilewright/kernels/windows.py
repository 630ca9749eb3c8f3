"""Windows that slide along several axes: what convolutions and pools read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tilewright as tw
from tilewright.errors import ArgumentError

Steps = int | Sequence[int]


@dataclass(frozen=True)
class Sliding:
    """Positions along the axis `over`: out·stride + tap·dilation - padding for every window and tap."""

    over: str
    out: str
    tap: str
    stride: int
    padding: int
    dilation: int

    def extent(self) -> Any:
        """How many windows there are: ⌊(size + 2·padding - dilation·(taps - 1) - 1) / stride⌋ + 1."""
        reach = self.dilation * (tw.size(self.tap) - 1)
        return (tw.size(self.over) + 2 * self.padding - reach - 1) // self.stride + 1

    def start(self) -> Any:
        """The first position of each window, before 0 where padding is read."""
        return tw.axis(self.out, self.extent()) * self.stride - self.padding

    def positions(self) -> Any:
        return self.start() + tw.index(self.tap) * self.dilation


def sliding(
    over: str, out: str, taps: str, stride: Steps, padding: Steps, dilation: Steps
) -> tuple[Sliding, ...]:
    """One window an axis: names in the order of the axes, a number for all of them or one for each."""
    names = tuple(zip(over.split(), out.split(), taps.split(), strict=True))
    numbers = zip(
        each("stride", stride, len(names), 1),
        each("padding", padding, len(names), 0),
        each("dilation", dilation, len(names), 1),
        strict=True,
    )
    return tuple(Sliding(*name, *number) for name, number in zip(names, numbers, strict=True))


def each(what: str, value: Steps, count: int, least: int) -> tuple[int, ...]:
    """One number an axis. Raises `ArgumentError` for another count or a number that is too small."""
    numbers = (value,) * count if isinstance(value, int) else tuple(value)
    if len(numbers) != count or any(number < least for number in numbers):
        raise ArgumentError(
            f"{what} is a whole number from {least} on, or {count} of them, one an axis; got {value!r}"
        )
    return numbers


def windows(x: Any, slides: Sequence[Sliding], fill: float = 0) -> Any:
    """`x` at every tap of every window, `fill` outside."""
    return x.at(fill=fill, **{s.over: s.positions() for s in slides})
