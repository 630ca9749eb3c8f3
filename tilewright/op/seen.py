"""How a user has an operand or a result of which a Program knows another layout.

A mapped op (`op.mapped`) has the dimensions that it is mapped over before all others, a user has them
anywhere. What is between the two is an order of dimensions, which derivatives share: a gradient lies as its
operand does, a cotangent as its result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Seen:
    """A user's shape of a value, and the dimensions in it that a mapped op has first.

    `places[k]` is where the k-th of them stands among the dimensions that are left once those before it are
    taken out.
    """

    shape: Shape
    places: tuple[int, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether the mapped dimensions stand where the Program has them."""
        return not any(self.places)

    @property
    def front_shape(self) -> Shape:
        """The shape with the mapped dimensions first."""
        return tuple(self.shape[dimension] for dimension in order(self.places, len(self.shape)))

    def under(self, place: int, extent: int) -> Seen:
        """The same value mapped over one more dimension."""
        return Seen((*self.shape[:place], extent, *self.shape[place:]), (place, *self.places))

    def to_front(self, array: Any) -> Any:
        """A user's array with its mapped dimensions first: a view."""
        return array if self.is_plain else array.transpose(order(self.places, array.ndim))

    def from_front(self, array: Any) -> Any:
        """An array with the mapped dimensions first as a user has it: a view."""
        return array if self.is_plain else array.transpose(inverse(order(self.places, array.ndim)))


def order(places: Sequence[int], rank: int) -> tuple[int, ...]:
    """The dimensions with those at `places` first: what brings them there as an argument of `transpose`."""
    left = list(range(rank))
    first = [left.pop(place) for place in places]
    return (*first, *left)


def inverse(dimensions: Sequence[int]) -> tuple[int, ...]:
    """The order that undoes an order."""
    return tuple(sorted(range(len(dimensions)), key=dimensions.__getitem__))
