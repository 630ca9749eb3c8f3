"""Loop nests: what a Program becomes before any target sees it.

A `Plan` is a list of kernels over named buffers. Every kernel has *parallel* axes (one piece of work per
position, in any order) and *row* axes, over which it loops in one or several *phases*: what depends on a
finished reduction starts the next phase. Its expressions are still nodes of the Program, in which every
value that another kernel computes has become a `Read` of a buffer, so a target has one thing to do: walk
the phases and spell the nodes.

    pointwise     for p in parallel:                       store f(p)
    row           for p in parallel:  for each phase: for r in row:  accumulate reductions, store f(p, r)
                                      after the phase:               store f(p)
    scatter       out = 0;  for p in parallel: for r in row, in order:  out[positions(p, r), p] += f(p, r)
    scan          a row kernel whose loops carry states from position to position, one way or the other
    order         for p in parallel: out[:, p] = the positions of the row, sorted by f(p, :)
    contraction   for (b, m, n) tiles: acc = Σ_k left(b, m, k) · right(b, k, n);  store f(acc, b, m, n)

A *split* kernel computes bounded partial results, finished by a second, ordinary kernel: either its row
loop is cut into chunks (a reduction of everything), or its parallel positions are (a reduction across
rows, kept beside the rows' own results so that the data is read once). The chunks' axis is called `#0`,
`#1`, …; its extent depends on the extents of the call alone, never on the number of threads, so results
are bit-equal for every thread count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from tilewright.dsl.axes import base, union
from tilewright.dsl.dtypes import DType
from tilewright.dsl.program import At, Node, Order, Param, Program, Read, Reduce, Scan, Scatter, topological

ACCUMULATOR = "#acc"  # the param that an epilogue reads the finished sum from


@dataclass(frozen=True)
class Buffer:
    """Memory that kernels write: a result of the Program or an intermediate, C-contiguous over its axes."""

    name: str
    axes: tuple[str, ...]
    dtype: DType


@dataclass(frozen=True)
class Output:
    """One thing that a kernel writes. `accumulate` names the combine of a cross-row partial result.

    `places` are the positions along the buffer's axes where that is written whose axes are not the kernel's
    own; those beyond its ends are not.
    """

    buffer: Buffer
    node: Node
    accumulate: str | None = None
    places: tuple[Node, ...] = ()

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes of the loops that write it."""
        return union(*(place.axes for place in self.places)) if self.places else self.buffer.axes


@dataclass(frozen=True)
class Contraction:
    """Σ_k left · right, its axes in groups. The kernel's outputs read the sum as the param `ACCUMULATOR`."""

    root: Reduce
    left: Node
    right: Node
    batch: tuple[str, ...]
    m: tuple[str, ...]
    n: tuple[str, ...]
    k: tuple[str, ...]

    def beside(self, side: Node) -> Node:
        """The other side."""
        return self.right if side == self.left else self.left


@dataclass(frozen=True)
class Split:
    """Chunks along `axis`: of the row loop ("row") or of the parallel positions ("parallel")."""

    axis: str
    of: str


@dataclass(frozen=True)
class Start:
    """What a scan continues in a chunk of its row: the state before it. The first chunk of an inclusive scan
    has nothing before it, and begins with its first element whatever `state` is there.
    """

    scan: Scan
    state: Node


@dataclass(frozen=True)
class Phase:
    """One loop over the row axes: reductions that it finishes, what it stores inside, and after the loop.

    `scans` are those that its values need, operands before users. A phase that needs scans of an earlier one
    walks them again. What is stored of a scan after the loop is its last value.
    """

    reductions: tuple[Reduce, ...]
    stores: tuple[Output, ...]
    finals: tuple[Output, ...]
    scans: tuple[Scan, ...] = ()

    @property
    def roots(self) -> tuple[Node, ...]:
        """What the loop computes at each position."""
        return (*(r.arg for r in self.reductions), *(o.node for o in self.stores), *self.ends)

    @property
    def ends(self) -> tuple[Scan, ...]:
        """The scans of which the last value is stored."""
        return tuple(o.node for o in self.finals if isinstance(o.node, Scan))


@dataclass(frozen=True)
class Kernel:
    """One pass over memory. `own` is the node that has the kernel for itself, where it is neither pointwise
    nor a reduction: the outputs' nodes are then what it scatters or sorts. `single` axes have one position in
    the calls that the kernel is for; no loop walks them. `starts` are those of scans of a chunk; scans that
    have none begin in each chunk anew.
    """

    name: str
    parallel: tuple[str, ...]
    row: tuple[str, ...]
    outputs: tuple[Output, ...]
    phases: tuple[Phase, ...]
    contraction: Contraction | None = None
    split: Split | None = None
    own: Scatter | Order | None = None
    inputs: tuple[Param, ...] = field(default=())
    single: tuple[str, ...] = ()
    starts: tuple[Start, ...] = ()

    @property
    def kind(self) -> str:
        if self.contraction:
            return "contraction"
        if self.own:
            return type(self.own).__name__.lower()
        if self.scans:
            return "scan"
        return "row" if self.row else "pointwise"

    @property
    def scans(self) -> tuple[Scan, ...]:
        """All scans of the kernel; they have one axis, which is its row, and walk it in one direction."""
        return tuple(dict.fromkeys(scan for phase in self.phases for scan in phase.scans))

    @property
    def scatter(self) -> Scatter | None:
        return self.own if isinstance(self.own, Scatter) else None

    @property
    def order(self) -> Order | None:
        return self.own if isinstance(self.own, Order) else None

    @property
    def tiles(self) -> tuple[Param, ...]:
        return tuple(p for p in self.inputs if not p.scalar)

    @property
    def scalars(self) -> tuple[Param, ...]:
        return tuple(p for p in self.inputs if p.scalar)

    @property
    def roots(self) -> tuple[Node, ...]:
        return tuple(o.node for o in self.outputs)

    @property
    def leading(self) -> tuple[Node, ...]:
        """The expressions that the kernel's loops compute."""
        sides = (self.contraction.left, self.contraction.right) if self.contraction else ()
        places = self.scatter.positions if self.scatter else ()
        written = (place for output in self.outputs for place in output.places)
        states = (start.state for start in self.starts)
        return (*sides, *places, *written, *states, *self.roots)

    def nodes(self) -> tuple[Node, ...]:
        return topological(self.leading)

    def axes(self) -> tuple[str, ...]:
        """Every axis whose extent the kernel needs, without primes, in order of first use."""
        found: dict[str, None] = {}
        for output in self.outputs:
            found.update(dict.fromkeys(base(a) for a in output.buffer.axes))
        summed = self.contraction.k if self.contraction else ()
        for axis in (*self.parallel, *self.row, *self.single, *summed):
            found[base(axis)] = None
        for node in self.nodes():
            found.update(dict.fromkeys(base(a) for a in node.axes))
            axis = getattr(node, "axis", None)
            if axis is not None:
                found[base(axis)] = None
        if self.split:
            found[self.split.axis] = None
        return tuple(found)


@dataclass(frozen=True)
class Plan:
    """The kernels of a Program in an order that can be run, and the buffers between them.

    The kernels take every axis to have a position. A call in which one has none (`dsl.empty`) is planned
    again, from the `definition`: the Program before it was simplified.
    """

    program: Program
    definition: Program
    kernels: tuple[Kernel, ...]
    results: tuple[Buffer, ...]
    intermediates: tuple[Buffer, ...]


def needed(node: Node) -> tuple[Node, ...]:
    """The nodes whose values a kernel needs for a node's own; an indexed operand is not read at its own."""
    return node.positions if isinstance(node, At) and isinstance(node.arg, Read) else node.args


def reads_of(kernel: Kernel) -> tuple[Read, ...]:
    """The operands that a kernel reads at its own coordinates."""
    return tuple(node for node in evaluated(kernel.leading) if isinstance(node, Read))


def indexed_reads(kernel: Kernel) -> tuple[At, ...]:
    """The operands that a kernel reads at computed positions."""
    return tuple(node for node in kernel.nodes() if isinstance(node, At))


def outermost(
    roots: Iterable[Node], wanted: Callable[[Node], bool], finished: type[Node] | tuple[()] = ()
) -> list[Node]:
    """The nodes that are `wanted` and needed for `roots` otherwise than for another one of them."""
    stack, seen, found = list(roots), set(), []
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if wanted(node):
            found.append(node)
        else:
            stack.extend(() if isinstance(node, finished) else needed(node))
    return found


def evaluated(roots: Iterable[Node], finished: type[Node] | tuple[()] = ()) -> Iterator[Node]:
    """Every node whose value is needed for those of `roots`; `finished` ones are there already."""
    stack, seen = list(roots), set()
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(() if isinstance(node, finished) else needed(node))
            yield node
