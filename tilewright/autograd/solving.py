"""Equations between positions, solved one after the other: which axes of a sum they fix, and at what.

`inversion` says what they are for. sympy finds what a position is in one axis; the rest are whole numbers as
`dsl/affine` has them.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from dataclasses import replace as replace_fields

from tilewright.dsl.affine import affine, quotient, remainder, shortest
from tilewright.dsl.axes import base, union
from tilewright.dsl.bounds import largest
from tilewright.dsl.dtypes import int64
from tilewright.dsl.program import (
    AxisExtent,
    Cast,
    Const,
    Index,
    Map,
    Node,
    Program,
    Size,
    axes_within,
    indexed,
    masked,
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


@dataclass(frozen=True)
class Phases:
    """Where the place of an equation is along the axes of blocks and of phases."""

    block: str
    phase: str
    places: tuple[Node, Node]


class System:
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
            left, right = (right, left) if not set(left.axes) & set(self.free) else (minus(left, right), ZERO)
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
        return 0 if largest(size) is None else 2

    def _solve_for(self, name: str, axis: str, free: list[str]) -> bool:
        """position = step · axis + rest, for any step: a whole number of steps from the place."""
        line = linear(self.unsolved[name], axis)
        if line is None:
            return False
        step, rest = line
        if isinstance(step, Const) and abs(step.value) > 1 and self._in_phases(name, axis, free):
            return True
        distance = minus(self.meant[name], rest)
        if isinstance(step, Const) and step.value in (1, -1):
            self._found(name, {axis: distance if step.value == 1 else minus(ZERO, distance)})
            return True
        self.conditions.append(Map("eq", (remainder(distance, step), ZERO)))
        self._found(name, {axis: quotient(distance, step)})
        return True

    def _lowest_digit(self, name: str, free: list[str]) -> bool:
        """position = L · (the other axes) + low, where low has the extent L: a remainder; one axis less."""
        for low in free if len(free) > 1 else ():
            line = linear(self.unsolved[name], low)
            if line is None or line[0] is not ONE:
                continue
            extent = self.axes.extent(low) or Size(base(low))
            most = largest(extent)
            for size in dict.fromkeys((Size(base(low)), extent, *([Const(most, int64)] if most else ()))):
                above = _divided(line[1], [a for a in free if a != low], size)
                if above is None:
                    continue
                others, rest = above
                distance = minus(self.meant[name], rest)
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
        distance = minus(self.meant[name], rest)
        if step == 1 and self._in_phases_of_the_place(name, axis, other, distance, stride):
            return True
        common = math.gcd(stride, step)
        place = self._in_blocks(name, distance, stride, Const(stride, int64))
        distance = distance if place is None else plus(_times(place[0], stride), place[1])
        if common > 1:
            self.conditions.append(Map("eq", (remainder(distance, Const(common, int64)), ZERO)))
            distance = quotient(distance, Const(common, int64))
        stride, step = stride // common, step // common
        modulus = Const(stride, int64)
        first = self._remainder(_times(distance, pow(step, -1, stride)), modulus) if stride > 1 else ZERO
        size = self.axes.extent(other) or Size(other)
        further = self._make(other, quotient(plus(size, Const(stride - 1, int64)), modulus))
        whole = distance if step == 1 else minus(distance, _times(first, step))
        self._found(
            name,
            {
                other: plus(first, _times(Index(further), stride)),
                axis: minus(self._quotient(whole, modulus), _times(Index(further), step)),
            },
            (further,),
        )
        return True

    def _in_phases_of_the_place(self, name: str, axis: str, other: str, distance: Node, stride: int) -> bool:
        """s·i + r = h + p at h = s·a + t, for p = s·a' + t': r = t + t' + s·u and i = a + a' - u.

        From u = -1 on if t' > 0, as t + t' may be s. Where it is 0, t is the phase of a tap as well, and
        there are no more of them than taps: beyond, there would be no value but 0.
        """
        beside = affine(distance).constant
        blocks, turn = divmod(beside, stride)
        size = self.axes.extent(other) or Size(other)
        phases = Const(stride, int64) if turn else Map("minimum", (Const(stride, int64), size))
        place = self._in_blocks(name, minus(distance, Const(beside, int64)), stride, phases)
        if place is None:
            return False
        block, phase = place
        lead = 1 if turn else 0
        taps = quotient(plus(size, Const((1 + lead) * stride - 1 - turn, int64)), Const(stride, int64))
        further = self._make(other, taps)
        tap = plus(_times(Index(further), stride), Const(turn - lead * stride, int64))
        found = plus(block, Const(blocks + lead, int64))
        self._found(name, {other: plus(phase, tap), axis: minus(found, Index(further))}, (further,))
        return True

    def _partner(self, position: Node, axis: str, others: list[str]) -> tuple[int, int, str, Node] | None:
        """(stride of the axis > 0, step of the other, the other, the rest), for the smallest step."""
        found = []
        for other in others:
            line = linear(position, other)
            one = None if line is None else linear(line[1], axis)
            if line is None or one is None:
                continue
            step, stride = line[0], one[0]
            if isinstance(step, Const) and isinstance(stride, Const) and stride.value > 1:
                found.append((abs(int(step.value)), other, int(stride.value), int(step.value), one[1]))
        if not found:
            return None
        _, other, stride, step, rest = min(found, key=lambda f: f[:2])
        return stride, step, other, rest

    def _in_blocks(self, name: str, place: Node, stride: int, phases: Node) -> tuple[Node, Node] | None:
        """A place as stride · block + phase, two axes that do not meet then; None where they would."""
        bounds = between(place, self.axes)
        if self.meant[name] is not Index(name) or bounds is None or set(place.axes) & set(self.free):
            return None
        by = Const(stride, int64)
        low, high = (quotient(bound, by) for bound in bounds)
        block = self._make(name, plus(minus(high, low), ONE))
        phase = self._make(name, phases)
        self.phases[name] = Phases(block, phase, (minus(quotient(place, by), low), remainder(place, by)))
        return plus(Index(block), low), Index(phase)

    def _range_of_quotient(self, name: str, free: list[str]) -> bool:
        """(n·u + c) // m = h for those of the ⌈m / n⌉ values of u from ⌈(m·h - c) / n⌉ on that fit."""
        form = affine(self.unsolved[name])
        among = {n: c for n, c in form.terms.items() if set(n.axes) & set(free)}
        terms = [(n, c) for n, c in among.items() if not isinstance(n, Index)]
        if len(terms) != 1 or terms[0][1] != 1 or not _is_quotient(terms[0][0], "floordiv"):
            return False
        whole = terms[0][0]
        inside, size = whole.args
        place = plus(minus(self.meant[name], self.unsolved[name]), whole)
        for axis in free:
            line = None if axis in place.axes else linear(inside, axis)
            if line is None or not is_positive(line[0]):
                continue
            step, rest = line
            further = self._make(axis, quotient(minus(plus(size, step), ONE), step))
            first = quotient(minus(plus(minus(product(size, place), rest), step), ONE), step)
            found = plus(first, Index(further))
            if step is not ONE:
                end = product(size, plus(place, ONE))
                self.conditions.append(Map("lt", (plus(product(step, found), rest), end)))
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
        return quotient(minus(node, digit) if isinstance(digit, Index) else node, size)

    def _unfold(self) -> bool:
        """e // s and e % s are two axes more, q and t, and e = s·q + t is solved for an axis in it."""
        parts = topological(self.unsolved.values())
        for node in parts:
            if not (_is_quotient(node, "mod") or _is_quotient(node, "floordiv")):
                continue
            inside, size = node.args
            bounds = between(inside, self.axes)
            for axis in sorted((a for a in self.free if a in inside.axes), key=self._preference):
                line = linear(inside, axis)
                if bounds is None or line is None or line[0] not in (ONE, Const(-1, int64)):
                    continue
                self._unfold_for(axis, inside, size, line, bounds)
                return True
        return False

    def _unfold_for(
        self, axis: str, inside: Node, size: Node, line: tuple[Node, Node], bounds: tuple[Node, Node]
    ) -> None:
        low, high = (quotient(bound, size) for bound in bounds)
        above = self._make(axis, plus(minus(high, low), ONE))
        below = self._make(axis, size)
        self.within[below] = size
        whole, digit = plus(Index(above), low), Index(below)
        known = {Map("floordiv", (inside, size)): whole, Map("mod", (inside, size)): digit}
        distance = minus(plus(product(size, whole), digit), line[1])
        self.free = (*self.free, above, below)
        self._substitute({axis: distance if line[0] is ONE else minus(ZERO, distance)}, known)

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


def between(node: Node, axes: Axes) -> tuple[Node, Node] | None:
    """Between which values a sum of positions and sizes lies; None where nothing is known."""
    low = high = Const(affine(node).constant, int64)
    for term, factor in affine(node).terms.items():
        if isinstance(term, Index):
            last = _times(minus(axes.extent(term.axis) or Size(term.axis), ONE), factor)
            low, high = (low, plus(high, last)) if factor > 0 else (plus(low, last), high)
        elif all(isinstance(part, (Const, Size, Map)) for part in topological([term])) and not term.axes:
            low, high = plus(low, _times(term, factor)), plus(high, _times(term, factor))
        else:
            return None
    return low, high


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
    return is_one and is_positive(node.args[1])


def is_positive(node: Node) -> bool:
    """Whether a number is surely above 0 where no axis is empty: made of sizes, sums and products."""
    if isinstance(node, Const):
        return node.value > 0
    if isinstance(node, Map) and node.function in ("add", "mul", "minimum"):
        return all(map(is_positive, node.operands))
    if isinstance(node, Map) and node.function == "maximum":
        return any(map(is_positive, node.operands))
    return isinstance(node, Size)


def linear(position: Node, axis: str) -> tuple[Node, Node] | None:
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
        line = linear(node, axis)
        if line is None:
            return None
        step, node = line
        symbols = Symbols()
        times = symbols.divided(symbols.of(step), symbols.of(divisor))
        if times is None:
            return None
        whole = plus(whole, product(symbols.node(times), Index(axis)))
    return whole, node


def plus(one: Node, other: Node) -> Node:
    return shortest(Map("add", (one, other)))


def minus(one: Node, other: Node) -> Node:
    return shortest(Map("sub", (one, other)))


def product(one: Node, other: Node) -> Node:
    return shortest(Map("mul", (other, one)))


def _times(node: Node, factor: int) -> Node:
    return product(Const(factor, int64), node)
