"""The transpose of indexing: which positions read a given place, found by solving for them.

    y[i, r] = x[p(i, r)]          d_x[h] = Σ over all (i, r) with p(i, r) = h of d_y[i, r]

Where a position is linear in an axis, sympy solves `p = h` for that axis, and the sum over it is gone:

    p = s·i + r - pad             d_x[h] = Σ_r [(h - r + pad) % s = 0] · d_y[i = (h - r + pad) // s, r]
    p = i·size(j) + j             d_x[h] = d_y[i = h // size(j), j = h % size(j)]

That is indexing again, with a sum that contractions can be recognised in: no scatter, no atomics. The
axis that is solved for is one whose extent is an expression of others (an output axis: `oh`), then an
operand's, then one with a constant extent, and last a window's (an axis whose size is taken away to get
an output axis's). What cannot be solved (positions that are read, or not linear) becomes a `Scatter`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from tilewright.dsl.affine import shortest
from tilewright.dsl.axes import base, fresh, union
from tilewright.dsl.dtypes import int64
from tilewright.dsl.expression import Expr
from tilewright.dsl.program import (
    At,
    Const,
    Index,
    Map,
    Node,
    Size,
    indexed,
    masked,
    reduced,
    rename,
    replace,
    scattered,
    topological,
)

Extents = Mapping[str, Node]


def transposed(node: At, cotangent: Expr, extents: Extents) -> Expr:
    """The cotangent of `node.arg` for one of `node`."""
    value, positions = _clear_of(node.along, cotangent.node, node.positions)
    kept = tuple(a for a in node.arg.axes if a not in node.along)
    summed = tuple(a for a in union(*(p.axes for p in positions)) if a not in kept)
    system = _System(dict(zip(node.along, positions, strict=True)), summed, extents)
    system.solve()
    value = system.applied(value)
    left = tuple(a for a in summed if a not in system.solved)
    if system.unsolved:
        along, places = tuple(system.unsolved), tuple(system.unsolved.values())
        return Expr(scattered(along, left, value, places))
    return Expr(reduced("sum", left, value))


def _clear_of(
    along: tuple[str, ...], value: Node, positions: tuple[Node, ...]
) -> tuple[Node, tuple[Node, ...]]:
    """The cotangent and the positions under names that leave those in `along` free for the result."""
    taken = {*value.axes, *union(*(p.axes for p in positions)), *along}
    names: dict[str, str] = {}
    for axis in along:
        names[axis] = fresh(axis, taken)
        taken.add(names[axis])
    return rename(value, names), tuple(rename(p, names) for p in positions)


class _System:
    """The equations `position = index(axis)`, solved one after the other for axes among `summed`."""

    def __init__(self, positions: Mapping[str, Node], summed: tuple[str, ...], extents: Extents):
        self.unsolved = dict(positions)
        self.summed = summed
        self.extents = extents
        self.solved: dict[str, Node] = {}
        self.conditions: list[Node] = []
        self.meant: dict[str, Node] = {axis: Index(axis) for axis in positions}
        self.joined: dict[str, tuple[str, Node]] = {}

    def solve(self) -> None:
        self._join_digits()
        progress = True
        while progress:
            progress = any(self._solve_one(axis) for axis in list(self.unsolved))
        for axis, position in list(self.unsolved.items()):
            if not set(position.axes) & self._free:
                self.conditions.append(Map("eq", (position, self.meant[axis])))
                del self.unsolved[axis]
        for axis in set(self.unsolved) & set(self.joined):
            low, digit = self.joined[axis]
            self.unsolved[low] = Map("mod", (self.unsolved[axis], digit))
            self.unsolved[axis] = Map("floordiv", (self.unsolved[axis], digit))

    def _join_digits(self) -> None:
        """e // size(b) = a and e % size(b) = b are e = a · size(b) + b."""
        for high, low in itertools.permutations(self.unsolved, 2):
            one, two = self.unsolved.get(high), self.unsolved.get(low)
            if not isinstance(one, Map) or not isinstance(two, Map) or one.operands != two.operands:
                continue
            if (one.function, two.function) != ("floordiv", "mod"):
                continue
            digit = one.operands[1]
            if digit is not Size(base(low)) and digit is not self.extents.get(base(low)):
                continue
            del self.unsolved[low]
            self.unsolved[high] = one.operands[0]
            self.meant[high] = Map("add", (Map("mul", (Index(high), digit)), Index(low)))
            self.joined[high] = (low, digit)

    @property
    def _free(self) -> set[str]:
        return {a for a in self.summed if a not in self.solved}

    def _solve_one(self, axis: str) -> bool:
        position = self.unsolved[axis]
        free = self._free & set(position.axes)
        found = _digits(self.meant[axis], position, free, self.extents)
        if found is None:
            for candidate in sorted(free, key=lambda a: (self._preference(a), position.axes.index(a))):
                found = _solution(self.meant[axis], position, candidate)
                if found is not None:
                    break
        if found is None:
            return False
        del self.unsolved[axis]
        solutions, conditions = found
        self.solved = {a: _substituted(p, solutions) for a, p in self.solved.items()} | solutions
        self.unsolved = {a: _substituted(p, solutions) for a, p in self.unsolved.items()}
        self.conditions = [_substituted(c, solutions) for c in self.conditions] + conditions
        return True

    def _preference(self, axis: str) -> int:
        """0 for an output axis, then operands' axes, constants, windows: the sum runs over the others."""
        size = self.extents.get(base(axis))
        if size is None:
            return 3 if base(axis) in windows(self.extents) else 1
        return 2 if isinstance(size, Const) else 0

    def applied(self, value: Node) -> Node:
        """The cotangent at the solved positions, 0 where a condition fails."""
        value = indexed(value, self.solved)
        for condition in self.conditions:
            value = masked(condition, value)
        return value


def _substituted(node: Node, solutions: Mapping[str, Node]) -> Node:
    """A position or condition with the coordinate along the solved axes replaced."""
    table: dict[Node, Node] = {}
    for inner in topological([node]):
        if isinstance(inner, Index) and inner.axis in solutions:
            table[inner] = solutions[inner.axis]
        elif not inner.args and set(inner.axes) & set(solutions):
            here = {a: p for a, p in solutions.items() if a in inner.axes}
            table[inner] = indexed(inner, here)
    replaced = replace(node, table)
    return shortest(replaced) if replaced.dtype == int64 else replaced


def windows(extents: Extents) -> set[str]:
    """The axes whose size is taken away from another to give an extent: size(oh) = size(h) - size(r) + 1."""
    found: set[str] = set()
    for size in extents.values():
        for node in topological([size]):
            if isinstance(node, Map) and node.function in ("sub", "neg"):
                found.update(base(n.axis) for n in topological(node.operands[-1:]) if isinstance(n, Size))
    return found


Solution = tuple[dict[str, Node], list[Node]]


def _solution(place: Node, position: Node, candidate: str) -> Solution | None:
    """position = place solved for index(candidate), with the condition that it is a whole number."""
    linear = _linear(position, candidate)
    if linear is None:
        return None
    step, rest = linear
    distance = Map("sub", (place, rest))
    if isinstance(step, Const) and step.value in (1, -1):
        whole = distance if step.value == 1 else Map("neg", (distance,))
        return {candidate: shortest(whole)}, []
    distance = shortest(distance)
    remainder = Map("eq", (Map("mod", (distance, step)), Const(0, int64)))
    return {candidate: Map("floordiv", (distance, step))}, [remainder]


def _digits(place: Node, position: Node, free: set[str], extents: Extents) -> Solution | None:
    """position = i · size(j) + j + c: i and j are the quotient and the remainder."""
    for low in free:
        linear = _linear(position, low)
        if linear is None or not (isinstance(linear[0], Const) and linear[0].value == 1):
            continue
        size = extents.get(base(low))
        for high in free - {low}:
            above = _linear(linear[1], high)
            if above is None or set(above[1].axes) & free:
                continue
            if above[0] is not Size(base(low)) and above[0] is not size:
                continue
            distance = shortest(Map("sub", (place, above[1])))
            return {high: Map("floordiv", (distance, above[0])), low: Map("mod", (distance, above[0]))}, []
    return None


def _linear(position: Node, axis: str) -> tuple[Node, Node] | None:
    """(step, rest) with position = step · index(axis) + rest, where neither runs along `axis`."""
    from tilewright.autograd.symbols import Symbols

    symbols = Symbols()
    expression = symbols.of(position)
    found = symbols.linear(expression, Index(axis))
    if found is None:
        return None
    step, rest = found
    step_node, rest_node = symbols.node(step), symbols.node(rest)
    if axis in rest_node.axes or step_node.axes:
        return None
    return step_node, rest_node
