"""Which values below a kernel's work come from other kernels, and where exactly the cut is made."""

from __future__ import annotations

from collections.abc import Collection

from tilewright.compiler.chunks import is_chunk_axis
from tilewright.compiler.contraction import recognise
from tilewright.compiler.grouping import Shape
from tilewright.dsl.program import At, Node, Order, Reduce, Scan, Scatter, topological


def is_chunked(node: Reduce) -> bool:
    """Whether a reduction is the second step of one: over chunks."""
    return any(is_chunk_axis(axis) for axis in node.over)


def nearest_loops(node: Node) -> list[Reduce | Scan]:
    """The reductions and scans that a node reaches through pointwise functions alone."""
    found: dict[Reduce | Scan, None] = {}
    seen: set[Node] = set()
    stack = [node]
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        if isinstance(current, (Reduce, Scan)):
            found[current] = None
        elif not isinstance(current, (Scatter, Order)):
            stack.extend(current.positions if isinstance(current, At) else current.args)
    return list(found)


def loops_of(node: Reduce | Scan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The parallel axes and the row axes of the loops that compute a reduction or a scan."""
    if isinstance(node, Reduce):
        return node.axes, node.over
    return tuple(a for a in node.axes if a != node.axis), (node.axis,)


def direction(roots: tuple[Node, ...], shape: Shape, given: Collection[Node] = ()) -> bool | None:
    """Whether the scans that loops of this shape can carry for `roots` run in reverse; None without scans.

    Where both directions occur the one nearest to the roots counts: the others come from memory. So do scans
    that are read at other positions, and what is `given`.
    """
    pending = list(roots)
    seen = {*given, *(node.arg for node in topological(roots) if isinstance(node, At))}
    while pending:
        node = pending.pop(0)
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, Scan) and shape_of(node) == shape:
            return node.reverse
        if isinstance(node, (Scatter, Order, Scan)):
            continue
        if isinstance(node, Reduce) and (shape_of(node) != shape or recognise(node)):
            continue
        pending.extend(node.positions if isinstance(node, At) else node.args)
    return None


def shape_of(node: Reduce | Scan) -> Shape:
    parallel, row = loops_of(node)
    return frozenset(parallel), frozenset(row)


def raised(
    starts: tuple[Node, ...],
    inside: set[Node],
    crossing: set[Node],
    final: set[Node],
    whole: Node,
    results: Collection[Node] = (),
) -> list[Node]:
    """The topmost values that a kernel which computes one of `crossing` could finish by itself.

    `log(sum(e)) - picked` goes through memory as one value a row, not as the two reductions that it is
    made of; a contraction goes through memory behind its bias and activation; a scan behind what follows it,
    if that is a result. Those of `crossing` in `final` go through memory as they are.
    """
    support = {node: frozenset([node]) for node in crossing}
    for node in topological(starts, known=[crossing]):
        if isinstance(node, (At, Scan)):
            support[node] = frozenset([node])  # values of other positions: never finished by who makes them
        elif node in inside:
            support[node] = frozenset().union(*(support[a] for a in node.args)) if node.args else frozenset()
    found: dict[Node, None] = {}
    stack, seen = list(starts), set()
    while stack:
        node = stack.pop()
        if node in seen or not support.get(node):
            continue
        seen.add(node)
        finished = _one_kernel(node, support[node]) or (node in results and _of_scans(node, support[node]))
        finished = finished and node is not whole and not support[node] & final
        if node in crossing or finished:
            found[node] = None
        else:
            stack.extend(node.args)
    return list(found)


def _of_scans(node: Node, support: frozenset[Node]) -> bool:
    """Whether `node` is pointwise in scans that one kernel can walk."""
    scans = [s for s in support if isinstance(s, Scan) and frozenset(s.axes) == frozenset(node.axes)]
    return len(scans) == len(support) and len({(s.axis, s.reverse) for s in scans}) == 1


def _one_kernel(node: Node, support: frozenset[Node]) -> bool:
    """Whether `node` is pointwise in values of one kernel that have all its axes."""
    axes = frozenset(node.axes)
    if not axes or any(
        not isinstance(s, Reduce) or frozenset(s.axes) != axes or is_chunked(s) for s in support
    ):
        return False
    if any(recognise(s) for s in support):
        return len(support) == 1
    return len({frozenset(s.over) for s in support if isinstance(s, Reduce)}) == 1
