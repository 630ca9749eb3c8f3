"""Lanes picked from whole vectors, where a gather would visit them one by one.

    spaced      lane l is element l · apart                          strides of a few elements, backwards too
    repeated    lane l is element (t + l) // s                       y[i] = x.at(h=i // s)
    in turns    lane l is element (t + l) // s of phase (t + l) % s  y[i] = x.at(block=e // s, phase=e % s)

The gradient of what has a stride is computed phase by phase: reading it in turns puts it in order. No element
is read that is no lane's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tilewright.compiler.targets.cpu.builder import I1, I64, Builder, Value
from tilewright.compiler.targets.cpu.windows.slides import MOST_PHASES
from tilewright.dsl.affine import affine
from tilewright.dsl.program import At, Const, Map, Node

MOST_REPEATED = 4  # lanes that read the same element

Picked = Mapping[int, int]
"""lane → element"""


@dataclass(frozen=True)
class Turns:
    """Lanes that step through `whole`, of which `block` is the quotient by the number of phases and `phase`
    the remainder.
    """

    block: str
    phase: str
    whole: Node
    phases: int


@dataclass(frozen=True)
class Repeats:
    """Lanes that step through `whole`, of which the `position` along an axis is the quotient by `times`."""

    axis: str
    position: Node
    whole: Node
    times: int


def turns(node: At, lane: str) -> Turns | None:
    """How the lanes along an axis take turns between phases, if they do so and nothing else."""
    found = [(axis, p) for axis, p in zip(node.along, node.positions, strict=True) if lane in p.axes]
    quotients = [(axis, p) for axis, p in found if isinstance(p, Map) and p.function == "floordiv"]
    remainders = [(axis, p) for axis, p in found if isinstance(p, Map) and p.function == "mod"]
    if len(found) != 2 or len(quotients) != 1 or len(remainders) != 1:
        return None
    (block, quotient), (phase, remainder) = quotients[0], remainders[0]
    whole, size = quotient.operands
    if quotient.operands != remainder.operands or not isinstance(size, Const):
        return None
    phases = int(size.value)
    alone = lane not in node.arg.axes or lane in node.along
    fits = 2 <= phases <= MOST_PHASES and affine(whole).step(lane) == 1
    return Turns(block, phase, whole, phases) if alone and fits else None


def spaced_lanes(lanes: int, part: int, apart: int) -> Picked:
    """Which lanes are elements of the vector number `part`, and which element each. Where they go backwards,
    vectors begin with the last lane.
    """
    places = range(lanes) if apart > 0 else range(lanes - 1, -1, -1)
    found = {lane: place * abs(apart) - part * lanes for lane, place in enumerate(places)}
    return {lane: at for lane, at in found.items() if 0 <= at < lanes}


def lanes_of_phase(lanes: int, phase: int, phases: int, start: int) -> Picked:
    """Which lanes are elements of a phase, and which element each, if the first is one of phase `start`."""
    places = {lane: divmod(start + lane, phases) for lane in range(lanes)}
    return {lane: at for lane, (at, turn) in places.items() if turn == phase}


def repeats(node: At, lane: str) -> Repeats | None:
    """How lanes read the same element several times, one after the other, if they do so and nothing else."""
    found = [(axis, p) for axis, p in zip(node.along, node.positions, strict=True) if lane in p.axes]
    if len(found) != 1 or (lane in node.arg.axes and lane not in node.along):
        return None
    ((axis, position),) = found
    if not isinstance(position, Map) or position.function != "floordiv":
        return None
    whole, size = position.operands
    fits = isinstance(size, Const) and 2 <= size.value <= MOST_REPEATED and affine(whole).step(lane) == 1
    return Repeats(axis, position, whole, int(size.value)) if fits and isinstance(size, Const) else None


def elements_of(b: Builder, mask: Value | None, lanes: int, times: int, start: int) -> Value:
    """The mask of the elements that lanes read `times` times each, if the first lane is one of `start`: those
    of which `mask` has a lane.
    """
    none = b.splat(b.constant(False, I1), lanes)
    mask = b.splat(b.constant(True, I1), lanes) if mask is None else mask
    found = none
    for number in range(times):
        sources = (element * times + number - start for element in range(lanes))
        order = [source if 0 <= source < lanes else lanes for source in sources]
        found = b.or_(found, b.shuffle(mask, none, order))
    return found


def spread(b: Builder, mask: Value | None, lanes: int, picked: Picked) -> Value:
    """The mask of the elements that lanes pick, of those lanes that `mask` has."""
    none = b.splat(b.constant(False, I1), lanes)
    mask = b.splat(b.constant(True, I1), lanes) if mask is None else mask
    source = {at: lane for lane, at in picked.items()}
    return b.shuffle(mask, none, [source.get(at, lanes) for at in range(lanes)])


def merged(b: Builder, vectors: Sequence[Value], picked: Sequence[Picked], lanes: int) -> Value:
    """The lanes that are picked from one vector after the other."""
    found = vectors[0]
    for vector, places in zip(vectors, picked, strict=True):
        order = [lanes + places[n] if n in places else n for n in range(lanes)]
        found = b.shuffle(found, vector, order)
    return found


def chosen(b: Builder, number: Value, values: Sequence[Value]) -> Value:
    """The value of that number."""
    found = values[0]
    for n, value in enumerate(values[1:], 1):
        found = b.select(b.cmp("eq", number, b.constant(n, I64)), value, found)
    return found
