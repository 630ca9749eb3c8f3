"""What a backward reads of the forward, and what it computes again.

1. A result of the op is read where that makes the backward cheaper. A result narrowed to half precision
   pays `NARROW` times its bytes, so that at equal cost the value is computed again in float32; one narrowed
   to 8 bits, which may have become NaN, is not read for it.
2. Of all other forward values, those at which the minimum cut runs (`autograd.cut`) are added to the
   forward's results. A maximum m and a sum of exp(x - m) are kept together as log Σ exp(x), if nothing else
   needs them.
3. All else is computed again.
4. Except that one function that jumps never sees two versions of a value, one read and one computed again
   (`dsl.jumps`): then what would be read is computed again as well.

A value under other names for its axes (`dsl.namesakes`) is that value: it is read under those names.

`tw.checkpoint` overrides 1 and 2: a marked value is never kept, or (`keep=True`) always.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replace_field

from tilewright.autograd.cut import Marks, Prices, is_contraction, kept_values
from tilewright.dsl.jumps import depends_on_order, jumps
from tilewright.dsl.namesakes import Namesakes
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
from tilewright.dsl.renaming import rename

NARROW = 1.05


@dataclass(frozen=True)
class Saved:
    """A forward value that the backward reads: the param `param` stands for `node` wherever it occurs."""

    param: Param
    node: Node
    narrowed: bool = False

    @property
    def stand_in(self) -> Node:
        read = Read(self.param.name, self.param.axes, self.param.dtype)
        return read if self.param.dtype == self.node.dtype else Cast(read, self.node.dtype)

    def renamed(self, name: str) -> Saved:
        return replace_field(self, param=replace_field(self.param, name=name))


Write = Callable[[Sequence[Saved]], tuple[Node, ...]]
"""Writes the gradients in terms of these values."""


class Emission:
    """The gradients as they are written with one choice of values to read or another."""

    def __init__(self, program: Program, write: Write):
        self.write = write
        self.namesakes = Namesakes(program)

    def gradients(self, saved: Sequence[Saved]) -> tuple[Node, ...]:
        """With each value of `saved` read, under whatever names."""
        roots = self.write(saved)
        table = {
            node: rename(value.stand_in, self.namesakes.names(value.node, node))
            for node, value in self.occurrences(roots, saved).items()
        }
        return tuple(replace(root, table) for root in roots)

    def used(self, saved: Sequence[Saved]) -> tuple[Saved, ...]:
        """Those that the gradients then read."""
        present = self.forms(self.gradients(saved))
        return tuple(s for s in saved if self.form(s.stand_in) in present)

    def occurrences(self, roots: Iterable[Node], saved: Iterable[Saved]) -> dict[Node, Saved]:
        """The nodes below `roots` that are values of `saved`, and which."""
        values = {self.form(s.node): s for s in reversed(tuple(saved))}
        return {n: values[self.form(n)] for n in topological(roots) if self.form(n) in values}

    def form(self, node: Node) -> int:
        return self.namesakes.form(node)

    def forms(self, roots: Iterable[Node]) -> dict[int, Node]:
        """The nodes below `roots`, one of each form."""
        return {self.form(n): n for n in topological(roots)}


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


def choose(program: Program, write: Write, name: Callable[[str], str], marks: Marks) -> Choice:
    """The gradients with the results and residuals that they read; `name` makes a new name for a residual."""
    emission = Emission(program, write)
    while True:
        saved = _chosen(program, emission, marks)
        torn = _torn(emission, saved)
        if not torn:
            break
        marks = Marks(marks.kept - torn, marks.recomputed | torn)
    given = {r.name for r in program.results}
    saved = tuple(s if s.param.name in given else s.renamed(name("saved_{}")) for s in saved)
    return Choice(emission.gradients(saved), saved)


def _chosen(program: Program, emission: Emission, marks: Marks) -> tuple[Saved, ...]:
    """What the backward reads at the least cost; residuals are called #0, #1, …"""
    readable = tuple(s for s in result_values(program) if s.node not in marks.recomputed)
    saved = _worthwhile(readable, emission, Prices(program, beside=False))
    gradients = emission.gradients(saved)
    extra = kept_values(program, gradients, marks, emission.namesakes)
    if extra:
        saved = _with_residuals(program, emission, marks, saved, extra)
        gradients = emission.gradients(saved)
    used = {n.param for n in topological(gradients) if isinstance(n, Read)}
    return tuple(s for s in saved if s.param.name in used)


def _with_residuals(
    program: Program, emission: Emission, marks: Marks, saved: tuple[Saved, ...], extra: tuple[Node, ...]
) -> tuple[Saved, ...]:
    """`saved` with the values at the cut; sums of exponentials as their logarithms where that suffices."""
    plain = tuple(n for n in extra if not (isinstance(n, Reduce) and not is_contraction(n)))
    logarithms = tuple(n for n in log_sums(program) if n not in marks.recomputed)
    added: tuple[Saved, ...] = ()
    for values in ((*plain, *logarithms), extra):
        added = tuple(Saved(Param(f"#{k}", _ordered(program, n), n.dtype), n) for k, n in enumerate(values))
        gradients = emission.gradients((*saved, *added))
        if not kept_values(program, gradients, marks, emission.namesakes):
            break
    used = emission.used((*saved, *added))
    return (*saved, *(s for s in added if s in used))


def _torn(emission: Emission, saved: tuple[Saved, ...]) -> frozenset[Node]:
    """The values to be read of which a function that jumps would see a computed version as well.

    A value in full precision differs from what is computed again if it depends on the order of a sum; a
    narrowed one differs from everything that goes back to the same operand.
    """
    gradients = emission.write(saved)
    read = emission.occurrences(gradients, saved)
    found: set[Node] = set()
    for node in topological(gradients, known=(read,)):
        if jumps(node):
            outside = topological(node.args, known=(read,))
            there = {read[a] for n in (node, *outside) for a in n.args if a in read}
            computed = {emission.form(n): n for n in outside}
            found.update(value.node for value in there if _is_torn(emission, value, there, computed))
    return frozenset(found)


def _is_torn(emission: Emission, value: Saved, there: set[Saved], computed: Mapping[int, Node]) -> bool:
    """Whether a value that is read goes back to what a function sees computed, or read narrowed, besides."""
    below = emission.forms([value.node]).keys()
    if not value.narrowed:
        return any(depends_on_order(computed[form]) for form in computed.keys() & below)
    others = {**computed, **emission.forms(v.node for v in there if v is not value)}
    return any(isinstance(others[form], Read) for form in others.keys() & below)


def result_values(program: Program) -> tuple[Saved, ...]:
    """The results as values that can be read: each result's node, and what it narrows."""
    found: dict[Node, Saved] = {}
    for result in program.results:
        node = result.node
        if set(result.axes) != set(node.axes) or not node.args:
            continue
        param = Param(result.name, result.axes, result.dtype)
        found.setdefault(node, Saved(param, node))
        if isinstance(node, Cast) and node.arg.dtype.is_float and 8 < node.dtype.bits < node.arg.dtype.bits:
            found.setdefault(node.arg, Saved(param, node.arg, narrowed=True))
    return tuple(found.values())


def _worthwhile(readable: tuple[Saved, ...], emission: Emission, prices: Prices) -> tuple[Saved, ...]:
    """The readable values that lower the cost, dropped one by one."""
    kept = emission.used(readable)
    best = _cost(emission.gradients(readable), kept, prices)
    for candidate in kept:
        fewer = tuple(s for s in kept if s.param.name != candidate.param.name)
        if len(fewer) == len(kept):
            continue
        without = _cost(emission.gradients(fewer), fewer, prices)
        if without < best:
            best, kept = without, fewer
    return kept


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
