"""Partition: cuts a Program into kernels.

    1. factorise products of many factors; cut reductions of everything into bounded partial results 2.
    targets: decide which nodes must go through memory (results, contractions, reductions whose axes do
    not fit the
       kernel that needs them) until nothing new is found
    3. reductions across rows join the kernel that already reads those rows, as partial results 4. one
    kernel a target, then merge what shares data: rows of one shape, pointwise work into rows, pointwise
    work
       into the contraction that it follows
    5. write each kernel's phases

A merge is made only where no other kernel has to run in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from tilewright.compiler.chunks import chunks_axis, is_chunk_axis, rows_axis
from tilewright.compiler.contraction import factorise, recognise
from tilewright.compiler.nest import ACCUMULATOR, Buffer, Contraction, Kernel, Output, Phase, Plan, Split
from tilewright.dsl.axes import union
from tilewright.dsl.dtypes import int64
from tilewright.dsl.program import Const, Index, Map, Node, Param, Program, Read, Reduce, Result, topological
from tilewright.dsl.program import replace as replace_nodes

Shape = tuple[frozenset[str], frozenset[str]]


@dataclass(frozen=True, eq=False)
class Target:
    """A node that goes through memory, and the loops that compute it."""

    node: Node
    parallel: tuple[str, ...]
    row: tuple[str, ...]
    contraction: Contraction | None = None
    partial: Split | None = None
    combine: str | None = None

    @property
    def shape(self) -> Shape:
        return frozenset(self.parallel), frozenset(self.row)


@dataclass(frozen=True)
class Partial:
    """Partial results of a reduction: the buffer's name, the chunk axis and the reduction they add up to."""

    buffer: str
    split: Split
    of: Reduce


def partition(program: Program) -> Plan:
    """The kernels that compute a Program."""
    roots = factorise(tuple(_over_all_axes(r) for r in program.results))
    cross: dict[Reduce, Partial] = {}
    while True:
        work = _Partitioner(program, roots, cross)
        work.find_targets()
        found = work.cross_candidate()
        if found is None:
            return work.plan()
        cross = {
            **cross,
            found: Partial(f"partial{len(cross)}", Split(rows_axis(found.over), "parallel"), found),
        }


def _over_all_axes(result: Result) -> Node:
    """A result's node, made to depend on the axes along which the result only repeats it."""
    node = result.node
    for axis in result.axes:
        if axis not in node.axes:
            everywhere = Map("ge", (Index(axis), Const(0, int64)))
            node = Map("where", (everywhere, node, node))
    return node


class _Partitioner:
    def __init__(self, program: Program, roots: tuple[Node, ...], cross: dict[Reduce, Partial]):
        self.program = program
        self.partials = dict(cross)
        self.partial_reads: dict[str, Partial] = {p.buffer: p for p in cross.values()}
        self.finishers: dict[Node, Node] = {r: self._finisher(p) for r, p in cross.items()}
        self.roots = tuple(self._finish(root) for root in roots)
        self.targets: dict[Node, Target] = {}

    # --- reductions in two steps ------------------------------------------------------------------

    def _finisher(self, partial: Partial) -> Node:
        """The reduction over the chunks: what replaces the whole reduction in the Program."""
        axes = (partial.split.axis, *partial.of.axes)
        return Reduce(partial.of.combine, (partial.split.axis,), Read(partial.buffer, axes, partial.of.dtype))

    def _finish(self, root: Node) -> Node:
        """`root` with reductions of everything, and those known to cross rows, replaced by their second
        step.
        """
        for node in topological([root]):
            if (
                isinstance(node, Reduce)
                and node not in self.finishers
                and not node.axes
                and not _is_chunked(node)
            ):
                split = Split(chunks_axis(node.over), "row")
                partial = Partial(f"partial{len(self.partials)}", split, node)
                self.partials[node] = partial
                self.partial_reads[partial.buffer] = partial
                self.finishers[node] = self._finisher(partial)
        return replace_nodes(root, self.finishers)

    # --- which nodes go through memory ------------------------------------------------------------

    def find_targets(self) -> None:
        pending = list(self.roots)
        while pending:
            node = pending.pop(0)
            if node in self.targets or (
                isinstance(node, Read) and self._is_plain_param(node) and node not in self.roots
            ):
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
        if isinstance(node, Reduce):
            return Target(node, node.axes, node.over)
        return self._classify_consumer(node)

    def _classify_partial(self, node: Node, partial: Partial) -> Target:
        inner = replace_nodes(partial.of.arg, self.finishers)
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
        example: dict[Shape, Reduce] = {}
        for reduction in _nearest_reductions(node):
            if recognise(reduction) or _is_chunked(reduction):
                continue
            shape = (frozenset(reduction.axes), frozenset(reduction.over))
            if axes in (shape[0], shape[0] | shape[1]):
                counts[shape] = counts.get(shape, 0) + 1
                example.setdefault(shape, reduction)
        if not counts:
            return Target(node, node.axes, ())
        shape = max(counts, key=lambda s: counts[s])
        return Target(node, example[shape].axes, example[shape].over)

    def value_of(self, target: Target) -> Node:
        """What a target computes: itself, or for partial results the argument that is reduced."""
        if target.partial is None:
            return target.node
        assert isinstance(target.node, Read)
        partial = self.partial_reads[target.node.param]
        return replace_nodes(partial.of.arg, self.finishers)

    def _boundaries(self, target: Target) -> list[Node]:
        """The values below a target that other kernels must compute."""
        if target.contraction:
            starts = (target.contraction.left, target.contraction.right)
        elif isinstance(target.node, Reduce):
            starts = (target.node.arg,)
        else:
            starts = (self.value_of(target),)
        crossing: set[Node] = set()
        inside: set[Node] = set()
        stack = list(starts)
        while stack:
            node = stack.pop()
            if node in inside or node in crossing:
                continue
            if self._crosses_memory(node, target):
                crossing.add(node)
            else:
                inside.add(node)
                stack.extend(node.args)
        return _raised(starts, inside, crossing, target.node)

    def _operands(self, target: Target) -> frozenset[str]:
        nodes = topological([self.value_of(target)])
        return frozenset(n.param for n in nodes if isinstance(n, Read) and n.names)

    def _crosses_memory(self, node: Node, target: Target) -> bool:
        if isinstance(node, Read):
            return node.param in self.partial_reads
        if not isinstance(node, Reduce):
            return False
        if target.contraction or recognise(node):
            return True
        if target.partial and target.partial.of == "row":
            return True
        return (frozenset(node.axes), frozenset(node.over)) != target.shape

    # --- reductions across the rows of another kernel ---------------------------------------------

    def cross_candidate(self) -> Reduce | None:
        """A reduction over the rows of a kernel that reads the same data, if there is one left."""
        rows = {t.shape: t for t in self.targets.values() if t.row and not t.contraction and not t.partial}
        for target in self.targets.values():
            node = target.node
            if target.contraction or target.partial or not isinstance(node, Reduce) or _is_chunked(node):
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

    # --- kernels ----------------------------------------------------------------------------------

    def plan(self) -> Plan:
        groups = _merge(
            self, [_Group([t], self._boundaries(t), self._operands(t)) for t in self.targets.values()]
        )
        buffers = self._buffers(groups)
        kernels = tuple(self._kernel(group, position, buffers) for position, group in enumerate(groups))
        kernels = tuple(k for k in kernels if k.outputs)
        results = tuple(self._result_buffers())
        written = [o.buffer for k in kernels for o in k.outputs]
        intermediates = tuple(b for b in dict.fromkeys(written) if b not in results)
        return Plan(self.program, kernels, results, intermediates)

    def _result_buffers(self) -> Iterable[Buffer]:
        for result, root in zip(self.program.results, self.roots, strict=True):
            yield Buffer(result.name, result.axes, root.dtype)

    def _buffers(self, groups: list[_Group]) -> dict[Node, tuple[Buffer, ...]]:
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
        """The order of an intermediate's dimensions: as the operands declare their axes."""
        declared = union(*(p.axes for p in self.program.params))
        return tuple(sorted(node.axes, key=lambda a: declared.index(a) if a in declared else len(declared)))

    def _kernel(self, group: _Group, position: int, buffers: dict[Node, tuple[Buffer, ...]]) -> Kernel:
        lead = group.lead
        reads = {b: _read_of(b, buffers) for b in group.boundaries}
        outputs: list[Output] = []
        contraction = None
        if lead.contraction:
            inner = lead.contraction
            contraction = replace(
                inner, left=replace_nodes(inner.left, reads), right=replace_nodes(inner.right, reads)
            )
        for target in group.targets:
            value = replace_nodes(self.value_of(target), reads)
            if contraction:
                accumulator = Read(ACCUMULATOR, contraction.root.axes, contraction.root.dtype)
                value = replace_nodes(self.value_of(target), {**reads, contraction.root: accumulator})
            accumulate = target.combine if target.partial and target.partial.of == "parallel" else None
            if target.partial and target.partial.of == "row":
                value = Reduce(target.combine or "sum", target.row, value)
            outputs.extend(Output(buffer, value, accumulate) for buffer in buffers[target.node])
        split = next((t.partial for t in group.targets if t.partial), None)
        parallel, row = lead.parallel, () if contraction else lead.row
        phases = () if contraction else _phases(outputs, row)
        kernel = Kernel(
            f"{self.program.name}_{position}", parallel, row, tuple(outputs), phases, contraction, split
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


def _is_chunked(node: Reduce) -> bool:
    return any(is_chunk_axis(axis) for axis in node.over)


def _raised(starts: tuple[Node, ...], inside: set[Node], crossing: set[Node], whole: Node) -> list[Node]:
    """The topmost values that a kernel which computes one of `crossing` could finish by itself.

    `log(sum(e)) - picked` goes through memory as one value a row, not as the two reductions that it is
    made of; a contraction goes through memory behind its bias and activation.
    """
    support: dict[Node, frozenset[Node]] = {}
    for node in topological(starts):
        if node in crossing:
            support[node] = frozenset([node])
        elif node in inside:
            support[node] = frozenset().union(*(support[a] for a in node.args)) if node.args else frozenset()
    found: dict[Node, None] = {}
    stack, seen = list(starts), set()
    while stack:
        node = stack.pop()
        if node in seen or not support.get(node):
            continue
        seen.add(node)
        if node in crossing or (node is not whole and _one_kernel(node, support[node])):
            found[node] = None
        else:
            stack.extend(node.args)
    return list(found)


def _one_kernel(node: Node, support: frozenset[Node]) -> bool:
    """Whether `node` is pointwise in values of one kernel that have all its axes."""
    axes = frozenset(node.axes)
    if not axes or any(
        not isinstance(s, Reduce) or frozenset(s.axes) != axes or _is_chunked(s) for s in support
    ):
        return False
    if any(recognise(s) for s in support):
        return len(support) == 1
    return len({frozenset(s.over) for s in support if isinstance(s, Reduce)}) == 1


def _nearest_reductions(node: Node) -> list[Reduce]:
    """The reductions that a node reaches through pointwise functions alone."""
    found: dict[Reduce, None] = {}
    seen: set[Node] = set()
    stack = [node]
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        if isinstance(current, Reduce):
            found[current] = None
        else:
            stack.extend(current.args)
    return list(found)


def _shares_reads(first: Node, second: Node) -> bool:
    def big(root: Node) -> set[str]:
        return {n.param for n in topological([root]) if isinstance(n, Read) and len(n.names) > 1}

    return bool(big(first) & big(second))


def _below(node: Node, root: Node) -> bool:
    return node in topological([root])


# --- merging --------------------------------------------------------------------------------------


class _Group:
    """Targets that become one kernel; the first one decides the loops."""

    def __init__(self, targets: list[Target], boundaries: list[Node], operands: frozenset[str]):
        self.targets = targets
        self.boundaries = boundaries
        self.operands = operands

    @property
    def lead(self) -> Target:
        return self.targets[0]

    @property
    def nodes(self) -> set[Node]:
        return {t.node for t in self.targets}


def _merge(work: _Partitioner, groups: list[_Group]) -> list[_Group]:
    for fits in (_epilogue_fits, _fits):
        groups = _merge_where(work, groups, fits)
    return _ordered(groups)


def _merge_where(
    work: _Partitioner, groups: list[_Group], fits: Callable[[_Group, _Group], bool]
) -> list[_Group]:
    merged = True
    while merged:
        merged = False
        for first in groups:
            for second in groups:
                if first is second or not fits(first, second) or _runs_between(groups, first, second):
                    continue
                targets = [*first.targets, *second.targets]
                inside = {t.node for t in targets}
                boundaries = [
                    b
                    for b in dict.fromkeys([*first.boundaries, *second.boundaries])
                    if b not in inside or _is_split(b, work)
                ]
                groups = [g for g in groups if g is not second]
                groups[groups.index(first)] = _Group(targets, boundaries, first.operands | second.operands)
                merged = True
                break
            if merged:
                break
    return groups


def _is_split(node: Node, work: _Partitioner) -> bool:
    return isinstance(node, Read) and node.param in work.partial_reads


def _fits(first: _Group, second: _Group) -> bool:
    """Whether `second`'s targets can be computed in the loops of `first`, and would share data there."""
    if second.lead.contraction:
        return False
    if any(_is_chunk_read(b) and b in first.nodes for b in second.boundaries):
        return False
    if any(_is_chunk_read(b) and b in second.nodes for b in first.boundaries):
        return False
    one, two = first.lead, second.lead
    first_split = next((t.partial for t in first.targets if t.partial), None)
    second_split = next((t.partial for t in second.targets if t.partial), None)
    if first_split or second_split:
        return _splits_fit(first, second, first_split, second_split)
    if one.contraction:
        return _epilogue_fits(first, second)
    if two.row:
        return one.shape == two.shape and _related(first, second)
    whole = set(one.parallel) | set(one.row)
    return set(two.parallel) in (whole, set(one.parallel)) and _related(first, second)


def _epilogue_fits(first: _Group, second: _Group) -> bool:
    """Whether `second` is pointwise work on the sums of the contraction `first`."""
    one, two = first.lead, second.lead
    if not one.contraction or two.contraction or two.row or any(t.partial for t in second.targets):
        return False
    return set(two.parallel) == set(one.parallel) and bool(set(second.boundaries) & first.nodes)


def _splits_fit(first: _Group, second: _Group, one: Split | None, two: Split | None) -> bool:
    if first.lead.contraction or not _related(first, second):
        return False
    if one and two:
        return (
            one.of == two.of
            and first.lead.row == second.lead.row
            and (one.of == "row" or first.lead.shape == second.lead.shape)
        )
    split = one or two
    assert split is not None
    if split.of != "parallel":
        return False
    if first.lead.shape == second.lead.shape:
        return True
    return (
        one is not None
        and not second.lead.row
        and set(second.lead.parallel) == set().union(*first.lead.shape)
    )


def _is_chunk_read(node: Node) -> bool:
    return isinstance(node, Read)


def _related(first: _Group, second: _Group) -> bool:
    """Whether two groups read the same operand or one reads what the other writes."""
    if set(second.boundaries) & first.nodes or set(first.boundaries) & second.nodes:
        return True
    return bool(first.operands & second.operands)


def _depends(groups: list[_Group]) -> dict[int, set[int]]:
    """For each group the groups that must run before it."""
    writer = {node: position for position, g in enumerate(groups) for node in g.nodes}
    direct = {p: {writer[b] for b in g.boundaries if writer[b] != p} for p, g in enumerate(groups)}
    closed: dict[int, set[int]] = {}

    def close(position: int) -> set[int]:
        if position not in closed:
            closed[position] = set()
            for before in direct[position]:
                closed[position] |= {before} | close(before)
        return closed[position]

    return {p: close(p) for p in direct}


def _runs_between(groups: list[_Group], first: _Group, second: _Group) -> bool:
    before = _depends(groups)
    one, two = groups.index(first), groups.index(second)
    return any(
        (one in before[p] and p in before[two]) or (two in before[p] and p in before[one]) for p in before
    )


def _ordered(groups: list[_Group]) -> list[_Group]:
    before = _depends(groups)
    return [groups[p] for p in sorted(before, key=lambda p: (len(before[p]), p))]


# --- phases ---------------------------------------------------------------------------------------


def _phases(outputs: list[Output], row: tuple[str, ...]) -> tuple[Phase, ...]:
    """Which loop over the row computes what: a node's phase is the number of reductions it waits for."""
    rows = set(row)
    level: dict[Node, int] = {}
    reductions: dict[int, list[Reduce]] = {}
    for node in topological(o.node for o in outputs):
        below = max((level[a] for a in node.args), default=0)
        if isinstance(node, Reduce):
            reductions.setdefault(below, []).append(node)
            below += 1
        level[node] = below
    stores: dict[int, list[Output]] = {}
    finals: dict[int, list[Output]] = {}
    last_loop = max(reductions, default=-1)
    for output in outputs:
        in_loop = output.accumulate is not None or bool(rows & set(output.buffer.axes)) or not rows
        if in_loop:
            stores.setdefault(level[output.node], []).append(output)
        else:
            finals.setdefault(min(max(level[output.node] - 1, 0), max(last_loop, 0)), []).append(output)
    count = max([0, *stores, *reductions, *finals]) + 1
    return tuple(
        Phase(tuple(reductions.get(p, ())), tuple(stores.get(p, ())), tuple(finals.get(p, ())))
        for p in range(count)
    )
