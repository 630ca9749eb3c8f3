"""Program: an immutable, hash-consed graph of expressions over named axes.

The grammar is the whole language below the surface syntax:

    node    = Const(value)                       a number, the same at every position
            | Read(param, axes)                  an operand, its dimensions named by axes
            | Index(axis)                        the position along an axis, int64
            | Size(axis)                         the extent of an axis, int64
            | Map(function, args)                a row of the scalar table, broadcast by axis name
            | Cast(arg, dtype)
            | Reduce(combine, axes, arg)         sum, prod, max, min, any or all over named axes
    program = params, results                    a result is a node with an order for its axes

A node's meaning is a function from positions along its `axes` to a number; `reference` evaluates it. Two
nodes with equal fields are the same object, so equality is identity and common subexpressions are shared by
birth.
"""

from __future__ import annotations

import math
import struct
import threading
import weakref
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tilewright.dsl.axes import fresh, union
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
class Program:
    name: str
    params: tuple[Param, ...]
    results: tuple[Result, ...]

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
        return Program(self.name, self.params, results)


def topological(roots: Iterable[Node], known: Iterable[Container[Node]] = ()) -> tuple[Node, ...]:
    """All nodes under `roots`, operands before users, without recursion (graphs may be deep).

    Nodes in one of `known` are left out, and what only they use is not visited.
    """
    seen: dict[Node, None] = {}
    known = tuple(known)
    stack: list[tuple[Node, bool]] = [(root, False) for root in reversed(tuple(roots))]
    while stack:
        node, ready = stack.pop()
        if node in seen or any(node in table for table in known):
            continue
        if ready:
            seen[node] = None
            continue
        stack.append((node, True))
        stack.extend((arg, False) for arg in reversed(node.args) if arg not in seen)
    return tuple(seen)


def rewrite(roots: Iterable[Node], step: Callable[[Node], Node]) -> tuple[Node, ...]:
    """Rebuild a graph bottom-up, passing each rebuilt node through `step`."""
    roots = tuple(roots)
    done: dict[Node, Node] = {}
    for node in topological(roots):
        rebuilt = node.with_args(tuple(done[a] for a in node.args)) if node.args else node
        done[node] = step(rebuilt)
    return tuple(done[root] for root in roots)


def replace(root: Node, table: Mapping[Node, Node]) -> Node:
    """`root` with whole nodes replaced (the topmost match wins; replacements are not searched again)."""
    done: dict[Node, Node] = dict(table)
    for node in topological([root]):
        if node not in done:
            done[node] = node.with_args(tuple(done[a] for a in node.args)) if node.args else node
    return done[root]


def rename(root: Node, names: Mapping[str, str]) -> Node:
    """`root` with free axes renamed; axes bound by a reduction inside step aside where they would clash."""
    names = {old: new for old, new in names.items() if old != new}
    return _rename(root, names, {}) if names else root


def _rename(node: Node, names: Mapping[str, str], memo: dict[tuple, Node]) -> Node:
    relevant = {old: new for old, new in names.items() if old in node.axes}
    if not relevant:
        return node
    key = (node, tuple(sorted(relevant.items())))
    if key in memo:
        return memo[key]
    if isinstance(node, Read):
        result: Node = Read(node.param, tuple(relevant.get(a, a) for a in node.names), node.type)
    elif isinstance(node, Index):
        result = Index(relevant[node.axis])
    elif isinstance(node, Reduce):
        result = _rename_reduce(node, relevant, memo)
    else:
        result = node.with_args(tuple(_rename(a, relevant, memo) for a in node.args))
    memo[key] = result
    return result


def _rename_reduce(node: Reduce, names: Mapping[str, str], memo: dict[tuple, Node]) -> Node:
    arrivals = set(names.values())
    taken = set(node.arg.axes) | arrivals
    bound = {}
    for axis in node.over:
        if axis in arrivals:
            bound[axis] = fresh(axis, taken)
            taken.add(bound[axis])
    arg = _rename(node.arg, {**names, **bound}, memo)
    return Reduce(node.combine, tuple(bound.get(a, a) for a in node.over), arg)


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
