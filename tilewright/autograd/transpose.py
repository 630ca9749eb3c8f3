"""The rules of differentiation, one node kind at a time: cotangents go back, tangents go forward.

    node                    cotangent g goes back as                     tangent t goes forward as
    f(x₀, x₁, …)            Σ over the axes xᵢ lacks of g · ∂f/∂xᵢ        Σᵢ tᵢ · ∂f/∂xᵢ
    cast(x)                 cast(g)                                      cast(t)
    sum(x, k)               g, the same at every k                       sum(t, k)
    max(x, k), min(x, k)    where(x == m, g / ties, 0)                   sum(where(x == m, t / ties, 0), k)
    prod(x, k)              g · Π over k' ≠ k of x[k']                   sum(t · Π over k' ≠ k of x[k'], k)
    x.at(h=p)               Σ over the positions where p = h of g         t.at(h=p)
    scatter_add(x, h=p)     g.at(h=p)                                    scatter_add(t, h=p)
    x["i i"]                where(index(i) == index(j), g, 0)            t["i i"]
    scans of one loop       scans of affine maps from the other end      one more value of the scan
    any, all, comparisons, integers, positions, sizes: nothing

Non-smooth points. A maximum shares its cotangent evenly among its ties; where the maximum is NaN nothing
equals it and every gradient is 0. The product's rule has no division, so it is right with zeros and
stays right when it is differentiated again; it costs n² where the product costs n. The scalar
functions' table is in `autograd.scalar`, the rules of scans are in `autograd.scans`.

A cotangent has the dtype `node.dtype.compute`: half precision is narrowed only in the results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tilewright.autograd.inversion import transposed
from tilewright.autograd.scalar import Partial, partials, scaled
from tilewright.autograd.solving import Axes
from tilewright.dsl.axes import fresh, union
from tilewright.dsl.expression import Expr, cast, constant
from tilewright.dsl.expression import reduce as reduce_
from tilewright.dsl.program import At, Cast, Index, Map, Node, Param, Read, Reduce, Scatter, Size, indexed
from tilewright.dsl.renaming import rename
from tilewright.dsl.scalars import where
from tilewright.errors import InternalError


def pull_back(node: Node, cotangent: Expr, axes: Axes) -> Iterator[tuple[Node, Expr]]:
    """The contribution of a node's cotangent to each operand; operands that get nothing are left out.

    `axes` are those that no operand has, to which solving for positions may add.
    """
    match node:
        case Map():
            yield from _pull_back_map(node, cotangent)
        case Cast():
            if node.arg.dtype.is_float:
                yield node.arg, cast(cotangent, node.arg.dtype.compute)
        case Reduce():
            back = _pull_back_reduce(node, cotangent)
            if back is not None:
                yield node.arg, back
        case At():
            yield node.arg, transposed(node, cotangent, axes)
        case Scatter():
            back = indexed(cotangent.node, dict(zip(node.along, node.positions, strict=True)))
            everywhere = union(node.over, *(p.axes for p in node.positions))
            yield node.arg, sum_over(Expr(back), tuple(a for a in everywhere if a not in node.arg.axes))


def _pull_back_map(node: Map, cotangent: Expr) -> Iterator[tuple[Node, Expr]]:
    for operand, partial in zip(node.operands, partials(node), strict=True):
        if not operand.dtype.is_float:
            continue
        back = scaled(cotangent, partial)
        if back is not None:
            back = cast(back, operand.dtype.compute)
            yield operand, sum_over(back, tuple(a for a in node.axes if a not in operand.axes))


def _pull_back_reduce(node: Reduce, cotangent: Expr) -> Expr | None:
    if node.combine == "sum":
        return cotangent
    if node.combine in ("max", "min"):
        hit = Expr(node.arg) == Expr(node)
        return where(hit, cotangent / _ties(node), 0)
    if node.combine == "prod":
        return cotangent * _product_of_others(node)
    return None


def push_forward(node: Node, tangents: Mapping[Node, Expr]) -> Expr | None:
    """The tangent of one node from those of its operands; None if it is zero."""
    match node:
        case Map():
            return _push_forward_map(node, tangents)
        case Cast():
            tangent = tangents.get(node.arg)
            return cast(tangent, node.dtype.compute) if tangent is not None and node.dtype.is_float else None
        case Reduce():
            tangent = tangents.get(node.arg)
            return None if tangent is None else _push_forward_reduce(node, tangent)
        case At() | Scatter():
            tangent = tangents.get(node.arg)
            return None if tangent is None else Expr(node.with_args((tangent.node, *node.positions)))
    return None


def _push_forward_map(node: Map, tangents: Mapping[Node, Expr]) -> Expr | None:
    if not node.dtype.is_float:
        return None
    total: Expr | None = None
    relevant = [operand in tangents for operand in node.operands]
    if not any(relevant):
        return None
    for operand, partial in zip(node.operands, partials(node), strict=True):
        term = _scaled_tangent(tangents.get(operand), partial, node)
        if term is not None:
            total = term if total is None else total + term
    return total


def _scaled_tangent(tangent: Expr | None, partial: Partial, node: Map) -> Expr | None:
    term = None if tangent is None else scaled(tangent, partial)
    return None if term is None else cast(term, node.dtype.compute)


def _push_forward_reduce(node: Reduce, tangent: Expr) -> Expr | None:
    if node.combine == "sum":
        return sum_over(tangent, node.over)
    if node.combine in ("max", "min"):
        hit = Expr(node.arg) == Expr(node)
        return sum_over(where(hit, tangent / _ties(node), 0), node.over)
    if node.combine == "prod":
        return sum_over(tangent * _product_of_others(node), node.over)
    return None


def _ties(node: Reduce) -> Expr:
    """How many positions reach the maximum (or minimum)."""
    hit = Expr(node.arg) == Expr(node)
    return reduce_("sum", where(hit, constant(1, node.dtype), constant(0, node.dtype)), node.over)


def _product_of_others(node: Reduce) -> Expr:
    """Π over k' of where(k' == k, 1, x[k']): the product without the factor at k."""
    copies = _copies(node.over, node.arg.axes)
    others = Expr(rename(node.arg, copies))
    same: Expr | None = None
    for axis, copy in copies.items():
        equal = Expr(Index(copy)) == Expr(Index(axis))
        same = equal if same is None else same & equal
    assert same is not None
    return Expr(Reduce("prod", tuple(copies.values()), where(same, 1, others).node))


def _copies(axes: tuple[str, ...], taken: tuple[str, ...]) -> dict[str, str]:
    used = set(taken)
    copies = {}
    for axis in axes:
        copies[axis] = fresh(axis, used)
        used.add(copies[axis])
    return copies


def sum_over(value: Expr, axes: tuple[str, ...]) -> Expr:
    """Σ value over `axes`; along an axis on which it does not depend, a multiplication by the extent."""
    present = tuple(a for a in axes if a in value.axes)
    total = Expr(Reduce("sum", present, value.node)) if present else value
    for axis in axes:
        if axis not in present:
            total = total * cast(Expr(Size(axis)), total.dtype)
    return total


def to_operand(read: Read, param: Param, cotangent: Expr) -> Expr:
    """The cotangent of `x["j d"]` as one of x: under the declared axes, on a diagonal where names repeat."""
    if not set(cotangent.axes) <= set(read.names):
        raise InternalError(f"the cotangent of {read!r} has the axes {cotangent.axes}")
    first: dict[str, str] = {}
    repeated: list[tuple[str, str]] = []
    for name, declared in zip(read.names, param.axes, strict=True):
        if name in first:
            repeated.append((first[name], declared))
        else:
            first[name] = declared
    result = Expr(rename(cotangent.node, first))
    for one, other in repeated:
        result = where(Expr(Index(one)) == Expr(Index(other)), result, 0)
    return result
