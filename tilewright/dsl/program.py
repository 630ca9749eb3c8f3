"""Program: an immutable, hash-consed graph of expressions over named axes.

The grammar is the whole language below the surface syntax:

    node    = Const(value)                       a number, the same at every position
            | Read(param, axes)                  an operand, its dimensions named by axes
            | Index(axis)                        the position along an axis, int64
            | Size(axis)                         the extent of an axis, int64
            | Map(function, args)                a row of the scalar table, broadcast by axis name
            | Cast(arg, dtype)
            | Reduce(combine, axes, arg)         sum, prod, max, min, any or all over named axes
            | Scan(which, body, operands, axis)  values carried along an axis, combined position by position
            | At(arg, along, positions)          arg at computed positions along some of its axes, 0 outside
            | Scatter(arg, along, positions)     its transpose: arg added up at computed positions
            | Order(arg, axis)                   the positions along an axis, sorted by value
    program = params, results, extents           a result is a node with an order for its axes; the extents
                                                 of axes that no operand has are expressions of others

A node's meaning is a function from positions along its `axes` to a number; `reference` evaluates it. Two
nodes with equal fields are the same object, so equality is identity and common subexpressions are shared by
birth.
"""

from __future__ import annotations

import functools
import math
import struct
import threading
import weakref
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from dataclasses import replace as replace_fields
from typing import Any

from tilewright.dsl.axes import union
from tilewright.dsl.dtypes import DType, bool_, int64
from tilewright.dsl.scalars import SCALARS
from tilewright.errors import InternalError

COMBINES = ("sum", "prod", "max", "min", "any", "all")

_interned: weakref.WeakValueDictionary[tuple, Node] = weakref.WeakValueDictionary()
_interning = threading.RLock()


class _Interning(type):
    """Calling a node class gives the one object with these fields."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        candidate = super().__call__(*args, **kwargs)
        with _interning:
            return _interned.setdefault((cls, *candidate.key()), candidate)


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Node(metaclass=_Interning):
    axes: tuple[str, ...] = field(init=False, repr=False)
    dtype: DType = field(init=False, repr=False)

    @property
    def args(self) -> tuple[Node, ...]:
        return ()

    def key(self) -> tuple:
        raise NotImplementedError

    def with_args(self, args: tuple[Node, ...]) -> Node:
        return self

    def _derive(self, axes: tuple[str, ...], dtype: DType) -> None:
        object.__setattr__(self, "axes", axes)
        object.__setattr__(self, "dtype", dtype)


@dataclass(frozen=True, eq=False, slots=True)
class Const(Node):
    """A number. A float is kept in double precision whatever its dtype; there is one NaN."""

    value: float | int | bool
    type: DType

    def __post_init__(self) -> None:
        convert = float if self.type.is_float else bool if self.type.is_bool else int
        value = convert(self.value)
        object.__setattr__(self, "value", math.nan if value != value else value)
        self._derive((), self.type)

    def key(self) -> tuple:
        bits = struct.pack("d", self.value) if self.type.is_float else self.value
        return (bits, self.type)


@dataclass(frozen=True, eq=False, slots=True)
class Read(Node):
    param: str
    names: tuple[str, ...]
    type: DType

    def __post_init__(self) -> None:
        self._derive(union(self.names), self.type)

    def key(self) -> tuple:
        return (self.param, self.names, self.type)


@dataclass(frozen=True, eq=False, slots=True)
class Index(Node):
    axis: str

    def __post_init__(self) -> None:
        self._derive((self.axis,), int64)

    def key(self) -> tuple:
        return (self.axis,)


@dataclass(frozen=True, eq=False, slots=True)
class Size(Node):
    axis: str

    def __post_init__(self) -> None:
        self._derive((), int64)

    def key(self) -> tuple:
        return (self.axis,)


@dataclass(frozen=True, eq=False, slots=True)
class Map(Node):
    function: str
    operands: tuple[Node, ...]

    def __post_init__(self) -> None:
        row = SCALARS[self.function]
        self._derive(
            union(*(a.axes for a in self.operands)), row.result_dtype(tuple(a.dtype for a in self.operands))
        )

    @property
    def args(self) -> tuple[Node, ...]:
        return self.operands

    def key(self) -> tuple:
        return (self.function, self.operands)

    def with_args(self, args: tuple[Node, ...]) -> Node:
        return Map(self.function, args)


@dataclass(frozen=True, eq=False, slots=True)
class Cast(Node):
    arg: Node
    type: DType

    def __post_init__(self) -> None:
        self._derive(self.arg.axes, self.type)

    @property
    def args(self) -> tuple[Node, ...]:
        return (self.arg,)

    def key(self) -> tuple:
        return (self.arg, self.type)

    def with_args(self, args: tuple[Node, ...]) -> Node:
        return Cast(args[0], self.type)


@dataclass(frozen=True, eq=False, slots=True)
class Reduce(Node):
    combine: str
    over: tuple[str, ...]
    arg: Node

    def __post_init__(self) -> None:
        if not set(self.over) <= set(self.arg.axes):
            raise InternalError(f"{self.combine} over {self.over} of a node with the axes {self.arg.axes}")
        object.__setattr__(self, "over", tuple(a for a in self.arg.axes if a in self.over))
        self._derive(tuple(a for a in self.arg.axes if a not in self.over), self.arg.dtype)

    @property
    def args(self) -> tuple[Node, ...]:
        return (self.arg,)

    def key(self) -> tuple:
        return (self.combine, self.over, self.arg)

    def with_args(self, args: tuple[Node, ...]) -> Node:
        return reduced(self.combine, self.over, args[0])


@dataclass(frozen=True, eq=False, slots=True)
class Scan(Node):
    """One value of a tuple that is carried along an axis: s[t] = body(s[t - 1], x[t]), s[first] = x[first].

    `body` is the combine, associative: a node for each value, over placeholders for the values of both of its
    sides (`dsl.scans`); it is no part of the graph around the scan. `operands` are x; `which` picks the value
    of s. Scans that differ in `which` alone are computed in one walk. `reverse` walks from the last position
    to the first. With `initial` the scan is exclusive: it starts there, and what stands at a position is the
    state before it: s[first] = initial, s[t] = body(s[t - 1], x[t - 1]).
    """

    which: int
    body: tuple[Node, ...]
    operands: tuple[Node, ...]
    axis: str
    reverse: bool = False
    initial: tuple[Const, ...] = ()

    def __post_init__(self) -> None:
        axes = union(*(a.axes for a in self.operands), (self.axis,))
        self._derive(axes, self.body[self.which].dtype)

    @property
    def args(self) -> tuple[Node, ...]:
        return self.operands

    @property
    def exclusive(self) -> bool:
        return bool(self.initial)

    @property
    def loop(self) -> tuple:
        """What the scans that one walk computes have in common: everything but `which`."""
        return (self.body, self.operands, self.axis, self.reverse, self.initial)

    def key(self) -> tuple:
        return (self.which, *self.loop)

    def with_args(self, args: tuple[Node, ...]) -> Node:
        return Scan(self.which, self.body, args, self.axis, self.reverse, self.initial)

    def value(self, which: int) -> Scan:
        """The scan of another value of the same tuple."""
        return Scan(which, *self.loop)


@dataclass(frozen=True, eq=False, slots=True)
class At(Node):
    """`arg` with the coordinate along each axis of `along` replaced by a position; 0 where one is outside.

    The axes in `along` are bound: a position may run along an axis of the same name, which is another one.
    """

    along: tuple[str, ...]
    arg: Node
    positions: tuple[Node, ...]

    def __post_init__(self) -> None:
        _check_positions(self.positions, self.along)
        if not set(self.along) <= set(self.arg.axes):
            raise InternalError(f"positions along {self.along} of a node with the axes {self.arg.axes}")
        at = dict(zip(self.along, self.positions, strict=True))
        along = tuple(a for a in self.arg.axes if a in at)
        object.__setattr__(self, "along", along)
        object.__setattr__(self, "positions", tuple(at[a] for a in along))
        self._derive(union(*(at[a].axes if a in at else (a,) for a in self.arg.axes)), self.arg.dtype)

    @property
    def args(self) -> tuple[Node, ...]:
        return (self.arg, *self.positions)

    def key(self) -> tuple:
        return (self.along, self.arg, self.positions)

    def with_args(self, args: tuple[Node, ...]) -> Node:
        return indexed(args[0], dict(zip(self.along, args[1:], strict=True)))

    def inside(self) -> Node:
        """Whether every position is one that `arg` has."""
        return within(dict(zip(self.along, self.positions, strict=True)))


@dataclass(frozen=True, eq=False, slots=True)
class Scatter(Node):
    """out[a, …] = Σ of `arg` over those positions along `over` at which every position equals its a.

    The result runs along the new axes `along`, then along those of `arg` and the positions that are not
    summed. Positions outside add nothing.
    """

    along: tuple[str, ...]
    over: tuple[str, ...]
    arg: Node
    positions: tuple[Node, ...]

    def __post_init__(self) -> None:
        _check_positions(self.positions, self.along)
        axes = union(self.arg.axes, *(p.axes for p in self.positions))
        if not set(self.over) <= set(axes):
            raise InternalError(f"a scatter over {self.over} of nodes with the axes {axes}")
        kept = tuple(a for a in axes if a not in self.over)
        if set(kept) & set(self.along):
            raise InternalError(f"a scatter to {self.along}, which its operands have already: {axes}")
        object.__setattr__(self, "over", tuple(a for a in axes if a in self.over))
        self._derive((*self.along, *kept), self.arg.dtype)

    @property
    def args(self) -> tuple[Node, ...]:
        return (self.arg, *self.positions)

    def key(self) -> tuple:
        return (self.along, self.over, self.arg, self.positions)

    def with_args(self, args: tuple[Node, ...]) -> Node:
        return scattered(self.along, self.over, args[0], args[1:])


@dataclass(frozen=True, eq=False, slots=True)
class Order(Node):
    """The positions along `axis` in the order of their values, int64: at r stands where the r-th value is.

    Equal values keep their order, -0 equals +0, and NaN counts as larger than everything, so it comes last,
    or first if `descending`.
    """

    axis: str
    descending: bool
    arg: Node

    def __post_init__(self) -> None:
        if self.axis not in self.arg.axes:
            raise InternalError(f"an order along {self.axis!r} of a node with the axes {self.arg.axes}")
        self._derive(self.arg.axes, int64)

    @property
    def args(self) -> tuple[Node, ...]:
        return (self.arg,)

    def key(self) -> tuple:
        return (self.axis, self.descending, self.arg)

    def with_args(self, args: tuple[Node, ...]) -> Node:
        (arg,) = args
        return Order(self.axis, self.descending, arg) if self.axis in arg.axes else Index(self.axis)


def _check_positions(positions: tuple[Node, ...], along: tuple[str, ...]) -> None:
    if len(positions) != len(along) or len(set(along)) != len(along) or not along:
        raise InternalError(f"{len(positions)} positions along the axes {along}")
    if any(position.dtype != int64 for position in positions):
        raise InternalError(f"positions of the dtypes {[p.dtype.name for p in positions]}; they are int64")


def indexed(arg: Node, positions: Mapping[str, Node]) -> Node:
    """`arg` at `positions`, 0 outside; it may lack some of their axes, along which it is one value."""
    here = {axis: position for axis, position in positions.items() if axis in arg.axes}
    node = At(tuple(here), arg, tuple(here.values())) if here else arg
    elsewhere = {axis: position for axis, position in positions.items() if axis not in here}
    return masked(within(elsewhere), node) if elsewhere else node


def scattered(along: tuple[str, ...], over: tuple[str, ...], arg: Node, positions: tuple[Node, ...]) -> Node:
    """`Scatter`; along an axis of `over` that no operand has, the same value is added size times."""
    axes = union(arg.axes, *(p.axes for p in positions))
    here = tuple(a for a in over if a in axes)
    node: Node = Scatter(along, here, arg, positions)
    for axis in over:
        if axis not in here:
            node = _repeated("sum", node, Size(axis))
    return node


def within(positions: Mapping[str, Node]) -> Node:
    """Whether each position is one along its axis: 0 ≤ p < size."""
    conditions = []
    for axis, position in positions.items():
        conditions.append(Map("ge", (position, Const(0, int64))))
        conditions.append(Map("lt", (position, Size(axis))))
    return functools.reduce(lambda one, two: Map("and", (one, two)), conditions)


def masked(condition: Node, value: Node) -> Node:
    """`value` where the condition holds, else 0."""
    return Map("where", (condition, value, Const(0, value.dtype)))


def reduced(combine: str, over: tuple[str, ...], arg: Node) -> Node:
    """`arg` combined over `over`, of which it may lack some axes: there it is one value, taken size times.

    sum becomes arg * size and prod arg ** size; max, min, any and all become arg; an empty axis still gives
    the identity.
    """
    here = tuple(a for a in arg.axes if a in over)
    node = Reduce(combine, here, arg) if here else arg
    for axis in over:
        if axis not in here:
            node = _repeated(combine, node, Size(axis))
    return node


def _repeated(combine: str, node: Node, count: Size) -> Node:
    dtype = node.dtype
    if combine == "prod":
        return _repeated_product(node, count)
    if combine == "sum":
        times = count if dtype == int64 else Cast(count, dtype)
        finite = isinstance(node, Const) and math.isfinite(node.value)
        node = Map("mul", (node, times))
        if finite or not dtype.is_float:
            return node
    some = Map("gt", (count, Const(0, int64)))
    return Map("where", (some, node, Const(combine_identity(combine, dtype), dtype)))


def _repeated_product(node: Node, count: Size) -> Node:
    if node.dtype.is_float:
        return Map("pow", (node, Cast(count, node.dtype)))
    nothing: Node = Map("mul", (Index(count.axis), Const(0, int64)))
    if node.dtype != int64:
        nothing = Cast(nothing, node.dtype)
    return Reduce("prod", (count.axis,), Map("add", (node, nothing)))


@dataclass(frozen=True)
class Param:
    """An operand: a tile with named dimensions, or (`scalar`) a number passed by value at run time."""

    name: str
    axes: tuple[str, ...]
    dtype: DType
    scalar: bool = False


@dataclass(frozen=True)
class Result:
    """One result: a node and the order in which its axes become dimensions."""

    name: str
    node: Node
    axes: tuple[str, ...]

    @property
    def dtype(self) -> DType:
        return self.node.dtype


@dataclass(frozen=True)
class AxisExtent:
    """The extent of an axis as an int64 expression of constants and other sizes.

    Where an operand has the axis as well (the gradient of a result), both must agree.
    """

    axis: str
    size: Node


@dataclass(frozen=True)
class SecondName:
    """A value that is read along `axis` in place of `first`, so both are equally long; said at `line`."""

    axis: str
    first: str
    size: Node
    line: str | None


@dataclass(frozen=True)
class Program:
    """Operands, results, and the extents of axes that no operand has, each after those it is made of.

    `second_names` are what a call must agree with besides: what they say of extents is checked, not computed.
    """

    name: str
    params: tuple[Param, ...]
    results: tuple[Result, ...]
    extents: tuple[AxisExtent, ...] = ()
    second_names: tuple[SecondName, ...] = field(default=(), compare=False, repr=False)

    def param(self, name: str) -> Param:
        return next(p for p in self.params if p.name == name)

    @property
    def tiles(self) -> tuple[Param, ...]:
        return tuple(p for p in self.params if not p.scalar)

    @property
    def scalars(self) -> tuple[Param, ...]:
        return tuple(p for p in self.params if p.scalar)

    def nodes(self) -> tuple[Node, ...]:
        """Every node, operands before users."""
        return topological(r.node for r in self.results)

    def with_results(self, nodes: Iterable[Node]) -> Program:
        results = tuple(Result(r.name, n, r.axes) for r, n in zip(self.results, nodes, strict=True))
        return replace_fields(self, results=results)


def topological(roots: Iterable[Node], known: Iterable[Container[Node]] = ()) -> tuple[Node, ...]:
    """All nodes under `roots`, operands before users, without recursion (graphs may be deep).

    Nodes in one of `known` are left out, and what only they use is not visited.
    """
    seen: dict[Node, None] = {}
    opened: set[Node] = set()
    known = tuple(known)
    stack = list(reversed(tuple(roots)))
    while stack:
        node = stack[-1]
        if node in seen or (known and any(node in table for table in known)):
            stack.pop()
        elif node in opened or not node.args:
            seen[stack.pop()] = None
        else:
            opened.add(node)
            stack.extend(arg for arg in reversed(node.args) if arg not in seen)
    return tuple(seen)


def rewrite(roots: Iterable[Node], step: Callable[[Node], Node]) -> tuple[Node, ...]:
    """Rebuild a graph bottom-up, passing each rebuilt node through `step`."""
    roots = tuple(roots)
    done: dict[Node, Node] = {}
    for node in topological(roots):
        done[node] = step(_rebuilt(node, done))
    return tuple(done[root] for root in roots)


def _rebuilt(node: Node, done: Mapping[Node, Node]) -> Node:
    """`node` over what its operands have become; itself where they are the same, which costs no new node."""
    operands = node.args
    args = tuple(done[a] for a in operands)
    return node if args == operands else node.with_args(args)


def replace(root: Node, table: Mapping[Node, Node]) -> Node:
    """`root` with whole nodes replaced (the topmost match wins; replacements are not searched again)."""
    done: dict[Node, Node] = dict(table)
    for node in topological([root], known=[table]):
        done[node] = _rebuilt(node, done)
    return done[root]


def axes_within(roots: Iterable[Node], known: Iterable[str] = ()) -> dict[str, None]:
    """Every axis that a graph runs along, sums over, or asks the size of, and those of `known`."""
    found = dict.fromkeys(known)
    for node in topological(roots):
        found.update(dict.fromkeys(node.axes))
        if isinstance(node, Size):
            found[node.axis] = None
        elif isinstance(node, (At, Scatter)):
            found.update(dict.fromkeys(node.along))
    return found


def reads(roots: Iterable[Node]) -> Iterator[Read]:
    return (node for node in topological(roots) if isinstance(node, Read))


def combine_identity(combine: str, dtype: DType) -> float | int | bool:
    """What a reduction over no elements gives."""
    if combine in ("any", "all"):
        return combine == "all"
    if combine in ("sum", "prod"):
        return 0 if combine == "sum" else 1
    if dtype.is_float:
        return float("-inf") if combine == "max" else float("inf")
    if dtype == bool_:
        return combine == "min"
    low, high = dtype.range
    return low if combine == "max" else high
