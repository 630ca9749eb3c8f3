"""Which sums are contractions: found by algebra, whatever the op is called.

A sum is a contraction when its argument is a product of two sides that both run along all the summed
axes, and each side has an axis of its own that the other lacks:

    Σ_k left(b, m, k) · right(b, k, n)        batch b on both, m on the left alone, n on the right alone

Anything pointwise inside a side stays there and is applied when the side is loaded.
"""

from __future__ import annotations

import functools
import math
from itertools import product

from tilewright.compiler.nest import Contraction
from tilewright.compiler.ranges import everything, range_for_any_extents
from tilewright.dsl.axes import base
from tilewright.dsl.masks import without_mask
from tilewright.dsl.program import Cast, Const, Map, Node, Read, Reduce, rewrite, topological

MAX_FACTORS = 8


def factors(node: Node, guards: frozenset[str] = frozenset()) -> list[Node]:
    """The factors of a product, left to right.

    A mask over a product, `where(c, a·b, 0)`, goes to the factors that have its axes: `a · where(c, b, 0)`,
    with those that have no others than these factors. What it hides there is 0 whatever it was; an infinity
    or NaN of another factor is seen, as 0 · NaN.
    A divisor goes to a factor that has its axes, `a · b / c` is `a · (b / c)`, or is one: `a · (1 / c)`.
    Under masks that run along the axes `guards` it goes to nothing that lacks those: they may guard against
    a division by zero.
    A product of integers that fits into its dtype and is widened then is one of widened factors.
    """
    if isinstance(node, Map) and node.function == "mul":
        return [f for operand in node.operands for f in factors(operand, guards)]
    masked = without_mask(node)
    if masked is not None:
        condition, value = masked
        axes = frozenset(condition.axes)
        parts = factors(value, guards | axes)
        if len(parts) > 1 and any(axes <= set(part.axes) for part in parts):
            return _hidden(condition, parts)
    if isinstance(node, Map) and node.function == "div" and node.dtype.is_float:
        dividend, divisor = node.operands
        return _divided(factors(dividend, guards), divisor, guards) or [node]
    if isinstance(node, Cast) and _is_exact_product(node.arg):
        return [f for operand in node.arg.args for f in factors(Cast(operand, node.dtype), guards)]
    return [node]


def _hidden(condition: Node, parts: list[Node]) -> list[Node]:
    """The factors of a product under a mask, in their order."""
    masked = [set(condition.axes) <= set(part.axes) for part in parts]
    together = [[part] for part in parts]
    for n, part in enumerate(parts):
        hosts = (h for h, other in enumerate(parts) if masked[h] and set(part.axes) <= set(other.axes))
        host = None if masked[n] else next(hosts, None)
        if host is not None:
            together[host].append(part)
            together[n] = []
    found = [(_product(group), hides) for group, hides in zip(together, masked, strict=True) if group]
    return [_where(condition, node) if hides else node for node, hides in found]


def _divided(parts: list[Node], divisor: Node, guards: frozenset[str]) -> list[Node]:
    """The factors of a quotient, none if they lack a guard. One that is computed is divided rather than an
    operand, which may be read in place.
    """
    axes = set(divisor.axes)
    having = [n for n, part in enumerate(parts) if axes <= set(part.axes)]
    guarded = [n for n in having if guards <= set(parts[n].axes)]
    if guarded:
        chosen = next((n for n in guarded if not isinstance(parts[n], Read)), guarded[0])
        return [Map("div", (part, divisor)) if n == chosen else part for n, part in enumerate(parts)]
    if having or not guards <= axes:
        return []
    return [*parts, Map("div", (Const(1, divisor.dtype), divisor))]


def _is_exact_product(node: Node) -> bool:
    """Whether a node is a product of integers that is never too large for its dtype."""
    if not isinstance(node, Map) or node.function != "mul" or not node.dtype.is_integer:
        return False
    a, b = (range_for_any_extents(operand) for operand in node.operands)
    return a.times(b).within(everything(node.dtype))


def _where(condition: Node, value: Node) -> Node:
    return Map("where", (condition, value, Const(0, value.dtype)))


def multiply(nodes: list[Node]) -> Node:
    """The product of nodes. Those under one mask are one product under it."""
    by_mask: dict[Node | None, list[Node]] = {}
    for node in nodes:
        condition, value = without_mask(node) or (None, node)
        by_mask.setdefault(condition, []).append(value)
    return _product([_under(mask, values) for mask, values in by_mask.items()])


def _under(mask: Node | None, values: list[Node]) -> Node:
    """The product of values that are all under this mask."""
    if mask is None:
        return _product(values)
    return _where(mask, values[0] if len(values) == 1 else multiply(values))


def _product(nodes: list[Node]) -> Node:
    return functools.reduce(lambda one, other: Map("mul", (one, other)), nodes)


def recognise(node: Node) -> Contraction | None:
    """The `Contraction` that a node is, or None."""
    if not isinstance(node, Reduce) or node.combine != "sum":
        return None
    parts = factors(node.arg)
    if not 2 <= len(parts) <= MAX_FACTORS:
        return None
    over = set(node.over)
    for sides in product((0, 1), repeat=len(parts) - 1):
        groups: tuple[list[Node], list[Node]] = ([parts[0]], [])
        for part, side in zip(parts[1:], sides, strict=True):
            groups[side].append(part)
        found = _two_sided(node, groups, over)
        if found:
            return found
    return None


def _two_sided(node: Reduce, groups: tuple[list[Node], list[Node]], over: set[str]) -> Contraction | None:
    if not groups[1]:
        return None
    left, right = multiply(groups[0]), multiply(groups[1])
    mine, other = set(left.axes), set(right.axes)
    if not over <= mine or not over <= other:
        return None
    kept = [a for a in node.arg.axes if a not in over]
    m = tuple(a for a in kept if a not in other)
    n = tuple(a for a in kept if a not in mine)
    if not m or not n:
        return None
    batch = tuple(a for a in kept if a in mine and a in other)
    return Contraction(node, left, right, batch, m, n, node.over)


def factorise(roots: tuple[Node, ...]) -> tuple[Node, ...]:
    """Sums of products of many factors as nested sums of two: `Σ_kl a·b·c` → `Σ_l (Σ_k a·b)·c`."""
    return rewrite(roots, _factorise)


def _separate_sums(node: Reduce) -> Node | None:
    """Σ_k (a·b - c·d) as Σ_k a·b - Σ_k c·d, where each is a contraction: a complex product has four."""
    if not isinstance(node.arg, Map) or node.arg.function not in ("add", "sub", "neg"):
        return None
    sums = []
    for term in node.arg.operands:
        if not set(node.over) <= set(term.axes):
            return None
        whole = Reduce("sum", node.over, term)
        part = whole if recognise(whole) else _separate_sums(whole)
        if part is None:
            return None
        sums.append(part)
    return Map(node.arg.function, tuple(sums))


def _factorise(node: Node) -> Node:
    if not isinstance(node, Reduce) or node.combine != "sum" or not node.dtype.is_float or recognise(node):
        return node
    separate = _separate_sums(node)
    if separate is not None:
        return separate
    parts = factors(node.arg)
    if len(parts) < 2:
        return node
    choices = []
    for axis in node.over:
        inside = [p for p in parts if axis in p.axes or _infinite_without(p, axis) or _is_unbounded(p)]
        if len(inside) == len(parts):
            continue
        remaining = {a for p in inside for a in p.axes} - {axis}
        choices.append((len(remaining), axis, inside))
    if not choices:
        return node
    _, axis, inside = min(choices, key=lambda choice: choice[0])
    outside = [p for p in parts if p not in inside]
    inner = _factorise(Reduce("sum", (axis,), multiply(inside)))
    rest = tuple(a for a in node.over if a != axis)
    whole = multiply([*outside, inner])
    return _factorise(Reduce("sum", rest, whole)) if rest else whole


def _is_unbounded(factor: Node) -> bool:
    """Whether a factor is the number ∞ or NaN: Σ x · ∞ is NaN where x has both signs, ∞ · Σ x is not."""
    return isinstance(factor, Const) and not math.isfinite(factor.value)


def _infinite_without(factor: Node, axis: str) -> bool:
    """Whether a factor holds an extreme along `axis`, infinite where that is empty; the sum is 0 there."""
    extremes = (n for n in topological([factor]) if isinstance(n, Reduce) and n.combine in ("min", "max"))
    return any(base(axis) == base(a) for extreme in extremes for a in extreme.over)
