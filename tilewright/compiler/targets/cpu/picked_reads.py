"""Reads at positions whose lanes are picked from whole vectors: in turns between phases, or several times."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright.compiler.targets.cpu.builder import I64, Value
from tilewright.compiler.targets.cpu.coordinates import Coordinate, Lanes
from tilewright.compiler.targets.cpu.layout import UNIT
from tilewright.compiler.targets.cpu.picked_lanes import (
    Repeats,
    Turns,
    chosen,
    elements_of,
    lanes_of_phase,
    merged,
    repeats,
    spread,
    turns,
)
from tilewright.dsl.program import At, Read

if TYPE_CHECKING:
    from tilewright.compiler.targets.cpu.scope import Scope


def read_picked(scope: Scope, node: At) -> Value | None:
    """What is read so; None of other reads.

    Lanes are consecutive, and the operand is never left and lies along the axis that they read along.
    """
    lane = next((a for a in node.axes if isinstance(scope.coordinates.get(a), Lanes)), None)
    if lane is None or node.dtype.is_bool:
        return None
    coordinate = scope.coordinates[lane]
    assert isinstance(coordinate, Lanes)
    if coordinate.first is None or coordinate.apart != 1:
        return None
    if not set(node.along) <= scope.layout.inside.get(node, frozenset()):
        return None
    in_turns, repeated = turns(node, lane), repeats(node, lane)
    if in_turns is not None and _lies_along(scope, node, in_turns.block):
        return _in_turns(scope, node, in_turns)
    if repeated is not None and _lies_along(scope, node, repeated.axis):
        return _repeated(scope, node, repeated, lane, coordinate.first)
    return None


def _lies_along(scope: Scope, node: At, axis: str) -> bool:
    assert isinstance(node.arg, Read)
    operand = scope.loaded.operands[node.arg.param, False]
    return operand.classes[node.arg.names.index(axis)] == UNIT


def _in_turns(scope: Scope, node: At, how: Turns) -> Value:
    """A vector of each phase, and the lanes picked from them."""
    b, lanes = scope.b, scope.lanes
    assert isinstance(node.arg, Read)
    walk = scope.walk(how.whole)
    assert isinstance(walk, Lanes) and walk.first is not None
    count = b.constant(how.phases, I64)
    start = b.rem(walk.first, count, signed=False)
    here: dict[str, Coordinate] = {
        a: scope.values[p] for a, p in zip(node.along, node.positions, strict=True)
    }
    here[how.block] = b.div(walk.first, count, signed=False)
    starts = range(how.phases)
    vectors = []
    for phase in starts:
        here[how.phase] = b.constant(phase, I64)
        places = tuple(here.get(axis) or scope.coordinates[axis] for axis in node.arg.names)
        pointer, _ = scope.address(scope.loaded.operands[node.arg.param, False], places)
        picked = [lanes_of_phase(lanes, phase, how.phases, at) for at in starts]
        mask = chosen(b, start, [spread(b, scope.mask, lanes, places) for places in picked])
        vectors.append(scope.load_lanes(pointer, node.dtype, mask))
    orders = [[lanes_of_phase(lanes, phase, how.phases, at) for phase in starts] for at in starts]
    return chosen(b, start, [merged(b, vectors, picked, lanes) for picked in orders])


def _repeated(scope: Scope, node: At, how: Repeats, lane: str, first: Value) -> Value:
    """A vector of the elements, each in as many lanes."""
    b, lanes, starts = scope.b, scope.lanes, range(how.times)
    whole, element = (scope.at_first(n, lane, first) for n in (how.whole, how.position))
    start = b.sub(whole, b.mul(element, how.times))
    operand, places, _ = scope.places_at(node, {how.axis: element})
    pointer, _ = scope.address(operand, places)
    mask = chosen(b, start, [elements_of(b, scope.mask, lanes, how.times, at) for at in starts])
    vector = scope.load_lanes(pointer, node.dtype, mask)
    orders = [[(at + number) // how.times for number in range(lanes)] for at in starts]
    return chosen(b, start, [b.shuffle(vector, vector, order) for order in orders])
