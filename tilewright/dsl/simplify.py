"""The tables of equations that every Program passes through, and `simplify`, which applies them.

EXACT_RULES       hold for every value: NaN, infinities, the sign of zero, integers that wrap
REASSOCIATIONS    hold for every value up to rounding, the sign of a zero, and what overflows in between
REAL_RULES        hold for real numbers only; not part of `simplify`

`simplify` runs the first two. What that changes, compared with the op as it was written:

- a sum or product of a sum or product over another axis becomes one, in one order;
- a factor that is constant along the axis of a sum is multiplied (or divided) once, after the sum. Where the
  factor is infinite, or its scaling was what kept the sum finite, the results differ; a factor that stands
  twice, as in the scaled norm `m * sqrt(sum(x / m * (x / m)))`, therefore stays;
- every axis is taken to have a position (`dsl.empty` is for calls in which one has none);
- constant factors are multiplied with each other; a small whole power becomes a product; x / sqrt(y) becomes
  x * rsqrt(y); `x + 0` becomes x, which keeps the zero's sign.

Floating-point constants are folded in double precision, as the reference computes, and rounded once when they
are used; integers are folded in their own dtype and wrap.
"""

from __future__ import annotations

import math
from collections import Counter

from tilewright.dsl import language as tw
from tilewright.dsl import scalars
from tilewright.dsl.affine import shortest
from tilewright.dsl.axes import base, fresh
from tilewright.dsl.dtypes import ALL, DType, bool_, float16, float32, float64, int8, int16, int32, int64
from tilewright.dsl.expression import Expr
from tilewright.dsl.extents import with_extents_of
from tilewright.dsl.folding import evaluate
from tilewright.dsl.program import At, Cast, Const, Index, Map, Node, Program, Reduce, Scatter, Size, indexed
from tilewright.dsl.renaming import rename
from tilewright.dsl.rules import (
    FLOATS,
    CodeRule,
    Rule,
    RuleSet,
    anything,
    boolean,
    constant_integer,
    constant_number,
    constant_real,
    integer,
    number,
    real,
    rewrite,
    typed,
)
from tilewright.dsl.scalars import SCALARS

x, y, z = number("x"), number("y"), number("z")
r, s, t = real("r"), real("s"), real("t")
n, m = integer("n"), integer("m")
g = typed("g", *FLOATS, int8, int16, int32, int64)
p, q = boolean("p"), boolean("q")
u, v, w = anything("u"), anything("v"), anything("w")
k, l = constant_number("k"), constant_number("l")
a, b = constant_integer("a"), constant_integer("b")
h, j = constant_real("h"), constant_real("j")
where, sqrt, rsqrt, exp, log = scalars.where, scalars.sqrt, scalars.rsqrt, scalars.exp, scalars.log

# Variables of reductions: those that depend on the axis "i", or on "i" and "j".
x_i, x_ij = number("x", "i"), number("x", "i j")
r_i, r_ij = real("r", "i"), real("r", "i j")
n_i, n_ij = integer("n", "i"), integer("n", "i j")
p_i, p_ij = boolean("p", "i"), boolean("p", "i j")

true, false = Expr(Const(True, bool_)), Expr(Const(False, bool_))


# --- constants and conversions, where equations do not reach --------------------------------------------


def _fold(node: Map) -> Node | None:
    if not all(isinstance(a, Const) for a in node.operands):
        return None
    return node.operands[0] if node.function == "stop_gradient" else evaluate(node)


def _fold_cast(node: Cast) -> Node | None:
    arg, target = node.arg, node.type
    if not isinstance(arg, Const):
        return None
    if target.is_float or target.is_bool:
        return Const(arg.value, target)
    low, high = target.range
    if isinstance(arg.value, float):
        nearest = 0.0 if math.isnan(arg.value) else min(max(arg.value, low), high)
        return Const(math.trunc(nearest), target)
    return Const((int(arg.value) - low) % (high - low + 1) + low, target)


def _cast_of_cast(node: Cast) -> Node | None:
    if node.type == node.arg.dtype:
        return node.arg
    if not isinstance(node.arg, Cast):
        return None
    first, between, last = node.arg.arg.dtype, node.arg.type, node.type
    if not _loses_nothing(first, between, last):
        return None
    return node.arg.arg if last == first else Cast(node.arg.arg, last)


def _loses_nothing(first: DType, between: DType, last: DType) -> bool:
    """Whether a conversion may skip `between`. By way of a float, an integer must not wrap."""
    by_way_of_float = first.is_integer and between.is_float and last.is_integer
    return holds(between, first) and (not by_way_of_float or holds(last, first))


def holds(wide: DType, narrow: DType) -> bool:
    """Whether every value of `narrow` is one of `wide`."""
    if wide == narrow or narrow.is_bool:
        return True
    if wide.is_bool or (narrow.is_float and not wide.is_float):
        return False
    if wide.is_float:
        if narrow.is_float:
            return wide.bits > narrow.bits
        low, high = narrow.range
        return max(-low, high) <= 2**wide.significant_bits
    return wide.range[0] <= narrow.range[0] and wide.range[1] >= narrow.range[1]


def _cast_into_choice(node: Cast) -> Node | None:
    choice = node.arg
    if not isinstance(choice, Map) or choice.function != "where":
        return None
    condition, *branches = choice.operands
    folded = [_fold_cast(Cast(branch, node.type)) for branch in branches]
    if any(branch is None for branch in folded):
        return None
    return Map("where", (condition, *(branch for branch in folded if branch is not None)))


def _truth_of_cast(node: Map) -> Node | None:
    """A bool that became a number and is asked whether it is 0."""
    number, zero = node.operands
    if not isinstance(zero, Const) or zero.value != 0 or not isinstance(number, Cast):
        return None
    if number.arg.dtype != bool_:
        return None
    return number.arg if node.function in ("ne", "gt") else Map("not", (number.arg,))


def _conversions_that_undo() -> list[Expr]:
    lasts = (float64, float32, int64, int32)
    steps = [(a, b, c) for a in ALL for b in ALL for c in (*lasts, a) if a != b and _loses_nothing(a, b, c)]
    return [Expr(Cast(Cast(typed("x", a).node, b), c)) for a, b, c in steps]


def _questions_whether_0() -> list[Expr]:
    asked = (scalars.ne, scalars.gt, scalars.eq, scalars.le)
    return [ask(Expr(Cast(p.node, d)), Expr(Const(0, d))) for d in (float32, int64) for ask in asked]


CONSTANTS = (
    CodeRule(
        "functions of numbers",
        tuple(SCALARS),
        _fold,
        examples=lambda: (k + l, k * l, -k, where(true, k, l), k < l, exp(h)),
    ),
    CodeRule(
        "numbers are converted",
        ("cast",),
        _fold_cast,
        examples=lambda: (Expr(Cast(l.node, d)) for d in (float16, float64, int32, int8)),
    ),
    CodeRule("a conversion that loses nothing is undone", ("cast",), _cast_of_cast, _conversions_that_undo),
    CodeRule(
        "a choice of numbers is converted",
        ("cast",),
        _cast_into_choice,
        examples=lambda: (Expr(Cast(where(p, k, l).node, d)) for d in (float64, int64)),
    ),
    CodeRule("whether a bool is 0", ("ne", "gt", "eq", "le"), _truth_of_cast, _questions_whether_0),
)

# --- exact ----------------------------------------------------------------------------------------------

ARITHMETIC = (
    Rule("x - 0", x - 0, x),
    Rule("x + -0", r + -0.0, r),
    Rule("n + 0", n + 0, n),
    Rule("0 - n", 0 - n, -n),
    Rule("-0 - x", -0.0 - r, -r),
    Rule("n - n", n - n, 0),
    Rule("x * 1", x * 1, x),
    Rule("x * -1", r * -1, -r),
    Rule("n * 0", n * 0, 0),
    Rule("x / 1", r / 1, r),
    Rule("x / -1", r / -1, -r),
    Rule("n // 1", n // 1, n),
    Rule("0 // n", 0 // n, 0),
    Rule("n % 1", n % 1, 0),
    Rule("0 % n", 0 % n, 0),
    Rule("minus minus", scalars.neg(-x), x),
    Rule("minus into a constant factor", -(x * k), x * -k),
    Rule("minus out of a factor with a constant", -x * k, x * -k),
    Rule("minus out of a product", -x * y, -(x * y)),
    Rule("minus out of a numerator", -r / s, -(r / s)),
    Rule("minus out of a denominator", r / -s, -(r / s)),
    Rule("plus minus", x + -y, x - y),
    Rule("minus minus y", x - -y, x + y),
    Rule("(n + a) + b", (n + a) + b, n + (a + b)),
    Rule("(n - a) + b", (n - a) + b, n + (b - a)),
    Rule("(n + a) - b", (n + a) - b, n + (a - b)),
    Rule("(n * a) * b", (n * a) * b, n * (a * b)),
    Rule("abs of abs", abs(abs(x)), abs(x)),
    Rule("abs of minus", abs(-g), abs(g)),
    Rule("abs squared", abs(x) * abs(x), x * x),
    Rule("min with itself", tw.minimum(x, x), x),
    Rule("max with itself", tw.maximum(x, x), x),
    Rule("min with infinity", tw.minimum(r, math.inf), r),
    Rule("max with -infinity", tw.maximum(r, -math.inf), r),
    Rule(
        "min with two constants",
        tw.minimum(tw.minimum(x, k), l),
        tw.minimum(x, tw.minimum(k, l)),
        when=lambda k, l: k != l,
    ),
    Rule(
        "max with two constants",
        tw.maximum(tw.maximum(x, k), l),
        tw.maximum(x, tw.maximum(k, l)),
        when=lambda k, l: k != l,
    ),
    Rule("x ** 0", scalars.power(r, 0.0), 1),
    Rule("x ** 1", scalars.power(r, 1.0), r),
    Rule("x ** 2", scalars.power(r, 2.0), r * r),
    Rule("x ** -1", scalars.power(r, -1.0), 1 / r),
    Rule("1 ** x", scalars.power(1.0, r), 1),
    Rule("1 / sqrt", 1 / sqrt(r), rsqrt(r)),
    Rule("computed again", scalars.recomputed(u), u),
    Rule("kept", scalars.kept(u), u),
    Rule("stop of stop", tw.stop_gradient(tw.stop_gradient(u)), tw.stop_gradient(u)),
    *(
        Rule(f"{outer.name} of {inner.name}", outer(inner(r)), inner(r))
        for outer in (tw.floor, tw.ceil, tw.round, tw.trunc)
        for inner in (tw.floor, tw.ceil, tw.round, tw.trunc)
    ),
    *(
        Rule(f"{test.name} of {same}", test(value), test(r))
        for test in (tw.isnan, tw.isinf, tw.isfinite)
        for same, value in (("minus", -r), ("abs", abs(r)))
    ),
)

LOGIC = (
    Rule("not not", ~~p, p),
    Rule("not not n", ~~n, n),
    Rule("not equal", ~(u == v), u != v),
    Rule("not unequal", ~(u != v), u == v),
    Rule("not less", ~(n < m), n >= m),
    Rule("not greater", ~(n > m), n <= m),
    Rule("not at most", ~(n <= m), n > m),
    Rule("not at least", ~(n >= m), n < m),
    Rule("number < x", k < x, x > k),
    Rule("number > x", k > x, x < k),
    Rule("number <= x", k <= x, x >= k),
    Rule("number >= x", k >= x, x <= k),
    Rule("n equals itself", n == n, True),
    Rule("n differs from itself", n != n, False),
    Rule("x equals itself", r == r, ~tw.isnan(r)),
    Rule("x differs from itself", r != r, tw.isnan(r)),
    Rule("x less than itself", x < x, False),
    Rule("x greater than itself", x > x, False),
    Rule("n at most itself", n <= n, True),
    Rule("n at least itself", n >= n, True),
    Rule("p is true", p == true, p),
    Rule("p is false", p == false, ~p),
    Rule("p is not true", p != true, ~p),
    Rule("p is not false", p != false, p),
    Rule("p and true", p & true, p),
    Rule("p and false", p & false, False),
    Rule("p or true", p | true, True),
    Rule("p or false", p | false, p),
    Rule("p xor true", p ^ true, ~p),
    Rule("p xor false", p ^ false, p),
    Rule("p and p", p & p, p),
    Rule("p or p", p | p, p),
    Rule("p xor p", p ^ p, False),
    Rule("p and not p", p & ~p, False),
    Rule("p or not p", p | ~p, True),
    Rule("p and (p and q)", p & (p & q), p & q),
    Rule("p or (p or q)", p | (p | q), p | q),
    Rule("n & n", n & n, n),
    Rule("n | n", n | n, n),
    Rule("n ^ n", n ^ n, 0),
    Rule("n & 0", n & 0, 0),
    Rule("n | 0", n | 0, n),
    Rule("n ^ 0", n ^ 0, n),
    Rule("n << 0", n << 0, n),
    Rule("n >> 0", n >> 0, n),
    Rule("a position is not negative", tw.index("i") >= 0, True),
    Rule("a position is never negative", tw.index("i") < 0, False),
    Rule("a position is below the size", tw.index("i") < tw.size("i"), True),
    Rule("a position is not past the size", tw.index("i") >= tw.size("i"), False),
    Rule("a size is not negative", tw.size("i") >= 0, True),
    Rule("a size is never negative", tw.size("i") < 0, False),
)

CHOICES = (
    Rule("either way", where(p, u, u), u),
    Rule("where true", where(true, u, v), u),
    Rule("where false", where(false, u, v), v),
    Rule("where not", where(~p, u, v), where(p, v, u)),
    Rule("where true else false", where(p, true, false), p),
    Rule("where false else true", where(p, false, true), ~p),
    Rule("where q else false", where(p, q, false), p & q),
    Rule("where true else q", where(p, true, q), p | q),
    Rule("known to be true", where(p, where(p, u, v), w), where(p, u, w)),
    Rule("known to be false", where(p, u, where(p, v, w)), where(p, u, w)),
)

REDUCTIONS = (
    Rule("max of max", tw.max(tw.max(x_ij, "i"), "j"), tw.max(x_ij, "i j")),
    Rule("min of min", tw.min(tw.min(x_ij, "i"), "j"), tw.min(x_ij, "i j")),
    Rule("any of any", tw.any(tw.any(p_ij, "i"), "j"), tw.any(p_ij, "i j")),
    Rule("all of all", tw.all(tw.all(p_ij, "i"), "j"), tw.all(p_ij, "i j")),
    Rule("sum of sum, integers", tw.sum(tw.sum(n_ij, "i"), "j"), tw.sum(n_ij, "i j")),
    Rule("prod of prod, integers", tw.prod(tw.prod(n_ij, "i"), "j"), tw.prod(n_ij, "i j")),
    Rule("sum of n * m", tw.sum(n_i * m, "i"), m * tw.sum(n_i, "i")),
    Rule("sum of -n", tw.sum(-n_i, "i"), -tw.sum(n_i, "i")),
    Rule("sum of where(p, x, 0)", tw.sum(where(p, x_i, 0), "i"), where(p, tw.sum(x_i, "i"), 0)),
    Rule("sum of where(p, 0, x)", tw.sum(where(p, 0, x_i), "i"), where(p, 0, tw.sum(x_i, "i"))),
    Rule(
        "max of where(p, x, -inf)",
        tw.max(where(p, r_i, -math.inf), "i"),
        where(p, tw.max(r_i, "i"), -math.inf),
    ),
    Rule(
        "min of where(p, x, inf)",
        tw.min(where(p, r_i, math.inf), "i"),
        where(p, tw.min(r_i, "i"), math.inf),
    ),
    Rule("any of p and q", tw.any(p_i & q, "i"), q & tw.any(p_i, "i")),
    Rule("all of p or q", tw.all(p_i | q, "i"), q | tw.all(p_i, "i")),
)


def _short_positions(node: At | Scatter) -> Node | None:
    """h + 1 - r + r - 1 → h"""
    positions = tuple(shortest(p) for p in node.positions)
    return None if positions == node.positions else node.with_args((node.arg, *positions))


def _position_itself(node: At) -> Node | None:
    """x.at(h=index(h)) → x, and x["h"].at(h=index(i)) → x["i"] where i is a copy of h."""
    for axis, position in zip(node.along, node.positions, strict=True):
        if isinstance(position, Index) and base(position.axis) == base(axis):
            rest = {a: p for a, p in zip(node.along, node.positions, strict=True) if a != axis}
            clear = {a: fresh(a, (*node.arg.axes, *node.axes)) for a in rest if a in node.axes}
            arg = rename(node.arg, clear)
            arg = rename(arg, {axis: position.axis})
            return indexed(arg, {clear.get(a, a): p for a, p in rest.items()}) if rest else arg
    return None


i_x = tw.index("i")
c = typed("c", int64)
INDEXING = (
    CodeRule(
        "positions are short",
        ("at", "scatter"),
        _short_positions,
        examples=lambda: (Expr(indexed(x_i.node, {"i": (i_x + 1 - c + c).node})),),
    ),
    CodeRule(
        "a position that is its own",
        ("at",),
        _position_itself,
        examples=lambda: (Expr(indexed(x_i.node, {"i": i_x.node})),),
    ),
)

EXACT_RULES = (*CONSTANTS, *ARITHMETIC, *LOGIC, *CHOICES, *REDUCTIONS, *INDEXING)

# --- up to rounding -------------------------------------------------------------------------------------


def _ordinary(value: float) -> bool:
    """Whether a folded factor is one that float32 holds to full precision."""
    return 1e-30 < abs(value) < 1e30


def _factors_leave_a_sum(node: Reduce) -> Node | None:
    """sum(x * c / d, i) → c * sum(x, i) / d for all factors that are constant along the axes of the sum.

    Not for numbers that are infinite, NaN or zero: Σ x · ∞ is NaN where x has both signs, ∞ · Σ x is not.
    """
    if not node.dtype.is_float:
        return None
    above, below = _factors(node.arg)
    stays_above = [f for f in above if set(f.axes) & set(node.over)]
    leaves_above = [f for f in above if f not in stays_above]
    stays_below = [f for f in below if set(f.axes) & set(node.over)]
    leaves_below = [f for f in below if f not in stays_below]
    if any(isinstance(f, Const) and not _ordinary(f.value) for f in (*leaves_above, *leaves_below)):
        return None
    leaving = Counter(f for f in (*leaves_above, *leaves_below) if not isinstance(f, (Const, Size)))
    if not stays_above or not (leaves_above or leaves_below) or any(count > 1 for count in leaving.values()):
        return None
    total: Node = Reduce("sum", node.over, _quotient(stays_above, stays_below))
    return _quotient([*leaves_above, total], leaves_below)


def _factors(node: Node) -> tuple[list[Node], list[Node]]:
    """The factors of a product, and those of its denominators, in order."""
    above: list[Node] = []
    below: list[Node] = []
    stack = [node]
    while stack:
        part = stack.pop()
        if isinstance(part, Map) and part.function == "mul":
            stack.extend(reversed(part.operands))
        elif isinstance(part, Map) and part.function == "div":
            stack.append(part.operands[0])
            below.append(part.operands[1])
        else:
            above.append(part)
    return above, below[::-1]


def _quotient(above: list[Node], below: list[Node]) -> Node:
    result = above[0]
    for factor in above[1:]:
        result = Map("mul", (result, factor))
    for factor in below:
        result = Map("div", (result, factor))
    return result


REASSOCIATIONS = (
    Rule("x + 0", r + 0, r),
    Rule("(x * h) * j", (r * h) * j, r * (h * j), when=lambda h, j: _ordinary(h * j)),
    Rule("(x / h) * j", (r / h) * j, r * (j / h), when=lambda h, j: h and _ordinary(j / h)),
    Rule("(x * h) / j", (r * h) / j, r * (h / j), when=lambda h, j: j and _ordinary(h / j)),
    Rule("(x / h) / j", (r / h) / j, r / (h * j), when=lambda h, j: _ordinary(h * j)),
    Rule("x ** 3", scalars.power(r, 3.0), r * r * r),
    Rule("x ** 4", scalars.power(r, 4.0), (r * r) * (r * r)),
    Rule("1 / rsqrt", 1 / rsqrt(r), sqrt(r)),
    Rule("x / sqrt", r / sqrt(s), r * rsqrt(s)),
    Rule("sum of sum", tw.sum(tw.sum(r_ij, "i"), "j"), tw.sum(r_ij, "i j")),
    Rule("prod of prod", tw.prod(tw.prod(r_ij, "i"), "j"), tw.prod(r_ij, "i j")),
    Rule("sum of -x", tw.sum(-r_i, "i"), -tw.sum(r_i, "i")),
    CodeRule(
        "constant factors leave a sum",
        ("sum[]",),
        _factors_leave_a_sum,
        examples=lambda: (
            tw.sum(r_i * s, "i"),
            tw.sum(r_i / s, "i"),
            tw.sum(r_i / s * real("t", "i"), "i"),
            tw.sum(t * (r_i * real("u", "i")) * s, "i"),
        ),
    ),
)

# --- real numbers only ----------------------------------------------------------------------------------

REAL_RULES = (
    Rule("x - x", r - r, 0),
    Rule("x / x", r / r, 1),
    Rule("x * 0", r * 0, 0),
    Rule("0 - x", 0 - r, -r),
    Rule("-(x - y)", -(r - s), s - r),
    Rule("1 / (1 / x)", 1 / (1 / r), r),
    Rule("x / (1 / y)", r / (1 / s), r * s),
    Rule("(x * y) / y", (r * s) / s, r),
    Rule("(x / y) * y", (r / s) * s, r),
    Rule("(x + h) + j", (r + h) + j, r + (h + j)),
    Rule("exp of log", exp(log(r)), r),
    Rule("log of exp", log(exp(r)), r),
    Rule("exp * exp", exp(r) * exp(s), exp(r + s)),
    Rule("exp / exp", exp(r) / exp(s), exp(r - s)),
    Rule("1 / exp", 1 / exp(r), exp(-r)),
    Rule("sqrt * sqrt", sqrt(r) * sqrt(r), r),
    Rule("rsqrt * rsqrt", rsqrt(r) * rsqrt(r), 1 / r),
    Rule("x * rsqrt", r * rsqrt(r), sqrt(r)),
)

SIMPLIFY = RuleSet(EXACT_RULES, REASSOCIATIONS)


def simplify(program: Program, rules: RuleSet = SIMPLIFY) -> Program:
    """The program after all rules, applied until none applies any more."""
    simple = program.with_results(rewrite((result.node for result in program.results), rules))
    return with_extents_of(program, simple)
