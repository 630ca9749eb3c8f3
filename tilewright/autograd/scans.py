"""The derivative of a scan is a scan.

    s[t] = C(s[t-1], x[t])        A = ∂C/∂left, B = ∂C/∂right at (s[t-1], x[t]), matrices

    tangents      a scan of values and tangents together:  ds[t] = A ds[t-1] + B dx[t]
    cotangents    λ[t], of s[t], runs the other way:       λ[t] = g[t] + A[t+1]ᵀ λ[t+1]
                  and goes to the operands as              dx[t] = B[t]ᵀ λ[t]

λ is a scan of affine maps. A map is its matrix and its vector, and maps are composed by
(M, v) ∘ (N, w) = (M N, v + M w). Entries of the matrix that are 0 or 1 wherever they stand are not carried:
the backward of a running sum is a running sum from the other end, that of a running product a linear
recurrence, that of a running maximum chooses by a mask.

A and B come from the scalar functions' partials, like those of any other formula.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tilewright.autograd.scalar import Partial, partials, scaled
from tilewright.autograd.transpose import sum_over
from tilewright.dsl.algebra import Polynomials
from tilewright.dsl.dtypes import DType, bool_, int64
from tilewright.dsl.expression import Expr, cast, constant
from tilewright.dsl.folding import fold
from tilewright.dsl.program import At, Cast, Const, Index, Map, Node, Scan, Size, replace, topological
from tilewright.dsl.reference import combine_arrays
from tilewright.dsl.scalars import where
from tilewright.dsl.scans import NAMED, Body, left, name_of, needed, pruned, right, sides

Entries = dict[tuple[int, int], Expr]
"""The entries of a matrix that are not 0."""


# --- the partials of a combine ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Jacobian:
    """∂C/∂left and ∂C/∂right by (value of the result, value of the side), over the combine's placeholders."""

    left: Entries
    right: Entries


@lru_cache(maxsize=256)
def jacobian(body: Body) -> Jacobian:
    lefts, rights = sides(body)
    by_side: tuple[Entries, Entries] = ({}, {})
    for k, value in enumerate(body):
        if not value.dtype.is_float:
            continue
        back = _partials_of(value)
        for entries, side in zip(by_side, (lefts, rights), strict=True):
            for j, leaf in enumerate(side):
                entry = back.get(leaf)
                if entry is not None and leaf.dtype.is_float and not Polynomials().is_zero(entry.node):
                    entries[k, j] = _plain(entry)
    return Jacobian(*by_side)


def _partials_of(root: Node) -> dict[Node, Expr]:
    """∂root/∂node for every node below: a backward pass through a combine."""
    total: dict[Node, Expr] = {root: constant(1, root.dtype)}
    for node in reversed(topological([root])):
        cotangent = total.get(node)
        if cotangent is None:
            continue
        for operand, partial in _steps(node):
            back = _times(cotangent, partial)
            if back is not None and operand.dtype.is_float:
                back = cast(back, operand.dtype.compute)
                total[operand] = total[operand] + back if operand in total else back
    return total


def _steps(node: Node) -> Iterator[tuple[Node, Partial]]:
    if isinstance(node, Map):
        yield from zip(node.operands, partials(node), strict=True)
    elif isinstance(node, Cast) and node.arg.dtype.is_float:
        yield node.arg, 1


def _times(cotangent: Expr, partial: Partial) -> Expr | None:
    """cotangent · partial; a choice between numbers on either side chooses."""
    if isinstance(partial, Expr) and mask_of(cotangent) is not None and mask_of(partial) is None:
        return scaled(cast(partial, cotangent.dtype), cotangent)
    return scaled(cotangent, partial)


def _plain(entry: Expr) -> Expr:
    """An entry without functions of numbers; 1 where it is 1 by algebra."""
    if Polynomials().is_zero((entry - 1).node):
        return constant(1, entry.dtype)
    return Expr(fold(entry.node))


def mask_of(entry: Expr) -> Expr | None:
    """The condition under which an entry that is 0 or 1 is 1; None for any other entry."""
    node = entry.node
    if isinstance(node, Const) and node.value in (0, 1):
        return constant(bool(node.value), bool_)
    if not isinstance(node, Map) or node.function != "where":
        return None
    condition = Expr(node.operands[0])
    first, second = (mask_of(Expr(branch)) for branch in node.operands[1:])
    if first is None or second is None:
        return None
    chosen, otherwise = condition & first, ~condition & second
    return Expr(fold_logic((chosen | otherwise).node))


def fold_logic(root: Node) -> Node:
    """c & True → c, c & False → False, c | False → c"""
    done: dict[Node, Node] = {}
    for node in topological([root]):
        rebuilt = node.with_args(tuple(done[a] for a in node.args)) if node.args else node
        done[node] = _logic(rebuilt)
    return done[root]


def _logic(node: Node) -> Node:
    if not isinstance(node, Map) or node.function not in ("and", "or") or node.dtype != bool_:
        return node
    neutral = node.function == "and"
    for known, other in (node.operands, node.operands[::-1]):
        if isinstance(known, Const):
            return other if known.value == neutral else known
    return node


# --- the number that changes nothing ----------------------------------------------------------------------

PROBES = 16
MOST_TRIED = 300


@lru_cache(maxsize=256)
def identity(body: Body) -> tuple[Const, ...] | None:
    """Numbers e with C(e, x) = x and ∂C/∂right = 1 there, tried with numbers; None if none are found."""
    candidates = itertools.product(*(_candidates(body, value.dtype) for value in body))
    for numbers in itertools.islice(candidates, MOST_TRIED):
        if _is_identity(body, numbers):
            return tuple(Const(n, value.dtype) for n, value in zip(numbers, body, strict=True))
    return None


def _candidates(body: Body, dtype: DType) -> Sequence[float | int | bool]:
    if dtype.is_bool:
        return (False, True)
    name = name_of(body)
    if name:
        return (NAMED[name].identity(dtype),)
    return (0, 1, float("-inf"), float("inf")) if dtype.is_float else (0, 1, *dtype.range)


def _is_identity(body: Body, numbers: tuple) -> bool:
    random = np.random.default_rng(0)
    x = tuple(_probe(value.dtype, random) for value in body)
    e = tuple(np.full_like(v, n) for v, n in zip(x, numbers, strict=True))
    slopes = jacobian(body).right
    with np.errstate(all="ignore"):
        if not all(_same(a, b) for a, b in zip(combine_arrays(body, e, x), x, strict=True)):
            return False
        entries = [(k, j) for k, j in itertools.product(range(len(body)), repeat=2)]
        floats = [(k, j) for k, j in entries if body[k].dtype.is_float and body[j].dtype.is_float]
        return all(
            _same(combine_arrays((slopes[k, j].node,), e, x)[0], float(k == j))
            if (k, j) in slopes
            else k != j
            for k, j in floats
        )


def _probe(dtype: DType, random: np.random.Generator) -> np.ndarray:
    if dtype.is_float:
        return random.uniform(-4, 4, PROBES)
    if dtype.is_bool:
        return random.random(PROBES) < 0.5
    return random.integers(0, 9, PROBES).astype(dtype.numpy)


def _same(value: np.ndarray, expected: np.ndarray | float) -> bool:
    return bool(np.all(np.abs(np.subtract(value, expected, dtype=np.float64)) <= 1e-12))


# --- tangents ---------------------------------------------------------------------------------------------


def push_forward_scan(node: Scan, tangents: Mapping[Node, Expr]) -> Expr | None:
    """The tangent of a scan, as one more value of a scan."""
    entries = jacobian(node.body)
    moving = _moving(node, entries, tangents)
    if node.which not in moving:
        return None
    place = {value: len(node.body) + number for number, value in enumerate(moving)}
    body = [*node.body]
    operands = [*node.operands]
    for value in moving:
        dtype = node.body[value].dtype
        body.append(_tangent_step(value, place, entries, dtype).node)
        tangent = tangents.get(node.operands[value])
        operands.append((cast(tangent, dtype) if tangent is not None else constant(0, dtype)).node)
    initial = (*node.initial, *(Const(0, node.body[v].dtype) for v in moving)) if node.exclusive else ()
    scan = Scan(place[node.which], tuple(body), tuple(operands), node.axis, node.reverse, initial)
    return Expr(pruned(scan))


def _moving(node: Scan, entries: Jacobian, tangents: Mapping[Node, Expr]) -> tuple[int, ...]:
    """The values of a scan that have a tangent."""
    moving = {n for n, o in enumerate(node.operands) if o in tangents and node.body[n].dtype.is_float}
    grows = True
    while grows:
        reached = {k for k, j in (*entries.left, *entries.right) if j in moving}
        grows = not reached <= moving
        moving |= reached
    return tuple(sorted(moving))


def _tangent_step(value: int, place: Mapping[int, int], entries: Jacobian, dtype: DType) -> Expr:
    """Σⱼ A[value, j] · dlⱼ + B[value, j] · drⱼ"""
    total: Expr | None = None
    for matrix, side in ((entries.left, left), (entries.right, right)):
        for (k, j), entry in matrix.items():
            if k != value or j not in place:
                continue
            term = scaled(Expr(side(place[j], entry.dtype)), entry)
            if term is not None:
                term = cast(term, dtype)
                total = term if total is None else total + term
    return total if total is not None else constant(0, dtype)


# --- cotangents -------------------------------------------------------------------------------------------


def pull_back_scans(cotangents: Mapping[Scan, Expr]) -> Iterator[tuple[Node, Expr]]:
    """The contributions to each operand of the cotangents of scans that share a loop."""
    if not cotangents:
        return
    scan = next(iter(cotangents))
    given = {s.which: g for s, g in cotangents.items()}
    states = [n for n in needed(scan.body, list(given), both_sides=False) if scan.body[n].dtype.is_float]
    entries = jacobian(scan.body)
    inner = {(k, j): e for (k, j), e in entries.left.items() if k in states and j in states}
    outer = {(k, j): e for (k, j), e in entries.right.items() if k in states}
    at_position = _AtPosition(scan)
    transition = {(j, k): at_position(entry) for (k, j), entry in inner.items()}
    adjoint = _adjoint(scan, given, transition, states)
    for position, operand in enumerate(scan.operands):
        back = _to_operand(position, outer, adjoint, at_position)
        if back is None:
            continue
        back = at_position.unless_first(adjoint.get(position), back)
        back = cast(back, operand.dtype.compute)
        yield operand, sum_over(back, tuple(a for a in scan.axes if a not in operand.axes))


def _to_operand(
    position: int, slopes: Entries, adjoint: Mapping[int, Expr], at_position: _AtPosition
) -> Expr | None:
    """Σₖ B[k, position] · λₖ"""
    total: Expr | None = None
    for (k, j), entry in slopes.items():
        if j != position or k not in adjoint:
            continue
        term = scaled(adjoint[k], at_position(entry))
        if term is not None:
            total = term if total is None else total + term
    return total


class _AtPosition:
    """Partials of a combine at every position of a scan: of the state before it and the operands there."""

    def __init__(self, scan: Scan):
        self.scan = scan
        known = scan.initial or identity(scan.body)
        self.has_identity = known is not None
        self.initial = known or tuple(Const(1, value.dtype) for value in scan.body)
        lefts, rights = sides(scan.body)
        self.table: dict[Node, Node] = dict(zip(rights, scan.operands, strict=True))
        self.table |= {leaf: self._before(n) for n, leaf in enumerate(lefts)}
        if not scan.exclusive:
            for n, value in enumerate(scan.body):
                self.table.setdefault(value, scan.value(n))

    def _before(self, which: int) -> Node:
        """The state before each position: what an inclusive scan has one position earlier."""
        scan = self.scan
        if scan.exclusive:
            return scan.value(which)
        step = Map("add" if scan.reverse else "sub", (Index(scan.axis), Const(1, int64)))
        earlier = At((scan.axis,), scan.value(which), (step,))
        first = self.initial[which]
        return earlier if first.value == 0 else Map("where", (self.at_start().node, first, earlier))

    def at_start(self) -> Expr:
        """Whether nothing came before."""
        axis = self.scan.axis
        return Expr(Index(axis)) == (Expr(Size(axis)) - 1 if self.scan.reverse else 0)

    def __call__(self, entry: Expr) -> Expr:
        return Expr(replace(entry.node, self.table))

    def unless_first(self, first: Expr | None, otherwise: Expr) -> Expr:
        """What an inclusive scan without an identity gives at its start, where s[first] = x[first]."""
        if self.has_identity:
            return otherwise
        return where(self.at_start(), first if first is not None else 0, otherwise)


def _adjoint(
    scan: Scan, given: Mapping[int, Expr], transition: Entries, states: Sequence[int]
) -> dict[int, Expr]:
    """λ, the cotangent of the state after each position, by value.

    transition is Aᵀ. Where it is of zeros and ones, λ is a scan of g from the other end. Else μ, with
    λ[t] = g[t] + μ[t] and μ[t] = A[t+1]ᵀ (g[t+1] + μ[t+1]), is an exclusive scan of the maps (Aᵀ, Aᵀ g).
    An exclusive scan has the state before each position: its λ is the exclusive scan of the maps (Aᵀ, g).
    """
    maps = _AffineMaps(transition, states, scan)
    if scan.exclusive:
        return maps.scan(given, exclusive=True)
    if not maps.carried:
        return maps.scan(given, exclusive=False)
    arriving = {i: total for i in states if (total := _applied(transition, given, i)) is not None}
    later = maps.scan(arriving, exclusive=True)
    return {i: _plus(given.get(i), later.get(i)) for i in states if i in given or i in later}  # type: ignore


def _applied(matrix: Entries, vector: Mapping[int, Expr], row: int) -> Expr | None:
    total: Expr | None = None
    for (i, k), entry in matrix.items():
        if i == row and k in vector:
            total = _plus(total, scaled(vector[k], entry))
    return total


def _plus(one: Expr | None, other: Expr | None) -> Expr | None:
    if one is None or other is None:
        return one if other is None else other
    return one + other


ZERO, ONE, MASK, NUMBER = range(4)


class _AffineMaps:
    """The scan of affine maps whose matrices have the entries `matrix`, on the values `states`.

    `kinds` says of every entry whether it is 0, 1, a mask or a number in all products of such matrices; the
    last two are `carried`.
    """

    def __init__(self, matrix: Entries, states: Sequence[int], scan: Scan):
        self.matrix = matrix
        self.states = tuple(states)
        self.like = scan
        self.kinds = {(i, j): _kind(matrix.get((i, j))) for i, j in itertools.product(self.states, repeat=2)}
        self._close()
        self.carried = [place for place, kind in self.kinds.items() if kind in (MASK, NUMBER)]

    def _close(self) -> None:
        """Widen the kinds until a product of two matrices has them too."""
        grows = True
        while grows:
            wider = {place: _join(kind, self._kind_of_product(*place)) for place, kind in self.kinds.items()}
            grows = wider != self.kinds
            self.kinds = wider

    def _kind_of_product(self, i: int, j: int) -> int:
        terms = [(self.kinds[i, k], self.kinds[k, j]) for k in self.states]
        terms = [max(one, other) for one, other in terms if ZERO not in (one, other)]
        return ZERO if not terms else NUMBER if len(terms) > 1 else terms[0]

    def _dtype(self, place: tuple[int, int]) -> DType:
        return bool_ if self.kinds[place] == MASK else self.like.body[place[0]].dtype

    def _operand(self, place: tuple[int, int]) -> Expr:
        entry = self.matrix.get(place)
        dtype = self._dtype(place)
        if dtype.is_bool:
            mask = mask_of(entry) if entry is not None else None
            return mask if mask is not None else constant(False, bool_)
        return cast(entry, dtype) if entry is not None else constant(0, dtype)

    def scan(self, vector: Mapping[int, Expr], exclusive: bool) -> dict[int, Expr]:
        """v of the composition of all maps from the other end of the axis up to each position."""
        rows = self._reached(vector)
        place = {entry: n for n, entry in enumerate(self.carried)}
        offset = {row: len(place) + n for n, row in enumerate(rows)}
        dtypes = {row: self.like.body[row].dtype for row in rows}
        body = [self._product(i, j, place).node for i, j in self.carried]
        body += [self._image(row, place, offset, dtypes).node for row in rows]
        operands = [self._operand(entry).node for entry in self.carried]
        for row in rows:
            given = vector.get(row)
            operands.append(
                (cast(given, dtypes[row]) if given is not None else constant(0, dtypes[row])).node
            )
        initial = tuple(Const(0, node.dtype) for node in body) if exclusive else ()
        axis, reverse = self.like.axis, not self.like.reverse
        return {
            row: Expr(pruned(Scan(offset[row], tuple(body), tuple(operands), axis, reverse, initial)))
            for row in rows
        }

    def _reached(self, vector: Mapping[int, Expr]) -> list[int]:
        """The values that a vector acts on, directly or through the matrix."""
        reached = set(vector)
        for _ in self.states:
            reached |= {i for (i, k), kind in self.kinds.items() if kind != ZERO and k in reached}
        return [row for row in self.states if row in reached]

    def _entry(
        self, place: tuple[int, int], table: Mapping[tuple[int, int], int], side: object
    ) -> Expr | None:
        """An entry of the matrix on one side of the combine; None if it is 1."""
        if self.kinds[place] == ONE:
            return None
        return Expr(side(table[place], self._dtype(place)))  # type: ignore[operator]

    def _product(self, i: int, j: int, table: Mapping[tuple[int, int], int]) -> Expr:
        """Σₖ M[i, k] N[k, j], M on the right side, which is the map that is applied last."""
        dtype = self._dtype((i, j))
        total: Expr | None = None
        for k in self.states:
            if ZERO in (self.kinds[i, k], self.kinds[k, j]):
                continue
            term = _multiplied(self._entry((k, j), table, left), self._entry((i, k), table, right), dtype)
            total = _plus(total, term)
        return total if total is not None else constant(0, dtype)

    def _image(
        self,
        row: int,
        table: Mapping[tuple[int, int], int],
        offset: Mapping[int, int],
        dtypes: Mapping[int, DType],
    ) -> Expr:
        """Σₖ M[row, k] w[k] + v[row]"""
        total: Expr | None = None
        for k in offset:
            if self.kinds[row, k] == ZERO:
                continue
            value = Expr(left(offset[k], dtypes[k]))
            term = _multiplied(value, self._entry((row, k), table, right), dtypes[row])
            total = _plus(total, term)
        own = Expr(right(offset[row], dtypes[row]))
        return own if total is None else total + own


def _join(one: int, other: int) -> int:
    """What an entry is that is sometimes one, sometimes the other: 0 or 1 is a mask."""
    return MASK if {one, other} == {ZERO, ONE} else max(one, other)


def _kind(entry: Expr | None) -> int:
    if entry is None:
        return ZERO
    if isinstance(entry.node, Const) and entry.node.value == 1:
        return ONE
    return MASK if mask_of(entry) is not None else NUMBER


def _multiplied(one: Expr | None, other: Expr | None, dtype: DType) -> Expr:
    """A product in which None is 1; a mask chooses."""
    if one is None or other is None:
        factor = one if other is None else other
        return constant(1, dtype) if factor is None else _as(factor, dtype)
    if one.dtype.is_bool and other.dtype.is_bool:
        return _as(one & other, dtype)
    if one.dtype.is_bool:
        one, other = other, one
    return where(other, _as(one, dtype), 0) if other.dtype.is_bool else _as(one, dtype) * _as(other, dtype)


def _as(value: Expr, dtype: DType) -> Expr:
    return cast(value, dtype)
