"""Where lanes are along an axis, and how they step through memory."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.compiler.targets.cpu.builder import Value


@dataclass(frozen=True)
class Lanes:
    """A coordinate that differs from lane to lane: positions `apart` from each other from `first` on, or any
    `positions`.
    """

    first: Value | None = None
    positions: Value | None = None
    apart: int = 1


@dataclass(frozen=True)
class Spaced:
    """How lanes step from an address: so many elements from one to the next."""

    apart: int


Coordinate = Value | Lanes
Step = Value | Spaced | str | None


@dataclass(frozen=True)
class Flat:
    """Lanes that run on over the ends of an `inner` axis into the next position of the `outer` one.

    To operands that lie so, (name, axes), lanes are consecutive: from element `first` behind the `base`
    position of the outer axis.
    """

    outer: str
    inner: str
    base: Value
    first: Value
    operands: frozenset[tuple[str, tuple[str, ...]]]
