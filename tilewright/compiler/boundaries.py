"""Which values below a kernel's work come from other kernels, and where exactly the cut is made."""

from __future__ import annotations

from tilewright.compiler.chunks import is_chunk_axis
from tilewright.compiler.contraction import recognise
from tilewright.dsl.program import At, Node, Order, Reduce, Scatter, topological


def is_chunked(node: Reduce) -> bool:
    """Whether a reduction is the second step of one: over chunks."""
    return any(is_chunk_axis(axis) for axis in node.over)


def nearest_reductions(node: Node) -> list[Reduce]:
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
        elif not isinstance(current, (Scatter, Order)):
            stack.extend(current.positions if isinstance(current, At) else current.args)
    return list(found)


def raised(starts: tuple[Node, ...], inside: set[Node], crossing: set[Node], whole: Node) -> list[Node]:
    """The topmost values that a kernel which computes one of `crossing` could finish by itself.

    `log(sum(e)) - picked` goes through memory as one value a row, not as the two reductions that it is
    made of; a contraction goes through memory behind its bias and activation.
    """
    support: dict[Node, frozenset[Node]] = {}
    for node in topological(starts):
        if node in crossing:
            support[node] = frozenset([node])
        elif isinstance(node, At):
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
        if node in crossing or (node is not whole and _one_kernel(node, support[node])):
            found[node] = None
        else:
            stack.extend(node.args)
    return list(found)


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
