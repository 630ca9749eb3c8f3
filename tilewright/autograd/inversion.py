"""The transpose of indexing: which positions read a given place, found by solving for them.

    y[i, r] = x[p(i, r)]          d_x[h] = Σ over all (i, r) with p(i, r) = h of d_y[i, r]

Each position gives an equation `p = h` in the axes that are summed. Where one can be solved for an axis, the
sum over that axis is gone (sympy does the algebra; quotients are those of whole numbers, % s is ≥ 0):

    p = i + r - pad               d_x[h] = Σ_r d_y[i = h - r + pad, r]
    p = i·size(j) + j             d_x[h] = d_y[i = h // size(j), j = h % size(j)]
    p = s·i                       d_x[h] = [h % s = 0] · d_y[i = h // s]
    p = s·i + r - pad             d_x[h] = Σ_u d_y[i = a - u, r = t + pad + s·u]    h = s·a + t
    p = u // s                    d_x[h] = Σ_t d_y[u = s·h + t]                     t < s
    p = (t - k) % n               d_x[h] = Σ_q d_y[t = n·q + h + k]                 for the few q there are
    p = (n·u) // m                d_x[h] = Σ_v [e // m = h] · d_y[u = ⌈m·h / n⌉ + v], e = n·u
    p = clip(i - 2, 0, n - 1)     d_x[h] = d_y[i = h + 2] + [h = 0] Σ_{i < 2} d_y[i] + [h = n - 1] Σ …

That is indexing again, with a sum that contractions can be recognised in: no scatter, no atomics, and
positions that a stride leaves out are not visited: in the fourth line every phase t is a convolution of
stride 1, in a. The result is computed along a and t and read at a = h // s, t = h % s. The
last line is a choice between pieces (`pieces`), solved one by one: where a piece stands still, what is there
is the sum of all positions at which it holds. Equations in the cotangent, `where(e % s == 0, d, 0)`, are
solved as well. The axis that is solved for is one whose extent is an expression of others (an output axis:
`oh`), then an operand's, then one with a constant extent, and last a window's (an axis whose size is taken
away to get an output axis's). What cannot be solved (positions that are read, or not linear) is a `Scatter`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace as replace_fields

from tilewright.autograd.pieces import Piece, narrow, pieces, placed
from tilewright.autograd.solving import Axes, System, plus
from tilewright.dsl.axes import fresh, union
from tilewright.dsl.dtypes import int64
from tilewright.dsl.expression import Expr
from tilewright.dsl.masks import without_mask
from tilewright.dsl.program import (
    At,
    Const,
    Index,
    Map,
    Node,
    Program,
    Scatter,
    Size,
    indexed,
    masked,
    reduced,
    replace,
    rewrite,
    scattered,
    topological,
)
from tilewright.dsl.renaming import rename


def transposed(node: At, cotangent: Expr, axes: Axes) -> Expr:
    """The cotangent of `node.arg` for one of `node`."""
    names = _clear_names(node.along, (cotangent.node, *node.positions))
    value, positions = rename(cotangent.node, names), tuple(rename(p, names) for p in node.positions)
    kept = tuple(a for a in node.arg.axes if a not in node.along)
    summed = tuple(a for a in union(*(p.axes for p in positions)) if a not in kept)
    return Expr(added_up(dict(zip(node.along, positions, strict=True)), summed, value, axes))


def without_scatters(program: Program) -> Program:
    """`program` with every scatter whose positions can be solved as reads and sums."""
    if not any(isinstance(node, Scatter) for node in program.nodes()):
        return program
    axes = Axes.of(program)
    nodes = rewrite(
        (r.node for r in program.results), lambda n: _as_reads(n, axes) if isinstance(n, Scatter) else n
    )
    return axes.added_to(program.with_results(nodes))


def _as_reads(node: Scatter, axes: Axes) -> Node:
    names = _clear_names(node.along, node.args)
    value, *positions = (rename(part, names) for part in node.args)
    summed = tuple(names.get(a, a) for a in node.over)
    if not all(_may_be_solved(p, summed) for p in positions):
        return node
    solved = added_up(dict(zip(node.along, positions, strict=True)), summed, value, axes)
    again = isinstance(solved, Scatter) or any(isinstance(n, Scatter) for n in solved.args)
    return node if again else solved


def _may_be_solved(position: Node, summed: tuple[str, ...]) -> bool:
    """Whether a position is made of nothing that is read."""
    return all(isinstance(n, (Const, Index, Size, Map)) for n in topological([position]))


def _clear_names(along: tuple[str, ...], parts: tuple[Node, ...]) -> dict[str, str]:
    """Names under which the axes of these nodes leave those in `along` free for the result."""
    taken = {*union(*(p.axes for p in parts)), *along}
    names: dict[str, str] = {}
    for axis in along:
        names[axis] = fresh(axis, taken)
        taken.add(names[axis])
    return names


def added_up(positions: Mapping[str, Node], summed: tuple[str, ...], value: Node, axes: Axes) -> Node:
    """Σ over `summed` of the value, at the places that its positions give along new axes."""
    by_pieces = _by_pieces(positions, summed, value, axes)
    if by_pieces is not None:
        return by_pieces
    value, conditions = _without_masks(value)
    system = System(positions, summed, axes, {*value.axes, *positions})
    for condition in conditions:
        if not system.takes(condition):
            value = masked(condition, value)
    system.solve()
    value = system.applied(value)
    left = {axis: p for axis, p in system.unsolved.items() if axis in positions}
    if left:
        return system.in_place(scattered(tuple(left), system.free, value, tuple(left.values())))
    return system.in_place(reduced("sum", system.free, value))


def _by_pieces(
    positions: Mapping[str, Node], summed: tuple[str, ...], value: Node, axes: Axes
) -> Node | None:
    """`added_up` where a position is a choice and every piece of it can be solved; else None.

    An axis whose position shares no summed axis with the others is added up alone, before them: the pieces of
    two axes are terms one after the other, not products of terms.
    """
    for axis, position in positions.items():
        found = pieces(position, summed, axes)
        if len(found) == 1:
            continue
        own = tuple(a for a in summed if a in position.axes)
        rest = {a: p for a, p in positions.items() if a != axis}
        alone = not any(set(own) & set(p.axes) for p in rest.values())
        trial = replace_fields(axes, made=dict(axes.made))
        beside, over = ({}, own) if alone else (rest, summed)
        terms = [_piece_added_up(axis, piece, beside, over, value, trial) for piece in found]
        total = functools.reduce(_sum, terms)
        if total is None:
            return None
        if alone and rest:
            total = added_up(rest, tuple(a for a in summed if a not in own), total, trial)
        if _scatters(total) - _scatters(value):
            return None
        axes.made.update(trial.made)
        return total
    return None


def _sum(one: Node | None, other: Node | None) -> Node | None:
    return one if other is None else other if one is None else Map("add", (one, other))


def _piece_added_up(
    axis: str, piece: Piece, rest: Mapping[str, Node], summed: tuple[str, ...], value: Node, axes: Axes
) -> Node | None:
    """Σ of the value where a piece holds, at its position along `axis`; None where there is nothing."""
    fixed = not set(piece.position.axes) & set(summed)
    if fixed and (near := narrow(piece, summed, axes)):
        within, piece = near
        count = within.count
        if isinstance(count, Const) and count.value <= 0:
            return None
        size = count if isinstance(count, Const) else Map("maximum", (count, Const(0, int64)))
        edge = axes.make(within.axis, size, {*value.axes, *rest, *summed, axis})
        at = plus(within.first, Index(edge))
        value = indexed(value, {within.axis: at})
        rest = {a: replace(p, {Index(within.axis): at}) for a, p in rest.items()}
        piece = piece.chosen(Index(within.axis), at)
        summed = tuple(edge if a == within.axis else a for a in summed)
    inside, outside = placed(piece, axis, summed, axes)
    for condition in inside:
        value = masked(condition, value)
    if fixed:
        total = added_up(rest, summed, value, axes) if rest else reduced("sum", summed, value)
        outside.append(Map("eq", (Index(axis), piece.position)))
    else:
        total = added_up({axis: piece.position, **rest}, summed, value, axes)
    for condition in outside:
        total = masked(condition, total)
    return total


def _scatters(node: Node) -> set[Node]:
    return {n for n in topological([node]) if isinstance(n, Scatter)}


def reads_once(node: At, axes: Axes) -> bool:
    """Whether no value is read twice, as far as solving for where it is read can tell."""
    names = _clear_names(node.along, node.positions)
    positions = [rename(p, names) for p in node.positions]
    kept = {a for a in node.arg.axes if a not in node.along}
    arriving = tuple(a for a in union(*(p.axes for p in positions)) if a not in kept)
    system = System(
        dict(zip(node.along, positions, strict=True)),
        arriving,
        replace_fields(axes, made=dict(axes.made)),
        set(),
    )
    system.solve()
    return not system.free


def _without_masks(value: Node) -> tuple[Node, list[Node]]:
    """`where(c & d, v, 0)` as v and the conditions c, d."""
    conditions = []
    while (under := without_mask(value)) is not None:
        mask, value = under
        pending = [mask]
        while pending:
            condition = pending.pop()
            if isinstance(condition, Map) and condition.function == "and":
                pending.extend(condition.operands)
            else:
                conditions.append(condition)
    return value, conditions
