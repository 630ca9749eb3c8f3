"""The transpose of indexing: which positions read a given place, found by solving for them.

    y[i, r] = x[p(i, r)]          d_x[h] = Σ over all (i, r) with p(i, r) = h of d_y[i, r]

Each position gives an equation `p = h` in the axes that are summed. Where one can be solved for an axis, the
sum over that axis is gone (sympy does the algebra; quotients are those of whole numbers, % s is ≥ 0):

    p = i + r - pad               d_x[h] = Σ_r d_y[i = h - r + pad, r]
    p = i·size(j) + j             d_x[h] = d_y[i = h // size(j), j = h % size(j)]
    p = s·i                       d_x[h] = [h % s = 0] · d_y[i = h // s]
    p = s·i + r - pad             d_x[h] = Σ_u d_y[i = a - u, r = t + s·u]          h + pad = s·a + t
    p = u // s                    d_x[h] = Σ_t d_y[u = s·h + t]                     t < s
    p = (t - k) % n               d_x[h] = Σ_q d_y[t = n·q + h + k]                 for the few q there are
    p = (n·u) // m                d_x[h] = Σ_v [e // m = h] · d_y[u = ⌈m·h / n⌉ + v], e = n·u

That is indexing again, with a sum that contractions can be recognised in: no scatter, no atomics, and
positions that a stride leaves out are not visited: in the fourth line every phase t is a convolution of
stride 1, in a. The result is computed along a and t and read at a = (h + pad) // s, t = (h + pad) % s.
Equations in the cotangent, `where(e % s == 0, d, 0)`, are solved as well. The axis that is solved for is one
whose extent is an expression of others (an output axis: `oh`), then an operand's, then one with a constant
extent, and last a window's (an axis whose size is taken away to get an output axis's). What cannot be solved
(positions that are read, or not linear) is a `Scatter`.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from dataclasses import replace as replace_fields

from tilewright.dsl.affine import affine, quotient, remainder, shortest
from tilewright.dsl.axes import base, fresh, union
from tilewright.dsl.dtypes import int64
from tilewright.dsl.expression import Expr
from tilewright.dsl.program import (
    At,
    AxisExtent,
    Cast,
    Const,
    Index,
    Map,
    Node,
    Program,
    Scatter,
    Size,
    axes_within,
    indexed,
    masked,
    reduced,
    rename,
    rewrite,
    scattered,
    topological,
)

ZERO, ONE = Const(0, int64), Const(1, int64)


@dataclass
class Axes:
    """The extents of a Program's axes that no operand has, and of those that solving makes."""

    declared: Mapping[str, Node]
    taken: set[str]
    made: dict[str, Node] = field(default_factory=dict)

    @classmethod
    def of(cls, program: Program) -> Axes:
        roots = (*(r.node for r in program.results), *(e.size for e in program.extents))
        operands = (a for p in program.params for a in p.axes)
        return cls({e.axis: e.size for e in program.extents}, set(map(base, axes_within(roots, operands))))

    def extent(self, axis: str) -> Node | None:
        return self.declared.get(base(axis)) or self.made.get(base(axis))

    def make(self, like: str, size: Node, apart: Container[str]) -> str:
        """An axis of that extent, named after another one, that is none of `apart`."""
        number, name = 1, base(like)
        while name in self.taken or name in apart or self.made.get(name, size) is not size:
            number += 1
            name = f"{base(like)}{number}"
        self.made[name] = size
        return name

    def added_to(self, program: Program) -> Program:
        """`program` with the extents of the axes that were made."""
        extents = (AxisExtent(axis, size) for axis, size in self.made.items())
        return replace_fields(program, extents=(*program.extents, *extents))


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
    value, conditions = _without_masks(value)
    system = _System(positions, summed, axes, {*value.axes, *positions})
    for condition in conditions:
        if not system.takes(condition):
            value = masked(condition, value)
    system.solve()
    value = system.applied(value)
    left = {axis: p for axis, p in system.unsolved.items() if axis in positions}
    if left:
        return system.in_place(scattered(tuple(left), system.free, value, tuple(left.values())))
    return system.in_place(reduced("sum", system.free, value))


def reads_once(node: At, axes: Axes) -> bool:
    """Whether no value is read twice, as far as solving for where it is read can tell."""
    names = _clear_names(node.along, node.positions)
    positions = [rename(p, names) for p in node.positions]
    kept = {a for a in node.arg.axes if a not in node.along}
    arriving = tuple(a for a in union(*(p.axes for p in positions)) if a not in kept)
    system = _System(
        dict(zip(node.along, positions, strict=True)),
        arriving,
        replace_fields(axes, made=dict(axes.made)),
        set(),
    )
    system.solve()
    return not system.free


def _ends(node: Node) -> list[Node]:
    """What a node is computed from pointwise: leaves, and values with coordinates of their own inside."""
    found: list[Node] = []
    stack, seen = [node], set()
    while stack:
        inner = stack.pop()
        if inner in seen:
            continue
        seen.add(inner)
        if isinstance(inner, (Map, Cast)):
            stack.extend(inner.args)
        else:
            found.append(inner)
    return found


def _without_masks(value: Node) -> tuple[Node, list[Node]]:
    """`where(c & d, v, 0)` as v and the conditions c, d."""
    conditions = []
    while isinstance(value, Map) and value.function == "where" and _is_zero(value.operands[2]):
        pending, value = [value.operands[0]], value.operands[1]
        while pending:
            condition = pending.pop()
            if isinstance(condition, Map) and condition.function == "and":
                pending.extend(condition.operands)
            else:
                conditions.append(condition)
    return value, conditions


def _is_zero(node: Node) -> bool:
    return isinstance(node, Const) and node.value == 0


@dataclass(frozen=True)
class Phases:
    """Where the place of an equation is along the axes of blocks and of phases."""

    block: str
    phase: str
    places: tuple[Node, Node]


class _System:
    """The equations `position = index(axis)`, solved one after the other for axes among `summed`.

    Equations of a mask are among them, under names that no axis has. `free` are the axes that are summed in
    the end; `within` the extents of axes that solving made, which a solution must keep to.
    """

    def __init__(self, positions: Mapping[str, Node], summed: tuple[str, ...], axes: Axes, names: set[str]):
        self.unsolved = dict(positions)
        self.meant: dict[str, Node] = {axis: Index(axis) for axis in positions}
        self.free = summed
        self.axes = axes
        self.names = {*names, *summed, *union(*(p.axes for p in positions.values()))}
        self.asked = set(summed)
        self.solved: dict[str, Node] = {}
        self.conditions: list[Node] = []
        self.within: dict[str, Node] = {}
        self.phases: dict[str, Phases] = {}

    def takes(self, condition: Node) -> bool:
        """Makes a condition an equation if it is one."""
        if not isinstance(condition, Map) or condition.function != "eq":
            return False
        left, right = condition.operands
        if left.dtype != int64 or not set(condition.axes) & set(self.free):
            return False
        if set(right.axes) & set(self.free):
            left, right = (
                (right, left) if not set(left.axes) & set(self.free) else (_minus(left, right), ZERO)
            )
        name = f"?{len(self.meant)}"
        self.unsolved[name], self.meant[name] = left, right
        return True

    def solve(self) -> None:
        while any(self._solve_one(name) for name in list(self.unsolved)) or self._unfold():
            pass
        for name, position in list(self.unsolved.items()):
            if name not in self.axes_of_result or not set(position.axes) & set(self.free):
                self.conditions.append(Map("eq", (position, self.meant[name])))
                del self.unsolved[name]

    @property
    def axes_of_result(self) -> set[str]:
        return {name for name in self.meant if not name.startswith("?")}

    def applied(self, value: Node) -> Node:
        """The value at the solved positions, 0 where a condition fails."""
        value = indexed(value, {a: p for a, p in self.solved.items() if a in self.asked})
        for condition in self.conditions:
            value = masked(condition, value)
        return value

    def in_place(self, value: Node) -> Node:
        """What runs along blocks and phases, along the axes that they are of."""
        places: dict[str, Node] = {}
        for split in self.phases.values():
            places[split.block], places[split.phase] = split.places
        return indexed(value, places) if places else value

    # --- one equation -------------------------------------------------------------------------------------

    def _solve_one(self, name: str) -> bool:
        position = self.unsolved[name]
        free = [a for a in self.free if a in position.axes]
        free.sort(key=self._preference)
        if self._lowest_digit(name, free) or self._range_of_quotient(name, free):
            return True
        return any(self._solve_for(name, axis, free) for axis in free)

    def _preference(self, axis: str) -> int:
        """0 for an output axis, then operands' axes, constants, windows: the sum runs over the others."""
        size = self.axes.extent(axis)
        if size is None:
            return 3 if base(axis) in windows(self.axes.declared) else 1
        return 2 if isinstance(size, Const) else 0

    def _solve_for(self, name: str, axis: str, free: list[str]) -> bool:
        """position = step · axis + rest, for any step: a whole number of steps from the place."""
        linear = _linear(self.unsolved[name], axis)
        if linear is None:
            return False
        step, rest = linear
        if isinstance(step, Const) and abs(step.value) > 1 and self._in_phases(name, axis, free):
            return True
        distance = _minus(self.meant[name], rest)
        if isinstance(step, Const) and step.value in (1, -1):
            self._found(name, {axis: distance if step.value == 1 else _minus(ZERO, distance)})
            return True
        self.conditions.append(Map("eq", (remainder(distance, step), ZERO)))
        self._found(name, {axis: quotient(distance, step)})
        return True

    def _lowest_digit(self, name: str, free: list[str]) -> bool:
        """position = L · (the other axes) + low, where low has the extent L: a remainder; one axis less."""
        for low in free if len(free) > 1 else ():
            linear = _linear(self.unsolved[name], low)
            if linear is None or linear[0] is not ONE:
                continue
            for size in {Size(base(low)): 0, self.axes.extent(low) or Size(base(low)): 0}:
                above = _divided(linear[1], [a for a in free if a != low], size)
                if above is None:
                    continue
                others, rest = above
                distance = _minus(self.meant[name], rest)
                self.unsolved[name], self.meant[name] = others, quotient(distance, size)
                self._substitute({low: remainder(distance, size)})
                return True
        return False

    def _in_phases(self, name: str, axis: str, free: list[str]) -> bool:
        """s·i + d·r = e for both: r = r₀ + s·u and i = (e - d·r₀) / s - d·u, for every u (g = gcd(s, d) = 1).

        r₀ is the one solution below s, that of r ≡ e / d (mod s).
        """
        position = self.unsolved[name]
        partner = self._partner(position, axis, [a for a in free if a != axis])
        if partner is None:
            return False
        stride, step, other, rest = partner
        common = math.gcd(stride, step)
        distance = self._phases_of(name, _minus(self.meant[name], rest), stride)
        if common > 1:
            self.conditions.append(Map("eq", (remainder(distance, Const(common, int64)), ZERO)))
            distance = quotient(distance, Const(common, int64))
        stride, step = stride // common, step // common
        modulus = Const(stride, int64)
        first = self._remainder(_times(distance, pow(step, -1, stride)), modulus) if stride > 1 else ZERO
        size = self.axes.extent(other) or Size(other)
        further = self._make(other, quotient(_plus(size, Const(stride - 1, int64)), modulus))
        whole = distance if step == 1 else _minus(distance, _times(first, step))
        self._found(
            name,
            {
                other: _plus(first, _times(Index(further), stride)),
                axis: _minus(self._quotient(whole, modulus), _times(Index(further), step)),
            },
            (further,),
        )
        return True

    def _partner(self, position: Node, axis: str, others: list[str]) -> tuple[int, int, str, Node] | None:
        """(stride of the axis > 0, step of the other, the other, the rest), for the smallest step."""
        found = []
        for other in others:
            linear = _linear(position, other)
            one = None if linear is None else _linear(linear[1], axis)
            if linear is None or one is None:
                continue
            step, stride = linear[0], one[0]
            if isinstance(step, Const) and isinstance(stride, Const) and stride.value > 1:
                found.append((abs(int(step.value)), other, int(stride.value), int(step.value), one[1]))
        if not found:
            return None
        _, other, stride, step, rest = min(found, key=lambda f: f[:2])
        return stride, step, other, rest

    def _phases_of(self, name: str, distance: Node, stride: int) -> Node:
        """A distance that depends on the place as stride · block + phase, two axes that do not meet then."""
        bounds = self._bounds(distance)
        if self.meant[name] is not Index(name) or bounds is None or set(distance.axes) & set(self.free):
            return distance
        by = Const(stride, int64)
        low, high = (quotient(bound, by) for bound in bounds)
        block = self._make(name, _plus(_minus(high, low), ONE))
        phase = self._make(name, by)
        self.phases[name] = Phases(
            block, phase, (_minus(quotient(distance, by), low), remainder(distance, by))
        )
        return _plus(_times(_plus(Index(block), low), stride), Index(phase))

    def _range_of_quotient(self, name: str, free: list[str]) -> bool:
        """(n·u + c) // m = h for those of the ⌈m / n⌉ values of u from ⌈(m·h - c) / n⌉ on that fit."""
        form = affine(self.unsolved[name])
        among = {n: c for n, c in form.terms.items() if set(n.axes) & set(free)}
        terms = [(n, c) for n, c in among.items() if not isinstance(n, Index)]
        if len(terms) != 1 or terms[0][1] != 1 or not _is_quotient(terms[0][0], "floordiv"):
            return False
        whole = terms[0][0]
        inside, size = whole.args
        place = _plus(_minus(self.meant[name], self.unsolved[name]), whole)
        for axis in free:
            linear = None if axis in place.axes else _linear(inside, axis)
            if linear is None or not _is_positive(linear[0]):
                continue
            step, rest = linear
            further = self._make(axis, quotient(_minus(_plus(size, step), ONE), step))
            first = quotient(_minus(_plus(_minus(_product(size, place), rest), step), ONE), step)
            found = _plus(first, Index(further))
            if step is not ONE:
                end = _product(size, _plus(place, ONE))
                self.conditions.append(Map("lt", (_plus(_product(step, found), rest), end)))
            self._found(name, {axis: found}, (further,))
            return True
        return False

    # --- quotients and remainders ---------------------------------------------------------------------------

    def _remainder(self, node: Node, size: Node) -> Node:
        """node % size, where the position along an axis of that size is its own remainder."""
        rest = remainder(node, size)
        inside = rest.args[0] if _is_quotient(rest, "mod") else None
        small = isinstance(inside, Index) and self.axes.extent(inside.axis) is size
        return inside if inside is not None and small else rest

    def _quotient(self, node: Node, size: Node) -> Node:
        digit = self._remainder(node, size)
        return quotient(_minus(node, digit) if isinstance(digit, Index) else node, size)

    def _unfold(self) -> bool:
        """e // s and e % s are two axes more, q and t, and e = s·q + t is solved for an axis in it."""
        parts = topological(self.unsolved.values())
        for node in parts:
            if not (_is_quotient(node, "mod") or _is_quotient(node, "floordiv")):
                continue
            inside, size = node.args
            bounds = self._bounds(inside)
            for axis in sorted((a for a in self.free if a in inside.axes), key=self._preference):
                linear = _linear(inside, axis)
                if bounds is None or linear is None or linear[0] not in (ONE, Const(-1, int64)):
                    continue
                self._unfold_for(axis, inside, size, linear, bounds)
                return True
        return False

    def _unfold_for(
        self, axis: str, inside: Node, size: Node, linear: tuple[Node, Node], bounds: tuple[Node, Node]
    ) -> None:
        low, high = (quotient(bound, size) for bound in bounds)
        above = self._make(axis, _plus(_minus(high, low), ONE))
        below = self._make(axis, size)
        self.within[below] = size
        whole, digit = _plus(Index(above), low), Index(below)
        known = {Map("floordiv", (inside, size)): whole, Map("mod", (inside, size)): digit}
        distance = _minus(_plus(_product(size, whole), digit), linear[1])
        self.free = (*self.free, above, below)
        self._substitute({axis: distance if linear[0] is ONE else _minus(ZERO, distance)}, known)

    def _bounds(self, node: Node) -> tuple[Node, Node] | None:
        """Between which values a sum of positions and sizes lies."""
        low = high = Const(affine(node).constant, int64)
        for term, factor in affine(node).terms.items():
            if isinstance(term, Index):
                last = _times(_minus(self.axes.extent(term.axis) or Size(term.axis), ONE), factor)
                low, high = (low, _plus(high, last)) if factor > 0 else (_plus(low, last), high)
            elif all(isinstance(part, (Const, Size, Map)) for part in topological([term])) and not term.axes:
                low, high = _plus(low, _times(term, factor)), _plus(high, _times(term, factor))
            else:
                return None
        return low, high

    # --- what is known ------------------------------------------------------------------------------------

    def _make(self, like: str, size: Node) -> str:
        axis = self.axes.make(like, size, self.names)
        self.names.add(axis)
        return axis

    def _found(self, name: str, solutions: Mapping[str, Node], further: tuple[str, ...] = ()) -> None:
        del self.unsolved[name]
        self.free = (*self.free, *further)
        for axis in further:
            self.within[axis] = self.axes.extent(axis) or Size(axis)
        self._substitute(solutions)

    def _substitute(self, solutions: Mapping[str, Node], known: Mapping[Node, Node] | None = None) -> None:
        """Writes the solutions in place of their axes, in all that is known and asked."""
        known = known or {}
        self.solved = {a: self._at(p, solutions, known) for a, p in self.solved.items()} | dict(solutions)
        self.unsolved = {a: self._at(p, solutions, known) for a, p in self.unsolved.items()}
        self.conditions = [self._at(c, solutions, known) for c in self.conditions]
        self.free = tuple(a for a in self.free if a not in solutions)
        for axis in set(solutions) & set(self.within):
            self._keep_within(solutions[axis], self.within[axis])

    def _at(self, node: Node, solutions: Mapping[str, Node], known: Mapping[Node, Node]) -> Node:
        """A position or condition with the coordinates along the solved axes replaced."""
        done: dict[Node, Node] = dict(known)
        for end in _ends(node):
            here = {a: p for a, p in solutions.items() if a in end.axes}
            done.setdefault(end, here[end.axis] if here and isinstance(end, Index) else indexed(end, here))
        for inner in topological([node], [done]):
            done[inner] = self._rebuilt(inner, tuple(done[a] for a in inner.args))
        return done[node]

    def _rebuilt(self, node: Node, args: tuple[Node, ...]) -> Node:
        if args == node.args:
            return node
        if _is_quotient(node, "floordiv"):
            return self._quotient(*args)
        if _is_quotient(node, "mod"):
            return self._remainder(*args)
        built = node.with_args(args)
        return shortest(built) if built.dtype == int64 else built

    def _keep_within(self, position: Node, size: Node) -> None:
        if isinstance(position, Index) and (
            size is Size(base(position.axis)) or size is self.axes.extent(position.axis)
        ):
            return
        self.conditions.append(Map("ge", (position, ZERO)))
        self.conditions.append(Map("lt", (position, size)))


def windows(extents: Mapping[str, Node]) -> set[str]:
    """The axes whose size is taken away from another to give an extent: size(oh) = size(h) - size(r) + 1."""
    found: set[str] = set()
    for size in extents.values():
        for node in topological([size]):
            if isinstance(node, Map) and node.function in ("sub", "neg"):
                found.update(base(n.axis) for n in topological(node.operands[-1:]) if isinstance(n, Size))
    return found


def _is_quotient(node: Node, function: str) -> bool:
    """Whether a node is a quotient (or remainder) of whole numbers, by one that is surely positive."""
    is_one = isinstance(node, Map) and node.function == function and node.dtype == int64
    return is_one and _is_positive(node.args[1])


def _is_positive(node: Node) -> bool:
    """Whether a number is surely above 0 where no axis is empty: made of sizes, sums and products."""
    if isinstance(node, Const):
        return node.value > 0
    if isinstance(node, Map) and node.function in ("add", "mul"):
        return all(map(_is_positive, node.operands))
    return isinstance(node, Size)


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


def _divided(node: Node, axes: list[str], divisor: Node) -> tuple[Node, Node] | None:
    """(whole, rest) with node = divisor · whole + rest, whole the part along `axes`; None if it is not."""
    from tilewright.autograd.symbols import Symbols

    whole: Node = ZERO
    for axis in axes:
        linear = _linear(node, axis)
        if linear is None:
            return None
        step, node = linear
        symbols = Symbols()
        times = symbols.divided(symbols.of(step), symbols.of(divisor))
        if times is None:
            return None
        whole = _plus(whole, _product(symbols.node(times), Index(axis)))
    return whole, node


def _plus(one: Node, other: Node) -> Node:
    return shortest(Map("add", (one, other)))


def _minus(one: Node, other: Node) -> Node:
    return shortest(Map("sub", (one, other)))


def _product(one: Node, other: Node) -> Node:
    return shortest(Map("mul", (other, one)))


def _times(node: Node, factor: int) -> Node:
    return _product(Const(factor, int64), node)
