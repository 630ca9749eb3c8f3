"""Positions that are piecewise sums: where each piece holds, and what it is there.

    minimum(p, q)        p where q - p ≥ 0                  q where p - q - 1 ≥ 0
    maximum(p, q)        p where p - q ≥ 0                  q where q - p - 1 ≥ 0
    abs(p)               p where p ≥ 0                      -p where -p - 1 ≥ 0
    where(c, p, q)       p where c                          q where not c

So clip(i - 1, 0, n - 1) is i - 1 where that is ≥ 0 and < n, 0 where it is below and n - 1 where it is above.
The conditions of the pieces exclude each other, and one holds everywhere: a sum over all positions is the sum
of the pieces' sums. What surely holds, where no axis is empty, or follows from another condition is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.autograd.solving import ONE, ZERO, Axes, between, is_positive, linear, minus, plus, product
from tilewright.dsl.affine import affine, quotient, shortest
from tilewright.dsl.dtypes import int64
from tilewright.dsl.program import Const, Index, Map, Node, Size, replace, topological

CHOICES = ("minimum", "maximum", "abs", "where")
MOST = 12


@dataclass(frozen=True)
class Piece:
    """What a position is where the conditions hold: int64 nodes that are ≥ 0 then, and any others."""

    position: Node
    bounds: tuple[Node, ...] = ()
    others: tuple[Node, ...] = ()

    def chosen(self, choice: Node, instead: Node) -> Piece:
        """With one side of a choice in its place."""
        table = {choice: shortest(instead)}
        position, *rest = (shortest(replace(n, table)) for n in (self.position, *self.bounds, *self.others))
        count = len(self.bounds)
        return Piece(position, tuple(rest[:count]), tuple(rest[count:]))


def pieces(position: Node, summed: tuple[str, ...], axes: Axes) -> list[Piece]:
    """The pieces of a position along the axes `summed`; one where it is no choice, or one of too many."""
    whole = [Piece(position)]
    if not all(isinstance(n, (Const, Index, Size, Map)) for n in topological([position])):
        return whole
    pending, done = list(whole), []
    while pending:
        piece = pending.pop(0)
        choice = _choice(piece.position, summed)
        if choice is None:
            done.append(_without_implied(piece, axes))
            continue
        for condition, instead in _sides(choice):
            side = _with(piece.chosen(choice, instead), condition, axes)
            pending += [] if side is None else [side]
        if len(pending) + len(done) > MOST:
            return whole
    return done


def _choice(position: Node, summed: tuple[str, ...]) -> Map | None:
    """The first choice that has no other inside."""
    for node in topological([position]):
        if not isinstance(node, Map) or node.dtype != int64 or node.function not in CHOICES:
            continue
        if set(node.axes) & set(summed):
            return node
    return None


def _sides(choice: Map) -> Iterator[tuple[Node, Node]]:
    """(condition, what the choice is where it holds), twice."""
    if choice.function == "where":
        condition, first, second = choice.operands
        yield condition, first
        yield negated(condition), second
        return
    first, second = choice.operands if len(choice.operands) == 2 else (*choice.operands, ZERO)
    other = Map("neg", (first,)) if choice.function == "abs" else second
    small, large = (first, second) if choice.function == "minimum" else (second, first)
    yield Map("le", (small, large)), first
    yield Map("gt", (small, large)), other


def negated(condition: Node) -> Node:
    opposite = {"lt": "ge", "ge": "lt", "le": "gt", "gt": "le"}
    if isinstance(condition, Map) and condition.function in opposite:
        return Map(opposite[condition.function], condition.operands)
    return Map("not", (condition,))


def _with(piece: Piece, condition: Node, axes: Axes) -> Piece | None:
    """The piece under one more condition; None where that never holds."""
    if isinstance(condition, Map) and condition.function == "and":
        both: Piece | None = piece
        for part in condition.operands:
            both = None if both is None else _with(both, part, axes)
        return both
    bound = _as_bound(condition)
    if bound is None:
        return Piece(piece.position, piece.bounds, (*piece.others, condition))
    if never_negative(bound, axes):
        return piece
    for other in (ZERO, *piece.bounds):
        if never_negative(minus(minus(ZERO, plus(bound, other)), ONE), axes):
            return None
    return Piece(piece.position, (*piece.bounds, bound), piece.others)


def _as_bound(condition: Node) -> Node | None:
    """e with `condition` = (e ≥ 0)."""
    if not isinstance(condition, Map) or condition.function not in ("lt", "le", "gt", "ge"):
        return None
    one, other = condition.operands
    if one.dtype != int64 or other.dtype != int64:
        return None
    difference = minus(other, one) if condition.function in ("lt", "le") else minus(one, other)
    return minus(difference, ONE) if condition.function in ("lt", "gt") else difference


def _without_implied(piece: Piece, axes: Axes) -> Piece:
    """Without the bounds that follow from others."""
    kept = list(piece.bounds)
    for bound in piece.bounds:
        others = [b for b in kept if b is not bound]
        if any(never_negative(minus(bound, other), axes) for other in others):
            kept = others
    return Piece(piece.position, tuple(kept), piece.others)


def never_negative(node: Node, axes: Axes) -> bool:
    """Whether a sum of positions and sizes is ≥ 0 wherever it stands, if no axis is empty."""
    found = between(node, axes)
    if found is None:
        return False
    declared = {Size(axis): size for axis, size in axes.declared.items()}
    form = affine(shortest(replace(found[0], declared)))
    least = form.constant + sum(form.terms.values())
    return least >= 0 and all(is_positive(n) and c > 0 for n, c in form.terms.items())


def placed(piece: Piece, axis: str, summed: tuple[str, ...], axes: Axes) -> tuple[list[Node], list[Node]]:
    """The conditions of a piece as those of what is summed and those of the place along `axis`.

    Where p is the position, p - 1 ≥ 0 is a condition of the place: index(axis) - 1 ≥ 0.
    """
    inside: list[Node] = []
    outside: list[Node] = []
    for condition in piece.others:
        (inside if set(condition.axes) & set(summed) else outside).append(condition)
    for bound in piece.bounds:
        of_place = _of_place(bound, piece.position, axis, summed)
        here = bound if of_place is None else of_place
        if not never_negative(here, axes):
            (inside if set(here.axes) & set(summed) else outside).append(Map("ge", (here, ZERO)))
    return inside, outside


def _of_place(bound: Node, position: Node, axis: str, summed: tuple[str, ...]) -> Node | None:
    """`bound` with index(axis) for the position, if nothing that is summed is left in it then."""
    for sign in (1, -1):
        rest = minus(bound, product(Const(sign, int64), position))
        if not set(rest.axes) & set(summed):
            return plus(rest, product(Const(sign, int64), Index(axis)))
    return None


@dataclass(frozen=True)
class Range:
    """`count` positions along an axis from `first` on."""

    axis: str
    first: Node
    count: Node


def narrow(piece: Piece, summed: tuple[str, ...], axes: Axes) -> tuple[Range, Piece] | None:
    """The positions that a piece is limited to, and the piece without those limits; None if it is not."""
    for axis in summed:
        ends = low, high = ZERO, minus(axes.extent(axis) or Size(axis), ONE)
        rest = []
        for bound in piece.bounds:
            limit = _limit(bound, axis, summed)
            if limit is None or (limit[0] and low is not ZERO):
                rest.append(bound)
            elif limit[0]:
                low = limit[1]
            else:
                high = _lower(high, limit[1], axes)
        if (low, high) != ends:
            count = plus(minus(high, low), ONE)
            return Range(axis, low, count), Piece(piece.position, tuple(rest), piece.others)
    return None


def _lower(one: Node, other: Node, axes: Axes) -> Node:
    """The lower of two limits, `other` where that is not known: what lies beyond the axis reads as 0."""
    return one if never_negative(minus(other, one), axes) else other


def _limit(bound: Node, axis: str, summed: tuple[str, ...]) -> tuple[bool, Node] | None:
    """(whether it is the lowest, the limit) that `bound` ≥ 0 sets to the positions along an axis."""
    found = linear(_without_quotient(bound), axis)
    if found is None or set(found[1].axes) & set(summed):
        return None
    step, rest = found
    if is_positive(step):
        return True, minus(ZERO, quotient(rest, step))
    back = minus(ZERO, step)
    return (False, quotient(rest, back)) if is_positive(back) else None


def _without_quotient(bound: Node) -> Node:
    """a // d + r ≥ 0 as a + r·d ≥ 0, and r - a // d ≥ 0 as r·d + d - 1 - a ≥ 0."""
    form = affine(bound)
    quotients = [n for n in form.terms if isinstance(n, Map) and n.function == "floordiv" and n.axes]
    if len(quotients) != 1 or abs(form.terms[quotients[0]]) != 1 or not is_positive(quotients[0].args[1]):
        return bound
    (whole,), (inside, size) = quotients, quotients[0].args
    sign = form.terms[whole]
    rest = product(size, minus(bound, whole) if sign == 1 else plus(bound, whole))
    if sign == 1:
        return plus(inside, rest)
    return minus(plus(rest, minus(size, ONE)), inside)
