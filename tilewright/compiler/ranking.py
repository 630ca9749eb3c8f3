"""Orders by counting, for targets that have no sort of their own.

    rank(i) = how many positions j come before i         before: smaller, or equal and earlier
    order(r) = Σ_i [rank(i) = r] · i

Both are reductions, which every target has; they cost n² comparisons a row.
"""

from __future__ import annotations

import functools
from dataclasses import replace

from tilewright.compiler.nest import Plan
from tilewright.compiler.partition import partition
from tilewright.compiler.sinking import sink
from tilewright.dsl.axes import fresh
from tilewright.dsl.expression import Expr
from tilewright.dsl.program import Const, Index, Node, Order, Reduce, rewrite
from tilewright.dsl.renaming import rename
from tilewright.dsl.scalars import isnan, where
from tilewright.dsl.simplify import simplify


@functools.lru_cache(maxsize=256)
def without_orders(plan: Plan) -> Plan:
    """The plan of the same Program with every order counted; the plan itself where there is none."""
    if not any(kernel.order for kernel in plan.kernels):
        return plan
    program = plan.program
    counted = program.with_results(rewrite((r.node for r in program.results), _counted))
    return replace(partition(simplify(sink(counted))), definition=plan.definition)


def _counted(node: Node) -> Node:
    if not isinstance(node, Order):
        return node
    axis, here = node.axis, Expr(node.arg)
    other = fresh(axis, {*node.arg.axes, axis})
    there = Expr(rename(node.arg, {axis: other}))
    one, zero = (Expr(Const(n, Index(axis).dtype)) for n in (1, 0))
    rank = Reduce(
        "sum", (other,), where(_comes_before(there, here, (other, axis), node.descending), one, zero).node
    )
    found = where(Expr(rename(rank, {axis: other})) == Expr(Index(axis)), Expr(Index(other)), zero)
    return Reduce("sum", (other,), found.node)


def _comes_before(one: Expr, two: Expr, axes: tuple[str, str], descending: bool) -> Expr:
    """Whether `one` at the first axis comes before `two` at the second. NaN is larger than everything."""
    smaller = one > two if descending else one < two
    equal = one == two
    if one.dtype.is_float:
        first, second = (one, two) if descending else (two, one)
        smaller = smaller | (isnan(first) & ~isnan(second))
        equal = equal | (isnan(one) & isnan(two))
    earlier = Expr(Index(axes[0])) < Expr(Index(axes[1]))
    return smaller | (equal & earlier)
