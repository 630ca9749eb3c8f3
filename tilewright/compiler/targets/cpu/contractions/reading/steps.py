"""How far what a side reads moves from one position to the next, and how far it reaches outside."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from tilewright.compiler.nest import Contraction
from tilewright.compiler.targets.cpu.contractions.reading.costs import REUSED
from tilewright.dsl.affine import affine
from tilewright.dsl.axes import base
from tilewright.dsl.bounds import bounds
from tilewright.dsl.program import At, Node, Read


def slid_along(node: At) -> set[str]:
    """The axes along which what a node reads slides."""
    return {axis for position in node.positions for axis in position.axes}


def sums_for_taps(node: At, own: Sequence[str], summed: Sequence[str], extents: Mapping[str, int]) -> bool:
    """Whether windows slide further along the summed axes than along a side's own, as a filter's gradient has
    them: its own positions are taps.
    """
    slides = slid_along(node)
    here, there = (math.prod(extents[base(a)] for a in axes if a in slides) for axes in (own, summed))
    return there > here


def both_sides(contraction: Contraction) -> Iterator[tuple[Node, Sequence[str], Sequence[str]]]:
    """Both sides, each with its own positions and those of the other."""
    yield contraction.left, contraction.m, contraction.n
    yield contraction.right, contraction.n, contraction.m


def groups_among(contraction: Contraction) -> tuple[Sequence[str], str] | None:
    """The columns that have groups among their axes, and the axis of those: the other side reads it too."""
    for node, _, others in both_sides(contraction):
        for axis in others:
            if axis in node.axes:
                return others, axis
    return None


def apart(node: Node, axis: str, strides: Mapping[str, Sequence[int]]) -> int | None:
    """The elements of its operand from one position along an axis to the next, if always as many."""
    operand = node.arg if isinstance(node, At) else node
    if not isinstance(operand, Read):
        return None
    places = {}
    if isinstance(node, At):
        places = {name: affine(p) for name, p in zip(node.along, node.positions, strict=True)}
    total = 0
    for name, stride in zip(operand.names, strides[operand.param], strict=True):
        step = places[name].step(axis) if name in places else int(name == axis)
        if step is None:
            return None
        total += step * stride
    return total // node.dtype.itemsize if total % node.dtype.itemsize == 0 else None


def ends_of(node: At, extents: Mapping[str, int]) -> dict[str, tuple[int, int]] | None:
    """How far positions reach outside of an operand along each axis; None where nothing is known."""
    found: dict[str, tuple[int, int]] = {}
    for axis, position in zip(node.along, node.positions, strict=True):
        within = bounds(position, extents)
        if within is None:
            return None
        found[axis] = max(0, -within[0]), max(0, within[1] - extents[base(axis)] + 1)
    return found


def are_read_again(node: At, axes: Sequence[str], count: Callable[..., int]) -> bool:
    """Whether windows read each element of their operand several times, all over these axes, of which so many
    positions are to `count`.
    """
    operand = [axis for axis in node.arg.axes if axis in node.along or axis in axes]
    return count(*axes) >= REUSED * count(*operand)
