"""Partition: cuts a Program into kernels.

1. factorise products of many factors; cut reductions of everything into bounded partial results
2. targets: decide which nodes must go through memory (results, contractions, reductions whose axes
   do not fit the kernel that needs them) until nothing new is found
3. reductions across rows join the kernel that already reads those rows, as partial results
4. one kernel a target, then merge what shares data (`grouping`): rows of one shape, pointwise work
   into rows, pointwise work into the contraction that it follows
5. a value that two kernels would compute goes through memory instead where each would add it up in its own
   order below a function that jumps (`dsl.jumps`), or where contractions would have to pay for it again and
   again (`dear`): begin again
6. write each kernel's phases (`phases`)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from tilewright.compiler.boundaries import (
    direction,
    is_chunked,
    loops_of,
    nearest_loops,
    raised,
    shape_of,
)
from tilewright.compiler.chunks import chunks_axis, rows_axis
from tilewright.compiler.contraction import factorise, recognise
from tilewright.compiler.dear import shared_dearly
from tilewright.compiler.grouping import Group, Shape, Target, merge
from tilewright.compiler.nest import ACCUMULATOR, Buffer, Kernel, Output, Plan, Split, needed
from tilewright.compiler.phases import write_phases
from tilewright.dsl.axes import base, union
from tilewright.dsl.bounds import largest
from tilewright.dsl.dtypes import int64
from tilewright.dsl.jumps import chooses, depends_on_order, jumps
from tilewright.dsl.namesakes import Namesakes
from tilewright.dsl.program import (
    At,
    Const,
    Index,
    Map,
    Node,
    Order,
    Param,
    Program,
    Read,
    Reduce,
    Result,
    Scan,
    Scatter,
    topological,
)
from tilewright.dsl.program import replace as replace_nodes
from tilewright.dsl.renaming import rename

FEW = 8  # positions of an axis that is too short for vectors


@dataclass(frozen=True)
class Partial:
    """Partial results of a reduction: the buffer's name, the chunk axis and the reduction they add up to.

    `argument` is what is reduced; reductions that are known to be in two steps are replaced there, too.
    """

    buffer: str
    split: Split
    of: Reduce
    argument: Node


def partition(program: Program) -> Plan:
    """The kernels that compute a Program."""
    roots = factorise(tuple(_over_all_axes(r) for r in program.results))
    namesakes = Namesakes(program)
    partials: dict[Reduce, Partial] = {}
    once: frozenset[int] = frozenset()
    while True:
        work = _Partitioner(program, roots, partials, namesakes, once)
        work.find_targets()
        found = work.cross_candidate()
        if found is not None:
            work.cut(found, Split(rows_axis(found.over), "parallel"))
            roots, partials = work.roots, work.partials
            continue
        groups = work.groups()
        shared = work.disputed(groups) | shared_dearly(groups, namesakes.form)
        if shared <= once:
            return work.plan(groups)
        once |= shared


def _over_all_axes(result: Result) -> Node:
    """A result's node, made to depend on the axes along which the result only repeats it."""
    node = result.node
    for axis in result.axes:
        if axis not in node.axes:
            everywhere = Map("ge", (Index(axis), Const(0, int64)))
            node = Map("where", (everywhere, node, node))
    return node


class _Partitioner:
    """One attempt at the kernels, with the reductions in two steps that are known so far.

    `partials` are in the order in which they were found; in `roots` all of them have been replaced. `once`
    are the forms of values that one kernel computes for all.
    """

    def __init__(
        self,
        program: Program,
        roots: tuple[Node, ...],
        partials: dict[Reduce, Partial],
        namesakes: Namesakes,
        once: frozenset[int],
    ):
        self.program = program
        self.namesakes = namesakes
        self.once = once
        self.partials = partials
        self.roots = roots
        while (whole := self._reduction_of_everything()) is not None:
            self.cut(whole, Split(chunks_axis(whole.over), "row"))
        self.partial_reads = {p.buffer: p for p in self.partials.values()}
        self.targets: dict[Node, Target] = {}
        self.borrowed: dict[Node, Node] = {}  # a value under other names ↦ the target that it is

    # --- reductions in two steps ------------------------------------------------------------------

    def cut(self, reduction: Reduce, split: Split) -> None:
        """Has a reduction of the roots, or of another's argument, computed in two steps from now on."""
        partial = Partial(f"partial{len(self.partials)}", split, reduction, reduction.arg)
        self.roots = tuple(self._in_two_steps(root, partial) for root in self.roots)
        others = {
            of: replace(other, argument=self._in_two_steps(other.argument, partial))
            for of, other in self.partials.items()
        }
        self.partials = {**others, reduction: partial}

    def _in_two_steps(self, node: Node, partial: Partial) -> Node:
        """`node` with a reduction, under whatever names of its axes, replaced by that over the chunks."""
        reduction, axis = partial.of, partial.split.axis
        form = self.namesakes.form(reduction)
        finisher = Reduce(
            reduction.combine, (axis,), Read(partial.buffer, (axis, *reduction.axes), reduction.dtype)
        )
        table: dict[Node, Node] = {
            found: rename(finisher, self.namesakes.names(reduction, found))
            for found in topological([node])
            if isinstance(found, Reduce) and self.namesakes.form(found) == form
        }
        return replace_nodes(node, table) if table else node

    def _reduction_of_everything(self) -> Reduce | None:
        """The innermost reduction to a single value that is still in one step."""
        for node in topological(self.roots):
            if isinstance(node, Reduce) and not node.axes and not is_chunked(node):
                return node
        return None

    # --- which nodes go through memory ------------------------------------------------------------

    def find_targets(self) -> None:
        first_of: dict[int, Node] = {}
        pending = list(self.roots)
        while pending:
            node = pending.pop(0)
            if node in self.targets or (
                isinstance(node, Read) and self._is_plain_param(node) and node not in self.roots
            ):
                continue
            first = first_of.setdefault(self.namesakes.form(node), node)
            if first is not node and node not in self.roots:
                self.borrowed[node] = first
                continue
            target = self._classify(node)
            self.targets[node] = target
            pending.extend(self._boundaries(target))

    def _is_plain_param(self, node: Read) -> bool:
        return node.param not in self.partial_reads

    def _classify(self, node: Node) -> Target:
        if isinstance(node, Read) and node.param in self.partial_reads:
            return self._classify_partial(node, self.partial_reads[node.param])
        contraction = recognise(node)
        if contraction:
            return Target(
                node, union(contraction.batch, contraction.m, contraction.n), contraction.k, contraction
            )
        if isinstance(node, (Reduce, Scan)):
            return self._in_loops(node, *loops_of(node))
        if isinstance(node, Scatter):
            return Target(node, tuple(a for a in node.axes if a not in node.along), node.over, own=node)
        if isinstance(node, Order):
            return Target(node, tuple(a for a in node.axes if a != node.axis), (node.axis,), own=node)
        return self._classify_consumer(node)

    def _classify_partial(self, node: Node, partial: Partial) -> Target:
        inner = partial.argument
        if partial.split.of == "row":
            return Target(
                node,
                (partial.split.axis,),
                partial.of.over,
                partial=partial.split,
                combine=partial.of.combine,
            )
        return Target(
            node,
            partial.of.over,
            tuple(a for a in inner.axes if a in partial.of.axes),
            partial=partial.split,
            combine=partial.of.combine,
        )

    def _classify_consumer(self, node: Node) -> Target:
        """A value computed from reductions takes the loops of those that fit it, else it is pointwise."""
        axes = frozenset(node.axes)
        counts: dict[Shape, int] = {}
        example: dict[Shape, Reduce | Scan] = {}
        for found in nearest_loops(node):
            if isinstance(found, Reduce) and (recognise(found) or is_chunked(found)):
                continue
            if found is not node and self._is_computed_once(found):
                continue
            shape = shape_of(found)
            if axes in (shape[0], shape[0] | shape[1]):
                counts[shape] = counts.get(shape, 0) + 1
                example.setdefault(shape, found)
        if not counts:
            return Target(node, node.axes, ())
        shape = max(counts, key=lambda s: counts[s])
        return self._in_loops(node, *loops_of(example[shape]))

    def _in_loops(self, node: Node, parallel: tuple[str, ...], row: tuple[str, ...]) -> Target:
        starts = node.args if isinstance(node, Reduce) else (node,)
        given = {n for n in topological(starts) if n is not node and self._is_computed_once(n)}
        way = direction(starts, (frozenset(parallel), frozenset(row)), given)
        return Target(node, parallel, row, reverse=way)

    def value_of(self, target: Target) -> Node:
        """What a target computes: itself, or for partial results the argument that is reduced."""
        if target.partial is None:
            return target.node
        assert isinstance(target.node, Read)
        return self.partial_reads[target.node.param].argument

    def _boundaries(self, target: Target) -> list[Node]:
        """The values below a target that other kernels must compute."""
        if target.contraction:
            starts = (target.contraction.left, target.contraction.right)
        elif isinstance(target.node, (Reduce, Scatter, Order)):
            starts = target.node.args
        else:
            starts = (self.value_of(target),)
        crossing: set[Node] = set()
        final: set[Node] = set()
        inside: set[Node] = set()
        stack = list(starts)
        while stack:
            node = stack.pop()
            if node in inside or node in crossing:
                continue
            if self._crosses_memory(node, target):
                crossing.add(node)
                if self._is_computed_once(node):
                    final.add(node)
                continue
            inside.add(node)
            if isinstance(node, At) and not isinstance(node.arg, Read):
                crossing.add(node.arg)
            stack.extend(needed(node))
        return raised(starts, inside, crossing, final, target.node, self.roots)

    def _operands(self, target: Target) -> frozenset[str]:
        nodes = topological([self.value_of(target)])
        return frozenset(n.param for n in nodes if isinstance(n, Read) and n.names)

    def _elsewhere(self, target: Target) -> frozenset[Node]:
        """The values that a target reads at other positions than its own."""
        nodes = topological([self.value_of(target)])
        return frozenset(n.arg for n in nodes if isinstance(n, At) and not isinstance(n.arg, Read))

    def _crosses_memory(self, node: Node, target: Target) -> bool:
        if isinstance(node, Read):
            return node.param in self.partial_reads
        if isinstance(node, (Scatter, Order)) or (node is not target.node and self._is_computed_once(node)):
            return True
        if isinstance(node, Scan):
            return node.reverse != target.reverse or shape_of(node) != target.shape
        if not isinstance(node, Reduce):
            return False
        if target.own or target.contraction or recognise(node):
            return True
        if target.partial and target.partial.of == "row":
            return True
        return shape_of(node) != target.shape

    # --- reductions across the rows of another kernel ---------------------------------------------

    def cross_candidate(self) -> Reduce | None:
        """A reduction over the rows of a kernel that reads the same data, if there is one left."""
        rows = {
            t.shape: t
            for t in self.targets.values()
            if t.row and not t.contraction and not t.partial and not t.own and t.reverse is None
        }
        for target in self.targets.values():
            node = target.node
            if target.contraction or target.partial or not isinstance(node, Reduce) or is_chunked(node):
                continue
            if target.reverse is not None:
                continue
            host = rows.get((frozenset(node.over), frozenset(node.axes)))
            if (
                host is not None
                and node.axes
                and _shares_reads(node, self.value_of(host))
                and not _below(node, host.node)
            ):
                return node
        return None

    # --- values on which all kernels must agree ---------------------------------------------------

    def _is_computed_once(self, node: Node) -> bool:
        return bool(self.once) and self.namesakes.form(node) in self.once

    def disputed(self, groups: list[Group]) -> frozenset[int]:
        """The forms of values below functions that jump, or that choose, which several kernels compute."""
        nodes = topological(self.value_of(t) for t in self.targets.values())
        below = topological(a for n in nodes if jumps(n) or chooses(n) for a in n.args)
        watched = {self.namesakes.form(n) for n in below if depends_on_order(n)}
        if not watched:
            return frozenset()
        makers = Counter(form for group in groups for form in self._computed_by(group) & watched)
        return frozenset(form for form, number in makers.items() if number > 1)

    def _computed_by(self, group: Group) -> set[int]:
        """The forms of the order-dependent values that a kernel computes itself."""
        given = {*group.boundaries, *group.borrowed}
        stack = [self.value_of(t) for t in group.targets]
        seen: set[Node] = set()
        while stack:
            node = stack.pop()
            if node not in seen and node not in given:
                seen.add(node)
                stack.extend(needed(node))
        return {self.namesakes.form(n) for n in seen if depends_on_order(n)}

    # --- kernels ----------------------------------------------------------------------------------

    def groups(self) -> list[Group]:
        return merge(self.partial_reads, [self._alone(t) for t in self.targets.values()])

    def plan(self, groups: list[Group]) -> Plan:
        buffers = self._buffers(groups)
        kernels = tuple(self._kernel(group, position, buffers) for position, group in enumerate(groups))
        kernels = tuple(k for k in kernels if k.outputs)
        results = tuple(self._result_buffers())
        written = [o.buffer for k in kernels for o in k.outputs]
        intermediates = tuple(b for b in dict.fromkeys(written) if b not in results)
        return Plan(self.program, self.program, kernels, results, intermediates)

    def _alone(self, target: Target) -> Group:
        """The kernel of one target; what it borrows it reads at other positions than its own."""
        found = self._boundaries(target)
        borrowed = {node: self.borrowed[node] for node in found if node in self.borrowed}
        boundaries = list(dict.fromkeys(borrowed.get(node, node) for node in found))
        elsewhere = self._elsewhere(target) | frozenset(borrowed.values())
        return Group([target], boundaries, self._operands(target), elsewhere, borrowed)

    def _result_buffers(self) -> Iterable[Buffer]:
        for result, root in zip(self.program.results, self.roots, strict=True):
            yield Buffer(result.name, result.axes, root.dtype)

    def _buffers(self, groups: list[Group]) -> dict[Node, tuple[Buffer, ...]]:
        """The buffers that each target writes: its results, and one for other kernels that read it."""
        outside = {b for g in groups for b in g.boundaries}
        table: dict[Node, tuple[Buffer, ...]] = {}
        for position, (node, target) in enumerate(self.targets.items()):
            results = [b for b, root in zip(self._result_buffers(), self.roots, strict=True) if root is node]
            natural = [b for b in results if set(b.axes) == set(node.axes)]
            if target.partial:
                assert isinstance(node, Read)
                results = [Buffer(node.param, node.names, node.dtype)]
            elif node in outside and not natural:
                results = [*results, Buffer(f"t{position}", self._memory_order(node), node.dtype)]
            table[node] = tuple(results)
        return table

    def _memory_order(self, node: Node) -> tuple[str, ...]:
        """The order of an intermediate's dimensions: as the operands declare their axes, or a result that has
        some that they lack. Axes of a few positions in every call come first, as vectors run along the last.

        Of a contraction an axis that is read along another one stands where that does: t is (n, c, phase,
        block) for y[n, c, h] = t.at(block=h // 2, phase=h % 2). Where vectors have an axis behind those, few
        positions come last: y[n, h, c] is t, as its (n, block, phase, c) lies in memory.
        """
        few = {e.axis for e in self.program.extents if (largest(e.size) or FEW) < FEW}
        contraction = self.targets[node].contraction
        along = self._read_along(node) if contraction else {}
        stands = {a: along.get(a, a) for a in node.axes}
        declared = union(*(p.axes for p in self.program.params))
        if not set(stands.values()) <= set(declared):
            results = (r.axes for r in self.program.results)
            declared = next((axes for axes in results if set(stands.values()) <= set(axes)), declared)
        places = {a: n for n, a in enumerate(declared)}
        place = {a: places.get(stands[a], len(places)) for a in node.axes}
        last = max(node.axes, key=lambda axis: place[axis], default="")

        def order(axis: str) -> tuple[int, int]:
            many = int(base(axis) not in few)
            if not contraction:
                return many, place[axis]
            return place[axis], many if last in along else -many

        return tuple(sorted(node.axes, key=order))

    def _read_along(self, node: Node) -> dict[str, str]:
        """The axes of a value that are read at positions, and the first axis that the positions run along."""
        return {
            axis: position.axes[0]
            for found in topological(self.value_of(target) for target in self.targets.values())
            if isinstance(found, At) and found.arg is node
            for axis, position in zip(found.along, found.positions, strict=True)
            if position.axes
        }

    def _kernel(self, group: Group, position: int, buffers: dict[Node, tuple[Buffer, ...]]) -> Kernel:
        lead = group.lead
        reads = {b: _read_of(b, buffers) for b in group.boundaries}
        for node, first in group.borrowed.items():
            reads[node] = rename(_read_of(first, buffers), self.namesakes.names(first, node))
        outputs: list[Output] = []
        contraction, own = None, None
        if lead.contraction:
            inner = lead.contraction
            contraction = replace(
                inner, left=replace_nodes(inner.left, reads), right=replace_nodes(inner.right, reads)
            )
        for target in group.targets:
            value = replace_nodes(self.value_of(target), reads)
            if target.own:
                own = replace_nodes(target.own, reads)
                assert isinstance(own, (Scatter, Order))
                value = own.arg
            if contraction:
                accumulator = Read(ACCUMULATOR, contraction.root.axes, contraction.root.dtype)
                value = replace_nodes(self.value_of(target), {**reads, contraction.root: accumulator})
            accumulate = target.combine if target.partial and target.partial.of == "parallel" else None
            if target.partial and target.partial.of == "row":
                value = Reduce(target.combine or "sum", target.row, value)
            outputs.extend(Output(buffer, value, accumulate) for buffer in buffers[target.node])
        split = next((t.partial for t in group.targets if t.partial), None)
        parallel, row = lead.parallel, () if contraction else lead.row
        phases = () if contraction or own else write_phases(outputs, row)
        kernel = Kernel(
            f"{self.program.name}_{position}",
            parallel,
            row,
            tuple(outputs),
            phases,
            contraction,
            split,
            own,
        )
        return replace(kernel, inputs=self._inputs(kernel, buffers))

    def _inputs(self, kernel: Kernel, buffers: dict[Node, tuple[Buffer, ...]]) -> tuple[Param, ...]:
        written = {b.name: Param(b.name, b.axes, b.dtype) for found in buffers.values() for b in found}
        params = {p.name: p for p in self.program.params}
        names = dict.fromkeys(
            n.param for n in kernel.nodes() if isinstance(n, Read) and n.param != ACCUMULATOR
        )
        return tuple(params.get(n) or written[n] for n in names)


def _read_of(node: Node, buffers: dict[Node, tuple[Buffer, ...]]) -> Node:
    if isinstance(node, Read):
        return node
    buffer = next(b for b in buffers[node] if set(b.axes) == set(node.axes))
    return Read(buffer.name, buffer.axes, buffer.dtype)


def _shares_reads(first: Node, second: Node) -> bool:
    def big(root: Node) -> set[str]:
        return {n.param for n in topological([root]) if isinstance(n, Read) and len(n.names) > 1}

    return bool(big(first) & big(second))


def _below(node: Node, root: Node) -> bool:
    return node in topological([root])
