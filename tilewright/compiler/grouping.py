"""Grouping: what is computed for memory, and which of it shares a kernel.

Every target starts as a kernel of its own. Kernels merge where they run over the same positions and share
data, and where no other kernel has to run in between.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from tilewright.compiler.nest import Contraction, Split
from tilewright.dsl.program import Node, Order, Read, Scatter

Shape = tuple[frozenset[str], frozenset[str]]


@dataclass(frozen=True, eq=False)
class Target:
    """A node that goes through memory, and the loops that compute it."""

    node: Node
    parallel: tuple[str, ...]
    row: tuple[str, ...]
    contraction: Contraction | None = None
    partial: Split | None = None
    combine: str | None = None
    own: Scatter | Order | None = None
    reverse: bool | None = None  # the direction of the scans that it carries along, if there are any

    @property
    def shape(self) -> Shape:
        return frozenset(self.parallel), frozenset(self.row)


class Group:
    """Targets that become one kernel; the first one decides the loops.

    `elsewhere` are values that they read at other positions than their own: those must be in memory.
    `borrowed` are values that are targets under other names for their axes.
    """

    def __init__(
        self,
        targets: list[Target],
        boundaries: list[Node],
        operands: frozenset[str],
        elsewhere: frozenset[Node] = frozenset(),
        borrowed: Mapping[Node, Node] | None = None,
    ):
        self.targets = targets
        self.boundaries = boundaries
        self.operands = operands
        self.elsewhere = elsewhere
        self.borrowed = borrowed or {}

    @property
    def lead(self) -> Target:
        return self.targets[0]

    @property
    def nodes(self) -> set[Node]:
        return {t.node for t in self.targets}


def merge(partial_buffers: Collection[str], groups: list[Group]) -> list[Group]:
    for fits in (_epilogue_fits, _fits):
        groups = _merge_where(partial_buffers, groups, fits)
    return _ordered(groups)


def _merge_where(
    partial_buffers: Collection[str], groups: list[Group], fits: Callable[[Group, Group], bool]
) -> list[Group]:
    merged = True
    while merged:
        merged = False
        for first in groups:
            for second in groups:
                if first is second or not fits(first, second) or _runs_between(groups, first, second):
                    continue
                if first.elsewhere & second.nodes or second.elsewhere & first.nodes:
                    continue
                targets = [*first.targets, *second.targets]
                inside = {t.node for t in targets}
                boundaries = [
                    b
                    for b in dict.fromkeys([*first.boundaries, *second.boundaries])
                    if b not in inside or _is_split(b, partial_buffers)
                ]
                groups = [g for g in groups if g is not second]
                groups[groups.index(first)] = Group(
                    targets,
                    boundaries,
                    first.operands | second.operands,
                    first.elsewhere | second.elsewhere,
                    {**first.borrowed, **second.borrowed},
                )
                merged = True
                break
            if merged:
                break
    return groups


def _is_split(node: Node, partial_buffers: Collection[str]) -> bool:
    return isinstance(node, Read) and node.param in partial_buffers


def _fits(first: Group, second: Group) -> bool:
    """Whether `second`'s targets can be computed in the loops of `first`, and would share data there."""
    if second.lead.contraction or first.lead.own or second.lead.own:
        return False
    if any(_is_chunk_read(b) and b in first.nodes for b in second.boundaries):
        return False
    if any(_is_chunk_read(b) and b in second.nodes for b in first.boundaries):
        return False
    one, two = first.lead, second.lead
    if not _same_direction(first, second):
        return False
    first_split = next((t.partial for t in first.targets if t.partial), None)
    second_split = next((t.partial for t in second.targets if t.partial), None)
    if first_split or second_split:
        return _splits_fit(first, second, first_split, second_split)
    if one.contraction:
        return _epilogue_fits(first, second)
    if two.row:
        return one.shape == two.shape and _related(first, second)
    whole = set(one.parallel) | set(one.row)
    return set(two.parallel) in (whole, set(one.parallel)) and _related(first, second)


def _same_direction(first: Group, second: Group) -> bool:
    """Whether the scans of two groups, if both have some, walk one way; beside scans nothing is split."""
    ways = {t.reverse for t in (*first.targets, *second.targets) if t.reverse is not None}
    splits = any(t.partial for t in (*first.targets, *second.targets))
    return len(ways) < 2 and not (ways and splits)


def _epilogue_fits(first: Group, second: Group) -> bool:
    """Whether `second` is pointwise work on the sums of the contraction `first`."""
    one, two = first.lead, second.lead
    if not one.contraction or two.contraction or two.own or two.row or any(t.partial for t in second.targets):
        return False
    return set(two.parallel) == set(one.parallel) and bool(set(second.boundaries) & first.nodes)


def _splits_fit(first: Group, second: Group, one: Split | None, two: Split | None) -> bool:
    if first.lead.contraction or not _related(first, second):
        return False
    if one and two:
        return (
            one.of == two.of
            and first.lead.row == second.lead.row
            and (one.of == "row" or first.lead.shape == second.lead.shape)
        )
    split = one or two
    assert split is not None
    if split.of != "parallel":
        return False
    if first.lead.shape == second.lead.shape:
        return True
    return (
        one is not None
        and not second.lead.row
        and set(second.lead.parallel) == set().union(*first.lead.shape)
    )


def _is_chunk_read(node: Node) -> bool:
    return isinstance(node, Read)


def _related(first: Group, second: Group) -> bool:
    """Whether two groups read the same operand or one reads what the other writes."""
    if set(second.boundaries) & first.nodes or set(first.boundaries) & second.nodes:
        return True
    return bool(first.operands & second.operands)


def _depends(groups: list[Group]) -> dict[int, set[int]]:
    """For each group the groups that must run before it."""
    writer = {node: position for position, g in enumerate(groups) for node in g.nodes}
    direct = {p: {writer[b] for b in g.boundaries if writer[b] != p} for p, g in enumerate(groups)}
    closed: dict[int, set[int]] = {}

    def close(position: int) -> set[int]:
        if position not in closed:
            closed[position] = set()
            for before in direct[position]:
                closed[position] |= {before} | close(before)
        return closed[position]

    return {p: close(p) for p in direct}


def _runs_between(groups: list[Group], first: Group, second: Group) -> bool:
    before = _depends(groups)
    one, two = groups.index(first), groups.index(second)
    return any(
        (one in before[p] and p in before[two]) or (two in before[p] and p in before[one]) for p in before
    )


def _ordered(groups: list[Group]) -> list[Group]:
    before = _depends(groups)
    return [groups[p] for p in sorted(before, key=lambda p: (len(before[p]), p))]
