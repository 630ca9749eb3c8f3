"""Dear values that several contractions read: computed once, for memory.

    dx = Σ_n dy · gelu'(z) · w,  dw = Σ_m dy · gelu'(z) · x        dy · gelu'(z) goes through memory

A contraction computes what stands before its product while it reads a side: the CPU as it packs, a GPU for
every tile anew. Arithmetic is free there. An elementary function costs more than to have the value written
once, and to read it instead of what it is made of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from tilewright.compiler.grouping import Group
from tilewright.dsl.program import Cast, Map, Node, topological
from tilewright.dsl.scalars import DEAR


def shared_dearly(groups: Iterable[Group], form: Callable[[Node], int]) -> frozenset[int]:
    """The forms (`Namesakes.form`) of the dear values that two contractions or more compute: the outermost.

    form: what namesakes have in common.
    """
    values = [_dear_values(group) for group in groups if group.lead.contraction]
    makers = Counter(f for nodes in values for f in {form(node) for node in nodes})
    found: set[int] = set()
    for nodes in values:
        shared = {node for node in nodes if makers[form(node)] > 1}
        found |= {form(node) for node in shared - {arg for node in shared for arg in node.args}}
    return frozenset(found)


def _dear_values(group: Group) -> set[Node]:
    """What the sides of a contraction compute with an elementary function, at the positions of that.

    exp(x[m, k]) · s is dear; x[m, k] · exp(s[k]) is not, but exp(s[k]) is.
    """
    contraction = group.lead.contraction
    assert contraction
    given = {*group.boundaries, *group.borrowed}
    dear: set[Node] = set()
    for node in topological((contraction.left, contraction.right), known=[given]):
        follows = any(arg in dear and set(arg.axes) == set(node.axes) for arg in node.args)
        if isinstance(node, (Map, Cast)) and (follows or _is_elementary(node)):
            dear.add(node)
    return dear


def _is_elementary(node: Node) -> bool:
    return isinstance(node, Map) and node.function in DEAR
