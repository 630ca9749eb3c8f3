"""Polynomials as plain dictionaries: what they are made of, and their arithmetic that knows no nodes.

{monomial: coefficient}        a monomial is a set of (atom, exponent), each atom once
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

Number = int | Fraction  # whole numbers are int, which is much faster
ONE = 1
HALF = Fraction(1, 2)
MOST_TERMS = 96
MOST_EXPONENT = 16


class Atom:
    """An indivisible factor. Atoms are interned, so equality is identity; `serial` is a fixed order."""

    __slots__ = ("axes", "height", "kind", "payload", "serial")

    def __init__(self, kind: str, payload: Any, axes: frozenset[str], height: int, serial: int):
        self.kind = kind
        self.payload = payload
        self.axes = axes
        self.height = height
        self.serial = serial


Monomial = frozenset  # of (Atom, Number)
Polynomial = dict  # Monomial → Number, never 0
UNIT: Monomial = frozenset()
POSITIVE = frozenset({"exp", "size", "number"})


class TooLarge(Exception):
    """The expansion has too many terms to be worth it."""


def frozen(part: Any) -> Any:
    """A polynomial that can be part of a key; an atom is one already."""
    return frozenset(part.items()) if isinstance(part, dict) else part


def as_whole(number: Number) -> Number:
    return number.numerator if number.__class__ is Fraction and number.denominator == 1 else number


def add_term(total: Polynomial, monomial: Monomial, coefficient: Number) -> None:
    value = as_whole(total.get(monomial, 0) + coefficient)
    if value:
        total[monomial] = value
    else:
        total.pop(monomial, None)
    if len(total) > MOST_TERMS:
        raise TooLarge


def plus(left: Polynomial, right: Polynomial) -> Polynomial:
    total = dict(left)
    for monomial, coefficient in right.items():
        add_term(total, monomial, coefficient)
    return total


def scaled(polynomial: Polynomial, factor: Number) -> Polynomial:
    return {monomial: coefficient * factor for monomial, coefficient in polynomial.items()}


def common_monomial(polynomial: Polynomial) -> Monomial:
    """The monomial that divides every term: for each atom in all of them, the exponent nearest to 0."""
    first, *others = polynomial
    exponents: dict[Atom, Number] = {a: e for a, e in first if a.kind != "mask"}
    for monomial in others:
        present = dict(monomial)
        exponents = {a: nearest(e, present[a]) for a, e in exponents.items() if a in present}
    return frozenset((a, e) for a, e in exponents.items() if e)


def nearest(one: Number, other: Number) -> Number:
    """The exponent nearer to 0 if both have one sign, else 0."""
    if (one > 0) != (other > 0):
        return 0
    return min(one, other, key=abs)


def is_positive(atom: Atom, exponent: Number) -> bool:
    return atom.kind in POSITIVE or exponent.denominator % 2 == 0


def has_constant(polynomial: Polynomial) -> bool:
    return any(atom.kind == "constant" for monomial in polynomial for atom, _ in monomial)


def atoms_of(part: Any) -> Iterable[Atom]:
    if isinstance(part, Atom):
        return (part,)
    return (atom for monomial in part for atom, _ in monomial)


def order(part: Any) -> tuple:
    if isinstance(part, Atom):
        return (0, part.serial)
    return (1, *sorted((monomial_order(m), c) for m, c in part))


def monomial_order(monomial: Monomial) -> tuple:
    return tuple(sorted((a.serial, e) for a, e in monomial))


def components(
    factors: list[tuple[Atom, Number]], over: frozenset[str]
) -> Iterable[tuple[frozenset[str], list[tuple[Atom, Number]]]]:
    """Factors grouped so that no two groups share a summed axis: Σ_ij a_i b_j = Σ_i a_i · Σ_j b_j."""
    groups: list[tuple[frozenset[str], list]] = [(frozenset((axis,)), []) for axis in sorted(over)]
    for factor in factors:
        touched = [g for g in groups if g[0] & factor[0].axes]
        axes = frozenset().union(*(g[0] for g in touched))
        groups = [g for g in groups if g not in touched]
        groups.append((axes, [f for g in touched for f in g[1]] + [factor]))
    return groups


def namings(groups: Mapping[str, list[str]], height: int) -> Iterable[dict[str, str]]:
    """The ways to give the bound axes canonical names; axes of one extent are interchangeable."""
    orders = []
    for axes in groups.values():
        permutations = itertools.permutations(axes) if len(axes) <= 3 else iter((tuple(axes),))
        orders.append(list(permutations))
    for choice in itertools.product(*orders):
        yield {
            axis: f"@{name}.{height}.{n}"
            for name, axes in zip(groups, choice, strict=True)
            for n, axis in enumerate(axes)
        }
