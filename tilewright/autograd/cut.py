"""Save or compute again: a minimum cut through the forward, over bytes moved with a price for work.

Every forward value that the backward needs is either there (an operand: read it), kept (written by the
forward, read by the backward), or computed again from values that are themselves there, kept or computed
again. Each choice has a price in bytes:

    read an operand      its bytes
    keep a value         KEEPING times its bytes: it is written, held and read
    compute it again     operations / OPERATIONS_PER_BYTE; for what has a kernel of its own (a contraction, a
                         scan, a sort) also twice its bytes, since it goes through memory again

A value that runs along more axes than every operand and result is never kept: memory stays linear in theirs.
The cheapest set of choices is a minimum cut between "not computed in the backward" and "needed there":

    source ──price──▶ in(v) ──keep──▶ out(v) ──∞──▶ sink     if the backward uses v
                      out(operand of v) ──∞──▶ in(v)          computing v needs its operands

Shapes are not known when an op is derived: every axis counts as `EXTENT` long, an axis of constant extent
as that, and a window (an axis whose size is taken away from another's to give an extent) as `WINDOW`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tilewright.autograd.solving import windows
from tilewright.dsl.axes import PAIR, base
from tilewright.dsl.namesakes import Namesakes
from tilewright.dsl.program import (
    At,
    Const,
    Map,
    Node,
    Order,
    Program,
    Read,
    Reduce,
    Scan,
    Scatter,
    topological,
)
from tilewright.dsl.scalars import DEAR

EXTENT = 1024.0
WINDOW = 4.0
KEEPING = 4.25
OPERATIONS_PER_BYTE = 100.0
SOURCE, SINK = "source", "sink"


@dataclass(frozen=True)
class Marks:
    """What the user has decided: values that are kept, and values that are computed again."""

    kept: frozenset[Node] = frozenset()
    recomputed: frozenset[Node] = frozenset()


class Prices:
    """What reading, keeping and computing the values of a Program cost, in bytes.

    `beside`: cheap work on what is read anyway is free.
    """

    def __init__(self, program: Program, beside: bool = True):
        self.beside = beside
        self.extents = {e.axis: e.size for e in program.extents}
        self.windows = windows(self.extents)
        tiles = [tile.axes for tile in (*program.params, *program.results)]
        self.tiles = [set(axes) for axes in tiles]
        self.largest = max(map(self.elements, tiles), default=1.0)
        self.streamed: dict[Node, frozenset[Node]] = {}

    def elements(self, axes: Iterable[str]) -> float:
        return math.prod(self._extent(base(axis)) for axis in axes)

    def _extent(self, axis: str) -> float:
        if axis == PAIR:
            return 2.0
        size = self.extents.get(axis)
        if isinstance(size, Const):
            return max(1.0, float(size.value))
        return WINDOW if axis in self.windows else EXTENT

    def bytes(self, node: Node) -> float:
        return node.dtype.itemsize * self.elements(node.names if isinstance(node, Read) else node.axes)

    def keeping(self, node: Node, marks: Marks) -> float:
        if node in marks.kept:
            return 0.0
        if node in marks.recomputed or not self._fits(node):
            return math.inf
        return KEEPING * self.bytes(node)

    def _fits(self, node: Node) -> bool:
        """Whether some tile has all axes of the value, but for those of constant extent."""
        free = {a for a in node.axes if not isinstance(self.extents.get(base(a)), Const)}
        return any(free <= axes for axes in self.tiles) and self.elements(node.axes) <= self.largest

    def computing(self, node: Node, marks: Marks) -> float:
        if node in marks.recomputed:
            return 0.0
        match node:
            case Map():
                operations = 8 if node.function in DEAR else 0 if self._is_streamed(node) else 1
                return operations * self.elements(node.axes) / OPERATIONS_PER_BYTE
            case Reduce() if is_contraction(node):
                return self.iterations(node) / OPERATIONS_PER_BYTE + 2 * self.bytes(node)
            case Reduce():
                again = sum(self.iterations(c) for c in self.through(node.arg) if isinstance(c, Reduce))
                own = 0.0 if self._is_streamed(node.arg) else self.iterations(node)
                return (own + again) / OPERATIONS_PER_BYTE
            case Scan():
                steps = sum(isinstance(step, Map) for step in topological(node.body))
                return steps * self.elements(node.axes) / OPERATIONS_PER_BYTE + 2 * self.bytes(node)
            case Order():
                elements = self.elements(node.axes)
                return 20 * elements * math.log2(EXTENT) / OPERATIONS_PER_BYTE + 2 * self.bytes(node)
            case Scatter():
                return self.elements(node.arg.axes) / OPERATIONS_PER_BYTE + 2 * self.bytes(node)
        return 0.0 if isinstance(node, (Read, Const)) else self.elements(node.axes) / OPERATIONS_PER_BYTE

    def _is_streamed(self, node: Node) -> bool:
        """Whether cheap work on a value runs beside the reading of a tile, and costs nothing more."""
        return self.beside and any(set(node.axes) <= axes for axes in self.tiles)

    def iterations(self, node: Reduce) -> float:
        return self.elements(node.arg.axes)

    def through(self, root: Node) -> frozenset[Node]:
        """The contractions that a value is computed from without going through memory."""
        for node in topological([root], known=(self.streamed,)):
            below = frozenset().union(*(self.streamed[a] for a in node.args))
            if isinstance(node, Reduce):
                below = frozenset((node,)) if is_contraction(node) else frozenset()
            self.streamed[node] = below
        return self.streamed[root]


def kept_values(
    program: Program, gradients: Sequence[Node], marks: Marks, namesakes: Namesakes
) -> tuple[Node, ...]:
    """The forward values that the backward should read, besides operands: those at which the cut runs.

    A forward value under other names for its axes is that value.
    """
    import networkx

    prices = Prices(program)
    forward = {namesakes.form(n): n for n in program.nodes()}
    backward = {n: forward.get(namesakes.form(n)) for n in topological(gradients)}
    needed = dict.fromkeys(value for value in backward.values() if value is not None)
    asked = {backward[a] for n, value in backward.items() if value is None for a in n.args}
    asked.update(backward[root] for root in gradients)
    graph = networkx.DiGraph()
    graph.add_edge(SOURCE, SINK, price=0.0)
    for node in topological(needed):
        _add(graph, node, prices, marks)
        if node in asked:
            graph.add_edge((node, "out"), SINK)
    _, (before, _) = networkx.minimum_cut(graph, SOURCE, SINK, capacity="price")
    return tuple(n for n in needed if n.args and (n, "in") in before and (n, "out") not in before)


def _add(graph: Any, node: Node, prices: Prices, marks: Marks) -> None:
    place, value = (node, "in"), (node, "out")
    if isinstance(node, Read):
        _edge(graph, SOURCE, node.param, prices.bytes(node))
        _edge(graph, node.param, value, math.inf)
        return
    if not node.args:
        _edge(graph, SOURCE, value, 0.0)
        return
    _edge(graph, SOURCE, place, prices.computing(node, marks))
    _edge(graph, place, value, prices.keeping(node, marks))
    for operand in node.args:
        _edge(graph, (operand, "out"), place, math.inf)


def _edge(graph: Any, start: Any, end: Any, price: float) -> None:
    """An edge without a price has no limit."""
    graph.add_edge(start, end, **({} if math.isinf(price) else {"price": price}))


def is_contraction(node: Reduce) -> bool:
    """Whether a sum runs over more positions than any operand under it has: Σ_k a[m k] · b[k n]."""
    if node.combine != "sum":
        return False
    wanted = set(node.arg.axes)
    stack: list[Node] = [node.arg]
    seen: set[Node] = set()
    while stack:
        inner = stack.pop()
        if inner in seen or not wanted <= set(inner.axes):
            continue
        seen.add(inner)
        if isinstance(inner, (Read, Reduce, Scan, At)):
            return False
        stack.extend(inner.args)
    return True
