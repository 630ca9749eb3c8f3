"""What a backward reads of the forward, and what it computes again.

1. A result of the op is read where that makes the backward cheaper. A result narrowed to half precision
   pays `NARROW` times its bytes, so that at equal cost the value is computed again in float32.
2. Of all other forward values, those at which the minimum cut runs (`autograd.cut`) are added to the
   forward's results. A maximum m and a sum of exp(x - m) are kept together as log Σ exp(x), if nothing else
   needs them.
3. All else is computed again.
4. Except that one function that jumps never sees two versions of a value, one read and one computed again
   (`dsl.jumps`): then what would be read is computed again as well.

`tw.checkpoint` overrides 1 and 2: a marked value is never kept, or (`keep=True`) always.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replace_field

from tilewright.autograd.cut import Marks, Prices, is_contraction, kept_values
from tilewright.dsl.jumps import depends_on_order, jumps
from tilewright.dsl.program import (
    Cast,
    Map,
    Node,
    Param,
    Program,
    Read,
    Reduce,
    Result,
    replace,
    rewrite,
    topological,
)

NARROW = 1.05


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

    def renamed(self, name: str) -> Saved:
        return replace_field(self, param=replace_field(self.param, name=name))


Emit = Callable[[Sequence[Saved]], tuple[Node, ...]]
"""Writes the gradients in terms of these values."""


@dataclass(frozen=True)
class Choice:
    gradients: tuple[Node, ...]
    saved: tuple[Saved, ...]


def without_marks(program: Program) -> tuple[Program, Marks]:
    """The Program without `tw.checkpoint`, and what that said about its values."""
    names = {"kept", "recomputed"}
    if not any(isinstance(n, Map) and n.function in names for n in program.nodes()):
        return program, Marks()
    found: dict[str, list[Node]] = {name: [] for name in names}

    def step(node: Node) -> Node:
        if not isinstance(node, Map) or node.function not in names:
            return node
        found[node.function].append(node.operands[0])
        return node.operands[0]

    plain = program.with_results(rewrite((r.node for r in program.results), step))
    return plain, Marks(frozenset(found["kept"]), frozenset(found["recomputed"]))


def choose(program: Program, emit: Emit, name: Callable[[str], str], marks: Marks) -> Choice:
    """The gradients with the results and residuals that they read; `name` makes a new name for a residual."""
    while True:
        saved = _chosen(program, emit, marks)
        torn = _torn(emit(saved), saved)
        if not torn:
            break
        marks = Marks(marks.kept - torn, marks.recomputed | torn)
    given = {r.name for r in program.results}
    saved = tuple(s if s.param.name in given else s.renamed(name("saved_{}")) for s in saved)
    return Choice(_emitted(emit, saved), saved)


def _chosen(program: Program, emit: Emit, marks: Marks) -> tuple[Saved, ...]:
    """What the backward reads at the least cost; residuals are called #0, #1, …"""
    readable = tuple(s for s in result_values(program) if s.node not in marks.recomputed)
    saved = _worthwhile(readable, emit, Prices(program, beside=False))
    gradients = _emitted(emit, saved)
    extra = kept_values(program, gradients, marks)
    if extra:
        saved = _with_residuals(program, emit, marks, saved, extra)
        gradients = _emitted(emit, saved)
    used = {n.param for n in topological(gradients) if isinstance(n, Read)}
    return tuple(s for s in saved if s.param.name in used)


def _with_residuals(
    program: Program, emit: Emit, marks: Marks, saved: tuple[Saved, ...], extra: tuple[Node, ...]
) -> tuple[Saved, ...]:
    """`saved` with the values at the cut; sums of exponentials as their logarithms where that suffices."""
    plain = tuple(n for n in extra if not (isinstance(n, Reduce) and not is_contraction(n)))
    logarithms = tuple(n for n in log_sums(program) if n not in marks.recomputed)
    added: tuple[Saved, ...] = ()
    for values in ((*plain, *logarithms), extra):
        added = tuple(Saved(Param(f"#{k}", _ordered(program, n), n.dtype), n) for k, n in enumerate(values))
        if not kept_values(program, _emitted(emit, (*saved, *added)), marks):
            break
    return (*saved, *_used(added, _emitted(emit, (*saved, *added))))


def _torn(gradients: Iterable[Node], saved: tuple[Saved, ...]) -> frozenset[Node]:
    """The values to be read of which a function that jumps would see a computed version as well.

    A value in full precision differs from what is computed again if it depends on the order of a sum; a
    narrowed one differs from everything that goes back to the same operand.
    """
    read = {s.node: s for s in saved}
    found: set[Node] = set()
    for node in _outside(gradients, read):
        if not jumps(node):
            continue
        computed = set(_outside(node.args, read))
        there = {a for n in (node, *computed) for a in n.args if a in read}
        for value in there:
            if read[value].narrowed:
                others = computed.union(*(topological([v]) for v in there - {value}))
                torn = any(isinstance(n, Read) for n in others.intersection(topological([value])))
            else:
                torn = any(depends_on_order(n) for n in computed.intersection(topological([value])))
            if torn:
                found.add(value)
    return frozenset(found)


def _outside(roots: Iterable[Node], read: Mapping[Node, Saved]) -> tuple[Node, ...]:
    """What is computed for `roots` when the values in `read` are there."""
    return topological(roots, known=(read,))


def result_values(program: Program) -> tuple[Saved, ...]:
    """The results as values that can be read: each result's node, and what it narrows."""
    found: dict[Node, Saved] = {}
    for result in program.results:
        node = result.node
        if set(result.axes) != set(node.axes) or not node.args:
            continue
        param = Param(result.name, result.axes, result.dtype)
        found.setdefault(node, Saved(param, node))
        if isinstance(node, Cast) and node.arg.dtype.is_float and node.arg.dtype.bits > node.dtype.bits:
            found.setdefault(node.arg, Saved(param, node.arg, narrowed=True))
    return tuple(found.values())


def _worthwhile(readable: tuple[Saved, ...], emit: Emit, prices: Prices) -> tuple[Saved, ...]:
    """The readable values that lower the cost, dropped one by one."""
    gradients = _emitted(emit, readable)
    kept = _used(readable, gradients)
    best = _cost(gradients, kept, prices)
    for candidate in kept:
        fewer = tuple(s for s in kept if s.param.name != candidate.param.name)
        if len(fewer) == len(kept):
            continue
        without = _cost(_emitted(emit, fewer), fewer, prices)
        if without < best:
            best, kept = without, fewer
    return kept


def _emitted(emit: Emit, saved: tuple[Saved, ...]) -> tuple[Node, ...]:
    table = {s.node: s.stand_in for s in saved}
    return tuple(replace(root, table) for root in emit(saved))


def _used(saved: Iterable[Saved], gradients: Iterable[Node]) -> tuple[Saved, ...]:
    present = set(topological(gradients))
    return tuple(s for s in saved if s.stand_in in present)


def _cost(gradients: tuple[Node, ...], saved: tuple[Saved, ...], prices: Prices) -> float:
    """Bytes read and operations done, in bytes."""
    narrow = {s.param.name for s in saved if s.narrowed}
    tiles: dict[str, float] = {}
    work = 0.0
    for node in topological(gradients):
        if isinstance(node, Read):
            tiles[node.param] = (NARROW if node.param in narrow else 1.0) * prices.bytes(node)
        else:
            work += prices.computing(node, Marks())
    return sum(tiles.values()) + work


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
