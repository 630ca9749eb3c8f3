"""The normal form that decides whether an expression is zero for all values of its operands.

    polynomial = Σ coefficient · monomial        coefficients are exact rationals
    monomial   = Π atom ^ rational exponent
    atom       = an operand, a position, a function of polynomials, a sum of one monomial over bound axes, …

What makes two expressions one polynomial:

    x / y = x · y⁻¹            √p = p^½                        (p^½)² = p
    Σ (c · u) = c · Σ u        Σ c = size · c          Σ_i Σ_j u = Σ_ij u        Σ (u + v) = Σ u + Σ v
    exp(a - b) = exp(a) · exp(b)⁻¹                     exp(log p) = p            log(exp(u)) = u
    where(c, a, b) = b + [c] · (a - b)                 [c]² = [c]
    running sums are sums too:  cumsum(u, i) = Σ_j [j ≤ i] · u_j
    the names of summed axes do not matter; conversions between float types are exact

This is real arithmetic on finite values: infinities in a `where` make it an opaque atom. The answer
"zero" is a proof that holds for derivatives too (so stop_gradient(x) - x is not zero); "not zero" may
only mean that an identity of a function is not known here, or that the polynomial grew too large.
Expanded forms cancel badly in floating point, so nothing is ever emitted from here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from tilewright.dsl.algebra.terms import (
    HALF,
    MOST_EXPONENT,
    MOST_TERMS,
    ONE,
    UNIT,
    Atom,
    Monomial,
    Number,
    Polynomial,
    TooLarge,
    add_term,
    as_whole,
    atoms_of,
    common_monomial,
    components,
    frozen,
    has_constant,
    is_positive,
    monomial_order,
    namings,
    order,
    plus,
    scaled,
)
from tilewright.dsl.axes import base, fresh
from tilewright.dsl.program import (
    At,
    Cast,
    Const,
    Index,
    Map,
    Node,
    Read,
    Reduce,
    Scan,
    Scatter,
    Size,
    topological,
)
from tilewright.dsl.renaming import rename
from tilewright.dsl.scalars import COMMUTATIVE
from tilewright.dsl.scans import is_running_sum


class Polynomials:
    """Polynomials of the nodes of one Program; `classes` gives axes of one extent one name."""

    def __init__(self, classes: Mapping[str, str] | None = None):
        self.classes = dict(classes or {})
        self.atoms: dict[tuple, Atom] = {}
        self.memo: dict[Node, Polynomial] = {}
        self.values: dict[Node, Atom] = {}
        self.renamed: dict[tuple, Atom] = {}

    # --- questions -----------------------------------------------------------------------------------------

    def is_zero(self, node: Node) -> bool:
        """Whether `node` is 0 wherever it is defined."""
        polynomial = self.of(node)
        if not polynomial:
            return True
        try:
            return not self._without_denominators(polynomial)
        except TooLarge:
            return False

    def of(self, root: Node) -> Polynomial:
        """The polynomial of a floating-point node."""
        for node in topological([root], known=(self.memo, self.values)):
            if node.dtype.is_float:
                self.memo[node] = self._guarded(node)
            else:
                self.values[node] = self._value(node)
        return self.memo[root]

    def _guarded(self, node: Node) -> Polynomial:
        try:
            return self._polynomial(node)
        except TooLarge:
            return self._single(self._atom("opaque", node, frozenset(node.axes), 0))

    def _without_denominators(self, polynomial: Polynomial) -> Polynomial:
        """The polynomial times the powers of sums that it divides by, expanded."""
        lowest: dict[Atom, Number] = {}
        for monomial in polynomial:
            for atom, exponent in monomial:
                if atom.kind == "base":
                    lowest[atom] = min(lowest.get(atom, 0), exponent)
        cleared = {atom: -exponent for atom, exponent in lowest.items() if exponent < 0}
        if not cleared:
            return polynomial
        return self._times(polynomial, {frozenset(cleared.items()): ONE})

    # --- atoms ---------------------------------------------------------------------------------------------

    def _atom(self, kind: str, payload: Any, axes: frozenset[str], height: int) -> Atom:
        key = (kind, payload)
        found = self.atoms.get(key)
        if found is None:
            found = self.atoms[key] = Atom(kind, payload, axes, height, len(self.atoms))
        return found

    def _single(self, atom: Atom, exponent: Number = ONE) -> Polynomial:
        return {frozenset(((atom, exponent),)): ONE}

    def _axis_class(self, axis: str) -> str:
        return self.classes.get(base(axis), base(axis))

    def _function(self, name: str, args: Iterable[Any]) -> Atom:
        """An opaque function of polynomials and atoms."""
        args = tuple(args)
        if name in ("ge", "gt"):
            name, args = {"ge": "le", "gt": "lt"}[name], args[::-1]
        parts = [frozen(a) for a in args]
        if name in COMMUTATIVE:
            parts.sort(key=order)
        inside = [atom for a in args for atom in atoms_of(a)]
        axes = frozenset().union(*(atom.axes for atom in inside))
        return self._atom("function", (name, *parts), axes, max((a.height for a in inside), default=0))

    # --- nodes ---------------------------------------------------------------------------------------------

    def _value(self, node: Node) -> Atom:
        """The atom of an integer or bool node."""
        match node:
            case Const():
                return self._atom("constant", (node.value, node.dtype), frozenset(), 0)
            case Read():
                return self._atom("read", (node.param, node.names), frozenset(node.axes), 0)
            case Index():
                return self._atom("index", node.axis, frozenset(node.axes), 0)
            case Size():
                return self._atom("size", self._axis_class(node.axis), frozenset(), 0)
            case Map():
                return self._function(node.function, (self._part(a) for a in node.operands))
            case Cast():
                return self._function(f"cast {node.dtype.name}", (self._part(node.arg),))
            case Reduce():
                return self._reduction(node)
            case Scan():
                return self._scan_atom(node, tuple(frozen(self._part(a)) for a in node.operands))
        return self._atom("opaque", node, frozenset(node.axes), 0)

    def _part(self, node: Node) -> Any:
        return self.memo[node] if node.dtype.is_float else self.values[node]

    def _polynomial(self, node: Node) -> Polynomial:
        match node:
            case Const():
                return self._constant(node.value)
            case Read():
                return self._single(self._value(node))
            case Cast():
                return self._cast(node)
            case Map():
                return self._map(node)
            case Reduce():
                if node.combine == "sum":
                    return self._sum(frozenset(node.over), self.memo[node.arg])
                return self._single(self._reduction(node))
            case At() | Scatter() if not self.memo[node.arg]:
                return {}
            case Scan():
                return self._scan(node)
        return self._single(self._atom("opaque", node, frozenset(node.axes), 0))

    def _constant(self, value: float) -> Polynomial:
        if math.isfinite(value):
            return {UNIT: as_whole(Fraction(value))} if value else {}
        return self._single(self._atom("constant", str(value), frozenset(), 0))

    def _cast(self, node: Cast) -> Polynomial:
        if node.arg.dtype.is_float:
            return self.memo[node.arg]
        value = self.values[node.arg]
        if node.arg.dtype.is_bool:
            return self._single(self._mask(value))
        if value.kind == "constant":
            return self._constant(float(value.payload[0]))
        return self._single(value)

    def _map(self, node: Map) -> Polynomial:
        parts = tuple(self._part(a) for a in node.operands)
        match node.function:
            case "add":
                return plus(parts[0], parts[1])
            case "sub":
                return plus(parts[0], scaled(parts[1], -ONE))
            case "neg":
                return scaled(parts[0], -ONE)
            case "mul":
                return self._times(parts[0], parts[1])
            case "div":
                return self._times(parts[0], self._power(parts[1], -ONE))
            case "sqrt":
                return self._power(parts[0], HALF)
            case "rsqrt":
                return self._power(parts[0], -HALF)
            case "exp":
                return self._exp(parts[0])
            case "expm1":
                return plus(self._exp(parts[0]), {UNIT: -ONE})
            case "log":
                return self._log(parts[0])
            case "log1p":
                return self._log(plus(parts[0], {UNIT: ONE}))
            case "pow":
                return self._general_power(parts[0], parts[1])
            case "where":
                return self._where(*parts)
        return self._single(self._function(node.function, parts))

    # --- arithmetic ----------------------------------------------------------------------------------------

    def _times(self, left: Polynomial, right: Polynomial) -> Polynomial:
        if len(left) * len(right) > MOST_TERMS:
            raise TooLarge
        total: Polynomial = {}
        for a, p in left.items():
            for b, q in right.items():
                for monomial, coefficient in self._product(a, b).items():
                    add_term(total, monomial, p * q * coefficient)
        return total

    def _product(self, left: Monomial, right: Monomial) -> Polynomial:
        if not left or not right:
            return self._expanded(dict(left or right))
        exponents: dict[Atom, Number] = dict(left)
        for atom, exponent in right:
            total = as_whole(exponents.get(atom, 0) + exponent)
            if atom.kind == "mask":
                total = ONE
            if total:
                exponents[atom] = total
            else:
                del exponents[atom]
        return self._expanded(exponents)

    def _expanded(self, exponents: dict[Atom, Number]) -> Polynomial:
        """A product in which powers ≥ 1 of sums of terms are multiplied out."""
        result: Polynomial | None = None
        for atom in [a for a, e in exponents.items() if e >= 1 and a.kind in ("base", "number")]:
            exponent = exponents.pop(atom)
            whole = math.floor(exponent)
            if exponent != whole:
                exponents[atom] = exponent - whole
            base = {UNIT: atom.payload} if atom.kind == "number" else dict(atom.payload)
            power = self._whole_power(base, whole)
            result = power if result is None else self._times(result, power)
        rest: Polynomial = {frozenset(exponents.items()): ONE}
        return rest if result is None else self._times(result, rest)

    def _whole_power(self, polynomial: Polynomial, exponent: int) -> Polynomial:
        if exponent > MOST_EXPONENT:
            raise TooLarge
        result: Polynomial = {UNIT: ONE}
        for _ in range(exponent):
            result = self._times(result, polynomial)
        return result

    def _power(self, polynomial: Polynomial, exponent: Number) -> Polynomial:
        if exponent.denominator == 1 and exponent >= 0 and len(polynomial) != 1:
            return self._whole_power(polynomial, int(exponent))
        if not polynomial:
            return self._single(self._atom("base", frozenset(), frozenset(), 0), exponent)
        if len(polynomial) == 1:
            ((monomial, coefficient),) = polynomial.items()
            return self._monomial_power(monomial, coefficient, exponent)
        return self._base_power(polynomial, exponent)

    def _monomial_power(self, monomial: Monomial, coefficient: Number, exponent: Number) -> Polynomial:
        """(c · Π aᵢ^eᵢ)^q: by factors if q is whole or the factor is positive, else kept as one base."""
        if exponent == 0:
            return {UNIT: ONE}
        if exponent.denominator == 1:
            if abs(exponent) > MOST_EXPONENT:
                raise TooLarge
            powers = {a: ONE if a.kind == "mask" else as_whole(e * exponent) for a, e in monomial}
            if exponent < 0 and any(a.kind == "mask" for a in powers):
                return self._single(self._base({monomial: coefficient}), exponent)
            return scaled(self._expanded(powers), as_whole(Fraction(coefficient) ** int(exponent)))
        positive = {a: as_whole(e * exponent) for a, e in monomial if is_positive(a, e)}
        rest = frozenset((a, e) for a, e in monomial if not is_positive(a, e))
        sign = ONE if coefficient > 0 else -ONE
        result: Polynomial = self._number_power(abs(coefficient), exponent)
        if positive:
            result = self._times(result, self._expanded(positive))
        if not rest and sign > 0:
            return result
        return self._times(result, self._root(rest, sign, exponent))

    def _root(self, monomial: Monomial, sign: Number, exponent: Number) -> Polynomial:
        if len(monomial) == 1 and sign > 0:
            ((atom, inner),) = monomial
            if inner.denominator != 1 or inner % 2:
                return self._expanded({atom: as_whole(inner * exponent)})
        return self._single(self._base({monomial: sign}), exponent)

    def _number_power(self, number: Number, exponent: Number) -> Polynomial:
        if number == 1:
            return {UNIT: ONE}
        if exponent.denominator == 2:
            top, bottom = math.isqrt(number.numerator), math.isqrt(number.denominator)
            if top * top == number.numerator and bottom * bottom == number.denominator:
                return {UNIT: as_whole(Fraction(top, bottom) ** exponent.numerator)}
        whole = math.floor(exponent)
        atom = self._atom("number", number, frozenset(), 0)
        return {frozenset(((atom, exponent - whole),)): as_whole(Fraction(number) ** whole)}

    def _base_power(self, polynomial: Polynomial, exponent: Number) -> Polynomial:
        """(Σ tᵢ)^q with the leading coefficient and, for whole q, the common monomial taken out."""
        leading = min(polynomial, key=monomial_order)
        coefficient = polynomial[leading]
        if exponent.denominator != 1:
            coefficient = abs(coefficient)
        common = common_monomial(polynomial) if exponent.denominator == 1 else UNIT
        inverse = frozenset((a, -e) for a, e in common)
        rest: Polynomial = {}
        for monomial, c in polynomial.items():
            for m, k in self._product(monomial, inverse).items():
                add_term(rest, m, as_whole(Fraction(c * k) / coefficient))
        outside = self._monomial_power(common, coefficient, exponent)
        return self._times(outside, self._expanded({self._base(rest): exponent}))

    def _base(self, polynomial: Polynomial) -> Atom:
        inside = [atom for monomial in polynomial for atom, _ in monomial]
        axes = frozenset().union(*(a.axes for a in inside))
        return self._atom(
            "base", frozenset(polynomial.items()), axes, max((a.height for a in inside), default=0)
        )

    def _general_power(self, polynomial: Polynomial, exponent: Polynomial) -> Polynomial:
        """p ^ (c + Σ cᵢ tᵢ) = p^c · Π (p ^ tᵢ)^cᵢ"""
        result: Polynomial = {UNIT: ONE}
        for monomial, coefficient in exponent.items():
            if not monomial:
                result = self._times(result, self._power(polynomial, coefficient))
                continue
            atom = self._function("power", (polynomial, {monomial: ONE}))
            result = self._times(result, self._single(atom, coefficient))
        return result

    # --- functions -----------------------------------------------------------------------------------------

    def _exp(self, polynomial: Polynomial) -> Polynomial:
        result: Polynomial = {UNIT: ONE}
        for monomial, coefficient in polynomial.items():
            result = self._times(result, self._exp_term(monomial, coefficient))
        return result

    def _exp_term(self, monomial: Monomial, coefficient: Number) -> Polynomial:
        if len(monomial) == 1:
            ((atom, exponent),) = monomial
            if atom.kind == "log" and exponent == 1:
                return self._power(dict(atom.payload), coefficient)
        inside = [atom for atom, _ in monomial]
        axes = frozenset().union(*(a.axes for a in inside))
        atom = self._atom("exp", monomial, axes, max((a.height for a in inside), default=0))
        return self._single(atom, coefficient)

    def _log(self, polynomial: Polynomial) -> Polynomial:
        if len(polynomial) == 1:
            ((monomial, coefficient),) = polynomial.items()
            if coefficient == 1 and all(a.kind == "exp" for a, _ in monomial):
                return {a.payload: e for a, e in monomial}
        inside = [atom for monomial in polynomial for atom, _ in monomial]
        axes = frozenset().union(*(a.axes for a in inside))
        height = max((a.height for a in inside), default=0)
        return self._single(self._atom("log", frozenset(polynomial.items()), axes, height))

    def _where(self, condition: Atom, first: Polynomial, second: Polynomial) -> Polynomial:
        if any(has_constant(p) for p in (first, second)):
            return self._single(self._function("where", (condition, first, second)))
        difference = plus(first, scaled(second, -ONE))
        return plus(second, self._times(self._single(self._mask(condition)), difference))

    def _mask(self, condition: Atom) -> Atom:
        return self._atom("mask", condition, condition.axes, condition.height)

    # --- reductions ----------------------------------------------------------------------------------------

    def _reduction(self, node: Reduce) -> Atom:
        """max, min, prod, any, all, and sums of integers, as atoms with canonical bound axes."""
        body = self._part(node.arg)
        inside = list(atoms_of(body))
        height = 1 + max((a.height for a in inside), default=0)
        names = {axis: f"@{self._axis_class(axis)}.{height}.{n}" for n, axis in enumerate(sorted(node.over))}
        part = self._rename_part(frozenset(body.items()) if isinstance(body, dict) else body, names)
        axes = frozenset(node.axes)
        return self._atom("reduction", (node.combine, tuple(sorted(names.values())), part), axes, height)

    def _sum(self, over: frozenset[str], polynomial: Polynomial) -> Polynomial:
        total: Polynomial = {}
        for monomial, coefficient in polynomial.items():
            summed = self._sum_monomial(over, monomial)
            for m, c in summed.items():
                add_term(total, m, c * coefficient)
        return total

    def _sum_monomial(self, over: frozenset[str], monomial: Monomial) -> Polynomial:
        monomial, over = self._merged(monomial, over)
        result: Polynomial = {frozenset((a, e) for a, e in monomial if not a.axes & over): ONE}
        inside = [(a, e) for a, e in monomial if a.axes & over]
        for axes, factors in components(inside, over):
            if not factors:
                (axis,) = axes
                factor = self._atom("size", self._axis_class(axis), frozenset(), 0)
            else:
                factor = self._sum_atom(axes, frozenset(factors))
            result = self._times(result, self._single(factor))
        return result

    def _merged(self, monomial: Monomial, over: frozenset[str]) -> tuple[Monomial, frozenset[str]]:
        """Σ_i a_i · (Σ_j b_ij) as one sum: the inner sums of the monomial that depend on `over`, opened."""
        nested = [a for a, e in monomial if a.kind == "sum" and e == 1 and a.axes & over]
        for number, atom in enumerate(nested):
            bound, body = atom.payload
            fresh = {axis: f"{axis}~{number}" for axis in bound}
            opened = self._rename_monomial(body, fresh)
            rest = frozenset((a, e) for a, e in monomial if a is not atom)
            product = self._product(rest, opened)
            if len(product) != 1:
                raise TooLarge
            ((monomial, _),) = product.items()
            over = over | frozenset(fresh.values())
        return monomial, over

    def _sum_atom(self, axes: frozenset[str], monomial: Monomial) -> Atom:
        """Σ over `axes` of a monomial, the same atom whatever the summed axes are called."""
        height = 1 + max(a.height for a, _ in monomial)
        free = frozenset().union(*(a.axes for a, _ in monomial)) - axes
        groups: dict[str, list[str]] = {}
        for axis in sorted(axes):
            groups.setdefault(self._bound_class(axis), []).append(axis)
        best: tuple | None = None
        for names in namings(groups, height):
            body = self._rename_monomial(monomial, names)
            candidate = (monomial_order(body), tuple(sorted(names.values())), body)
            if best is None or candidate[0] < best[0]:
                best = candidate
        assert best is not None
        return self._atom("sum", (best[1], best[2]), free, height)

    def _bound_class(self, axis: str) -> str:
        return axis[1:].split(".")[0] if axis.startswith("@") else self._axis_class(axis)

    # --- scans ---------------------------------------------------------------------------------------------

    def _scan(self, node: Scan) -> Polynomial:
        """A running sum as a sum over the positions before; any other scan as one atom."""
        parts = tuple(self._part(a) for a in node.operands)
        if not is_running_sum(node):
            return self._single(self._scan_atom(node, tuple(map(frozen, parts))))
        before = fresh(node.axis, node.axes)
        places = [self._atom("index", axis, frozenset((axis,)), 0) for axis in (before, node.axis)]
        summed = self._function("lt" if node.exclusive else "le", places[::-1] if node.reverse else places)
        moved = dict(self._rename_part(frozen(parts[0]), {node.axis: before}))
        return self._sum(frozenset((before,)), self._times(moved, self._single(self._mask(summed))))

    def _scan_atom(self, node: Scan, parts: tuple) -> Atom:
        inside = [atom for part in parts for atom in atoms_of(part if isinstance(part, Atom) else dict(part))]
        axes = frozenset().union({node.axis}, *(atom.axes for atom in inside))
        payload = (node.which, node.body, node.axis, node.reverse, node.initial, parts)
        return self._atom("scan", payload, axes, max((a.height for a in inside), default=0))

    # --- renaming axes inside atoms ------------------------------------------------------------------------

    def _rename_monomial(self, monomial: Monomial, names: Mapping[str, str]) -> Monomial:
        return frozenset((self._rename_atom(a, names), e) for a, e in monomial)

    def _rename_part(self, part: Any, names: Mapping[str, str]) -> Any:
        """A frozen polynomial, an atom, a monomial, or anything without axes."""
        if isinstance(part, Atom):
            return self._rename_atom(part, names)
        if isinstance(part, frozenset):
            items = []
            for key, number in part:
                key = (
                    self._rename_atom(key, names)
                    if isinstance(key, Atom)
                    else self._rename_monomial(key, names)
                )
                items.append((key, number))
            return frozenset(items)
        return part

    def _rename_atom(self, atom: Atom, names: Mapping[str, str]) -> Atom:
        relevant = {axis: new for axis, new in names.items() if axis in atom.axes}
        if not relevant:
            return atom
        key = (atom, tuple(sorted(relevant.items())))
        found = self.renamed.get(key)
        if found is None:
            found = self.renamed[key] = self._rename_atom_now(atom, relevant)
        return found

    def _rename_atom_now(self, atom: Atom, names: Mapping[str, str]) -> Atom:
        axes = frozenset(names.get(a, a) for a in atom.axes)
        payload = atom.payload
        match atom.kind:
            case "read":
                payload = (payload[0], tuple(names.get(a, a) for a in payload[1]))
            case "index":
                payload = names[payload]
            case "opaque":
                payload = rename(payload, names)
            case "function":
                parts = [self._rename_part(p, names) for p in payload[1:]]
                if payload[0] in COMMUTATIVE:
                    parts.sort(key=order)
                payload = (payload[0], *parts)
            case "reduction":
                payload = (payload[0], payload[1], self._rename_part(payload[2], names))
            case "scan":
                payload = self._renamed_scan(atom, names)
            case "sum":
                payload = (payload[0], self._rename_monomial(payload[1], names))
            case _:
                payload = self._rename_part(payload, names)
        return self._atom(atom.kind, payload, axes, atom.height)

    def _renamed_scan(self, atom: Atom, names: Mapping[str, str]) -> tuple:
        which, body, axis, reverse, initial, parts = atom.payload
        if names.get(axis, axis) in {names.get(a, a) for a in atom.axes - {axis}}:
            raise TooLarge  # the diagonal of a scan is no scan
        parts = tuple(self._rename_part(p, names) for p in parts)
        return (which, body, names.get(axis, axis), reverse, initial, parts)
