"""Values that differ in the names of their axes alone: computed once, read under every name.

    centred["n e"] · centred           the mean of centred, along d and along e, is one buffer

Two nodes are namesakes if they are the same expression with other names for its axes (a · b and b · a are the
same), and each name stands for an axis of the same extent as the other's: an axis of the same operand, or one
that was declared alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tilewright.dsl.axes import base
from tilewright.dsl.extents import axis_sites
from tilewright.dsl.program import (
    At,
    Cast,
    Const,
    Index,
    Map,
    Node,
    Order,
    Program,
    Read,
    Reduce,
    Scan,
    Scatter,
    Size,
    topological,
)
from tilewright.errors import InternalError

COMMUTATIVE = frozenset({"add", "mul", "and", "or", "eq", "ne"})


class Namesakes:
    """Nodes by what they are apart from the names of their axes."""

    def __init__(self, program: Program):
        self.extents = _extent_classes(program)
        self.numbers: dict[Any, int] = {}
        self.forms: dict[Node, int] = {}
        self.orders: dict[Node, tuple[str, ...]] = {}
        for declared in program.extents:
            self.extents.setdefault(declared.axis, ("declared", self.form(declared.size)))

    def form(self, root: Node) -> int:
        """The same number for namesakes, another one for anything else."""
        if root not in self.forms:
            for node in topological([root], known=[self.forms]):
                axes = _Numbers()
                key = self._key(node, axes)
                extents = tuple(self._extent(axis) for axis in axes.known)
                self.forms[node] = self.numbers.setdefault((key, extents), len(self.numbers))
                self.orders[node] = tuple(axis for axis in axes.known if axis in node.axes)
        return self.forms[root]

    def names(self, node: Node, namesake: Node) -> dict[str, str]:
        """What `namesake` calls each axis of `node`: both meet their axes in the same order."""
        if self.form(node) != self.form(namesake):
            raise InternalError(f"{node} and {namesake} differ in more than the names of axes")
        return dict(zip(self.orders[node], self.orders[namesake], strict=True))

    def _extent(self, axis: str) -> Any:
        return self.extents.get(base(axis), base(axis))

    def _key(self, node: Node, axes: _Numbers) -> Any:
        match node:
            case Const():
                return node
            case Size():
                return Size, self._extent(node.axis)
            case Index():
                return Index, axes.of((node.axis,))
            case Read():
                return Read, node.param, node.type, axes.of(node.names)
            case At():
                return self._key_of_indexing(node, axes)
        args = node.args
        if isinstance(node, Map) and node.function in COMMUTATIVE:
            args = tuple(sorted(args, key=self.forms.__getitem__))
        operands = tuple((self.forms[a], axes.of(self.orders[a])) for a in args)
        return type(node), _own_fields(node, axes), operands

    def _key_of_indexing(self, node: At, axes: _Numbers) -> Any:
        """The axes in `along` are bound: positions may run along others of the same name."""
        order = self.orders[node.arg]
        positions = tuple((self.forms[p], axes.of(self.orders[p])) for p in node.positions)
        free = tuple(a for a in order if a not in node.along)
        along = tuple(order.index(a) for a in node.along)
        return At, self.forms[node.arg], along, positions, axes.of(free)


class _Numbers:
    """Axes by the order in which a node meets them."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def of(self, axes: Iterable[str]) -> tuple[int, ...]:
        return tuple(self.known.setdefault(axis, len(self.known)) for axis in axes)


def _own_fields(node: Node, numbers: _Numbers) -> tuple:
    """What a node is besides its operands; the axes that it runs over are numbered before theirs."""
    match node:
        case Map():
            return (node.function,)
        case Cast():
            return (node.type,)
        case Reduce():
            return node.combine, numbers.of(node.over)
        case Scan():
            return node.which, node.body, numbers.of((node.axis,)), node.reverse, node.initial
        case Order():
            return numbers.of((node.axis,)), node.descending
        case Scatter():
            return numbers.of(node.over), numbers.of(node.along)
    return (node,)


def _extent_classes(program: Program) -> dict[str, Any]:
    """For each axis of an operand the first (operand, dimension) whose extent it must have."""
    classes: dict[Any, Any] = {}

    def first(key: Any) -> Any:
        while classes.get(key, key) != key:
            key = classes[key]
        return key

    sites = axis_sites(program)
    for sources in sites.values():
        for source in sources:
            classes[first(source)] = first(sources[0])
    return {axis: first(sources[0]) for axis, sources in sites.items()}
