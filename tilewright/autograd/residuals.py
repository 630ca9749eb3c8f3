"""What a backward reads of the forward, and what it computes again.

The policy, on nominal extents (every axis `EXTENT` long, because shapes are not known when an op is
derived):

1. A result of the op is read where that makes the backward cheaper: cost = bytes of all tiles read +
   operations at `OPERATIONS_PER_BYTE`. A result narrowed to half precision pays `NARROW` times its
   bytes, so that at equal cost the value is computed again in float32.
2. A sum over an iteration space that no single operand covers (a contraction, pairwise distances) is
   saved if its axes are among a result's axes: a pre-activation is, attention's scores are not (they
   would be larger than all results).
3. Any reduction whose operand contains such a sum that is not saved is itself saved: the row statistics
   of the scores; a maximum m and a sum of exp(x - m) together as log Σ exp(x), if nothing else needs
   them.
4. All else is computed again.

A minimum cut on bytes moved (with real extents) is to take the place of 1-4: it is one function, `choose`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from dataclasses import replace as replace_field

from tilewright.dsl.program import (
    At,
    Cast,
    Map,
    Node,
    Param,
    Program,
    Read,
    Reduce,
    Result,
    replace,
    topological,
)

EXTENT = 1024.0
OPERATIONS_PER_BYTE = 100.0
NARROW = 1.05
EXPENSIVE = frozenset(
    {"exp", "log", "erf", "erfc", "tanh", "sigmoid", "pow", "sin", "cos", "lgamma", "digamma"}
)


@dataclass(frozen=True)
class Saved:
    """A forward value that the backward reads: `node` stands for the param `param` wherever it occurs."""

    param: Param
    node: Node
    narrowed: bool = False

    @property
    def stand_in(self) -> Node:
        read = Read(self.param.name, self.param.axes, self.param.dtype)
        return read if self.param.dtype == self.node.dtype else Cast(read, self.node.dtype)


Emit = Callable[[Sequence[Saved]], tuple[Node, ...]]
"""Writes the gradients in terms of these values."""


@dataclass(frozen=True)
class Choice:
    gradients: tuple[Node, ...]
    saved: tuple[Saved, ...]


def choose(program: Program, emit: Emit, name: Callable[[str], str]) -> Choice:
    """The gradients with the results and residuals that they read; `name` makes a new name for a residual."""
    readable = result_values(program)
    saved = _worthwhile(readable, emit)
    gradients = _emitted(emit, saved)
    extra = _expensive_values(program, gradients)
    if extra:
        merged = (*(n for n in extra if isinstance(n, Reduce) and is_contraction(n)), *log_sums(program))
        for values in (merged, extra):
            added = tuple(
                Saved(Param(f"#{k}", _ordered(program, n), n.dtype), n) for k, n in enumerate(values)
            )
            gradients = _emitted(emit, (*saved, *added))
            if not _expensive_values(program, gradients):
                break
        added = _used(added, gradients)
        saved = (
            *saved,
            *(replace_field(s, param=replace_field(s.param, name=name("saved_{}"))) for s in added),
        )
        gradients = _emitted(emit, saved)
    used = {n.param for n in topological(gradients) if isinstance(n, Read)}
    return Choice(gradients, tuple(s for s in saved if s.param.name in used))


def result_values(program: Program) -> tuple[Saved, ...]:
    """The floating results as values that can be read: each result's node, and what it narrows."""
    found: dict[Node, Saved] = {}
    for result in program.results:
        node = result.node
        if not result.dtype.is_float or set(result.axes) != set(node.axes) or not node.args:
            continue
        param = Param(result.name, result.axes, result.dtype)
        found.setdefault(node, Saved(param, node))
        if isinstance(node, Cast) and node.arg.dtype.is_float and node.arg.dtype.bits > node.dtype.bits:
            found.setdefault(node.arg, Saved(param, node.arg, narrowed=True))
    return tuple(found.values())


def _worthwhile(readable: tuple[Saved, ...], emit: Emit) -> tuple[Saved, ...]:
    """The readable values that lower the cost, dropped one by one."""
    gradients = _emitted(emit, readable)
    kept = _used(readable, gradients)
    best = _cost(gradients, kept)
    for candidate in kept:
        fewer = tuple(s for s in kept if s.param.name != candidate.param.name)
        if len(fewer) == len(kept):
            continue
        without = _cost(_emitted(emit, fewer), fewer)
        if without < best:
            best, kept = without, fewer
    return kept


def _emitted(emit: Emit, saved: tuple[Saved, ...]) -> tuple[Node, ...]:
    table = {s.node: s.stand_in for s in saved}
    return tuple(replace(root, table) for root in emit(saved))


def _used(saved: Iterable[Saved], gradients: Iterable[Node]) -> tuple[Saved, ...]:
    present = set(topological(gradients))
    return tuple(s for s in saved if s.stand_in in present)


def _cost(gradients: tuple[Node, ...], saved: tuple[Saved, ...]) -> float:
    """Bytes read and operations done, in bytes.

    A reduction over the results of contractions is a pass of its own over them: they are computed once
    more.
    """
    narrow = {s.param.name for s in saved if s.narrowed}
    tiles: dict[str, float] = {}
    operations = 0.0
    streamed: dict[Node, frozenset[Node]] = {}
    for node in topological(gradients):
        streamed[node] = frozenset().union(*(streamed[a] for a in node.args))
        if isinstance(node, Read):
            weight = NARROW if node.param in narrow else 1.0
            tiles[node.param] = weight * node.dtype.itemsize * EXTENT ** len(node.names)
        elif isinstance(node, Reduce):
            again = streamed[node]
            operations += _iterations(node) + sum(_iterations(c) for c in again if isinstance(c, Reduce))
            streamed[node] = frozenset((node,)) if is_contraction(node) else frozenset()
        elif isinstance(node, Map):
            operations += (8 if node.function in EXPENSIVE else 1) * EXTENT ** len(node.axes)
    return sum(tiles.values()) + operations / OPERATIONS_PER_BYTE


def _iterations(node: Reduce) -> float:
    return EXTENT ** len(node.arg.axes)


def _expensive_values(program: Program, gradients: tuple[Node, ...]) -> tuple[Node, ...]:
    """The forward reductions that the gradients compute again although reading them is cheaper."""
    forward = set(program.nodes())
    result_axes = [set(r.axes) for r in program.results]
    needed = [
        n for n in topological(gradients) if isinstance(n, Reduce) and n in forward and n.dtype.is_float
    ]
    streamed: set[Node] = set()
    found: dict[Node, None] = {}
    for node in topological(needed):
        over_streamed = any(arg in streamed for arg in node.args)
        fits = any(set(node.axes) <= axes for axes in result_axes)
        contraction = isinstance(node, Reduce) and node.combine == "sum" and is_contraction(node)
        if isinstance(node, Reduce) and fits and (contraction or over_streamed) and node in forward:
            found[node] = None
        elif contraction or over_streamed:
            streamed.add(node)
    return tuple(n for n in _outermost(gradients, found))


def _outermost(gradients: tuple[Node, ...], found: dict[Node, None]) -> Iterable[Node]:
    """Those of `found` that are still computed when the others are read."""
    reachable: set[Node] = set()
    stack = list(gradients)
    while stack:
        node = stack.pop()
        if node in reachable:
            continue
        reachable.add(node)
        if node not in found:
            stack.extend(node.args)
    return [n for n in found if n in reachable]


def log_sums(program: Program) -> tuple[Node, ...]:
    """log Σ exp(x) for every Σ exp(x - m), as log(Σ exp(x - m)) + m: one statistic in place of two."""
    found = []
    for node in program.nodes():
        if not isinstance(node, Reduce) or node.combine != "sum" or not isinstance(node.arg, Map):
            continue
        if node.arg.function != "exp":
            continue
        argument = node.arg.operands[0]
        if not isinstance(argument, Map) or argument.function != "sub":
            continue
        shift = argument.operands[1]
        if not set(shift.axes) & set(node.over):
            found.append(Map("add", (Map("log", (node,)), shift)))
    return tuple(found)


def is_contraction(node: Reduce) -> bool:
    """Whether a sum runs over more positions than any operand under it has: Σ_k a[m k] · b[k n]."""
    wanted = set(node.arg.axes)
    stack: list[Node] = [node.arg]
    seen: set[Node] = set()
    while stack:
        inner = stack.pop()
        if inner in seen or not wanted <= set(inner.axes):
            continue
        seen.add(inner)
        if isinstance(inner, (Read, Reduce, At)):
            return False
        stack.extend(inner.args)
    return True


def _ordered(program: Program, node: Node) -> tuple[str, ...]:
    """The axes of a residual in the order of a result that has them."""
    for result in program.results:
        if set(node.axes) <= set(result.axes):
            return tuple(a for a in result.axes if a in node.axes)
    return node.axes


def as_results(saved: Iterable[Saved], program: Program) -> tuple[Result, ...]:
    """The residuals among `saved` as further results of the forward."""
    present = {r.name for r in program.results}
    return tuple(Result(s.param.name, s.node, s.param.axes) for s in saved if s.param.name not in present)
