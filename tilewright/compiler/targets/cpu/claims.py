"""What is certain in a part of a loop nest: claims that hold at all of its positions.

    0 ≤ position < extent      where a linear position has its least and its greatest value
    a compares to b            so does a - b to 0

Code for tiles where all claims hold has no masks for what is outside of an operand, and no conditions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tilewright.compiler.nest import Kernel, indexed_reads
from tilewright.compiler.targets.cpu.builder import I1, Builder, Value
from tilewright.compiler.targets.cpu.layout import Layout
from tilewright.compiler.targets.cpu.scope import Scope
from tilewright.dsl.affine import affine
from tilewright.dsl.dtypes import int64
from tilewright.dsl.program import At, Map, Node, Size, topological

Ends = Mapping[str, tuple[Value, Value]]
"""The first and the last position of a tile along each axis."""

COMPARISONS = {"ge": ("low", "ge"), "gt": ("low", "gt"), "lt": ("high", "lt"), "le": ("high", "le")}
"""What is asked of a - b for "a compares to b" to hold everywhere: at which end, and how it compares to 0."""


@dataclass(frozen=True)
class Claim:
    """`value` compares to 0 so, everywhere in a tile, if it does at its low or its high end. `of` follows:
    a condition, or that a node is inside of its operand along an axis, or a place of a result of that name.
    """

    value: Node
    end: str
    comparison: str
    of: Node | tuple[At | str, str]


def claims(kernel: Kernel, layout: Layout, moving: frozenset[str]) -> tuple[Claim, ...]:
    """What can be asked once for all positions along the `moving` axes: where values have ends is known."""
    reads = indexed_reads(kernel)
    positions = {position for node in reads for position in node.positions}
    found = list(_of_reads(reads, layout))
    for output in kernel.outputs:
        proven = layout.windows.within.get(output.buffer.name, frozenset())
        for axis, place in zip(output.buffer.axes, output.places, strict=False):
            if axis not in proven:
                found.extend(_inside(place, axis, output.buffer.name))
    for node in topological(kernel.roots):
        if isinstance(node, Map) and node.function in COMPARISONS and set(node.operands) & positions:
            end, comparison = COMPARISONS[node.function]
            found.append(Claim(Map("sub", node.operands), end, comparison, node))
    return _with_ends(found, moving)


def claims_of_reads(nodes: Iterable[At], layout: Layout, moving: frozenset[str]) -> tuple[Claim, ...]:
    """Of them, those that these operands are read inside of."""
    return _with_ends(list(_of_reads(nodes, layout)), moving)


def _of_reads(nodes: Iterable[At], layout: Layout) -> Iterator[Claim]:
    for node in nodes:
        proven = layout.inside.get(node, frozenset())
        for axis, position in zip(node.along, node.positions, strict=True):
            if axis not in proven:
                yield from _inside(position, axis, node)


def _with_ends(found: Sequence[Claim], moving: frozenset[str]) -> tuple[Claim, ...]:
    unknown = {c.of for c in found if _steps(c.value, moving) is None}
    return tuple(c for c in found if c.of not in unknown)


def _inside(position: Node, axis: str, of: At | str) -> tuple[Claim, Claim]:
    beyond = Map("sub", (position, Size(axis)))
    return Claim(position, "low", "ge", (of, axis)), Claim(beyond, "high", "lt", (of, axis))


def _steps(node: Node, moving: frozenset[str]) -> dict[str, int] | None:
    """What a step along each of the moving axes adds; None where that is no constant."""
    if node.dtype != int64:
        return None
    steps = {axis: affine(node).step(axis) for axis in moving}
    known = {axis: step for axis, step in steps.items() if step is not None}
    return known if len(known) == len(steps) else None


def hold(b: Builder, scope: Scope, asked: Sequence[Claim], ends: Ends) -> Value:
    """Whether all claims hold between these ends."""
    result = b.constant(True, I1)
    for claim in asked:
        steps = _steps(claim.value, frozenset(ends)) or {}
        corner = {a: ends[a][(step < 0) != (claim.end == "high")] for a, step in steps.items()}
        coordinates = {**scope.coordinates, **corner}
        place = Scope(b, scope.loaded, scope.layout, 0, coordinates, values=dict(scope.values))
        holds = b.cmp(claim.comparison, place.evaluate(claim.value), 0)
        result = b.and_(result, b.not_(b.any(b.not_(holds))))  # vectors may run along the taps
    return result


def where_certain(b: Builder, scope: Scope, asked: Iterable[Claim]) -> Scope:
    """The scope where all claims hold."""
    inside, within = dict(scope.layout.inside), dict(scope.layout.windows.within)
    values = dict(scope.values)
    for claim in asked:
        if isinstance(claim.of, Node):
            values[claim.of] = b.constant(True, I1)
            continue
        of, axis = claim.of
        if isinstance(of, str):
            within[of] = within[of] | {axis}
        else:
            inside[of] = inside.get(of, frozenset()) | {axis}
    windows = replace(scope.layout.windows, within=within)
    return replace(scope, layout=replace(scope.layout, inside=inside, windows=windows), values=values)
