"""Known values found inside terms: y for e / s, Σ g·y for (Σ g·e) / s, exp(x - y) for exp(x - m) / s.

Four rules, tried on each term as it is written, each with the values that are merely read (`leaves`) first:

    quotients      a · e · s⁻¹                       → a · y                       y = e / s
    absorption     s⁻¹ · Σ_d g · e                   → Σ_d g · y                   y = e / s
    known sums     Σ_j p · (Σ_e g · v)               → Σ_e g · o                   o = Σ_j p · v, a leaf
    exponentials   exp(a) · s⁻¹                      → exp(a - log s)              a - log s simpler by a leaf
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import TYPE_CHECKING

from tilewright.dsl.algebra.forms import (
    ONE,
    Factor,
    Factors,
    Form,
    Term,
    alone,
    multiplicity,
    normalised,
)
from tilewright.dsl.program import Cast, Map, Node, Reduce

if TYPE_CHECKING:
    from tilewright.dsl.algebra.collect import Collector

Known = tuple[Factors, Fraction, Node]
DEEP = 20


class Recogniser:
    """What can be recognised. `leaves` are read, not computed; those in `exact` are not rounded.

    A rounded value may be multiplied by, but not stand in an exponent.
    """

    def __init__(self, collector: Collector, leaves: Iterable[Node] = (), exact: Iterable[Node] = ()):
        leaves = tuple(leaves)
        self.collector = collector
        self.monomials = self._monomials(leaves)
        self.sums = [known for node in leaves if (known := self._sum(node)) is not None]
        self.exact = tuple(node for node in exact if node.dtype.is_float)  # positions may be saved, too
        self.log_of = self._logarithms_of_sums() if self.exact else {}

    def is_given(self, node: Node) -> bool:
        return node in self.collector.given

    def recognised(self, term: Term) -> Term:
        """An equal term in known values, which stand as factors of their own."""
        for over, factors, node in self.sums:
            term = self._through_sum(term, over, factors, node)
        if self.log_of:
            term = self._exponential(term)
        for factors, coefficient, node in self.monomials:
            if len(factors) == 1:
                term = self._rooted(term, factors, coefficient, node)
                continue
            for _ in range(multiplicity(factors, term.factors)):
                term = term.over(Term(coefficient, factors)) * self._itself(node)
            term = self._absorbed(term, factors, coefficient, node)
        return term

    def _itself(self, node: Node) -> Term:
        return alone(self.collector.node_factor(node))[0]

    # --- what is known -------------------------------------------------------------------------------------

    def _monomials(self, leaves: tuple[Node, ...]) -> list[Known]:
        """Any leaf that is a monomial, then quotients and roots, worth it even if computed again."""
        read = [self._monomial(node) for node in leaves]
        computed = [self._monomial(node) for node in self.collector.given if node.dtype.is_float]
        quotients = [k for k in computed if k is not None and any(e != 1 for _, e in k[0])]
        return [k for k in read if k is not None] + sorted(quotients, key=lambda k: len(k[0]) == 1)

    def _monomial(self, node: Node) -> Known | None:
        form = self.collector.memo.get(node, ())
        if len(form) != 1 or form[0].masks or not form[0].factors:
            return None
        if any(f.payload is node for f, _ in form[0].factors):
            return None
        return form[0].factors, form[0].coefficient, node

    def _sum(self, node: Node) -> tuple[frozenset[str], Factors, Node] | None:
        """A leaf that is a sum of one monomial (or the narrowing of one)."""
        inner = node.arg if isinstance(node, Cast) and node.arg.dtype.is_float else node
        if not isinstance(inner, Reduce) or inner.combine != "sum":
            return None
        form = self.collector.memo.get(inner.arg, ())
        if len(form) != 1 or form[0].coefficient != 1 or form[0].masks or node.dtype.compute != node.dtype:
            return None
        return frozenset(inner.over), form[0].factors, node

    def _logarithms_of_sums(self) -> dict[Factor, Factor]:
        """s → log(s), for given logarithms of single factors."""
        found: dict[Factor, Factor] = {}
        for node in self.collector.given:
            if isinstance(node, Map) and node.function == "log":
                form = self.collector.memo[node.operands[0]]
                if len(form) == 1 and form[0].coefficient == 1 and len(form[0].factors) == 1:
                    ((factor, exponent),) = form[0].factors
                    if exponent == 1 and not form[0].masks:
                        found[factor] = self.collector.node_factor(node)
        return found

    def _opened(self, form: Form, depth: int) -> Form:
        """A form with given sums and differences opened `depth` times: z → x - m."""
        if not depth:
            return form
        terms: list[Term] = []
        for term in form:
            node = _only_node(term)
            if isinstance(node, Map) and node.function in ("add", "sub"):
                opened = self._opened(self.collector.addition(node), depth - 1)
                terms.extend(t.scaled(term.coefficient) for t in opened)
            else:
                terms.append(term)
        return normalised(terms)

    # --- the rules -----------------------------------------------------------------------------------------

    def _rooted(self, term: Term, factors: Factors, coefficient: Fraction, node: Node) -> Term:
        """Powers of a factor by a known one: p^-3/2 = r·r·r for r = p^-½; x^3/2 = x·s, x^-½ = 1/s s = √x."""
        ((factor, known),) = factors
        wanted = dict(term.factors).get(factor, Fraction(0))
        if wanted == known:
            times = 1
        elif known.denominator == 1 or abs(wanted) < abs(known):
            times = 0
        elif known < 0:
            times = int(wanted / known) if wanted < 0 else 0
        elif wanted.denominator == 1:
            times = 0
        else:
            times = 1 if wanted > 0 else -1
        quotient = Term(coefficient, factors)
        for _ in range(abs(times)):
            term = (
                term.over(quotient) * self._itself(node)
                if times > 0
                else (term * quotient).over(self._itself(node))
            )
        return term

    def _absorbed(self, term: Term, factors: Factors, coefficient: Fraction, node: Node) -> Term:
        for factor, over, body in _sums_in(term):
            inner = frozenset((f, e) for f, e in factors if f.axes & over)
            outer = factors - inner
            if not inner or not outer or not multiplicity(inner, body.factors):
                continue
            if not multiplicity(outer, term.factors):
                continue
            body = body.over(Term(coefficient, inner)) * self._itself(node)
            return term.over(alone(factor)[0]).over(Term(ONE, outer)) * self._summed(over, body, factor)
        return term

    def _through_sum(self, term: Term, known: frozenset[str], factors: Factors, node: Node) -> Term:
        """Σ_j p · (Σ_e g · v) = Σ_e g · (Σ_j p · v), where the sum over j is known."""
        varying = frozenset((f, e) for f, e in factors if f.axes & known)
        for outer, over, body in _sums_in(term):
            for inner, inner_over, inner_body in _sums_in(body):
                rest = body.over(alone(inner)[0])
                if inner_over & (over | rest.axes) or not known <= over | inner_over:
                    continue
                merged = rest * inner_body
                if not multiplicity(varying, merged.factors):
                    continue
                merged = merged.over(Term(ONE, varying))
                outside = term.over(alone(outer)[0])
                for item in factors - varying:
                    constant = Term(ONE, frozenset((item,)))
                    if multiplicity(constant.factors, merged.factors):
                        merged = merged.over(constant)
                    else:
                        outside = outside.over(constant)
                if merged.axes & known or _size(outside) > _size(term):
                    continue
                merged = merged * self._itself(node)
                return outside * self._summed((over | inner_over) - known, merged, outer)
        return term

    def _summed(self, over: frozenset[str], body: Term, like: Factor) -> Term:
        """Σ body as a term, with what does not vary along the axes outside."""
        varies = frozenset((f, e) for f, e in body.factors if f.axes & over)
        if not over:
            return body
        inside = Term(ONE, varies, body.masks)
        here = over & inside.axes
        outside = Term(body.coefficient, body.factors - varies) * self.collector.extents(
            over - here, like.dtype
        )
        if not here:
            return outside * inside
        factor = self.collector.factor("reduce", ("sum", here, (inside,)), inside.axes - over, like.dtype)
        return outside * alone(factor)[0]

    def _exponential(self, term: Term) -> Term:
        """exp(a) · s⁻¹, or s⁻¹ · Σ g · exp(a)"""
        for total, logarithm in self.log_of.items():
            if dict(term.factors).get(total) != -1:
                continue
            divided = term * alone(total)[0]
            rewritten = self._with_exponential(divided, logarithm)
            if rewritten is not None:
                return rewritten
            for factor, over, body in _sums_in(divided):
                if factor.axes >= total.axes and not total.axes & over:
                    inside = self._with_exponential(body, logarithm)
                    if inside is not None:
                        return divided.over(alone(factor)[0]) * self._summed(over, inside, factor)
        return term

    def _with_exponential(self, term: Term, logarithm: Factor) -> Term | None:
        """The term over exp(logarithm), if it has an exponential that this simplifies."""
        for factor, exponent in sorted(term.factors, key=lambda item: item[0].serial):
            node = factor.payload
            if exponent != 1 or factor.kind != "node" or not isinstance(node, Map) or node.function != "exp":
                continue
            simpler = self._simpler(self.collector.memo[node.operands[0]], logarithm)
            if simpler is None:
                continue
            axes = frozenset().union(*(t.axes for t in simpler))
            new = self.collector.factor("map", ("exp", ((simpler, node.dtype),)), axes, node.dtype)
            return term.over(alone(factor)[0]) * alone(new)[0]
        return None

    def _simpler(self, argument: Form, logarithm: Factor) -> Form | None:
        """argument - logarithm as a leaf, or as one value and a leaf; None if it is neither."""
        less = alone(logarithm)[0].scaled(-ONE)
        for depths in ((0, 1), (1, 1), (DEEP, DEEP)):
            shifted = normalised((*self._opened(argument, depths[0]), less))
            for node in self.exact:
                linear = self._opened(self.collector.memo[node], depths[1])
                if len(linear) < 2:
                    continue
                for sign in (ONE, -ONE):
                    rest = normalised((*shifted, *(t.scaled(-sign) for t in linear)))
                    if len(rest) <= 1:
                        return (*rest, self._itself(node).scaled(sign))
        return None


def _sums_in(term: Term) -> list[tuple[Factor, frozenset[str], Term]]:
    """The sums of single terms among a term's factors: (factor, axes, body)."""
    found = []
    for factor, exponent in sorted(term.factors, key=lambda item: item[0].serial):
        if (
            factor.kind == "reduce"
            and exponent == 1
            and factor.payload[0] == "sum"
            and len(factor.payload[2]) == 1
        ):
            found.append((factor, factor.payload[1], factor.payload[2][0]))
    return found


def _only_node(term: Term) -> Node | None:
    if len(term.factors) != 1 or term.masks:
        return None
    ((factor, exponent),) = term.factors
    return factor.payload if factor.kind == "node" and exponent == 1 else None


def _size(term: Term) -> Fraction:
    return sum((abs(e) for _, e in term.factors), Fraction(0))
