"""The combines that a `Scan` carries along its axis, and the scans that have names.

    s[t] = body(s[t - 1], x[t])        a tuple of values; s[first] = x[first]

A body is a tuple of nodes over placeholders: `left(n)` stands for value n of what came before, `right(n)` for
value n of what comes next. It must be associative, because a target may combine neighbours first:
body(body(a, b), c) = body(a, body(b, c)). Placeholders are reads of no operand and have no axes; nothing else
may stand in a body but numbers, scalar functions and conversions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from tilewright.dsl import scalars
from tilewright.dsl.dtypes import DType, int64
from tilewright.dsl.expression import Expr, cast
from tilewright.dsl.program import Const, Index, Node, Read, Scan, combine_identity, replace, topological

Body = tuple[Node, ...]
LEFT, RIGHT = "#l", "#r"


def left(position: int, dtype: DType) -> Read:
    """The placeholder of a value of the left side: what came before."""
    return Read(f"{LEFT}{position}", (), dtype)


def right(position: int, dtype: DType) -> Read:
    """The placeholder of a value of the right side: what comes next."""
    return Read(f"{RIGHT}{position}", (), dtype)


def placeholder(node: Node) -> tuple[str, int] | None:
    """The side and the position that a node stands for in a body; None if it is no placeholder."""
    if isinstance(node, Read) and node.param[:2] in (LEFT, RIGHT):
        return node.param[:2], int(node.param[2:])
    return None


def sides(body: Body) -> tuple[tuple[Read, ...], tuple[Read, ...]]:
    """The placeholders of all values of a body, left and right."""
    return (
        tuple(left(n, value.dtype) for n, value in enumerate(body)),
        tuple(right(n, value.dtype) for n, value in enumerate(body)),
    )


def combined(body: Body, before: Sequence[Node], after: Sequence[Node]) -> Body:
    """The body with nodes in the place of its placeholders."""
    lefts, rights = sides(body)
    table: dict[Node, Node] = dict(zip((*lefts, *rights), (*before, *after), strict=True))
    return tuple(replace(value, table) for value in body)


def needed(body: Body, wanted: Sequence[int], both_sides: bool = True) -> tuple[int, ...]:
    """The values of a body that the wanted ones depend on.

    A walk from position to position needs of the state what stands on the left alone (`both_sides=False`).
    """
    found = set(wanted)
    pending = list(found)
    while pending:
        for node in topological([body[pending.pop()]]):
            stands_for = placeholder(node)
            if stands_for and stands_for[1] not in found and (both_sides or stands_for[0] == LEFT):
                found.add(stands_for[1])
                pending.append(stands_for[1])
    return tuple(sorted(found))


def pruned(scan: Scan) -> Scan:
    """The scan without the values that it does not depend on."""
    return with_values(scan, needed(scan.body, [scan.which]))


def with_values(scan: Scan, kept: Sequence[int]) -> Scan:
    """The scan with some of its values alone, which must be all that it depends on."""
    if len(kept) == len(scan.body):
        return scan
    lefts, rights = sides(scan.body)
    table: dict[Node, Node] = {}
    for new, old in enumerate(kept):
        table[lefts[old]] = left(new, lefts[old].dtype)
        table[rights[old]] = right(new, rights[old].dtype)
    return Scan(
        kept.index(scan.which),
        tuple(replace(scan.body[old], table) for old in kept),
        tuple(scan.operands[old] for old in kept),
        scan.axis,
        scan.reverse,
        tuple(scan.initial[old] for old in kept) if scan.exclusive else (),
    )


# --- the scans that have names ----------------------------------------------------------------------------


@dataclass(frozen=True)
class NamedScan:
    """A combine of one value, and the number that an exclusive scan begins with."""

    combine: Callable[[Expr, Expr], Expr]
    identity: Callable[[DType], float | int | bool]


def _beats(name: str, now: Expr, before: Expr) -> Expr:
    """Whether a value replaces the extreme so far: the newer one of equals does, and so does NaN."""
    beats = now >= before if name == "cummax" else now <= before
    return beats | scalars.isnan(now) if now.dtype.is_float else beats


def _largest(before: Expr, now: Expr) -> Expr:
    if now.dtype.is_bool:
        return before | now
    return scalars.where(_beats("cummax", now, before), now, before)


def _smallest(before: Expr, now: Expr) -> Expr:
    if now.dtype.is_bool:
        return before & now
    return scalars.where(_beats("cummin", now, before), now, before)


NAMED: dict[str, NamedScan] = {
    "cumsum": NamedScan(lambda before, now: before + now, lambda dtype: 0),
    "cumprod": NamedScan(lambda before, now: before * now, lambda dtype: 1),
    "cummax": NamedScan(_largest, lambda dtype: combine_identity("max", dtype)),
    "cummin": NamedScan(_smallest, lambda dtype: combine_identity("min", dtype)),
    "logcumsumexp": NamedScan(scalars.logaddexp, lambda dtype: float("-inf")),
}


@cache
def named_body(name: str, dtype: DType) -> Body:
    return (NAMED[name].combine(Expr(left(0, dtype)), Expr(right(0, dtype))).node,)


def name_of(body: Body) -> str | None:
    """The name of a body in the language, if it has one."""
    dtype = body[0].dtype
    for name in NAMED:
        if name == "logcumsumexp" and not dtype.is_float:
            continue
        if dtype.is_bool and name in ("cumsum", "cumprod"):
            continue
        if body == named_body(name, dtype):
            return name
    return None


def is_running_sum(scan: Scan) -> bool:
    """Whether a scan is a sum from 0, so that it is linear."""
    if not scan.dtype.is_float or name_of(scan.body) != "cumsum":
        return False
    return not scan.exclusive or scan.initial[0].value == 0


def named_scan(name: str, value: Expr, axis: str, reverse: bool, exclusive: bool) -> Expr:
    """A scan of one value by its name; `axis` is one of the value's."""
    value = cast(value, value.dtype.compute)
    initial = (Const(NAMED[name].identity(value.dtype), value.dtype),) if exclusive else ()
    node = Scan(0, named_body(name, value.dtype), (value.node,), axis, reverse, initial)
    return Expr(node, value.axes)


def extreme_and_position(name: str, value: Expr, axis: str, reverse: bool) -> tuple[Expr, Expr]:
    """cummax or cummin with the position that each extreme stands at: a scan of pairs."""
    value = cast(value, int64 if value.dtype.is_bool else value.dtype.compute)
    position = Expr(Index(axis))
    dtypes = (value.dtype, position.dtype)
    before = tuple(Expr(left(n, dtype)) for n, dtype in enumerate(dtypes))
    now = tuple(Expr(right(n, dtype)) for n, dtype in enumerate(dtypes))
    beats = _beats(name, now[0], before[0])
    body = tuple(scalars.where(beats, r, l).node for l, r in zip(before, now, strict=True))
    nodes = (Scan(n, body, (value.node, position.node), axis, reverse) for n in range(2))
    extreme, where = (Expr(node, value.axes) for node in nodes)
    return extreme, where
