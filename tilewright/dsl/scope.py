"""What axis names mean while the body of an op runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field

from tilewright.dsl.axes import ELLIPSIS, is_batch_axis, split_names, union
from tilewright.dsl.location import users_line
from tilewright.dsl.program import Node, SecondName, Size


@dataclass
class Scope:
    """What axis names mean in the op whose body runs.

    `batch` is what the op's `...` stands for, outermost first. Inside an op that is inlined into another,
    `names` maps its own axis names to the caller's, `copies` are second names for one axis of the caller that
    the inner op calls by two, and `taken` are the caller's names, which a new axis of the inner op must not
    take. `mentioned` remembers the line on which `index` and `size` first named an axis, `seen` every name
    that was used, and `extents` those of the axes that the body declares (an inlined op's are its caller's),
    which `operand_axes` have from elsewhere. `beside` are the axes that stood in for another one in
    `x.at(…)`: they take its place in the order of a result's axes. `second_names` are axes along which values
    are read in place of others. `draws` numbers the random draws of a whole trace. `units` are axes that the
    op names and its operands lack, since they are 1 long.
    """

    names: dict[str, str] = field(default_factory=dict)
    batch: tuple[str, ...] = ()
    copies: dict[str, str] = field(default_factory=dict)
    taken: set[str] | None = None
    seen: set[str] = field(default_factory=set)
    mentioned: dict[str, str | None] = field(default_factory=dict)
    extents: dict[str, Node] = field(default_factory=dict)
    operand_axes: frozenset[str] = frozenset()
    beside: dict[str, tuple[str, ...]] = field(default_factory=dict)
    second_names: list[SecondName] = field(default_factory=list)
    draws: Iterator[int] = field(default_factory=itertools.count)
    units: frozenset[str] = frozenset()

    def caller_name(self, axis: str) -> str:
        if axis == ELLIPSIS:
            return axis
        if self.taken is not None and axis not in self.names:
            self.names[axis] = _unused(axis, self.taken)
        name = self.names.get(axis, axis)
        self.seen.add(name)
        return name


scope: ContextVar[Scope | None] = ContextVar("scope", default=None)


def _unused(axis: str, taken: set[str]) -> str:
    """`axis`, or `axis2`, `axis3` … where that name means something else already."""
    name, number = axis, 1
    while name in taken:
        number += 1
        name = f"{axis}{number}"
    return name


def axis_names(text: str) -> tuple[str, ...]:
    """The axes that a text in an op's body names; those of an inlined op are its caller's."""
    return tuple(map(caller_name, split_names(text)))


def caller_name(axis: str) -> str:
    current = scope.get()
    return current.caller_name(axis) if current else axis


def mention(axis: str) -> None:
    """Remembers the user's line that names `axis`, for the message if nothing else has that axis."""
    current = scope.get()
    if current is not None and axis not in current.mentioned:
        current.mentioned[axis] = users_line()


def read_along(names: Mapping[str, str]) -> None:
    """Remembers that a value is read along other axes than its own, old name by new."""
    current = scope.get()
    if current is None:
        return
    for first, axis in names.items():
        if first != axis:
            size = current.extents.get(first) or Size(first)
            current.second_names.append(SecondName(axis, first, size, users_line()))


def is_unit(axis: str) -> bool:
    """Whether the op whose body runs has been given tiles that lack `axis`, since it is 1 long."""
    current = scope.get()
    return current is not None and axis in current.units


def is_batch(axis: str) -> bool:
    """Whether `...` stands for `axis` (among others) in the op whose body runs."""
    current = scope.get()
    return is_batch_axis(axis) or (current is not None and axis in current.batch)


def in_place(axes: tuple[str, ...]) -> tuple[str, ...]:
    """`axes`, each followed by those that positions along it brought in: (row d) → (row n d)."""
    current = scope.get()
    beside = current.beside if current else {}
    return union(*((axis, *beside.get(axis, ())) for axis in axes))
