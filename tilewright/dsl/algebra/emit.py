"""Expressions from forms: sums of products, differences and quotients written as such, choices as selects."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from fractions import Fraction
from typing import TYPE_CHECKING

from tilewright.dsl.algebra.forms import (
    HALF,
    ONE,
    UNIT,
    Factor,
    Form,
    Mask,
    Term,
    content,
    dtype_of,
    forms_inside,
    ordered_axes,
)
from tilewright.dsl.dtypes import DType
from tilewright.dsl.expression import Expr, cast, constant
from tilewright.dsl.program import Map, Node, Read, Reduce, Scan
from tilewright.dsl.scalars import rsqrt, sqrt, where

if TYPE_CHECKING:
    from tilewright.dsl.algebra.recognise import Recogniser

Summand = tuple[bool, Callable[[DType, bool], Expr]]
"""Whether it is negative, and its emitter: (dtype, with its sign or without)."""


_RANKS = {"cast": 0, "map": 3, "indexing": 3, "reduce": 4, "scan": 4, "sum": 5}


class Emitter:
    """Nodes from forms; `recogniser` writes each term with known values first."""

    def __init__(self, recogniser: Recogniser | None = None):
        self.recogniser = recogniser
        self.nodes: dict[object, Node] = {}

    # --- sums -----------------------------------------------------------------------------------------------

    def form(self, form: Form, dtype: DType) -> Node:
        key = (form, dtype)
        if key not in self.nodes:
            self.nodes[key] = cast(self._form(form, dtype), dtype).node
        return self.nodes[key]

    def _form(self, form: Form, dtype: DType) -> Expr:
        if not form:
            return constant(0, dtype)
        common = content(form) if len(form) > 1 and self.recogniser is not None else UNIT
        return self._sum(form if common == UNIT else (self._bundled(form),), dtype)

    def _bundled(self, form: Form) -> Term:
        assert self.recogniser is not None
        return self.recogniser.collector.bundled(form)

    def _sum(self, form: Form, dtype: DType) -> Expr:
        """Positive terms first, so that a difference is written as one."""
        if self.recogniser is not None:
            form = tuple(self.recogniser.recognised(term) for term in form)
        merged = self._merged_choices(form)
        parts = sorted(merged, key=lambda part: part[0])
        total: Expr | None = None
        for negative, value in parts:
            if total is None:
                total = value(dtype, True)
            else:
                total = total - value(dtype, False) if negative else total + value(dtype, False)
        assert total is not None
        return total

    def _merged_choices(self, form: Form) -> list[Summand]:
        """(is negative, emitter) of each summand; where(c, u, 0) + where(~c, v, 0) is one summand."""
        by_masks: dict[frozenset[Mask], list[Term]] = {}
        for term in form:
            by_masks.setdefault(term.masks, []).append(term)
        result: list[Summand] = []
        while by_masks:
            masks, terms = next(iter(by_masks.items()))
            del by_masks[masks]
            partner = next((m for m in by_masks if _opposite(masks, m)), None)
            if partner is None:
                result += [(t.coefficient < 0, self._signed(t)) for t in terms]
                continue
            others = by_masks.pop(partner)
            result.append((False, self._chosen(masks, terms, partner, others)))
        return result

    def _signed(self, term: Term) -> Callable[[DType, bool], Expr]:
        without = term.scaled(-ONE) if term.coefficient < 0 else term
        return lambda dtype, signed: self._term(term if signed else without, dtype)

    def _chosen(
        self, masks: frozenset[Mask], terms: list[Term], partner: frozenset[Mask], others: list[Term]
    ) -> Callable[[DType, bool], Expr]:
        ((condition, holds),) = masks - partner
        shared = masks & partner

        def emit(dtype: DType, signed: bool) -> Expr:
            first = Expr(self.form(tuple(Term(t.coefficient, t.factors) for t in terms), dtype))
            second = Expr(self.form(tuple(Term(t.coefficient, t.factors) for t in others), dtype))
            if not holds:
                first, second = second, first
            chosen = where(Expr(condition), first, second)
            return self._masked(shared, chosen)

        return emit

    # --- terms ----------------------------------------------------------------------------------------------

    def _term(self, term: Term, dtype: DType) -> Expr:
        return self._masked(term.masks, self._product(Term(term.coefficient, term.factors), dtype))

    def _masked(self, masks: frozenset[Mask], value: Expr) -> Expr:
        condition: Expr | None = None
        negated = bool(masks) and all(not holds for _, holds in masks)
        for node, holds in sorted(masks, key=lambda m: (not m[1], m[0].axes)):
            part = Expr(node)
            part = part if holds or (negated and len(masks) == 1) else ~part
            condition = part if condition is None else condition & part
        if condition is None:
            return value
        zero = constant(0, value.dtype)
        if negated and len(masks) == 1:
            return where(condition, zero, value)
        return where(condition, value, zero)

    def _product(self, term: Term, dtype: DType) -> Expr:
        above: list[tuple[tuple, Expr]] = []
        below: list[tuple[tuple, Expr]] = []
        for factor, exponent in term.factors:
            value = Expr(self.factor(factor))
            side = above if exponent > 0 or exponent == -HALF else below
            side.append((self._rank(factor), _power(value, exponent if side is above else -exponent)))
        result = _scaled(_multiplied(above), term.coefficient, dtype)
        return result / _multiplied(below) if below else result  # type: ignore[operator]

    def _rank(self, factor: Factor) -> tuple:
        """The order of factors: what only the derivative has, given ones, functions, reductions, sums."""
        if factor.kind != "node":
            return (_RANKS[factor.kind], factor.serial)
        node = factor.payload
        if self.recogniser is not None and not self.recogniser.is_given(node):
            return (0, factor.serial)
        return (1 if isinstance(node, Read) else 2, factor.serial)

    # --- factors --------------------------------------------------------------------------------------------

    def factor(self, factor: Factor) -> Node:
        """The node of a factor; those inside it come first, so that deep expressions need no deep stack."""
        if factor not in self.nodes:
            for inner in sorted(_inside(factor, self.nodes), key=lambda f: f.serial):
                if inner not in self.nodes:
                    self.nodes[inner] = self._factor(inner)
        return self.nodes[factor]

    def _factor(self, factor: Factor) -> Node:
        match factor.kind:
            case "node":
                return factor.payload
            case "sum":
                return self._sum(factor.payload, factor.dtype).node
            case "cast":
                form, dtype = factor.payload
                return cast(Expr(self.form(form, dtype_of(form))), dtype).node
            case "reduce":
                combine, over, form = factor.payload
                body = self.form(form, factor.dtype)
                return Reduce(combine, ordered_axes(body, over), body)
            case "indexing":
                indexing, form = factor.payload
                return indexing.node(self.form(form, factor.dtype))
            case "scan":
                (which, body, axis, reverse, initial), parts = factor.payload
                return Scan(which, body, self._operands(parts), axis, reverse, initial)
        function, parts = factor.payload
        return Map(function, self._operands(parts))

    def _operands(self, parts: tuple) -> tuple[Node, ...]:
        return tuple(p if dtype is None else self.form(p, dtype) for p, dtype in parts)


def _opposite(masks: frozenset[Mask], other: frozenset[Mask]) -> bool:
    difference = masks ^ other
    if len(difference) != 2 or len(masks) != len(other):
        return False
    (one, first), (two, second) = difference
    return one is two and first != second


def _power(value: Expr, exponent: Fraction) -> Expr:
    if exponent == HALF:
        return sqrt(value)
    if exponent == -HALF:
        return rsqrt(value)
    if exponent.denominator == 1:
        return value ** int(exponent)
    whole = math.floor(exponent)
    rest = exponent - whole
    root = sqrt(value) if rest == HALF else value ** float(rest)
    return root * value**whole if whole else root


def _multiplied(factors: list[tuple[tuple, Expr]]) -> Expr | None:
    """The product in the order of the ranks; factors of one operand of a contraction are multiplied first.

    w[n k] · g[m n] · t[m n] → w · (g · t): no product is made with more axes than a contraction of two would.
    """
    values = [value for _, value in sorted(factors, key=lambda item: item[0])]
    everywhere = frozenset().union(*(v.axes for v in values))
    if any(everywhere == frozenset(v.axes) for v in values):
        return _chained(values)
    clusters: list[list[Expr]] = []
    for value in sorted(values, key=lambda v: -len(v.axes)):
        home = next((c for c in clusters if set(value.axes) <= set(c[0].axes)), None)
        if home is None:
            clusters.append([value])
        else:
            home.append(value)
    place = {id(value): n for n, value in enumerate(values)}
    for cluster in clusters:
        cluster.sort(key=lambda v: place[id(v)])
    clusters.sort(key=lambda c: place[id(c[0])])
    return _chained([product for c in clusters if (product := _chained(c)) is not None])


def _chained(values: list[Expr]) -> Expr | None:
    product: Expr | None = None
    for value in values:
        product = value if product is None else product * value
    return product


def _inside(root: Factor, done: Collection[object]) -> set[Factor]:
    """`root` and the factors inside it that are not in `done`."""
    found: set[Factor] = set()
    stack = [root]
    while stack:
        factor = stack.pop()
        if factor in found or factor in done:
            continue
        found.add(factor)
        stack.extend(f for form in forms_inside(factor) for term in form for f, _ in term.factors)
    return found


def _tidy(number: float) -> float:
    """A product of constants without the rounding in its last digits: 0.30000000000000004 → 0.3."""
    short = float(f"{number:.12g}")
    return short if abs(short - number) <= 1e-15 * abs(number) else number


def _scaled(value: Expr | None, coefficient: Fraction, dtype: DType) -> Expr:
    number = _tidy(float(coefficient))
    if value is None:
        return constant(number, dtype)
    if number == 1:
        return value
    return -value if number == -1 else number * value
