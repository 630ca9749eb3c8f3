"""Factored forms: sums of terms whose factors stay as they are, for emitting expressions.

form   = Σ terms                      never multiplied out: (a + b) · c is one term with the factor (a + b)
term   = coefficient · Π factor ^ exponent, chosen by masks:  where(m₁ & m₂, …, 0)
factor = a node that is given, or a sum, reduction, function or conversion of forms
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from tilewright.dsl.algebra.terms import nearest
from tilewright.dsl.dtypes import DType, float32
from tilewright.dsl.program import At, Node, Scatter, indexed, scattered

ONE = Fraction(1)
HALF = Fraction(1, 2)

Mask = tuple[Node, bool]
"""A condition, and whether it must hold (True) or fail (False)."""


class Factor:
    """An indivisible part of a term, interned by its table: equality is identity, `serial` is a fixed order.

    kind       payload
    "node"     the node, which is given or read
    "sum"      a form of at least two terms (or of one that is very long)
    "reduce"   (combine, axes, form)
    "scan"     ((which, body, axis, reverse, initial), operands): as those of a "map"
    "map"      (function, operands): (form, dtype), or (node, None) where it is not floating-point
    "cast"     (form, dtype)
    "indexing" (what the node is besides its operand, form)
    """

    __slots__ = ("axes", "dtype", "kind", "payload", "serial")

    def __init__(self, kind: str, payload: Any, axes: frozenset[str], dtype: DType, serial: int):
        self.kind = kind
        self.payload = payload
        self.axes = axes
        self.dtype = dtype
        self.serial = serial


Factors = frozenset  # of (Factor, Fraction)


@dataclass(frozen=True)
class Indexing:
    """A node `At` or `Scatter` without its operand."""

    along: tuple[str, ...]
    positions: tuple[Node, ...]
    over: tuple[str, ...] | None

    @classmethod
    def of(cls, node: At | Scatter) -> Indexing:
        return cls(node.along, node.positions, node.over if isinstance(node, Scatter) else None)

    def node(self, arg: Node) -> Node:
        if self.over is None:
            return indexed(arg, dict(zip(self.along, self.positions, strict=True)))
        return scattered(self.along, self.over, arg, self.positions)


@dataclass(frozen=True)
class Term:
    coefficient: Fraction
    factors: Factors
    masks: frozenset[Mask] = frozenset()

    @property
    def axes(self) -> frozenset[str]:
        found = frozenset().union(*(f.axes for f, _ in self.factors))
        return found.union(*(frozenset(node.axes) for node, _ in self.masks))

    def __mul__(self, other: Term) -> Term:
        exponents = dict(self.factors)
        for factor, exponent in other.factors:
            total = exponents.get(factor, 0) + exponent
            if total:
                exponents[factor] = total
            else:
                del exponents[factor]
        return Term(
            self.coefficient * other.coefficient, frozenset(exponents.items()), self.masks | other.masks
        )

    def scaled(self, number: Fraction) -> Term:
        return Term(self.coefficient * number, self.factors, self.masks)

    def inverse(self) -> Term:
        """1 / term, for a term without masks."""
        return Term(1 / self.coefficient, frozenset((f, -e) for f, e in self.factors))

    def over(self, divisor: Term) -> Term:
        """The term without the factors, coefficient and masks of `divisor`."""
        quotient = Term(self.coefficient, self.factors) * Term(divisor.coefficient, divisor.factors).inverse()
        return Term(quotient.coefficient, quotient.factors, self.masks - divisor.masks)


Form = tuple  # of Term
UNIT = Term(ONE, frozenset())


def normalised(terms: Iterable[Term]) -> Form:
    """Like terms added, contradictory masks dropped, zeros left out; in order of first appearance."""
    total: dict[tuple[Factors, frozenset[Mask]], Fraction] = {}
    for term in terms:
        if any((node, not holds) in term.masks for node, holds in term.masks):
            continue
        key = (term.factors, term.masks)
        total[key] = total.get(key, Fraction(0)) + term.coefficient
    return tuple(Term(c, factors, masks) for (factors, masks), c in total.items() if c)


def content(form: Form) -> Term:
    """What all terms of a form share: factors (the exponent nearest to 0), masks, ± an equal coefficient.

    A factor is shared only if some term is chosen by no more than the common masks; otherwise
    where(a, k·u, 0) + where(b, k·v, 0) would become k · (…), and 0 · k is not 0 where k is infinite.
    """
    first, *others = form
    masks = first.masks.intersection(*(t.masks for t in others))
    exponents = dict(first.factors) if any(t.masks == masks for t in form) else {}
    for term in others:
        present = dict(term.factors)
        exponents = {f: nearest(e, present[f]) for f, e in exponents.items() if f in present}
    coefficient = ONE
    if all(abs(t.coefficient) == abs(first.coefficient) for t in form):
        coefficient = abs(first.coefficient)
    if all(t.coefficient < 0 for t in form):
        coefficient = -coefficient
    return Term(coefficient, frozenset((f, e) for f, e in exponents.items() if e), masks)


def multiplicity(divisor: Factors, dividend: Factors) -> int:
    """How often `divisor` divides `dividend` with no exponent changing its sign."""
    present = dict(dividend)
    times = None
    for factor, exponent in divisor:
        ratio = present.get(factor, Fraction(0)) / exponent
        whole = int(ratio) if ratio > 0 else 0
        times = whole if times is None else min(times, whole)
        if not times:
            return 0
    return times or 0


def dtype_of(form: Form) -> DType:
    """The widest floating dtype among the factors."""
    found = [f.dtype for t in form for f, _ in t.factors]
    return max(found, key=lambda d: d.bits).compute if found else float32


def term_order(term: Term) -> tuple:
    return (
        sorted((f.serial, e) for f, e in term.factors),
        sorted((str(n.axes), holds) for n, holds in term.masks),
        term.coefficient,
    )


def parted(over: frozenset[str], term: Term) -> tuple[Term, Term]:
    """A term as (what does not vary along `over`) · (what does)."""
    varies = frozenset((f, e) for f, e in term.factors if f.axes & over)
    masks = frozenset(m for m in term.masks if over & frozenset(m[0].axes))
    return Term(term.coefficient, term.factors - varies, term.masks - masks), Term(ONE, varies, masks)


def ordered_axes(body: Node, axes: frozenset[str]) -> tuple[str, ...]:
    return tuple(a for a in body.axes if a in axes)


def axes_of(form: Form) -> frozenset[str]:
    return frozenset().union(*(t.axes for t in form))


def alone(factor: Factor, exponent: Fraction = ONE) -> Form:
    """A form of one factor."""
    return (Term(ONE, frozenset(((factor, exponent),))),)


def forms_inside(factor: Factor) -> tuple[Form, ...]:
    """The forms that a factor is made of."""
    match factor.kind:
        case "sum":
            return (factor.payload,)
        case "cast":
            return (factor.payload[0],)
        case "reduce":
            return (factor.payload[2],)
        case "indexing":
            return (factor.payload[1],)
        case "map" | "scan":
            return tuple(form for form, dtype in factor.payload[1] if dtype is not None)
    return ()
