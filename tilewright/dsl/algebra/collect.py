"""Expressions in the form that a person would write, in terms of values that are known already.

    x · y / x            → y                     √p · √p               → p
    a·g + a·h            → a · (g + h)           Σ (c · u)             → c · Σ u
    Σ (u + v), Σ v = 0   → Σ u                   where(c, u, 0) + where(~c, v, 0) → where(c, u, v)
    e / s                → y     where y = e / s is known
    Σ (g · e) / s        → Σ (g · y)

Nothing is multiplied out: a sum stays a factor, so E[(x - m)²] never becomes E[x²] - m². A sum over an
axis is split only where a part of it vanishes, does not depend on the axis, or is known, or where it is
two contractions. Known values are never rewritten.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from tilewright.dsl.algebra.emit import Emitter
from tilewright.dsl.algebra.forms import (
    HALF,
    ONE,
    UNIT,
    Factor,
    Form,
    Indexing,
    Term,
    alone,
    axes_of,
    content,
    dtype_of,
    multiplicity,
    normalised,
    ordered_axes,
    parted,
    term_order,
)
from tilewright.dsl.algebra.polynomial import Polynomials
from tilewright.dsl.algebra.recognise import Recogniser
from tilewright.dsl.dtypes import DType
from tilewright.dsl.expression import Expr, cast
from tilewright.dsl.folding import evaluate
from tilewright.dsl.program import At, Cast, Const, Map, Node, Read, Reduce, Scan, Scatter, Size, topological
from tilewright.dsl.scans import is_running_sum

MOST_SPLIT = 12
MOST_EXPONENT = 8
MOST_FACTORS = 24  # a longer product becomes one factor, so that long chains take linear time
LARGEST = Fraction(2**16)  # the numbers in a product are multiplied together, which must not overflow


def collect(
    roots: Iterable[Node], given: Sequence[Node] = (), polynomials: Polynomials | None = None
) -> tuple:
    """Nodes equal to `roots`, written in terms of the `given` nodes (operands before users)."""
    collector = Collector(given, polynomials or Polynomials())
    emitter = Emitter(Recogniser(collector))
    return tuple(emitter.form(collector.form(root), root.dtype) for root in roots)


class Collector:
    """Forms of expressions over `given` nodes (operands before users)."""

    def __init__(self, given: Sequence[Node], polynomials: Polynomials):
        self.polynomials = polynomials
        self.given = dict.fromkeys(given)
        self.factors: dict[tuple, Factor] = {}
        self.memo: dict[Node, Form] = {}
        self.values: set[Node] = set()
        self.sums: dict[tuple, Factor] = {}
        self.additions: dict[frozenset[Term], tuple[Node, Term]] = {}
        self.plain = Emitter()
        for node in given:
            if node.dtype.is_float:
                self._learn(node)

    # --- what is given -------------------------------------------------------------------------------------

    def _learn(self, node: Node) -> None:
        """The form of a given node: a monomial of given nodes, itself where it is none."""
        form = self._form(node) if _is_monomial_map(node) else ()
        plain = len(form) == 1 and 1 / LARGEST <= abs(form[0].coefficient) <= LARGEST and not form[0].masks
        if isinstance(node, Const) or plain:
            self.memo[node] = form or self._form(node)
            return
        factor = self.node_factor(node)
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

    def addition(self, node: Node) -> Form:
        """The form of a given sum or difference, in terms of its operands."""
        return self._form(node)

    def node_factor(self, node: Node) -> Factor:
        return self.factor("node", node, frozenset(node.axes), node.dtype)

    def factor(self, kind: str, payload: object, axes: frozenset[str], dtype: DType) -> Factor:
        key = (kind, payload)
        found = self.factors.get(key)
        if found is None:
            found = self.factors[key] = Factor(kind, payload, axes, dtype, len(self.factors))
        return found

    # --- nodes to forms ------------------------------------------------------------------------------------

    def form(self, root: Node) -> Form:
        """The factored form of a floating-point node."""
        for node in topological([root], known=(self.memo, self.values)):
            if node.dtype.is_float:
                form = self._form(node)
                long = len(form) == 1 and len(form[0].factors) > MOST_FACTORS
                self.memo[node] = alone(self._sum_factor(form)) if long else form
            else:
                self.values.add(node)
        return self.memo[root]

    def _form(self, node: Node) -> Form:
        match node:
            case Const():
                if math.isfinite(node.value):
                    return normalised((UNIT.scaled(Fraction(node.value)),))
                return alone(self.node_factor(node))
            case Read():
                return alone(self.node_factor(node))
            case Cast():
                return self._form_of_cast(node)
            case Reduce():
                return self._form_of_reduce(node)
            case Scan():
                return self._form_of_scan(node)
            case Map():
                return self._form_of_map(node)
            case At() | Scatter():
                return self._form_of_positions(node)
        return alone(self.node_factor(node))

    def _form_of_cast(self, node: Cast) -> Form:
        if not node.arg.dtype.is_float or isinstance(node.arg, Read):
            return alone(self.node_factor(node))
        form = self.memo[node.arg]
        if not form:
            return ()
        return alone(self.factor("cast", (form, node.dtype), axes_of(form), node.dtype))

    def _form_of_positions(self, node: At | Scatter) -> Form:
        """Indexing is linear: a number leaves it, what it indexes is collected inside."""
        form = self.memo[node.arg]
        if not form:
            return ()
        coefficient = form[0].coefficient if len(form) == 1 else ONE
        inside = tuple(t.scaled(1 / coefficient) for t in form)
        factor = self.factor("indexing", (Indexing.of(node), inside), frozenset(node.axes), node.dtype)
        return tuple(t.scaled(coefficient) for t in alone(factor))

    def _form_of_scan(self, node: Scan) -> Form:
        """A scan of forms; what is constant along the axis leaves a running sum."""
        if not is_running_sum(node):
            parts = tuple((self.memo[a], a.dtype) if a.dtype.is_float else (a, None) for a in node.operands)
            return alone(self._scan_factor(node, parts))
        form = self.memo[node.operands[0]]
        if not form:
            return ()
        outside, inside = parted(frozenset((node.axis,)), self.bundled(form))
        scan = self._scan_factor(node, (((inside,), node.dtype),))
        return (outside * alone(scan)[0],)

    def _scan_factor(self, node: Scan, parts: tuple) -> Factor:
        inside = (axes_of(p) if dtype is not None else frozenset(p.axes) for p, dtype in parts)
        axes = frozenset((node.axis,)).union(*inside)
        how = (node.which, node.body, node.axis, node.reverse, node.initial)
        return self.factor("scan", (how, parts), axes, node.dtype)

    def _form_of_map(self, node: Map) -> Form:
        parts: tuple[Any, ...] = tuple(self.memo[a] if a.dtype.is_float else a for a in node.operands)
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
        if all(isinstance(p, tuple) and (not p or _is_number(p)) for p in parts):
            return self._evaluated(node, parts)
        axes = frozenset().union(*(frozenset(p.axes) if isinstance(p, Node) else axes_of(p) for p in parts))
        return alone(self.factor("map", (node.function, typed), axes, node.dtype))

    def _evaluated(self, node: Map, parts: tuple[Form, ...]) -> Form:
        """A function of numbers as a number."""
        operands = tuple(
            Const(float(p[0].coefficient) if p else 0.0, a.dtype)
            for p, a in zip(parts, node.operands, strict=True)
        )
        return self._form(evaluate(Map(node.function, operands)))

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
            return (
                Term(
                    term.coefficient ** int(exponent), frozenset((f, e * exponent) for f, e in term.factors)
                ),
            )
        return self._root(term, exponent)

    def _root(self, term: Term, exponent: Fraction) -> Form | None:
        """(Π aᵢ^eᵢ)^q where all factors but one are positive: x² under a root must stay, √x² is |x|."""
        unsure = [e for f, e in term.factors if not _is_positive(f)]
        if term.coefficient != 1 or len(unsure) > 1 or any(e.denominator == 1 and e % 2 == 0 for e in unsure):
            return None
        return (Term(ONE, frozenset((f, e * exponent) for f, e in term.factors)),)

    def _choice(self, node: Map, condition: Node, first: Form, second: Form) -> Form:
        if first == second:
            return first
        if first and second:
            return self._opaque(node, (condition, first, second))
        mask = (condition, bool(first))
        return normalised(Term(t.coefficient, t.factors, t.masks | {mask}) for t in first or second)

    def bundled(self, form: Form) -> Term:
        """A form as one term: what its terms share, times the sum of what is left.

        A given sum that shares a factor x, like x·a + x·b, is not used for a + b: that would divide by x.
        """
        if len(form) == 1:
            return form[0]
        common = content(form)
        rest = tuple(t.over(common) for t in form)
        for sign in (ONE, -ONE):
            known = self.additions.get(frozenset(t.scaled(sign) for t in rest))
            if known is not None:
                node, shared = known
                if shared.factors and not multiplicity(shared.factors, common.factors):
                    continue
                return common.scaled(sign) * shared.inverse() * self.memo[node][0]
        return common * alone(self._sum_factor(rest))[0]

    def _sum_factor(self, form: Form) -> Factor:
        axes = axes_of(form)
        ordered = tuple(sorted(form, key=term_order))
        return self.factor("sum", ordered, axes, dtype_of(form))

    # --- sums over axes ------------------------------------------------------------------------------------

    def _form_of_reduce(self, node: Reduce) -> Form:
        form = self.memo[node.arg]
        if node.combine == "sum":
            return self._summed(frozenset(node.over), form, node.dtype)
        over = tuple(a for a in node.over if any(a in t.axes for t in form))
        if over != node.over:
            return alone(self.node_factor(node))
        return alone(
            self.factor("reduce", (node.combine, frozenset(over), form), frozenset(node.axes), node.dtype)
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
        left = normalised(kept)
        if left:
            whole = self.bundled(left)
            parts = left if _all_contractions(over, left) and not _is_contraction(over, whole) else (whole,)
            done.extend(self._sum_of_term(over, part, dtype) for part in parts)
        return normalised(done)

    def _split_if_it_helps(self, over: frozenset[str], term: Term, dtype: DType) -> Form:
        """The term with a sum among its factors multiplied in, if that makes it easier to sum.

        That is: part of the result is zero, known or constant, or what was no contraction becomes several.
        """
        for factor, exponent in sorted(term.factors, key=lambda item: item[0].serial):
            if factor.kind != "sum" or exponent != 1 or not factor.axes & over:
                continue
            if len(factor.payload) > MOST_SPLIT:
                continue
            rest = term.over(Term(ONE, frozenset(((factor, ONE),))))
            parts = normalised(rest * t for t in factor.payload)
            easy = any(self._easy_sum(over, part, dtype) is not None for part in parts)
            if easy or (_all_contractions(over, parts) and not _is_contraction(over, term)):
                return tuple(p for part in parts for p in self._split_if_it_helps(over, part, dtype))
        return (term,)

    def _easy_sum(self, over: frozenset[str], term: Term, dtype: DType) -> Form | None:
        """Σ term where it is zero, known, or of something that does not vary along `over`; else None."""
        outside, inside = parted(over, term)
        here = over & inside.axes
        outside = outside * self.extents(over - here, dtype)
        if not here:
            return (outside,)
        known = self.sums.get((here, inside.factors, inside.masks))
        if known is not None:
            return (outside * alone(known)[0],)
        body = self.plain.form((inside,), dtype)
        if self.polynomials.is_zero(Reduce("sum", ordered_axes(body, here), body)):
            return ()
        return None

    def _sum_of_term(self, over: frozenset[str], term: Term, dtype: DType) -> Term:
        outside, inside = parted(over, term)
        here = over & inside.axes
        if not here:
            return outside * self.extents(over, dtype)
        axes = inside.axes - here
        factor = self.factor("reduce", ("sum", here, (inside,)), axes, dtype)
        return outside * self.extents(over - here, dtype) * alone(factor)[0]

    def extents(self, axes: frozenset[str], dtype: DType) -> Term:
        result = UNIT
        for axis in sorted(axes):
            size = cast(Expr(Size(axis)), dtype)
            result = result * alone(self.node_factor(size.node))[0]
        return result


# --- small questions ---------------------------------------------------------------------------------------


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


def _is_contraction(over: frozenset[str], term: Term) -> bool:
    """Whether a sum of the term runs over more positions than any factor has: Σ_k a[m k] · b[k n]."""
    _, inside = parted(over, term)
    axes = inside.axes
    return all(f.axes != axes for f, _ in inside.factors) and not inside.masks


def _all_contractions(over: frozenset[str], form: Form) -> bool:
    return len(form) > 1 and all(_is_contraction(over, term) for term in form)


def _is_positive(factor: Factor) -> bool:
    """Whether a factor is certainly > 0: an extent, an exponential."""
    if factor.kind != "node":
        return False
    node = factor.payload
    if isinstance(node, Cast):
        return isinstance(node.arg, Size)
    return isinstance(node, Map) and node.function == "exp"
