"""Integer expressions as Σ coefficient · term + constant: how positions are compared, shortened and walked.

A term is a node that is not itself such a sum: a position, a size, a product of two of them, a value that is
read. int64 arithmetic wraps, and sums and products by constants are exact in it, so the form is too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.dsl.dtypes import int64
from tilewright.dsl.program import Const, Index, Map, Node, topological

LARGEST = 2**62


@dataclass(frozen=True)
class Affine:
    """Σ coefficient · term + constant; no coefficient is 0."""

    terms: Mapping[Node, int]
    constant: int

    def __add__(self, other: Affine) -> Affine:
        terms = dict(self.terms)
        for node, coefficient in other.terms.items():
            total = terms.pop(node, 0) + coefficient
            if total:
                terms[node] = total
        return Affine(terms, self.constant + other.constant)

    def scaled(self, factor: int) -> Affine:
        if not factor:
            return Affine({}, 0)
        return Affine({node: c * factor for node, c in self.terms.items()}, self.constant * factor)

    def step(self, axis: str) -> int | None:
        """What one step along `axis` adds; None where that is no constant."""
        varying = [node for node in self.terms if axis in node.axes]
        if not varying:
            return 0
        if len(varying) > 1 or not isinstance(varying[0], Index):
            return None
        return self.terms[varying[0]]


def affine(root: Node) -> Affine:
    """The form of an int64 node."""
    forms: dict[Node, Affine] = {}
    for node in topological([root]):
        forms[node] = _affine(node, forms)
    return forms[root]


def _affine(node: Node, forms: Mapping[Node, Affine]) -> Affine:
    if node.dtype != int64:
        return Affine({node: 1}, 0)
    if isinstance(node, Const):
        return Affine({}, int(node.value))
    if not isinstance(node, Map):
        return Affine({node: 1}, 0)
    parts = [forms[a] for a in node.operands]
    form: Affine | None = None
    match node.function, parts:
        case "add", (a, b):
            form = a + b
        case "sub", (a, b):
            form = a + b.scaled(-1)
        case "neg", (a,):
            form = a.scaled(-1)
        case "mul", (a, b) if not a.terms:
            form = b.scaled(a.constant)
        case "mul", (a, b) if not b.terms:
            form = a.scaled(b.constant)
        case "floordiv", (a, b) if b == Affine({}, 1):
            form = a
    if form is None or any(abs(c) > LARGEST for c in (form.constant, *form.terms.values())):
        return Affine({node: 1}, 0)
    return form


def shortest(node: Node) -> Node:
    """An int64 node rebuilt from its form: h + 1 - r + r - 1 → h. Itself where it is no sum."""
    if not isinstance(node, Map) or node.function not in ("add", "sub", "neg", "mul", "floordiv"):
        return node
    return from_affine(affine(node))


def quotient(node: Node, divisor: Node) -> Node:
    """node // divisor, multiples of the divisor outside: (2·a + t + 3) // 2 → a + (t + 1) // 2 + 1."""
    whole, rest = _multiples(affine(node), divisor)
    if isinstance(divisor, Const) and not rest.terms:
        return from_affine(whole + Affine({}, rest.constant // int(divisor.value)))
    if not rest.terms and not rest.constant:
        return from_affine(whole)
    return shortest(Map("add", (from_affine(whole), Map("floordiv", (from_affine(rest), divisor)))))


def remainder(node: Node, divisor: Node) -> Node:
    """node % divisor, multiples of the divisor left out: (2·a + t + 3) % 2 → (t + 1) % 2."""
    _, rest = _multiples(affine(node), divisor)
    if isinstance(divisor, Const) and not rest.terms:
        return Const(rest.constant % int(divisor.value), int64)
    if not rest.terms and not rest.constant:
        return Const(0, int64)
    return Map("mod", (from_affine(rest), divisor))


def _multiples(form: Affine, divisor: Node) -> tuple[Affine, Affine]:
    """(whole, rest) with form = divisor · whole + rest."""
    if isinstance(divisor, Const):
        by = int(divisor.value)
        whole = {node: c // by for node, c in form.terms.items() if not c % by}
        rest = {node: c for node, c in form.terms.items() if c % by}
        return Affine(whole, form.constant // by), Affine(rest, form.constant % by)
    whole, rest, constant = Affine({}, 0), Affine({}, form.constant), 0
    for node, c in form.terms.items():
        if node is divisor:
            constant += c
        elif isinstance(node, Map) and node.function == "mul" and divisor in node.operands:
            other = node.operands[node.operands[0] is divisor]
            whole = whole + affine(other).scaled(c)
        else:
            rest = rest + Affine({node: c}, 0)
    return whole + Affine({}, constant), rest


def from_affine(form: Affine) -> Node:
    """Positive terms first, positions before all else, the constant at the end."""
    positive = [(node, c) for node, c in form.terms.items() if c > 0]
    negative = [(node, -c) for node, c in form.terms.items() if c < 0]
    total: Node | None = None
    for node, coefficient in sorted(positive, key=lambda item: not isinstance(item[0], Index)):
        part = _times(node, coefficient)
        total = part if total is None else Map("add", (total, part))
    if total is None and (form.constant > 0 or not negative):
        total = Const(form.constant, int64)
        form = Affine(form.terms, 0)
    for node, coefficient in negative:
        part = _times(node, coefficient)
        total = Map("neg", (part,)) if total is None else Map("sub", (total, part))
    assert total is not None
    if not form.constant:
        return total
    return Map("add" if form.constant > 0 else "sub", (total, Const(abs(form.constant), int64)))


def _times(node: Node, coefficient: int) -> Node:
    return node if coefficient == 1 else Map("mul", (node, Const(coefficient, int64)))
