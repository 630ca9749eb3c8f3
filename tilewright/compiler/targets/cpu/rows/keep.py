"""Row values worth keeping: needed again in a later phase, and dearer to compute than to reload.

They go to the thread's own workspace, which a row of any usual length leaves in the first or second cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tilewright.compiler.nest import Kernel
from tilewright.compiler.targets.cpu.builder import I64, Builder, Value
from tilewright.compiler.targets.cpu.coordinates import Lanes
from tilewright.compiler.targets.cpu.scope import Scope
from tilewright.compiler.targets.cpu.spelling import cost, value_type
from tilewright.dsl.axes import base
from tilewright.dsl.program import Node, Reduce

WORTH_KEEPING = 8.0
PADDING = 64  # elements: whole vectors may be written at a row's end


def kept_nodes(kernel: Kernel) -> dict[Node, int]:
    """The nodes to keep, each with the phase that computes it. Rows of a scan go together: none are kept."""
    if kernel.scans:
        return {}
    rows = set(kernel.row)
    first_phase: dict[Node, int] = {}
    kept: dict[Node, int] = {}
    for number, phase in enumerate(kernel.phases):
        roots = [*(r.arg for r in phase.reductions), *(o.node for o in phase.stores)]
        stack, seen = list(roots), set()
        while stack:
            node = stack.pop()
            if node in seen or isinstance(node, Reduce) or not rows & set(node.axes):
                continue
            seen.add(node)
            earlier = first_phase.setdefault(node, number)
            if earlier < number and node.dtype.is_float and _worth(node):
                kept.setdefault(node, earlier)
            else:
                stack.extend(node.args)
    return kept


def _worth(node: Node) -> bool:
    """Whether recomputing the node, down to operands and finished reductions, costs more than a reload."""
    total, stack, seen = 0.0, [node], set()
    while stack:
        current = stack.pop()
        if current in seen or isinstance(current, Reduce):
            continue
        seen.add(current)
        total += cost(current)
        stack.extend(current.args)
    return total >= WORTH_KEEPING


def workspace_bytes(kernel: Kernel, count: int, extents: Mapping[str, int], rows: int = 1) -> int:
    """The bytes of workspace that one thread needs for `count` kept nodes of `rows` rows."""
    length = 1
    for axis in kernel.row:
        length *= extents[base(axis)]
    return rows * count * (length + PADDING) * 8


class Keep:
    """Stores kept nodes in the phase that computes them and recalls them in later ones.

    `axes` are the row's as they are walked, the one that vectors run along last: they lie in that order. What
    a vector writes past the end of that axis is overwritten by the positions that follow.
    """

    def __init__(
        self, b: Builder, axes: Sequence[str], kept: dict[Node, int], workspace: Value, scope: Scope
    ):
        self.b = b
        self.axes = axes
        self.kept = kept
        self.workspace = workspace
        self.row: Value | None = None  # which of the rows that are in the workspace together
        self.length: Value | None = None
        if kept:
            self.length = b.constant(1, I64)
            for axis in axes:
                self.length = b.mul(self.length, scope.extent(axis))

    def _address(self, scope: Scope, slot: int, size: int) -> Value:
        b = self.b
        position = b.constant(0, I64)
        for axis in self.axes:
            coordinate = scope.coordinates[axis]
            first = coordinate.first if isinstance(coordinate, Lanes) else coordinate
            assert first is not None
            position = b.add(b.mul(position, scope.extent(axis)), first)
        assert self.length is not None
        place: Value | int = slot
        if self.row is not None:
            place = b.add(b.mul(self.row, len(self.kept)), slot)
        start = b.mul(b.mul(b.add(self.length, PADDING), 8), place)
        return b.offset(self.workspace, b.add(start, b.mul(position, size)))

    def store(self, scope: Scope, phase: int) -> None:
        for slot, (node, computed) in enumerate(self.kept.items()):
            if computed == phase and node in scope.values:
                value = scope.full(scope.values[node])
                self.b.store(value, self._address(scope, slot, value.type.bytes))

    def recall(self, scope: Scope, phase: int) -> None:
        for slot, (node, computed) in enumerate(self.kept.items()):
            if computed < phase:
                type = value_type(node.dtype, scope.lanes)
                scope.values[node] = self.b.load(self._address(scope, slot, type.bytes), type)
