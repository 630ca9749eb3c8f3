"""Expressions in the form that a person would write, in terms of values that are known already.

    x · y / x            → y                     √p · √p               → p
    a·g + a·h            → a · (g + h)           Σ (c · u)             → c · Σ u
    Σ (u + v), Σ v = 0   → Σ u                   where(c, u, 0) + where(~c, v, 0) → where(c, u, v)
    e / s                → y     where y = e / s is known
    Σ (g · e) / s        → Σ (g · y)

Nothing is multiplied out: a sum stays a factor, so E[(x - m)²] never becomes E[x²] - m². A sum over an axis is split only
where a part of it vanishes, does not depend on the axis, or is known. Known values are never rewritten.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

from tilewright.dsl.algebra.forms import (
    ONE,
    UNIT,
    Factor,
    Factors,
    Form,
    Mask,
    Term,
    content,
    multiplicity,
    normalised,
)
from tilewright.dsl.algebra.polynomial import Polynomials
from tilewright.dsl.dtypes import DType
from tilewright.dsl.expression import Expr, cast, constant
from tilewright.dsl.program import Cast, Const, Map, Node, Read, Reduce, Size, topological
from tilewright.dsl.scalars import rsqrt, sqrt, where

HALF = Fraction(1, 2)
MOST_SPLIT = 12
MOST_EXPONENT = 8

Known = tuple[Factors, Fraction, Node]


def collect(
    roots: Iterable[Node], given: Sequence[Node] = (), polynomials: Polynomials | None = None
) -> tuple:
    """Nodes equal to `roots`, written in terms of the `given` nodes (operands before users)."""
    collector = Collector(given, polynomials or Polynomials())
    emitter = Emitter(collector)
    return tuple(emitter.form(collector.form(root), root.dtype) for root in roots)


class Collector:
    """Forms of expressions over `given` nodes (operands before users)."""

    def __init__(self, given: Sequence[Node], polynomials: Polynomials):
        self.polynomials = polynomials
        self.given = dict.fromkeys(given)
        self.factors: dict[tuple, Factor] = {}
        self.memo: dict[Node, Form] = {}
        self.sums: dict[tuple, Factor] = {}
        self.additions: dict[frozenset[Term], tuple[Node, Term]] = {}
        self.plain = Emitter(self, known=[])
        for node in given:
            if node.dtype.is_float:
                self._learn(node)

    # --- what is given ----------------------------------------------------------------------------------------

    def _learn(self, node: Node) -> None:
        """The form of a given node: a monomial of given nodes, itself where it is none."""
        form = self._form(node) if _is_monomial_map(node) else ()
        plain = len(form) == 1 and abs(form[0].coefficient) == 1 and not form[0].masks
        if isinstance(node, Const) or plain:
            self.memo[node] = form or self._form(node)
            return
        factor = self._node(node)
        self.memo[node] = (Term(ONE, frozenset(((factor, ONE),))),)
        if isinstance(node, Reduce) and node.combine == "sum" and len(self.memo[node.arg]) == 1:
            (term,) = self.memo[node.arg]
            key = (frozenset(node.over), term.factors, term.masks)
            if term.coefficient == 1:
                self.sums.setdefault(key, factor)
        if isinstance(node, Map) and node.function in ("add", "sub"):
            form = self._form(node)
            if len(form) > 1 and not any(t.masks for t in form):
                common = content(form)
                rest = tuple(t.over(common) for t in form)
                self.additions.setdefault(frozenset(rest), (node, common))

    def _node(self, node: Node) -> Factor:
        return self._factor("node", node, frozenset(node.axes), node.dtype)

    def _factor(self, kind: str, payload: object, axes: frozenset[str], dtype: DType) -> Factor:
        key = (kind, payload)
        found = self.factors.get(key)
        if found is None:
            found = self.factors[key] = Factor(kind, payload, axes, dtype, len(self.factors))
        return found

    # --- nodes to forms ---------------------------------------------------------------------------------------

    def form(self, root: Node) -> Form:
        """The factored form of a floating-point node."""
        for node in topological([root]):
            if node.dtype.is_float and node not in self.memo:
                self.memo[node] = self._form(node)
        return self.memo[root]

    def _form(self, node: Node) -> Form:
        match node:
            case Const():
                if math.isfinite(node.value):
                    return normalised((UNIT.scaled(Fraction(node.value)),))
                return self._alone(self._node(node))
            case Read():
                return self._alone(self._node(node))
            case Cast():
                return self._form_of_cast(node)
            case Reduce():
                return self._form_of_reduce(node)
            case Map():
                return self._form_of_map(node)
        return self._alone(self._node(node))

    def _alone(self, factor: Factor, exponent: Fraction = ONE) -> Form:
        return (Term(ONE, frozenset(((factor, exponent),))),)

    def _form_of_cast(self, node: Cast) -> Form:
        if not node.arg.dtype.is_float or isinstance(node.arg, Read):
            return self._alone(self._node(node))
        form = self.memo[node.arg]
        if not form:
            return ()
        return self._alone(self._factor("cast", (form, node.dtype), frozenset(node.axes), node.dtype))

    def _form_of_map(self, node: Map) -> Form:
        parts = tuple(self.memo[a] if a.dtype.is_float else a for a in node.operands)
        exponent = _constant_exponent(node)
        if exponent is not None:
            return self._power(parts[0], exponent) or self._opaque(node, parts)
        match node.function, parts:
            case "add", (a, b):
                return normalised((*a, *b))
            case "sub", (a, b):
                return normalised((*a, *(t.scaled(-ONE) for t in b)))
            case "neg", (a,):
                return tuple(t.scaled(-ONE) for t in a)
            case "mul", (a, b):
                return self._product(a, b)
            case "div", (a, b):
                inverse = self._power(b, -ONE)
                return self._opaque(node, parts) if inverse is None else self._product(a, inverse)
            case "where", (condition, a, b):
                return self._choice(node, condition, a, b)
        return self._opaque(node, parts)

    def _opaque(self, node: Map, parts: tuple) -> Form:
        typed = tuple(
            (part, a.dtype) if a.dtype.is_float else (a, None)
            for part, a in zip(parts, node.operands, strict=True)
        )
        return self._alone(self._factor("map", (node.function, typed), frozenset(node.axes), node.dtype))

    def _product(self, left: Form, right: Form) -> Form:
        if not left or not right:
            return ()
        if _is_number(left) or _is_number(right):
            number, other = (left, right) if _is_number(left) else (right, left)
            return tuple(t.scaled(number[0].coefficient) for t in other)
        return normalised((self.bundled(left) * self.bundled(right),))

    def _power(self, form: Form, exponent: Fraction) -> Form | None:
        """form ^ exponent; None where that is no monomial."""
        if not form:
            return None
        term = self.bundled(form)
        if term.masks:
            return None
        if exponent.denominator == 1:
            return (Term(term.coefficient**exponent, frozenset((f, e * exponent) for f, e in term.factors)),)
        return self._root(term, exponent)

    def _root(self, term: Term, exponent: Fraction) -> Form | None:
        """(Π aᵢ^eᵢ)^q where all factors but one are positive: x² under a root must stay, √x² is |x|."""
        unsure = [e for f, e in term.factors if not _is_positive(f)]
        if term.coefficient != 1 or len(unsure) > 1 or any(e.denominator == 1 and e % 2 == 0 for e in unsure):
            return None
        return (Term(ONE, frozenset((f, e * exponent) for f, e in term.factors)),)

    def _choice(self, node: Map, condition: Node, first: Form, second: Form) -> Form:
        if first and second:
            return self._opaque(node, (condition, first, second))
        mask = (condition, bool(first))
        return normalised(Term(t.coefficient, t.factors, t.masks | {mask}) for t in first or second)

    def bundled(self, form: Form) -> Term:
        """A form as one term: what its terms share, times the sum of what is left."""
        if len(form) == 1:
            return form[0]
        common = content(form)
        rest = tuple(t.over(common) for t in form)
        for sign in (ONE, -ONE):
            known = self.additions.get(frozenset(t.scaled(sign) for t in rest))
            if known is not None:
                node, shared = known
                return common.scaled(sign) * shared.inverse() * self.memo[node][0]
        return common * self._alone(self._sum_factor(rest))[0]

    def _sum_factor(self, form: Form) -> Factor:
        axes = frozenset().union(*(t.axes for t in form))
        ordered = tuple(sorted(form, key=_term_order))
        return self._factor("sum", ordered, axes, _dtype(form))

    # --- sums over axes ---------------------------------------------------------------------------------------

    def _form_of_reduce(self, node: Reduce) -> Form:
        form = self.memo[node.arg]
        if node.combine == "sum":
            return self._summed(frozenset(node.over), form, node.dtype)
        over = tuple(a for a in node.over if any(a in t.axes for t in form))
        if over != node.over:
            return self._alone(self._node(node))
        return self._alone(
            self._factor("reduce", (node.combine, frozenset(over), form), frozenset(node.axes), node.dtype)
        )

    def _summed(self, over: frozenset[str], form: Form, dtype: DType) -> Form:
        done: list[Term] = []
        kept: list[Term] = []
        for term in form:
            for part in self._split_if_it_helps(over, term, dtype):
                easy = self._easy_sum(over, part, dtype)
                if easy is None:
                    kept.append(part)
                else:
                    done.extend(easy)
        if kept:
            done.append(self._sum_of_term(over, self.bundled(normalised(kept)), dtype))
        return normalised(done)

    def _split_if_it_helps(self, over: frozenset[str], term: Term, dtype: DType) -> Form:
        """The term with a sum among its factors multiplied in, if part of the result is easy to sum."""
        for factor, exponent in sorted(term.factors, key=lambda item: item[0].serial):
            if factor.kind != "sum" or exponent != 1 or not factor.axes & over:
                continue
            if len(factor.payload) > MOST_SPLIT:
                continue
            rest = term.over(Term(ONE, frozenset(((factor, ONE),))))
            parts = normalised(rest * t for t in factor.payload)
            if any(self._easy_sum(over, part, dtype) is not None for part in parts):
                return tuple(p for part in parts for p in self._split_if_it_helps(over, part, dtype))
        return (term,)

    def _easy_sum(self, over: frozenset[str], term: Term, dtype: DType) -> Form | None:
        """Σ term where it is zero, known, or of something that does not vary along `over`; else None."""
        outside, inside = _parted(over, term)
        here = over & inside.axes
        outside = outside * self._extents(over - here, dtype)
        if not here:
            return (outside,)
        known = self.sums.get((here, inside.factors, inside.masks))
        if known is not None:
            return (outside * self._alone(known)[0],)
        body = self.plain.form((inside,), dtype)
        if self.polynomials.is_zero(Reduce("sum", _ordered(body, here), body)):
            return ()
        return None

    def _sum_of_term(self, over: frozenset[str], term: Term, dtype: DType) -> Term:
        outside, inside = _parted(over, term)
        here = over & inside.axes
        axes = inside.axes - here
        factor = self._factor("reduce", ("sum", here, (inside,)), axes, dtype)
        return outside * self._extents(over - here, dtype) * self._alone(factor)[0]

    def _extents(self, axes: frozenset[str], dtype: DType) -> Term:
        result = UNIT
        for axis in sorted(axes):
            size = cast(Expr(Size(axis)), dtype)
            result = result * self._alone(self._node(size.node))[0]
        return result


# --- small questions ----------------------------------------------------------------------------------------------


def _is_monomial_map(node: Node) -> bool:
    if isinstance(node, Const):
        return True
    if not isinstance(node, Map):
        return False
    return node.function in ("mul", "div", "neg") or _constant_exponent(node) is not None


def _constant_exponent(node: Map) -> Fraction | None:
    """The exponent of a root, or of a power by a number of halves."""
    if node.function in ("sqrt", "rsqrt"):
        return HALF if node.function == "sqrt" else -HALF
    if node.function != "pow" or not isinstance(node.operands[1], Const):
        return None
    twice = 2 * node.operands[1].value
    return Fraction(int(twice), 2) if abs(twice) <= 2 * MOST_EXPONENT and twice == int(twice) else None


def _is_number(form: Form) -> bool:
    return len(form) == 1 and not form[0].factors and not form[0].masks


def _is_positive(factor: Factor) -> bool:
    """Whether a factor is certainly > 0: an extent, an exponential."""
    if factor.kind != "node":
        return False
    node = factor.payload
    if isinstance(node, Cast):
        return isinstance(node.arg, Size)
    return isinstance(node, Map) and node.function == "exp"


def _dtype(form: Form) -> DType:
    """The widest floating dtype among the factors."""
    found = [f.dtype for t in form for f, _ in t.factors]
    from tilewright.dsl.dtypes import float32

    return max(found, key=lambda d: d.bits).compute if found else float32


def _term_order(term: Term) -> tuple:
    return (
        sorted((f.serial, e) for f, e in term.factors),
        sorted((str(n.axes), holds) for n, holds in term.masks),
        term.coefficient,
    )


def _parted(over: frozenset[str], term: Term) -> tuple[Term, Term]:
    """A term as (what does not vary along `over`) · (what does)."""
    varies = frozenset((f, e) for f, e in term.factors if f.axes & over)
    masks = frozenset(m for m in term.masks if over & frozenset(m[0].axes))
    return Term(term.coefficient, term.factors - varies, term.masks - masks), Term(ONE, varies, masks)


def _ordered(body: Node, axes: frozenset[str]) -> tuple[str, ...]:
    return tuple(a for a in body.axes if a in axes)


def known_monomials(collector: Collector, leaves: Iterable[Node]) -> list[Known]:
    """Given nodes to recognise inside monomials: any leaf; quotients and roots even where they are computed again."""
    read = [_monomial(collector, node) for node in leaves]
    computed = [_monomial(collector, node) for node in collector.given if node.dtype.is_float]
    quotients = [k for k in computed if k is not None and any(e != 1 for _, e in k[0])]
    return [k for k in read if k is not None] + sorted(quotients, key=lambda k: len(k[0]) == 1)


def _monomial(collector: Collector, node: Node) -> Known | None:
    form = collector.memo.get(node, ())
    if len(form) != 1 or form[0].masks or not form[0].factors:
        return None
    if any(f.payload is node for f, _ in form[0].factors):
        return None
    return form[0].factors, form[0].coefficient, node


# --- emission -----------------------------------------------------------------------------------------------------


class Emitter:
    """Nodes from forms. Monomials are written with the given `leaves` first, then with other known ones."""

    def __init__(self, collector: Collector, leaves: Iterable[Node] = (), known: list[Known] | None = None):
        self.collector = collector
        self.known = known_monomials(collector, leaves) if known is None else known
        self.nodes: dict[object, Node] = {}

    # --- sums -------------------------------------------------------------------------------------------------

    def form(self, form: Form, dtype: DType) -> Node:
        key = (form, dtype)
        if key not in self.nodes:
            self.nodes[key] = cast(self._form(form, dtype), dtype).node
        return self.nodes[key]

    def _form(self, form: Form, dtype: DType) -> Expr:
        if not form:
            return constant(0, dtype)
        common = content(form) if len(form) > 1 else UNIT
        if common != UNIT:
            return self._term(self.collector.bundled(form), dtype)
        return self._sum(form, dtype)

    def _sum(self, form: Form, dtype: DType) -> Expr:
        """Positive terms first, so that a difference is written as one."""
        merged = self._merged_choices(form)
        parts = sorted(merged, key=lambda part: part[0])
        total: Expr | None = None
        for negative, value in parts:
            value = value(dtype)
            if total is None:
                total = -value if negative else value
            else:
                total = total - value if negative else total + value
        assert total is not None
        return total

    def _merged_choices(self, form: Form) -> list:
        """(is negative, emitter) of each summand; where(c, u, 0) + where(~c, v, 0) is one summand."""
        by_masks: dict[frozenset[Mask], list[Term]] = {}
        for term in form:
            by_masks.setdefault(term.masks, []).append(term)
        result = []
        while by_masks:
            masks, terms = next(iter(by_masks.items()))
            del by_masks[masks]
            partner = next((m for m in by_masks if _opposite(masks, m)), None)
            if partner is None:
                result += [(t.coefficient < 0, self._signless(t)) for t in terms]
                continue
            others = by_masks.pop(partner)
            result.append((False, self._chosen(masks, terms, partner, others)))
        return result

    def _signless(self, term: Term):
        return lambda dtype: self._term(term.scaled(-ONE) if term.coefficient < 0 else term, dtype)

    def _chosen(self, masks: frozenset[Mask], terms: list, partner: frozenset[Mask], others: list):
        ((condition, holds),) = masks - partner
        shared = masks & partner

        def emit(dtype: DType) -> Expr:
            first = Expr(self.form(tuple(Term(t.coefficient, t.factors) for t in terms), dtype))
            second = Expr(self.form(tuple(Term(t.coefficient, t.factors) for t in others), dtype))
            if not holds:
                first, second = second, first
            chosen = where(Expr(condition), first, second)
            return self._masked(shared, chosen)

        return emit

    # --- terms ------------------------------------------------------------------------------------------------

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
        term, chosen = self._recognised(term)
        above: list[tuple[tuple, Expr]] = [(self._rank(f), Expr(f.payload)) for f in chosen]
        below: list[tuple[tuple, Expr]] = []
        for factor, exponent in term.factors:
            value = Expr(self.factor(factor))
            side = above if exponent > 0 or exponent == -HALF else below
            side.append((self._rank(factor), _power(value, exponent if side is above else -exponent)))
        coefficient = term.coefficient
        numerator = _multiplied(above)
        result = _scaled(numerator, coefficient, dtype)
        return result / _multiplied(below) if below else result  # type: ignore[operator]

    def _rank(self, factor: Factor) -> tuple:
        """The order of factors: operands of this derivative alone, given ones, reductions, functions, sums."""
        if factor.kind == "node":
            node = factor.payload
            if node not in self.collector.given and not isinstance(node, Cast):
                return (0, factor.serial)
            return (1 if isinstance(node, Read) else 2, factor.serial)
        return ({"reduce": 4, "cast": 0, "map": 3, "sum": 5}[factor.kind], factor.serial)

    def _recognised(self, term: Term) -> tuple[Term, list[Factor]]:
        """The term divided by known monomials, and those."""
        chosen: list[Factor] = []
        for factors, coefficient, node in self.known:
            times = multiplicity(factors, term.factors)
            for _ in range(times):
                term = term.over(Term(coefficient, factors))
                chosen.append(self.collector._node(node))
            term = self._absorbed(term, factors, coefficient, node)
        return term, chosen

    def _absorbed(self, term: Term, factors: Factors, coefficient: Fraction, node: Node) -> Term:
        """s⁻¹ · Σ (g · e) → Σ (g · y) for the known y = e / s."""
        for factor, exponent in sorted(term.factors, key=lambda item: item[0].serial):
            if factor.kind != "reduce" or exponent != 1 or factor.payload[0] != "sum":
                continue
            _, over, form = factor.payload
            if len(form) != 1:
                continue
            inner = frozenset((f, e) for f, e in factors if f.axes & over)
            outer = factors - inner
            if (
                not inner
                or not outer
                or not (multiplicity(inner, form[0].factors) and multiplicity(outer, term.factors))
            ):
                continue
            whole = Term(ONE, frozenset(((self.collector._node(node), ONE),)))
            body = form[0].over(Term(coefficient, inner)) * whole
            summed = self.collector._factor("reduce", ("sum", over, (body,)), factor.axes, factor.dtype)
            old = Term(ONE, frozenset(((factor, ONE),)))
            new = Term(ONE, frozenset(((summed, ONE),)))
            return term.over(old).over(Term(ONE, outer)) * new
        return term

    # --- factors ----------------------------------------------------------------------------------------------

    def factor(self, factor: Factor) -> Node:
        if factor not in self.nodes:
            self.nodes[factor] = self._factor(factor)
        return self.nodes[factor]

    def _factor(self, factor: Factor) -> Node:
        match factor.kind:
            case "node":
                return factor.payload
            case "sum":
                return self._sum(factor.payload, factor.dtype).node
            case "cast":
                form, dtype = factor.payload
                return cast(Expr(self.form(form, _dtype(form))), dtype).node
            case "reduce":
                combine, over, form = factor.payload
                body = self.form(form, factor.dtype)
                return Reduce(combine, _ordered(body, over), body)
        function, parts = factor.payload
        return Map(function, tuple(p if dtype is None else self.form(p, dtype) for p, dtype in parts))


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
    product: Expr | None = None
    for _, value in sorted(factors, key=lambda item: item[0]):
        product = value if product is None else product * value
    return product


def _scaled(value: Expr | None, coefficient: Fraction, dtype: DType) -> Expr:
    number = float(coefficient)
    if value is None:
        return constant(number, dtype)
    if number == 1:
        return value
    return -value if number == -1 else number * value


__all__ = ["Collector", "Emitter", "collect"]
